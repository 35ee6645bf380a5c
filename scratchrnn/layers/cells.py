"""RNNCell and LSTMCell: one step, with the names and shapes of torch.nn.RNNCell and torch.nn.LSTMCell."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_dtype, check_positive_int, take_array
from scratchrnn.backends import memory
from scratchrnn.init import torch_default_
from scratchrnn.layers import direction, edge
from scratchrnn.layers.direction import GATES, Cell, Weights, check_nonlinearity
from scratchrnn.layers.module import Module
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State, Trace


class RecurrentCell(Module):
    """What RNNCell and LSTMCell share: a recurrent layer's direction over a single time step."""

    def __init__(
        self,
        cell: Cell,
        input_size: int,
        hidden_size: int,
        bias: bool,
        dtype: DTypeLike,
        backend: str | None,
        rng: Rng | None,
    ) -> None:
        self.cell = cell
        self.input_size = check_positive_int("input_size", input_size)
        self.hidden_size = check_positive_int("hidden_size", hidden_size)
        self.bias = check_bool("bias", bias)
        self.backend = backends.check_backend(backend)
        rows = GATES[cell.kind] * self.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            "weight_ih": (rows, self.input_size),
            "weight_hh": (rows, self.hidden_size),
        }
        if bias:
            shapes["bias_ih"] = shapes["bias_hh"] = (rows,)
        self._allocate(shapes, check_dtype("dtype", dtype))
        torch_default_(self.parameters, self.hidden_size, check_rng("rng", rng))

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        config = {name: getattr(self, name) for name in ("input_size", "hidden_size", "bias")}
        config["dtype"] = self.dtype.name
        return config | ({"nonlinearity": self.cell.nonlinearity} if self.cell.kind == "rnn" else {})

    def _enter_state(self, name: str, value: Any, batch: int, batched: bool) -> tuple[FloatArray | None, ...]:
        shape = (batch, self.hidden_size) if batched else (self.hidden_size,)
        shapes = (shape,) * (2 if self.cell.has_c else 1)

        def why() -> str:
            return (f"for batch={batch}, " if batched else "for no batch, ") + f"hidden={self.hidden_size}"

        partial = name == "d_state"
        arrays = edge.enter_state(name, value, shapes=shapes, dtype=self.dtype, why=why, partial=partial)
        return arrays if batched else tuple(None if a is None else a[None] for a in arrays)

    def _enter(self, x: Any, state: Any, *, keep: bool) -> tuple[FloatArray, FloatArray, FloatArray | None, bool]:
        """x (1, B, I), a copy if it is kept; h (B, H), c (B, H) of an LSTM, batched."""
        x = take_array("x", x, dtype=self.dtype)
        if x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            raise ValueError(
                f"x: expected shape (batch, input_size) or (input_size,) with input_size={self.input_size}; "
                f"got {x.shape}"
            )
        batched = x.ndim == 2
        self._check_parameters()
        xs = x[None] if batched else x[None, None]
        xs = memory.copy(xs) if keep else edge.readable(xs)
        batch = xs.shape[1]
        h, c = (*self._enter_state("state", state, batch, batched), None)[:2]
        if h is None:
            h = np.zeros((batch, self.hidden_size), self.dtype)
            c = h if self.cell.has_c else None
        return xs, h, c, batched

    def _leave_state(self, h: FloatArray, c: FloatArray | None, batched: bool) -> State:
        h = h if batched else h[0]
        if c is None:
            return h
        return h, (c if batched else c[0])

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def __call__(self, x: FloatArray, state: State | None = None) -> State:
        """Inference: the next state, as torch.nn returns it; keeps nothing.

        Parameters
        ----------
        x : ndarray (B, I) or (I,)
        state : ndarray, or (h, c) for the LSTM, optional
            (B, H) or (H,) each; zeros when absent.

        Returns
        -------
        h' or (h', c'), of the state's shapes.
        """
        xs, h, c, batched = self._enter(x, state, keep=False)
        w = Weights.of(self.parameters, "")
        ones = np.ones(xs.shape[1], np.int64)
        h_n, c_n = np.empty_like(h), (None if c is None else np.empty_like(c))
        direction.infer(backends.load(self.backend), self.cell, xs, h, c, w, ones, h_n, c_n)
        return self._leave_state(h_n, c_n, batched)

    @np.errstate(all="ignore")
    def forward(self, x: FloatArray, state: State | None = None) -> Trace:
        """One step, keeping everything: `trace.output` is h', `trace.state` the next state, `trace.i` a gate (1, B, H).

        Arguments as in a call; the trace is a recurrent layer's, with T = 1.
        """
        kernels = backends.load(self.backend)
        xs, h, c, batched = self._enter(x, state, keep=True)
        parameters = self.state_dict()
        ones = np.ones(xs.shape[1], np.int64)
        t = direction.forward(kernels, self.cell, xs, h, c, Weights.of(parameters, ""), ones)
        state = self._leave_state(t.h[1].copy(), t.c[1].copy() if self.cell.has_c else None, batched)
        output = (t.h[1] if batched else t.h[1, 0]).copy()
        return Trace(
            output, state, {(0, "forward"): t}, ones, parameters, (), batched, False, kernels.name, self.cell.name
        )

    @np.errstate(all="ignore")
    def backward(self, trace: Trace, d_output: FloatArray | None = None, d_state: State | None = None) -> Gradients:
        """One step back.

        Parameters
        ----------
        trace : Trace
            From this cell's `forward`.
        d_output : ndarray, optional
            dL/dh' as output, (B, H) or (H,). It adds to the one in `d_state`.
        d_state : ndarray, or (d_h', d_c') for the LSTM, optional
            Either of a pair may be None.
        """
        if not isinstance(trace, Trace):
            raise TypeError(f"trace: expected what forward of this cell returned; got {type(trace).__name__}")
        made_by = {name: array.shape for name, array in trace.parameters.items()}
        shapes = {name: array.shape for name, array in self.parameters.items()}
        if trace.cell != self.cell.name or made_by != shapes or trace[0].h.dtype != self.dtype:
            raise ValueError(f"trace: expected one of {self!r}; got one of a {trace.cell} with parameters {made_by}")
        batch, batched = len(trace.lengths), trace.batched
        d_h, d_c = (*self._enter_state("d_state", d_state, batch, batched), None)[:2]
        above = None
        if d_output is not None:
            d_output = take_array(
                "d_output", d_output, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output"
            )
            above = d_output.reshape(1, batch, self.hidden_size)
        dx, layer, dw = direction.backward(
            backends.load(trace.backend),
            self.cell,
            trace[0],
            Weights.of(trace.parameters, ""),
            above,
            d_h,
            d_c,
        )
        d_input = dx[0] if batched else dx[0, 0]
        d_initial = self._leave_state(layer.h[0].copy(), layer.c[0].copy() if self.cell.has_c else None, batched)
        d_parameters = {name: getattr(dw, name) for name in self.parameters}
        return Gradients(d_input, d_initial, d_parameters, {(0, "forward"): layer})


class RNNCell(RecurrentCell):
    """One step of the vanilla RNN: h' = φ(W_ih x + b_ih + W_hh h + b_hh).

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
    nonlinearity : "tanh" or "relu"
    dtype : float32 or float64
    backend : str, optional
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional

    Attributes
    ----------
    parameters : dict of ndarray
        weight_ih (H, I), weight_hh (H, H), bias_ih (H,), bias_hh (H,).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        *,
        dtype: DTypeLike = np.float32,
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        cell = Cell("rnn", check_nonlinearity(nonlinearity))
        super().__init__(cell, input_size, hidden_size, bias, dtype, backend, rng)

    @property
    def nonlinearity(self) -> str:
        """φ, "tanh" or "relu"."""
        return self.cell.nonlinearity


class LSTMCell(RecurrentCell):
    """One step of the LSTM: (h, c) to (h', c'); the equations stand at `LSTM`.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    bias : bool
    dtype : float32 or float64
    backend : str, optional
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional

    Attributes
    ----------
    parameters : dict of ndarray
        weight_ih (4H, I), weight_hh (4H, H), bias_ih (4H,), bias_hh (4H,); gate rows i, f, g, o.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        dtype: DTypeLike = np.float32,
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        super().__init__(Cell("lstm"), input_size, hidden_size, bias, dtype, backend, rng)
