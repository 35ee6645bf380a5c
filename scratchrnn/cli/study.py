"""`scratchrnn study`: the main job, from options to a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from scratchrnn.cli.making import Source, StudyWishes, make_study
from scratchrnn.cli.signals import asked_to_stop
from scratchrnn.cli.sweep import check_sweep, make_sweep
from scratchrnn.cli.terminal import FAILED, print_error, user_input


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
    sweep: Annotated[
        str | None, typer.Option("--sweep", metavar="NAME=A,B,…", help="A study for each value, and a page beside.")
    ] = None,
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
        $ scratchrnn study --sweep hidden=32,64,128 --cell lstm --out sizes
        $ scratchrnn study --backend cuda --out gpu
        $ scratchrnn study --quick --json | jq .models.lstm.bits
    """
    from scratchrnn import backends
    from scratchrnn.cli.progress import Display
    from scratchrnn.study import Settings
    from scratchrnn.study.folder import check_folder
    from scratchrnn.study.sweep import Sweep

    with user_input():
        changes: dict[str, Any] = {"seed": seed, "backend": backend, "hidden_size": hidden, "steps": steps}
        given = {name: value for name, value in changes.items() if value is not None}
        given["cells"] = _cells(cell)
        settings = Settings.quick(**given) if quick else Settings(**given)
        backends.load(settings.backend)
        wanted = None if sweep is None else Sweep.parse(sweep)
        source = Source.of(text)
        if wanted is None:
            settings.check_text(source.text)
            check_folder(out, steps=settings.steps, force=force)
        else:
            check_sweep(wanted, settings, source, out, force=force)

    with asked_to_stop(StudyWishes()) as wishes, Display(settings) as display:
        if wanted is None:
            found = make_study(source, settings, out, wishes, display, force=force)
        else:
            found = make_sweep(wanted, settings, source, out, wishes, force=force)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif wanted is None:
        display.show(found)
    else:
        display.show_sweep(found)
    if found["stopped"] and wishes():
        raise typer.Exit(wishes.exit_code)
    if found["stopped"]:
        print_error(found["stopped"])
        raise typer.Exit(FAILED)


def _cells(name: str) -> tuple[str, ...]:
    from scratchrnn.study.settings import CELLS

    if name not in ("both", *CELLS):
        raise ValueError(f"cell: expected 'rnn', 'lstm' or 'both'; got {name!r}")
    return CELLS if name == "both" else (name,)
