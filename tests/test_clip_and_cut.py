"""A clip of dL/da_t and a cut between two steps, inside backward: against torch's autograd through an unrolled loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.kernels.cpu import plan
from scratchrnn.layers.direction import between_cuts
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests.problems import BATCH, LENGTHS, PROJ, STEPS, Case, Problem, by_us, draw
from tests.unrolled import by_unrolled

FORMS = ("tanh", "relu", "lstm", "projected")


def of_form(form: str, **options: Any) -> Case:
    return Case("lstm", proj_size=PROJ, **options) if form == "projected" else Case(form, **options)


CASES = [
    of_form(form, num_layers=layers, bidirectional=both, lengths=lengths)
    for form, layers, both, lengths in itertools.product(FORMS, (1, 2, 3), (False, True), (None, LENGTHS))
]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
forms = pytest.mark.parametrize("form", FORMS)


@pytest.fixture
def threads_as_before() -> Iterator[None]:
    before = srnn.get_num_threads()
    yield
    srnn.set_num_threads(before)


def make(case: Case, rng: np.random.Generator, dtype: Any) -> Any:
    """A layer; a relu's units are nearly all on, so that a gradient worth a clip reaches everything."""
    layer = case.layer(rng, dtype)
    if case.cell == "relu":
        for w in layer.parameters.values():
            w[...] = 2 * np.abs(w)
    return layer


def draw_cut(rng: np.random.Generator) -> np.ndarray:
    """Nowhere for one sample, at the first and at the last step for others, and some anywhere."""
    cut = rng.random((STEPS, BATCH)) < 0.25
    cut[:, 1] = False
    cut[0, 0] = cut[STEPS - 1, 3] = cut[2, 4] = True
    return cut


def bounds(layer: Any, p: Problem) -> tuple[float, float]:
    """A clip that acts on most elements, and one that acts on none."""
    trace = layer.forward(p.x, p.state if len(p.state) == 2 else p.state[0], p.lengths)
    grads = layer.backward(trace, p.d_output, p.d_state if len(p.d_state) == 2 else p.d_state[0])
    sizes = np.concatenate([np.abs(part.a).ravel() for part in grads.layers.values()])
    return float(np.float32(np.quantile(sizes[sizes > 0], 0.02))), float(np.float32(2 * sizes.max()))


def settings(layer: Any, p: Problem, rng: np.random.Generator) -> list[dict[str, Any]]:
    small, large = bounds(layer, p)
    cut = draw_cut(rng)
    return [{"clip": small}, {"clip": large}, {"cut": cut}, {"clip": small, "cut": cut}]


def a_third_or_nothing(clip: float | None, small: float, share: float) -> bool:
    return share >= 1 / 3 if clip == small else share == 0


def amplification(layer: Any, case: Case, p: Problem, option: dict[str, Any], name: str, truth: np.ndarray) -> float:
    """How far a quantity moves when every weight and input is rounded once, in units of float32's eps."""
    rng, half = np.random.default_rng(0), 2.0**-24
    moved = []
    for _ in range(4):
        other = case.layer(rng, np.float64)
        for key, w in layer.parameters.items():
            other.parameters[key][...] = w * (1 + half * rng.choice([-1, 1], w.shape))
        x, d_output = (v * (1 + half * rng.choice([-1, 1], v.shape)) for v in (p.x, p.d_output))
        state, d_state = (
            tuple(v * (1 + half * rng.choice([-1, 1], v.shape)) for v in group) for group in (p.state, p.d_state)
        )
        found, _ = by_unrolled(other, case, Problem(x, state, d_output, d_state, p.lengths), np.float64, **option)
        moved.append(difference(found[name], truth).rms_ratio)
    return max(moved) / 2.0**-23


# --- the numbers


@pytest.mark.parametrize("case", CASES, ids=str)
def test_float64_equals_torch(case: Case, rng: np.random.Generator, each_backend: str) -> None:
    layer, p = make(case, rng, np.float64), draw(case, rng)
    plain = by_us(layer, p)
    options = settings(layer, p, rng)
    for option in options:
        want, share = by_unrolled(layer, case, p, np.float64, **option)
        got = by_us(layer, p, **option)
        for name, value in want.items():
            assert_close(f"{case} {list(option)} {name}", got[name], value, rel=TOLERANCE["float64"])
        assert a_third_or_nothing(option.get("clip"), options[0]["clip"], share), share
        if option == options[1]:
            assert all(got[name].tobytes() == plain[name].tobytes() for name in plain), "a clip that never acts"
        else:
            assert difference(got["dx"], plain["dx"]).ratio > 1e-3


def test_float32_error_is_at_most_twice_torchs(rng: np.random.Generator, each_backend: str) -> None:
    for case in CASES:
        if case.num_layers != 2:
            continue
        layer, p = make(case, rng, np.float32), draw(case, rng)
        p32 = p.astype(np.float32)
        for option in settings(layer, p32, rng):
            truth, _ = by_unrolled(layer, case, p, np.float64, **option)
            torchs, _ = by_unrolled(layer, case, p, np.float32, **option)
            ours = by_us(layer, p32, **option)
            for name, value in truth.items():
                assert ours[name].dtype == np.float32
                mine, its = difference(ours[name], value), difference(torchs[name], value)
                allowed = max(TOLERANCE["float32_growth"] * its.rms_ratio, TOLERANCE["float32_floor"])
                if mine.rms_ratio > allowed:  # sums of many equal sizes cancel: as in scratchrnn.check
                    allowed *= max(1.0, amplification(layer, case, p, option, name, value))
                assert mine.rms_ratio <= allowed, f"{case} {list(option)} {name}: ours {mine}, torch {its}"


@pytest.mark.parametrize("batched", [True, False], ids=["batch", "no batch"])
@forms
def test_every_layout(form: str, batched: bool, rng: np.random.Generator, each_backend: str) -> None:
    sizes = (STEPS, BATCH if batched else 1, 3, 6)
    plain = of_form(form, num_layers=2, bidirectional=True, sizes=sizes)
    other = replace(plain, batch_first=batched, batched=batched)
    layer, p = make(plain, rng, np.float64), draw(plain, rng)
    turned = make(other, rng, np.float64)
    turned.load_state_dict(layer.state_dict())
    cut, clip = draw_cut(rng)[:, : sizes[1]], bounds(layer, p)[0]

    def turn(array: np.ndarray) -> np.ndarray:
        return array.swapaxes(0, 1) if batched else array[:, 0]

    squeezed = tuple(tuple(s if batched else s[:, 0] for s in group) for group in (p.state, p.d_state))
    moved = Problem(turn(p.x), squeezed[0], turn(p.d_output), squeezed[1])
    want, got = by_us(layer, p, clip=clip, cut=cut), by_us(turned, moved, clip=clip, cut=turn(cut))
    for name, value in want.items():
        value = turn(value) if name in ("output", "dx") else value if batched or "_l" in name else value[:, 0]
        assert_close(name, got[name], value, rel=0)


@forms
def test_windows_that_share_nothing(form: str, rng: np.random.Generator, each_backend: str) -> None:
    """All samples cut every three steps: as if each window were a sequence of its own that starts from a constant."""
    case = of_form(form, num_layers=3)
    layer, p = make(case, rng, np.float64), draw(case, rng)
    clip = bounds(layer, p)[0]
    cut = np.zeros((STEPS, BATCH), bool)
    cut[::3] = True
    got = srnn.bptt.full(layer, p.x, p.d_output, clip=clip, cut=cut)
    total, dx, state = {name: np.zeros_like(w) for name, w in layer.parameters.items()}, [], None
    for start in range(0, STEPS, 3):
        part = slice(start, start + 3)
        trace = layer.forward(p.x[part], state)
        grads = layer.backward(trace, p.d_output[part], clip=clip)
        state = trace.state
        dx.append(grads.input)
        for name, gradient in grads.parameters.items():
            total[name] += gradient
    assert_close("dx", got.input, np.concatenate(dx), rel=TOLERANCE["float64"])
    for name, want in total.items():
        assert_close(name, got.parameters[name], want, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one", "both"])
@forms
def test_what_a_cut_leaves(form: str, bidirectional: bool, rng: np.random.Generator, each_backend: str) -> None:
    case = of_form(form, num_layers=2, bidirectional=bidirectional)
    layer, p = make(case, rng, np.float64), draw(case, rng)
    d_state = p.d_state if case.cell == "lstm" else p.d_state[0]
    trace = layer.forward(p.x, lengths=LENGTHS)
    own_first = np.zeros((STEPS, BATCH), bool)  # of samples 1 and 2, the step that is the first of work
    own_first[0, 1] = own_first[0, 2] = True
    states = layer.backward(trace, p.d_output, d_state, cut=own_first).state
    for d in states if case.cell == "lstm" else (states,):
        for row in range(len(d)):
            reads_last_first = bidirectional and row % 2 == 1
            assert not d[row, 2].any(), "its only step"
            assert d[row, 1].any() == reads_last_first
            assert d[row, [0, 3, 4]].any(axis=1).all()
    everywhere = layer.backward(trace, p.d_output, d_state, cut=np.ones((STEPS, BATCH), bool))
    d_h = everywhere[1].h  # of the top layer, sample 0 of which ends at step 4 with a gradient of its own
    assert_close("dh", d_h[1:4, 0], p.d_output[:3, 0, : layer.output_size], rel=0)
    assert not d_h[0].any()


@dtypes
def test_sizes_stay_within_the_clip(dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    """Whatever of 0.1 there is in each dtype; and bounds beyond float32's numbers."""
    layer = srnn.LSTM(3, 21, dtype=dtype, rng=rng)
    x = rng.standard_normal((9, 4, 3)).astype(dtype)
    trace = layer.forward(x)
    d_output = 1e3 * rng.standard_normal(trace.output.shape).astype(dtype)
    for clip in (0.1, np.float32(0.1), 1):
        assert np.abs(layer.backward(trace, d_output, clip=clip).a).max() == dtype(clip)
    want = layer.backward(trace, d_output)
    for clip in (None, math.inf, 1e300, 1e39):
        assert layer.backward(trace, d_output, clip=clip).input.tobytes() == want.input.tobytes()


@dtypes
@forms
def test_nan_and_inf_pass(form: str, dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    """A nan in dL/da stays one, an infinity becomes the bound; both as torch's clamp has it."""
    case = of_form(form)
    layer, p = make(case, rng, dtype), draw(case, rng).astype(dtype)
    p.d_output[6, 0], p.d_output[3, 1, 0], p.d_output[4, 2, 2] = np.nan, np.inf, -np.inf
    with np.errstate(all="raise"):
        got = by_us(layer, p, clip=0.25)
    want, _ = by_unrolled(layer, case, p, np.float64, clip=0.25)
    assert np.isnan(want["dx"][:, 0]).all()
    assert np.isfinite(want["dx"][4:, 1:]).all()
    for name, value in want.items():
        np.testing.assert_array_equal(np.isnan(got[name]), np.isnan(value), err_msg=name)
        finite = np.isfinite(value)
        if finite.any() and dtype is np.float64:  # rounding in float32 is judged where all is finite, above
            assert_close(name, got[name][finite], value[finite], rel=TOLERANCE["float64"])


# --- the bits


LONG, MANY = 61, 9  # blocks of 14 steps
ENDS = np.array([61, 14, 28, 1, 33, 60, 15, 43, 2])


def long_problem(form: str, rng: np.random.Generator, **options: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    if form in ("tanh", "relu"):
        layer: Any = srnn.RNN(3, 40, 2, nonlinearity=form, rng=rng, **options)
    else:
        layer = srnn.LSTM(3, 40, 2, proj_size=PROJ if form == "projected" else 0, rng=rng, **options)
    x = rng.standard_normal((LONG, MANY, 3)).astype(layer.dtype)
    d_output = rng.standard_normal((LONG, MANY, layer.num_directions * layer.output_size)).astype(layer.dtype)
    return layer, x, d_output


def same(got: srnn.Gradients, want: srnn.Gradients) -> None:
    assert got.input.tobytes() == want.input.tobytes()
    states = [g.state if isinstance(g.state, tuple) else (g.state,) for g in (got, want)]
    assert [s.tobytes() for s in states[0]] == [s.tobytes() for s in states[1]]
    for name, gradient in want.parameters.items():
        assert got.parameters[name].tobytes() == gradient.tobytes(), name


@dtypes
@forms
def test_a_minimal_trace_and_threads_change_nothing(
    form: str, dtype: Any, rng: np.random.Generator, each_backend: str, threads_as_before: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    layer, x, d_output = long_problem(form, rng, dtype=dtype, bidirectional=True)
    cut = rng.random((LONG, MANY)) < 0.01
    for options in ({"clip": 0.05}, {"cut": cut}, {"clip": 0.05, "cut": cut}):
        srnn.set_num_threads(1)
        want = layer.backward(layer.forward(x, lengths=ENDS), d_output, **options)
        for count, kind in itertools.product((1, 2, 4) if each_backend == "numba" else (1,), ("full", "minimal")):
            srnn.set_num_threads(count)
            same(layer.backward(layer.forward(x, lengths=ENDS, trace=kind), d_output, **options), want)


@dtypes
@forms
def test_cuts_between_blocks_leave_the_sums_of_one_call(
    form: str, dtype: Any, rng: np.random.Generator, each_backend: str
) -> None:
    if each_backend == "cuda":
        pytest.skip("its sums are no module of their own, and its blocks are longer: tests/cuda has the like")
    layer, x, d_output = long_problem(form, rng, dtype=dtype)
    block = backends.block_steps(MANY)
    cut = np.zeros((LONG, MANY), bool)
    cut[block, [0, 5]] = cut[3 * block, 7] = True
    affine = backends.load(each_backend).rnn.affine
    trace = layer.forward(x, lengths=ENDS)
    grads = layer.backward(trace, d_output, cut=cut)
    for n in range(2):
        part, da = trace[n], grads[n].a
        w = {name: layer.parameters[f"{name}_l{n}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
        dx, dw = np.empty_like(part.input), {name: np.zeros_like(value) for name, value in w.items()}
        affine.backward(da, part.input, part.h, w["weight_ih"], ENDS, dx, *dw.values())
        for name, want in dw.items():
            assert grads.parameters[f"{name}_l{n}"].tobytes() == want.tobytes(), name
    plain = layer.backward(trace, d_output)
    assert plain.parameters["weight_hh_l0"].tobytes() != grads.parameters["weight_hh_l0"].tobytes()


@forms
def test_a_cut_of_nothing_changes_nothing(form: str, rng: np.random.Generator, each_backend: str) -> None:
    layer, x, d_output = long_problem(form, rng, bidirectional=True)
    trace = layer.forward(x, lengths=ENDS)
    want = layer.backward(trace, d_output)
    same(layer.backward(trace, d_output, cut=np.zeros((LONG, MANY), bool)), want)
    same(layer.backward(trace, d_output, cut=np.arange(LONG)[:, None] >= ENDS), want)


def test_pieces() -> None:
    cut = np.zeros((61, 9), bool)  # blocks of 14
    cut[[0, 3, 28, 30, 41, 60], [0, 1, 2, 3, 4, 5]] = True
    edges = [0, 3, 14, 28, 30, 41, 42, 60, 61]
    assert [p.start for p in between_cuts(slice(0, 61), cut, "numpy")] == edges[:-1]
    assert [p.stop for p in between_cuts(slice(0, 61), cut, "numpy")] == edges[1:]
    assert between_cuts(slice(14, 28), cut, "numpy") == [slice(14, 28)]
    assert [p.start for p in between_cuts(slice(0, 61), cut, "cuda")] == [0, 3, 28, 30, 41, 60]  # all in one block


def test_one_compilation_for_every_clip(rng: np.random.Generator) -> None:
    from scratchrnn.kernels.cpu import lstm_loops, rnn_loops

    for layer, loops in ((srnn.RNN(2, 3, rng=rng), rnn_loops), (srnn.LSTM(2, 3, rng=rng), lstm_loops)):
        trace = layer.forward(np.ones((4, 2, 2), np.float32))
        layer.backward(trace, np.ones_like(trace.output))
        before = list(loops.backward_part.dispatcher().signatures)
        for clip in (1, 0.5, np.float32(0.25), np.float64(2), None):
            layer.backward(trace, np.ones_like(trace.output), clip=clip)
        assert loops.backward_part.dispatcher().signatures == before


# --- what is refused


def test_bad_arguments(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, rng=rng, batch_first=True)
    trace, alone = layer.forward(np.ones((5, 7, 3), np.float32)), layer.forward(np.ones((7, 3), np.float32))
    for clip, kind, message in (
        (0, ValueError, "clip: expected a finite number above 0; got 0"),
        (-1.0, ValueError, r"clip: expected a finite number above 0; got -1\.0"),
        (math.nan, ValueError, "clip: expected a finite number above 0; got nan"),
        (True, TypeError, "clip: expected a number; got bool True"),
        ("1", TypeError, "clip: expected a number; got str '1'"),
        (np.ones(3), TypeError, "clip: expected a number; got an array"),
        (1e-60, ValueError, "clip: expected a number above 0 in float32; got 1e-60"),
    ):
        with pytest.raises(kind, match=message):
            layer.backward(trace, clip=clip)
    for which, cut, kind, message in (
        (trace, np.ones((7, 5), bool), ValueError, r"cut: expected shape \(5, 7\) of the trace.*; got \(7, 5\)"),
        (trace, np.ones(7, bool), ValueError, r"cut: expected shape \(5, 7\) of the trace.*; got \(7,\)"),
        (alone, np.ones((7, 1), bool), ValueError, r"cut: expected shape \(7,\) of the trace.*; got \(7, 1\)"),
        (trace, np.ones((5, 7)), TypeError, r"cut: expected a NumPy array of bool; got an array .* dtype float64"),
        (trace, np.ma.ones((5, 7), bool), TypeError, "cut: expected a NumPy array of bool; got a masked array"),
        (trace, [[True] * 7] * 5, TypeError, "cut: expected a NumPy array of bool; got list"),
    ):
        with pytest.raises(kind, match=message):
            layer.backward(which, cut=cut)
    for function in (srnn.bptt.full, srnn.bptt.checkpointed):
        with pytest.raises(ValueError, match="clip: expected a finite number above 0; got -1"):
            function(layer, np.ones((5, 7, 3), np.float32), clip=-1)
        assert function(layer, np.ones((5, 7, 3), np.float32), clip=1e300).input is not None
