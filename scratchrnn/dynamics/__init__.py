"""What hidden states do over time: their evolution, content and saturation, and what is wrong with them."""

from scratchrnn.dynamics.content import Projection, project
from scratchrnn.dynamics.evolution import Evolution, evolution
from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = [
    "Ends",
    "Evolution",
    "NonFinite",
    "Projection",
    "Saturation",
    "evolution",
    "first_nonfinite",
    "project",
    "saturation",
]
