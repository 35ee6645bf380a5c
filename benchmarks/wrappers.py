"""What Zoneout and WeightDrop cost: forward and backward of the wrapped layer over those of the layer itself.

    SCRATCHRNN_NUM_THREADS=1 OMP_NUM_THREADS=1 python benchmarks/wrappers.py

float32, medians of 40 rounds in which all three take turns, compiled before the clock starts.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

import scratchrnn as srnn

SHAPES = ((1, 100, 64), (16, 100, 64), (32, 100, 128), (20, 35, 256), (64, 50, 512))  # B, T, D = H
ROUNDS = 40


def seconds(calls: list[Callable[[], None]]) -> list[float]:
    """Median time of each, taking turns."""
    taken: list[list[float]] = [[] for _ in calls]
    for round_ in range(ROUNDS + 1):
        for call, own in zip(calls, taken, strict=True):
            began = time.perf_counter()
            call()
            if round_:  # the first compiles
                own.append(time.perf_counter() - began)
    return [statistics.median(own) for own in taken]


def step(layer: srnn.RNN | srnn.LSTM | srnn.Zoneout | srnn.WeightDrop, x: np.ndarray) -> Callable[[], None]:
    """One training step, without an update."""

    def run() -> None:
        trace = layer.forward(x)
        layer.backward(trace, trace.output)

    return run


def main() -> None:
    """Measure and print."""
    rng = np.random.default_rng(0)
    for cell in (srnn.LSTM, srnn.RNN):
        for batch, steps, hidden in SHAPES:
            layer = cell(hidden, hidden, rng=rng)
            x = rng.standard_normal((steps, batch, hidden), np.float32)
            zoneout = srnn.Zoneout(layer, 0.1, 0.1 if cell is srnn.LSTM else 0.0, rng=rng)
            dropped = srnn.WeightDrop(layer, 0.5, rng=rng)
            own, kept, less = seconds([step(one, x) for one in (layer, zoneout, dropped)])
            print(
                f"{cell.__name__:<5}B={batch:<3} T={steps:<4} H={hidden:<4} layer {own / steps * 1e6:6.0f} µs a step, "
                f"Zoneout {kept / steps * 1e6:6.0f} ({kept / own:5.2f}x), WeightDrop {less / own:.2f}x"
            )


if __name__ == "__main__":
    main()
