"""One sentence or two for each figure, worked out from the numbers that the figure shows."""

from __future__ import annotations

import math

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.gradflow import Decay
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


def learning(results: Results) -> str:
    """Who predicts the text held out better, by how much, and whether more training helped to the end."""
    last = {cell: one.curve.validation[-1][1] for cell, one in results.models.items() if one.curve.validation}
    if len(last) < 2 or not results.steps_done:
        return "No training step was reached."
    better, worse = sorted(last, key=lambda cell: last[cell])
    lead = last[worse] - last[better]
    text = f"After {results.steps_done:,} steps the {NAMES[better]} needs {last[better]:.2f} bits for a character "
    if lead < CLOSE:
        text += f"it has not seen and the {NAMES[worse]} {last[worse]:.2f}: no real difference."
    else:
        text += (
            f"it has not seen, the {NAMES[worse]} {last[worse]:.2f}: "
            f"the {NAMES[better]} is ahead by {lead:.2f} bits, {lead / last[worse]:.0%}."
        )
    below = results.unigram_bits - last[better]
    text += f" A guess that knows only how frequent each character is needs {results.unigram_bits:.2f}" + (
        f", {results.unigram_bits / last[better]:.1f} times as many."
        if below > CLOSE
        else ": they learned less than that."
    )
    for cell, one in results.models.items():
        step, best = min(one.curve.validation, key=lambda point: point[1])
        if one.curve.validation[-1][1] > best + CLOSE:
            text += f" The {NAMES[cell]} was best at step {step:,}, with {best:.2f}; since then it overfits."
    return text


def _reach(decay: Decay) -> str:
    if decay.exploding:
        return "grows on its way back instead of fading"
    if decay.censored:
        return f"is still above 1% at {decay.horizon} characters, where the measurement ends"
    return f"stays above 1% of its size for {decay.horizon} characters"


def gradients(results: Results) -> str:
    """How far back the gradient of one loss reaches, in both, and what training changed."""
    now, when = measured(results)
    if not now:
        return "Nothing was measured."
    rnn, lstm = now["rnn"].decay, now["lstm"].decay
    text = f"Followed back through the text, the gradient of one prediction {_reach(rnn)} in the {when} RNN"
    if not (rnn.exploding or rnn.censored or lstm.exploding or lstm.censored):
        text += f" and for {lstm.horizon} in the LSTM."
    else:
        text += f"; in the LSTM it {_reach(lstm)}."
    changes = [
        f"from {one.before.decay.horizon} to {one.after.decay.horizon} in the {NAMES[cell]}"
        for cell, one in results.models.items()
        if one.before and one.after
    ]
    if changes:
        text += f" Training moved that horizon {' and '.join(changes)}."
    far = results.settings.distance // 2
    left = {NAMES[cell]: float(relative(m.by_distance.input)[far]) for cell, m in now.items()}
    if all(0 < value < 0.01 for value in left.values()):
        parts = [f"{_power(value)} of it in the {name}" for name, value in left.items()]
        text += f" At {far} characters there is {' and '.join(parts)}."
    return text


def relative(norms: FloatArray) -> FloatArray:
    """Norms by distance over that at distance 0; zeros where that is 0, as it is if every unit is saturated."""
    ratio: FloatArray = norms / norms[0] if norms[0] > 0 else np.zeros_like(norms)
    return ratio


def _power(value: float) -> str:
    exponent = math.floor(math.log10(value))
    return f"{value:.2g}" if exponent >= -3 else f"{value / 10**exponent:.0f}·10<sup>{exponent}</sup>".replace("-", "−")


def memory(results: Results) -> str:
    """What the familiar rule counts beside the corrected measure, and random input beside the text."""
    now, when = measured(results)
    if not now:
        return "Nothing was measured."
    rnn, lstm = now["rnn"], now["lstm"]
    text = (
        f"The familiar rule counts {rnn.memory.seed_rule} steps in the {when} RNN and {lstm.memory.seed_rule} in the "
        f"LSTM; the corrected measure says {rnn.memory.horizon} and {lstm.memory.horizon}."
    )
    limit = results.settings.trial_length
    full = [NAMES[cell] for cell, m in now.items() if m.memory.seed_rule >= limit]
    if full:
        text += f" For the {' and the '.join(full)}, {limit} is all that can be counted, so the truth may lie beyond."
    exploding = [NAMES[cell] for cell, m in now.items() if m.memory.exploding]
    for cell, m in now.items():
        ratio = relative(m.memory.by_distance)
        at = int(ratio.argmax())
        if np.isfinite(ratio[at]) and ratio[at] > 2:
            size = f"{ratio[at]:.0f} times as large at {at} steps"
            text += f" In the {NAMES[cell]} the gradient grows on its way: {size}."
    if exploding:
        text += (
            f" In the {' and the '.join(exploding)} the gradient explodes on random input: these counts mean little."
        )
    elif any(not 1 / 1.5 < m.memory.horizon / max(m.decay.horizon, 1) < 1.5 for m in now.values()):
        text += (
            " The text itself gives another picture than random input: "
            f"{rnn.decay.horizon} characters for the RNN and {lstm.decay.horizon} for the LSTM."
        )
    else:
        text += " Random input and the text agree."
    return text


def saturation(results: Results) -> str:
    """How much of the time units sit at the ends of their range, in the RNN's h and the LSTM's gates."""
    now, when = measured(results)
    if not now:
        return "Nothing was measured."
    rnn, lstm = now["rnn"].saturation, now["lstm"].saturation
    forget = lstm.gates["f"]
    keepers = int((forget.right > 0.9).sum())
    return (
        f"In the {when} RNN {rnn.rate:.0%} of all hidden values lie beyond ±{rnn.threshold:.2f}, and its tanh lets "
        f"{rnn.mean_derivative:.2f} of a gradient through on average. Of the LSTM's h {lstm.rate:.0%} lie there"
        + (", but its gates saturate: " if forget.share > lstm.rate else "; ")
        + f"the forget gate is open {forget.right_share:.0%} of the time and closed {forget.left_share:.0%}. "
        f"{_count(keepers, len(forget.right), 'cell').capitalize()} keep it open more than nine tenths of the time."
    )


def _count(number: int, of: int, noun: str) -> str:
    return f"none of {of} {noun}s" if number == 0 else f"{number} of {of} {noun}s"


def sign_changes(states: FloatArray) -> FloatArray:
    """How often each unit changes its sign over a stretch of text: (H,) from (K, H)."""
    changes: FloatArray = (np.diff(np.signbit(states), axis=0) != 0).sum(axis=0)
    return changes


def states(results: Results) -> str:
    """How fast hidden and cell states move."""
    now, when = measured(results)
    if not now:
        return "Nothing was measured."
    rnn, lstm = now["rnn"], now["lstm"]
    changes = {"RNN": sign_changes(rnn.h), "LSTM": sign_changes(lstm.h)}
    medians = [f"{np.median(c):g} times in the {name}" for name, c in changes.items()]
    never = [f"{_count(int((c == 0).sum()), len(c), 'unit')} of the {name}" for name, c in changes.items()]
    text = (
        f"Over these {len(rnn.text)} characters the median unit of the {when} models changes sign "
        f"{' and '.join(medians)}; {' and '.join(never)} never do."
    )
    moves = {"RNN's h": _movement(rnn.h), "LSTM's h": _movement(lstm.h)}
    if lstm.c is not None:
        moves["LSTM's c"] = _movement(lstm.c)
    parts = [f"{value:.2f} for the {name}" for name, value in moves.items()]
    return text + f" One character moves a unit by this part of its own spread: {', '.join(parts)}."


def _movement(states: FloatArray) -> float:
    """Median over the units that move at all of mean |x_t - x_{t-1}| / std x; about 1.1 for noise, 0 for a constant."""
    spread = states.std(axis=0)
    step = np.abs(np.diff(states, axis=0)).mean(axis=0)
    return float(np.median(step[spread > 0] / spread[spread > 0])) if (spread > 0).any() else 0.0


def samples(results: Results) -> str:
    """What share of the words that each model writes exist in the text."""
    known = {cell: one.known_words for cell, one in results.models.items() if one.known_words is not None}
    if not known:
        return "Neither model came to write."
    parts = [f"{share:.0%} of the {NAMES[cell]}'s" for cell, share in known.items()]
    return f"Of the words that they write, {' and '.join(parts)} occur in the text they were trained on."
