"""Compare results: commit against commit, or engine against engine.

    python benchmarks/compare.py BEFORE.jsonl AFTER.jsonl           one engine, its time before over its time after
    python benchmarks/compare.py RUN.jsonl --engines torch jax      two engines of one run, first's time over second's

Of each file, only the last run is read (--run all: every run, later rows replacing earlier ones).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rows as row_file
from rows import Row

NOISE = 0.05  # a change whose quantiles overlap, or smaller than this, is not called one


def verdict(before: Row, after: Row) -> str:
    """Faster, slower, or the same within noise: medians 5 % apart and the ranges p20 to p80 not overlapping."""
    ratio = before["p50"] / after["p50"]
    if ratio > 1 + NOISE and after["p80"] < before["p20"]:
        return "faster"
    if ratio < 1 / (1 + NOISE) and after["p20"] > before["p80"]:
        return "slower"
    return "same"


def pairs(before: Sequence[Row], after: Sequence[Row], first: str, second: str) -> list[tuple[Row, Row]]:
    """Rows of the same case and threads: of engine `first` in `before`, of `second` in `after`."""
    olds, news = row_file.by_engine(before), row_file.by_engine(after)
    return [
        (olds[key][first], news[key][second])
        for key in olds
        if key in news and first in olds[key] and second in news[key]
    ]


def report(found: Sequence[tuple[Row, Row]]) -> str:
    """One line for each pair, and the geometric means."""
    if not found:
        return "no case in common"
    lines, groups = [], dict[tuple[Any, ...], list[float]]()
    first, second = found[0]
    lines.append(
        f"{first['engine']} at {first['commit']} / {second['engine']} at {second['commit']}; >1: the second is faster"
    )
    if first["machine"] != second["machine"]:
        lines.append("WARNING: two machines; the ratios say nothing about the code")
    for a, b in found:
        ratio = a["p50"] / b["p50"]
        groups.setdefault((a["dtype"], a["cell"], a["mode"], a["threads"]), []).append(ratio)
        star = "*" if row_file.disturbed(a) or row_file.disturbed(b) else " "
        times = f"{row_file.seconds(a['p50']):>9} {row_file.seconds(b['p50']):>9}"
        name = f"{row_file.case_of(a)}, threads {a['threads']}"
        lines.append(f"{name:<58}{times} {ratio:7.2f}{star} {verdict(a, b)}")
    lines.append("geometric means")
    for (dtype, cell, mode, threads), values in groups.items():
        mean = row_file.geometric_mean(values)
        lines.append(f"  {cell:<9}{mode:<6}{dtype}, threads {threads}: {mean:6.2f}   of {len(values)}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the comparison; 2 if there is nothing to compare."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("files", nargs="+", type=Path, metavar="FILE", help="one or two files of rows")
    p.add_argument("--engines", nargs="+", default=None, help="one engine for two files, two for one file")
    p.add_argument("--run", choices=["last", "all"], default="last")
    options = p.parse_args(arguments)
    engines = options.engines or ([row_file.OURS] if len(options.files) == 2 else ["torch", row_file.OURS])
    if len(options.files) > 2 or len(engines) > 2:
        p.error("expected at most two files and at most two engines")
    read = [row_file.read(path) for path in options.files]
    if options.run == "last":
        read = [row_file.last_run(rows) for rows in read]
    found = pairs(read[0], read[-1], engines[0], engines[-1])
    print(report(found))
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
