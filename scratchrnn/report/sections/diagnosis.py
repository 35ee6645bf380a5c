"""Symptoms: what is wrong with the models, if anything is."""

from __future__ import annotations

from html import escape

from scratchrnn.dynamics import Finding
from scratchrnn.report.section import Section
from scratchrnn.report.words import NAMES, count, measured, names, not_measured
from scratchrnn.study import Results


def finding(results: Results) -> str:
    """How many symptoms there are, and their names."""
    now, when = measured(results)
    if not now:
        return not_measured(results)
    found = _found(results)
    if not found:
        return (
            f"None of five symptoms in the {when} {names(results)}: no states of zeros, none saturated nearly "
            "everywhere, none the same for different texts, every number finite, and gradients arrive."
        )
    by_model = {name: dict.fromkeys(one.name for n, one in found if n == name) for name, _ in found}  # each once
    named = "; ".join(f"in the {when} {name}, {', '.join(symptoms)}" for name, symptoms in by_model.items())
    return f"{count(len(found), 'symptom')}: {named}."


def _found(results: Results) -> list[tuple[str, Finding]]:
    return [(NAMES[cell], one) for cell, m in measured(results)[0].items() for one in m.inside.diagnosis.findings]


def _table(results: Results) -> str:
    rows = "".join(
        f"<tr><th scope='row'>{name}: {escape(one.name)}</th><td>{escape(one.where)}</td>"
        f"<td>{escape(one.likely_cause)}</td><td>{escape(one.try_this)}</td></tr>"
        for name, one in _found(results)
    )
    heads = "".join(f'<th scope="col">{head}</th>' for head in ("", "where", "likely cause", "try"))
    return (
        f'<div class="scroll"><table class="words"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>'
        if rows
        else ""
    )


SECTION = Section(
    title="Is anything wrong?",
    finding=finding,
    how="All states, gates and gradients of $sequences in the text held out were looked at.",
    more=_table,
)
