"""What layers read and copy at their edge, and what it costs where nothing is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn._validate import check_array
from scratchrnn.layers import edge

T, B, I, H = 7, 5, 3, 8
F4 = np.dtype(np.float32)


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def unaligned(x: np.ndarray) -> np.ndarray:
    room = np.zeros(x.nbytes + 1, np.uint8)
    moved = room[1:].view(np.float32).reshape(x.shape)
    moved[...] = x
    return moved


class Plain(np.ndarray):
    """A subclass that changes nothing."""


AWKWARD = {
    "read-only": read_only,
    "unaligned": unaligned,
    "strided": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "reversed": lambda x: x[::-1].copy()[::-1],
    "fortran": np.asfortranarray,
    "subclass": lambda x: x.view(Plain),
}


def test_plain_input_is_read_where_it_is() -> None:
    x = numbers(T, B, I)
    xs, batched = edge.view_input(x, input_size=I, batch_first=False, dtype=F4)
    assert edge.readable(xs) is x
    assert batched
    xs, batched = edge.view_input(x[:, 0].copy(), input_size=I, batch_first=False, dtype=F4)
    assert (edge.readable(xs).shape, batched) == ((T, 1, I), False)


@pytest.mark.parametrize("change", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("batch_first", [False, True])
def test_what_kernels_cannot_read_is_copied(change: Any, batch_first: bool) -> None:
    x = change(numbers(T, B, I))
    xs = edge.readable(edge.view_input(x, input_size=I, batch_first=batch_first, dtype=F4)[0])
    assert type(xs) is np.ndarray
    assert xs.flags.carray
    assert not np.shares_memory(xs, x)
    np.testing.assert_array_equal(xs, x.transpose(1, 0, 2) if batch_first else x)


@pytest.mark.parametrize("change", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.usefixtures("each_backend")
def test_layers_and_cells_read_any_layout(change: Any) -> None:
    x = numbers(T, B, I)
    before = x.copy()
    lstm, cell = srnn.LSTM(I, H, rng=np.random.default_rng(0)), srnn.LSTMCell(I, H, rng=np.random.default_rng(0))
    lengths = [7, 3, 1, 5, 7]
    for call in (lstm, lambda x: lstm(x, lengths=lengths), lambda x: cell(x[2]), lambda x: (lstm.forward(x).output,)):
        for got, want in zip(call(change(x.copy())), call(x), strict=True):
            np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(x, before)


@pytest.mark.usefixtures("each_backend")
def test_a_trace_keeps_its_input_and_weights_when_the_caller_goes_on() -> None:
    x = numbers(T, B, I)
    for layer, read in ((srnn.LSTM(I, H), x), (srnn.LSTMCell(I, H), x[0])):
        trace = layer.forward(read)
        kept = {name: array.copy() for name, array in trace.parameters.items()} | {"x": trace[0].input.copy()}
        read[...] = np.nan
        for parameter in layer.parameters.values():
            parameter[...] = np.nan
        for name, array in (dict(trace.parameters) | {"x": trace[0].input}).items():
            np.testing.assert_array_equal(array, kept[name])
        read[...] = 1


def test_a_state_given_by_the_caller_is_not_written() -> None:
    x, h, c = numbers(B, I), numbers(B, H), numbers(B, H)
    kept = h.copy(), c.copy()
    srnn.LSTMCell(I, H)(x, (h, c))
    srnn.LSTM(I, H)(x[None], (h[None], c[None]))
    np.testing.assert_array_equal((h, c), kept)


def test_the_reason_is_worded_only_for_an_error() -> None:
    def never() -> str:
        raise AssertionError("worded where nothing was wrong")

    x = numbers(B, H)
    assert check_array("x", x, shape=(B, H), dtype=F4, why=never) is x
    h, c = edge.enter_state("state", (x, x), shapes=((B, H), (B, H)), dtype=F4, why=never)
    assert h is x
    assert c is x
    with pytest.raises(ValueError, match=r"^x: expected shape \(5, 9\) for a reason; got \(5, 8\)$"):
        check_array("x", x, shape=(B, H + 1), dtype=F4, why=lambda: "for a reason")


def test_a_dtype_that_is_equal_and_another_object_passes() -> None:
    other = np.dtype(np.float32, metadata={"unit": "mV"})
    x = np.zeros((B, H), other)
    assert x.dtype is not F4
    assert check_array("x", x, shape=(B, H), dtype=F4) is x


@pytest.mark.parametrize("make", [srnn.LSTM, srnn.LSTMCell, srnn.RNN, srnn.RNNCell])
def test_a_parameter_put_into_the_dict_is_checked_at_each_call(make: Any) -> None:
    layer = make(I, H)
    x = numbers(B, I) if make in (srnn.LSTMCell, srnn.RNNCell) else numbers(T, B, I)
    name = next(name for name in layer.parameters if name.startswith("bias_hh"))
    shape = layer.parameters[name].shape
    for value, kind, message in [
        (np.zeros(1, np.float32), ValueError, rf"{name}: expected shape \({shape[0]},\); got \(1,\)"),
        (np.zeros(shape), TypeError, f"{name}: expected dtype float32; got float64"),
        ([0.0], TypeError, f"{name}: expected a NumPy array; got list"),
    ]:
        layer.parameters[name] = value
        for call in (layer, layer.forward):
            with pytest.raises(kind, match=message):
                call(x)
