"""A study from its text to its results, in parts small enough to be stopped between any two."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass

import numpy as np
import scipy.linalg  # noqa: F401  before its BLAS is limited
from threadpoolctl import threadpool_limits

from scratchrnn._typing import IntArray
from scratchrnn.data import ContiguousRows, Vocabulary, split, text_sha256, unigram_entropy
from scratchrnn.gradflow import GradientFlowRecorder, TextProbe
from scratchrnn.models import CharModel
from scratchrnn.optim import Adam
from scratchrnn.study.inside import WORD
from scratchrnn.study.measure import measure
from scratchrnn.study.results import ModelResults, Results
from scratchrnn.study.settings import CELLS, Settings
from scratchrnn.train import NATS_PER_BIT, DivergedError, LanguageModel, Step, Trainer, evaluate, schedules

PROMPT = 200  # characters read before writing
PROBED = 16  # places in the text held out where the gradient is followed back again and again
EARLY = (2, 5, 10, 15, 20, 30, 40)  # steps after which the loss is looked at besides the regular ones


@dataclass(frozen=True)
class Progress:
    """What a study is doing now.

    Attributes
    ----------
    doing : str
        "measure untrained", "train", "measure trained" or "write samples".
    cell : str
        "rnn" or "lstm".
    step : int
        Updates done, in training.
    bits, validation_bits : float
        Loss of the last window, and the last one on the text held out; NaN outside training.
    characters_per_second : float
        Of the last update.
    """

    doing: str
    cell: str
    step: int = 0
    bits: float = float("nan")
    validation_bits: float = float("nan")
    characters_per_second: float = float("nan")


Stage = Generator[Progress, None, None]


def run(
    text: str,
    settings: Settings | None = None,
    *,
    text_name: str = "text",
    tell: Callable[[Progress], None] = lambda progress: None,
    stop: Callable[[], int] = lambda: 0,
) -> Results:
    """Train an RNN and an LSTM side by side on the same windows, or one of them, and measure before and after.

    Parameters
    ----------
    text : str
        The first nine tenths are trained on, the last tenth is held out. The vocabulary is that of the whole.
    settings : Settings, optional
    text_name : str
        Where the text came from, for the report.
    tell : callable
        Called with a `Progress` before each part and after each update.
    stop : callable
        Asked between any two parts and updates how many wishes to stop there have been. At the first, training ends and
        what it reached is measured; at the second, or at the first outside training, no more is done.

    Returns
    -------
    Results
        With `stopped` set if it did not come to its end: `stop` said so, or the loss of a model was not finite. A model
        whose loss on the text held out is not finite at the end is not measured again, and without numbers to draw from
        it does not write.

    Raises
    ------
    ValueError
        The text is too short.
    """
    # matrices of this size gain nothing from more threads of BLAS, which on a busy machine wait for each other
    with threadpool_limits(limits=1, user_api="blas"):
        return _run(text, settings or Settings(), text_name, tell, stop)


def _run(
    text: str, settings: Settings, text_name: str, tell: Callable[[Progress], None], stop: Callable[[], int]
) -> Results:
    start = time.perf_counter()
    settings.check_text(text)
    vocabulary = Vocabulary(text)
    codes = vocabulary.encode(text)
    to_train, held_out = split(codes)
    training = text[: len(to_train)]
    rows = ContiguousRows(to_train, batch=settings.batch)
    results = Results(
        settings=settings,
        text_name=text_name,
        text_sha256=text_sha256(text),
        text_length=len(text),
        vocabulary_size=len(vocabulary),
        dropped=rows.dropped,
        unigram_bits=unigram_entropy(codes) / NATS_PER_BIT,
        models={cell: ModelResults(_new_model(cell, vocabulary, settings)) for cell in settings.cells},
        prompt=vocabulary.decode(held_out[:PROMPT]),
    )
    patience = 0  # how many wishes to stop are still answered with more work
    for stage in (_before(results, held_out), _train(results, rows, held_out), _after(results, held_out, training)):
        with closing(stage):  # what a stage does at its end is done before the next begins
            try:
                for progress in stage:
                    if stop() > patience:
                        results.stopped = results.stopped or "interrupted"
                        break
                    tell(progress)
            except DivergedError as error:
                results.stopped = str(error)
        if results.stopped and not results.steps_done:
            break
        if results.steps_done:
            patience = min(stop(), 1)  # training may be cut short: what it reached is measured all the same
    if results.stopped == "interrupted" and _is_whole(results):
        results.stopped = None  # the wish came when all was done
    results.seconds = time.perf_counter() - start
    return results


def _is_whole(results: Results) -> bool:
    return results.steps_done == results.settings.steps and all(m.sample is not None for m in results.models.values())


def _new_model(cell: str, vocabulary: Vocabulary, settings: Settings) -> CharModel:
    return CharModel(
        vocabulary.characters,
        cell,
        settings.hidden_size,
        settings.embedding_size,
        backend=settings.backend,
        rng=np.random.default_rng([settings.seed, CELLS.index(cell)]),
    )


def _before(results: Results, held_out: IntArray) -> Stage:
    """Measure; like the other two stages it stands still at each item, which says what comes next or what was done."""
    for cell, one in results.models.items():
        yield Progress("measure untrained", cell)
        one.before = measure(one.model, held_out, results.settings)


def _train(results: Results, rows: ContiguousRows, held_out: IntArray) -> Stage:
    """One update of each model in turn, so that both always stand at the same step when this is stopped."""
    settings = results.settings
    probe = TextProbe(held_out, distance=settings.distance, sequences=min(PROBED, len(held_out) - settings.distance))
    recorders = {cell: GradientFlowRecorder(probe, every=settings.validate_every) for cell in results.models}
    trainers = {cell: _trainer(one.model, rows, settings, recorders[cell]) for cell, one in results.models.items()}
    updates = {cell: iter(trainer) for cell, trainer in trainers.items()}
    for cell, one in results.models.items():
        yield Progress("train", cell)
        one.curve.validation.append((0, evaluate(one.model, held_out) / NATS_PER_BIT))
        recorders[cell](trainers[cell])  # before the first update
    speed: dict[str, float] = {}
    try:
        for number in range(1, settings.steps + 1):
            for cell, one in results.models.items():
                step = _next(cell, updates[cell])
                one.curve.bits.append(step.bits)
                one.curve.gradient_norm.append(step.gradient_norm)
                one.curve.seconds.append(step.seconds)
                speed[cell] = step.items_per_second
                if number % settings.validate_every == 0 or number in {*EARLY, settings.steps}:
                    one.curve.validation.append((number, evaluate(one.model, held_out) / NATS_PER_BIT))
            results.steps_done = number
            for cell, one in results.models.items():
                yield Progress("train", cell, number, one.curve.bits[-1], one.curve.validation[-1][1], speed[cell])
    finally:  # however it ends
        for cell, one in results.models.items():
            one.flow = recorders[cell].result()


def _trainer(model: CharModel, rows: ContiguousRows, settings: Settings, recorder: GradientFlowRecorder) -> Trainer:
    return Trainer(
        LanguageModel(model, rows, k1=settings.window),
        Adam(model.parameters, lr=settings.learning_rate),
        steps=settings.steps,
        max_norm=settings.max_norm,
        schedule=schedules.linear(settings.steps, to=0.1),
        callbacks=[recorder],
        progress=False,
    )


def _next(cell: str, steps: Iterator[Step]) -> Step:
    try:
        return next(steps)
    except DivergedError as error:
        raise DivergedError(f"{cell}: {error}") from None


def _after(results: Results, held_out: IntArray, training: str) -> Stage:
    """Measure and write, but for a model that has no finite loss any more: there is nothing to be found in it."""
    settings, finite = results.settings, []
    for cell, one in results.models.items():
        yield Progress("measure trained", cell)
        updates = len(one.curve.bits)
        if one.curve.validation[-1][0] != updates:  # training was cut short between two looks
            one.curve.validation.append((updates, evaluate(one.model, held_out) / NATS_PER_BIT))
        if not math.isfinite(one.curve.validation[-1][1]):
            results.stopped = results.stopped or f"{cell}: the loss on the text held out is not finite"
            continue
        one.after = measure(one.model, held_out, settings)
        finite.append(cell)
    for cell in finite:
        yield Progress("write samples", cell)
        one = results.models[cell]
        rng = np.random.default_rng(settings.seed)
        one.sample = one.model.sample(results.prompt, settings.sample_length, rng=rng, temperature=0.8)
        one.known_words = _known_words(results.prompt, one.sample, training)


def _known_words(prompt: str, sample: str, text: str) -> float | None:
    """Share of the sample's words that occur in the text; None without words.

    A word that began in the prompt is not the model's alone, and one at the very end may be cut off: both are left out.
    """
    whole, known = prompt + sample, set(WORD.findall(text))
    words = [word[0] for word in WORD.finditer(whole) if word.start() >= len(prompt) and word.end() < len(whole)]
    return sum(word in known for word in words) / len(words) if words else None
