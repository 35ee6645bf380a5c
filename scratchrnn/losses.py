"""Losses with their gradients, each from one call, so that no autograd is needed.

Cross-entropy of one position, logits z (C,) and class y, with label smoothing s:

    p   = exp(z - max z) / sum_c exp(z_c - max z)            softmax; the shift keeps exp from overflowing
    L   = -(1 - s) log p_y - (s / C) sum_c log p_c
    dz  = p - q,   q = (1 - s) onehot(y) + s / C

Mean squared error:  L = mean (prediction - target)^2,  d_prediction = 2 (prediction - target) / N.

Dimensions: C classes, N elements, `...` any leading axes, usually (T, B).
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_probability, describe, host_array, speaks_protocol, take_array
from scratchrnn.backends import memory

__all__ = ["cross_entropy", "mse_loss"]

Reduction = Literal["mean", "sum", "none"]
_REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(
    logits: FloatArray,
    targets: IntArray,
    *,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> tuple[np.floating[Any] | FloatArray, FloatArray]:
    """Softmax followed by the negative log-likelihood of the target class, and the gradient of the logits.

    Parameters
    ----------
    logits : ndarray, shape (..., C), float32 or float64
        Unnormalised scores. The class axis is the LAST one, as recurrent layers give it.
    targets : ndarray of integers, shape (...)
        Class of every position, 0 to C - 1, or `ignore_index`.
    ignore_index : int
        Positions with this target have loss 0 and gradient 0 and do not count in the mean.
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of positions that are not ignored.
    label_smoothing : float
        Weight in [0, 1] of the uniform distribution mixed into the target.

    Returns
    -------
    loss : scalar of the dtype of the logits, or ndarray of shape (...) for "none"
    d_logits : ndarray, shape (..., C), C-contiguous, dtype of the logits
        Gradient of `loss`. For "none" it is the gradient of the sum of the losses; since each loss depends
        on its own logits only, that of a weighted sum with weights w (...) is `w[..., None] * d_logits`.

    Raises
    ------
    TypeError
        `logits` is not a float32 or float64 array, or `targets` is not an integer array (bool and float are
        not).
    ValueError
        `targets` has another shape, or a class out of range (the message gives its position and value).

    Notes
    -----
    Differs from `torch.nn.functional.cross_entropy`: torch has the class axis second, (N, C, ...), here it
    is the last. A target out of range is a ValueError (torch: IndexError). Targets as class probabilities
    and class weights are not offered.

    As in torch: if every target is ignored, "mean" is NaN (0 / 0) while the gradient is zero. A NaN or +inf
    logit makes the loss and gradient of its position NaN; at an ignored position the loss stays 0 but the
    gradient is still NaN. A -inf logit has probability 0; where the loss puts weight on it (as the target,
    or by label smoothing) the loss is +inf, the gradient stays finite. With `label_smoothing=1` such a
    target gives NaN.

    References
    ----------
    Blanchard, Higham, Higham, "Accurately computing the log-sum-exp and softmax functions", IMA J. Numer.
    Anal. 41 (2021): the shifted forms. Szegedy et al., "Rethinking the Inception architecture for computer
    vision" (2016), section 7: label smoothing.

    Examples
    --------
    >>> loss, d_logits = cross_entropy(np.array([[0.0, 0.0], [0.0, 0.0]]), np.array([1, -100]))
    >>> print(round(float(loss), 4), d_logits.tolist())
    0.6931 [[0.5, -0.5], [0.0, 0.0]]
    """
    logits = take_array("logits", logits)
    if logits.ndim == 0 or logits.shape[-1] == 0:
        raise ValueError(f"logits: expected shape (..., C) with at least one class; got {logits.shape}")
    _check_reduction(reduction)
    smoothing = check_probability("label_smoothing", label_smoothing)
    classes = logits.shape[-1]
    target_array, kept = _check_targets(targets, logits.shape, ignore_index)

    z = logits.reshape(-1, classes)  # (N, C)
    rows = np.flatnonzero(kept)  # (M,) the positions that count
    y = target_array.reshape(-1)[rows]  # (M,)
    with np.errstate(all="ignore"):
        d = memory.empty(z.shape, z.dtype)  # shifted logits, then p, then the gradient
        np.subtract(z, z.max(axis=1, keepdims=True), out=d)
        shifted_y = d[rows, y]  # (M,)
        shifted_sum = d.sum(axis=1)[rows] if smoothing else None
        np.exp(d, out=d)
        total = d.sum(axis=1, keepdims=True)  # (N, 1), at least 1
        log_total = np.log(total[rows, 0])
        # -log p_y from shifted values only: adding max z back would cost digits where logits are large
        counted = log_total - shifted_y  # (M,)
        if shifted_sum is not None:
            counted *= 1.0 - smoothing
            counted += smoothing / classes * (classes * log_total - shifted_sum)
        losses = np.zeros(len(z), z.dtype)
        losses[rows] = counted

        d /= total
        if smoothing:
            d -= smoothing / classes
        d[rows, y] -= 1.0 - smoothing
        if len(rows) < len(z):
            d[~kept] *= 0.0  # not "= 0": NaN passes through, as in torch
        if reduction == "mean":
            d /= max(len(rows), 1)
    return _reduce(losses.reshape(target_array.shape), reduction, len(rows)), d.reshape(logits.shape)


def mse_loss(
    prediction: FloatArray, target: FloatArray, *, reduction: Reduction = "mean"
) -> tuple[np.floating[Any] | FloatArray, FloatArray]:
    """Squared error, and the gradient of the prediction.

    Parameters
    ----------
    prediction, target : ndarray of one shape, float32 or float64 (one dtype)
    reduction : {"mean", "sum", "none"}
        "mean" divides by the number of elements.

    Returns
    -------
    loss : scalar of that dtype, or ndarray of that shape for "none"
    d_prediction : ndarray of that shape, C-contiguous
        Gradient of `loss`; for "none" of the sum of the losses, `2 (prediction - target)`.

    Raises
    ------
    TypeError
        Not arrays, or of different dtypes.
    ValueError
        Of different shapes: nothing is broadcast (torch broadcasts with a warning).

    Notes
    -----
    As in torch, the mean of no elements is NaN, and NaN or inf in the data pass through.

    Examples
    --------
    >>> loss, d_prediction = mse_loss(np.array([1.0, 4.0]), np.array([1.0, 2.0]))
    >>> print(loss, d_prediction.tolist())
    2.0 [0.0, 2.0]
    """
    prediction = take_array("prediction", prediction)
    target = take_array("target", target, shape=prediction.shape, dtype=prediction.dtype, why="of the prediction")
    _check_reduction(reduction)
    with np.errstate(all="ignore"):
        d = np.empty(prediction.shape, prediction.dtype)
        np.subtract(prediction, target, out=d)
        losses = np.empty_like(d)
        np.square(d, out=losses)
        # one division by N / 2 rounds once, and 2 d alone could overflow where 2 d / N does not
        np.divide(d, losses.size / 2 if reduction == "mean" else 0.5, out=d)
    return _reduce(losses, reduction, losses.size), d


def _reduce(losses: FloatArray, reduction: str, count: int) -> np.floating[Any] | FloatArray:
    """Reduce by name; `count` divides the mean, and 0 / 0 is NaN."""
    if reduction == "none":
        return losses
    with np.errstate(all="ignore"):
        total = losses.sum(dtype=np.float64)  # many float32 terms would lose digits in a float32 sum
        scalar: np.floating[Any] = losses.dtype.type(total / count if reduction == "mean" else total)
    return scalar


def _check_reduction(reduction: Any) -> None:
    if reduction not in _REDUCTIONS:
        raise ValueError(f"reduction: expected one of {', '.join(map(repr, _REDUCTIONS))}; got {reduction!r}")


def _check_targets(targets: Any, shape: tuple[int, ...], ignore_index: Any) -> tuple[IntArray, BoolArray]:
    """Return the targets as an array and, flattened, which of them are kept."""
    if isinstance(ignore_index, (bool, np.bool_)) or not isinstance(ignore_index, (int, np.integer)):
        raise TypeError(f"ignore_index: expected an integer; got {describe(ignore_index)}")
    if not isinstance(targets, np.ndarray) and speaks_protocol(targets):
        targets = host_array("targets", targets)
    if not isinstance(targets, (np.ndarray, np.integer)):
        raise TypeError(f"targets: expected a NumPy array of integers; got {describe(targets)}")
    array: IntArray = np.asarray(targets)
    if not np.issubdtype(array.dtype, np.integer):
        raise TypeError(f"targets: expected an integer dtype; got {array.dtype.name}")
    if array.shape != shape[:-1]:
        expected = f"expected shape {shape[:-1]} for logits of shape {shape}"
        raise ValueError(f"targets: {expected}; got {array.shape}")
    kept = np.asarray(array != int(ignore_index))
    outside = kept & ((array < 0) | (array >= shape[-1]))
    if outside.any():
        where = tuple(int(i) for i in np.unravel_index(int(np.argmax(outside)), array.shape))
        raise ValueError(
            f"targets: expected classes from 0 to {shape[-1] - 1} or ignore_index {int(ignore_index)}; "
            f"got {array[where]} at index {where}"
        )
    return array, kept.reshape(-1)
