"""LastStep against torch, and training on drawn batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.data import adding_problem
from scratchrnn.losses import cross_entropy, mse_loss
from scratchrnn.models import LastStep
from scratchrnn.optim import SGD, Adam
from scratchrnn.rng import torch_manual_seed
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.train import DivergedError, Sampled, Trainer

T, B, I, H, O = 7, 5, 3, 6, 2
LENGTHS = [4, 7, 1, 7, 3]


def new(cell: str, rng: np.random.Generator, **options: Any) -> LastStep:
    kind = srnn.LSTM if cell == "lstm" else srnn.RNN
    return LastStep(kind(I, H, dtype=np.float64, rng=rng, **options), O, rng=rng)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(
    ("cell", "options"),
    [
        *((cell, {}) for cell in ("rnn", "lstm")),
        *((cell, {"num_layers": 2}) for cell in ("rnn", "lstm")),
        *((cell, {"num_layers": 2, "bidirectional": True}) for cell in ("rnn", "lstm")),
        *((cell, {"batch_first": True}) for cell in ("rnn", "lstm")),
        ("lstm", {"proj_size": 4}),
    ],
)
def test_everything_equals_torch(
    cell: str, lengths: list[int] | None, options: dict[str, Any], rng: np.random.Generator, each_backend: str
) -> None:
    model = new(cell, rng, **options)
    x = rng.standard_normal((B, T, I) if "batch_first" in options else (T, B, I))
    weights = rng.standard_normal((B, O))

    module = srnn.interop.torch.to_module(model.rnn)
    linear = srnn.interop.torch.to_module(model.decoder)
    read = x_t = torch.from_numpy(x).requires_grad_()
    if lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(
            x_t, torch.tensor(lengths), batch_first="batch_first" in options, enforce_sorted=False
        )
    _, state = module(read)
    h_n = state[0] if cell == "lstm" else state
    top = torch.cat(list(h_n[-model.rnn.num_directions :]), dim=1)
    want = linear(top)
    (want * torch.from_numpy(weights)).sum().backward()

    trace = model.forward(x, lengths)
    grads = model.backward(trace, weights)
    assert_close("output", trace.output, want.detach().numpy(), rel=TOLERANCE["float64"])
    assert_close("inference", model(x, lengths), trace.output, rel=TOLERANCE["float64"])
    assert_close("dx", grads.input, x_t.grad.numpy(), rel=TOLERANCE["float64"])  # type: ignore[union-attr]
    named = {f"rnn.{n}": p for n, p in module.named_parameters()} | {
        f"decoder.{n}": p for n, p in linear.named_parameters()
    }
    assert list(grads.parameters) == list(model.parameters) == list(named)
    for name, parameter in named.items():
        assert_close(name, grads.parameters[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])
    assert grads[0].h.shape == (T + 1, B, model.rnn.output_size)


def test_parameters_are_the_layers_own_arrays(rng: np.random.Generator) -> None:
    model = new("lstm", rng)
    assert model.parameters["rnn.weight_hh_l0"] is model.rnn.parameters["weight_hh_l0"]
    assert model.parameters["decoder.bias"] is model.decoder.parameters["bias"]


def test_configuration(rng: np.random.Generator) -> None:
    model = new("lstm", rng, num_layers=2, bidirectional=True)
    twin = LastStep._of_config(model.config())
    twin.load_state_dict(model.state_dict())
    x = rng.standard_normal((T, B, I))
    assert_close("output", twin(x), model(x), rel=0)
    assert repr(model).startswith("LastStep(LSTM(input_size=3, hidden_size=6, num_layers=2")


@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_batch_of_nobody(bidirectional: bool, rng: np.random.Generator) -> None:
    model = new("lstm", rng, bidirectional=bidirectional)
    trace = model.forward(np.zeros((T, 0, I)))
    grads = model.backward(trace, np.zeros((0, O)))
    assert (trace.output.shape, grads.input.shape) == ((0, O), (T, 0, I))
    assert not any(g.any() for g in grads.parameters.values())


def test_a_wrapper_is_saved_as_its_layer(rng: np.random.Generator, tmp_path: Path) -> None:
    model = LastStep(srnn.WeightDrop(srnn.LSTM(I, H, dtype=np.float64, rng=rng), 0.5, rng=rng), O, rng=rng)
    x = rng.standard_normal((T, B, I))
    assert (model.forward(x).output != model(x)).any()  # weights are dropped in training alone
    model.save(tmp_path / "model.safetensors")
    loaded = LastStep.load(tmp_path / "model.safetensors")
    assert type(loaded.rnn) is srnn.LSTM
    assert_close("output", loaded(x), model(x), rel=0)


def test_refuses(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    with pytest.raises(TypeError, match=r"^layer: expected an RNN or LSTM; got int 3"):
        LastStep(3, 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^out_features: expected an integer of at least 1|^out_features"):
        LastStep(srnn.RNN(2, 3, rng=rng), 0)
    with pytest.raises(ValueError, match=r"^x: expected three axes, time, batch and input; got shape \(7, 3\)"):
        model.forward(rng.standard_normal((T, I)))
    with pytest.raises(ValueError, match=r"^x: expected three axes, time, batch and input; got shape \(7, 3\)"):
        model(rng.standard_normal((T, I)))
    trace = model.forward(rng.standard_normal((T, B, I)))
    with pytest.raises(ValueError, match=r"^d_output: expected shape \(5, 2\) of the trace's output; got \(2, 5\)"):
        model.backward(trace, rng.standard_normal((O, B)))
    with pytest.raises(TypeError, match=r"^trace: expected what forward of LastStep"):
        model.backward(trace.rnn, trace.output)  # type: ignore[arg-type]


# --- drawn batches


def adding(rng: np.random.Generator, steps: int = 8, **options: Any) -> Sampled:
    model = LastStep(srnn.LSTM(2, 12, dtype=np.float64, rng=rng), 1, rng=rng)
    held_out = adding_problem(steps, 200, np.random.default_rng(9), dtype=np.float64)

    def draw(rng: Any) -> Any:
        return adding_problem(steps, 30, rng, dtype=np.float64)

    return Sampled(model, draw, mse_loss, rng=rng, held_out=held_out, **options)


def test_a_step_is_a_drawn_batch_forward_and_back(rng: np.random.Generator) -> None:
    task = adding(rng)
    again = np.random.default_rng(0)
    again.bit_generator.state = rng.bit_generator.state
    outcome = task.step()
    inputs, targets = adding_problem(8, 30, again, dtype=np.float64)
    trace = task.model.forward(inputs)
    loss, d_output = mse_loss(trace.output, targets)
    assert outcome.loss == float(loss)
    assert outcome.count == 30
    for name, gradient in task.model.backward(trace, d_output).parameters.items():
        assert np.array_equal(outcome.gradients[name], gradient)
    assert task.blame() is None


def test_the_adding_problem_is_learned(rng: np.random.Generator) -> None:
    task = adding(rng, figures=lambda output, targets: {"within 0.1": float((abs(output - targets) < 0.1).mean())})
    trainer = Trainer(task, Adam(task.parameters, lr=0.02), steps=400, evaluate_every=200, progress=False)
    first = task.evaluate()
    last = [step.evaluation for step in trainer if step.evaluation][-1]
    assert first["loss"] > 1 / 6 * 0.9
    assert last["loss"] < 0.01
    assert last["within 0.1"] > 0.8


def test_items_of_classes_leave_out_those_ignored(rng: np.random.Generator) -> None:
    model = LastStep(srnn.RNN(3, 4, rng=rng), 5, rng=rng)
    x, y = rng.standard_normal((6, 4, 3), np.float32), np.array([0, -100, 4, 2])
    assert Sampled(model, lambda rng: (x, y), cross_entropy, rng=rng, nats=True).step().count == 3


def test_what_is_not_finite_is_named(rng: np.random.Generator) -> None:
    task = adding(rng)
    draw = task.draw

    def spoiled(rng: Any) -> Any:
        inputs, targets = draw(rng)
        inputs[5, 3, 1] = np.inf
        return inputs, targets

    task.draw = spoiled
    with pytest.raises(DivergedError, match=r"at step 1; first: layer 0, step 5, input, sample 3, unit 1 is inf$"):
        Trainer(task, SGD(task.parameters, lr=0.1), steps=3, progress=False).run()
    task.model.parameters["rnn.bias_ih_l0"][3] = np.nan
    assert str(task.blame()).startswith("parameter rnn.bias_ih_l0[3] is nan (1 of 48")


def test_sampled_refuses(rng: np.random.Generator, tmp_path: Path) -> None:
    model = LastStep(srnn.RNN(3, 4, rng=rng), 5, rng=rng)
    with pytest.raises(TypeError, match=r"^rng: expected the generator that draws the batches; got None"):
        Sampled(model, lambda rng: (0, 0), mse_loss, rng=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^held_out: expected inputs and targets to evaluate on; got None"):
        Sampled(model, lambda rng: (0, 0), mse_loss, rng=rng).evaluate()


@pytest.mark.parametrize("kind", [np.random.default_rng, torch_manual_seed])
def test_a_task_goes_on_only_as_itself(kind: Any, rng: np.random.Generator) -> None:
    def new(steps: int = 8, loss: Any = mse_loss, hidden: int = 4, held_out: int = 9) -> Sampled:
        model = LastStep(srnn.LSTM(2, hidden, rng=np.random.default_rng(1)), 1, rng=np.random.default_rng(2))
        kept = adding_problem(8, 5, np.random.default_rng(held_out))
        return Sampled(model, lambda rng: adding_problem(steps, 3, rng), loss, rng=kind(3), held_out=kept)

    task = new()
    task.step()
    state = task.state_dict()
    want = task.step()
    same = new()
    same.load_state_dict(state)
    got = same.step()
    assert got.loss == want.loss
    for name, gradient in want.gradients.items():
        assert np.array_equal(got.gradients[name], gradient)
    for other, name in (
        (new(steps=9), "next_batch"),
        (new(loss=lambda output, targets: mse_loss(output, targets)), "loss"),
        (new(hidden=5), "model"),
        (new(held_out=10), "held_out"),
    ):
        before = other.state_dict()["generators"]
        with pytest.raises(ValueError, match=f"resume: the run was made with {name}="):
            other.load_state_dict(state)
        assert str(other.state_dict()["generators"]) == str(before)
