"""What is measured on a model: gradients by distance, effective memory, saturation, a stretch of text, its inside."""

from __future__ import annotations

from typing import cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.dynamics import saturation
from scratchrnn.gradflow import effective_memory, gradient_by_distance
from scratchrnn.gradflow.distance import decay_if_any
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.study.inside import STRETCH, look_inside, places, samples
from scratchrnn.study.results import Measurement
from scratchrnn.study.settings import Settings
from scratchrnn.study.stretch import measure_stretch


def measure(model: CharModel, held_out: IntArray, settings: Settings) -> Measurement:
    """Measure a model on the text held out (N,); the same places and the same random inputs for every model."""
    warm_up, distance = settings.warm_up, settings.distance
    codes = places(held_out, settings)  # (warm_up + distance + 1, sequences)
    _, state = model(codes[:warm_up])
    trace = model.forward(codes[warm_up:-1], state)
    # each sequence's own loss, so that norms do not depend on how many sequences there are
    _, d_logits = cross_entropy(trace.logits[-1], codes[-1], reduction="sum")
    last = model.decoder.forward(np.ascontiguousarray(trace.rnn.output[-1]))
    d_last = cast(FloatArray, model.decoder.backward(last, d_logits).input)
    by_distance = gradient_by_distance(model.rnn, trace.rnn, d_last)

    return Measurement(
        by_distance=by_distance,
        decay=decay_if_any(by_distance.input, dtype=model.dtype),
        memory=effective_memory(
            model.rnn,
            seq_length=settings.trial_length,
            num_trials=settings.trials,
            rng=np.random.default_rng(settings.seed),
        ),
        saturation=saturation(trace.rnn),
        stretch=measure_stretch(model, codes[warm_up : warm_up + min(STRETCH, distance) + 1, 0], samples(state, 1)),
        inside=look_inside(model, held_out, settings),
    )
