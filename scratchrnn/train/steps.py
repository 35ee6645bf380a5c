"""Training a character model by truncated backpropagation through time, statefully.

Every window starts from the state in which the one before ended, taken as a constant: k1 = k2 = T, so the gradient
flows through the T steps of its own window and no further.

    forward over the window, cross-entropy averaged over its T·B characters, backward, clip the global norm, update

References
----------
Williams, Peng, "An efficient gradient-based algorithm for on-line training of recurrent network trajectories", 1990.
Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013 (clipping).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import IntArray
from scratchrnn._validate import check_positive_int
from scratchrnn.data import Stream, Window
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.optim import Optimizer, clip_grad_norm_
from scratchrnn.trace import State

NATS_PER_BIT = math.log(2)


class DivergedError(ArithmeticError):
    """The loss or the gradient is no longer a finite number; training has stopped before the update."""


@dataclass(frozen=True)
class Step:
    """One update, after it was made.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean cross-entropy of the window in nats per character, before the update.
    gradient_norm : float
        Global norm before clipping.
    characters : int
        T·B, predicted in this step.
    seconds : float
        That the step took.
    """

    number: int
    loss: float
    gradient_norm: float
    characters: int
    seconds: float

    @property
    def bits(self) -> float:
        """The loss in bits per character."""
        return self.loss / NATS_PER_BIT

    @property
    def characters_per_second(self) -> float:
        """Speed of this step alone."""
        return self.characters / self.seconds


def train(
    model: CharModel, windows: Iterable[Window], optimizer: Optimizer, *, max_norm: float = 1.0
) -> Iterator[Step]:
    """Train on one window for each item that is taken; stop taking, and training has stopped, between two updates.

    Parameters
    ----------
    model : CharModel
        Updated in place.
    windows : iterable of Window
        As `Stream.epoch` or `Stream.forever` give them. The state is carried from each to the next, and set to zero
        where a window says `starts`.
    optimizer : Optimizer
        Over `model.parameters`.
    max_norm : float
        Bound on the global norm of the gradient; `math.inf` does not clip.

    Yields
    ------
    Step

    Raises
    ------
    DivergedError
        The loss or the gradient became NaN or infinite; the parameters are those before that step.
    """
    state: State | None = None
    for number, window in enumerate(windows, start=1):
        start = time.perf_counter()
        trace = model.forward(window.inputs, None if window.starts else state)
        loss, d_logits = cross_entropy(trace.logits, window.targets)
        if not np.isfinite(loss):
            raise DivergedError(f"the loss of {model.cell} became {float(loss)} at step {number}")
        gradients = model.backward(trace, d_logits).parameters
        norm = clip_grad_norm_(gradients, max_norm)
        if not math.isfinite(norm):
            raise DivergedError(f"the gradient's norm of {model.cell} became {norm} at step {number}")
        optimizer.step(gradients)
        state = trace.state
        yield Step(number, float(loss), norm, window.targets.size, time.perf_counter() - start)


def evaluate(model: CharModel, codes: IntArray, *, rows: int = 64, steps: int = 64) -> float:
    """Mean cross-entropy of a text in nats per character, the state carried through it.

    Parameters
    ----------
    codes : ndarray (N,) of int
        The text.
    rows : int
        It is read as this many parallel rows, each from the zero state; fewer where the text is short.
    steps : int
        Read at a time; it changes memory and speed, not the result.
    """
    check_positive_int("rows", rows)
    stream = Stream(codes, batch=max(1, min(rows, (len(codes) - 1) // steps)), steps=1)
    state: State | None = None
    total = 0.0
    for start in range(0, len(stream.inputs), steps):
        logits, state = model(stream.inputs[start : start + steps], state)
        loss, _ = cross_entropy(logits, stream.targets[start : start + steps], reduction="sum")
        total += float(loss)
    return total / stream.inputs.size
