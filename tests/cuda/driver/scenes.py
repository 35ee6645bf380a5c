"""What a child process plays on the stub driver: all in one, which compiles each kernel once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cuda import chunks, driver, plan, queue, vendor
from scratchrnn.kernels.cuda.call import Call
from scratchrnn.kernels.cuda.kernel import Kernel
from tests.cuda import emulator
from tests.cuda.driver import attach

T, B, I, H, P = 5, 3, 2, 7, 4
LENGTHS = np.array([5, 1, 4])
OUT_OF_MEMORY = 2
LIVE = ("streams", "events", "graphs", "executables", "allocations", "handles")
# the alarm, this thread's handle of cuBLAS, and the event by which cooperative kernels take turns
LEFT = dict.fromkeys(LIVE, 0) | {"allocations": 1, "handles": 1, "events": 1}
RNG = np.random.default_rng(3)
Arrays = list[np.ndarray]


def live() -> dict[str, int]:
    """What is there now."""
    gc.collect()
    return {what: attach.count(what) for what in LIVE}


def drop_everything() -> None:
    """Forget what is kept for later calls."""
    for chunk in chunks._idle.values():
        chunk.end()
    chunks._idle.clear()
    queue._own.__dict__.clear()


class OnDevice:
    """An array of another library's, on a stream of its own."""

    def __init__(self, array: np.ndarray, stream: int) -> None:
        self._array = queue.Queue(stream).upload(array)
        self.__cuda_array_interface__ = self._array.__cuda_array_interface__ | {"stream": stream}


def on_host(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.copy_to_host()


def train(
    backend: str, dtype: str = "float32", place: Callable[[np.ndarray], Any] = lambda x: x, **options: Any
) -> Arrays:
    """Output and gradients of a layer."""
    rng = np.random.default_rng(5)
    layer = srnn.LSTM(I, H, dtype=np.dtype(dtype), backend=backend, rng=rng, **options)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    d = rng.standard_normal((T, B, layer.proj_size or H)).astype(dtype)
    trace = layer.forward(place(x), lengths=LENGTHS)
    gradients = layer.backward(trace, place(d))
    return [on_host(array) for array in (trace.output, gradients.input, *gradients.parameters.values())]


def check(got: Arrays, want: Arrays) -> None:
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=(2e-5 if a.dtype == np.float32 else 1e-13) * np.abs(b).max())


# --- scenes


def arrays_of_the_host() -> None:
    """Both engines; all that was made is gone in the end."""
    for engine in ("per_step", "persistent"):
        with plan.only(engine):
            for _ in range(2):
                check(train("cuda"), train("numpy"))
                check(train("cuda"), train("numpy"))
    assert attach.count("launches") == len(attach.launched)
    assert any(launch.cooperative for launch in attach.launched)
    drop_everything()
    assert live() == LEFT


def double_precision_and_a_projection() -> None:
    with plan.only("per_step"):
        check(train("cuda", "float64", proj_size=P), train("numpy", "float64", proj_size=P))


def arrays_of_the_device() -> None:
    """Two streams, as late as their order allows: who does not wait reads what is not there yet."""
    want = train("numpy")
    vendor.numba_cuda().current_context()
    attach.lazy()
    for engine in ("per_step", "persistent"):
        with plan.only(engine):
            for _ in range(2):
                streams = driver.Stream(), driver.Stream()
                turns = iter([*streams, *streams])
                check(train("cuda", place=lambda x, turns=turns: OnDevice(x, next(turns).handle)), want)
                check(train("cuda", place=lambda x: OnDevice(x, driver.LEGACY)), want)
                del streams, turns  # chunks that served them are kept
    check(train("cuda", place=vendor.numba_cuda().to_device), want)


def another_stream_goes_on() -> None:
    """What its owner does with an array after the call comes after what the call did with it."""
    vendor.numba_cuda().current_context()
    attach.lazy()
    first, second = (queue.Queue(driver.Stream()) for _ in range(2))
    x, y = first.upload(np.arange(B, dtype=np.float32)), second.zeros((B,), "float32")
    with Call(y, x) as call:
        assert call.queue.handle == second.handle
        call.queue.copy(call.write(y), call.read(x))
    first.copy(x, first.zeros((B,), "float32"))
    first.synchronize()
    assert on_host(y).tolist() == [0, 1, 2]
    attach.lazy(False)


def threads_that_end() -> None:
    """Each has a stream, which ends with it; what it leaves behind serves the next."""
    want, found = train("numpy"), []
    with plan.only("per_step"):
        train("cuda")

    def work() -> None:
        with plan.only("per_step"):
            found.append(train("cuda"))

    for _ in range(2):
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 6
    for got in found:
        check(got, want)
    assert live()["handles"] == 1
    drop_everything()
    assert live() == LEFT


def launches_as_numbas_own() -> None:
    """The parameters, byte by byte."""
    cuda = vendor.numba_cuda()
    signature = "float32[::1], int32, int64, int8, float64, uint8, float32, uint32, uint64, int32[::1]"
    numbers = [np.int32(-3), np.int64(-(2**40)), np.int8(-5), 1.5, np.uint8(200), np.float32(0.1), np.uint32(2**32 - 1),
               np.uint64(2**63)]  # fmt: skip

    def build() -> Callable[..., None]:
        def kernel(x, a, b, c, d, e, f, g, h, y):  # type: ignore[no-untyped-def]
            if cuda.grid(1) == 0:
                x[0] = a + b + c + d + e + f + g + h
                y[0] = x.size

        return kernel

    with Call(np.empty(1)) as call:
        x, y = call.queue.zeros((3,), "float32"), call.queue.zeros((2, 5), "int32")
        Kernel("kernel", build, signature, threads=64).launch(call.queue, 2, x, *numbers, y)
        theirs = cuda.jit(build(), launch_bounds=(64, 1), lto=False)
        theirs.compile(vendor.argument_types(signature))
        with pytest.warns(match="Grid size"):
            theirs[2, 64, call.queue.stream, 0](x, *numbers, y.reshape(-1))
    ours, numbas = attach.launched[-2:]
    assert len(ours.parameters) == 7 * 8 + 8 + 8 + 8 + 8 + 8 + 8 + 8 + 7 * 8  # each at a multiple of its size
    for what in ("grid", "block", "shared", "stream", "parameters"):
        assert getattr(ours, what) == getattr(numbas, what), what


def calls_that_fail() -> None:
    """The next call is as if nothing had been."""
    want = train("numpy")
    names = ["cuMemAllocFromPoolAsync", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuMemcpyDtoDAsync", "cuLaunchKernel",
             "cuStreamSynchronize", "cuEventCreate", "cuStreamWaitEvent", "cuGraphLaunch", "stub_product"]  # fmt: skip
    while_recording = ["cuStreamCreate", "cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiateWithFlags",
                       "stub_product", "cuLaunchKernel"]  # fmt: skip
    with plan.only("per_step"):
        train("cuda")
        before = live()
        for name, on in [(name, on) for name in names for on in (1, 3)] + [(name, 1) for name in while_recording]:
            if name in while_recording:
                drop_everything()
            attach.fail(name, OUT_OF_MEMORY, on=on)
            with pytest.raises(
                RuntimeError, match=r"^cu\w+: (CUDA_ERROR_OUT_OF_MEMORY|CUBLAS_STATUS_EXECUTION_FAILED)"
            ):
                train("cuda")
            check(train("cuda"), want)
        assert live() == before


def a_kernel_that_fails() -> None:
    """What the driver says first is what is raised; afterwards nothing works, and nothing hangs."""
    train("cuda")
    attach.lazy()
    with mock.patch.object(emulator, "launch", side_effect=emulator.KernelFault("on purpose")):
        with pytest.raises(driver.DriverError, match="CUDA_ERROR_LAUNCH_FAILED"):
            train("cuda")
        with pytest.raises(vendor.numba_cuda().cudadrv.driver.CudaAPIError, match="CUDA_ERROR_LAUNCH_FAILED"):
            train("cuda")


if __name__ == "__main__":
    for scene in (
        arrays_of_the_host, double_precision_and_a_projection, threads_that_end, launches_as_numbas_own,
        calls_that_fail, another_stream_goes_on, arrays_of_the_device, a_kernel_that_fails,
    ):  # fmt: skip
        scene()
        assert attach.count("violations") == 0, scene.__name__
