"""RNN and LSTM against torch.nn: every combination of options, every output, state and gradient."""

from __future__ import annotations

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests.problems import Case, by_torch, by_us, draw, grid, inferred

# torch says once per process that its float32 projection takes the slower path
pytestmark = [
    pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning"),
    pytest.mark.usefixtures("each_backend"),
]

ABSENT = [
    frozenset(a) for a in ({"d_output"}, {"d_h_n"}, {"d_c_n"}, {"d_h_n", "d_c_n"}, {"d_output", "d_h_n"}, {"state"})
]
EDGES = [
    Case(cell, layers, both, proj, sizes=sizes)
    for cell in ("tanh", "relu", "lstm")
    for layers, both in ((1, False), (2, True))
    for sizes in ((1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 2), (6, 2, 1, 17))
    for proj in ((0, 1) if cell == "lstm" else (0,))
]


def compare(case: Case, rng: np.random.Generator, absent: frozenset[str] = frozenset()) -> None:
    layer = case.layer(rng, np.float64)
    problem = draw(case, rng, absent)
    want = by_torch(case.module(layer, np.float64), case, problem)
    got = by_us(layer, problem)
    assert got.keys() == want.keys()
    for name in want:
        assert_close(f"{case} {name}", got[name], want[name], rel=TOLERANCE["float64"])
    for name, value in inferred(layer, problem).items():
        assert_close(f"{case} inferred {name}", value, want[name], rel=TOLERANCE["float64"])


@pytest.mark.parametrize("case", grid(), ids=str)
def test_float64_equals_torch(case: Case, rng: np.random.Generator) -> None:
    compare(case, rng)


@pytest.mark.parametrize("case", EDGES, ids=lambda case: f"{case}-{case.sizes}")
def test_smallest_sizes(case: Case, rng: np.random.Generator) -> None:
    compare(case, rng)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("absent", [frozenset(), frozenset({"state"})], ids=["state", "no-state"])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_without_a_batch(cell: str, absent: frozenset[str], batch_first: bool, rng: np.random.Generator) -> None:
    compare(Case(cell, 2, bidirectional=True, batch_first=batch_first, sizes=(7, 1, 3, 6), batched=False), rng, absent)


@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: "+".join(sorted(absent)))
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_absent_cotangents_and_state(cell: str, absent: frozenset[str], rng: np.random.Generator) -> None:
    """deeplearning4j#8838 ignored the final cell's gradient, chainer#8037 broke on omitted ones."""
    for lengths in (None, (4, 7, 1, 7, 3)):
        compare(Case(cell, 3, bidirectional=True, lengths=lengths), rng, absent)


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("sizes", [(7, 5, 3, 6), (33, 9, 7, 21)], ids=str)
def test_float32_error_is_at_most_twice_torchs(sizes: tuple[int, int, int, int], ragged: bool) -> None:
    ratios = []
    for case in grid():
        if case.batch_first or (case.lengths is not None) != ragged:
            continue
        lengths = tuple(int(n) for n in np.linspace(1, sizes[0], sizes[1])) if ragged else None
        case = Case(case.cell, case.num_layers, case.bidirectional, case.proj_size, case.bias, False, lengths, sizes)
        rng = np.random.default_rng([*sizes, ragged])
        layer = case.layer(rng, np.float32)
        problem = draw(case, rng)
        truth = by_torch(case.module(layer, np.float64), case, problem)
        torchs = by_torch(case.module(layer, np.float32), case, problem.astype(np.float32))
        ours = by_us(layer, problem.astype(np.float32))
        for name in truth:
            assert ours[name].dtype == np.float32
            mine, its = difference(ours[name], truth[name]), difference(torchs[name], truth[name])
            # of the rms: which is the largest of thousands of rounding errors is luck
            allowed = max(TOLERANCE["float32_growth"] * its.rms_ratio, TOLERANCE["float32_floor"])
            assert mine.rms_ratio <= allowed, f"{case} {name}: ours {mine}, torch {its}"
            ratios.append(mine.rms_ratio / max(its.rms_ratio, 2.0**-26))
    assert len(ratios) > 500
    assert np.median(ratios) <= 1.05  # measured 0.83 to 0.95


def test_training_and_inference_mode_give_the_same_gradients(rng: np.random.Generator) -> None:
    """cuDNN refuses backward in inference mode (pytorch#5878 and many after it)."""
    case = Case("lstm", 3, bidirectional=True, lengths=(4, 7, 1, 7, 3))
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    module = case.module(layer, np.float64)
    module.dropout = 0.5
    dropping = srnn.LSTM(3, 6, 3, bidirectional=True, dropout=0.5, dtype=np.float64, rng=rng)
    dropping.load_state_dict(layer.state_dict())
    want = by_torch(module.eval(), case, problem)
    got = by_us(dropping, problem, training=False)
    for name in want:
        assert_close(name, got[name], want[name], rel=TOLERANCE["float64"])
    assert difference(by_us(dropping, problem, training=True)["output"], want["output"]).ratio > 0.1
