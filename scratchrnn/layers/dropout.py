"""Dropout: y = m ⊙ x, with m zero with probability p and 1/(1-p) otherwise (inverted dropout).

Dropout draws m for each element; LockedDropout draws it once for all time steps: y_t = m ⊙ x_t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray, DType, FloatArray
from scratchrnn._validate import check_bool, check_probability, take_array
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients


def draw_hits(shape: tuple[int, ...], p: float, rng: Rng) -> BoolArray:
    """True with probability p: always for p = 1, never for p = 0.

    Raises
    ------
    TypeError
        `rng` is a TorchGenerator: torch draws masks by a path that depends on its build, so no replay would be true.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(
            f"rng: expected a numpy.random.Generator for dropout masks (torch's masks depend on its build and cannot "
            f"be replayed); got {type(rng).__name__}"
        )
    return rng.random(shape) < p


def draw_mask(shape: tuple[int, ...], p: float, dtype: DType, rng: Rng) -> FloatArray:
    """A mask of zeros, with probability p, and 1/(1-p); `rng` as in `draw_hits`."""
    dropped = draw_hits(shape, p, rng)
    return np.zeros(shape, dtype) if p == 1.0 else (~dropped / (1.0 - p)).astype(dtype)


@dataclass(frozen=True, eq=False)
class DropoutTrace:
    """What `Dropout.forward` did."""

    output: FloatArray  # of the input's shape
    mask: FloatArray | None  # of the input's shape, with one step in a locked one; None where nothing was dropped


class Dropout(Module):
    """Zero each element with probability p in training, scaling the rest by 1/(1-p).

    Parameters
    ----------
    p : float
        Probability of zero, in [0, 1].
    rng : numpy.random.Generator, optional
        Draws the masks. Fresh entropy when absent.

    References
    ----------
    Srivastava et al., Dropout, JMLR 2014.
    """

    def __init__(self, p: float = 0.5, *, rng: Rng | None = None) -> None:
        self.p = check_probability("p", p)
        self.rng = check_rng("rng", rng)
        self._allocate({}, np.dtype(np.float32))

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        return {"p": self.p}

    def __repr__(self) -> str:
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.config().items())
        return f"{type(self).__name__}({arguments})"

    def _mask_shape(self, x: FloatArray) -> tuple[int, ...]:
        """What shape the mask of x has."""
        return x.shape

    def __call__(self, x: FloatArray) -> FloatArray:
        """Inference: x itself, as in torch."""
        x = take_array("x", x)
        self._mask_shape(x)
        return x

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def forward(self, x: FloatArray, training: bool = True, rng: np.random.Generator | None = None) -> DropoutTrace:
        """Drop, keeping the mask; `rng` stands in for the layer's own."""
        x = take_array("x", x)
        shape = self._mask_shape(x)
        generator = self.rng if rng is None else check_rng("rng", rng)
        if not check_bool("training", training) or self.p == 0.0:
            return DropoutTrace(x.copy(), None)
        mask = draw_mask(shape, self.p, x.dtype, generator)
        return DropoutTrace(x * mask, mask)

    @np.errstate(all="ignore")
    def backward(self, trace: DropoutTrace, d_output: FloatArray) -> Gradients:
        """dL/dx = m ⊙ dL/dy."""
        check_trace(trace, DropoutTrace, self)
        d_output = take_array("d_output", d_output, shape=trace.output.shape, dtype=trace.output.dtype)
        dx = d_output.copy() if trace.mask is None else d_output * trace.mask
        return Gradients(dx, None, {}, {})


class LockedDropout(Dropout):
    """Variational dropout: one mask for all time steps of a sequence, y_t = m ⊙ x_t, dL/dx_t = m ⊙ dL/dy_t.

    Each sample has a mask of its own, each forward pass draws new ones. Between an embedding and a recurrent layer,
    between two of these, or after the last.

    Parameters
    ----------
    p : float
        Probability of zero, in [0, 1].
    batch_first : bool
        Whether x is (B, T, H) instead of (T, B, H). Without a batch it is (T, H).
    rng : numpy.random.Generator, optional
        Draws the masks. Fresh entropy when absent.

    References
    ----------
    Gal, Ghahramani, A theoretically grounded application of dropout in recurrent neural networks, arXiv:1512.05287,
    2016. The name is that of AWD-LSTM's code: Merity, Keskar, Socher, arXiv:1708.02182, 2017, section 4.2.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> drop = srnn.LockedDropout(0.5, rng=np.random.default_rng(0))
    >>> trace = drop.forward(np.ones((3, 1, 6)))  # T=3, B=1, H=6
    >>> print(trace.output[:, 0])
    [[2. 0. 0. 0. 2. 2.]
     [2. 0. 0. 0. 2. 2.]
     [2. 0. 0. 0. 2. 2.]]
    """

    def __init__(self, p: float = 0.5, *, batch_first: bool = False, rng: Rng | None = None) -> None:
        super().__init__(p, rng=rng)
        self.batch_first = check_bool("batch_first", batch_first)

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        return {"p": self.p, "batch_first": self.batch_first}

    def _mask_shape(self, x: FloatArray) -> tuple[int, ...]:
        shape = list(x.shape)
        if len(shape) not in (2, 3):
            layout = "(batch, time, size)" if self.batch_first else "(time, batch, size)"
            raise ValueError(f"x: expected shape {layout} or, without a batch, (time, size); got {x.shape}")
        shape[1 if self.batch_first and len(shape) == 3 else 0] = 1
        return tuple(shape)
