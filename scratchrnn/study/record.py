"""results.json: every number of a study, for programs.

    format, version                "scratchrnn-study", 2; version grows when a key changes its meaning or goes away
    created                        UTC, ISO 8601
    stopped                        null, or why the study ended early; what was not reached is null
    steps_done, seconds            updates of each model; wall time
    environment                    scratchrnn, python, numpy, platform, backend
    settings                       as in scratchrnn.study.Settings
    text                           name, sha256 (of its UTF-8), characters, vocabulary, dropped, unigram_bits, prompt
    models.rnn, models.lstm
      parameters                   how many numbers are trained
      weights                      file name
      training                     bits, gradient_norm, seconds: one for each step; validation: [step, bits] pairs
      flow                         how far the gradient reached while the model learned
      before, after                measured on the untrained and on the trained model:
        text                       on text held out, gradient of one loss: median norms by distance for input, h, c
                                   [index 0: the last character read]; horizon, censored, exploding, decay_factor,
                                   decay_time of `input`
        random_input               effective memory: seed_rule, horizon, censored, exploding, decay_factor, decay_time,
                                   gradient_norms [mean; index: time step], and the medians by_distance,
                                   state_by_distance, cell_by_distance
        saturation                 threshold, low, high, rate, mean_derivative; h, i, f, o, g, tanh_c: left and right
                                   share over all units, per unit, and per step
        states                     a stretch read: text; h and c of the last layer, a row of hidden units for each
                                   character; probability of the character that follows; gradient: row t has the norms,
                                   by character 0 to t, of the gradient of the loss of the prediction made after t
        inside                     see scratchrnn.study.record_inside, as is flow
      sample, known_words          what the model writes after the prompt; share of its words that occur in the text
    files                          of the folder

Losses are bits per character. Numbers have six significant digits; null stands for what is absent, not a number or
infinite (a decay_time is infinite where the gradient does not decay).
"""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np

from scratchrnn import __version__, backends
from scratchrnn.dynamics import Ends, Saturation
from scratchrnn.gradflow import Decay
from scratchrnn.study.record_inside import flow_entry, inside_entry
from scratchrnn.study.results import Measurement, ModelResults, Results
from scratchrnn.study.stretch import Stretch

FORMAT, SWEEP_FORMAT = "scratchrnn-study", "scratchrnn-sweep"
VERSION = 2


def to_json(results: Results, files: Iterable[str]) -> bytes:
    """The text of results.json."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "stopped": results.stopped,
        "steps_done": results.steps_done,
        "seconds": results.seconds,
        "environment": environment(results),
        "settings": asdict(results.settings),
        "text": {
            "name": results.text_name,
            "sha256": results.text_sha256,
            "characters": results.text_length,
            "vocabulary": results.vocabulary_size,
            "dropped": results.dropped,
            "unigram_bits": results.unigram_bits,
            "prompt": results.prompt,
        },
        "models": {cell: _model(cell, one) for cell, one in results.models.items()},
        "files": sorted(files),
    }
    return (json.dumps(plain(record), indent=1, allow_nan=False, ensure_ascii=False) + "\n").encode()


def environment(results: Results) -> dict[str, str]:
    """What the numbers were computed with."""
    return {
        "scratchrnn": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
        "backend": results.settings.backend or backends.DEFAULT,
    }


def summary(results: Results) -> dict[str, Any]:
    """The headline numbers, as `scratchrnn study --json` prints them; None for what was not reached.

    A number that is `censored` is where the measurement ended, so the true one may be larger; one that is `exploding`
    means little.
    """
    models = {}
    for cell, one in results.models.items():
        found = one.after or one.before
        models[cell] = {
            "bits": one.curve.validation[-1][1] if one.curve.validation else None,
            "trained": one.after is not None,
            "horizon_on_text": found and found.decay.horizon,
            "horizon_on_text_censored": found and found.decay.censored,
            "horizon_on_text_exploding": found and found.decay.exploding,
            "seed_rule": found and found.memory.seed_rule,
            "seed_rule_censored": found and found.memory.seed_rule >= results.settings.trial_length,
            "horizon_on_random_input": found and found.memory.horizon,
            "horizon_on_random_input_censored": found and found.memory.censored,
            "horizon_on_random_input_exploding": found and found.memory.exploding,
            "saturation": found and found.saturation.rate,
        }
    entry = {
        "stopped": results.stopped,
        "steps_done": results.steps_done,
        "seconds": results.seconds,
        "unigram_bits": results.unigram_bits,
        "models": models,
    }
    told: dict[str, Any] = plain(entry)
    return told


def _model(cell: str, one: ModelResults) -> dict[str, Any]:
    return {
        "parameters": sum(array.size for array in one.model.parameters.values()),
        "weights": f"{cell}.safetensors",
        "training": vars(one.curve),
        "flow": one.flow and flow_entry(one.flow),
        "before": one.before and _measurement(one.before),
        "after": one.after and _measurement(one.after),
        "sample": one.sample,
        "known_words": one.known_words,
    }


def _measurement(m: Measurement) -> dict[str, Any]:
    return {
        "text": {
            "input": m.by_distance.input,
            "h": m.by_distance.h[-1],
            "c": None if m.by_distance.c is None else m.by_distance.c[-1],
            **_decay(m.decay),
        },
        "random_input": {
            "seed_rule": m.memory.seed_rule,
            **_decay(m.memory),
            "gradient_norms": m.memory.gradient_norms,
            "by_distance": m.memory.by_distance,
            "state_by_distance": m.memory.state_by_distance,
            "cell_by_distance": m.memory.cell_by_distance,
        },
        "saturation": _saturation(m.saturation),
        "states": _states(m.stretch),
        "inside": inside_entry(m.inside),
    }


def _states(stretch: Stretch) -> dict[str, Any]:
    return {
        "text": stretch.text,
        "h": stretch.layers[-1]["h"],
        "c": stretch.layers[-1].get("c"),
        "probability": stretch.probability,
        "gradient": [row[: t + 1] for t, row in enumerate(stretch.gradient)],
    }


def _decay(decay: Decay) -> dict[str, Any]:
    names = ("horizon", "censored", "exploding", "decay_factor", "decay_time")
    return {name: getattr(decay, name) for name in names}


def _saturation(s: Saturation) -> dict[str, Any]:
    ends: dict[str, Ends | None] = {"h": s.h, **s.gates, "g": s.g, "tanh_c": s.tanh_c}
    return {
        **{name: getattr(s, name) for name in ("threshold", "low", "high", "rate", "mean_derivative")},
        **{name: vars(e) for name, e in ends.items() if e is not None},
    }


def plain(value: Any) -> Any:
    """The same with lists for arrays, and None for what JSON cannot say."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (bool, int, str)) or value is None:
        return value
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
