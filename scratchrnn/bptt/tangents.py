"""Derivatives along one direction: of a forward pass, J u, and of a backward pass, for Hessian-vector products H u.

    u          a direction: tangents of x, the initial state and the weights, in code x_dot, state_dot, parameters_dot
    z_dot      dz/dε at ε = 0, as these move by ε u; of anything that forward or backward computed

The loss of a layer's output y has the gradient g = Jᵀ dL/dy in the weights. Along u, y moves by J u, so dL/dy moves by
L''(y) J u, and g by H u:

    trace, grads = layer.forward(x), ...             grads = layer.backward(trace, dL/dy)
    moved = tangent(layer, trace, parameters_dot=u)                                          J u
    tangent_backward(layer, trace, grads, moved, d_output_dot=L''(y) J u).parameters          H u

Neither forms a matrix; together they cost about two passes forward and backward (Pearlmutter, Fast exact multiplication
by the Hessian, Neural Computation 6, 1994). kernels/README.md derives every line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe, take_array
from scratchrnn.backends import Kernels, arrays, memory
from scratchrnn.bptt.full import check_unwrapped
from scratchrnn.layers import edge
from scratchrnn.layers import tangent as walk
from scratchrnn.layers.stack import Recurrent
from scratchrnn.trace import Gradients, State, Tangent, Trace


@np.errstate(all="ignore")  # inf and nan in data pass through
def tangent(
    layer: Recurrent,
    trace: Trace,
    x_dot: FloatArray | None = None,
    state_dot: State | None = None,
    parameters_dot: Mapping[str, FloatArray] | None = None,
) -> Tangent:
    """How a forward pass moves along a direction: the Jacobian times a vector.

    Parameters
    ----------
    layer : RNN or LSTM
    trace : Trace
        From `layer.forward`. Its weights and its dropout masks are the ones meant.
    x_dot : ndarray, optional
        The direction's part in x, of x's shape; what stands on padding is ignored. Absent: zero.
    state_dot : ndarray, or (h_0_dot, c_0_dot) for the LSTM, optional
        In the initial state, of its shape; either of a pair may be None. Absent: zero.
    parameters_dot : mapping of str to ndarray, optional
        In the weights, by name. A weight that is not named stays: zero.

    Returns
    -------
    Tangent
        Of the output, the final state, and every h_t, c_t and a_t. It shares nothing with what was given.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or name; the message names it.
    NotImplementedError
        The trace's backend has no tangents.

    See Also
    --------
    scratchrnn.gradflow.Linearized : the Jacobian of one step after the other, in x and the state.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> from scratchrnn.bptt import tangent
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(3, 4, dtype="float64", rng=rng)
    >>> x, x_dot = rng.standard_normal((2, 7, 5, 3))
    >>> moved = tangent(rnn, rnn.forward(x), x_dot)
    >>> difference = (rnn(x + 1e-6 * x_dot)[0] - rnn(x - 1e-6 * x_dot)[0]) / 2e-6
    >>> bool(np.allclose(moved.output, difference, atol=1e-9))
    True
    """
    kernels = _enter(layer, trace)
    lead, size = trace.output.shape[:-1], layer.input_size
    if x_dot is None:
        xs_dot = memory.zeros(trace.layers[layer._keys[0]].input.shape, layer.dtype)
    else:
        x_dot = take_array("x_dot", x_dot, shape=(*lead, size), dtype=layer.dtype, why="of the trace's input")
        xs_dot = memory.copy(edge.time_major(x_dot, batch_first=layer.batch_first, batched=trace.batched))
        arrays.zero_padding(xs_dot, trace.lengths)
    h_0_dot, c_0_dot = _enter_state("state_dot", state_dot, layer, trace, "0_dot")
    named = _enter_parameters(parameters_dot, layer)
    moved = walk.forward(layer, kernels, trace, xs_dot, h_0_dot, c_0_dot, named)
    output = edge.leave_output(moved.output, batch_first=layer.batch_first, batched=trace.batched)
    return Tangent(output, edge.leave_state(moved.h_n, moved.c_n, batched=trace.batched), named, moved.layers)


@np.errstate(all="ignore")
def tangent_backward(
    layer: Recurrent,
    trace: Trace,
    grads: Gradients,
    tangent: Tangent,
    d_output_dot: FloatArray | None = None,
    d_state_dot: State | None = None,
) -> Gradients:
    """How a backward pass moves along a direction: with the loss's own second derivative, the Hessian times a vector.

    Parameters
    ----------
    layer : RNN or LSTM
    trace : Trace
        From `layer.forward`, with trace="full".
    grads : Gradients
        From `layer.backward(trace, ...)`, without clip, cut and detach_h, whose result is no gradient.
    tangent : Tangent
        From `tangent(layer, trace, ...)`: it holds the direction.
    d_output_dot : ndarray, optional
        How d_output moves along the direction, of its shape: for a loss L(y), L''(y) times `tangent.output`. Absent:
        zero, as for a loss that is linear in the output.
    d_state_dot : ndarray, or (d_h_n_dot, d_c_n_dot) for the LSTM, optional
        How d_state moves; either of a pair may be None. Absent: zero.

    Returns
    -------
    Gradients
        Of each gradient in `grads` its tangent, under the same name.

    Raises
    ------
    ValueError, TypeError
        An argument of the wrong shape, dtype or kind; the message names it.
    NotImplementedError
        The trace's backend has no tangents.

    Examples
    --------
    The Hessian of L = ½ Σ y² times a direction u in the weights. L'(y) = y, L''(y) = 1, and the Hessian is symmetric:

    >>> import numpy as np, scratchrnn as srnn
    >>> from scratchrnn.bptt import tangent, tangent_backward
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, dtype="float64", rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((7, 5, 3)))
    >>> grads = lstm.backward(trace, d_output=trace.output)
    >>> def hessian_times(u):
    ...     moved = tangent(lstm, trace, parameters_dot=u)
    ...     return tangent_backward(lstm, trace, grads, moved, d_output_dot=moved.output).parameters
    >>> u, v = ({name: rng.standard_normal(w.shape) for name, w in lstm.parameters.items()} for _ in range(2))
    >>> def dot(a, b):
    ...     return sum((a[name] * b[name]).sum() for name in a)
    >>> bool(np.isclose(dot(u, hessian_times(v)), dot(v, hessian_times(u))))
    True
    """
    kernels = _enter(layer, trace)
    _check_made_from(trace, grads, tangent)
    above = None
    if d_output_dot is not None:
        shape = trace.output.shape
        d = take_array("d_output_dot", d_output_dot, shape=shape, dtype=layer.dtype, why="of the trace's output")
        above = edge.time_major(d, batch_first=layer.batch_first, batched=trace.batched)
    d_h_n_dot, d_c_n_dot = _enter_state("d_state_dot", d_state_dot, layer, trace, "n_dot")
    back = walk.backward(
        layer, kernels, trace, grads.layers, tangent.layers, tangent.parameters, above, d_h_n_dot, d_c_n_dot
    )
    return Gradients(
        edge.leave_output(back.dx, batch_first=layer.batch_first, batched=trace.batched),
        edge.leave_state(back.d_h_0, back.d_c_0, batched=trace.batched),
        back.parameters,
        back.layers,
    )


def _enter(layer: Recurrent, trace: Trace) -> Kernels:
    """The trace's backend, once it is known to have tangents, and the trace to be of this layer."""
    check_unwrapped(layer)
    layer._check_trace(trace, Trace)
    kernels = backends.load(trace.backend)
    _ = kernels.tangent
    return kernels


def _enter_state(
    name: str, value: Any, layer: Recurrent, trace: Trace, slot: str
) -> tuple[FloatArray | None, FloatArray | None]:
    h, c = (*layer._enter_state(name, value, len(trace.lengths), trace.batched, slot=slot), None)[:2]
    return h, c


def _enter_parameters(parameters_dot: Any, layer: Recurrent) -> dict[str, FloatArray]:
    """A copy of every weight's tangent; zeros where none is given."""
    given = {} if parameters_dot is None else parameters_dot
    if not isinstance(given, Mapping):
        raise TypeError(f"parameters_dot: expected a dict of names and arrays; got {describe(given)}")
    unknown = [name for name in given if name not in layer.parameters]
    if unknown:
        known = ", ".join(layer.parameters)
        raise ValueError(f"parameters_dot: expected names of the layer's parameters, {known}; got {unknown[0]!r}")
    named = {}
    for name, w in layer.parameters.items():
        if name in given:
            named[name] = memory.copy(
                take_array(f"parameters_dot[{name!r}]", given[name], shape=w.shape, dtype=w.dtype, why="of the weight")
            )
        else:
            named[name] = memory.zeros(w.shape, w.dtype)
    return named


def _check_made_from(trace: Trace, grads: Any, tangent: Any) -> None:
    """Raise unless both are of this trace, and hold every step."""
    shapes = {key: part.h.shape for key, part in trace.layers.items()}
    for name, record, kind, maker in (
        ("grads", grads, Gradients, "layer.backward"),
        ("tangent", tangent, Tangent, "tangent"),
    ):
        if type(record) is not kind:
            raise TypeError(f"{name}: expected what {maker} returned for this trace; got {describe(record)}")
        got = {key: part.h.shape for key, part in record.layers.items()}
        if got != shapes:
            raise ValueError(
                f"{name}: expected that of this trace, whose layers have h of {list(shapes.values())}; got "
                f"{list(got.values()) or 'no layers'}"
            )
    if any(part._a is None for part in grads.layers.values()):
        raise ValueError('grads: expected dL/da_t of every step; the trace is minimal, and trace="full" keeps it')
