"""A task whose batches are drawn anew for every step: no state is carried, all that moves is the generator.

inputs, targets = draw(rng)
loss, d_output  = loss_of(model(inputs), targets)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn.checkpoint import generator_states, generators, set_generator_states
from scratchrnn.layers.module import Module
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, Trace
from scratchrnn.train.blame import first_in, first_in_layers
from scratchrnn.train.evaluate import counted
from scratchrnn.train.objective import Outcome, check_same_settings, digest_of, name_of

Batch = tuple[Any, Any]  # inputs, targets
Loss = Callable[[FloatArray, Any], tuple[Any, FloatArray]]


class Differentiable(Protocol):
    """A model that runs forward and back, such as `models.LastStep`."""

    parameters: dict[str, FloatArray]

    def __call__(self, inputs: Any) -> FloatArray:
        """Inference: the output."""

    def forward(self, inputs: Any) -> Any:
        """A trace with `output`, and `rnn` where there is a recurrent layer to be looked into."""

    def backward(self, trace: Any, d_output: FloatArray) -> Gradients:
        """The gradient of every parameter."""


class Sampled:
    """The objective of a task, such as the adding problem.

    Parameters
    ----------
    model : Differentiable
        Such as `models.LastStep`. Its arrays are trained in place.
    draw : callable
        draw(rng) returns inputs and targets of a batch, arrays each, such as
        `lambda rng: data.adding_problem(100, 50, rng)`. All that is random in it comes from `rng`.
    loss : callable
        loss(output, targets) returns the mean loss and its gradient, as `losses.mse_loss` and `losses.cross_entropy`.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator
        Draws the batches.
    held_out : tuple of inputs and targets, optional
        What `evaluate` looks at.
    figures : callable, optional
        figures(output, targets) returns more numbers for `evaluate`, by name; such as an accuracy.
    nats : bool
        Whether the loss is a negative log-likelihood in nats, so that bits and perplexity mean something.

    Attributes
    ----------
    parameters : dict of ndarray
        The live arrays of the model.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> from scratchrnn import data, losses, models
    >>> rng = np.random.default_rng(0)
    >>> model = models.LastStep(srnn.LSTM(2, 8, rng=rng), 1, rng=rng)
    >>> task = Sampled(model, lambda rng: data.adding_problem(20, 50, rng), losses.mse_loss, rng=rng)
    >>> outcome = task.step()
    >>> outcome.count, outcome.gradients["decoder.bias"].shape
    (50, (1,))
    """

    def __init__(
        self,
        model: Differentiable,
        draw: Callable[[Rng], Batch],
        loss: Loss,
        *,
        rng: Rng,
        held_out: Batch | None = None,
        figures: Callable[[FloatArray, Any], Mapping[str, float]] | None = None,
        nats: bool = False,
    ) -> None:
        if rng is None:
            raise TypeError("rng: expected the generator that draws the batches; got None")
        self.model, self.draw, self.loss, self.rng = model, draw, loss, check_rng("rng", rng)
        self.held_out, self.figures, self.nats = held_out, figures, nats
        self.parameters = model.parameters
        self._last: tuple[Any, Gradients] | None = None

    def step(self) -> Outcome:
        """A new batch."""
        self._last = None
        inputs, targets = self.draw(self.rng)
        trace = self.model.forward(inputs)
        loss, d_output = self.loss(trace.output, targets)
        gradients = self.model.backward(trace, d_output)
        self._last = trace, gradients
        return Outcome(float(loss), _count(targets), gradients.parameters)

    def evaluate(self) -> dict[str, float]:
        """The loss on what is held out, and the figures that were asked for."""
        if self.held_out is None:
            raise ValueError("held_out: expected inputs and targets to evaluate on; got None")
        inputs, targets = self.held_out
        output = self.model(inputs)
        loss, _ = self.loss(output, targets)
        more = {} if self.figures is None else self.figures(output, targets)
        return {"loss": float(loss)} | {name: float(value) for name, value in more.items()}

    def state_dict(self) -> dict[str, Any]:
        """Where the generators stand, and the settings that a resumed run must share: see `_describe`."""
        generators = generator_states(self._generators())
        return {"settings": self._describe(copy.deepcopy(self.rng)), "generators": generators}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from there."""
        rng = copy.deepcopy(self.rng)
        set_generator_states({"batches": rng}, {"batches": state["generators"]["batches"]})
        check_same_settings(state["settings"], self._describe(rng))
        set_generator_states(self._generators(), state["generators"])

    def _describe(self, rng: Rng) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it goes on with.

        A function cannot be compared with another, but what it draws can: the next batch tells one `draw` from another.
        """
        return {
            "next_batch": digest_of(*self.draw(rng)),
            "held_out": None if self.held_out is None else digest_of(*self.held_out),
            "loss": name_of(self.loss),
            "model": repr(self.model) if isinstance(self.model, Module) else type(self.model).__name__,
            "backend": backends.current(),
        }

    def _generators(self) -> dict[str, Rng]:
        parts = generators(self.model) if isinstance(self.model, Module) else {}
        return {"batches": self.rng} | {f"model.{name}": rng for name, rng in parts.items()}

    def blame(self) -> str | None:
        """Where the first number of the last step that is not finite arose."""
        found = first_in(self.parameters, "parameter")
        if found is None and self._last is not None:
            trace, gradients = self._last
            inner = getattr(trace, "rnn", trace)
            found = first_in_layers(inner) if isinstance(inner, Trace) else None
            found = found or first_in({"of the model": trace.output}, "output") or first_in_layers(gradients)
        return found


def _count(targets: Any) -> int:
    """Items that a mean loss is over."""
    return counted(targets) if np.asarray(targets).dtype.kind in "iu" else int(np.size(targets))
