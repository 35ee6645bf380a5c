"""Reports as tables for a terminal of 80 columns; measuring is elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from scratchrnn.check.grid import Check
from scratchrnn.check.report import CheckReport, Row
from scratchrnn.check.where import split

ORDER = (
    "output", "h_n", "c_n", "h", "c", "i", "f", "g", "o", "a", "dh", "dc", "da", "dx", "dh_0", "dc_0",
    "dweight_ih", "dweight_hh", "dbias_ih", "dbias_hh", "dweight_hr",
)  # fmt: skip

PLACE = 22  # the longest name of a place, which cannot be wrapped


def print_configurations(console: Console, checks: Sequence[Check]) -> None:
    """One row per configuration: the largest float64 error, and the quantity nearest to its bound."""
    dtypes = _dtypes(checks)
    heads = {"layers": 6, "dirs": 4}
    _print(console, _table(heads, dtypes, "nearest to its bound"))
    for kind in dict.fromkeys(check.kind for check in checks):
        table = _table(heads, dtypes, "", header=False)
        own = [check for check in checks if check.kind == kind]
        for layers, directions in dict.fromkeys((c.layers, c.directions) for c in own):
            same = [c for c in own if (c.layers, c.directions) == (layers, directions)]
            pairs = [(c.report.dtype, row) for c in same for row in c.report.rows]
            _add(table, [str(layers), str(directions)], dtypes, pairs, quantity=True)
        console.print(Text(kind, style="bold"))
        _print(console, table)
    console.print()


def print_quantities(console: Console, reports: Sequence[CheckReport], compared: str = "torch") -> None:
    """One row per quantity, over all configurations, layers and directions; `compared` names the other float32."""
    dtypes = list(dict.fromkeys(report.dtype for report in reports))
    table = _table({"quantity": 12}, dtypes, "nearest to its bound", compared=compared)
    groups: dict[str, list[tuple[str, Row]]] = {}
    for report in reports:
        for row in report.rows:
            groups.setdefault(split(row.quantity)[0], []).append((report.dtype, row))
    for name in sorted(groups, key=_order):
        _add(table, [name], dtypes, groups[name], quantity=False)
    _print(console, table)


def print_everything(console: Console, check: Check) -> None:
    """Every quantity of one check."""
    table = _plain_table()
    for column in ("quantity", "ours", "torch", "allowed", "loop", "worst at"):
        table.add_column(column, justify="left" if column in {"quantity", "worst at"} else "right", no_wrap=True)
    for row in check.report.rows:
        place = row.problem or row.where
        numbers = (row.ours, row.torch, row.allowed, row.loop)
        table.add_row(row.quantity, *map(_error, numbers), place, style=None if row.ok else "red")
    console.print(Text(check.title, style="bold"))
    _print(console, table)
    console.print()


def print_failures(console: Console, checks: Iterable[Check]) -> None:
    """What fails in the first of them that fails, with both values; how much more does."""
    failed = [check for check in checks if not check.report.ok]
    if not failed:
        return
    table = _plain_table()
    for head in ("quantity", "error", "worst at", "ours", "torch"):
        table.add_column(head, justify="left" if head in {"quantity", "worst at"} else "right")
    for row in failed[0].report.failures:
        place = row.problem or row.where
        if not row.oracle_ok:
            place += f"; torch.nn and the torch cell loop differ by {_error(row.loop)}"
        values = ("", "") if row.problem else (f"{row.got:.6g}", f"{row.want:.6g}")
        table.add_row(row.quantity, "" if row.problem else _error(row.ours), place, *values)
    console.print(Text(failed[0].title, style="bold red"))
    _print(console, table)
    console.print()
    if len(failed) > 1:
        console.print(f"{len(failed) - 1} more checks fail; --verbose or --json for all of it")


def print_errors(console: Console, title: str, columns: Sequence[str], errors: Mapping[str, Sequence[float]]) -> None:
    """One row per quantity, one column per step or gate."""
    if not errors:
        return
    table = _plain_table()
    table.add_column(title, no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for quantity in sorted(errors, key=_order):
        table.add_row(quantity, *(f"{error:.0e}" if error else "0" for error in errors[quantity]))
    console.print(table)


def _print(console: Console, table: Table) -> None:
    """Print what fits, without the last columns if need be: a number cut short would be another number."""
    endless = console.options.update(max_width=10_000)
    while len(table.columns) > 2 and console.measure(table, options=endless).minimum > console.width:
        table.columns.pop()
    console.print(table)


def _dtypes(checks: Sequence[Check]) -> list[str]:
    return list(dict.fromkeys(check.report.dtype for check in checks))


def _order(quantity: str) -> int:
    """What comes out, what happens at each step, gradients."""
    plain = quantity.rstrip("'")
    return 2 * ORDER.index(plain) + (plain != quantity) if plain in ORDER else 2 * len(ORDER)


def _plain_table(header: bool = True) -> Table:
    return Table(
        box=box.SIMPLE_HEAD if header else None, show_header=header, show_edge=False, pad_edge=False,
        padding=(0, 1, 0, 0) if header else (0, 2, 0, 0),
    )  # fmt: skip


def _table(
    heads: Mapping[str, int], dtypes: Sequence[str], last: str, header: bool = True, compared: str = "torch"
) -> Table:
    table = _plain_table(header)
    for head, width in heads.items():
        table.add_column(head, width=width, justify="left" if head == "quantity" else "right")
    if "float64" in dtypes:
        table.add_column("float64", width=7, justify="right")
    if "float32" in dtypes:
        for head, width in (("float32", 7), (compared, 7), ("ratio", 5)):
            table.add_column(head, width=width, justify="right")
    table.add_column(last, min_width=PLACE)
    return table


def _add(
    table: Table, heads: Sequence[str], dtypes: Sequence[str], pairs: Sequence[tuple[str, Row]], *, quantity: bool
) -> None:
    """A row for the worst of `pairs`, red if one of them fails."""
    dtype, worst = max(pairs, key=lambda pair: (not pair[1].ok, pair[1].used))
    cells = list(heads)
    if "float64" in dtypes:
        cells.append(_error(max(row.ours for d, row in pairs if d == "float64")))
    if "float32" in dtypes:
        rows = [row for d, row in pairs if d == "float32"]
        row = worst if dtype == "float32" else max(rows, key=lambda row: (not row.ok, row.used))
        cells += [_error(row.ours), _error(row.torch), _ratio(row)]
    name = worst.quantity if quantity else split(worst.quantity)[1]
    cells.append(f"{name} {worst.where or worst.problem}".strip())
    table.add_row(*cells, style=None if worst.ok else "red")


def _ratio(row: Row) -> str:
    ratio = row.ours / row.torch if row.torch else None
    return "–" if ratio is None else f"{ratio:.1f}" if ratio < 1000 else f"{ratio:.0e}"


def _error(value: float | None) -> str:
    return "–" if value is None else "0" if value == 0 else f"{value:.1e}"
