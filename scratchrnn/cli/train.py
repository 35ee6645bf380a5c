"""`scratchrnn train`: a character model on any text, from settings to the folder of a run."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn.cli.sample import MODEL
from scratchrnn.cli.signals import Wishes, asked_to_stop
from scratchrnn.cli.terminal import FAILED, InputError, print_error, user_input
from scratchrnn.train.config import KINDS, SETTINGS, Config, check_setting

if TYPE_CHECKING:
    from scratchrnn.models import CharModel
    from scratchrnn.train import Step, Trainer

CONFIG = "config.toml"
LINES = 12  # of plain progress in a whole training
METAVARS = {int: "N", float: "X", str: "NAME"}


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of a run, in place of its **options."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [_option(name) for name, setting in SETTINGS.items() if setting.option]
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return command


def _option(name: str) -> inspect.Parameter:
    setting, kind = SETTINGS[name], KINDS[name]
    default = Config.__dataclass_fields__[name].default
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=setting.help if default is None else f"{setting.help}  [{default}]",
        metavar=METAVARS.get(kind),
        rich_help_panel=setting.table.capitalize(),
    )
    annotation = Annotated[kind | None, option]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@_with_settings
def train(
    text: Annotated[
        Path | None, typer.Argument(metavar="TEXT", help="UTF-8 text.  [Python's own help texts]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = Path("scratchrnn-run"),
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings; options go before it.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out, with its settings.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    **options: Any,
) -> None:
    """Train a character model on a text, statefully: windows of k1 characters, gradients back through k2.

    The last tenth is held out. Writes config.toml (repeats the run), model.safetensors (the weights that did best on the
    text held out), log.jsonl, best.safetensors and checkpoints. Ctrl-C finishes the update and writes a checkpoint, from
    which --resume goes on to the same numbers as if nothing had been; twice gives up at once.

    Examples:

        $ scratchrnn train
        $ scratchrnn train book.txt --out book --hidden 512 --epochs 20
        $ scratchrnn train book.txt --out book --resume
        $ scratchrnn train book.txt --out rnn --cell rnn --k1 25 --k2 50 --clip 5
        $ scratchrnn train --config book/config.toml --out again --seed 1
        $ scratchrnn train --json | jq .held_out_bits
        $ scratchrnn sample book --prompt "The "
    """
    given = {name: value for name, value in options.items() if value is not None}
    with user_input():
        settings, source = _resume(text, out, config, given) if resume else _begin(text, out, config, given)
        model, trainer = _build(settings, source, out, resume)
        if not resume:
            _write_config(out, settings)
    with asked_to_stop(TrainWishes()) as wishes:
        try:
            _run(trainer, wishes)
        except _diverged() as error:
            kept = _newest(out)
            print_error(f"{error}; {f'{kept} is the last checkpoint' if kept else 'there was no checkpoint yet'}")
            raise typer.Exit(FAILED) from None
        except BrokenPipeError:
            raise
        except OSError as error:
            raise InputError(f"{error.filename or out}: cannot be written: {error.strerror or error}") from None
        if trainer.best is not None:
            trainer.restore_best()
        with user_input():
            model.save(out / MODEL)
    _show(out, trainer, as_json)
    if trainer.result.stopped == "asked" and trainer.done < trainer.steps:
        print_error(f"stopped; to go on: scratchrnn train --out {out} --resume")
        raise typer.Exit(wishes.exit_code)


class TrainWishes(Wishes):
    """The first ends the training after its update; the second interrupts."""

    patience = 1

    def answer(self) -> str:
        """What the wish that has just come will do."""
        return "finishing this update and writing a checkpoint; once more to give up at once"
