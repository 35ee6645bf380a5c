"""A bar on stderr: updates done, the loss, throughput, time left. Nothing where stderr is no terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from scratchrnn.train.records import Step, bits

if TYPE_CHECKING:
    from rich.progress import Progress


def on_terminal() -> bool:
    """Whether stderr is a terminal; a process without one, such as a service, may have no stderr at all."""
    return sys.stderr is not None and sys.stderr.isatty()


class Bar:
    """Shows how far a run has come.

    Parameters
    ----------
    total, done : int
        Updates in all, and those already made.
    shown : bool or None
        Whether there is a bar; when absent, where stderr is a terminal.
    nats : bool
        Whether losses are shown as bits.
    """

    def __init__(self, total: int, done: int, *, shown: bool | None, nats: bool) -> None:
        self.nats = nats
        self.held_out = ""
        self._bars: Progress | None = None
        if on_terminal() if shown is None else shown:
            self._start(total, done)

    def _start(self, total: int, done: int) -> None:
        # here, not above: rich takes as long to load as the rest of a short run
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bars = Progress(
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(compact=True),
            console=Console(stderr=True, highlight=False),
        )
        self._task = self._bars.add_task("train", total=total, completed=done, figures="")
        self._bars.start()

    def update(self, step: Step) -> None:
        """Show an update."""
        if self._bars is None:
            return
        if step.evaluation is not None:
            self.held_out = f", held out {self._loss(step.evaluation['loss'])}"
        figures = f"{self._loss(step.loss)}{self.held_out}   {step.items_per_second:,.0f}/s"
        self._bars.update(self._task, completed=step.number, figures=figures)

    def _loss(self, loss: float) -> str:
        return f"{bits(loss):.3f} bits" if self.nats else f"{loss:.4g}"

    def close(self) -> None:
        """Leave the bar as it stands."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None
