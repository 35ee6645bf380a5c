"""What is timed: the grid of shapes, and for each the arithmetic and the least memory traffic that it needs.

B batch   T time   D input   H hidden   G gates (4 for the LSTM, 1 for the RNN)
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Shape = tuple[int, int, int, int]  # B, T, D, H

CELLS = ("lstm", "rnn_tanh")
GATES = {"lstm": 4, "rnn_tanh": 1}
# infer: output and final state, nothing kept
# train: forward, and the gradient of the input, the initial state and every parameter
# trace: train, and every state with its gradient at every time step
MODES = ("infer", "train", "trace")
DTYPES = ("float32", "float64")

GRID: tuple[Shape, ...] = (
    (1, 100, 64, 64),
    (1, 500, 128, 128),
    (1, 1000, 256, 256),
    (3, 77, 19, 37),
    (16, 100, 64, 64),
    (20, 35, 650, 650),
    (32, 100, 128, 128),
    (32, 100, 256, 256),
    (50, 25, 87, 100),
    (64, 100, 512, 512),
    (64, 50, 1024, 1024),
    (128, 28, 28, 128),
    (8, 1000, 1, 32),
    (256, 50, 64, 64),
)
FLOAT64: tuple[Shape, ...] = ((3, 77, 19, 37), (16, 100, 64, 64), (32, 100, 128, 128))
OVERHEAD: Shape = (1, 1, 64, 64)  # next to no arithmetic: what a call costs by itself
# enough of the grid to see every regime, small enough for two minutes on two cores
QUICK: tuple[Shape, ...] = (
    (1, 100, 64, 64),
    (3, 77, 19, 37),
    (16, 100, 64, 64),
    (32, 100, 128, 128),
    (128, 28, 28, 128),
)


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    B: int
    T: int
    D: int
    H: int
    cell: str
    mode: str
    dtype: str

    @property
    def shape(self) -> Shape:
        """(B, T, D, H)."""
        return self.B, self.T, self.D, self.H

    @property
    def rows(self) -> int:
        """G·H, rows of a weight matrix."""
        return GATES[self.cell] * self.H

    @property
    def truth_key(self) -> str:
        """Cases with the same key have the same inputs and the same true results, whatever their dtype and mode."""
        return f"{self.cell}-" + "x".join(map(str, self.shape))

    def record(self) -> dict[str, Any]:
        """Fields as a dict, for a row or a message to another process."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.cell} {self.mode} {self.dtype} ({','.join(map(str, self.shape))})"


def cases(
    shapes: Iterable[Shape] = GRID,
    cells: Iterable[str] = CELLS,
    modes: Iterable[str] = MODES,
    float64: Iterable[Shape] = FLOAT64,
    overhead: bool = True,
) -> list[Case]:
    """Cases in the order in which they are timed: those that share a truth stand together."""
    shapes, modes, float64 = list(shapes), list(modes), set(float64)
    if overhead and OVERHEAD not in shapes:
        shapes.insert(0, OVERHEAD)
    return [
        Case(*shape, cell, mode, dtype)
        for shape in shapes
        for cell in cells
        for dtype in DTYPES
        if dtype == "float32" or shape in float64
        for mode in modes
    ]


def flops(case: Case) -> int:
    """Multiplications and additions of the matrix products, 2 for each multiply-add; what is pointwise is left out.

    Forward, every step multiplies (B, D) by (D, G·H) and (B, H) by (H, G·H). Backward, each of these products leaves
    two: one for the gradient of the left factor, one for that of the weights.
    """
    forward = 2 * case.B * case.T * case.rows * (case.D + case.H)
    return forward if case.mode == "infer" else 3 * forward


def least_bytes(case: Case) -> int:
    """Bytes that must cross the edge of the machine's caches once, if everything else stayed inside them.

    Forward reads x, the weights and the initial state and writes the output and the final state. With gradients, the
    cotangents of output and final state are read, and the gradients of x, weights and initial state written. A trace
    also hands out c at every step and the gates (LSTM), and the gradients of h, c and the pre-activations.
    """
    states = 2 if case.cell == "lstm" else 1
    x, output = case.T * case.B * case.D, case.T * case.B * case.H
    weights = case.rows * (case.D + case.H + 2)
    state = states * case.B * case.H
    numbers = x + weights + state + output + state
    if case.mode != "infer":
        numbers += output + state + x + weights + state
    if case.mode == "trace":
        pre = case.T * case.B * case.rows
        h = output + case.B * case.H
        numbers += pre + states * h  # the gradients of pre-activations and states
        if case.cell == "lstm":
            numbers += h + pre  # c, and the gates
    return numbers * np.dtype(case.dtype).itemsize


@dataclass(frozen=True)
class Inputs:
    """All that an engine is given; the same numbers in every process."""

    x: Array  # (T, B, D)
    h_0: Array  # (1, B, H)
    c_0: Array | None  # (1, B, H) of an LSTM
    weights: dict[
        str, Array
    ]  # torch's names: weight_ih_l0 (G·H, D), weight_hh_l0 (G·H, H), bias_ih_l0, bias_hh_l0 (G·H,)
    d_output: Array  # (T, B, H)
    d_h_n: Array  # (1, B, H)
    d_c_n: Array | None  # (1, B, H) of an LSTM

    @property
    def state(self) -> Any:
        """The initial state as a layer takes it."""
        return self.h_0 if self.c_0 is None else (self.h_0, self.c_0)

    @property
    def d_state(self) -> Any:
        """The cotangent of the final state as a layer takes it."""
        return self.d_h_n if self.d_c_n is None else (self.d_h_n, self.d_c_n)


def inputs(case: Case, dtype: str | None = None) -> Inputs:
    """Draw a case's inputs. The numbers are float32 ones in either dtype, so both dtypes share one truth."""
    rng = np.random.default_rng(zlib.crc32(case.truth_key.encode()))
    wanted = np.dtype(dtype or case.dtype)

    def normal(*shape: int) -> Array:
        return rng.standard_normal(shape, np.float32).astype(wanted)

    def uniform(bound: float, *shape: int) -> Array:
        return rng.uniform(-bound, bound, shape).astype(np.float32).astype(wanted)

    lstm = case.cell == "lstm"
    bound = case.H**-0.5  # as torch initialises
    state = (1, case.B, case.H)
    weights = {
        "weight_ih_l0": uniform(bound, case.rows, case.D),
        "weight_hh_l0": uniform(bound, case.rows, case.H),
        "bias_ih_l0": uniform(bound, case.rows),
        "bias_hh_l0": uniform(bound, case.rows),
    }
    return Inputs(
        normal(case.T, case.B, case.D),
        uniform(1.0, *state),
        normal(*state) if lstm else None,
        weights,
        normal(case.T, case.B, case.H),
        normal(*state),
        normal(*state) if lstm else None,
    )
