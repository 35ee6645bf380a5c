"""report.html: words and figures beside each other, in one file without scripts, fonts or addresses from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template

from scratchrnn.report import findings
from scratchrnn.report.figures import Drawing, draw, drawable
from scratchrnn.report.findings import NAMES, count, mark, measured, rule
from scratchrnn.study import ModelResults, Results
from scratchrnn.study.record import environment

TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Section:
    """A part of the page: what was found, worked out from the results, the figures, and how it was measured."""

    title: str
    finding: Callable[[Results], str]
    how: str  # with $names of settings
    figures: tuple[str, ...] = ()
    more: Callable[[Results], str] = lambda results: ""


def _sections() -> list[Section]:
    return [
        Section(
            "Learning",
            findings.learning,
            """Thick lines: loss on the tenth of the text held out. Thin lines: loss of each training window. Both
            models read the same windows in the same order, carry their state from one to the next, and follow
            the gradient back through $window. Dashed: the entropy of single characters in the whole text.""",
            figures=("loss",),
        ),
        Section(
            "How far back the gradient reaches",
            findings.gradients,
            """The gradient of the loss of one prediction with respect to what was read that many characters
            earlier, its norm, the median over $sequences in the text held out, on a logarithmic scale. The
            dots mark the last distance at which one percent of the norm at distance 0 is left. Dotted: the same
            before training.""",
            figures=("gradients",),
        ),
        Section(
            "Effective memory",
            findings.memory,
            """The same on $trials of $trial_length instead of text: its norm, the median over them. The familiar rule
            counts the steps whose gradient exceeds one percent of the largest; it adds up all units, whose signs
            cancel, it takes the mean, which one input out of many can make, and it looks no further than the input
            is long. The corrected measure follows random directions, takes the median, compares with distance 0
            and says when it hit that limit (+) or the gradient exploded (!). The last column is the same measure
            on the text itself.""",
            figures=("memory",),
            more=_memory_table,
        ),
        Section(
            "Saturation",
            findings.saturation,
            """Share of the time, over $sequences in the text held out, that values sit at an end of their
            range, where a squashing function passes almost no gradient. Left: below −0.95, for gates closed
            below 0.1. Right: above 0.95, for gates open above 0.9. In the lower figure each point is one gate
            of one unit; an open forget gate is what keeps a memory.""",
            figures=("saturation", "gates"),
        ),
        Section(
            "Hidden states, character by character",
            findings.states,
            """One row for each unit, one column for each character of a stretch that neither model has seen; ␣ is
            a space and ⏎ a line end. Units that seldom change sign stand on top; h and c of the LSTM have their
            sign in common and stand in one order. The colours for c end at ±3, beyond which h cannot tell
            values apart.""",
            figures=("states",),
        ),
        Section(
            "What they write",
            findings.samples,
            """Both read the same $prompt of the text held out, of which the end is shown in grey, and
            go on from there at temperature 0.8.""",
            more=_samples,
        ),
    ]


def render(results: Results) -> dict[str, bytes]:
    """Draw and write everything that is read by people: report.html and the figures, by path within the folder."""
    drawings = {name: draw(name, results) for name in drawable(results)}
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
        sections="\n".join(_section(results, drawings, section) for section in _sections()),
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
    now, when = measured(results)
    tiles = []
    if all(one.curve.validation for one in results.models.values()):
        last = {cell: f"{one.curve.validation[-1][1]:.2f}" for cell, one in results.models.items()}
        tiles.append(
            _tile("Bits per unseen character", last, f"{results.unigram_bits:.2f} without context (whole text)")
        )
    if now:
        tiles += [
            _tile(
                "Gradient reach, on the text",
                {c: mark(m.decay) for c, m in now.items()},
                "characters back to 1%",
            ),
            _tile(
                "Gradient reach, on random input",
                {c: mark(m.memory) for c, m in now.items()},
                "steps back to 1%",
            ),
            _tile(
                "Saturated hidden values",
                {c: f"{m.saturation.rate:.0%}" for c, m in now.items()},
                f"beyond ±0.95, {when}",
            ),
        ]
    return "\n".join(tiles)


def _tile(title: str, values: dict[str, str], unit: str) -> str:
    numbers = "".join(
        f'<div class="{cell}"><dt>{NAMES[cell]}</dt><dd>{value}</dd></div>' for cell, value in values.items()
    )
    return f'<section class="tile"><h2>{title}</h2><dl>{numbers}</dl><p>{unit}</p></section>'


def _section(results: Results, drawings: dict[str, Drawing], section: Section) -> str:
    found = section.finding(results)
    figures = [_figure(drawings[name], f"{section.title}. {found}") for name in section.figures if name in drawings]
    s = results.settings
    how = Template(section.how).substitute(
        window=count(s.window, "character"),
        sequences=count(s.sequences, "place"),
        trials=count(s.trials, "random input"),
        trial_length=count(s.trial_length, "step"),
        prompt=count(len(results.prompt), "character"),
    )
    more = section.more(results)
    # what is not shown needs no caption
    caption = f'<p class="how">{how}</p>' if figures or more else ""
    return f'<article><h2>{section.title}</h2><p class="finding">{found}</p>{"".join(figures)}{more}{caption}</article>'


def _figure(drawing: Drawing, words: str) -> str:
    return (
        f'<figure role="img" aria-label="{escape(TAG.sub("", words))}"><div class="wide">{drawing.wide}</div>'
        f'<div class="narrow">{drawing.narrow}</div></figure>'
    )


def _memory_table(results: Results) -> str:
    rows = []
    for cell, one in results.models.items():
        for when, m in (("untrained", one.before), ("trained", one.after)):
            if m is not None:
                values = (rule(results, m), mark(m.memory), mark(m.decay))
                cells = "".join(f"<td>{value}</td>" for value in values)
                rows.append(f'<tr class="{cell}"><th scope="row">{NAMES[cell]}, {when}</th>{cells}</tr>')
    if not rows:
        return ""
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("", "familiar rule", "corrected", "on the text"))
    return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _samples(results: Results) -> str:
    return "".join(
        f'<section class="sample {cell}"><h3>{NAMES[cell]}</h3><pre><span>{escape(results.prompt[-60:])}</span>'
        f"{escape(one.sample)}</pre></section>"
        for cell, one in results.models.items()
        if one.sample is not None
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
