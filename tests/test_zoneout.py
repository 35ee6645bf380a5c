"""Zoneout against the same equations in torch, with the same masks: every state and gradient, step by step."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.layers.zoneout import ZoneoutTrace
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests.problems import BATCH, LENGTHS, PROJ, STEPS, Case, Problem, by_us, draw
from tests.stepwise import Cotangents, Reference, compare

pytestmark = pytest.mark.usefixtures("each_backend")

REL = TOLERANCE["float64"]
CASES = [
    *(Case(cell) for cell in ("tanh", "relu", "lstm")),
    *(Case(cell, lengths=LENGTHS) for cell in ("tanh", "relu", "lstm")),
    *(Case(cell, 2, bidirectional=True, lengths=LENGTHS) for cell in ("tanh", "lstm")),
    Case("lstm", 3, proj_size=PROJ, lengths=LENGTHS),
    Case("lstm", 2, bidirectional=True, proj_size=PROJ),
    Case("lstm", 2, bias=False),
    *(Case(cell, sizes=sizes) for cell in ("relu", "lstm") for sizes in ((1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 1))),
]
ABSENT = [frozenset(a) for a in ({"d_output"}, {"d_h_n"}, {"d_c_n"}, {"d_h_n", "d_c_n"}, {"d_output", "d_h_n"})]


def wrapped(case: Case, rng: np.random.Generator, p: tuple[float, float] = (0.3, 0.5)) -> srnn.Zoneout:
    return srnn.Zoneout(case.layer(rng, np.float64), p[0], p[1] if case.cell == "lstm" else 0.0, rng=rng)


def check(
    zoneout: srnn.Zoneout, case: Case, p: Problem, *, training: bool = True, rng: Any = None, **flow: Any
) -> ZoneoutTrace:
    """One pass forward and back, compared with torch on the masks of its trace."""
    pair = (lambda arrays: arrays) if case.cell == "lstm" else (lambda arrays: arrays[0])
    trace = zoneout.forward(p.x, pair(p.state), p.lengths, training, rng)
    d_state = tuple(None if n in p.absent else d for n, d in zip(("d_h_n", "d_c_n"), p.d_state, strict=False))
    cotangents = Cotangents(None if "d_output" in p.absent else p.d_output, d_state)
    grads = zoneout.backward(trace, cotangents.d_output, cotangents.given(), **flow)
    keep = {
        key: tuple(None if mix is None else mix.keep for mix in (one.mix_h, one.mix_c))
        for key, one in trace.layers.items()
    }
    steps, batch = p.x.shape[:2]
    lengths = [steps] * batch if p.lengths is None else list(p.lengths)
    reference = Reference(zoneout.layer, p.x, p.state, lengths, keep=keep, dropout=trace.dropout_masks, **flow)
    compare(reference, trace, grads, cotangents, str(case))
    return trace


@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{case.sizes}")
def test_equals_torch(case: Case, training: bool, rng: np.random.Generator) -> None:
    zoneout, problem = wrapped(case, rng), draw(case, rng)
    trace = check(zoneout, case, problem, training=training)
    for one in trace.layers.values():
        for mix, p in ((one.mix_h, zoneout.p_h), (one.mix_c, zoneout.p_c)):
            assert mix is None or set(np.unique(mix.keep)) <= ({0, 1} if training else {p})


@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: "+".join(sorted(absent)))
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_absent_cotangents(cell: str, absent: frozenset[str], rng: np.random.Generator) -> None:
    if cell == "tanh" and absent == {"d_output", "d_h_n"}:
        absent = frozenset({"d_output"})  # else there is no loss
    for lengths in (None, LENGTHS):
        case = Case(cell, 2, lengths=lengths)
        check(wrapped(case, rng), case, draw(case, rng, absent))


@pytest.mark.parametrize("flow", ["clip", "cut", "both"])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_clip_and_cut(cell: str, flow: str, rng: np.random.Generator) -> None:
    """A cut holds back what was kept, too."""
    case = Case(cell, 2, bidirectional=True, lengths=LENGTHS)
    zoneout, problem = wrapped(case, rng), draw(case, rng)
    options: dict[str, Any] = {"clip": 0.05, "cut": rng.random((STEPS, BATCH)) < 0.3}
    chosen = options if flow == "both" else {flow: options[flow]}
    trace = check(zoneout, case, problem, **chosen)
    changed, plain = (zoneout.backward(trace, problem.d_output, **f).input for f in (chosen, {}))
    assert difference(changed, plain).ratio > 1e-3


def test_with_dropout_between_layers(rng: np.random.Generator) -> None:
    case = Case("lstm", 3)
    layer = srnn.LSTM(3, 6, 3, dropout=0.4, dtype=np.float64, rng=rng)
    trace = check(srnn.Zoneout(layer, 0.3, 0.5), case, draw(case, rng), rng=np.random.default_rng(3))
    assert all(mask is not None for mask in trace.dropout_masks)


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "inference"])
def test_without_zoneout_it_is_the_layer(cell: str, training: bool, rng: np.random.Generator) -> None:
    case = Case(cell, 2, bidirectional=True, lengths=LENGTHS)
    zoneout, problem = wrapped(case, rng, (0.0, 0.0)), draw(case, rng)
    got = by_us(zoneout, problem, training=training)  # type: ignore[arg-type]
    want = by_us(zoneout.layer, problem)  # type: ignore[arg-type]
    for name in want:
        assert_close(name, got[name], want[name], rel=REL)


def test_with_certainty_nothing_moves(rng: np.random.Generator) -> None:
    case = Case("lstm", 2, lengths=LENGTHS)
    zoneout, p = wrapped(case, rng, (1.0, 1.0)), draw(case, rng)
    trace = zoneout.forward(p.x, p.state, p.lengths)
    for got, want in zip(trace.state, p.state, strict=True):
        assert_close("state", got, want, rel=0)
    grads = zoneout.backward(trace, None, p.d_state)
    for got, want in zip(grads.state, p.d_state, strict=True):
        assert_close("d_state", got, want, rel=0)
    assert not any(d.any() for d in grads.parameters.values())


def test_h_is_made_from_the_new_cell_not_from_the_kept_one(rng: np.random.Generator) -> None:
    """The paper (section 3) has tanh(f c + i g) in h, and no mask of c."""
    case = Case("lstm")
    layer, p = case.layer(rng, np.float64), draw(case, rng)
    trace = srnn.Zoneout(layer, 0.0, 1.0).forward(p.x[:1], p.state)
    output, (_, c_n) = layer(p.x[:1], p.state)
    assert_close("h", trace.output, output, rel=REL)
    assert_close("c", trace.c[1], p.state[1][0], rel=0)
    assert_close("new c", trace[0].mix_c.new[0], c_n[0], rel=REL)


def test_inference_is_forward_without_training(rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, lengths=LENGTHS)
    zoneout, p = wrapped(case, rng), draw(case, rng)
    before = rng.bit_generator.state
    output, (h_n, c_n) = zoneout(p.x, p.state, p.lengths)
    assert rng.bit_generator.state == before
    trace = zoneout.forward(p.x, p.state, p.lengths, training=False)
    assert_close("output", output, trace.output, rel=0)
    assert_close("h_n", h_n, trace.state[0], rel=0)
    assert_close("c_n", c_n, trace.state[1], rel=0)


def test_masks_are_bernoulli_and_each_state_and_layer_has_its_own(rng: np.random.Generator) -> None:
    zoneout = srnn.Zoneout(srnn.LSTM(3, 40, 2, rng=rng), 0.2, 0.7, rng=rng)
    x = np.zeros((20, 10, 3), np.float32)
    trace = zoneout.forward(x)
    for n in (0, 1):
        for mix, p in ((trace[n].mix_h, 0.2), (trace[n].mix_c, 0.7)):
            assert abs(mix.keep.mean() - p) < 4 * np.sqrt(p * (1 - p) / mix.keep.size)
            assert mix.keep.dtype == np.float32
    assert (trace[0].mix_h.keep != trace[1].mix_h.keep).any()
    again = [zoneout.forward(x, rng=np.random.default_rng(5)).output for _ in range(2)]
    assert_close("output", again[0], again[1], rel=0)
    assert (zoneout.forward(x, rng=np.random.default_rng(6)).output != again[0]).any()


def test_layouts(rng: np.random.Generator) -> None:
    """batch_first and no batch, by the time-major ones."""
    case = Case("lstm", 2)
    layer, p = case.layer(rng, np.float64), draw(case, rng)
    first = srnn.LSTM(3, 6, 2, batch_first=True, dtype=np.float64)
    first.load_state_dict(layer.state_dict())
    plain, turned = srnn.Zoneout(layer, 0.3, 0.5), srnn.Zoneout(first, 0.3, 0.5)
    traces = [z.forward(x, rng=np.random.default_rng(3)) for z, x in ((plain, p.x), (turned, p.x.swapaxes(0, 1)))]
    assert_close("output", traces[1].output.swapaxes(0, 1), traces[0].output, rel=0)
    grads = [plain.backward(traces[0], p.d_output), turned.backward(traces[1], p.d_output.swapaxes(0, 1))]
    assert_close("dx", grads[1].input.swapaxes(0, 1), grads[0].input, rel=0)
    single = [plain.forward(x, rng=np.random.default_rng(3)) for x in (p.x[:, 0], p.x[:, :1])]
    assert_close("output", single[0].output, single[1].output[:, 0], rel=0)
    assert single[0].state[0].shape == (2, 6)


def test_padding_is_not_read_and_everything_beyond_an_end_is_zero(rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, lengths=LENGTHS)
    zoneout, p = wrapped(case, rng), draw(case, rng)
    beyond = np.arange(len(p.x))[:, None] >= np.array(LENGTHS)
    spoiled = p.x.copy()
    spoiled[beyond] = np.nan
    traces = [zoneout.forward(x, p.state, p.lengths, rng=np.random.default_rng(3)) for x in (p.x, spoiled)]
    assert_close("output", traces[1].output, traces[0].output, rel=0)
    grads = zoneout.backward(traces[1], p.d_output, p.d_state)
    for key, one in traces[1].layers.items():
        for array in (one.h[1:], one.c[1:], one.gates, one.mix_h.new, one.mix_c.new):
            assert not array[beyond].any()
        for array in (grads[key].h[1:], grads[key].c[1:], grads[key].a):
            assert not array[beyond].any()
    assert not grads.input[beyond].any()


def test_a_trace_owns_all_that_backward_needs(rng: np.random.Generator) -> None:
    case = Case("lstm", 2)
    zoneout, p = wrapped(case, rng), draw(case, rng)
    x = p.x.copy()
    trace = zoneout.forward(x, p.state)
    want = zoneout.backward(trace, p.d_output)
    x[...] = 0
    for w in zoneout.parameters.values():
        w *= 2
    got = zoneout.backward(pickle.loads(pickle.dumps(trace)), p.d_output)
    assert_close("dx", got.input, want.input, rel=0)
    for name in want.parameters:
        assert_close(name, got.parameters[name], want.parameters[name], rel=0)


def test_inf_and_nan_pass_through(rng: np.random.Generator) -> None:
    case = Case("lstm")
    zoneout, p = wrapped(case, rng), draw(case, rng)
    p.x[3, 1, 0] = np.nan
    trace = zoneout.forward(p.x)
    grads = zoneout.backward(trace, p.d_output)
    assert np.isnan(trace.output[3, 1]).any()
    assert np.isfinite(trace.output[:, 0]).all()
    assert np.isnan(grads.input[2, 1]).any()
    assert np.isfinite(grads.input[:, 0]).all()


def test_bad_input(rng: np.random.Generator) -> None:
    lstm, x = srnn.LSTM(3, 6, rng=rng), np.zeros((7, 5, 3), np.float32)
    with pytest.raises(ValueError, match=r"p_h: expected a number between 0 and 1; got 1\.5"):
        srnn.Zoneout(lstm, 1.5)
    with pytest.raises(TypeError, match=r"p_c: expected a number between 0 and 1; got None"):
        srnn.Zoneout(lstm, 0.5, None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"p_c: expected 0 for an RNN, which has no cell state; got 0\.5"):
        srnn.Zoneout(srnn.RNN(3, 6), 0.5, 0.5)
    zoneout = srnn.Zoneout(lstm, 0.5, 0.5, rng=rng)
    trace = zoneout.forward(x)
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned; got ZoneoutTrace"):
        lstm.backward(trace)
    with pytest.raises(TypeError, match="trace: expected what forward of this layer returned; got Trace"):
        zoneout.backward(lstm.forward(x))
    with pytest.raises(ValueError, match=r"trace: expected one of LSTM\(input_size=3, hidden_size=5"):
        srnn.Zoneout(srnn.LSTM(3, 5), 0.5).backward(trace)
    with pytest.raises(TypeError, match="training: expected True or False; got int 1"):
        zoneout.forward(x, training=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"d_output: expected shape \(7, 5, 6\) of the trace's output; got \(5, 6\)"):
        zoneout.backward(trace, np.zeros((5, 6), np.float32))
    with pytest.raises(TypeError, match=r"rng: expected a numpy\.random\.Generator for dropout masks"):
        srnn.Zoneout(srnn.RNN(3, 6, rng=srnn.rng.torch_manual_seed(0)), 0.5).forward(x)
    with pytest.raises(TypeError, match=r"x: expected dtype float32; got float64"):
        zoneout(x.astype(np.float64))
