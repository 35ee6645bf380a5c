"""The threads of torch, for computing between its operators.

torch's threads look for work for milliseconds after each of its parallel loops. Ours would share the cores with them: a
training step of a small language model took twice as long. So a module computes on torch's own threads, as many as
`torch.set_num_threads` allows, if `srnn.set_num_threads` does, too.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from scratchrnn import backends
from scratchrnn.interop.torch.convert import require_torch


def on_torchs_threads() -> AbstractContextManager[None]:
    """Within the block, kernels use torch's threads in torch's number, and ours where torch has no OpenMP for us."""
    return backends.lend_threads(require_torch().get_num_threads(), openmp_path())


@cache
def openmp_path() -> Path | None:
    """The shared object through which torch's OpenMP is reached, or None: another build of torch, or not Linux."""
    if sys.platform != "linux":  # whether a call reaches torch's own team was tried nowhere else
        return None
    torch = require_torch()
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    return path if path.exists() and "ATen parallel backend: OpenMP" in torch.__config__.parallel_info() else None
