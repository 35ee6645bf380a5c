"""The driver's calls that the other files need, by address: streams, events, memory of the pool, launches, graphs.

Addresses and handles are plain integers. Every function acts on the device whose context is current, which `call.Call`
sees to, and raises DriverError with the driver's own name of what went wrong. Work that is already queued when a kernel
fails reports so at a later call.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

LEGACY = 1  # the stream that orders itself with all others, by the handle that names it in every build


class DriverError(RuntimeError):
    """A call of the CUDA driver that did not succeed."""


class GaveUpError(RuntimeError):
    """Blocks of a kernel waited for others in vain. What it and later kernels wrote is not to be used."""


def call(name: str, *arguments: Any) -> Any:
    """Call a function of cuda.bindings.driver; return what it returns besides its status."""
    from cuda.bindings import driver

    status, *values = getattr(driver, name)(*arguments)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise DriverError(f"{name}: {status.name}")
    return values[0] if len(values) == 1 else tuple(values)


def constant(group: str, name: str) -> Any:
    """A member of one of the driver's enumerations."""
    from cuda.bindings import driver

    return getattr(getattr(driver, group), name)


def finally_call(owner: Any, name: str, *arguments: Any, needs: Any = None) -> None:
    """Call a function of the driver when `owner` dies, in the context that is current now; `needs` lives until then.

    Its status is not read: there is nobody to tell, and a broken context says so at its next use. Not at exit, when the
    driver gives everything back by itself.
    """
    from cuda.bindings import driver

    release, context = getattr(driver, name), call("cuCtxGetCurrent")
    push, pop = driver.cuCtxPushCurrent, driver.cuCtxPopCurrent

    def run(needed: Any) -> None:  # on whichever thread drops the last reference
        push(context)
        release(*arguments)
        pop()

    weakref.finalize(owner, run, needs).atexit = False


# --- streams


class Stream:
    """A stream of our own, which no other waits for unasked. Destroyed with this object, its work still done."""

    def __init__(self) -> None:
        handle = call("cuStreamCreate", constant("CUstream_flags", "CU_STREAM_NON_BLOCKING"))
        self.handle = int(handle)
        finally_call(self, "cuStreamDestroy", handle)


def wait_for(stream: int, other: int) -> None:
    """Let what is queued on `stream` from now on wait for what is on `other` now. The host does not wait."""
    event = call("cuEventCreate", constant("CUevent_flags", "CU_EVENT_DISABLE_TIMING"))
    try:
        call("cuEventRecord", event, other)
        call("cuStreamWaitEvent", stream, event, 0)
    finally:
        call("cuEventDestroy", event)  # the driver keeps it until nobody waits


# --- memory


class Allocation:
    """Memory from our pool, usable in the order of one stream, freed there when the last array on it is gone.

    Numba's own allocation stops the device. A stream of ours outlives its arrays; others' streams have to, too.
    """

    def __init__(self, stream: int, shape: tuple[int, ...], dtype: Any, size: int, own: Stream | None = None) -> None:
        address = call("cuMemAllocFromPoolAsync", size, _pool(device_ordinal()), stream) if size else 0
        if size:
            finally_call(self, "cuMemFreeAsync", address, stream, needs=own)
        self.__cuda_array_interface__ = {
            "version": 3, "shape": shape, "strides": None, "typestr": dtype.str, "data": (int(address), False),
            "stream": stream,
        }  # fmt: skip


@functools.cache
def _pool(ordinal: int) -> Any:
    """A memory pool of our own on this device, so that what it keeps is no other library's affair."""
    from cuda.bindings import driver

    wanted = driver.CUmemPoolProps()
    wanted.allocType = driver.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wanted.handleTypes = driver.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_NONE
    wanted.location.type = driver.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wanted.location.id = ordinal
    pool = call("cuMemPoolCreate", wanted)
    keep = driver.cuuint64_t(2**64 - 1)  # all of it, for the next call; the default gives it back whenever one waits
    call("cuMemPoolSetAttribute", pool, driver.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, keep)
    _pools.append(pool)
    return pool


_pools: list[Any] = []


def release_memory() -> None:
    """Give what the pools keep, and no array uses, back to the driver."""
    for pool in _pools:
        call("cuMemPoolTrimTo", pool, 0)


class Alarm:
    """A word of page-locked memory: a kernel sets it, by `__cuda_array_interface__`, and the host reads it."""

    def __init__(self) -> None:
        from cuda.bindings import driver

        memory = call("cuMemHostAlloc", 4, driver.CU_MEMHOSTALLOC_PORTABLE | driver.CU_MEMHOSTALLOC_DEVICEMAP)
        finally_call(self, "cuMemFreeHost", memory)
        self._word = ctypes.c_uint32.from_address(int(memory))
        self._word.value = 0
        address = int(call("cuMemHostGetDevicePointer", memory, 0))
        self.__cuda_array_interface__ = {
            "version": 3, "shape": (1,), "strides": None, "typestr": "<u4", "data": (address, False),
        }  # fmt: skip

    def check(self) -> None:
        """Raise GaveUpError, once, if a kernel has set it."""
        if self._word.value:
            self._word.value = 0
            raise GaveUpError(
                "blocks of a persistent kernel waited in vain for others of the same launch and gave up: its results, "
                "and all that followed from them, are not to be used"
            )


# --- devices and kernels


def device_ordinal() -> int:
    """The current device's number."""
    return int(call("cuCtxGetDevice"))


def ordinal_of(address: int) -> int:
    """Number of the device whose memory this address is in."""
    attribute = constant("CUpointer_attribute", "CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL")
    return int(call("cuPointerGetAttribute", attribute, address))


def attribute(ordinal: int, name: str) -> int:
    """A device's attribute, CU_DEVICE_ATTRIBUTE_<name>."""
    wanted = constant("CUdevice_attribute", f"CU_DEVICE_ATTRIBUTE_{name}")
    return int(call("cuDeviceGetAttribute", wanted, ordinal))


def device_name(ordinal: int) -> str:
    """A device's name, as the driver gives it."""
    return bytes(call("cuDeviceGetName", 128, ordinal)).split(b"\0")[0].decode()


def allow_shared(kernel: int, size: int) -> None:
    """Allow a kernel this many bytes of dynamic shared memory per block: above 48 KiB it must be asked for."""
    wanted = constant("CUfunction_attribute", "CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES")
    call("cuKernelSetAttribute", wanted, size, kernel, device_ordinal())


def resident_blocks(kernel: int, threads: int, shared: int) -> int:
    """Blocks of a kernel that one multiprocessor runs at once."""
    return int(call("cuOccupancyMaxActiveBlocksPerMultiprocessor", kernel, threads, shared))


class Turn:
    """One cooperative kernel at a time on a device, whatever the streams: of two, each could hold half of the SMs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = call("cuEventCreate", constant("CUevent_flags", "CU_EVENT_DISABLE_TIMING"))

    @contextmanager
    def taken(self, stream: int) -> Iterator[None]:
        """What is queued on `stream` within the block waits for what was queued so before it. The host does not."""
        with self._lock:
            call("cuStreamWaitEvent", stream, self._last, 0)
            yield
            call("cuEventRecord", self._last, stream)


@functools.cache
def turn(ordinal: int) -> Turn:
    """Of a device, the current one."""
    return Turn()


def launch(
    kernel: int,
    blocks: int,
    threads: int,
    shared: int,  # bytes
    stream: int,
    cooperative: bool,
    arguments: ctypes.Array[ctypes.c_char],  # as a C structure holds them
    offsets: Sequence[int],  # of each argument in it
) -> None:
    """Queue a kernel. The driver has copied the arguments when this returns."""
    base = ctypes.addressof(arguments)
    pointers = (ctypes.c_void_p * len(offsets))(*[base + offset for offset in offsets])
    shape = (blocks, 1, 1, threads, 1, 1, shared, stream, ctypes.addressof(pointers))
    if cooperative:
        with turn(device_ordinal()).taken(stream):
            call("cuLaunchCooperativeKernel", kernel, *shape)
    else:
        call("cuLaunchKernel", kernel, *shape, 0)


# --- graphs


class Graph:
    """What `run` queues on `stream`, which it must not wait for, as one thing to launch."""

    def __init__(self, stream: int, run: Callable[[], None]) -> None:
        # relaxed: what other threads do, and a kernel that is loaded on its first use, is none of the graph's business
        call("cuStreamBeginCapture", stream, constant("CUstreamCaptureMode", "CU_STREAM_CAPTURE_MODE_RELAXED"))
        try:
            run()
        except BaseException:
            with contextlib.suppress(DriverError):  # the driver may have given the capture up itself
                call("cuGraphDestroy", call("cuStreamEndCapture", stream))
            raise
        graph = call("cuStreamEndCapture", stream)
        try:
            self._executable = call("cuGraphInstantiate", graph, 0)
            finally_call(self, "cuGraphExecDestroy", self._executable)
        finally:
            call("cuGraphDestroy", graph)

    def launch(self, stream: int) -> None:
        """Queue it."""
        call("cuGraphLaunch", self._executable, stream)
