"""The LSTM's steps number by number: what is left of a time step beside its matrix products.

    B batch   T time   H hidden
    gate rows in the order i, f, g, o; names as in `kernels/numpy/lstm.py`

    a_t = (W_ih x_t + b) + W_hh h_{t-1}     b = b_ih + b_hh                         (1)   (B, 4H)
    i, f, o = σ(a_i), σ(a_f), σ(a_o);  g = tanh(a_g)                                (2)   (B, H) each
    c_t = f c_{t-1} + i g                                                           (3)   (B, H)
    m_t = o tanh(c_t)                                                               (4)   (B, H)

One thread for each sample b and unit j, so that neighbours in a warp read neighbours in memory. Arrays are flat:
element (b, j) of a (B, H) array is number n = b·H + j, that of gate k in a (B, 4H) array is number b·4H + k·H + j.

A sequence is taken in chunks of steps (`chunks.py`), and a step is known by its slot in the chunk. `left` holds the
steps that each sequence has left at slot 0, so a sample runs in slot s where s < left[b]. Elsewhere what a step leaves
is zero, and what it carries on stays.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from .kernel import Kernel
from .pointwise import clipped, constants, one_thread_each, sigmoid, tanh


@functools.cache
def lstm_forward_step(dtype: str) -> Kernel:
    """(1) to (4) for one step."""

    def build() -> Callable[..., None]:
        from numba import cuda

        σ, tanh_ = sigmoid(dtype), tanh(dtype)
        (zero,) = constants(dtype, 0)

        def kernel(
            gates,  # (B, 4H) in: W_ih x_t; out: i, f, g, o
            bias,  # (4H,)
            recurrent,  # (B, 4H) W_hh h_{t-1}
            left,  # (B,)
            slot,
            hidden,
            c,  # (B, H) in: c_{t-1}; out: c_t
            m,  # (B, H) out: m_t, which is h_t without a projection
            c_t,  # (B, H) out
            m_t,  # (B, H) out
        ):
            n = cuda.grid(1)
            if n >= c.size:
                return
            b, j = n // hidden, n % hidden
            at_i = b * 4 * hidden + j
            at_f, at_g, at_o = at_i + hidden, at_i + 2 * hidden, at_i + 3 * hidden
            if slot < left[b]:
                i = σ((gates[at_i] + bias[j]) + recurrent[at_i])  # (1), (2)
                f = σ((gates[at_f] + bias[j + hidden]) + recurrent[at_f])
                g = tanh_((gates[at_g] + bias[j + 2 * hidden]) + recurrent[at_g])
                o = σ((gates[at_o] + bias[j + 3 * hidden]) + recurrent[at_o])
                c_new = f * c[n] + i * g  # (3)
                m_new = o * tanh_(c_new)  # (4)
                gates[at_i], gates[at_f], gates[at_g], gates[at_o] = i, f, g, o
                c[n], m[n] = c_new, m_new
                c_t[n], m_t[n] = c_new, m_new
            else:
                gates[at_i] = gates[at_f] = gates[at_g] = gates[at_o] = zero
                c_t[n] = m_t[n] = zero

        return kernel

    a = f"{dtype}[::1]"
    signature = f"{a}, {a}, {a}, int32[::1], int32, int32, {a}, {a}, {a}, {a}"
    return one_thread_each(f"lstm_forward_{dtype}", build, signature)


@functools.cache
def lstm_backward_step(dtype: str) -> Kernel:
    """Undo (4) to (2) for one step: each line as in `kernels/numpy/lstm.py`."""

    def build() -> Callable[..., None]:
        from numba import cuda

        tanh_, clip_ = tanh(dtype), clipped(dtype)
        zero, one = constants(dtype, 0, 1)

        def kernel(
            gates,  # (B, 4H) in: i, f, g, o; out: dL/da_t
            c_prev,  # (B, H) c_{t-1}
            c,  # (B, H) c_t
            left,  # (B,)
            slot,
            hidden,
            clip,
            detached,  # (B,) of step t+1
            dm_t,  # (B, H) in: dL/dm_t from outside; out: the total
            dm,  # (B, H) what step t+1 sends to it
            dc_t,  # (B, H) in: dL/dc_t from outside; out: the total
            dc,  # (B, H) in: what step t+1 sends to c_t; out: what step t sends to c_{t-1}
            da,  # (B, 4H) out: dL/da_t
        ):
            n = cuda.grid(1)
            if n >= c.size:
                return
            b, j = n // hidden, n % hidden
            at_i = b * 4 * hidden + j
            at_f, at_g, at_o = at_i + hidden, at_i + 2 * hidden, at_i + 3 * hidden
            da_i = da_f = da_g = da_o = zero
            if slot < left[b]:
                i, f, g, o = gates[at_i], gates[at_f], gates[at_g], gates[at_o]
                later = slot + 1 < left[b]
                dm_total = dm_t[n] + dm[n] if later and not detached[b] else dm_t[n]
                dc_total = dc_t[n] + dc[n] if later else dc_t[n]
                tanh_c = tanh_(c[n])
                do = dm_total * tanh_c  # undoes (4), in o
                dc_total += dm_total * o * (one - tanh_c * tanh_c)  # undoes (4), in c: now the total
                di, df, dg = dc_total * g, dc_total * c_prev[n], dc_total * i  # undoes (3), in i, f, g
                da_i = clip_(di * i * (one - i), clip)  # undoes (2)
                da_f = clip_(df * f * (one - f), clip)
                da_g = clip_(dg * (one - g * g), clip)
                da_o = clip_(do * o * (one - o), clip)
                dm_t[n], dc_t[n] = dm_total, dc_total
                dc[n] = dc_total * f  # undoes (3), in c_{t-1}
            gates[at_i], gates[at_f], gates[at_g], gates[at_o] = da_i, da_f, da_g, da_o
            da[at_i], da[at_f], da[at_g], da[at_o] = da_i, da_f, da_g, da_o

        return kernel

    a = f"{dtype}[::1]"
    signature = f"{a}, {a}, {a}, int32[::1], int32, int32, {dtype}, uint8[::1], {a}, {a}, {a}, {a}, {a}"
    return one_thread_each(f"lstm_backward_{dtype}", build, signature)


@functools.cache
def activate(dtype: str) -> Kernel:
    """(2) of the LSTM for all steps, once more."""

    def build() -> Callable[..., None]:
        from numba import cuda

        σ, tanh_ = sigmoid(dtype), tanh(dtype)
        (zero,) = constants(dtype, 0)

        def kernel(
            a,  # (T, B, 4H)
            lengths,  # (B,)
            hidden,
            gates,  # (T, B, 4H) out: i, f, g, o
        ):
            n = cuda.grid(1)
            if n >= a.size:
                return
            row, gate = n // (4 * hidden), n % (4 * hidden) // hidden
            t, b = row // lengths.size, row % lengths.size
            if t >= lengths[b]:
                gates[n] = zero
            elif gate == 2:  # g
                gates[n] = tanh_(a[n])  # (2)
            else:
                gates[n] = σ(a[n])  # (2)

        return kernel

    a = f"{dtype}[::1]"
    return one_thread_each(f"activate_{dtype}", build, f"{a}, int32[::1], int32, {a}")


def kernels() -> Iterator[Kernel]:
    """Every kernel of this file."""
    for dtype in ("float32", "float64"):
        yield lstm_forward_step(dtype)
        yield lstm_backward_step(dtype)
        yield activate(dtype)
