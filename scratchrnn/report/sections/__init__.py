"""The sections of the page, in its order.

Each is one file: its finding, its figures, its caption, and what else it shows, ending in `SECTION`. A new one is such
a file and a line here.
"""

from __future__ import annotations

from scratchrnn.report.section import Section
from scratchrnn.report.sections import (
    cells,
    diagnosis,
    flow,
    gradients,
    itemized,
    jacobians,
    learning,
    live,
    lyapunov,
    memory,
    paths,
    position,
    samples,
    saturation,
    states,
    words,
)

SECTIONS: tuple[Section, ...] = (
    learning.SECTION,
    gradients.SECTION,
    flow.SECTION,
    memory.SECTION,
    live.SECTION,
    states.SECTION,
    itemized.SECTION,
    lyapunov.SECTION,
    jacobians.SECTION,
    paths.SECTION,
    cells.SECTION,
    saturation.SECTION,
    position.SECTION,
    words.SECTION,
    diagnosis.SECTION,
    samples.SECTION,
)
