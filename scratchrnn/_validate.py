"""Checks at the public edge. Every message names the argument, what was expected and what came."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scratchrnn._typing import BoolArray, DType, FloatArray, IntArray

DTYPES: dict[str, DType] = {"float32": np.dtype(np.float32), "float64": np.dtype(np.float64)}
PROTOCOLS = ("__array__", "__array_interface__", "__dlpack__")  # of arrays on the CPU; the first two NumPy asks itself


def check_dtype(name: str, dtype: DTypeLike) -> DType:
    """Return `dtype` as one of the two supported dtypes, float32 or float64."""
    if dtype is None:  # np.dtype(None) is float64
        raise TypeError(f"{name}: expected float32 or float64; got None")
    try:
        resolved: Any = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        raise TypeError(f"{name}: expected float32 or float64; got {dtype!r}") from None
    if resolved.name not in DTYPES or not resolved.isnative:
        raise TypeError(f"{name}: expected float32 or float64; got {resolved.name}")
    return DTYPES[resolved.name]


def check_positive_int(name: str, value: Any) -> int:
    """Return `value` as an int if it is a whole number of at least 1."""
    return check_int(name, value, least=1)


def check_int(name: str, value: Any, *, least: int, most: int | None = None) -> int:
    """Return `value` as an int if it is a whole number of these bounds; a bool is not a number here."""
    wanted = f"an integer of at least {least}" if most is None else f"an integer from {least} to {most}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected {wanted}; got {describe(value)}")
    number = int(value)
    if number < least or (most is not None and number > most):
        raise ValueError(f"{name}: expected {wanted}; got {number}")
    return number


def check_bool(name: str, value: Any) -> bool:
    """Return `value` if it is a bool; 0 and 1 are not, since `LSTM(3, 4, 2, 1)` is usually a slip."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False; got {describe(value)}")
    return bool(value)


def check_real(name: str, value: Any, *, least: float = -math.inf, above: float | None = None) -> float:
    """Return `value` as a float if it is a finite real number, at least `least` and greater than `above`."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number; got {describe(value)}")
    wanted = "a finite number" if least == -math.inf else f"a finite number of at least {least:g}"
    if above is not None:
        wanted = f"a finite number above {above:g}"
    number = _as_float(value)
    if not math.isfinite(number) or number < least or (above is not None and number <= above):
        raise ValueError(f"{name}: expected {wanted}; got {value}")
    return number


def check_probability(name: str, value: Any) -> float:
    """Return `value` as a float if it lies in [0, 1]."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise TypeError(f"{name}: expected a number between 0 and 1; got {describe(value)}")
    number = _as_float(value)
    if not 0.0 <= number <= 1.0:
        raise ValueError(f"{name}: expected a number between 0 and 1; got {value}")
    return number


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def check_array(
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: DType | None = None,
    why: str | Callable[[], str] = "",
) -> FloatArray:
    """Return `value` if it is a NumPy array of exactly this shape and dtype.

    Parameters
    ----------
    name : str
        The argument's name, for the message.
    shape : tuple of int, optional
        Expected shape; not checked when absent.
    dtype : numpy dtype, optional
        Expected dtype; when absent, float32 and float64 are both accepted.
    why : str or function that returns one
        What the expectation follows from, as in "for num_layers=2, batch=5, hidden=8". A function is called only where
        there is something to say: such a text takes longer than the check.

    Raises
    ------
    TypeError
        Not an array, or of another dtype (never cast silently).
    ValueError
        Of another shape (never broadcast silently).
    """
    # the usual case: most dtypes are one object for all arrays, and the same object is quicker to see than an equal one
    if type(value) is np.ndarray and value.dtype is dtype and (shape is None or value.shape == shape):
        return value
    if not isinstance(value, np.ndarray) or on_device(value):
        raise TypeError(f"{name}: expected a NumPy array; got {describe(value)}")
    _check_plain(name, value)
    if dtype is not None and value.dtype != dtype:
        raise TypeError(
            f"{name}: expected dtype {dtype.name}; got {value.dtype} (convert with {name}.astype(np.{dtype.name}))"
        )
    if dtype is None and value.dtype not in DTYPES.values():
        raise TypeError(f"{name}: expected dtype float32 or float64; got {value.dtype}")
    if shape is not None and value.shape != shape:
        reason = why if isinstance(why, str) else why()
        because = f" {reason}" if reason else ""
        raise ValueError(f"{name}: expected shape {shape}{because}; got {value.shape}")
    return value


def take_array(
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: DType | None = None,
    why: str | Callable[[], str] = "",
) -> FloatArray:
    """`check_array` of whatever speaks an array protocol on the CPU, seen as a NumPy array: use what it returns."""
    # the usual case, as in `check_array`, asked here since a call takes as long as the answer
    if type(value) is np.ndarray and value.dtype is dtype and (shape is None or value.shape == shape):
        return value
    if not isinstance(value, np.ndarray):
        value = host_array(name, value)
    return check_array(name, value, shape=shape, dtype=dtype, why=why)


def see(name: str, value: Any) -> Any:
    """What speaks an array protocol as a NumPy array, anything else as it is: before checks that ask for NumPy's."""
    return host_array(name, value) if speaks_protocol(value) else value


def host_array(name: str, value: Any) -> NDArray[Any]:
    """See `value` as a NumPy array, without a copy where its owner can do without.

    Parameters
    ----------
    value : ndarray, memoryview, or an object with `__array_interface__`, `__array__` or, on the CPU, `__dlpack__`
        Such as a torch tensor on the CPU, a jax array or a pandas column.

    Raises
    ------
    TypeError
        Nothing of these, one that numbers are no longer free to leave (a torch tensor that requires grad), or one whose
        owner does not hand it out. A number, a list and a masked array are no arrays here.
    """
    if isinstance(value, np.ndarray) and not on_device(value):
        _check_plain(name, value)
        return value
    if not speaks_protocol(value):
        raise TypeError(f"{name}: expected a NumPy array; got {describe(value)}")
    kind = type(value)
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name}: expected an array without a graph behind it; got a {kind.__name__} that requires grad: "
            f"give {name}.detach()"
        )
    only_dlpack = not isinstance(value, memoryview) and not any(hasattr(kind, protocol) for protocol in PROTOCOLS[:2])
    try:
        array: NDArray[Any] = np.from_dlpack(value) if only_dlpack else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError, AttributeError) as error:
        raise TypeError(
            f"{name}: expected an array on the CPU; this {kind.__name__} does not give one: {error}"
        ) from None
    return array


def speaks_protocol(value: Any) -> bool:
    """Whether this is no array of NumPy's but may be seen as one on the CPU; a NumPy number is not meant."""
    kind = type(value)
    if kind is np.ndarray or not any(hasattr(kind, protocol) for protocol in PROTOCOLS):
        return kind is memoryview
    return not isinstance(value, (np.ndarray, np.generic)) and not on_device(value)


def _check_plain(name: str, array: NDArray[Any]) -> None:
    if isinstance(array, (np.ma.MaskedArray, np.matrix)):
        raise TypeError(f"{name}: expected a plain NumPy array; got {type(array).__name__}, whose arithmetic differs")


def on_device(value: Any) -> bool:
    """Whether this is an array on a CUDA device: torch's, cupy's, Numba's, or another's that says so."""
    return type(value) is not np.ndarray and getattr(value, "__cuda_array_interface__", None) is not None


def check_device_array(
    name: str,
    value: Any,
    *,
    shape: tuple[int, ...] | None = None,
    dtype: DType | None = None,
    why: str | Callable[[], str] = "",
) -> Any:
    """Return `value` if it is an array on a CUDA device, of exactly this shape and dtype and in C order.

    Parameters and errors as in `check_array`.
    """
    if not on_device(value):
        raise TypeError(f"{name}: expected an array on the CUDA device, beside the others; got {describe(value)}")
    described = value.__cuda_array_interface__
    got, found = tuple(described["shape"]), np.dtype(described["typestr"])
    wanted = list(DTYPES.values()) if dtype is None else [dtype]
    if found not in wanted:
        raise TypeError(f"{name}: expected dtype {' or '.join(d.name for d in wanted)}; got {found}")
    if shape is not None and got != shape:
        reason = why if isinstance(why, str) else why()
        raise ValueError(f"{name}: expected shape {shape}{f' {reason}' if reason else ''}; got {got}")
    check_c_order(name, value)
    return value


def check_c_order(name: str, value: Any) -> None:
    """Raise unless an array on a CUDA device is C-contiguous."""
    described = value.__cuda_array_interface__
    shape, strides = tuple(described["shape"]), described.get("strides")
    step = np.dtype(described["typestr"]).itemsize
    packed = [step * math.prod(shape[n + 1 :]) for n in range(len(shape))]
    apart = strides is not None and any(n > 1 and a != b for n, a, b in zip(shape, strides, packed, strict=True))
    if apart and 0 not in shape:
        raise ValueError(
            f"{name}: expected an array in C order, since it is on a device and taken as it is; got strides {strides} "
            f"for shape {shape} (torch's .contiguous() makes one)"
        )


def check_mask(name: str, value: Any, *, shape: tuple[int, ...], why: str) -> BoolArray:
    """Return `value` as a NumPy array if it is one of bool, of exactly this shape; `why` as in `check_array`."""
    value = see(name, value)
    if not isinstance(value, np.ndarray) or isinstance(value, np.ma.MaskedArray) or value.dtype != np.bool_:
        raise TypeError(f"{name}: expected a NumPy array of bool; got {describe(value)}")
    if value.shape != shape:
        raise ValueError(f"{name}: expected shape {shape} {why}; got {value.shape}")
    return value


def check_indices(name: str, value: Any, count: int) -> IntArray:
    """Return `value` as a NumPy array if it is one of integers, each in 0..count-1."""
    value = see(name, value)
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected a NumPy array of integers; got {describe(value)}")
    outside = (value < 0) | (value >= count)
    if outside.any():
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(outside)), value.shape))
        raise ValueError(f"{name}: expected values from 0 to {count - 1}; got {value[at]} at {at}")
    return value


def describe(value: Any) -> str:
    """Name what came, briefly: type, and the value where it is short."""
    if isinstance(value, np.ma.MaskedArray):
        return f"a masked array of shape {value.shape} and dtype {value.dtype}"
    if isinstance(value, np.ndarray) and not on_device(value):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    kind = type(value).__name__
    if on_device(value):
        return f"an array on a CUDA device ({type(value).__module__}.{kind})"
    if isinstance(value, (list, tuple, dict, set)) and len(value) > 10:
        return f"{kind} of {len(value)}"
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.nn.Module):
        return f"{kind}, a torch.nn.Module"  # some have the names of ours
    text = repr(value)
    return f"{kind} {text}" if len(text) <= 40 else kind
