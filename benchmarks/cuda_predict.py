"""What is predicted for an H100, before anything was measured; and, once it was, what was measured beside it.

    python benchmarks/cuda_predict.py                               the tables of predictions-cuda.md
    python benchmarks/cuda_predict.py --write                       put them into predictions-cuda.md
    python benchmarks/cuda_predict.py benchmarks/results/gpu.jsonl  measured beside predicted

Ours: clocks of a step as kernels/cuda/plan.py estimates them, at 1.98 GHz; the products over all steps at 60 % of the
float32 peak; 20 µs for launches. What the host needs to issue a call is left out.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cuda_cases
import cuda_plan
import rows as row_file
from cases import Case, Shape
from rows import Row

PAGE = Path(__file__).resolve().parent / "predictions-cuda.md"
BEGIN, END = "<!-- tables: python benchmarks/cuda_predict.py --write -->", "<!-- end of the tables -->"


@dataclass(frozen=True)
class Known:
    """What is known or guessed of cuDNN's time for a shape and mode."""

    low: float  # milliseconds
    high: float
    source: str  # a letter of the page's list of sources


CUDNN: dict[tuple[Shape, str], Known] = {
    ((1, 1000, 256, 256), "infer"): Known(5, 9, "e"),
    ((16, 512, 512, 512), "infer"): Known(3, 5, "e"),
    ((44, 1125, 40, 160), "infer"): Known(37.6, 37.6, "b"),
    ((44, 1125, 40, 160), "train"): Known(55.6, 55.6, "b"),
    ((62, 2058, 16, 168), "infer"): Known(156.9, 156.9, "b"),
    ((62, 2058, 16, 168), "train"): Known(194.9, 194.9, "b"),
    ((16, 1024, 768, 768), "infer"): Known(2.0, 2.0, "f"),
    ((16, 1024, 768, 768), "train"): Known(5.2, 5.2, "f"),
    ((16, 1024, 768, 768), "trace"): Known(484, 484, "f"),
    ((64, 256, 1024, 1024), "infer"): Known(3.5, 4.5, "e"),
    ((128, 512, 512, 512), "infer"): Known(5, 6, "e"),
}


def _case(shape: Shape, mode: str) -> Case:
    return Case(*shape, "lstm", mode, "float32")


def _goal(shape: Shape, mode: str) -> float | None:
    return next((goal.at_least for goal in cuda_cases.GOALS if (goal.shape, goal.mode) == (shape, mode)), None)


def _span(low: float, high: float, digits: int = 3) -> str:
    return f"{low:.{digits}g}" if low == high else f"{low:.{digits}g} to {high:.{digits}g}"


def _microseconds(clocks: int | None) -> str:
    return "does not fit" if clocks is None else f"{clocks / cuda_plan.HERTZ * 1e6:.2f}"


def _table(head: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + " --- |" * len(head), *(f"| {' | '.join(cells)} |" for cells in body)]


def steps(device: Any) -> list[str]:
    """Microseconds of a time step, by shape and direction."""
    body = []
    for shape in cuda_cases.GRID:
        for direction, plan in cuda_plan.decision("lstm", shape[0], shape[3], device).items():
            layout = f"{plan['units']} × {plan['blocks']} × {plan['groups']}" if "units" in plan else ""
            body.append([
                row_file.describe_shape(shape), direction, _microseconds(plan["per_step_clocks"]),
                _microseconds(plan["persistent_clocks"]), plan["engine"].replace("_", " "), layout,
            ])  # fmt: skip
    return _table(
        ["(B,T,D,H)", "direction", "per step, µs", "persistent, µs", "rule takes", "units × blocks × groups"], body
    )


def totals(device: Any) -> list[str]:
    """Milliseconds of a call beside what is known of cuDNN."""
    body = []
    for shape in cuda_cases.GRID:
        for mode in ("infer", "train", "trace"):
            ours = cuda_plan.predicted(_case(shape, mode), device)
            known, goal = CUDNN.get((shape, mode)), _goal(shape, mode)
            if ours is None:
                continue
            comparable = known is not None and (known.source != "f" or mode == "trace")
            body.append([
                row_file.describe_shape(shape), cuda_cases.MODE[mode], f"{ours * 1e3:.3g}",
                "" if known is None else f"{_span(known.low, known.high)} ({known.source})",
                _span(known.low / ours / 1e3, known.high / ours / 1e3, 2) if comparable and known is not None else "",
                "" if goal is None else f"{goal:g}",
            ])  # fmt: skip
    return _table(["(B,T,D,H)", "mode", "ours, ms", "torch, ms (source)", "ratio", "goal"], body)


def variants(device: Any) -> list[str]:
    """Clocks of a step of each variant that fits a shape, by the parts of plan.py's estimate."""
    body: list[list[str]] = []
    gains: dict[str, list[float]] = {name: [] for name in VARIANTS}
    for shape in cuda_cases.GRID:
        for backward in (False, True):
            found = variant_clocks(shape[0], shape[3], backward, device)
            if found is None:
                continue
            now = found.pop("now")
            cells = [f"{found[name]} ({now / found[name]:.1f}×)" if name in found else "" for name in VARIANTS]
            direction = "backward" if backward else "forward"
            body.append([row_file.describe_shape(shape), direction, str(now), *cells])
            if any(goal.shape == shape and goal.mode != "trace" for goal in cuda_cases.GOALS):
                for name in VARIANTS:
                    gains[name].append(now / found.get(name, now))
    means = [f"{row_file.geometric_mean(gains[name]):.2f}×" for name in VARIANTS]
    body.append(["shapes with goals against cuDNN", "both", "", *means])
    return _table(["(B,T,D,H)", "direction", "now", *VARIANTS], body)


VARIANTS = ("data-as-flag", "cluster", "TF32 mma", "gate-split clusters")
ROUND_TRIP = 1000  # clocks of one write and one read through the second cache: what remains of a meeting and a staging
IN_CLUSTER = 500  # clocks of a cluster's barrier and a read of another block's shared memory
CLUSTER = 16  # blocks of the largest cluster (not portable; 8 is)
MMA = 4  # times faster than FMAs, of 8 by the data sheet


def variant_clocks(batch: int, hidden: int, backward: bool, device: Any) -> dict[str, int] | None:
    """Clocks now, and with each variant that makes sense there; None where no persistent kernel fits."""
    rule = cuda_plan.module()
    plan = rule.persistent("lstm", batch, hidden, backward, device)
    if plan is None:
        return None
    latency = rule.STAGE + (rule.MEET + rule.ARRIVE * plan.blocks if plan.blocks > 1 else 0)
    bytes_ = 4 * plan.per_group * plan.tile.columns // rule.BYTES_PER_CLOCK
    multiply = plan.stride * plan.tile.clocks
    found = {"now": plan.clocks}
    if plan.blocks > 1:
        found["data-as-flag"] = plan.clocks - latency + ROUND_TRIP
        if plan.blocks <= CLUSTER:
            found["cluster"] = plan.clocks - latency + IN_CLUSTER
    if plan.per_group >= 8:
        found["TF32 mma"] = plan.clocks - multiply + multiply // MMA
    if backward and plan.blocks > 1 and bytes_ > IN_CLUSTER:
        found["gate-split clusters"] = plan.clocks - bytes_ + bytes_ // 4 + IN_CLUSTER
    return found


def tables() -> str:
    """All tables, as Markdown."""
    device = cuda_plan.h100()
    parts = [
        ("A time step", steps(device)),
        ("A call", totals(device)),
        ("Variants, clocks of a step", variants(device)),
    ]
    return "\n\n".join("\n".join([f"### {title}", "", *lines]) for title, lines in parts)


def beside(rows: Sequence[Row]) -> str:
    """Measured beside predicted, a line for each row of ours that was timed; predictions for the device of the row."""
    body, device = [], cuda_plan.h100()
    for row in rows:
        if row["kind"] != "cuda-time" or row["engine"] not in cuda_cases.OURS or "p50" not in row:
            continue
        case = row_file.case_of(row)
        engine = {cuda_cases.PER_STEP: "per_step", cuda_cases.PERSISTENT: "persistent"}.get(row["engine"])
        expected = cuda_plan.predicted(case, device, engine)
        if expected is None:
            continue
        name = (row["machine"].get("gpu") or {}).get("name", "?")
        body.append([
            row_file.describe_shape(case.shape), case.cell, cuda_cases.MODE[case.mode], row["engine"],
            f"{row['p50'] * 1e3:.3g}", f"{expected * 1e3:.3g}", f"{row['p50'] / expected:.2f}",
            f"{row['p50'] / case.T * 1e6:.2f}", f"{row.get('sm_clock_mhz') or '?'}", name,
        ])  # fmt: skip
    if not body:
        return "no row of ours that was timed on a GPU: nothing to compare"
    head = ["(B,T,D,H)", "cell", "mode", "engine", "measured, ms", "predicted, ms", "measured/predicted", "µs a step"]
    return "\n".join(_table([*head, "SM MHz after", "device"], body))


def main(arguments: Sequence[str] | None = None) -> int:
    """Print or write the tables, or compare; 2 if there is nothing to compare."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("file", nargs="?", type=Path, help="rows of a run: measured beside predicted")
    p.add_argument("--write", action="store_true", help="put the tables into predictions-cuda.md")
    options = p.parse_args(arguments)
    if options.file is not None:
        text = beside(row_file.read(options.file)) if options.file.exists() else f"{options.file}: no such file"
        print(text)
        return 0 if text.startswith("|") else 2
    if options.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        _, _, after = rest.partition(END)
        PAGE.write_text(f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}", encoding="utf-8")
    else:
        print(tables())
    return 0


if __name__ == "__main__":
    sys.exit(main())
