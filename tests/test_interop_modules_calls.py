"""Calls of interop.torch.LSTM and RNN, right and wrong, beside the same calls of torch.nn's: one table.

Where torch raises, ours raises the same class or a subclass; where torch computes, ours computes the same. DIFFERENT
has the rows where that would be worse, each with its reason.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from scratchrnn.interop import torch as interop
from tests.modules import assert_as_torch, pair

pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
]

SIZES = (3, 4, 2)  # input, hidden, layers
torch.manual_seed(0)
X = torch.randn(5, 2, 3)
H = torch.randn(2, 2, 4)
PACKED = pack_padded_sequence(X, [5, 3])
DATA, COUNTS = PACKED.data, PACKED.batch_sizes

KINDS_OF_TENSOR = {
    "float64": torch.Tensor.double, "float16": torch.Tensor.half, "bfloat16": torch.Tensor.bfloat16,
    "int64": torch.Tensor.long, "int32": torch.Tensor.int, "bool": torch.Tensor.bool,
    "complex": lambda t: t.to(torch.complex64), "float8": lambda t: t.to(torch.float8_e4m3fn),
    "meta": lambda t: t.to("meta"), "sparse": torch.Tensor.to_sparse, "a list": torch.Tensor.tolist,
    "an array": torch.Tensor.numpy, "None": lambda t: None, "a number": lambda t: 3, "text": lambda t: "x",
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "expanded": lambda t: t[..., :1].expand(t.shape),
    "a Parameter": lambda t: torch.nn.Parameter(t.clone()),
}  # fmt: skip

# input alone
INPUT: dict[str, Any] = {
    **{f"input, {name}": make(X) for name, make in KINDS_OF_TENSOR.items()},
    **{f"unbatched, {name}": make(X[:, 0]) for name, make in KINDS_OF_TENSOR.items()},
    **{f"input, {axes}-D": t for axes, t in enumerate([X[0, 0, 0], X[0, 0], X[:, 0], X, X[None], X[None, None]])},
    "input, features": X[..., :2], "unbatched, features": X[:, 0, :2], "input, no features": X[..., :0],
    "input, T=0": X[:0], "unbatched, T=0": X[:0, 0], "input, B=0": X[:, :0], "input, T=0 and B=0": X[:0, :0],
    "input, T=1": X[:1], "input, B=1": X[:, :1],
    "input, jagged": torch.nested.nested_tensor([X[:, 0], X[:3, 1]], layout=torch.jagged),
    "input, a tuple": tuple(X), "input, mkldnn": X.to_mkldnn(),
    "input, negated": torch.conj(torch.complex(X, X)).imag,
}  # fmt: skip

# a PackedSequence made by hand
MADE: dict[str, Any] = {
    **{f"data, {name}": make(DATA) for name, make in KINDS_OF_TENSOR.items()},
    "data, 0-D": DATA[0, 0], "data, 1-D": DATA[:, 0], "data, 3-D": DATA[:, None], "data, features": DATA[:, :2],
    "data, features and float64": DATA[:, :2].double(), "data, no rows": DATA[:0], "data, short": DATA[:-1],
    "data, long": torch.cat([DATA, DATA]),
}  # fmt: skip
COUNTED: dict[str, Any] = {
    "counts, int32": COUNTS.int(), "counts, float": COUNTS.float(), "counts, 2-D": COUNTS[None],
    "counts, rising": COUNTS.flip(0), "counts, none": COUNTS[:0], "counts, a zero": torch.tensor([2, 2, 2, 1, 1, 0]),
    "counts, negative": torch.tensor([2, 2, 2, 2, 1, -1]),
}  # fmt: skip
SORTED: dict[str, Any] = {
    "order": [1, 0], "order, out of range": [0, 5], "order, twice": [0, 0], "order, short": [1],
    "order, long": [1, 0, 2], "order, negative": [-1, 0],
}  # fmt: skip
ORDERS = {name: torch.tensor(order) for name, order in SORTED.items()}
ORDERS |= {"order, int32": ORDERS["order"].int(), "order, float": ORDERS["order"].float(), "order, a list": [1, 0]}
BACK = torch.tensor([1, 0])

ROWS: dict[str, tuple[Any, Any]] = {name: (x, None) for name, x in INPUT.items()}
ROWS |= {name: (PackedSequence(data, COUNTS), None) for name, data in MADE.items()}
ROWS |= {name: (PackedSequence(DATA, counts), None) for name, counts in COUNTED.items()}
ROWS |= {name: (PackedSequence(DATA, COUNTS, order, BACK), None) for name, order in ORDERS.items()}
OF_RNN: dict[str, tuple[Any, Any]] = {}  # with a state
OF_LSTM: dict[str, tuple[Any, Any]] = {}
for name, order in ORDERS.items():
    OF_RNN[f"{name}, with hx"] = PackedSequence(DATA, COUNTS, order, BACK), H
    OF_LSTM[f"{name}, with hx"] = PackedSequence(DATA, COUNTS, order, BACK), (H, H)
for where, x, h in (("", X, H), ("unbatched, ", X[:, 0], H[:, 0]), ("packed, ", PACKED, H)):
    one: dict[str, Any] = {name: make(h) for name, make in KINDS_OF_TENSOR.items()}
    one |= {
        "0-D": h.flatten()[0], "1-D": h.flatten()[:4], "an axis more": h[None], "an axis less": h[0],
        "size": h[..., :3], "no size": h[..., :0], "depth": h[:1], "deeper": torch.cat([h, h]), "no depth": h[:0],
        "a pair": (h, h), "a list of two": [h, h], "a dict": {"h": h},
    }  # fmt: skip
    one |= {"another batch": H[:, :1], "a larger batch": torch.cat([H, H], 1), "no batch": H[:, :0]}
    OF_RNN |= {f"{where}hx, {name}": (x, state) for name, state in one.items()}
    both: dict[str, Any] = {f"h_0, {name}": (state, h) for name, state in one.items()}
    both |= {f"c_0, {name}": (h, state) for name, state in one.items()}
    both |= {f"both, {name}": (state, state) for name, state in one.items()}
    both |= {
        "a list of two": [h, h], "a tensor": h, "a tensor of both": torch.stack([h, h]), "a scalar": h.flatten()[0],
        "a tensor of one": h[None], "one": (h,), "no": (), "three": (h, h, h), "a dict": {0: h, 1: h},
        "a dict by name": {"h_0": h}, "text": "hc", "a set": {h}, "a number": 3,
    }  # fmt: skip
    OF_LSTM |= {f"{where}hx, {name}": (x, states) for name, states in both.items()}

# torch's LSTM checks no state beside a PackedSequence, and reads beyond small ones: it is not called with these
UNSAFE = {
    name for name in OF_LSTM if name.startswith("packed, hx, ") and name.rpartition(", ")[2] in (
        "meta", "size", "no size", "depth", "deeper", "no depth", "another batch", "a larger batch", "no batch",
    )
}  # fmt: skip

# by kind or for both: ours raises this, where torch computes or raises another class
DIFFERENT: dict[str, type[Exception]] = {
    # torch never reads the order where there is no state, and computes with one that is no permutation
    **{f"order, {n}": RuntimeError for n in ("out of range", "twice", "short", "long", "negative", "float")},
    "order, a list": TypeError, "order, twice, with hx": RuntimeError,
    # rows that belong to no step, which torch drops
    "data, long": RuntimeError,
    # a wrong layout, refused in one way; torch computes with some and fails on the rest in several
    **dict.fromkeys(("input, mkldnn", "data, sparse"), RuntimeError),
    **{f"{n}hx, sparse": RuntimeError for n in ("RNN: ", "RNN: unbatched, ", "RNN: packed, ")},
    **{f"LSTM: {n}hx, h_0, sparse": RuntimeError for n in ("", "unbatched, ", "packed, ")},
    "counts, float": RuntimeError,
    # beside a PackedSequence torch checks no state of an LSTM; ours says the same as elsewhere
    **{f"LSTM: packed, hx, c_0, {n}": RuntimeError for n in ("float16", "bfloat16", "int64", "int32", "bool")},
    **{
        f"LSTM: packed, hx, {which}, {n}": RuntimeError
        for which in ("h_0", "c_0", "both") for n in ("0-D", "1-D", "an axis less")
    },
    # what is no pair of tensors
    "LSTM: unbatched, hx, three": RuntimeError, "LSTM: unbatched, hx, a dict": TypeError,
    "LSTM: hx, a dict by name": TypeError, "LSTM: unbatched, hx, a dict by name": TypeError,
}  # fmt: skip


def outcome(module: torch.nn.Module, x: Any, hx: Any) -> Any:
    """What a call raises, or the tensors that it returns."""
    try:
        output, state = module(x, hx)
    except Exception as error:  # noqa: BLE001  this is what is compared
        return error
    output = output.data if isinstance(output, PackedSequence) else output
    return [output, *(state if isinstance(state, tuple) else [state])]


def rows(kind: str) -> dict[str, tuple[Any, Any]]:
    return ROWS | (OF_RNN if kind == "RNN" else OF_LSTM)


CASES = [(kind, name) for kind in ("LSTM", "RNN") for name in rows(kind)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_as_torch(kind: str, name: str) -> None:
    x, hx = rows(kind)[name]
    theirs, ours = pair(kind, *SIZES)
    got = outcome(ours, x, hx)
    if kind == "LSTM" and name in UNSAFE:
        assert isinstance(got, RuntimeError)
        return
    want = outcome(theirs, x, hx)
    assert_as_torch(got, want, DIFFERENT.get(name, DIFFERENT.get(f"{kind}: {name}")))


def test_the_list_of_differences_names_rows() -> None:
    names = {f"{kind}: {name}" for kind, name in CASES} | {name for _, name in CASES}
    assert names >= DIFFERENT.keys()
    assert len(UNSAFE) == 27


NAMED: dict[str, str] = {
    "input, a list": "input: expected a tensor; got list",
    "data, None": "input.data: expected a tensor; got NoneType None",
    "data, float64": "input.data: expected torch.float32, as weights; got torch.float64",
    "data, short": "input.batch_sizes: expected int64, never rising, with the sum 7, rows of input.data; got int64",
    "order, twice": "input.sorted_indices: expected each integer of 0 to 1 once; got [0, 0]",
    "hx, c_0, None": "hx[1]: expected a tensor; got NoneType None",
    "hx, c_0, sparse": "expected strided tensors, as to_dense() returns; got hx[1] of torch.sparse_coo",
    "hx, three": "hx: expected a tuple (h_0, c_0); got 3 entries",
    "packed, hx, a tensor": "hx: expected a tuple (h_0, c_0); got a tensor of shape (2, 2, 4)",
    "packed, hx, c_0, size": "Expected hidden[1] size (2, 2, 4), got [2, 2, 3]",
}


@pytest.mark.parametrize("name", NAMED)
def test_the_argument_is_named(name: str) -> None:
    with pytest.raises(Exception, match=re.escape(NAMED[name])):
        interop.LSTM(*SIZES)(*rows("LSTM")[name])


OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("LSTM", {"proj_size": 2}), ("LSTM", {"bidirectional": True, "batch_first": True}),
    ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), OPTIONS, ids=str)
def test_no_option_changes_what_is_refused(kind: str, options: dict[str, Any]) -> None:
    theirs, ours = pair(kind, *SIZES, **options)
    for name, (x, _) in ROWS.items():
        if name not in DIFFERENT and name != "input, jagged":  # whose refusal depends on the axis
            want, got = outcome(theirs, x, None), outcome(ours, x, None)
            assert isinstance(got, type(want)), f"{name}: torch: {want!r}; ours: {got!r}"
