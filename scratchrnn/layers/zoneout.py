"""Zoneout: at each step, each unit of the state keeps its old value with some probability.

    B batch   T time   H hidden   P size of h

    h̃_t, c̃_t = cell(x_t, h_{t-1}, c_{t-1})                     the layer's own step                      (1)
    c_t = k^c_t ⊙ c_{t-1} + (1 - k^c_t) ⊙ c̃_t                 of an LSTM                                (2)
    h_t = k^h_t ⊙ h_{t-1} + (1 - k^h_t) ⊙ h̃_t                                                           (3)

    k    training: 1 with probability p, else 0, drawn for each step, sample and unit
         inference: p, its expected value

In an LSTM h̃_t = o_t ⊙ tanh(c̃_t) with the new cell c̃_t, not with the c_t of (2): the paper has, in section 3,
h_t = d^h_t ⊙ h_{t-1} + (1 - d^h_t) ⊙ (o_t ⊙ tanh(f_t ⊙ c_{t-1} + i_t ⊙ g_t)). So a unit whose cell was kept still
shows what it would have become.

(1) is one step of the layer's kernels, of any backend; (2) and (3) stand between two steps, so that no kernel can run
the whole sequence. Forward and backward together take 1.3 to 2 times the layer's own time from B = 20, H = 256 on;
below that a call for each step shows, 0.1 ms and more: 20 times the LSTM's own at B = 1, H = 64 (docs/regularizers.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_probability
from scratchrnn.backends import Kernels, arrays, memory
from scratchrnn.layers import direction
from scratchrnn.layers.direction import Cell, Recompute, Weights
from scratchrnn.layers.dropout import draw_hits
from scratchrnn.layers.factors import PerSample, right_sides
from scratchrnn.layers.stack import Recurrent
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.rng import Rng
from scratchrnn.trace import Gradients, LayerGradients, LayerTrace, State, Trace


@dataclass(frozen=True, eq=False)
class Mix:
    """Equation (2) or (3): how the states s_t, of h or of c, were mixed from old and new.

    Attributes
    ----------
    keep : ndarray (T, B, ·)
        k_t: 1 where a unit kept its value and 0 where not; in inference p everywhere.
    new : ndarray (T, B, ·)
        s̃_t.
    """

    keep: FloatArray
    new: FloatArray

    def apply(self, t: int, states: FloatArray, new: FloatArray) -> None:  # (T+1, B, ·), (B, ·)
        """Write s_t into its slot."""
        self.new[t] = new
        states[t + 1] = self.keep[t] * states[t] + (1 - self.keep[t]) * new

    def undo(self, t: int, states: FloatArray, d: FloatArray) -> tuple[FloatArray, FloatArray]:  # d (B, ·) dL/ds_t
        """The states before and after step t alone (2, B, ·), and their gradients: what was kept goes straight back."""
        keep = self.keep[t]
        return np.stack([states[t], self.new[t]]), np.stack([keep * d, (1 - keep) * d])


@dataclass(frozen=True, eq=False, repr=False)
class ZoneoutLayerTrace(LayerTrace):
    """A `LayerTrace` whose `h` and `c` are the states after zoneout; `a` and the gates are those of the layer's step.

    `a` is computed on access, many steps at once, so it has the numbers of forward up to rounding.

    Attributes
    ----------
    mix_h : Mix
        The masks and the new values of h, in the direction's own order of work.
    mix_c : Mix or None
        The same of c in an LSTM.
    """

    mix_h: Mix
    mix_c: Mix | None


class ZoneoutTrace(Trace):
    """What `Zoneout.forward` did: a `Trace` of `ZoneoutLayerTrace`, which hold the masks."""


class Zoneout(Wrapper):
    """Let each unit of h, and of c in an LSTM, keep its value from the step before with probability p_h, p_c.

    Every layer and direction has masks of its own. In inference each unit takes the expected mix of old and new. With
    p_h = p_c = 0 this is the layer itself.

    Parameters
    ----------
    layer : RNN or LSTM
    p_h : float
        Probability in [0, 1] that a unit of h keeps its value.
    p_c : float
        The same of c; 0 for an RNN, which has none. The paper takes p_h 0.05 and p_c 0.5 on characters.
    rng : numpy.random.Generator, optional
        Draws all masks of a forward pass, those between layers too. The layer's own when absent.

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type; the message names it.

    References
    ----------
    Krueger et al., Zoneout: regularizing RNNs by randomly preserving hidden activations, arXiv:1606.01305, 2016,
    section 3.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> zoneout = srnn.Zoneout(srnn.LSTM(3, 4, rng=rng), 0.05, 0.5, rng=rng)
    >>> trace = zoneout.forward(rng.standard_normal((7, 2, 3), np.float32))
    >>> kept = trace[0].mix_c.keep == 1
    >>> bool((trace.c[1:][kept] == trace.c[:-1][kept]).all())
    True
    >>> grads = zoneout.backward(trace, d_output=np.ones_like(trace.output))
    >>> grads.c.shape, grads.parameters["weight_hh_l0"].shape
    ((8, 2, 4), (16, 4))
    """

    p_h: float
    p_c: float

    def __init__(self, layer: Recurrent, p_h: float, p_c: float = 0.0, *, rng: Rng | None = None) -> None:
        super().__init__(layer, rng)
        self.p_h = check_probability("p_h", p_h)
        self.p_c = check_probability("p_c", p_c)
        if self.p_c and not layer.cell.has_c:
            raise ValueError(f"p_c: expected 0 for an RNN, which has no cell state; got {p_c}")

    def config(self) -> dict[str, Any]:
        """The wrapper's own arguments."""
        return {"p_h": self.p_h, "p_c": self.p_c}

    def __call__(self, x: FloatArray, state: State | None = None, lengths: Any = None) -> tuple[FloatArray, State]:
        """Inference: (output, state) with the expected values of the masks.

        Parameters
        ----------
        x, state, lengths
            As in a call of the layer.
        """
        trace = self.forward(x, state, lengths, training=False)
        return trace.output, trace.state

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def forward(
        self,
        x: FloatArray,
        state: State | None = None,
        lengths: Any = None,
        training: bool = True,
        rng: Rng | None = None,
    ) -> ZoneoutTrace:
        """Run the layer with zoneout and keep everything.

        Parameters
        ----------
        x, state, lengths
            As in the layer's `forward`.
        training : bool
            Whether masks are drawn, and dropout between layers acts; else units take the expected mix.
        rng : numpy.random.Generator, optional
            For all masks; when absent, the wrapper's own.
        """
        generator = self._generator(rng)
        p = _Probabilities(self.p_h, self.p_c, generator if training else None)
        run = partial(_forward, p=p)
        trace = self.layer._forward(x, state, lengths, training, generator, self.layer.state_dict, run)
        return ZoneoutTrace(**vars(trace))

    @np.errstate(all="ignore")
    def backward(
        self,
        trace: Any,
        d_output: FloatArray | None = None,
        d_state: State | None = None,
        *,
        clip: float | None = None,
        cut: BoolArray | None = None,
        detach_h: BoolArray | None = None,
        per_sample: bool = False,
    ) -> Gradients:
        """Backpropagate through time, through kept and new values alike.

        Parameters
        ----------
        trace : ZoneoutTrace
            From this wrapper's `forward`.
        d_output, d_state, clip, cut, detach_h, per_sample
            As in the layer's `backward`. A cut holds back what was kept, too; detach_h only what went through gates.

        Returns
        -------
        Gradients
            As the layer's; those of h and c per step are of the states after zoneout.
        """
        self.layer._check_trace(trace, ZoneoutTrace)
        return self.layer._backward(trace, d_output, d_state, clip, cut, detach_h, per_sample, _backward)


@dataclass(frozen=True)
class _Probabilities:
    h: float
    c: float
    rng: Rng | None  # None: expected values

    def start(self, p: float, initial: FloatArray, steps: int) -> tuple[FloatArray, Mix]:  # initial (B, ·)
        """Room for states (T+1, B, ·), the initial one in place, and how they will be mixed."""
        shape, dtype = (steps, *initial.shape), initial.dtype
        states = memory.empty((steps + 1, *initial.shape), dtype)
        states[0] = initial
        if self.rng is None or p in (0.0, 1.0):
            keep = np.broadcast_to(dtype.type(p), shape)
        else:
            keep = draw_hits(shape, p, self.rng).astype(dtype)
        return states, Mix(keep, memory.empty(shape, dtype))


def _forward(
    kernels: Kernels,
    cell: Cell,
    x: FloatArray,  # (T, B, I) in the input's order of time
    h_0: FloatArray,  # (B, P)
    c_0: FloatArray | None,  # (B, H) of an LSTM
    w: Weights,
    lengths: IntArray,  # (B,)
    *,
    reverse: bool,
    p: _Probabilities,
) -> ZoneoutLayerTrace:
    """One direction of one layer: `direction.forward` step by step, mixing after each."""
    if kernels.arrays.on_device:
        raise TypeError("x: expected a NumPy array, since zoneout mixes states on the host; got one on a CUDA device")
    steps, batch, _ = x.shape
    read = arrays.reverse_time(x, lengths) if reverse else x
    h, mix_h = p.start(p.h, h_0, steps)
    c, mix_c = (None, None) if c_0 is None else p.start(p.c, c_0, steps)
    gates = None if c is None else memory.empty((steps, batch, w.weight_ih.shape[0]), x.dtype)
    for t in range(steps):
        part = slice(t, t + 1)
        running, c_prev = direction.lengths_in(lengths, part), None if c is None else c[t]
        step = direction.forward(kernels, cell, read[part], h[t], c_prev, w, running)  # (1)
        if c is not None and mix_c is not None and gates is not None:
            gates[t] = step.gates[0]
            mix_c.apply(t, c, step.c[1])  # (2)
        mix_h.apply(t, h, step.h[1])  # (3)
    for states in (h,) if c is None else (h, c):
        arrays.zero_padding(states[1:], lengths)
    again = Recompute(kernels.name, cell, w)
    return ZoneoutLayerTrace(h, x, lengths, reverse, False, c, gates, again, mix_h, mix_c)


def _backward(
    kernels: Kernels,
    cell: Cell,
    trace: ZoneoutLayerTrace,
    w: Weights,
    d_output: FloatArray | None,  # (T, B, P) in the input's order of time; None: zero
    d_h_n: FloatArray | None,  # (B, P)
    d_c_n: FloatArray | None,  # (B, H)
    *,
    clip: float,  # bound of each |dL/da_t|; inf: none
    cut: BoolArray | None,  # (T, B) in the input's order of time; None: nowhere
    detach_h: BoolArray | None,  # (T, B) likewise
    per_sample: PerSample | None = None,  # added to
) -> tuple[FloatArray, LayerGradients, Weights]:  # dx (T, B, I) in the input's order; per step; per parameter
    """The gradient of everything that `_forward` computed or read, last step first."""
    (steps, batch, _), lengths = trace.input.shape, trace.lengths
    read = trace.by_time(trace.input)  # into the direction's order of work: turning round is its own inverse
    d_output = None if d_output is None else trace.by_time(d_output)
    cut, detach_h = direction.in_order_of_work(trace, cut), direction.in_order_of_work(trace, detach_h)
    dh, dc = direction.cotangents(trace, d_output, d_h_n, d_c_n, lengths)
    dx, dw = memory.empty(trace.input.shape, dh.dtype), w.zeros()
    da = memory.empty((steps, batch, w.weight_ih.shape[0]), dh.dtype)
    for t in reversed(range(steps)):
        part = slice(t, t + 1)
        h_pair, dh_pair = trace.mix_h.undo(t, trace.h, dh[t + 1])  # undoes (3)
        c_pair = dc_pair = gates = None
        if dc is not None and trace.mix_c is not None:
            c_pair, dc_pair = trace.mix_c.undo(t, trace.c, dc[t + 1])  # undoes (2)
            gates = trace.gates[part]
        direction.backward_kernel(
            kernels, cell, w, read[part], direction.lengths_in(lengths, part), h_pair, c_pair, gates, dh_pair, dc_pair,
            da[part], dx[part], dw, clip, None if detach_h is None else detach_h[part],
        )  # undoes (1)  # fmt: skip
        for d, pair in ((dh, dh_pair), (dc, dc_pair)):
            if d is not None and pair is not None:
                d[t] += pair[0] if cut is None else np.where(cut[t][:, None], 0, pair[0])
    if per_sample is not None:
        m = None
        if w.weight_hr is not None and trace.mix_c is not None:
            m = trace.o * np.tanh(trace.mix_c.new)
        d_new = (1 - trace.mix_h.keep) * dh[1:]  # undoes (3): what the layer's own h̃ gets
        per_sample.add(right_sides(read, trace.h, m), da, d_new, lengths)
    return trace.by_time(dx), LayerGradients(dh, da, dc), dw
