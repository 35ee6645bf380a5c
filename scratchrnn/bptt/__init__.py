"""Backpropagation through time: whole, in little memory, truncated, and for streams.

    full             forward and backward as the layer has them: memory for T steps
    checkpointed     the same gradients, bit for bit, in memory for about √T steps
    truncated        the sum over windows of gradients that reach back k2 steps, a window every k1
    windows          the same window by window, for updates in between
    Stream           a layer whose state goes on from call to call
    truncation_bias  how far truncated gradients are from the full one

docs/truncation.md derives each.
"""

from scratchrnn.bptt.checkpointed import checkpointed
from scratchrnn.bptt.full import full
from scratchrnn.bptt.schedule import Span, schedule
from scratchrnn.bptt.stream import Stream, StreamGradients, StreamTrace
from scratchrnn.bptt.truncated import TruncationBias, truncated, truncation_bias
from scratchrnn.bptt.windows import Window, windows

__all__ = [
    "Span",
    "Stream",
    "StreamGradients",
    "StreamTrace",
    "TruncationBias",
    "Window",
    "checkpointed",
    "full",
    "schedule",
    "truncated",
    "truncation_bias",
    "windows",
]
