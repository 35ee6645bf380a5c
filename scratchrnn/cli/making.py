"""One study from its settings to its folder: what `scratchrnn study` does once, and a sweep several times."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scratchrnn.cli.signals import Wishes
from scratchrnn.cli.terminal import FAILED, InputError, print_error, user_input

if TYPE_CHECKING:
    from scratchrnn.cli.progress import Display
    from scratchrnn.study import Progress, Settings


class StudyWishes(Wishes):
    """The first ends the training, the second the measurements; the third interrupts.

    `doing` says what is being done, and so what a wish does.
    """

    patience = 2

    def __init__(self) -> None:
        super().__init__()
        self.doing = ""

    def watch(self, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The same `tell`, noting what is being done."""

        def noting(progress: Progress) -> None:
            self.doing = progress.doing
            tell(progress)

        return noting

    def answer(self) -> str:
        """What the wish that has just come will do."""
        if self.doing == "write the report":
            return f"the report is being written; {'twice' if self.count == 1 else 'once'} more to give it up"
        if self.doing == "train" and self.count == 1:
            return "stopping and measuring what was reached; once more to skip that"
        return "stopping; writing what was reached"


@dataclass(frozen=True)
class Source:
    """A text and its name."""

    text: str
    name: str

    @classmethod
    def of(cls, path: Path | None) -> Source:
        """Read a file, or the default text."""
        from scratchrnn import data

        if path is None:
            return cls(data.default_text(), data.DEFAULT_TEXT_NAME)
        return cls(data.read_text(path), path.name)


def make_study(
    source: Source, settings: Settings, out: Path, wishes: StudyWishes, display: Display, *, force: bool
) -> dict[str, Any]:
    """Run a study and write its folder; what is printed of it."""
    start = time.perf_counter()
    from scratchrnn.report import render
    from scratchrnn.study import run
    from scratchrnn.study.folder import RESULTS, complete_steps, is_study, sibling, weights
    from scratchrnn.study.record import summary, to_json

    results = run(source.text, settings, text_name=source.name, tell=wishes.watch(display.tell), stop=wishes)
    if results.stopped and not results.steps_done and is_study(out):
        print_error(f"{results.stopped} before the first step; {out} is as it was")
        raise typer.Exit(wishes.exit_code or FAILED)
    wishes.doing = "write the report"
    there = complete_steps(out)
    if results.stopped and there >= results.steps_done and there and not force:
        kept, out = out, sibling(out)
        display.say(f"{kept} holds a complete study of {there} steps and stays as it is; writing to {out}")
    display.say("writing the report" if not results.stopped else f"{results.stopped}; writing what was reached")
    files = render(results) | weights(results)
    files[RESULTS] = to_json(results, [*files, RESULTS])
    write(out, files)
    return {
        "out": str(out),
        "report": str(out / "report.html"),
        **summary(results),
        "seconds": time.perf_counter() - start,
    }


def write(out: Path, files: Mapping[str, bytes]) -> None:
    """Write the study; where that fails, into a temporary folder, so that what was trained is not lost."""
    from scratchrnn.study.folder import write_folder

    try:
        write_folder(out, files)
    except OSError as error:
        message = f"{out}: cannot be written: {error.strerror}"
        with user_input():
            rescue = Path(tempfile.mkdtemp(prefix="scratchrnn-study-"))
            write_folder(rescue, files)
        raise InputError(f"{message}; the study is in {rescue}") from None
