"""The main job: train an RNN and an LSTM on one text, and measure what their states and gradients do.

`run` does the work and can be stopped between any two steps; `scratchrnn.study.folder` writes what it found.
"""

from scratchrnn.study.inside import Inside, WordStates
from scratchrnn.study.results import Curve, Measurement, ModelResults, Results
from scratchrnn.study.run import Progress, run
from scratchrnn.study.settings import Settings
from scratchrnn.study.stretch import Stretch

__all__ = [
    "Curve",
    "Inside",
    "Measurement",
    "ModelResults",
    "Progress",
    "Results",
    "Settings",
    "Stretch",
    "WordStates",
    "run",
]
