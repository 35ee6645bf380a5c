"""From the final state of one recurrent layer to the initial state of another, of any other layers, sizes and cell.

    s_h = [h_n of layer 0; 0 reverse; 1; ...]       (B, D·L·P)     all rows side by side;  s_c likewise, (B, D·L·H)
    h_0 = tanh(W_h s_h + b_h)                       (B, L'·P')     cut into the rows of the layer that starts
    c_0 = W_c s_c + b_c                             (B, L'·H')     of an LSTM; s_h stands in where there is no s_c

    B batch   L layers   D directions   H hidden   P projection;  with ' those of the layer that starts (L' times D')

tanh keeps h_0 where the h of a tanh RNN and of an LSTM lives; a cell state has no bounds, and c_0 has none. What an RNN
starts from comes from h alone: the cell state of an LSTM before it is not read.

References
----------
Cho et al., arXiv:1406.1078, 2014, appendix A, and Bahdanau, Cho, Bengio, arXiv:1409.0473, 2015, appendix A.2.2: tanh
of one dense layer, there from one state of one layer. Klein et al., OpenNMT, 2017, option `bridge` of its RNN encoder:
a dense layer for each of h and c, over the rows of all layers side by side, with relu. Sutskever, Vinyals, Le,
arXiv:1409.3215, 2014: equal layers, and no bridge at all.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.layers.initial_state import StateShape, as_state, batch_of
from scratchrnn.layers.linear import Linear, LinearTrace
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.models.parts import by_parts
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State


@dataclass(frozen=True, eq=False)
class BridgeTrace:
    """What `Bridge.forward` did."""

    state: State  # what the second layer starts from
    h: LinearTrace
    c: LinearTrace | None


class Bridge(Module):
    """One dense layer for h, with tanh, and one for c where the second layer is an LSTM.

    Parameters
    ----------
    source, target : RNN or LSTM, or a wrapper of one
        The layer that ends and the layer that starts; only sizes and dtype are read.
    backend : str, optional
        For both dense layers; see `scratchrnn.backends`.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters as `Linear` does. Fresh entropy when absent.

    Attributes
    ----------
    parameters : dict of ndarray
        h.weight (L'·P', D·L·P), h.bias (L'·P',), and for an LSTM c.weight (L'·H', D·L·H, or D·L·P after an RNN),
        c.bias (L'·H',).

    Raises
    ------
    TypeError, ValueError
        Not such layers, or of two dtypes.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> encoder = srnn.LSTM(3, 4, 2, bidirectional=True, rng=np.random.default_rng(0))
    >>> bridge = srnn.models.Bridge(encoder, srnn.RNN(5, 7))
    >>> output, state = encoder(np.ones((9, 2, 3), np.float32))
    >>> bridge(state).shape
    (1, 2, 7)
    """

    def __init__(self, source: Any, target: Any, *, backend: str | None = None, rng: Rng | None = None) -> None:
        self.source, self.target = StateShape.of("source", source), StateShape.of("target", target)
        if self.source.dtype != self.target.dtype:
            raise TypeError(f"target: expected dtype {self.source.dtype}, that of source; got {self.target.dtype}")
        generator = check_rng("rng", rng)
        rows, rows_out = self.source.rows, self.target.rows
        dtype = np.dtype(self.source.dtype)
        more: dict[str, Any] = {"dtype": dtype, "backend": backend, "rng": generator}
        self.h = Linear(rows * self.source.output_size, rows_out * self.target.output_size, **more)
        self.c: Linear | None = None
        if self.target.cell_size is not None:
            read = self.source.cell_size or self.source.output_size
            self.c = Linear(rows * read, rows_out * self.target.cell_size, **more)
        parts = {"h": self.h.parameters} | ({} if self.c is None else {"c": self.c.parameters})
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "parameters", by_parts(parts))

    def config(self) -> dict[str, Any]:
        """Sizes and dtype of both states."""
        return {"source": asdict(self.source), "target": asdict(self.target)}

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        return cls(*(StateShape(**config.get(name, {})) for name in ("source", "target")))

    def __call__(self, state: State) -> State:
        """The state to start from; keeps nothing. Arguments as in `forward`."""
        s_h, s_c = self._enter(state)
        h_0 = self._cut(np.tanh(self.h(s_h)))
        return h_0 if self.c is None else (h_0, self._cut(self.c(s_c)))

    def forward(self, state: State) -> BridgeTrace:
        """The state to start from, with what backward needs.

        Parameters
        ----------
        state : ndarray, or (h_n, c_n) of an LSTM
            h_n (D·L, B, P) and c_n (D·L, B, H), or without the axis B: the first layer's final state.
        """
        s_h, s_c = self._enter(state)
        h = self.h.forward(s_h)
        h_0 = self._cut(np.tanh(h.output))
        if self.c is None:
            return BridgeTrace(h_0, h, None)
        c = self.c.forward(s_c)
        return BridgeTrace((h_0, self._cut(c.output)), h, c)

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def backward(self, trace: BridgeTrace, d_state: State) -> Gradients:
        """From dL/d(the state to start from) to that of the final state it came from, and of the parameters.

        Returns
        -------
        Gradients
            `state` in the shapes of the first layer's state, zero for a cell state that is not read; `parameters`.
        """
        check_trace(trace, BridgeTrace, self, lambda t: (t.c is None) == (self.c is None))
        d = self.target.enter("d_state", d_state, batch_of(trace.state), slot="0")
        h_0 = np.tanh(trace.h.output)
        h = self.h.backward(trace.h, _side_by_side(d[0]) * (1 - h_0 * h_0))  # undoes tanh, then W_h
        d_s = [np.zeros((*h_0.shape[:-1], self.source.rows * size), self.dtype) for size in self.source.sizes]
        d_s[0] += h.input
        parts = {"h": h.parameters}
        if self.c is not None and trace.c is not None:
            c = self.c.backward(trace.c, _side_by_side(d[1]))  # undoes W_c
            d_s[-1] += c.input  # that of s_h where there is no s_c
            parts["c"] = c.parameters
        return Gradients(None, as_state([_apart(a, self.source.rows) for a in d_s]), by_parts(parts), {})

    def _enter(self, state: Any) -> tuple[FloatArray, FloatArray]:
        """s_h and s_c (B, ·), s_h again where there is no s_c."""
        arrays = self.source.enter("state", state, batch_of(state), slot="n")
        return _side_by_side(arrays[0]), _side_by_side(arrays[-1])

    def _cut(self, wide: FloatArray) -> FloatArray:
        return _apart(wide, self.target.rows)


def _side_by_side(state: FloatArray) -> FloatArray:
    """(rows, B, ·) to (B, rows·size); without a batch (rows, ·) to (rows·size)."""
    rows = np.moveaxis(state, 0, -2)
    return rows.reshape(*rows.shape[:-2], rows.shape[-2] * rows.shape[-1])


def _apart(wide: FloatArray, rows: int) -> FloatArray:
    """The way back, to plain arrays as kernels read them."""
    cut = wide.reshape(*wide.shape[:-1], rows, wide.shape[-1] // rows)
    return np.ascontiguousarray(np.moveaxis(cut, -2, 0))
