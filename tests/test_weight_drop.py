"""WeightDrop against the same equations in torch, with the masks of its trace; and that it drops, and drops alone."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.layers.weight_drop import WeightDropTrace
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import BATCH, LENGTHS, PROJ, STEPS, Case, Problem, by_us, draw
from tests.stepwise import Cotangents, Reference, compare

pytestmark = pytest.mark.usefixtures("each_backend")

REL = TOLERANCE["float64"]
CASES = [
    *(Case(cell) for cell in ("tanh", "relu", "lstm")),
    *(Case(cell, 2, bidirectional=True, lengths=LENGTHS) for cell in ("tanh", "lstm")),
    Case("lstm", 2, proj_size=PROJ, lengths=LENGTHS),
    Case("lstm", 2, bias=False),
    *(Case(cell, sizes=sizes) for cell in ("relu", "lstm") for sizes in ((1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 1))),
]


def wrapped(case: Case, rng: np.random.Generator, p: float = 0.4) -> srnn.WeightDrop:
    return srnn.WeightDrop(case.layer(rng, np.float64), p, rng=rng)


def check(dropping: srnn.WeightDrop, case: Case, p: Problem, **flow: Any) -> WeightDropTrace:
    """One pass forward and back, compared with torch on the masks of its trace."""
    pair = (lambda arrays: arrays) if case.cell == "lstm" else (lambda arrays: arrays[0])
    trace = dropping.forward(p.x, pair(p.state), p.lengths)
    cotangents = Cotangents(p.d_output, p.d_state)
    grads = dropping.backward(trace, p.d_output, cotangents.given(), **flow)
    steps, batch = p.x.shape[:2]
    lengths = [steps] * batch if p.lengths is None else list(p.lengths)
    masks = trace.weight_masks
    reference = Reference(
        dropping.layer, p.x, p.state, lengths, weight_masks=masks, dropout=trace.dropout_masks, **flow
    )
    compare(reference, trace, grads, cotangents, str(case))
    return trace


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{case.sizes}")
def test_equals_torch(case: Case, rng: np.random.Generator) -> None:
    dropping = wrapped(case, rng)
    trace = check(dropping, case, draw(case, rng))
    assert list(trace.weight_masks) == [name for name in dropping.parameters if name.startswith("weight_hh")]
    for name, mask in trace.weight_masks.items():
        assert set(np.unique(mask)) <= {0, 1 / (1 - 0.4)}
        assert_close(name, trace.parameters[name], dropping.parameters[name] * mask, rel=0)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_clip_and_cut(cell: str, rng: np.random.Generator) -> None:
    case = Case(cell, 2, bidirectional=True, lengths=LENGTHS)
    check(wrapped(case, rng), case, draw(case, rng), clip=0.05, cut=rng.random((STEPS, BATCH)) < 0.3)


def test_with_dropout_between_layers(rng: np.random.Generator) -> None:
    layer = srnn.RNN(3, 6, 3, dropout=0.4, dtype=np.float64, rng=rng)
    case = Case("tanh", 3)
    trace = check(srnn.WeightDrop(layer, 0.4), case, draw(case, rng))
    assert all(mask is not None for mask in trace.dropout_masks)


@pytest.mark.parametrize(("p", "training"), [(0.4, False), (0.0, True)])
def test_without_a_drop_it_is_the_layer_bit_for_bit(p: float, training: bool, rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, lengths=LENGTHS)
    dropping, problem = wrapped(case, rng, p), draw(case, rng)
    before = rng.bit_generator.state
    got = by_us(dropping, problem, training=training)  # type: ignore[arg-type]
    want = by_us(dropping.layer, problem)  # type: ignore[arg-type]
    for name in want:
        assert_close(name, got[name], want[name], rel=0)
    assert rng.bit_generator.state == before
    assert_close("output", dropping(problem.x, problem.state, problem.lengths)[0], want["output"], rel=0)


def test_it_drops_something_each_time_anew(rng: np.random.Generator) -> None:
    """A weight drop can do nothing and say nothing, where the kernel reads other weights (pytorch#65688)."""
    dropping = srnn.WeightDrop(srnn.LSTM(3, 40, 2, rng=rng), 0.5, rng=rng)
    x = rng.standard_normal((7, 2, 3)).astype(np.float32)
    one, two = dropping.forward(x), dropping.forward(x)
    assert_close("h_1", one[0].h[1], two[0].h[1], rel=0)  # from h_0 = 0, so no recurrent weight acts
    assert not np.allclose(one[0].h[2], two[0].h[2])
    for mask in one.weight_masks.values():
        assert abs((mask == 0).mean() - 0.5) < 4 * np.sqrt(0.25 / mask.size)
        assert mask.dtype == np.float32
    assert (one.weight_masks["weight_hh_l0"] != one.weight_masks["weight_hh_l1"]).any()
    again = [dropping.forward(x, rng=np.random.default_rng(5)).output for _ in range(2)]
    assert_close("output", again[0], again[1], rel=0)


def test_all_recurrent_weights_gone(rng: np.random.Generator) -> None:
    case = Case("tanh")
    dropping, p = wrapped(case, rng, 1.0), draw(case, rng)
    trace = dropping.forward(p.x, p.state[0])
    layer = case.layer(rng, np.float64)
    layer.load_state_dict(dropping.state_dict() | {"weight_hh_l0": np.zeros((6, 6))})
    assert_close("output", trace.output, layer(p.x, p.state[0])[0], rel=REL)
    assert not dropping.backward(trace, p.d_output).parameters["weight_hh_l0"].any()


def test_the_layers_weights_are_never_written(rng: np.random.Generator) -> None:
    case = Case("lstm", 2)
    dropping, p = wrapped(case, rng), draw(case, rng)
    kept = dropping.layer.state_dict()
    for w in dropping.layer.parameters.values():
        w.flags.writeable = False
    trace = dropping.forward(p.x)
    dropping.backward(trace, p.d_output)
    with pytest.raises(ValueError, match="x: expected"):
        dropping.forward(p.x[:, :, :2])
    for name, w in dropping.layer.parameters.items():
        assert_close(name, w, kept[name], rel=0)


def test_bad_input_leaves_the_generator_alone(rng: np.random.Generator) -> None:
    dropping = srnn.WeightDrop(srnn.LSTM(3, 6, rng=rng), 0.5, rng=rng)
    before = rng.bit_generator.state
    for x in (np.zeros((7, 5, 2), np.float32), np.zeros((7, 5, 3))):
        with pytest.raises((TypeError, ValueError), match="x: expected"):
            dropping.forward(x)
    assert rng.bit_generator.state == before


def test_a_trace_owns_all_that_backward_needs(rng: np.random.Generator) -> None:
    case = Case("lstm", 2)
    dropping, p = wrapped(case, rng), draw(case, rng)
    trace = dropping.forward(p.x, p.state)
    want = dropping.backward(trace, p.d_output)
    for w in dropping.parameters.values():
        w *= 2
    got = dropping.backward(pickle.loads(pickle.dumps(trace)), p.d_output)
    for name in want.parameters:
        assert_close(name, got.parameters[name], want.parameters[name], rel=0)


def test_bad_input(rng: np.random.Generator) -> None:
    lstm, x = srnn.LSTM(3, 6, rng=rng), np.zeros((7, 5, 3), np.float32)
    with pytest.raises(ValueError, match=r"p: expected a number between 0 and 1; got -0\.1"):
        srnn.WeightDrop(lstm, -0.1)
    with pytest.raises(TypeError, match="p: expected a number between 0 and 1; got bool True"):
        srnn.WeightDrop(lstm, True)
    dropping = srnn.WeightDrop(lstm, 0.5)
    trace = dropping.forward(x)
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned; got WeightDropTrace"):
        lstm.backward(trace)
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned; got Trace"):
        dropping.backward(lstm.forward(x))
    with pytest.raises(TypeError, match="training: expected True or False; got str 'yes'"):
        dropping.forward(x, training="yes")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator for dropout masks"):
        dropping.forward(x, rng=srnn.rng.torch_manual_seed(0))
    lstm.parameters["weight_hh_l0"] = np.zeros((24, 6))
    with pytest.raises(TypeError, match="weight_hh_l0: expected dtype float32; got float64"):
        dropping.forward(x)
