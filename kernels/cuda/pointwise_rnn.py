"""The RNN's steps number by number, and what both cells need beside their own: (1) alone, projection, slots.

    B batch   H hidden   P projection   R rows of the weights: H for the RNN, 4H for the LSTM

    a_t = (W_ih x_t + b) + W_hh h_{t-1}     b = b_ih + b_hh                         (1)   (B, R)
    h_t = φ(a_t),   φ = tanh or relu                                                (2)   (B, H)

One thread for each number of a (B, ·) array, whose number n is b·width + j.

A sequence is taken in chunks of steps (`chunks.py`), and a step is known by its slot in the chunk. `left` holds the
steps that each sequence has left at slot 0, so a sample runs in slot s where s < left[b]. Elsewhere what a step leaves
is zero, and what it carries on stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from .kernel import Kernel
from .pointwise import clipped, constants, nonlinearity, one_thread_each, slope


@functools.cache
def rnn_forward_step(dtype: str, name: str) -> Kernel:
    """(1) and (2) of the RNN for one step."""

    def build() -> Callable[..., None]:
        from numba import cuda

        φ = nonlinearity(name, dtype)
        (zero,) = constants(dtype, 0)

        def kernel(
            a_x,  # (B, H) W_ih x_t
            bias,  # (H,)
            recurrent,  # (B, H) W_hh h_{t-1}
            left,  # (B,)
            slot,
            hidden,
            h,  # (B, H) in: h_{t-1}; out: h_t
            h_t,  # (B, H) out
        ):
            n = cuda.grid(1)
            if n >= h.size:
                return
            b, j = n // hidden, n % hidden
            if slot < left[b]:
                h_new = φ((a_x[n] + bias[j]) + recurrent[n])  # (1), (2)
                h[n] = h_t[n] = h_new
            else:
                h_t[n] = zero

        return kernel

    a = f"{dtype}[::1]"
    signature = f"{a}, {a}, {a}, int32[::1], int32, int32, {a}, {a}"
    return one_thread_each(f"rnn_forward_{name}_{dtype}", build, signature)


@functools.cache
def rnn_backward_step(dtype: str, name: str) -> Kernel:
    """Undo (2) of the RNN for one step."""

    def build() -> Callable[..., None]:
        from numba import cuda

        slope_, clip_ = slope(name, dtype), clipped(dtype)
        (zero,) = constants(dtype, 0)

        def kernel(
            h,  # (B, H) h_t
            left,  # (B,)
            slot,
            hidden,
            clip,
            dh_t,  # (B, H) in: dL/dh_t from outside; out: the total
            dh,  # (B, H) what step t+1 sends to it
            da_t,  # (B, H) out: dL/da_t
            da,  # (B, H) out: the same
        ):
            n = cuda.grid(1)
            if n >= h.size:
                return
            b = n // hidden
            value = zero
            if slot < left[b]:
                total = dh_t[n] + dh[n] if slot + 1 < left[b] else dh_t[n]
                value = clip_(slope_(total, h[n]), clip)  # undoes (2)
                dh_t[n] = total
            da_t[n] = da[n] = value

        return kernel

    a = f"{dtype}[::1]"
    signature = f"{a}, int32[::1], int32, int32, {dtype}, {a}, {a}, {a}, {a}"
    return one_thread_each(f"rnn_backward_{name}_{dtype}", build, signature)


@functools.cache
def preactivation(dtype: str) -> Kernel:
    """(1) for one step, once more: the sums of forward in their order."""

    def build() -> Callable[..., None]:
        from numba import cuda

        (zero,) = constants(dtype, 0)

        def kernel(
            a,  # (B, R) in: W_ih x_t; out: a_t
            bias,  # (R,)
            recurrent,  # (B, R) W_hh h_{t-1}
            left,  # (B,)
            slot,
        ):
            n = cuda.grid(1)
            if n >= recurrent.size:
                return
            rows = bias.size
            runs = slot < left[n // rows]
            a[n] = (a[n] + bias[n % rows]) + recurrent[n] if runs else zero  # (1)

        return kernel

    a = f"{dtype}[::1]"
    return one_thread_each(f"preactivation_{dtype}", build, f"{a}, {a}, {a}, int32[::1], int32")


@functools.cache
def keep(dtype: str) -> Kernel:
    """(5) with a projection: h_t where the sample runs; elsewhere h stays, and the step leaves zero."""

    def build() -> Callable[..., None]:
        from numba import cuda

        (zero,) = constants(dtype, 0)

        def kernel(
            projected,  # (B, P) W_hr m_t
            left,  # (B,)
            slot,
            width,  # P
            h,  # (B, P) in: h_{t-1}; out: h_t
            h_t,  # (B, P) out
        ):
            n = cuda.grid(1)
            if n >= h.size:
                return
            if slot < left[n // width]:
                h[n] = h_t[n] = projected[n]
            else:
                h_t[n] = zero

        return kernel

    a = f"{dtype}[::1]"
    return one_thread_each(f"keep_{dtype}", build, f"{a}, int32[::1], int32, int32, {a}, {a}")


@functools.cache
def receive(dtype: str) -> Kernel:
    """A state's total gradient: to what came from outside, add what the step that follows sends, if it runs."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            d_t,  # (B, N) in: from outside; out: the total
            sent,  # (B, N) by step t+1
            left,  # (B,)
            slot,  # of step t
            width,  # N
            detached,  # (B,) of step t+1
            total,  # (B, N) out: the same total
        ):
            n = cuda.grid(1)
            if n >= sent.size:
                return
            b = n // width
            if slot + 1 < left[b] and not detached[b]:
                d_t[n] += sent[n]
            total[n] = d_t[n]

        return kernel

    a = f"{dtype}[::1]"
    return one_thread_each(f"receive_{dtype}", build, f"{a}, {a}, int32[::1], int32, int32, uint8[::1], {a}")


@functools.cache
def shift() -> Kernel:
    """Move slot 0 of the chunk by so many steps: that many fewer are left."""

    def build() -> Callable[..., None]:
        from numba import cuda

        def kernel(
            left,  # (B,)
            steps,
        ):
            b = cuda.grid(1)
            if b < left.size:
                left[b] -= steps

        return kernel

    return one_thread_each("shift", build, "int32[::1], int32")


def kernels() -> Iterator[Kernel]:
    """Every kernel of this file."""
    yield shift()
    for dtype in ("float32", "float64"):
        for make in (preactivation, keep, receive):
            yield make(dtype)
        for name in ("tanh", "relu"):
            yield rnn_forward_step(dtype, name)
            yield rnn_backward_step(dtype, name)
