"""What hidden states do over time: saturation, position, fixed points, and where the first one is not finite."""

from scratchrnn.dynamics.connections import Connections, connections
from scratchrnn.dynamics.fixed_points import FixedPoints, fixed_points
from scratchrnn.dynamics.position import Position, position
from scratchrnn.dynamics.saturation import Ends, Saturation, saturation
from scratchrnn.nonfinite import NonFinite, first_nonfinite

__all__ = [
    "Connections",
    "Ends",
    "FixedPoints",
    "NonFinite",
    "Position",
    "Saturation",
    "connections",
    "first_nonfinite",
    "fixed_points",
    "position",
    "saturation",
]
