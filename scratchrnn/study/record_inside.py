"""results.json, the part that `inside.look_inside` and the recorder measured.

flow                           how far the gradient reached while the model learned, one entry for each sample:
                               steps, horizon, censored, exploding, decay_time, h_saturation, forget_gate (mean) and
                               spectral_radius (of W_hh) by layer, input (median norms by distance)
before, after: inside
  lyapunov                     exponents, standard_error (natural log, per step), kaplan_yorke_dimension, entropy
                               (both null where too few exponents were computed to tell), steps, warmup
  constant_input               character, verdict, period, settling_time, spectral_radius, contraction, lyapunov,
                               to_fixed_point [step]
  fixed_points                 at that input: stable, spectral_radius, unstable_directions by point; candidates,
                               unconverged
  singular_values              by span: span, log (natural, falling) of the product of so many Jacobians
  connectivity                 [t][s]: norm of the derivative of the last layer's h after t by the embedding read at s
  itemized                     h [t][k]: norm of what the loss at t sends to the last layer's h at k; share_beyond [d]
  words                        words, points [word][component], explained_variance_ratio, same_word, same_letter,
                               chance_word, chance_letter
  diagnosis                    findings: name, severity, where, evidence, likely_cause, try_this
  paths                        of an LSTM's last layer, medians by distance: c_path, through_h, total
  forget                       of an LSTM's last layer, by lag: product, truth
  cells                        of an LSTM: by unit forget, forget_time, output, carried, exposed; of c and h
                               autocorrelation [lag], autocorrelation_time, gradient [distance], horizon;
                               claims: name, statement, criterion, measured, holds
"""

from __future__ import annotations

from typing import Any

from scratchrnn.dynamics import CellHidden
from scratchrnn.gradflow import GradientFlow
from scratchrnn.study.inside import Inside

FLOW = (
    "steps", "horizon", "censored", "exploding", "decay_time", "h_saturation", "forget_gate", "spectral_radius",
    "input",
)  # fmt: skip


def flow_entry(flow: GradientFlow) -> dict[str, Any]:
    """What a recorder saw."""
    return {name: getattr(flow, name) for name in FLOW}


def inside_entry(inside: Inside) -> dict[str, Any]:
    """What was measured inside a model."""
    spectrum, position = inside.spectrum, inside.position
    return {
        "lyapunov": {
            name: getattr(spectrum, name)
            for name in ("exponents", "standard_error", "kaplan_yorke_dimension", "entropy", "steps", "warmup")
        },
        "constant_input": {
            "character": inside.constant,
            **{
                name: getattr(position, name)
                for name in (
                    "verdict", "period", "settling_time", "spectral_radius", "contraction", "lyapunov",
                    "to_fixed_point",
                )
            },
        },
        "fixed_points": {
            name: getattr(inside.fixed, name)
            for name in ("stable", "spectral_radius", "unstable_directions", "candidates", "unconverged")
        },
        "singular_values": [{"span": one.stop - one.start, "log": one.log[0]} for one in inside.singular],
        "connectivity": inside.connectivity.norm[0],
        "itemized": {"h": inside.itemized.h[-1, :, :, 0], "share_beyond": inside.itemized.share_beyond()},
        "words": inside.words
        and {
            "words": inside.words.words,
            "points": inside.words.projection.points,
            "explained_variance_ratio": inside.words.projection.explained_variance_ratio,
            **{n: getattr(inside.words, n) for n in ("same_word", "same_letter", "chance_word", "chance_letter")},
        },
        "diagnosis": {"findings": [vars(finding) for finding in inside.diagnosis.findings]},
        "paths": inside.paths
        and {name: getattr(inside.paths, name)[-1] for name in ("c_path", "through_h", "total")},
        "forget": inside.forget and {name: getattr(inside.forget, name)[-1] for name in ("product", "truth")},
        "cells": inside.cells and _cells(inside.cells),
    }  # fmt: skip


def _cells(cells: CellHidden) -> dict[str, Any]:
    entry: dict[str, Any] = {
        name: getattr(cells, name) for name in ("forget", "forget_time", "output", "carried", "exposed")
    }
    for name in "ch":
        memory = getattr(cells, name)
        entry[name] = {
            "autocorrelation": memory.autocorrelation.by_lag,
            "autocorrelation_time": memory.autocorrelation.time,
            "gradient": memory.gradient,
            "horizon": memory.decay.horizon,
        }
    return entry | {"claims": [vars(claim) for claim in cells.claims()]}
