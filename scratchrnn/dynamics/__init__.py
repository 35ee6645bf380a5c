"""What hidden states do over time: how long they last, how often they are saturated, where one is not finite."""

from scratchrnn.dynamics.autocorrelation import Autocorrelation, autocorrelation
from scratchrnn.dynamics.cell_hidden import CellHidden, Claim, StateMemory, cell_hidden
from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = [
    "Autocorrelation",
    "CellHidden",
    "Claim",
    "Ends",
    "NonFinite",
    "Saturation",
    "StateMemory",
    "autocorrelation",
    "cell_hidden",
    "first_nonfinite",
    "saturation",
]
