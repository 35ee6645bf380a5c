"""torch's CPU bit stream: MT19937, and the uniforms that torch makes of its 32-bit words.

    float32   u = (w mod 2**24) * 2**-24                        one word each
    float64   u = ((w_1 * 2**32 + w_2) mod 2**53) * 2**-53      two words each, the high one first

NumPy's RandomState seeds MT19937 as torch does, and promises never to change it.

References
----------
Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998). torch: ATen/core/MT19937RNGEngine.h,
ATen/core/TransformationHelper.h (uniform_real).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scratchrnn._typing import DType, FloatArray

WORDS = 624  # of 32 bits, in the state


class MersenneTwister:
    """The word stream of one seed in 0..2**32 - 1."""

    def __init__(self, seed: int) -> None:
        self._bits = np.random.MT19937(0)
        state = np.random.RandomState(seed).get_state(legacy=False)["state"]
        self.set_state(state["key"], state["pos"])

    def uniform(self, count: int, dtype: DType) -> FloatArray:
        """Draw `count` uniforms in [0, 1), shape (count,), in torch's way for this dtype."""
        if dtype == np.float32:
            words = self._bits.random_raw(count)
            return (words & np.uint64(2**24 - 1)).astype(np.float32) * np.float32(2.0**-24)
        words = self._bits.random_raw(2 * count)
        pairs = (words[0::2] << np.uint64(32)) | words[1::2]
        return (pairs & np.uint64(2**53 - 1)).astype(np.float64) * 2.0**-53

    def get_state(self) -> tuple[NDArray[np.uint32], int]:
        """Return copies of the state words, shape (624,), and of the position in them, 0 to 624."""
        state = self._bits.state["state"]
        return np.array(state["key"], dtype=np.uint32), int(state["pos"])

    def set_state(self, words: NDArray[np.uint32], position: int) -> None:
        """Continue from a state that `get_state` returned; NumPy copies the words."""
        self._bits.state = {"bit_generator": "MT19937", "state": {"key": words, "pos": position}}
