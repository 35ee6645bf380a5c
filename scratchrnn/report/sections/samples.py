"""What the models write."""

from __future__ import annotations

from html import escape

from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """What share of the words that each model writes exist in the text."""
    wrote = {NAMES[cell]: one for cell, one in results.models.items() if one.sample is not None}
    if not wrote:
        return "Neither model came to write." if len(results.models) > 1 else "The model did not come to write."
    known = [f"{one.known_words:.0%} of the {name}'s" for name, one in wrote.items() if one.known_words is not None]
    wordless = [name for name, one in wrote.items() if one.known_words is None]
    text = []
    if known:
        text.append(f"Of the words of three letters or more, {' and '.join(known)} occur in the training text.")
    if wordless:
        text.append(
            f"There are no such words in what the {' and the '.join(wordless)} wrote."
            if known
            else f"There are no words of three letters or more in what the {' and the '.join(wordless)} wrote."
        )
    if len(wrote) < len(results.models):
        text.append("The other model did not come to write.")
    return " ".join(text)


def _samples(results: Results) -> str:
    return "".join(
        f'<section class="sample {cell}"><h3>{NAMES[cell]}</h3><pre><span>{escape(results.prompt[-60:])}</span>'
        f"{escape(one.sample)}</pre></section>"
        for cell, one in results.models.items()
        if one.sample is not None
    )


SECTION = Section(
    title="What they write",
    finding=finding,
    how="""They begin with $prompt of the text held out, of which the end is shown in grey, drawn at
    temperature 0.8.""",
    more=_samples,
)
