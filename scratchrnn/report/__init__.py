"""The report of a study, or of several: one HTML page that needs nothing else, and its figures as files."""

from scratchrnn.report.comparison import render_comparison
from scratchrnn.report.page import render

__all__ = ["render", "render_comparison"]
