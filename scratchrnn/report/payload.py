"""What the live part of the page reads: a stretch in both models as JSON, small and safe inside HTML.

States, gates and their gradients are float32, little-endian, in base64: NaN and infinite ones stay what they are.
Gradient norms are numbers with three significant digits, probabilities with four decimals; null is one not finite.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.report.drawing import CELL_LIMIT
from scratchrnn.report.order import alike, slow_first
from scratchrnn.report.words import NAMES
from scratchrnn.study import Measurement, Stretch

UNITS = 256  # of each layer at most: more rows than a screen has

# name in a stretch: sign, words, colour map, end of its range (None: from the numbers); in the order of the page
QUANTITIES: dict[str, tuple[str, str, str, float | None]] = {
    "h": ("h", "hidden state", "diverging", 1.0),
    "c": ("c", "cell state", "diverging", CELL_LIMIT),
    "i": ("i", "input gate", "sequential", 1.0),
    "f": ("f", "forget gate", "sequential", 1.0),
    "g": ("g", "candidate", "diverging", 1.0),
    "o": ("o", "output gate", "sequential", 1.0),
    "d_h": ("∂L/∂h", "gradient of h", "diverging", None),
    "d_c": ("∂L/∂c", "gradient of c", "diverging", None),
}


def payload(models: Mapping[str, Measurement]) -> str:
    """Both models' stretches as JSON that can stand in a <script> element.

    Parameters
    ----------
    models : mapping of cell to Measurement
        Of the same stretch of text.
    """
    first = next(iter(models.values())).stretch
    found = {
        "text": [*first.text],  # a list: what is one character here may be two in JavaScript
        "following": [*first.following],
        "quantities": {
            name: {"sign": sign, "words": words, "map": colors} for name, (sign, words, colors, _) in QUANTITIES.items()
        },
        "models": [{"cell": cell, "name": NAMES[cell], **_model(m.stretch)} for cell, m in models.items()],
    }
    text = json.dumps(found, allow_nan=False, separators=(",", ":"))  # ASCII: anything else is escaped
    # no "</script>" and no "<!--" can be in it
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def pack(array: FloatArray) -> str:
    """An array (K, H) as base64."""
    with np.errstate(all="ignore"):  # float64 beyond float32 becomes infinite, or zero
        return base64.b64encode(array.astype("<f4").tobytes()).decode()


def _model(stretch: Stretch) -> dict[str, Any]:
    return {
        "layers": [_layer(arrays) for arrays in stretch.layers],
        "gradient": [[_plain(norm, 3) for norm in row[: t + 1]] for t, row in enumerate(stretch.gradient.tolist())],
        "probability": [_probability(p) for p in stretch.probability.tolist()],
        "candidates": [
            [[character, _probability(p)] for character, p in zip(characters, row, strict=True)]
            for characters, row in zip(stretch.candidates, stretch.candidate_probability.tolist(), strict=True)
        ],
    }


def _layer(arrays: Mapping[str, FloatArray]) -> dict[str, Any]:
    h = arrays["h"][:, :UNITS]
    return {
        "size": arrays["h"].shape[1],
        "units": h.shape[1],
        "orders": {"slow": slow_first(h).tolist(), "alike": alike(h).tolist()},
        "arrays": {
            name: {"data": pack(arrays[name][:, :UNITS]), "limit": limit or _limit(arrays[name][:, :UNITS])}
            for name, (_, _, _, limit) in QUANTITIES.items()
            if name in arrays
        },
    }


def _limit(array: FloatArray) -> float:
    """Where the colours of a gradient end: two digits at the 99th percentile, since a few are far larger."""
    sizes = np.abs(array[np.isfinite(array)])
    size = float(np.percentile(sizes, 99)) if sizes.size else 0.0
    return float(f"{size:.2g}") if size > 0 else 1.0


def _probability(value: float) -> float | None:
    return round(value, 4) if math.isfinite(value) else None


def _plain(value: float, digits: int) -> float | None:
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None
