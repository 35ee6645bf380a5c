"""The functions that both cells apply to single numbers, on the device; and kernels with one thread for each number.

    σ(a) = 1 / (1 + exp(-a))   tanh   relu   the slopes of φ by h = φ(a)   clip

Each takes a dtype, "float32" or "float64", and returns a device function of that type. Every CUDA kernel here uses
these: `activate` promises forward's bits, whichever engine ran.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .kernel import Kernel

if TYPE_CHECKING:
    from .queue import Queue

THREADS = 256  # of a block

DeviceFunction = Callable[..., Any]


def one_thread_each(name: str, build: Callable[[], Callable[..., None]], signature: str) -> Kernel:
    """A kernel with a thread for each number, which is number `cuda.grid(1)`."""
    return Kernel(name, build, signature, THREADS)


def launch(kernel: Kernel, queue: Queue, numbers: int, *arguments: Any) -> None:
    """Launch it for so many numbers."""
    if numbers:
        kernel.launch(queue, -(-numbers // kernel.threads), *arguments)


def constants(dtype: str, *values: float) -> list[Any]:
    """Numbers of the kernel's own type: a plain 1.0 is a float64 to the compiler, and would turn all into float64."""
    return [np.dtype(dtype).type(value) for value in values]


@functools.cache
def sigmoid(dtype: str) -> DeviceFunction:
    """1 / (1 + exp(-a)) without overflow: exp only ever sees a number below zero."""
    import math

    from numba import cuda

    (one,) = constants(dtype, 1)

    @cuda.jit(device=True)
    def sigmoid(a):
        e = math.exp(-abs(a))
        return (one if a >= 0 else e) / (one + e)

    return sigmoid


@functools.cache
def tanh(dtype: str) -> DeviceFunction:
    """The math library's."""
    import math

    from numba import cuda

    @cuda.jit(device=True)
    def tanh(a):
        return math.tanh(a)

    return tanh


@functools.cache
def relu(dtype: str) -> DeviceFunction:
    """max(a, 0); a nan stays."""
    from numba import cuda

    (zero,) = constants(dtype, 0)

    @cuda.jit(device=True)
    def relu(a):
        return zero if a <= 0 else a

    return relu


@functools.cache
def tanh_slope(dtype: str) -> DeviceFunction:
    """dh tanh'(a), by h = tanh(a): dh (1 - h²)."""
    from numba import cuda

    (one,) = constants(dtype, 1)

    @cuda.jit(device=True)
    def tanh_slope(dh, h):
        return dh * (one - h * h)

    return tanh_slope


@functools.cache
def relu_slope(dtype: str) -> DeviceFunction:
    """dh relu'(a), by h = relu(a): nothing at 0 and below; where h is a nan, dh passes, as in torch."""
    from numba import cuda

    (zero,) = constants(dtype, 0)

    @cuda.jit(device=True)
    def relu_slope(dh, h):
        return zero if h <= 0 else dh

    return relu_slope


@functools.cache
def clipped(dtype: str) -> DeviceFunction:
    """`value` held to [-clip, clip], by comparisons: a nan stays."""
    from numba import cuda

    @cuda.jit(device=True)
    def clipped(value, clip):
        if value > clip:
            return clip
        return -clip if value < -clip else value

    return clipped


def nonlinearity(name: str, dtype: str) -> DeviceFunction:
    """φ of the RNN."""
    return {"tanh": tanh, "relu": relu}[name](dtype)


def slope(name: str, dtype: str) -> DeviceFunction:
    """dh φ'(a), by h = φ(a)."""
    return {"tanh": tanh_slope, "relu": relu_slope}[name](dtype)
