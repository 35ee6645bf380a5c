"""Whole trainings on an emulated device: gradients, losses and files are those of the definition, to rounding."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends, bptt, losses, study
from scratchrnn.cli import main
from scratchrnn.models import EncoderDecoder
from scratchrnn.optim import SGD
from scratchrnn.testing import assert_close
from scratchrnn.train import Config, from_config
from tests.cuda.layers import emulated
from tests.runs import TEXT

pytestmark = emulated

T, B, I, H = 11, 3, 2, 5  # one H for all, and with it the kernels
BACKENDS = "numpy", "cuda"
ROUNDING = 1e-5  # float32, through steps and updates
Found = dict[str, np.ndarray]


@pytest.fixture(scope="module", autouse=True)
def launches() -> Iterator[list[str]]:
    """Names of the kernels that ran on the emulated device."""
    from tests.cuda.emulator.device import emulated_device

    with emulated_device(sms=2, races=False, global_races=False) as queue:
        yield queue.launches


@pytest.fixture(autouse=True)
def all_on_the_device(launches: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The default backend is for nothing: whatever forgets the one asked for fails."""

    before = len(launches)
    missing = replace(backends.REGISTRY["numba"], why_unavailable=lambda: "not in these tests")
    monkeypatch.setitem(backends.REGISTRY, "numba", missing)
    yield
    assert len(launches) > before


def assert_same(find: Callable[[str], Found]) -> None:
    want, got = (find(backend) for backend in BACKENDS)
    assert list(got) == list(want)
    for name in want:
        assert_close(name, np.asarray(got[name]), np.asarray(want[name]), rel=ROUNDING)


def flat(name: str, gradients: Any) -> Found:
    """Gradients by name."""
    state = gradients.state if isinstance(gradients.state, tuple) else (gradients.state,)
    states = {f"{name} d_state {n}": part for n, part in enumerate(state) if part is not None}
    return {f"{name} dx": gradients.input} | states | {f"{name} d{key}": g for key, g in gradients.parameters.items()}


@pytest.mark.parametrize("cell", ["rnn", "lstm", "projected"])
def test_every_way_through_time(cell: str, rng: np.random.Generator) -> None:
    x, lengths = rng.standard_normal((T, B, I), dtype=np.float32), (7, 11, 1)
    reset = rng.random((T, B)) < 0.2

    def slope(output: np.ndarray, first: int) -> np.ndarray:
        return np.sin(output + first)

    def find(backend: str) -> Found:
        options: dict[str, Any] = {"num_layers": 2, "rng": np.random.default_rng(5), "backend": backend}
        if cell == "rnn":
            layer: Any = srnn.RNN(I, H, **options)
        else:
            layer = srnn.LSTM(I, H, proj_size=4 if cell == "projected" else 0, **options)
        stream = bptt.Stream(layer)
        traces = [stream.forward(x[:4], reset[:4]), stream.forward(x[4:], reset[4:])]
        found = flat("full", bptt.full(layer, x, slope, lengths=lengths))
        found |= flat("checkpointed", bptt.checkpointed(layer, x, slope, every=4, lengths=lengths))
        found |= flat("truncated", bptt.truncated(layer, x, slope, k1=3, k2=5, lengths=lengths))
        for n, trace in enumerate(traces):
            found |= {f"stream {n}": trace.output} | flat(f"stream {n}", stream.backward(trace, slope(trace.output, n)))
        for n, window in enumerate(bptt.windows(layer, x, slope, k1=4, k2=6, reset=reset, clip=0.1)):
            found |= {f"window {n} d{name}": g.copy() for name, g in window.gradients.parameters.items()}
            SGD(layer.parameters, lr=0.1).step(window.gradients.parameters)  # the device takes the weights of now
        return found

    assert_same(find)


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "rnn", "clip": 0.5},
        {"layers": 2, "k2": 9, "learned_state": True, "accumulate": 2},
        {"k1": 5, "k2": 2, "step_clip": 0.1, "h_detach": 0.3},
        {"dropout": 0.2, "weight_drop": 0.3, "ar": 0.1, "tar": 0.1},
    ],
    ids=lambda options: " ".join(options),
)
def test_a_char_model_learns(options: dict[str, Any]) -> None:
    def find(backend: str) -> Found:
        small: dict[str, Any] = {"hidden": H, "embedding": 4, "batch": 3, "k1": 6, "steps": 4, "backend": backend}
        model, trainer = from_config(Config(**small | options), TEXT[:300])
        taken = np.array([(step.loss, step.gradient_norm) for step in trainer])
        return {"losses and norms": taken} | model.parameters

    assert_same(find)


def test_encoder_and_decoder_learn(rng: np.random.Generator) -> None:
    source, target = rng.integers(0, 9, (6, B)), rng.integers(0, 8, (T, B))

    def find(backend: str) -> Found:
        seed: Any = {"rng": np.random.default_rng(4), "backend": backend}
        encoder, decoder = srnn.LSTM(4, H, bidirectional=True, **seed), srnn.LSTM(3, H, num_layers=2, **seed)
        with srnn.use_backend(backend):  # for the bridge and the readout
            model = EncoderDecoder(encoder, decoder, source_size=9, target_size=8, rng=np.random.default_rng(3))
            optimizer, taken = SGD(model.parameters, lr=0.5), []
            for _ in range(3):
                trace = model.forward(source, target[:-1], (6, 2, 4))
                loss, d_logits = losses.cross_entropy(trace.logits, target[1:])
                gradients = model.backward(trace, d_logits).parameters
                optimizer.step(gradients)
                taken.append(loss)
            written = model.greedy(source, start=0, stop=1, max_length=5)
        return {"losses": np.array(taken), "written": np.concatenate(written).astype(np.float64)} | gradients

    assert_same(find)


def test_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`scratchrnn train` and `scratchrnn sample`."""
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TEXT[:900], encoding="utf-8")
    size = ["--hidden", str(H), "--embedding", "4", "--batch", "4", "--k1", "10", "--steps", "3"]
    told, written = {}, {}
    for backend in BACKENDS:
        _run(["train", "t.txt", "--out", backend, *size, "--json", "--backend", backend])
        told[backend] = json.loads(capsys.readouterr().out)
        _run(["sample", "numpy", "--seed", "1", "--length", "20", "--backend", backend])
        written[backend] = capsys.readouterr().out
    assert told["cuda"]["held_out_bits"] == pytest.approx(told["numpy"]["held_out_bits"], rel=ROUNDING)
    assert written["cuda"] == written["numpy"]
    assert 'backend = "cuda"' in Path("cuda/config.toml").read_text(encoding="utf-8")
    _run(["train", "--out", "cuda", "--resume", "--steps", "4"])
    assert len(Path("cuda/log.jsonl").read_text(encoding="utf-8").splitlines()) >= 4


def _run(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert not stopped.value.code


@pytest.mark.slow
def test_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(backend: str) -> Found:
        settings = study.Settings(
            steps=2, hidden_size=H, embedding_size=4, batch=3, window=6, validate_every=2, distance=7, sequences=2,
            warm_up=3, trials=2, trial_length=5, sample_length=4, seed=3, backend=backend,
        )  # fmt: skip
        results = study.run(TEXT[:400], settings)
        assert results.stopped is None
        found: Found = {}
        for cell, one in results.models.items():
            kept = {"bits": one.curve.bits, "held out": one.curve.validation, "norm": one.curve.gradient_norm}
            found |= {f"{cell} {name}": np.array(values) for name, values in kept.items()}
        return found

    assert_same(find)
