"""A linear layer on CUDA: what `kernels/numpy/linear.py` defines, with its signatures.

    y = W x + b                                                                     (1)   (N, O)

    N rows   I input   O output

It is equation (1) of `sums.py` without the part of h, for a sequence of N steps and one sample.
"""

from __future__ import annotations

from typing import Any

from . import sums
from .call import Call

Array = Any  # NumPy's or on a device


def forward(
    x: Array,  # (N, I)
    weight: Array,  # (O, I)
    bias: Array,  # (O,) zeros where the layer has none
    output: Array,  # (N, O) out
) -> None:
    """(1), row by row."""
    with Call(x, weight, bias, output) as call:
        queue, x, output = call.queue, call.read(x), call.write(output)
        sums.input_part(queue, _steps(x), call.read(weight), _steps(output))
        sums.add_to_rows(queue, output, call.read(bias))


def backward(
    x: Array,  # (N, I) as given to forward
    weight: Array,  # (O, I)
    d_output: Array,  # (N, O)
    dx: Array,  # (N, I) out
    dweight: Array,  # (O, I) in: the sum over later rows; out: with these added
    dbias: Array,  # (O,) likewise
) -> None:
    """Undo (1); all rows use the same parameters, so their gradients are sums over the rows."""
    with Call(x, weight, d_output, dx, dweight, dbias) as call:
        queue, dy = call.queue, _steps(call.read(d_output))
        sums.input_gradient(queue, dy, call.read(weight), _steps(call.write(dx)))  # undoes (1), in x
        sums.add_products(queue, dy, _steps(call.read(x)), call.update(dweight))  # undoes (1), in W
        sums.add_sums(queue, dy, call.update(dbias))  # undoes (1), in b


def _steps(rows: Array) -> Array:
    """Rows (N, ·) as N steps of one sample: (N, 1, ·)."""
    return rows.reshape(len(rows), 1, rows.shape[1])
