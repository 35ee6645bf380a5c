"""The five symptoms of a sick recurrent net, each told from the figures, with what they say of its cause.

    all zeros                    |h| < 0.01 nearly everywhere. It happens forwards: whether gradients vanish is a
                                 question to the backward pass, and a state of zeros does not answer it.
    saturated                    |h| of a tanh RNN, |tanh c| of an LSTM, > 0.99 nearly everywhere. Open or closed gates
                                 are no symptom: an open forget gate is what a long memory looks like.
    identical across the batch   samples that read different things are in equal states. If they read the same, that is
                                 as it must be, and the question goes to the data.
    not finite                   NaN or infinity, by the first one: exploding gradients are one cause among several.
    no learning                  no gradient reaches a layer, most units of a relu net are never active, or the loss
                                 does not fall over many updates.

What follows from something else is not found again: zeros are identical as well, and a layer that reads zeros or equal
inputs from the layer below is not at fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import DType
from scratchrnn.dynamics.figures import Figures
from scratchrnn.dynamics.observed import ObservedLayer, UpdateFigures
from scratchrnn.nonfinite import NonFinite
from scratchrnn.trace import Key

NAMES = ("all zeros", "saturated", "identical across the batch", "not finite", "no learning")
SEVERITIES = ("fault", "warning", "note")

# Sizes of updates beside the weights: about 1e-3 is usual (Karpathy, CS231n, Neural networks 3, "Ratio of
# weights:updates"). Ten times below, a hundred updates move the weights by 1 % at most; a hundred times above, they are
# thrown about. Where the loss does not fall, the step is then a likely cause.
SMALL_UPDATE, LARGE_UPDATE = 1e-4, 1e-1

Evidence = Mapping[str, float | int | str]


@dataclass(frozen=True)
class Finding:
    """A symptom, and what to do about it.

    Attributes
    ----------
    name : str
        "all zeros", "saturated", "identical across the batch", "not finite" or "no learning".
    severity : str
        "fault": it cannot work like this. "warning": it works badly, or seems to. "note": it may be meant.
    where : str
        Such as "layer 0 forward, h", or the number that was the first not to be finite.
    evidence : mapping of str to number or str
        The figures that it was told from.
    likely_cause, try_this : str
    """

    name: str
    severity: str
    where: str
    evidence: Evidence
    likely_cause: str
    try_this: str

    def __str__(self) -> str:
        shown = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in self.evidence.items()
        )
        lines = [f"{self.name} ({self.severity}): {self.where}", f"  evidence      {shown}"]
        return "\n".join([*lines, f"  likely cause  {self.likely_cause}", f"  try           {self.try_this}"])


@dataclass(frozen=True)
class Blame:
    """The first number that is not finite, and what is known around it.

    Attributes
    ----------
    what : str
        "state", "gradient", "parameter", "gradient of a parameter", "loss", or "loss of an update" without its pass.
    where : str
    first : NonFinite or None
        Of a state or the gradient of one.
    number : int
        Of the pass, or of the update, from 1.
    largest : float
        Largest finite magnitude in the same pass.
    dtype : numpy dtype
    """

    what: str
    where: str
    first: NonFinite | None
    number: int
    largest: float
    dtype: DType


def place(key: Key) -> str:
    """Layer and direction in words."""
    return f"layer {key[0]} {key[1]}"


# All zeros


def all_zeros(layer: ObservedLayer, table: Mapping[str, Figures]) -> Finding | None:
    """Whether nearly all of a layer's states are near zero."""
    h, share = table["h"], layer.limits.zeros_share
    if not h.near_zero >= share:
        return None
    evidence: dict[str, float | int | str] = {"near_zero": h.near_zero, "min": h.min, "max": h.max}
    severity = "fault"
    if layer.dead is not None and layer.dead.all():
        evidence |= {"dead_units": int(layer.dead.sum()), "units": layer.units}
        cause = "dead relu units: every pre-activation is 0 or below, at every step of every sequence"
        advice = "a smaller learning rate, biases of 0 or above, a smaller or identity recurrent initialization"
    elif layer.lstm and table["o"].near_zero >= share:
        evidence |= {"output_gate_max": table["o"].max, "c_std": table["c"].std}
        cause, advice = "the output gate is closed: what the cell holds is not let out", "the output gate's bias"
    elif _closed(layer, table):
        evidence |= {"input_gate_max": table["i"].max, "g_std": table["g"].std}
        cause, advice = "the input gate is closed: nothing gets into the cell", "the input gate's bias"
    elif table["input"].near_zero >= share:
        evidence |= {"input_near_zero": table["input"].near_zero}
        cause = "the input itself is zero: the net has nothing to work on"
        advice = "print a batch; look at how it is loaded, scaled and padded (give lengths)"
    else:
        evidence |= {f"rms_{name}": size for name, size in layer.weight_size.items()}
        severity = "warning"  # small is not zero: gradients pass, and training may enlarge the weights
        cause = "weights so small that pre-activations stay near zero"
        advice = "larger weights, such as orthogonal recurrent ones; biases; less weight decay"
    gradient = layer.gradient_figures()
    evidence["gradient"] = "not looked at" if gradient is None else f"norm {gradient.last:.3g} at the last step"
    return Finding("all zeros", severity, f"{place(layer.key)}, h", evidence, cause, advice)


# Saturated


def saturated(layer: ObservedLayer, table: Mapping[str, Figures]) -> Finding | None:
    """Whether nearly all of a layer's tanh values sit at -1 or 1."""
    part = "tanh_c" if layer.lstm else "h"
    share = table[part].saturated
    if share is None or not share >= layer.limits.saturated_share:
        return None
    evidence: dict[str, float | int | str] = {"saturated": share}
    if layer.lstm:
        evidence |= {
            "largest_c": max(abs(table["c"].min), abs(table["c"].max)), "saturated_c_0": layer.saturated_c_0,
            "mean_forget_gate": table["f"].mean, "mean_input_gate": table["i"].mean,
        }  # fmt: skip
        if layer.saturated_c_0 >= layer.limits.saturated_share:
            cause = "the cell state that the sequences begin with is already so large"
            advice = "zeros or a learned initial state; a reset where a new document begins"
        else:
            cause = "the cell adds up more than it forgets"
            advice = "a smaller forget bias; shorter sequences or resets; inputs of unit variance"
    else:
        evidence |= {f"rms_of_{name}_term": size for name, size in layer.drive.items()}
        largest = max(layer.drive, key=layer.drive.__getitem__)
        cause, advice = {
            "input": (
                "what comes from the input is too large: unscaled inputs, or large input weights",
                "inputs of zero mean and unit variance; the usual initialization of weight_ih",
            ),
            "recurrent": (
                "what comes from the state before is too large: recurrent weights",
                "a smaller or orthogonal weight_hh; gradient clipping and a smaller learning rate, if training did it",
            ),
            "bias": ("the biases are too large", "biases of 0; a smaller learning rate, if training did it"),
        }[largest]
    return Finding("saturated", "warning", f"{place(layer.key)}, {part}", evidence, cause, advice)


# Identical across the batch


def identical(layer: ObservedLayer, table: Mapping[str, Figures]) -> Finding | None:
    """Whether samples that read different things are in the same states."""
    h = table["h"]
    limit = layer.limits.identical
    if layer.spread is None or h.nan_count or h.inf_count or h.near_zero >= layer.limits.zeros_share:
        return None
    largest = max(abs(h.min), abs(h.max))
    if not layer.spread <= limit * largest:
        return None
    same_input = layer.input_spread <= limit * layer.largest_input
    if same_input and layer.key[0] > 0:
        return None
    evidence: dict[str, float | int | str] = {
        "largest_difference": layer.spread, "largest_h": largest, "largest_input_difference": layer.input_spread,
    }  # fmt: skip
    where = f"{place(layer.key)}, h"
    if same_input:
        if layer.input_spread:
            cause = "the samples read nearly the same input: what they differ in is small beside what they share"
            advice = "subtract what they share, such as the mean of each input over the data, and scale the rest"
        else:
            cause = "the samples read the same input, so their states are as they must be"
            advice = "if that is not meant: look for one sample repeated, or broadcast, where batches are made"
        return Finding("identical across the batch", "note", where, evidence, cause, advice)
    share = table["tanh_c" if layer.lstm else "h"].saturated
    evidence["rms_weight_ih"] = layer.weight_size["weight_ih"]
    if share is not None and share >= layer.limits.saturated_share:
        cause, advice = "saturation: every sample is pushed into the same corner", "what is said there"
    elif layer.weight_size["weight_ih"] and layer.input_spread < layer.limits.near_zero and not _closed(layer, table):
        cause = "the inputs differ by so little that biases and the state before drown it"
        advice = "inputs of zero mean and unit variance"
    else:
        cause = "the input does not reach the state: input weights of 0, or an input gate that is closed"
        advice = "weight_ih and, of an LSTM, its rows i and g; whether an update or a mask has set them to 0"
    return Finding("identical across the batch", "fault", where, evidence, cause, advice)


def _closed(layer: ObservedLayer, table: Mapping[str, Figures]) -> bool:
    """Whether an LSTM's input gates let nothing in."""
    return layer.lstm and table["i"].near_zero >= layer.limits.zeros_share


# Not finite


def not_finite(blame: Blame) -> Finding:
    """What the first number that is not finite says of its cause."""
    evidence: dict[str, float | int | str] = {"update" if blame.what == "loss of an update" else "pass": blame.number}
    if blame.first is not None:
        evidence |= vars(blame.first)
    evidence["largest_finite"] = blame.largest
    overflowed = blame.largest > float(np.finfo(blame.dtype).max) ** 0.5
    quantity = "" if blame.first is None else blame.first.quantity
    if blame.what == "parameter":
        cause = "an update made a parameter infinite or NaN: a step too large, or a gradient that was not finite"
        advice = "gradient clipping (clip_grad_norm_ with error_if_nonfinite=True), a smaller learning rate"
    elif blame.what == "loss of an update":
        cause = "not to be told from a loss alone"
        advice = "diagnose_model on the batch of this update, with the weights from before it"
    elif blame.what == "loss":
        cause = "the loss itself: all states are finite"
        advice = "the loss function and its targets; logarithms and divisions in it"
    elif quantity == "input":
        cause = "what the net reads holds it: the data, or a layer below such as an embedding"
        advice = "look at this sample where batches are made; at the weights of what lies below"
    elif quantity in ("h_0", "c_0"):
        cause = "the state that the pass began with: an earlier pass, or a learned initial state"
        advice = "diagnose the pass before; reset the state"
    elif blame.what == "state":
        cause = "overflow in the forward pass, of finite weights and inputs: values grew beyond what the dtype holds"
        advice = "smaller weights (a relu net: identity recurrent weights, Le et al. 2015); inputs of unit variance"
    elif overflowed:
        cause = "exploding gradients: they grew on their way back until they overflowed"
        advice = "clip inside the time loop (backward(..., clip=)), smaller recurrent weights, truncation"
    else:
        cause = "the gradient that was handed in, from the loss or the layers above"
        advice = "the loss function and its gradient; the layers after this one"
    return Finding("not finite", "fault", blame.where, evidence, cause, advice)


# No learning


def no_gradient(layer: ObservedLayer, table: Mapping[str, Figures]) -> Finding | None:
    """Whether every gradient of a layer's parameters was exactly 0."""
    gradient, dead = layer.gradient_figures(), layer.dead
    if gradient is None or gradient.any:
        return None
    evidence: dict[str, float | int | str] = {"backward_passes": layer.backward_passes, "dL/dh_last": gradient.last}
    if dead is not None:
        evidence["dead_units"] = int(dead.sum())
    if dead is not None and dead.all():
        cause = "dead units: none is ever active, and the gradient of a unit that is not is exactly 0"
        advice = "a smaller learning rate, biases of 0 or above; tanh"
    elif (table["tanh_c" if layer.lstm else "h"].saturated or 0.0) >= layer.limits.saturated_share:
        cause = "saturation so far that the local derivative is exactly 0 in this dtype"
        advice = "what is said of saturation"
    elif gradient.last == 0.0:
        cause = "the loss does not depend on this layer: the gradient of its last state is 0"
        advice = "what lies between state and loss: weights of 0 in the decoder, a mask, a state that is not passed on"
    else:
        cause = "a gradient arrives at the states, and none at the parameters: gates that are closed"
        advice = "the gates in the table; their biases"
    return Finding("no learning", "fault", place(layer.key), evidence, cause, advice)


def dead_units(layer: ObservedLayer, table: Mapping[str, Figures]) -> Finding | None:
    """Whether most units of a relu net are never active; all of them are "all zeros"."""
    dead, h = layer.dead, table["h"]
    if dead is None or not layer.limits.dead_share <= dead.mean() or h.near_zero >= layer.limits.zeros_share:
        return None
    evidence = {"dead_units": int(dead.sum()), "units": layer.units}
    cause = "dead units: never active on this data, so that their weights get a gradient of exactly 0"
    advice = "a smaller learning rate, biases of 0 or above; more data, in case others make them active"
    return Finding("no learning", "warning", place(layer.key), evidence, cause, advice)


def no_progress(updates: UpdateFigures, least: int, fall: float) -> Finding | None:
    """Whether the loss does not fall over many updates."""
    if updates.count < least:
        return None
    fallen = updates.first_loss - updates.last_loss
    worse = updates.lowest_last_loss > updates.start_loss + updates.scatter  # it may fall from where it was thrown
    if fallen > max(2 * updates.noise, fall * abs(updates.first_loss)) and not worse:
        return None
    evidence: dict[str, float | int | str] = {
        "updates": updates.count, "start_loss": updates.start_loss, "first_loss": updates.first_loss,
        "last_loss": updates.last_loss, "noise": updates.noise, "relative_update": updates.relative_update,
    }  # fmt: skip
    severity = "warning"
    if updates.gradient_norm is not None:
        evidence["gradient_norm"] = updates.gradient_norm
    if updates.gradient_norm == 0.0:
        severity, cause = "fault", "the gradient is exactly 0"
        advice = "diagnose_model with a loss says in which layer it ends"
    elif updates.relative_update == 0.0:
        severity = "fault"
        cause = "the parameters do not change: a learning rate of 0, or an optimizer over other arrays"
        advice = "give the optimizer model.parameters, the live arrays; the learning rate and its schedule"
    elif updates.relative_update < SMALL_UPDATE:
        cause = "updates too small beside the weights: the learning rate, or gradients that vanish"
        advice = "a learning rate ten times as large until they are about 1e-3 of the weights"
    elif worse or updates.relative_update > LARGE_UPDATE:
        cause = "updates too large: they jump over what they should find"
        advice = "a smaller learning rate, gradient clipping, a warm-up"
    else:
        cause = "updates of a usual size without effect: inputs that do not tell the targets, or a loss at its floor"
        advice = (
            "overfit one small batch; check that inputs and targets belong together, and how far the memory reaches"
        )
    if updates.unchanged:
        evidence["unchanged"] = ", ".join(updates.unchanged)
    return Finding("no learning", severity, "training", evidence, cause, advice)


def of_layer(layer: ObservedLayer) -> Iterator[Finding]:
    """All that is found in one layer and direction."""
    table = layer.figures()
    starved = layer.key[0] > 0 and table["input"].near_zero >= layer.limits.zeros_share
    rules = (saturated, no_gradient) if starved else (all_zeros, saturated, identical, no_gradient, dead_units)
    for rule in rules:
        found = rule(layer, table)
        if found is not None:
            yield found
