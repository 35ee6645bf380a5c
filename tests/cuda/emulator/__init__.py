"""CUDA kernels on the CPU: the PTX that numba-cuda compiles, run with many blocks at once.

A test compiles a kernel to PTX, for which no GPU is needed, and `launch` runs that PTX on NumPy arrays. `parse` reads
the text, `translate` makes C of it (`operands`, `arithmetic` and `memory` say what an instruction means), and a C
compiler makes a library of that and of the machine underneath, `runtime.c`, `memory.c` and `schedule.c`: every CUDA
thread is a fiber, and a seeded scheduler picks whose turn it is, so that different seeds give different orders.

What is emulated: IEEE arithmetic as PTX states it (one rounding in fma, directed roundings, comparisons with NaN, min
and max, saturating conversions), state spaces, vector accesses, atomics, barriers of a block and of subsets of its
warps, shuffles and votes, divergence (threads of a warp run apart, as since Volta), inline asm, functions.

What a run finds beside wrong numbers: an access outside of the arrays or of shared memory, a misaligned one, a write
into a read-only array, use of shared memory or registers that nobody has set (all bits are set: a NaN), deadlock,
endless spins, barriers that a warp meets apart, and races (`races.c`): two threads touch a word, one writes, one of the
accesses is weak, and neither barriers nor releases and acquires order them, in shared memory and in the arrays. So a
missing .release, .acquire, fence or bar.sync shows even where the order of this run happens to be the right one.

What is not emulated: weak memory itself (every access is seen by all at once, in the order of the program; of accesses
that are all relaxed, which are no race, no stale value is ever read), timing and occupancy, lockstep of a warp,
textures, tensor cores, clusters, cooperative groups' own functions, and the errors of `.approx` instructions: they are
rounded correctly, or as libm has them. A NaN's payload is that of the CPU.
"""

from tests.cuda.emulator.parse import PtxError
from tests.cuda.emulator.run import (
    Deadlock,
    Diverged,
    Endless,
    KernelFault,
    Misaligned,
    OutOfBounds,
    Race,
    launch,
    why_unavailable,
)

__all__ = [
    "Deadlock", "Diverged", "Endless", "KernelFault", "Misaligned", "OutOfBounds", "PtxError", "Race", "launch",
    "why_unavailable",
]  # fmt: skip
