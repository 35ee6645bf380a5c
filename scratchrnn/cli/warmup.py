"""`scratchrnn warmup`: compile ahead, so that no later process waits."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scratchrnn.cli.terminal import InputError, user_input

if TYPE_CHECKING:
    from scratchrnn._typing import DType
    from scratchrnn.layers import LSTM, RNN

STEPS, BATCH, INPUTS, HIDDEN, PROJ = 3, 2, 3, 5, 4  # any: what is compiled depends on the dtype alone


class Dtypes(StrEnum):
    """Values of --dtype."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"
    BOTH = "both"


class Cells(StrEnum):
    """Values of --cell."""

    RNN = "rnn"
    LSTM = "lstm"
    BOTH = "both"


def warmup(
    dtype: Annotated[Dtypes, typer.Option(help="Of the layers to come.")] = Dtypes.BOTH,
    cell: Annotated[Cells, typer.Option(help="Of the layers to come.")] = Cells.BOTH,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Compile the kernels of backend numba now, not when a program first needs them, and keep them on disk.

    Once per machine, and again after an update. SCRATCHRNN_CACHE_DIR names the folder; else it is in the user's cache.

    Examples:

        $ scratchrnn warmup
        $ scratchrnn warmup --dtype float32 --cell lstm
        $ scratchrnn warmup --json | jq .seconds
        $ SCRATCHRNN_CACHE_DIR=/opt/kernels scratchrnn warmup
    """
    from scratchrnn import backends

    with user_input():
        folder = backends.kernel_cache_folder()
    _check_writable(folder)
    groups = []
    for group in _groups(dtype, cell, folder):
        groups.append(group)
        if not as_json:
            state = f"{group['compiled']} compiled" if group["compiled"] else "all there"
            typer.echo(f"{group['cell']:<4}  {group['dtype']}  {group['pass']:<9} {group['seconds']:5.1f} s  {state}")
    total = sum(group["seconds"] for group in groups)
    if as_json:
        typer.echo(json.dumps({"folder": str(folder), "seconds": total, "groups": groups}, indent=2))
    else:
        typer.echo(f"{total:.1f} s; kept in {folder}")


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: kernels cannot be kept there ({error.strerror or error})") from None


def _groups(dtype: Dtypes, cell: Cells, folder: Path) -> Iterator[dict[str, Any]]:
    """Compile what one pass of one cell in one dtype needs; then say how long it took and how much was new."""
    from scratchrnn._validate import DTYPES

    for one_cell in ("rnn", "lstm") if cell is Cells.BOTH else (cell.value,):
        for one_dtype in DTYPES if dtype is Dtypes.BOTH else (dtype.value,):
            for name, run in _passes(one_cell, DTYPES[one_dtype]):
                there, began = _kept(folder), time.perf_counter()
                run()
                seconds = time.perf_counter() - began
                compiled = len(_kept(folder) - there)
                yield {"cell": one_cell, "dtype": one_dtype, "pass": name, "seconds": seconds, "compiled": compiled}


def _kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.nbc")}


def _passes(cell: str, dtype: DType) -> Iterator[tuple[str, Callable[[], object]]]:
    """The uses of a layer, each to be run on layers that together use every kernel of it, and of a Linear."""
    import numpy as np

    from scratchrnn.bptt import tangent, tangent_backward
    from scratchrnn.layers import Linear

    layers, linear = _layers(cell, dtype), Linear(INPUTS, HIDDEN, dtype=dtype, backend="numba")
    x = np.zeros((STEPS, BATCH, INPUTS), dtype)
    yield "inference", lambda: [layer(x) for layer in [*layers, linear]]  # its backward has the cells' kernels
    minimal = [layer.forward(x, trace="minimal") for layer in layers]  # computes at access what a full trace keeps
    yield "trace", lambda: [(trace.a, trace.gates if cell == "lstm" else None) for trace in minimal]
    pairs = list(zip(layers, minimal, strict=True))
    yield "backward", lambda: [layer.backward(trace, np.zeros_like(trace.output)) for layer, trace in pairs]
    full = [(layer, layer.forward(x)) for layer in layers]
    back = [(layer, trace, layer.backward(trace, np.zeros_like(trace.output))) for layer, trace in full]
    yield "tangents", lambda: [tangent_backward(*computed, tangent(*computed[:2])) for computed in back]


def _layers(cell: str, dtype: DType) -> list[RNN] | list[LSTM]:
    from scratchrnn.layers import LSTM, RNN

    if cell == "rnn":
        return [RNN(INPUTS, HIDDEN, nonlinearity=n, dtype=dtype, backend="numba") for n in ("tanh", "relu")]
    return [LSTM(INPUTS, HIDDEN, proj_size=p, dtype=dtype, backend="numba") for p in (0, PROJ)]
