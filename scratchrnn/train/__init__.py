"""Training: an objective in, updates out, and nothing lost on the way.

Trainer          the loop: clipping, schedules, evaluation, early stopping, checkpoints, log
LanguageModel    a character model on rows of text, by truncated backpropagation through time
Sampled          a task whose batches are drawn
evaluate         the loss on a text held out
schedules        learning rates over a run
"""

from scratchrnn.train import schedules
from scratchrnn.train.evaluate import evaluate
from scratchrnn.train.language import LanguageModel
from scratchrnn.train.objective import Objective, Outcome
from scratchrnn.train.records import NATS_PER_BIT, DivergedError, Result, Step
from scratchrnn.train.sampled import Sampled
from scratchrnn.train.trainer import Trainer

__all__ = [
    "NATS_PER_BIT",
    "DivergedError",
    "LanguageModel",
    "Objective",
    "Outcome",
    "Result",
    "Sampled",
    "Step",
    "Trainer",
    "evaluate",
    "schedules",
]
