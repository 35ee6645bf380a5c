"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory
from scratchrnn.gradflow.probes import TaskProbe, TextProbe
from scratchrnn.gradflow.recorder import GradientFlow, GradientFlowRecorder

__all__ = [
    "Decay",
    "EffectiveMemory",
    "GradientByDistance",
    "GradientFlow",
    "GradientFlowRecorder",
    "Linearized",
    "TaskProbe",
    "TextProbe",
    "effective_memory",
    "gradient_by_distance",
    "linearize_at",
    "measure_decay",
]
