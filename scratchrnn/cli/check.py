"""`scratchrnn check`: is what this package computes what torch computes?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scratchrnn.cli.own import check_own
from scratchrnn.cli.terminal import FAILED, InputError, user_input

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from scratchrnn.check.grid import Check


def check(
    module: Annotated[
        Path | None,
        typer.Option("--module", metavar="FILE.pt", help="Check the RNN or LSTM in a file that torch.save wrote."),
    ] = None,
    safetensors: Annotated[
        Path | None,
        typer.Option("--safetensors", metavar="FILE", help="Check the RNN or LSTM in a safetensors file."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Where in a larger model the layer stands, such as encoder.rnn.")
    ] = None,
    nonlinearity: Annotated[
        str | None, typer.Option(help="tanh or relu, for an RNN in a state dict, which does not tell. Default: tanh.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Let code in FILE.pt run: needed to read a whole model of other classes.")
    ] = False,
    dtype: Annotated[
        str | None, typer.Option(help="float64 or float32 alone. Default: both; float64 alone for float64 weights.")
    ] = None,
    function: Annotated[
        str | None,
        typer.Option(
            "--function",
            metavar="FILE.py:FORWARD,BACKWARD",
            help="Check functions of your own, from a file or as module:forward,backward; backward may be absent.",
        ),
    ] = None,
    cell: Annotated[
        str | None, typer.Option(help="lstm, rnn_tanh or rnn_relu: what --function computes. Default: lstm.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of inputs, cotangents and, without a file, weights.")] = 0,
    backend: Annotated[str | None, typer.Option(help="What computes here; scratchrnn info lists them.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Print every quantity of every check.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compare every output, state, gate and gradient, at every time step, with torch's. Exit code 1 on a mismatch.

    All cells, with 1 to 3 layers, both directions, projection and different lengths:

        $ scratchrnn check

    Your own weights, from torch.save(lstm, "lstm.pt") or torch.save(lstm.state_dict(), "lstm.pt"):

        $ scratchrnn check --module lstm.pt

    A layer inside a larger model:

        $ scratchrnn check --safetensors model.safetensors --prefix encoder.rnn

    An LSTM of your own, with the likely mistake named (python: srnn.check.reference):

        $ scratchrnn check --function my_lstm.py:forward,backward

    For a script:

        $ scratchrnn check --json | jq '.ok'
    """
    if function is not None:
        theirs: dict[str, object] = {
            "--module": module,
            "--safetensors": safetensors,
            "--prefix": prefix,
            "--backend": backend,
        }
        theirs |= {"--nonlinearity": nonlinearity, "--trust": trust or None, "--verbose": verbose or None}
        check_own(function, cell or "lstm", dtype, seed, as_json, [name for name, v in theirs.items() if v is not None])
        return
    if cell is not None:
        raise InputError("--cell: expected together with --function")
    with user_input():
        checks = _run(module, safetensors, prefix, nonlinearity, trust, dtype, seed, backend)
    if as_json:
        typer.echo(json.dumps(_facts(checks, seed), indent=2, allow_nan=False))
    else:
        _print(checks, seed, verbose, file=module or safetensors)
    if not all(one.report.ok for one in checks):
        raise typer.Exit(FAILED)


def _run(
    module: Path | None,
    safetensors: Path | None,
    prefix: str | None,
    nonlinearity: str | None,
    trust: bool,
    dtype: str | None,
    seed: int,
    backend: str | None,
) -> list[Check]:
    from scratchrnn import backends
    from scratchrnn._validate import check_dtype
    from scratchrnn.check.files import layer_from_torch_file
    from scratchrnn.check.grid import DTYPES, check_grid, check_layer
    from scratchrnn.interop.state_dict import layer_from_safetensors
    from scratchrnn.interop.torch import require_torch
    from scratchrnn.layers.direction import check_nonlinearity

    path = module or safetensors
    given = {"--prefix": prefix, "--nonlinearity": nonlinearity, "--trust": trust or None}
    pointless = [name for name, value in given.items() if value is not None]
    if module and safetensors:
        raise InputError("--module and --safetensors: expected one of them")
    if path is None and pointless:
        raise InputError(f"{pointless[0]}: expected together with --module or --safetensors")
    if safetensors and trust:
        raise InputError("--trust: a safetensors file holds no code; expected only with --module")
    if nonlinearity is not None:
        check_nonlinearity(nonlinearity)
    dtypes = None if dtype is None else (check_dtype("dtype", dtype).name,)
    backends.load(backend)
    try:
        require_torch()
    except ImportError as error:
        raise InputError(str(error)) from None
    if path is None:
        return _shown(check_grid(dtypes or DTYPES, seed, backend))
    if module:
        layer = layer_from_torch_file(path, nonlinearity or "tanh", prefix=prefix, trust=trust, backend=backend)
    else:
        layer = layer_from_safetensors(path, nonlinearity, prefix=prefix, backend=backend)
    return _shown(check_layer(path.name, layer, dtypes, seed))


def _shown(checks: Iterator[Check]) -> list[Check]:
    """All of them; on a terminal, what is at hand while they run."""
    from rich.console import Console

    done: list[Check] = []
    with Console(stderr=True).status("comparing with torch") as status:
        for one in checks:
            done.append(one)
            status.update(f"compared {one.title}")
    return done


def _facts(checks: Sequence[Check], seed: int) -> dict[str, object]:
    from scratchrnn import __version__
    from scratchrnn.interop.torch import require_torch

    return {
        "ok": all(one.report.ok for one in checks),
        "scratchrnn": __version__,
        "torch": require_torch().__version__,
        "seed": seed,
        "checks": [one.to_dict() for one in checks],
    }


def _print(checks: Sequence[Check], seed: int, verbose: bool, file: Path | None) -> None:
    from rich.console import Console

    from scratchrnn import __version__, testing
    from scratchrnn.check import table
    from scratchrnn.interop.torch import require_torch

    console = Console(highlight=False)
    report = checks[-1].report  # in the dtype of the weights, if there is more than one
    torch = require_torch().__version__
    console.print(f"scratchrnn {__version__}, backend {report.backend}, against torch {torch}; seed {seed}\n")
    if file:
        console.print(f"[bold]{file.name}[/]  {report.layer}\n")
    if verbose:
        for one in checks:
            table.print_everything(console, one)
    elif not file:
        table.print_configurations(console, checks)
    table.print_quantities(console, [one.report for one in checks])

    growth, floor = testing.TOLERANCE["float32_growth"], testing.TOLERANCE["float32_floor"]
    console.print(
        f"\nErrors are relative to torch in float64. Bound in float64: {testing.TOLERANCE['float64']:g}; in float32: "
        f"{growth:g} times the error of torch's own float32, or {floor:.1e}. "
        f"output' is a call for inference; dc is dL/dc; f[2] is gate f of unit 2; t counts the input's steps from 0.\n",
        style="dim",
    )
    table.print_failures(console, checks)
    quantities = sum(len(one.report.rows) for one in checks)
    bad = sum(not one.report.ok for one in checks)
    if bad:
        console.print(f"[bold red]{bad} of {len(checks)} checks fail.[/]")
    else:
        console.print(f"[bold green]All {len(checks)} checks pass:[/] {quantities} quantities match torch.")
