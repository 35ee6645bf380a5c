"""A healthy net has no symptom; each that is planted is found, with its place and cause, and no other."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import data, losses, models, optim, train
from scratchrnn.dynamics import Diagnosis, Diagnostics, diagnose, diagnose_model, diagnose_stream
from scratchrnn.dynamics.symptoms import NAMES, SEVERITIES

T, B, I, H = 23, 5, 3, 8


def half_square(output: np.ndarray, targets: Any) -> tuple[float, np.ndarray]:
    return float((output**2).sum() / 2), output.copy()


def found(diagnosis: Diagnosis) -> list[tuple[str, str]]:
    return [(one.name, one.where) for one in diagnosis.findings]


def rows(layer: Any, name: str, gate: str) -> np.ndarray:
    """The rows of one gate of an LSTM's parameter, a view."""
    size = layer.hidden_size
    start = "ifgo".index(gate) * size
    return layer.parameters[name][start : start + size]


# Health

LAYERS: list[tuple[type, dict[str, Any]]] = [
    (srnn.RNN, {}),
    (srnn.RNN, {"num_layers": 3}),
    (srnn.RNN, {"nonlinearity": "relu"}),
    (srnn.LSTM, {}),
    (srnn.LSTM, {"num_layers": 2, "bidirectional": True}),
    (srnn.LSTM, {"proj_size": 5}),
]


@pytest.mark.parametrize("seed", range(20))
def test_a_healthy_net_has_no_finding(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for kind, options in LAYERS:
        for hidden in (8, 48):
            layer = kind(I, hidden, rng=rng, **options)
            x = rng.standard_normal((T, B, I), np.float32)
            result = diagnose_model(layer, x, x, loss=half_square, lengths=[T, 1, 7, T, 4])
            assert result.findings == (), (kind, options, hidden)
            assert result.healthy


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("seed", range(4))
def test_a_net_that_learns_has_no_finding(cell: str, seed: int) -> None:
    watch, model, codes = trained(cell, seed)
    watch.add(model.forward(codes[:60]).rnn)
    assert watch.result().findings == ()


TEXT = "the cat sat on the mat and a dog ran by the park. " * 20


def trained(
    cell: str, seed: int, lr: float = 0.003, change: Callable[..., None] | None = None
) -> tuple[Diagnostics, models.CharModel, np.ndarray]:
    """A character model after 40 updates, and what watched them."""
    rng = np.random.default_rng(seed)
    vocabulary = data.Vocabulary(TEXT)
    model = models.CharModel(vocabulary.characters, cell, 24, 16, rng=rng)
    codes = data.ContiguousRows(vocabulary.encode(TEXT), batch=6)
    if change is not None:
        change(model, codes, rng)
    watch = Diagnostics()
    objective = train.LanguageModel(model, codes, k1=20)
    optimizer = optim.Adam(model.parameters, lr=lr)
    train.Trainer(objective, optimizer, steps=40, progress=False, callbacks=[watch]).run()
    return watch, model, codes.inputs


# All zeros


def dead_relu(layer: Any) -> None:
    layer.parameters["bias_ih_l1"][:] = -100


def closed_output(layer: Any) -> None:
    rows(layer, "bias_ih_l1", "o")[:] = -20


def closed_input(layer: Any) -> None:
    rows(layer, "bias_ih_l1", "i")[:] = -20


def tiny(layer: Any) -> None:
    for name in ("weight_ih_l1", "weight_hh_l1", "bias_ih_l1", "bias_hh_l1"):
        layer.parameters[name] *= 1e-4


ZEROS: list[tuple[type, dict[str, Any], Callable[[Any], None], str, str]] = [
    (srnn.RNN, {"nonlinearity": "relu"}, dead_relu, "dead relu units", "dead_units"),
    (srnn.LSTM, {}, closed_output, "the output gate is closed", "output_gate_max"),
    (srnn.LSTM, {}, closed_input, "the input gate is closed", "input_gate_max"),
    (srnn.RNN, {}, tiny, "weights so small", "rms_weight_ih"),
    (srnn.LSTM, {}, tiny, "weights so small", "rms_weight_hh"),
]


@pytest.mark.parametrize(("kind", "options", "plant", "cause", "evidence"), ZEROS)
def test_all_zeros(
    kind: type, options: dict[str, Any], plant: Callable[[Any], None], cause: str, evidence: str
) -> None:
    rng = np.random.default_rng(0)
    layer = kind(I, H, 3, rng=rng, **options)
    plant(layer)
    trace = layer.forward(rng.standard_normal((T, B, I), np.float32))
    result = diagnose(trace)
    assert found(result) == [("all zeros", "layer 1 forward, h")]
    (one,) = result.findings
    assert one.severity == ("warning" if plant is tiny else "fault")  # from tiny weights a net can learn
    assert one.likely_cause.startswith(cause)
    assert one.evidence["near_zero"] >= 0.99
    assert evidence in one.evidence
    assert one.evidence["gradient"] == "not looked at"  # zeros say nothing of it
    assert "gradient" not in one.likely_cause


def test_zero_input_is_told_from_a_zero_net_and_named_once() -> None:
    rnn = srnn.RNN(I, H, 3, bias=False, rng=np.random.default_rng(0))
    result = diagnose(rnn.forward(np.zeros((T, B, I), np.float32)))
    assert found(result) == [("all zeros", "layer 0 forward, h")]  # not the layers that it feeds, nor "identical"
    assert result.findings[0].likely_cause.startswith("the input itself is zero")


def test_zeros_with_a_gradient_that_does_not_vanish() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, rng=rng)
    tiny_weights = {name: weight * 1e-4 for name, weight in rnn.parameters.items()}
    rnn.load_state_dict(tiny_weights)
    x = rng.standard_normal((T, B, I), np.float32)
    result = diagnose_model(rnn, x, x, loss=lambda output, targets: (0.0, np.ones_like(output)))
    (one,) = result.findings
    assert one.name == "all zeros"
    assert one.evidence["gradient"].startswith("norm 6.32 ")  # sqrt(40): it arrives in whole


# Saturated


@pytest.mark.parametrize(("name", "factor", "cause"), [
    ("input", 100.0, "what comes from the input"),
    ("weight_hh_l0", 200.0, "what comes from the state before"),
    ("bias_ih_l0", 400.0, "the biases"),
])  # fmt: skip
def test_saturated_rnn(name: str, factor: float, cause: str) -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, 40, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    if name == "input":
        x *= factor
    else:
        rnn.parameters[name] *= factor
    result = diagnose(rnn.forward(x))
    one = result.findings[0]
    assert (one.name, one.where, one.severity) == ("saturated", "layer 0 forward, h", "warning")
    assert one.likely_cause.startswith(cause)
    if name == "bias_ih_l0":  # then all samples are in the same corner: identical, and because of that
        assert [f.name for f in result.findings[1:]] in ([], ["identical across the batch"])
        assert all(f.likely_cause.startswith("saturation") for f in result.findings[1:])
    else:
        assert len(result.findings) == 1


def test_saturated_lstm_is_seen_in_the_cell_not_in_open_gates() -> None:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(I, H, bidirectional=True, rng=rng)
    x = rng.standard_normal((60, B, I), np.float32)
    for name in ("bias_ih_l0", "bias_ih_l0_reverse"):
        rows(lstm, name, "f")[:] = 20
    assert diagnose(lstm.forward(x)).findings == ()  # every forget gate is open: a long memory
    rows(lstm, "bias_ih_l0_reverse", "g")[:] = 3
    result = diagnose(lstm.forward(x))
    assert found(result) == [("saturated", "layer 0 reverse, tanh_c")]
    assert result.findings[0].likely_cause == "the cell adds up more than it forgets"
    assert result.findings[0].evidence["mean_forget_gate"] > 0.99
    rows(lstm, "bias_ih_l0_reverse", "g")[:] = 0
    state = np.zeros((2, B, H), np.float32), np.zeros((2, B, H), np.float32)
    state[1][0] = rng.choice([-40, 40], (B, H))
    result = diagnose(lstm.forward(x, state))
    assert found(result) == [("saturated", "layer 0 forward, tanh_c")]
    assert "begin with" in result.findings[0].likely_cause


# Identical across the batch


@pytest.mark.parametrize("kind", [srnn.RNN, srnn.LSTM])
def test_identical_though_the_inputs_differ(kind: Any) -> None:
    rng = np.random.default_rng(0)
    layer = kind(I, H, 2, bidirectional=True, rng=rng)
    layer.parameters["weight_ih_l1_reverse"][:] = 0
    x = rng.standard_normal((T, B, I), np.float32)
    result = diagnose(layer.forward(x, lengths=[T, 3, T, 1, 9]))
    assert found(result) == [("identical across the batch", "layer 1 reverse, h")]
    (one,) = result.findings
    assert one.severity == "fault"
    assert one.evidence["rms_weight_ih"] == 0.0
    assert one.likely_cause.startswith("the input does not reach the state")


def test_identical_inputs_are_a_note_on_the_data() -> None:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(I, H, 2, bidirectional=True, rng=rng)
    one_sample = rng.standard_normal((T, 1, I), np.float32)
    result = diagnose(lstm.forward(np.repeat(one_sample, B, axis=1)))
    assert found(result) == [("identical across the batch", f"layer 0 {d}, h") for d in ("forward", "reverse")]
    assert {one.severity for one in result.findings} == {"note"}
    assert result.healthy
    assert diagnose(lstm.forward(one_sample)).findings == ()  # a batch of one has nothing to be equal to
    watch = Diagnostics()
    watch.add(lstm.forward(np.repeat(one_sample, B, axis=1)))
    watch.add(lstm.forward(rng.standard_normal((T, B, I), np.float32)))
    assert watch.result().findings == ()  # one such batch among others


def test_each_direction_compares_what_it_read_at_its_own_steps() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, bidirectional=True, rng=rng)
    backwards = rng.standard_normal((T, I), np.float32)
    lengths = [T, 9, 15]
    x = np.zeros((T, 3, I), np.float32)
    for b, n in enumerate(lengths):
        x[:n, b] = backwards[:n][::-1]  # the same, read from the end
    result = diagnose(rnn.forward(x, lengths=lengths))
    assert [(one.where, one.severity) for one in result.findings] == [("layer 0 reverse, h", "note")]


# Not finite


def relu_that_explodes(rng: np.random.Generator) -> srnn.RNN:
    rnn = srnn.RNN(I, H, nonlinearity="relu", rng=rng)
    rnn.parameters["weight_hh_l0"][:] = 20 * np.eye(H)
    return rnn


def test_not_finite_forwards_by_cause() -> None:
    rng = np.random.default_rng(0)
    lstm = srnn.LSTM(I, H, 2, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    x[7, 2, 1] = np.nan
    (one,) = diagnose(lstm.forward(x)).findings
    assert (one.name, one.where) == ("not finite", "layer 0, step 7, input, sample 2, unit 1 is nan")
    assert one.evidence["step"] == 7
    assert one.likely_cause.startswith("what the net reads")

    x[7, 2, 1] = 0
    c_0 = np.zeros((2, B, H), np.float32)
    c_0[1, 3, 4] = np.inf
    one = diagnose(lstm.forward(x, (np.zeros_like(c_0), c_0))).findings[0]
    assert one.where == "layer 1, step 0, c_0, sample 3, unit 4 is inf"
    assert one.likely_cause.startswith("the state that the pass began with")

    rnn = relu_that_explodes(rng)
    (one,) = diagnose(rnn.forward(np.abs(rng.standard_normal((60, B, I), np.float32)))).findings
    assert one.name == "not finite"
    assert one.evidence["quantity"] == "a"
    assert one.likely_cause.startswith("overflow in the forward pass")

    lstm.parameters["weight_hh_l1"][3, 5] = np.nan
    one = diagnose(lstm.forward(x)).findings[0]
    assert one.where == "weight_hh_l1[3, 5] is nan"
    assert one.likely_cause.startswith("an update made a parameter")


def test_not_finite_backwards_by_cause() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, rng=rng)
    # units 4 to 7 hear only themselves, and rest at 0, where the derivative is 1: only the gradient explodes
    for name in ("weight_ih_l0", "bias_ih_l0", "bias_hh_l0"):
        rnn.parameters[name][4:] = 0
    rnn.parameters["weight_hh_l0"][4:] = 0
    rnn.parameters["weight_hh_l0"][4:, 4:] = 100 * np.eye(4)
    x = rng.standard_normal((40, B, I), np.float32)
    trace = rnn.forward(x)
    d_output = np.zeros_like(trace.output)
    d_output[-1] = 1
    (one,) = diagnose(trace, rnn.backward(trace, d_output)).findings
    assert one.name == "not finite"
    assert one.likely_cause.startswith("exploding gradients")
    assert one.evidence["step"] == 39 - math.ceil(math.log(float(np.finfo(np.float32).max), 100))
    assert one.where.startswith(f"layer 0, step {one.evidence['step']}, gradient of")
    healthy = srnn.RNN(I, H, rng=rng)
    trace = healthy.forward(x)
    d_output[11, 2, 3] = np.nan
    (one,) = diagnose(trace, healthy.backward(trace, d_output)).findings
    assert one.where == "layer 0, step 11, gradient of h, sample 2, unit 3 is nan"
    assert one.likely_cause.startswith("the gradient that was handed in")

    (one,) = diagnose_model(healthy, x, x, loss=lambda output, _: (math.inf, np.ones_like(output))).findings
    assert (one.name, one.where) == ("not finite", "loss is inf")
    assert one.likely_cause.startswith("the loss itself")


def test_the_first_of_a_stream_counts() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, rng=rng)
    batches = [rng.standard_normal((T, B, I), np.float32) for _ in range(4)]
    batches[2][5, 1, 0] = np.inf
    batches[3][0, 0, 0] = np.nan
    one = diagnose_stream(rnn, batches).findings[0]
    assert one.evidence["pass"] == 3
    assert one.where == "layer 0, step 5, input, sample 1, unit 0 is inf"


def test_not_finite_in_an_update() -> None:
    watch = Diagnostics()
    for loss in (1.0, 0.9, math.nan, math.nan):
        watch.add_update({"a": np.ones(3)}, loss)
    (one,) = watch.result().findings
    assert (one.name, one.where, one.evidence["update"]) == ("not finite", "loss of update 3 is nan", 3)
    watch = Diagnostics()
    watch.add_update({"a": np.ones(3)}, 1.0)
    watch.add_update({"a": np.array([1, np.inf, 1])}, 1.0)
    (one,) = watch.result().findings
    assert one.where == "a[1] is inf"
    assert one.likely_cause.startswith("an update made a parameter")


# No learning


@pytest.mark.parametrize("kind", [srnn.RNN, srnn.LSTM])
def test_a_decoder_of_zeros_lets_no_gradient_through(kind: Any) -> None:
    rng = np.random.default_rng(0)
    model = models.LastStep(kind(I, H, 2, rng=rng), 2, rng=rng)
    model.parameters["decoder.weight"][:] = 0
    x = rng.standard_normal((T, B, I), np.float32)
    result = diagnose_model(model, x, np.ones((B, 2), np.float32), loss=losses.mse_loss)
    assert found(result) == [("no learning", "layer 0 forward"), ("no learning", "layer 1 forward")]
    assert {one.severity for one in result.findings} == {"fault"}
    assert all(one.likely_cause.startswith("the loss does not depend") for one in result.findings)


def test_dead_units_with_and_without_a_gradient() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, nonlinearity="relu", rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    rnn.parameters["bias_ih_l0"][:6] = -100
    result = diagnose(rnn.forward(x))
    assert found(result) == [("no learning", "layer 0 forward")]
    (one,) = result.findings
    assert one.severity == "warning"
    assert one.evidence["dead_units"] >= 6
    assert one.evidence["units"] == H
    assert result.dead[0, "forward"][:6].all()
    rnn.parameters["bias_ih_l0"][:] = -100
    result = diagnose_model(rnn, x, x, loss=lambda output, _: (0.0, np.ones_like(output)))
    assert found(result) == [("all zeros", "layer 0 forward, h"), ("no learning", "layer 0 forward")]
    assert result.findings[1].likely_cause.startswith("dead units")


def zero_output(model: models.CharModel, *_: Any) -> None:
    model.parameters["decoder.weight"][:] = 0


@pytest.mark.parametrize(("lr", "severity", "cause"), [
    (0.0, "fault", "the parameters do not change"),
    (1e-7, "warning", "updates too small"),
    (1e-5, "warning", "updates too small"),
    (5.0, "warning", "updates too large"),
])  # fmt: skip
def test_no_learning_in_training(lr: float, severity: str, cause: str) -> None:
    watch, _, _ = trained("lstm", 0, lr)
    result = watch.result()
    assert found(result) == [("no learning", "training")]
    (one,) = result.findings
    assert (one.severity, one.likely_cause.startswith(cause)) == (severity, True), str(one)
    assert result.updates is not None
    assert one.evidence["relative_update"] == result.updates.relative_update
    assert result.updates.count == 40


def test_a_unit_that_one_batch_makes_active_is_not_dead() -> None:
    rng = np.random.default_rng(0)
    rnn = srnn.RNN(I, H, nonlinearity="relu", bias=False, rng=rng)
    x = rng.standard_normal((T, B, I), np.float32)
    quiet, loud = np.zeros_like(x), x
    for batches in ([loud, quiet], [quiet, loud]):
        result = diagnose_stream(rnn, batches)
        assert not result.dead[0, "forward"].all()
        np.testing.assert_array_equal(result.dead[0, "forward"], ~(rnn.forward(loud).h[1:] > 0).any(axis=(0, 1)))


def test_targets_that_have_nothing_to_do_with_the_inputs() -> None:
    rng = np.random.default_rng(0)
    model = models.LastStep(srnn.LSTM(I, H, rng=rng), 1, rng=rng)

    def draw(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return rng.standard_normal((T, 20, I), np.float32), rng.standard_normal((20, 1), np.float32)

    watch = Diagnostics()
    objective = train.Sampled(model, draw, losses.mse_loss, rng=rng)
    optimizer = optim.Adam(model.parameters, lr=0.003)
    train.Trainer(objective, optimizer, steps=100, progress=False, callbacks=[watch]).run()
    (one,) = watch.result().findings
    assert (one.name, one.severity) == ("no learning", "warning")
    assert one.likely_cause.startswith("updates of a usual size without effect")


def test_a_gradient_of_zero_and_parameters_that_stay() -> None:
    watch = Diagnostics()
    parameters = {"a": np.ones(3), "b": np.ones(2)}
    for _ in range(20):
        watch.add_update(parameters, 2.0, 0.0)
        parameters["a"] += 1e-3  # by weight decay, say
    (one,) = watch.result().findings
    assert one.likely_cause == "the gradient is exactly 0"
    assert one.evidence["unchanged"] == "b"


def test_few_updates_are_not_judged() -> None:
    watch = Diagnostics()
    for _ in range(19):
        watch.add_update({"a": np.ones(3)}, 1.0)
    assert watch.result().findings == ()
    watch.add_update({"a": np.ones(3)}, 1.0)
    assert len(watch.result().findings) == 1


def test_every_finding_has_a_known_name_and_severity() -> None:
    watch, _, _ = trained("rnn", 0, 0.0, zero_output)
    (one,) = watch.result().findings
    assert one.name in NAMES
    assert one.severity in SEVERITIES
