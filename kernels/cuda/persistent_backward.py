"""Engine B1: the whole recurrence of backward through time in one kernel, W_hh in registers, one meeting a step.

    dh_t = dL/dh_t from outside + W_hhᵀ da_{t+1}                                    (1)   undoes (1) of the forward pass
    da_t from dh_t, and dc_t with it: kernels/numpy/lstm.py and rnn.py, step_backward

    B batch   T time   H hidden   R rows of W_hh: H for the RNN, 4H for the LSTM

A block owns `units` hidden units: their columns of W_hh, in registers, so (1) is a sum over the rows that no other
block adds to; their dc, in shared memory; their part of da_t, which it writes. da is what blocks exchange: every block
reads all R rows of its group's samples, four times what the forward pass of an LSTM reads, and each is written once.

    for each t, last first:   undo          da_t, dc_t, dh_t: one thread for each unit and sample
                              arrive
                              prefetch      gates, c and what comes from outside, of the step before
                              wait          until all blocks of the group have written da_t
                              stage da_t
                              multiply      W_hhᵀ da_t, tile by tile: read by undo of the step before
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

from . import meeting, pointwise, tile
from .kernel import Kernel
from .persistent import DeviceArray, Shape, shapes, stage, total, vector
from .plan import Plan
from .queue import Queue
from .tile import THREADS


def backward(
    queue: Queue,
    plan: Plan,
    cell: str,  # "lstm", "rnn_tanh" or "rnn_relu"
    weight_hh: DeviceArray,  # (R, H)
    lengths: DeviceArray,  # (B,) int32
    h: DeviceArray | None,  # (T, B, H) of an RNN: slots 1 to T
    c: DeviceArray | None,  # (T+1, B, H) of an LSTM
    gates: DeviceArray | None,  # (T, B, 4H) of an LSTM
    clip: float,
    detach_h: DeviceArray | None,  # (T, B) uint8, of an LSTM
    dh: DeviceArray,  # (T+1, B, H) in: from outside; out: total
    dc: DeviceArray | None,  # (T+1, B, H) likewise, of an LSTM
    da: DeviceArray,  # (T, B, R) out
    patience: int = meeting.PATIENCE,
) -> None:
    """Run the recurrence of backward; see `per_step` for the same with any shape."""
    steps, batch, rows = da.shape
    shape = Shape(cell, plan.hidden, plan.units, plan.tile, vector(rows, da))
    none = weight_hh  # stands where nothing is read or written
    h, c, gates, dc = (none if array is None else array for array in (h, c, gates, dc))
    detaches = detach_h is not None
    counters = meeting.counters(queue, plan.groups)
    kernel(shape, detaches).launch(
        queue, plan.grid, weight_hh, lengths, h, c, gates, detach_h if detaches else queue.zeros((1,), "uint8"),
        dh, dc, da, counters, queue.alarm, clip, steps, batch, plan.per_group, plan.staged, patience,
        shared=plan.shared,
    )  # fmt: skip


@functools.cache
def _ahead(shape: Shape) -> Callable[..., Any]:
    """Device function: what step t of a unit and sample reads that needs no other block."""
    from numba import cuda, uint64

    hidden = shape.hidden

    @cuda.jit(device=True, forceinline=True)
    def of_lstm(h, c, gates, dh, dc, at, before, slot):
        return (
            gates[uint64(at)],
            gates[uint64(at + hidden)],
            gates[uint64(at + 2 * hidden)],
            gates[uint64(at + 3 * hidden)],
            c[uint64(before)],
            c[uint64(slot)],
            dh[uint64(slot)],
            dc[uint64(slot)],
        )

    @cuda.jit(device=True, forceinline=True)
    def of_rnn(h, c, gates, dh, dc, at, before, slot):
        return h[uint64(before)], dh[uint64(slot)]  # h has no slot 0

    return of_lstm if shape.gates == 4 else of_rnn


@functools.cache
def _undo(shape: Shape) -> Callable[..., Any]:
    """Device function: one step back for one unit and sample; writes da_t and the totals, returns what c_{t-1} gets."""
    from numba import cuda, float32, uint64

    hidden = shape.hidden
    one, clipped, tanh = float32(1.0), pointwise.clipped("float32"), pointwise.tanh("float32")
    slope = pointwise.slope(shape.nonlinearity, "float32")

    @cuda.jit(device=True, forceinline=True)
    def of_lstm(ahead, dh_next, dc_next, clip, dh_out, dc_out, da, slot, at):
        i, f, g, o, c_prev, c, dh, dc = ahead
        dh += dh_next
        tanh_c = tanh(c)
        do = dh * tanh_c
        dc = dc + dc_next + dh * o * (one - tanh_c * tanh_c)
        da[uint64(at)] = clipped(dc * g * i * (one - i), clip)
        da[uint64(at + hidden)] = clipped(dc * c_prev * f * (one - f), clip)
        da[uint64(at + 2 * hidden)] = clipped(dc * i * (one - g * g), clip)
        da[uint64(at + 3 * hidden)] = clipped(do * o * (one - o), clip)
        dh_out[uint64(slot)], dc_out[uint64(slot)] = dh, dc
        return dc * f

    @cuda.jit(device=True, forceinline=True)
    def of_rnn(ahead, dh_next, dc_next, clip, dh_out, dc_out, da, slot, at):
        h, dh = ahead
        dh += dh_next
        da[uint64(at)] = clipped(slope(dh, h), clip)
        dh_out[uint64(slot)] = dh
        return float32(0.0)

    return of_lstm if shape.gates == 4 else of_rnn


@functools.cache
def kernel(shape: Shape, detaches: bool) -> Kernel:
    """The kernel of these constants; `detaches`: whether it reads detach_h."""

    def build() -> Callable[..., None]:
        from numba import cuda, float32, int32, int64, uint32, uint64

        hidden, units, gates_, has_c = shape.hidden, shape.units, shape.gates, shape.gates == 4
        blocks, rows, columns = -(-hidden // units), shape.gates * hidden, shape.tile.columns
        held, values = shape.tile.held, shape.tile.rows * shape.tile.samples
        at_once, part = shape.tile.samples, shape.tile.parts * shape.tile.all_rows
        read_weights = tile.weights(shape.tile, 1, rows, (0, 1, hidden), hidden)
        multiply, read_ahead, undo, z = tile.product(shape.tile), _ahead(shape), _undo(shape), total(shape)
        read_state, arrive, wait = stage(shape, rows), meeting.arrive(), meeting.wait()

        def persistent_backward(
            weight_hh,  # (R, H)
            lengths,  # (B,)
            h,  # (T, B, H) of an RNN: h_t
            c,  # (T+1, B, H)
            gates,  # (T, B, R)
            detach_h,  # (T, B)
            dh,  # (T+1, B, H) in: from outside; out: total
            dc,  # (T+1, B, H) likewise
            da,  # (T, B, R) out, and what blocks exchange
            counters,  # of the groups, zero: meeting.py
            alarm,  # (1,) of the queue
            clip,
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
                staged[carried + n] = float32(0.0)
            if thread == 0:
                failed[0] = int32(0)
            cuda.syncthreads()

            own_u, own_b = thread % units, thread // units  # the thread's first item, which is read ahead
            own_at, own_before = (first + own_b) * rows + unit + own_u, (first + own_b) * hidden + unit + own_u
            own_length, own_detached = int32(0), False
            own_ahead = read_ahead(weight_hh, weight_hh, weight_hh, weight_hh, weight_hh, 0, 0, 0)  # gives it a type
            owns = thread < items and own_u < mine
            t = steps - 1
            if owns and t >= 0:
                own_length, before = lengths[uint64(first + own_b)], t * batch * hidden + own_before
                own_ahead = read_ahead(h, c, gates, dh, dc, t * batch * rows + own_at, before, before + batch * hidden)
            done = True
            while t >= 0:
                n, u, b, length, ahead, detached = int64(thread), own_u, own_b, own_length, own_ahead, own_detached
                at, before = t * batch * rows + own_at, t * batch * hidden + own_before
                while n < items:
                    if u < mine:
                        if t < length:
                            dh_next, dc_next = float32(0.0), staged[uint32(carried + n)]
                            if t + 1 < length and not detached:
                                dh_next = z(staged, sums, u, b, stride)
                            slot = before + batch * hidden
                            staged[uint32(carried + n)] = undo(ahead, dh_next, dc_next, clip, dh, dc, da, slot, at)
                        else:
                            for g in range(gates_):
                                da[uint64(at + g * hidden)] = float32(0.0)
                    n += THREADS
                    if n < items:
                        u, b = n % units, n // units
                        at = (t * batch + first + b) * rows + unit + u
                        before = (t * batch + first + b) * hidden + unit + u
                        if u < mine:
                            length = lengths[uint64(first + b)]
                            if t < length:
                                ahead = read_ahead(h, c, gates, dh, dc, at, before, before + batch * hidden)
                                if detaches and t + 1 < length:
                                    detached = detach_h[uint64((t + 1) * batch + first + b)] != 0
                if blocks > 1:
                    arrive(counters, group)
                else:
                    cuda.syncthreads()
                if owns and t > 0:
                    at, before = (t - 1) * batch * rows + own_at, (t - 1) * batch * hidden + own_before
                    own_ahead = read_ahead(h, c, gates, dh, dc, at, before, before + batch * hidden)
                    if detaches:
                        own_detached = detach_h[uint64(t * batch + first + own_b)] != 0
                if blocks > 1:
                    arrivals = uint32((steps - t) * blocks)
                    if not wait(counters, group, arrivals, patience, alarm, failed):
                        done = False
                        break
                start = 0
                while start < count:
                    here = min(room, count - start)
                    if start > 0:
                        cuda.syncthreads()  # all have read what is overwritten now
                    read_state(da, t * batch * rows, first + start, here, staged, thread)
                    cuda.syncthreads()
                    for b in range(0, here, at_once):
                        multiply(w, staged, b * columns, thread, acc, sums, start + b, stride)
                    start += room
                cuda.syncthreads()
                t -= 1
            if done:
                for n in range(thread, items, THREADS):
                    u, b = n % units, first + n // units
                    if u < mine and lengths[b] > 0:
                        slot = b * hidden + unit + u
                        if not detaches or detach_h[b] == 0:
                            dh[slot] += z(staged, sums, u, b - first, stride)
                        if has_c:
                            dc[slot] += staged[carried + n]

        return persistent_backward

    floats, ints = "float32[::1]", ", ".join(["int32"] * 5)
    arrays = [floats, "int32[::1]", floats, floats, floats, "uint8[::1]", floats, floats, floats]
    return Kernel(
        name=f"{shape.cell}_persistent_backward",
        build=build,
        signature=", ".join([*arrays, "uint32[::1]", "uint32[::1]", "float32", ints]),
        threads=THREADS,
        cooperative=True,
    )


def kernels() -> Iterator[Kernel]:
    """Kernels for tests to compile."""
    for shape in shapes(backward=True):
        for detaches in {False, shape.gates == 4}:
            yield kernel(shape, detaches)
