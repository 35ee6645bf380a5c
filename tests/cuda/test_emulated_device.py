"""The whole backend "cuda" on an emulated device: its kernels as compiled, against the definition."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cuda import driver, plan
from scratchrnn.testing import assert_close
from tests.cuda.emulator import why_unavailable
from tests.cuda.recurrent import CELLS, check, draw

pytest.importorskip("numba_cuda", reason="numba-cuda compiles the kernels")
pytestmark = pytest.mark.skipif(why_unavailable() is not None, reason=str(why_unavailable()))

if why_unavailable() is None:
    from tests.cuda.emulator.device import OnDevice, emulated_device

SIZES = 5, 3, 2, 13, 4  # T, B, I, H, P
LENGTHS = 3, 5, 0


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_step_by_step(cell: str, dtype: str, rng: np.random.Generator) -> None:
    with emulated_device(), plan.only("per_step"):
        check("cuda", draw(cell, rng, SIZES, lengths=LENGTHS, clip=0.3, detaching=True), dtype)


@pytest.fixture
def meetings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Plans of as many blocks to a group as there are: on sizes so small, one block alone would do best."""
    monkeypatch.setattr(plan, "ARRIVE", -100_000)
    plan.persistent.cache_clear()
    yield
    plan.persistent.cache_clear()


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
@pytest.mark.parametrize(("sms", "lengths"), [(2, None), (5, LENGTHS)], ids=["whole", "lengths"])
@pytest.mark.usefixtures("meetings")
def test_persistent(cell: str, sms: int, lengths: Any, rng: np.random.Generator) -> None:
    p = draw(cell, rng, SIZES, lengths=lengths, clip=0.3, detaching=True)
    for seed in range(3):
        with emulated_device(sms, seed=1000 * seed) as queue, plan.only("persistent"):
            assert plan.persistent("lstm", 3, 13, backward=False, device=queue.device).blocks == sms
            check("cuda", p, "float32")
            assert any("persistent" in name for name in queue.launches)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_persistent_with_a_group_for_each_sample(cell: str, rng: np.random.Generator) -> None:
    with emulated_device(3) as queue, plan.only("persistent"):
        assert plan.persistent("lstm", 3, 13, backward=False, device=queue.device).groups == 3
        check("cuda", draw(cell, rng, SIZES, lengths=LENGTHS, clip=0.3, detaching=True), "float32")


@pytest.mark.parametrize("engine", ["per_step", "persistent"])
def test_a_layer_runs_on_it(engine: str, rng: np.random.Generator) -> None:
    x = rng.standard_normal((6, 3, 5)).astype(np.float32)
    outputs = {}
    for backend in ("numpy", "cuda"):
        with emulated_device(), plan.only(engine):
            layer = srnn.LSTM(5, 11, num_layers=2, rng=np.random.default_rng(3), dtype=np.float32, backend=backend)
            outputs[backend] = layer(x)[0]
    assert_close("output", outputs["cuda"], outputs["numpy"], rel=1e-5)


def test_too_many_blocks_for_a_cooperative_launch() -> None:
    from scratchrnn.kernels.cuda.kernel import Kernel

    together = Kernel("together", lambda: lambda x: None, "float32[::1]", 32, cooperative=True)
    with emulated_device(2) as queue:
        x = queue.empty((1,), np.float32)
        assert together.fits(queue, 2)
        assert not together.fits(queue, 3)
        together.launch(queue, 2, x)
        with pytest.raises(driver.DriverError, match="COOPERATIVE_LAUNCH_TOO_LARGE"):
            together.launch(queue, 3, x)
        with pytest.raises(driver.DriverError, match="INVALID_VALUE"):
            together.launch(queue, 1, x, shared=1 << 20)


def test_memory_is_not_set_and_cannot_be_had_in_a_recording() -> None:
    from scratchrnn.kernels.cuda.graph import Recorded

    with emulated_device() as queue:
        memory = queue.empty((2, 3), np.float32)
        assert np.isnan(np.asarray(memory)).all()
        with pytest.raises(TypeError, match="multiply of an array on the device"):
            memory * 2
        with pytest.raises(RuntimeError, match="while a graph is recorded"):
            Recorded(queue, lambda: queue.empty((1,), np.float32)).replay(queue)
        assert not queue.recording


def test_arrays_that_are_on_the_device_already(rng: np.random.Generator) -> None:
    from scratchrnn.kernels.cuda.call import Call

    x, out = rng.standard_normal((2, 3, 5)).astype(np.float32)
    with emulated_device():
        with Call(OnDevice(x), OnDevice(out), x) as call:
            source, target, uploaded = call.read(OnDevice(x)), call.write(OnDevice(out)), call.read(x)
            assert (source.ctypes.data, target.ctypes.data) == (x.ctypes.data, out.ctypes.data)
            assert uploaded.ctypes.data != x.ctypes.data
            call.queue.copy(target, source)
        np.testing.assert_array_equal(out, x)
        with pytest.raises(ValueError, match="argument 0: expected a C-contiguous array on the device"):
            Call(OnDevice(x[:, ::2]))
