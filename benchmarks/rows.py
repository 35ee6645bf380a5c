"""Rows of results: JSON lines, one for each engine and case that was timed, and what is read off them.

A ratio is the other engine's median time over ours in the same run: above 1, ours is faster.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import others
from cases import CELLS, DTYPES, MODES, OVERHEAD, Case, Shape

Row = dict[str, Any]
FIELDS = ("B", "T", "D", "H", "cell", "mode", "dtype")
RIVAL = {"infer": "torch", "train": "torch", "trace": "torch-loop"}
OURS = "scratchrnn-numba"


def read(path: Path) -> list[Row]:
    """All rows of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def append(path: Path, new: Iterable[Row]) -> None:
    """Add rows at the end of a file; a killed run leaves the rows that were written before."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in new)


def last_run(rows: Sequence[Row]) -> list[Row]:
    """The rows of the run that was appended last."""
    return [row for row in rows if row["run"] == rows[-1]["run"]] if rows else []


def timings(rows: Iterable[Row]) -> list[Row]:
    """The rows that carry times, not the machine's ceiling."""
    return [row for row in rows if row["kind"] == "time"]


def case_of(row: Row) -> Case:
    """The case that a row times."""
    return Case(**{name: row[name] for name in FIELDS})


def shape_of(row: Row) -> Shape:
    """(B, T, D, H)."""
    return row["B"], row["T"], row["D"], row["H"]


def key(row: Row) -> tuple[Any, ...]:
    """What two rows must share for their times to be compared."""
    return (*(row[name] for name in FIELDS), row["threads"])


def disturbed(row: Row) -> bool:
    """Whether other programs took cores that this row's threads needed."""
    return others.disturbed(row["waited"])


def by_engine(rows: Iterable[Row]) -> dict[tuple[Any, ...], dict[str, Row]]:
    """Per case and number of threads, each engine's row, all of one run: only those alternated with each other.

    Of several runs, the one with most engines counts, then one that nobody disturbed, then the last: never the faster.
    """
    runs: dict[tuple[Any, ...], dict[str, dict[str, Row]]] = {}
    for row in timings(rows):
        runs.setdefault(key(row), {}).setdefault(row["run"], {})[row["engine"]] = row

    def rank(run: tuple[int, dict[str, Row]]) -> tuple[int, bool, int]:
        place, engines = run
        return len(engines), not any(map(disturbed, engines.values())), place

    return {case: max(enumerate(found.values()), key=rank)[1] for case, found in runs.items()}


def ratio(engines: dict[str, Row], ours: str = OURS, theirs: str | None = None) -> float | None:
    """Their median over ours, or None where one of the two is missing."""
    mode = next(iter(engines.values()))["mode"]
    other = engines.get(theirs or RIVAL[mode])
    return other["p50"] / engines[ours]["p50"] if other and ours in engines else None


def geometric_mean(values: Sequence[float]) -> float:
    """The n-th root of the product: a ratio and its inverse weigh the same."""
    if not values:
        raise ValueError("values: expected at least one")
    return math.exp(sum(map(math.log, values)) / len(values))


def ratios(rows: Iterable[Row], ours: str = OURS, theirs: str | None = None) -> list[tuple[Row, float]]:
    """Our row and the ratio of every case that both engines have, the overhead row left out.

    `waited` of the row handed out is the larger of the two engines'.
    """
    found = []
    for engines in by_engine(rows).values():
        r = ratio(engines, ours, theirs)
        if r is not None and shape_of(engines[ours]) != OVERHEAD:
            other = engines[theirs or RIVAL[engines[ours]["mode"]]]
            waited = max((row["waited"] for row in (other, engines[ours]) if row["waited"] is not None), default=None)
            found.append((engines[ours] | {"waited": waited}, r))
    return found


def means(rows: Iterable[Row], ours: str = OURS, theirs: str | None = None) -> dict[tuple[Any, ...], list[float]]:
    """Undisturbed ratios per (dtype, cell, mode, threads), in the order of a table."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row, r in ratios(rows, ours, theirs):
        if disturbed(row):
            continue
        groups.setdefault((row["dtype"], row["cell"], row["mode"], row["threads"]), []).append(r)
    order = [(d, c, m) for d in DTYPES for c in CELLS for m in MODES]
    return dict(sorted(groups.items(), key=lambda item: (order.index(item[0][:3]), item[0][3])))


def describe_shape(shape: Shape) -> str:
    """A shape as the tables print it."""
    return "(" + ",".join(map(str, shape)) + ")"


def seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, factor in (("s ", 1.0), ("ms", 1e3)):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e6:.3g} µs"


def summary(rows: Sequence[Row], ours: str = OURS) -> str:
    """The run as text: losses first, then every ratio, the geometric means, and the overhead of a call."""
    rows = list(rows)
    lines = [f"ratio = time of torch / time of {ours}; above 1, ours is faster. trace: torch's loop over a cell"]
    found = ratios(rows, ours)
    lost = sorted(((r, row) for row, r in found if r < 1), key=lambda pair: pair[0])
    lines.append(f"\nLosses: {len(lost)} of {len(found)}")
    lines += [f"  {r:5.2f}{'*' if disturbed(row) else ' '} {case_of(row)}, threads {row['threads']}" for r, row in lost]

    table: dict[tuple[str, str, int], dict[Shape, dict[str, str]]] = {}
    for row, r in found:
        block = table.setdefault((row["dtype"], row["cell"], row["threads"]), {})
        block.setdefault(shape_of(row), {})[row["mode"]] = f"{r:.2f}{'*' if disturbed(row) else ' '}"
    for (dtype, cell, threads), block in table.items():
        lines.append(f"\n{cell} {dtype}, threads {threads}" + "".join(f"{mode:>9} " for mode in MODES))
        for shape, by_mode in block.items():
            cells = (f"{by_mode.get(mode, ''):>10}" for mode in MODES)
            lines.append(f"  {describe_shape(shape):<28}" + "".join(cells))

    if any(disturbed(row) for row, _ in found):
        lines.append("\n* other programs took cores that it needed: read nothing into it; not in the means")
    lines.append("\nGeometric means")
    for (dtype, cell, mode, threads), values in means(rows, ours).items():
        text = f"{geometric_mean(values):6.2f}   of {len(values)}, least {min(values):.2f}"
        lines.append(f"  {cell:<9}{mode:<6}{dtype}, threads {threads}: {text}")

    small = [row for row in timings(rows) if shape_of(row) == OVERHEAD]
    if small:
        lines.append(f"\nOne call at {describe_shape(OVERHEAD)}, µs")
        for row in small:
            what = f"{row['cell']:<9}{row['mode']:<6}threads {row['threads']}"
            lines.append(f"  {what}  {row['engine']:<17}{row['p50'] * 1e6:8.1f}")
    return "\n".join(lines)
