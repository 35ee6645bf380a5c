"""Kernels for tests of the emulator itself, compiled to PTX."""

import functools
from collections.abc import Callable
from typing import Any

from scratchrnn.kernels.cuda import vendor


@functools.cache
def compiled(build: Callable[..., Callable[..., None]], signature: str, threads: int, *constants: Any) -> str:
    """Return the PTX of the kernel that `build(*constants)` makes."""
    vendor.numba_cuda()
    return vendor.compile_ptx(build(*constants), signature, threads, (9, 0, "a"))
