"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory

__all__ = [
    "Decay",
    "EffectiveMemory",
    "GradientByDistance",
    "Linearized",
    "effective_memory",
    "gradient_by_distance",
    "linearize_at",
    "measure_decay",
]
