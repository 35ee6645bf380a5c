"""Arrays on the device, and the order in which things happen to them.

A `Queue` is one CUDA stream of one device; whose arrays a call takes, and in which stream's order, is `call.py`.

A device array is Numba's DeviceNDArray, or in Numba's simulator one of NumPy's that says so.
"""

from __future__ import annotations

import functools
import math
import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from . import driver, vendor

DeviceArray = Any  # has shape, dtype, basic slicing, reshape; C-contiguous
HostArray = np.ndarray[Any, Any]
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Device:
    """What the choice of kernels asks of a device."""

    name: str
    compute_capability: tuple[int, int]
    sms: int
    shared_per_block: int  # bytes, the most that a kernel may ask for
    registers_per_block: int


class Queue:
    """One CUDA stream of the current device: what is put on it runs in order, while the host goes on."""

    def __init__(self, stream: int | driver.Stream) -> None:  # another's, by its handle, or our own
        self._own = stream if isinstance(stream, driver.Stream) else None
        self.handle = stream.handle if isinstance(stream, driver.Stream) else stream
        self.ordinal = driver.device_ordinal()
        self.device = _device(self.ordinal)
        self.recording = False  # into a graph: nothing but launches and copies on the device
        self.workspaces: dict[int, DeviceArray] = {}  # by the stream's handle

    @property
    def stream(self) -> Any:
        """The stream, as Numba knows it."""
        return vendor.numba_cuda().external_stream(self.handle)

    def empty(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """A new array, its numbers not set, usable in the order of this queue."""
        self._not_recording("empty")
        dtype = np.dtype(dtype)
        allocation = driver.Allocation(self.handle, shape, dtype, math.prod(shape) * dtype.itemsize, self._own)
        return vendor.numba_cuda().as_cuda_array(allocation, sync=False)

    def aside(self) -> Queue:
        """A new queue on the same device, on a stream of its own."""
        return Queue(driver.Stream())

    def wait_for(self, other: Queue) -> None:
        """Let what is put here from now on wait for what is on the other now. The host does not wait."""
        driver.wait_for(self.handle, other.handle)

    def adopt(self, array: Any) -> DeviceArray:
        """Memory on the device that is another's, as one of this queue's arrays."""
        if not getattr(array, "__cuda_ndarray__", False):  # Numba's own
            array = vendor.numba_cuda().as_cuda_array(array, sync=False)
        return array if int(array.stream) == self.handle else array.bind(self.stream)

    def reshape(self, array: DeviceArray, shape: Shape) -> DeviceArray:
        """The same memory in another shape, still this queue's."""
        return array.reshape(shape).bind(self.stream)  # Numba's reshape forgets the stream

    def zeros(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """A new array of zeros."""
        array = self.empty(shape, dtype)
        if array.size:
            driver.call("cuMemsetD8Async", address(array), 0, array.nbytes, self.handle)
        return array

    def upload(self, host: HostArray) -> DeviceArray:
        """A new array, a copy of the host's. Page-locked memory may not change until the queue has come to it."""
        array = self.empty(host.shape, host.dtype)
        host = np.ascontiguousarray(host)
        if host.size:
            driver.call("cuMemcpyHtoDAsync", address(array), host.ctypes.data, host.nbytes, self.handle)
        return array

    def download(self, array: DeviceArray, host: HostArray) -> None:
        """Copy an array to the host, and wait for it."""
        self._not_recording("download")
        _check_same("download", array, host)
        target = host if host.flags.c_contiguous else np.empty(host.shape, host.dtype)
        if host.size:
            driver.call("cuMemcpyDtoHAsync", target.ctypes.data, address(array), host.nbytes, self.handle)
        self.synchronize()
        if target is not host:
            host[...] = target

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy on the device."""
        _check_same("copy", source, target)
        if not (source.flags["C_CONTIGUOUS"] and target.flags["C_CONTIGUOUS"]):
            raise ValueError(f"copy: expected C-contiguous arrays; got strides {source.strides} for {target.strides}")
        if target.size:
            driver.call("cuMemcpyDtoDAsync", address(target), address(source), target.nbytes, self.handle)

    def synchronize(self) -> None:
        """Wait until everything on this queue is done; raise if something on it failed, or a kernel gave up."""
        self._not_recording("synchronize")
        driver.call("cuStreamSynchronize", self.handle)
        self.check_alarm()

    @property
    def alarm(self) -> DeviceArray:  # (1,) uint32
        """What a kernel of this device sets if it gives up. Every synchronize looks at it, and every launch of such."""
        return vendor.numba_cuda().as_cuda_array(_alarm(self.ordinal), sync=False)

    def check_alarm(self) -> None:
        """Raise GaveUpError, once, if a kernel gave up."""
        _alarm(self.ordinal).check()

    @property
    def workspace(self) -> DeviceArray:
        """What cuBLAS may write to while it works on this stream."""
        if self.handle not in self.workspaces:
            self.workspaces[self.handle] = self.new_workspace()
        return self.workspaces[self.handle]

    def new_workspace(self) -> DeviceArray:
        """Bytes, as many as NVIDIA advises."""
        major, _ = self.device.compute_capability
        return self.empty((32 << 20 if major >= 9 else 4 << 20,), np.uint8)

    def _not_recording(self, what: str) -> None:
        if self.recording:
            raise RuntimeError(f"{what}: not while a graph is recorded, which holds launches and copies on the device")


class SimulatedArray(np.ndarray[Any, Any]):
    """Stands for an array on a device, in the host's memory."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        interface: dict[str, Any] = self.__array_interface__
        return interface


class SimulatedQueue(Queue):
    """A queue without a device, for Numba's simulator: everything happens at once."""

    def __init__(self) -> None:
        self.handle = self.ordinal = 0
        self.device = Device("Numba's simulator", (8, 0), sms=1, shared_per_block=48 << 10, registers_per_block=0)
        self.recording = False

    @property
    def stream(self) -> Any:
        """Numba's default stream."""
        return vendor.numba_cuda().default_stream()

    def empty(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """A new array, its numbers not set."""
        self._not_recording("empty")
        return np.empty(shape, dtype).view(SimulatedArray)

    def aside(self) -> Queue:
        """The queue itself."""
        return self

    def wait_for(self, other: Queue) -> None:
        """Nothing is ever under way."""

    def adopt(self, array: Any) -> DeviceArray:
        """The array itself."""
        return array if isinstance(array, np.ndarray) else vendor.numba_cuda().as_cuda_array(array, sync=False)

    def reshape(self, array: DeviceArray, shape: Shape) -> DeviceArray:
        """The same memory in another shape."""
        return array.reshape(shape)

    def zeros(self, shape: Shape, dtype: DTypeLike) -> DeviceArray:
        """A new array of zeros."""
        array = self.empty(shape, dtype)
        array[...] = 0
        return array

    def upload(self, host: HostArray) -> DeviceArray:
        """A copy of the host's array."""
        array = self.empty(host.shape, host.dtype)
        array[...] = host
        return array

    def download(self, array: DeviceArray, host: HostArray) -> None:
        """Copy an array to the host's."""
        self._not_recording("download")
        _check_same("download", array, host)
        host[...] = array

    def copy(self, target: DeviceArray, source: DeviceArray) -> None:
        """Copy an array."""
        _check_same("copy", source, target)
        target[...] = source

    def synchronize(self) -> None:
        """Nothing is ever under way."""
        self._not_recording("synchronize")


def address(array: DeviceArray) -> int:
    """Where a device array begins; in the simulator it is NumPy's."""
    if isinstance(array, np.ndarray):
        return array.ctypes.data
    return int(array.device_ctypes_pointer.value or 0)


def own_queue() -> Queue:
    """The queue of this thread on the current device, on a stream of our own."""
    if vendor.simulated():
        return SimulatedQueue()
    vendor.numba_cuda().current_context()
    queues = _own.__dict__.setdefault("queues", {})
    ordinal = driver.device_ordinal()
    if ordinal not in queues:
        queues[ordinal] = Queue(driver.Stream())
    return queues[ordinal]


_own = threading.local()


@functools.cache
def _alarm(ordinal: int) -> driver.Alarm:
    """Of a device, the current one."""
    return driver.Alarm()


@functools.cache
def _device(ordinal: int) -> Device:
    ask = functools.partial(driver.attribute, ordinal)
    return Device(
        driver.device_name(ordinal),
        (ask("COMPUTE_CAPABILITY_MAJOR"), ask("COMPUTE_CAPABILITY_MINOR")),
        sms=ask("MULTIPROCESSOR_COUNT"),
        shared_per_block=ask("MAX_SHARED_MEMORY_PER_BLOCK_OPTIN"),
        registers_per_block=ask("MAX_REGISTERS_PER_BLOCK"),
    )


def _check_same(what: str, source: Any, target: Any) -> None:
    if source.dtype != target.dtype or source.size != target.size:
        raise ValueError(
            f"{what}: expected arrays of one size and dtype; got {source.shape} {source.dtype} for {target.shape}"
            f" {target.dtype}"
        )
