"""A character model on rows of text that go on from window to window: truncated backpropagation through time.

    e_t = E[x_t]                                embedding, read afresh for every window
    h_t = cell(d ⊙ e_t, h_{t-1})                the state carried on, a constant at a window's start
    z_t = W (d' ⊙ h_t) + b                      decoder
    L   = mean_t,b -log softmax(z_tb)[y_tb]     over the window's new steps

    d, d'   dropout masks, drawn for each window and locked through it; ones where there is no dropout

With h-detach (Arpit et al. 2018, arXiv:1810.03023), at each step of a window, with some probability and for all rows at
once, the gates pass no gradient on to h_{t-1}: what goes back there goes along c.

An update every k1 steps, its gradient over the last k2 (see `scratchrnn.bptt.schedule`). An epoch is one way through
the rows; the next begins with the initial state, as a document does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_positive_int, check_probability, describe
from scratchrnn.bptt import Window, schedule, windows
from scratchrnn.checkpoint import generator_states, generators, set_generator_states
from scratchrnn.data import ContiguousRows
from scratchrnn.layers.dropout import draw_hits, draw_mask
from scratchrnn.layers.embedding import EmbeddingTrace
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.models.parts import by_parts
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import State
from scratchrnn.train.blame import first_in, first_in_stream
from scratchrnn.train.evaluate import counted, evaluate, initial_state
from scratchrnn.train.objective import Outcome, check_same_settings, digest_of, name_of
from scratchrnn.train.records import bits, perplexity

Penalty = Callable[[FloatArray, BoolArray], tuple[Any, FloatArray]]


class LanguageModel:
    """The objective of a character model: predict each next character of a text.

    Parameters
    ----------
    model : CharModel
        Its arrays are trained in place. Rows and documents begin with its learned state if it has one, else with zeros.
    rows : ContiguousRows
        Of codes. The state is set anew where `rows.reset` says so.
    k1, k2 : int
        Steps between two updates, and steps that the gradient of each reaches back; k2 = k1 when absent.
    held_out : ndarray (N,) of int, or ContiguousRows, optional
        What `evaluate` reads.
    regularization : callable, optional
        Called as regularization(output, reset) with the recurrent layer's output (T, B, H) of the new steps, after
        dropout, and where states were set anew (T, B); returns a penalty and its gradient (T, B, H). Such as
        `lambda h, reset: regularizers.activity(h, 2.0, reduction="mean")`.
    dropout : float
        Share of the units of embedding and output that are dropped.
    clip : float, optional
        Bound on each element of dL/da_t, as in the layer's backward.
    h_detach : float
        Probability of h-detach at a step; for an LSTM.
    rng : numpy.random.Generator, optional
        Draws the masks; needed with dropout or h-detach.

    Attributes
    ----------
    parameters : dict of ndarray
        The live arrays.
    epoch : int
        From 1, that of the last update.
    position : int
        Steps of the rows that this epoch has read.
    nats : bool
        True: the loss is a negative log-likelihood.

    Examples
    --------
    >>> import numpy as np
    >>> model = CharModel("ab", "lstm", 8, 4, rng=np.random.default_rng(0))
    >>> rows = ContiguousRows(model.vocabulary.encode("abaabaaab" * 20), batch=4)  # 44 steps
    >>> objective = LanguageModel(model, rows, k1=15, k2=30)
    >>> [(objective.step().count, objective.epoch, objective.position) for _ in range(4)]
    [(60, 1, 15), (60, 1, 30), (56, 1, 44), (60, 2, 15)]
    """

    nats = True

    def __init__(
        self,
        model: CharModel,
        rows: ContiguousRows,
        *,
        k1: int,
        k2: int | None = None,
        held_out: IntArray | ContiguousRows | None = None,
        regularization: Penalty | None = None,
        dropout: float = 0.0,
        clip: float | None = None,
        h_detach: float = 0.0,
        rng: Rng | None = None,
    ) -> None:
        if not isinstance(rows, ContiguousRows) or rows.inputs.dtype.kind not in "iu":
            raise TypeError(f"rows: expected ContiguousRows of codes; got {describe(rows)}")
        self.model, self.rows, self.held_out = model, rows, held_out
        self.k1 = check_positive_int("k1", k1)
        self.k2 = self.k1 if k2 is None else check_positive_int("k2", k2)
        if next(schedule(rows.steps, self.k1, self.k2), None) is None:
            raise ValueError(f"rows: expected more than k1 - k2 = {self.k1 - self.k2} steps; got {rows.steps}")
        self.regularization, self.clip = regularization, clip
        self.dropout = check_probability("dropout", dropout)
        self.h_detach = check_probability("h_detach", h_detach)
        if self.h_detach and model.cell != "lstm":
            raise ValueError(f"h_detach: expected 0 for an RNN, whose gradient has no other path; got {h_detach}")
        for name, needed in (("the dropout masks", self.dropout), ("where h is detached", self.h_detach)):
            if needed and rng is None:
                raise ValueError(f"rng: expected a generator that draws {name}; got None")
        self.rng = None if rng is None else check_rng("rng", rng)
        self.parameters = model.parameters
        self._settings = self._describe()
        self.epoch, self.position = 1, 0
        self._carry: State | None = None
        self._windows: Iterator[Window] | None = None
        self._last: Window | None = None

    # --- one window

    def step(self) -> Outcome:
        """The next window of the rows."""
        self._last = None  # so that no two windows are in memory
        rest, self._windows = self._windows or self._begin(), None  # a step that is broken off is taken again
        window = next(rest, None)
        if window is None:  # the rows are read
            self.epoch, self.position, self._carry = self.epoch + 1, 0, None
            rest = self._begin()
            window = next(rest)
        head = self._head
        d_embedded = cast(FloatArray, window.gradients.input)  # (T, B, E)
        if self._embedding_mask is not None:
            d_embedded = d_embedded * self._embedding_mask  # undoes d ⊙
        parts = {
            "embedding": self.model.embedding.backward(self._embedding, d_embedded).parameters,
            "rnn": window.gradients.parameters,
            "decoder": head.gradients,
        }
        if self.model.initial_state is not None:
            names = self.model.initial_state.parameters
            parts["initial_state"] = dict(zip(names, _arrays(window.gradients.initial), strict=True))
        outcome = Outcome(head.loss, head.count, by_parts(parts), head.penalty)
        self._last, self.position, self._carry, self._windows = window, window.stop, window.carry, rest
        return outcome

    def _begin(self) -> Iterator[Window]:
        reset = self.rows.reset
        return windows(
            self.model.rnn, self._read, self._predict, k1=self.k1, k2=self.k2, state=self._carry,
            initial=initial_state(self.model), steps=self.rows.steps, begin=self.position,
            reset=reset if reset.any() else None, clip=self.clip, detach_h=self._detached if self.h_detach else None,
        )  # fmt: skip

    def _read(self, start: int, stop: int) -> FloatArray:
        """What the recurrent layer reads at steps [start, stop): (T, B, E)."""
        codes = cast(IntArray, self.rows.inputs[start:stop])
        if stop < min(self.position + self.k1, self.rows.steps):  # k2 < k1: steps that are only read on
            return self.model.embedding(codes)
        self._embedding: EmbeddingTrace = self.model.embedding.forward(codes)
        self._embedding_mask = self._mask(self._embedding.output.shape)
        embedded = self._embedding.output
        return embedded if self._embedding_mask is None else embedded * self._embedding_mask

    def _predict(self, output: FloatArray, first: int) -> FloatArray:
        """dL/d(output) of the new steps (T, B, H); the rest of the outcome is kept in `_head`."""
        stop = first + len(output)
        targets, reset = cast(IntArray, self.rows.targets[first:stop]), self.rows.reset[first:stop]
        mask = self._mask(output.shape)
        dropped = output if mask is None else output * mask
        decoder = self.model.decoder.forward(dropped)
        count = counted(targets)
        loss, d_logits = cross_entropy(decoder.output, targets, reduction="mean" if count else "sum")
        decoded = self.model.decoder.backward(decoder, d_logits)  # undoes decoder
        d_output, penalty = cast(FloatArray, decoded.input), 0.0
        if self.regularization is not None:
            value, d_penalty = self.regularization(dropped, reset)
            penalty, d_output = float(value), d_output + d_penalty
        self._head = _Head(float(loss), count, penalty, decoded.parameters, decoder.output, first)
        return d_output if mask is None else d_output * mask  # undoes d' ⊙

    def _mask(self, shape: tuple[int, ...]) -> FloatArray | None:
        """One mask (1, B, ·) for all steps."""
        if not self.dropout:
            return None
        return draw_mask((1, *shape[1:]), self.dropout, self.model.dtype, cast(Rng, self.rng))

    def _detached(self, start: int, stop: int) -> BoolArray:
        """Where h is detached (T, B): at a step for all rows or for none."""
        hits = draw_hits((stop - start, 1), self.h_detach, cast(Rng, self.rng))
        return np.repeat(hits, self.rows.batch, axis=1)

    # --- held out

    def evaluate(self) -> dict[str, float]:
        """Loss in nats per character, bits, and perplexity of the text held out."""
        if self.held_out is None:
            raise ValueError("held_out: expected codes to evaluate on; got None")
        loss = evaluate(self.model, self.held_out)
        return {"loss": loss, "bits": bits(loss), "perplexity": perplexity(loss)}

    # --- what moves

    def state_dict(self) -> dict[str, Any]:
        """Place in the text, the carried state, the generators; and the settings that a resumed run must share."""
        carry = None if self._carry is None else dict(zip("hc", _arrays(self._carry), strict=False))
        return {
            "settings": self._settings,
            "epoch": self.epoch,
            "position": self.position,
            "carry": carry,
            "generators": generator_states(self._generators()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        check_same_settings(state["settings"], self._settings)
        set_generator_states(self._generators(), state["generators"])
        carry = state["carry"]
        self._carry = None if carry is None else (carry["h"], carry["c"]) if "c" in carry else carry["h"]
        self.epoch, self.position = state["epoch"], state["position"]
        self._windows = self._last = None

    def _generators(self) -> dict[str, Rng]:
        own: dict[str, Rng] = {} if self.rng is None else {"dropout": self.rng}
        return own | {f"model.{name}": rng for name, rng in generators(self.model).items()}

    def _describe(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it goes on with: texts too, by their digests."""
        names = ("k1", "k2", "dropout", "clip")
        own = {name: getattr(self, name) for name in names} | {"batch": self.rows.batch, "rows": _digest(self.rows)}
        own["held_out"] = None if self.held_out is None else _digest(self.held_out)
        own["layer"] = repr(self.model.rnn)  # with what drops out in it
        own["backend"] = self.model.rnn.backend or backends.current()  # another one rounds otherwise
        own |= {"h_detach": self.h_detach} if self.h_detach else {}  # runs from before it was there go on
        penalty = None if self.regularization is None else name_of(self.regularization)
        return own | {"regularization": penalty}

    # --- what went wrong

    def blame(self) -> str | None:
        """Where the first number of the last step that is not finite arose; steps are counted along the rows."""
        found = first_in(self.parameters, "parameter")
        if found is None and self._last is not None:
            window, head = self._last, self._head
            found = first_in_stream(window.trace, window.trace.trace, window.start)
            found = found or first_in({f"of steps {head.first} on": head.logits}, "logits")
            found = found or first_in_stream(window.trace, window.gradients, window.start)
        return found


@dataclass(frozen=True, eq=False)
class _Head:
    """What decoder and loss made of a window's new steps."""

    loss: float
    count: int
    penalty: float
    gradients: dict[str, FloatArray]
    logits: FloatArray  # (T, B, V)
    first: int


def _digest(text: IntArray | ContiguousRows) -> str:
    """Of codes, or of rows with their documents."""
    return digest_of(*(text.inputs, text.targets, text.reset) if isinstance(text, ContiguousRows) else (text,))


def _arrays(state: State) -> tuple[FloatArray, ...]:
    return state if isinstance(state, tuple) else (state,)
