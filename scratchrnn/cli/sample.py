"""`scratchrnn sample`: let a trained model write."""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from scratchrnn.cli.terminal import InputError, user_input

MODEL = "model.safetensors"


def sample(
    where: Annotated[
        Path, typer.Argument(metavar="RUN_OR_FILE", help="Folder of `scratchrnn train`, or a file of CharModel.save.")
    ],
    prompt: Annotated[
        str, typer.Option(metavar="TEXT", help="What the model has read before it writes.  [a line break]")
    ] = "",
    length: Annotated[int, typer.Option(metavar="N", help="Characters to write.")] = 500,
    temperature: Annotated[
        float, typer.Option(metavar="T", help="Below 1 prefers likelier characters; 0 takes the likeliest.")
    ] = 1.0,
    top_k: Annotated[int | None, typer.Option(metavar="K", help="Draw from the K likeliest only.  [all]")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="For the same text again.  [another each time]")] = None,
    backend: Annotated[str | None, typer.Option(metavar="NAME", help="See `scratchrnn info`.  [numba]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines, when all is written.")] = False,
) -> None:
    """Write text with a trained character model, to stdout, character by character as it is drawn.

    The prompt is not repeated. Without one the model starts as after a line break.

    Examples:

        $ scratchrnn sample scratchrnn-run
        $ scratchrnn sample scratchrnn-run --prompt "The " --length 2000 --temperature 0.7
        $ scratchrnn sample scratchrnn-run --top-k 5 --seed 1
        $ scratchrnn sample scratchrnn-study/lstm.safetensors --temperature 0
        $ scratchrnn sample scratchrnn-run --seed 1 --json | jq -r .text
    """
    import numpy as np

    from scratchrnn import backends
    from scratchrnn._validate import check_int
    from scratchrnn.models import CharModel

    with user_input():
        backends.load(backend)
    with backends.use_backend(backend or backends.DEFAULT):
        with user_input():
            path = _model_file(where)
            model = CharModel.load(path)
            seed = secrets.randbits(32) if seed is None else check_int("seed", seed, least=0)
            rng = np.random.default_rng(seed)
            characters = _drawn(model.write(prompt, length, rng=rng, temperature=temperature, top_k=top_k))
        if as_json:
            facts = {"model": str(path), "prompt": prompt, "temperature": temperature, "top_k": top_k, "seed": seed}
            typer.echo(json.dumps(facts | {"text": "".join(characters)}, indent=2))
        else:
            _print(characters)


def _model_file(where: Path) -> Path:
    if not where.is_dir():
        return where
    path = where / MODEL
    if not path.exists():
        others = sorted(file.name for file in where.glob("*.safetensors"))
        hint = f"; it holds {', '.join(others)}" if others else ""
        raise InputError(f"{where}: holds no {MODEL}, which a run has from its first evaluation on{hint}")
    return path


def _drawn(characters: Iterator[str]) -> Iterator[str]:
    """The same; a complaint about the model's numbers is one about what the user gave."""
    with user_input():
        yield from characters


def _print(characters: Iterator[str]) -> None:
    """Show each as it comes. To a file or pipe goes what was drawn and nothing else."""
    try:
        for character in characters:
            sys.stdout.write(character)
            sys.stdout.flush()
    except UnicodeEncodeError as error:
        missing = error.object[error.start]
        raise InputError(f"output: {error.encoding} has no {missing!r}; set PYTHONIOENCODING=utf-8") from None
    finally:
        if sys.stdout.isatty():
            sys.stdout.write("\n")
