"""What hidden states do over time: how often they are saturated."""

from scratchrnn.dynamics.saturation import Ends, Saturation, saturation

__all__ = ["Ends", "Saturation", "saturation"]
