"""What layers say of arrays that are on the wrong side."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from tests.cuda.layers import WHY_NOT, B, Case, H, I, T, emulated, make

if WHY_NOT is None:
    from tests.cuda.emulator.device import OnDevice, emulated_device


def errors() -> dict[str, tuple[Any, type[Exception], str]]:
    def x(dtype: Any = np.float32, shape: Any = (T, B, I)) -> Any:
        return OnDevice(np.zeros(shape, dtype))

    def h(*shape: int) -> np.ndarray:
        return np.zeros(shape or (1, B, H), np.float32)

    device = r"an array on a CUDA device \(tests.cuda.emulator.device.OnDevice\)"
    beside = "expected an array on the CUDA device, beside the others; got an array of shape"
    kept = lambda lstm: lstm.forward(x())  # noqa: E731
    out = h(T, B, H)
    return {
        "cpu backend": (
            lambda _: make(Case(), "numba")(x()), TypeError,
            f"x: expected a NumPy array, since backend 'numba' runs on the CPU; got {device}, which backend 'cuda'",
        ),
        "numpy state": (lambda lstm: lstm(x(), (h(), h())), TypeError, f"h_0: {beside}"),
        "state on the device": (
            lambda lstm: lstm(np.zeros((T, B, I), np.float32), (OnDevice(h()), h())), TypeError,
            f"h_0: expected a NumPy array; got {device}",
        ),
        "numpy d_output": (lambda lstm: lstm.backward(kept(lstm), out), TypeError, f"d_output: {beside}"),
        "numpy d_state": (lambda lstm: lstm.backward(kept(lstm), None, (None, h())), TypeError, f"d_c_n: {beside}"),
        "d_output on the device": (
            lambda lstm: lstm.backward(lstm.forward(np.zeros((T, B, I), np.float32)), OnDevice(out)), TypeError,
            f"d_output: expected a NumPy array; got {device}",
        ),
        "cut on the device": (
            lambda lstm: lstm.backward(kept(lstm), cut=OnDevice(np.zeros((T, B), bool))), TypeError,
            f"cut: expected a NumPy array of bool; got {device}",
        ),
        "per_sample": (
            lambda lstm: lstm.backward(kept(lstm), per_sample=True), ValueError,
            "per_sample: expected False for a trace on a CUDA device; got True",
        ),
        "lengths on the device": (
            lambda lstm: lstm(x(), lengths=OnDevice(np.ones(B, np.int64))), TypeError, f"lengths: .*; got {device}",
        ),
        "dtype": (lambda lstm: lstm(x(np.float64)), TypeError, "x: expected dtype float32; got float64"),
        "half": (lambda lstm: lstm(x(np.float16)), TypeError, "x: expected dtype float32; got float16"),
        "shape": (lambda lstm: lstm(x(shape=(T, B, I + 1))), ValueError, "x: expected a last axis of input_size=2"),
        "state's shape": (
            lambda lstm: lstm(x(), (OnDevice(h(1, B, 4)), OnDevice(h()))), ValueError,
            r"h_0: expected shape \(1, 3, 5\)",
        ),
        "order": (
            lambda lstm: lstm(OnDevice(np.zeros((B, T, I), np.float32).transpose(1, 0, 2))), ValueError,
            r"x: expected an array in C order, since it is on a device .* got strides \(8, 48, 4\)",
        ),
        "order of d_output": (
            lambda lstm: lstm.backward(kept(lstm), OnDevice(h(B, T, H).transpose(1, 0, 2))), ValueError,
            "d_output: expected an array in C order",
        ),
        "order of d_state": (
            lambda lstm: lstm.backward(kept(lstm), OnDevice(out), (OnDevice(h(1, H, B).transpose(0, 2, 1)), None)),
            ValueError, "d_h_n: expected an array in C order",
        ),
        "zoneout": (
            lambda lstm: srnn.Zoneout(lstm, 0.1).forward(x()), TypeError, "x: expected a NumPy array, since zoneout",
        ),
        "checkpointed": (lambda lstm: srnn.bptt.checkpointed(lstm, x()), TypeError, f"x: .*; got {device}"),
        "truncated": (lambda lstm: srnn.bptt.truncated(lstm, x(), k1=2, k2=4), TypeError, f"x: .*; got {device}"),
        "truncation_bias": (lambda lstm: srnn.bptt.truncation_bias(lstm, x(), out), TypeError, f"x: .*; got {device}"),
        "stream": (lambda lstm: srnn.bptt.Stream(lstm).forward(x()), TypeError, f"x: .*; got {device}"),
        "windows": (lambda lstm: list(srnn.bptt.windows(lstm, x(), k1=2, k2=4)), TypeError, f"x: .*; got {device}"),
        "cell": (
            lambda _: srnn.LSTMCell(I, H, backend="cuda")(x(shape=(B, I))), TypeError, f"x: .*; got {device}",
        ),
        "linear": (lambda _: srnn.Linear(I, H, backend="cuda")(x()), TypeError, f"x: .*; got {device}"),
    }  # fmt: skip


@emulated
@pytest.mark.parametrize("name", errors())
def test_errors(name: str) -> None:
    call, kind, message = errors()[name]
    with emulated_device(), pytest.raises(kind, match=message) as error:
        call(make(Case(), "cuda"))
    assert not re.search("argument [0-9]", str(error.value))
