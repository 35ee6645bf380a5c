"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.itemized import Itemized, ItemVectors, itemized
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory
from scratchrnn.gradflow.per_step import weight_gradient_norms, weight_gradients_at

__all__ = [
    "Decay",
    "EffectiveMemory",
    "GradientByDistance",
    "ItemVectors",
    "Itemized",
    "Linearized",
    "effective_memory",
    "gradient_by_distance",
    "itemized",
    "linearize_at",
    "measure_decay",
    "weight_gradient_norms",
    "weight_gradients_at",
]
