"""Stacked layers, both directions, lengths and dropout around one recurrence: the body of RNN and LSTM.

for each layer:   both directions read the layer's input; their outputs stand side by side, dropout between layers
backward:         the same walk in reverse, each step undoing the one that it names
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import (
    check_array,
    check_bool,
    check_dtype,
    check_int,
    check_positive_int,
    check_probability,
    describe,
)
from scratchrnn.backends import memory
from scratchrnn.init import torch_default_
from scratchrnn.layers import direction, edge
from scratchrnn.layers.direction import GATES, Cell, Weights
from scratchrnn.layers.dropout import draw_mask
from scratchrnn.layers.module import Module
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import (
    DIRECTIONS,
    Gradients,
    Key,
    LayerGradients,
    LayerTrace,
    State,
    Trace,
    reverse_time,
    zero_padding,
)

RunForward = Callable[..., LayerTrace]  # direction.forward, or what stands in for it
RunBackward = Callable[..., tuple[FloatArray, LayerGradients, Weights]]  # direction.backward likewise


class Recurrent(Module):
    """What RNN and LSTM share; see those."""

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        num_layers: int,
        bias: bool,
        batch_first: bool,
        dropout: float,
        bidirectional: bool,
        proj_size: int,
        dtype: DTypeLike,
        backend: str | None,
        rng: Rng | None,
    ) -> None:
        self.cell = cell
        self.input_size = check_positive_int("input_size", input_size)
        self.hidden_size = check_positive_int("hidden_size", hidden_size)
        self.num_layers = check_positive_int("num_layers", num_layers)
        self.bias = check_bool("bias", bias)
        self.batch_first = check_bool("batch_first", batch_first)
        self.dropout = check_probability("dropout", dropout)
        self.bidirectional = check_bool("bidirectional", bidirectional)
        self.proj_size = check_int("proj_size", proj_size, least=0)
        if self.proj_size >= self.hidden_size:
            raise ValueError(f"proj_size: expected less than hidden_size={hidden_size}; got {proj_size}")
        if self.dropout > 0 and self.num_layers == 1:
            warnings.warn(
                f"dropout={dropout} has no effect with num_layers=1: it acts between layers",
                UserWarning,
                stacklevel=3,
            )
        self.backend = backends.check_backend(backend)
        self.rng = check_rng("rng", rng)
        self._keys = [(n, d) for n in range(self.num_layers) for d in DIRECTIONS[: self.num_directions]]
        self._allocate(self._shapes(), check_dtype("dtype", dtype))
        torch_default_(self.parameters, self.hidden_size, self.rng)

    @property
    def num_directions(self) -> int:
        """D."""
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Size of h, in one direction: proj_size if there is a projection, else hidden_size."""
        return self.proj_size or self.hidden_size

    @staticmethod
    def _suffix(key: Key) -> str:
        layer, side = key
        return f"_l{layer}" + ("_reverse" if side == "reverse" else "")

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        shapes: dict[str, tuple[int, ...]] = {}
        rows = GATES[self.cell.kind] * self.hidden_size
        for key in self._keys:
            suffix = self._suffix(key)
            inputs = self.input_size if key[0] == 0 else self.output_size * self.num_directions
            shapes[f"weight_ih{suffix}"] = (rows, inputs)
            shapes[f"weight_hh{suffix}"] = (rows, self.output_size)
            if self.bias:
                shapes[f"bias_ih{suffix}"] = shapes[f"bias_hh{suffix}"] = (rows,)
            if self.proj_size:
                shapes[f"weight_hr{suffix}"] = (self.proj_size, self.hidden_size)
        return shapes

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
        names += ["proj_size"] if self.cell.kind == "lstm" else []
        config = {name: getattr(self, name) for name in names} | {"dtype": self.dtype.name}
        return config | ({"nonlinearity": self.cell.nonlinearity} if self.cell.kind == "rnn" else {})

    # Into the layer and out of it

    def _state_shapes(self, batch: int, batched: bool) -> tuple[tuple[int, ...], ...]:
        sizes = (self.output_size, self.hidden_size) if self.cell.has_c else (self.output_size,)
        axes = (self.num_layers * self.num_directions, *([batch] if batched else []))
        return tuple((*axes, size) for size in sizes)

    def _enter_state(self, name: str, value: Any, batch: int, batched: bool) -> tuple[FloatArray | None, ...]:
        def why() -> str:
            text = f"for num_layers={self.num_layers}, " + ("bidirectional, " if self.bidirectional else "")
            text += (f"batch={batch}, " if batched else "no batch, ") + f"hidden={self.hidden_size}"
            return text + (f", proj={self.proj_size}" if self.proj_size else "")

        shapes = self._state_shapes(batch, batched)
        partial = name == "d_state"
        arrays = edge.enter_state(name, value, shapes=shapes, dtype=self.dtype, why=why, partial=partial)
        return arrays if batched else tuple(None if a is None else a[:, None] for a in arrays)

    def _view(
        self, x: Any, state: Any, lengths: Any
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, IntArray, bool]:
        """x (T, B, I) as the caller's own, h_0 (L·D, B, P), c_0 (L·D, B, H) of an LSTM, lengths (B,), batched."""
        self._check_parameters()
        xs, batched = edge.view_input(x, input_size=self.input_size, batch_first=self.batch_first, dtype=self.dtype)
        steps, batch, _ = xs.shape
        ns = edge.enter_lengths(lengths, steps=steps, batch=batch, batched=batched)
        h_0, c_0 = (*self._enter_state("state", state, batch, batched), None)[:2]
        if h_0 is None:
            shapes = self._state_shapes(batch, True)
            h_0 = np.zeros(shapes[0], self.dtype)
            c_0 = np.zeros(shapes[1], self.dtype) if self.cell.has_c else None
        return xs, h_0, c_0, ns, batched

    def _enter(
        self, x: Any, state: Any, lengths: Any, *, keep: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, IntArray, bool]:
        """The same with x as kernels read it, zero on padding.

        A copy if it is kept, since a trace must not change when the caller reuses a buffer.
        """
        xs, h_0, c_0, ns, batched = self._view(x, state, lengths)
        xs = memory.copy(xs) if keep or lengths is not None else edge.readable(xs)
        if lengths is not None:
            zero_padding(xs, ns)
        return xs, h_0, c_0, ns, batched

    # Inference

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def __call__(self, x: FloatArray, state: State | None = None, lengths: Any = None) -> tuple[FloatArray, State]:
        """Inference: (output, state) as torch.nn returns them in eval mode; keeps nothing.

        Parameters
        ----------
        x, state, lengths
            As in `forward`.

        Returns
        -------
        output : ndarray
            (T, B, D·P), or (B, T, D·P) with `batch_first`, or (T, D·P) without a batch; zero beyond a length.
        state : ndarray or tuple of two
            h_n, or (h_n, c_n), at each sequence's true end.
        """
        kernels = backends.load(self.backend)
        below, h_0, c_0, ns, batched = self._enter(x, state, lengths, keep=False)
        h_n = np.empty(h_0.shape, self.dtype)
        c_n = None if c_0 is None else np.empty(c_0.shape, self.dtype)
        outputs: list[FloatArray] = []
        for n, key in enumerate(self._keys):
            w = Weights.of(self.parameters, self._suffix(key))
            reverse = key[1] == "reverse"
            read = reverse_time(below, ns) if reverse else below
            c_start, c_end = (None, None) if c_0 is None or c_n is None else (c_0[n], c_n[n])
            output = direction.infer(kernels, self.cell, read, h_0[n], c_start, w, ns, h_n[n], c_end)
            outputs.append(reverse_time(output, ns) if reverse else output)
            if len(outputs) == self.num_directions:
                below = _side_by_side(outputs)
                outputs = []
        output = edge.leave_output(below, batch_first=self.batch_first, batched=batched)
        return output, edge.leave_state(h_n, c_n, batched=batched)

    # Forward with everything kept

    @np.errstate(all="ignore")
    def forward(
        self,
        x: FloatArray,
        state: State | None = None,
        lengths: Any = None,
        training: bool = True,
        rng: np.random.Generator | None = None,
        *,
        trace: str = "full",
    ) -> Trace:
        """Run the layer and keep everything.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with `batch_first`, or (T, I) without a batch
        state : ndarray, or (h_0, c_0) for the LSTM, optional
            h_0 (D·L, B, P) and c_0 (D·L, B, H), without the axis B if x has none; zeros when absent.
        lengths : sequence of int (B,), optional
            Steps of each sequence, in any order, each in 1..T; the rest of x is padding and never read.
        training : bool
            Whether dropout between layers acts. Nothing else depends on it.
        rng : numpy.random.Generator, optional
            For the dropout masks; when absent, the layer's own.
        trace : "full" or "minimal"
            "minimal" keeps the input, h and c only: gates and pre-activations are computed again at each access, and by
            backward a segment of about √T steps at a time. An LSTM's trace then takes less than half the memory, and
            `backward` keeps no dL/da_t. Every number that there is has the same bits.

        Returns
        -------
        Trace

        Raises
        ------
        ValueError, TypeError
            An argument of the wrong shape, dtype or range; the message names it.
        """
        run = partial(direction.forward, minimal=_is_minimal(trace))
        generator = self.rng if rng is None else check_rng("rng", rng)
        return self._forward(x, state, lengths, training, generator, self.state_dict, run)

    def _forward(
        self,
        x: Any,
        state: Any,
        lengths: Any,
        training: bool,
        rng: Rng,
        weights: Callable[[], dict[str, FloatArray]],  # asked once all arguments are known to be right; the trace's own
        run: RunForward,
    ) -> Trace:
        """`forward` with these weights, each layer and direction run by `run`."""
        kernels = backends.load(self.backend)
        check_bool("training", training)
        below, h_0, c_0, ns, batched = self._enter(x, state, lengths, keep=True)
        parameters = weights()
        layers: dict[Key, LayerTrace] = {}
        masks: list[FloatArray | None] = []
        for n, key in enumerate(self._keys):
            w = Weights.of(parameters, self._suffix(key))
            c_start = None if c_0 is None else c_0[n]
            layers[key] = run(kernels, self.cell, below, h_0[n], c_start, w, ns, reverse=key[1] == "reverse")
            if key[1] == DIRECTIONS[self.num_directions - 1]:
                traces = [layers[key[0], d] for d in DIRECTIONS[: self.num_directions]]
                below = _side_by_side([t.by_time(t.h[1:]) for t in traces])
                if key[0] < self.num_layers - 1:
                    drop = training and self.dropout > 0
                    masks.append(draw_mask(below.shape, self.dropout, self.dtype, rng) if drop else None)
                    below = below if masks[-1] is None else below * masks[-1]
        h_n = np.stack([t.at_end(t.h) for t in layers.values()])
        c_n = np.stack([t.at_end(t.c) for t in layers.values()]) if self.cell.has_c else None
        output = below if self.bidirectional else memory.copy(below)  # one direction's is a view of its h
        return Trace(
            edge.leave_output(output, batch_first=self.batch_first, batched=batched),
            edge.leave_state(h_n, c_n, batched=batched),
            layers,
            ns,
            parameters,
            tuple(masks),
            batched,
            self.batch_first,
            kernels.name,
            self.cell.name,
        )

    # Backward through time

    @np.errstate(all="ignore")
    def backward(
        self,
        trace: Trace,
        d_output: FloatArray | None = None,
        d_state: State | None = None,
        *,
        clip: float | None = None,
        cut: BoolArray | None = None,
        detach_h: BoolArray | None = None,
    ) -> Gradients:
        """Backpropagate through time, by hand.

        The gradient is taken where the trace was made: with its weights, its dropout masks, its backend, in training
        and in inference mode alike.

        Parameters
        ----------
        trace : Trace
            From this layer's `forward`.
        d_output : ndarray, optional
            dL/d(output), of the output's shape; what stands on padding is ignored. Absent: zero.
        d_state : ndarray, or (d_h_n, d_c_n) for the LSTM, optional
            dL/d(final state), of the state's shape; either of a pair may be None. Absent: zero.
        clip : float, optional
            Bound c > 0 of dL/da_t: each element is held to [-c, c] before anything follows from it, at every step
            (Graves 2013). dL/dc_t has no bound. Absent: none.
        cut : ndarray of bool (T, B), or (B, T) with `batch_first`, or (T,) without a batch, optional
            True: the step that reads x[t] of sample b sends nothing to the h and c before it, in its direction's own
            order, in every layer. What flows down through the layers stays. Time falls into pieces at the cuts, a call
            of the kernels each; sums over it round differently where one is not at a multiple of
            `backends.block_steps(B)`. Absent: nowhere.
        detach_h : ndarray of bool, of the shape of `cut`, optional
            For an LSTM. True: the gates of that step send nothing to the h before it, in its direction's own order, in
            every layer, as if they had read a constant; c, along f, gets its own (Arpit et al. 2018). Absent: nowhere.

        Returns
        -------
        Gradients
            Of the input, the initial state (per sample), every parameter, and every h_t, c_t and a_t; not of a_t where
            the trace is minimal. What clip, cut and detach_h change is no longer the gradient of a loss.

        References
        ----------
        Graves, Generating sequences with recurrent neural networks, arXiv:1308.0850, 2013, section 2.1. Arpit et al.,
        h-detach: modifying the LSTM gradient towards better optimization, arXiv:1810.03023, 2018.
        """
        self._check_trace(trace, Trace)
        return self._backward(trace, d_output, d_state, clip, cut, detach_h, direction.backward)

    def _backward(
        self, trace: Trace, d_output: Any, d_state: Any, clip: Any, cut: Any, detach_h: Any, run: RunBackward
    ) -> Gradients:
        """`backward`, each layer and direction run by `run`."""
        kernels = backends.load(trace.backend)
        batch = len(trace.lengths)
        bound, cuts = edge.enter_clip(clip, self.dtype), edge.enter_steps("cut", cut, trace)
        if detach_h is not None and not self.cell.has_c:
            raise ValueError(
                f"detach_h: expected None for an RNN, whose only path is h: cut stops that; got {describe(detach_h)}"
            )
        detached = edge.enter_steps("detach_h", detach_h, trace)
        above = self._enter_d_output(d_output, trace)
        d_h_n, d_c_n = (*self._enter_state("d_state", d_state, batch, trace.batched), None)[:2]

        layers: dict[Key, LayerGradients] = {}
        d_parameters: dict[str, FloatArray] = {}
        size = self.output_size
        for layer in reversed(range(self.num_layers)):
            mask = trace.dropout_masks[layer] if layer < self.num_layers - 1 else None
            if mask is not None and above is not None:
                above = above * mask  # undoes dropout
            d_below: FloatArray | None = None
            for d, side in enumerate(DIRECTIONS[: self.num_directions]):
                key, n = (layer, side), layer * self.num_directions + d
                dx, layers[key], dw = run(
                    kernels,
                    self.cell,
                    trace.layers[key],
                    Weights.of(trace.parameters, self._suffix(key)),
                    None if above is None else above[:, :, d * size : (d + 1) * size],  # undoes side by side
                    None if d_h_n is None else d_h_n[n],
                    None if d_c_n is None else d_c_n[n],
                    clip=bound,
                    cut=cuts,
                    detach_h=detached,
                )
                if d_below is None:
                    d_below = dx
                else:
                    d_below += dx  # undoes that both directions read one input
                d_parameters |= self._named(dw, key)
            above = d_below

        d_h_0 = np.stack([layers[key].h[0] for key in self._keys])
        d_c_0 = np.stack([layers[key].c[0] for key in self._keys]) if self.cell.has_c else None
        return Gradients(
            edge.leave_output(cast(FloatArray, above), batch_first=self.batch_first, batched=trace.batched),
            edge.leave_state(d_h_0, d_c_0, batched=trace.batched),
            {name: d_parameters[name] for name in self.parameters},
            {key: layers[key] for key in self._keys},
        )

    def _named(self, dw: Weights, key: Key) -> dict[str, FloatArray]:
        """Gradients of one direction's parameters, by their names."""
        named = {name + self._suffix(key): array for name, array in zip(dw._fields, dw, strict=True)}
        return {name: array for name, array in named.items() if name in self.parameters and array is not None}

    def _check_trace(self, trace: Any, kind: type[Trace]) -> None:
        """Raise unless it is of exactly this kind: a wrapper's trace was made by other arithmetic than the layer's."""
        if type(trace) is not kind:
            raise TypeError(f"trace: expected what forward of this layer returned; got {type(trace).__name__}")
        made_by = {name: array.shape for name, array in trace.parameters.items()}
        if trace.batch_first != self.batch_first:
            raise ValueError(f"trace: expected one of a layer with batch_first={self.batch_first}; got the other")
        if trace.cell != self.cell.name or made_by != self._parameter_shapes or trace[0].h.dtype != self.dtype:
            raise ValueError(f"trace: expected one of {self!r}; got one of a {trace.cell} with parameters {made_by}")

    def _enter_d_output(self, d_output: Any, trace: Trace) -> FloatArray | None:
        """d_output as (T, B, D·P); None when absent."""
        if d_output is None:
            return None
        d = check_array("d_output", d_output, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output")
        return edge.time_major(d, batch_first=self.batch_first, batched=trace.batched)


def _side_by_side(outputs: list[FloatArray]) -> FloatArray:
    """(T, B, P) of each direction to (T, B, D·P)."""
    return outputs[0] if len(outputs) == 1 else np.concatenate(outputs, axis=2)


def _is_minimal(trace: Any) -> bool:
    if not isinstance(trace, str) or trace not in ("full", "minimal"):
        raise ValueError(f"trace: expected 'full' or 'minimal'; got {trace!r}")
    return trace == "minimal"
