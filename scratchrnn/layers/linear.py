"""Linear: y = x Wᵀ + b."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_bool, check_dtype, check_positive_int
from scratchrnn.backends import memory
from scratchrnn.init import uniform_
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients

SUM_ROWS = 512  # positions of one block of the weight's gradient


@dataclass(frozen=True, eq=False)
class LinearTrace:
    """What `Linear.forward` did, and all that backward needs of it."""

    output: FloatArray  # (..., O)
    input: FloatArray  # (..., I) a copy
    weight: FloatArray  # (O, I) as it was


class Linear(Module):
    """y = x Wᵀ + b, over the last axis of x.

    Parameters
    ----------
    in_features, out_features : int
        I and O. What follows are keywords only, other than in torch.
    bias : bool
    dtype : float32 or float64
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws weight (O, I) and bias (O,) from U(-1/√I, 1/√I), as torch does. Fresh entropy when absent.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = True,
        dtype: DTypeLike = np.float32,
        rng: Rng | None = None,
    ) -> None:
        self.in_features = check_positive_int("in_features", in_features)
        self.out_features = check_positive_int("out_features", out_features)
        self.bias_wanted = check_bool("bias", bias)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if bias:
            shapes["bias"] = (self.out_features,)
        self._allocate(shapes, check_dtype("dtype", dtype))
        generator = check_rng("rng", rng)
        # torch computes the weight's bound as √3 · gain/√I with gain = √(2/(1+5)): equal to 1/√I but for rounding
        bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5.0) ** 2)) / math.sqrt(self.in_features))
        uniform_(self.parameters["weight"], -bound, bound, generator)
        if bias:
            bound = 1 / math.sqrt(self.in_features)
            uniform_(self.parameters["bias"], -bound, bound, generator)

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias_wanted,
            "dtype": self.dtype.name,
        }

    def _enter(self, x: Any) -> FloatArray:
        check_array("x", x, dtype=self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected a last axis of in_features={self.in_features}; got shape {x.shape}")
        return x

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def __call__(self, x: FloatArray) -> FloatArray:
        """y (..., O) for x (..., I); keeps nothing."""
        flat = self._enter(x).reshape(-1, self.in_features)
        y = memory.empty((len(flat), self.out_features), self.dtype)
        np.matmul(flat, self.parameters["weight"].T, out=y)
        if self.bias_wanted:
            y += self.parameters["bias"]
        return y.reshape(*x.shape[:-1], self.out_features)

    def forward(self, x: FloatArray) -> LinearTrace:
        """y (..., O) for x (..., I), with what backward needs."""
        return LinearTrace(self(x), memory.copy(x), memory.copy(self.parameters["weight"]))

    @np.errstate(all="ignore")
    def backward(self, trace: LinearTrace, d_output: FloatArray) -> Gradients:
        """dx = dy W, dW = dyᵀ x, db = Σ dy; `d_output` has the output's shape."""
        check_trace(
            trace, LinearTrace, self, trace_of=lambda t: t.weight.shape == (self.out_features, self.in_features)
        )
        check_array("d_output", d_output, shape=trace.output.shape, dtype=self.dtype)
        dy = d_output.reshape(-1, self.out_features)
        x = trace.input.reshape(-1, self.in_features)
        gradients: dict[str, FloatArray] = {"weight": _product(dy, x)}
        if self.bias_wanted:
            gradients["bias"] = dy.sum(axis=0, dtype=np.float64).astype(self.dtype, copy=False)
        dx = memory.empty(x.shape, self.dtype)
        np.matmul(dy, trace.weight, out=dx)
        return Gradients(dx.reshape(trace.input.shape), None, gradients, {})


def _product(dy: FloatArray, x: FloatArray) -> FloatArray:
    """dyᵀ x (O, I) of dy (N, O) and x (N, I).

    In blocks summed in float64: one float32 sum over a whole text's positions would lose digits that torch keeps, and a
    product in float64 takes twice the time.
    """
    block = dy[:SUM_ROWS].T @ x[:SUM_ROWS]
    if len(dy) <= SUM_ROWS:
        return block
    total = block.astype(np.float64)
    for first in range(SUM_ROWS, len(dy), SUM_ROWS):
        part = slice(first, first + SUM_ROWS)
        total += np.matmul(dy[part].T, x[part], out=block)
    return total.astype(dy.dtype, copy=False)
