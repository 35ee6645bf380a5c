"""swap: torch.nn's recurrent modules inside a model, exchanged in place."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from scratchrnn.interop import torch as interop
from scratchrnn.interop.torch import swap, swap_back
from scratchrnn.testing import assert_close

WORDS, TAGS = 20, 5


class Tagger(torch.nn.Module):
    """A tag for each word of each sentence."""

    def __init__(self, kind: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(WORDS, 8, dtype=dtype)
        self.rnn = getattr(torch.nn, kind)(8, 12, 2, dropout=0.2, bidirectional=True, batch_first=True, dtype=dtype)
        self.decoder = torch.nn.Linear(24, TAGS, dtype=dtype)

    def forward(self, words: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        packed = pack_padded_sequence(self.embedding(words), lengths, batch_first=True, enforce_sorted=False)
        read, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=words.shape[1])
        return self.decoder(read)


def train(model: Tagger, optimizer: torch.optim.Optimizer) -> list[float]:
    """Losses of 20 steps; the same words and dropout masks in every call."""
    generator = torch.Generator().manual_seed(2)
    torch.manual_seed(3)
    losses = []
    for _ in range(20):
        words = torch.randint(WORDS, (6, 9), generator=generator)
        lengths = torch.randint(1, 10, (6,), generator=generator)
        optimizer.zero_grad()
        logits = model(words, lengths)
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), (words % TAGS).flatten())
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("dtype", "rel"), [(torch.float32, 1e-4), (torch.float64, 1e-10)], ids=str)
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_swapped_tagger_learns_the_same(kind: str, dtype: torch.dtype, rel: float) -> None:
    torch.manual_seed(1)
    theirs = Tagger(kind, dtype)
    ours = copy.deepcopy(theirs)
    optimizers = [torch.optim.Adam(model.parameters(), 0.03) for model in (theirs, ours)]
    record = swap(ours)  # after the optimizer was made
    assert record.replaced == {"rnn": kind}
    assert record.left == {}
    assert type(ours.rnn) is getattr(interop, kind)
    want, got = train(theirs, optimizers[0]), train(ours, optimizers[1])
    assert got[-1] < 0.8 * got[0]
    assert_close("losses", np.array(got), np.array(want), rel=rel)
    words = torch.arange(6)[None]
    ours.eval()
    theirs.eval()
    difference = (ours(words, torch.tensor([6])) - theirs(words, torch.tensor([6]))).abs().max()
    assert difference < 20 * rel


def test_the_module_stays_itself() -> None:
    model = torch.nn.ModuleDict({"a": torch.nn.LSTM(3, 4, 2), "b": torch.nn.Linear(4, 2)})
    module, seen = model["a"], []
    parameters, state = list(module.parameters()), {name: t.clone() for name, t in model.state_dict().items()}
    module.register_forward_hook(lambda *_: seen.append("hook"))
    module.train(False)
    module.name = "mine"
    swap(model)
    assert model["a"] is module
    assert all(a is b for a, b in zip(module.parameters(), parameters, strict=True))
    assert not module.training
    assert module.name == "mine"
    assert list(model.state_dict()) == list(state)
    assert all(torch.equal(model.state_dict()[name], t) for name, t in state.items())
    module(torch.zeros(5, 2, 3))
    assert seen == ["hook"]


def test_the_model_itself_and_a_module_in_two_places() -> None:
    alone = torch.nn.RNN(3, 4)
    assert swap(alone).replaced == {"": "RNN"}
    assert type(alone) is interop.RNN
    shared = torch.nn.LSTM(4, 4)
    model = torch.nn.Sequential(shared, torch.nn.Identity(), shared)
    record = swap(model)
    assert record.replaced == {"0": "LSTM"}
    assert model[0] is model[2]
    assert swap(model).left == {"0": "already of scratchrnn"}


class Mine(torch.nn.LSTM):
    """A user's own."""


class LSTM(torch.nn.Module):
    """A user's own, of the same name."""


def test_what_is_left_and_why() -> None:
    normed = torch.nn.utils.parametrizations.weight_norm(torch.nn.LSTM(3, 4), "weight_hh_l0")
    model = torch.nn.ModuleDict({
        "gru": torch.nn.GRU(3, 4),
        "cell": torch.nn.LSTMCell(3, 4),
        "grucell": torch.nn.GRUCell(3, 4),
        "mine": Mine(3, 4),
        "float16": torch.nn.RNN(3, 4).half(),
        "meta": torch.nn.LSTM(3, 4, device="meta"),
        "normed": normed,
        "own": LSTM(),
        "linear": torch.nn.Linear(3, 4),
    })  # fmt: skip
    kinds = {name: type(module) for name, module in model.items()}
    record = swap(model)
    assert record.replaced == {}
    assert {name: type(module) for name, module in model.items()} == kinds
    assert record.left == {
        "gru": "torch.nn.GRU, which has no module here",
        "cell": "torch.nn.LSTMCell, a step a call, at which torch's is quicker; swap(model, cells=True) takes it",
        "grucell": "torch.nn.GRUCell, which has no module here",
        "mine": f"{__name__}.Mine, a subclass of torch.nn.LSTM",
        "float16": "weight_ih_l0: expected dtype float32 or float64; got float16",
        "meta": "weight_ih_l0: expected a tensor on the CPU; got one on meta",
        "normed": "torch.nn.utils.parametrize.ParametrizedLSTM, a subclass of torch.nn.LSTM",
        "own": f"{__name__}.LSTM, another LSTM than torch.nn's",
    }
    assert str(record).splitlines()[0] == "gru: left, torch.nn.GRU, which has no module here"
    assert str(swap(torch.nn.Linear(2, 2))) == "no recurrent module"
    assert str(swap(torch.nn.LSTM(2, 2))) == "(the model): torch.nn.LSTM replaced"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_quantized_and_scripted_modules_are_left() -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.LSTM(3, 4)))
    assert swap(torch.nn.Sequential(scripted)).left == {
        "0.0": "torch.jit._script.RecursiveScriptModule, another LSTM than torch.nn's"
    }
    quantized: Any = torch.ao.quantization.quantize_dynamic(torch.nn.Sequential(torch.nn.LSTM(3, 4)), {torch.nn.LSTM})
    (reason,) = swap(quantized).left.values()
    assert reason.endswith("another LSTM than torch.nn's")
    assert "quantized" in reason


@pytest.mark.parametrize("function", [swap, swap_back])
def test_argument(function: Any) -> None:
    with pytest.raises(TypeError, match=r"model: expected a torch.nn.Module; got"):
        function([torch.nn.LSTM(3, 4)])


# Cells


def test_cells_are_exchanged_where_asked_for() -> None:
    model = torch.nn.ModuleDict({
        "cell": torch.nn.LSTMCell(3, 4), "rnn": torch.nn.RNNCell(3, 4, nonlinearity="relu", bias=False),
        "float16": torch.nn.RNNCell(3, 4).half(), "gru": torch.nn.GRUCell(3, 4), "layer": torch.nn.LSTM(3, 4),
    })  # fmt: skip
    parameters, want = list(model.parameters()), model["rnn"](torch.ones(2, 3))
    record = swap(model, cells=True)
    assert record.replaced == {"cell": "LSTMCell", "rnn": "RNNCell", "layer": "LSTM"}
    assert record.left == {
        "float16": "weight_ih: expected dtype float32 or float64; got float16",
        "gru": "torch.nn.GRUCell, which has no module here",
    }
    assert type(model["rnn"]) is interop.RNNCell
    assert torch.allclose(model["rnn"](torch.ones(2, 3)), want, atol=1e-6)
    assert swap(model).left["cell"] == "already of scratchrnn"
    assert swap_back(model).replaced == record.replaced
    assert type(model["cell"]) is torch.nn.LSTMCell
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    with pytest.raises(TypeError, match=r"cells: expected True or False; got"):
        swap(model, cells=1)  # type: ignore[arg-type]


# The way back


class OfOurs(interop.RNN):
    """A user's own."""


def test_there_and_back_is_the_same_model() -> None:
    torch.manual_seed(1)
    model = Tagger("LSTM", torch.float64).eval()
    words, lengths = torch.arange(6)[None], torch.tensor([6])
    before, parameters, rnn = model(words, lengths), list(model.parameters()), model.rnn
    attributes = dict(rnn.__dict__)
    swap(model)
    model(words, lengths).sum().backward()
    record = swap_back(model)
    assert record.replaced == {"rnn": "LSTM"}
    assert record.left == {}
    assert model.rnn is rnn
    assert type(rnn) is torch.nn.LSTM
    assert rnn.__dict__.keys() == attributes.keys()
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert torch.equal(model(words, lengths), before)
    assert swap(model).replaced == {"rnn": "LSTM"}


def test_back_takes_what_was_made_here_and_leaves_subclasses() -> None:
    shared = interop.RNN(4, 4)
    model = torch.nn.ModuleDict({
        "one": shared, "same": shared, "two": interop.LSTM(3, 4), "mine": OfOurs(3, 4), "torch": torch.nn.LSTM(3, 4),
    })  # fmt: skip
    record = swap_back(model)
    assert record.replaced == {"one": "RNN", "two": "LSTM"}
    assert record.left == {"mine": f"{__name__}.OfOurs, a subclass of scratchrnn.interop.torch.RNN"}
    assert type(shared) is torch.nn.RNN
    assert type(model["mine"]) is OfOurs
    assert str(record).splitlines()[0] == "one: scratchrnn.interop.torch.RNN replaced"
    alone = interop.LSTM(3, 4)
    assert swap_back(alone).replaced == {"": "LSTM"}
    assert str(swap_back(alone)) == "no recurrent module"


EXPORTS = {
    "jit.trace": lambda model, x: torch.jit.trace(model, x)(x),
    "export": lambda model, x: torch.export.export(model, (x,)).module()(x),
    "onnx": lambda model, x: torch.onnx.export(model, (x,), io.BytesIO(), dynamo=False),
    "jit.script": lambda model, x: torch.jit.script(model)(x),
    "fx": lambda model, x: torch.fx.symbolic_trace(model)(x),
    "make_fx": lambda model, x: make_fx(model)(x)(x),
}


@pytest.mark.filterwarnings("ignore")  # of torch's own exporters, about themselves
@pytest.mark.parametrize("how", EXPORTS)
def test_what_writes_a_model_down_works_after_the_way_back(how: str) -> None:
    model, x = torch.nn.Sequential(torch.nn.LSTM(3, 4)).eval(), torch.ones(5, 1, 3)
    want = model(x)[0]
    swap(model)
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"traced or exported.*swap_back\(model\)"):
        EXPORTS[how](model, x)
    swap_back(model)
    result = EXPORTS[how](model, x)
    assert how == "onnx" or torch.equal(result[0], want)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["LSTM", "RNN", "LSTMCell", "RNNCell"])
def test_a_module_alone_is_not_scripted(kind: str) -> None:
    with pytest.raises(RuntimeError, match=r"traced or exported.*swap_back\(model\)"):
        torch.jit.script(getattr(interop, kind)(3, 4))
