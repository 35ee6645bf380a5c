"""The report of a study: one HTML page that needs nothing else, and its figures as files."""

from scratchrnn.report.page import render

__all__ = ["render"]
