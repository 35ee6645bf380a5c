"""A study of the most awkward text, with two layers in one of its nets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from scratchrnn.models import CharModel
from scratchrnn.study import Measurement, Results, Settings, Stretch, run
from scratchrnn.study.stretch import measure_stretch

# what would end a script, a string, an attribute or a line, what has no shape, and what is two units in JavaScript
NASTY = "</script><script>alert(1)</script><!-- \"q\" 'q' \\ &lt; `${x}` \u2028\t\x01e\u0301 \U0001d518é the\nend; "
SETTINGS = Settings(
    steps=5, hidden_size=7, embedding_size=5, batch=3, window=11, validate_every=3, distance=64, sequences=3,
    warm_up=4, trials=3, trial_length=9, sample_length=20, seed=3,
)  # fmt: skip
STEPS = 64


def awkward_study() -> Results:
    """A study whose LSTM's stretch is that of a net of two layers and another size, which no study has yet."""
    found = run(NASTY * 30, SETTINGS, text_name="nasty <text>.txt")
    one = found.models["lstm"]
    assert one.after is not None
    rng = np.random.default_rng(0)
    model = CharModel(one.model.vocabulary.characters, "lstm", 6, 5, 2, rng=rng)
    for array in model.parameters.values():
        array *= 2
    stretch = one.after.stretch
    codes = model.vocabulary.encode(stretch.text + stretch.following[-1])
    one.after = replace(one.after, stretch=measure_stretch(model, codes, (np.zeros((2, 1, 6), np.float32),) * 2))
    return found


def now(results: Results) -> dict[str, Measurement]:
    return {cell: one.after for cell, one in results.models.items() if one.after is not None}


def stretches(results: Results) -> list[Stretch]:
    return [m.stretch for m in now(results).values()]
