"""Diagnosis: the table against torch, gradients and updates by hand, the three ways in, and what is kept."""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import data, losses, models
from scratchrnn.dynamics import Diagnostics, Limits, diagnose, diagnose_model, diagnose_stream

T, B, I, H = 23, 5, 3, 8


def half_square(output: np.ndarray, targets: Any) -> tuple[float, np.ndarray]:
    return float((output**2).sum() / 2), output.copy()


# The table


@pytest.mark.parametrize("lengths", [None, [23, 1, 7, 23, 4]])
def test_the_table_is_that_of_torch(lengths: list[int] | None, rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, bidirectional=True, dtype=np.float64, rng=rng)
    for weight in lstm.parameters.values():
        weight *= 6
    watch = Diagnostics(Limits(near_zero=0.05, saturated=0.9))
    every: dict[tuple[Any, str], list[np.ndarray]] = {}
    for _ in range(3):  # as a stream: what is compared with is all of it at once
        trace = lstm.forward(rng.standard_normal((T, B, I)), lengths=lengths)
        watch.add(trace)
        for key, part in trace.layers.items():
            values = {"h": part.h[1:], "c": part.c[1:], "i": part.i, "f": part.f, "g": part.g, "o": part.o}
            for name, array in values.items():
                own = [array[:n, b] for b, n in enumerate(lengths or [T] * B)]
                every.setdefault((key, name), []).append(np.concatenate(own))
    result = watch.result()
    assert result.passes == 3
    for (key, name), parts in every.items():
        hidden = torch.tensor(np.concatenate(parts))
        got = result.layers[key][name]
        assert got.shape == tuple(hidden.shape)
        for figure, want in (("mean", hidden.mean()), ("std", hidden.std())):
            assert getattr(got, figure) == pytest.approx(want.item(), rel=1e-12, abs=1e-14), (key, name, figure)
        assert (got.min, got.max) == (hidden.min().item(), hidden.max().item())
        assert got.near_zero == (hidden.abs() < 0.05).double().mean().item()
        ends = (hidden < 0.1) | (hidden > 0.9) if name in "ifo" else hidden.abs() > 0.9
        if name == "c":
            assert got.saturated is None
        else:
            assert got.saturated == pytest.approx(ends.double().mean().item(), rel=1e-12)
            assert 0 < got.saturated < 1
        assert (got.nan_count, got.inf_count) == (0, 0)


def test_one_step_of_float32_and_the_seeds_keys() -> None:
    rng = np.random.default_rng(1)
    rnn = srnn.RNN(I, H, rng=rng)
    trace = rnn.forward(rng.standard_normal((1, B, I), np.float32))
    hidden = torch.tensor(trace.state[-1])
    got = diagnose(trace).layers[0, "forward"]["h"]
    assert got.shape == (B, H)
    assert got.mean == pytest.approx(hidden.mean().item(), rel=1e-5)
    assert got.std == pytest.approx(hidden.std().item(), rel=1e-6)
    assert got.near_zero == pytest.approx((hidden.abs() < 0.01).float().mean().item())


@pytest.mark.parametrize("kind", ["RNN", "LSTM"])
def test_the_step_of_a_cell_is_that_of_a_layer(kind: str) -> None:
    rng = np.random.default_rng(1)
    layer = getattr(srnn, kind)(I, H, dtype=np.float64, rng=rng)
    cell = getattr(srnn, f"{kind}Cell")(I, H, dtype=np.float64, rng=rng)
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in layer.state_dict().items()})
    x, d = rng.standard_normal((B, I)), rng.standard_normal((B, H))
    trace, step = layer.forward(x[None]), cell.forward(x)
    want = diagnose(trace, layer.backward(trace, d[None]))
    got = diagnose(step, cell.backward(step, d))
    assert str(got) == str(want)
    assert got.gradients == want.gradients


def test_what_is_not_finite_is_counted_and_left_out() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(2, 3, nonlinearity="relu", dtype=np.float64, rng=rng)
    x = rng.standard_normal((6, 2, 2))
    x[4, 0], x[3, 1] = np.nan, np.inf
    trace = rnn.forward(x)
    h = torch.tensor(trace.h[1:])
    got = diagnose(trace).layers[0, "forward"]["h"]
    assert (got.nan_count, got.inf_count) == (h.isnan().sum().item(), h.isinf().sum().item())
    assert min(got.nan_count, got.inf_count) > 0
    known = h[h.isfinite()]
    assert got.mean == pytest.approx(known.mean().item(), rel=1e-12)
    assert got.std == pytest.approx(known.std().item(), rel=1e-12)
    nothing = diagnose(rnn.forward(np.full((4, 2, 2), np.nan))).layers[0, "forward"]["h"]
    assert nothing.nan_count == 4 * 2 * 3
    assert all(math.isnan(v) for v in (nothing.mean, nothing.std, nothing.min, nothing.max, nothing.near_zero))


def test_gradient_figures_are_norms_at_both_ends(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    lengths = [9, 2, 5]
    trace = rnn.forward(rng.standard_normal((9, 3, I)), lengths=lengths)
    grads = rnn.backward(trace, rng.standard_normal(trace.output.shape))
    result = diagnose(trace, grads)
    for key, part in grads.layers.items():
        got = result.gradients[key]
        assert got.first == pytest.approx(np.linalg.norm(part.h[1]), rel=1e-12)
        assert got.last == pytest.approx(np.linalg.norm([part.h[n, b] for b, n in enumerate(lengths)]), rel=1e-12)
        assert got.ratio == got.first / got.last
        assert got.any


# Updates


def test_update_figures_by_hand() -> None:
    rng = np.random.default_rng(0)
    watch = Diagnostics()
    theta = {"a": rng.standard_normal((3, 4)), "b": rng.standard_normal(2)}
    values, relative = 3 - 0.1 * np.arange(20) + 0.01 * rng.standard_normal(20), []
    for value in values:
        before = np.concatenate([array.ravel().copy() for array in theta.values()])
        for array in theta.values():
            array += 0.01 * rng.standard_normal(array.shape)
        after = np.concatenate([array.ravel() for array in theta.values()])
        relative.append(np.linalg.norm(after - before) / np.linalg.norm(before))
        watch.add_update(theta, value, 0.5)
    result = watch.result()
    assert result.findings == ()
    u = result.updates
    assert u is not None
    assert u.relative_update == pytest.approx(np.median(relative[1:]), rel=1e-12)  # of the first it is not known
    assert (u.first_loss, u.last_loss) == pytest.approx((values[:5].mean(), values[-5:].mean()), rel=1e-12)
    assert u.scatter == pytest.approx(np.sqrt((np.diff(values) ** 2).mean() / 2), rel=1e-12)
    assert (u.start_loss, u.lowest_last_loss) == (values[0], values[-5:].min())
    assert u.noise == pytest.approx(np.sqrt((np.diff(values) ** 2).mean() / 2 * 2 / 5), rel=1e-12)
    assert (u.gradient_norm, u.unchanged) == (0.5, ())
    assert Diagnostics().result().updates is None


# The three ways in, and what is kept


def test_model_layer_and_trace_agree(each_backend: str) -> None:
    rng = np.random.default_rng(0)
    text = data.Vocabulary("abcde")
    model = models.CharModel(text.characters, "lstm", H, 4, num_layers=2, rng=rng)
    codes, targets = rng.integers(0, 5, (T, B)), rng.integers(0, 5, (T, B))
    by_model = diagnose_model(model, codes, targets, loss=losses.cross_entropy)
    trace = model.forward(codes)
    _, d_logits = losses.cross_entropy(trace.logits, targets)
    by_trace = diagnose(trace.rnn, model.backward(trace, d_logits))
    by_stream = diagnose_stream(model, [(codes, targets)], loss=losses.cross_entropy)
    minimal = model.rnn.forward(trace.embedding.output, trace="minimal")
    assert by_model.layers == by_trace.layers == by_stream.layers == diagnose(minimal).layers
    assert by_model.gradients == by_trace.gradients == by_stream.gradients
    assert by_model.gradients.keys() == by_model.layers.keys() == {(0, "forward"), (1, "forward")}


def test_wrappers_and_a_batchless_input() -> None:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(I, H, 2, rng=rng)
    x = rng.standard_normal((T, I), np.float32)
    assert diagnose_model(lstm, x).layers[1, "forward"]["h"].shape == (T, H)
    for wrapped in (srnn.WeightDrop(lstm, 0.3, rng=rng), srnn.Zoneout(lstm, 0.1, 0.1, rng=rng)):
        result = diagnose_model(wrapped, x[:, None], x, loss=half_square)
        assert result.findings == ()
        assert result.gradients[0, "forward"].any


def test_a_stream_is_not_kept() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, rng=rng)
    alive: list[weakref.ref[Any]] = []

    def batches() -> Iterator[np.ndarray]:
        for _ in range(6):
            batch = rng.standard_normal((T, B, I), np.float32)
            alive.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in alive) <= 1

    result = diagnose_stream(rnn, batches())
    assert result.passes == 6
    assert result.layers[0, "forward"]["h"].shape == (6 * T * B, H)


def test_printed() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, nonlinearity="relu", rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    text = str(diagnose_model(rnn, x, x, loss=half_square))
    assert "rnn_relu, 1 forward pass" in text
    assert f"({T * B}, {H})" in text
    assert "units never active: " in text
    assert "|dL/dh|" in text
    assert text.endswith("Findings: none")
    assert max(map(len, text.splitlines())) <= 120
    x[3] = np.nan
    text = str(diagnose(rnn.forward(x)))
    assert "Findings: 1\nnot finite (fault): layer 0, step 3, input" in text
    for word in ("evidence", "likely cause", "try"):
        assert f"\n  {word} " in text
    assert str(Diagnostics().result()).strip() == "Findings: none"


# Errors


def test_bad_input() -> None:
    rng = np.random.default_rng(0)
    rnn, lstm = srnn.RNN(I, H, rng=rng), srnn.LSTM(I, H, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    trace = rnn.forward(x)
    with pytest.raises(TypeError, match="trace: expected what forward of a layer returned; got an array"):
        diagnose(x)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="gradients: expected what backward of a layer returned; got an array"):
        diagnose(trace, x)  # type: ignore[arg-type]
    two = srnn.RNN(I, H, 2, rng=rng)
    grads = two.backward(two.forward(x), np.ones((T, B, H), np.float32))
    with pytest.raises(ValueError, match=r"gradients: expected those of \[\(0, 'forward'\)\]"):
        diagnose(trace, grads)
    watch = Diagnostics()
    watch.add(trace)
    with pytest.raises(ValueError, match="trace: expected one of the same layer as before"):
        watch.add(lstm.forward(x))
    with pytest.raises(ValueError, match="trace: expected at least one sequence; got a batch of 0"):
        diagnose(rnn.forward(x[:, :0]))
    with pytest.raises(ValueError, match="loss: expected a function of output and targets"):
        diagnose_model(rnn, x, x)
    with pytest.raises(TypeError, match="model: expected a recurrent layer, or a model whose trace has one"):
        diagnose_model(srnn.Linear(I, 2, rng=rng), x)
    with pytest.raises(ValueError, match="batches: expected at least one; got none"):
        diagnose_stream(rnn, [])
    watch.add_update({"a": np.ones(2)}, 1.0)
    for wrong in ({}, {"b": np.ones(2)}):
        with pytest.raises(ValueError, match="parameters: expected those of the updates before; got"):
            watch.add_update(wrong, 1.0)
    with pytest.raises(TypeError, match="limits: expected Limits"):
        diagnose(trace, limits=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="zeros_share: expected a number between 0 and 1; got 2"):
        Limits(zeros_share=2)
    with pytest.raises(ValueError, match="least_updates: expected an integer of at least 8; got 2"):
        Limits(least_updates=2)


@pytest.mark.parametrize("kind", [srnn.RNN, srnn.LSTM])
def test_inputs_that_differ_by_little(kind: Any) -> None:
    rng = np.random.default_rng(0)
    layer = kind(I, H, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    (one,) = diagnose(layer.forward(1e-7 * x)).findings
    assert (one.name, one.severity) == ("identical across the batch", "fault")
    assert one.likely_cause.startswith("the inputs differ by so little")
    (one,) = diagnose(layer.forward(1 + 1e-6 * x)).findings
    assert (one.name, one.severity) == ("identical across the batch", "note")
    assert one.likely_cause.startswith("the samples read nearly the same input")
    if kind is srnn.LSTM:
        layer.parameters["bias_ih_l0"][:] = np.repeat([-20, 20, 0, 20], H)  # i, f, g, o
        state = np.ones((1, B, H), np.float32), np.ones((1, B, H), np.float32)
        (one,) = diagnose(layer.forward(1e-7 * x, state)).findings
        assert one.likely_cause.endswith("or an input gate that is closed")
