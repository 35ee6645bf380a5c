"""`scratchrnn study`: the main job, from options to a folder."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn.cli.terminal import FAILED, INTERRUPTED, print_error, user_input

if TYPE_CHECKING:
    pass


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
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="See `scratchrnn info`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that holds other files.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Train an RNN and an LSTM on one text, and look inside both: states, gates, gradients, memory.

    Writes report.html (one file, opens anywhere), results.json, figures and both models' weights. Ctrl-C stops the
    training and writes what was reached.

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
    from scratchrnn.study.folder import RESULTS, check_folder, is_study, weights, write_folder
    from scratchrnn.study.record import summary, to_json

    with user_input():
        changes: dict[str, Any] = {"seed": seed, "backend": backend, "hidden_size": hidden, "steps": steps}
        given = {name: value for name, value in changes.items() if value is not None}
        settings = Settings.quick(**given) if quick else Settings(**given)
        backends.load(backend)
        source = data.default_text() if text is None else data.read_text(text)
        settings.check_text(source)
        check_folder(out, force=force)

    name = data.DEFAULT_TEXT_NAME if text is None else text.name
    with asked_to_stop() as wishes, Display(settings) as display:
        results = run(source, settings, text_name=name, tell=display.tell, stop=wishes)
        if results.stopped and not results.steps_done and is_study(out):
            print_error(f"{results.stopped} before the first step; {out} is as it was")
            raise typer.Exit(INTERRUPTED if wishes() else FAILED)
        display.say("writing the report" if not results.stopped else f"{results.stopped}; writing what was reached")
        files = render(results) | weights(results)
        files[RESULTS] = to_json(results, [*files, RESULTS])
        with user_input():
            write_folder(out, files)

    found = {"out": str(out), "report": str(out / "report.html"), **summary(results)}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        display.show(found)
    if wishes():
        raise typer.Exit(INTERRUPTED)
    if results.stopped:
        print_error(results.stopped)
        raise typer.Exit(FAILED)


class Wishes:
    """How often Ctrl-C was pressed; at the third time it interrupts as it always did."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> int:
        """How often until now."""
        return self.count

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """Count, and say what that does. Written straight to the terminal: a signal may come inside a print."""
        self.count += 1
        if self.count == 3:
            raise KeyboardInterrupt
        says = "stopping and measuring what was reached; once more to skip that", "writing what was reached"
        os.write(2, f"\n{says[self.count - 1]}\n".encode())


@contextmanager
def asked_to_stop() -> Iterator[Wishes]:
    """Within the block Ctrl-C is a wish, to be asked for between two steps, so that nothing is left half done."""
    wishes = Wishes()
    before = signal.signal(signal.SIGINT, wishes.on_signal)
    try:
        yield wishes
    finally:
        signal.signal(signal.SIGINT, before)
