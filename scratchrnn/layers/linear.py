"""Linear: y = x Wᵀ + b, on a backend's kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_dtype, check_positive_int, take_array
from scratchrnn.backends import memory
from scratchrnn.init import uniform_
from scratchrnn.layers.edge import readable
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients

# Positions whose sums are a kernel's own, in float32. Those of more are added in float64: over a whole text's positions
# one float32 sum of db would lose digits that torch keeps.
SUM_ROWS = 4096


@dataclass(frozen=True, eq=False)
class LinearTrace:
    """What `Linear.forward` did, and all that backward needs of it."""

    output: FloatArray  # (..., O)
    input: FloatArray  # (..., I) a copy
    weight: FloatArray  # (O, I) as it was
    backend: str  # name of the one that computed it


class Linear(Module):
    """y = x Wᵀ + b, over the last axis of x.

    Parameters
    ----------
    in_features, out_features : int
        I and O. What follows are keywords only, other than in torch.
    bias : bool
    dtype : float32 or float64
    backend : str, optional
        See `scratchrnn.backends`. When absent, the one of the enclosing `use_backend`, else the default.
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
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        self.in_features = check_positive_int("in_features", in_features)
        self.out_features = check_positive_int("out_features", out_features)
        self.bias_wanted = check_bool("bias", bias)
        shapes: dict[str, tuple[int, ...]] = {"weight": (self.out_features, self.in_features)}
        if bias:
            shapes["bias"] = (self.out_features,)
        self.backend = backends.check_backend(backend)
        self._allocate(shapes, check_dtype("dtype", dtype))
        generator = check_rng("rng", rng)
        # torch computes the weight's bound as √3 · gain/√I with gain = √(2/(1+5)): equal to 1/√I but for rounding
        bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + math.sqrt(5.0) ** 2)) / math.sqrt(self.in_features))
        uniform_(self.parameters["weight"], -bound, bound, generator)
        if bias:
            bound = 1 / math.sqrt(self.in_features)
            uniform_(self.parameters["bias"], -bound, bound, generator)

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size, without backend and rng."""
        return {
            "in_features": self.in_features,
            "out_features": self.out_features,
            "bias": self.bias_wanted,
            "dtype": self.dtype.name,
        }

    def _enter(self, x: Any) -> FloatArray:
        self._check_parameters()
        x = take_array("x", x, dtype=self.dtype)
        if x.ndim == 0 or x.shape[-1] != self.in_features:
            raise ValueError(f"x: expected a last axis of in_features={self.in_features}; got shape {x.shape}")
        return x

    def __call__(self, x: FloatArray) -> FloatArray:
        """y (..., O) for x (..., I); keeps nothing."""
        return self._run(self._enter(x))

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def _run(self, x: FloatArray) -> FloatArray:
        flat = readable(x.reshape(-1, self.in_features))
        bias = self.parameters["bias"] if self.bias_wanted else np.zeros(self.out_features, self.dtype)
        y = memory.empty((len(flat), self.out_features), self.dtype)
        backends.load(self.backend).linear.forward(flat, self.parameters["weight"], bias, y)
        return y.reshape(*x.shape[:-1], self.out_features)

    def forward(self, x: FloatArray) -> LinearTrace:
        """y (..., O) for x (..., I), with what backward needs."""
        name = backends.load(self.backend).name
        x = self._enter(x)
        return LinearTrace(self._run(x), memory.copy(x), memory.copy(self.parameters["weight"]), name)

    @np.errstate(all="ignore")
    def backward(self, trace: LinearTrace, d_output: FloatArray) -> Gradients:
        """dx = dy W, dW = dyᵀ x, db = Σ dy, on the trace's backend; `d_output` has the output's shape."""
        check_trace(trace, LinearTrace, self, trace_of=self._is_mine)
        d_output = take_array("d_output", d_output, shape=trace.output.shape, dtype=self.dtype)
        dy = readable(d_output.reshape(-1, self.out_features))
        x = trace.input.reshape(-1, self.in_features)
        dx = memory.empty(x.shape, self.dtype)
        kernels = backends.load(trace.backend)
        sums: list[FloatArray] = []  # dW, db
        for first in range(0, max(1, len(x)), SUM_ROWS):
            part = slice(first, first + SUM_ROWS)
            found = [memory.zeros(trace.weight.shape, self.dtype), np.zeros(self.out_features, self.dtype)]
            kernels.linear.backward(x[part], trace.weight, dy[part], dx[part], *found)
            sums = [np.add(s, f, dtype=np.float64) for s, f in zip(sums, found, strict=True)] if sums else found
        rounded = [s.astype(self.dtype, copy=False) for s in sums]
        named = {name: d for name, d in zip(("weight", "bias"), rounded, strict=True) if name in self.parameters}
        return Gradients(dx.reshape(trace.input.shape), None, named, {})

    def _is_mine(self, trace: LinearTrace) -> bool:
        return trace.weight.shape == (self.out_features, self.in_features) and trace.weight.dtype == self.dtype
