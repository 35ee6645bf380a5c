"""report.html: words and figures beside each other, in one file that asks no other place for anything."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import partial
from html import escape
from importlib.resources import files
from string import Template

from scratchrnn.report.drawing import Drawing, draw
from scratchrnn.report.section import Section, Tile, Words
from scratchrnn.report.sections import SECTIONS
from scratchrnn.report.words import NAMES, count, measured, names, not_measured
from scratchrnn.study import ModelResults, Results
from scratchrnn.study.record import environment
from scratchrnn.study.run import PROBED

TAG = re.compile(r"<[^>]*>")


def render(results: Results) -> dict[str, bytes]:
    """Draw and write everything that is read by people: report.html and the figures, by path within the folder."""
    shown = [section for section in SECTIONS if section.shown(results) and _says_something(results, section)]
    drawings = {
        name: draw(name, partial(figure, results))
        for section in shown
        for name, figure in section.figures.items()
        if section.drawable(results, name)
    }
    page = fill(
        title=f"{names(results)}, from the inside",
        lead=_lead(results),
        notice=_notice(results),
        strip=_strip(results) + _contents([section.title for section in shown]),
        sections=[_section(results, drawings, section) for section in shown] + [_details(results)],
    )
    return {"report.html": page.encode()} | figure_files(drawings)


def _says_something(results: Results, section: Section) -> bool:
    """False if there is nothing but the sentence that there was no measurement, which the notice says once."""
    return bool(section.more(results)) or section.finding(results) != not_measured(results)


def fill(*, title: str, lead: str, notice: str, sections: Iterable[str], strip: str = "") -> str:
    """The whole page from its parts, each HTML."""
    here = files(__package__)
    return Template(here.joinpath("page.html").read_text(encoding="utf-8")).substitute(
        title=title,
        style=here.joinpath("page.css").read_text(encoding="utf-8"),
        lead=lead,
        notice=notice,
        strip=strip,
        sections="\n".join(sections),
    )


def figure_files(drawings: Mapping[str, Drawing]) -> dict[str, bytes]:
    """The figures as files, by path within the folder."""
    return {f"figures/{name}.{kind}": getattr(d, kind) for name, d in drawings.items() for kind in ("svg", "png")}


def _lead(results: Results) -> str:
    s = results.settings
    seen = results.steps_done * s.batch * s.window
    one = {"rnn": "A vanilla RNN", "lstm": "An LSTM"}
    both = f"A vanilla RNN and an LSTM, with {count(s.hidden_size, 'hidden unit')} each, side by side on"
    alone = f"{one[s.cells[0]]} with {count(s.hidden_size, 'hidden unit')}, on"
    return (
        f"{both if len(s.cells) > 1 else alone} "
        f"{escape(results.text_name)}: {results.text_length * 9 // 10:,} characters, "
        f"read {seen / (results.text_length * 0.9):.1f} times."
    )


def _notice(results: Results) -> str:
    if results.stopped is None:
        return ""
    reached = f"Training steps reached: {results.steps_done:,} of {results.settings.steps:,}"
    when = measured(results)[1]
    which = f"The measurements are of the {when} models." if when else not_measured(results)
    return (
        '<p class="notice" role="status"><strong>This study did not run to its end: '
        f"{escape(results.stopped)}.</strong>"
        f" {reached}. All that follows is what was found until then. {which}</p>"
    )


def _strip(results: Results) -> str:
    tiles = (section.tile(results) for section in SECTIONS if section.shown(results))
    shown = "\n".join(_tile(tile) for tile in tiles if tile is not None)
    return f'<div class="strip">\n{shown}\n</div>'


def _tile(tile: Tile) -> str:
    numbers = "".join(
        f'<div class="{cell}"><dt>{NAMES[cell]}</dt><dd>{value}</dd></div>' for cell, value in tile.values.items()
    )
    size = " long" if any(len(value) > 4 for value in tile.values.values()) else ""
    return f'<section class="tile{size}"><h2>{tile.title}</h2><dl>{numbers}</dl><p>{tile.unit}</p></section>'


def _contents(titles: list[str]) -> str:
    links = "".join(f'<a href="#{anchor(title)}">{title}</a>' for title in titles)
    return f'<nav aria-label="Sections">{links}</nav>'


def anchor(title: str) -> str:
    """What a section is called in addresses within the page.

    >>> anchor("Hidden states, character by character")
    'hidden-states-character-by-character'
    """
    return "-".join(re.findall(r"\w+", title.lower()))


def _section(results: Results, drawings: dict[str, Drawing], section: Section) -> str:
    figures = [drawings[name] for name in section.figures if name in drawings]
    return article(
        section.title, section.finding(results), figures, section.more(results), caption(results, section.how)
    )


def article(title: str, found: str, figures: Iterable[Drawing], more: str, how: str) -> str:
    """One section: its finding, its figures, what else it shows, and its caption; each HTML."""
    shown = "".join(_figure(drawing, f"{title}. {found}") for drawing in figures) + more
    # what is not shown needs no caption
    words = f'<p class="how">{how}</p>' if shown else ""
    return f'<article id="{anchor(title)}"><h2>{title}</h2><p class="finding">{found}</p>{shown}{words}</article>'


def caption(results: Results, how: str | Words) -> str:
    """The caption of a section, with the study's numbers for its $names."""
    s = results.settings
    return Template(how if isinstance(how, str) else how(results)).substitute(
        window=count(s.window, "character"),
        sequences=count(s.sequences, "place"),
        trials=count(s.trials, "random input"),
        trial_length=count(s.trial_length, "step"),
        probed=count(PROBED, "place"),
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
        "Time": f"{results.seconds:.0f} s until this page was drawn; training: {speeds}",
        "Computed with": f"scratchrnn {env['scratchrnn']} ({env['backend']} backend), NumPy {env['numpy']}, "
        f"Python {env['python']}, {env['platform']}",
    }
    listed = "".join(f"<dt>{key}</dt><dd>{escape(value)}</dd>" for key, value in rows.items())
    weights = " and ".join(f"{cell}.safetensors" for cell in results.models)
    return (
        f'<article class="details"><h2>How this was made</h2><dl>{listed}</dl><p class="how">All numbers of this page, '
        f"and more, are in results.json beside it; the weights are in {weights}; the figures are in the folder "
        "figures.</p></article>"
    )


def _size(one: ModelResults) -> int:
    return sum(array.size for array in one.model.parameters.values())


def _speed(results: Results, one: ModelResults) -> str:
    if not one.curve.seconds:
        return "not trained"
    characters = len(one.curve.seconds) * results.settings.batch * results.settings.window
    return f"{characters / sum(one.curve.seconds) / 1000:.0f} thousand characters per second"
