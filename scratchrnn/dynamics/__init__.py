"""What hidden states do over time: saturation, position, fixed points, and where the first one is not finite."""

from scratchrnn.dynamics.autocorrelation import Autocorrelation, autocorrelation
from scratchrnn.dynamics.cell_hidden import CellHidden, Claim, StateMemory, cell_hidden
from scratchrnn.dynamics.connections import Connections, connections
from scratchrnn.dynamics.content import Projection, project
from scratchrnn.dynamics.diagnostics import Diagnosis, Diagnostics, diagnose, diagnose_model, diagnose_stream
from scratchrnn.dynamics.evolution import Evolution, evolution
from scratchrnn.dynamics.figures import Figures
from scratchrnn.dynamics.fixed_points import FixedPoints, fixed_points
from scratchrnn.dynamics.observed import GradientFigures, Limits, UpdateFigures
from scratchrnn.dynamics.position import Position, position
from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.dynamics.symptoms import Finding
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = [
    "Autocorrelation",
    "CellHidden",
    "Claim",
    "Connections",
    "Diagnosis",
    "Diagnostics",
    "Ends",
    "Evolution",
    "Figures",
    "Finding",
    "FixedPoints",
    "GradientFigures",
    "Limits",
    "NonFinite",
    "Position",
    "Projection",
    "Saturation",
    "StateMemory",
    "UpdateFigures",
    "autocorrelation",
    "cell_hidden",
    "connections",
    "diagnose",
    "diagnose_model",
    "diagnose_stream",
    "evolution",
    "first_nonfinite",
    "fixed_points",
    "position",
    "project",
    "saturation",
]
