"""What a model writes: the right characters, as often as their probabilities say."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from scratchrnn.models import CharModel
from scratchrnn.models.sampling import draw

CHARACTERS = "\n !abcdeé"  # V = 9
LOGITS = np.array([0.3, -1.2, 2.0, 0.2, -0.5, 1.1, -3.0, 0.0, 0.9])
DRAWS = 20_000


def new(rng: np.random.Generator, characters: str = CHARACTERS) -> CharModel:
    model = CharModel(characters, "lstm", 7, 4, 2, dtype=np.float64, rng=rng)
    for name, array in model.parameters.items():  # large, so that what was read matters
        array[...] = 0 if "bias" in name else 3 * rng.standard_normal(array.shape)
    return model


def blind(dtype: Any = np.float32) -> CharModel:
    """A model whose logits are LOGITS, whatever it has read."""
    model = CharModel(CHARACTERS, "rnn", 3, dtype=dtype)
    for array in model.parameters.values():
        array[...] = 0
    model.parameters["decoder.bias"][...] = LOGITS
    return model


def counts(text: str, model: CharModel) -> Any:
    return np.bincount(model.vocabulary.encode(text), minlength=len(CHARACTERS))


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
@pytest.mark.parametrize("top_k", [None, 4, 9])
def test_characters_come_as_often_as_softmax_says(temperature: float, top_k: int | None) -> None:
    model = blind()
    text = model.sample("ab", DRAWS, rng=np.random.default_rng(5), temperature=temperature, top_k=top_k)
    likeliest = np.argsort(-LOGITS)[: top_k or 9]
    p = torch.softmax(torch.from_numpy(LOGITS[likeliest]) / temperature, 0).numpy()
    seen = counts(text, model)
    assert set(np.flatnonzero(seen)) <= set(likeliest), "top-k never draws another character"
    assert seen.sum() == DRAWS
    expected = p * DRAWS
    rare = expected < 5  # chi-square's condition: together they are one class
    observed, expected = ([*a[~rare], a[rare].sum()] for a in (seen[likeliest], expected))
    if not rare.any():
        observed, expected = observed[:-1], expected[:-1]
    assert stats.chisquare(observed, expected).pvalue > 0.01


def test_each_character_depends_on_all_before_it(rng: np.random.Generator) -> None:
    """The greedy text is the one that torch finds when it reads all of it anew for every character."""
    model = new(rng)
    embedding = torch.from_numpy(model.embedding.weight.copy())
    lstm = torch.nn.LSTM(4, 7, 2, dtype=torch.float64)
    lstm.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in model.rnn.parameters.items()})
    decoder, bias = (torch.from_numpy(model.parameters[f"decoder.{n}"].copy()) for n in ("weight", "bias"))
    codes = model.vocabulary.encode("e!b").tolist()
    for _ in range(40):
        output, _ = lstm(embedding[codes])
        codes.append(int((decoder @ output[-1] + bias).argmax()))
    want = model.vocabulary.decode(np.array(codes[3:]))
    assert len(set(want)) > 3
    assert model.sample("e!b", 40, rng=rng, temperature=0) == want
    assert model.sample("e!b", 40, rng=rng, temperature=0.0, top_k=2) == want
    assert model.sample("e!b", 40, rng=rng, temperature=5.0, top_k=1) == want
    assert model.sample("e!b", 40, rng=rng, temperature=1e-300) == want


def test_repeats_by_seed_and_depends_on_the_prompt(rng: np.random.Generator) -> None:
    model = new(rng)

    def text(prompt: str, seed: int = 1, **options: Any) -> str:
        return model.sample(prompt, 30, rng=np.random.default_rng(seed), **options)

    assert text("abc") == text("abc") == text("abc", top_k=9)
    assert len({text("abc"), text("abc", seed=2), text("e!!", temperature=0.1), text("abc", temperature=0.1)}) == 4
    assert len(text("abc")) == 30
    assert model.sample("a", 0, rng=rng) == ""


def test_writes_as_it_draws(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    model = new(rng)
    whole = model.sample("ab", 25, rng=np.random.default_rng(3))
    endless = model.write("ab", rng=np.random.default_rng(3))
    assert "".join(itertools.islice(endless, 25)) == whole
    read: list[int] = []
    monkeypatch.setattr(CharModel, "__call__", lambda self, codes, state=None: read.append(len(codes)) or 1 / 0)
    characters = model.write("ab", rng=rng)
    assert read == [], "nothing is computed before a character is asked for"
    with pytest.raises(ZeroDivisionError):
        next(characters)
    assert read == [2]


def test_without_a_prompt(rng: np.random.Generator) -> None:
    model = new(rng)
    assert model.sample("", 20, rng=np.random.default_rng(1)) == model.sample("\n", 20, rng=np.random.default_rng(1))
    without = new(rng, "abc")
    greedy = {without.sample("", 9, rng=np.random.default_rng(seed), temperature=0) for seed in range(20)}
    assert greedy <= {without.sample(c, 9, rng=rng, temperature=0) for c in "abc"}
    assert len(greedy) > 1
    assert "".join(itertools.islice(new(rng).write(rng=rng), 3)) != ""


def test_extreme_logits_and_temperatures(rng: np.random.Generator) -> None:
    never = np.array([-np.inf, 0.0, -np.inf, 1e308, -1e308], np.float64)
    for temperature in (0, 1e-320, 1.0, 1e10):
        assert draw(never, rng=rng, temperature=temperature) == 3
    drawn = {draw(never, rng=rng, temperature=1.7e308) for _ in range(300)}
    assert drawn == {1, 3, 4}, "an endless temperature draws all alike, the impossible excepted"
    assert draw(np.zeros(4), rng=rng, temperature=0) == 0
    assert {draw(np.zeros(4), rng=rng, top_k=2) for _ in range(50)} == {0, 1}


def test_a_model_of_nan_writes_nothing(rng: np.random.Generator) -> None:
    model = blind()
    model.parameters["decoder.bias"][2] = np.nan
    characters = model.write("a", rng=rng)
    with pytest.raises(ValueError, match="logits: expected numbers; got NaN, as of a model whose training diverged"):
        next(characters)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"prompt": "bäd"}, ValueError, r"^prompt: character 'ä' \(U\+00E4\) at position 1 is not among the 9 of the"),
        ({"prompt": 3}, TypeError, "^prompt: expected a string; got int 3"),
        ({"length": -1}, ValueError, "^length: expected an integer of at least 0; got -1"),
        ({"length": 2.0}, TypeError, "^length: expected an integer of at least 0; got float 2.0"),
        ({"temperature": -0.1}, ValueError, "^temperature: expected a finite number of at least 0; got -0.1"),
        ({"temperature": float("inf")}, ValueError, "^temperature: expected a finite number of at least 0; got inf"),
        ({"top_k": 0}, ValueError, "^top_k: expected an integer of at least 1; got 0"),
        ({"top_k": 10}, ValueError, "^top_k: expected at most the 9 characters of the vocabulary; got 10"),
        ({"rng": 0}, TypeError, "^rng: expected a numpy.random.Generator; got int 0"),
    ],
)
def test_refuses_arguments_at_the_call(
    arguments: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    with pytest.raises(error, match=message):
        new(rng).write(**({"prompt": "a", "length": 3, "rng": rng} | arguments))
