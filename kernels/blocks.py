"""Where sums over time are cut: the one thing besides its equations that a backend has to agree on with its callers.

The gradient of a parameter is a sum over all time steps and samples. It is taken in blocks of whole time steps, each
summed on its own; so a caller that cuts a sequence between two blocks, and goes through the pieces from last to first,
gets the same bits as from one call.
"""

SUM_ROWS = 128  # (t, b) pairs of one block, about
SUM_ROWS_CUDA = 2048  # the same on a GPU, which many rows keep busy


def block_steps(batch: int) -> int:
    """Time steps of one block of a sum over time, for a batch of this size.

    >>> block_steps(1), block_steps(50), block_steps(1000)
    (128, 2, 1)
    """
    return max(1, SUM_ROWS // max(1, batch))


def block_steps_cuda(batch: int) -> int:
    """The same on a GPU: a multiple of 4, so that every block begins at 16 bytes, whatever the widths of the arrays.

    Where a matrix begins decides how it is read, and may decide how its product is summed.

    >>> block_steps_cuda(1), block_steps_cuda(50), block_steps_cuda(1000)
    (2048, 40, 4)
    """
    return 4 * max(1, SUM_ROWS_CUDA // (4 * max(1, batch)))
