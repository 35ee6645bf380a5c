"""`scratchrnn study`: the main job, from options to a folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn.cli.signals import Wishes, asked_to_stop
from scratchrnn.cli.terminal import FAILED, InputError, print_error, user_input

if TYPE_CHECKING:
    from scratchrnn.study import Progress


def study(
    text: Annotated[
        Path | None, typer.Option("--text", metavar="FILE", help="UTF-8 text; default: Python's own help texts.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder to write.")] = Path("scratchrnn-study"),
    quick: Annotated[bool, typer.Option("--quick", help="Smaller models and fewer steps: seconds.")] = False,
    cell: Annotated[str, typer.Option("--cell", metavar="NAME", help="rnn, lstm or both.")] = "both",
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
        given["cells"] = _cells(cell)
        settings = Settings.quick(**given) if quick else Settings(**given)
        backends.load(settings.backend)
        source = data.default_text() if text is None else data.read_text(text)
        settings.check_text(source)
        check_folder(out, steps=settings.steps, force=force)

    name = data.DEFAULT_TEXT_NAME if text is None else text.name
    with asked_to_stop(StudyWishes()) as wishes, Display(settings) as display:
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


def _cells(name: str) -> tuple[str, ...]:
    from scratchrnn.study.settings import CELLS

    if name not in ("both", *CELLS):
        raise ValueError(f"cell: expected 'rnn', 'lstm' or 'both'; got {name!r}")
    return CELLS if name == "both" else (name,)


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
