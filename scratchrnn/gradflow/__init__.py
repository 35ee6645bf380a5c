"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.connectivity import Connectivity, connectivity
from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.lyapunov import LyapunovSpectrum, lyapunov_spectrum, mean_field_exponent
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory
from scratchrnn.gradflow.products import SingularValues, StepJacobians, jacobians, singular_values

__all__ = [
    "Connectivity",
    "Decay",
    "EffectiveMemory",
    "GradientByDistance",
    "Linearized",
    "LyapunovSpectrum",
    "SingularValues",
    "StepJacobians",
    "connectivity",
    "effective_memory",
    "gradient_by_distance",
    "jacobians",
    "linearize_at",
    "lyapunov_spectrum",
    "mean_field_exponent",
    "measure_decay",
    "singular_values",
]
