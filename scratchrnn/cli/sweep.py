"""`scratchrnn study --sweep`: several studies, and a page that compares them, which grows with each."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from scratchrnn.cli.making import Source, StudyWishes, make_study, write

if TYPE_CHECKING:
    from scratchrnn.study import Settings
    from scratchrnn.study.sweep import Comparison, Sweep


def check_sweep(sweep: Sweep, settings: Settings, source: Source, out: Path, *, force: bool) -> None:
    """Refuse before the first study what the last one would fail at."""
    from scratchrnn.study.folder import check_folder, is_sweep

    every = sweep.settings(settings)
    for each in every:
        each.check_text(source.text)
    check_folder(out, force=force, holds=is_sweep)
    for value, each in zip(sweep.values, every, strict=True):
        if (out / sweep.folder(value)).exists():
            check_folder(out / sweep.folder(value), steps=each.steps, force=force)


def make_sweep(
    sweep: Sweep, settings: Settings, source: Source, out: Path, wishes: StudyWishes, *, force: bool
) -> dict[str, Any]:
    """Run the studies one after the other; what is printed of them."""
    from scratchrnn.cli.progress import Display
    from scratchrnn.study.sweep import Comparison

    start = time.perf_counter()
    every = sweep.settings(settings)
    comparison = Comparison(sweep, source.name, settings.cells)
    for value, each in zip(sweep.values, every, strict=True):
        with Display(each) as display:
            display.say(f"{sweep.parameter} {value}")
            try:
                found = make_study(source, each, out / sweep.folder(value), wishes, display, force=force)
            except typer.Exit:  # it ended before its first step, and the study there is as it was
                if comparison.studies:
                    why = "interrupted" if wishes() else f"{sweep.parameter} {value} made no step"
                    _write(replace(comparison, stopped=why), out, unfinished=True)
                raise
        comparison.studies[value] = found
        comparison.seconds = time.perf_counter() - start
        unfinished = len(comparison.studies) < len(every)
        comparison.stopped = found["stopped"] or ("interrupted" if unfinished and wishes() else None)
        _write(comparison, out, unfinished=unfinished)
        if comparison.stopped:
            break
    return {
        "out": str(out),
        "report": str(out / "report.html"),
        "parameter": sweep.parameter,
        "stopped": comparison.stopped,
        "seconds": comparison.seconds,
        "studies": {str(value): found for value, found in comparison.studies.items()},
    }


def _write(comparison: Comparison, out: Path, *, unfinished: bool) -> None:
    from scratchrnn.report import render_comparison
    from scratchrnn.study.folder import RESULTS
    from scratchrnn.study.sweep import sweep_json

    if unfinished and comparison.stopped is None:  # what a killed process leaves behind says so
        comparison = replace(comparison, stopped="not all studies are made yet")
    files = render_comparison(comparison)
    files[RESULTS] = sweep_json(comparison, [*files, RESULTS])
    write(out, files)
