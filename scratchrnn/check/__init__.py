"""Proof: a layer against torch, and any forward and backward against finite differences."""

from scratchrnn.check.against_torch import against_torch
from scratchrnn.check.gradcheck import gradcheck, gradcheck_layer
from scratchrnn.check.gradreport import GradReport, GradRow
from scratchrnn.check.report import CheckReport, Row

__all__ = ["CheckReport", "GradReport", "GradRow", "Row", "against_torch", "gradcheck", "gradcheck_layer"]
