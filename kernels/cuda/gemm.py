"""Products of matrices on the device: cuBLAS, asked in row-major terms.

    out (M, N) = a (M, K) · b (K, N)        and a (K, M) with transpose_a, b (N, K) with transpose_b

A row-major matrix, read by columns, is its transpose. So cuBLAS, which reads by columns, is asked for
outᵀ = bᵀ · aᵀ: the same numbers in the same places.
"""

from __future__ import annotations

from . import cublas
from .queue import DeviceArray, Queue, SimulatedQueue, address


def product(
    queue: Queue,
    out: DeviceArray,  # (M, N)
    a: DeviceArray,  # (M, K), or (K, M) if transposed
    b: DeviceArray,  # (K, N), or (N, K) if transposed
    *,
    transpose_a: bool = False,
    transpose_b: bool = False,
    add: bool = False,
) -> None:
    """Put out = a · b on the queue, or out += a · b.

    Rows are contiguous, at any distance from each other: columns [:, i:j] of a contiguous array will do. `out` may not
    share memory with the factors.

    Raises
    ------
    TypeError
        The three dtypes are not one, float32 or float64.
    ValueError
        Shapes do not go together, or numbers of a row are not next to each other.
    """
    if not out.dtype == a.dtype == b.dtype or out.dtype not in cublas.ROUTINES:
        raise TypeError(
            f"product: expected float32 or float64, one for all; got {a.dtype} · {b.dtype} into {out.dtype}"
        )
    (m, k), (k_too, n) = _shape(a, transpose_a), _shape(b, transpose_b)
    if k != k_too or tuple(out.shape) != (m, n):
        raise ValueError(f"product: shapes do not go together: ({m}, {k}) · ({k_too}, {n}) into {tuple(out.shape)}")
    if m == 0 or n == 0:
        return
    if isinstance(queue, SimulatedQueue):
        found = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
        out[...] = out + found if add else found
        return
    cublas.gemm(
        queue, out.dtype,
        cublas.TRANSPOSED if transpose_b else cublas.AS_IS,
        cublas.TRANSPOSED if transpose_a else cublas.AS_IS,
        n, m, k,
        address(b), _row_distance("b", b),
        address(a), _row_distance("a", a),
        add,
        address(out), _row_distance("out", out),
    )  # fmt: skip


def _shape(matrix: DeviceArray, transposed: bool) -> tuple[int, int]:
    if len(matrix.shape) != 2:
        raise ValueError(f"product: expected matrices; got shape {tuple(matrix.shape)}")
    rows, columns = matrix.shape
    return (columns, rows) if transposed else (rows, columns)


def _row_distance(name: str, matrix: DeviceArray) -> int:
    """Numbers from the start of one row to the next: cuBLAS's leading dimension."""
    (rows, columns), itemsize = matrix.shape, matrix.dtype.itemsize
    if rows == 0 or columns == 0:
        return max(1, columns)
    between_rows, between_numbers = matrix.strides
    apart, rest = divmod(between_rows, itemsize) if rows > 1 else (columns, 0)  # a single row has no next
    if rest or apart < columns or (columns > 1 and between_numbers != itemsize):
        raise ValueError(f"product: {name}: expected contiguous rows; got strides {matrix.strides}")
    return apart
