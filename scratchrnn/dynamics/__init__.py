"""What hidden states do over time: their evolution, content and saturation, and what is wrong with them."""

from scratchrnn.dynamics.content import Projection, project
from scratchrnn.dynamics.diagnostics import Diagnosis, Diagnostics, diagnose, diagnose_model, diagnose_stream
from scratchrnn.dynamics.evolution import Evolution, evolution
from scratchrnn.dynamics.figures import Figures
from scratchrnn.dynamics.observed import GradientFigures, Limits, UpdateFigures
from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.dynamics.symptoms import Finding
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = [
    "Diagnosis",
    "Diagnostics",
    "Ends",
    "Evolution",
    "Figures",
    "Finding",
    "GradientFigures",
    "Limits",
    "NonFinite",
    "Projection",
    "Saturation",
    "UpdateFigures",
    "diagnose",
    "diagnose_model",
    "diagnose_stream",
    "evolution",
    "first_nonfinite",
    "project",
    "saturation",
]
