"""The host's side in Numba's simulator: a call with NumPy's arrays, a kernel, a product, a recording."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.kernels.cuda import gemm, vendor
from scratchrnn.kernels.cuda.call import Call
from scratchrnn.kernels.cuda.graph import Recorded
from scratchrnn.kernels.cuda.kernel import Kernel
from scratchrnn.kernels.cuda.queue import own_queue
from scratchrnn.testing import assert_close

B, H = 3, 5


def build() -> Callable[..., None]:
    """y = 2 (x read backwards within a block of 4) + shift, by way of shared memory and a device function."""
    from numba import cuda, float32

    @cuda.jit(device=True)
    def other(x):  # type: ignore[no-untyped-def]
        return x[cuda.blockDim.x - 1 - cuda.threadIdx.x]

    def reverse(x, y, count, shift):  # type: ignore[no-untyped-def]
        staged = cuda.shared.array(0, float32)
        i = cuda.grid(1)
        staged[cuda.threadIdx.x] = x[i] if i < count else 0
        cuda.syncthreads()
        if i < count:
            y[i] = 2 * other(staged) + shift

    return reverse


REVERSE = Kernel("reverse", build, "float32[::1], float32[::1], int32, float32", threads=4, shared=16)


def test_the_simulator_counts_as_a_device() -> None:
    assert vendor.simulated()
    assert "cuda" in backends.available()


def test_a_kernel_on_numpy_arrays(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 8), np.float32)
    y, h = np.empty((8, 2), np.float32), np.ones((2, 8), np.float32)
    with Call(x, y, h) as call:
        dx, dy, dh = call.read(x), call.write(y), call.update(h)
        assert np.isnan(dy).all()
        REVERSE.launch(call.queue, 4, dx, dy, 16, 0.5)
        REVERSE.launch(call.queue, 4, dh, dh, 16, 0.5)  # one array twice: no copy of it
        assert np.isnan(y).all()  # not before the end
    want = 2 * x.reshape(4, 4)[:, ::-1] + np.float32(0.5)
    np.testing.assert_array_equal(y, want.reshape(8, 2))
    np.testing.assert_array_equal(h, np.full((2, 8), 2.5, np.float32))


def test_a_recording_runs_when_it_is_replayed() -> None:
    queue = own_queue()
    x, y = queue.upload(np.ones(8, np.float32)), queue.zeros((8,), np.float32)
    recorded = Recorded(queue, lambda: REVERSE.launch(queue, 2, x, y, 8, 1.0))
    assert (y == 0).all()
    for value in (1, 2):
        x[...] = value
        recorded.replay(queue)
        assert (y == 2 * value + 1).all()


@pytest.mark.parametrize("add", [False, True])
def test_products(add: bool, rng: np.random.Generator) -> None:
    queue, (m, n, k) = own_queue(), (7, 5, 3)
    a, b = (queue.upload(rng.standard_normal(shape)) for shape in ((k, m), (n, k)))
    out = queue.upload(rng.standard_normal((m, 9)))
    want = out.copy()
    want[:, 2:7] = a.T @ b.T + (out[:, 2:7] if add else 0)
    gemm.product(queue, out[:, 2:7], a, b, transpose_a=True, transpose_b=True, add=add)
    assert_close("out", out, want, rel=1e-14)


def test_errors_are_those_of_a_device() -> None:
    queue = own_queue()
    x = queue.zeros((B, H), np.float32)
    with pytest.raises(TypeError, match="reverse: expected 4 arguments; got 1"):
        REVERSE.launch(queue, 1, x)
    with pytest.raises(ValueError, match="copy: expected arrays of one size and dtype"):
        queue.copy(x, queue.zeros((B, H), np.float64))
    with pytest.raises(TypeError, match="argument 0: expected a NumPy array"):
        Call([1.0])
    assert not REVERSE.fits(queue, 2)
