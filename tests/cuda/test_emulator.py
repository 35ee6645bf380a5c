"""The PTX emulator, on small kernels: their numbers are NumPy's."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.cuda.emulator import launch, why_unavailable
from tests.cuda.emulator.compiled import compiled

pytest.importorskip("numba_cuda", reason="numba-cuda compiles the kernels")
pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


def vector_add() -> Callable[..., None]:
    from numba import cuda

    def kernel(x, y, out, n, scale):
        i = cuda.grid(1)
        if i < n:
            out[i] = x[i] + scale * y[i]

    return kernel


@pytest.mark.parametrize(("blocks", "threads", "n"), [(3, 64, 150), (1, 1, 1), (5, 33, 165)])
def test_vector_add(rng: np.random.Generator, blocks: int, threads: int, n: int) -> None:
    ptx = compiled(vector_add, "float32[::1], float32[::1], float32[::1], int32, float32", 64)
    x, y = rng.standard_normal((2, n)).astype(np.float32)
    out = np.full(n + 1, np.float32(7))
    launch(ptx, blocks=blocks, threads=threads, arguments=[x, y, out, n, 0.25])
    np.testing.assert_array_equal(out[:n], x + np.float32(0.25) * y)  # 0.25 y is exact: fma or not is the same
    assert out[n] == 7


def dot() -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    def kernel(x, y, out, n):
        partial = cuda.shared.array(64, dtype=types.float64)
        t = cuda.threadIdx.x
        total = 0.0
        for i in range(cuda.grid(1), n, cuda.gridsize(1)):
            total += x[i] * y[i]
        partial[t] = total
        cuda.syncthreads()
        half = 32
        while half > 0:
            if t < half:
                partial[t] += partial[t + half]
            cuda.syncthreads()
            half //= 2
        if t == 0:
            cuda.atomic.add(out, 0, partial[0])

    return kernel


@pytest.mark.parametrize("resident", [None, 1, 2])
def test_grid_stride_reduction(rng: np.random.Generator, resident: int | None) -> None:
    ptx = compiled(dot, "float64[::1], float64[::1], float64[::1], int64", 64)
    x, y = rng.integers(-9, 10, (2, 1001)).astype(np.float64)
    out = np.zeros(1)
    launch(ptx, blocks=3, threads=64, arguments=[x, y, out, 1001], resident=resident, seed=3)
    assert out[0] == x @ y


def warp_functions() -> Callable[..., None]:
    from numba import cuda

    def kernel(x, total, up, down, from_seven, votes):
        i = cuda.grid(1)
        value = x[i]
        sum_ = value
        for k in range(5):
            sum_ += cuda.shfl_xor_sync(0xFFFFFFFF, sum_, 1 << k)
        total[i] = sum_
        up[i] = cuda.shfl_up_sync(0xFFFFFFFF, value, 3)
        down[i] = cuda.shfl_down_sync(0xFFFFFFFF, value, 2)
        from_seven[i] = cuda.shfl_sync(0xFFFFFFFF, value, 7)
        votes[i] = cuda.ballot_sync(0xFFFFFFFF, value > 0)
        if cuda.all_sync(0xFFFFFFFF, value > -100) and not cuda.any_sync(0xFFFFFFFF, value > 100):
            votes[i] ^= 1

    return kernel


@pytest.mark.parametrize("dtype", ["float32", "float64"])  # float64 travels in two shuffles
def test_warp_functions(rng: np.random.Generator, dtype: str) -> None:
    ptx = compiled(warp_functions, f"{f'{dtype}[::1], ' * 5}uint32[::1]", 96)
    x = rng.integers(-50, 50, 192).astype(dtype)
    total, up, down, seven = np.zeros((4, 192), dtype)
    votes = np.zeros(192, np.uint32)
    launch(ptx, blocks=2, threads=96, arguments=[x, total, up, down, seven, votes])
    warps, lane = x.reshape(6, 32), np.arange(32)
    np.testing.assert_array_equal(total.reshape(6, 32), np.repeat(warps.sum(1)[:, None], 32, axis=1))
    np.testing.assert_array_equal(up.reshape(6, 32), warps[:, np.where(lane < 3, lane, lane - 3)])
    np.testing.assert_array_equal(down.reshape(6, 32), warps[:, np.where(lane > 29, lane, lane + 2)])
    np.testing.assert_array_equal(seven.reshape(6, 32), np.repeat(warps[:, 7:8], 32, axis=1))
    ballots = [sum(1 << int(k) for k in lane[w > 0]) ^ 1 for w in warps]
    np.testing.assert_array_equal(votes.reshape(6, 32)[:, 5], np.array(ballots, np.uint32))


def gate(name: str) -> Callable[..., None]:
    from math import exp, log1p, sin, sqrt, tanh

    from numba import cuda

    functions = {
        "tanh": lambda a: tanh(a),
        "exp": lambda a: exp(a),
        "sin": lambda a: sin(a),
        "log1p_sqrt": lambda a: log1p(sqrt(abs(a))),
        "sigmoid": lambda a: 1 / (1 + exp(-a)),
    }
    function = cuda.jit(device=True)(functions[name])

    def kernel(x, out):
        i = cuda.grid(1)
        if i < x.size:
            out[i] = function(x[i])

    return kernel


REFERENCES: dict[str, Callable[[Any], Any]] = {
    "tanh": np.tanh,
    "exp": np.exp,
    "sin": np.sin,
    "log1p_sqrt": lambda a: np.log1p(np.sqrt(abs(a))),
    "sigmoid": lambda a: 1 / (1 + np.exp(-a)),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", REFERENCES)
def test_libdevice(rng: np.random.Generator, name: str, dtype: str) -> None:
    """CUDA's documentation gives these functions errors of 2 ulp and less; exp(-a) carries into the sigmoid."""
    ptx = compiled(gate, f"{dtype}[::1], {dtype}[::1]", 128, name)
    awkward = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-30, -1e-30, 0.5493, 0.55, 88.0, -87.0, 100.0, 700.0, 1e6, -3e5]
    x = np.concatenate([awkward, rng.standard_normal(400) * 4, rng.uniform(-0.7, 0.7, 400)]).astype(dtype)
    out = np.empty_like(x)
    launch(ptx, blocks=7, threads=128, arguments=[x, out])
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](x.astype(np.float64 if dtype == "float32" else np.longdouble))
        want = exact.astype(dtype)
    np.testing.assert_array_equal(np.isnan(out), np.isnan(want))
    np.testing.assert_array_equal(np.isinf(out), np.isinf(want))
    finite = np.isfinite(want) & (abs(want) > np.finfo(dtype).tiny)
    ulp = np.spacing(abs(want[finite])).astype(np.longdouble)
    assert np.max(abs(out[finite] - exact[finite]) / ulp) <= 4


def own_array() -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    def kernel(x, out, n):
        mine = cuda.local.array(9, dtype=types.float32)
        i = cuda.grid(1)
        for k in range(9):
            mine[k] = x[i] * k
        out[i] = mine[n]

    return kernel


def test_local_arrays() -> None:
    ptx = compiled(own_array, "float32[::1], float32[::1], int32", 32)
    assert ".local" in ptx
    x, out = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    launch(ptx, blocks=2, threads=32, arguments=[x, out, 7])
    np.testing.assert_array_equal(out, 7 * x)


def integers() -> Callable[..., None]:
    from numba import cuda

    def kernel(a, b, out):
        i = cuda.grid(1)
        x, y = a[i], b[i]
        out[12 * i + 0] = x // y
        out[12 * i + 1] = x % y
        out[12 * i + 2] = x >> (y & 31)
        out[12 * i + 3] = x << (y & 31)
        out[12 * i + 4] = cuda.popc(x)
        out[12 * i + 5] = cuda.clz(x)
        out[12 * i + 6] = cuda.brev(x)
        out[12 * i + 7] = min(x, y)
        out[12 * i + 8] = x * y
        out[12 * i + 9] = cuda.ffs(x)
        out[12 * i + 10] = cuda.selp(x > y, x, y)
        out[12 * i + 11] = (x ^ y) & ~y

    return kernel


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_integers(rng: np.random.Generator, dtype: type[np.signedinteger[Any]]) -> None:
    name, bits = np.dtype(dtype).name, 8 * np.dtype(dtype).itemsize
    ptx = compiled(integers, f"{name}[::1], {name}[::1], {name}[::1]", 64)
    info = np.iinfo(dtype)
    a = rng.integers(info.min, info.max, 64, dtype=dtype)
    b = rng.integers(1, 1000, 64, dtype=dtype) * rng.choice([-1, 1], 64).astype(dtype)
    out = np.zeros((64, 12), dtype)
    launch(ptx, blocks=1, threads=64, arguments=[a, b, out])

    def wrapped(v: int) -> int:
        return (v - int(info.min)) % (1 << bits) + int(info.min)

    for x, y, row in zip(a.tolist(), b.tolist(), out.tolist(), strict=True):
        u = x % (1 << bits)
        expected = [
            x // y, x % y, x >> (y & 31), wrapped(x << (y & 31)), u.bit_count(), bits - u.bit_length(),
            wrapped(int(f"{u % 2**32:032b}"[::-1], 2)), min(x, y), wrapped(x * y), (u & -u).bit_length(), max(x, y),
            (x ^ y) & ~y,
        ]  # fmt: skip
        assert row == expected
