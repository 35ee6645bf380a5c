"""A kernel: how it is made, and how it is launched."""

from __future__ import annotations

import ctypes
import functools
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from . import driver, vendor
from .queue import Queue, SimulatedQueue, address

DEFAULT_SHARED = 48 << 10  # bytes of shared memory per block that need no asking

# how a kernel's scalar argument travels: Numba's name of its type, and struct's letter
LETTERS = {
    "int32": "i", "uint32": "I", "int64": "q", "uint64": "Q", "int8": "b", "uint8": "B", "float32": "f", "float64": "d",
}  # fmt: skip


class NotAtOnceError(RuntimeError):
    """Blocks that wait for each other would not all run."""


@dataclass(frozen=True, eq=False)
class Kernel:
    """A Python function that runs on the device, compiled on its first launch there.

    `build` imports numba.cuda, and returns the function: its constants are the variables that it closes over. Arrays
    arrive flat, whatever their shape, and carry no bounds check.
    """

    name: str
    build: Callable[[], Callable[..., None]]
    signature: str  # Numba's types: "float32[::1], int32[::1], int32, float32"
    threads: int  # of a block; the compiler counts on there being no more
    shared: int = 0  # bytes of dynamic shared memory, where a launch does not say
    cooperative: bool = False  # its blocks wait for each other: all of them run at once, or the launch is an error
    _lock: Any = field(default_factory=threading.Lock, init=False, repr=False)

    def launch(self, queue: Queue, blocks: int, *arguments: Any, shared: int | None = None) -> None:
        """Put a launch on the queue.

        Parameters
        ----------
        queue : Queue
        blocks : int
            At least 1.
        *arguments
            By the signature: C-contiguous device arrays of any shape, and numbers.
        shared : int, optional
            Bytes of dynamic shared memory of a block; `self.shared` when absent.

        Raises
        ------
        TypeError
            Too few arguments or too many, or an array of another dtype than the signature's.
        ValueError
            An array is not C-contiguous.
        NotAtOnceError
            A cooperative kernel of more blocks than the device runs at once.
        DriverError
            The driver refuses.
        """
        self._check(arguments)
        shared = self.shared if shared is None else shared
        if isinstance(queue, SimulatedQueue):
            self._simulate(blocks, arguments, shared)
            return
        layout, offsets = self._layout
        words: list[Any] = []
        for kind, argument in zip(self._kinds, arguments, strict=True):
            if kind.dtype is None:
                words.append(argument)
            else:
                words += vendor.array_words(address(argument), argument.size, argument.dtype.itemsize)
        packed = ctypes.create_string_buffer(layout.size)
        layout.pack_into(packed, 0, *words)
        entry = self._entry(queue.ordinal, shared)
        if self.cooperative and not self.fits(queue, blocks, shared):
            raise NotAtOnceError(f"{self.name}: {queue.device.name} cannot run {blocks} blocks of it at once")
        driver.launch(entry, blocks, self.threads, shared, queue.handle, self.cooperative, packed, offsets)

    def compile(self, queue: Queue) -> None:
        """Be ready for launches on this queue: compiled and loaded."""
        if not isinstance(queue, SimulatedQueue):
            self._entry(queue.ordinal, self.shared)

    def fits(self, queue: Queue, blocks: int, shared: int | None = None) -> bool:
        """Whether so many blocks run at once on the queue's device, with nothing else on it: the driver is asked."""
        if isinstance(queue, SimulatedQueue):
            return blocks == 1  # it runs one after another
        shared = self.shared if shared is None else shared
        if shared > queue.device.shared_per_block:
            return False
        if (queue.ordinal, shared) not in self._resident:
            entry = self._entry(queue.ordinal, shared)
            self._resident[queue.ordinal, shared] = driver.resident_blocks(entry, self.threads, shared)
        return blocks <= queue.device.sms * self._resident[queue.ordinal, shared]

    def ptx(self, cc: vendor.ComputeCapability = (9, 0, "a")) -> str:
        """Its PTX for a compute capability. Needs no GPU."""
        return vendor.compile_ptx(self._function, self.signature, self.threads, cc)

    @functools.cached_property
    def _function(self) -> Callable[..., None]:
        vendor.numba_cuda()
        return self.build()

    @functools.cached_property
    def _kinds(self) -> tuple[_Kind, ...]:
        return tuple(_kind(text.strip()) for text in self.signature.split(","))

    @functools.cached_property
    def _layout(self) -> tuple[struct.Struct, tuple[int, ...]]:
        """A structure that holds the arguments, and where each begins, as the kernel's parameters lie."""
        letters = "".join(kind.letters for kind in self._kinds)
        ends = [struct.calcsize("@" + letters[: n + 1]) for n in range(len(letters))]
        offsets = tuple(end - struct.calcsize("@" + letter) for end, letter in zip(ends, letters, strict=True))
        return struct.Struct("@" + letters), offsets

    @functools.cached_property
    def _entries(self) -> dict[int, tuple[int, Any]]:
        return {}

    @functools.cached_property
    def _allowed(self) -> dict[int, int]:
        return {}

    @functools.cached_property
    def _resident(self) -> dict[tuple[int, int], int]:
        return {}

    def _entry(self, ordinal: int, shared: int) -> int:
        """The kernel on a device, the current one: compiled there on first use, and allowed as much shared memory."""
        if ordinal not in self._entries:
            with self._lock:
                if ordinal not in self._entries:
                    compiled = vendor.compile_kernel(self._function, self.signature, self.threads)
                    self._entries[ordinal] = vendor.entry(compiled), compiled  # kept: it owns the code
        entry, _ = self._entries[ordinal]
        if shared > self._allowed.get(ordinal, DEFAULT_SHARED):
            driver.allow_shared(entry, shared)
            self._allowed[ordinal] = shared
        return entry

    def _check(self, arguments: tuple[Any, ...]) -> None:
        if len(arguments) != len(self._kinds):
            raise TypeError(f"{self.name}: expected {len(self._kinds)} arguments; got {len(arguments)}")
        for n, (kind, argument) in enumerate(zip(self._kinds, arguments, strict=True)):
            dtype = getattr(argument, "dtype", None) if getattr(argument, "shape", ()) else None
            if dtype != kind.dtype:
                raise TypeError(
                    f"{self.name}: argument {n}: expected {kind.text}; got {dtype or type(argument).__name__}"
                )
            if dtype is not None and not argument.flags["C_CONTIGUOUS"]:
                raise ValueError(
                    f"{self.name}: argument {n}: expected a C-contiguous array; got strides {argument.strides}"
                )

    def _simulate(self, blocks: int, arguments: tuple[Any, ...], shared: int) -> None:
        """Run it in Numba's simulator, which knows no launch bounds."""
        flat = [
            argument if kind.dtype is None else argument.reshape(-1)
            for kind, argument in zip(self._kinds, arguments, strict=True)
        ]
        vendor.simulate(self._function, blocks, self.threads, shared, flat)


@dataclass(frozen=True)
class _Kind:
    """Type of one argument."""

    text: str
    dtype: np.dtype[Any] | None  # of an array; None: a number
    letters: str  # struct's


def _kind(text: str) -> _Kind:
    name, _, array = text.partition("[")
    if name not in LETTERS or array not in ("", "::1]"):
        raise ValueError(f"signature: expected types like float32[::1] and int32; got {text!r}")
    if array:
        return _Kind(text, np.dtype(name), "Q" * len(vendor.array_words(0, 0, 0)))
    return _Kind(text, None, LETTERS[name])
