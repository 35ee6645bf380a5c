"""The command line. Heavy modules are imported inside the commands, so that `--help` is quick.

Exit codes: 0 success, 1 a check failed or training diverged, 2 usage, bad input or output that cannot be written,
130 interrupted (143 by SIGTERM, 129 by SIGHUP), 141 the reader of a pipe has closed it. Every error is one line on
stderr.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from scratchrnn import __version__, backends
from scratchrnn.cli.check import check
from scratchrnn.cli.info import info
from scratchrnn.cli.sample import sample
from scratchrnn.cli.study import study
from scratchrnn.cli.terminal import BAD_INPUT, CLOSED_PIPE, INTERRUPTED, InputError, print_error, user_input
from scratchrnn.cli.train import train
from scratchrnn.cli.warmup import warmup

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]  # click's UsageError, which typer ships under no name

app = typer.Typer(
    name="scratchrnn",
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"scratchrnn {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def start(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """RNN and LSTM from scratch: every state, gate and gradient in view.

    Start with a study of the two on real text, in seconds:

        $ scratchrnn study --quick

    Train a character model on a text, and let it write:

        $ scratchrnn train book.txt --out book
        $ scratchrnn sample book --prompt "The "

    Is everything computed as torch computes it?

        $ scratchrnn check

    What this machine can do:

        $ scratchrnn info

    Compile everything now rather than when it is first needed:

        $ scratchrnn warmup
    """
    with user_input():
        backends.get_num_threads()  # a bad SCRATCHRNN_NUM_THREADS would stop every command somewhere
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


for command in (study, train, sample, check, info, warmup):
    app.command()(command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line, and exit."""
    sys.exit(_run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    if sys.stdout is None:  # the next file to be opened would be taken for it
        print_error("output: stdout is closed")
        return BAD_INPUT
    try:
        code = _invoke(sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except InputError as error:
        print_error(str(error))
        return BAD_INPUT
    except USAGE_ERROR as error:
        print_error(error.format_message())  # type: ignore[attr-defined]
        return BAD_INPUT
    except KeyboardInterrupt:
        print_error("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        _discard_output()
        return CLOSED_PIPE
    except SystemExit as error:
        if not isinstance(error.__context__, BrokenPipeError):
            raise
        return CLOSED_PIPE  # rich's way to end at a closed pipe, with code 1
    except OSError as error:
        if error.filename is not None:
            raise
        _discard_output()
        print_error(f"output: cannot be written: {error.strerror}")
        return BAD_INPUT
    return code


def _invoke(arguments: list[str]) -> int:
    """Run a command past typer's `main`, which would turn an interrupt and a closed pipe into exit code 1."""
    command = typer.main.get_command(app)
    try:
        with command.make_context("scratchrnn", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    return 0


def _discard_output() -> None:
    """Nothing more to stdout: Python would complain once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
