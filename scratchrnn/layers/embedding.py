"""Embedding: a table of vectors, one row per index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_dtype, check_indices, check_int, check_positive_int, take_array
from scratchrnn.init import normal_
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients


@dataclass(frozen=True, eq=False)
class EmbeddingTrace:
    """What `Embedding.forward` did."""

    output: FloatArray  # (..., E)
    indices: IntArray  # (...) a copy


class Embedding(Module):
    """y = weight[index].

    Parameters
    ----------
    num_embeddings, embedding_dim : int
        V rows of size E. What follows are keywords only, other than in torch.
    padding_idx : int, optional
        This row starts at zero and gets no gradient. Negative counts from the end.
    dtype : float32 or float64
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws weight (V, E) from N(0, 1), as torch does. Fresh entropy when absent.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        padding_idx: int | None = None,
        dtype: DTypeLike = np.float32,
        rng: Rng | None = None,
    ) -> None:
        self.num_embeddings = check_positive_int("num_embeddings", num_embeddings)
        self.embedding_dim = check_positive_int("embedding_dim", embedding_dim)
        if padding_idx is not None:
            padding_idx = check_int("padding_idx", padding_idx, least=-self.num_embeddings)
            if padding_idx >= self.num_embeddings:
                raise ValueError(f"padding_idx: expected less than num_embeddings={num_embeddings}; got {padding_idx}")
            padding_idx %= self.num_embeddings
        self.padding_idx = padding_idx
        self._allocate({"weight": (self.num_embeddings, self.embedding_dim)}, check_dtype("dtype", dtype))
        normal_(self.parameters["weight"], 0.0, 1.0, check_rng("rng", rng))
        if padding_idx is not None:
            self.parameters["weight"][padding_idx] = 0

    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size."""
        return {
            "num_embeddings": self.num_embeddings,
            "embedding_dim": self.embedding_dim,
            "padding_idx": self.padding_idx,
            "dtype": self.dtype.name,
        }

    def __call__(self, indices: IntArray) -> FloatArray:
        """Rows (..., E) for integer indices (...) in 0..V-1."""
        rows: FloatArray = self.parameters["weight"][check_indices("indices", indices, self.num_embeddings)]
        return rows

    def forward(self, indices: IntArray) -> EmbeddingTrace:
        """Rows (..., E) for integer indices (...), with what backward needs."""
        codes = check_indices("indices", indices, self.num_embeddings)
        return EmbeddingTrace(self.parameters["weight"][codes], codes.copy())

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def backward(self, trace: EmbeddingTrace, d_output: FloatArray) -> Gradients:
        """Each row's gradient is the sum over the places that read it; indices have none."""
        check_trace(trace, EmbeddingTrace, self, trace_of=lambda t: t.output.shape[-1] == self.embedding_dim)
        d_output = take_array("d_output", d_output, shape=trace.output.shape, dtype=self.dtype)
        gradient = np.zeros_like(self.parameters["weight"])
        flat = trace.indices.reshape(-1)
        if flat.size:
            # equal indices brought together and summed as runs: np.add.at does it one element at a time
            order = np.argsort(flat, kind="stable")
            rows, starts = np.unique(flat[order], return_index=True)
            gradient[rows] = np.add.reduceat(d_output.reshape(-1, self.embedding_dim)[order], starts, axis=0)
        if self.padding_idx is not None:
            gradient[self.padding_idx] = 0
        return Gradients(None, None, {"weight": gradient}, {})
