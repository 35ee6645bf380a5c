"""What hidden states do over time: how often they are saturated, and where the first one is not finite."""

from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = ["Ends", "NonFinite", "Saturation", "first_nonfinite", "saturation"]
