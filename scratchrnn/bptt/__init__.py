"""Backpropagation through time: over whole sequences, with everything kept or almost nothing.

full            forward and backward as the layer has them: memory for T steps
checkpointed    the same gradients, bit for bit, in memory for about √T steps
"""

from scratchrnn.bptt.checkpointed import checkpointed
from scratchrnn.bptt.full import full

__all__ = ["checkpointed", "full"]
