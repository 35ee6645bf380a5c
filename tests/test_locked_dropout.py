"""LockedDropout: one mask for all time steps, and torch's gradient for that mask."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close

REL = TOLERANCE["float64"]


@pytest.mark.parametrize(
    ("shape", "batch_first", "mask_shape"),
    [
        ((7, 5, 6), False, (1, 5, 6)),
        ((5, 7, 6), True, (5, 1, 6)),
        ((7, 6), False, (1, 6)),
        ((7, 6), True, (1, 6)),
        ((1, 1, 6), False, (1, 1, 6)),
    ],
    ids=str,
)
def test_forward_and_backward(
    shape: tuple[int, ...], batch_first: bool, mask_shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    drop = srnn.LockedDropout(0.3, batch_first=batch_first, rng=rng)
    x, d = rng.standard_normal(shape), rng.standard_normal(shape)
    trace = drop.forward(x)
    assert trace.mask is not None
    assert trace.mask.shape == mask_shape
    assert set(np.unique(trace.mask)) <= {0, 1 / 0.7}
    leaf = torch.tensor(x, requires_grad=True)
    y = leaf * torch.tensor(trace.mask)
    (y * torch.tensor(d)).sum().backward()
    assert_close("y", trace.output, y.detach().numpy(), rel=REL)
    assert_close("dx", drop.backward(trace, d).input, leaf.grad.numpy(), rel=REL)


def test_every_step_loses_the_same_units_and_every_sample_its_own(rng: np.random.Generator) -> None:
    trace = srnn.LockedDropout(0.3, rng=rng).forward(np.ones((7, 40, 50), np.float32))
    kept = trace.output != 0
    assert (kept == kept[0]).all()
    assert not (kept[0] == kept[0, 0]).all()
    assert abs(kept[0].mean() - 0.7) < 4 * np.sqrt(0.21 / kept[0].size)
    assert trace.output.dtype == np.float32


def test_inference_and_the_ends_of_p(rng: np.random.Generator) -> None:
    x = rng.standard_normal((7, 5, 6))
    drop = srnn.LockedDropout(0.3, rng=rng)
    assert drop(x) is x
    plain = drop.forward(x, training=False)
    assert plain.mask is None
    assert_close("y", plain.output, x, rel=0)
    assert srnn.LockedDropout(0.0).forward(x).mask is None
    assert not srnn.LockedDropout(1.0).forward(x).output.any()
    masks = [drop.forward(x, rng=np.random.default_rng(5)).mask for _ in range(2)]
    assert_close("mask", masks[0], masks[1], rel=0)
    other = drop.forward(x).mask, drop.forward(x).mask
    assert (other[0] != other[1]).any()
    assert repr(drop) == "LockedDropout(p=0.3, batch_first=False)"
    assert srnn.LockedDropout(**drop.config()).p == 0.3


def test_bad_input() -> None:
    with pytest.raises(ValueError, match=r"p: expected a number between 0 and 1; got 1.5"):
        srnn.LockedDropout(1.5)
    with pytest.raises(TypeError, match="batch_first: expected True or False; got int 1"):
        srnn.LockedDropout(0.5, batch_first=1)  # type: ignore[arg-type]
    drop = srnn.LockedDropout(0.5)
    message = r"x: expected shape \(time, batch, size\) or, without a batch, \(time, size\); got \(6,\)"
    with pytest.raises(ValueError, match=message):
        drop.forward(np.zeros(6))
    with pytest.raises(ValueError, match=r"got \(2, 7, 5, 6\)"):
        drop(np.zeros((2, 7, 5, 6)))
    with pytest.raises(TypeError, match=r"rng: expected a numpy.random.Generator for dropout masks"):
        drop.forward(np.zeros((7, 6)), rng=srnn.rng.torch_manual_seed(0))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"d_output: expected shape \(7, 5, 6\); got \(5, 6\)"):
        drop.backward(drop.forward(np.zeros((7, 5, 6))), np.zeros((5, 6)))
