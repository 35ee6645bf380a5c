"""The PTX emulator on kernels whose threads and blocks depend on each other: orders, faults, speed."""

import time
from collections.abc import Callable

import numpy as np
import pytest

from scratchrnn.kernels.cuda import vendor
from tests.cuda.emulator import Deadlock, Endless, Misaligned, OutOfBounds, Race, launch, why_unavailable
from tests.cuda.emulator.compiled import compiled

pytest.importorskip("numba_cuda", reason="numba-cuda compiles the kernels")
pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))


def staged() -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    shared_load4, load4 = vendor.shared_load4(), vendor.load4()

    def kernel(x, out):
        stage = cuda.shared.array(0, dtype=types.float32, alignment=16)
        t = cuda.threadIdx.x
        base = cuda.blockIdx.x * 128
        a, b, c, d = load4(x, base + 4 * t)
        stage[4 * t], stage[4 * t + 1], stage[4 * t + 2], stage[4 * t + 3] = a, b, c, d
        cuda.syncthreads()
        e, f, g, h = shared_load4(stage, 4 * (31 - t))
        out[base + 4 * t] = e + 2 * f
        out[base + 4 * t + 1] = g
        out[base + 4 * t + 2] = h
        out[base + 4 * t + 3] = a

    return kernel


def test_vector_accesses_and_dynamic_shared_memory(rng: np.random.Generator) -> None:
    ptx = compiled(staged, "float32[::1], float32[::1]", 32)
    assert "ld.shared.v4" in ptx
    assert "ld.relaxed.gpu.global.v4.f32" in ptx
    x = rng.integers(-9, 9, (3, 32, 4)).astype(np.float32)
    out = np.zeros_like(x)
    launch(ptx, blocks=3, threads=32, arguments=[x, out], shared=512)
    r = x[:, ::-1]
    want = np.stack([r[..., 0] + 2 * r[..., 1], r[..., 2], r[..., 3], x[..., 0]], axis=-1)
    np.testing.assert_array_equal(out, want)
    with pytest.raises(OutOfBounds, match=r"shared bytes 496 to 512 of 496|shared bytes 49\d to"):
        launch(ptx, blocks=3, threads=32, arguments=[x, out], shared=496)
    with pytest.raises(Misaligned, match="16 global bytes"):
        launch(ptx, blocks=1, threads=32, arguments=[x.reshape(-1)[1:], out], shared=512)


def ring(barrier: bool, released: bool = True) -> Callable[..., None]:
    """Each round, a block takes what its right neighbour wrote in the round before."""
    from numba import cuda

    arrive, arrived, load1, store1 = vendor.arrive(), vendor.arrived(), vendor.load1(), vendor.store1()

    def kernel(cells, counter, rounds):
        t, b, n = cuda.threadIdx.x, cuda.blockIdx.x, cuda.gridDim.x
        width = cuda.blockDim.x
        for r in range(rounds):
            value = load1(cells, (r * n + (b + 1) % n) * width + (t + 1) % width)
            store1(cells, ((r + 1) * n + b) * width + t, value + np.float32(1))
            if barrier:
                cuda.syncthreads()
                if t == 0:
                    arrive(counter, 0)
                    if released:
                        while arrived(counter, 0) < (r + 1) * n:
                            pass
                    else:
                        while arrived(counter, 0) < (r + 2) * n:
                            pass
                cuda.syncthreads()

    return kernel


def run_ring(barrier: bool, seed: int, resident: int | None = None) -> bool:
    """Say whether 4 blocks of 64 threads end with the right numbers."""
    ptx = compiled(ring, "float32[::1], uint32[::1], int32", 64, barrier)
    cells = np.full((21, 4, 64), np.nan, np.float32)
    cells[0] = np.arange(256).reshape(4, 64)
    want = cells[0]
    for _ in range(20):
        want = np.roll(want, (-1, -1), (0, 1)) + 1
    counter = np.zeros(1, np.uint32)
    launch(ptx, blocks=4, threads=64, arguments=[cells, counter, 20], seed=seed, resident=resident, steps=20_000_000)
    return bool(np.array_equal(cells[20], want))


def test_grid_barrier() -> None:
    assert all(run_ring(True, seed) for seed in range(20))


def test_grid_barrier_is_missed() -> None:
    assert not all(run_ring(False, seed) for seed in range(5))


def test_grid_barrier_of_blocks_that_do_not_run_at_once() -> None:
    with pytest.raises(Endless, match="budget of 20000000 steps"):
        run_ring(True, 0, resident=3)


def test_endless_spin() -> None:
    ptx = compiled(ring, "float32[::1], uint32[::1], int32", 64, True, False)
    cells, counter = np.zeros((4, 2, 64), np.float32), np.zeros(1, np.uint32)
    with pytest.raises(Endless, match=r"block \d, thread"):
        launch(ptx, blocks=2, threads=64, arguments=[cells, counter, 3], steps=1_000_000)


def half_a_barrier() -> Callable[..., None]:
    from numba import cuda

    def kernel(x):
        if cuda.threadIdx.x < 40:
            cuda.syncthreads()
            x[cuda.threadIdx.x] = 1
        else:
            for _ in range(1):
                cuda.shfl_sync(0xFFFFFFFF, 3, 0)
                x[cuda.threadIdx.x] = 2

    return kernel


def test_deadlock_says_who_waits_where() -> None:
    ptx = compiled(half_a_barrier, "int32[::1]", 64)
    x = np.zeros(64, np.int32)
    with pytest.raises(Deadlock, match=r"block 0: 40 threads from 0 on wait at a barrier.*24 threads from 40 on"):
        launch(ptx, blocks=1, threads=64, arguments=[x])


def beyond(shared: bool) -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    def kernel(x, n):
        stage = cuda.shared.array(32, dtype=types.float32)
        t = cuda.threadIdx.x
        if shared:
            stage[t + n] = 1
            cuda.syncthreads()
            x[t] = stage[31 - t]
        else:
            x[t + n] = 1

    return kernel


def test_out_of_bounds() -> None:
    x = np.zeros(40, np.float32)[:32]
    ptx = compiled(beyond, "float32[::1], int64", 32, False)
    launch(ptx, blocks=1, threads=32, arguments=[x, 0])
    with pytest.raises(OutOfBounds, match=r"thread 31, PTX line \d+ `st.global.*byte 128 of array 0, which has 128"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 1])
    x.flags.writeable = False
    with pytest.raises(OutOfBounds, match="array 0, which is read-only"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 0])


def test_out_of_shared_memory() -> None:
    x = np.zeros(32, np.float32)
    ptx = compiled(beyond, "float32[::1], int64", 32, True)
    launch(ptx, blocks=1, threads=32, arguments=[x, 0])
    with pytest.raises(OutOfBounds, match="shared bytes 128 to 132 of 128"):
        launch(ptx, blocks=1, threads=32, arguments=[x, 1])


def neighbours(barrier: bool, warp: bool) -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    def kernel(x, apart):
        stage = cuda.shared.array(64, dtype=types.float32)
        t = cuda.threadIdx.x
        for r in range(3):
            stage[t] = x[t] + r
            if barrier:
                cuda.syncthreads()
            elif warp:
                cuda.syncwarp()
            value = stage[t ^ apart]
            if barrier:
                cuda.syncthreads()
            elif warp:
                cuda.syncwarp()
            x[t] += value

    return kernel


@pytest.mark.parametrize(
    ("barrier", "warp", "apart", "raced"),
    [(True, False, 32, False), (False, False, 1, True), (False, True, 1, False), (False, True, 32, True)],
)
def test_races_in_shared_memory(barrier: bool, warp: bool, apart: int, raced: bool) -> None:
    ptx = compiled(neighbours, "float32[::1], int32", 64, barrier, warp)
    for seed in range(5):
        x = np.ones(64, np.float32)
        if raced:
            with pytest.raises(
                Race, match=r"word \d+ of shared memory: thread \d+ of block 0 (reads|writes) it at PTX line"
            ):
                launch(ptx, blocks=1, threads=64, arguments=[x, apart], seed=seed)
        else:
            launch(ptx, blocks=1, threads=64, arguments=[x, apart], seed=seed)
            np.testing.assert_array_equal(x, 12)


def handed_over(arrive: str, arrived: str, fences: bool, first_barrier: bool) -> Callable[..., None]:
    """Block 0 writes weakly, block 1 reads; a counter stands between them."""
    from numba import cuda

    add = vendor._store("add", f"red{arrive}.global.add.u32 [$0], 1;", 0, "uint32")
    read = vendor._load("read", f"ld{arrived}.global.u32 $0, [$1];", 1, "uint32")

    def kernel(x, out, counter):
        t = cuda.threadIdx.x
        if cuda.blockIdx.x == 0:
            x[t] = t
            if first_barrier:
                cuda.syncthreads()
            if t == 0:
                if fences:
                    cuda.threadfence()
                add(counter, 0)
        else:
            if t == 0:
                while read(counter, 0) < 1:
                    pass
                if fences:
                    cuda.threadfence()
            cuda.syncthreads()
            out[t] = x[t ^ 33]

    return kernel


@pytest.mark.parametrize(
    ("arrive", "arrived", "fences", "first_barrier", "raced"),
    [
        (".release.gpu", ".acquire.gpu", False, True, False),
        (".relaxed.gpu", ".relaxed.gpu", True, True, False),
        (".relaxed.gpu", ".volatile", True, True, False),
        (".relaxed.gpu", ".acquire.gpu", False, True, True),
        (".release.gpu", ".relaxed.gpu", False, True, True),
        (".release.cta", ".acquire.cta", False, True, True),
        (".release.gpu", ".acquire.gpu", False, False, True),
    ],
)
def test_races_in_global_memory(arrive: str, arrived: str, fences: bool, first_barrier: bool, raced: bool) -> None:
    ptx = compiled(handed_over, "int32[::1], int32[::1], uint32[::1]", 64, arrive, arrived, fences, first_barrier)
    for seed in range(5):
        x, out, counter = np.zeros(64, np.int32), np.zeros(64, np.int32), np.zeros(1, np.uint32)
        if raced:
            with pytest.raises(
                Race, match=r"word \d+ of array 00: thread \d+ of block 0 writes it .* block 1 reads it here"
            ):
                launch(ptx, blocks=2, threads=64, arguments=[x, out, counter], seed=seed)
        else:
            launch(ptx, blocks=2, threads=64, arguments=[x, out, counter], seed=seed)
            np.testing.assert_array_equal(out, np.arange(64) ^ 33)


def two_arrays() -> Callable[..., None]:
    from numba import cuda

    def kernel(a, b):
        if cuda.blockIdx.x == 0:
            a[cuda.threadIdx.x] = 1
        else:
            b[cuda.threadIdx.x] = 2

    return kernel


def test_arrays_may_share_memory_but_not_race_in_it() -> None:
    ptx = compiled(two_arrays, "uint8[::1], uint8[::1]", 64)
    x = np.zeros(130, np.uint8)
    launch(ptx, blocks=2, threads=64, arguments=[x[:66], x[65:]])  # one word has bytes of both blocks
    np.testing.assert_array_equal(x, [1] * 64 + [0] + [2] * 64 + [0])
    with pytest.raises(Race, match=r"thread \d+ of block [01] writes it .* block [01] writes it here"):
        launch(ptx, blocks=2, threads=64, arguments=[x[:66], x[32:]])


def steps_of_work() -> Callable[..., None]:
    from numba import cuda
    from numba.cuda import types

    arrive, arrived = vendor.arrive(), vendor.arrived()

    def kernel(x, counter, rounds):
        stage = cuda.shared.array(256, dtype=types.float32)
        t, n = cuda.threadIdx.x, cuda.gridDim.x
        i = cuda.grid(1)
        for r in range(rounds):
            stage[t] = x[i]
            cuda.syncthreads()
            a = np.float32(0)
            for k in range(100):
                a = a * np.float32(0.5) + stage[(t + k) & 255]
            for k in range(5):
                a += cuda.shfl_xor_sync(0xFFFFFFFF, a, 1 << k)
            cuda.syncthreads()
            x[i] = a
            if t == 0:
                arrive(counter, 0)
                while arrived(counter, 0) < (r + 1) * n:
                    pass
            cuda.syncthreads()

    return kernel


def test_a_persistent_kernel_takes_moments() -> None:
    ptx = compiled(steps_of_work, "float32[::1], uint32[::1], int32", 256)
    x, counter = np.ones(2048, np.float32), np.zeros(1, np.uint32)
    launch(ptx, blocks=8, threads=256, arguments=[x, counter, 1])  # builds
    counter[:] = 0
    begin = time.perf_counter()
    launch(ptx, blocks=8, threads=256, arguments=[x, counter, 6])
    assert time.perf_counter() - begin < 2
