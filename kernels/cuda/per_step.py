"""The engine for any shape: one matrix product and one kernel for each time step, two of each with a projection.

    B batch   T time   H hidden   P size of h   R rows of the weights: H for the RNN, 4H for the LSTM

Only the recurrence: what needs no h is in `sums.py`. All arrays are on the device. A sequence goes through chunks of
recorded steps (`chunks.py`): copy in, replay, copy out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .chunks import Forward, LSTMBackward, LSTMForward, Preactivations, RNNBackward, RNNForward, Shape, lent

if TYPE_CHECKING:
    from .queue import Queue

Array = Any  # a device array


def _shape(a: Array, size: int, hidden: int, *, projected: bool = False) -> Shape:
    _, batch, rows = a.shape
    return Shape(batch, hidden, size, rows, projected, a.dtype.name)


def _forward(
    chunk: Forward,
    a_x: Array,  # (T, B, R)
    outs: dict[str, Array | None],  # (T, B, ·) each, named as in the chunk
) -> None:
    for part in chunk.parts(len(a_x)):
        count = part.stop - part.start
        chunk.queue.copy(chunk.slots("a", count), a_x[part])
        chunk.run(count)
        for name, out in outs.items():
            if out is not None:
                chunk.queue.copy(out[part], chunk.slots(name, count))


def lstm_forward(
    queue: Queue,
    a_x: Array,  # (T, B, 4H) W_ih x_t
    bias: Array,  # (4H,) b_ih + b_hh
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Array,  # (B,) int32
    h_0: Array,  # (B, P)
    c_0: Array,  # (B, H)
    y: Array,  # (T, B, P) out: h_t
    c: Array | None,  # (T, B, H) out: c_t
    gates: Array | None,  # (T, B, 4H) out; may be a_x
    h_n: Array | None,  # (B, P) out: h at each sequence's own end
    c_n: Array | None,  # (B, H) out
) -> None:
    """(1) to (5) of the LSTM; what is None is not kept."""
    shape = _shape(a_x, h_0.shape[1], c_0.shape[1], projected=weight_hr is not None)
    with lent(LSTMForward, queue, shape) as chunk:
        chunk.load(bias=bias, weight_hh=weight_hh, weight_hr=weight_hr, left=lengths, h=h_0, c=c_0)
        _forward(chunk, a_x, {"h_t": y, "c_t": c, "a": gates})
        chunk.save(h=h_n, c=c_n)


def rnn_forward(
    queue: Queue,
    a_x: Array,  # (T, B, H) W_ih x_t
    bias: Array,  # (H,) b_ih + b_hh
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Array,  # (B,) int32
    h_0: Array,  # (B, H)
    y: Array,  # (T, B, H) out: h_t
    h_n: Array | None,  # (B, H) out: h at each sequence's own end
) -> None:
    """(1) and (2) of the RNN."""
    size = h_0.shape[1]
    with lent(RNNForward, queue, _shape(a_x, size, size), nonlinearity) as chunk:
        chunk.load(bias=bias, weight_hh=weight_hh, left=lengths, h=h_0)
        _forward(chunk, a_x, {"h_t": y})
        chunk.save(h=h_n)


def preactivations(
    queue: Queue,
    a: Array,  # (T, B, R) in: W_ih x_t; out: a_t, zero beyond a sequence's end
    bias: Array,  # (R,) b_ih + b_hh
    weight_hh: Array,  # (R, P)
    lengths: Array,  # (B,) int32
    h: Array,  # (T+1, B, P)
) -> None:
    """(1) of both cells, now that every h is known: forward's bits."""
    size = h.shape[2]
    with lent(Preactivations, queue, _shape(a, size, size)) as chunk:
        chunk.load(bias=bias, weight_hh=weight_hh, left=lengths, h=h[0])
        for part in chunk.parts(len(a)):
            count = part.stop - part.start
            chunk.queue.copy(chunk.slots("a", count), a[part])
            chunk.queue.copy(chunk.slots("h_t", count), h[part.start + 1 : part.stop + 1])
            chunk.run(count)
            chunk.queue.copy(a[part], chunk.slots("a", count))


def lstm_backward(
    queue: Queue,
    weight_hh: Array,  # (4H, P)
    weight_hr: Array | None,  # (P, H) or None
    lengths: Array,  # (B,) int32
    c: Array,  # (T+1, B, H)
    gates: Array,  # (T, B, 4H)
    clip: float,  # bound of each |dL/da_t|; inf: none
    detach_h: Array | None,  # (T, B) uint8; None: nowhere
    dh: Array,  # (T+1, B, P) in: dL/dh_t from outside; out: the total
    dc: Array,  # (T+1, B, H) in: dL/dc_t from outside; out: the total
    da: Array,  # (T, B, 4H) out: dL/da_t
) -> None:
    """Undo (5) to (1) of the LSTM, in h_{t-1}."""
    shape = _shape(da, dh.shape[2], dc.shape[2], projected=weight_hr is not None)
    with lent(LSTMBackward, queue, shape, clip) as chunk:
        chunk.load(weight_hh=weight_hh, weight_hr=weight_hr, left=lengths, detached=chunk.nowhere)
        chunk.move(len(da))
        for part in reversed(list(chunk.parts(len(da)))):
            count = part.stop - part.start
            after = slice(part.start + 1, part.stop + 1)
            chunk.queue.copy(chunk.slots("gates", count), gates[part])
            chunk.queue.copy(chunk.slots("c", count + 1), c[part.start : part.stop + 1])
            chunk.queue.copy(chunk.slots("dh_t", count), dh[after])
            chunk.queue.copy(chunk.slots("dc_t", count), dc[after])
            if detach_h is not None:
                rows = detach_h[part.start : part.stop + 1]  # the last chunk has none behind it
                chunk.queue.copy(chunk.slots("detached", len(rows)), rows)
            chunk.run(count)
            chunk.queue.copy(dh[after], chunk.slots("dh_t", count))
            chunk.queue.copy(dc[after], chunk.slots("dc_t", count))
            chunk.queue.copy(da[part], chunk.slots("gates", count))
        chunk.receive(dh[0], chunk.dh, -1, chunk.detached[0], dh[0])
        chunk.receive(dc[0], chunk.dc, -1, chunk.nowhere[0], dc[0])


def rnn_backward(
    queue: Queue,
    weight_hh: Array,  # (H, H)
    nonlinearity: str,  # "tanh" or "relu"
    lengths: Array,  # (B,) int32
    h: Array,  # (T, B, H) slots 1 to T
    clip: float,  # bound of each |dL/da_t|; inf: none
    dh: Array,  # (T+1, B, H) in: dL/dh_t from outside; out: the total
    da: Array,  # (T, B, H) out: dL/da_t
) -> None:
    """Undo (2) and (1) of the RNN, in h_{t-1}."""
    size = h.shape[2]
    with lent(RNNBackward, queue, _shape(da, size, size), clip, nonlinearity) as chunk:
        chunk.load(weight_hh=weight_hh, left=lengths)
        chunk.move(len(da))
        for part in reversed(list(chunk.parts(len(da)))):
            count = part.stop - part.start
            after = slice(part.start + 1, part.stop + 1)
            chunk.queue.copy(chunk.slots("h", count), h[part])
            chunk.queue.copy(chunk.slots("dh_t", count), dh[after])
            chunk.run(count)
            chunk.queue.copy(dh[after], chunk.slots("dh_t", count))
            chunk.queue.copy(da[part], chunk.slots("da_t", count))
        chunk.receive(dh[0], chunk.dh, -1, chunk.nowhere[0], dh[0])
