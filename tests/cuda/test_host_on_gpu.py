"""The host's side on a GPU: memory, streams, other libraries' arrays, launches, products, graphs."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.kernels.cuda import driver, gemm, vendor
from scratchrnn.kernels.cuda.call import Call
from scratchrnn.kernels.cuda.graph import Recorded
from scratchrnn.kernels.cuda.kernel import Kernel, NotAtOnceError
from scratchrnn.kernels.cuda.queue import Queue, address
from scratchrnn.testing import assert_close

reason = backends.REGISTRY["cuda"].why_unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(reason is not None, reason=str(reason))]

B, H = 33, 129
SLOW = 20_000_000  # turns of a loop that a result waits for: some milliseconds at least


@pytest.fixture
def queue() -> Iterator[Queue]:
    with Call(np.empty(1)) as call:
        yield call.queue


def on_host(queue: Queue, array: Any) -> np.ndarray:
    host = np.empty(array.shape, array.dtype)
    queue.download(array, host)
    return host


def adding() -> Callable[..., None]:
    """y = x + shift · oneⁿ, for n turns that the compiler cannot leave out."""
    from numba import cuda

    def add(x, y, shift, one, turns):  # type: ignore[no-untyped-def]
        for _ in range(turns):
            shift *= one
        i = cuda.grid(1)
        if i < x.size:
            y[i] = x[i] + shift

    return add


ADD = Kernel("add", adding, "float32[::1], float32[::1], float32, float32, int32", threads=128)


def add(queue: Queue, x: Any, y: Any, shift: float, turns: int = 0) -> None:
    ADD.launch(queue, -(-x.size // 128), x, y, shift, 1.0, turns)


def staging(count: int) -> Callable[[], Callable[..., None]]:
    def build() -> Callable[..., None]:
        from numba import cuda, float32

        def reverse(x, y):  # type: ignore[no-untyped-def]
            staged = cuda.shared.array(0, float32)
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                staged[i] = x[i]
            cuda.syncthreads()
            for i in range(cuda.threadIdx.x, count, cuda.blockDim.x):
                y[i] = staged[count - 1 - i]

        return reverse

    return build


def meeting() -> Callable[..., None]:
    """Every block writes its number, all meet, and each reads what the next one wrote."""
    from numba import cuda

    arrive, arrived, load1, store1 = vendor.arrive(), vendor.arrived(), vendor.load1(), vendor.store1()

    def meet(counter, numbers, seen, blocks):  # type: ignore[no-untyped-def]
        block = cuda.blockIdx.x
        if cuda.threadIdx.x == 0:
            store1(numbers, block, np.float32(block))
            arrive(counter, 0)
            turns = 0
            while arrived(counter, 0) < blocks and turns < 1 << 24:
                turns += 1
            seen[block] = load1(numbers, (block + 1) % blocks)

    return meet


MEET = Kernel("meet", meeting, "uint32[::1], float32[::1], float32[::1], int32", threads=32, cooperative=True)


# --- memory


def test_up_and_down(queue: Queue, rng: np.random.Generator) -> None:
    for dtype in (np.float32, np.float64, np.int32, np.uint8):
        x = (100 * rng.random((B, H))).astype(dtype)
        there = queue.upload(x)
        other = queue.zeros((B, H), dtype)
        assert (on_host(queue, other) == 0).all()
        queue.copy(other, there)
        np.testing.assert_array_equal(on_host(queue, other), x)
        np.testing.assert_array_equal(on_host(queue, there[3:7]), x[3:7])
    assert on_host(queue, queue.zeros((0, H), np.float32)).shape == (0, H)


def test_a_view_keeps_its_memory(queue: Queue) -> None:
    views = [queue.upload(np.full((4, H), n, np.float32))[1:3] for n in range(50)]
    gc.collect()
    more = [queue.zeros((4, H), np.float32) for _ in range(50)]
    for n, view in enumerate(views):
        assert (on_host(queue, view) == n).all()
    assert len(more) == 50


def test_memory_comes_back(queue: Queue) -> None:
    first = queue.empty((1 << 22,), np.float32)
    where = address(first)
    del first
    gc.collect()
    again = queue.empty((1 << 22,), np.float32)
    assert address(again) == where
    queue.synchronize()
    driver.release_memory()


def test_freed_on_another_thread(queue: Queue) -> None:
    held = [queue.zeros((1 << 20,), np.float32)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    queue.synchronize()
    assert (on_host(queue, queue.zeros((1 << 20,), np.float32)) == 0).all()


# --- calls and streams


def test_a_call_with_numpy_arrays(rng: np.random.Generator) -> None:
    x, y = rng.standard_normal((B, H), np.float32), np.full((2 * H, B), np.nan, np.float32).T[:, ::2]
    with Call(x, y) as call:
        add(call.queue, call.read(x), call.write(y), 2.5, turns=1000)
    np.testing.assert_array_equal(y, x + np.float32(2.5))


def test_a_call_of_each_thread(rng: np.random.Generator) -> None:
    x = rng.standard_normal((B, H), np.float32)
    results = [np.empty_like(x) for _ in range(4)]

    def work(n: int) -> None:
        for _ in range(20):
            with Call(x, results[n]) as call:
                add(call.queue, call.read(x), call.write(results[n]), n)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n, result in enumerate(results):
        np.testing.assert_array_equal(result, x + np.float32(n))


def test_numbas_arrays() -> None:
    cuda = vendor.numba_cuda()
    x, y = cuda.to_device(np.ones((B, H), np.float32)), cuda.device_array((B, H), np.float32)
    with Call(x, y) as call:
        assert address(call.read(x)) == x.device_ctypes_pointer.value
        add(call.queue, call.read(x), call.write(y), 1)
    assert (y.copy_to_host() == 2).all()


def test_two_streams_in_order() -> None:
    """x is still being written on its own stream when the call begins; y is read on its own as soon as it ends."""
    cuda = vendor.numba_cuda()
    first, second = cuda.stream(), cuda.stream()
    x = cuda.to_device(np.zeros(B * H, np.float32)).bind(first)
    y = cuda.to_device(np.zeros(B * H, np.float32)).bind(second)
    z = cuda.to_device(np.zeros(B * H, np.float32))
    cuda.synchronize()
    add(Queue(int(first)), x, x, 1, turns=SLOW)
    with Call(y, x) as call:
        assert call.queue.handle == int(second)
        add(call.queue, call.read(x), call.write(y), 10, turns=SLOW)
    add(Queue(int(first)), y, z, 100)  # ordered behind the call, though it ran on the other stream
    first.synchronize()
    assert (z.copy_to_host() == 111).all()


def torch_on_gpu() -> Any:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA")
    return torch


def test_torchs_tensors_are_taken_as_they_are() -> None:
    torch = torch_on_gpu()
    x, y = torch.ones(B, H, device="cuda"), torch.full((B, H), float("nan"), device="cuda")
    with Call(x, y) as call:
        assert call.queue.handle == driver.LEGACY
        assert (address(call.read(x)), address(call.write(y))) == (x.data_ptr(), y.data_ptr())
        add(call.queue, call.read(x), call.write(y), 1, turns=1000)
    assert (y == 2).all()


def test_torchs_current_stream() -> None:
    torch = torch_on_gpu()
    stream = torch.cuda.Stream()
    x, y = torch.ones(B, H, device="cuda"), torch.zeros(B, H, device="cuda")
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)
        x += 1
        with Call(x, y) as call:
            assert call.queue.handle == stream.cuda_stream
            add(call.queue, call.read(x), call.write(y), 1)
        z = 2 * y
    stream.synchronize()
    assert (z == 6).all()


def test_arguments_that_cannot_be() -> None:
    torch = torch_on_gpu()
    x = torch.ones(B, H, device="cuda")
    with pytest.raises(TypeError, match="argument 1: expected a NumPy array or an array on a CUDA device; got torch"):
        Call(x, x.cpu())
    with pytest.raises(ValueError, match="argument 0: expected a C-contiguous array on the device"):
        Call(x.T)
    if torch.cuda.device_count() > 1:
        with pytest.raises(ValueError, match="expected all arrays on one device"), Call(x, x.to("cuda:1")):
            pytest.fail("the block must not run")


# --- launches


def test_the_device_is_described(queue: Queue) -> None:
    found = queue.device
    assert found.compute_capability >= (8, 0)
    assert found.sms >= 1
    assert found.shared_per_block >= 96 << 10
    assert found.registers_per_block == 65536


def test_the_code_is_what_the_tests_inspect(queue: Queue) -> None:
    ADD.compile(queue)
    _, compiled = ADD._entries[queue.ordinal]
    major, minor = queue.device.compute_capability
    cc = (major, minor, "a") if major >= 9 else (major, minor)
    body = [text.split("{", 1)[1] for text in (compiled._codelibrary.get_asm_str(), ADD.ptx(cc))]
    assert body[0].count("\n") == body[1].count("\n")
    assert compiled.local_mem_per_thread == 0


@pytest.mark.parametrize("kilobytes", [16, 48, 64, 96])
def test_shared_memory_beyond_48_kilobytes(kilobytes: int, queue: Queue, rng: np.random.Generator) -> None:
    count = kilobytes * 256
    x = queue.upload(rng.standard_normal(count, np.float32))
    y = queue.empty((count,), np.float32)
    Kernel("reverse", staging(count), "float32[::1], float32[::1]", 256, shared=4 * count).launch(queue, 1, x, y)
    np.testing.assert_array_equal(on_host(queue, y), on_host(queue, x)[::-1])


def test_more_shared_memory_than_there_is(queue: Queue) -> None:
    x = queue.zeros((1,), np.float32)
    too_much = Kernel(
        "reverse", staging(1), "float32[::1], float32[::1]", 256, shared=queue.device.shared_per_block + 4
    )
    assert not too_much.fits(queue, 1)
    with pytest.raises(driver.DriverError, match="cuKernelSetAttribute"):
        too_much.launch(queue, 1, x, x)


def test_blocks_meet(queue: Queue) -> None:
    for blocks in (1, 2, queue.device.sms):
        assert MEET.fits(queue, blocks)
        counter, numbers = queue.zeros((1,), np.uint32), queue.zeros((blocks,), np.float32)
        seen = queue.zeros((blocks,), np.float32)
        MEET.launch(queue, blocks, counter, numbers, seen, blocks)
        np.testing.assert_array_equal(on_host(queue, seen), (np.arange(blocks) + 1) % blocks)


def test_blocks_that_cannot_meet(queue: Queue) -> None:
    blocks = queue.device.sms * 64 + 1
    assert not MEET.fits(queue, blocks)
    with pytest.raises(NotAtOnceError, match=f"cannot run {blocks} blocks of it at once"):
        MEET.launch(queue, blocks, *(queue.zeros((blocks,), dtype) for dtype in ("u4", "f4", "f4")), blocks)
    assert (on_host(queue, queue.zeros((3,), np.float32)) == 0).all()  # nothing else has suffered


# --- products


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("sizes", [(65, 33, 129), (1, 33, 129), (65, 1, 129), (65, 33, 1), (65, 33, 0)])
def test_products(
    sizes: tuple[int, int, int], transpose_a: bool, transpose_b: bool, add: bool, dtype: Any, queue: Queue,
    rng: np.random.Generator,
) -> None:  # fmt: skip
    m, n, k = sizes
    a = rng.standard_normal((k, m) if transpose_a else (m, k)).astype(dtype)
    b = rng.standard_normal((n, k) if transpose_b else (k, n)).astype(dtype)
    whole = rng.standard_normal((m, n + 7)).astype(dtype)
    exact = (a.T if transpose_a else a).astype(np.float64) @ (b.T if transpose_b else b)
    want = whole.copy()
    want[:, 3 : 3 + n] = exact + (whole[:, 3 : 3 + n] if add else 0)
    out = queue.upload(whole)
    options = {"transpose_a": transpose_a, "transpose_b": transpose_b, "add": add}
    gemm.product(queue, out[:, 3 : 3 + n], queue.upload(a), queue.upload(b), **options)
    assert_close("out", on_host(queue, out), want, rel=16 * float(np.finfo(dtype).eps) * max(1, k) ** 0.5)


def test_float32_is_not_rounded_to_tf32(queue: Queue) -> None:
    a, one = np.full((64, 64), 1 + 2.0**-20, np.float32), np.eye(64, dtype=np.float32)
    out = queue.empty((64, 64), np.float32)
    gemm.product(queue, out, queue.upload(a), queue.upload(one))
    np.testing.assert_array_equal(on_host(queue, out), a)


def test_a_product_repeats_bit_for_bit(queue: Queue, rng: np.random.Generator) -> None:
    a, b = (queue.upload(rng.standard_normal(shape, np.float32)) for shape in ((2048, 512), (512, 300)))
    results = []
    for _ in range(5):
        out = queue.empty((2048, 300), np.float32)
        gemm.product(queue, out, a, b)
        results.append(on_host(queue, out))
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])


# --- graphs


@pytest.mark.parametrize("named", ["own", "legacy"])
def test_a_graph_replays(named: str, rng: np.random.Generator) -> None:
    with Call(np.empty(1)) as call:
        queue = call.queue if named == "own" else Queue(driver.LEGACY)
        a, b = (queue.upload(rng.standard_normal(shape, np.float32)) for shape in ((64, 32), (32, 48)))
        out, shifted, copied = (queue.zeros((64, 48), np.float32) for _ in range(3))
        ADD.compile(queue)

        def run() -> None:
            gemm.product(queue, out, a, b, add=True)
            add(queue, out, shifted, 1)
            queue.copy(copied, shifted)

        recorded = Recorded(queue, run)
        assert (on_host(queue, copied) == 0).all()  # nothing has run
        gemm.product(queue, out, a, b)
        once = on_host(queue, out)
        for n in range(2, 5):
            recorded.replay(queue)
            assert_close("copied", on_host(queue, copied), n * once + 1, rel=1e-5)
        del recorded, run
        gc.collect()
        queue.synchronize()


def test_a_recording_that_fails_leaves_the_queue_as_it_was(queue: Queue) -> None:
    handle, x = queue.handle, queue.zeros((B,), np.float32)
    with pytest.raises(RuntimeError, match="empty: not while a graph is recorded"):
        Recorded(queue, lambda: queue.empty((B,), np.float32))
    assert queue.handle == handle
    add(queue, x, x, 3)
    assert (on_host(queue, x) == 3).all()


def test_memory_may_die_while_a_graph_is_recorded(queue: Queue) -> None:
    x, held = queue.zeros((B,), np.float32), [queue.zeros((1 << 20,), np.float32)]
    add(queue, x, x, 0)

    def run() -> None:
        held.clear()
        gc.collect()
        add(queue, x, x, 1)

    recorded = Recorded(queue, run)
    for _ in range(3):
        recorded.replay(queue)
    assert (on_host(queue, x) == 3).all()


def test_info_names_the_device(queue: Queue) -> None:
    devices = backends.cuda_facts()["devices"]
    assert devices[queue.ordinal]["name"] == queue.device.name
    assert devices[queue.ordinal]["compute_capability"] == ".".join(map(str, queue.device.compute_capability))
