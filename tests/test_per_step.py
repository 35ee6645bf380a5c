"""What each time step adds to the gradient of a weight.

Oracle: torch autograd in float64, with a copy of every weight for every step (`tests.test_itemized`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.gradflow import weight_gradient_norms, weight_gradients_at
from scratchrnn.testing import assert_close
from tests.test_itemized import EXACT, LAYERS, B, H, I, T, frobenius, problem, reference, time_major


@pytest.mark.parametrize("lengths", [None, [4, 7, 1]])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_each_step_of_a_weight(kind: str, options: dict[str, Any], lengths: Any, rng: np.random.Generator) -> None:
    layer, trace, x, state, d_output = problem(kind, options, rng, lengths)
    grads = layer.backward(trace, time_major(layer, d_output))
    want = {name: d.sum(axis=0) for name, d in reference(layer, trace, x, state, d_output).weights.items()}
    norms, each = weight_gradient_norms(trace, grads), weight_gradients_at(trace, grads, range(T))
    some = weight_gradients_at(trace, grads, [5, 2])
    assert norms.keys() == each.keys() == want.keys()
    for name, d in want.items():
        assert_close(f"{name} at each step", each[name], d, rel=EXACT)
        assert_close(f"{name} at some steps", some[name], d[[5, 2]], rel=EXACT)
        assert_close(f"{name} summed", each[name].sum(axis=0), grads.parameters[name], rel=EXACT)
        assert_close(f"norm of {name}", norms[name], frobenius(d[None])[0], rel=EXACT)


def test_both_directions_have_steps_of_their_own(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    trace = lstm.forward(rng.standard_normal((T, B, I)), lengths=[4, 7, 2])
    grads = lstm.backward(trace, rng.standard_normal((T, B, 2 * H)))
    each, norms = weight_gradients_at(trace, grads, range(T)), weight_gradient_norms(trace, grads)
    assert each.keys() == grads.parameters.keys()
    for name, d in grads.parameters.items():
        assert_close(name, each[name].sum(axis=0), d, rel=EXACT)
        assert_close(f"norm of {name}", norms[name], frobenius(each[name][None])[0], rel=EXACT)


@pytest.mark.parametrize("kind", ["lstm", "rnn"])
def test_a_cell_is_a_layer_of_one_step(kind: str, rng: np.random.Generator) -> None:
    cell: Any = (srnn.LSTMCell if kind == "lstm" else srnn.RNNCell)(I, H, dtype=np.float64, rng=rng)
    trace = cell.forward(rng.standard_normal((B, I)))
    grads = cell.backward(trace, rng.standard_normal((B, H)))
    each = weight_gradients_at(trace, grads, [0])
    assert each.keys() == grads.parameters.keys()
    for name, d in grads.parameters.items():
        assert_close(name, each[name][0], d, rel=EXACT)


def test_bad_input(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    trace = lstm.forward(rng.standard_normal((T, B, I)))
    grads = lstm.backward(trace, np.ones((T, B, H)))
    with pytest.raises(TypeError, match="grads: expected what backward of this trace returned; got"):
        weight_gradient_norms(trace, trace)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trace: expected what forward"):
        weight_gradients_at(grads, grads, [0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"steps\[1\]: expected an integer from 0 to 6; got 7"):
        weight_gradients_at(trace, grads, [0, 7])
    other = lstm.forward(rng.standard_normal((T - 1, B, I)))
    with pytest.raises(ValueError, match="grads: expected those of this trace, with states of shape"):
        weight_gradient_norms(other, grads)
    empty = lstm.forward(np.ones((T, 0, I)))
    with pytest.raises(ValueError, match="a batch of 0"):
        weight_gradient_norms(empty, lstm.backward(empty, np.ones((T, 0, H))))
    minimal = lstm.forward(rng.standard_normal((T, B, I)), trace="minimal")
    with pytest.raises(ValueError, match=r"trace: expected one of forward.*; got a minimal one"):
        weight_gradient_norms(minimal, lstm.backward(minimal, np.ones((T, B, H))))
    for wrapper in (srnn.WeightDrop(lstm, 0.5, rng=rng), srnn.Zoneout(lstm, 0.5, rng=rng)):
        wrapped = wrapper.forward(rng.standard_normal((T, B, I)))
        with pytest.raises(TypeError, match=r"trace: expected what forward of an RNN or LSTM returned; got .*Trace"):
            weight_gradient_norms(wrapped, wrapper.backward(wrapped, np.ones((T, B, H))))
