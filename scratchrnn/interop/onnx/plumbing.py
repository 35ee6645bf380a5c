"""The operators that exporters put around recurrent nodes: they move, cut, sort and shape arrays, and compute nothing.

Each takes the node's attributes and its inputs, None where one is absent, and gives its result, or a tuple of several.
Where an operator took as an attribute what it now takes as an input (axes of Squeeze before opset 13, starts of Slice
and k of TopK before 10), both are read: onnx.checker has seen to it that the one is there which the model's opset has.

References
----------
https://onnx.ai/onnx/operators/, opset 7 and later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Attributes = Mapping[str, Any]  # arrays for tensors, NumPy's dtypes for types
Given = NDArray[Any] | None
Operator = Callable[..., NDArray[Any] | tuple[NDArray[Any], ...]]


def _either(attributes: Attributes, name: str, given: Given) -> list[int] | None:
    """A list of integers, from an input or from the attribute that it was before."""
    if given is not None:
        return [int(n) for n in given.reshape(-1)]
    return attributes.get(name)


def cast(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """Another dtype."""
    return data.astype(attributes["to"])


def concat(attributes: Attributes, *arrays: NDArray[Any]) -> NDArray[Any]:
    """Arrays one after the other."""
    if len({a.dtype for a in arrays}) > 1:
        raise TypeError(f"expected inputs of one dtype; got {', '.join(str(a.dtype) for a in arrays)}")
    return np.concatenate(arrays, axis=attributes["axis"])


CONSTANTS = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}


def constant(attributes: Attributes) -> NDArray[Any]:
    """The array in the node itself."""
    for name, dtype in CONSTANTS.items():
        if name in attributes:
            return np.array(attributes[name], dtype)
    if "value" not in attributes:
        raise ValueError(f"expected a dense tensor or numbers; got {', '.join(attributes)}")
    value: NDArray[Any] = attributes["value"]
    return value


def constant_of_shape(attributes: Attributes, shape: NDArray[Any]) -> NDArray[Any]:
    """One number everywhere, float32 zero when none is given."""
    value = attributes.get("value", np.zeros(1, np.float32))
    return np.broadcast_to(value.reshape(()), tuple(int(n) for n in shape))


def expand(attributes: Attributes, data: NDArray[Any], shape: NDArray[Any]) -> NDArray[Any]:
    """Axes of size 1 repeated, on either side."""
    return np.broadcast_to(data, np.broadcast_shapes(data.shape, tuple(int(n) for n in shape)))


def gather(attributes: Attributes, data: NDArray[Any], indices: NDArray[Any]) -> NDArray[Any]:
    """Entries of one axis."""
    return np.asarray(np.take(data, indices, axis=attributes.get("axis", 0)))


def identity(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """The array itself."""
    return data


def reshape(attributes: Attributes, data: NDArray[Any], shape: NDArray[Any]) -> NDArray[Any]:
    """Another shape: 0 keeps an axis unless `allowzero`, -1 is what remains."""
    wanted = [int(n) for n in shape]
    if not attributes.get("allowzero", 0):
        wanted = [data.shape[axis] if n == 0 else n for axis, n in enumerate(wanted)]
    return data.reshape(wanted)


def scatter(attributes: Attributes, data: NDArray[Any], indices: NDArray[Any], updates: NDArray[Any]) -> NDArray[Any]:
    """A copy with other entries at these places of one axis."""
    if attributes.get("reduction", "none") != "none":
        raise ValueError(f"reduction: expected none; got {attributes['reduction']!r}")
    if indices.shape != updates.shape or updates.dtype != data.dtype:
        raise ValueError(f"expected updates of shape {indices.shape} and dtype {data.dtype}; got {updates.shape}")
    places: list[Any] = list(np.indices(indices.shape, sparse=True))
    places[attributes.get("axis", 0)] = indices
    out = data.copy()
    out[tuple(places)] = updates
    return out


def shape_of(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """The sizes of axes `start` to `end`."""
    return np.array(data.shape[attributes.get("start", 0) : attributes.get("end")], np.int64)


def cut(
    attributes: Attributes,
    data: NDArray[Any],
    starts: Given = None,
    ends: Given = None,
    axes: Given = None,
    steps: Given = None,
) -> NDArray[Any]:
    """A part of some axes. Python's slices clamp and count from the end as ONNX's do."""
    first, last = _either(attributes, "starts", starts), _either(attributes, "ends", ends)
    if first is None or last is None:
        raise ValueError("expected starts and ends; got none")
    where = _either(attributes, "axes", axes) or list(range(len(first)))
    by = _either(attributes, "steps", steps) or [1] * len(first)
    index = [slice(None)] * data.ndim
    for axis, *bounds in zip(where, first, last, by, strict=True):
        index[axis] = slice(*bounds)
    return data[tuple(index)]


def squeeze(attributes: Attributes, data: NDArray[Any], axes: Given = None) -> NDArray[Any]:
    """Without these axes of size 1, or without all of size 1."""
    where = _either(attributes, "axes", axes)
    return np.squeeze(data, axis=None if where is None else tuple(where))


def top_k(attributes: Attributes, data: NDArray[Any], k: Given = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """The k largest, or smallest, entries of one axis in order, and their places; of equal ones the first is first."""
    axis, count = attributes.get("axis", -1), attributes["k"] if k is None else int(k.reshape(()))
    if not 0 <= count <= data.shape[axis]:
        raise ValueError(f"K: expected 0 to {data.shape[axis]}; got {count}")
    if attributes.get("largest", 1):
        # sorted from the end, and turned round twice: a stable descending order of any dtype
        upward = np.argsort(np.flip(data, axis), axis=axis, kind="stable")
        order = data.shape[axis] - 1 - np.flip(upward, axis)
    else:
        order = np.argsort(data, axis=axis, kind="stable")
    places = np.take(order, np.arange(count), axis=axis)
    return np.take_along_axis(data, places, axis), places.astype(np.int64)


def transpose(attributes: Attributes, data: NDArray[Any]) -> NDArray[Any]:
    """Axes in another order, reversed when none is given."""
    return data.transpose(attributes.get("perm"))


def unsqueeze(attributes: Attributes, data: NDArray[Any], axes: Given = None) -> NDArray[Any]:
    """With axes of size 1 at these places of the result."""
    return np.expand_dims(data, tuple(_either(attributes, "axes", axes) or ()))


OPERATORS: dict[str, Operator] = {
    "Cast": cast,
    "Concat": concat,
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Expand": expand,
    "Gather": gather,
    "Identity": identity,
    "Reshape": reshape,
    "ScatterElements": scatter,
    "Shape": shape_of,
    "Slice": cut,
    "Squeeze": squeeze,
    "TopK": top_k,
    "Transpose": transpose,
    "Unsqueeze": unsqueeze,
}
