"""Optimizers and gradient clipping on dicts of arrays, as in `torch.optim` and `torch.nn.utils`."""

from scratchrnn.optim.adagrad import Adagrad
from scratchrnn.optim.adam import Adam, AdamW
from scratchrnn.optim.clip import clip_grad_norm_, clip_grad_value_, global_norm
from scratchrnn.optim.optimizer import Optimizer
from scratchrnn.optim.rmsprop import RMSprop
from scratchrnn.optim.sgd import SGD

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RMSprop",
    "clip_grad_norm_",
    "clip_grad_value_",
    "global_norm",
]
