"""The PTX of our intrinsics, and what ptxas makes of it: strong accesses of 16 bytes, in the loop that they are in."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from scratchrnn.kernels.cuda import vendor
from scratchrnn.kernels.cuda.kernel import Kernel
from tests.cuda import compiled

missing = compiled.why_not()
pytestmark = pytest.mark.skipif(missing is not None, reason=str(missing))
THREADS = 64


def exchange() -> Callable[..., None]:
    """Each intrinsic once, those that wait or exchange in a loop."""
    cuda = vendor.numba_cuda()
    load1, load4, store1 = vendor.load1(), vendor.load4(), vendor.store1()
    arrive, arrived, give_up, shared_load4 = (
        vendor.arrive(), vendor.arrived(), vendor.store_error(), vendor.shared_load4(),
    )  # fmt: skip

    count = 4 * THREADS

    def exchange(x, y, counter, error, steps):  # type: ignore[no-untyped-def]
        staged = cuda.shared.array(count, "float32", alignment=16)
        i = 4 * cuda.threadIdx.x
        total = np.float32(0)
        for t in range(steps):
            staged[i], staged[i + 1], staged[i + 2], staged[i + 3] = load4(x, i)  # the same address in every step
            cuda.syncthreads()
            a, b, c, d = shared_load4(staged, 4 * t)
            total += a * b + c * d + load1(x, 3)
            store1(y, i, total)
            cuda.syncthreads()
            if i == 0:
                arrive(counter, 0)
                while arrived(counter, 0) < t:
                    pass
        store1(y, 0, total)
        give_up(error, 1)

    return exchange


KERNEL = Kernel("exchange", exchange, "float32[::1], float32[::1], uint32[::1], int32[::1], int32", THREADS)


@pytest.fixture(scope="module", params=sorted(compiled.ARCHITECTURES))
def code(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> compiled.Code:
    return compiled.code(KERNEL, request.param, tmp_path_factory.mktemp("code"))


def test_nothing_of_it_goes_to_the_stack(code: compiled.Code) -> None:
    assert (code.stack, code.local) == (0, 0)
    assert code.instructions("LDL|STL") == []


def test_ptx(code: compiled.Code) -> None:
    for line in (
        "red.release.gpu.global.add.u32", "ld.acquire.gpu.global.u32", "ld.relaxed.gpu.global.f32",
        "ld.relaxed.gpu.global.v4.f32", "st.relaxed.gpu.global.f32", "st.relaxed.sys.global.u32", "ld.shared.v4.f32",
    ):  # fmt: skip
        assert line in code.ptx
    assert f".maxntid {THREADS}, 1, 1" in code.ptx


def test_sass(code: compiled.Code) -> None:
    for instruction in (
        r"LDG\.E\.128\.STRONG\.GPU", r"LDG\.E\.STRONG\.GPU", r"STG\.E\.STRONG\.GPU",
        r"STG\.E\.STRONG\.SYS", r"LDS\.128", r"RED\S*\.ADD\S*\.STRONG\.GPU", r"MEMBAR",
    ):  # fmt: skip
        assert code.instructions(instruction), instruction


def test_loads_stay_in_their_loop(code: compiled.Code) -> None:
    """Their addresses are the same in every step: an ordinary load would have moved out."""
    first = min(code.ptx.index(load) for load in ("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu.global.f32"))
    labels = re.findall(r"^(\$L__BB\d+_\d+):", code.ptx[:first], re.MULTILINE)
    assert any(re.search(rf"bra(?:\.uni)?\s+{re.escape(label)};", code.ptx[first:]) for label in labels)


def test_the_parameters_are_as_a_launch_packs_them(code: compiled.Code) -> None:
    """Seven words for an array, of which the kernel reads the fifth: the address."""
    head, body = code.ptx.split(".entry", 1)[1].split("{", 1)
    kinds = re.findall(r"\.param \.(\w+) \w+_param_\d+", head)
    assert kinds == ["u64"] * 28 + ["u32"]
    assert {int(n) for n in re.findall(r"ld\.param\.u64\s+%rd\d+, \[\w+_param_(\d+)\]", body)} == {4, 11, 18, 25}
    packing, _ = KERNEL._layout
    assert packing.format == "@" + "Q" * 28 + "i"


@pytest.mark.parametrize(
    ("name", "signature", "said"),
    [
        ("load4", "float64[::1]", "load4: expected a contiguous one-dimensional array of float32; got"),
        ("load1", "float32[:]", "load1: expected a contiguous one-dimensional array of float32; got"),
        ("arrived", "float32[::1]", "arrived: expected a contiguous one-dimensional array of uint32; got"),
        ("shared_load4", "float64[::1]", "shared_load4: expected a contiguous one-dimensional array of float32; got"),
    ],
)
def test_wrong_arrays_are_typing_errors(name: str, signature: str, said: str) -> None:
    from numba.core.errors import TypingError

    intrinsic = getattr(vendor, name)()

    def kernel(array: Any) -> None:
        intrinsic(array, 0)

    with pytest.raises(TypingError, match=said):
        vendor.compile_ptx(kernel, signature, THREADS, (8, 0))


def test_wrong_values_are_typing_errors() -> None:
    from numba.core.errors import TypingError

    store1 = vendor.store1()

    def kernel(array: Any) -> None:
        store1(array, 0, 1.0)

    with pytest.raises(TypingError, match=r"store1: expected 1 values of float32; got \(float64,\)"):
        vendor.compile_ptx(kernel, "float32[::1]", THREADS, (8, 0))


def test_each_is_made_once() -> None:
    assert vendor.load4() is vendor.load4()
    assert vendor.numba_cuda() is vendor.numba_cuda()


def test_the_current_device_is_as_before() -> None:
    from numba.cuda import dispatcher

    before = dispatcher.get_current_device
    KERNEL.ptx((8, 0))
    assert dispatcher.get_current_device is before


def test_numpy_without_row_stack(monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy 2.5: numba-cuda's registration finds the name while it runs, and nobody does after it."""
    from numba.cuda.descriptor import cuda_target

    seen: list[bool] = []

    class Context:
        def refresh(self) -> None:
            seen.append(hasattr(np, "row_stack"))

    monkeypatch.delattr(np, "row_stack", raising=False)
    monkeypatch.setattr(cuda_target, "_typingctx", Context())
    monkeypatch.setattr(cuda_target, "_targetctx", Context())
    vendor.numba_cuda.__wrapped__()
    assert seen == [True, True]
    assert not hasattr(np, "row_stack")
