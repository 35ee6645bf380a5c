"""The sections of the page, in its order.

Each is one file: its finding, its figures, its caption, and what else it shows, ending in `SECTION`. A new one is such
a file and a line here.
"""

from __future__ import annotations

from scratchrnn.report.section import Section
from scratchrnn.report.sections import gradients, learning, memory, samples, saturation, states

SECTIONS: tuple[Section, ...] = (
    learning.SECTION,
    gradients.SECTION,
    memory.SECTION,
    saturation.SECTION,
    states.SECTION,
    samples.SECTION,
)
