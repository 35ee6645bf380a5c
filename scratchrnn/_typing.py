"""Array aliases used in signatures. Shapes stand in docstrings and comments; NumPy's types carry only the dtype."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.integer[Any]]
BoolArray = NDArray[np.bool_]
DType = np.dtype[np.floating[Any]]
