"""The settings of a run: what they refuse, and that a file gives back what was written."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given

from scratchrnn import optim
from scratchrnn.layers import WeightDrop
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.train.config import KINDS, OPTIMIZERS, OPTIONAL, SCHEDULES, SETTINGS, TABLES, Config
from scratchrnn.train.config_file import read_settings, to_toml
from scratchrnn.train.recipe import from_config

TEXT = "To be, or not to be: that is the question. " * 12  # 516 characters


def tiny(**more: Any) -> Config:
    return Config(**({"hidden": 5, "embedding": 3, "batch": 4, "k1": 7, "steps": 2, "backend": "numpy"} | more))


# --- the settings


def test_defaults_are_the_recipe() -> None:
    config = Config()
    recipe = {"cell": "lstm", "hidden": 256, "batch": 32, "k1": 100, "k2": 100, "embedding": 64, "clip": 1.0}
    recipe |= {"optimizer": "adam", "learning_rate": 3e-3, "schedule": "constant", "backend": "numba", "steps": None}
    assert recipe.items() <= dataclasses.asdict(config).items()
    assert config.epochs is not None


def test_what_is_absent_follows_from_the_rest() -> None:
    assert Config(k1=7).k2 == 7
    assert Config(k1=7, k2=9).k2 == 9
    assert (Config(steps=3).steps, Config(steps=3).epochs) == (3, None)
    assert (Config(epochs=2).steps, Config(epochs=2).epochs) == (None, 2.0)


def test_whole_numbers_become_floats_and_nothing_else_changes_its_type() -> None:
    config = Config(clip=5, learning_rate=np.float64(0.5), hidden=np.int64(3), epochs=2)
    for name in SETTINGS:
        value = getattr(config, name)
        assert value is None or type(value) is KINDS[name], name


def test_every_setting_has_a_table_and_a_meaning_and_optional_ones_are_known() -> None:
    assert set(SETTINGS) == {field.name for field in dataclasses.fields(Config)}
    assert all(setting.table in TABLES and setting.meaning.endswith((".", "]")) for setting in SETTINGS.values())
    assert {"file", "sha256", "steps", "epochs", "k2", "patience"} == OPTIONAL


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": 0}, "hidden: expected an integer of at least 1; got 0"),
        ({"hidden": "many"}, "hidden: expected an integer of at least 1; got str 'many'"),
        ({"hidden": 2.0}, "hidden: expected an integer of at least 1; got float 2.0"),
        ({"hidden": True}, "hidden: expected an integer of at least 1; got bool True"),
        ({"hidden": None}, "hidden: expected an integer of at least 1; got NoneType None"),
        ({"seed": -1}, "seed: expected an integer of at least 0; got -1"),
        ({"learning_rate": 0.0}, "learning_rate: expected a finite number above 0; got 0.0"),
        ({"learning_rate": math.inf}, "learning_rate: expected a finite number above 0; got inf"),
        ({"learning_rate": "fast"}, "learning_rate: expected a number; got str 'fast'"),
        ({"clip": math.nan}, "clip: expected a finite number above 0; got nan"),
        ({"clip": -math.inf}, "clip: expected a finite number above 0; got -inf"),
        ({"dropout": 1.0}, "dropout: expected a number below 1; got 1, which would leave nothing"),
        ({"weight_drop": -0.1}, "weight_drop: expected a number between 0 and 1; got -0.1"),
        ({"h_detach": 1.0}, "h_detach: expected a number below 1; got 1"),
        ({"h_detach": 0.25, "cell": "rnn"}, "h_detach: expected 0 with rnn, which has no other path; got 0.25"),
        ({"tar": -1}, "tar: expected a finite number of at least 0; got -1"),
        ({"learned_state": 1}, "learned_state: expected True or False; got int 1"),
        ({"epochs": 0}, "epochs: expected a finite number above 0; got 0"),
        ({"cell": "gru"}, "cell: expected one of rnn, lstm; got 'gru'"),
        ({"cell": 3}, "cell: expected a string; got int 3"),
        ({"file": "a\udcff"}, "file: expected what UTF-8 can write; got 'a\\udcff'"),
        ({"dtype": "float16"}, "dtype: expected one of float32, float64; got 'float16'"),
        ({"backend": "abacus"}, "backend: unknown name 'abacus'; known: "),
        ({"steps": 3, "epochs": 1.5}, "steps, epochs: expected one of them; got steps=3 and epochs=1.5"),
        ({"momentum": 0.9}, "momentum: expected 0 with adam, which has none; got 0.9"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as refused:
        Config(**changes)
    assert str(refused.value).startswith(message)


# --- the file


def names(**more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=more)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))
NUMBERS = st.integers(1, 10**12)
POSITIVE = st.floats(5e-324, 1.7e308)
ENDLESS = POSITIVE | st.just(math.inf)


@given(
    names(
        sha256=TEXTS, cell=st.sampled_from(["rnn", "lstm"]), hidden=NUMBERS, learned_state=st.booleans(), k2=NUMBERS,
        epochs=POSITIVE, clip=ENDLESS, step_clip=ENDLESS, patience=NUMBERS, learning_rate=POSITIVE,
        schedule=st.sampled_from(SCHEDULES), final_rate=POSITIVE, dropout=st.floats(0, 1, exclude_max=True),
        seed=st.integers(0, 2**64), backend=st.sampled_from(["numpy", "numba"]),
    )
)  # fmt: skip
def test_a_file_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("config") / "config.toml"
    config = Config(**changes)
    path.write_bytes(to_toml(config).encode())
    assert Config(**read_settings(path)) == config


@given(TEXTS)
def test_a_file_name_is_given_back(name: str) -> None:
    assert tomllib.loads(to_toml(Config(file=name)))["text"]["file"] == name


def test_a_file_shows_every_setting_with_its_meaning() -> None:
    text = to_toml(Config(steps=9))
    for name, setting in SETTINGS.items():
        (line,) = (line for line in text.splitlines() if line.startswith((f"{name} = ", f"# {name}: ")))
        assert line.endswith(setting.meaning)
    assert "# epochs: " in text
    assert "steps = 9  # " in text


def test_a_relative_text_stands_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[text]\nfile = "b.txt"')
    assert read_settings(tmp_path / "a.toml") == {"file": str(tmp_path / "b.txt")}
    (tmp_path / "a.toml").write_text('[text]\nfile = "/x/b.txt"')
    assert read_settings(tmp_path / "a.toml") == {"file": "/x/b.txt"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden = 3", "hidden: expected within [model]"),
        (
            "[modle]\nhidden = 3",
            "[modle]: no such table, did you mean model?; known: text, model, training, optimizer, ",
        ),
        ("[zzz]", "[zzz]: no such table; known: text, model, "),
        ("model = 3", "model: expected a table, [model]; got int 3"),
        ("[[model]]\nhidden = 3", "model: expected a table, [model]; got list [{'hidden': 3}]"),
        ('optimizer = "sgd"', "optimizer: expected a table, [optimizer]; got str 'sgd'"),
        (
            "[model]\nhiden = 3",
            "[model] hiden: no such setting, did you mean hidden?; known in [model]: cell, hidden, layers, embedding, ",
        ),
        ("[model]\nqqq = 3", "[model] qqq: no such setting; known in [model]: cell, "),
        ("[model]\nbatch = 3", "[model] batch: expected within [training]"),
        ("[model]\nhidden = 3.0", "[model] hidden: expected an integer of at least 1; got float 3.0"),
        ("[model]\nhidden = 0", "[model] hidden: expected an integer of at least 1; got 0"),
        ('[optimizer]\nlearning_rate = "x"', "[optimizer] learning_rate: expected a number; got str 'x'"),
        ("[optimizer]\nlearning_rate = 1979-05-27", "[optimizer] learning_rate: expected a number; got date "),
        ("[run]\nseed = true", "[run] seed: expected an integer of at least 0; got bool True"),
        ("[model]\nhidden 3", "not TOML: Expected '=' after a key in a key/value pair (at line 2, column 8)"),
        ("[model]\nhidden = 3\nhidden = 4", "not TOML: Cannot overwrite a value (at "),
        ("\udcff", "expected UTF-8; got byte 0xff at 0"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises((TypeError, ValueError)) as refused:
        read_settings(path)
    assert str(refused.value).startswith(f"{path}: {message}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"missing\.toml: no such file"):
        read_settings(tmp_path / "missing.toml")
    with pytest.raises(IsADirectoryError, match="expected a TOML file; got a folder"):
        read_settings(tmp_path)


# --- what is made of them


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer(name: str) -> None:
    momentum = 0.5 if name in {"sgd", "rmsprop"} else 0.0
    _, trainer = from_config(tiny(optimizer=name, learning_rate=0.01, weight_decay=0.25, momentum=momentum), TEXT)
    assert type(trainer.optimizer).__name__.lower() == name
    assert isinstance(trainer.optimizer, optim.Optimizer)
    state = trainer.optimizer.state_dict()
    assert (state["lr"], state["weight_decay"], state.get("momentum", 0.0)) == (0.01, 0.25, momentum)


@pytest.mark.parametrize(
    ("changes", "factors"),
    [
        ({}, [1, 1, 1, 1, 1, 1]),
        ({"schedule": "linear", "final_rate": 0.4}, [1.0, 0.9, 0.8, 0.7, 0.6, 0.5]),
        ({"schedule": "linear", "final_rate": 0.4, "warmup": 3}, [0.25, 0.5, 0.75, 1.0, 0.8, 0.6]),
        ({"schedule": "cosine", "final_rate": 0.0}, [(1 + math.cos(math.pi * n / 6)) / 2 for n in range(6)]),
    ],
)
def test_every_schedule_ends_with_the_run(changes: dict[str, Any], factors: list[float]) -> None:
    _, trainer = from_config(tiny(steps=6, **changes), TEXT)
    assert [trainer.schedule(n) for n in range(1, 7)] == pytest.approx(factors)
    _, trainer = from_config(tiny(steps=6, learning_rate=0.5, **changes), TEXT)
    assert [step.lr for step in trainer] == pytest.approx([0.5 * factor for factor in factors])


def test_epochs_are_passes_over_the_text() -> None:
    """516 characters, 465 to train on, 4 rows of 116: 17 windows of 7 steps, the last of 4."""
    _, trainer = from_config(tiny(steps=None, epochs=2), TEXT)
    steps = list(trainer)
    assert len(steps) == 34
    assert [step.items for step in steps] == ([28] * 16 + [16]) * 2
    for epochs, accumulate, updates in ((0.5, 1, 8), (2, 4, 8), (0.01, 1, 1)):
        assert from_config(tiny(steps=None, epochs=epochs, accumulate=accumulate), TEXT)[1].steps == updates


def test_the_seed_and_nothing_else_draws_the_weights() -> None:
    first, again, other = (from_config(tiny(seed=seed), TEXT)[0].state_dict() for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["rnn.weight_hh_l0"], other["rnn.weight_hh_l0"])


def test_every_size_reaches_the_model() -> None:
    model, trainer = from_config(tiny(cell="rnn", layers=2, dtype="float64", k2=11, step_clip=0.5, clip=3.0), TEXT)
    assert model.config() == {
        "characters": "".join(sorted(set(TEXT))), "cell": "rnn", "hidden_size": 5, "embedding_size": 3,
        "num_layers": 2, "learned_state": False, "dtype": "float64",
    }  # fmt: skip
    objective: Any = trainer.objective
    assert (objective.k1, objective.k2, objective.clip, trainer.max_norm) == (7, 11, 0.5, 3.0)
    assert (objective.rows.batch, trainer.steps) == (4, 2)


def test_regularization_reaches_the_objective(rng: np.random.Generator) -> None:
    model, trainer = from_config(
        tiny(dropout=0.25, weight_drop=0.5, h_detach=0.4, ar=2.0, tar=3.0, learned_state=True), TEXT
    )
    objective: Any = trainer.objective
    assert (objective.dropout, objective.h_detach) == (0.25, 0.4)
    assert isinstance(model.rnn, WeightDrop)
    assert model.rnn.p == 0.5
    assert {"initial_state.h_0", "initial_state.c_0"} <= set(trainer.optimizer.parameters)
    output = rng.standard_normal((7, 4, 5))
    reset = rng.random((7, 4)) < 0.2
    value, gradient = objective.regularization(output, reset)
    h = torch.tensor(output, requires_grad=True)
    jumps = (h[1:] - h[:-1]).square().mean(-1)[~torch.from_numpy(reset[1:])]
    want = 2.0 * h.square().mean() + 3.0 * jumps.mean()  # as in AWD-LSTM
    want.backward()
    assert value == pytest.approx(want.item(), rel=TOLERANCE["float64"])
    assert_close("gradient", gradient, h.grad.numpy(), rel=TOLERANCE["float64"])
    before = {name: array.copy() for name, array in model.parameters.items()}
    steps = list(trainer)
    assert steps[0].penalty > 0
    assert all((before[name] != array).any() for name, array in model.parameters.items()), "everything is trained"


def test_without_regularization_there_is_none() -> None:
    model, trainer = from_config(tiny(), TEXT)
    objective: Any = trainer.objective
    assert (objective.dropout, objective.h_detach, objective.clip, objective.regularization) == (0.0, 0.0, None, None)
    assert model.initial_state is None
    assert not isinstance(model.rnn, WeightDrop)


def test_a_short_text() -> None:
    with pytest.raises(ValueError, match="text: expected at least 37 characters for 32 rows; got 36"):
        from_config(tiny(batch=32), "ab" * 18)
    with pytest.raises(ValueError, match="text: expected at least 20 characters for 1 rows; got 19"):
        from_config(tiny(batch=1), "a" * 18 + "b")
    for batch, length in ((32, 37), (1, 20)):
        _, trainer = from_config(tiny(batch=batch, evaluate_every=1), ("ab" * length)[:length])
        assert trainer.run().best_step is not None
