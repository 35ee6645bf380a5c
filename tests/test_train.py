"""LanguageModel and evaluate against torch: the same windows, states, masks and losses, step by step with autograd."""

from __future__ import annotations

import gc
import math
import weakref
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn import bptt, regularizers
from scratchrnn.data import ContiguousRows, unigram_entropy
from scratchrnn.layers.dropout import draw_mask
from scratchrnn.models import CharModel
from scratchrnn.optim import SGD, Adam
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.train import NATS_PER_BIT, DivergedError, LanguageModel, Trainer, evaluate
from tests.test_models import TorchModel

CHARACTERS = "abcdef"
E, H, L, B = 4, 7, 2, 3


def new(cell: str, rng: np.random.Generator, dtype: Any = np.float64, *, learned: bool = False) -> CharModel:
    model = CharModel(CHARACTERS, cell, H, E, L, learned_state=learned, dtype=dtype, rng=rng)
    if model.initial_state is not None:
        for array in model.initial_state.parameters.values():
            array[...] = rng.standard_normal(array.shape)
    return model


class Replay:
    """What LanguageModel does, in torch: one step at a time, the states of a window kept for the next."""

    def __init__(
        self, model: CharModel, rows: ContiguousRows, k1: int, k2: int, *,
        dropout: float = 0.0, rng: np.random.Generator | None = None,
        alpha: float = 0.0, h_detach: float = 0.0,
    ) -> None:  # fmt: skip
        self.net, self.rows, self.k1, self.k2 = TorchModel(model), rows, k1, k2
        self.dropout, self.rng, self.alpha, self.h_detach = dropout, rng, alpha, h_detach
        count = 2 if model.cell == "lstm" else 1
        zeros = [torch.zeros(L, H, dtype=torch.float64) for _ in range(count)]
        learned = {} if model.initial_state is None else model.initial_state.parameters
        self.learned = [torch.tensor(array, requires_grad=True) for array in learned.values()]
        self.initial = self.learned or zeros

    def parameters(self) -> list[Any]:
        return [*self.net.parameters(), *self.learned]

    def named(self) -> dict[str, Any]:
        names = [f"initial_state.{name}" for name in ("h_0", "c_0")]
        return dict(self.net.named_parameters()) | dict(zip(names, self.learned, strict=False))

    def mask(self, size: int) -> Any:
        if not self.dropout:
            return 1.0
        assert self.rng is not None
        return torch.from_numpy(draw_mask((1, B, size), self.dropout, np.dtype(np.float64), self.rng))

    def losses(self) -> Any:
        """Loss, penalty and items of window after window, epoch after epoch."""
        while True:
            states: dict[int, Any] = {0: None}
            reached = 0
            for start, first, stop in bptt.schedule(self.rows.steps, self.k1, self.k2):
                at = min(reached, start)
                with torch.no_grad():
                    self.read(at, start, states, 1.0)
                masks = self.mask(E), self.mask(H)
                detached = self.rng.random(stop - start) < self.h_detach if self.h_detach else None  # type: ignore[union-attr]
                output = torch.stack(self.read(start, stop, states, masks[0], detached))[first - start :] * masks[1]
                logits = self.net.decoder(output)
                targets = torch.from_numpy(self.rows.targets[first:stop].astype(np.int64))
                kept = int((targets != -100).sum())
                loss = (
                    torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
                    if kept
                    else logits.sum() * 0
                )
                yield loss, self.alpha * output.pow(2).mean(), kept
                reached = stop

    def read(self, start: int, stop: int, states: dict[int, Any], mask: Any, detached: Any = None) -> list[Any]:
        """Outputs of steps [start, stop); the state at `start` is a constant, those after are kept as such."""
        outputs = []
        state = states[start]
        for t in range(start, stop):
            begin = [s[:, None].expand(L, B, H) for s in self.initial]
            reset = torch.from_numpy(self.rows.reset[t])[None, :, None]
            state = begin if state is None else [torch.where(reset, b, s) for b, s in zip(begin, state, strict=True)]
            x = self.net.embedding(torch.from_numpy(self.rows.inputs[t : t + 1])) * mask
            given = [s.contiguous() for s in state]
            if detached is not None and detached[t - start]:
                given[0] = given[0].detach()  # of h the step's gates are the only reader
            out, after = self.net.rnn(x, tuple(given) if len(given) == 2 else given[0])
            state = list(after) if isinstance(after, tuple) else [after]
            states[t + 1] = [s.detach() for s in state]
            outputs.append(out[0])
        return outputs


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize(("k1", "k2"), [(5, 5), (4, 7), (3, 50), (6, 4), (1, 1), (50, 50)])
@pytest.mark.parametrize("options", ["plain", "documents", "dropout", "learned", "penalty"])
def test_trajectory_equals_torch(cell: str, k1: int, k2: int, options: str, rng: np.random.Generator) -> None:
    follow(cell, k1, k2, options, rng)


@pytest.mark.parametrize(("k1", "k2"), [(5, 5), (4, 7), (6, 4)])
@pytest.mark.parametrize("options", ["h_detach", "h_detach and dropout", "h_detach and documents"])
def test_trajectory_with_h_detach(k1: int, k2: int, options: str, rng: np.random.Generator) -> None:
    follow("lstm", k1, k2, options, rng)


def test_trajectory_on_each_backend(each_backend: str, rng: np.random.Generator) -> None:
    for cell, options in (("rnn", "dropout"), ("lstm", "learned"), ("lstm", "h_detach")):
        follow(cell, 4, 7, options, rng)


def follow(cell: str, k1: int, k2: int, options: str, rng: np.random.Generator) -> None:
    """Train here and in torch, and compare every update."""
    documents = [0, 4, 5, 30, 43] if "documents" in options or options == "learned" else None
    rows = ContiguousRows(rng.integers(0, 6, B * 17 + 2), batch=B, documents=documents)
    model = new(cell, rng, learned=options == "learned")
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    if "dropout" in options:
        ours, theirs = ({"dropout": 0.4, "rng": np.random.default_rng(7)} for _ in range(2))
    if "h_detach" in options:
        for one in (ours, theirs):
            one |= {"h_detach": 0.5, "rng": np.random.default_rng(7)}
    if options == "penalty":
        ours["regularization"] = lambda h, reset: (0.3 * (h**2).mean(), 0.6 * h / h.size)
        theirs["alpha"] = 0.3
    replay = Replay(model, rows, k1, k2, **theirs)
    task = LanguageModel(model, rows, k1=k1, k2=k2, **ours)
    torch_optimizer = torch.optim.Adam(replay.parameters(), lr=0.02)
    updates = 11
    clipped = 0
    for step, (loss, penalty, count) in zip(
        Trainer(task, Adam(task.parameters, lr=0.02), steps=updates, max_norm=0.1, progress=False),
        replay.losses(),
        strict=False,
    ):
        torch_optimizer.zero_grad()
        (loss + penalty).backward()
        for parameter in replay.learned:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        norm = torch.nn.utils.clip_grad_norm_(replay.parameters(), 0.1)
        clipped += bool(norm > 0.1)
        torch_optimizer.step()
        assert step.items == count
        assert step.loss == pytest.approx(loss.item(), rel=TOLERANCE["trajectory"])
        assert step.penalty == pytest.approx(penalty.item(), rel=TOLERANCE["trajectory"])
        assert step.gradient_norm == pytest.approx(norm.item(), rel=TOLERANCE["trajectory"])
    assert clipped > 0
    assert list(task.parameters) == list(replay.named())
    for name, parameter in replay.named().items():
        assert_close(name, task.parameters[name], parameter.detach().numpy(), rel=TOLERANCE["trajectory"])


def test_epochs_and_positions(rng: np.random.Generator) -> None:
    rows = ContiguousRows(rng.integers(0, 6, 2 * 11 + 1), batch=2)
    task = LanguageModel(new("rnn", rng), rows, k1=4)
    seen = [(task.step().count, task.epoch, task.position) for _ in range(7)]
    assert seen == [(8, 1, 4), (8, 1, 8), (6, 1, 11), (8, 2, 4), (8, 2, 8), (6, 2, 11), (8, 3, 4)]
    short = LanguageModel(new("rnn", rng), rows, k1=4, k2=1)  # the last window would have no loss
    assert [(short.step().count, short.epoch, short.position) for _ in range(3)] == [(2, 1, 4), (2, 1, 8), (2, 2, 4)]
    assert Trainer(task, SGD(task.parameters, lr=0.1), steps=1, progress=False).run().steps == 1


def test_each_epoch_begins_with_the_initial_state(rng: np.random.Generator) -> None:
    model = new("lstm", rng)
    task = LanguageModel(model, ContiguousRows(rng.integers(0, 6, 31), batch=3), k1=5)
    losses = [task.step().loss for _ in range(6)]  # no updates between
    assert losses[:2] == losses[2:4] == losses[4:]
    assert losses[0] != losses[1]


def test_a_step_that_is_broken_off_is_taken_again(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = ContiguousRows(rng.integers(0, 6, 61), batch=3)
    task = LanguageModel(new("lstm", rng), rows, k1=5, k2=7)
    losses = [task.step().loss for _ in range(8)]
    interrupt = iter([False, True, False, True, True, False, False, True, False])  # at the end of an epoch too
    for name in ("decoder", "embedding"):  # within the window, and after it
        backward = getattr(task.model, name).backward

        def broken(*arguments: Any, backward: Any = backward) -> Any:
            if next(interrupt, False):
                raise KeyboardInterrupt
            return backward(*arguments)

        monkeypatch.setattr(getattr(task.model, name), "backward", broken)
    seen: list[tuple[float, int, int]] = []
    while len(seen) < 8:
        with suppress(KeyboardInterrupt):
            seen.append((task.step().loss, task.epoch, task.position))
    assert [loss for loss, _, _ in seen] == losses
    assert [(epoch, position) for _, epoch, position in seen] == [(e, p) for e in (3, 4) for p in (5, 10, 15, 20)]


def test_a_window_without_a_target(rng: np.random.Generator) -> None:
    rows = ContiguousRows(rng.integers(0, 6, 5), batch=1, documents=[0, 2])
    assert (rows.targets[:, 0] == -100).tolist() == [False, True, False, False]
    task = LanguageModel(new("rnn", rng), rows, k1=1)
    outcomes = [task.step() for _ in range(4)]
    assert [o.count for o in outcomes] == [1, 0, 1, 1]
    assert outcomes[1].loss == 0.0
    assert all((gradient == 0).all() for gradient in outcomes[1].gradients.values())
    trainer = Trainer(task, SGD(task.parameters, lr=0.1), steps=4, accumulate=2, progress=False)
    assert [step.items for step in trainer] == [1, 2, 1, 2]


def test_regularizers_of_the_package_fit(rng: np.random.Generator) -> None:
    rows = ContiguousRows(rng.integers(0, 6, 61), batch=B, documents=[0, 7])

    def ar_and_tar(h: np.ndarray, reset: np.ndarray) -> tuple[float, np.ndarray]:
        ar, d_ar = regularizers.activity(h, 2.0, reduction="mean")
        tar, d_tar = regularizers.temporal_activity(h, 1.0, reduction="mean", reset=reset)
        return float(ar + tar), d_ar + d_tar

    task = LanguageModel(new("lstm", rng), rows, k1=5, regularization=ar_and_tar)
    assert task.step().penalty > 0


def test_only_one_window_is_in_memory(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    task = LanguageModel(new("lstm", rng), ContiguousRows(rng.integers(0, 6, 301), batch=B), k1=5, k2=8)
    task.step()
    before = [weakref.ref(task._last.trace), weakref.ref(task._last.gradients)]  # type: ignore[union-attr]
    forward = bptt.stream.forward

    def look(*arguments: Any) -> Any:
        gc.collect()
        assert all(ref() is None for ref in before)
        return forward(*arguments)

    monkeypatch.setattr(bptt.stream, "forward", look)
    task.step()


def test_learns_what_can_be_learned(rng: np.random.Generator) -> None:
    codes = np.tile(np.arange(6), 200)  # a, b, c ... in turn: certain once the last is known
    model = new("lstm", rng, np.float32)
    assert evaluate(model, codes) == pytest.approx(math.log(6), abs=0.3)
    task = LanguageModel(model, ContiguousRows(codes, batch=4), k1=10, held_out=codes[:300])
    steps = list(Trainer(task, Adam(model.parameters, lr=0.03), steps=60, evaluate_every=30, progress=False))
    assert steps[-1].evaluation is not None
    assert steps[-1].evaluation["loss"] < 0.1 < unigram_entropy(codes)
    assert steps[-1].evaluation["bits"] * NATS_PER_BIT == pytest.approx(steps[-1].evaluation["loss"])
    assert steps[-1].evaluation["perplexity"] == pytest.approx(math.exp(steps[-1].evaluation["loss"]))
    assert evaluate(model, codes[:300]) == steps[-1].evaluation["loss"]


# --- what is not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_parameter_is_blamed_before_all_else(bad: float, rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    model.parameters["decoder.bias"][2] = bad
    before = model.state_dict()
    task = LanguageModel(model, ContiguousRows(rng.integers(0, 6, 31), batch=3), k1=5)
    where = rf"parameter decoder\.bias\[2\] is {bad} \(1 of 6 are not finite\)"
    with pytest.raises(DivergedError, match=rf"^the loss became (nan|inf) at step 1; first: {where}$"):
        Trainer(task, SGD(model.parameters, lr=0.1), steps=3, progress=False).run()
    for name, array in before.items():
        assert np.array_equal(model.parameters[name], array, equal_nan=True)


def test_layer_step_and_gate_are_named_in_the_rows_own_steps(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 2 begins a document at step 7: to the layer a piece of its own; NaN is planted in its second step."""
    codes = rng.integers(0, 6, 3 * 12 + 1)
    rows = ContiguousRows(codes, batch=3, documents=[0, 2 * 12 + 7])
    task = LanguageModel(new("lstm", rng), rows, k1=5, k2=6)
    embed = task.model.embedding.forward

    def spoil(indices: np.ndarray) -> Any:
        trace = embed(indices)
        if len(indices) == 6 and spoiled == "window":  # steps 4 to 9
            trace.output[8 - 4, 2, 1] = np.nan
        return trace

    spoiled = ""
    monkeypatch.setattr(task.model.embedding, "forward", spoil)
    assert task.step().count == 15
    assert task.blame() is None
    spoiled = "window"
    with pytest.raises(
        DivergedError, match=r"^the loss became nan at step 1; first: layer 0, step 8, input, sample 2, unit 1 is nan$"
    ):
        Trainer(task, SGD(task.parameters, lr=0.1), steps=3, progress=False).run()


def test_a_gradient_that_overflows_is_found(rng: np.random.Generator) -> None:
    def penalty(h: np.ndarray, reset: np.ndarray) -> tuple[float, np.ndarray]:
        d_h = np.zeros_like(h)
        d_h[3] = np.inf
        return 0.0, d_h

    rows = ContiguousRows(rng.integers(0, 6, 31), batch=3)
    task = LanguageModel(new("rnn", rng), rows, k1=5, regularization=penalty)
    with pytest.raises(DivergedError, match=r"first: layer 1, step 3, gradient of h, sample 0, unit 0 is inf$"):
        Trainer(task, SGD(task.parameters, lr=0.1), steps=3, progress=False).run()


def test_logits_that_overflow_are_found(rng: np.random.Generator) -> None:
    model = new("rnn", rng)
    model.parameters["rnn.bias_ih_l1"][...] = 50  # every h is 1
    model.parameters["decoder.weight"][...] = 1e308
    task = LanguageModel(model, ContiguousRows(rng.integers(0, 6, 31), batch=3), k1=5)
    task.step()
    assert str(task.blame()).startswith("logits of steps 0 on[")


# --- held out


def test_evaluate_is_the_mean_over_rows_that_carry_their_state(rng: np.random.Generator) -> None:
    model = new("lstm", rng)
    codes = rng.integers(0, 6, 2 * 33 + 1)
    reference = TorchModel(model)
    rows = ContiguousRows(codes, batch=2)
    logits, _ = reference(torch.from_numpy(rows.inputs))
    want = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(rows.targets).flatten()).item()
    for steps in (1, 7, 33):
        assert evaluate(model, codes, rows=2, steps=steps) == pytest.approx(want, rel=TOLERANCE["float64"])
    assert evaluate(model, rows) == pytest.approx(want, rel=TOLERANCE["float64"])


def test_evaluate_respects_documents_and_the_learned_state(rng: np.random.Generator) -> None:
    model = new("lstm", rng, learned=True)
    rows = ContiguousRows(rng.integers(0, 6, B * 17 + 1), batch=B, documents=[0, 5, 20])
    replay = Replay(model, rows, rows.steps, rows.steps)
    loss, _, count = next(replay.losses())
    task = LanguageModel(model, rows, k1=5, held_out=rows)
    assert task.evaluate()["loss"] == pytest.approx(loss.item(), rel=TOLERANCE["float64"])
    assert count == B * 17 - 2
    assert evaluate(model, rows, steps=4) == pytest.approx(loss.item(), rel=TOLERANCE["float64"])


def test_evaluate_of_a_short_text(rng: np.random.Generator) -> None:
    assert evaluate(new("rnn", rng), np.array([0, 1])) > 0
    with pytest.raises(ValueError, match="inputs: expected at least one item"):
        evaluate(new("rnn", rng), np.array([0]))
    alone = ContiguousRows(np.arange(5), batch=2, documents=[0, 1, 2, 3, 4])
    with pytest.raises(ValueError, match=r"^text: expected a character to predict; got 4 steps, each the last of its"):
        evaluate(new("rnn", rng), alone)


# --- what is refused


def test_refuses_arguments(rng: np.random.Generator) -> None:
    model, rows = new("rnn", rng), ContiguousRows(rng.integers(0, 6, 31), batch=3)
    for arguments, message in (
        ({"k1": 0}, "k1: expected an integer of at least 1; got 0"),
        ({"k1": 5, "k2": 0}, "k2: expected an integer of at least 1; got 0"),
        ({"k1": 5, "dropout": 1.5}, "dropout: expected a number between 0 and 1"),
        ({"k1": 5, "dropout": 0.5}, "rng: expected a generator that draws the dropout masks; got None"),
        ({"k1": 5, "h_detach": 1.5}, "h_detach: expected a number between 0 and 1"),
        ({"k1": 5, "h_detach": 0.5}, "h_detach: expected 0 for an RNN, whose gradient has no other path; got 0.5"),
        ({"k1": 12, "k2": 2}, "rows: expected more than k1 - k2 = 10 steps; got 10"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            LanguageModel(model, rows, **arguments)
    with pytest.raises(ValueError, match=r"^rng: expected a generator that draws where h is detached; got None"):
        LanguageModel(new("lstm", rng), rows, k1=5, h_detach=0.5)
    with pytest.raises(TypeError, match=r"^rows: expected ContiguousRows of codes; got an array"):
        LanguageModel(model, rows.inputs, k1=5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"^rows: expected ContiguousRows of codes"):
        LanguageModel(model, ContiguousRows(np.ones((9, 2)), np.ones((9, 2)), batch=3), k1=5)
    with pytest.raises(ValueError, match=r"^held_out: expected codes to evaluate on; got None$"):
        LanguageModel(model, rows, k1=5).evaluate()
