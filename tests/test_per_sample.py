"""Gradients of each sample alone: `backward(per_sample=True)` and `gradflow.per_sample_norms`.

Oracle: torch.nn in float64 on each sequence by itself, cut to its length; and, where torch has no such thing (dropout
as drawn, clip, wrappers), our own backward of cotangents that are zero for all samples but one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow import per_sample_norms
from scratchrnn.gradflow.per_sample import _product_norm
from scratchrnn.layers.factors import PerSample
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import BATCH, HIDDEN, INPUTS, LENGTHS, STEPS, Case, Problem, by_torch, draw, grid

EXACT = TOLERANCE["float64"]


def one_of(case: Case, p: Problem, b: int) -> tuple[Case, Problem]:
    """Sample b by itself, as long as it is."""
    steps = case.sizes[0] if p.lengths is None else p.lengths[b]
    at = (slice(b, b + 1), slice(0, steps)) if case.batch_first else (slice(0, steps), slice(b, b + 1))
    states = (tuple(s[:, b : b + 1] for s in group) for group in (p.state, p.d_state))
    state, d_state = states
    alone = Case(case.cell, case.num_layers, case.bidirectional, case.proj_size, case.bias, case.batch_first)
    return alone, Problem(p.x[at], state, p.d_output[at], d_state, None, p.absent)


def pair(arrays: tuple[np.ndarray, ...]) -> Any:
    return arrays if len(arrays) == 2 else arrays[0]


def run(layer: Any, p: Problem, keep: str = "full", **options: Any) -> tuple[Any, Any]:
    """Trace and gradients of a problem."""
    trace = layer.forward(p.x, None if "state" in p.absent else pair(p.state), p.lengths, trace=keep)
    return trace, layer.backward(trace, p.d_output, pair(p.d_state), **options)


def only(b: int, array: np.ndarray, axis: int) -> np.ndarray:
    """Zero for all samples but b."""
    kept = np.zeros_like(array)
    at = (slice(None),) * axis + (b,)
    kept[at] = array[at]
    return kept


def check_by_linearity(layer: Any, trace: Any, p: Problem, **options: Any) -> None:
    """Each sample's gradient is what its own cotangents give; and the sum has the bits that it always had."""
    grads = layer.backward(trace, p.d_output, pair(p.d_state), per_sample=True, **options)
    plain = layer.backward(trace, p.d_output, pair(p.d_state), **options)
    assert plain.per_sample is None
    assert_close("dx", grads.input, plain.input, rel=0)
    assert grads.per_sample.keys() == grads.parameters.keys()
    for name, d in plain.parameters.items():
        assert_close(name, grads.parameters[name], d, rel=0)
        assert_close(f"{name} summed", grads.per_sample[name].sum(axis=0), d, rel=EXACT)
    for b in range(BATCH):
        d_output = only(b, p.d_output, 0 if layer.batch_first else 1)
        alone = layer.backward(trace, d_output, pair(tuple(only(b, d, 1) for d in p.d_state)), **options)
        for name, d in alone.parameters.items():
            assert_close(f"{name} of sample {b}", grads.per_sample[name][b], d, rel=EXACT)


@pytest.mark.parametrize("case", grid(), ids=str)
def test_equals_torch_on_each_sequence_alone(case: Case, rng: np.random.Generator) -> None:
    layer = case.layer(rng, np.float64)
    problem = draw(case, rng)
    trace, grads = run(layer, problem, per_sample=True)
    norms = per_sample_norms(trace, grads)
    assert grads.per_sample.keys() == norms.keys() == layer.parameters.keys()
    for b in range(BATCH):
        alone = one_of(case, problem, b)
        want = by_torch(case.module(layer, np.float64), *alone)
        for name in layer.parameters:
            assert grads.per_sample[name].shape == (BATCH, *layer.parameters[name].shape)
            assert_close(f"{name} of sample {b}", grads.per_sample[name][b], want[f"d{name}"], rel=EXACT)
            norm = np.linalg.norm(want[f"d{name}"])
            assert_close(f"norm of {name} of sample {b}", norms[name][b], norm, rel=EXACT)


@pytest.mark.parametrize("keep", ["full", "minimal"])
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
@pytest.mark.usefixtures("each_backend")
def test_on_each_backend(cell: str, keep: str, rng: np.random.Generator) -> None:
    case = Case(cell, 2, bidirectional=True, proj_size=4 if cell == "lstm" else 0, lengths=LENGTHS)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    trace, _ = run(layer, problem, keep)
    check_by_linearity(layer, trace, problem)


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_a_minimal_trace_gives_them_segment_by_segment(
    cell: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scratchrnn.layers import direction

    monkeypatch.setattr(direction, "segments", lambda *_: [slice(0, 3), slice(3, 6), slice(6, 7)])
    case = Case(cell, 2, bidirectional=True, proj_size=4 if cell == "lstm" else 0, lengths=LENGTHS)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    (_, want), (_, got) = (run(layer, problem, keep, per_sample=True) for keep in ("full", "minimal"))
    for name, d in want.per_sample.items():
        assert_close(name, got.per_sample[name], d, rel=EXACT)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "ragged"])
@pytest.mark.parametrize("keep", ["full", "minimal"])
def test_clip_cut_and_detach_h(keep: str, lengths: Any, batch_first: bool, rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, proj_size=4, batch_first=batch_first, lengths=lengths)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    trace, plain = run(layer, problem, keep, per_sample=True)
    options: dict[str, Any] = {
        "clip": 0.05,
        "cut": rng.random(problem.x.shape[:2]) < 0.3,
        "detach_h": rng.random(problem.x.shape[:2]) < 0.3,
    }
    for chosen in (*({name: value} for name, value in options.items()), options):
        check_by_linearity(layer, trace, problem, **chosen)
        changed = layer.backward(trace, problem.d_output, pair(problem.d_state), per_sample=True, **chosen)
        assert not np.allclose(changed.per_sample["weight_hh_l0"], plain.per_sample["weight_hh_l0"])


def test_dropout_between_layers(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(INPUTS, HIDDEN, 3, dropout=0.5, dtype=np.float64, rng=rng)
    problem = draw(Case("lstm", 3), rng)
    trace, _ = run(layer, problem)
    assert all(mask is not None for mask in trace.dropout_masks)
    check_by_linearity(layer, trace, problem)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "projected"])
@pytest.mark.parametrize("kind", ["WeightDrop", "Zoneout"])
def test_wrappers(kind: str, cell: str, training: bool, rng: np.random.Generator) -> None:
    proj = 4 if cell == "projected" else 0
    case = Case("tanh" if cell == "tanh" else "lstm", 2, bidirectional=True, proj_size=proj, lengths=LENGTHS)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    if kind == "Zoneout":
        wrapper: Any = srnn.Zoneout(layer, 0.3, 0.0 if cell == "tanh" else 0.5, rng=rng)
    else:
        wrapper = srnn.WeightDrop(layer, 0.5, rng=rng)
    trace = wrapper.forward(problem.x, pair(problem.state), problem.lengths, training)
    check_by_linearity(wrapper, trace, problem)


def test_without_a_batch_there_is_one_sample(rng: np.random.Generator) -> None:
    layer = srnn.RNN(INPUTS, HIDDEN, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((STEPS, INPUTS)), rng.standard_normal((STEPS, HIDDEN))
    grads = srnn.bptt.full(layer, x, d_output, per_sample=True)
    assert grads.per_sample is not None
    for name, d in grads.parameters.items():
        assert_close(name, grads.per_sample[name], d[None], rel=EXACT)


def test_a_batch_of_none(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(INPUTS, HIDDEN, proj_size=2, dtype=np.float64, rng=rng)
    grads = srnn.bptt.full(layer, np.zeros((STEPS, 0, INPUTS)), per_sample=True)
    assert grads.per_sample is not None
    assert {name: d.shape for name, d in grads.per_sample.items()} == {
        name: (0, *w.shape) for name, w in layer.parameters.items()
    }


def test_full_passes_it_on(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(INPUTS, HIDDEN, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((STEPS, BATCH, INPUTS)), rng.standard_normal((STEPS, BATCH, HIDDEN))
    want = layer.backward(layer.forward(x, lengths=LENGTHS), d_output, per_sample=True).per_sample
    got = srnn.bptt.full(layer, x, lambda output, start: d_output, lengths=LENGTHS, per_sample=True).per_sample
    assert got is not None
    assert want is not None
    for name, d in want.items():
        assert_close(name, got[name], d, rel=0)
    assert srnn.bptt.full(layer, x, d_output).per_sample is None


@pytest.mark.parametrize("keep", ["full", "minimal"])
def test_nan_stays_in_its_own_sample(keep: str, rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, lengths=LENGTHS)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    _, want = run(layer, problem, keep, per_sample=True)
    problem.x[:, 1] = np.nan
    _, got = run(layer, problem, keep, per_sample=True)
    others = [b for b in range(BATCH) if b != 1]
    for name, d in want.per_sample.items():
        assert np.isnan(got.per_sample[name][1]).any()
        assert_close(name, got.per_sample[name][others], d[others], rel=EXACT)


@pytest.mark.parametrize("keep", ["full", "minimal"])
def test_an_infinite_last_state_is_read_by_no_step(
    keep: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scratchrnn.layers import direction

    monkeypatch.setattr(direction, "segments", lambda *_: [slice(0, 2), slice(2, 3)])
    layer = srnn.RNN(1, 1, nonlinearity="relu", bias=False, rng=rng)
    layer.weight_ih_l0[...] = 10.0
    x = np.ones((3, 2, 1), np.float32)
    x[1, 0] = 1e38  # the last step of its sequence: h_2 = inf
    trace = layer.forward(x, lengths=[2, 3], trace=keep)
    assert np.isinf(trace.h[2, 0, 0])
    d_output = np.ones((3, 2, 1), np.float32)
    d_output[:2, 0] = 0.01
    grads = layer.backward(trace, d_output, per_sample=True)
    assert grads.per_sample is not None
    for name, d in grads.parameters.items():
        assert np.isfinite(d).all()
        assert_close(name, grads.per_sample[name].sum(axis=0), d, rel=1e-6)
    if keep == "full":
        assert all(np.isfinite(norm).all() for norm in per_sample_norms(trace, grads).values())


@pytest.mark.parametrize("steps", [2, 50])
def test_norms_keep_their_digits_where_steps_cancel(steps: int, rng: np.random.Generator) -> None:
    """The sum over pairs of steps would not: its terms are as large as those of the norm's square without canceling."""
    left, right = rng.standard_normal(9), rng.standard_normal(11)
    small = 2.0**-30
    signs = np.resize([1.0, small - 1.0], steps)
    want = steps / 2 * small * np.linalg.norm(left) * np.linalg.norm(right)
    got = _product_norm(signs[:, None] * left, np.tile(right, (steps, 1)))
    assert abs(got / want - 1) < 1e-5


def test_float32_is_close(rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True, proj_size=4, lengths=LENGTHS, sizes=(60, 5, 3, 6))
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    problem.lengths = (40, 60, 1, 60, 33)
    single = case.layer(rng, np.float32)
    single.load_state_dict({name: w.astype(np.float32) for name, w in layer.parameters.items()})
    layer.load_state_dict({name: w.astype(np.float64) for name, w in single.parameters.items()})
    (_, want), (trace, got) = (
        run(layer, problem, per_sample=True),
        run(single, problem.astype(np.float32), per_sample=True),
    )
    for name, norm in per_sample_norms(trace, got).items():
        assert got.per_sample[name].dtype == np.float32
        assert norm.dtype == np.float64
        for b in range(BATCH):
            assert_close(name, got.per_sample[name][b].astype(np.float64), want.per_sample[name][b], rel=2e-6)
            assert_close(f"norm of {name}", norm[b], np.linalg.norm(want.per_sample[name][b]), rel=2e-6)


def test_bad_input(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(INPUTS, HIDDEN, dtype=np.float64, rng=rng)
    x = rng.standard_normal((STEPS, BATCH, INPUTS))
    trace = layer.forward(x)
    with pytest.raises(TypeError, match="per_sample: expected"):
        layer.backward(trace, per_sample=1)  # type: ignore[arg-type]
    minimal = layer.forward(x, trace="minimal")
    with pytest.raises(ValueError, match="got a minimal one"):
        per_sample_norms(minimal, layer.backward(minimal, per_sample=True))
    with pytest.raises(TypeError, match="grads: expected what backward of this trace returned"):
        per_sample_norms(trace, trace)  # type: ignore[arg-type]
    for wrapper in (srnn.WeightDrop(layer, 0.5, rng=rng), srnn.Zoneout(layer, 0.5, rng=rng)):
        wrapped = wrapper.forward(x)
        with pytest.raises(TypeError, match="trace: expected what forward of an RNN or LSTM returned"):
            per_sample_norms(wrapped, wrapper.backward(wrapped, np.ones((STEPS, BATCH, HIDDEN))))


@pytest.mark.filterwarnings("ignore::UserWarning")  # torch's, of how slowly it goes about it
def test_vmap_of_grad_agrees(rng: np.random.Generator) -> None:
    case = Case("lstm", 2, bidirectional=True)
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    problem.d_state = tuple(np.zeros_like(d) for d in problem.d_state)
    module = case.module(layer, np.float64)

    def loss(weights: Any, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, d_output: torch.Tensor) -> torch.Tensor:
        output, _ = torch.func.functional_call(module, weights, (x[:, None], (h[:, None], c[:, None])))
        return (output * d_output[:, None]).sum()

    weights = {name: p.detach() for name, p in module.named_parameters()}
    arrays = (torch.tensor(a) for a in (problem.x, *problem.state, problem.d_output))
    each = torch.func.vmap(torch.func.grad(loss), (None, 1, 1, 1, 1))(weights, *arrays)
    _, grads = run(layer, problem, per_sample=True)
    for name, d in each.items():
        assert_close(name, grads.per_sample[name], d.numpy(), rel=EXACT)


def test_a_long_sum_of_a_bias_keeps_its_digits() -> None:
    """In float32 one after the other, 100,000 steps would lose four of seven digits."""
    da = np.full((100_000, 2, 3), 0.1, np.float32)
    each = PerSample()
    each.add({"bias_ih": da[:, :, :1]}, da, da, np.full(2, len(da)))
    np.testing.assert_allclose(each.sums["bias_ih"], len(da) * np.float64(np.float32(0.1)), rtol=1e-7)
