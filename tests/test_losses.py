"""Losses against torch float64 (values, gradients by autograd) and finite differences; edge cases as in torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scratchrnn.losses import cross_entropy, mse_loss
from scratchrnn.testing import TOLERANCE, assert_close, difference

INF, NAN = float("inf"), float("nan")
REDUCTIONS = ("mean", "sum", "none")


def torch_cross_entropy(logits: np.ndarray, targets: np.ndarray, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient of torch, the class axis moved to where torch has it."""
    import torch

    classes = logits.shape[-1]
    z = torch.from_numpy(logits.copy()).requires_grad_()
    flat = torch.from_numpy(np.asarray(targets, np.int64).reshape(-1))
    loss = torch.nn.functional.cross_entropy(z.reshape(-1, classes), flat, **options)
    (gradient,) = torch.autograd.grad(loss.sum(), z)
    values = loss.detach().numpy()
    return values.reshape(targets.shape) if options["reduction"] == "none" else values, gradient.numpy()


def torch_mse(prediction: np.ndarray, target: np.ndarray, reduction: str) -> tuple[np.ndarray, np.ndarray]:
    import torch

    p = torch.from_numpy(prediction.copy()).requires_grad_()
    loss = torch.nn.functional.mse_loss(p, torch.from_numpy(target.copy()), reduction=reduction)
    (gradient,) = torch.autograd.grad(loss.sum(), p)
    return loss.detach().numpy(), gradient.numpy()


def read_only_view(array: np.ndarray) -> np.ndarray:
    """The same values inside a larger array, every other row and column of it, not to be written."""
    if array.ndim == 0:
        return array
    larger = np.zeros(tuple(2 * n + 1 for n in array.shape), array.dtype)
    view = larger[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    view.flags.writeable = False
    return view


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("ignore_index", [-100, 2, 77])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 6, 11), (2, 3, 4, 5), (6, 1), (1, 8), (0, 4), (3, 0, 4)])
def test_cross_entropy_equals_torch(shape, reduction, ignore_index, label_smoothing, rng):
    logits = 4.0 * rng.standard_normal(shape)
    targets = np.array(rng.integers(0, shape[-1], shape[:-1]))
    targets[rng.random(targets.shape) < 0.3] = ignore_index
    options = {"reduction": reduction, "ignore_index": ignore_index, "label_smoothing": label_smoothing}
    with np.errstate(all="raise"):  # the caller's setting must not matter
        loss, gradient = cross_entropy(read_only_view(logits), read_only_view(targets), **options)
    want_loss, want_gradient = torch_cross_entropy(logits, targets, **options)
    if reduction == "mean" and (targets == ignore_index).all():
        assert np.isnan(loss)
        assert np.isnan(want_loss)
    else:
        assert_close("loss", loss, want_loss, rel=TOLERANCE["float64"])
    assert_close("d_logits", gradient, want_gradient, rel=TOLERANCE["float64"])
    assert gradient.flags.c_contiguous
    assert isinstance(loss, np.ndarray if reduction == "none" else np.float64)
    ignored = targets == ignore_index
    assert not gradient[ignored].any()
    if reduction == "none":
        assert not loss[ignored].any()


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_gradient_is_that_of_finite_differences(reduction, label_smoothing, rng):
    logits, targets = rng.standard_normal((3, 2, 5)), rng.integers(0, 5, (3, 2))
    targets[1, 0] = -100
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    numeric = finite_differences(lambda z: np.sum(cross_entropy(z, targets, **options)[0]), logits)
    _, gradient = cross_entropy(logits, targets, **options)
    assert_close("d_logits", gradient, numeric, rel=TOLERANCE["finite_difference"])


def finite_differences(function: Any, x: np.ndarray, h: float = 1e-5) -> np.ndarray:
    gradient = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += h
        down[index] -= h
        gradient[index] = (function(up) - function(down)) / (2 * h)
    return gradient


def test_weighted_losses_have_the_weighted_gradient(rng):
    logits, targets, weights = rng.standard_normal((4, 3, 6)), rng.integers(0, 6, (4, 3)), rng.random((4, 3))
    _, gradient = cross_entropy(logits, targets, reduction="none")
    numeric = finite_differences(lambda z: np.sum(weights * cross_entropy(z, targets, reduction="none")[0]), logits)
    assert_close("d_logits", weights[..., None] * gradient, numeric, rel=TOLERANCE["finite_difference"])


@pytest.mark.parametrize(
    ("size", "classes", "scale", "offset"),
    [(700, 90, 3.0, 0.0), (700, 90, 3.0, 1000.0), (30, 4999, 1.0, 0.0), (20_000, 13, 1.0, 0.0), (300, 2, 10.0, 0.0)],
)
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_cross_entropy_float32_is_as_near_to_float64_as_torch(reduction, size, classes, scale, offset, rng):
    logits = (scale * rng.standard_normal((size, classes)) + offset).astype(np.float32)
    targets = rng.integers(0, classes, size)
    got = cross_entropy(logits, targets, reduction=reduction)
    torch32 = torch_cross_entropy(logits, targets, reduction=reduction)
    truth = torch_cross_entropy(logits.astype(np.float64), targets, reduction=reduction)
    for name, ours, theirs, want in zip(("loss", "d_logits"), got, torch32, truth, strict=True):
        assert ours.dtype == np.float32, name
        # torch's one loss may be right by luck; float32 cannot promise more than its last digit
        allowed = max(TOLERANCE["float32_growth"] * difference(theirs, want).ratio, np.finfo(np.float32).eps)
        assert difference(ours, want).ratio <= allowed, name


def test_mean_over_many_positions_keeps_float32_digits():
    logits, targets = np.zeros((3_000_000, 2), np.float32), np.zeros(3_000_000, np.int64)
    loss, _ = cross_entropy(logits, targets)
    assert loss == np.float32(np.log(2.0))


EDGES = {
    "large": ([[1e4, -1e4, 0.0], [0.0, 1.0, 2.0]], [1, 1]),
    "largest": ([[1e308, -1e308, 0.0], [0.0, 1.0, 2.0]], [1, 1]),
    "-inf": ([[1.0, -INF, 3.0], [0.0, 1.0, 2.0]], [0, 1]),
    "-inf is the target": ([[1.0, -INF, 3.0], [0.0, 1.0, 2.0]], [1, 1]),
    "-inf ignored": ([[1.0, -INF, 3.0], [0.0, 1.0, 2.0]], [-100, 1]),
    "all -inf": ([[-INF, -INF, -INF], [0.0, 1.0, 2.0]], [0, 1]),
    "inf": ([[1.0, INF, 3.0], [0.0, 1.0, 2.0]], [0, 1]),
    "inf ignored": ([[1.0, INF, 3.0], [0.0, 1.0, 2.0]], [-100, 1]),
    "NaN": ([[1.0, NAN, 3.0], [0.0, 1.0, 2.0]], [0, 1]),
    "NaN ignored": ([[1.0, NAN, 3.0], [0.0, 1.0, 2.0]], [-100, 1]),
    "all ignored": ([[1.0, 2.0, 3.0], [0.0, 1.0, 2.0]], [-100, -100]),
    "all ignored, NaN": ([[1.0, NAN, 3.0], [0.0, 1.0, 2.0]], [-100, -100]),
    "one class": ([[5.0], [-3.0]], [0, 0]),
    "no position": (np.zeros((0, 3)), []),
}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("edge", EDGES)
def test_cross_entropy_at_the_edges_equals_torch(edge, reduction, label_smoothing):
    logits, targets = np.array(EDGES[edge][0]), np.array(EDGES[edge][1], np.int64)
    options = {"reduction": reduction, "label_smoothing": label_smoothing}
    with np.errstate(all="raise"):
        loss, gradient = cross_entropy(logits, targets, **options)
    want_loss, want_gradient = torch_cross_entropy(logits, targets, **options)
    rel = TOLERANCE["float64"]
    np.testing.assert_allclose(loss, want_loss, rtol=rel, atol=0)
    np.testing.assert_allclose(gradient, want_gradient, rtol=rel, atol=rel)


def test_all_ignored_has_mean_nan_sum_zero_and_no_gradient():
    logits, targets = np.ones((3, 2)), np.full(3, -100)
    for reduction, want in (("mean", NAN), ("sum", 0.0)):
        loss, gradient = cross_entropy(logits, targets, reduction=reduction)
        np.testing.assert_equal(float(loss), want)
        assert not gradient.any()


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64, np.uint8, np.uint64])
def test_every_integer_dtype_will_do(dtype, rng):
    logits = rng.standard_normal((5, 4))
    targets = np.array([0, 3, 1, 2, 3], dtype)
    assert_close("loss", cross_entropy(logits, targets)[0], cross_entropy(logits, targets.astype(int))[0], rel=0.0)


def test_one_position_takes_a_numpy_integer(rng):
    logits = rng.standard_normal(4)
    loss, gradient = cross_entropy(logits, np.int64(2), reduction="none")
    want_loss, want_gradient = torch_cross_entropy(logits, np.array(2), reduction="none")
    assert_close("loss", loss, want_loss, rel=TOLERANCE["float64"])
    assert_close("d_logits", gradient, want_gradient, rel=TOLERANCE["float64"])


LOGITS, TARGETS = np.zeros((2, 3, 4)), np.zeros((2, 3), np.int64)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"logits": LOGITS.tolist()}, TypeError, "logits: expected a NumPy array; got list"),
        ({"logits": LOGITS.astype(int)}, TypeError, "logits: expected dtype float32 or float64; got int64"),
        ({"logits": np.array(1.0)}, ValueError, "logits: expected shape (..., C) with at least one class; got ()"),
        ({"logits": np.zeros((2, 0))}, ValueError, "with at least one class; got (2, 0)"),
        ({"targets": TARGETS.tolist()}, TypeError, "targets: expected a NumPy array of integers; got list"),
        ({"targets": True}, TypeError, "targets: expected a NumPy array of integers; got bool True"),
        ({"targets": TARGETS.astype(float)}, TypeError, "targets: expected an integer dtype; got float64"),
        ({"targets": TARGETS.astype(bool)}, TypeError, "targets: expected an integer dtype; got bool"),
        (
            {"targets": np.zeros((3, 2), int)},
            ValueError,
            "targets: expected shape (2, 3) for logits of shape (2, 3, 4); got (3, 2)",
        ),
        (
            {"targets": np.array([[0, 1, 2], [3, 4, -1]])},
            ValueError,
            "targets: expected classes from 0 to 3 or ignore_index -100; got 4 at index (1, 1)",
        ),
        (
            {"targets": np.array([[0, 1, 2], [3, -100, 0]]), "ignore_index": 9},
            ValueError,
            "targets: expected classes from 0 to 3 or ignore_index 9; got -100 at index (1, 1)",
        ),
        ({"reduction": "avg"}, ValueError, "reduction: expected one of 'mean', 'sum', 'none'; got 'avg'"),
        ({"ignore_index": 1.0}, TypeError, "ignore_index: expected an integer; got float 1.0"),
        ({"ignore_index": False}, TypeError, "ignore_index: expected an integer; got bool False"),
        ({"label_smoothing": 1.5}, ValueError, "label_smoothing: expected a number between 0 and 1; got 1.5"),
    ],
)
def test_cross_entropy_refuses(change, error, message):
    arguments = {"logits": LOGITS, "targets": TARGETS} | change
    with pytest.raises(error) as raised:
        cross_entropy(arguments.pop("logits"), arguments.pop("targets"), **arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("shape", [(), (5,), (3, 4), (2, 3, 7)])
def test_mse_equals_torch_and_finite_differences(shape, reduction, rng):
    prediction, target = np.array(rng.standard_normal(shape)), np.array(rng.standard_normal(shape))
    with np.errstate(all="raise"):
        loss, gradient = mse_loss(read_only_view(prediction), read_only_view(target), reduction=reduction)
    want_loss, want_gradient = torch_mse(prediction, target, reduction)
    assert_close("loss", loss, want_loss, rel=TOLERANCE["float64"])
    assert_close("d_prediction", gradient, want_gradient, rel=TOLERANCE["float64"])
    assert isinstance(loss, np.ndarray if reduction == "none" else np.float64)
    numeric = finite_differences(lambda p: np.sum(mse_loss(p, target, reduction=reduction)[0]), prediction)
    assert_close("d_prediction", gradient, numeric, rel=TOLERANCE["finite_difference"])


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_float32_is_as_near_to_float64_as_torch(reduction, rng):
    prediction, target = rng.standard_normal((2, 700, 90)).astype(np.float32)
    got, torch32 = mse_loss(prediction, target, reduction=reduction), torch_mse(prediction, target, reduction)
    truth = torch_mse(prediction.astype(np.float64), target.astype(np.float64), reduction)
    for name, ours, theirs, want in zip(("loss", "d_prediction"), got, torch32, truth, strict=True):
        assert ours.dtype == np.float32, name
        allowed = max(TOLERANCE["float32_growth"] * difference(theirs, want).ratio, np.finfo(np.float32).eps)
        assert difference(ours, want).ratio <= allowed, name


@pytest.mark.parametrize("values", [[], [NAN, 1.0], [INF, 1.0], [-INF, 2.0], [1e200, 1.0]])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_mse_at_the_edges_equals_torch(reduction, values):
    prediction, target = np.array(values), np.full(len(values), 0.5)
    with np.errstate(all="raise"):
        loss, gradient = mse_loss(prediction, target, reduction=reduction)
    want_loss, want_gradient = torch_mse(prediction, target, reduction)
    np.testing.assert_array_equal(loss, want_loss)
    np.testing.assert_array_equal(gradient, want_gradient)


@pytest.mark.parametrize(
    ("prediction", "target", "reduction", "error", "message"),
    [
        ([1.0], np.ones(1), "mean", TypeError, "prediction: expected a NumPy array; got list [1.0]"),
        (np.ones(1), 1.0, "mean", TypeError, "target: expected a NumPy array; got float 1.0"),
        (np.ones(1, int), np.ones(1), "mean", TypeError, "prediction: expected dtype float32 or float64; got int64"),
        (np.ones(1), np.ones(1, np.float32), "mean", TypeError, "target: expected dtype float64; got float32"),
        (np.ones((2, 3)), np.ones(3), "mean", ValueError, "target: expected shape (2, 3) of the prediction; got (3,)"),
        (
            np.ones(1),
            np.ones(1),
            "average",
            ValueError,
            "reduction: expected one of 'mean', 'sum', 'none'; got 'average'",
        ),
    ],
)
def test_mse_refuses(prediction, target, reduction, error, message):
    with pytest.raises(error) as raised:
        mse_loss(prediction, target, reduction=reduction)
    assert message in str(raised.value)
