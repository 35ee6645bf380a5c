"""What a study shows as it runs, on stderr: bars on a terminal, plain lines elsewhere; and its outcome, on stdout."""

from __future__ import annotations

import math
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from scratchrnn.study import Progress as Report
from scratchrnn.study import Settings

LINES = 12  # of plain progress in a whole training


class Display:
    """Shows `scratchrnn.study.Progress` as it comes."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.console = Console(stderr=True, highlight=False)
        self.bars: Progress | None = None
        self.tasks: dict[str, TaskID] = {}
        self.latest: dict[str, Report] = {}
        self.said = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end_bars()

    def say(self, line: str) -> None:
        """Print one line."""
        self._end_bars()
        self.console.print(escape(line), style="dim", soft_wrap=True)

    def tell(self, report: Report) -> None:
        """Show one report."""
        if report.doing != self.said:
            self.said = report.doing
            steps = f" for {self.settings.steps} steps" if report.doing == "train" else ""
            self.say(report.doing + steps)
            if report.doing == "train" and self.console.is_terminal:
                self._start_bars()
        if report.doing == "train" and report.step:
            self.latest[report.cell] = report
            if self.bars is not None:
                self.bars.update(self.tasks[report.cell], completed=report.step, shown=_losses(report))
            elif report.cell == self.settings.cells[-1] and self._due(report.step):
                models = "   ".join(f"{r.cell} {_losses(r)}" for r in self.latest.values())
                self.console.print(f"  step {report.step:>4}   {models}", soft_wrap=True)

    def _due(self, step: int) -> bool:
        return step == self.settings.steps or step % max(1, self.settings.steps // LINES) == 0

    def _start_bars(self) -> None:
        self.bars = Progress(
            TextColumn("[bold]{task.description:>4}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[shown]}"),
            TimeRemainingColumn(compact=True),
            console=self.console,
        )
        self.tasks = {
            c: self.bars.add_task(c.upper(), total=self.settings.steps, shown="") for c in self.settings.cells
        }
        self.bars.start()

    def _end_bars(self) -> None:
        if self.bars is not None:
            self.bars.stop()
            self.bars = None

    def show(self, found: dict[str, Any]) -> None:
        """Print the outcome on stdout."""
        console = Console(highlight=False)
        table = Table(box=None, pad_edge=False)
        table.add_column("")
        for cell in found["models"]:
            table.add_column(cell.upper(), justify="right")
        for key, title in (
            ("bits", f"bits per character, held out (no context, whole text: {found['unigram_bits']:.2f})"),
            ("horizon_on_text", "gradient horizon on the text, characters"),
            ("seed_rule", "effective memory, 1% of the largest gradient, random input"),
            ("horizon_on_random_input", "effective memory, corrected, random input"),
        ):
            table.add_row(title, *(_cell(model, key) for model in found["models"].values()))
        console.print(table)
        flags = {key.rsplit("_", 1)[-1] for model in found["models"].values() for key, value in model.items() if value}
        for flag, meaning in (("censored", "+ the measurement ends there"), ("exploding", "! the gradient explodes")):
            if flag in flags:
                console.print(meaning, style="dim")
        console.print(f"\n{escape(found['report'])}   [dim]({found['seconds']:.0f} s)[/]", soft_wrap=True)

    def show_sweep(self, found: dict[str, Any]) -> None:
        """Print the outcome of a sweep on stdout: a row for each study and model."""
        console = Console(highlight=False)
        table = Table(box=None, pad_edge=False)
        table.add_column(found["parameter"], justify="right")
        titles = {
            "bits": "bits held out",
            "horizon_on_text": "horizon, text",
            "horizon_on_random_input": "random input",
        }
        for title in ("", *titles.values()):
            table.add_column(title, justify="right")
        for value, study in found["studies"].items():
            for cell, model in study["models"].items():
                table.add_row(value, cell.upper(), *(_cell(model, key) for key in titles))
        console.print(table)
        console.print(f"\n{escape(found['report'])}   [dim]({found['seconds']:.0f} s)[/]", soft_wrap=True)


def _losses(report: Report) -> str:
    return (
        f"{report.bits:5.2f} bits, held out {report.validation_bits:.2f}, {report.characters_per_second / 1000:.0f}k/s"
    )


def _cell(model: dict[str, Any], key: str) -> str:
    value = model[key]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    sign = "!" if model.get(f"{key}_exploding") else "+" if model.get(f"{key}_censored") else ""
    return f"{value:.2f}" if key == "bits" else f"{value}{sign}"
