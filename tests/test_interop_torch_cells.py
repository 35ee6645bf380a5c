"""interop.torch.LSTMCell and RNNCell against torch.nn's: results, gradients, the trace of a step, and wrong calls."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.backends import use_backend
from scratchrnn.interop import torch as interop
from scratchrnn.testing import TOLERANCE, assert_close
from tests.modules import assert_as_torch

B, I, H = 5, 3, 4
KINDS: dict[str, dict[str, Any]] = {
    "LSTMCell": {}, "LSTMCell without biases": {"bias": False}, "RNNCell": {}, "RNNCell relu": {"nonlinearity": "relu"},
    "RNNCell without biases": {"bias": False},
}  # fmt: skip


def pair(kind: str, dtype: torch.dtype = torch.float64) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's cell and ours, of the same weights."""
    name, options = kind.partition(" ")[0], KINDS[kind]
    theirs, ours = getattr(torch.nn, name)(I, H, **options, dtype=dtype), getattr(interop, name)(I, H, **options)
    ours.to(dtype).load_state_dict(theirs.state_dict())
    return theirs, ours


def draw(kind: str, batched: bool = True, dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, Any]:
    """An input and a state."""
    batch = (B,) if batched else ()
    x, h, c = (torch.randn(*batch, size, dtype=dtype, requires_grad=True) for size in (I, H, H))
    return x, (h, c) if kind.startswith("LSTM") else h


def tensors(state: Any) -> list[torch.Tensor]:
    return list(state) if isinstance(state, tuple) else [] if state is None else [state]


def results(module: torch.nn.Module, x: torch.Tensor, hx: Any, used: slice = slice(None)) -> dict[str, np.ndarray]:
    """New states, and gradients of everything for the loss Σ sin of those in `used`."""
    new = tensors(module(x, hx))
    wanted = {"x": x} | {f"hx{n}": t for n, t in enumerate(tensors(hx))} | dict(module.named_parameters())
    found = torch.autograd.grad(sum(t.sin().sum() for t in new[used]), list(wanted.values()))  # type: ignore[arg-type]
    values = {f"new{n}": t for n, t in enumerate(new)} | {f"d{n}": g for n, g in zip(wanted, found, strict=True)}
    return {name: value.detach().numpy() for name, value in values.items()}


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("state", [True, False], ids=["state", "no state"])
@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_float64_equals_torch(kind: str, batched: bool, state: bool, backend: str) -> None:
    theirs, ours = pair(kind)
    x, hx = draw(kind, batched)
    uses = [slice(None), slice(0, 1), slice(1, 2)] if kind.startswith("LSTM") else [slice(None)]
    for used in uses:
        want = results(theirs, x, hx if state else None, used) if used != slice(1, 2) or state else {}
        with use_backend(backend):
            got = results(ours, x, hx if state else None, used) if want else {}
        assert got.keys() == want.keys()
        for name, array in want.items():
            assert_close(f"{kind} {name}", got[name], array, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("kind", KINDS)
def test_float32_and_no_grad(kind: str) -> None:
    theirs, ours = pair(kind, torch.float32)
    x, hx = draw(kind, dtype=torch.float32)
    with torch.no_grad():
        for got, want in zip(tensors(ours(x, hx)), tensors(theirs(x, hx)), strict=True):
            assert_close("state", got.numpy(), want.numpy(), rel=2e-6)
            assert not got.requires_grad
    empty = ours(x[:0])
    assert all(t.shape == (0, H) for t in tensors(empty))


@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_gradcheck(kind: str, batched: bool) -> None:
    _, ours = pair(kind)
    x, hx = draw(kind, batched)
    weights = dict(ours.named_parameters())

    def call(x: torch.Tensor, *rest: torch.Tensor) -> Any:
        states, given = rest[: len(tensors(hx))], rest[len(tensors(hx)) :]
        return torch.func.functional_call(
            ours, dict(zip(weights, given, strict=True)), (x, states if isinstance(hx, tuple) else states[0])
        )

    assert torch.autograd.gradcheck(call, (x, *tensors(hx), *weights.values()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_loop_of_steps_is_a_sequence(kind: str) -> None:
    theirs, ours = pair(kind)
    xs = torch.randn(7, B, I, dtype=torch.float64)
    found = []
    for module in (theirs, ours):
        module.zero_grad()
        state = None
        loss: Any = 0.0
        for x in xs:
            state = module(x, state)
            loss = loss + tensors(state)[0].square().sum()
        loss.backward()
        found.append({name: p.grad.numpy() for name, p in module.named_parameters()})
    for name, want in found[0].items():
        assert_close(name, found[1][name], want, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no batch"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_is_that_of_our_own_cell(kind: str, batched: bool) -> None:
    _, ours = pair(kind)
    own = interop.from_module(ours)
    x, hx = draw(kind, batched)
    state, trace = ours(x, hx, return_trace=True)
    arrays = tuple(t.detach().numpy() for t in tensors(hx))
    want = own.forward(x.detach().numpy(), arrays if isinstance(hx, tuple) else arrays[0])
    assert isinstance(trace, srnn.Trace)
    assert (trace.cell, trace.batched, trace.batch_first) == (want.cell, batched, False)
    pairs = [("output", trace.output, want.output), ("h", trace.h, want.h), ("input", trace[0].input, want[0].input)]
    pairs += [("a", trace.a, want.a), *(("c", t.c, w.c) for t, w in [(trace, want)] if isinstance(hx, tuple))]
    pairs += [(f"state{n}", *ab) for n, ab in enumerate(zip(as_pair(trace.state), as_pair(want.state), strict=True))]
    assert trace.parameters.keys() == want.parameters.keys()
    pairs += [(name, trace.parameters[name], array) for name, array in want.parameters.items()]
    assert trace.gradients is None

    d_h = torch.randn_like(tensors(state)[0])
    tensors(state)[0].backward(d_h)
    grads = own.backward(want, d_h.numpy())
    got = trace.gradients
    assert got is not None
    pairs += [("dx", got.input, grads.input), ("da", got.a, grads.a), ("dh", got.h, grads.h)]
    pairs += [(f"d{n}", *ab) for n, ab in enumerate(zip(as_pair(got.state), as_pair(grads.state), strict=True))]
    assert got.parameters.keys() == grads.parameters.keys()
    pairs += [(f"d{name}", got.parameters[name], array) for name, array in grads.parameters.items()]
    for name, a, b in pairs:
        assert_close(name, a, b, rel=TOLERANCE["float64"])
    assert own.backward(trace, d_h.numpy()).input.shape == x.shape  # a trace of ours like any other


def as_pair(state: Any) -> tuple[np.ndarray, ...]:
    return state if isinstance(state, tuple) else (state,)


def test_the_trace_shares_nothing() -> None:
    _, ours = pair("LSTMCell")
    x, hx = draw("LSTMCell")
    (h, c), trace = ours(x, hx, return_trace=True)
    kept = trace.h.copy(), trace[0].input.copy(), trace.parameters["weight_ih"].copy(), trace.output.copy()
    with torch.no_grad():
        for tensor in (x, h, c, *hx, *ours.parameters()):
            tensor.fill_(7.0)
    for now, before in zip((trace.h, trace[0].input, trace.parameters["weight_ih"], trace.output), kept, strict=True):
        assert np.array_equal(now, before)


# As torch's module


@pytest.mark.parametrize("kind", KINDS)
def test_same_constructor_same_draws_same_names(kind: str) -> None:
    name, options = kind.partition(" ")[0], KINDS[kind]
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(I, H, **options)
    torch.manual_seed(0)
    ours = getattr(interop, name)(I, H, **options)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(ours.state_dict()[key], tensor) for key, tensor in theirs.state_dict().items())
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert list(inspect.signature(ours.forward).parameters) == ["input", "hx", "return_trace"]
    assert isinstance(torch.nn.utils.skip_init(type(ours), I, H), type(ours))
    x = torch.ones(B, I)
    for copied in (copy.deepcopy(ours), pickle.loads(pickle.dumps(ours))):
        assert type(copied) is type(ours)
        assert torch.equal(tensors(copied(x))[0], tensors(ours(x))[0])


def test_other_dtypes_devices_and_exports_are_refused() -> None:
    with pytest.raises(TypeError, match="weight_ih: expected dtype float32 or float64; got bfloat16"):
        interop.LSTMCell(I, H, dtype=torch.bfloat16)
    cell = interop.RNNCell(I, H)
    with pytest.raises(TypeError, match=r"weight_ih: expected dtype float32 or float64; got float16: scratchrnn"):
        cell.half()(torch.ones(B, I).half())
    cell.float().nonlinearity = "sin"
    with pytest.raises(RuntimeError, match="nonlinearity: expected 'tanh' or 'relu'; got 'sin'"):
        cell(torch.ones(B, I))


@pytest.mark.filterwarnings("ignore")  # of torch's tracer, about itself
def test_a_traced_call_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"swap_back\(model\)"):
        torch.jit.trace(interop.RNNCell(I, H), torch.ones(B, I))


X, S = torch.randn(B, I), torch.randn(B, H)
KINDS_OF_TENSOR = {
    "float64": torch.Tensor.double, "float16": torch.Tensor.half, "int64": torch.Tensor.long,
    "complex": lambda t: t.to(torch.complex64), "meta": lambda t: t.to("meta"), "a list": torch.Tensor.tolist,
    "an array": torch.Tensor.numpy, "None": lambda t: None, "a number": lambda t: 3, "text": lambda t: "x",
    "strided": lambda t: torch.stack([t, t], -1)[..., 0], "expanded": lambda t: t[..., :1].expand(t.shape),
    "size": lambda t: t[..., :2], "0-D": lambda t: t.flatten()[0], "an axis more": lambda t: t[None],
    "two axes more": lambda t: t[None, None], "an axis less": lambda t: t[0],
}  # fmt: skip
ROWS: dict[str, tuple[Any, Any]] = {f"input, {name}": (make(X), None) for name, make in KINDS_OF_TENSOR.items()}
ROWS |= {f"unbatched, {name}": (make(X[0]), None) for name, make in KINDS_OF_TENSOR.items()}
ROWS |= {"B=0": (X[:0], None), "B=1": (X[:1], None)}
OF_RNN: dict[str, tuple[Any, Any]] = {}
OF_LSTM: dict[str, tuple[Any, Any]] = {}
for where, x, h in (("", X, S), ("unbatched, ", X[0], S[0])):
    one = {name: make(h) for name, make in KINDS_OF_TENSOR.items()}
    one |= {"another batch": S[:2], "a batch of one": S[:1], "no batch": S[:0], "a pair": (h, h), "a dict": {0: h}}
    OF_RNN |= {f"{where}hx, {name}": (x, state) for name, state in one.items()}
    both = {f"h, {name}": (state, h) for name, state in one.items()}
    both |= {f"c, {name}": (h, state) for name, state in one.items()}
    both |= {f"both, {name}": (state, state) for name, state in one.items()}
    both |= {
        "a list of two": [h, h], "a tensor": h, "a tensor of both": torch.stack([h, h]), "one": (h,), "no": (),
        "three": (h, h, h), "a dict": {0: h, 1: h}, "text": "hc", "a number": 3,
    }  # fmt: skip
    OF_LSTM |= {f"{where}hx, {name}": (x, states) for name, states in both.items()}
CASES = [(kind, n) for kind, own in (("LSTMCell", OF_LSTM), ("RNNCell", OF_RNN)) for n in (*ROWS, *own)]

# ours raises this, where torch computes or raises another class
DIFFERENT: dict[str, type[Exception]] = {
    # torch adds up what it is given
    **{
        f"LSTMCell: {where}hx, c, {n}": RuntimeError
        for where in ("", "unbatched, ") for n in ("float64", "float16", "int64", "complex")
    },
    "LSTMCell: unbatched, hx, three": RuntimeError,
}  # fmt: skip


def outcome(module: torch.nn.Module, x: Any, hx: Any) -> Any:
    """What a call raises, or the tensors that it returns."""
    try:
        return tensors(module(x, hx))
    except Exception as error:  # noqa: BLE001  this is what is compared
        return error


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_calls_as_torch(kind: str, name: str) -> None:
    x, hx = (ROWS | OF_LSTM if kind == "LSTMCell" else ROWS | OF_RNN)[name]
    theirs, ours = pair(kind, torch.float32)
    want, got = outcome(theirs, x, hx), outcome(ours, x, hx)
    assert_as_torch(got, want, DIFFERENT.get(f"{kind}: {name}", DIFFERENT.get(name)))
