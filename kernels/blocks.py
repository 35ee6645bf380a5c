"""How sums over time are cut: the same for every backend, and for every cut of a sequence into segments."""

from __future__ import annotations

SUM_ROWS = 256  # terms, (time, sample) pairs, of one block


def block_steps(batch: int) -> int:
    """Time steps of one block of a sum over time and batch.

    Blocks begin at step 0. Each is summed on its own, then added to the running sum, the last block first; so a sequence
    that is cut at multiples of this number of steps gives the same bits as the whole.
    """
    return max(1, SUM_ROWS // max(1, batch))
