"""What each time step adds to the gradient of a weight, with all matrices or with none of them formed.

    B batch   T time   I input   H hidden   P size of h   G gates (4 for the LSTM, 1 for the RNN)

    dL/dW_ih = Σ_k Σ_b da_kb x_kbᵀ            da_k = dL/da_k, the pre-activation of step k        (1)
    dL/dW_hh = Σ_k Σ_b da_kb h_{k-1,b}ᵀ                                                           (2)
    dL/db    = Σ_k Σ_b da_kb                  either bias                                         (3)
    dL/dW_hr = Σ_k Σ_b dh_kb m_kbᵀ            m_k = o_k ⊙ tanh(c_k), of a projection h_k = W_hr m_k   (4)

Each is a sum over k of A_k R_k, with columns of A_k (·, B) from backward and rows of R_k (B, ·) from forward. Its
Frobenius norm needs no matrix of the weight's size: with R_kᵀ = Q U, where Qᵀ Q = 1, it is that of A_k Uᵀ, of at most
B columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_int, describe
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.layers.factors import right_sides_of
from scratchrnn.trace import Gradients, Key, LayerGradients, Trace


class Factor(NamedTuple):
    """One of (1) to (4): which gradient stands on the left, and what stands on the right."""

    name: str  # of the parameter
    key: Key  # layer and direction
    of_h: bool  # A is dh, else da
    right: FloatArray  # (T, B, ·), the columns of R_kᵀ, in the direction's order of work

    def left(self, d: LayerGradients) -> FloatArray:
        """A_kᵀ (T, B, ·)."""
        return d.h[1:] if self.of_h else d.a


def factors(trace: Trace) -> Iterator[Factor]:
    """(1) to (4) for every parameter of the trace's net."""
    for key, part in trace.layers.items():
        cell = "weight_ih" in trace.parameters  # an RNNCell's or LSTMCell's, where there is one layer
        suffix = "" if cell else f"_l{key[0]}" + ("_reverse" if part.reverse else "")
        for name, array in right_sides_of(part, projected="weight_hr" + suffix in trace.parameters).items():
            if name + suffix in trace.parameters:
                yield Factor(name + suffix, key, name == "weight_hr", array)


def triangles(factor: Factor) -> FloatArray:
    """U_k of R_kᵀ = Q U, (T, r, B) with r ≤ B, in float64."""
    with np.errstate(all="ignore"):
        triangle: Any = np.linalg.qr(factor.right.astype(np.float64).swapaxes(1, 2), mode="r")
    return triangle


def product_norms(
    left: FloatArray,  # (T, ..., B, ·)
    triangle: FloatArray,  # (T, r, B), of the same steps
) -> FloatArray:  # (T, ...)
    """Frobenius norm of each A_k R_k, from A_kᵀ and U_k."""
    steps, rank, batch = triangle.shape
    between = (1,) * (left.ndim - 3)
    with np.errstate(all="ignore"):
        product = triangle.reshape(steps, *between, rank, batch) @ left.astype(np.float64, copy=False)
    return row_norms(product.reshape(*product.shape[:-2], -1))


def weight_gradient_norms(trace: Trace, grads: Gradients) -> dict[str, FloatArray]:
    """Measure how much each step adds to the gradient of each parameter.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM.
    grads : Gradients
        What backward of this trace returned.

    Returns
    -------
    dict of ndarray (T,)
        By the parameter's name, the Frobenius norm of what step k adds, in float64; steps in the direction's own order
        of work. Norms do not add up as the matrices do: their sum is at least the norm of the gradient.

    Raises
    ------
    ValueError
        `grads` of another trace, or one of a batch of 0, or a minimal one.
    TypeError
        Something else, such as a trace of WeightDrop or Zoneout, which have other sums than (1) to (4).

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, dtype=np.float64, rng=rng)
    >>> trace = lstm.forward(rng.standard_normal((6, 5, 3)))
    >>> grads = lstm.backward(trace, rng.standard_normal((6, 5, 4)))
    >>> weight_gradient_norms(trace, grads)["weight_hh_l0"].shape
    (6,)
    >>> each = weight_gradients_at(trace, grads, range(6))["weight_hh_l0"]
    >>> each.shape, np.allclose(each.sum(axis=0), grads.parameters["weight_hh_l0"])
    ((6, 16, 4), True)
    """
    check_pair(trace, grads)
    return {one.name: product_norms(one.left(grads[one.key]), triangles(one)) for one in factors(trace)}


def weight_gradients_at(trace: Trace, grads: Gradients, steps: Sequence[int]) -> dict[str, FloatArray]:
    """Compute what some steps add to the gradient of each parameter: over all steps, these sum to the gradient.

    Parameters
    ----------
    trace, grads
        As for `weight_gradient_norms`.
    steps : sequence of int
        Which steps, each in 0..T-1, in the direction's own order of work. A parameter's size of memory is taken for
        each.

    Returns
    -------
    dict of ndarray (len(steps), ...)
        By the parameter's name, of its shape behind the first axis; of the trace's dtype.

    Raises
    ------
    ValueError, TypeError
        As for `weight_gradient_norms`, or a step out of range.
    """
    check_pair(trace, grads)
    last = len(trace[next(iter(trace.layers))].input) - 1
    at = [check_int(f"steps[{n}]", step, least=0, most=last) for n, step in enumerate(steps)]
    with np.errstate(all="ignore"):
        found = {one.name: one.left(grads[one.key])[at].swapaxes(1, 2) @ one.right[at] for one in factors(trace)}
    return {name: a.reshape(len(at), *trace.parameters[name].shape) for name, a in found.items()}


def check_pair(trace: Any, grads: Any) -> None:
    """Raise unless `grads` is what backward of `trace` returned, of a layer itself, with dL/da_t of each step."""
    if type(trace) is not Trace:  # a wrapper's is a subclass
        raise TypeError(f"trace: expected what forward of an RNN or LSTM returned; got {type(trace).__name__}")
    if not isinstance(grads, Gradients):
        raise TypeError(f"grads: expected what backward of this trace returned; got {describe(grads)}")
    if not len(trace.lengths):
        raise ValueError("trace: expected at least one sequence; got a batch of 0")
    if any(part.minimal for part in trace.layers.values()):
        raise ValueError(
            'trace: expected one of forward(..., trace="full"), with dL/da_t of each step; got a minimal one'
        )
    want, got = ({key: part.h.shape for key, part in one.layers.items()} for one in (trace, grads))
    if want != got:
        raise ValueError(f"grads: expected those of this trace, with states of shape {want}; got {got}")
