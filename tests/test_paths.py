"""The split of a gradient by path, and the product of forget gates: against torch's autograd in float64."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow import forget_product, split_paths
from scratchrnn.testing import TOLERANCE, assert_close, difference
from scratchrnn.trace import Trace
from tests.problems import BATCH, LENGTHS, PROJ, STEPS, Case, Problem, draw
from tests.stepwise import Cotangents, Reference

REL = TOLERANCE["float64"]
CASES = [
    *(Case("lstm", num_layers=layers, proj_size=proj) for layers in (1, 2) for proj in (0, PROJ)),
    Case("lstm", 3, lengths=LENGTHS),
    Case("lstm", 2, proj_size=PROJ, lengths=LENGTHS, bias=False),
    *(Case("lstm", 2, sizes=sizes) for sizes in ((1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 1))),
]
ABSENT = [frozenset(a) for a in ((), {"d_output"}, {"d_h_n"}, {"d_c_n"}, {"d_h_n", "d_c_n"}, {"d_output", "d_h_n"})]


def cotangents(p: Problem) -> Cotangents:
    d_state = tuple(None if n in p.absent else d for n, d in zip(("d_h_n", "d_c_n"), p.d_state, strict=True))
    return Cotangents(None if "d_output" in p.absent else p.d_output, d_state)


def d_cells(layer: srnn.LSTM, p: Problem, trace: Trace, **flow: Any) -> np.ndarray:
    """dL/dc_t (L, T+1, B, H) by torch: gates that read h.detach() leave the cell path."""
    steps, batch = p.x.shape[:2]
    lengths = list(p.lengths or [steps] * batch)
    reference = Reference(layer, p.x, p.state, lengths, dropout=trace.dropout_masks, **flow)
    cotangents(p).backward(reference)
    found = np.zeros((layer.num_layers, steps + 1, batch, layer.hidden_size))
    for n in range(layer.num_layers):
        d_c_0 = reference.state_leaves[1].grad
        found[n, 0] = 0 if d_c_0 is None else d_c_0[n]
        for b, length in enumerate(reference.lengths):
            for t in range(length):
                grad = reference.steps[(n, "forward"), b][t]["c"].grad
                found[n, t + 1, b] = 0 if grad is None else grad
    return found


def check_split(layer: srnn.LSTM, p: Problem, trace: Trace, name: str) -> None:
    given = cotangents(p)
    paths = split_paths(layer, trace, given.d_output, given.given())
    want = d_cells(layer, p, trace)
    want_c = d_cells(layer, p, trace, detach_h=np.ones(p.x.shape[:2], bool))
    assert_close(f"{name} c path", paths.c_path, want_c, rel=REL)
    assert_close(f"{name} total", paths.total, want, rel=REL)
    assert_close(f"{name} through h", paths.through_h, want - want_c, rel=REL)
    grads = layer.backward(trace, given.d_output, given.given())
    assert_close(f"{name} engine's", paths.total, np.stack([grads[n].c for n in range(layer.num_layers)]), rel=REL)
    if len(p.x) > 1 and "d_output" not in p.absent:
        assert np.abs(paths.through_h).max() / np.abs(paths.total).max() > 1e-3


# --- the split


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case}-{case.sizes}")
def test_equals_torch(case: Case, rng: np.random.Generator, each_backend: str) -> None:
    layer: Any = case.layer(rng, np.float64)
    for w in layer.parameters.values():
        w *= 2  # so that what goes through h weighs
    for absent in ABSENT:
        p = draw(case, rng, absent)
        check_split(layer, p, layer.forward(p.x, p.state, p.lengths), f"{case} without {set(absent)}")


def test_with_dropout_between_layers(rng: np.random.Generator, each_backend: str) -> None:
    case = Case("lstm", 3, lengths=LENGTHS)
    layer = srnn.LSTM(3, 6, 3, dropout=0.4, dtype=np.float64, rng=rng)
    p = draw(case, rng)
    trace = layer.forward(p.x, p.state, p.lengths)
    assert all(mask is not None for mask in trace.dropout_masks)
    check_split(layer, p, trace, "dropout")


@pytest.mark.parametrize("batched", [True, False], ids=["batch first", "no batch"])
def test_every_layout(batched: bool, rng: np.random.Generator) -> None:
    plain = Case("lstm", 2, sizes=(STEPS, BATCH if batched else 1, 3, 6))
    layer, p = plain.layer(rng, np.float64), draw(plain, rng)
    other = replace(plain, batch_first=batched, batched=batched).layer(rng, np.float64)
    other.load_state_dict(layer.state_dict())

    def turn(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if batched else array[:, 0]

    d_state: Any = p.d_state if batched else tuple(d[:, 0] for d in p.d_state)
    want = split_paths(layer, layer.forward(p.x), p.d_output, p.d_state)
    got = split_paths(other, other.forward(turn(p.x)), turn(p.d_output), d_state)
    assert_close("c path", got.c_path, want.c_path, rel=0)
    assert_close("through h", got.through_h, want.through_h, rel=0)


def test_a_part_a_billionth_of_the_whole_has_its_digits(rng: np.random.Generator, each_backend: str) -> None:
    """With W_hh = ε W, what goes through h is ε times a constant + O(ε²): a difference would drown it."""
    layer = srnn.LSTM(3, 6, dtype=np.float64, rng=rng)
    x, whole = rng.standard_normal((7, 5, 3)), layer.weight_hh_l0.copy()
    found = []
    for scale in (1e-9, 1e-13):
        layer.weight_hh_l0[:] = scale * whole
        trace = layer.forward(x)
        found.append(split_paths(layer, trace, np.ones_like(trace.output)).through_h / scale)
    assert_close("through h", found[1], found[0], rel=1e-8)


def test_float32(rng: np.random.Generator, each_backend: str) -> None:
    case = Case("lstm", 2, lengths=LENGTHS)
    layer, p = case.layer(rng, np.float32), draw(case, rng)
    other = case.layer(rng, np.float64)
    other.load_state_dict({name: w.astype(np.float64) for name, w in layer.parameters.items()})
    p32 = p.astype(np.float32)
    got = split_paths(layer, layer.forward(p32.x, p32.state, LENGTHS), p32.d_output)  # type: ignore[arg-type]
    want = split_paths(other, other.forward(p.x, p.state, LENGTHS), p.d_output)  # type: ignore[arg-type]
    for name in ("c_path", "through_h", "total"):
        assert getattr(got, name).dtype == np.float32
        assert difference(getattr(got, name), getattr(want, name)).ratio < 32 * 2.0**-23


def test_by_distance(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, 2, dtype=np.float64, rng=rng)
    trace = layer.forward(rng.standard_normal((STEPS, BATCH, 3)), lengths=LENGTHS)
    d_last = rng.standard_normal((BATCH, 6))
    d_h_n = np.stack([np.zeros_like(d_last), d_last])
    paths = split_paths(layer, trace, d_state=(d_h_n, None))  # type: ignore[arg-type]
    found, total = paths.by_distance(), srnn.gradflow.gradient_by_distance(layer, trace, d_last)
    assert_close("total", found.total, total.c, rel=REL)
    assert found.count.tolist() == total.count.tolist()
    for name in ("c_path", "through_h"):
        d = getattr(paths, name)
        for n, k in ((0, 0), (0, 3), (1, 2), (1, 6)):
            norms = [np.linalg.norm(d[n, end - k, b]) for b, end in enumerate(LENGTHS) if end > k]
            assert_close(f"{name} {n} {k}", getattr(found, name)[n, k], np.median(norms), rel=REL)
    assert not found.through_h[:, 0].any(), "at the last step nothing has gone through h yet"
    assert found.c_path[0, 0] > 0


def test_without_recurrent_weights_there_is_one_path(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, 2, dtype=np.float64, rng=rng)
    layer.weight_hh_l0[:] = layer.weight_hh_l1[:] = 0
    trace = layer.forward(rng.standard_normal((STEPS, BATCH, 3)))
    paths = split_paths(layer, trace, np.ones_like(trace.output))
    assert not paths.through_h.any()
    found = forget_product(trace)
    assert_close("ratio", found.ratio, np.ones_like(found.ratio), rel=REL)


# --- the product of forget gates


def run(
    layer: srnn.LSTM, n: int, x: torch.Tensor, before: torch.Tensor, c: torch.Tensor, initial: bool
) -> torch.Tensor:
    """c of layer n after it has read x (k, ·), from torch.nn's equations.

    `before` is the h beside c where both are the initial state, else the output gate of the step that made c.
    """
    w = {name.removesuffix(f"_l{n}"): torch.tensor(value) for name, value in layer.parameters.items()}
    h = before if initial else before * c.tanh()
    if not initial and "weight_hr" in w:
        h = w["weight_hr"] @ h
    for x_t in x:
        a = w["weight_ih"] @ x_t + w["weight_hh"] @ h + w["bias_ih"] + w["bias_hh"]
        i, f, g, o = a.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        h = w["weight_hr"] @ h if "weight_hr" in w else h
    return c


@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("proj", [0, PROJ])
def test_both_norms_are_torchs(proj: int, lengths: Any, rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, 2, dropout=0.3, proj_size=proj, dtype=np.float64, rng=rng)
    for w in layer.parameters.values():
        w *= 2
    trace = layer.forward(rng.standard_normal((STEPS, BATCH, 3)), lengths=lengths)
    found, short = forget_product(trace), forget_product(trace, max_lag=3)
    ends = lengths or [STEPS] * BATCH
    assert found.truth.shape == (2, STEPS + 1)
    assert found.count.tolist() == [sum(end >= k for end in ends) for k in range(STEPS + 1)]
    for n in range(2):
        for k in range(STEPS + 1):
            truths, products = [], []
            for b, end in enumerate(ends):
                if end < k:
                    continue
                part, at = trace[n], end - k
                before = part.h[0, b] if at == 0 else part.o[at - 1, b]
                read, known, c = (torch.tensor(v) for v in (part.input[at:end, b], before, part.c[at, b]))
                end_of: Any = partial(run, layer, n, read, known, initial=at == 0)
                jacobian: Any = torch.autograd.functional.jacobian(end_of, c)
                truths.append(np.linalg.norm(jacobian.numpy()))
                products.append(np.linalg.norm(np.diag(part.f[at:end, b].prod(axis=0))))
            assert_close(f"truth {n} {k}", found.truth[n, k], np.median(truths), rel=REL)
            assert_close(f"product {n} {k}", found.product[n, k], np.median(products), rel=REL)
    assert_close("ratio", found.ratio, found.truth / found.product, rel=0)
    for name in ("truth", "product", "count"):
        np.testing.assert_array_equal(getattr(short, name), getattr(found, name)[..., :4])


@pytest.mark.parametrize("seed", range(3))
def test_how_far_the_product_is_off(seed: int) -> None:
    """At torch's default weights, H = 64: tens of times at lag 20, hundreds and more at lag 40."""

    def ratio(bias: float = 0.0, scale: float = 1.0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        lstm = srnn.LSTM(10, 64, dtype=np.float64, rng=rng)
        if bias:
            srnn.init.forget_bias_(lstm, bias)
        lstm.weight_hh_l0 *= scale
        return forget_product(lstm.forward(rng.standard_normal((50, 4, 10))), max_lag=40).ratio[0]

    default, open_gates, strong = ratio(), ratio(bias=3.0), ratio(scale=4.0)
    assert 10 < default[20] < 50
    assert 200 < default[40] < 3000
    assert 1.2 < open_gates[20] < 3
    assert strong[20] > 100


def test_far_back(rng: np.random.Generator) -> None:
    """Norms below 1e-154, whose squares are zero, are still norms; float32 gates give float64 norms."""
    for dtype in (np.float32, np.float64):
        layer = srnn.LSTM(3, 6, dtype=dtype, rng=rng)
        layer.weight_hh_l0[:] = 0
        srnn.init.forget_bias_(layer, -5.0)
        found = forget_product(layer.forward(rng.standard_normal((100, 2, 3)).astype(dtype)))
        assert found.product.dtype == found.truth.dtype == np.float64
        assert 0 < found.product[0, 100] < 1e-154
        assert_close("truth", found.truth, found.product, rel=REL)
        assert abs(found.truth[0, 100] / found.product[0, 100] - 1) < 1e-10


def test_nan_passes(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, dtype=np.float64, rng=rng)
    x = rng.standard_normal((STEPS, BATCH, 3))
    x[2] = np.nan
    trace = layer.forward(x)
    paths, found = split_paths(layer, trace, np.ones_like(trace.output)), forget_product(trace)
    assert np.isnan(paths.c_path[0, 2:-1]).all()
    assert np.isnan(paths.by_distance().total[0, 0])
    assert np.isnan(found.truth[0, 1:]).all()
    assert found.product[0, 0] == pytest.approx(np.sqrt(6))


# --- what is refused


def test_bad_arguments(rng: np.random.Generator) -> None:
    layer, rnn = srnn.LSTM(3, 6, rng=rng), srnn.RNN(3, 6, rng=rng)
    both = srnn.LSTM(3, 6, bidirectional=True, rng=rng)
    x = np.ones((7, 5, 3), np.float32)
    trace = layer.forward(x)
    for arguments, kind, message in (
        ((rnn, rnn.forward(x)), ValueError, r"layer: expected an LSTM, since an RNN has no cell path; got RNN\("),
        ((both, both.forward(x)), ValueError, "layer: expected one direction; got bidirectional=True"),
        ((srnn.Zoneout(layer, 0.1), trace), TypeError, "layer: expected an RNN or LSTM layer; got Zoneout"),
        ((layer, rnn.forward(x)), ValueError, "trace: expected one of LSTM"),
        ((layer, x), TypeError, "trace: expected what forward of this layer returned; got ndarray"),
        ((layer, layer.forward(x, trace="minimal")), ValueError, "trace: expected one of forward.*; got a minimal one"),
        ((layer, layer.forward(x[:, :0])), ValueError, "trace: expected at least one sequence; got a batch of 0"),
        ((layer, trace, x), ValueError, r"d_output: expected shape \(7, 5, 6\) of the trace's output; got \(7, 5, 3\)"),
        ((layer, trace, None, x), TypeError, r"d_state: expected a pair \(d_h_n, d_c_n\) for an LSTM; got"),
    ):
        with pytest.raises(kind, match=message):
            split_paths(*arguments)  # type: ignore[arg-type]
    for wrong, lag, kind, message in (
        (rnn.forward(x), None, ValueError, "trace: expected one of an LSTM, since an RNN has no forget gates"),
        (both.forward(x), None, ValueError, "trace: expected one direction; got both"),
        (layer, None, TypeError, "trace: expected what forward of an RNN or LSTM returned; got"),
        (trace, 0, ValueError, "max_lag: expected .* 1.*; got 0"),
        (layer.forward(x[:, :0]), None, ValueError, "trace: expected at least one sequence; got a batch of 0"),
    ):
        with pytest.raises(kind, match=message):
            forget_product(wrong, max_lag=lag)  # type: ignore[arg-type]
