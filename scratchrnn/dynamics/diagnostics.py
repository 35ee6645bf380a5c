"""Diagnosis of a recurrent net: a table of its states and gates, and the five symptoms by name.

    diagnose(trace)                       one forward pass, and its backward pass if there was one
    diagnose_model(model, x, y, loss=)    runs a model on a batch, forward and back
    diagnose_stream(model, batches)       the same over any number of batches, none of which is kept
    Diagnostics()                         what all three are made of; as a callback of a Trainer it watches the updates

The symptoms and their rules stand in `symptoms.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import describe
from scratchrnn.dynamics import symptoms
from scratchrnn.dynamics.figures import Figures
from scratchrnn.dynamics.observed import (
    GradientFigures,
    Limits,
    ObservedLayer,
    ObservedUpdates,
    UpdateFigures,
)
from scratchrnn.dynamics.symptoms import Blame, Finding, place
from scratchrnn.layers.direction import Weights
from scratchrnn.layers.stack import Recurrent
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.nonfinite import first_nonfinite
from scratchrnn.trace import Gradients, Key, Trace

Loss = Callable[[FloatArray, Any], tuple[Any, FloatArray]]


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """What was found. `print` shows it as a table.

    Attributes
    ----------
    findings : tuple of Finding
        Empty for a healthy net.
    layers : mapping (layer, direction) -> mapping of str to Figures
        "input", "h", and for an LSTM "c", "tanh_c", "i", "f", "g", "o": over all steps of all sequences.
    gradients : mapping (layer, direction) -> GradientFigures
        Empty without a backward pass.
    dead : mapping (layer, direction) -> ndarray (H,) of bool
        Units of a relu net that were never active; empty for other cells.
    updates : UpdateFigures or None
        None with fewer than two updates.
    cell : str
        "lstm", "rnn_tanh" or "rnn_relu"; empty if there was no pass.
    passes : int
        Forward passes.
    """

    findings: tuple[Finding, ...]
    layers: Mapping[Key, Mapping[str, Figures]]
    gradients: Mapping[Key, GradientFigures]
    dead: Mapping[Key, BoolArray]
    updates: UpdateFigures | None
    cell: str
    passes: int

    @property
    def healthy(self) -> bool:
        """Whether nothing was found but notes."""
        return all(finding.severity == "note" for finding in self.findings)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


class Diagnostics:
    """Takes in passes and updates one by one, keeps sums and no batch, and says what is found in them.

    Parameters
    ----------
    limits : Limits, optional
        Where a figure becomes a symptom.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(3, 8, rng=rng)
    >>> watch = Diagnostics()
    >>> for _ in range(5):
    ...     watch.add(rnn.forward(rng.standard_normal((20, 4, 3), np.float32)))
    >>> found = watch.result()
    >>> found.layers[0, "forward"]["h"].shape, found.findings
    ((400, 8), ())
    """

    def __init__(self, limits: Limits | None = None) -> None:
        if limits is not None and not isinstance(limits, Limits):
            raise TypeError(f"limits: expected Limits(...); got {describe(limits)}")
        self.limits = Limits() if limits is None else limits
        self._layers: dict[Key, ObservedLayer] = {}
        self._updates = ObservedUpdates()
        self._blame: Blame | None = None
        self._passes, self._cell = 0, ""

    def add(self, trace: Trace, gradients: Gradients | None = None, *, loss: float | None = None) -> None:
        """Take in a pass.

        Parameters
        ----------
        trace : Trace
            From a recurrent layer's `forward`, or a model's `trace.rnn`. All passes must be of one layer.
        gradients : Gradients, optional
            From `backward` of the layer, or of the model that it is in.
        loss : float, optional
            It is only looked at whether it is finite; see `add_update` for learning.

        Raises
        ------
        ValueError
            A trace of another layer than those before, a batch of 0, or gradients of another one.
        TypeError
            Neither a trace nor gradients.
        """
        if not isinstance(trace, Trace):
            raise TypeError(f"trace: expected what forward of a layer returned; got {describe(trace)}")
        if gradients is not None and not isinstance(gradients, Gradients):
            raise TypeError(f"gradients: expected what backward of a layer returned; got {describe(gradients)}")
        if gradients is not None and gradients.layers.keys() != trace.layers.keys():
            raise ValueError(
                f"gradients: expected those of {list(trace.layers)}; got those of {list(gradients.layers)}"
            )
        self._check_same(trace)
        self._passes += 1
        for key, layer in self._layers.items():
            cell = "weight_ih" in trace.parameters  # an RNNCell's or LSTMCell's, where there is one layer
            suffix = "" if cell else f"_l{key[0]}" + ("_reverse" if key[1] == "reverse" else "")
            layer.add(trace.layers[key], Weights.of(trace.parameters, suffix))
            if gradients is not None:
                own = (array for name, array in gradients.parameters.items() if name.endswith(suffix))
                layer.add_gradients(trace.layers[key], gradients.layers[key], any(array.any() for array in own))
        if self._blame is None:
            self._blame = _blame(trace, gradients, loss, self._passes)

    def add_update(self, parameters: Mapping[str, FloatArray], loss: float, gradient_norm: float | None = None) -> None:
        """Take in an update.

        Parameters
        ----------
        parameters : dict of ndarray
            As they are after it; a copy is kept until the next one.
        loss : float
            That its gradient is of.
        gradient_norm : float, optional

        Raises
        ------
        ValueError
            Not the parameters of the updates before, or none.
        """
        if not parameters or (self._updates.count and parameters.keys() != self._updates.names):
            raise ValueError(f"parameters: expected those of the updates before; got {list(parameters)}")
        self._updates.add(parameters, float(loss), gradient_norm)
        if self._blame is None:
            self._blame = _blame_update(parameters, float(loss), self._updates.count)

    def __call__(self, trainer: Any, step: Any) -> None:
        """The same, as a callback: `Trainer(..., callbacks=[watch])`."""
        self.add_update(trainer.objective.parameters, step.loss, step.gradient_norm)

    def result(self) -> Diagnosis:
        """What is found in all that was taken in."""
        found = [one for layer in self._layers.values() for one in symptoms.of_layer(layer)]
        updates = self._updates.figures()
        if self._blame is not None:
            found.insert(0, symptoms.not_finite(self._blame))
        elif updates is not None:
            stuck = symptoms.no_progress(updates, self.limits.least_updates, self.limits.least_fall)
            found += [] if stuck is None else [stuck]
        gradients = {key: layer.gradient_figures() for key, layer in self._layers.items()}
        return Diagnosis(
            findings=tuple(found),
            layers={key: layer.figures() for key, layer in self._layers.items()},
            gradients={key: figures for key, figures in gradients.items() if figures is not None},
            dead={key: layer.dead for key, layer in self._layers.items() if layer.dead is not None},
            updates=updates,
            cell=self._cell,
            passes=self._passes,
        )

    def _check_same(self, trace: Trace) -> None:
        if not self._layers:
            self._cell = trace.cell
            self._layers = {key: ObservedLayer(key, trace, self.limits) for key in trace.layers}
        mine = (self._cell, {key: (layer.inputs, layer.units) for key, layer in self._layers.items()})
        sizes = {key: (part.input.shape[2], part.h.shape[2]) for key, part in trace.layers.items()}
        if mine != (trace.cell, sizes):
            raise ValueError(f"trace: expected one of the same layer as before, {mine}; got {(trace.cell, sizes)}")


def diagnose(trace: Trace, gradients: Gradients | None = None, *, limits: Limits | None = None) -> Diagnosis:
    """Diagnose one pass.

    Parameters
    ----------
    trace : Trace
        From a recurrent layer's `forward`, or a model's `trace.rnn`.
    gradients : Gradients, optional
        From its `backward`.
    limits : Limits, optional

    Returns
    -------
    Diagnosis

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(3, 8, rng=rng)
    >>> found = diagnose(rnn.forward(100 * rng.standard_normal((20, 4, 3), np.float32)))
    >>> [(one.name, one.where) for one in found.findings]
    [('saturated', 'layer 0 forward, h')]
    """
    watch = Diagnostics(limits)
    watch.add(trace, gradients)
    return watch.result()


def diagnose_model(
    model: Any,
    inputs: Any,
    targets: Any = None,
    *,
    loss: Loss | None = None,
    lengths: Any = None,
    limits: Limits | None = None,
) -> Diagnosis:
    """Run a model on a batch and diagnose it; with a loss also backwards.

    Parameters
    ----------
    model : RNN, LSTM, a wrapper of one, or a model with `forward` and `backward` whose trace has `rnn`
        Such as `models.CharModel` and `models.LastStep`. It is run as in training, dropout included.
    inputs : ndarray
        As the model's `forward` takes them.
    targets : optional
        For the loss.
    loss : callable, optional
        loss(output, targets) returns the loss and its gradient, as `losses.cross_entropy` and `losses.mse_loss` do.
    lengths : sequence of int (B,), optional
        Steps of each sequence, for models that take them.
    limits : Limits, optional

    Returns
    -------
    Diagnosis
    """
    watch = Diagnostics(limits)
    _run(watch, model, inputs, targets, loss, lengths)
    return watch.result()


def diagnose_stream(
    model: Any, batches: Iterable[Any], *, loss: Loss | None = None, limits: Limits | None = None
) -> Diagnosis:
    """Run a model on batch after batch, each from its initial state, and diagnose it; nothing of a batch is kept.

    Parameters
    ----------
    model
        As in `diagnose_model`. It is not trained here, but may be, wherever the batches come from.
    batches : iterable of inputs, or with a loss of (inputs, targets)
    loss : callable, optional
        As in `diagnose_model`.
    limits : Limits, optional

    Returns
    -------
    Diagnosis

    Raises
    ------
    ValueError
        No batch.
    """
    watch = Diagnostics(limits)
    for batch in batches:
        inputs, targets = (batch, None) if loss is None else batch
        _run(watch, model, inputs, targets, loss, None)
    found = watch.result()
    if not found.passes:
        raise ValueError("batches: expected at least one; got none")
    return found


def _run(watch: Diagnostics, model: Any, inputs: Any, targets: Any, loss: Loss | None, lengths: Any) -> None:
    options = {} if lengths is None else {"lengths": lengths}
    trace = model.forward(inputs, **options)
    bare = isinstance(model, (Recurrent, Wrapper))
    inner = trace if bare else getattr(trace, "rnn", None)
    if not isinstance(inner, Trace):
        raise TypeError(
            f"model: expected a recurrent layer, or a model whose trace has one as rnn; got {describe(model)}"
        )
    if loss is None:
        if targets is not None:
            raise ValueError("loss: expected a function of output and targets, since there are targets; got None")
        watch.add(inner)
        return
    with np.errstate(all="ignore"):
        value, d_output = loss(trace.logits if hasattr(trace, "logits") else trace.output, targets)
    watch.add(inner, model.backward(trace, d_output), loss=float(value))


def _blame(trace: Trace, gradients: Gradients | None, loss: float | None, number: int) -> Blame | None:
    """The first number of a pass that is not finite."""
    dtype = trace[0].h.dtype

    def largest(arrays: Iterable[FloatArray]) -> float:
        return max((float(np.abs(a).max(initial=0.0, where=np.isfinite(a))) for a in arrays), default=0.0)

    wrong = _first_name(trace.parameters)
    if wrong is not None:
        return Blame("parameter", wrong, None, number, largest(trace.parameters.values()), dtype)
    first = first_nonfinite(trace)
    if first is not None:
        return Blame("state", str(first), first, number, largest(part.h for part in trace.layers.values()), dtype)
    if loss is not None and not math.isfinite(loss):
        return Blame("loss", f"loss is {loss}", None, number, 0.0, dtype)
    if gradients is None:
        return None
    first = first_nonfinite(gradients)
    if first is not None:
        sizes = largest(part.h for part in gradients.layers.values())
        return Blame("gradient", str(first), first, number, sizes, dtype)
    wrong = _first_name(gradients.parameters)
    if wrong is not None:
        sizes = largest(gradients.parameters.values())
        return Blame("gradient of a parameter", f"gradient of {wrong}", None, number, sizes, dtype)
    return None


def _blame_update(parameters: Mapping[str, FloatArray], loss: float, number: int) -> Blame | None:
    """The same of an update: its loss came first, then the parameters."""
    dtype = next(iter(parameters.values())).dtype
    if not math.isfinite(loss):
        return Blame("loss of an update", f"loss of update {number} is {loss}", None, number, 0.0, dtype)
    wrong = _first_name(parameters)
    return None if wrong is None else Blame("parameter", wrong, None, number, 0.0, dtype)


def _first_name(arrays: Mapping[str, FloatArray]) -> str | None:
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            at = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
            return f"{name}{list(at)} is {array[at]}"
    return None


_COLUMNS = ("mean", "std", "min", "max", "near 0", "saturated", "NaN", "inf")


def _lines(found: Diagnosis) -> Iterable[str]:
    if found.layers:
        yield f"{found.cell}, {found.passes} forward {'pass' if found.passes == 1 else 'passes'}, all steps"
    for key, table in found.layers.items():
        h = table["h"]
        yield ""
        yield f"{place(key) + f'  {h.shape}':<24}" + "".join(f"{column:>11}" for column in _COLUMNS)
        for name, one in table.items():
            numbers = "".join(f"{value:>11.4g}" for value in (one.mean, one.std, one.min, one.max))
            share = "–" if one.saturated is None else f"{one.saturated:.2%}"
            counts = f"{one.nan_count:>11}{one.inf_count:>11}"
            yield f"  {name:<22}{numbers}{one.near_zero:>11.2%}{share:>11}{counts}"
        if key in found.dead:
            yield f"  units never active: {int(found.dead[key].sum())} of {found.dead[key].size}"
        if key in found.gradients:
            g = found.gradients[key]
            yield f"  |dL/dh|: {g.first:.3g} at its first step, {g.last:.3g} at the end; ratio {g.ratio:.3g}"
    if found.updates is not None:
        u = found.updates
        yield ""
        yield (
            f"{u.count} updates: loss {u.first_loss:.4g} to {u.last_loss:.4g} (± {u.noise:.2g}), "
            f"update / weights {u.relative_update:.2g}"
        )
    yield ""
    if not found.findings:
        yield "Findings: none"
        return
    yield f"Findings: {len(found.findings)}"
    yield from map(str, found.findings)
