"""The training loop: batches in, updates out, and nothing lost on the way.

    update n:   L, g   = mean loss and gradient over the accumulated batches
                g      = g min(1, max_norm / ‖g‖)
                θ      = optimizer(θ, g; lr · schedule(n))
                then the log, an evaluation, the callbacks, a checkpoint: each where it is due

Everything that moves stands in a checkpoint, so a run that is killed at any moment and resumed makes the numbers of one
that was never disturbed, bit for bit, and its log has the same lines but for the seconds in them. That is, on the same
machine, with the same versions; backend "numpy" also needs as many threads of NumPy's BLAS (OMP_NUM_THREADS).

References
----------
Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013 (clipping). Prechelt, "Early
stopping - but when?", 1998 (patience: its criterion UP).
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import numpy as np

from scratchrnn._validate import check_array, check_bool, check_positive_int, check_real, describe
from scratchrnn.optim import Optimizer, clip_grad_norm_, global_norm
from scratchrnn.train.folder import RunFolder, versions, warn_of_other_versions
from scratchrnn.train.log import Log, update_record
from scratchrnn.train.objective import Objective, accumulated, check_same_settings, name_of
from scratchrnn.train.progress import Bar
from scratchrnn.train.records import DivergedError, Result, Step
from scratchrnn.train.schedules import constant


class Trainer:
    """Trains an objective with an optimizer: `run()` to the end, or one update for each item that is taken from it.

    Parameters
    ----------
    objective : Objective
        Such as `LanguageModel` or `Sampled`.
    optimizer : Optimizer
        Over `objective.parameters`. Its learning rate is the base that `schedule` multiplies.
    steps : int
        Updates in all. A resumed run may be given more than it had; the evaluation that ended it then stays one of its
        evaluations.
    max_norm : float
        Bound on the global norm of the gradient; `math.inf` does not clip.
    schedule : callable, optional
        Factor of the learning rate for each update, counted from 1; see `scratchrnn.train.schedules`.
    accumulate : int
        Batches in one update: the gradient is that of the mean over all their items.
    evaluate_every : int, optional
        Updates between two looks at the data held out; one more comes after the last. Absent: none.
    patience : int, optional
        Evaluations without a lower loss after which training ends.
    folder : path, optional
        Where log, checkpoints and best weights go; see `scratchrnn.train.folder`. Absent: nothing is written.
    checkpoint_every : int, optional
        Updates between two checkpoints; `evaluate_every` when absent. One more comes at the end, however it came.
    keep : int
        Checkpoints that stay.
    resume : bool
        Go on from the newest checkpoint in `folder`; from the beginning where there is none yet. So one command serves
        for the first start and after any kill.
    log : bool
        Whether there is a log.
    callbacks : iterable of callable
        Each called as callback(trainer, step) after every update. What they remember is not in the checkpoints.
    progress : bool, optional
        Whether a bar is drawn on stderr; when absent, where that is a terminal.

    Attributes
    ----------
    done : int
        Updates made.
    best : dict or None
        "step", "loss" and "parameters" (copies) of the evaluation with the lowest loss.

    Raises
    ------
    FileExistsError
        `folder` holds a run and `resume` is False.
    ValueError, TypeError
        An argument out of range, or a resumed run that was made with other settings; the message names them.

    Warns
    -----
    RuntimeWarning
        A resumed run was made with other versions of this library, NumPy or Numba.

    Examples
    --------
    >>> import numpy as np
    >>> from scratchrnn import data, models, optim, train
    >>> model = models.CharModel("ab", "rnn", 8, 4, rng=np.random.default_rng(0))
    >>> rows = data.ContiguousRows(model.vocabulary.encode("abaabaaab" * 20), batch=4)
    >>> objective = train.LanguageModel(model, rows, k1=15)
    >>> trainer = train.Trainer(objective, optim.Adam(model.parameters, lr=0.03), steps=90, progress=False)
    >>> losses = [step.loss for step in trainer]
    >>> len(losses), losses[-1] < 0.6 * losses[0]
    (90, True)
    """

    def __init__(
        self,
        objective: Objective,
        optimizer: Optimizer,
        *,
        steps: int,
        max_norm: float = 1.0,
        schedule: Callable[[int], float] | None = None,
        accumulate: int = 1,
        evaluate_every: int | None = None,
        patience: int | None = None,
        folder: str | os.PathLike[str] | None = None,
        checkpoint_every: int | None = None,
        keep: int = 3,
        resume: bool = False,
        log: bool = True,
        callbacks: Iterable[Callable[[Trainer, Step], object]] = (),
        progress: bool | None = None,
    ) -> None:
        _check_same_arrays(objective, optimizer)
        self.objective, self.optimizer = objective, optimizer
        self.steps = check_positive_int("steps", steps)
        self.max_norm = math.inf if max_norm == math.inf else check_real("max_norm", max_norm, above=0.0)
        self.schedule = constant() if schedule is None else schedule
        if not callable(self.schedule):
            raise TypeError(f"schedule: expected a function of the update's number; got {describe(schedule)}")
        self.accumulate = check_positive_int("accumulate", accumulate)
        self.evaluate_every = _optional("evaluate_every", evaluate_every)
        self.patience = _optional("patience", patience)
        if patience is not None and evaluate_every is None:
            raise ValueError("patience: expected evaluate_every with it, since it counts evaluations; got None")
        self.checkpoint_every = _optional("checkpoint_every", checkpoint_every) or self.evaluate_every
        self.callbacks, self._progress = tuple(callbacks), progress
        self.log = check_bool("log", log)
        if folder is None and (resume or checkpoint_every is not None):
            raise ValueError("folder: expected a path for checkpoints to be written to or resumed from; got None")

        self.done, self.seconds = 0, 0.0
        self.best: dict[str, Any] | None = None
        self._without_gain = 0  # evaluations since the best one
        self._ended: str | None = None  # "patience"
        self._asked = self._stopped = False
        self._halfway = False  # whether parameters and optimizer are within an update
        self._log_size, self._saved_at = 0, 0
        self._settings = self._describe()
        self._folder = None if folder is None else RunFolder(folder, keep)
        state = None if self._folder is None else self._folder.find(check_bool("resume", resume))
        if state is not None:
            self._load(state)

    # --- from outside

    def run(self) -> Result:
        """Train to the end.

        Raises
        ------
        DivergedError
            A number is no longer finite; the message says which came first. Where that is a loss or gradient, the
            parameters are those before that update. The last checkpoint is good.
        """
        for _ in self:
            pass
        return self.result

    def __iter__(self) -> Iterator[Step]:
        """One update for each item that is taken. Stop taking, and training has stopped, between two updates.

        After an exception, such as Ctrl-C raises, one may go on in the same way. But what was broken off is not made
        up for, a line of the log or batches accumulated: the bits of an undisturbed run are those of a resumed one.

        Raises
        ------
        RuntimeError
            The last update was broken off while it was written into the parameters.
        """
        if self._halfway:
            raise RuntimeError(
                f"update {self.done + 1} was broken off when it had changed some parameters and not others; "
                "go on from a checkpoint, with resume=True in a new Trainer"
            )
        self._stopped = False
        with ExitStack() as stack:
            log = self._begin(stack)
            bar = stack.enter_context(closing(Bar(self.steps, self.done, shown=self._progress, nats=self._nats)))
            while self.done < self.steps and self._ended is None and not self._stopped:
                step = self._update()
                self._write(log, update_record(step, self._nats))
                if self.evaluate_every and (step.number % self.evaluate_every == 0 or step.number == self.steps):
                    step = replace(step, evaluation=self._evaluate(log))
                bar.update(step)
                for callback in self.callbacks:
                    callback(self, step)
                self._checkpoint_if_due(log)
                yield step
                self._checkpoint_if_due(log)  # the caller may have asked to stop
            self._checkpoint_if_due(log)  # if the last update was made, and an exception came before its checkpoint

    def stop(self) -> None:
        """End after the update that is being made, with a checkpoint. For callbacks and signal handlers."""
        self._asked = True

    @property
    def result(self) -> Result:
        """How far the run has come."""
        best = self.best or {"step": None, "loss": None}
        stopped = self._ended or ("asked" if self._stopped and self.done < self.steps else None)
        return Result(self.done, stopped, best["step"], best["loss"], self.seconds)

    def restore_best(self) -> None:
        """Put the weights of the best evaluation in place of those that training ended with.

        Raises
        ------
        ValueError
            There has been no evaluation.
        """
        if self.best is None:
            raise ValueError("best: expected an evaluation to have been made; there was none (see evaluate_every)")
        self._put(self.best["parameters"])

    # --- one update

    @property
    def _nats(self) -> bool:
        return bool(getattr(self.objective, "nats", False))

    def _update(self) -> Step:
        number, start = self.done + 1, time.perf_counter()
        outcome = accumulated(self.objective, self.accumulate)
        for name, value in (("loss", outcome.loss), ("penalty", outcome.penalty)):
            if not math.isfinite(value):
                raise self._diverged(f"the {name} became {value} at step {number}")
        norm = self._clip(outcome.gradients, number)
        rate = self.optimizer.lr
        self.optimizer.lr = lr = rate * self.schedule(number)
        self._halfway = True
        try:
            self.optimizer.step(outcome.gradients)
        finally:
            self.optimizer.lr = rate  # the base: a schedule's factors do not multiply one another
        self.done, self._halfway = number, False
        seconds = time.perf_counter() - start
        self.seconds += seconds
        clipped = self.max_norm < norm + 1e-6  # as clip_grad_norm_ has it
        epoch = getattr(self.objective, "epoch", None)
        return Step(number, outcome.loss, outcome.penalty, norm, clipped, lr, outcome.count, seconds, epoch)

    def _clip(self, gradients: dict[str, Any], number: int) -> float:
        try:
            return clip_grad_norm_(gradients, self.max_norm, error_if_nonfinite=True)
        except ValueError:
            norm = global_norm(gradients)
            if math.isfinite(norm):
                raise
        wrong = ", ".join(name for name, gradient in gradients.items() if not np.isfinite(gradient).all())
        raise self._diverged(f"the gradient of {wrong or 'all together'} became {norm} at step {number}")

    def _diverged(self, what: str) -> DivergedError:
        blame = self.objective.blame()
        return DivergedError(what if blame is None else f"{what}; first: {blame}")

    def _evaluate(self, log: Log | None) -> dict[str, float]:
        start = time.perf_counter()
        figures = self.objective.evaluate()
        loss = figures["loss"]
        if not math.isfinite(loss):
            raise self._diverged(f"the loss on the data held out became {loss} after step {self.done}")
        improved = self.best is None or loss < self.best["loss"]
        self._without_gain = 0 if improved else self._without_gain + 1
        if improved:
            parameters = {name: array.copy() for name, array in self.objective.parameters.items()}
            self.best = {"step": self.done, "loss": loss, "parameters": parameters}
            if self._folder is not None:
                self._folder.write_best(self.best)
        if self.patience is not None and self._without_gain >= self.patience:
            self._ended = "patience"
        seconds = time.perf_counter() - start
        self.seconds += seconds
        self._write(log, {"kind": "evaluation", "step": self.done, "best": improved, "seconds": seconds} | figures)
        return figures

    # --- what is kept

    def _begin(self, stack: ExitStack) -> Log | None:
        if self._folder is None:
            return None
        self._folder.path.mkdir(parents=True, exist_ok=True)
        log = stack.enter_context(closing(Log(self._folder.log))) if self.log else None
        self._folder.check_unchanged()
        if log is not None:
            log.cut(self._log_size)
        self._folder.begin(self.best)
        return log

    def _write(self, log: Log | None, record: dict[str, Any]) -> None:
        if log is not None:
            log.write(record)
            self._log_size = log.size

    def _checkpoint_if_due(self, log: Log | None) -> None:
        self._stopped, self._asked = self._stopped or self._asked, False
        last = self.done == self.steps or self._stopped or self._ended is not None
        due = self.checkpoint_every is not None and self.done % self.checkpoint_every == 0
        if self._saved_at == self.done or not (due or last):
            return
        wrong = [name for name, array in self.objective.parameters.items() if not np.isfinite(array).all()]
        if wrong:
            raise DivergedError(f"{', '.join(wrong)} not finite after step {self.done}")
        if self._folder is None:
            return
        if log is not None:
            log.sync()
        self._folder.checkpoints.save(self.done, self._state())
        self._saved_at = self.done

    def _describe(self) -> dict[str, Any]:
        """What a resumed run must have in common with the one that it goes on with."""
        names = ("max_norm", "accumulate", "evaluate_every", "patience", "log")
        state = self.optimizer.state_dict()
        numbers = {key: value for key, value in state.items() if key != "step" and not isinstance(value, np.ndarray)}
        optimizer = {"optimizer": type(self.optimizer).__name__} | {f"optimizer.{key}": numbers[key] for key in numbers}
        return {name: getattr(self, name) for name in names} | {"schedule": name_of(self.schedule)} | optimizer

    def _state(self) -> dict[str, Any]:
        return {
            "settings": self._settings,
            "versions": versions(),
            "step": self.done,
            "seconds": self.seconds,
            "best": self.best,
            "without_gain": self._without_gain,
            "ended": self._ended,
            "log_size": self._log_size,
            "parameters": self.objective.parameters,
            "optimizer": self.optimizer.state_dict(),
            "objective": self.objective.state_dict(),
        }

    def _load(self, state: dict[str, Any]) -> None:
        check_same_settings(state["settings"], self._settings)
        warn_of_other_versions(state["versions"])
        if state["step"] > self.steps:
            raise ValueError(f"steps: expected at least the {state['step']} that the run has made; got {self.steps}")
        self.objective.load_state_dict(state["objective"])
        self._put(state["parameters"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = self._saved_at = state["step"]
        self.seconds, self.best = state["seconds"], state["best"]
        self._without_gain, self._ended = state["without_gain"], state["ended"]
        self._log_size = state["log_size"]

    def _put(self, parameters: dict[str, Any]) -> None:
        own = self.objective.parameters
        if sorted(parameters) != sorted(own):
            raise ValueError(f"parameters: expected {', '.join(own)}; got {', '.join(parameters)}")
        for name, array in own.items():
            check_array(name, parameters[name], shape=array.shape, dtype=array.dtype, why="of the model")
        for name, array in own.items():
            array[...] = parameters[name]


def _optional(name: str, value: int | None) -> int | None:
    return None if value is None else check_positive_int(name, value)


def _check_same_arrays(objective: Objective, optimizer: Optimizer) -> None:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"optimizer: expected one of scratchrnn.optim; got {describe(optimizer)}")
    own, given = objective.parameters, optimizer.parameters
    if sorted(own) != sorted(given):
        raise ValueError(f"optimizer: expected one over {', '.join(own)}; got one over {', '.join(given)}")
    for name, array in own.items():
        if given[name] is not array:
            raise ValueError(
                f"optimizer: expected the objective's own array {name}; got another, which it would update"
            )
