"""Whole models, forward and backward by hand."""

from scratchrnn.models.char import CELLS, CharModel, CharTrace
from scratchrnn.models.last_step import LastStep, LastStepTrace

__all__ = ["CELLS", "CharModel", "CharTrace", "LastStep", "LastStepTrace"]
