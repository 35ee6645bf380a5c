"""Kernels of `arrays.py`: what layers do with arrays between the backend's calls. One thread for each number.

B batch   T time   N any width
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from .kernel import Kernel
from .pointwise import one_thread_each


@functools.cache
def reverse(dtype: str) -> Kernel:
    """Turn each sequence round within its own length; what is beyond stays where it is."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            array,  # (T, B, N)
            lengths,  # (B,)
            width,  # N
            out,  # (T, B, N) out
        ):
            n = cuda.grid(1)
            if n >= out.size:
                return
            row, k = n // width, n % width
            t, b = row // lengths.size, row % lengths.size
            source = lengths[b] - 1 - t if t < lengths[b] else t
            out[n] = array[(source * lengths.size + b) * width + k]

        return kernel

    return one_thread_each(f"reverse_{dtype}", build, f"{dtype}[::1], int32[::1], int32, {dtype}[::1]")


@functools.cache
def swap(dtype: str) -> Kernel:
    """Swap the first two axes."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            array,  # (T, B, N)
            steps,  # T
            batch,  # B
            width,  # N
            out,  # (B, T, N) out
        ):
            n = cuda.grid(1)
            if n >= out.size:
                return
            row, k = n // width, n % width
            b, t = row // steps, row % steps
            out[n] = array[(t * batch + b) * width + k]

        return kernel

    return one_thread_each(f"swap_{dtype}", build, f"{dtype}[::1], int32, int32, int32, {dtype}[::1]")


@functools.cache
def move_columns(dtype: str) -> Kernel:
    """Copy some columns of one matrix to some of another: rows of `source` and of `target` that are `width` long."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            source,  # (R, M)
            source_width,  # M
            first,  # column of source
            target,  # (R, N) out, in these columns
            target_width,  # N
            into,  # column of target
            width,
        ):
            n = cuda.grid(1)
            row, k = n // width, n % width
            if row * source_width < source.size:
                target[row * target_width + into + k] = source[row * source_width + first + k]

        return kernel

    array = f"{dtype}[::1]"
    return one_thread_each(f"move_columns_{dtype}", build, f"{array}, int32, int32, {array}, int32, int32, int32")


@functools.cache
def multiply(dtype: str) -> Kernel:
    """The product of two arrays, number by number."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(a, b, out):
            n = cuda.grid(1)
            if n < out.size:
                out[n] = a[n] * b[n]

        return kernel

    return one_thread_each(f"multiply_{dtype}", build, ", ".join([f"{dtype}[::1]"] * 3))


@functools.cache
def at_slots(dtype: str) -> Kernel:
    """Each sample's state in a slot of its own."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            states,  # (T+1, B, N)
            slots,  # (B,)
            width,  # N
            out,  # (B, N) out
        ):
            n = cuda.grid(1)
            if n < out.size:
                out[n] = states[slots[n // width] * out.size + n]

        return kernel

    return one_thread_each(f"at_slots_{dtype}", build, f"{dtype}[::1], int32[::1], int32, {dtype}[::1]")


@functools.cache
def add_at_slots(dtype: str) -> Kernel:
    """Add to each sample's state in a slot of its own, where that is one from 1 to T."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            states,  # (T+1, B, N) in and out
            slots,  # (B,)
            width,  # N
            d,  # (B, N)
        ):
            n = cuda.grid(1)
            if n >= d.size:
                return
            slot = slots[n // width]
            if slot > 0 and slot < states.size // d.size:
                states[slot * d.size + n] += d[n]

        return kernel

    return one_thread_each(f"add_at_slots_{dtype}", build, f"{dtype}[::1], int32[::1], int32, {dtype}[::1]")


@functools.cache
def keep_samples(dtype: str) -> Kernel:
    """Copy the rows of some samples."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            target,  # (B, N) in and out
            source,  # (B, N)
            samples,  # (B,) 1: copied
            width,  # N
        ):
            n = cuda.grid(1)
            if n < target.size and samples[n // width] != 0:
                target[n] = source[n]

        return kernel

    return one_thread_each(f"keep_samples_{dtype}", build, f"{dtype}[::1], {dtype}[::1], uint8[::1], int32")


def kernels() -> Iterator[Kernel]:
    """All of them, for tests."""
    for dtype in ("float32", "float64"):
        for make in (reverse, swap, move_columns, multiply, at_slots, add_at_slots, keep_samples):
            yield make(dtype)
