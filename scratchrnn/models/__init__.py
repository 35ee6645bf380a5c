"""Whole models, forward and backward by hand."""

from scratchrnn.models.bridge import Bridge, BridgeTrace
from scratchrnn.models.char import CELLS, CharModel, CharTrace
from scratchrnn.models.encoder_decoder import EncoderDecoder, EncoderDecoderGradients, EncoderDecoderTrace
from scratchrnn.models.every_step import EveryStep, EveryStepTrace
from scratchrnn.models.last_step import LastStep, LastStepTrace

__all__ = [
    "CELLS",
    "Bridge",
    "BridgeTrace",
    "CharModel",
    "CharTrace",
    "EncoderDecoder",
    "EncoderDecoderGradients",
    "EncoderDecoderTrace",
    "EveryStep",
    "EveryStepTrace",
    "LastStep",
    "LastStepTrace",
]
