"""The loss on text that was not trained on, the state carried through it."""

from __future__ import annotations

from typing import cast

from scratchrnn._typing import IntArray
from scratchrnn._validate import check_positive_int
from scratchrnn.bptt import Stream
from scratchrnn.data import ContiguousRows
from scratchrnn.data.contiguous import IGNORED
from scratchrnn.layers.initial_state import as_state
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.trace import State


def evaluate(model: CharModel, text: IntArray | ContiguousRows, *, rows: int = 64, steps: int = 64) -> float:
    """Mean cross-entropy of a text in nats per character.

    Parameters
    ----------
    model : CharModel
        Rows and documents begin with its learned state if it has one, else with zeros.
    text : ndarray (N,) of int, or ContiguousRows
        Codes, laid out here as `rows` rows; or rows that are laid out already, with their documents.
    rows : int
        Codes are read as this many parallel rows, each from the initial state; fewer where the text is short.
    steps : int
        Read at a time. Of codes a row has at least as many, where there are enough of them.

    Raises
    ------
    ValueError
        There is nothing to predict.
    """
    check_positive_int("rows", rows), check_positive_int("steps", steps)
    if not isinstance(text, ContiguousRows):
        text = ContiguousRows(text, batch=max(1, min(rows, (len(text) - 1) // steps)))
    stream = Stream(model.rnn, initial_state(model))
    total, count = 0.0, 0
    for window in text.windows(steps):
        codes, targets = cast(IntArray, window.inputs), cast(IntArray, window.targets)
        logits = model.decoder(stream(model.embedding(codes), window.reset))
        loss, _ = cross_entropy(logits, targets, reduction="sum")
        total += float(loss)
        count += counted(targets)
    if not count:
        raise ValueError(
            f"text: expected a character to predict; got {text.targets.size} steps, each the last of its document"
        )
    return total / count


def initial_state(model: CharModel) -> State | None:
    """The learned state of one sample (L, ·), the live arrays; None without one."""
    return None if model.initial_state is None else as_state(list(model.initial_state.parameters.values()))


def counted(targets: IntArray) -> int:
    """How many targets there are, those left out that `cross_entropy` ignores."""
    return int((targets != IGNORED).sum())
