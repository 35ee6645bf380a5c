"""Pre-activations once more, from every h: the product of `persistent_forward.py`, and its bits.

    a_t = (a_x[t] + b) + W_hh h_{t-1}                                               (1)   b = b_ih + b_hh

Nobody waits for anybody here: `workers` groups of blocks share the steps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator

from . import tile
from .kernel import Kernel
from .persistent import DeviceArray, Shape, shapes, stage, total, vector
from .plan import Plan
from .queue import Queue
from .tile import THREADS


def preactivations(
    queue: Queue,
    plan: Plan,  # of the forward pass
    cell: str,
    a: DeviceArray,  # (T, B, R) in: the gemm's part of (1); out
    bias: DeviceArray,  # (R,)
    weight_hh: DeviceArray,  # (R, H)
    lengths: DeviceArray,  # (B,) int32
    h: DeviceArray,  # (T, B, H) of the step before
) -> None:
    """(1), zero beyond a sequence's end."""
    steps, batch, _ = a.shape
    shape = Shape(cell, plan.hidden, plan.units, plan.tile, vector(plan.hidden, h))
    workers = min(steps, max(1, queue.device.sms // plan.blocks))
    kernel(shape).launch(
        queue, plan.blocks * workers, a, bias, weight_hh, lengths, h,
        steps, batch, plan.per_group, plan.staged, workers, shared=plan.shared,
    )  # fmt: skip


@functools.cache
def kernel(shape: Shape) -> Kernel:
    """The kernel of these constants."""

    def build() -> Callable[..., None]:
        from numba import cuda, float32, int32

        hidden, units, gates_ = shape.hidden, shape.units, shape.gates
        blocks, rows, columns = -(-hidden // units), shape.gates * hidden, shape.tile.columns
        held, values, at_once = shape.tile.held, shape.tile.rows * shape.tile.samples, shape.tile.samples
        read_weights = tile.weights(shape.tile, gates_, hidden, (hidden * hidden, hidden, 1), hidden)
        multiply, z, read_state = tile.product(shape.tile), total(shape), stage(shape, hidden)

        def persistent_preactivations(
            a,  # (T, B, R) in: the gemm's part of (1); out: pre-activations
            bias,  # (R,)
            weight_hh,  # (R, H)
            lengths,  # (B,)
            h,  # (T, B, H) of the step before
            steps,
            batch,
            per_group,
            room,
            workers,  # that share the steps
        ):
            thread = int32(cuda.threadIdx.x)
            worker, block = int32(cuda.blockIdx.x) // blocks, int32(cuda.blockIdx.x) % blocks
            unit = block * units
            mine = min(units, hidden - unit)
            stride = (per_group + at_once - 1) // at_once * at_once
            sums = room * columns
            staged = cuda.shared.array(0, float32, alignment=16)
            w, acc = cuda.local.array(held, float32), cuda.local.array(values, float32)
            read_weights(w, weight_hh, unit, units, thread)
            for n in range(thread, room * columns, THREADS):
                staged[n] = float32(0.0)
            cuda.syncthreads()
            for t in range(worker, steps, workers):
                for first in range(0, batch, per_group):
                    count = min(per_group, batch - first)
                    for start in range(0, count, room):
                        here = min(room, count - start)
                        read_state(h, t * batch * hidden, first + start, here, staged, thread)
                        cuda.syncthreads()
                        for b in range(0, here, at_once):
                            multiply(w, staged, b * columns, thread, acc, sums, start + b, stride)
                        cuda.syncthreads()
                    for n in range(thread, units * count, THREADS):
                        u, b = n % units, n // units
                        if u < mine:
                            at = (t * batch + first + b) * rows + unit + u
                            for g in range(gates_):
                                where = at + g * hidden
                                if t < lengths[first + b]:
                                    a_x = a[where] + bias[unit + u + g * hidden]
                                    a[where] = a_x + z(staged, sums, g * units + u, b, stride)
                                else:
                                    a[where] = float32(0.0)

        return persistent_preactivations

    return Kernel(
        name=f"{shape.cell}_persistent_preactivations",
        build=build,
        signature=", ".join(["float32[::1]"] * 3 + ["int32[::1]", "float32[::1]"] + ["int32"] * 5),
        threads=THREADS,
    )


def kernels() -> Iterator[Kernel]:
    """Kernels for tests to compile."""
    yield from map(kernel, shapes())
