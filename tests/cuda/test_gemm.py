"""What cuBLAS is asked for: a library that takes its calls literally, column by column, gives the product of rows."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import blas

from scratchrnn.kernels.cuda import cublas, gemm
from scratchrnn.testing import assert_close

M, N, K = 7, 5, 3


class Matrix:
    """A device array in the host's memory: what `gemm` reads of one."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape, self.strides, self.dtype, self.nbytes = array.shape, array.strides, array.dtype, array.nbytes
        self.device_ctypes_pointer = ctypes.c_void_p(array.ctypes.data)


class Library:
    """cuBLAS on the host: BLAS's own gemm on the pointers it is given. Keeps what was called."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.status = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            assert len(arguments) == len(cublas.ARGUMENTS[name])
            self.calls.append((name, arguments[1:]))
            if name == "cublasCreate_v2":
                arguments[0]._obj.value = 77
            if name.endswith("gemm_v2_64"):
                self.gemm(np.float32 if "Sgemm" in name else np.float64, *arguments)
            return self.status

        return call

    @staticmethod
    def cublasGetStatusName(status: int) -> bytes:
        return f"CUBLAS_STATUS_{status}".encode()

    @staticmethod
    def gemm(
        dtype: Any, handle: Any, a_op: int, b_op: int, m: int, n: int, k: int, alpha: Any,
        a: int, lda: int, b: int, ldb: int, beta: Any, c: int, ldc: int,
    ) -> None:  # fmt: skip
        assert handle.value == 77
        rows = {"A": k if a_op else m, "B": n if b_op else k}
        assert lda >= max(1, rows["A"])
        assert ldb >= max(1, rows["B"])
        assert ldc >= max(1, m)

        def columns(address: int, rows: int, count: int, distance: int) -> np.ndarray:
            """`count` columns in memory, each `distance` numbers after the last; only their own numbers are touched."""
            if not rows * count:
                return np.zeros((rows, count), dtype)
            size = (count - 1) * distance + rows
            flat = np.frombuffer((ctypes.c_char * (size * np.dtype(dtype).itemsize)).from_address(address), dtype)
            return np.lib.stride_tricks.as_strided(flat, (rows, count), (flat.itemsize, distance * flat.itemsize))

        left = columns(a, rows["A"], m if a_op else k, lda)
        right = columns(b, rows["B"], k if b_op else n, ldb)
        result = columns(c, m, n, ldc)
        routine = blas.sgemm if dtype is np.float32 else blas.dgemm
        found = routine(alpha._obj.value, left, right, trans_a=a_op, trans_b=b_op) if k else np.zeros((m, n), dtype)
        result[...] = found + result if beta._obj.value == 1 else found
        assert beta._obj.value in (0, 1)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    library = Library()
    monkeypatch.setattr(cublas, "routines", lambda: library)
    monkeypatch.setattr(cublas, "_handles", SimpleNamespace())
    return library


@pytest.fixture
def queue() -> Any:
    """Of a queue, what `gemm` reads."""
    return SimpleNamespace(handle=11, ordinal=0, workspace=Matrix(np.zeros(64, np.uint8)))


def matrix(rng: np.random.Generator, rows: int, columns: int, dtype: Any, sliced: bool) -> Matrix:
    """Random numbers; `sliced`: columns of a wider array, between others that are NaN."""
    wide = np.full((rows, columns + 6), np.nan, dtype)
    inside = wide[:, 2 : 2 + columns] if sliced else np.empty((rows, columns), dtype)
    inside[...] = rng.standard_normal((rows, columns))
    return Matrix(inside)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("sliced", ["", "out", "a", "b", "out a b"])
@pytest.mark.parametrize("add", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("sizes", [(M, N, K), (1, N, K), (M, 1, K), (M, N, 1), (1, 1, 1), (M, N, 0)])
def test_product(
    sizes: tuple[int, int, int], transpose_a: bool, transpose_b: bool, add: bool, sliced: str, dtype: Any,
    rng: np.random.Generator, library: Library, queue: Any,
) -> None:  # fmt: skip
    m, n, k = sizes
    a = matrix(rng, *((k, m) if transpose_a else (m, k)), dtype, "a" in sliced)
    b = matrix(rng, *((n, k) if transpose_b else (k, n)), dtype, "b" in sliced)
    out = matrix(rng, m, n, dtype, "out" in sliced)
    if not add:
        out.array[...] = np.nan  # not read
    left, right = (a.array.T if transpose_a else a.array), (b.array.T if transpose_b else b.array)
    want = left.astype(np.float64) @ right + (out.array if add else 0)
    gemm.product(queue, out, a, b, transpose_a=transpose_a, transpose_b=transpose_b, add=add)
    assert_close("out", out.array, want.astype(dtype), rel=8 * float(np.finfo(dtype).eps))
    around = out.array.base
    if "out" in sliced:
        assert np.isnan(around[:, :2]).all()
        assert np.isnan(around[:, 2 + n :]).all()


@pytest.mark.parametrize("sizes", [(0, N, K), (M, 0, K)])
def test_an_empty_product_asks_for_nothing(sizes: tuple[int, int, int], library: Library, queue: Any) -> None:
    m, n, k = sizes
    out, a, b = (Matrix(np.zeros(shape, np.float32)) for shape in ((m, n), (m, k), (k, n)))
    gemm.product(queue, out, a, b)
    assert library.calls == []


def test_stream_workspace_and_mode(library: Library, queue: Any) -> None:
    a = Matrix(np.ones((2, 2), np.float32))
    for handle in (11, 12):
        queue.handle = handle
        gemm.product(queue, Matrix(np.ones((2, 2), np.float32)), a, a)
    workspace = queue.workspace.array.ctypes.data
    assert [(name, *arguments) for name, arguments in library.calls if "gemm" not in name] == [
        ("cublasCreate_v2",),
        ("cublasSetMathMode", 0),
        ("cublasSetStream_v2", 11),
        ("cublasSetWorkspace_v2", workspace, 64),
        ("cublasSetStream_v2", 12),
        ("cublasSetWorkspace_v2", workspace, 64),
    ]


def test_errors(library: Library, queue: Any) -> None:
    def zeros(*shape: int, dtype: Any = np.float32) -> Matrix:
        return Matrix(np.zeros(shape, dtype))

    with pytest.raises(TypeError, match="expected float32 or float64, one for all; got float32 · float64 into"):
        gemm.product(queue, zeros(M, N), zeros(M, K), zeros(K, N, dtype=np.float64))
    with pytest.raises(TypeError, match="float32 or float64"):
        gemm.product(queue, *[zeros(2, 2, dtype=np.float16)] * 3)
    with pytest.raises(ValueError, match=r"shapes do not go together: \(7, 3\) · \(5, 3\) into \(7, 5\)"):
        gemm.product(queue, zeros(M, N), zeros(M, K), zeros(N, K))
    with pytest.raises(ValueError, match=r"shapes do not go together: \(7, 3\) · \(3, 5\) into \(5, 7\)"):
        gemm.product(queue, zeros(N, M), zeros(M, K), zeros(K, N))
    with pytest.raises(ValueError, match=r"expected matrices; got shape \(7,\)"):
        gemm.product(queue, zeros(M, N), zeros(M), zeros(K, N))
    with pytest.raises(ValueError, match="product: b: expected contiguous rows; got strides"):
        gemm.product(queue, zeros(M, N), zeros(M, K), Matrix(np.zeros((N, K), np.float32).T))
    library.status = 14
    with pytest.raises(cublas.CublasError, match="cublasCreate_v2: CUBLAS_STATUS_14"):
        gemm.product(queue, zeros(M, N), zeros(M, K), zeros(K, N))


def test_the_library_has_what_is_called() -> None:
    pathfinder = pytest.importorskip(
        "cuda.pathfinder", reason="numba-cuda is not installed: pip install scratchrnn[cuda-check]"
    )
    try:
        loaded = cublas.routines()
    except pathfinder.DynamicLibNotFoundError as error:  # found and broken is a failure
        pytest.skip(f"cuBLAS is not installed: {error}")
    assert loaded.cublasGetStatusName(7) == b"CUBLAS_STATUS_INVALID_VALUE"
    assert all(hasattr(loaded, name) for name in cublas.ARGUMENTS)
