"""Gradients itemised by loss and by step.

Oracle: torch autograd in float64, a cell loop in which every step has its own copy of every weight, and one call of
autograd for each loss.
"""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow import Itemized, itemized, weight_gradient_norms
from scratchrnn.gradflow.itemized import _prefixes
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]
T, B, I, H = 7, 3, 4, 5


def build(kind: str, **options: Any) -> Any:
    if kind == "lstm":
        return srnn.LSTM(I, H, **options)
    return srnn.RNN(I, H, nonlinearity=kind, **options)


def time_major(layer: Any, array: np.ndarray) -> np.ndarray:
    return array.transpose(1, 0, 2) if layer.batch_first and array.ndim == 3 else array


@dataclasses.dataclass
class Reference:
    """[t, k, ...]: autograd of the loss at t, one call for each."""

    input: np.ndarray  # (T, T, B, I)
    h: list[np.ndarray]  # per layer (T, T, B, P)
    c: list[np.ndarray]
    a: list[np.ndarray]
    h_0: np.ndarray  # (T, L, B, P)
    c_0: np.ndarray | None
    weights: dict[str, np.ndarray]  # (T, T, ...)


def reference(layer: Any, trace: Any, x: np.ndarray, state: Any, d_output: np.ndarray) -> Reference:
    """Arrays time-major with a batch."""
    steps, layers = len(x), layer.num_layers
    copies = [
        {name: torch.tensor(value, requires_grad=True) for name, value in layer.parameters.items()}
        for _ in range(steps)
    ]
    source = [torch.tensor(x_k, requires_grad=True) for x_k in x]
    h_0 = torch.tensor(state[0] if isinstance(state, tuple) else state, requires_grad=True)
    c_0 = torch.tensor(state[1], requires_grad=True) if isinstance(state, tuple) else None
    below, hs, cs, pre = list(source), [], [], []
    for n in range(layers):
        h, c = h_0[n], None if c_0 is None else c_0[n]
        for of in (hs, cs, pre):
            of.append([])
        for w, u in zip(copies, below, strict=True):
            a = u @ w[f"weight_ih_l{n}"].T + h @ w[f"weight_hh_l{n}"].T
            if layer.bias:
                a = a + w[f"bias_ih_l{n}"] + w[f"bias_hh_l{n}"]
            pre[n].append(a)
            if c is not None:
                i, f, g, o = a.chunk(4, dim=1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                cs[n].append(c)
                h = o.sigmoid() * c.tanh()
                if layer.proj_size:
                    h = h @ w[f"weight_hr_l{n}"].T
            else:
                h = a.tanh() if layer.cell.nonlinearity == "tanh" else a.relu()
            hs[n].append(h)
        mask = trace.dropout_masks[n] if n < layers - 1 else None
        below = hs[n] if mask is None else [h * torch.tensor(m) for h, m in zip(hs[n], mask, strict=True)]

    def gradients(losses: list[torch.Tensor], leaves: list[torch.Tensor]) -> np.ndarray:
        rows = []
        for loss in losses:
            found = torch.autograd.grad(loss, leaves, retain_graph=True, allow_unused=True)
            rows.append([np.zeros(v.shape) if d is None else d.numpy() for d, v in zip(found, leaves, strict=True)])
        return np.array(rows)

    running = np.arange(steps)[:, None] < trace.lengths
    losses = [(h * torch.tensor(d * on[:, None])).sum() for h, d, on in zip(hs[-1], d_output, running, strict=True)]
    return Reference(
        gradients(losses, source),
        [gradients(losses, of) for of in hs],
        [gradients(losses, of) for of in cs if of],
        [gradients(losses, of) for of in pre],
        gradients(losses, [h_0])[:, 0],
        None if c_0 is None else gradients(losses, [c_0])[:, 0],
        {name: gradients(losses, [w[name] for w in copies]) for name in layer.parameters},
    )


def frobenius(d: np.ndarray) -> np.ndarray:  # (T, T, ...) to (T, T)
    return np.asarray(np.sqrt((d**2).reshape(*d.shape[:2], -1).sum(axis=-1)))


def compare(got: Itemized, want: Reference, sample: int) -> None:
    assert_close("input", got.input, np.linalg.norm(want.input, axis=-1), rel=EXACT)
    v = got.vectors
    assert v is not None
    assert_close("vectors.input", v.input, want.input[:, :, sample], rel=EXACT)
    for n, h in enumerate(want.h):
        whole = h.sum(axis=0)
        assert_close(f"h[{n}]", got.h[n], np.linalg.norm(h, axis=-1), rel=EXACT)
        size = np.linalg.norm(whole, axis=-1)
        along = np.einsum("tkbp,kbp->tkb", h, whole) / np.where(size == 0, 1.0, size)
        assert_close(f"along[{n}]", got.along[n], along, rel=EXACT)
        assert_close(f"vectors.h[{n}]", v.h[n], h[:, :, sample], rel=EXACT)
        assert_close(f"vectors.a[{n}]", v.a[n], want.a[n][:, :, sample], rel=EXACT)
        assert_close(f"vectors.h_0[{n}]", v.h_0[n], want.h_0[:, n, sample], rel=EXACT)
        assert (got.c is None) == (not want.c)
        if got.c is not None and v.c is not None and v.c_0 is not None and want.c_0 is not None:
            assert_close(f"c[{n}]", got.c[n], np.linalg.norm(want.c[n], axis=-1), rel=EXACT)
            assert_close(f"vectors.c[{n}]", v.c[n], want.c[n][:, :, sample], rel=EXACT)
            assert_close(f"vectors.c_0[{n}]", v.c_0[n], want.c_0[:, n, sample], rel=EXACT)
    assert got.weights.keys() == want.weights.keys()
    for name, d in want.weights.items():
        assert_close(f"weights[{name}]", got.weights[name], frobenius(d), rel=EXACT)


LAYERS: list[tuple[str, dict[str, Any]]] = [
    ("tanh", {}),
    ("relu", {"num_layers": 2, "batch_first": True}),
    ("lstm", {}),
    ("lstm", {"num_layers": 2, "batch_first": True, "bias": False}),
    ("lstm", {"num_layers": 2, "proj_size": 2, "dropout": 0.4}),
    ("tanh", {"num_layers": 3, "dropout": 0.3}),
]


def problem(kind: str, options: dict[str, Any], rng: np.random.Generator, lengths: Any = None, **how: Any) -> Any:
    """Layer, trace; and x, state, d_output time-major."""
    layer = build(kind, **options, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, layer.output_size))
    h_0 = rng.standard_normal((layer.num_layers, B, layer.output_size))
    state: Any = (h_0, rng.standard_normal((layer.num_layers, B, H))) if kind == "lstm" else h_0
    trace = layer.forward(time_major(layer, x), state, lengths, **how)
    return layer, trace, x, state, d_output


@pytest.mark.parametrize("lengths", [None, [4, 7, 1]])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
@pytest.mark.usefixtures("each_backend")
def test_equal_to_torch_loss_by_loss(
    kind: str, options: dict[str, Any], lengths: Any, rng: np.random.Generator
) -> None:
    layer, trace, x, state, d_output = problem(kind, options, rng, lengths)
    want = reference(layer, trace, x, state, d_output)
    compare(itemized(layer, trace, time_major(layer, d_output), sample=1), want, 1)


@pytest.mark.parametrize("lengths", [None, [4, 7, 1]])
@pytest.mark.parametrize(("kind", "options"), LAYERS)
def test_sums_over_the_losses_are_what_backward_returns(
    kind: str, options: dict[str, Any], lengths: Any, rng: np.random.Generator
) -> None:
    layer, trace, _, _, d_output = problem(kind, options, rng, lengths)
    d = time_major(layer, d_output)
    grads = layer.backward(trace, d)
    for b in range(B):
        items = itemized(layer, trace, d, sample=b)
        v = items.vectors
        assert v is not None
        assert_close("input", v.input.sum(axis=0), time_major(layer, grads.input)[:, b], rel=EXACT)
        for n in range(layer.num_layers):
            one = grads[n]
            assert_close("h", v.h[n].sum(axis=0), one.h[1:, b], rel=EXACT)
            assert_close("a", v.a[n].sum(axis=0), one.a[:, b], rel=EXACT)
            assert_close("h_0", v.h_0[n].sum(axis=0), one.h[0, b], rel=EXACT)
            assert_close("along", items.along[n, :, :, b].sum(0), np.linalg.norm(one.h[1:, b], axis=-1), rel=EXACT)
            if v.c is not None and v.c_0 is not None:
                assert_close("c", v.c[n].sum(axis=0), one.c[1:, b], rel=EXACT)
                assert_close("c_0", v.c_0[n].sum(axis=0), one.c[0, b], rel=EXACT)


@pytest.mark.parametrize("minimal", [False, True])
@pytest.mark.parametrize("memory", [1, 60_000, 2**28])
def test_neither_groups_nor_what_the_trace_keeps_change_a_thing(
    memory: int, minimal: bool, rng: np.random.Generator
) -> None:
    lstm = srnn.LSTM(I, H, 2, dropout=0.5, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((30, B, I)), rng.standard_normal((30, B, H))
    lengths = [30, 12, 21]
    full = lstm.forward(x, lengths=lengths, rng=np.random.default_rng(1))
    want = itemized(lstm, full, d_output, sample=2)
    trace = lstm.forward(x, lengths=lengths, rng=np.random.default_rng(1), trace="minimal") if minimal else full
    got = itemized(lstm, trace, d_output, sample=2, memory=memory)
    for name in ("input", "h", "c", "along"):
        assert_close(name, getattr(got, name), getattr(want, name), rel=EXACT)
    for name, norm in want.weights.items():
        assert_close(name, got.weights[name], norm, rel=EXACT)
    assert got.vectors is not None
    assert want.vectors is not None
    for field in dataclasses.fields(want.vectors):
        assert_close(field.name, getattr(got.vectors, field.name), getattr(want.vectors, field.name), rel=EXACT)


def test_a_sequence_without_a_batch_and_a_single_step(rng: np.random.Generator) -> None:
    for batch_first in (False, True):
        lstm = srnn.LSTM(I, H, batch_first=batch_first, dtype=np.float64, rng=rng)
        for steps in (1, T):
            x, d_output = rng.standard_normal((steps, I)), rng.standard_normal((steps, H))
            alone = itemized(lstm, lstm.forward(x), d_output, sample=0)
            x, d_output = (time_major(lstm, array[:, None]) for array in (x, d_output))
            batch = itemized(lstm, lstm.forward(x), d_output, sample=0)
            assert alone.h.shape == (1, steps, steps, 1)
            assert_close("input", alone.input, batch.input, rel=0)
            assert_close("h", alone.h, batch.h, rel=0)
            assert alone.vectors is not None
            assert batch.vectors is not None
            assert_close("a", alone.vectors.a, batch.vectors.a, rel=0)


def test_float32_is_as_near_as_float32_is(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, rng=rng)
    x, d_output = (rng.standard_normal((T, B, n)).astype(np.float32) for n in (I, H))
    got = itemized(lstm, lstm.forward(x), d_output, sample=1)
    assert got.h.dtype == got.weights["weight_hh_l1"].dtype == np.float64
    assert got.vectors is not None
    assert got.vectors.h.dtype == np.float32
    wide = srnn.LSTM(I, H, 2, dtype=np.float64)
    wide.load_state_dict({name: w.astype(np.float64) for name, w in lstm.parameters.items()})
    want = itemized(wide, wide.forward(x.astype(np.float64)), d_output.astype(np.float64))
    rel = 50 * 2.0**-23  # T steps of a few roundings each
    assert_close("h", got.h, want.h, rel=rel)
    assert_close("weight_hh_l1", got.weights["weight_hh_l1"], want.weights["weight_hh_l1"], rel=rel)


# What is known in closed form


def identity_rnn(scale: float) -> srnn.RNN:
    """h_t = x_t + scale · h_{t-1} for positive input: dh_t/dh_k = scale^(t-k)."""
    rnn = srnn.RNN(2, 2, nonlinearity="relu", bias=False, dtype=np.float64)
    rnn.parameters["weight_ih_l0"][:] = np.eye(2)
    rnn.parameters["weight_hh_l0"][:] = scale * np.eye(2)
    return rnn


def test_powers_on_the_diagonals_and_their_shares() -> None:
    rnn = identity_rnn(0.5)
    trace = rnn.forward(np.ones((12, 1, 2)))
    items = itemized(rnn, trace, np.ones((12, 1, 2)))
    lag = np.arange(12)[:, None] - np.arange(12)
    powers = np.where(lag >= 0, 0.5 ** np.maximum(lag, 0), 0.0)
    assert_close("h", items.h[0, :, :, 0], np.sqrt(2) * powers, rel=EXACT)
    assert_close("along", items.along[0, :, :, 0], np.sqrt(2) * powers, rel=EXACT)  # all pull the same way
    # of the steps k < 12 - reach, those that have reach = 6 steps after them
    parts = np.array([sum(0.5**d for k in range(6) if k + d < 12) for d in range(12)])
    want = [parts[d + 1 :].sum() / parts.sum() for d in range(7)]
    assert_close("share", items.share_beyond(), np.array(want), rel=EXACT)
    assert_close("share to 2", items.share_beyond(2, layer=0)[2:], np.array([items_share(12, 2)]), rel=EXACT)


def items_share(steps: int, reach: int) -> float:
    """Share from beyond `reach`, counted pair by pair."""
    pairs = [(0.5 ** (t - k), t - k) for k in range(steps - reach) for t in range(k, steps)]
    return sum(p for p, d in pairs if d > reach) / sum(p for p, _ in pairs)


def test_losses_that_pull_apart_have_shares_below_0_and_above_1() -> None:
    rnn = identity_rnn(1.0)
    d_output = np.ones((4, 1, 2))
    d_output[1:] = -0.25
    items = itemized(rnn, rnn.forward(np.ones((4, 1, 2))), d_output)
    share = items.share_beyond(3)  # of step 0 alone: 1, then three times -1/4, in all 1/4
    assert_close("share", share, np.array([-3.0, -2.0, -1.0, 0.0]), rel=EXACT)


def test_shares_leave_out_padding_and_steps_near_an_end(rng: np.random.Generator) -> None:
    rnn = identity_rnn(0.5)
    x = np.ones((12, 2, 2))
    both = itemized(rnn, rnn.forward(x, lengths=[9, 12]), np.ones((12, 2, 2)))
    parts = [itemized(rnn, rnn.forward(x[:n, :1]), np.ones((n, 1, 2))) for n in (9, 12)]
    along = [part.along[0, :, :, 0] for part in parts]
    later = np.zeros(12)
    for a, n in zip(along, (9, 12), strict=True):
        for k in range(n - 4):
            later[: n - k] += a[k:, k]
    want = np.append(np.cumsum(later[::-1])[::-1][1:], 0)[:5] / later.sum()
    assert_close("share", both.share_beyond(4), want, rel=EXACT)
    assert len(both.share_beyond()) == 9 // 2 + 1


def test_nothing_to_share_is_nan(rng: np.random.Generator) -> None:
    rnn = identity_rnn(0.5)
    items = itemized(rnn, rnn.forward(np.ones((4, 1, 2))), np.zeros((4, 1, 2)))
    assert not items.along.any()
    assert np.isnan(items.share_beyond(1)).all()


def test_tiny_and_huge_gradients_keep_their_norms() -> None:
    for scale in (1e-250, 1e250):
        rnn = identity_rnn(0.5)
        trace = rnn.forward(np.ones((4, 2, 2)))
        d_output = np.full((4, 2, 2), scale)
        items, grads = itemized(rnn, trace, d_output), rnn.backward(trace, d_output)
        lag = np.arange(4)[:, None] - np.arange(4)
        powers = np.where(lag >= 0, 0.5 ** np.maximum(lag, 0), 0.0)
        assert_close("h", items.h[0, :, :, 1] / scale, np.sqrt(2) * powers, rel=EXACT)
        assert_close("W_ih", items.weights["weight_ih_l0"] / scale, 4 * powers, rel=EXACT)  # two samples of ones (2, 2)
        norms = weight_gradient_norms(trace, grads)["weight_ih_l0"]
        assert_close("norms", norms / scale, 4 * powers.sum(axis=0), rel=EXACT)


def test_the_norm_of_what_nearly_cancels_is_exact() -> None:
    # by inner products of inner products its square would be 4 - 4 and lose half of the digits
    rnn = identity_rnn(0.5)
    d_output = np.ones((1, 2, 2))
    d_output[0, 1] = -1 + 1e-9
    items = itemized(rnn, rnn.forward(np.ones((1, 2, 2))), d_output)
    assert items.weights["weight_ih_l0"][0, 0] == pytest.approx(2e-9, rel=1e-6)


def test_nan_reaches_no_loss_before_it(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    x = rng.standard_normal((20, B, I))  # three losses go back together
    d_output = rng.standard_normal((20, B, H))
    clean = itemized(lstm, lstm.forward(x), d_output)
    x[4, 1] = np.nan
    got = itemized(lstm, lstm.forward(x), d_output)
    assert_close("before", got.h[0, :4], clean.h[0, :4], rel=EXACT)
    assert_close("other samples", got.h[0][:, :, [0, 2]], clean.h[0][:, :, [0, 2]], rel=EXACT)
    assert np.isnan(got.h[0, 5, 3, 1])
    assert not got.h[0][np.triu_indices(20, 1)].any()
    assert not got.along[0][np.triu_indices(20, 1)].any()
    assert_close("weights", got.weights["weight_hh_l0"][:4], clean.weights["weight_hh_l0"][:4], rel=EXACT)
    assert np.isnan(got.weights["weight_hh_l0"][5, 5])


def test_prefixes_are_what_forward_makes_of_them(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    x = rng.standard_normal((T, B, I))
    trace = lstm.forward(x)
    got = _prefixes(trace, [trace[0].gates, trace[1].gates], slice(3, 5))
    want = lstm.forward(np.tile(x[:5], (1, 2, 1)), lengths=[4, 4, 4, 5, 5, 5])
    assert got.lengths.tolist() == want.lengths.tolist()
    assert_close("output", got.output, want.output, rel=0)
    for n in range(2):
        for name in ("h", "c", "gates", "input"):
            assert_close(name, getattr(got[n], name), getattr(want[n], name), rel=EXACT)


def test_memory_is_bounded(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(16, 48, 2, rng=rng)
    trace = lstm.forward(rng.standard_normal((120, 4, 16)).astype(np.float32))
    d_output = rng.standard_normal((120, 4, 48)).astype(np.float32)
    itemized(lstm, trace, d_output)  # compiled
    peaks = []
    for memory in (2**23, 2**28):
        tracemalloc.start()
        got = itemized(lstm, trace, d_output, memory=memory)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert got.c is not None
        arrays = [got.input, got.h, got.c, got.along, *got.weights.values()]
        assert peaks[-1] - sum(a.nbytes for a in arrays) < memory + 4 * 2**20  # what T steps take in any case
    assert peaks[0] < 0.8 * peaks[1]


# Bad input


def test_bad_input(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    trace, d_output = lstm.forward(rng.standard_normal((T, B, I))), np.ones((T, B, H))
    both = srnn.LSTM(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    with pytest.raises(ValueError, match="layer: expected one direction; got bidirectional=True"):
        itemized(both, both.forward(np.ones((T, B, I))), np.ones((T, B, 2 * H)))
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM layer; got str 'x'"):
        itemized("x", trace, d_output)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="trace: expected what forward"):
        itemized(lstm, d_output, d_output)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"trace: expected one of LSTM\(input_size=4, hidden_size=6"):
        itemized(srnn.LSTM(I, H + 1, dtype=np.float64), trace, d_output)
    with pytest.raises(
        ValueError, match=r"d_output: expected shape \(7, 3, 5\) of the trace's output; got \(3, 7, 5\)"
    ):
        itemized(lstm, trace, np.ones((B, T, H)))
    with pytest.raises(TypeError, match="d_output: expected dtype float64; got float32"):
        itemized(lstm, trace, d_output.astype(np.float32))
    with pytest.raises(ValueError, match="trace: expected at least one sequence; got a batch of 0"):
        itemized(lstm, lstm.forward(np.ones((T, 0, I))), np.ones((T, 0, H)))
    with pytest.raises(ValueError, match="sample: expected an integer from 0 to 2; got 3"):
        itemized(lstm, trace, d_output, sample=3)
    with pytest.raises(ValueError, match="memory: expected an integer of at least 1; got 0"):
        itemized(lstm, trace, d_output, memory=0)
    items = itemized(lstm, trace, d_output)
    assert items.vectors is None
    with pytest.raises(ValueError, match="reach: expected an integer from 0 to 6; got 7"):
        items.share_beyond(7)
    with pytest.raises(ValueError, match="layer: expected an integer from -1 to 0; got 1"):
        items.share_beyond(layer=1)
