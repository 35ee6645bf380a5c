"""Backpropagation through time: whole, in little memory, truncated, for streams, and differentiated once more.

    full             forward and backward as the layer has them: memory for T steps
    checkpointed     the same gradients, bit for bit, in memory for about √T steps
    truncated        the sum over windows of gradients that reach back k2 steps, a window every k1
    windows          the same window by window, for updates in between
    Stream           a layer whose state goes on from call to call
    truncation_bias  how far truncated gradients are from the full one
    tangent, tangent_backward   the derivative of forward and of backward along one direction: J u and H u

docs/truncation.md derives the truncated ones, docs/second-derivatives.md the last two.
"""

from scratchrnn.bptt.checkpointed import checkpointed
from scratchrnn.bptt.full import full
from scratchrnn.bptt.schedule import Span, schedule
from scratchrnn.bptt.stream import Stream, StreamGradients, StreamTrace
from scratchrnn.bptt.tangents import tangent, tangent_backward
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
    "tangent",
    "tangent_backward",
    "truncated",
    "truncation_bias",
    "windows",
]
