"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory
from scratchrnn.gradflow.paths import ForgetProduct, PathsByDistance, PathSplit, forget_product, split_paths
from scratchrnn.gradflow.probes import TaskProbe, TextProbe
from scratchrnn.gradflow.recorder import GradientFlow, GradientFlowRecorder

__all__ = [
    "Decay",
    "EffectiveMemory",
    "ForgetProduct",
    "GradientByDistance",
    "GradientFlow",
    "GradientFlowRecorder",
    "Linearized",
    "PathSplit",
    "PathsByDistance",
    "TaskProbe",
    "TextProbe",
    "effective_memory",
    "forget_product",
    "gradient_by_distance",
    "linearize_at",
    "measure_decay",
    "split_paths",
]
