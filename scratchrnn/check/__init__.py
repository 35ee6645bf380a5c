"""Proof: a layer against torch, a user's own functions against the definition, any backward against differences."""

from scratchrnn.check.against_torch import against_torch
from scratchrnn.check.diagnose import Finding
from scratchrnn.check.gradcheck import gradcheck, gradcheck_layer
from scratchrnn.check.gradreport import GradReport, GradRow
from scratchrnn.check.reference import reference
from scratchrnn.check.report import CheckReport, Row
from scratchrnn.check.verdict import ReferenceReport

__all__ = [
    "CheckReport",
    "Finding",
    "GradReport",
    "GradRow",
    "ReferenceReport",
    "Row",
    "against_torch",
    "gradcheck",
    "gradcheck_layer",
    "reference",
]
