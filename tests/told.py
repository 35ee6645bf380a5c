"""Results of a study with other numbers put into them, for tests of what is said of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scratchrnn.study import Results


def only(results: Results, *names: str) -> Results:
    """The same study, of fewer models."""
    return replace(results, models={name: results.models[name] for name in names})


def untrained(results: Results) -> Results:
    return replace(results, models={name: replace(one, after=None) for name, one in results.models.items()})


def unmeasured(results: Results, *names: str) -> Results:
    """The same, stopped before these models were measured at all."""
    models = {name: replace(one, after=None, flow=None) for name, one in results.models.items()}
    return replace(results, models=models | {name: replace(models[name], before=None) for name in names})


def having(results: Results, cell: str, when: str = "after", **parts: Any) -> Results:
    """The same with other numbers inside one model."""
    one = results.models[cell]
    measurement = getattr(one, when)
    changed = replace(one, **{when: replace(measurement, inside=replace(measurement.inside, **parts))})
    return replace(results, models=results.models | {cell: changed})


def both(results: Results, part: str, rnn: Any, lstm: Any) -> Results:
    return having(having(results, "rnn", **{part: rnn}), "lstm", **{part: lstm})
