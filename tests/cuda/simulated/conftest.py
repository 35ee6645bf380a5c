"""Only where NUMBA_ENABLE_CUDASIM=1 was set before Python began: `tests/cuda/test_simulated.py` sees to that."""

import os
from collections.abc import Iterator

import pytest

if os.environ.get("NUMBA_ENABLE_CUDASIM") != "1":
    collect_ignore_glob = ["*"]
else:
    from scratchrnn.kernels import blocks
    from scratchrnn.kernels.cuda import chunks, plan, pointwise, pointwise_sums

    # so small that a tiny problem has several of each, and ends inside one
    pointwise.THREADS = 4
    pointwise_sums.COLUMNS, pointwise_sums.LANES = 3, 4

    @pytest.fixture(autouse=True)
    def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setattr(chunks, "CHUNK", 2)
        monkeypatch.setattr(blocks, "SUM_ROWS_CUDA", 12)  # blocks of 4 steps
        chunks._idle.clear()
        with plan.only("per_step"):
            yield
