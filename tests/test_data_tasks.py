from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scratchrnn.data import (
    ADDING_BASELINE,
    TEMPORAL_ORDER_BASELINE,
    adding_problem,
    copy_memory,
    copy_memory_baseline,
    flip_flop,
    flip_flop_baseline,
    parity,
    parity_baseline,
    temporal_order,
)
from scratchrnn.losses import cross_entropy, mse_loss
from scratchrnn.rng import torch_manual_seed

TASKS = [adding_problem, copy_memory, temporal_order, parity, flip_flop]
MANY = 20_000


def memoryless_loss(inputs: np.ndarray, targets: np.ndarray) -> float:
    """Mean over the steps of H(target | input) in nats, from the frequencies in the batch: what no such net beats."""
    total = 0.0
    for x, y in zip(inputs, targets, strict=True):
        joint = np.zeros((x.max() + 1, y.max() + 1))
        np.add.at(joint, (x, y), 1 / len(x))
        alone = joint.sum(axis=1, keepdims=True)
        rows, columns = np.nonzero(joint)
        total -= (joint[rows, columns] * np.log(joint[rows, columns] / alone[rows, 0])).sum()
    return total / len(inputs)


# --- adding


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("steps", [2, 3, 12, 13])
def test_adding_problem(steps: int, dtype: Any, rng: np.random.Generator) -> None:
    inputs, targets = adding_problem(steps, 400, rng, dtype=dtype)
    assert (inputs.shape, targets.shape) == ((steps, 400, 2), (400, 1))
    assert inputs.dtype == targets.dtype == dtype
    assert inputs.flags.c_contiguous
    assert targets.flags.c_contiguous
    first, second = set(), set()
    for b in range(400):
        marked = [t for t in range(steps) if inputs[t, b, 1] != 0]
        assert [inputs[t, b, 1] for t in marked] == [1, 1]
        assert targets[b, 0] == inputs[marked[0], b, 0] + inputs[marked[1], b, 0]
        first.add(marked[0])
        second.add(marked[1])
    assert first == set(range(steps // 2))  # every step of each half, and none of the other
    assert second == set(range(steps // 2, steps))
    values = inputs[:, :, 0]
    assert 0 <= values.min() < 0.05
    assert 0.95 < values.max() <= 1


def test_adding_baseline_is_the_loss_of_always_answering_one(rng: np.random.Generator) -> None:
    _, targets = adding_problem(6, 40_000, rng, dtype=np.float64)
    # the squared error has variance 1/15 - 1/36, so that its mean has a standard deviation of 0.001
    assert mse_loss(np.ones_like(targets), targets)[0] == pytest.approx(ADDING_BASELINE, abs=0.004)
    for other in (0.9, 1.1):
        assert mse_loss(np.full_like(targets, other), targets)[0] > ADDING_BASELINE + 0.005


def test_both_dtypes_see_one_problem() -> None:
    narrow, wide = (adding_problem(7, 3, np.random.default_rng(5), dtype=dtype) for dtype in (np.float32, np.float64))
    np.testing.assert_array_equal(narrow[0], wide[0].astype(np.float32))


# --- copy memory


@pytest.mark.parametrize("delay", [1, 2, 7])
def test_copy_memory(delay: int, rng: np.random.Generator) -> None:
    inputs, targets = copy_memory(delay, 60, rng)
    assert inputs.shape == targets.shape == (delay + 20, 60)
    assert inputs.dtype == targets.dtype == np.int64
    for b in range(60):
        symbols = inputs[:10, b].tolist()
        assert inputs[:, b].tolist() == symbols + [8] * (delay - 1) + [9] + [8] * 10
        assert targets[:, b].tolist() == [8] * (delay + 10) + symbols
    assert set(inputs[:10].ravel()) == set(range(8))


@pytest.mark.parametrize("delay", [1, 30])
def test_copy_memory_baseline_is_the_loss_of_the_memoryless_net(delay: int, rng: np.random.Generator) -> None:
    inputs, targets = copy_memory(delay, MANY, rng)
    logits = np.full((delay + 20, 1, 10), -1e4)  # impossible
    logits[:-10, :, 8] = logits[-10:, :, :8] = 0
    loss, _ = cross_entropy(np.broadcast_to(logits, (*targets.shape, 10)), targets)
    assert loss == pytest.approx(copy_memory_baseline(delay), rel=1e-12)
    assert memoryless_loss(inputs, targets) == pytest.approx(copy_memory_baseline(delay), rel=1e-3)


def test_copy_memory_baseline_written_out() -> None:
    assert copy_memory_baseline(1000) == pytest.approx(0.020387, abs=5e-7)
    assert copy_memory_baseline(80) == 10 * math.log(8) / 100


# --- temporal order


@pytest.mark.parametrize("steps", [10, 19, 47, 100])
def test_temporal_order(steps: int, rng: np.random.Generator) -> None:
    inputs, targets = temporal_order(steps, 900, rng)
    assert (inputs.shape, targets.shape) == ((steps, 900), (900,))
    assert inputs.dtype == targets.dtype == np.int64
    classes = {"XX": 0, "XY": 1, "YX": 2, "YY": 3}
    first, second = set(), set()
    for b in range(900):
        text = "".join("abcdXYEB"[code] for code in inputs[:, b])
        assert (text[0], text[-1]) == ("E", "B")
        t_1, t_2 = (t for t in range(steps) if text[t] in "XY")
        assert targets[b] == classes[text[t_1] + text[t_2]]
        assert set(text[1:t_1] + text[t_1 + 1 : t_2] + text[t_2 + 1 : -1]) <= set("abcd")
        first.add(t_1)
        second.add(t_2)
    assert first == set(range(steps // 10, 2 * steps // 10 + 1))
    assert second == set(range(5 * steps // 10, 6 * steps // 10 + 1))
    assert set(targets) == {0, 1, 2, 3}
    assert set(inputs.ravel()) == set(range(8))


def test_temporal_order_baseline_is_the_loss_of_a_guess(rng: np.random.Generator) -> None:
    inputs, targets = temporal_order(10, MANY, rng)
    assert memoryless_loss(inputs[-1:], targets[None]) == pytest.approx(TEMPORAL_ORDER_BASELINE, rel=1e-3)
    assert cross_entropy(np.zeros((MANY, 4)), targets)[0] == pytest.approx(TEMPORAL_ORDER_BASELINE, rel=1e-12)
    second = (inputs[5:7] == 5).any(axis=0).astype(int)  # whether the second symbol is Y
    assert memoryless_loss(second[None], targets[None]) == pytest.approx(math.log(2), rel=1e-3)


# --- parity


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_parity(steps: int, rng: np.random.Generator) -> None:
    inputs, targets = parity(steps, 50, rng)
    assert inputs.shape == targets.shape == (steps, 50)
    assert inputs.dtype == targets.dtype == np.int64
    assert set(inputs.ravel()) == {0, 1}
    for b in range(50):
        odd = False
        for t in range(steps):
            odd ^= bool(inputs[t, b])
            assert targets[t, b] == odd


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_parity_baseline_is_the_loss_of_the_memoryless_net(steps: int, rng: np.random.Generator) -> None:
    inputs, targets = parity(steps, MANY, rng)
    assert memoryless_loss(inputs, targets) == pytest.approx(parity_baseline(steps), rel=1e-3)


# --- flip-flop


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("steps", "bits", "probability"), [(1, 3, 0.5), (9, 2, 0.3), (6, 1, 0.0), (5, 4, 1.0)])
def test_flip_flop(steps: int, bits: int, probability: float, dtype: Any, rng: np.random.Generator) -> None:
    inputs, targets = flip_flop(steps, 70, rng, bits=bits, probability=probability, dtype=dtype)
    assert inputs.shape == targets.shape == (steps, 70, bits)
    assert inputs.dtype == targets.dtype == dtype
    for b in range(70):
        for k in range(bits):
            last = 0.0
            for t in range(steps):
                assert inputs[t, b, k] in (-1, 0, 1)
                last = inputs[t, b, k] or last
                assert targets[t, b, k] == last
                assert abs(last) == 1  # there is a pulse at step 0
    later = inputs[1:] != 0
    assert later.mean() == pytest.approx(probability, abs=0.06) if later.size else True
    assert abs(inputs[0].mean()) < 0.4  # both signs


@pytest.mark.parametrize(("steps", "probability"), [(1, 0.5), (8, 0.25), (4, 1.0)])
def test_flip_flop_baseline_is_the_loss_of_the_memoryless_net(
    steps: int, probability: float, rng: np.random.Generator
) -> None:
    inputs, targets = flip_flop(steps, MANY, rng, probability=probability, dtype=np.float64)
    # given a pulse of 0 the two answers are equally likely, so that their mean is the best one
    held = targets[(inputs == 0)]
    assert abs(held.mean()) < 0.02 if held.size else True
    loss, _ = mse_loss(inputs, targets)
    assert loss == pytest.approx(flip_flop_baseline(steps, probability), rel=0.01)


# --- all


@pytest.mark.parametrize("task", TASKS)
def test_draws_come_from_the_generator_alone(task: Callable[..., Any]) -> None:
    for seeded in (np.random.default_rng, torch_manual_seed):
        generator = seeded(3)
        first, again, other = task(11, 4, seeded(3)), task(11, 4, generator), task(11, 4, generator)
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        assert (first[0] != other[0]).any()


@pytest.mark.parametrize("count", [1, 2, 4, 8, 11, 100, 1000])
def test_the_largest_draw_is_below_the_count(count: int) -> None:
    assert math.floor(count * (1 - 2.0**-53)) == count - 1


@pytest.mark.parametrize(
    ("task", "shapes"),
    [
        (adding_problem, ((10, 1, 2), (1, 1))),
        (copy_memory, ((30, 1), (30, 1))),
        (temporal_order, ((10, 1), (1,))),
        (parity, ((10, 1), (10, 1))),
        (flip_flop, ((10, 1, 3), (10, 1, 3))),
    ],
)
def test_one_sample(task: Callable[..., Any], shapes: Any, rng: np.random.Generator) -> None:
    inputs, targets = task(10, 1, rng)
    assert (inputs.shape, targets.shape) == shapes


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda r: adding_problem(1, 4, r), ValueError, "steps: expected an integer of at least 2; got 1"),
        (lambda r: adding_problem(5, 0, r), ValueError, "batch: expected an integer of at least 1; got 0"),
        (lambda r: adding_problem(5, 4, r, dtype=np.float16), TypeError, "dtype: expected float32 or float64; got fl"),
        (lambda r: copy_memory(0, 4, r), ValueError, "delay: expected an integer of at least 1; got 0"),
        (lambda r: copy_memory(3, 4.0, r), TypeError, "batch: expected an integer of at least 1; got float 4.0"),
        (lambda r: copy_memory_baseline(0), ValueError, "delay: expected an integer of at least 1; got 0"),
        (lambda r: temporal_order(9, 4, r), ValueError, "steps: expected an integer of at least 10; got 9"),
        (lambda r: temporal_order(10, True, r), TypeError, "batch: expected an integer of at least 1; got bool True"),
        (lambda r: parity(0, 4, r), ValueError, "steps: expected an integer of at least 1; got 0"),
        (lambda r: parity(3, -1, r), ValueError, "batch: expected an integer of at least 1; got -1"),
        (lambda r: flip_flop(0, 4, r), ValueError, "steps: expected an integer of at least 1; got 0"),
        (lambda r: flip_flop(3, 4, r, bits=0), ValueError, "bits: expected an integer of at least 1; got 0"),
        (lambda r: flip_flop(3, 4, r, probability=1.5), ValueError, "probability: expected a number between 0 and 1"),
        (lambda r: flip_flop(3, 4, r, dtype=int), TypeError, "dtype: expected float32 or float64; got int64"),
        (lambda r: flip_flop_baseline(0), ValueError, "steps: expected an integer of at least 1; got 0"),
        (lambda r: flip_flop_baseline(3, 2.0), ValueError, "probability: expected a number between 0 and 1"),
        (lambda r: parity_baseline(0), ValueError, "steps: expected an integer of at least 1; got 0"),
        *((lambda r, task=task: task(10, 4, 0), TypeError, "rng: expected None, np.random.Gen") for task in TASKS),
    ],
)
def test_tasks_refuse(call: Callable[..., Any], error: type[Exception], message: str, rng: np.random.Generator) -> None:
    with pytest.raises(error) as raised:
        call(rng)
    assert message in str(raised.value)
