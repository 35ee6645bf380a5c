"""Penalties on hidden states: value and gradient against torch's autograd of the same formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import regularizers
from scratchrnn.testing import TOLERANCE, assert_close

REL = TOLERANCE["float64"]
SIZES = [(7, 5, 6), (7, 1, 6), (1, 5, 6), (2, 3, 1), (1, 1, 1)]


def lengths_for(steps: int, batch: int) -> list[list[int] | None]:
    return [None, [1 + (3 * b + 2) % steps for b in range(batch)], [1] * batch]


CASES = [(sizes, lengths) for sizes in SIZES for lengths in lengths_for(*sizes[:2])]
every_case = pytest.mark.parametrize(("sizes", "lengths"), CASES, ids=str)
every_reduction = pytest.mark.parametrize("reduction", ["paper", "mean"])


def sequences(h: torch.Tensor, lengths: list[int] | None) -> list[torch.Tensor]:
    """Each sequence alone, (n_b, H)."""
    return [h[: len(h) if lengths is None else lengths[b], b] for b in range(h.shape[1])]


def reduced(parts: list[torch.Tensor], reduction: str, units: int) -> torch.Tensor:
    """By the two definitions, from the squares of each sequence: (m_b,) sums over units."""
    if reduction == "paper":
        return torch.stack([p.mean() if len(p) else p.sum() for p in parts]).mean()
    every = torch.cat(parts)
    return every.sum() / (units * len(every)) if len(every) else every.sum()


def check(
    got: tuple[Any, np.ndarray], h: np.ndarray, formula: Callable[[torch.Tensor], torch.Tensor], dtype: Any = np.float64
) -> None:
    leaf = torch.tensor(h, requires_grad=True)
    want = formula(leaf)
    want.backward()
    assert isinstance(got[0], dtype)
    assert_close("penalty", got[0], want.detach().numpy(), rel=REL)
    assert_close("d_h", got[1], leaf.grad.numpy(), rel=REL)


@every_reduction
@every_case
def test_activity(sizes: tuple[int, ...], lengths: Any, reduction: Any, rng: np.random.Generator) -> None:
    h = rng.standard_normal(sizes)

    def formula(leaf: torch.Tensor) -> torch.Tensor:
        return 1.7 * reduced([s.pow(2).sum(-1) for s in sequences(leaf, lengths)], reduction, sizes[2])

    check(regularizers.activity(h, 1.7, reduction=reduction, lengths=lengths), h, formula)


def resets(sizes: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    return rng.random(sizes[:2]) < 0.3


@pytest.mark.parametrize("with_reset", [False, True], ids=["", "reset"])
@pytest.mark.parametrize("with_before", [False, True], ids=["", "before"])
@every_reduction
@every_case
def test_temporal_activity(
    sizes: tuple[int, ...], lengths: Any, reduction: Any, with_before: bool, with_reset: bool, rng: np.random.Generator
) -> None:
    h = rng.standard_normal(sizes)
    before = rng.standard_normal(sizes[1:]) if with_before else None
    reset = resets(sizes, rng) if with_reset else None

    def formula(leaf: torch.Tensor) -> torch.Tensor:
        parts = []
        for b, s in enumerate(sequences(leaf, lengths)):
            chain = s if before is None else torch.cat([torch.tensor(before[b])[None], s])
            squares = (chain[1:] - chain[:-1]).pow(2).sum(-1)
            into = np.arange(len(s))[len(s) - len(squares) :]  # the step that each jump leads into
            parts.append(squares if reset is None else squares[torch.tensor(~reset[into, b])])
        return 1.7 * reduced(parts, reduction, sizes[2])

    got = regularizers.temporal_activity(h, 1.7, reduction=reduction, lengths=lengths, before=before, reset=reset)
    check(got, h, formula)


@pytest.mark.parametrize("with_reset", [False, True], ids=["", "reset"])
@pytest.mark.parametrize("with_initial", [False, True], ids=["", "initial"])
@every_case
def test_norm_stabilizer(
    sizes: tuple[int, ...], lengths: Any, with_initial: bool, with_reset: bool, rng: np.random.Generator
) -> None:
    h = rng.standard_normal(sizes)
    initial = rng.standard_normal(sizes[1:]) if with_initial else None
    reset = resets(sizes, rng) if with_reset else None

    def formula(leaf: torch.Tensor) -> torch.Tensor:
        parts = []
        for b, s in enumerate(sequences(leaf, lengths)):
            start = torch.zeros(sizes[2]) if initial is None else torch.tensor(initial[b])
            norms = torch.cat([start[None], s]).norm(dim=-1)
            squares = (norms[1:] - norms[:-1]).pow(2)
            parts.append(squares if reset is None else squares[torch.tensor(~reset[: len(s), b])])
        return 1.7 * reduced(parts, "paper", 1)

    check(regularizers.norm_stabilizer(h, 1.7, lengths=lengths, initial=initial, reset=reset), h, formula)


def test_a_norm_of_zero_has_torchs_subgradient(rng: np.random.Generator) -> None:
    h = rng.standard_normal((5, 2, 3))
    h[1:3, 0] = 0
    h[:, 1] = 0
    check(
        regularizers.norm_stabilizer(h, 2.0),
        h,
        lambda leaf: 2.0 * torch.cat([torch.zeros(1, 2), leaf.norm(dim=-1)]).diff(dim=0).pow(2).mean(0).mean(),
    )


def test_mean_is_awd_lstms_code_and_the_conventions_differ_by_the_number_of_units(rng: np.random.Generator) -> None:
    h = rng.standard_normal((7, 5, 64))
    check(regularizers.activity(h, 2.0, reduction="mean"), h, lambda leaf: 2.0 * leaf.pow(2).mean())
    tar = regularizers.temporal_activity(h, 1.0, reduction="mean")
    check(tar, h, lambda leaf: (leaf[1:] - leaf[:-1]).pow(2).mean())
    for penalty in (regularizers.activity, regularizers.temporal_activity):
        (paper, d_paper), (mean, d_mean) = (penalty(h, 1.0, reduction=r) for r in ("paper", "mean"))
        assert_close("penalty", paper, 64 * mean, rel=REL)
        assert_close("d_h", d_paper, 64 * d_mean, rel=REL)


@every_reduction
def test_one_step_has_no_jump(reduction: Any) -> None:
    """The mean of no jumps is NaN in torch; here it is nothing."""
    penalty, d_h = regularizers.temporal_activity(np.ones((1, 5, 6)), 3.0, reduction=reduction)
    assert penalty == 0
    assert_close("d_h", d_h, np.zeros((1, 5, 6)), rel=0)


PENALTIES: list[Callable[..., Any]] = [
    regularizers.activity,
    regularizers.temporal_activity,
    regularizers.norm_stabilizer,
]
each_penalty = pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: p.__name__)


@each_penalty
def test_padding_is_not_looked_at(penalty: Callable[..., Any], rng: np.random.Generator) -> None:
    h, lengths = rng.standard_normal((7, 5, 6)), [4, 7, 1, 7, 3]
    beyond = np.arange(7)[:, None] >= lengths
    spoiled = h.copy()
    spoiled[beyond] = np.nan
    want, got = penalty(h, 1.3, lengths=lengths), penalty(spoiled, 1.3, lengths=np.array(lengths))
    assert got[0] == want[0]
    assert_close("d_h", got[1], want[1], rel=0)
    assert not got[1][beyond].any()


def test_windows_add_up_to_the_whole(rng: np.random.Generator) -> None:
    h = rng.standard_normal((9, 2, 3))
    whole, d_whole = regularizers.temporal_activity(h, 8.0)
    first, d_first = regularizers.temporal_activity(h[:4], 3.0)
    second, d_second = regularizers.temporal_activity(h[4:], 5.0, before=h[3])
    assert_close("penalty", first + second, whole, rel=REL)
    assert_close("d_h", d_second, d_whole[4:], rel=REL)
    assert_close("d_h", d_first[:3], d_whole[:3], rel=REL)


@each_penalty
def test_float32_keeps_its_dtype_and_does_not_overflow(penalty: Callable[..., Any], rng: np.random.Generator) -> None:
    h = rng.standard_normal((7, 5, 6)).astype(np.float32)
    (got, d_got), (want, d_want) = penalty(h, 0.3), penalty(h.astype(np.float64), 0.3)
    assert isinstance(got, np.float32)
    assert d_got.dtype == np.float32
    assert_close("penalty", got, want, rel=TOLERANCE["float32_floor"], check_dtype=False)
    assert_close("d_h", d_got, d_want, rel=TOLERANCE["float32_floor"], check_dtype=False)
    assert np.isfinite(penalty(h * np.float32(1e20), 1e-20)[0])  # its square is beyond float32


@each_penalty
def test_nan_and_inf_pass_through(penalty: Callable[..., Any], rng: np.random.Generator) -> None:
    for bad in (np.nan, np.inf):
        h = rng.standard_normal((7, 5, 6))
        h[2, 1, 3] = bad
        value, d_h = penalty(h, 1.0)
        assert not np.isfinite(value)
        assert not np.isfinite(d_h[2, 1]).all()
        assert np.isfinite(d_h[:, 2]).all()


@each_penalty
def test_a_coefficient_of_zero_and_an_empty_batch(penalty: Callable[..., Any], rng: np.random.Generator) -> None:
    value, d_h = penalty(rng.standard_normal((7, 5, 6)), 0)
    assert value == 0
    assert not d_h.any()
    value, d_h = penalty(np.zeros((7, 0, 6)), 1.0)
    assert value == 0
    assert d_h.shape == (7, 0, 6)


@each_penalty
def test_input_is_only_read_and_may_be_any_view(penalty: Callable[..., Any], rng: np.random.Generator) -> None:
    h = rng.standard_normal((5, 7, 12))
    kept = h.copy()
    view = h.transpose(1, 0, 2)[:, :, ::2]
    want, got = penalty(view.copy(), 1.0), penalty(view, 1.0)
    assert_close("penalty", got[0], want[0], rel=REL)  # the stride decides in which order a sum is taken
    assert_close("d_h", got[1], want[1], rel=REL)
    assert_close("h", h, kept, rel=0)


@pytest.mark.usefixtures("each_backend")
def test_through_a_layer(rng: np.random.Generator) -> None:
    """AR on the dropped output and TAR on the raw one: torch's gradients of all parameters."""
    layer = srnn.LSTM(3, 6, dtype=np.float64, rng=rng)
    module = torch.nn.LSTM(3, 6, dtype=torch.float64)
    module.load_state_dict({name: torch.tensor(w) for name, w in layer.parameters.items()})
    x, drop = rng.standard_normal((7, 5, 3)), srnn.LockedDropout(0.4, rng=rng)
    trace = layer.forward(x)
    dropped = drop.forward(trace.output)
    _, d_ar = regularizers.activity(dropped.output, 2.0, reduction="mean")
    _, d_tar = regularizers.temporal_activity(trace.output, 1.0)
    grads = layer.backward(trace, drop.backward(dropped, d_ar).input + d_tar)
    raw, _ = module(torch.tensor(x))
    ar = 2.0 * (raw * torch.tensor(dropped.mask)).pow(2).mean()
    (ar + raw.diff(dim=0).pow(2).sum(-1).mean(0).mean()).backward()
    for name, parameter in module.named_parameters():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=REL)


def test_bad_input() -> None:
    h = np.zeros((7, 5, 6), np.float32)
    with pytest.raises(TypeError, match="h: expected a NumPy array; got list"):
        regularizers.activity([[[1.0]]], 1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="h: expected dtype float32 or float64; got int64"):
        regularizers.activity(np.zeros((7, 5, 6), np.int64), 1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"h: expected shape \(time, batch, hidden\) .* one step; got \(5, 6\)"):
        regularizers.temporal_activity(h[0], 1.0)
    with pytest.raises(ValueError, match=r"with at least one step; got \(0, 5, 6\)"):
        regularizers.norm_stabilizer(h[:0], 1.0)
    with pytest.raises(ValueError, match="alpha: expected a finite number of at least 0; got -1"):
        regularizers.activity(h, -1)
    with pytest.raises(TypeError, match="beta: expected a number; got str 'x'"):
        regularizers.temporal_activity(h, "x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta: expected a finite number of at least 0; got nan"):
        regularizers.norm_stabilizer(h, np.nan)
    with pytest.raises(ValueError, match="reduction: expected 'paper' or 'mean'; got 'sum'"):
        regularizers.activity(h, 1.0, reduction="sum")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="reduction: expected 'paper' or 'mean'; got None"):
        regularizers.temporal_activity(h, 1.0, reduction=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"lengths: expected values from 1 to 7, .*; got 8 at sample 1"):
        regularizers.activity(h, 1.0, lengths=[1, 8, 1, 1, 1])
    with pytest.raises(ValueError, match=r"before: expected shape \(5, 6\) for h of shape \(7, 5, 6\); got \(6,\)"):
        regularizers.temporal_activity(h, 1.0, before=h[0, 0])
    with pytest.raises(TypeError, match="initial: expected dtype float32; got float64"):
        regularizers.norm_stabilizer(h, 1.0, initial=np.zeros((5, 6)))
    with pytest.raises(TypeError, match=r"reset: expected a NumPy array of bool; got an array .* float64"):
        regularizers.temporal_activity(h, 1.0, reset=np.zeros((7, 5)))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"reset: expected a NumPy array of bool; got a masked array"):
        regularizers.temporal_activity(h, 1.0, reset=np.ma.masked_array(np.zeros((7, 5), bool), mask=True))
    with pytest.raises(ValueError, match=r"reset: expected shape \(7, 5\) for h of shape \(7, 5, 6\); got \(5, 7\)"):
        regularizers.norm_stabilizer(h, 1.0, reset=np.zeros((5, 7), bool))


def test_norms_that_float32_cannot_divide_by() -> None:
    h = np.array([[[3.0, 4.0]], [[0.0, 1.0]]], np.float32)
    h[0] *= np.float32(1e-40)  # subnormal: 1 over its norm is infinite in float32
    _, d_h = regularizers.norm_stabilizer(h, 1.0)
    assert_close("d_h", d_h[0, 0], np.array([-0.6, -0.8], np.float32), rel=1e-4)  # h has four digits there
