"""A linear layer on CPU: what `kernels/numpy/linear.py` defines, with its signatures.

    y = W x + b                                                                     (1)   (N, O)

    N rows   I input   O output

An element of y is the bias, then sums of 128 products each, in order, whichever of x and W is packed. Backward is that
of equation (1) of `affine.py`, for a sequence of N steps, one sample, and an h of size 0: the same compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..blocks import SUM_ROWS
from . import affine, threads
from .affine import flat
from .gemm import pack_rows, packed_size, product, room, scratch
from .jit import Kernel
from .machine import UNIT
from .plan import workers

Array = NDArray[np.floating[Any]]


@Kernel
def pack(b, n, k, lanes, packed):
    """Pack B (n, k) for products with Bᵀ."""
    pack_rows(b, 0, k, n, 0, n, k, lanes, packed)


@Kernel
def rows_of_product(c, a, packed, n, k, lanes, edge, first, last):
    """Rows first..last of C += A Bᵀ, so many at a time as stay in the second cache while they meet all of B."""
    for start in range(first, last, SUM_ROWS):
        product(c, start * n, n, a, start * k, k, packed, n, k, lanes, min(SUM_ROWS, last - start), edge)


def add_product(c: Array, a: Array, b: Array) -> None:
    """C += A Bᵀ for A (M, K) and B (N, K), rows of C shared by the threads."""
    (m, n), k, dtype, lanes = c.shape, a.shape[1], c.dtype, UNIT.lanes(c.itemsize)
    packed = room(packed_size(n, k, dtype), dtype)
    packing = (flat(b), n, k, lanes, packed)
    pack.ready(dtype, *packing)(*packing)
    fixed = (c.reshape(-1), flat(a), packed, n, k, lanes)
    kernel = rows_of_product.ready(dtype, *fixed, scratch(dtype), 0, 0)
    spans = threads.split(m, workers(m * n * k))
    threads.run(kernel, [(*fixed, scratch(dtype), *span) for span in spans])


def forward(
    x: Array,  # (N, I)
    weight: Array,  # (O, I)
    bias: Array,  # (O,) zeros where the layer has none
    output: Array,  # (N, O) out
) -> None:
    """(1), row by row."""
    if len(x) > UNIT.lanes(x.itemsize):
        output[...] = bias
        add_product(output, x, weight)
    else:  # rows that one register holds: packing W would take longer than the product
        columns = np.repeat(bias, len(x)).reshape(len(bias), len(x))  # yᵀ (O, N)
        add_product(columns, weight, x)
        output[...] = columns.T


def backward(
    x: Array,  # (N, I) as given to forward
    weight: Array,  # (O, I)
    d_output: Array,  # (N, O)
    dx: Array,  # (N, I) out
    dweight: Array,  # (O, I) in: the sum over later rows; out: with these added
    dbias: Array,  # (O,) likewise
) -> None:
    """Undo (1); all rows use the same parameters, so their gradients are sums over the rows."""
    h, dweight_hh = np.empty((len(x) + 1, 1, 0), x.dtype), np.empty((len(weight), 0), x.dtype)
    affine.backward(
        d_output[:, None], x[:, None], h, weight, np.array([len(x)]), dx[:, None],
        dweight, dweight_hh, dbias, np.zeros_like(dbias),
    )  # fmt: skip
