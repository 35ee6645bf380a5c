"""What is measured on a model: gradients by distance, effective memory, saturation, states over a stretch of text."""

from __future__ import annotations

from typing import cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.dynamics import saturation
from scratchrnn.gradflow import effective_memory, gradient_by_distance, measure_decay
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.study.results import Measurement
from scratchrnn.study.settings import Settings
from scratchrnn.study.stretch import measure_stretch
from scratchrnn.trace import State

STRETCH = 64  # characters of the stretch that is shown one by one


def measure(model: CharModel, held_out: IntArray, settings: Settings) -> Measurement:
    """Measure a model on the text held out (N,); the same places and the same random inputs for every model."""
    warm_up, distance = settings.warm_up, settings.distance
    length = warm_up + distance + 1
    starts = np.linspace(0, len(held_out) - length, settings.sequences).astype(np.int64)
    codes = held_out[starts + np.arange(length)[:, None]]  # (warm_up + distance + 1, sequences)

    _, state = model(codes[:warm_up])
    trace = model.forward(codes[warm_up:-1], state)
    # each sequence's own loss, so that norms do not depend on how many sequences there are
    _, d_logits = cross_entropy(trace.logits[-1], codes[-1], reduction="sum")
    last = model.decoder.forward(np.ascontiguousarray(trace.rnn.output[-1]))
    d_last = cast(FloatArray, model.decoder.backward(last, d_logits).input)
    by_distance = gradient_by_distance(model.rnn, trace.rnn, d_last)

    return Measurement(
        by_distance=by_distance,
        decay=measure_decay(by_distance.input, dtype=model.dtype),
        memory=effective_memory(
            model.rnn,
            seq_length=settings.trial_length,
            num_trials=settings.trials,
            rng=np.random.default_rng(settings.seed),
        ),
        saturation=saturation(trace.rnn),
        stretch=measure_stretch(model, codes[warm_up : warm_up + min(STRETCH, distance) + 1, 0], _first(state)),
    )


def _first(state: State) -> State:
    """The state of the first sequence, as a batch of one."""
    return (state[0][:, :1], state[1][:, :1]) if isinstance(state, tuple) else state[:, :1]
