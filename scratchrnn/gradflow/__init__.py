"""How gradients flow through time: their norm at every distance from the loss, and how far back they reach."""

from scratchrnn.gradflow.connectivity import Connectivity, connectivity
from scratchrnn.gradflow.distance import Decay, GradientByDistance, gradient_by_distance, measure_decay
from scratchrnn.gradflow.itemized import Itemized, ItemVectors, itemized
from scratchrnn.gradflow.linearize import Linearized, linearize_at
from scratchrnn.gradflow.lyapunov import LyapunovSpectrum, lyapunov_spectrum, mean_field_exponent
from scratchrnn.gradflow.memory import EffectiveMemory, effective_memory
from scratchrnn.gradflow.paths import ForgetProduct, PathsByDistance, PathSplit, forget_product, split_paths
from scratchrnn.gradflow.per_sample import per_sample_norms
from scratchrnn.gradflow.per_step import weight_gradient_norms, weight_gradients_at
from scratchrnn.gradflow.probes import TaskProbe, TextProbe
from scratchrnn.gradflow.products import SingularValues, StepJacobians, jacobians, singular_values
from scratchrnn.gradflow.recorder import GradientFlow, GradientFlowRecorder

__all__ = [
    "Connectivity",
    "Decay",
    "EffectiveMemory",
    "ForgetProduct",
    "GradientByDistance",
    "GradientFlow",
    "GradientFlowRecorder",
    "ItemVectors",
    "Itemized",
    "Linearized",
    "LyapunovSpectrum",
    "PathSplit",
    "PathsByDistance",
    "SingularValues",
    "StepJacobians",
    "TaskProbe",
    "TextProbe",
    "connectivity",
    "effective_memory",
    "forget_product",
    "gradient_by_distance",
    "itemized",
    "jacobians",
    "linearize_at",
    "lyapunov_spectrum",
    "mean_field_exponent",
    "measure_decay",
    "per_sample_norms",
    "singular_values",
    "split_paths",
    "weight_gradient_norms",
    "weight_gradients_at",
]
