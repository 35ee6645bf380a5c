"""How much of the machine is used: each case's FLOP/s as a fraction of the best float32 matrix product of the same run.

    python benchmarks/roofline.py                   measure: the product, then the shapes with B >= 32 and H >= 128
    python benchmarks/roofline.py RUN.jsonl --all   read rows; every shape of the run

The ceiling is the faster of NumPy's and torch's product of two square matrices with the same number of threads. A
recurrence multiplies by the same weights at every step, so with a large batch and width it can come close; with B = 1
it is a matrix-vector product and bound by memory instead.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import rows as row_file
import run
from cases import GRID, Shape

LEAST_BATCH, LEAST_HIDDEN = 32, 128


def is_large(shape: Shape) -> bool:
    """Whether a shape has enough work in one step to be bound by arithmetic."""
    return shape[0] >= LEAST_BATCH and shape[3] >= LEAST_HIDDEN


def ceilings(rows: Sequence[row_file.Row]) -> dict[int, float]:
    """Per number of threads, the best FLOP/s that any library reached."""
    found: dict[int, float] = {}
    for row in rows:
        if row["kind"] == "sgemm":
            found[row["threads"]] = max(found.get(row["threads"], 0.0), *row["flops_per_second"].values())
    return found


def fraction(row: row_file.Row, ceiling: float) -> float:
    """Part of the ceiling that a float32 row reached."""
    return row["flops"] / row["p50"] / ceiling


def report(rows: Sequence[row_file.Row], every_shape: bool) -> str:
    """The ceilings, and a line for each case with every engine's fraction."""
    best = ceilings(rows)
    lines = [f"ceiling, threads {n}: {rate / 1e9:.0f} GFLOP/s" for n, rate in best.items()]
    for engines in row_file.by_engine(rows).values():
        row = next(iter(engines.values()))
        shape = row_file.shape_of(row)
        if row["dtype"] != "float32" or row["threads"] not in best or not (every_shape or is_large(shape)):
            continue
        ceiling = best[row["threads"]]
        parts = (f"{name} {fraction(r, ceiling):.2f}" for name, r in engines.items())
        star = "*" if row_file.disturbed(row) else " "
        lines.append(f"{row_file.case_of(row)!s:<45}threads {row['threads']}{star}  " + "  ".join(parts))
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print fractions of the ceiling."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", nargs="?", type=Path, help="rows of a run; without it, one is made now")
    p.add_argument("--all", action="store_true", help="every shape, not only those bound by arithmetic")
    options = p.parse_args(arguments)
    if options.file is not None:
        print(report(row_file.read(options.file), options.all))
        return 0
    shapes = [",".join(map(str, shape)) for shape in GRID if options.all or is_large(shape)]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "roofline.jsonl")
        code = run.main(["--shapes", *shapes, "--modes", "infer", "train", "--no-memory", "--out", str(out)])
        print("\n" + report(row_file.read(out), options.all))
    return code


if __name__ == "__main__":
    sys.exit(main())
