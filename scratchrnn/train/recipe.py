"""From settings and a text to a trainer: what `scratchrnn train` runs, and what a program can run likewise.

The first nine tenths of the text are trained on, the last tenth is held out; the vocabulary is that of the whole.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn.bptt.schedule import schedule
from scratchrnn.data import ContiguousRows, Vocabulary, split
from scratchrnn.layers import WeightDrop
from scratchrnn.models import CharModel
from scratchrnn.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from scratchrnn.regularizers import activity, temporal_activity
from scratchrnn.train import schedules
from scratchrnn.train.config import Config
from scratchrnn.train.language import LanguageModel
from scratchrnn.train.records import Step
from scratchrnn.train.schedules import Schedule
from scratchrnn.train.trainer import Trainer

WEIGHTS, UNITS, CONNECTIONS = 0, 1, 2  # streams of random numbers: to begin with, dropped and detached, dropped


def from_config(
    config: Config,
    text: str,
    *,
    folder: str | os.PathLike[str] | None = None,
    resume: bool = False,
    callbacks: Iterable[Callable[[Trainer, Step], object]] = (),
    progress: bool | None = None,
) -> tuple[CharModel, Trainer]:
    """The model that these settings describe, and the trainer that trains it on a text.

    Parameters
    ----------
    config : Config
        Its `file` and `sha256` are not looked at.
    text : str
    folder, resume, callbacks, progress
        As `Trainer` takes them.

    Raises
    ------
    ValueError
        The text is too short for these settings; or as `Trainer` says.

    Examples
    --------
    >>> config = Config(hidden=8, batch=2, k1=10, steps=30, backend="numpy")
    >>> model, trainer = from_config(config, "to be or not to be " * 20)
    >>> trainer.run().steps
    30
    """
    vocabulary = Vocabulary(text)
    to_train, held_out = split(vocabulary.encode(text))
    least = max(20, -(-10 * (config.batch + 1) // 9))
    if len(text) < least:
        raise ValueError(f"text: expected at least {least} characters for {config.batch} rows; got {len(text)}")
    rows = ContiguousRows(to_train, batch=config.batch)
    model = CharModel(
        vocabulary.characters,
        config.cell,
        config.hidden,
        config.embedding,
        config.layers,
        learned_state=config.learned_state,
        dtype=config.dtype,
        backend=config.backend,
        rng=np.random.default_rng([config.seed, WEIGHTS]),
    )
    if config.weight_drop:
        rng = np.random.default_rng([config.seed, CONNECTIONS])
        model.rnn = cast(Any, WeightDrop(model.rnn, config.weight_drop, rng=rng))  # called as the layer is
    objective = LanguageModel(
        model,
        rows,
        k1=config.k1,
        k2=config.k2,
        held_out=held_out,
        regularization=_Activities(config.ar, config.tar) if config.ar or config.tar else None,
        dropout=config.dropout,
        clip=None if config.step_clip == math.inf else config.step_clip,
        h_detach=config.h_detach,
        rng=np.random.default_rng([config.seed, UNITS]),
    )
    steps = _updates(config, rows.steps)
    trainer = Trainer(
        objective,
        _optimizer(config, model),
        steps=steps,
        max_norm=config.clip,
        schedule=_schedule(config, steps),
        accumulate=config.accumulate,
        evaluate_every=config.evaluate_every,
        patience=config.patience,
        folder=folder,
        checkpoint_every=None if folder is None else config.checkpoint_every,
        keep=config.keep,
        resume=resume,
        callbacks=callbacks,
        progress=progress,
    )
    return model, trainer


def _updates(config: Config, row: int) -> int:
    """Updates in all: those asked for, or as many as the epochs take."""
    if config.steps is not None:
        return config.steps
    windows = sum(1 for _ in schedule(row, config.k1, config.k2 or config.k1))
    return max(1, round((config.epochs or 0.0) * windows / config.accumulate))


@dataclass(frozen=True)
class _Activities:
    """AR and TAR, means over all elements as in AWD-LSTM's code; both on the dropped output, there TAR on the raw."""

    ar: float
    tar: float

    def __call__(self, output: FloatArray, reset: BoolArray) -> tuple[float, FloatArray]:
        size, d_size = activity(output, self.ar, reduction="mean")
        change, d_change = temporal_activity(output, self.tar, reduction="mean", reset=reset)
        return float(size + change), d_size + d_change


def _optimizer(config: Config, model: CharModel) -> Optimizer:
    parameters, rate, decay = model.parameters, config.learning_rate, config.weight_decay
    match config.optimizer:
        case "adam":
            return Adam(parameters, rate, weight_decay=decay)
        case "adamw":
            return AdamW(parameters, rate, weight_decay=decay)
        case "rmsprop":
            return RMSprop(parameters, rate, weight_decay=decay, momentum=config.momentum)
        case "adagrad":
            return Adagrad(parameters, rate, weight_decay=decay)
        case _:
            return SGD(parameters, rate, weight_decay=decay, momentum=config.momentum)


def _schedule(config: Config, steps: int) -> Schedule:
    falling = max(1, steps - config.warmup)
    match config.schedule:
        case "linear":
            rates = schedules.linear(falling, to=config.final_rate)
        case "cosine":
            rates = schedules.cosine(falling, to=config.final_rate)
        case _:
            rates = schedules.constant()
    return schedules.warmup(config.warmup, then=rates) if config.warmup else rates
