"""Training: an objective in, updates out, and nothing lost on the way.

Trainer          the loop: clipping, schedules, evaluation, early stopping, checkpoints, log
LanguageModel    a character model on rows of text, by truncated backpropagation through time
Sampled          a task whose batches are drawn
evaluate         the loss on a text held out
schedules        learning rates over a run
Config           every setting of a run, as `scratchrnn train` and its TOML file have them
from_config      the model and the Trainer that these settings describe
"""

from scratchrnn.train import schedules
from scratchrnn.train.config import Config
from scratchrnn.train.evaluate import evaluate
from scratchrnn.train.language import LanguageModel
from scratchrnn.train.objective import Objective, Outcome
from scratchrnn.train.recipe import from_config
from scratchrnn.train.records import NATS_PER_BIT, DivergedError, Result, Step
from scratchrnn.train.sampled import Sampled
from scratchrnn.train.trainer import Trainer

__all__ = [
    "NATS_PER_BIT",
    "Config",
    "DivergedError",
    "LanguageModel",
    "Objective",
    "Outcome",
    "Result",
    "Sampled",
    "Step",
    "Trainer",
    "evaluate",
    "from_config",
    "schedules",
]
