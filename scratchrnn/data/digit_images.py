"""Handwritten digits read step by step: 1797 images of 8 × 8 pixels, which scikit-learn ships.

    rows     x_t = row t of the image,   T = 8,  I = 8
    pixels   x_t = pixel t, row by row,  T = 64, I = 1

Dimensions: N images, T time, I input.
"""

from __future__ import annotations

import importlib
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_dtype

Part = Literal["train", "test"]
Reading = Literal["rows", "pixels"]

_SIDE = 8
_WHITEST = 16  # pixels are whole numbers from 0 to 16
_TRAINING = 1437  # four fifths; what train_test_split(test_size=0.2, shuffle=False) of scikit-learn trains on


def digits(
    part: Part = "train", reading: Reading = "rows", *, dtype: DTypeLike = np.float32
) -> tuple[FloatArray, NDArray[np.int64]]:
    """Images of digits as sequences, to be classified at the end.

    Parameters
    ----------
    part : "train" or "test"
        The first 1437 images, or the other 360, always in the same order.
    reading : "rows" or "pixels"
        One row of the image in each step, or one pixel.
    dtype : float32 or float64

    Returns
    -------
    inputs : ndarray (8, N, 8) or (64, N, 1)
        Brightness from 0 to 1 in steps of 1/16, exact in either dtype.
    targets : ndarray (N,) of int64
        The digit, 0 to 9.

    Raises
    ------
    ImportError
        scikit-learn is not installed; the message says what to install.
    TypeError, ValueError
        Another part, reading or dtype.

    Notes
    -----
    Baseline: ln 10 = 2.303 nats for guessing, about one answer in ten right. MNIST's images have 784 pixels, these 64:
    no result on sequential MNIST compares with one on them.

    References
    ----------
    Alpaydin, Kaynak, "Optical recognition of handwritten digits", UCI Machine Learning Repository, 1998 (the test set).
    Le, Jaitly, Hinton, "A simple way to initialize recurrent networks of rectified linear units", 2015 (by pixels).
    """
    _check_choice("part", part, get_args(Part))
    _check_choice("reading", reading, get_args(Reading))
    kind = check_dtype("dtype", dtype)
    images, labels = _load()
    chosen = slice(None, _TRAINING) if part == "train" else slice(_TRAINING, None)
    size = _SIDE if reading == "rows" else 1
    sequences = images[chosen].reshape(-1, _SIDE * _SIDE // size, size).swapaxes(0, 1)  # (T, N, I)
    return np.ascontiguousarray(sequences / _WHITEST, dtype=kind), labels[chosen].astype(np.int64)


def _load() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Images (1797, 64) and labels (1797,)."""
    try:
        datasets: Any = importlib.import_module("sklearn.datasets")
    except ImportError as error:
        raise ImportError(
            f"scikit-learn, which brings the digits, cannot be imported ({error}): pip install 'scratchrnn[digits]'"
        ) from None
    return datasets.load_digits(return_X_y=True)


def _check_choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected {' or '.join(map(repr, choices))}; got {value!r}")
