"""A small training run in a process of its own, to be killed: python -m tests.killed FOLDER STEPS [CALL].

Says "training" on stdout after its first update. With CALL it kills itself before the call of that number to write,
flush, rename or remove a file, so that every moment between two of them can be tried.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np

from scratchrnn.data import ContiguousRows
from scratchrnn.models import CharModel
from scratchrnn.optim import Adam
from scratchrnn.train import LanguageModel, Trainer, schedules
from scratchrnn.train.log import Log


def train(folder: Path, steps: int) -> Trainer:
    """Dropout, overlapping windows, accumulation, schedule and evaluation: all that a checkpoint must hold."""
    draws = np.random.default_rng(5)
    model = CharModel("abcdef", "lstm", 8, 4, backend="numpy", rng=np.random.default_rng(0))
    rows = ContiguousRows(draws.integers(0, 6, 3 * 29 + 1), batch=3, documents=[0, 20, 50])
    task = LanguageModel(
        model, rows, k1=4, k2=6, held_out=draws.integers(0, 6, 50), dropout=0.2, rng=np.random.default_rng(1)
    )
    trainer = Trainer(
        task, Adam(model.parameters, lr=0.01), steps=steps, accumulate=2, schedule=schedules.cosine(1000, to=0.1),
        evaluate_every=3, patience=10**6, folder=folder, checkpoint_every=2, keep=2, resume=True,
        callbacks=[lambda trainer, step: step.number == began + 1 and print("training", flush=True)],  # noqa: T201
    )  # fmt: skip
    began = trainer.done
    trainer.run()
    return trainer


def die_before(call: int) -> None:
    """Kill this process before the call of that number to anything that touches a file."""
    calls = 0

    def counted(function: Any) -> Any:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for module, name in (
        (os, "fsync"),
        (os, "replace"),
        (os, "chmod"),
        (os, "fdopen"),
        (Path, "unlink"),
        (Log, "write"),
        (os, "open"),
    ):
        setattr(module, name, counted(getattr(module, name)))


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_before(int(sys.argv[3]))
    train(Path(sys.argv[1]), int(sys.argv[2]))
