"""The goals for an H100 or H200, one by one, from a run's rows: met, missed or not measured; then everything else.

    python benchmarks/cuda_summary.py benchmarks/results/gpu.jsonl

Markdown. Ours is the engine that the rule takes. A ratio is their median over ours, both of one run; of several runs,
the last that has both. What failed is said, not left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import cuda_cases
import rows as row_file
from cases import Shape
from cuda_cases import GOALS, Goal
from rows import Row

GOAL_DEVICES = ("H100", "H200")
Cells = dict[tuple[str, Shape, str], list[dict[str, Row]]]  # cell, shape, mode -> per run: engine -> row


def by_cell(rows: Sequence[Row]) -> Cells:
    """Rows of kind "cuda-time", those of one run together, runs in order; a trace that was cut stands at its full T."""
    found: dict[tuple[str, Shape, str], dict[str, dict[str, Row]]] = {}
    for row in rows:
        if row["kind"] == "cuda-time":
            shape = (row["B"], row.get("cut_from_steps") or row["T"], row["D"], row["H"])
            found.setdefault((row["cell"], shape, row["mode"]), {}).setdefault(row["run"], {})[row["engine"]] = row
    return {key: list(runs.values()) for key, runs in found.items()}


def pair(runs: Sequence[dict[str, Row]], first: str, second: str) -> tuple[Row | None, Row | None]:
    """Both engines' rows of the last run in which both were timed; else of the last run, None for what it lacks."""
    whole = [run for run in runs if all("p50" in run.get(name, {}) for name in (first, second))]
    last = (whole or list(runs) or [{}])[-1]
    return last.get(first), last.get(second)


def why_not(row: Row | None) -> str | None:
    """Why a row has no time; None if it has one."""
    if row is None:
        return "not measured"
    if "wrong" in row:
        return f"WRONG, not timed: {row['wrong']}"
    return None if "p50" in row else f"failed: {row.get('failed', 'no reason given')}"


def verdict(goal: Goal, cells: Cells) -> tuple[str, str]:
    """What was measured for a goal, and met, missed or not measured."""
    ours, theirs = pair(cells.get(("lstm", goal.shape, goal.mode), []), cuda_cases.CHOSEN, goal.rival)
    for who, row in (("ours", ours), (goal.rival, theirs)):
        reason = why_not(row)
        if reason is not None:
            return f"{who}: {reason}", "not measured"
    if ours is None or theirs is None:
        raise AssertionError("a row without a reason is there")
    ratio = theirs["p50"] / ours["p50"]
    cut = f", on {ours['T']} of {goal.shape[1]} steps" if ours.get("cut_from_steps") else ""
    times = f"{row_file.seconds(theirs['p50']).strip()} / {row_file.seconds(ours['p50']).strip()}{cut}"
    elsewhere = "" if on_goal_device(ours) else f" on {device_of(ours)}, which no goal is about"
    return f"{ratio:.2f}× ({times})", ("met" if ratio >= goal.at_least else "missed") + elsewhere


def device_of(row: Row) -> str:
    """Name of the GPU."""
    return (row["machine"].get("gpu") or {}).get("name", "an unnamed device")


def on_goal_device(row: Row) -> bool:
    """Whether the goals speak of this device."""
    return any(name in device_of(row) for name in GOAL_DEVICES)


def step_time(cells: Cells) -> tuple[str, str]:
    """Microseconds of a step of the persistent forward pass, from its kernel's time, else from the whole call's."""
    runs = cells.get(("lstm", cuda_cases.STEP_SHAPE, "infer"), [])
    row = next((run[cuda_cases.PERSISTENT] for run in reversed(runs) if cuda_cases.PERSISTENT in run), None)
    reason = why_not(row)
    if row is None or reason is not None:
        return reason or "not measured", "not measured"
    kernels = [k["microseconds"] for k in row.get("kernels") or [] if "persistent_forward" in k["name"]]
    took, what = (sum(kernels), "the kernel") if kernels else (row["p50"] * 1e6, "the whole call")
    step = took / row["T"]
    elsewhere = "" if on_goal_device(row) else f" on {device_of(row)}, which no goal is about"
    return f"{step:.2f} µs by {what}", ("met" if step < cuda_cases.STEP_MICROSECONDS else "missed") + elsewhere


def errors(cells: Cells) -> Iterator[tuple[str, float, float, float]]:
    """Shape and mode, our error, cuDNN's with TF32 off, and the ratio: wherever both were measured."""
    for (cell, shape, mode), runs in cells.items():
        ours, theirs = pair(runs, cuda_cases.CHOSEN, cuda_cases.CUDNN)
        if ours is not None and theirs is not None and "error" in ours and "error" in theirs:
            ratio = ours["error"] / theirs["error"] if theirs["error"] else float(ours["error"] > 0)
            name = f"{cell} {row_file.describe_shape(shape)} {cuda_cases.MODE[mode]}"
            yield name, ours["error"], theirs["error"], ratio


def error_goal(cells: Cells) -> tuple[str, str]:
    """The worst ratio of errors."""
    found = list(errors(cells))
    if not found:
        return "not measured", "not measured"
    name, ours, theirs, ratio = max(found, key=lambda item: item[3])
    text = f"worst of {len(found)}: {ratio:.2f}× ({ours:.2g} / {theirs:.2g}) at {name}"
    return text, "met" if ratio <= cuda_cases.ERROR_FACTOR else "missed"


def goals(cells: Cells) -> list[str]:
    """A table of the goals."""
    lines = ["| goal | wanted | measured | verdict |", "| --- | --- | --- | --- |"]
    for goal in GOALS:
        what = f"{row_file.describe_shape(goal.shape)} {cuda_cases.MODE[goal.mode]}, {goal.rival} / ours"
        lines.append(f"| {what} | ≥ {goal.at_least:g}× | {' | '.join(verdict(goal, cells))} |")
    step = f"{row_file.describe_shape(cuda_cases.STEP_SHAPE)} a step of the persistent forward"
    lines.append(f"| {step} | < {cuda_cases.STEP_MICROSECONDS:g} µs | {' | '.join(step_time(cells))} |")
    wanted = f"≤ {cuda_cases.ERROR_FACTOR:g}×"
    lines.append(f"| error against float64, ours / {cuda_cases.CUDNN} | {wanted} | {' | '.join(error_goal(cells))} |")
    return lines


def medians(cells: Cells) -> list[str]:
    """Every engine's median in the last run of a cell."""
    names = (*cuda_cases.OURS, cuda_cases.CUDNN, cuda_cases.CUDNN_TF32, cuda_cases.LOOP)
    lines = [f"| case | {' | '.join(names)} |", "|" + " --- |" * (len(names) + 1)]
    for (cell, shape, mode), runs in cells.items():
        found = []
        for name in names:
            row = next((run[name] for run in reversed(runs) if name in run), None)
            found.append("" if row is None else row_file.seconds(row["p50"]) if "p50" in row else "**failed**")
        lines.append(f"| {cell} {row_file.describe_shape(shape)} {cuda_cases.MODE[mode]} | {' | '.join(found)} |")
    return lines


def meetings(rows: Sequence[Row]) -> list[str]:
    """Microseconds of a meeting, by number of blocks; the last row of each counts."""
    last = {(row["how"], row["blocks"]): row for row in rows if row["kind"] == "cuda-barrier"}
    ways = list(dict.fromkeys(how for how, _ in last))
    lines = [f"| blocks | {' | '.join(ways)} |", "|" + " --- |" * (len(ways) + 1)]
    for blocks in sorted({blocks for _, blocks in last}):
        found = []
        for how in ways:
            row = last.get((how, blocks))
            found.append("" if row is None else f"{row['microseconds']:.2f}" if "microseconds" in row else "**failed**")
        lines.append(f"| {blocks} | {' | '.join(found)} |")
    return lines if last else ["not measured"]


def troubles(rows: Sequence[Row]) -> list[str]:
    """What failed or was wrong, each with its reason."""
    found = []
    for row in rows:
        reason = row.get("wrong") or row.get("failed") if row["kind"] in ("cuda-time", "cuda-barrier") else None
        if reason is not None:
            meeting = row["kind"] == "cuda-barrier"
            what = f"{row['how']}, {row['blocks']} blocks" if meeting else f"{row['engine']}: {row_file.case_of(row)}"
            found.append(f"- {what}: {reason}")
    return list(dict.fromkeys(found)) or ["none"]


def summary(rows: Sequence[Row]) -> str:
    """Everything, as Markdown."""
    cells = by_cell(rows)
    measured: list[dict[str, Any]] = [row for row in rows if row["kind"] in ("cuda-time", "cuda-barrier")]
    devices = sorted({device_of(row) for row in measured}) or ["no GPU: nothing was measured"]
    commits = sorted({str(row["commit"]) for row in measured})
    parts = [
        ("# GPU: goals and measurements", [f"Device: {', '.join(devices)}. Commit: {', '.join(commits) or 'none'}."]),
        ("## Goals", goals(cells)),
        ("## Medians", medians(cells) if cells else ["not measured"]),
        ("## A meeting, µs", meetings(rows)),
        ("## Failed or wrong", troubles(measured)),
    ]
    return "\n\n".join("\n".join([title, "", *lines]) for title, lines in parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the summary; 2 if there is no such file."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", type=Path, help="rows of one or several runs")
    options = p.parse_args(arguments)
    found = options.file.exists()
    if not found:
        print(f"{options.file}: no such file: nothing was measured", file=sys.stderr)
    print(summary(row_file.read(options.file) if found else []))
    return 0 if found else 2


if __name__ == "__main__":
    sys.exit(main())
