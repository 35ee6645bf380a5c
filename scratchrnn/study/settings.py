"""Every number that a study is made with."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from scratchrnn import backends
from scratchrnn._validate import check_int, check_positive_int, check_real

CELLS = ("rnn", "lstm")


@dataclass(frozen=True)
class Settings:
    """What a study does; the defaults are those of `scratchrnn study`.

    Attributes
    ----------
    cells : tuple of str
        "rnn", "lstm" or both: the models.
    steps : int
        Updates of each model, one window each.
    hidden_size, embedding_size : int
        H and E of each model, which has one layer.
    batch, window : int
        B rows of text read in parallel, T characters per window: the gradient flows back through at most T steps.
    learning_rate : float
        Of Adam at the first step; it falls linearly to a tenth of it at the last.
    max_norm : float
        Bound on the gradient's global norm.
    validate_every : int
        Steps between two looks at the text held out; the first steps, where most happens, have more.
    distance : int
        Characters over which the gradient of one loss is followed back.
    sequences : int
        Places in the text held out where that is done.
    warm_up : int
        Characters read before, so that the state is one that reading has made.
    trials, trial_length : int
        Random inputs, and their length, for the effective memory.
    sample_length : int
        Characters that each model writes.
    seed : int
        Of everything random: initial weights, random inputs, samples.
    backend : str, optional
        See `scratchrnn.backends`.
    """

    cells: tuple[str, ...] = CELLS
    steps: int = 1200
    hidden_size: int = 128
    embedding_size: int = 64
    batch: int = 32
    window: int = 64
    learning_rate: float = 1e-2
    max_norm: float = 1.0
    validate_every: int = 50
    distance: int = 200
    sequences: int = 64
    warm_up: int = 64
    trials: int = 50
    trial_length: int = 100
    sample_length: int = 360
    seed: int = 0
    backend: str | None = None

    @classmethod
    def quick(cls, **changes: Any) -> Settings:
        """A look in seconds: smaller models, fewer steps, shorter distances."""
        small: dict[str, Any] = {
            "steps": 200,
            "hidden_size": 64,
            "embedding_size": 32,
            "distance": 100,
            "sequences": 32,
            "learning_rate": 2e-2,
            "validate_every": 25,
            "backend": "numpy",  # compiling on a fresh machine takes longer than all of this
        }
        return cls(**(small | changes))

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "cells":
                _check_cells(value)
            elif field.name == "seed":
                check_int("seed", value, least=0)
            elif field.name in {"learning_rate", "max_norm"}:
                check_real(field.name, value, above=0.0)
            elif field.name == "backend":
                backends.check_backend(value)
            else:
                least = 2 if field.name in {"distance", "trial_length"} else 1
                check_int(field.name, value, least=least)

    def check_text(self, text: str) -> None:
        """Refuse a text too short to be trained on and measured with these settings."""
        to_train = -(-10 * (self.batch * self.window + 1) // 9)
        to_measure = 10 * (self.warm_up + self.distance + 1)
        if len(text) < max(to_train, to_measure):
            raise ValueError(
                f"text: expected at least {max(to_train, to_measure):,} characters (a tenth is held out); "
                f"got {len(text):,}"
            )
        check_positive_int("characters", len(set(text)) - 1)


def _check_cells(value: Any) -> None:
    known = isinstance(value, tuple) and all(cell in CELLS for cell in value)
    if not known or not value or len(set(value)) < len(value):
        raise ValueError(f"cells: expected 'rnn', 'lstm' or both, as a tuple; got {value!r}")
