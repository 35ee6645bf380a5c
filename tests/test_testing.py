"""The comparison rule: what must fail, fails."""

from __future__ import annotations

import numpy as np
import pytest

from scratchrnn.testing import assert_close, difference


def test_message_names_worst_element() -> None:
    want = np.arange(1.0, 7.0).reshape(2, 3)
    got = want.copy()
    got[1, 0] += 0.5
    with pytest.raises(
        AssertionError, match=r"dh: rms ratio 0.0524, max ratio 0.0833, .* worst at \(1, 0\): got 4.5, want 4.0"
    ):
        assert_close("dh", got, want, rel=1e-3)
    assert_close("dh", got, want, rel=0.09)


@pytest.mark.parametrize(
    ("got", "want", "message"),
    [
        (np.zeros(3), np.zeros(4), r"a: expected shape \(4,\); got \(3,\)"),
        (np.zeros(3, np.float32), np.zeros(3), "a: expected dtype float64; got float32"),
        (np.array([0.0, np.nan]), np.array([0.0, np.nan]), r"worst at \(1,\): got nan"),
        (np.array([0.0, 1.0]), np.array([np.inf, 1.0]), r"worst at \(0,\)"),
        (np.array([0.0, 1e-300]), np.zeros(2), r"worst at \(1,\)"),
    ],
)
def test_fails(got: np.ndarray, want: np.ndarray, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        assert_close("a", got, want, rel=1e9)


def test_scale_does_not_matter() -> None:
    want = np.array([1e-200, 2e-200])
    d = difference(want * (1 + 1e-3), want)
    assert d.rms_ratio == pytest.approx(1e-3)
    assert d.max_ratio == pytest.approx(1e-3)


def test_one_bad_element_among_many_stands_out() -> None:
    want = np.ones(1_000_000)
    got = want.copy()
    got[77] = 1.01
    d = difference(got, want)
    assert d.rms_ratio < 1.1e-5
    assert d.ratio == pytest.approx(0.01)
    assert d.index == (77,)


def test_equal_and_empty() -> None:
    assert_close("a", np.zeros((0, 3)), np.zeros((0, 3)), rel=0)
    assert_close("a", np.zeros(3), np.zeros(3), rel=0)
    with pytest.raises(ValueError, match="got: expected shape"):
        difference(np.zeros(3), np.zeros(4))
