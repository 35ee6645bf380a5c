"""The training loop, on a problem small enough to be followed by hand."""

from __future__ import annotations

import math
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scratchrnn import checkpoint
from scratchrnn.optim import SGD, clip_grad_norm_
from scratchrnn.train import DivergedError, Outcome, Step, Trainer, schedules
from scratchrnn.train.objective import accumulated
from tests.points import Points, lines, trainer

# --- updates


def test_updates_are_those_of_a_plain_loop() -> None:
    for accumulate, max_norm in ((1, 1.0), (3, 0.7), (1, math.inf)):
        ours, plain = Points(), Points()
        steps = list(trainer(ours, max_norm=max_norm, accumulate=accumulate))
        optimizer = SGD(plain.parameters, lr=0.1)
        for step in steps:
            batches = [plain.step() for _ in range(accumulate)]
            n = sum(b.count for b in batches)
            gradients = {
                name: sum(b.count * b.gradients[name] for b in batches) / n
                if accumulate > 1
                else batches[0].gradients[name]
                for name in plain.parameters
            }
            norm = clip_grad_norm_(gradients, max_norm)
            optimizer.step(gradients)
            assert step.items == n
            assert step.loss == pytest.approx(sum(b.count * b.loss for b in batches) / n, rel=1e-15)
            assert step.penalty == pytest.approx(sum(b.count * b.penalty for b in batches) / n, rel=1e-15)
            assert step.gradient_norm == pytest.approx(norm, rel=1e-14)
            assert step.clipped == (norm > max_norm)
        assert [step.number for step in steps] == list(range(1, 13))
        assert any(step.clipped for step in steps) == (max_norm < math.inf)
        for name, array in plain.parameters.items():
            assert ours.parameters[name] == pytest.approx(array, rel=1e-14)


def test_accumulated_gradient_is_that_of_the_mean_over_all_items() -> None:
    one, other = Points(3), Points(3)
    got = accumulated(one, 4)
    batches = [other.step() for _ in range(4)]
    assert len({b.count for b in batches}) > 1
    n = sum(b.count for b in batches)
    assert got.count == n
    assert got.gradients["w"] == pytest.approx(sum(b.count * b.gradients["w"] for b in batches) / n)
    assert got.gradients["w"] != pytest.approx(sum(b.gradients["w"] for b in batches) / 4)


def test_schedule_multiplies_the_optimizers_rate() -> None:
    objective = Points()
    optimizer = SGD(objective.parameters, lr=0.2)
    steps = list(trainer(objective, optimizer=optimizer, schedule=schedules.linear(12, to=0.25)))
    assert [step.lr for step in steps] == [0.2 * (1 - 0.75 * n / 12) for n in range(12)]
    assert optimizer.lr == 0.2
    seen: list[int] = []
    list(trainer(schedule=lambda number: seen.append(number) or 1.0))
    assert seen == list(range(1, 13))


@pytest.mark.parametrize(
    ("schedule", "want"),
    [
        (schedules.constant(), [1, 1, 1, 1, 1, 1]),
        (schedules.linear(4), [1, 0.75, 0.5, 0.25, 0, 0]),
        (schedules.cosine(4, to=0.2), [1, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5), 0.2, 0.2]),
        (schedules.steps(2), [1, 1, 0.1, 0.1, 0.01, 0.01]),
        (schedules.warmup(2, schedules.steps(2, factor=0.5)), [1 / 3, 2 / 3, 1, 1, 0.5, 0.5]),
        (schedules.warmup(1, schedules.constant()), [0.5, 1, 1, 1, 1, 1]),
    ],
)
def test_schedules(schedule: Any, want: list[float]) -> None:
    assert [schedule(n) for n in range(1, 7)] == pytest.approx(want, abs=1e-15)


def test_schedules_refuse() -> None:
    for make, message in (
        (lambda: schedules.linear(0), "total: expected an integer of at least 1; got 0"),
        (lambda: schedules.cosine(3, to=-1), "to: expected a finite number of at least 0; got -1"),
        (lambda: schedules.steps(2, factor=math.nan), "factor: expected a finite number"),
        (lambda: schedules.warmup(0, schedules.constant()), "updates: expected an integer of at least 1"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            make()
    with pytest.raises(TypeError, match=r"^then: expected a schedule, such as constant\(\); got float 0\.5"):
        schedules.warmup(3, 0.5)  # type: ignore[arg-type]


# --- numbers that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_update(bad: float, tmp_path: Path) -> None:
    objective = Points()
    objective.bad[8] = bad  # the second of the fourth update's batches
    before: list[Any] = []
    keep = [lambda run, step: before.append(objective.parameters["w"].copy())]
    run = trainer(objective, accumulate=2, folder=tmp_path, checkpoint_every=2, callbacks=keep)
    with pytest.raises(DivergedError, match=r"^the loss became (nan|inf|-inf) at step 4; first: batch of points$"):
        run.run()
    assert run.done == run.result.steps == 3
    assert np.array_equal(objective.parameters["w"], before[-1])
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [2]
    assert [line["step"] for line in lines(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_stops_before_the_update(bad: float) -> None:
    objective = Points()
    objective.bad_gradient[3] = bad
    before: list[Any] = []
    run = trainer(objective, callbacks=[lambda run, step: before.append(objective.parameters["w"].copy())])
    with pytest.raises(DivergedError, match=r"^the gradient of w became (nan|inf) at step 3; first: batch of points$"):
        run.run()
    assert np.array_equal(objective.parameters["w"], before[-1])


def test_an_error_in_a_gradient_is_not_taken_for_divergence() -> None:
    objective = Points()
    step = objective.step

    def shared() -> Outcome:
        outcome = step()
        return Outcome(outcome.loss, outcome.count, {"w": outcome.gradients["w"], "scale": outcome.gradients["w"][:1]})

    objective.step = shared  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="'w' and 'scale' share memory"):
        trainer(objective).run()


def test_weights_that_are_not_finite_make_no_checkpoint(tmp_path: Path) -> None:
    objective = Points()

    def spoil(run: Trainer, step: Step) -> None:
        if step.number == 4:
            objective.parameters["w"][1] = np.inf

    run = trainer(objective, folder=tmp_path, checkpoint_every=2, callbacks=[spoil])
    with pytest.raises(DivergedError, match=r"^w not finite after step 4$"):
        run.run()
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [2]


def test_weights_that_the_last_update_spoilt_are_no_result() -> None:
    objective = Points()

    def spoil(run: Trainer, step: Step) -> None:
        if step.number == 12:
            objective.parameters["w"][1] = np.nan

    with pytest.raises(DivergedError, match=r"^w not finite after step 12$"):
        trainer(objective, callbacks=[spoil]).run()


def test_the_batch_that_went_wrong_is_the_last_one_taken() -> None:
    """So that `blame` looks at it, and not at what its infinities made of the batches after it."""
    for bad in ("bad", "bad_gradient"):
        objective = Points()
        setattr(objective, bad, {6: math.nan})  # the second of the second update's batches
        with pytest.raises(DivergedError, match=r"became nan at step 2; first: batch of points$"):
            trainer(objective, accumulate=4).run()
        assert objective.drawn == 6


def test_a_held_out_loss_that_is_not_finite() -> None:
    objective = Points()
    objective.held_out = [1.0, math.nan]
    with pytest.raises(DivergedError, match=r"^the loss on the data held out became nan after step 6$"):
        trainer(objective, evaluate_every=3).run()
    objective = Points()
    objective.held_out, objective.bad = [math.nan], {100: math.nan}  # so that it has something to say
    with pytest.raises(DivergedError, match=r"became nan after step 3; first: batch of points$"):
        trainer(objective, evaluate_every=3).run()


# --- evaluation and early stopping


def test_evaluations_come_when_due_and_at_the_end() -> None:
    objective = Points()
    steps = list(trainer(objective, evaluate_every=5))
    assert [step.number for step in steps if step.evaluation] == [5, 10, 12]
    objective = Points()
    assert [s.number for s in trainer(objective, evaluate_every=4) if s.evaluation] == [4, 8, 12]
    assert objective.looks == 3
    assert trainer().run().best_step is None


def test_patience(tmp_path: Path) -> None:
    objective = Points()
    objective.held_out = [5.0, 4.0, 4.0, 4.5, 3.0, 3.5, 3.0, 3.2, 1.0]
    weights: dict[int, Any] = {}

    def remember(run: Trainer, step: Step) -> None:
        weights[step.number] = objective.parameters["w"].copy()

    run = trainer(
        objective, steps=100, evaluate_every=2, patience=3, folder=tmp_path, checkpoint_every=50, callbacks=[remember]
    )
    result = run.run()
    # an equal loss is no gain; the count begins anew at each gain
    assert (result.steps, result.stopped, result.best_step, result.best_loss) == (16, "patience", 10, 3.0)
    assert np.array_equal(objective.parameters["w"], weights[16])  # the best are kept, not put in place
    best = checkpoint.load(tmp_path / "best.safetensors")
    assert (best["step"], best["loss"]) == (10, 3.0)
    assert np.array_equal(best["parameters"]["w"], weights[10])
    run.restore_best()
    assert np.array_equal(objective.parameters["w"], weights[10])
    looks = [line for line in lines(tmp_path) if line["kind"] == "evaluation"]
    assert [line["best"] for line in looks] == [True, True, False, False, True, False, False, False]
    assert looks[3]["looks"] == 4.0
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [16]
    assert run.run() == result  # it has ended


def test_restore_best_needs_an_evaluation() -> None:
    run = trainer()
    run.run()
    with pytest.raises(ValueError, match=r"^best: expected an evaluation to have been made"):
        run.restore_best()


# --- stopping


def test_stop_ends_after_the_update_with_a_checkpoint(tmp_path: Path) -> None:
    def ask(run: Trainer, step: Step) -> None:
        if step.number == 5:
            run.stop()

    run = trainer(folder=tmp_path, checkpoint_every=3, callbacks=[ask])
    result = run.run()
    assert (result.steps, result.stopped) == (5, "asked")
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [3, 5]
    assert (run.run().steps, run.result.stopped) == (12, None)  # asked once


def test_stop_at_the_last_update_changes_nothing() -> None:
    run = trainer(callbacks=[lambda run, step: step.number == 12 and run.stop()])
    assert run.run().stopped is None
    objective = Points()
    objective.held_out = [1.0, 2.0]
    run = trainer(
        objective, evaluate_every=2, patience=1, callbacks=[lambda run, step: step.number == 4 and run.stop()]
    )
    assert run.run().stopped == "patience"  # there is nothing to go on with


def test_stop_from_the_loop_that_takes_the_steps(tmp_path: Path) -> None:
    run = trainer(folder=tmp_path, checkpoint_every=3)
    for step in run:
        if step.number == 4:
            run.stop()
    assert run.result.stopped == "asked"
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [3, 4]


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_stop_from_a_signal_handler() -> None:
    run = trainer(steps=10**9, callbacks=[lambda run, step: step.number == 7 and os.kill(os.getpid(), signal.SIGUSR1)])
    before = signal.signal(signal.SIGUSR1, lambda *_: run.stop())
    try:
        assert run.run().steps in (7, 8)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_taking_one_step_at_a_time_and_going_on() -> None:
    whole, parts = Points(), Points()
    trainer(whole).run()
    run = trainer(parts)
    first = iter(run)
    assert [next(first).number, next(first).number] == [1, 2]
    first.close()  # type: ignore[attr-defined]
    assert [step.number for step in run] == list(range(3, 13))
    assert np.array_equal(whole.parameters["w"], parts.parameters["w"])


def test_an_update_broken_off_halfway_cannot_be_gone_on_from(tmp_path: Path) -> None:
    objective = Points()
    run = trainer(objective, folder=tmp_path, checkpoint_every=2)
    step = run.optimizer.step

    def interrupted(gradients: Any) -> None:
        if run.done == 4:
            objective.parameters["w"] += 1.0
            raise KeyboardInterrupt
        step(gradients)

    run.optimizer.step = interrupted  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run.run()
    with pytest.raises(RuntimeError, match=r"^update 5 was broken off when it had changed some parameters"):
        run.run()
    whole = Points()
    trainer(whole).run()
    resumed = trainer(folder=tmp_path, checkpoint_every=2, resume=True)
    resumed.run()
    assert np.array_equal(resumed.objective.parameters["w"], whole.parameters["w"])


def test_going_on_after_a_callback_failed_at_the_last_update(tmp_path: Path) -> None:
    fails = iter([True])

    def fail(run: Trainer, step: Step) -> None:
        if step.number == 12 and next(fails, False):
            raise RuntimeError("callback")

    run = trainer(folder=tmp_path, checkpoint_every=5, callbacks=[fail])
    with pytest.raises(RuntimeError, match=r"^callback$"):
        run.run()
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [5, 10]
    assert run.run().steps == 12
    assert list(checkpoint.Checkpoints(tmp_path / "checkpoints").paths()) == [5, 10, 12]


def test_going_on_in_one_process_goes_on_in_the_log(tmp_path: Path) -> None:
    run = trainer(folder=tmp_path)
    for step in run:
        if step.number == 4:
            break
    del step
    run.run()
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))
