"""cuBLAS through ctypes: the one routine that is called, with its handle, stream and workspace.

The library's matrices are column-major; `gemm.product` speaks to it in row-major terms. Sums are in the arrays' own
precision: the default mode of CUBLAS_DEFAULT_MATH uses no TF32, unless NVIDIA_TF32_OVERRIDE=1 is in the environment.
Which of its kernels runs, and so the order of a sum, depends on sizes, leading dimensions and alignment alone.
"""

from __future__ import annotations

import ctypes
import functools
import threading
import weakref
from typing import Any

import numpy as np

from .queue import Queue, address

DEFAULT_MATH = 0  # CUBLAS_DEFAULT_MATH
AS_IS, TRANSPOSED = 0, 1  # CUBLAS_OP_N, CUBLAS_OP_T
ROUTINES = {np.dtype(np.float32): "cublasSgemm_v2_64", np.dtype(np.float64): "cublasDgemm_v2_64"}
SCALARS: dict[np.dtype[Any], Any] = {np.dtype(np.float32): ctypes.c_float, np.dtype(np.float64): ctypes.c_double}

_pointer, _int, _int64 = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
GEMM = [  # handle, op(A), op(B), m, n, k, alpha, A, lda, B, ldb, beta, C, ldc
    _pointer, _int, _int, _int64, _int64, _int64,
    _pointer, _pointer, _int64, _pointer, _int64, _pointer, _pointer, _int64,
]  # fmt: skip
ARGUMENTS = {
    "cublasCreate_v2": [ctypes.POINTER(_pointer)],
    "cublasDestroy_v2": [_pointer],
    "cublasSetMathMode": [_pointer, _int],
    "cublasSetStream_v2": [_pointer, _pointer],
    "cublasSetWorkspace_v2": [_pointer, _pointer, ctypes.c_size_t],
    **dict.fromkeys(ROUTINES.values(), GEMM),
}


class CublasError(RuntimeError):
    """A call of cuBLAS that did not succeed."""


@functools.cache
def routines() -> Any:
    """Those of `ARGUMENTS`, from where NVIDIA's own finder sees it: in a wheel, a conda environment, or the system."""
    from cuda import pathfinder

    loaded = ctypes.CDLL(pathfinder.load_nvidia_dynamic_lib("cublas").abs_path)
    for name, arguments in ARGUMENTS.items():
        getattr(loaded, name).argtypes = arguments
    loaded.cublasGetStatusName.restype = ctypes.c_char_p
    return loaded


def _call(name: str, *arguments: Any) -> None:
    status = getattr(routines(), name)(*arguments)
    if status:
        raise CublasError(f"{name}: {routines().cublasGetStatusName(status).decode()}")


class _Handle:
    """A handle of cuBLAS: for one thread on one device."""

    def __init__(self) -> None:
        self.value = ctypes.c_void_p()
        _call("cublasCreate_v2", ctypes.byref(self.value))
        _call("cublasSetMathMode", self.value, DEFAULT_MATH)
        weakref.finalize(self, routines().cublasDestroy_v2, self.value).atexit = False


_handles = threading.local()


def handle(queue: Queue) -> ctypes.c_void_p:
    """This thread's handle on the queue's device, the current one; made on first use, which waits for the device."""
    made: dict[int, _Handle] = _handles.__dict__.setdefault("by_device", {})
    if queue.ordinal not in made:
        made[queue.ordinal] = _Handle()
    return made[queue.ordinal].value


def gemm(
    queue: Queue,
    dtype: np.dtype[Any],
    a_op: int,
    b_op: int,
    m: int,
    n: int,
    k: int,
    a: int,  # address of op(A) (m, k)
    lda: int,
    b: int,  # address of op(B) (k, n)
    ldb: int,
    add: bool,
    c: int,  # address of C (m, n)
    ldc: int,
) -> None:
    """C = op(A) op(B) (+ C), column-major."""
    using, workspace = handle(queue), queue.workspace
    _call("cublasSetStream_v2", using, queue.handle)
    _call("cublasSetWorkspace_v2", using, address(workspace), workspace.nbytes)  # another stream takes it away
    one, beta = SCALARS[dtype](1), SCALARS[dtype](1 if add else 0)
    _call(
        ROUTINES[dtype], using, a_op, b_op, m, n, k,
        ctypes.byref(one), a, lda, b, ldb, ctypes.byref(beta), c, ldc,
    )  # fmt: skip
