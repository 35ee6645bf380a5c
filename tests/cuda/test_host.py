"""What the host asks of the driver: streams and their order, memory, copies, launches, graphs. No GPU needed."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cuda.bindings", reason="numba-cuda is not installed: pip install scratchrnn[cuda-check]")

from cuda.bindings import driver as bindings

from scratchrnn.kernels.cuda import cublas, driver, vendor
from scratchrnn.kernels.cuda.call import Call
from scratchrnn.kernels.cuda.graph import Recorded
from scratchrnn.kernels.cuda.kernel import Kernel, NotAtOnceError
from scratchrnn.kernels.cuda.queue import Queue, own_queue
from tests.cuda.fake_driver import DeviceArray, FakeDriver, Owned

B, H = 3, 5


def real(name: str, *arguments: Any) -> None:
    """Make a call on the bindings, which take the arguments, and then find no driver."""
    with pytest.raises(RuntimeError, match="driver"):
        getattr(bindings, name)(*arguments)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeDriver:
    try:
        bindings.cuInit(0)
    except RuntimeError:
        return FakeDriver(monkeypatch, real)
    return FakeDriver(monkeypatch, lambda *_: None)  # a GPU: nothing of this may reach it


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(shape, dtype)


# --- calls


def test_numpy_arrays_go_there_and_back(fake: FakeDriver, rng: np.random.Generator) -> None:
    x, h, out = rng.standard_normal((B, H)), rng.standard_normal((2, B)), np.empty((B, H))
    before = x.copy()
    with Call(x, None, h, out) as call:
        dx, dh, dout = call.read(x), call.update(h), call.write(out)
        assert call.read(None) is None
        assert np.isnan(dout.array).all()
        np.testing.assert_array_equal(dx.array, x)
        want = dh.array[...] = dh.array + 1
        dout.array[...] = 2 * dx.array
        dx.array[...] = 0
        assert not np.shares_memory(dx.array, x)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(h, want)
    np.testing.assert_array_equal(out, 2 * before)
    stream = own_queue().handle
    moved = fake.names("cuMemAllocFromPoolAsync", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamSynchronize")
    assert {entry[-1] for entry in moved} == {stream}
    assert [entry[0] for entry in moved][-1] == "cuStreamSynchronize"


def test_views_go_there_and_back(fake: FakeDriver) -> None:
    whole = np.arange(24.0).reshape(4, 6)
    view, out = whole[:, 1:4], np.full((6, 4), np.inf).T[::2]
    with Call(view, out) as call:
        dx, dout = call.read(view), call.write(out)
        dout.array[...] = 7
        np.testing.assert_array_equal(dx.array, view)
    assert (out == 7).all()


def test_bools_and_lengths(fake: FakeDriver) -> None:
    mask, lengths = np.array([True, False, True]), np.array([4, 0, 2])
    with Call(mask, lengths) as call:
        dmask, dlengths = call.read(mask), call.read_lengths(lengths)
        assert (dmask.dtype, dlengths.dtype) == (np.uint8, np.int32)
        assert (dmask.array.tolist(), dlengths.array.tolist()) == ([1, 0, 1], [4, 0, 2])
        there = Owned(lengths.astype(np.int32))
        assert call.read_lengths(there).array is there.array
        with pytest.raises(TypeError, match="lengths: expected int32 on the device; got int64"):
            call.read_lengths(Owned(lengths))
        assert call.read(Owned(mask)).dtype == np.uint8


def test_empty_arrays(fake: FakeDriver) -> None:
    x, out = ones(0, H), ones(B, 0)
    with Call(x, out) as call:
        assert call.read(x).shape == (0, H)
        assert call.write(out).shape == (B, 0)
        assert call.queue.zeros((0,), np.int32).size == 0
    assert fake.names("cuMemAllocFromPoolAsync", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemsetD8Async") == []


def test_an_error_brings_nothing_back(fake: FakeDriver) -> None:
    out = ones(B)
    call = Call(out, Owned(ones(B), 21), Owned(ones(B), 22))
    with pytest.raises(KeyError), call:
        {}[call.write(out)]
    assert (out == 1).all()
    assert fake.names("cuStreamWaitEvent")[-1][1] == 22  # the work that was queued is still waited for


def test_device_arrays_are_taken_as_they_are(fake: FakeDriver) -> None:
    x, out = Owned(ones(B, H), 21), Owned(ones(B, H), 21)
    with Call(x, out, ones(2)) as call:
        assert call.queue.handle == 21
        assert call.read(x).array is x.array
        assert call.write(out).array is out.array
        assert call.update(out).array is out.array
    assert fake.names("cuMemAllocFromPoolAsync", "cuStreamSynchronize", "cuStreamWaitEvent", "cuStreamCreate") == []


def waits(fake: FakeDriver) -> list[tuple[int, int]]:
    """(stream that waits, stream it waits for), in order."""
    found = []
    for entry in fake.log:
        if entry[0] == "cuEventRecord":
            event, recorded = entry[1:]
        elif entry[0] == "cuStreamWaitEvent":
            assert entry[2] == event
            found.append((entry[1], recorded))
    return found


def test_arrays_on_several_streams(fake: FakeDriver) -> None:
    with Call(ones(2), Owned(ones(B), 23), Owned(ones(B)), Owned(ones(B), 24), Owned(ones(B), 23)) as call:
        assert call.queue.handle == 23
        assert waits(fake) == [(23, driver.LEGACY), (23, 24)]
        fake.log.clear()
    assert waits(fake) == [(driver.LEGACY, 23), (24, 23)]
    assert len(fake.names("cuEventDestroy")) == 2


def test_a_call_inside_another_has_its_queue(fake: FakeDriver) -> None:
    """Whatever streams its arrays name: a view may have forgotten which it is on."""
    x = Owned(ones(B), 23)
    with Call(x) as outer:
        made = outer.queue.zeros((B, H), np.float32)
        views = made.reshape((H, B)), outer.queue.reshape(made, (H, B)), made[1:]
        assert [view.stream for view in views] == [0, 23, 23]
        fake.log.clear()
        with Call(Owned(ones(2), 24), ones(H)) as inner:
            assert inner.queue is outer.queue
            assert inner.read(ones(H)).stream == 23
        assert waits(fake) == []
    with Call(Owned(ones(2), 24)) as after:
        assert after.queue.handle == 24


def test_arrays_that_join_later(fake: FakeDriver) -> None:
    with Call(Owned(ones(B), 23)) as call:
        for stream in (23, 24, 24, 25):
            given = Owned(ones(B, H), stream)
            joined = call.join(given)
            assert (joined.array is given.array, joined.stream) == (True, 23)
        assert waits(fake) == [(23, 24), (23, 25)]
        fake.log.clear()
    assert waits(fake) == [(24, 23), (25, 23)]
    elsewhere = Owned(ones(2), 23, device=1)
    fake.owned.append(elsewhere)
    with Call(Owned(ones(B), 23)) as call, pytest.raises(ValueError, match="arrays on device 0; got one on device 1"):
        call.join(elsewhere)


def test_the_streams_of_the_protocol(fake: FakeDriver) -> None:
    for named, used in ((None, 1), (1, 1), (2, 2), (0x7F00, 0x7F00)):
        with Call(Owned(ones(B), named)) as call:
            assert call.queue.handle == used


def test_torchs_current_stream(fake: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    class Tensor(Owned):
        pass

    current = {0: 0}
    cuda = SimpleNamespace(current_stream=lambda device: SimpleNamespace(cuda_stream=current[device]))
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(Tensor=Tensor, cuda=cuda))
    for named, used in ((0, driver.LEGACY), (31, 31)):
        current[0] = named
        with Call(Tensor(ones(B)), Owned(ones(B), used)) as call:
            assert call.queue.handle == used
    assert waits(fake) == []


def test_the_device_of_the_arrays_is_current(fake: FakeDriver) -> None:
    there = [Owned(ones(B), 21, device=1), Owned(ones(H), 21, device=1)]
    fake.owned += there
    with Call(*there) as call:
        assert fake.current == 1
        assert (call.queue.ordinal, call.queue.device.name) == (1, "fake 1")
        assert call.queue.device.compute_capability == (9, 0)
    assert fake.current == 0
    elsewhere = Owned(ones(2), 21, device=0)
    fake.owned.append(elsewhere)
    said = "expected all arrays on one device; got argument 0 on device 1, argument 2 on device 0"
    with pytest.raises(ValueError, match=said), Call(there[0], None, elsewhere):
        pytest.fail("the block must not run")


def test_arguments_that_cannot_be(fake: FakeDriver) -> None:
    with pytest.raises(TypeError, match=r"argument 1: expected a NumPy array or an array on a CUDA device; got b"):
        Call(ones(2), [1.0])
    with pytest.raises(ValueError, match=r"argument 2: expected a C-contiguous array .*; got strides \(4, 12\)"):
        Call(None, ones(2), Owned(ones(H, B).T))
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match=r"argument 0: expected a NumPy array .* got torch.Tensor"):
        Call(torch.ones(2))


# --- queues


def test_one_queue_of_our_own_for_a_thread_and_device(fake: FakeDriver) -> None:
    first = own_queue()
    assert own_queue() is first
    with fake.gpus[1]:
        assert own_queue() is not first
    assert first.handle not in (0, driver.LEGACY)


def test_copies_say_what_does_not_fit(fake: FakeDriver) -> None:
    on = own_queue()
    a, b = on.zeros((B, H), np.float32), on.upload(ones(B, H))
    on.copy(a, b)
    assert (a.array == 1).all()
    with pytest.raises(ValueError, match=r"copy: expected arrays of one size and dtype; got \(3, 5\) float32"):
        on.copy(a[:, 0], b)
    with pytest.raises(ValueError, match="copy: expected C-contiguous arrays"):
        on.copy(a[:, :2], b[:, :2])
    with pytest.raises(ValueError, match="download: expected arrays of one size and dtype"):
        on.download(a, np.empty((B, H)))


def test_whoever_waits_hears_the_alarm(fake: FakeDriver) -> None:
    on, out = own_queue(), np.zeros(B)
    on.synchronize()
    for wait in (on.synchronize, lambda: on.download(on.zeros((B,), np.float64), out)):
        on.alarm.array[0] = 1
        with pytest.raises(driver.GaveUpError, match="gave up"):
            wait()
        on.synchronize()  # once


def test_memory_is_freed_on_its_stream(fake: FakeDriver) -> None:
    on = own_queue()
    made = on.empty((B, H), np.float64)
    ((_, size, _, stream),) = fake.names("cuMemAllocFromPoolAsync")
    assert (size, stream) == (B * H * 8, on.handle)
    assert ("finally", "cuMemFreeAsync", made.array.ctypes.data, on.handle) in fake.log


def test_released_memory(fake: FakeDriver) -> None:
    own_queue().empty((B,), np.float32)
    driver.release_memory()
    ((_, pool, keep),) = fake.names("cuMemPoolTrimTo")
    assert (pool, keep) == (driver._pools[0], 0)


# --- launches


def kernel(signature: str, **more: Any) -> Kernel:
    return Kernel("k", lambda: None, signature, threads=64, **more)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Kernels compiled, instead of compiling them."""
    made: list[Any] = []
    monkeypatch.setattr(vendor, "compile_kernel", lambda *what: made.append(what) or "code")
    monkeypatch.setattr(vendor, "entry", lambda code: 5)
    return made


class Parameters(ctypes.Structure):
    """What the driver reads for "float32[::1], int32, uint8[::1], float64, float32", as C lays it out."""

    _fields_ = [
        ("x", ctypes.c_int64 * 7), ("n", ctypes.c_int32), ("mask", ctypes.c_int64 * 7), ("d", ctypes.c_double),
        ("f", ctypes.c_float),
    ]  # fmt: skip


def test_arguments_lie_as_the_kernel_reads_them(fake: FakeDriver, compiled: list[Any]) -> None:
    on = own_queue()
    x, mask = on.zeros((B, H), np.float32), on.zeros((4,), np.uint8)
    seen: list[Any] = []

    def launch(entry: int, *rest: Any) -> None:
        shape, pointers = rest[:6], ctypes.cast(rest[8], ctypes.POINTER(ctypes.c_void_p))
        kinds = [ctypes.c_int64] * 7 + [ctypes.c_int32] + [ctypes.c_int64] * 7 + [ctypes.c_double, ctypes.c_float]
        values = [kind.from_address(pointers[n]).value for n, kind in enumerate(kinds)]
        seen.append((entry, *shape, rest[6], rest[7], values))

    fake.cuLaunchKernel = launch  # type: ignore[attr-defined]
    kernel("float32[::1], int32, uint8[::1], float64, float32").launch(on, 9, x, -3, mask, 0.1, 0.5)
    words = [0, 0, 15, 4, x.array.ctypes.data, 15, 4]
    mask_words = [0, 0, 4, 1, mask.array.ctypes.data, 4, 1]
    assert seen == [(5, 9, 1, 1, 64, 1, 1, 0, on.handle, [*words, -3, *mask_words, 0.1, 0.5])]
    packing, offsets = kernel("float32[::1], int32, uint8[::1], float64, float32")._layout
    assert offsets[7:9] == (Parameters.n.offset, Parameters.mask.offset)
    assert offsets[-2:] == (Parameters.d.offset, Parameters.f.offset)
    assert packing.size <= ctypes.sizeof(Parameters)


def test_compiled_once_and_allowed_its_shared_memory(fake: FakeDriver, compiled: list[Any]) -> None:
    on, big = own_queue(), kernel("float32[::1]", shared=100 << 10, cooperative=True)
    x = on.zeros((B,), np.float32)
    for _ in range(2):
        big.launch(on, 2, x)
    assert len(compiled) == 1
    ((_, attribute, size, entry, ordinal),) = fake.names("cuKernelSetAttribute")
    assert attribute == bindings.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    assert (size, entry, ordinal) == (100 << 10, 5, 0)
    assert [entry[8:10] for entry in fake.names("cuLaunchCooperativeKernel")] == [(100 << 10, on.handle)] * 2
    small = kernel("float32[::1]", shared=48 << 10)
    small.launch(on, 2, x)
    assert len(fake.names("cuKernelSetAttribute")) == 1
    for shared, asked in ((60 << 10, 2), (50 << 10, 2), (0, 2), (61 << 10, 3)):
        small.launch(on, 2, x, shared=shared)
        assert fake.names("cuLaunchKernel")[-1][8] == shared
        assert len(fake.names("cuKernelSetAttribute")) == asked


def test_cooperative_kernels_take_turns(fake: FakeDriver, compiled: list[Any]) -> None:
    """On two streams: each waits for the one before it, on whichever stream that was."""
    first, second = Queue(driver.Stream().handle), Queue(driver.Stream().handle)
    big, x = kernel("float32[::1]", cooperative=True), first.zeros((B,), np.float32)
    kernel("float32[::1]").launch(first, 2, x)
    assert not fake.names("cuStreamWaitEvent")
    for on in (first, second, first):
        big.launch(on, 2, x)
    names = ("cuStreamWaitEvent", "cuLaunchCooperativeKernel", "cuEventRecord")
    called = fake.names(*names)
    assert [entry[0] for entry in called] == list(names) * 3
    waits, launches, records = called[0::3], called[1::3], called[2::3]
    handles = [first.handle, second.handle, first.handle]
    assert (
        [entry[1] for entry in waits] == [entry[9] for entry in launches] == [entry[2] for entry in records] == handles
    )
    assert len({entry[2] for entry in waits} | {entry[1] for entry in records}) == 1  # one event


def test_what_fits(fake: FakeDriver, compiled: list[Any]) -> None:
    on = own_queue()
    assert on.device.sms == 7
    fitting = kernel("float32[::1]", cooperative=True)
    assert fitting.fits(on, 14)
    assert not fitting.fits(on, 15)
    assert not kernel("float32[::1]", shared=(227 << 10) + 1).fits(on, 1)
    assert not fitting.fits(on, 1, shared=(227 << 10) + 1)
    with pytest.raises(NotAtOnceError, match="k: fake 0 cannot run 15 blocks of it at once"):
        kernel("float32[::1]", cooperative=True).launch(on, 15, on.zeros((B,), np.float32))
    assert not fake.names("cuLaunchCooperativeKernel")


def test_launches_that_cannot_be(fake: FakeDriver, compiled: list[Any]) -> None:
    on, two = own_queue(), kernel("float32[::1], int32")
    x = on.zeros((B, H), np.float32)
    for arguments, said in (
        ((x,), "k: expected 2 arguments; got 1"),
        ((x, 1, 2), "k: expected 2 arguments; got 3"),
        ((on.zeros((B,), np.float64), 1), r"k: argument 0: expected float32\[::1\]; got float64"),
        ((1.0, 1), r"k: argument 0: expected float32\[::1\]; got float"),
        ((x, x), "k: argument 1: expected int32; got float32"),
    ):
        with pytest.raises(TypeError, match=said):
            two.launch(on, 1, *arguments)
    with pytest.raises(ValueError, match="k: argument 0: expected a C-contiguous array; got strides"):
        two.launch(on, 1, x[:, :2], 1)
    with pytest.raises(ValueError, match="signature: expected types like"):
        kernel("float32[:]").launch(on, 1, x)
    assert fake.names("cuLaunchKernel") == []


# --- graphs


@pytest.fixture
def blas(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cublas, "handle", lambda queue: None)
    return


def recorded(fake: FakeDriver, on: Queue, run: Callable[[], None]) -> tuple[Recorded, int]:
    """And the stream that it was recorded on."""
    made = Recorded(on, run)
    return made, fake.names("cuStreamBeginCapture")[-1][1]


def test_recorded_on_a_stream_of_its_own(fake: FakeDriver, compiled: list[Any], blas: None) -> None:
    with Call(Owned(ones(B))) as call:
        on = call.queue
        x, y, workspace = on.zeros((B,), np.float32), on.zeros((B,), np.float32), on.workspace
        k = kernel("float32[::1]")
        inside: list[Any] = []

        def run() -> None:
            inside.append((on.handle, on.workspace is workspace))
            k.launch(on, 1, x)
            on.copy(y, x)

        graph, stream = recorded(fake, on, run)
        assert stream != on.handle == driver.LEGACY
        assert inside == [(stream, True)]
        assert fake.names("cuLaunchKernel")[0][9] == fake.names("cuMemcpyDtoDAsync")[0][4] == stream
        assert on.workspace is workspace
        fake.log.clear()
        graph.replay(on)
        assert [entry[0] for entry in fake.log] == ["cuGraphLaunch"]
        assert fake.log[0][2] == driver.LEGACY


@pytest.mark.parametrize("what", ["empty", "zeros", "upload", "download", "synchronize"])
def test_what_cannot_be_recorded(fake: FakeDriver, blas: None, what: str) -> None:
    on = own_queue()
    handle, array = on.handle, on.zeros((B,), np.float32)
    arguments: dict[str, tuple[Any, ...]] = {
        "empty": ((B,), np.float32), "zeros": ((B,), np.float32), "upload": (ones(B),), "download": (array, ones(B)),
    }  # fmt: skip
    with pytest.raises(RuntimeError, match="not while a graph is recorded"):
        Recorded(on, lambda: getattr(on, what)(*arguments.get(what, ())))
    assert (on.handle, on.recording, list(on.workspaces)) == (handle, False, [handle])
    on.synchronize()


def test_the_fake_arrays_are_like_numbas() -> None:
    from numba.cuda.cudadrv.devicearray import DeviceNDArray

    ours = {name for name in vars(DeviceArray(ones(B), None)) | vars(DeviceArray) if not name.startswith("_")}
    assigned = {"shape", "strides", "dtype", "size", "stream"}  # in DeviceNDArray.__init__
    assert ours - {"array", "owner"} - assigned <= set(dir(DeviceNDArray))


def test_errors_name_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "cuStreamSynchronize", lambda s: (bindings.CUresult.CUDA_ERROR_ILLEGAL_ADDRESS,))
    with pytest.raises(driver.DriverError, match="cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"):
        driver.call("cuStreamSynchronize", 3)
