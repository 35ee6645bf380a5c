"""One sentence or two for each figure, worked out from the numbers that the figure shows."""

from __future__ import annotations

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.gradflow import Decay
from scratchrnn.plots import UNKNOWN, visible
from scratchrnn.study import Measurement, Results

NAMES = {"rnn": "RNN", "lstm": "LSTM"}
CLOSE = 0.02  # bits: less is no difference worth a word


def measured(results: Results) -> tuple[dict[str, Measurement], str]:
    """The latest measurement of each model that has one, and whether that is "trained" or "untrained"."""
    after = {cell: one.after for cell, one in results.models.items() if one.after is not None}
    if len(after) == len(results.models):
        return after, "trained"
    before = {cell: one.before for cell, one in results.models.items() if one.before is not None}
    return (before, "untrained") if len(before) == len(results.models) else ({}, "")


def count(number: float, noun: str) -> str:
    """`number` with thousands apart, and its noun in the right number."""
    shown = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{shown} {noun}{'' if number == 1 else 's'}"


def mark(decay: Decay) -> str:
    """A horizon, with ! where the gradient explodes and + where the horizon is the end of what was measured."""
    return f"{decay.horizon}{'!' if decay.exploding else '+' if decay.censored else ''}"


def rule(results: Results, m: Measurement) -> str:
    """What the familiar rule counts, with + where it counts every step."""
    return f"{m.memory.seed_rule}{'+' if m.memory.seed_rule >= results.settings.trial_length else ''}"


def _not_measured(results: Results) -> str:
    found = [NAMES[cell] for cell, one in results.models.items() if one.before]
    if not found:
        return "No measurement was reached."
    return f"Only the untrained {found[0]} was measured: there is nothing to compare it with."


def learning(results: Results) -> str:
    """Who predicts the text held out better, by how much, and whether more training helped to the end."""
    last = {cell: one.curve.validation[-1][1] for cell, one in results.models.items() if one.curve.validation}
    if len(last) < 2 or not results.steps_done:
        return "No training step was reached."
    better, worse = sorted(last, key=lambda cell: last[cell])
    lead = round(last[worse], 2) - round(last[better], 2)  # of the numbers that are shown
    text = (
        f"After {count(results.steps_done, 'step')} the {NAMES[better]} needs {last[better]:.2f} bits for a character "
    )
    if lead < CLOSE:
        text += f"it has not seen and the {NAMES[worse]} {last[worse]:.2f}: no real difference."
    else:
        text += (
            f"it has not seen, the {NAMES[worse]} {last[worse]:.2f}: "
            f"the {NAMES[better]} is ahead by {lead:.2f} bits, {lead / last[worse]:.0%}."
        )
    below = results.unigram_bits - last[better]
    text += (
        " A guess that knows only how frequent each character is in the whole text needs about "
        f"{results.unigram_bits:.2f}"
    )
    if below <= CLOSE:
        text += ": they learned less than that."
    elif last[better] * 100 < results.unigram_bits:
        text += ", more than a hundred times as many."
    else:
        text += f", {results.unigram_bits / last[better]:.1f} times as many."
    for cell, one in results.models.items():
        step, best = min(one.curve.validation, key=lambda point: point[1])
        if one.curve.validation[-1][1] > best + CLOSE:
            text += f" The {NAMES[cell]} was best at step {step:,}, with {best:.2f}; since then it overfits."
    return text


def _reach(decay: Decay) -> str:
    if decay.exploding:
        return "grows on its way back instead of fading"
    if decay.censored:
        return f"is still above 1% at {count(decay.horizon, 'character')}, where the measurement ends"
    return f"stays above 1% of its size for {count(decay.horizon, 'character')}"


def gradients(results: Results) -> str:
    """How far back the gradient of one loss reaches, in both, and what training changed."""
    now, when = measured(results)
    if not now:
        return _not_measured(results)
    rnn, lstm = now["rnn"].decay, now["lstm"].decay
    text = f"Followed back through the text, the gradient of one prediction in the {when} RNN {_reach(rnn)}"
    if not (rnn.exploding or rnn.censored or lstm.exploding or lstm.censored):
        text += f", in the LSTM for {lstm.horizon}."
    else:
        text += f"; in the LSTM it {_reach(lstm)}."
    changes = [
        f"from {mark(one.before.decay)} to {mark(one.after.decay)} in the {NAMES[cell]}"
        for cell, one in results.models.items()
        if one.before and one.after
    ]
    if changes:
        text += f" Training moved that horizon {' and '.join(changes)}."
    far = results.settings.distance // 2
    left = {NAMES[cell]: float(relative(m.by_distance.input)[far]) for cell, m in now.items()}
    if all(0 < value < 0.01 for value in left.values()):
        parts = [f"{_number(value)} of it in the {name}" for name, value in left.items()]
        text += f" At {count(far, 'character')} there is {' and '.join(parts)}."
    return text


def relative(norms: FloatArray) -> FloatArray:
    """Norms by distance over that at distance 0; zeros where that is 0, as it is if every unit is saturated."""
    ratio: FloatArray = norms / norms[0] if norms[0] > 0 else np.zeros_like(norms)
    return ratio


def _number(value: float) -> str:
    """A number above 0 in two digits; far from 1, as a power of ten."""
    if 1e-3 <= value < 1e4:
        return f"{value:.2g}" if value < 10 else f"{value:,.0f}"
    digit, exponent = f"{value:.0e}".split("e")
    return f"{digit}·10<sup>{int(exponent)}</sup>".replace("-", "−")


def memory(results: Results) -> str:
    """What the familiar rule counts beside the corrected measure, and random input beside the text."""
    now, when = measured(results)
    if not now:
        return _not_measured(results)
    rnn, lstm = now["rnn"], now["lstm"]
    text = (
        f"On random input the familiar rule counts {rule(results, rnn)} and {rule(results, lstm)} steps in the {when} "
        f"RNN and LSTM; the corrected measure says {mark(rnn.memory)} and {mark(lstm.memory)}. On the text itself it "
        f"says {mark(rnn.decay)} and {mark(lstm.decay)}."
    )
    if "+" in text:
        text += " A + stands where the measurement ended first, so that the truth may lie beyond."
    exploding = [NAMES[cell] for cell, m in now.items() if m.memory.exploding]
    for cell, m in now.items():
        ratio = relative(m.memory.by_distance)
        at = int(ratio.argmax())
        if np.isfinite(ratio[at]) and ratio[at] > 2:
            size = f"{_number(float(ratio[at]))} times as large at {count(at, 'step')}"
            text += f" In the {NAMES[cell]} the gradient on random input grows on its way: {size}."
    if exploding:
        names = " and the ".join(exploding)
        text += f" In the {names} the gradient explodes on random input (!): these counts mean little."
    return text


def saturation(results: Results) -> str:
    """How much of the time units sit at the ends of their range, in the RNN's h and the LSTM's gates."""
    now, when = measured(results)
    if not now:
        return _not_measured(results)
    rnn, lstm = now["rnn"].saturation, now["lstm"].saturation
    forget = lstm.gates["f"]
    keepers = int((forget.right > 0.9).sum())
    return (
        f"In the {when} RNN {rnn.rate:.0%} of all hidden values lie beyond ±{rnn.threshold:.2f}, and its tanh lets "
        f"{rnn.mean_derivative:.2f} of a gradient through on average. Of the LSTM's h {lstm.rate:.0%} lie there"
        + (", but its gates saturate: " if forget.share > lstm.rate else "; ")
        + f"the forget gate is open {forget.right_share:.0%} of the time and closed {forget.left_share:.0%}. "
        f"It is open more than nine tenths of the time in {_part(keepers, len(forget.right))} "
        f"cell{'' if len(forget.right) == 1 else 's'}."
    )


def _part(number: int, of: int) -> str:
    return f"{number or 'none'} of {of}"


def sign_changes(states: FloatArray) -> FloatArray:
    """How often each unit changes its sign over a stretch of text: (H,) from (K, H)."""
    changes: FloatArray = (np.diff(np.signbit(states), axis=0) != 0).sum(axis=0)
    return changes


def states(results: Results) -> str:
    """How fast hidden and cell states move."""
    now, when = measured(results)
    if not now:
        return _not_measured(results)
    rnn, lstm = now["rnn"], now["lstm"]
    changes = {"RNN": sign_changes(rnn.h), "LSTM": sign_changes(lstm.h)}
    medians = [f"{count(float(np.median(c)), 'time')} in the {name}" for name, c in changes.items()]
    never = [f"{_part(int((c == 0).sum()), len(c))} in the {name}" for name, c in changes.items()]
    text = (
        f"Over a stretch of {count(len(rnn.text), 'character')} the median unit of the {when} models changes sign "
        f"{' and '.join(medians)}. Units that never do: {', '.join(never)}."
    )
    moves = {"RNN's h": _movement(rnn.h), "LSTM's h": _movement(lstm.h)}
    if lstm.c is not None:
        moves["LSTM's c"] = _movement(lstm.c)
    parts = [f"{value:.2f} for the {name}" for name, value in moves.items()]
    text += f" One character moves a unit by this part of its own spread: {', '.join(parts)}."
    missing = {c for c in rnn.text if c != UNKNOWN and visible(c) == UNKNOWN}
    if missing:
        text += f" {UNKNOWN} stands for {count(len(missing), 'character')} that the figure's fonts have no sign for."
    return text


def _movement(states: FloatArray) -> float:
    """Median over the units that move at all of mean |x_t - x_{t-1}| / std x; about 1.1 for noise, 0 for a constant."""
    spread = states.std(axis=0)
    step = np.abs(np.diff(states, axis=0)).mean(axis=0)
    return float(np.median(step[spread > 0] / spread[spread > 0])) if (spread > 0).any() else 0.0


def samples(results: Results) -> str:
    """What share of the words that each model writes exist in the text."""
    wrote = {NAMES[cell]: one for cell, one in results.models.items() if one.sample is not None}
    if not wrote:
        return "Neither model came to write."
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
