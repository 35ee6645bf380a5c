"""A driver that does at once what it is told, on the host's memory, and keeps a log.

Addresses are the host's. Every call is also made on the real bindings, which convert its arguments before they find
that there is no driver: an argument that they would not take is an error here too.
"""

from __future__ import annotations

import ctypes
import functools
import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np

from scratchrnn.kernels.cuda import driver, queue, vendor

DEVICES = 2


class DeviceArray:
    """A device array: what Numba's has, as far as the host's side reads it."""

    def __init__(self, array: np.ndarray, owner: Any, stream: int = 0) -> None:
        self.array, self.owner, self.stream = array, owner, stream
        self.shape, self.strides, self.dtype = array.shape, array.strides, array.dtype
        self.size, self.nbytes = array.size, array.nbytes
        self.flags = {"C_CONTIGUOUS": array.flags.c_contiguous}
        self.device_ctypes_pointer = ctypes.c_size_t(array.ctypes.data if array.size else 0)

    def __getitem__(self, index: Any) -> DeviceArray:
        return DeviceArray(self.array[index], self.owner, self.stream)

    def view(self, dtype: Any) -> DeviceArray:
        return DeviceArray(self.array.view(dtype), self.owner, self.stream)

    def reshape(self, shape: Any) -> DeviceArray:
        return DeviceArray(self.array.reshape(shape), self.owner)  # Numba's forgets the stream

    def bind(self, stream: int) -> DeviceArray:
        return DeviceArray(self.array, self.owner, stream)


class Owned:
    """An array of another library on a device, with the interface that such arrays have in common."""

    def __init__(self, array: np.ndarray, stream: int | None = None, device: int = 0) -> None:
        self.array, self.device = array, device
        self.__cuda_array_interface__ = {
            "version": 3, "shape": array.shape, "typestr": array.dtype.str, "data": (array.ctypes.data, False),
            "strides": None if array.flags.c_contiguous else array.strides,
            **({} if stream is None else {"stream": stream}),
        }  # fmt: skip


class FakeDriver:
    """Takes the place of `driver.call` and of numba.cuda."""

    def __init__(self, monkeypatch: Any, real: Any) -> None:
        self.log: list[tuple[Any, ...]] = []
        self.current = 0
        self.live: dict[int, np.ndarray] = {}
        self.owned: list[Owned] = []
        self._handles = itertools.count(100)
        self._real = real
        monkeypatch.setattr(driver, "call", self.call)
        monkeypatch.setattr(driver, "finally_call", self.finally_call)
        monkeypatch.setattr(vendor, "numba_cuda", lambda: self)
        monkeypatch.setattr(vendor, "simulated", lambda: False)
        monkeypatch.setattr(driver, "_pool", driver._pool.__wrapped__)
        monkeypatch.setattr(queue, "_device", queue._device.__wrapped__)
        monkeypatch.setattr(queue, "_alarm", functools.cache(queue._alarm.__wrapped__))
        monkeypatch.setattr(driver, "_pools", [])
        monkeypatch.setattr(queue, "_own", SimpleNamespace())
        self.gpus = [_Context(self, ordinal) for ordinal in range(DEVICES)]

    # what is used of numba.cuda

    def current_context(self) -> None:
        pass

    def as_cuda_array(self, array: Any, sync: bool) -> DeviceArray:
        assert sync is False
        described = array.__cuda_array_interface__
        stream = described.get("stream") or 0
        if isinstance(array, Owned):
            return DeviceArray(array.array, array, stream)
        dtype, address = np.dtype(described["typestr"]), described["data"][0]
        memory = self.live[address] if address else np.zeros(0, np.uint8)
        return DeviceArray(memory.view(dtype).reshape(described["shape"]), array, stream)

    def external_stream(self, handle: int) -> int:
        return handle

    # what is used of the driver

    def call(self, name: str, *arguments: Any) -> Any:
        self._real(name, *arguments)
        self.log.append((name, *arguments))
        return getattr(self, name, lambda *_: next(self._handles))(*arguments)

    def finally_call(self, owner: Any, name: str, *arguments: Any, needs: Any = None) -> None:
        self.log.append(("finally", name, *arguments))

    def cuCtxGetDevice(self) -> int:
        return self.current

    def cuPointerGetAttribute(self, attribute: Any, address: int) -> int:
        return next((owned.device for owned in self.owned if owned.array.ctypes.data == address), 0)

    def cuDeviceGetName(self, size: int, ordinal: int) -> bytes:
        return f"fake {ordinal}".encode() + b"\0" * (size - 6)

    def cuDeviceGetAttribute(self, attribute: Any, ordinal: int) -> int:
        known = {"CAPABILITY_MAJOR": 9, "CAPABILITY_MINOR": 0, "PER_BLOCK_OPTIN": 227 << 10}
        return next((value for end, value in known.items() if attribute.name.endswith(end)), 7)

    def cuOccupancyMaxActiveBlocksPerMultiprocessor(self, kernel: int, threads: int, shared: int) -> int:
        return 2

    def cuMemAllocFromPoolAsync(self, size: int, pool: Any, stream: int) -> int:
        memory = np.full(size, 0xFF, np.uint8)  # NaN, read as floats
        self.live[memory.ctypes.data] = memory
        return memory.ctypes.data

    def cuMemHostAlloc(self, size: int, flags: int) -> int:
        memory = np.full(size, 0xFF, np.uint8)
        self.live[memory.ctypes.data] = memory
        return memory.ctypes.data

    def cuMemHostGetDevicePointer(self, memory: int, flags: int) -> int:
        return memory

    def cuMemcpyHtoDAsync(self, to: int, source: int, size: int, stream: int) -> None:
        ctypes.memmove(to, source, size)

    cuMemcpyDtoHAsync = cuMemcpyDtoDAsync = cuMemcpyHtoDAsync

    def cuMemsetD8Async(self, to: int, value: int, size: int, stream: int) -> None:
        ctypes.memset(to, value, size)

    # what a test asks

    def names(self, *wanted: str) -> list[tuple[Any, ...]]:
        """Calls of these names, in order."""
        return [entry for entry in self.log if entry[0] in wanted]


class _Context:
    def __init__(self, driver: FakeDriver, ordinal: int) -> None:
        self._driver, self._ordinal = driver, ordinal

    def __enter__(self) -> None:
        self._before, self._driver.current = self._driver.current, self._ordinal

    def __exit__(self, *_: object) -> None:
        self._driver.current = self._before
