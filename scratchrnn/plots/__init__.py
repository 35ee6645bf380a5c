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
    empty_figure,
    figure,
    style,
)
from scratchrnn.plots._text import UNKNOWN, visible
from scratchrnn.plots.cell_hidden import cell_units, state_autocorrelation
from scratchrnn.plots.comparison import by_setting
from scratchrnn.plots.content import projection
from scratchrnn.plots.fixed_points import fixed_points
from scratchrnn.plots.gradients import gradient_by_distance, truncation_bias
from scratchrnn.plots.itemized import itemized_map, share_beyond
from scratchrnn.plots.lyapunov import largest_exponent, lyapunov_spectrum
from scratchrnn.plots.paths import forget_product, gradient_paths
from scratchrnn.plots.position import position_decay, position_map
from scratchrnn.plots.products import connectivity, singular_values
from scratchrnn.plots.recorder import gradient_over_training, memory_over_training
from scratchrnn.plots.saturation import saturation_bars, saturation_by_step, saturation_gates
from scratchrnn.plots.states import evolution, hidden_states
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
    "cell_units",
    "connectivity",
    "empty_figure",
    "evolution",
    "figure",
    "fixed_points",
    "forget_product",
    "gradient_by_distance",
    "gradient_over_training",
    "gradient_paths",
    "hidden_states",
    "itemized_map",
    "largest_exponent",
    "loss_curves",
    "lyapunov_spectrum",
    "memory_over_training",
    "position_decay",
    "position_map",
    "projection",
    "saturation_bars",
    "saturation_by_step",
    "saturation_gates",
    "share_beyond",
    "singular_values",
    "state_autocorrelation",
    "style",
    "truncation_bias",
    "visible",
]
