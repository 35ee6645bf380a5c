"""The threads of torch, for computing between its operators.

torch's threads look for work for milliseconds after each of its parallel loops. Ours would share the cores with them: a
training step of a small language model took twice as long. So a module computes on torch's own threads, as many as
`torch.set_num_threads` allows.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from functools import cache
from pathlib import Path

from scratchrnn import backends
from scratchrnn.interop.torch.convert import require_torch

SUFFIX = {"darwin": ".dylib"}.get(sys.platform, ".so")


def on_torchs_threads() -> AbstractContextManager[None]:
    """Within the block, kernels use torch's threads in torch's number; that many of ours, where torch has no OpenMP."""
    return backends.lend_threads(require_torch().get_num_threads(), library())


@cache
def library() -> Path | None:
    """The library through which torch's OpenMP is reached, or None: another build of torch, or Windows."""
    torch = require_torch()
    path = Path(torch.__file__).parent / "lib" / f"libtorch_cpu{SUFFIX}"
    return path if path.exists() and "ATen parallel backend: OpenMP" in torch.__config__.parallel_info() else None
