"""The operators of what stands beside recurrent nodes: dense layers, their activations, arithmetic of shapes.

As in `plumbing`, each takes the node's attributes and its inputs, None where one is absent, and gives its result.

References
----------
https://onnx.ai/onnx/operators/, opset 7 and later.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn.interop.onnx.plumbing import Attributes, Given, Operator


def _one_dtype(*arrays: NDArray[Any]) -> None:
    if len({a.dtype for a in arrays}) > 1:
        raise TypeError(f"expected inputs of one dtype; got {', '.join(str(a.dtype) for a in arrays)}")


def _of_two(function: Callable[..., NDArray[Any]]) -> Operator:
    """An operator entry by entry, with NumPy's broadcasting, which is ONNX's."""

    @np.errstate(all="ignore")  # inf and nan pass through
    def operator(attributes: Attributes, a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
        _one_dtype(a, b)
        return function(a, b)

    return operator


def divide(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """a / b."""
    if a.dtype.kind != "f":
        raise TypeError(f"expected floating-point numbers; got {a.dtype}")
    return a / b


@np.errstate(all="ignore")
def gemm(attributes: Attributes, a: NDArray[Any], b: NDArray[Any], c: Given = None) -> NDArray[Any]:
    """α A B + β C, with A and B transposed where they say so."""
    a, b = (a.T if attributes.get("transA", 0) else a), (b.T if attributes.get("transB", 0) else b)
    _one_dtype(a, b, *([] if c is None else [c]))
    product: NDArray[Any] = a.dtype.type(attributes.get("alpha", 1.0)) * (a @ b)
    return product if c is None else product + a.dtype.type(attributes.get("beta", 1.0)) * c


@np.errstate(all="ignore")
def sigmoid(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """1 / (1 + exp(-x)), which is (1 + tanh(x / 2)) / 2."""
    half = data.dtype.type(0.5)
    return half + half * np.tanh(half * data)


@np.errstate(all="ignore")
def softmax(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """exp(x) over its sum along the last axis; before opset 13 another axis meant all from it on."""
    if "axis" not in attributes and data.ndim != 2:
        raise ValueError("axis: expected it to be given, since its default changed with opset 13; got none")
    if attributes.get("axis", 1) not in (-1, data.ndim - 1):
        raise ValueError(f"axis: expected the last of {data.ndim}; got {attributes['axis']}")
    weights = np.exp(data - data.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


OPERATORS: dict[str, Operator] = {
    "Add": _of_two(np.add),
    "Div": _of_two(divide),
    "Gemm": gemm,
    "MatMul": _of_two(np.matmul),
    "Mul": _of_two(np.multiply),
    "Relu": lambda attributes, data: np.maximum(data, 0),
    "Sigmoid": sigmoid,
    "Softmax": softmax,
    "Sub": _of_two(np.subtract),
    "Tanh": lambda attributes, data: np.tanh(data),
}
