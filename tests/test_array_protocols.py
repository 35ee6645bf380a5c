"""Layers take whatever speaks an array protocol on the CPU: without a copy where they can, the same numbers out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn._validate import host_array, speaks_protocol
from scratchrnn.testing import assert_close

I, H, B, T = 3, 4, 2, 5


class OnlyDlpack:
    """What has `__dlpack__` and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._array.__dlpack_device__()


class OnlyInterface:
    """What has `__array_interface__` and nothing else."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array
        self._interface = array.__array_interface__

    @property
    def __array_interface__(self) -> Any:
        return self._interface


class OnlyArray:
    """What has `__array__` and nothing else, as older jax arrays and pandas columns."""

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self._array if dtype is None else self._array.astype(dtype)


GIVE: dict[str, Callable[[np.ndarray], Any]] = {
    "torch": torch.from_numpy,
    "dlpack": OnlyDlpack,
    "interface": OnlyInterface,
    "array": OnlyArray,
    "memoryview": memoryview,
}


@pytest.fixture(params=GIVE)
def give(request: pytest.FixtureRequest) -> Callable[[np.ndarray], Any]:
    return GIVE[request.param]


def test_no_copy_is_made(give: Callable[[np.ndarray], Any], rng: np.random.Generator) -> None:
    for array in (rng.standard_normal((T, B, I)), rng.standard_normal((T, B, 2 * I))[::2, :, ::2].transpose(1, 0, 2)):
        seen = host_array("x", give(array))
        assert type(seen) is np.ndarray
        assert np.shares_memory(seen, array)
        assert seen.strides == array.strides
        assert_close("x", seen, array, rel=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_every_argument_of_a_layer(
    kind: str, dtype: str, give: Callable[[np.ndarray], Any], rng: np.random.Generator, each_backend: str
) -> None:
    layer = getattr(srnn, kind)(I, H, 2, bidirectional=True, batch_first=True, dtype=dtype, rng=rng)
    x, d_output = (rng.standard_normal(shape).astype(dtype) for shape in ((B, T, I), (B, T, 2 * H)))
    states = [rng.standard_normal((4, B, H)).astype(dtype) for _ in range(4)]
    lengths, cut = np.array([3, T]), rng.random((B, T)) < 0.3
    pack = (lambda pair: tuple(pair)) if kind == "LSTM" else (lambda pair: pair[0])
    state, d_state = pack(states[:2]), pack(states[2:])
    given_state, given_d_state = pack([give(s) for s in states[:2]]), pack([give(s) for s in states[2:]])

    want_output, want_state = layer(x, state, lengths)
    output, final = layer(give(x), given_state, give(lengths))
    assert_close("output", output, want_output, rel=0)
    for got, want in zip(np.asarray(final), np.asarray(want_state), strict=True):
        assert_close("state", got, want, rel=0)

    want_grads = layer.backward(layer.forward(x, state, lengths), d_output, d_state, cut=cut)
    trace = layer.forward(give(x), given_state, give(lengths))
    grads = layer.backward(trace, give(d_output), given_d_state, cut=give(cut))
    assert type(trace[0].input) is np.ndarray
    assert_close("dx", grads.input, want_grads.input, rel=0)
    assert_close("d_state", np.asarray(grads.state), np.asarray(want_grads.state), rel=0)
    for name, want in want_grads.parameters.items():
        assert_close(name, grads.parameters[name], want, rel=0)


def test_cells_and_simple_layers(give: Callable[[np.ndarray], Any], rng: np.random.Generator) -> None:
    x, dy = rng.standard_normal((B, I)), rng.standard_normal((B, H))
    h, c, d_c = (rng.standard_normal((B, H)) for _ in range(3))
    cell = srnn.LSTMCell(I, H, dtype=np.float64, rng=rng)
    want = cell.backward(cell.forward(x, (h, c)), dy, (None, d_c))
    got = cell.backward(cell.forward(give(x), (give(h), give(c))), give(dy), (None, give(d_c)))
    assert_close("cell", got.input, want.input, rel=0)
    assert_close("cell", cell(give(x), (give(h), give(c)))[1], cell(x, (h, c))[1], rel=0)

    linear = srnn.Linear(I, H, dtype=np.float64, rng=rng)
    assert_close("linear", linear(give(x)), linear(x), rel=0)
    dw = linear.backward(linear.forward(give(x)), give(dy)).parameters["weight"]
    assert_close("linear", dw, dy.T @ x, rel=1e-12)

    codes = rng.integers(0, 5, (T, B))
    embedding = srnn.Embedding(5, H, dtype=np.float64, rng=rng)
    trace = embedding.forward(give(codes))
    assert_close("embedding", trace.output, embedding(codes), rel=0)
    d = rng.standard_normal(trace.output.shape)
    rows = embedding.backward(embedding.forward(codes), d).parameters["weight"]
    assert_close("embedding", embedding.backward(trace, give(d)).parameters["weight"], rows, rel=0)

    drop = srnn.Dropout(0.5)
    dropped = drop.forward(give(x), rng=np.random.default_rng(0))
    assert_close("dropout", dropped.output, drop.forward(x, rng=np.random.default_rng(0)).output, rel=0)
    assert dropped.mask is not None
    assert_close("dropout", drop.backward(dropped, give(x)).input, x * dropped.mask, rel=0)
    assert_close("dropout", drop(give(x)), x, rel=0)
    locked = srnn.LockedDropout(0.5)
    assert locked.forward(give(np.ones((T, B, I)))).output.shape == (T, B, I)


def test_losses(give: Callable[[np.ndarray], Any], rng: np.random.Generator) -> None:
    logits, targets = rng.standard_normal((T, B, H)), rng.integers(0, H, (T, B))
    for got, want in zip(
        srnn.losses.cross_entropy(give(logits), give(targets)), srnn.losses.cross_entropy(logits, targets), strict=True
    ):
        assert_close("cross entropy", got, want, rel=0)
    a, b = rng.standard_normal((2, T, B))
    for got, want in zip(srnn.losses.mse_loss(give(a), give(b)), srnn.losses.mse_loss(a, b), strict=True):
        assert_close("mse", got, want, rel=0)


def test_parameters_can_be_set_from_them(give: Callable[[np.ndarray], Any], rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, dtype=np.float64)
    values = {name: rng.standard_normal(array.shape) for name, array in layer.parameters.items()}
    layer.load_state_dict({name: give(array) for name, array in values.items()})
    layer.weight_hh_l0 = give(values["weight_hh_l0"])
    for name, array in layer.parameters.items():
        assert type(array) is np.ndarray
        assert_close(name, array, values[name], rel=0)
        assert not np.shares_memory(array, values[name])
    with pytest.raises(AttributeError, match="LSTM has no parameter weight_hh_l1"):
        layer.weight_hh_l1 = give(values["weight_hh_l0"])


def test_a_parameter_itself_stays_a_numpy_array() -> None:
    layer = srnn.LSTM(I, H)
    layer.parameters["weight_hh_l0"] = torch.zeros(4 * H, H)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="weight_hh_l0: expected a NumPy array; got Tensor"):
        layer(np.zeros((T, B, I), np.float32))


# --- arrays as they come


def spread(array: np.ndarray) -> np.ndarray:
    """The same numbers with a gap after each."""
    wide = np.full((*array.shape, 2), np.nan, array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


def frozen(array: np.ndarray) -> np.ndarray:
    array = array.copy()
    array.flags.writeable = False
    return array


AWKWARD: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "spread": spread,
    "read-only": frozen,
    "read-only and spread": lambda a: frozen(np.stack([a, a], axis=-1))[..., 0],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "Fortran": np.asfortranarray,
    "unaligned": lambda a: np.frombuffer(b"\0" + a.tobytes(), np.uint8)[1:].view(a.dtype).reshape(a.shape),
    "repeated": lambda a: np.broadcast_to(a[:1], a.shape),
}


@pytest.mark.filterwarnings("ignore:The given NumPy array is not writable")  # torch's, of its own
@pytest.mark.parametrize(
    ("make", "wrap"),
    [
        (make, wrap)
        for make in AWKWARD
        for wrap in ("none", "torch", "dlpack", "interface", "array")
        if wrap != "torch" or make not in ("reversed", "unaligned")  # torch has no such tensors
    ],
)
def test_read_only_and_non_contiguous(make: str, wrap: str, rng: np.random.Generator, each_backend: str) -> None:
    layer = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    give = GIVE.get(wrap, lambda a: a)
    arrays = [rng.standard_normal(s) for s in ((T, B, I), (2, B, H), (2, B, H), (T, B, H), (2, B, H))]
    plain = [np.ascontiguousarray(AWKWARD[make](a)) for a in arrays]
    x, h, c, d_output, d_h = [give(AWKWARD[make](a)) for a in arrays]
    want = layer.forward(plain[0], (plain[1], plain[2]), [T, 3])
    trace = layer.forward(x, (h, c), [T, 3])
    assert_close("output", trace.output, want.output, rel=0)
    assert_close("output", layer(x, (h, c))[0], layer(plain[0], (plain[1], plain[2]))[0], rel=0)
    want_grads = layer.backward(want, plain[3], (plain[4], None))
    grads = layer.backward(trace, d_output, (d_h, None))
    assert_close("dx", grads.input, want_grads.input, rel=0)
    for name, array in want_grads.parameters.items():
        assert_close(name, grads.parameters[name], array, rel=0)


def test_what_was_given_is_left_as_it_was(give: Callable[[np.ndarray], Any], rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    before = x.copy()
    trace = layer.forward(give(x), None, [T, 3])
    layer.backward(trace, give(trace.output))
    layer(give(x), None, [T, 3])
    assert_close("x", x, before, rel=0)
    x[...] = 9  # and a trace is not changed by it
    assert_close("trace", trace[0].input[:3], before[:3], rel=0)


# --- what is no array


class Raising:
    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        raise RuntimeError("out of reach")


class Elsewhere(OnlyDlpack):
    def __dlpack_device__(self) -> tuple[int, int]:
        return 8, 0  # kDLMetal

    def __dlpack__(self, **options: Any) -> Any:
        raise BufferError("on another device")


X = np.zeros((T, B, I), np.float32)
WRONG: list[tuple[Any, type[Exception], str]] = [
    (torch.zeros(T, B, I, requires_grad=True), TypeError, r"a Tensor that requires grad: give x\.detach\(\)"),
    (torch.nn.Parameter(torch.zeros(T, B, I)), TypeError, r"a Parameter that requires grad: give x\.detach\(\)"),
    (torch.zeros(T, B, I, dtype=torch.float64), TypeError, "x: expected dtype float32; got float64"),
    (torch.zeros(T, B, I, dtype=torch.float16), TypeError, "x: expected dtype float32; got float16"),
    (torch.zeros(T, B, I, dtype=torch.bfloat16), TypeError, "x: expected an array on the CPU; this Tensor does not"),
    (torch.zeros(T, B, I, device="meta"), TypeError, "x: expected an array on the CPU; this Tensor does not give one"),
    (torch.zeros(T, B, I).to_sparse(), TypeError, "x: expected an array on the CPU; this Tensor does not give one"),
    (torch.zeros(T, I + 1, B), ValueError, r"x: expected a last axis of input_size=3; got shape \(5, 4, 2\)"),
    (OnlyDlpack(X.astype(np.int64)), TypeError, "x: expected dtype float32; got int64"),
    (OnlyArray(X.astype(object)), TypeError, "x: expected dtype float32; got object"),
    (OnlyInterface(X.astype(">f4")), TypeError, "x: expected dtype float32; got >f4"),
    (memoryview(b"abc"), TypeError, "x: expected dtype float32; got uint8"),
    (Raising(), TypeError, "x: expected an array on the CPU; this Raising does not give one: out of reach"),
    (Elsewhere(X), TypeError, "x: expected an array on the CPU; this Elsewhere does not give one: "),
    (np.ma.zeros((T, B, I), np.float32), TypeError, "x: expected a plain NumPy array; got MaskedArray"),
    (X[0].view(np.matrix), TypeError, "x: expected a plain NumPy array; got matrix"),
    (X.astype(object), TypeError, "x: expected dtype float32; got object"),
    (X.tolist(), TypeError, "x: expected a NumPy array; got list"),
    (np.float32(1), TypeError, "x: expected a NumPy array; got float32"),
    (1.0, TypeError, "x: expected a NumPy array; got float"),
    (None, TypeError, "x: expected a NumPy array; got None"),
]


@pytest.mark.parametrize(("x", "error", "message"), WRONG)
def test_what_is_refused(x: Any, error: type[Exception], message: str) -> None:
    layer = srnn.LSTM(I, H)
    for call in (layer, layer.forward):
        with pytest.raises(error, match=message):
            call(x)


def test_every_argument_asks_for_detach() -> None:
    layer = srnn.LSTM(I, H)
    trace = layer.forward(X)
    tracked = [torch.zeros(shape, requires_grad=True) for shape in ((1, B, H), (T, B, H))]
    with pytest.raises(TypeError, match=r"requires grad: give h_0\.detach\(\)"):
        layer(X, (tracked[0], tracked[0]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"requires grad: give d_output\.detach\(\)"):
        layer.backward(trace, tracked[1])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"requires grad: give d_c_n\.detach\(\)"):
        layer.backward(trace, None, (None, tracked[0]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="lengths: expected integers; got dtype float32"):
        layer(X, None, torch.ones(B))
    with pytest.raises(ValueError, match=r"lengths: expected shape \(2,\), one for each sample; got \(1,\)"):
        layer(X, None, torch.ones(1, dtype=torch.int64))
    with pytest.raises(TypeError, match="cut: expected a NumPy array of bool; got an array"):
        layer.backward(trace, cut=torch.ones(T, B))  # type: ignore[arg-type]


def test_numpys_own_do_not_count_as_foreign() -> None:
    for value in (X, np.float32(1), np.ma.zeros(3), X[0].view(np.matrix), 1.0, [1.0], "x", None, torch.Tensor):
        assert not speaks_protocol(value)
    for value in (torch.zeros(3), memoryview(b""), OnlyDlpack(X)):
        assert speaks_protocol(value)
