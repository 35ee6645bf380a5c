"""Whole models, forward and backward by hand."""

from scratchrnn.models.char import CELLS, CharModel, CharTrace

__all__ = ["CELLS", "CharModel", "CharTrace"]
