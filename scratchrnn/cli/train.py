"""`scratchrnn train`: a character model on any text, from settings to the folder of a run."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import warnings
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn._files import TEMPORARY, remove_temporaries, write_atomically
from scratchrnn.cli.sample import MODEL
from scratchrnn.cli.signals import Wishes, asked_to_stop
from scratchrnn.cli.terminal import FAILED, InputError, print_error, print_warning, user_input
from scratchrnn.train.config import KINDS, SETTINGS, Config
from scratchrnn.train.progress import on_terminal

if TYPE_CHECKING:
    from scratchrnn.models import CharModel
    from scratchrnn.train import Step, Trainer

CONFIG = "config.toml"
LENGTH = ("steps", "epochs")
LINES = 12  # of plain progress in a whole training
METAVARS = {int: "N", float: "X", str: "NAME"}
DEFAULTS = {field.name: field.default for field in fields(Config)}


def _with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each setting of a run, in place of its **options."""
    own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
    options = [_option(name) for name, setting in SETTINGS.items() if setting.option]
    command.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    return command


def _option(name: str) -> inspect.Parameter:
    setting, kind, default = SETTINGS[name], KINDS[name], DEFAULTS[name]
    flag = f"--{name.replace('_', '-')}"
    option = typer.Option(
        f"{flag}/--no-{flag[2:]}" if kind is bool else flag,
        help=setting.meaning if default is None else f"{setting.meaning}  [{default}]",
        metavar=METAVARS.get(kind),
        rich_help_panel=setting.table.capitalize(),
    )
    annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


@_with_settings
def train(
    text: Annotated[
        Path | None, typer.Argument(metavar="TEXT", help="UTF-8 text.  [Python's own help texts]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the run.")] = Path("scratchrnn-run"),
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE.toml", help="Settings in TOML; options override them.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out; --steps or --epochs make it longer.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
    **options: Any,
) -> None:
    """Train a character model on a text, statefully: windows of k1 characters, gradients back through k2.

    The last tenth is held out. Writes config.toml (repeats the run), model.safetensors (the weights that did best on
    the text held out), log.jsonl, best.safetensors and checkpoints. Ctrl-C finishes the update and writes a checkpoint,
    from which --resume goes on to the same numbers as if nothing had been, given the same machine and versions, and
    for --backend numpy the same OMP_NUM_THREADS; twice gives up at once.

    Examples:

        $ scratchrnn train
        $ scratchrnn train book.txt --out book --hidden 512 --epochs 20
        $ scratchrnn train --out book --resume
        $ scratchrnn train --out book --resume --epochs 40
        $ scratchrnn train book.txt --out rnn --cell rnn --k1 25 --k2 50 --clip 5
        $ scratchrnn train book.txt --out gpu --backend cuda
        $ scratchrnn train --config book/config.toml --out again --seed 1
        $ scratchrnn train --json | jq .held_out_bits
        $ scratchrnn sample book --prompt "The "
    """
    from scratchrnn.train import DivergedError

    options = {name: value for name, value in options.items() if value is not None}
    length = options.keys() & set(LENGTH)
    with user_input():
        settings, source = (_go_on if resume else _begin)(text, out, config, options)
        model, trainer = _build(settings, source, out, resume)
        if length or not resume:
            _write_config(out, settings)
    with asked_to_stop(TrainWishes()) as wishes:
        try:
            _run(trainer, wishes, out)
            if trainer.best is not None:
                trainer.restore_best()
            model.save(out / MODEL)
        except DivergedError as error:
            print_error(f"{error}; {_last_checkpoint(out)}")
            raise typer.Exit(FAILED) from None
        except OSError as error:
            if error.errno is None:  # a message of our own
                raise InputError(str(error)) from None
            if error.filename is None:  # stderr has gone
                raise
            raise InputError(f"{error.filename}: cannot be written: {error.strerror}") from None
    _show(out, trainer, as_json)
    if trainer.result.stopped == "asked" and trainer.done < trainer.steps:
        typer.echo(f"stopped; to go on: scratchrnn train --out {shlex.quote(str(out))} --resume", err=True)
        raise typer.Exit(wishes.exit_code)


def _begin(text: Path | None, out: Path, config: Path | None, options: dict[str, Any]) -> tuple[Config, str]:
    """The settings of a new run, and its text."""
    from scratchrnn import data

    _refuse_what_is_there(out)
    settings = _given(config, options)
    if text is not None:
        settings = {n: v for n, v in settings.items() if n != "sha256"} | {"file": str(text)}
    file = settings.get("file")
    source = data.default_text() if file is None else data.read_text(file)
    digest = data.text_sha256(source)
    if settings.get("sha256", digest) != digest:
        raise InputError(
            f"{file or data.DEFAULT_TEXT_NAME}: expected the text that {config} names, with sha256 "
            f"{settings['sha256']}; got one with {digest}"
        )
    absolute = {} if file is None else {"file": str(Path(file).resolve())}
    return Config(**settings | absolute | {"sha256": digest}), source


def _go_on(text: Path | None, out: Path, config: Path | None, options: dict[str, Any]) -> tuple[Config, str]:
    """The settings of the run in a folder, of which nothing but its length may be given anew, and its text."""
    from scratchrnn import data
    from scratchrnn.train.config_file import read_settings

    if not (out / CONFIG).exists():
        raise InputError(f"{out}: holds no run to go on with, no {CONFIG}; to begin one leave out --resume")
    made_with = Config(**read_settings(out / CONFIG))
    length = {name: options[name] for name in LENGTH if name in options}  # a run may be made longer
    for name, value in _given(config, {n: v for n, v in options.items() if n not in length}).items():
        was = getattr(made_with, name)
        if name != "file" and value != was:
            raise InputError(
                f"{name}: the run in {out} was made {'without' if was is None else f'with {was}'}, and keeps its "
                f"settings; got {value}"
            )
    file = made_with.file if text is None else text
    source = data.default_text() if file is None else data.read_text(file)
    if data.text_sha256(source) != made_with.sha256:
        raise InputError(f"{file or data.DEFAULT_TEXT_NAME}: this is not the text that the run in {out} was made with")
    if length:
        made_with = replace(made_with, steps=length.get("steps"), epochs=length.get("epochs"))
    return made_with, source


def _given(config: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    """What a file and options say together; an option goes before the file, and `steps` before its `epochs`."""
    from scratchrnn.train.config_file import read_settings

    settings = {} if config is None else read_settings(config)
    if options.keys() & set(LENGTH):
        settings = {name: value for name, value in settings.items() if name not in LENGTH}
    return settings | options


def _refuse_what_is_there(out: Path) -> None:
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: expected a folder to write to; got a file")
        if (out / CONFIG).exists():
            raise InputError(
                f"{out}: holds a run; scratchrnn train --out {shlex.quote(str(out))} --resume goes on with it, "
                "a new one needs another --out"
            )
        if out.is_dir() and not all(TEMPORARY.fullmatch(path.name) for path in out.iterdir()):
            raise InputError(f"{out}: holds files that are not of a run; choose another --out")
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None


def _build(settings: Config, source: str, out: Path, resume: bool) -> tuple[CharModel, Trainer]:
    from scratchrnn import backends
    from scratchrnn.train.recipe import from_config

    backends.load(settings.backend)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", RuntimeWarning)
        model, trainer = from_config(settings, source, folder=out, resume=resume)
    for warning in caught:
        print_warning(str(warning.message))
    trainer.callbacks = (lambda trainer, step: _save_best(model, trainer, step, out), Lines(trainer.steps))
    return model, trainer


def _write_config(out: Path, settings: Config) -> None:
    from scratchrnn.train.config_file import to_toml

    try:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / CONFIG, to_toml(settings).encode())
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}") from None


def _run(trainer: Trainer, wishes: Wishes, out: Path) -> None:
    for n, _ in enumerate(trainer):
        if n == 0:  # no other process writes here now
            remove_temporaries(out, re.compile(f"{re.escape(CONFIG)}|{re.escape(MODEL)}"))
        if wishes():
            trainer.stop()


def _save_best(model: CharModel, trainer: Trainer, step: Step, out: Path) -> None:
    """Have the best weights so far in a file that opens by itself, while the run goes on."""
    if step.evaluation is not None and trainer.best is not None and trainer.best["step"] == step.number:
        model.save(out / MODEL)


def _last_checkpoint(out: Path) -> str:
    from scratchrnn.checkpoint import Checkpoints
    from scratchrnn.train.folder import CHECKPOINTS

    paths = [*Checkpoints(out / CHECKPOINTS).paths().values()]
    return f"the last checkpoint is {paths[-1]}" if paths else "there was no checkpoint yet"


class Lines:
    """Progress in a few plain lines on stderr, where that is no terminal; on one the trainer draws a bar."""

    def __init__(self, steps: int) -> None:
        self.steps, self.every = steps, max(1, steps // LINES)
        self.held_out = ""
        self.wanted = not on_terminal()

    def __call__(self, trainer: Trainer, step: Step) -> None:
        """Say how it stands after every twelfth of the run."""
        if step.evaluation is not None:
            self.held_out = f", held out {step.evaluation['bits']:.3f}"
        if self.wanted and (step.number % self.every == 0 or step.number == self.steps):
            speed = f"{step.items_per_second:,.0f} characters/s"
            typer.echo(f"step {step.number:>5}/{self.steps}   {step.bits:.3f} bits{self.held_out}   {speed}", err=True)


def _show(out: Path, trainer: Trainer, as_json: bool) -> None:
    """The outcome, on stdout."""
    from scratchrnn.train import NATS_PER_BIT

    result = trainer.result
    bits = None if result.best_loss is None else result.best_loss / NATS_PER_BIT
    if as_json:
        found = {
            "out": str(out),
            "model": str(out / MODEL),
            "held_out_bits": bits,
            "best_step": result.best_step,
            "steps": result.steps,
            "of_steps": trainer.steps,
            "stopped": result.stopped if result.steps < trainer.steps else None,
            "seconds": result.seconds,
        }
        typer.echo(json.dumps(found, indent=2))
        return
    quality = "not looked at" if bits is None else f"{bits:.3f} bits per character, after step {result.best_step}"
    typer.echo(f"held out: {quality}; {result.steps} of {trainer.steps} steps in {result.seconds:.0f} s")
    typer.echo(f"{out / MODEL}")


class TrainWishes(Wishes):
    """The first ends the training after its update; the second interrupts."""

    patience = 1

    def answer(self) -> str:
        """What the wish that has just come will do."""
        return "finishing this update and writing a checkpoint; once more to give up at once"
