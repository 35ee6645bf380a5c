"""One figure from the rows: how many times faster than torch, for every shape.

python benchmarks/plot.py benchmarks/results/NAME.jsonl --out docs/benchmark.png
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import rows as row_file
from cases import GRID, Shape

PANELS = (("lstm", "infer"), ("lstm", "train"), ("rnn_tanh", "infer"), ("rnn_tanh", "train"))
TITLES = {"lstm": "LSTM", "rnn_tanh": "RNN", "infer": "inference", "train": "training step"}
# Okabe and Ito's blue and vermilion; the marker says the same again
COLOURS, MARKERS = ("#0072B2", "#D55E00"), ("o", "D")
TICKS = (0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128)


def label(shape: Shape) -> str:
    """A shape with the names of its sizes left to the axis."""
    return " · ".join(f"{size:,}".replace(",", " ") for size in shape)


def draw(rows: Sequence[row_file.Row], ours: str = row_file.OURS) -> Any:
    """The figure: a panel for each cell and mode, a row for each shape, a dot for each number of threads.

    A ratio that other programs disturbed has no dot.
    """
    found = [
        (row, r) for row, r in row_file.ratios(rows, ours) if row["dtype"] == "float32" and not row_file.disturbed(row)
    ]
    present = {row_file.shape_of(row) for row, _ in found}
    shapes = [shape for shape in GRID if shape in present] + sorted(present - set(GRID))
    threads = sorted({row["threads"] for row, _ in found})
    if not found or len(threads) > len(COLOURS):
        raise ValueError(f"rows: expected float32 ratios at one or two numbers of threads; got {threads}")
    place = {shape: len(shapes) - 1 - n for n, shape in enumerate(shapes)}
    wanted = [(row, r) for row, r in found if (row["cell"], row["mode"]) in PANELS]
    low, high = min(0.5, *(r for _, r in wanted)) / 1.25, max(2.0, *(r for _, r in wanted)) * 1.25

    plt.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figure, axes = plt.subplots(2, 2, figsize=(8, 8.6), dpi=200, sharex=True, sharey=True)
    for axis, (cell, mode) in zip(axes.flat, PANELS, strict=True):
        axis.axvspan(low, 1, color="0.93", zorder=0, linewidth=0)
        axis.axvline(1, color="0.3", linewidth=1)
        for n, count in enumerate(threads):
            here = [(row, r) for row, r in wanted if (row["cell"], row["mode"], row["threads"]) == (cell, mode, count)]
            offset = 0.17 * (1 - 2 * n) if len(threads) == 2 else 0.0
            for row, r in here:
                y = place[row_file.shape_of(row)] + offset
                axis.plot([1, r], [y, y], color=COLOURS[n], linewidth=1.2, alpha=0.45, zorder=1)
                axis.plot(r, y, color=COLOURS[n], marker=MARKERS[n], markersize=6, linestyle="none", zorder=2)
        axis.set_title(f"{TITLES[cell]}, {TITLES[mode]}", fontsize=11, loc="left", fontweight="bold")
        axis.grid(axis="x", color="0.88", linewidth=0.6)
        axis.set_axisbelow(True)
    first = axes[0, 0]
    ticks = [tick for tick in TICKS if low <= tick <= high]
    first.set_xscale("log", base=2)
    first.set_xlim(low, high)
    first.set_xticks(ticks, [f"{tick:g}×" for tick in ticks])
    first.set_yticks(list(place.values()), [label(shape) for shape in place])
    first.set_ylim(-0.7, len(shapes) - 0.3)
    for axis in axes[1]:
        axis.set_xlabel("torch's time / ours")
    handles = [
        plt.Line2D(
            [], [], color=COLOURS[n], marker=MARKERS[n], linestyle="none", label=f"{count} thread{'s'[: count > 1]}"
        )
        for n, count in enumerate(threads)
    ]
    cpu = found[0][0]["machine"]["cpu"]
    figure.text(0.02, 0.968, f"scratchrnn against torch.nn, float32, {cpu}", fontsize=12.5)
    figure.text(0.02, 0.942, "batch · time · input · hidden; right of the line, scratchrnn is faster", color="0.3")
    figure.legend(
        handles=handles, loc="upper right", ncols=3, frameon=False, bbox_to_anchor=(0.99, 0.992), handletextpad=0.2
    )
    figure.tight_layout(rect=(0, 0, 1, 0.945))
    return figure


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw the figure of one file's rows."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path)
    p.add_argument("--out", type=Path, default=Path("docs/benchmark.png"))
    options = p.parse_args(arguments)
    draw(row_file.read(options.file)).savefig(options.out)
    print(options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
