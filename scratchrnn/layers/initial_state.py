"""The state that a recurrent layer starts from, learned: h_0, and c_0 of an LSTM, as parameters.

    forward     h_0[:, b] = h_0, c_0[:, b] = c_0               for every sample b
    backward    dh_0 = Σ_b dL/dh_0[:, b], dc_0 = Σ_b dL/dc_0[:, b]

    B batch   H hidden   P projection (P = H without one)   L layers   D directions

All samples start from one state, so its gradient is a sum over them: with a loss that is summed over the batch it grows
with B, as that of every other parameter does; with a loss that is averaged it does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_dtype, check_int, check_positive_int, check_real, describe
from scratchrnn.init import normal_
from scratchrnn.layers import edge
from scratchrnn.layers.module import Module
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State


@dataclass(frozen=True)
class StateShape:
    """What the state of a recurrent layer looks like; two layers of equal `StateShape` can hand theirs on.

    Attributes
    ----------
    num_layers, num_directions : int
        L and D; a state has D·L rows.
    output_size : int
        P, of h.
    cell_size : int or None
        H, of c; None without a cell state.
    dtype : str
        "float32" or "float64".
    """

    num_layers: int
    num_directions: int
    output_size: int
    cell_size: int | None
    dtype: str

    def __post_init__(self) -> None:
        for name in ("num_layers", "num_directions", "output_size"):
            check_positive_int(name, getattr(self, name))
        if self.cell_size is not None:
            check_positive_int("cell_size", self.cell_size)
        check_dtype("dtype", self.dtype)

    @classmethod
    def of(cls, name: str, layer: Any) -> StateShape:
        """That of an RNN or LSTM, or of what wraps one; `name` is the argument's, for the message."""
        if isinstance(layer, StateShape):
            return layer
        try:
            directions = 2 if layer.bidirectional else 1
            cell_size = layer.hidden_size if layer.cell.has_c else None
            return cls(layer.num_layers, directions, layer.output_size, cell_size, layer.dtype.name)
        except AttributeError:
            raise TypeError(f"{name}: expected an RNN or LSTM; got {describe(layer)}") from None

    @property
    def rows(self) -> int:
        """D·L."""
        return self.num_directions * self.num_layers

    @property
    def sizes(self) -> tuple[int, ...]:
        """(P,), or (P, H) with a cell state."""
        return (self.output_size,) if self.cell_size is None else (self.output_size, self.cell_size)

    def shapes(self, batch: int | None) -> tuple[tuple[int, ...], ...]:
        """Of h, and of c where there is one; without the axis B for None."""
        axes = (self.rows,) if batch is None else (self.rows, batch)
        return tuple((*axes, size) for size in self.sizes)

    def enter(self, name: str, value: Any, batch: int | None, *, slot: str) -> tuple[FloatArray, ...]:
        """Check a state, or where `name` is "d_state" the gradient of one: its arrays, h and then c.

        Of a gradient, the whole or one of a pair may be None, which stands for zero; `slot` as in `edge.enter_state`.
        """
        partial = name == "d_state"
        if value is None and not partial:
            raise TypeError(f"{name}: expected the state of a layer; got None")
        shapes, dtype = self.shapes(batch), np.dtype(self.dtype)
        sizes = f"num_layers={self.num_layers}, {'bidirectional, ' if self.num_directions == 2 else ''}"
        why = f"for {sizes}{'no batch' if batch is None else f'batch={batch}'}"
        arrays = edge.enter_state(name, value, shapes=shapes, dtype=dtype, why=why, partial=partial, slot=slot)
        return tuple(np.zeros(shape, dtype) if a is None else a for a, shape in zip(arrays, shapes, strict=True))


def batch_of(state: Any) -> int | None:
    """B of a state, or of the gradient of one; None without a batch."""
    pair = state if isinstance(state, (tuple, list)) else (state,)
    shapes: Iterator[tuple[int, ...]] = (getattr(a, "shape", ()) for a in pair)
    return next((shape[1] for shape in shapes if len(shape) == 3), None)


def as_state(arrays: Sequence[FloatArray]) -> State:
    """h, or the pair of h and c."""
    return arrays[0] if len(arrays) == 1 else (arrays[0], arrays[1])


class InitialState(Module):
    """A state to start from that is learned with the rest: h_0, and c_0 of an LSTM, the same for every sample.

    Parameters
    ----------
    layer : RNN, LSTM, or a wrapper of one
        Whose initial state it is; only its sizes and dtype are read.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters where `std` is above 0. Fresh entropy when absent.
    std : float
        Standard deviation of the normal distribution that the parameters are drawn from; with 0, the usual start, they
        are zero, and training begins at what the layer does without them.

    Attributes
    ----------
    parameters : dict of ndarray
        h_0 (D·L, P), and c_0 (D·L, H) of an LSTM.

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong type or range; the message names it.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> lstm = srnn.LSTM(3, 4, dtype=np.float64, rng=np.random.default_rng(0))
    >>> start = srnn.InitialState(lstm)
    >>> trace = lstm.forward(np.ones((7, 2, 3)), start(batch=2))
    >>> d_state = lstm.backward(trace, d_output=np.ones((7, 2, 4))).state  # per sample: (1, 2, 4) twice
    >>> {name: gradient.shape for name, gradient in start.backward(d_state).parameters.items()}
    {'h_0': (1, 4), 'c_0': (1, 4)}
    """

    def __init__(self, layer: Any, *, rng: Rng | None = None, std: float = 0.0) -> None:
        self.state_shape = StateShape.of("layer", layer)
        check_real("std", std, least=0.0)
        generator = check_rng("rng", rng)
        shapes = self.state_shape.shapes(None)
        self._allocate(dict(zip(("h_0", "c_0"), shapes, strict=False)), check_dtype("dtype", self.state_shape.dtype))
        if std > 0:
            for array in self.parameters.values():
                normal_(array, 0.0, std, generator)

    def config(self) -> dict[str, Any]:
        """Sizes and dtype of the state."""
        return asdict(self.state_shape)

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        return cls(StateShape(**config))

    def __call__(self, batch: int | None = None) -> State:
        """The state for a batch, as the layer takes it: a new array, or a pair of them for an LSTM.

        Parameters
        ----------
        batch : int, optional
            B; absent for an input without a batch.

        Returns
        -------
        ndarray or tuple of two
            h_0 (D·L, B, P), for an LSTM (h_0, c_0) with c_0 (D·L, B, H); without a batch, the axis B is missing.
        """
        self._check_parameters()
        if batch is None:
            arrays = [array.copy() for array in self.parameters.values()]
        else:
            check_int("batch", batch, least=0)
            arrays = [np.repeat(array[:, None], batch, axis=1) for array in self.parameters.values()]
        return as_state(arrays)

    def forward(self, batch: int | None = None) -> State:
        """The same as calling it: backward needs nothing of it."""
        return self(batch)

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def backward(self, d_state: State | tuple[FloatArray | None, FloatArray | None] | None) -> Gradients:
        """The gradient of the parameters: the sum over the samples.

        Parameters
        ----------
        d_state : ndarray, or (d_h_0, d_c_0) for an LSTM
            dL/d(initial state) per sample, as the layer's `backward` returns it in `Gradients.state`, with a batch or
            without. None stands for zero, in whole or for one of a pair.

        Returns
        -------
        Gradients
            `parameters` by their names; nothing else.
        """
        arrays = self.state_shape.enter("d_state", d_state, batch_of(d_state), slot="0")
        sums = [sum_over_batch(d) if d.ndim == 3 else d.copy() for d in arrays]
        return Gradients(None, None, dict(zip(self.parameters, sums, strict=True)), {})


def sum_over_batch(d: FloatArray) -> FloatArray:
    """(D·L, B, ·) to (D·L, ·), added up in float64 as the gradients of the other layers are."""
    return d.sum(axis=1, dtype=np.float64).astype(d.dtype, copy=False)
