from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.models import CharModel
from scratchrnn.testing import TOLERANCE, assert_close

CHARACTERS = "\n !abcdeé"  # V = 9
T, B, E, H, L = 5, 3, 4, 7, 2


class TorchModel(torch.nn.Module):
    """The same model in torch, float64, with the same names."""

    def __init__(self, model: CharModel) -> None:
        super().__init__()
        kind = torch.nn.RNN if model.cell == "rnn" else torch.nn.LSTM
        hidden, layers = model.rnn.hidden_size, model.rnn.num_layers
        self.embedding = torch.nn.Embedding(len(model.vocabulary), model.embedding.embedding_dim)
        self.rnn = kind(model.embedding.embedding_dim, hidden, layers)
        self.decoder = torch.nn.Linear(hidden, len(model.vocabulary))
        self.double()
        own = {n: a for n, a in model.parameters.items() if not n.startswith("initial_state")}
        self.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in own.items()})

    def forward(self, indices: Any, state: Any = None) -> Any:
        output, state = self.rnn(self.embedding(indices), state)
        return self.decoder(output), state


def new(cell: str, rng: np.random.Generator, **changes: Any) -> CharModel:
    return CharModel(CHARACTERS, cell, H, E, L, **({"dtype": np.float64, "rng": rng} | changes))


def states(model: CharModel, rng: np.random.Generator) -> Any:
    h, c = rng.standard_normal((2, L, B, H))
    return h if model.cell == "rnn" else (h, c)


def to_torch(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(map(to_torch, value))
    return torch.from_numpy(value.copy()).requires_grad_(value.dtype == np.float64)


def parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_everything_equals_torch(cell: str, rng: np.random.Generator) -> None:
    model = new(cell, rng)
    reference = TorchModel(model)
    indices, targets = rng.integers(0, len(CHARACTERS), (2, T, B))
    state = states(model, rng)
    d_state = states(model, rng)

    trace = model.forward(indices, state)
    torch_state = to_torch(state)
    logits, torch_final = reference(to_torch(indices), torch_state)
    assert_close("logits", trace.logits, logits.detach().numpy(), rel=TOLERANCE["float64"])
    for name, got, want in zip("hc", parts(trace.state), parts(torch_final), strict=False):
        assert_close(name, got, want.detach().numpy(), rel=TOLERANCE["float64"])

    weights = rng.standard_normal(trace.logits.shape)
    total = (logits * to_torch(weights)).sum()
    total = total + sum((a * to_torch(b)).sum() for a, b in zip(parts(torch_final), parts(d_state), strict=True))
    total.backward()
    grads = model.backward(trace, weights, d_state)
    assert list(grads.parameters) == list(model.parameters)
    for name, parameter in reference.named_parameters():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])
    for name, got, want in zip("hc", parts(grads.state), parts(torch_state), strict=False):
        assert_close(f"d{name}_0", got, want.grad.numpy(), rel=TOLERANCE["float64"])
    assert grads.input is None
    assert grads[1].h.shape == (T + 1, B, H)

    again, final = model(indices, state)
    assert_close("inference", again, trace.logits, rel=TOLERANCE["float64"])
    assert_close("final h", parts(final)[0], parts(trace.state)[0], rel=TOLERANCE["float64"])
    assert targets.shape == (T, B)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_a_learned_state_equals_torch_expanding_it(cell: str, rng: np.random.Generator) -> None:
    model = new(cell, rng, learned_state=True)
    assert list(model.parameters)[-1] == ("initial_state.h_0" if cell == "rnn" else "initial_state.c_0")
    learned = {name: a for name, a in model.parameters.items() if name.startswith("initial_state")}
    assert all(not a.any() for a in learned.values())
    for array in learned.values():
        array[...] = rng.standard_normal(array.shape)
    reference = TorchModel(model)
    start = {name: torch.from_numpy(a.copy()).requires_grad_() for name, a in learned.items()}
    expanded = tuple(a[:, None].expand(L, B, H) for a in start.values())
    indices = rng.integers(0, len(CHARACTERS), (T, B))
    logits, _ = reference(to_torch(indices), expanded if cell == "lstm" else expanded[0])

    trace = model.forward(indices)
    assert_close("logits", trace.logits, logits.detach().numpy(), rel=TOLERANCE["float64"])
    assert_close("inference", model(indices)[0], logits.detach().numpy(), rel=TOLERANCE["float64"])
    weights = rng.standard_normal(trace.logits.shape)
    (logits * to_torch(weights)).sum().backward()
    grads = model.backward(trace, weights)
    assert list(grads.parameters) == list(model.parameters)
    for name, parameter in [*reference.named_parameters(), *start.items()]:
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])

    given = model.backward(model.forward(indices, states(model, rng)), weights)  # the learned one has no part in it
    assert all(not given.parameters[name].any() for name in learned)
    assert list(given.parameters) == list(model.parameters)


def test_a_learned_state_draws_nothing_and_is_saved(tmp_path: Path) -> None:
    plain, learned = (new("lstm", np.random.default_rng(1), learned_state=flag) for flag in (False, True))
    for name, array in plain.parameters.items():
        assert_close(name, learned.parameters[name], array, rel=0)
    learned.parameters["initial_state.c_0"][...] = 2
    learned.save(tmp_path / "m.safetensors")
    loaded = CharModel.load(tmp_path / "m.safetensors")
    assert loaded.config() == learned.config()
    assert_close("logits", loaded(np.array([[3]]))[0], learned(np.array([[3]]))[0], rel=0)
    assert np.abs(loaded(np.array([[3]]))[0] - plain(np.array([[3]]))[0]).max() > 1e-3


def test_parameters_are_the_layers_own_arrays(rng: np.random.Generator) -> None:
    model = new("lstm", rng)
    assert list(model.parameters)[:2] == ["embedding.weight", "rnn.weight_ih_l0"]
    assert list(model.parameters)[-2:] == ["decoder.weight", "decoder.bias"]
    for name, array in model.parameters.items():
        part, _, rest = name.partition(".")
        assert array is getattr(model, part).parameters[rest]
    before = model(np.array([[0]]))[0]
    model.parameters["decoder.bias"][3] += 1
    assert (model(np.array([[0]]))[0] - before)[0, 0, 3] == pytest.approx(1)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_save_and_load(cell: str, rng: np.random.Generator, tmp_path: Path) -> None:
    model = new(cell, rng, dtype=np.float32)
    model.save(tmp_path / "m.safetensors")
    loaded = CharModel.load(tmp_path / "m.safetensors")
    assert loaded.config() == model.config()
    assert loaded.vocabulary.characters == CHARACTERS
    for name, array in model.parameters.items():
        assert_close(name, loaded.parameters[name], array, rel=0)
    indices = rng.integers(0, 9, (T, B))
    assert_close("logits", loaded(indices)[0], model(indices)[0], rel=0)
    assert cell in repr(model)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"characters": "ba"}, "characters: expected each character once and sorted"),
        ({"characters": "aab"}, "characters: expected each character once and sorted"),
        ({"characters": ""}, "text: expected at least one character"),
        ({"cell": "gru"}, "cell: expected 'rnn' or 'lstm'; got 'gru'"),
        ({"hidden_size": 0}, "hidden_size: expected an integer of at least 1; got 0"),
        ({"embedding_size": -1}, "embedding_size: expected an integer of at least 1; got -1"),
        ({"backend": "abacus"}, "backend: unknown name 'abacus'; known: "),
    ],
)
def test_refuses_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        CharModel(**({"characters": "ab", "cell": "rnn", "hidden_size": 2} | arguments))


def test_refuses_input(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    with pytest.raises(ValueError, match=r"indices: expected shape \(time, batch\); got \(3,\)"):
        model.forward(np.array([0, 1, 2]))
    with pytest.raises(TypeError, match="indices: expected a NumPy array of integers"):
        model(np.zeros((2, 2)))
    with pytest.raises(ValueError, match="indices: expected values from 0 to 8; got 9"):
        model(np.array([[9]]))
