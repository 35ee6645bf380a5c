"""Layers: forward keeps what backward needs in a trace; nothing is hidden in a layer between calls."""

from scratchrnn.layers.cells import LSTMCell, RNNCell
from scratchrnn.layers.dropout import Dropout, LockedDropout
from scratchrnn.layers.embedding import Embedding
from scratchrnn.layers.initial_state import InitialState
from scratchrnn.layers.linear import Linear
from scratchrnn.layers.recurrent import LSTM, RNN
from scratchrnn.layers.weight_drop import WeightDrop
from scratchrnn.layers.zoneout import Zoneout

__all__ = [
    "LSTM",
    "RNN",
    "Dropout",
    "Embedding",
    "InitialState",
    "LSTMCell",
    "Linear",
    "LockedDropout",
    "RNNCell",
    "WeightDrop",
    "Zoneout",
]
