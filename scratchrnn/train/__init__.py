"""Training: windows in, updates out."""

from scratchrnn.train.steps import NATS_PER_BIT, DivergedError, Step, evaluate, train

__all__ = ["NATS_PER_BIT", "DivergedError", "Step", "evaluate", "train"]
