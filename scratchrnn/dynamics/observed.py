"""What a diagnosis remembers of the passes and updates that it was shown: sums, extremes and counts, no batch.

    spread      max over units and steps of (max over samples - min over samples), where two samples or more are at work
    drive       rms of the three terms of a pre-activation: W_ih x_t,  W_hh h_{t-1},  b_ih + b_hh
    update      ‖θ_n - θ_{n-1}‖ / ‖θ_{n-1}‖, all parameters taken as one vector

Dimensions: B batch, T time, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Set
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_int, check_probability
from scratchrnn.backends import arrays
from scratchrnn.dynamics.figures import Figures, Running
from scratchrnn.dynamics.which import own_steps
from scratchrnn.layers.direction import Weights
from scratchrnn.optim import global_norm
from scratchrnn.trace import Key, LayerGradients, LayerTrace, Trace


@dataclass(frozen=True)
class Limits:
    """Where a figure becomes a symptom.

    Attributes
    ----------
    near_zero, saturated : float
        |h| below the one is near zero, above the other saturated. For gates: closed below 1 - `saturated`, open above
        `saturated`.
    zeros_share : float
        Share of values near zero from which on they are "all zeros".
    saturated_share : float
        Share of saturated values from which on they are "saturated".
    dead_share : float
        Share of units of a relu net that are never active, from which on it is "no learning".
    identical : float
        Samples whose states differ by no more than this share of the largest |h| are "identical across the batch".
    least_updates : int
        Updates, at least 8, before "no learning" is judged from losses.
    least_fall : float
        "no learning" if the mean loss of the last quarter of the updates is not lower than that of the first by this
        share of it, and by two standard errors; or all of the last
        quarter lie above the very first by more than their scatter.
    """

    near_zero: float = 0.01
    saturated: float = 0.99
    zeros_share: float = 0.99
    saturated_share: float = 0.8
    dead_share: float = 0.5
    identical: float = 1e-5
    least_updates: int = 20
    least_fall: float = 0.01

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name == "least_updates":
                check_int(name, value, least=8)
            else:
                check_probability(name, value)


@dataclass(frozen=True)
class GradientFigures:
    """Size of dL/dh of one direction of one layer, over all samples of all passes.

    Attributes
    ----------
    first, last : float
        Norm at the direction's own first step, and at each sequence's own end.
    any : bool
        Whether any parameter of this layer and direction had a gradient that is not exactly 0.
    """

    first: float
    last: float
    any: bool

    @property
    def ratio(self) -> float:
        """First over last: far below 1 the gradient vanishes on its way back, far above it explodes; NaN if last is 0.

        Where there are losses at many steps, those near the first step add to it, and hide what vanishes.
        """
        return self.first / self.last if self.last else math.nan


class ObservedLayer:
    """One direction of one layer, over any number of passes."""

    def __init__(self, key: Key, trace: Trace, limits: Limits) -> None:
        part = trace.layers[key]
        self.key, self.cell, self.limits = key, trace.cell, limits
        self.units, self.inputs, self.dtype = part.h.shape[2], part.input.shape[2], part.h.dtype
        self.lstm = trace.cell == "lstm"
        bounded = not (trace.cell == "rnn_relu" or (self.lstm and part.c.shape != part.h.shape))
        ends: dict[str, tuple[float, float] | None] = {"input": None, "h": self._ends("h") if bounded else None}
        if self.lstm:
            ends |= {"c": None} | {name: self._ends(name) for name in ("tanh_c", "i", "f", "g", "o")}
        self._running = {name: Running(limits.near_zero, *(pair or ())) for name, pair in ends.items()}
        self.active = np.zeros(self.units, np.bool_)  # (H,) not 0 at some step
        self.spread: float | None = None  # None until a pass had two samples
        self.input_spread = 0.0
        self.largest_input = self.saturated_c_0 = 0.0
        self.drive: dict[str, float] = {}
        self.weight_size: dict[str, float] = {}
        self._first = self._last = 0.0
        self.backward_passes, self.reached = 0, False

    def _ends(self, name: str) -> tuple[float, float]:
        high = self.limits.saturated
        return (1 - high if name in ("i", "f", "o") else -high), high

    @np.errstate(all="ignore")  # inf and nan are what is looked for
    def add(self, part: LayerTrace, weights: Weights) -> None:
        """Take in a forward pass."""
        own = own_steps(part)  # (T', B)
        read = (arrays.reverse_time(part.input, part.lengths) if part.reverse else part.input)[: len(own)]
        h = part.h[1 : len(own) + 1]
        rows = h[own]  # (N, H)
        values = {"input": read[own], "h": rows}
        if self.lstm:
            c = part.c[1 : len(own) + 1][own]
            values |= {"c": c, "tanh_c": np.tanh(c)}
            values |= dict(zip("ifgo", np.split(part.gates[: len(own)][own], 4, axis=-1), strict=True))
            begun = np.abs(np.tanh(part.c[0])) > self.limits.saturated
            self.saturated_c_0 = max(self.saturated_c_0, float(begun.mean()))
        for name, running in self._running.items():
            running.add(values[name])
        self.active |= (rows != 0).any(axis=0)
        self.largest_input = max(self.largest_input, _largest(values["input"]))
        together = own.sum(axis=1) >= 2
        if together.any():
            self.spread = _wider(self.spread or 0.0, _spread(h[together], own[together]))
            self.input_spread = _wider(self.input_spread, _spread(read[together], own[together]))
        self.weight_size = {name: _rms(w) for name, w in weights._asdict().items() if w is not None}
        far, known = (np.abs(rows) > self.limits.saturated).sum(), np.isfinite(rows).sum()
        if self.cell == "rnn_tanh" and known and far >= self.limits.saturated_share * known:
            self.drive = {
                "input": _rms(values["input"] @ weights.weight_ih.T),
                "recurrent": _rms(part.h[: len(own)][own] @ weights.weight_hh.T),
                "bias": _rms(weights.bias_ih + weights.bias_hh),
            }

    def add_gradients(self, part: LayerTrace, gradients: LayerGradients, reached: bool) -> None:
        """Take in the backward pass; `reached` says whether a parameter's gradient is not 0."""
        self._first = math.hypot(self._first, global_norm({"h": gradients.h[1]}))
        self._last = math.hypot(self._last, global_norm({"h": part.at_end(gradients.h)}))
        self.backward_passes += 1
        self.reached |= reached

    @property
    def dead(self) -> BoolArray | None:
        """Units (H,) of a relu net that were 0 at every step; None for other cells."""
        return ~self.active if self.cell == "rnn_relu" else None

    def figures(self) -> dict[str, Figures]:
        """The table."""
        return {name: running.figures() for name, running in self._running.items()}

    def gradient_figures(self) -> GradientFigures | None:
        """None if there was no backward pass."""
        return GradientFigures(self._first, self._last, self.reached) if self.backward_passes else None


@dataclass(frozen=True)
class UpdateFigures:
    """What updates did, from losses and parameters.

    Attributes
    ----------
    count : int
    start_loss : float
        Of the first update.
    first_loss, last_loss : float
        Mean over the first and over the last quarter of the updates.
    lowest_last_loss : float
        Of the last quarter.
    scatter : float
        Standard deviation of a loss, from the differences of successive ones, which a trend hardly touches.
    relative_update : float
        Median of ‖Δθ‖ / ‖θ‖.
    gradient_norm : float or None
        Median, as far as it was given.
    unchanged : tuple of str
        Parameters that no update has changed.
    """

    count: int
    start_loss: float
    first_loss: float
    last_loss: float
    lowest_last_loss: float
    scatter: float
    relative_update: float
    gradient_norm: float | None
    unchanged: tuple[str, ...]

    @property
    def noise(self) -> float:
        """Standard error of the difference of `first_loss` and `last_loss`."""
        return self.scatter * math.sqrt(2 / _quarter(self.count))


class ObservedUpdates:
    """Losses and steps of the parameters, over any number of updates; holds one copy of the parameters."""

    def __init__(self) -> None:
        self._before: dict[str, FloatArray] = {}
        self._losses: list[float] = []
        self._relative: list[float] = []
        self._norms: list[float] = []
        self._changed: set[str] = set()

    @property
    def count(self) -> int:
        """Updates so far."""
        return len(self._losses)

    @property
    def names(self) -> Set[str]:
        """Of the parameters."""
        return self._before.keys()

    def add(self, parameters: Mapping[str, FloatArray], loss: float, gradient_norm: float | None) -> None:
        """Take in the parameters as they are after an update, and the loss and gradient that it came from."""
        if self._before:
            with np.errstate(all="ignore"):
                steps = {name: array - self._before[name] for name, array in parameters.items()}
            size = global_norm(self._before)
            self._relative.append(global_norm(steps) / size if size else math.nan)
            self._changed |= {name for name, step in steps.items() if step.any()}
        self._before = {name: array.copy() for name, array in parameters.items()}
        self._losses.append(loss)
        if gradient_norm is not None:
            self._norms.append(gradient_norm)

    def figures(self) -> UpdateFigures | None:
        """None before the second update: how far the first one went is not known."""
        if not self._relative:
            return None
        losses = np.array(self._losses)
        quarter = _quarter(len(losses))
        with np.errstate(all="ignore"):
            scatter = math.sqrt(float(np.mean(np.diff(losses) ** 2)) / 2)  # von Neumann 1941
            first, last = float(losses[:quarter].mean()), float(losses[-quarter:].mean())
        return UpdateFigures(
            count=len(losses),
            start_loss=self._losses[0],
            first_loss=first,
            last_loss=last,
            lowest_last_loss=float(losses[-quarter:].min()),
            scatter=scatter,
            relative_update=float(np.median(self._relative)),
            gradient_norm=float(np.median(self._norms)) if self._norms else None,
            unchanged=tuple(name for name in self._before if name not in self._changed),
        )


def _quarter(count: int) -> int:
    return max(1, count // 4)


def _spread(values: FloatArray, own: BoolArray) -> float:  # (T, B, H), (T, B)
    if not own.all():
        low = np.where(own[:, :, None], values, np.inf).min(axis=1)
        high = np.where(own[:, :, None], values, -np.inf).max(axis=1)
    else:
        low, high = values.min(axis=1), values.max(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        return float((high - low).max())


def _wider(one: float, other: float) -> float:
    """The larger; NaN, which differs from everything, is the largest."""
    return other if math.isnan(other) or other > one else one


def _largest(values: FloatArray) -> float:
    finite = np.abs(values[np.isfinite(values)])
    return float(finite.max(initial=0.0))


def _rms(values: FloatArray) -> float:
    return global_norm({"values": values}) / math.sqrt(values.size) if values.size else 0.0
