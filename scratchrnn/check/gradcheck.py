"""Finite differences: does a hand-written backward return the gradient of its forward?

    L = Σ <d_output, output> over all outputs, with random cotangents d_output
    numeric   (L(p + h v) - L(p - h v)) / 2h
    analytic  <gradient, v>

for v a random direction over all arguments at once, over each argument, and each element of an argument (a sample of a
large one). The truncation error is of order h², the rounding error of order eps/h; their sum is least for
h = eps^(1/3) = 6.1e-6, where it is of order 1e-11 for values of order 1. Arguments larger than 1 get a step that much
larger.

An error is |numeric - analytic| relative to the largest element of the argument's gradient, or for a direction to the
gradient's rms, and must be at most TOLERANCE["finite_difference"] plus what rounding of the outputs alone makes of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn import testing
from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, describe
from scratchrnn.check.gradreport import GradReport, GradRow
from scratchrnn.layers import Embedding, Linear
from scratchrnn.layers.cells import RecurrentCell
from scratchrnn.layers.module import Module
from scratchrnn.layers.stack import Recurrent

EPS = float(np.finfo(np.float64).eps)
STEP = EPS ** (1 / 3)
SMALLER = 1 / 128  # of a step that failed: passes by a kink of relu that happened to lie within it


def gradcheck(
    forward: Callable[..., Any],
    backward: Callable[..., Mapping[str, Any]],
    arguments: Mapping[str, Any],
    parameters: Mapping[str, FloatArray] | None = None,
    *,
    rng: np.random.Generator | None = None,
    elements: int = 64,
) -> GradReport:
    """Compare a backward pass with central differences of its forward pass.

    Parameters
    ----------
    forward : callable
        `forward(**arguments)` returns an array or a tuple of arrays, nested if you like.
    backward : callable
        `backward(*d_outputs)` takes a cotangent for each output, in the same nesting, and returns the gradient of every
        argument and parameter by name. It is called once, straight after `forward` at the given arguments.
    arguments : mapping of str to ndarray, or tuple of ndarray
        float64. `forward` gets changed copies.
    parameters : mapping of str to ndarray, optional
        float64 arrays that `forward` reads by itself, such as a cell's weights: changed in place, and restored.
    rng : numpy.random.Generator, optional
        Draws cotangents, directions and elements; a generator of seed 0 when absent, so that a check can be repeated.
    elements : int
        How many elements of each argument are checked one by one; all if it has no more. Twice as many forward passes.

    Returns
    -------
    GradReport
        True in `ok` if every gradient is right; printing it names argument, index and both values.

    Raises
    ------
    TypeError
        An array is not float64, or `backward` returned no mapping.
    ValueError
        `backward` left an argument out, or returned the gradient of something else.

    Notes
    -----
    float32 is refused: a central difference keeps two thirds of the digits, of which float32 has seven to begin with.
    Where a function has a kink, as relu at zero, it has no derivative to compare with; the report says so and is no
    pass.

    Examples
    --------
    A cell of your own:

    >>> import numpy as np
    >>> class Cell:
    ...     def __init__(self, weight):
    ...         self.weight = weight
    ...     def forward(self, x, h):
    ...         self.x, self.h_next = x, np.tanh(x + h @ self.weight.T)
    ...         self.h = h
    ...         return self.h_next
    ...     def backward(self, d_h_next):
    ...         da = d_h_next * (1 - self.h_next**2)
    ...         return {"x": da, "h": da @ self.weight, "weight": da.T @ self.h}
    >>> rng = np.random.default_rng(0)
    >>> cell = Cell(rng.standard_normal((4, 4)))
    >>> arguments = {"x": rng.standard_normal((3, 4)), "h": rng.standard_normal((3, 4))}
    >>> gradcheck(cell.forward, cell.backward, arguments, {"weight": cell.weight}).ok
    True
    """
    elements = check_int("elements", elements, least=0)
    point = _Point.of(arguments, parameters or {})
    rng = rng or np.random.default_rng(0)
    base = forward(**point.arguments())
    flat = _leaves("output", base)
    cotangents: dict[str, FloatArray] = {
        name: rng.standard_normal(_float64(name, array).shape) for name, array in flat.items()
    }
    gradients = _gradients(backward, _like("output", base, cotangents), {**arguments, **(parameters or {})})

    def outputs() -> dict[str, FloatArray]:
        return _leaves("output", forward(**point.arguments()))

    probe = _Probe(point, outputs, cotangents, {k: _copy(v) for k, v in flat.items()})
    rows = [_shape_row(name, gradients[name], array) for name, array in point.arrays.items()]
    wrong = [row for row in rows if row is not None]
    if wrong:
        return GradReport(tuple(wrong))
    everything = _direction(probe, gradients, list(point.arrays), rng, "all at once")
    return GradReport((everything, *(_argument(probe, gradients, name, rng, elements) for name in point.arrays)))


def gradcheck_layer(
    layer: Module,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    *,
    rng: np.random.Generator | None = None,
    elements: int = 64,
) -> GradReport:
    """`gradcheck` for a layer of this package, in float64; dropout is off.

    Parameters
    ----------
    layer : RNN, LSTM, RNNCell, LSTMCell, Linear or Embedding
    x : ndarray
        As for the layer's forward.
    state : ndarray, or (h_0, c_0) for an LSTM, optional
        Drawn from a normal distribution when absent.
    lengths : sequence of int, optional
        For RNN and LSTM.
    rng, elements
        As for `gradcheck`.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, num_layers=2, dtype=np.float64, rng=rng)
    >>> gradcheck_layer(lstm, rng.standard_normal((5, 2, 3)), lengths=[5, 2]).ok
    True
    """
    if not isinstance(layer, (Recurrent, RecurrentCell, Linear, Embedding)):
        raise TypeError(f"layer: expected a layer of scratchrnn; got {describe(layer)}")
    recurrent = isinstance(layer, (Recurrent, RecurrentCell))
    for name, value in (("state", state), ("lengths", lengths)):
        if value is not None and not (recurrent if name == "state" else isinstance(layer, Recurrent)):
            raise TypeError(f"{name}: expected None, since {type(layer).__name__} has none; got {describe(value)}")
    for name, array in layer.parameters.items():
        _float64(name, array)
    rng = rng or np.random.default_rng(0)
    run: Any = layer  # forward and backward differ in signature from layer to layer
    traces: list[Any] = []
    options: dict[str, Any] = {"lengths": lengths, "training": False} if isinstance(layer, Recurrent) else {}

    def forward(**given: Any) -> Any:
        more = {"state": given["state"], **options} if recurrent else {}
        traces[:] = [run.forward(given.get("x", x), **more)]
        return (traces[0].output, traces[0].state) if recurrent else traces[0].output

    def backward(*d_outputs: Any) -> dict[str, Any]:
        grads = run.backward(traces[0], *d_outputs)
        found = {"x": grads.input, "state": grads.state}
        return grads.parameters | {name: found[name] for name in arguments}

    arguments = {} if isinstance(layer, Embedding) else {"x": _float64("x", x)}
    if recurrent:
        if state is None:
            like = run.forward(x, **options).state
            drawn = {name: rng.standard_normal(a.shape) for name, a in _leaves("state", like).items()}
            state = _like("state", like, drawn)
        arguments["state"] = state
    return gradcheck(forward, backward, arguments, layer.parameters, rng=rng, elements=elements)


# Nested tuples of arrays, by name: state[0] is the first of the pair `state`


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if isinstance(value, (tuple, list)):
        return {k: v for n, part in enumerate(value) for k, v in _leaves(f"{name}[{n}]", part).items()}
    return {name: value}


def _like(name: str, value: Any, leaves: Mapping[str, Any]) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(_like(f"{name}[{n}]", part, leaves) for n, part in enumerate(value))
    return leaves[name]


def _copy(array: FloatArray) -> FloatArray:
    return array.copy()


def _float64(name: str, value: Any) -> FloatArray:
    if not isinstance(value, np.ndarray) or value.dtype != np.float64:
        why = ""
        if getattr(value, "dtype", None) == np.float32:
            why = ": a central difference keeps two thirds of the digits, too few of the seven of float32"
        raise TypeError(f"{name}: expected a NumPy array of float64; got {describe(value)}{why}")
    return value


@dataclass(frozen=True, eq=False)
class _Point:
    """Where the derivative is taken, and how to step away from there and back."""

    structure: dict[str, Any]  # the arguments as given
    arrays: dict[str, FloatArray]  # every argument and parameter, flat; parameters are the live arrays
    start: dict[str, FloatArray]  # copies of all

    @classmethod
    def of(cls, arguments: Mapping[str, Any], parameters: Mapping[str, FloatArray]) -> _Point:
        twice = sorted(arguments.keys() & parameters.keys())
        if twice:
            raise ValueError(f"parameters: {', '.join(twice)} also among the arguments")
        own = {k: v for name, value in arguments.items() for k, v in _leaves(name, value).items()}
        arrays = {name: _float64(name, value).copy() for name, value in own.items()}
        arrays |= {name: _float64(name, value) for name, value in parameters.items()}
        return cls(dict(arguments), arrays, {name: array.copy() for name, array in arrays.items()})

    def arguments(self) -> dict[str, Any]:
        copies = {name: array.copy() for name, array in self.arrays.items()}
        return {name: _like(name, value, copies) for name, value in self.structure.items()}

    def move(self, direction: Mapping[str, FloatArray], step: float) -> None:
        for name, v in direction.items():
            self.arrays[name][...] = self.start[name] + step * v

    def size(self, names: list[str]) -> float:
        return max([1.0, *(float(np.max(np.abs(self.start[n]), initial=0)) for n in names)])


@dataclass(frozen=True, eq=False)
class _Probe:
    """Measures directional derivatives of L at a point."""

    point: _Point
    outputs: Callable[[], dict[str, FloatArray]]
    cotangents: dict[str, FloatArray]
    base: dict[str, FloatArray]  # the outputs there

    def slope(self, direction: Mapping[str, FloatArray], step: float) -> tuple[float, float, float]:
        """Numeric derivative, what rounding of the outputs makes of it, and the jump between its two sides."""
        try:
            self.point.move(direction, step)
            ahead = self.outputs()
            self.point.move(direction, -step)
            behind = self.outputs()
        finally:
            self.point.move(direction, 0.0)
        # subtracted before they are summed: fewer digits are lost
        both = [(d, ahead[k] - behind[k], ahead[k] - 2 * self.base[k] + behind[k]) for k, d in self.cotangents.items()]
        numeric = sum(float(np.sum(d * first)) for d, first, _ in both) / (2 * step)
        jump = sum(float(np.sum(d * second)) for d, _, second in both) / step
        noise = EPS * sum(float(np.sum(np.abs(d * self.base[k]))) for k, d in self.cotangents.items()) / step
        return numeric, noise, abs(jump)

    def row(
        self,
        name: str,
        index: tuple[int, ...] | None,
        direction: Mapping[str, FloatArray],
        analytic: float,
        scale: float,
        names: list[str],
    ) -> GradRow:
        step = STEP * self.point.size(names)
        row = self._row(name, index, direction, analytic, scale, step)
        return row if row.ok else self._row(name, index, direction, analytic, scale, step * SMALLER)

    def _row(
        self,
        name: str,
        index: tuple[int, ...] | None,
        direction: Mapping[str, FloatArray],
        analytic: float,
        scale: float,
        step: float,
    ) -> GradRow:
        numeric, noise, jump = self.slope(direction, step)
        scale = max(scale, abs(numeric))
        tolerance = testing.TOLERANCE["finite_difference"]
        if scale == 0:
            return GradRow(name, index, analytic, numeric, 0.0, tolerance)
        kink = jump > 1e-3 * scale + 4 * noise
        error = abs(numeric - analytic) / scale
        return GradRow(name, index, analytic, numeric, error, tolerance + noise / scale, kink)


def _gradients(
    backward: Callable[..., Mapping[str, Any]], d_outputs: Any, wanted: Mapping[str, Any]
) -> dict[str, FloatArray]:
    found = backward(*d_outputs) if isinstance(d_outputs, tuple) else backward(d_outputs)
    if not isinstance(found, Mapping):
        raise TypeError(f"backward: expected a mapping of names to gradients; got {describe(found)}")
    missing, extra = [n for n in wanted if n not in found], [str(n) for n in found if n not in wanted]
    if missing or extra:
        parts = [f"no gradient of {', '.join(missing)}"] if missing else []
        parts += [f"one of {', '.join(extra)}, which is no argument or parameter given"] if extra else []
        raise ValueError(f"backward: returned {' and '.join(parts)}")
    flat: dict[str, FloatArray] = {}
    for name, like in wanted.items():
        leaves, expected = _leaves(name, found[name]), _leaves(name, like)
        if leaves.keys() != expected.keys():
            raise ValueError(f"backward: expected gradients {', '.join(expected)}; got {', '.join(leaves)}")
        flat |= leaves
    # copies: a backward may return its workspace, which the forward passes to come overwrite
    return {name: np.array(value) if isinstance(value, np.ndarray) else value for name, value in flat.items()}


def _shape_row(name: str, gradient: Any, array: FloatArray) -> GradRow | None:
    if isinstance(gradient, np.ndarray) and gradient.shape == array.shape and gradient.dtype == np.float64:
        return None
    return GradRow.failed(name, f"expected shape {array.shape}, dtype float64; got {describe(gradient)}")


def _direction(
    probe: _Probe, gradients: dict[str, FloatArray], names: list[str], rng: np.random.Generator, label: str
) -> GradRow:
    """A random direction over some arguments, of unit length, so that the step stays small however many elements."""
    signs = {name: rng.choice([-1.0, 1.0], gradients[name].shape) for name in names}
    count = max(sum(v.size for v in signs.values()), 1)
    unit = {name: v / np.sqrt(count) for name, v in signs.items()}
    analytic = sum(float(np.sum(gradients[n] * v)) for n, v in unit.items())
    rms = float(np.sqrt(sum(float(np.sum(gradients[n] ** 2)) for n in names) / count))
    return probe.row(label, None, unit, analytic, rms, names)


def _argument(
    probe: _Probe, gradients: dict[str, FloatArray], name: str, rng: np.random.Generator, elements: int
) -> GradRow:
    """The worst of one argument: a random direction, and its elements one by one."""
    gradient = gradients[name]
    rows = [_direction(probe, gradients, [name], rng, name)]
    scale = float(np.max(np.abs(gradient), initial=0))
    count = min(elements, gradient.size)
    for k in rng.choice(gradient.size, count, replace=False) if count else ():
        index = tuple(int(i) for i in np.unravel_index(k, gradient.shape))
        one = np.zeros_like(gradient)
        one[index] = 1
        rows.append(probe.row(name, index, {name: one}, float(gradient[index]), scale, [name]))
    failed = [row for row in rows if not row.ok and row.index is not None]
    return max(failed or rows, key=lambda row: (not row.ok, row.error / row.allowed))
