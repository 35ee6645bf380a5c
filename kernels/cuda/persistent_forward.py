"""Engine F1: the whole forward recurrence in one kernel. W_hh stays in registers; one meeting of the blocks a step.

    a_t = (a_x[t] + b) + W_hh h_{t-1}                                               (1)   b = b_ih + b_hh
    the rest of the step, in float32: kernels/numpy/lstm.py (2) to (4), kernels/numpy/rnn.py (2)

    B batch   T time   H hidden   R rows of W_hh: H for the RNN, 4H for the LSTM

A block owns `units` hidden units: their rows of W_hh, in registers (`tile.py`), their c, in shared memory, and their
columns of h_t, which it writes into the output. The output is what blocks exchange: h_{t-1} is read where step t-1
left it, and every element is written once, so one meeting a step is enough (`meeting.py`). Groups of blocks share the
batch and never meet (`plan.py`).

    for each t:   prefetch a_x[t]          it depends on nobody
                  wait                     until all blocks of the group have written h_{t-1}
                  stage h_{t-1}            from global to shared memory, 16 bytes a load
                  multiply                 W_hh h_{t-1}, tile by tile
                  finish                   gates, c_t, h_t: one thread for each unit and sample
                  arrive
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from . import meeting, pointwise, tile
from .kernel import Kernel
from .persistent import DeviceArray, Shape, shapes, stage, total, vector
from .plan import Plan
from .queue import Queue
from .tile import THREADS


def forward(
    queue: Queue,
    plan: Plan,
    cell: str,  # "lstm", "rnn_tanh" or "rnn_relu"
    a_x: DeviceArray,  # (T, B, R) the gemm's part of (1)
    bias: DeviceArray,  # (R,)
    weight_hh: DeviceArray,  # (R, H)
    lengths: DeviceArray,  # (B,) int32
    h_0: DeviceArray,  # (B, H)
    c_0: DeviceArray | None,  # (B, H) of an LSTM
    y: DeviceArray,  # (T, B, H) out
    c: DeviceArray | None,  # (T, B, H) out, where it is kept
    gates: DeviceArray | None,  # (T, B, 4H) out, where they are kept; may be a_x
    h_n: DeviceArray | None,  # (B, H) out, where it is wanted
    c_n: DeviceArray | None,  # (B, H) out, with h_n
    patience: int = meeting.PATIENCE,
) -> None:
    """Run the recurrence; see `per_step` for the same with any shape."""
    steps, batch, _ = a_x.shape
    shape = Shape(
        cell, plan.hidden, plan.units, plan.tile, vector(plan.hidden, h_0, y),
        c is not None, gates is not None, h_n is not None,
    )  # fmt: skip
    none = bias  # stands where nothing is read or written
    arrays = [none if array is None else array for array in (c_0, y, c, gates, h_n, c_n)]
    counters = meeting.counters(queue, plan.groups)
    kernel(shape).launch(
        queue, plan.grid, a_x, bias, weight_hh, lengths, h_0, *arrays, counters, queue.alarm,
        steps, batch, plan.per_group, plan.staged, patience, shared=plan.shared,
    )  # fmt: skip


@functools.cache
def _of_gates(shape: Shape) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Device functions: a number of each gate, from rows of R; and two such, added."""
    from numba import cuda, uint64

    hidden = shape.hidden

    @cuda.jit(device=True, forceinline=True)
    def read_four(array, at):
        return (
            array[uint64(at)],
            array[uint64(at + hidden)],
            array[uint64(at + 2 * hidden)],
            array[uint64(at + 3 * hidden)],
        )

    @cuda.jit(device=True, forceinline=True)
    def add_four(p, q):
        return p[0] + q[0], p[1] + q[1], p[2] + q[2], p[3] + q[3]

    @cuda.jit(device=True, forceinline=True)
    def read_one(array, at):
        return (array[uint64(at)],)

    @cuda.jit(device=True, forceinline=True)
    def add_one(p, q):
        return (p[0] + q[0],)

    return (read_four, add_four) if shape.gates == 4 else (read_one, add_one)


@functools.cache
def _finish(shape: Shape) -> Callable[..., Any]:
    """Device function: the pointwise part of a step for one unit u and sample b; returns h and c."""
    from numba import cuda, float32, uint64

    hidden, units, keep_gates = shape.hidden, shape.units, shape.keep_gates
    z, sigmoid, tanh = total(shape), pointwise.sigmoid("float32"), pointwise.tanh("float32")
    phi = pointwise.nonlinearity(shape.nonlinearity, "float32")

    @cuda.jit(device=True, forceinline=True)
    def of_lstm(ahead, staged, sums, u, b, stride, c, gates, at):
        i = sigmoid(ahead[0] + z(staged, sums, u, b, stride))
        f = sigmoid(ahead[1] + z(staged, sums, units + u, b, stride))
        g = tanh(ahead[2] + z(staged, sums, 2 * units + u, b, stride))
        o = sigmoid(ahead[3] + z(staged, sums, 3 * units + u, b, stride))
        c = f * c + i * g
        if keep_gates:
            gates[uint64(at)], gates[uint64(at + hidden)] = i, f
            gates[uint64(at + 2 * hidden)], gates[uint64(at + 3 * hidden)] = g, o
        return o * tanh(c), c

    @cuda.jit(device=True, forceinline=True)
    def of_rnn(ahead, staged, sums, u, b, stride, c, gates, at):
        return phi(ahead[0] + z(staged, sums, u, b, stride)), float32(0.0)

    return of_lstm if shape.gates == 4 else of_rnn


@functools.cache
def kernel(shape: Shape) -> Kernel:
    """The kernel of these constants."""

    def build() -> Callable[..., None]:
        from numba import cuda, float32, int32, int64, uint32, uint64

        hidden, units, gates_, has_c = shape.hidden, shape.units, shape.gates, shape.gates == 4
        keep_c, keep_gates, keep_end = shape.keep_c, shape.keep_gates, shape.keep_end
        blocks, rows, columns = -(-hidden // units), shape.gates * hidden, shape.tile.columns
        held, values = shape.tile.held, shape.tile.rows * shape.tile.samples
        at_once, part = shape.tile.samples, shape.tile.parts * shape.tile.all_rows
        read_weights = tile.weights(shape.tile, gates_, hidden, (hidden * hidden, hidden, 1), hidden)
        multiply, finish = tile.product(shape.tile), _finish(shape)
        read, add = _of_gates(shape)
        read_state, arrive, wait = stage(shape, hidden), meeting.arrive(), meeting.wait()

        def persistent_forward(
            a_x,  # (T, B, R) the gemm's part of (1)
            bias,  # (R,)
            weight_hh,  # (R, H)
            lengths,  # (B,)
            h_0,  # (B, H)
            c_0,  # (B, H)
            y,  # (T, B, H) out: h_t, and what blocks exchange
            c_out,  # (T, B, H) out
            gates,  # (T, B, R) out; may be a_x
            h_n,  # (B, H) out
            c_n,  # (B, H) out
            counters,  # of the groups, zero: meeting.py
            alarm,  # (1,) of the queue
            steps,
            batch,
            per_group,
            room,  # samples staged at once
            patience,
        ):
            thread = int32(cuda.threadIdx.x)
            group, unit = int32(cuda.blockIdx.x) // blocks, int32(cuda.blockIdx.x) % blocks * units
            first = group * per_group
            count = min(per_group, batch - first)
            mine = min(units, hidden - unit)
            stride = (per_group + at_once - 1) // at_once * at_once
            items, sums = units * count, room * columns
            carried = sums + part * stride
            staged = cuda.shared.array(0, float32, alignment=16)  # loads of 16 bytes
            failed = cuda.shared.array(1, int32)
            w, acc = cuda.local.array(held, float32), cuda.local.array(values, float32)

            read_weights(w, weight_hh, unit, units, thread)
            for n in range(thread, room * columns, THREADS):
                staged[n] = float32(0.0)  # padding stays so
            for n in range(thread, items, THREADS):
                u, b = n % units, first + n // units
                if u < mine:
                    if has_c:
                        staged[carried + n] = c_0[b * hidden + unit + u]
                    if keep_end and lengths[b] == 0:
                        h_n[b * hidden + unit + u] = h_0[b * hidden + unit + u]
                        if has_c:
                            c_n[b * hidden + unit + u] = c_0[b * hidden + unit + u]
            if thread == 0:
                failed[0] = int32(0)
            cuda.syncthreads()

            own_u, own_b = thread % units, thread // units  # the thread's first item, which is read ahead
            own_at, own_slot = (first + own_b) * rows + unit + own_u, (first + own_b) * hidden + unit + own_u
            own_length, own_x, own_bias = int32(0), read(bias, 0), read(bias, 0)  # of these types
            owns = thread < items and own_u < mine
            if owns:
                own_length, own_bias = lengths[uint64(first + own_b)], read(bias, unit + own_u)
            for t in range(steps):
                if owns:
                    own_x = read(a_x, t * batch * rows + own_at)  # nobody uses it before the wait
                if blocks > 1 and t > 0 and not wait(counters, group, uint32(t * blocks), patience, alarm, failed):
                    break
                start = 0
                while start < count:
                    here = min(room, count - start)
                    if start > 0:
                        cuda.syncthreads()  # all have read what is overwritten now
                    if t == 0:
                        read_state(h_0, 0, first + start, here, staged, thread)
                    else:
                        read_state(y, (t - 1) * batch * hidden, first + start, here, staged, thread)
                    cuda.syncthreads()
                    for b in range(0, here, at_once):
                        multiply(w, staged, b * columns, thread, acc, sums, start + b, stride)
                    start += room
                cuda.syncthreads()
                n, u, b, length, ahead = int64(thread), own_u, own_b, own_length, add(own_x, own_bias)
                at, slot = t * batch * rows + own_at, t * batch * hidden + own_slot
                while n < items:
                    if u < mine:
                        if t < length:
                            before = staged[uint32(carried + n)] if has_c else float32(0.0)
                            h, c = finish(ahead, staged, sums, u, b, stride, before, gates, at)
                            if has_c:
                                staged[uint32(carried + n)] = c
                            if keep_end and t + 1 == length:
                                h_n[uint64(slot - t * batch * hidden)] = h
                                if has_c:
                                    c_n[uint64(slot - t * batch * hidden)] = c
                        else:
                            h = c = float32(0.0)
                            if keep_gates:
                                for g in range(gates_):
                                    gates[uint64(at + g * hidden)] = float32(0.0)
                        y[uint64(slot)] = h
                        if keep_c:
                            c_out[uint64(slot)] = c
                    n += THREADS
                    if n < items:
                        u, b = n % units, n // units
                        at = (t * batch + first + b) * rows + unit + u
                        slot = (t * batch + first + b) * hidden + unit + u
                        if u < mine:
                            length, ahead = lengths[uint64(first + b)], add(read(a_x, at), read(bias, unit + u))
                if blocks > 1:
                    arrive(counters, group)
                else:
                    cuda.syncthreads()

        return persistent_forward

    floats = "float32[::1]"
    ints = ", ".join(["int32"] * 5)
    return Kernel(
        name=f"{shape.cell}_persistent_forward",
        build=build,
        signature=", ".join([floats] * 3 + ["int32[::1]"] + [floats] * 7 + ["uint32[::1]", "uint32[::1]", ints]),
        threads=THREADS,
        cooperative=True,
    )


def kernels() -> Iterator[Kernel]:
    """Kernels for tests to compile."""
    for shape in shapes():
        lstm = shape.gates == 4
        yield kernel(replace(shape, keep_c=lstm, keep_gates=lstm))
        yield kernel(replace(shape, keep_end=True))
