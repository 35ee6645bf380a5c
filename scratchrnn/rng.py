"""Random numbers are passed in: a NumPy Generator, or a replay of torch's CPU generator that needs no torch.

Layers and initialisers take `rng=` and draw through `draw_uniform` and `draw_normal`, which accept either.

    >>> g = torch_manual_seed(0)           # as torch.manual_seed(0)
    >>> g.randn(2, 3)                      # as torch.randn(2, 3)
    array([[ 1.5409961 , -0.2934289 , -2.1787894 ],
           [ 0.56843126, -1.0845224 , -1.3985955 ]], dtype=float32)
    >>> g.uniform(-0.5, 0.5, (2, 2))       # as torch.empty(2, 2).uniform_(-0.5, 0.5), drawn next
    array([[-0.47767425, -0.33114105],
           [-0.20611155,  0.01852179]], dtype=float32)
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import Any, TypedDict

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scratchrnn._fma import fma
from scratchrnn._mt19937 import WORDS, MersenneTwister
from scratchrnn._torch_normal import block_pairs, single_pair
from scratchrnn._typing import DType, FloatArray
from scratchrnn._validate import check_array, check_dtype, check_int, check_real, describe

_BLOCK = 16  # torch fills tensors of at least this many normals in blocks of this size

Size = int | Sequence[int]


class TorchState(TypedDict):
    """All that a TorchGenerator remembers, as integers and arrays that a weight file can hold."""

    seed: int
    words: NDArray[np.uint32]  # (624,)
    position: int  # of the next word, 0 to 624
    next_normal: NDArray[np.float64]  # (1,), or (0,) when no second half of a pair is waiting


def torch_manual_seed(seed: int) -> TorchGenerator:
    """Return a generator whose draws equal torch's after `torch.manual_seed(seed)`.

    Parameters
    ----------
    seed : int
        From -2**63 to 2**64 - 1, as in torch; a negative one stands for `seed + 2**64`. The bit stream
        depends on the low 32 bits only, there as here.

    Raises
    ------
    TypeError
        `seed` is no integer. (torch.manual_seed also takes 1.7 or "1", and means 1.)
    ValueError
        `seed` is out of range.
    """
    return TorchGenerator(seed)


class TorchGenerator:
    """torch's CPU generator in NumPy: the same bits for any order of calls, any size and both dtypes.

    Build it with `torch_manual_seed`. Independent of every other generator; two threads must not share one.

    Notes
    -----
    The bits are those of torch 2.13 on x86-64 with AVX2 (checked on Linux), also where torch's own differ. On
    a machine without AVX2, or under `ATEN_CPU_CAPABILITY=default`, about half of torch's `uniform_` values
    and of its float64 `normal_` values below 16 elements are rounded differently in the last place, and
    float32 normals of 16 elements and more differ by up to 20 * 2**-23 * std; the rest is the same.

    float64 normals, and float32 ones below 16 elements, go through the C library's log, sin and cos, as in
    torch, and so depend on that library in the same way. Above, each element costs some 200 ns in float32 and
    400 ns in float64.

    Below 16 elements normals come in pairs, whose second half waits for the next such draw, of either dtype.
    `torch.randn(...)` fills contiguous tensors; filling a strided one in place with `normal_` takes torch
    another path, which is not replayed.
    """

    def __init__(self, seed: int) -> None:
        seed = check_int("seed", seed, least=-(2**63))
        if seed >= 2**64:
            raise ValueError(f"seed: expected an integer below 2**64; got {seed}")
        self._seed = seed % 2**64
        self._stream = MersenneTwister(self._seed % 2**32)
        self._next_normal: float | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}(seed={self._seed})"

    @property
    def seed(self) -> int:
        """The seed, 0 to 2**64 - 1: torch's `initial_seed()`."""
        return self._seed

    def uniform(
        self, low: float = 0.0, high: float = 1.0, size: Size = (), dtype: DTypeLike = np.float32
    ) -> FloatArray:
        """Draw from U[low, high), as `torch.empty(size, dtype=dtype).uniform_(low, high)`.

        Parameters
        ----------
        low, high : float
            low <= high; rounded to `dtype` first.
        size : int or tuple of int
            Shape of the result; nothing is drawn where it holds a 0.
        dtype : dtype
            float32 or float64.

        Returns
        -------
        ndarray of shape `size`

        Raises
        ------
        ValueError
            Bounds in the wrong order or not finite in `dtype`; or `low` or the width is not 0 but beyond
            2**-800 to 2**800, where torch's rounding is not replayed.
        """
        kind = check_dtype("dtype", dtype)
        shape = _check_size(size)
        low, high = _check_bounds(low, high, kind)
        _check_replayed("low", low)
        _check_replayed("high - low", high - low)
        bottom, top = kind.type(low), kind.type(high)
        values = fma(self._stream.uniform(math.prod(shape), kind), float(top - bottom), float(bottom))
        values[values == top] = bottom  # as torch: rounding must not let the open end in
        return values.reshape(shape)

    def normal(self, mean: float = 0.0, std: float = 1.0, size: Size = (), dtype: DTypeLike = np.float32) -> FloatArray:
        """Draw from N(mean, std^2), as `torch.empty(size, dtype=dtype).normal_(mean, std)`.

        Parameters
        ----------
        mean, std : float
            std >= 0.
        size : int or tuple of int
            Shape of the result; nothing is drawn where it holds a 0.
        dtype : dtype
            float32 or float64.

        Returns
        -------
        ndarray of shape `size`

        Raises
        ------
        ValueError
            `std` is negative; either is not finite in `dtype`; or either is not 0 but beyond 2**-800 to
            2**800, where torch's rounding is not replayed.
        """
        kind = check_dtype("dtype", dtype)
        shape = _check_size(size)
        mean, std = _check_moments(mean, std, kind)
        _check_replayed("mean", mean)
        _check_replayed("std", std)
        count = math.prod(shape)
        if count >= _BLOCK:
            values = self._normal_blocks(count, mean, std, kind)
        else:
            singles = np.array([self._next_single_normal() for _ in range(count)], dtype=np.float64)
            values = fma(singles, std, mean).astype(kind)
        return values.reshape(shape)

    def randn(self, *size: Any, dtype: DTypeLike = np.float32) -> FloatArray:
        """Draw standard normals, as `torch.randn(*size, dtype=dtype)`.

        Parameters
        ----------
        *size : int, or one tuple of int
            Shape of the result; `randn(())` and `randn()` return an array of shape ().
        dtype : dtype
            float32 or float64.
        """
        if len(size) == 1 and not isinstance(size[0], Integral):
            size = size[0]
        return self.normal(0.0, 1.0, size, dtype)

    def get_state(self) -> TorchState:
        """Return a copy of the state, from which `set_state` continues exactly."""
        words, position = self._stream.get_state()
        waiting = [] if self._next_normal is None else [self._next_normal]
        return {
            "seed": self._seed,
            "words": words,
            "position": position,
            "next_normal": np.array(waiting, dtype=np.float64),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Continue from a state that `get_state` returned, of this or another generator.

        Raises
        ------
        ValueError, TypeError
            An entry is missing, unknown, or not of the form that `get_state` returns; nothing is changed
            then.
        """
        expected = sorted(TorchState.__annotations__)
        if not isinstance(state, dict):
            raise TypeError(f"state: expected a dict; got {describe(state)}")
        if sorted(map(str, state)) != expected:
            raise ValueError(f"state: expected the keys {expected}; got {sorted(map(str, state))}")
        words, waiting = state["words"], state["next_normal"]
        if not isinstance(words, np.ndarray) or words.dtype != np.uint32 or words.shape != (WORDS,):
            wanted = f"a uint32 array of shape ({WORDS},)"
            raise ValueError(f"state['words']: expected {wanted}; got {describe(words)}")
        position = check_int("state['position']", state["position"], least=0)
        if position > WORDS:
            raise ValueError(f"state['position']: expected at most {WORDS}; got {position}")
        seed = check_int("state['seed']", state["seed"], least=0)
        if seed >= 2**64:
            raise ValueError(f"state['seed']: expected an integer below 2**64; got {seed}")
        check_array("state['next_normal']", waiting, dtype=np.dtype(np.float64))
        if waiting.shape not in ((0,), (1,)):
            raise ValueError(f"state['next_normal']: expected shape (0,) or (1,); got {waiting.shape}")
        self._seed = seed
        self._stream.set_state(words, position)
        self._next_normal = float(waiting[0]) if waiting.size else None

    def _next_single_normal(self) -> float:
        if self._next_normal is not None:
            value, self._next_normal = self._next_normal, None
            return value
        u_1, u_2 = self._stream.uniform(2, np.dtype(np.float64)).tolist()
        value, self._next_normal = single_pair(u_1, u_2)
        return value

    def _normal_blocks(self, count: int, mean: float, std: float, dtype: DType) -> FloatArray:
        whole = count // _BLOCK * _BLOCK
        uniforms = self._stream.uniform(count, dtype)
        values = np.empty(count, dtype)
        values[:whole] = _fill_blocks(uniforms[:whole], mean, std)
        if whole < count:  # torch then draws the last 16 anew, over the end of the last whole block
            values[-_BLOCK:] = _fill_blocks(self._stream.uniform(_BLOCK, dtype), mean, std)
        return values


Rng = np.random.Generator | TorchGenerator


def check_rng(name: str, rng: object) -> Rng:
    """Return `rng`, or a freshly seeded NumPy Generator for None.

    Raises
    ------
    TypeError
        Anything else, a seed included: who draws from which stream must be visible where the stream is made.
    """
    if rng is None:
        return np.random.default_rng()
    if isinstance(rng, (np.random.Generator, TorchGenerator)):
        return rng
    seed = str(rng) if isinstance(rng, Integral) else "seed"
    raise TypeError(
        f"{name}: expected None, np.random.Generator or scratchrnn.rng.TorchGenerator; got {describe(rng)} "
        f"(use np.random.default_rng({seed}), or scratchrnn.rng.torch_manual_seed({seed}) for torch's draws)"
    )


def draw_uniform(rng: Rng, low: float, high: float, size: Size, dtype: DTypeLike) -> FloatArray:
    """Draw from U[low, high) with either kind of generator.

    Parameters
    ----------
    rng : np.random.Generator or TorchGenerator
        NumPy's draws in float64 and the values are rounded, so that both dtypes see the same ones (in float32
        one in 2**25 rounds up to `high`). TorchGenerator draws as torch does in that dtype.
    low, high : float
        low <= high.
    size : int or tuple of int
        Shape of the result.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        As `check_rng` and `TorchGenerator.uniform`.
    """
    kind = check_dtype("dtype", dtype)
    source = check_rng("rng", rng)
    if isinstance(source, TorchGenerator):
        return source.uniform(low, high, size, kind)
    low, high = _check_bounds(low, high, kind)
    return np.asarray(source.uniform(low, high, _check_size(size)), dtype=kind)


def draw_normal(rng: Rng, mean: float, std: float, size: Size, dtype: DTypeLike) -> FloatArray:
    """Draw from N(mean, std^2) with either kind of generator.

    Parameters
    ----------
    rng : np.random.Generator or TorchGenerator
        As in `draw_uniform`.
    mean, std : float
        std >= 0.
    size : int or tuple of int
        Shape of the result.
    dtype : dtype
        float32 or float64.

    Raises
    ------
    TypeError, ValueError
        As `check_rng` and `TorchGenerator.normal`.
    """
    kind = check_dtype("dtype", dtype)
    source = check_rng("rng", rng)
    if isinstance(source, TorchGenerator):
        return source.normal(mean, std, size, kind)
    mean, std = _check_moments(mean, std, kind)
    return np.asarray(source.normal(mean, std, _check_size(size)), dtype=kind)


def _fill_blocks(uniforms: FloatArray, mean: float, std: float) -> FloatArray:
    """Turn blocks of 16 uniforms into normals: the first 8 of a block pair with its last 8."""
    blocks = uniforms.reshape(-1, 2, _BLOCK // 2)
    pairs = block_pairs(blocks[:, 0], blocks[:, 1])
    return fma(np.stack(pairs, axis=1).reshape(-1), std, mean)


def _check_size(size: Size) -> tuple[int, ...]:
    entries = (size,) if isinstance(size, Integral) else size
    if not isinstance(entries, (tuple, list)):
        raise TypeError(f"size: expected an integer or a tuple of integers; got {describe(size)}")
    return tuple(check_int("size", entry, least=0) for entry in entries)


def _check_bounds(low: float, high: float, dtype: DType) -> tuple[float, float]:
    low, high = check_real("low", low), check_real("high", high)
    if low > high:
        raise ValueError(f"low: expected at most high={high}; got {low}")
    largest = float(np.finfo(dtype).max)
    if max(abs(low), abs(high), high - low) > largest:
        wanted = f"bounds and width within {dtype.name}'s range"
        raise ValueError(f"low, high: expected {wanted}; got {low} and {high}")
    return low, high


def _check_moments(mean: float, std: float, dtype: DType) -> tuple[float, float]:
    mean, std = check_real("mean", mean), check_real("std", std, least=0.0)
    if max(abs(mean), std) > float(np.finfo(dtype).max):
        raise ValueError(f"mean, std: expected values within {dtype.name}'s range; got {mean} and {std}")
    return mean, std


def _check_replayed(name: str, value: float) -> None:
    if value != 0.0 and not 2.0**-800 <= abs(value) <= 2.0**800:
        wanted = "0 or a magnitude of 2**-800 to 2**800, where torch's rounding is replayed"
        raise ValueError(f"{name}: expected {wanted}; got {value}")
