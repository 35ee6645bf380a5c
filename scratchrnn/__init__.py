"""scratchrnn: vanilla RNN and LSTM from scratch on arrays, forward and backward by hand, every step in view.

>>> import numpy as np, scratchrnn as srnn
>>> lstm = srnn.LSTM(10, 64, num_layers=2, rng=np.random.default_rng(0))
>>> trace = lstm.forward(np.zeros((5, 3, 10), np.float32))
>>> trace[1].c.shape, trace[1].f.shape
((6, 3, 64), (5, 3, 64))
>>> grads = lstm.backward(trace, d_output=np.ones_like(trace.output))
>>> grads[1].c.shape, grads.parameters["weight_hh_l0"].shape
((6, 3, 64), (256, 64))
"""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

if not (Path(__file__).parent / "kernels").is_dir():  # a checkout: kernels/ lies beside this package
    _spec = importlib.util.spec_from_file_location(
        "scratchrnn.kernels", Path(__file__).parents[1] / "kernels" / "__init__.py"
    )
    if _spec is None or _spec.loader is None:
        raise ImportError("scratchrnn.kernels: neither in the package nor beside it")
    sys.modules["scratchrnn.kernels"] = importlib.util.module_from_spec(_spec)
    _spec.loader.exec_module(sys.modules["scratchrnn.kernels"])

from scratchrnn import backends, init, losses, optim, rng, testing, toy, trace
from scratchrnn.backends import get_num_threads, set_num_threads, use_backend
from scratchrnn.layers import (
    LSTM,
    RNN,
    Dropout,
    Embedding,
    InitialState,
    Linear,
    LockedDropout,
    LSTMCell,
    RNNCell,
    WeightDrop,
    Zoneout,
)
from scratchrnn.trace import Gradients, LayerGradients, LayerTangent, LayerTrace, Tangent, Trace

__version__ = "0.1.0"

# reached as srnn.check and so on, and loaded then: some need matplotlib or torch, and a training script needs none
_ON_FIRST_USE = (
    "bptt", "check", "checkpoint", "data", "dynamics", "gradflow", "interop", "models", "plots", "regularizers",
    "train",
)  # fmt: skip

__all__ = [
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "Gradients",
    "InitialState",
    "LSTMCell",
    "LayerGradients",
    "LayerTangent",
    "LayerTrace",
    "Linear",
    "LockedDropout",
    "RNNCell",
    "Tangent",
    "Trace",
    "WeightDrop",
    "Zoneout",
    "backends",
    "get_num_threads",
    "init",
    "losses",
    "optim",
    "rng",
    "set_num_threads",
    "testing",
    "toy",
    "trace",
    "use_backend",
]


def __getattr__(name: str) -> ModuleType:
    if name in _ON_FIRST_USE:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ON_FIRST_USE})
