"""Memory for big arrays, used again: `empty` and `zeros` as NumPy's, without a page fault for every 4 KiB.

Fresh memory is mapped page by page as it is first written, at about 2 µs a page: a quarter of a forward pass. So a big
array made here stands on a block that an earlier one gave back, if one fits:

    array  ──base──►  _Loan  ──►  _Block        when the last view of the array dies, so does the loan,
                                                and its block goes back to the pool

A block is lent to one array at a time. Sizes are rounded up to eight per power of two, which wastes at most 1/8, and a
block serves its own size only. Idle blocks hold at most `LIMIT` bytes, and never more than were lent at once within
the last one to two `WINDOW`s of arrays; beyond that the ones idle longest are freed.

There is no lock, since a loan can end anywhere: in another thread, in the garbage collector in the middle of a function
here, in a forked child, at exit. Who has a block is decided by one append or pop of a list, which are atomic. The two
running totals decide only what is freed; `+=` may lose an update of theirs, so they are counted anew in each window.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
DType = np.dtype[Any]

LEAST = 1 << 16  # bytes: below this malloc has the memory at hand, and a loan would cost more than it saves
LIMIT = 1 << 29  # bytes idle
WINDOW = 512  # arrays: a few dozen training steps
ALIGNMENT = 64  # bytes: a cache line, and the widest vector


class _Block:
    """Memory of one size, aligned."""

    __slots__ = ("address", "memory", "since", "size")

    def __init__(self, size: int, zeroed: bool) -> None:
        allocate = np.zeros if zeroed else np.empty
        self.memory = allocate(size + ALIGNMENT, np.uint8)
        start, _ = self.memory.__array_interface__["data"]  # .ctypes.data imports, which fails at exit
        self.address = -(-start // ALIGNMENT) * ALIGNMENT
        self.size = size
        self.since = 0  # when it became idle, counted in blocks given back


class _Size:
    """All blocks of one size."""

    __slots__ = ("idle", "lent", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.idle: list[_Block] = []  # the longest idle first
        self.lent: list[None] = []  # its length is the number of blocks lent: `n += 1` is not atomic, append is


class _Loan:
    """What an array stands on: gives its block back when the array and all views of it are gone."""

    __slots__ = ("__array_interface__", "_block", "_pool")

    def __init__(self, pool: _Pool, block: _Block, shape: tuple[int, ...], typestr: str) -> None:
        self.__array_interface__ = {"shape": shape, "typestr": typestr, "data": (block.address, False), "version": 3}
        self._pool = pool
        self._block = block

    def __del__(self) -> None:
        # an interrupt in here would be lost, as in any __del__, and the block freed instead of kept: no harm
        pool = getattr(self, "_pool", None)  # none if __init__ was interrupted
        if pool is not None:
            pool.take_back(self._block)


class _Pool:
    """Blocks, idle and lent. Whatever `take_back` needs is an attribute: at exit the module's names are gone first."""

    def __init__(self, limit: int = LIMIT, window: int = WINDOW) -> None:
        self.limit, self.window = limit, window
        self.poisoned = False
        self._sizes: dict[int, _Size] = {}
        self._loans, self._returns = count(), count()
        self._idle = self._lent = 0  # bytes
        self._peak = self._last_peak = 0  # bytes lent at once, in this window and in the one before

    def lend(self, shape: tuple[int, ...], dtype: DType, size: int, zeroed: bool) -> FloatArray:
        """Return an array on a block of `size` bytes."""
        blocks = self._sizes.get(size) or self._sizes.setdefault(size, _Size(size))
        blocks.lent.append(None)
        try:
            try:
                block, fresh = blocks.idle.pop(), False
                self._idle -= size
            except IndexError:
                block, fresh = self._allocate(size, zeroed), True
        except BaseException:
            blocks.lent.pop()
            raise
        self._lent += size
        if next(self._loans) % self.window == 0:
            self._begin_window()
        if self._lent > self._peak:
            self._peak = self._lent
        array = np.asarray(_Loan(self, block, shape, dtype.str))
        if zeroed and not fresh:
            array.fill(0)
        return array

    def _allocate(self, size: int, zeroed: bool) -> _Block:
        try:
            return _Block(size, zeroed)
        except MemoryError:
            self.release()
            return _Block(size, zeroed)

    def _begin_window(self) -> None:
        self._last_peak, self._peak = self._peak, 0
        self._idle, self._lent = self.idle_bytes(), self.lent_bytes()

    def take_back(self, block: _Block) -> None:
        """Keep a block whose loan has ended, or free it, and others idle for longer, to stay within the limit."""
        blocks = self._sizes[block.size]
        blocks.lent.pop()
        self._lent -= block.size
        allowed = min(self.limit, max(self._peak, self._last_peak))
        if block.size > allowed:
            return
        if self.poisoned:
            block.memory.fill(255)  # a NaN in every float dtype: shows in whatever still reads here
        block.since = next(self._returns)
        blocks.idle.append(block)
        self._idle += block.size
        while self._idle > allowed:
            self._free_oldest()

    def _free_oldest(self) -> None:
        # slices, since another thread may empty a list between two steps
        candidates = [(block.since, blocks.size) for blocks in self._all() for block in blocks.idle[:1]]
        if candidates:
            del self._sizes[min(candidates)[1]].idle[:1]
        self._idle = self.idle_bytes()

    def _all(self) -> list[_Size]:
        return list(self._sizes.values())  # one step: no thread can add a size in the middle

    def idle_bytes(self) -> int:
        """Bytes that wait to be used again."""
        total = 0
        for blocks in self._all():
            total += blocks.size * len(blocks.idle)
        return total

    def lent_bytes(self) -> int:
        """Bytes under live arrays."""
        total = 0
        for blocks in self._all():
            total += blocks.size * len(blocks.lent)
        return total

    def release(self) -> None:
        """Free all idle blocks."""
        for blocks in self._all():
            blocks.idle.clear()
        self._idle = self.idle_bytes()


_pool = _Pool()

if hasattr(os, "register_at_fork"):
    # a child's first write into memory that its parent used copies the page: dearer than a fresh one
    os.register_at_fork(after_in_child=lambda: _pool.release())


def _rounded(nbytes: int) -> int:
    """The next of eight sizes per power of two."""
    step = 1 << (nbytes.bit_length() - 4)
    return (nbytes + step - 1) & -step


def empty(shape: tuple[int, ...], dtype: DType) -> FloatArray:
    """`np.empty`, C-contiguous; from `LEAST` bytes on aligned to `ALIGNMENT`, and on memory used before.

    Parameters
    ----------
    shape : tuple of int
    dtype : numpy dtype
        Of floating point.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    array = np.empty(shape, dtype) if nbytes < LEAST else _pool.lend(shape, dtype, _rounded(nbytes), False)
    if _pool.poisoned:
        array.fill(np.nan)
    return array


def zeros(shape: tuple[int, ...], dtype: DType) -> FloatArray:
    """`np.zeros`, from the same memory as `empty`."""
    nbytes = math.prod(shape) * dtype.itemsize
    return np.zeros(shape, dtype) if nbytes < LEAST else _pool.lend(shape, dtype, _rounded(nbytes), True)


def copy(array: FloatArray) -> FloatArray:
    """A copy in C order, a plain array, on memory from `empty`."""
    if array.nbytes < LEAST:
        return np.array(array, order="C")
    out = empty(array.shape, array.dtype)
    out[...] = array
    return out


def release() -> None:
    """Give all idle memory back to the system; live arrays are untouched."""
    _pool.release()


def idle_bytes() -> int:
    """Bytes held for later arrays."""
    return _pool.idle_bytes()


@contextmanager
def poisoned() -> Iterator[None]:
    """Within the block, for tests: NaN in every array that `empty` returns, and in memory once it is given back.

    Holds for all threads.
    """
    before = _pool.poisoned
    _pool.poisoned = True
    try:
        yield
    finally:
        _pool.poisoned = before
