"""Chunks of time steps, recorded once and replayed: what `per_step.py` runs a sequence with.

    B batch   T time   H hidden   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

A launch from Python costs more than a small step does. So the steps of a chunk are recorded as a CUDA graph, over
memory of the chunk's own, and replayed; a sequence is cut into chunks, and its data are copied in and out. The
recording does not depend on T. It holds a step's slot in the chunk; `left`, on the device, counts the steps that each
sequence has left at slot 0, and the recording itself moves it on by the chunk.

A recording has as many steps as a power of two, at most C: so a few of them serve every T, and T = 1 costs one step.

What a step's product reads and writes lies in the same place at every step, and has the same shape. So its bits cannot
depend on t, on T or on where a sequence was cut; and `Preactivations` takes the same products.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any

from .driver import DriverError
from .gemm import product
from .graph import Recorded
from .kernel import Kernel
from .pointwise import launch
from .pointwise_lstm import lstm_backward_step, lstm_forward_step
from .pointwise_rnn import keep, preactivation, receive, rnn_backward_step, rnn_forward_step, shift

if TYPE_CHECKING:
    from .queue import Queue

Array = Any  # a device array

CHUNK = 64  # steps, a power of two: they should take the device longer than the copies take the host (estimated)
NUMBERS = 1 << 24  # of one (C, B, R) array, at most, where that leaves a step: 64 MiB in float32
KEPT = 8  # chunks for the next calls


@dataclass(frozen=True)
class Shape:
    """What a recording depends on."""

    batch: int
    hidden: int
    size: int  # of h: P
    rows: int  # of the weights: R
    projected: bool
    dtype: str

    @property
    def steps(self) -> int:
        """C, of the longest chunk: a power of two."""
        allowed = max(1, min(CHUNK, NUMBERS // max(1, self.batch * self.rows)))
        return 1 << (allowed.bit_length() - 1)


class Chunk(ABC):
    """C steps over memory of their own: what subclasses allocate, a step of theirs, and its recordings.

    Slot s of an array of C slots belongs to the chunk's step s, except where said.
    """

    def __init__(self, queue: Queue, shape: Shape) -> None:
        self.queue, self.shape = queue.aside(), shape
        self.left = self.queue.empty((shape.batch,), "int32")
        self.weight_hh = self.empty(shape.rows, shape.size)
        self.weight_hr = self.empty(shape.size, shape.hidden) if shape.projected else None
        self.shift = self.ready(shift())
        self._recorded: dict[int, Recorded] = {}
        self._cut: dict[tuple[str, int], Array] = {}

    def empty(self, *shape: int) -> Array:
        """Memory of the chunk's dtype."""
        return self.queue.empty(shape, self.shape.dtype)

    def ready(self, kernel: Kernel) -> Kernel:
        """A kernel, compiled: what is recorded may not wait for it."""
        kernel.compile(self.queue)
        return kernel

    def load(self, **arrays: Array | None) -> None:
        """Copy into the arrays of these names."""
        for name, array in arrays.items():
            if array is not None:
                self.queue.copy(getattr(self, name), array)

    def save(self, **arrays: Array | None) -> None:
        """Copy the arrays of these names out."""
        for name, array in arrays.items():
            if array is not None:
                self.queue.copy(array, getattr(self, name))

    def slots(self, name: str, count: int) -> Array:
        """The first so many slots of the array of this name. Cut once: a cut costs the host as much as a launch."""
        if (name, count) not in self._cut:
            self._cut[name, count] = getattr(self, name)[:count]
        return self._cut[name, count]

    @abstractmethod
    def step(self, slot: int) -> None:
        """Issue one step."""

    @abstractmethod
    def steps(self, count: int) -> None:
        """Issue so many steps, and move `left`."""

    def move(self, steps: int) -> None:
        """Move slot 0 by so many steps."""
        launch(self.shift, self.queue, self.shape.batch, self.left, steps)

    def run(self, count: int) -> None:
        """Replay so many steps, recorded at the first call."""
        if count not in self._recorded:
            self._recorded[count] = Recorded(self.queue, partial(self.steps, count))
        self._recorded[count].replay(self.queue)

    def end(self) -> None:
        """Drop the recordings: they hold the chunk, which would live on until Python looks for cycles."""
        self._recorded.clear()

    def parts(self, steps: int) -> Iterator[slice]:
        """Cut so many steps into chunks, from first to last."""
        start = 0
        while start < steps:
            count = min(self.shape.steps, 1 << ((steps - start).bit_length() - 1))
            yield slice(start, start + count)
            start += count


class Forward(Chunk):
    """From step to step."""

    def __init__(self, queue: Queue, shape: Shape) -> None:
        super().__init__(queue, shape)
        steps, batch, rows, size = shape.steps, shape.batch, shape.rows, shape.size
        self.a = self.empty(steps, batch, rows)  # in: W_ih x_t; out: gates or a_t
        self.h_t = self.empty(steps, batch, size)
        self.h = self.empty(batch, size)  # from one step to the next
        self.bias = self.empty(rows)
        self.recurrent = self.empty(batch, rows)  # W_hh h_{t-1}

    def steps(self, count: int) -> None:
        """From first to last."""
        for slot in range(count):
            product(self.queue, self.recurrent, self.h, self.weight_hh, transpose_b=True)  # (1)
            self.step(slot)
        self.move(count)


class LSTMForward(Forward):
    """Equations (1) to (5) of the LSTM."""

    def __init__(self, queue: Queue, shape: Shape) -> None:
        super().__init__(queue, shape)
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        self.c_t, self.c = self.empty(steps, batch, hidden), self.empty(batch, hidden)
        self.pointwise = self.ready(lstm_forward_step(shape.dtype))
        if shape.projected:
            self.m, self.m_t = self.empty(batch, hidden), self.empty(batch, hidden)
            self.projected = self.empty(batch, shape.size)
            self.keep = self.ready(keep(shape.dtype))

    def step(self, slot: int) -> None:
        """One step; with a projection, m stands where h would."""
        queue, shape = self.queue, self.shape
        m, m_t = (self.m, self.m_t) if shape.projected else (self.h, self.h_t[slot])
        launch(
            self.pointwise, queue, shape.batch * shape.hidden,
            self.a[slot], self.bias, self.recurrent, self.left, slot, shape.hidden, self.c, m, self.c_t[slot], m_t,
        )  # fmt: skip
        if shape.projected:
            product(queue, self.projected, self.m, self.weight_hr, transpose_b=True)  # (5)
            launch(
                self.keep, queue, shape.batch * shape.size,
                self.projected, self.left, slot, shape.size, self.h, self.h_t[slot],
            )  # fmt: skip


class RNNForward(Forward):
    """Equations (1) and (2) of the RNN."""

    def __init__(self, queue: Queue, shape: Shape, nonlinearity: str) -> None:
        super().__init__(queue, shape)
        self.pointwise = self.ready(rnn_forward_step(shape.dtype, nonlinearity))

    def step(self, slot: int) -> None:
        """One step."""
        shape = self.shape
        launch(
            self.pointwise, self.queue, shape.batch * shape.hidden,
            self.a[slot], self.bias, self.recurrent, self.left, slot, shape.hidden, self.h, self.h_t[slot],
        )  # fmt: skip


class Preactivations(Forward):
    """Equation (1) alone: every h_t is known, and copied in."""

    def __init__(self, queue: Queue, shape: Shape) -> None:
        super().__init__(queue, shape)
        self.pointwise = self.ready(preactivation(shape.dtype))

    def step(self, slot: int) -> None:
        """One step."""
        shape = self.shape
        launch(
            self.pointwise, self.queue, shape.batch * shape.rows,
            self.a[slot], self.bias, self.recurrent, self.left, slot,
        )  # fmt: skip
        self.queue.copy(self.h, self.h_t[slot])


class Backward(Chunk):
    """From step to step back. Slot s of dh_t and dc_t is that of the state after step s."""

    def __init__(self, queue: Queue, shape: Shape, clip: float) -> None:
        super().__init__(queue, shape)
        steps, batch, rows, size = shape.steps, shape.batch, shape.rows, shape.size
        self.clip = clip
        self.dh_t = self.empty(steps, batch, size)  # in: from outside; out: the total
        self.da = self.empty(batch, rows)
        self.dh = self.empty(batch, size)  # W_hhᵀ da_{t+1}: what the step after sends
        self.detached = self.queue.zeros(
            (steps + 1, batch), "uint8"
        )  # one slot more: the first step of the chunk after
        self.nowhere = self.queue.zeros((steps + 1, batch), "uint8")
        self.arrival = self.ready(receive(shape.dtype))

    def steps(self, count: int) -> None:
        """From last to first."""
        self.move(-count)
        for slot in reversed(range(count)):
            self.step(slot)
            product(self.queue, self.dh, self.da, self.weight_hh)  # undoes (1), in h_{t-1}

    def receive(self, d_t: Array, sent: Array, slot: int, detached: Array, total: Array) -> None:
        """Add to d_t what the step after it sends; slot -1 is the initial state's."""
        batch, width = d_t.shape
        launch(self.arrival, self.queue, batch * width, d_t, sent, self.left, slot, width, detached, total)


class LSTMBackward(Backward):
    """Undo (5) to (1) of the LSTM."""

    def __init__(self, queue: Queue, shape: Shape, clip: float) -> None:
        super().__init__(queue, shape, clip)
        steps, batch, hidden = shape.steps, shape.batch, shape.hidden
        self.gates = self.empty(steps, batch, shape.rows)  # in: i, f, g, o; out: dL/da_t
        self.c = self.empty(steps + 1, batch, hidden)  # slot s: before step s
        self.dc_t, self.dc = self.empty(steps, batch, hidden), self.empty(batch, hidden)
        self.pointwise = self.ready(lstm_backward_step(shape.dtype))
        if shape.projected:
            self.dh_total = self.empty(batch, shape.size)
            self.dm, self.nothing = self.empty(batch, hidden), self.queue.zeros((batch, hidden), shape.dtype)

    def step(self, slot: int) -> None:
        """One step back; with a projection, dm stands where dh would, and its total is known."""
        queue, shape = self.queue, self.shape
        detached = self.detached[slot + 1]
        dm_t, dm = self.dh_t[slot], self.dh
        if shape.projected:
            self.receive(self.dh_t[slot], self.dh, slot, detached, self.dh_total)
            product(queue, self.dm, self.dh_total, self.weight_hr)  # undoes (5)
            dm_t, dm = self.dm, self.nothing
        launch(
            self.pointwise, queue, shape.batch * shape.hidden,
            self.gates[slot], self.c[slot], self.c[slot + 1], self.left, slot, shape.hidden, self.clip, detached,
            dm_t, dm, self.dc_t[slot], self.dc, self.da,
        )  # fmt: skip


class RNNBackward(Backward):
    """Undo (2) and (1) of the RNN."""

    def __init__(self, queue: Queue, shape: Shape, clip: float, nonlinearity: str) -> None:
        super().__init__(queue, shape, clip)
        self.h = self.empty(shape.steps, shape.batch, shape.size)  # after the step
        self.da_t = self.empty(shape.steps, shape.batch, shape.rows)
        self.pointwise = self.ready(rnn_backward_step(shape.dtype, nonlinearity))

    def step(self, slot: int) -> None:
        """One step back."""
        shape = self.shape
        launch(
            self.pointwise, self.queue, shape.batch * shape.hidden,
            self.h[slot], self.left, slot, shape.hidden, self.clip, self.dh_t[slot], self.dh,
            self.da_t[slot], self.da,
        )  # fmt: skip


_lock = Lock()
_idle: dict[tuple[Any, ...], Any] = {}  # the longest idle first


@contextmanager
def lent(make: Callable[..., Any], queue: Queue, *what: Any) -> Iterator[Any]:
    """A chunk that nobody else has, one that an earlier call gave back or a new one, behind what is on the queue now.

    Its work goes on its own queue, and the other is behind that in the end. So it serves any stream, and outlives it.
    """
    key = (make, queue.ordinal, *what)
    with _lock:
        chunk = _idle.pop(key, None)
    chunk = make(queue, *what) if chunk is None else chunk
    try:
        chunk.queue.wait_for(queue)
        yield chunk
    except BaseException:  # nobody knows what it holds
        chunk.end()
        with suppress(DriverError):
            queue.wait_for(chunk.queue)
        raise
    queue.wait_for(chunk.queue)
    with _lock:
        _idle[key] = chunk
        too_many = [_idle.pop(oldest) for oldest in list(_idle)[: max(0, len(_idle) - KEPT)]]
    for old in too_many:
        old.end()
