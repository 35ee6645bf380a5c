"""Whose gradient: what the loss at one step adds to the gradient at another.

    B batch   T time   I input   H hidden   P size of h   L layers

    L = Σ_t L_t        each loss L_t reads the output at step t alone
    G[t, k] = dL_t/dh_k           for k ≤ t; the same of c_k and x_k                       (1)
    dL/dh_k = Σ_t G[t, k]         the gradient that backward returns, itemised             (2)

Backward is linear in what enters it, so splitting d_output by t splits every gradient, exactly. All losses go back at
once: L_t never sees what comes after step t, so to it the sequence ends there. The T prefixes of each sequence form a
batch of T·B, each with its loss at its own last step, and one backward pass over that batch yields G.

Norms of parts do not add up to the norm of the sum. What does is each part's component along the whole,

    along[t, k] = ⟨G[t, k], u_k⟩    u_k = dL/dh_k / ‖dL/dh_k‖    Σ_t along[t, k] = ‖dL/dh_k‖       (3)

negative where a loss pulls against the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, check_positive_int, describe, take_array
from scratchrnn.backends import arrays
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.per_step import factors, product_norms, triangles
from scratchrnn.layers import edge
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import Gradients, LayerTrace, Trace

# the T losses go back in at least this many groups: prefixes of like length waste little room on padding
GROUPS = 8


@dataclass(frozen=True, eq=False)
class ItemVectors:
    """The gradients themselves, of one sample: [..., t, k] is what the loss at t adds to the gradient at step k.

    Sums over t are what backward returns. All of the layer's dtype, zero for k > t.

    Attributes
    ----------
    input : ndarray (T, T, I)
        dL_t/dx_k.
    h : ndarray (L, T, T, P)
        Total dL_t/dh_k of each layer's state after step k.
    c : ndarray (L, T, T, H) or None
        Total dL_t/dc_k of an LSTM.
    a : ndarray (L, T, T, G·H)
        dL_t/da_k: the loss at t adds a[l, t, k] ⊗ h_{k-1} to the gradient of W_hh.
    h_0 : ndarray (L, T, P)
        dL_t/dh_0, of the initial state.
    c_0 : ndarray (L, T, H) or None
    """

    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    a: FloatArray
    h_0: FloatArray
    c_0: FloatArray | None


@dataclass(frozen=True, eq=False)
class Itemized:
    """Result of `itemized`: [t, k] is what the loss at step t adds to the gradient at step k; zero for k > t.

    Norms are float64, and zero where t or k lies on padding.

    Attributes
    ----------
    input : ndarray (T, T, B)
        ‖dL_t/dx_k‖.
    h : ndarray (L, T, T, B)
        ‖dL_t/dh_k‖ of each layer, in total over all paths; h_k is the state after step k.
    c : ndarray (L, T, T, B) or None
        ‖dL_t/dc_k‖ of an LSTM.
    along : ndarray (L, T, T, B)
        The component of dL_t/dh_k along the whole dL/dh_k: these do add up, over t to ‖dL/dh_k‖. Zero where that is.
    weights : mapping of name to ndarray (T, T)
        Frobenius norm of what the loss at t adds at step k to a parameter's gradient, over all samples.
    lengths : ndarray (B,) of int
        Steps of each sequence.
    vectors : ItemVectors or None
        Of the sample that was asked for.
    """

    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    along: FloatArray
    weights: Mapping[str, FloatArray]
    lengths: IntArray
    vectors: ItemVectors | None

    def share_beyond(self, reach: int | None = None, *, layer: int = -1) -> FloatArray:
        """Share of the gradient of h that comes from losses more than d steps later, for d = 0 to `reach`.

            share[d] = Σ_k Σ_{t > k+d} along[t, k] / Σ_k ‖dL/dh_k‖

        over the steps k that have at least `reach` steps after them, of all sequences. So it is 1 less what a loss adds
        to the gradient at its own step for d = 0, and falls as d grows, unless losses pull against each other.

        Parameters
        ----------
        reach : int, optional
            0 to the longest length less 1. When absent, half of the shortest length.
        layer : int
            From 0; the last when absent.

        Returns
        -------
        ndarray (reach + 1,), float64
            NaN where no gradient is left to share.
        """
        most = int(self.lengths.max()) - 1
        reach = int(self.lengths.min()) // 2 if reach is None else check_int("reach", reach, least=0, most=most)
        layers = len(self.along)
        along = self.along[check_int("layer", layer, least=-layers, most=layers - 1)]  # (T, T, B)
        steps = len(along)
        counted = np.arange(steps) < self.lengths[:, None] - reach  # (B, T)
        by_distance = np.array(  # d = t - k
            [np.diagonal(along, -d, 0, 1).sum(where=counted[:, : steps - d]) for d in range(steps)]
        )
        from_there_on = np.cumsum(by_distance[::-1])[::-1]
        with np.errstate(all="ignore"):
            return np.append(from_there_on[1:], 0.0)[: reach + 1] / from_there_on[0]


def itemized(
    layer: Recurrent,
    trace: Trace,
    d_output: FloatArray,
    *,
    sample: int | None = None,
    memory: int = 2**28,
) -> Itemized:
    """Split every gradient by the loss that it comes from, on the data that `trace` was made from.

    Parameters
    ----------
    layer : RNN or LSTM
        In one direction, of any number of layers.
    trace : Trace
        From this layer's `forward`, in training or inference mode.
    d_output : ndarray
        dL/d(output), of the output's shape and dtype: row t is the gradient of L_t. What stands on padding is ignored.
    sample : int, optional
        Whose gradients to return themselves, as `vectors`: T² vectors of each kind. None when absent.
    memory : int
        Bytes that the losses that go back together may take, beside the result; at least one loss does at a time. The
        result takes 8 T² (3 L + 1) B bytes for an LSTM, and 8 T² for each parameter.

    Returns
    -------
    Itemized

    Raises
    ------
    ValueError
        A bidirectional layer, since its reverse direction carries each loss to later steps as well; a wrong shape; a
        batch of 0; a number out of range.
    TypeError
        Not a layer, not a trace, or a wrong dtype.

    Notes
    -----
    The work grows with T²: a backward pass over (T+1)/2 times the steps of the usual one.

    References
    ----------
    Cashman, Patterson, Mosca, Watts, Robinson, Chang, RNNbow: visualizing learning via backpropagation gradients in
    recurrent neural networks, arXiv:1907.12545, 2019.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((6, 2, 3)))
    >>> d_output = rng.standard_normal((6, 2, 4))
    >>> items = itemized(lstm, trace, d_output, sample=1)
    >>> items.h.shape, items.weights["weight_hh_l0"].shape
    ((1, 6, 6, 2), (6, 6))
    >>> np.allclose(items.vectors.h[0].sum(axis=0), lstm.backward(trace, d_output).h[1:, 1])
    True
    """
    d = _check(layer, trace, d_output)  # (T, B, P)
    steps, batch, _ = d.shape
    if sample is not None:
        sample = check_int("sample", sample, least=0, most=batch - 1)
    memory = check_positive_int("memory", memory)

    result = _Result(trace, layer.backward(trace, d_output), sample)
    gates = [trace[n].gates if layer.cell.has_c else None for n in range(layer.num_layers)]
    at_once = max(1, min(-(-steps // GROUPS), memory // _bytes_per_loss(trace)))
    for first in range(0, steps, at_once):
        losses = slice(first, min(first + at_once, steps))
        d_h_n = np.zeros((layer.num_layers, (losses.stop - first) * batch, layer.output_size), layer.dtype)
        d_h_n[-1] = d[losses].reshape(d_h_n.shape[1:])
        d_state: Any = (d_h_n, None) if layer.cell.has_c else d_h_n
        result.put(losses, layer.backward(_prefixes(trace, gates, losses), d_state=d_state))
    return result.itemized()


class _Result:
    """The arrays of `Itemized`, written group by group."""

    def __init__(self, trace: Trace, whole: Gradients, sample: int | None) -> None:
        parts = [trace[n] for n in range(len(trace.layers))]
        (steps, batch, inputs), dtype, layers = parts[0].input.shape, parts[0].h.dtype, len(parts)
        self.trace, self.sample, self.has_c = trace, sample, trace.cell == "lstm"
        self.triangles = [(one, triangles(one)) for one in factors(trace)]
        with np.errstate(all="ignore"):
            self.units = [_unit(whole[n].h[1:]) for n in range(layers)]  # u_k of (3), (T, B, P) each

        self.input = np.zeros((steps, steps, batch))
        self.h, self.along = np.zeros((2, layers, *self.input.shape))
        self.c = np.zeros_like(self.h) if self.has_c else None
        self.weights = {one.name: np.zeros((steps, steps)) for one, _ in self.triangles}
        self.vectors: ItemVectors | None = None
        if sample is not None:
            each, size, rows = (layers, steps, steps), parts[0].h.shape[2], len(trace.parameters["weight_ih_l0"])
            hidden = rows // 4 if self.has_c else rows
            self.vectors = ItemVectors(
                input=np.zeros((steps, steps, inputs), dtype),
                h=np.zeros((*each, size), dtype),
                c=np.zeros((*each, hidden), dtype) if self.has_c else None,
                a=np.zeros((*each, rows), dtype),
                h_0=np.zeros((layers, steps, size), dtype),
                c_0=np.zeros((layers, steps, hidden), dtype) if self.has_c else None,
            )

    def put(self, losses: slice, grads: Gradients) -> None:
        """Enter what these losses add, from the backward pass of their prefixes."""
        into = losses, slice(losses.stop)
        count, batch = losses.stop - losses.start, len(self.trace.lengths)
        past = np.arange(losses.stop) <= np.arange(losses.start, losses.stop)[:, None]  # k ≤ t

        def split(d: FloatArray) -> FloatArray:  # (T', n·B, ·) to (n, T', B, ·)
            return d.reshape(len(d), count, batch, -1).swapaxes(0, 1)

        dx = split(edge.time_major(cast(FloatArray, grads.input), batch_first=self.trace.batch_first, batched=True))
        self.input[into] = row_norms(dx)
        for n, unit in enumerate(self.units):
            dh = split(grads[n].h[1:])
            self.h[n][into] = row_norms(dh)
            with np.errstate(all="ignore"):
                along = np.einsum("tkbp,kbp->tkb", dh, unit[: losses.stop])  # (3)
            self.along[n][into] = np.where(past[:, :, None], along, 0.0)
            if self.c is not None:
                self.c[n][into] = row_norms(split(grads[n].c[1:]))
        for one, triangle in self.triangles:
            left = one.left(grads[one.key]).reshape(losses.stop, count, batch, -1)
            self.weights[one.name][into] = np.where(past, product_norms(left, triangle[: losses.stop]).T, 0.0)
        if self.vectors is None:
            return
        own = slice(self.sample, None, batch)  # this sample's prefixes
        self.vectors.input[into] = dx[:, :, self.sample]
        for n in range(len(self.units)):
            d = grads[n]
            self.vectors.h[n][into] = split(d.h[1:])[:, :, self.sample]
            self.vectors.a[n][into] = split(d.a)[:, :, self.sample]
            self.vectors.h_0[n, losses] = d.h[0, own]
            if self.vectors.c is not None and self.vectors.c_0 is not None:
                self.vectors.c[n][into] = split(d.c[1:])[:, :, self.sample]
                self.vectors.c_0[n, losses] = d.c[0, own]

    def itemized(self) -> Itemized:
        """What was entered."""
        return Itemized(self.input, self.h, self.c, self.along, self.weights, self.trace.lengths, self.vectors)


def _check(layer: Any, trace: Any, d_output: Any) -> FloatArray:
    """d_output as (T, B, P), once all three are known to be right."""
    if not isinstance(layer, Recurrent):
        raise TypeError(f"layer: expected an RNN or LSTM layer; got {describe(layer)}")
    if layer.bidirectional:
        raise ValueError(
            "layer: expected one direction; got bidirectional=True. The reverse direction carries each loss to later "
            "steps too, so that no loss belongs to a prefix: itemise a layer of one direction"
        )
    layer._check_trace(trace, Trace)
    if not len(trace.lengths):
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    why = "of the trace's output"
    d_output = take_array("d_output", d_output, shape=trace.output.shape, dtype=layer.dtype, why=why)
    return edge.time_major(d_output, batch_first=layer.batch_first, batched=trace.batched)


def _prefixes(
    trace: Trace,
    gates: Sequence[FloatArray | None],  # (T, B, 4H) of each layer of an LSTM
    losses: slice,
) -> Trace:
    """Every sequence as far as step t, for each of these t: n·B of them, as if forward had read no more."""
    ends = np.arange(losses.start, losses.stop)[:, None]
    lengths = np.where(ends < trace.lengths, ends + 1, 0).ravel()  # no prefix for a loss on padding
    count = len(ends)

    def copies(array: FloatArray | None, initial: int = 0) -> Any:  # (T, B, ·) to (T', n·B, ·), and slots likewise
        if array is None:
            return None
        repeated = np.tile(array[: losses.stop + initial], (1, count, 1))
        arrays.zero_padding(repeated[initial:], lengths)
        return repeated

    layers = {}
    for (key, one), g in zip(trace.layers.items(), gates, strict=True):
        h, c = copies(one.h, initial=1), copies(one._c, initial=1)
        layers[key] = LayerTrace(h, copies(one.input), lengths, False, False, c, copies(g), one._recompute)
    output = edge.leave_output(layers[len(gates) - 1, "forward"].h[1:], batch_first=trace.batch_first, batched=True)
    masks = tuple(map(copies, trace.dropout_masks))
    return replace(trace, output=output, layers=layers, lengths=lengths, dropout_masks=masks, batched=True)


def _unit(d: FloatArray) -> FloatArray:
    """d / ‖d‖ over the last axis, in float64; zero where d is."""
    size = row_norms(d)[..., None]
    return d / np.where(size == 0, 1.0, size)


def _bytes_per_loss(trace: Trace) -> int:
    """Bytes that a loss at the last step takes: a copy of what forward kept, its gradient, products in float64."""
    per_step = 0
    for n in range(len(trace.layers)):
        part, rows = trace[n], len(trace.parameters[f"weight_ih_l{n}"])
        states = part.h.shape[2] + (part.c.shape[2] if trace.cell == "lstm" else 0)
        per_step += 2 * part.h.itemsize * (part.input.shape[2] + states + rows) + 8 * 3 * rows
    return per_step * (len(trace[0].input) + 1) * len(trace.lengths)
