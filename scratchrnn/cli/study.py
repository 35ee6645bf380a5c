"""`scratchrnn study`: the main job, from options to a folder."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn.cli.terminal import FAILED, InputError, print_error, user_input

if TYPE_CHECKING:
    from scratchrnn.study import Progress


def study(
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="UTF-8 text; default: Python's own help texts.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path("scratchrnn-study"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models and fewer steps: seconds.")] = False,
    hidden: Annotated[
        int | None, typer.Option(metavar="N", help="Hidden units of each model.  [128; quick: 64]")
    ] = None,
    steps: Annotated[int | None, typer.Option(metavar="N", help="Updates of each model.  [1200; quick: 200]")] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything random.")] = 0,
    backend: Annotated[
        str | None, typer.Option(metavar="NAME", help="See `scratchrnn info`.  [numba; quick: numpy]")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over other files, or over a larger study.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train an RNN and an LSTM on one text, and look inside both: states, gates, gradients, memory.

    Writes report.html (one file, opens anywhere), results.json, figures and both models' weights. Ctrl-C stops the
    training and writes what was reached; beside the folder, if that holds a complete study of as many steps.

    Examples:

        $ scratchrnn study
        $ scratchrnn study --quick --out /tmp/look
        $ scratchrnn study --text book.txt --hidden 256 --steps 3000 --out book
        $ scratchrnn study --quick --json | jq .models.lstm.bits
    """
    from scratchrnn import backends, data
    from scratchrnn.cli.progress import Display
    from scratchrnn.report import render
    from scratchrnn.study import Settings, run
    from scratchrnn.study.folder import RESULTS, check_folder, complete_steps, is_study, sibling, weights
    from scratchrnn.study.record import summary, to_json

    with user_input():
        changes: dict[str, Any] = {"seed": seed, "backend": backend, "hidden_size": hidden, "steps": steps}
        given = {name: value for name, value in changes.items() if value is not None}
        settings = Settings.quick(**given) if quick else Settings(**given)
        backends.load(settings.backend)
        source = data.default_text() if text is None else data.read_text(text)
        settings.check_text(source)
        check_folder(out, steps=settings.steps, force=force)

    name = data.DEFAULT_TEXT_NAME if text is None else text.name
    with asked_to_stop() as wishes, Display(settings) as display:
        results = run(source, settings, text_name=name, tell=wishes.watch(display.tell), stop=wishes)
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
        _write(out, files)

    found = {"out": str(out), "report": str(out / "report.html"), **summary(results)}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        display.show(found)
    if results.stopped and wishes():
        raise typer.Exit(wishes.exit_code)
    if results.stopped:
        print_error(results.stopped)
        raise typer.Exit(FAILED)


def _write(out: Path, files: Mapping[str, bytes]) -> None:
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


class Wishes:
    """How often it was wished to stop, by Ctrl-C or a signal to end; at the third time it interrupts.

    `doing` says what is being done, and so what a wish does; `exit_code` is that of the first wish, 0 without.
    """

    def __init__(self) -> None:
        self.count = 0
        self.exit_code = 0
        self.doing = ""

    def __call__(self) -> int:
        """How often until now."""
        return self.count

    def watch(self, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """The same `tell`, noting what is being done."""

        def noting(progress: Progress) -> None:
            self.doing = progress.doing
            tell(progress)

        return noting

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Count, and say what that does. Written straight to the terminal: a signal may come inside a print."""
        self.count += 1
        self.exit_code = self.exit_code or 128 + number
        if number not in {signal.SIGINT, signal.SIGTERM}:
            _leave_terminal()
        if self.count >= 3:
            signal.signal(number, signal.SIG_DFL)  # an exception may be lost where Python cannot raise it; then this
            raise KeyboardInterrupt
        with suppress(OSError):
            os.write(2, f"\n{self._answer()}\n".encode())

    def _answer(self) -> str:
        if self.doing == "write the report":
            return f"the report is being written; {'twice' if self.count == 1 else 'once'} more to give it up"
        if self.doing == "train" and self.count == 1:
            return "stopping and measuring what was reached; once more to skip that"
        return "stopping; writing what was reached"


def _leave_terminal() -> None:
    """The terminal has gone: nothing more is written to it, which would fail."""
    for stream in (1, 2):
        if os.isatty(stream):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)


@contextmanager
def asked_to_stop() -> Iterator[Wishes]:
    """Within the block a signal is a wish, to be asked for between two steps, so that nothing is left half done."""
    wishes = Wishes()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if os.name == "posix" and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, wishes.on_signal) for number in numbers}
    try:
        yield wishes
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
