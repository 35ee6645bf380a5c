"""Fixed data on which a net is looked at again and again while it learns: what a recorder asks at each sample.

A probe is a function probe(objective) -> (layer, trace, d_last): the recurrent layer, its trace on the probe's data,
and dL/d(output) at each sequence's last step, as `gradient_by_distance` takes them. It runs in inference mode and draws
no random number, so that training goes on as if nobody had looked.

    text:  L = Σ_b -log softmax(W h_{T-1,b} + b)[next character]       one loss for each place in the text
    task:  L = loss(W h_{n-1} + b, targets)                            the objective's own, on sequences held out
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, check_positive_int, describe, take_array
from scratchrnn.gradflow.distance import check_one_direction
from scratchrnn.layers.stack import Recurrent
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel, LastStep
from scratchrnn.trace import Trace
from scratchrnn.train.objective import digest_of

Probe = Callable[[Any], tuple[Recurrent, Trace, FloatArray]]


@dataclass(frozen=True, eq=False, repr=False)
class TextProbe:
    """Places in a text, for the objective of a `CharModel`: how far back does the loss after each one reach?

    Parameters
    ----------
    text : ndarray (N,) of int
        Codes, best of text held out. At least distance + sequences.
    distance : int
        T, characters that are read, from the model's initial state; at least 2.
    sequences : int
        B, places, evenly spread; they overlap where the text is short.

    Examples
    --------
    >>> from scratchrnn import data, train
    >>> model = CharModel("ab", "lstm", 8, 4, rng=np.random.default_rng(0))
    >>> text = model.vocabulary.encode("abaabaaab" * 20)
    >>> objective = train.LanguageModel(model, data.ContiguousRows(text, batch=4), k1=15)
    >>> layer, trace, d_last = TextProbe(text, distance=30, sequences=5)(objective)
    >>> layer is model.rnn, trace.output.shape, d_last.shape
    (True, (30, 5, 8), (5, 8))
    """

    text: IntArray
    distance: int = 100
    sequences: int = 16

    def __post_init__(self) -> None:
        if not isinstance(self.text, np.ndarray) or self.text.dtype.kind not in "iu" or self.text.ndim != 1:
            raise TypeError(f"text: expected a NumPy array of codes (N,); got {describe(self.text)}")
        least = check_int("distance", self.distance, least=2) + check_positive_int("sequences", self.sequences)
        if len(self.text) < least:
            raise ValueError(f"text: expected at least distance + sequences = {least} codes; got {len(self.text)}")

    @property
    def codes(self) -> IntArray:
        """What is read, and the character after it: (T+1, B)."""
        starts = np.linspace(0, len(self.text) - self.distance - 1, self.sequences).astype(np.int64)
        return cast(IntArray, self.text[starts + np.arange(self.distance + 1)[:, None]])

    def __call__(self, objective: Any) -> tuple[Recurrent, Trace, FloatArray]:
        """Layer, trace (T, B), and the gradient (B, H) of each place's own loss."""
        model = getattr(objective, "model", None)
        if not isinstance(model, CharModel):
            raise TypeError(f"objective: expected LanguageModel with a CharModel; got {describe(objective)}")
        codes = self.codes
        state = None if model.initial_state is None else model.initial_state(self.sequences)
        trace = model.rnn.forward(model.embedding(codes[:-1]), state, training=False)
        decoder = model.decoder.forward(np.ascontiguousarray(trace.output[-1]))
        # a sum, so that each sequence has the gradient of its own loss, however many there are
        _, d_logits = cross_entropy(decoder.output, codes[-1], reduction="sum")
        return model.rnn, trace, cast(FloatArray, model.decoder.backward(decoder, d_logits).input)

    def __repr__(self) -> str:
        return f"TextProbe({digest_of(self.codes)[:16]}, distance={self.distance}, sequences={self.sequences})"


@dataclass(frozen=True, eq=False, repr=False)
class TaskProbe:
    """Sequences with their targets, for the objective `Sampled` of a `LastStep`.

    Parameters
    ----------
    inputs : ndarray (T, B, I), or (B, T, I) with the layer's `batch_first`
    targets : ndarray
        As the objective's loss takes them. If that is a mean over the batch, every norm has the factor 1/B in it.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> from scratchrnn import data, losses, train
    >>> rng = np.random.default_rng(0)
    >>> model = LastStep(srnn.LSTM(2, 8, rng=rng), 1, rng=rng)
    >>> task = train.Sampled(model, lambda rng: data.adding_problem(20, 50, rng), losses.mse_loss, rng=rng)
    >>> probe = TaskProbe(*data.adding_problem(20, 16, np.random.default_rng(1)))
    >>> probe(task)[2].shape
    (16, 8)
    """

    inputs: FloatArray
    targets: Any

    def __post_init__(self) -> None:
        object.__setattr__(self, "inputs", take_array("inputs", self.inputs))
        if self.inputs.ndim != 3:
            raise ValueError(f"inputs: expected three axes, time, batch and input; got shape {self.inputs.shape}")

    def __call__(self, objective: Any) -> tuple[Recurrent, Trace, FloatArray]:
        """Layer, trace, and the gradient (B, P) of the loss at the last step."""
        model = getattr(objective, "model", None)
        if not isinstance(model, LastStep):
            raise TypeError(f"objective: expected Sampled with a LastStep; got {describe(objective)}")
        layer = check_one_direction(model.rnn)
        trace = layer.forward(self.inputs, training=False)
        h_n = trace.state[0] if isinstance(trace.state, tuple) else trace.state
        decoder = model.decoder.forward(np.ascontiguousarray(h_n[-1]))
        _, d_output = objective.loss(decoder.output, self.targets)
        return layer, trace, cast(FloatArray, model.decoder.backward(decoder, d_output).input)

    def __repr__(self) -> str:
        return f"TaskProbe({digest_of(self.inputs, self.targets)[:16]}, inputs={self.inputs.shape})"
