"""Figures: each function draws one result on axes that the caller gives, and changes nothing else.

    with plots.style():
        figure, axes = plots.figure()
        plots.gradient_by_distance(axes, {"RNN": rnn_norms, "LSTM": lstm_norms})
        figure.savefig("gradients.png")

No pyplot: figures need no display and are freed like any other object. Colours are those of Okabe and Ito, which people
with any common colour blindness can tell apart, and lines carry their names, so that no legend is needed.
"""

from scratchrnn.plots._style import (
    BLUE,
    FAINT,
    GREEN,
    HIGH,
    INK,
    LOW,
    MUTED,
    ORANGE,
    PALETTE,
    PURPLE,
    SKY,
    TRACK,
    VERMILION,
    figure,
    style,
)
from scratchrnn.plots._text import UNKNOWN, visible
from scratchrnn.plots.comparison import by_setting
from scratchrnn.plots.gradients import gradient_by_distance, truncation_bias
from scratchrnn.plots.saturation import saturation_bars, saturation_gates
from scratchrnn.plots.states import hidden_states
from scratchrnn.plots.training import loss_curves

__all__ = [
    "BLUE",
    "FAINT",
    "GREEN",
    "HIGH",
    "INK",
    "LOW",
    "MUTED",
    "ORANGE",
    "PALETTE",
    "PURPLE",
    "SKY",
    "TRACK",
    "UNKNOWN",
    "VERMILION",
    "by_setting",
    "figure",
    "gradient_by_distance",
    "hidden_states",
    "loss_curves",
    "saturation_bars",
    "saturation_gates",
    "style",
    "truncation_bias",
    "visible",
]
