"""What a Trainer needs of a problem, and the sum of several batches.

Accumulation over m batches with n_j items, mean loss L_j and its gradient g_j each:

    n = Σ n_j        L = Σ n_j L_j / n        g = Σ n_j g_j / n

which is the mean over all items and its gradient, whatever the sizes of the batches.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol

import numpy as np

from scratchrnn._typing import FloatArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """One batch, forward and back.

    Attributes
    ----------
    loss : float
        Mean over the items.
    count : int
        Items that the mean is over.
    gradients : dict of ndarray
        Of loss and penalty together, by the parameters' names. They belong to whoever takes them, and may be changed.
    penalty : float
        What regularisers add to the loss; not part of `loss`.
    """

    loss: float
    count: int
    gradients: dict[str, FloatArray]
    penalty: float = 0.0


class Objective(Protocol):
    """A problem to be trained on: parameters, data and loss together.

    What else may be there: `nats`, True where the loss is a negative log-likelihood in nats, so that bits and
    perplexity mean something; `epoch`, from 1, the pass over all data that the last batch was of.
    """

    @property
    def parameters(self) -> dict[str, FloatArray]:
        """The live arrays that an optimizer updates, by name."""

    def step(self) -> Outcome:
        """Take the next batch, run forward and back, and move on."""

    def evaluate(self) -> dict[str, float]:
        """Figures on data held out, "loss" among them; nothing moves."""

    def state_dict(self) -> dict[str, Any]:
        """All that moves, the parameters excepted, and what the run must not be resumed without: see `checkpoint`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict()` of an objective like this one; ValueError if it is of another."""

    def blame(self) -> str | None:
        """Where the first number of the last step that is not finite arose; None where all are."""


def accumulated(objective: Objective, times: int) -> Outcome:
    """`times` batches taken as one; the first alone whose numbers are not finite, of which `blame` can tell where."""
    first = objective.step()
    if times == 1 or not _finite(first):
        return first
    count, loss, penalty = first.count, first.count * first.loss, first.count * first.penalty
    total = first.gradients
    with np.errstate(all="ignore"):  # inf and nan are looked for by whoever takes the sum
        for gradient in total.values():
            gradient *= first.count
        for _ in range(times - 1):
            one = objective.step()
            if not _finite(one):
                return one
            count += one.count
            loss += one.count * one.loss
            penalty += one.count * one.penalty
            for name, gradient in one.gradients.items():
                gradient *= one.count
                total[name] += gradient
        for gradient in total.values():
            gradient /= max(count, 1)
    return Outcome(loss / max(count, 1), count, total, penalty / max(count, 1))


def _finite(outcome: Outcome) -> bool:
    numbers = math.isfinite(outcome.loss) and math.isfinite(outcome.penalty)
    return numbers and all(np.isfinite(gradient).all() for gradient in outcome.gradients.values())


def check_same_settings(made_with: dict[str, Any], own: dict[str, Any]) -> None:
    """Refuse to resume a run that was made with other settings."""
    names = [*own, *(name for name in made_with if name not in own)]
    differing = [name for name in names if made_with.get(name) != own.get(name)]
    if differing:
        was, now = (", ".join(f"{name}={them.get(name)!r}" for name in differing) for them in (made_with, own))
        raise ValueError(f"resume: the run was made with {was}; got {now}")


def digest_of(*arrays: Any) -> str:
    """SHA-256 of arrays with their dtypes and shapes, as hexadecimal digits."""
    digest = hashlib.sha256()
    for array in map(np.asarray, arrays):
        digest.update(f"{array.dtype.name} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def name_of(function: Any) -> str:
    """A text by which a resumed run knows a function again: the fields of a record, else its name."""
    return repr(function) if is_dataclass(function) else getattr(function, "__qualname__", type(function).__name__)
