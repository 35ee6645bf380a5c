"""report.html: words and figures beside each other, in one file that asks no other place for anything."""

from __future__ import annotations

import re
from html import escape
from importlib.resources import files
from string import Template

from scratchrnn.report.drawing import Drawing, draw
from scratchrnn.report.section import Section, Tile
from scratchrnn.report.sections import SECTIONS
from scratchrnn.report.words import NAMES, count, measured
from scratchrnn.study import ModelResults, Results
from scratchrnn.study.record import environment

TAG = re.compile(r"<[^>]*>")


def render(results: Results) -> dict[str, bytes]:
    """Draw and write everything that is read by people: report.html and the figures, by path within the folder."""
    drawings = {
        name: draw(name, figure, results)
        for section in SECTIONS
        if section.drawable(results)
        for name, figure in section.figures.items()
    }
    out = {"report.html": _page(results, drawings).encode()}
    for name, drawing in drawings.items():
        out[f"figures/{name}.svg"], out[f"figures/{name}.png"] = drawing.svg, drawing.png
    return out


def _page(results: Results, drawings: dict[str, Drawing]) -> str:
    here = files(__package__)
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title="RNN and LSTM, from the inside",
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        lead=_lead(results),
        notice=_notice(results),
        strip=_strip(results),
        sections="\n".join(_section(results, drawings, section) for section in SECTIONS),
        details=_details(results),
    )


def _lead(results: Results) -> str:
    s = results.settings
    seen = results.steps_done * s.batch * s.window
    return (
        f"A vanilla RNN and an LSTM, with {count(s.hidden_size, 'hidden unit')} each, side by side on "
        f"{escape(results.text_name)}: {results.text_length * 9 // 10:,} characters, "
        f"read {seen / (results.text_length * 0.9):.1f} times."
    )


def _notice(results: Results) -> str:
    if results.stopped is None:
        return ""
    reached = f"Training steps reached: {results.steps_done:,} of {results.settings.steps:,}"
    when = measured(results)[1]
    which = f"the measurements are of the {when} models" if when else "there is no measurement of both models"
    return (
        '<p class="notice" role="status"><strong>This study did not run to its end: '
        f"{escape(results.stopped)}.</strong>"
        f" {reached}. All that follows is what was found until then; {which}.</p>"
    )


def _strip(results: Results) -> str:
    tiles = (section.tile(results) for section in SECTIONS)
    return "\n".join(_tile(tile) for tile in tiles if tile is not None)


def _tile(tile: Tile) -> str:
    numbers = "".join(
        f'<div class="{cell}"><dt>{NAMES[cell]}</dt><dd>{value}</dd></div>' for cell, value in tile.values.items()
    )
    return f'<section class="tile"><h2>{tile.title}</h2><dl>{numbers}</dl><p>{tile.unit}</p></section>'


def _section(results: Results, drawings: dict[str, Drawing], section: Section) -> str:
    found = section.finding(results)
    figures = [_figure(drawings[name], f"{section.title}. {found}") for name in section.figures if name in drawings]
    more = section.more(results)
    # what is not shown needs no caption
    words = f'<p class="how">{caption(results, section.how)}</p>' if figures or more else ""
    return f'<article><h2>{section.title}</h2><p class="finding">{found}</p>{"".join(figures)}{more}{words}</article>'


def caption(results: Results, how: str) -> str:
    """The caption of a section, with the study's numbers for its $names."""
    s = results.settings
    return Template(how).substitute(
        window=count(s.window, "character"),
        sequences=count(s.sequences, "place"),
        trials=count(s.trials, "random input"),
        trial_length=count(s.trial_length, "step"),
        prompt=count(len(results.prompt), "character"),
    )


def _figure(drawing: Drawing, words: str) -> str:
    return (
        f'<figure role="img" aria-label="{escape(TAG.sub("", words))}"><div class="wide">{drawing.wide}</div>'
        f'<div class="narrow">{drawing.narrow}</div></figure>'
    )


def _details(results: Results) -> str:
    s, env = results.settings, environment(results)
    first = next(iter(results.models.values()))
    sizes = ", ".join(f"{NAMES[cell]} {_size(one):,}" for cell, one in results.models.items())
    speeds = ", ".join(f"{NAMES[cell]} {_speed(results, one)}" for cell, one in results.models.items())
    rows = {
        "Text": f"{results.text_name}; {results.text_length:,} characters, {results.vocabulary_size} distinct",
        "SHA-256 of the text": results.text_sha256,
        "Models": f"embedding {s.embedding_size}, hidden {s.hidden_size}, {first.model.dtype.name}; "
        f"parameters: {sizes}",
        "Training": f"{results.steps_done:,} of {s.steps:,} steps of {s.batch} × {s.window} characters; Adam, learning "
        f"rate {s.learning_rate:g} falling to a tenth; gradient norm clipped at {s.max_norm:g}; seed {s.seed}",
        "Left out": f"{results.dropped:,} characters at the end of the text, which do not fill {s.batch} rows",
        "Time": f"{results.seconds:.0f} s; training: {speeds}",
        "Computed with": f"scratchrnn {env['scratchrnn']} ({env['backend']} backend), NumPy {env['numpy']}, "
        f"Python {env['python']}, {env['platform']}",
    }
    return "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())


def _size(one: ModelResults) -> int:
    return sum(array.size for array in one.model.parameters.values())


def _speed(results: Results, one: ModelResults) -> str:
    if not one.curve.seconds:
        return "not trained"
    characters = len(one.curve.seconds) * results.settings.batch * results.settings.window
    return f"{characters / sum(one.curve.seconds) / 1000:.0f} thousand characters per second"
