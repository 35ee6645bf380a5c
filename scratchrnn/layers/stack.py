"""Stacked layers, both directions, lengths and dropout around one recurrence: the body of RNN and LSTM.

Arguments are checked and laid out here, and results handed out; `walk.py` goes over the layers and directions.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import (
    check_bool,
    check_dtype,
    check_int,
    check_positive_int,
    check_probability,
    describe,
)
from scratchrnn.backends import arrays as host
from scratchrnn.init import torch_default_
from scratchrnn.layers import direction, edge, walk
from scratchrnn.layers.direction import GATES, Cell
from scratchrnn.layers.dropout import draw_mask
from scratchrnn.layers.module import Module
from scratchrnn.layers.plan import Plan
from scratchrnn.layers.walk import RunBackward, RunForward
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State, Trace


class Recurrent(Plan, Module):
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
        self._allocate(self._shapes(), check_dtype("dtype", dtype))
        torch_default_(self.parameters, self.hidden_size, self.rng)

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

    def _enter_state(
        self, name: str, value: Any, batch: int, batched: bool, arrays: Any = host, slot: str | None = None
    ) -> tuple[FloatArray | None, ...]:
        def why() -> str:
            text = f"for num_layers={self.num_layers}, " + ("bidirectional, " if self.bidirectional else "")
            text += (f"batch={batch}, " if batched else "no batch, ") + f"hidden={self.hidden_size}"
            return text + (f", proj={self.proj_size}" if self.proj_size else "")

        shapes = self._state_shapes(batch, batched)
        partial = name != "state"
        entered = edge.enter_state(
            name, value, shapes=shapes, dtype=self.dtype, why=why, partial=partial, slot=slot, arrays=arrays
        )
        return entered if batched else tuple(None if a is None else arrays.batch_inside(a) for a in entered)

    def _view(
        self, x: Any, state: Any, lengths: Any, arrays: Any = host
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, IntArray, bool]:
        """x (T, B, I) as the caller's own, h_0 (L·D, B, P), c_0 (L·D, B, H) of an LSTM, lengths (B,), batched."""
        self._check_parameters()
        xs, batched = edge.view_input(
            x, input_size=self.input_size, batch_first=self.batch_first, dtype=self.dtype, arrays=arrays
        )
        steps, batch, _ = xs.shape
        ns = edge.enter_lengths(lengths, steps=steps, batch=batch, batched=batched)
        h_0, c_0 = (*self._enter_state("state", state, batch, batched, arrays), None)[:2]
        if h_0 is None:
            shapes = self._state_shapes(batch, True)
            h_0 = arrays.zeros(shapes[0], self.dtype)
            c_0 = arrays.zeros(shapes[1], self.dtype) if self.cell.has_c else None
        return xs, h_0, c_0, ns, batched

    def _enter(
        self, x: Any, state: Any, lengths: Any, arrays: Any, *, keep: bool
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, IntArray, bool]:
        """The same with x as kernels read it, zero on padding.

        A copy if it is kept, since a trace must not change when the caller reuses a buffer.
        """
        xs, h_0, c_0, ns, batched = self._view(x, state, lengths, arrays)
        xs = arrays.copy(xs) if keep or lengths is not None else edge.readable(xs)
        if lengths is not None:
            arrays.zero_padding(xs, ns)
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
        with backends.placed(backends.load(self.backend), "x", x) as kernels:
            arrays = kernels.arrays
            xs, h_0, c_0, ns, batched = self._enter(x, state, lengths, arrays, keep=False)
            output, h_n, c_n = walk.infer(self, kernels, xs, h_0, c_0, ns, walk.uploaded(arrays, self.parameters))
            output = edge.leave_output(output, batch_first=self.batch_first, batched=batched, arrays=arrays)
            return output, edge.leave_state(h_n, c_n, batched=batched, arrays=arrays)

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
            Or, here and below, what has `__array__`, `__array_interface__` or, on the CPU, `__dlpack__`, as torch's
            tensors: seen as NumPy's where it lies, if its owner allows.
            Or with backend "cuda" an array on a CUDA device, C-contiguous: torch's, cupy's, whatever has
            `__cuda_array_interface__`. Then state is there too, and so is all that comes out, of `backward` as well, as
            Numba's device arrays on the stream that x's owner is using; `torch.as_tensor` takes them without a copy.
            Only weights, lengths and masks are moved. Given NumPy's x, that backend moves arrays for each call of a
            kernel.
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
        run = partial(direction.forward, minimal=edge.is_minimal(trace))
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
        with backends.placed(backends.load(self.backend), "x", x) as kernels:
            check_bool("training", training)
            arrays = kernels.arrays
            draw = partial(draw_mask, p=self.dropout, dtype=self.dtype, rng=rng) if training and self.dropout else None
            xs, h_0, c_0, ns, batched = self._enter(x, state, lengths, arrays, keep=True)
            parameters = walk.uploaded(arrays, weights())
            ran = walk.forward(self, kernels, xs, h_0, c_0, ns, parameters, draw, run)
            return Trace(
                edge.leave_output(ran.output, batch_first=self.batch_first, batched=batched, arrays=arrays),
                edge.leave_state(ran.h_n, ran.c_n, batched=batched, arrays=arrays),
                ran.layers,
                ns,
                parameters,
                ran.masks,
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
        per_sample: bool = False,
    ) -> Gradients:
        """Backpropagate through time, by hand.

        The gradient is taken where the trace was made: with its weights, its dropout masks, its backend, in training
        and in inference mode alike.

        Parameters
        ----------
        trace : Trace
            From this layer's `forward`.
        d_output : ndarray, optional
            dL/d(output), of the output's shape; what stands on padding is ignored. Absent: zero. On the device where
            the trace is.
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
        per_sample : bool
            Whether `Gradients.per_sample` holds beside each parameter's gradient what each sample alone adds to it:
            arrays (B, ...), so B times the memory of the parameters; B = 1 without a batch axis. Not for arrays on a
            device.

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
        return self._backward(trace, d_output, d_state, clip, cut, detach_h, per_sample, direction.backward)

    def _backward(
        self,
        trace: Trace,
        d_output: Any,
        d_state: Any,
        clip: Any,
        cut: Any,
        detach_h: Any,
        per_sample: Any,
        run: RunBackward,
    ) -> Gradients:
        """`backward`, each layer and direction run by `run`."""
        check_bool("per_sample", per_sample)
        with backends.placed(backends.load(trace.backend), *edge.lead(trace, d_output, d_state)) as kernels:
            arrays, batch = kernels.arrays, len(trace.lengths)
            if per_sample and arrays.on_device:
                raise ValueError("per_sample: expected False for a trace on a CUDA device; got True")
            arrays.take(trace.layers[self._keys[0]].h)  # forward may have been on another stream
            bound, cuts = edge.enter_clip(clip, self.dtype), edge.enter_steps("cut", cut, trace)
            if detach_h is not None and not self.cell.has_c:
                raise ValueError(
                    "detach_h: expected None for an RNN, whose only path is h: cut stops that; got "
                    f"{describe(detach_h)}"
                )
            detached = edge.enter_steps("detach_h", detach_h, trace)
            above = self._enter_d_output(d_output, trace, arrays)
            d_h_n, d_c_n = (*self._enter_state("d_state", d_state, batch, trace.batched, arrays), None)[:2]
            back = walk.backward(
                self, kernels, trace, above, d_h_n, d_c_n, bound, cuts, detached, run, per_sample=per_sample
            )
            return Gradients(
                edge.leave_output(back.dx, batch_first=self.batch_first, batched=trace.batched, arrays=arrays),
                edge.leave_state(back.d_h_0, back.d_c_0, batched=trace.batched, arrays=arrays),
                back.parameters,
                back.layers,
                per_sample=back.per_sample,
            )

    def _check_trace(self, trace: Any, kind: type[Trace]) -> None:
        """Raise unless it is of exactly this kind: a wrapper's trace was made by other arithmetic than the layer's."""
        if type(trace) is not kind:
            raise TypeError(f"trace: expected what forward of this layer returned; got {type(trace).__name__}")
        made_by = {name: array.shape for name, array in trace.parameters.items()}
        if trace.batch_first != self.batch_first:
            raise ValueError(f"trace: expected one of a layer with batch_first={self.batch_first}; got the other")
        if trace.cell != self.cell.name or made_by != self._parameter_shapes or trace[0].h.dtype != self.dtype:
            raise ValueError(f"trace: expected one of {self!r}; got one of a {trace.cell} with parameters {made_by}")

    def _enter_d_output(self, d_output: Any, trace: Trace, arrays: Any = host) -> FloatArray | None:
        """d_output as (T, B, D·P); None when absent."""
        if d_output is None:
            return None
        d = edge.enter_array(
            "d_output", d_output, arrays, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output"
        )
        return edge.time_major(d, batch_first=self.batch_first, batched=trace.batched, arrays=arrays)
