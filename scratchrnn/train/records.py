"""What a Trainer tells of its work: an update, a run, and why one stopped."""

from __future__ import annotations

import math
from dataclasses import dataclass

NATS_PER_BIT = math.log(2)


class DivergedError(ArithmeticError):
    """A loss, gradient or parameter is no longer a finite number; training has stopped, the last checkpoint is good."""


def bits(loss: float) -> float:
    """A loss in nats as bits."""
    return loss / NATS_PER_BIT


def perplexity(loss: float) -> float:
    """exp of a loss in nats; inf beyond the range of float."""
    return math.exp(loss) if loss < 709.0 else math.inf


@dataclass(frozen=True)
class Step:
    """One update, after it was made.

    Attributes
    ----------
    number : int
        From 1.
    loss : float
        Mean per item before the update, over all accumulated batches.
    penalty : float
        What regularisers added to it.
    gradient_norm : float
        Global norm before clipping.
    clipped : bool
        Whether that was more than `max_norm`.
    lr : float
        Learning rate of this update.
    items : int
        Predicted in this update.
    seconds : float
        That the update took.
    epoch : int or None
        From 1, the pass over all data that its last batch was of, where the objective counts them.
    evaluation : dict of float or None
        Figures on the data held out after this update, where it was looked at.
    """

    number: int
    loss: float
    penalty: float
    gradient_norm: float
    clipped: bool
    lr: float
    items: int
    seconds: float
    epoch: int | None = None
    evaluation: dict[str, float] | None = None

    @property
    def bits(self) -> float:
        """The loss in bits per item, if it is in nats."""
        return bits(self.loss)

    @property
    def perplexity(self) -> float:
        """exp(loss), if it is in nats."""
        return perplexity(self.loss)

    @property
    def items_per_second(self) -> float:
        """Speed of this update alone."""
        return self.items / self.seconds


@dataclass(frozen=True)
class Result:
    """A run, as far as it came.

    Attributes
    ----------
    steps : int
        Updates made, those before a resume included.
    stopped : str or None
        None if all were made; "patience" if the figures on held-out data did not improve any more; "asked" if `stop`
        was called.
    best_step : int or None
        After which update the loss on held-out data was lowest.
    best_loss : float or None
        What it was.
    seconds : float
        Spent on updates and evaluations, those before a resume included.
    """

    steps: int
    stopped: str | None
    best_step: int | None
    best_loss: float | None
    seconds: float
