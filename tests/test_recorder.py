"""The recorder of gradient flow: each sample against torch autograd, training unchanged to the bit, resumed runs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import checkpoint, data, losses, models, optim, train
from scratchrnn.dynamics import saturation
from scratchrnn.gradflow import GradientFlow, GradientFlowRecorder, TaskProbe, TextProbe, measure_decay
from scratchrnn.gradflow.recorder import is_due
from scratchrnn.testing import TOLERANCE, assert_close

EXACT = TOLERANCE["float64"]
TEXT = "abaabaaabcab" * 60


def char_model(cell: str, seed: int = 0, **options: Any) -> models.CharModel:
    return models.CharModel("abc", cell, 7, 4, rng=np.random.default_rng(seed), **options)


def trainer_of(
    model: models.CharModel, steps: int, recorder: Callable[..., object] | None = None, **options: Any
) -> train.Trainer:
    codes = model.vocabulary.encode(TEXT)
    objective = train.LanguageModel(
        model, data.ContiguousRows(codes, batch=5), k1=6, dropout=0.2, rng=np.random.default_rng(4)
    )
    callbacks = [] if recorder is None else [recorder]
    optimizer = optim.Adam(model.parameters, lr=0.02)
    return train.Trainer(objective, optimizer, steps=steps, callbacks=callbacks, progress=False, **options)


def text_probe(distance: int = 11, sequences: int = 6) -> TextProbe:
    return TextProbe(char_model("rnn").vocabulary.encode(TEXT)[:40], distance=distance, sequences=sequences)


def as_torch(layer: Any) -> Any:
    kind, options = (torch.nn.LSTM, {}) if layer.cell.has_c else (torch.nn.RNN, {"nonlinearity": "tanh"})
    module = kind(layer.input_size, layer.hidden_size, layer.num_layers, dtype=torch.float64, **options)
    module.load_state_dict({name: torch.tensor(value) for name, value in layer.parameters.items()})
    return module


def medians(d: torch.Tensor | None) -> np.ndarray:  # d (T, B, I)
    assert d is not None
    return np.asarray(np.median(np.linalg.norm(d.numpy(), axis=2), axis=1)[::-1])


# One sample


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "learned_state": True}])
def test_a_sample_is_what_torch_says(cell: str, options: dict[str, Any]) -> None:
    model = char_model(cell, dtype=np.float64, **options)
    if model.initial_state is not None:
        for value in model.initial_state.parameters.values():
            value += 0.3
    probe = text_probe()
    recorder = GradientFlowRecorder(probe)
    recorder(trainer_of(model, 9))
    flow = recorder.result()

    codes = torch.tensor(probe.codes)
    x = torch.tensor(model.parameters["embedding.weight"])[codes[:-1]].requires_grad_()
    state = None
    if model.initial_state is not None:
        start: Any = model.initial_state(6)
        state = tuple(map(torch.tensor, start)) if cell == "lstm" else torch.tensor(start)
    output, _ = as_torch(model.rnn)(x, state)
    weight, bias = (torch.tensor(model.parameters[f"decoder.{name}"]) for name in ("weight", "bias"))
    logits = output[-1] @ weight.T + bias
    torch.nn.functional.cross_entropy(logits, codes[-1], reduction="sum").backward()

    assert flow.steps.tolist() == [0]
    assert_close("input", flow.input[0], medians(x.grad), rel=EXACT)
    assert flow.h.shape == (1, model.rnn.num_layers, 11)
    assert (flow.c is None) == (cell == "rnn")
    decay = measure_decay(flow.input[0])
    for name, value in vars(decay).items():
        assert getattr(flow, name).tolist() == [value], name
    assert np.isnan([flow.loss[0], flow.gradient_norm[0]]).all()


def test_a_sample_of_a_task_is_what_torch_says() -> None:
    rng = np.random.default_rng(0)
    model = models.LastStep(srnn.LSTM(2, 7, 2, dtype=np.float64, rng=rng), 3, rng=rng)
    inputs, targets = rng.standard_normal((9, 4, 2)), rng.standard_normal((4, 3))
    task = train.Sampled(model, lambda rng: (inputs, targets), losses.mse_loss, rng=rng)
    recorder = GradientFlowRecorder(TaskProbe(inputs, targets))
    recorder(train.Trainer(task, optim.Adam(model.parameters), steps=2, progress=False))

    x = torch.tensor(inputs, requires_grad=True)
    output, _ = as_torch(model.rnn)(x)
    weight, bias = (torch.tensor(model.parameters[f"decoder.{name}"]) for name in ("weight", "bias"))
    torch.nn.functional.mse_loss(output[-1] @ weight.T + bias, torch.tensor(targets)).backward()
    assert_close("input", recorder.result().input[0], medians(x.grad), rel=EXACT)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_rates_are_those_of_saturation(cell: str) -> None:
    # large weights, so that there is something at every end; sequences of their own lengths
    rng = np.random.default_rng(3)
    layer: Any = (srnn.LSTM if cell == "lstm" else srnn.RNN)(3, 8, 2, rng=rng)
    for weight in layer.parameters.values():
        weight *= 6
    x, lengths = rng.standard_normal((12, 5, 3), np.float32), [12, 3, 7, 1, 9]
    seen: list[Any] = []

    def probe(objective: Any) -> Any:
        trace = layer.forward(x, lengths=lengths)
        seen.append(trace)
        return layer, trace, np.ones((5, 8), np.float32)

    recorder = GradientFlowRecorder(probe)
    recorder(trainer_of(char_model("rnn"), 1))
    flow = recorder.result()
    for n in range(2):
        found = saturation(seen[0], layer=n)
        assert flow.h_saturation[0, n] == found.rate
        if cell == "lstm":
            assert flow.gate_saturation is not None
            assert flow.forget_gate is not None
            shares = [[found.gates[gate].left_share, found.gates[gate].right_share] for gate in "ifo"]
            assert_close("gates", flow.gate_saturation[0, n], np.array(shares), rel=EXACT)
            f = np.concatenate([seen[0][n].f[:length, b] for b, length in enumerate(lengths)])
            assert flow.forget_gate[0, n] == pytest.approx(f.astype(np.float64).mean(), rel=EXACT)
    if cell == "rnn":
        assert flow.h_saturation.min() > 0.1
        assert flow.gate_saturation is flow.forget_gate is flow.c is None
        want = [
            torch.linalg.eigvals(torch.tensor(layer.parameters[f"weight_hh_l{n}"]).double()).abs().max().item()
            for n in range(2)
        ]
        assert flow.spectral_radius is not None
        assert_close("spectral_radius", flow.spectral_radius[0], np.array(want), rel=EXACT)
    else:
        assert flow.spectral_radius is None


def test_a_gradient_that_is_not_finite_is_recorded_and_breaks_nothing() -> None:
    model = char_model("rnn")
    recorder = GradientFlowRecorder(text_probe())
    trainer = trainer_of(model, 1)
    model.parameters["rnn.weight_hh_l0"][0, 0] = np.nan
    recorder(trainer)
    flow = recorder.result()
    assert (flow.censored[0], flow.exploding[0], flow.horizon[0]) == (True, True, 10)
    assert np.isnan(flow.decay_time[0])
    assert flow.spectral_radius is not None
    assert np.isnan(flow.spectral_radius[0])


def test_nor_does_a_last_step_that_passes_nothing_back() -> None:
    # gates that the last input saturates to the last digit; what came before still reaches the loss along c
    lstm = srnn.LSTM(1, 4, rng=np.random.default_rng(0))
    x = np.full((11, 6, 1), 0.1, np.float32)
    x[-1] = 1e4
    recorder = GradientFlowRecorder(lambda objective: (lstm, lstm.forward(x), np.ones((6, 4), np.float32)))
    recorder(trainer_of(char_model("rnn"), 1))
    flow = recorder.result()
    assert flow.input[0, 0] == 0 < flow.input[0, 1]
    assert (flow.censored[0], flow.exploding[0], flow.horizon[0]) == (True, True, 10)
    assert np.isnan(flow.decay_factor[0])


# Over training


def test_samples_are_taken_when_the_schedule_says() -> None:
    recorder = GradientFlowRecorder(text_probe(), every=10)
    trainer = trainer_of(char_model("lstm"), 34, recorder)
    recorder(trainer)
    steps = list(trainer)
    flow = recorder.result()
    assert flow.steps.tolist() == [0, 1, 2, 4, 8, 10, 20, 30, 34]
    for n, number in enumerate(flow.steps[1:], start=1):
        assert (flow.loss[n], flow.gradient_norm[n]) == (steps[number - 1].loss, steps[number - 1].gradient_norm)
    assert recorder.seconds == pytest.approx(flow.seconds.sum())
    assert recorder.share == pytest.approx(recorder.seconds / trainer.seconds)
    assert [n for n in range(9) if is_due(n, 1)] == list(range(9))
    assert sum(is_due(n, 50) for n in range(1, 1201)) == 30  # what the budget is computed with


def test_the_last_update_is_sampled_where_patience_ends_the_run() -> None:
    model, recorder = char_model("lstm"), GradientFlowRecorder(text_probe(), every=10)
    codes = model.vocabulary.encode(TEXT)
    objective = train.LanguageModel(model, data.ContiguousRows(codes, batch=5), k1=6, held_out=codes)
    optimizer = optim.SGD(model.parameters, lr=1e-30)  # nothing gets better
    trainer = train.Trainer(
        objective, optimizer, steps=40, evaluate_every=7, patience=1, callbacks=[recorder], progress=False
    )
    assert trainer.run().stopped == "patience"
    assert recorder.result().steps.tolist() == [1, 2, 4, 8, 10, 14]


def test_what_changes_in_the_net_shows() -> None:
    model = char_model("lstm")

    def forget_less(trainer: train.Trainer, step: train.Step) -> None:
        model.parameters["rnn.bias_hh_l0"][7:14] += 0.5

    recorder = GradientFlowRecorder(text_probe(distance=30), every=2)
    codes = model.vocabulary.encode(TEXT)
    objective = train.LanguageModel(model, data.ContiguousRows(codes, batch=5), k1=6)
    optimizer = optim.SGD(model.parameters, lr=1e-9)
    trainer = train.Trainer(objective, optimizer, steps=8, callbacks=[forget_less, recorder], progress=False)
    trainer.run()
    flow = recorder.result()
    assert flow.forget_gate is not None
    assert (np.diff(flow.forget_gate[:, 0]) > 0).all()
    assert (np.diff(flow.decay_time) > 0).all()
    assert flow.horizon[-1] > 2 * flow.horizon[0]


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_training_is_not_changed_by_a_bit(cell: str, each_backend: str) -> None:
    runs = []
    for recorder in (None, GradientFlowRecorder(text_probe(), every=3)):
        model = char_model(cell, num_layers=2, learned_state=True)
        trainer = trainer_of(model, 20, recorder)
        losses = [step.loss for step in trainer]
        runs.append((losses, model.parameters, trainer.objective.state_dict()["generators"]))
    (plain, weights, generators), (watched, others, generators_too) = runs
    assert plain == watched
    assert generators == generators_too
    for name, value in weights.items():
        assert_close(name, others[name], value, rel=0)


def test_dropout_between_layers_neither_acts_nor_draws() -> None:
    rng = np.random.default_rng(0)
    model = models.LastStep(srnn.LSTM(2, 6, 2, dropout=0.9, rng=rng), 1, rng=rng)
    task = train.Sampled(model, lambda rng: data.adding_problem(8, 3, rng), losses.mse_loss, rng=rng)
    before = task.state_dict()["generators"]
    probe = TaskProbe(*data.adding_problem(8, 5, np.random.default_rng(1)))
    first, second = (probe(task)[1].output for _ in range(2))
    assert_close("output", first, second, rel=0)
    assert_close("output", first, model.rnn(probe.inputs)[0], rel=0)
    assert task.state_dict()["generators"] == before


def test_nor_in_a_text_model() -> None:
    model = char_model("lstm", num_layers=2)
    objective = trainer_of(model, 1).objective
    want = text_probe()(objective)[1].output
    model.rnn.dropout = 0.9
    before = objective.state_dict()["generators"]
    assert_close("output", text_probe()(objective)[1].output, want, rel=0)
    assert objective.state_dict()["generators"] == before


# Kept and gone on with


def assert_same(got: GradientFlow, want: GradientFlow) -> None:
    for field in fields(GradientFlow):
        a, b = getattr(got, field.name), getattr(want, field.name)
        if isinstance(b, np.ndarray) and field.name != "seconds":
            np.testing.assert_array_equal(a, b, err_msg=field.name)
            assert a.dtype == b.dtype, field.name
        elif field.name != "seconds":
            assert a == b, field.name


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_saved_and_loaded(cell: str, tmp_path: Path) -> None:
    recorder = GradientFlowRecorder(text_probe())
    trainer = trainer_of(char_model(cell), 4, recorder)
    recorder(trainer)
    trainer.run()
    path = tmp_path / "flow.safetensors"
    recorder.result().save(path)
    assert_same(GradientFlow.load(path), recorder.result())
    checkpoint.save(path, {"step": 1})
    with pytest.raises(ValueError, match=r"flow.safetensors: expected what GradientFlow.save wrote; got step"):
        GradientFlow.load(path)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("killed_at", [1, 5, 9, 10, 13])
def test_a_resumed_run_has_the_samples_of_an_undisturbed_one(killed_at: int, tmp_path: Path) -> None:
    def run(folder: Path | None, dies: bool) -> GradientFlow:
        file = None if folder is None else folder / "flow.safetensors"
        recorder = GradientFlowRecorder(text_probe(), every=3, file=file)

        def die(trainer: train.Trainer, step: train.Step) -> None:
            if dies and step.number == killed_at:
                raise KilledError

        def both(trainer: train.Trainer, step: train.Step) -> None:
            recorder(trainer, step)
            die(trainer, step)

        kept = {} if folder is None else {"folder": folder / "run", "checkpoint_every": 4, "resume": True}
        trainer = trainer_of(char_model("lstm"), 14, both, **kept)
        recorder(trainer)
        trainer.run()
        if file is not None:
            assert_same(GradientFlow.load(file), recorder.result())
        return recorder.result()

    undisturbed = run(None, dies=False)
    with pytest.raises(KilledError):
        run(tmp_path, dies=True)
    resumed = run(tmp_path, dies=False)
    assert resumed.steps.tolist() == [0, 1, 2, 3, 6, 9, 12, 14]
    assert_same(resumed, undisturbed)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "flow.safetensors"
    recorder = GradientFlowRecorder(text_probe(), file=file)
    recorder(trainer_of(char_model("rnn"), 3))
    GradientFlowRecorder(text_probe(), file=file)
    with pytest.raises(ValueError, match="every=50; got every=20"):
        GradientFlowRecorder(text_probe(), every=20, file=file)
    with pytest.raises(ValueError, match=r"probe='TextProbe\(\w{16}, distance=11, sequences=6\)'; got probe="):
        GradientFlowRecorder(text_probe(sequences=7), file=file)
    recorder.result().save(file)
    with pytest.raises(ValueError, match=r"expected what a GradientFlowRecorder wrote; got gradient_flow"):
        GradientFlowRecorder(text_probe(), file=file)


# Bad input


def test_a_recorder_serves_one_run() -> None:
    recorder = GradientFlowRecorder(text_probe(), every=2)
    trainer_of(char_model("rnn"), 4, recorder).run()
    with pytest.raises(ValueError, match="trainer: expected more than 4 updates, those of the last sample; got 1"):
        trainer_of(char_model("rnn"), 4, recorder).run()


def test_one_that_went_on_from_a_file_does_too(tmp_path: Path) -> None:
    file = tmp_path / "flow.safetensors"
    trainer_of(char_model("rnn"), 4, GradientFlowRecorder(text_probe(), file=file)).run()
    recorder = GradientFlowRecorder(text_probe(), file=file)
    trainer_of(char_model("rnn"), 4, recorder).run()
    assert recorder.result().steps.tolist() == [1, 2, 4]
    with pytest.raises(ValueError, match="trainer: expected more than 4 updates"):
        trainer_of(char_model("rnn"), 4, recorder).run()


def test_a_probe_that_changes_its_length_is_refused() -> None:
    lengths = iter([9, 9, 8])
    recorder = GradientFlowRecorder(lambda objective: text_probe(distance=next(lengths))(objective))
    with pytest.raises(ValueError, match="probe: expected 9 time steps, as at the first sample; got 8"):
        trainer_of(char_model("rnn"), 4, recorder).run()


def test_no_sample_no_result() -> None:
    recorder = GradientFlowRecorder(text_probe())
    with pytest.raises(ValueError, match="expected a sample"):
        recorder.result()
    assert recorder.seconds == 0
    assert math.isnan(recorder.share)


CODES = np.arange(20) % 3

BAD: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: GradientFlowRecorder(CODES), TypeError, "probe: expected a function of the objective"),  # type: ignore[arg-type]
    (lambda: GradientFlowRecorder(text_probe(), every=0), ValueError, "every"),
    (lambda: GradientFlowRecorder(text_probe(), threshold=1.0), ValueError, "threshold"),
    (lambda: TextProbe("abc"), TypeError, "text: expected a NumPy array of codes"),  # type: ignore[arg-type]
    (lambda: TextProbe(CODES.astype(float)), TypeError, r"codes \(N,\); got an array of shape \(20,\) and dtype float"),
    (lambda: TextProbe(CODES[:, None]), TypeError, r"got an array of shape \(20, 1\)"),
    (lambda: TextProbe(CODES), ValueError, "at least distance [+] sequences = 116 codes; got 20"),
    (lambda: TextProbe(CODES, distance=1), ValueError, "distance"),
    (lambda: TextProbe(CODES, sequences=0), ValueError, "sequences"),
    (lambda: TaskProbe(np.zeros((3, 2)), 0), ValueError, r"inputs: expected three axes.*got shape \(3, 2\)"),
]


@pytest.mark.parametrize(("make", "error", "message"), BAD)
def test_bad_arguments(make: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_a_probe_of_another_objective_is_refused() -> None:
    rng = np.random.default_rng(0)
    inputs, targets = data.adding_problem(8, 3, rng)
    both = srnn.LSTM(2, 3, bidirectional=True, rng=rng)
    tasks = [
        train.Sampled(models.LastStep(layer, 1, rng=rng), lambda rng: (inputs, targets), losses.mse_loss, rng=rng)
        for layer in (srnn.LSTM(2, 3, rng=rng), srnn.WeightDrop(srnn.LSTM(2, 3, rng=rng), 0.5, rng=rng), both)
    ]
    with pytest.raises(TypeError, match="objective: expected LanguageModel with a CharModel; got Sampled"):
        text_probe()(tasks[0])
    with pytest.raises(TypeError, match="objective: expected Sampled with a LastStep; got LanguageModel"):
        TaskProbe(inputs, targets)(trainer_of(char_model("rnn"), 1).objective)
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM layer; got WeightDrop"):
        TaskProbe(inputs, targets)(tasks[1])
    with pytest.raises(ValueError, match="layer: expected one direction"):
        TaskProbe(inputs, targets)(tasks[2])
