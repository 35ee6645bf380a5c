"""What vectors this machine has: asked of LLVM, never assumed.

A register tile of `rows` × `vectors` accumulators, each `lanes` wide, is the heart of every product here. It must fit
the register file beside the operands: 24 + 4 + 1 of 32 registers, or 12 + 2 + 1 of 16.
"""

from __future__ import annotations

from dataclasses import dataclass

import llvmlite.binding as llvm


@dataclass(frozen=True)
class Vectors:
    """The vector unit that kernels are compiled for."""

    name: str
    bits: int  # of one register
    rows: int  # of the register tile
    vectors: int  # in a row of it

    def lanes(self, itemsize: int) -> int:
        """Numbers of `itemsize` bytes in one register."""
        return self.bits // (8 * itemsize)


def vectors() -> Vectors:
    """The widest vector unit that this CPU has and its operating system lets us use."""
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return Vectors("AVX-512", 512, 6, 4)
    if features.get("avx2") and features.get("fma"):
        return Vectors("AVX2", 256, 6, 2)
    if features.get("neon") or llvm.get_default_triple().startswith("aarch64"):
        return Vectors("NEON", 128, 6, 4)
    return Vectors("128 bits", 128, 4, 2)


UNIT = vectors()
