"""Every kernel as the device would get it: compiled for two architectures without a GPU, and read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scratchrnn.kernels.cuda.kernel import Kernel
from tests.cuda import compiled

REGISTERS = 65536  # of a multiprocessor, for all threads of its blocks
STATIC_SHARED = 48 << 10  # bytes that a block may have without asking
IN_FLOAT64 = r"D(ADD|MUL|FMA|SETP|MNMX)|.*F64"  # names of SASS instructions
FLOAT_ATOMICS = r"(RED|ATOM|REDG|ATOMG)\b.*F(32|64)"

why_not = compiled.why_not()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))


@pytest.fixture(params=compiled.ARCHITECTURES)
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("kernel", list(compiled.kernels()), ids=lambda kernel: kernel.name)
def test_kernel(kernel: Any, architecture: str, tmp_path: Path) -> None:
    code = compiled.code(kernel, architecture, tmp_path)
    assert code.instructions("EXIT"), "no SASS was read"
    assert code.stack == code.local == 0
    assert not code.instructions("LDL|STL")
    assert code.registers <= REGISTERS // kernel.threads
    assert code.shared <= STATIC_SHARED
    assert "cudaCGSynchronize" not in code.ptx  # a barrier of the whole grid by a call, spills around it
    if kernel.name.endswith("float32") and not kernel.name.startswith("block_sums"):  # those sum in float64
        assert not code.instructions(IN_FLOAT64), "a float32 kernel computes in float64"
    assert not code.instructions(FLOAT_ATOMICS), "float atomics: the order is chance"


def test_kernels_of_every_file_are_listed() -> None:
    names = {kernel.name for kernel in compiled.kernels()}
    assert {"lstm_forward_float32", "rnn_backward_relu_float64", "block_sums_float32"} <= names


def test_faults_are_seen(architecture: str, tmp_path: Path) -> None:
    def build() -> Any:
        from numba import cuda, float32

        def kernel(values, at):
            n = cuda.grid(1)
            kept = cuda.local.array(200, float32)
            for k in range(200):
                kept[(k * at) % 200] = values[k] * 1.1  # a float64, at an index that no register has
            cuda.atomic.add(values, 0, kept[n % 200])

        return kernel

    code = compiled.code(Kernel("faulty", build, "float32[::1], int32", 32), architecture, tmp_path)
    assert code.stack > 0
    assert code.instructions("LDL")
    assert code.instructions("STL")
    assert code.instructions(IN_FLOAT64)
    assert code.instructions(FLOAT_ATOMICS)
