"""The arrays of one call of the backend: given by the caller, on the host or on the device, and taken there.

    NumPy arrays    are copied to the device and back: the price is PCIe's, for every call
    CUDA arrays     torch's tensors, cupy's arrays, Numba's, whatever has __cuda_array_interface__: taken as they are,
                    in the order of the stream that their owner is using now

A call may run inside another one, as a layer's calls of the kernels do inside its own: the outer one's queue is theirs.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, ExitStack
from contextvars import ContextVar
from typing import Any

import numpy as np

from . import driver, vendor
from .queue import DeviceArray, HostArray, Queue, own_queue


class Call(AbstractContextManager["Call"]):
    """The arrays of one call of the backend.

        with Call(x, weight, lengths, output) as call:
            x, output = call.read(x), call.write(output)
            ...

    NumPy's outputs are complete when the block ends. With outputs on the device only, the host does not wait there.

    Parameters
    ----------
    *arguments
        All arrays of the call, or None. Those on a device must be on the same one. The queue is on the stream that the
        first of them names, and orders itself with the others' streams; without any it is a stream of our own.

    Raises
    ------
    TypeError
        An argument is neither None, nor NumPy's, nor an array on a CUDA device.
    ValueError
        Arrays are on different devices, or one is not C-contiguous.
    """

    queue: Queue

    def __init__(self, *arguments: Any) -> None:
        self._on_device = {}  # argument's index -> what it says of itself
        for index, argument in enumerate(arguments):
            if argument is None or _on_host(argument):
                continue
            described = getattr(argument, "__cuda_array_interface__", None)
            if described is None:
                kind = f"{type(argument).__module__}.{type(argument).__qualname__}"
                raise TypeError(f"argument {index}: expected a NumPy array or an array on a CUDA device; got {kind}")
            _check_contiguous(index, described)
            self._on_device[index] = described
        self._streams: list[int] = []
        if _active.get() is None:
            self._streams += dict.fromkeys(_stream(arguments[n], self._on_device[n]) for n in self._on_device)
        self._results: list[tuple[HostArray, DeviceArray]] = []

    def __enter__(self) -> Call:
        outer, self._context = _active.get(), ExitStack()
        if outer is not None:
            self.queue = outer.queue  # what it was given and has made is in that queue's order
        elif vendor.simulated():
            self.queue = own_queue()
        else:
            self._enter_device()
        self._token = _active.set(self)
        return self

    def _enter_device(self) -> None:
        cuda = vendor.numba_cuda()
        ordinals = {n: driver.ordinal_of(d["data"][0]) for n, d in self._on_device.items() if d["data"][0]}
        if len(set(ordinals.values())) > 1:
            places = ", ".join(f"argument {n} on device {ordinal}" for n, ordinal in ordinals.items())
            raise ValueError(f"expected all arrays on one device; got {places}")
        with ExitStack() as stack:
            stack.enter_context(cuda.gpus[next(iter(ordinals.values())) if ordinals else _current_ordinal()])
            self.queue = Queue(self._streams[0]) if self._streams else own_queue()
            for other in self._streams[1:]:
                driver.wait_for(self.queue.handle, other)
            self._context = stack.pop_all()

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        _active.reset(self._token)
        first = error  # a context that it broke cannot be left properly: what follows from an error would hide it
        try:
            if error is None:
                for host, array in self._results:
                    self.queue.download(array, host)
            for other in self._streams[1:]:
                driver.wait_for(other, self.queue.handle)
        except BaseException as failed:  # noqa: BLE001 - raised below
            first = first or failed
        try:
            self._context.close()
        except Exception as failed:  # noqa: BLE001 - raised below
            first = first or failed
        if error is None and first is not None:
            raise first

    def join(self, array: Any) -> DeviceArray:
        """One more argument that is on the device: from here on in this queue's order, until the block ends."""
        described = array.__cuda_array_interface__
        if not vendor.simulated() and (pointer := described["data"][0]):
            if (ordinal := driver.ordinal_of(pointer)) != self.queue.ordinal:
                raise ValueError(f"expected all arrays on device {self.queue.ordinal}; got one on device {ordinal}")
            stream = _stream(array, described)
            if stream not in (self.queue.handle, *self._streams):
                driver.wait_for(self.queue.handle, stream)
                self._streams = [*(self._streams or [self.queue.handle]), stream]
        return self.read(array)

    def read(self, array: Any) -> DeviceArray | None:
        """An input on the device: NumPy's is copied there, None stays None. Bools become uint8."""
        if array is None:
            return None
        return self.queue.upload(_words(array)) if _on_host(array) else _words(self.queue.adopt(array))

    def read_lengths(self, lengths: Any) -> DeviceArray:  # (B,) int32
        """Lengths on the device, as int32: there already, or any integers of NumPy's."""
        if not _on_host(lengths):
            found = self.read(lengths)
            if found is None or found.dtype != np.int32:
                raise TypeError(f"lengths: expected int32 on the device; got {None if found is None else found.dtype}")
            return found
        return self.queue.upload(lengths.astype(np.int32))

    def write(self, array: Any) -> DeviceArray:
        """An output on the device, its numbers not set: for NumPy's, memory that is copied back when the block ends."""
        if not _on_host(array):
            return self.read(array)
        self._results.append((array, self.queue.empty(array.shape, array.dtype)))
        return self._results[-1][1]

    def update(self, array: Any) -> DeviceArray:
        """An array that is read and changed: NumPy's is copied there, and back when the block ends."""
        if not _on_host(array):
            return self.read(array)
        self._results.append((array, self.queue.upload(array)))
        return self._results[-1][1]


_active: ContextVar[Call | None] = ContextVar("scratchrnn_cuda_call", default=None)


def _current_ordinal() -> int:
    """The device that is current in this thread, or the first."""
    vendor.numba_cuda().current_context()
    return driver.device_ordinal()


def _stream(array: Any, described: dict[str, Any]) -> int:
    """The stream in whose order an array is ready: its owner's current one.

    torch does not say in the interface. cupy does, and whoever else writes version 3 of it. Without a word it is the
    legacy default stream, which every ordinary stream orders itself with; Numba's default stream is that one.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return int(torch.cuda.current_stream(array.device).cuda_stream) or driver.LEGACY
    return int(described.get("stream") or driver.LEGACY)


def _check_contiguous(index: int, described: dict[str, Any]) -> None:
    shape, strides = tuple(described["shape"]), described.get("strides")
    expected, step = [], np.dtype(described["typestr"]).itemsize
    for size in reversed(shape):
        expected.append(step)
        step *= size
    wrong = [got for size, got, want in zip(shape, strides or (), reversed(expected)) if size > 1 and got != want]  # noqa: B905
    if wrong and 0 not in shape:
        raise ValueError(f"argument {index}: expected a C-contiguous array on the device; got strides {strides}")


def _on_host(array: Any) -> bool:
    return isinstance(array, np.ndarray) and not hasattr(array, "__cuda_array_interface__")


def _words(array: Any) -> Any:
    """The same memory, with bools as uint8: kernels have no bool."""
    return array.view(np.uint8) if array.dtype == np.bool_ else array
