"""A CUDA device that is emulated: within `emulated_device()` the backend "cuda" runs here, its kernels from their PTX.

What the backend asks of CUDA goes through few doors, and each leads here to the emulator or to NumPy:

    queue.Queue       memory is NumPy's, fresh memory all ones in its bits: NaN
    kernel.Kernel     launched by `launch`, a cooperative one with all blocks at once, others with a block for each SM
    gemm.product      NumPy's product, which the queue of Numba's simulator takes too
    graph.Recorded    a replay runs what was recorded; meanwhile memory may not be asked for, as on a device

Arrays of other libraries on the device are played by `OnDevice`.
"""

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import numpy as np

from scratchrnn.kernels.cuda import availability, call, chunks, driver, graph, kernel, queue, vendor
from tests.cuda.emulator import kept
from tests.cuda.emulator.run import build, launch

Array = np.ndarray[Any, Any]


class OnDevice:
    """A NumPy array that says it is on a CUDA device."""

    def __init__(self, array: Array) -> None:
        self.array = array

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__array_interface__, "version": 3, "stream": 1}


class DeviceMemory(queue.SimulatedArray):
    """An array on the emulated device: it can be cut, reshaped and copied; the host does not compute with it."""

    @property
    def device_ctypes_pointer(self) -> ctypes.c_uint64:
        """Where it begins, as Numba's arrays say it."""
        return ctypes.c_uint64(self.ctypes.data)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **settings: Any) -> Any:
        # gemm.product's stand-in for cuBLAS multiplies two arrays, and adds that product to one
        product = ufunc is np.matmul or (ufunc is np.add and type(inputs[1]) is np.ndarray)
        if not product:
            raise TypeError(f"{ufunc.__name__} of an array on the device, on the host")
        return ufunc(*(np.asarray(x) for x in inputs), **settings)

    def __array_function__(self, function: Any, *call: Any) -> Any:
        raise TypeError(f"{function.__name__} of an array on the device, on the host")


class EmulatedQueue(queue.SimulatedQueue):
    """A queue whose memory is NumPy's, of a device of any size."""

    def __init__(self, device: queue.Device, seed: int, races: bool, global_races: bool = False) -> None:
        super().__init__()
        self.device, self.seed, self.races, self.global_races = device, seed, races, global_races
        self.launches: list[str] = []  # names of kernels, for tests that ask which ran
        self._alarm = np.zeros(1, np.uint32).view(DeviceMemory)

    @property
    def alarm(self) -> Array:
        """The word that a kernel sets when it gives up."""
        return self._alarm

    def check_alarm(self) -> None:
        """Raise once, if a kernel gave up."""
        if self._alarm[0]:
            self._alarm[0] = 0
            raise driver.GaveUpError("a kernel gave up waiting")

    def synchronize(self) -> None:
        """All is done; say if a kernel gave up."""
        super().synchronize()
        self.check_alarm()

    def download(self, array: Array, host: Array) -> None:
        """Copy to the host, and say if a kernel gave up."""
        super().download(array, host)
        self.check_alarm()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Fresh memory: every bit set."""
        array: Array = super().empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF
        return array.view(DeviceMemory)

    def run(self, called: kernel.Kernel, blocks: int, arguments: tuple[Any, ...], shared: int) -> None:
        """Launch a kernel."""
        if called.cooperative and blocks > self.device.sms:
            raise driver.DriverError("cuLaunchCooperativeKernel: CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE")
        ptx = kept.ptx(called)
        if build(ptx)[0].shared + shared > self.device.shared_per_block:  # what the kernel has, and is given
            raise driver.DriverError("cuKernelSetAttribute: CUDA_ERROR_INVALID_VALUE")
        self.seed += 1
        self.launches.append(called.name)
        flat = [a.reshape(-1) if isinstance(a, np.ndarray) else a for a in arguments]
        launch(
            ptx, blocks=blocks, threads=called.threads, arguments=flat, shared=shared, seed=self.seed,
            resident=blocks if called.cooperative else self.device.sms, races=self.races,
            global_races=self.global_races,
        )  # fmt: skip


class _Vendor:
    """vendor.py for queue.py and call.py: this is a simulator, and arrays on the device come from here."""

    def __getattr__(self, name: str) -> Any:
        return getattr(vendor, name)

    def simulated(self) -> bool:
        return True

    def numba_cuda(self) -> Any:
        return self

    def as_cuda_array(self, array: Any, sync: bool) -> Array:
        held = mock.Mock(__array_interface__={**array.__cuda_array_interface__})
        return np.asarray(held).view(DeviceMemory)


@contextmanager
def emulated_device(
    sms: int = 4,
    *,
    shared_per_block: int = 227 << 10,
    registers_per_block: int = 65536,
    seed: int = 0,
    races: bool = True,
    global_races: bool = True,
) -> Iterator[EmulatedQueue]:
    """Within the block the backend "cuda" runs on an emulated device; gives its queue.

    Parameters
    ----------
    sms : int
        Multiprocessors: so many blocks of a cooperative launch run at once.
    shared_per_block, registers_per_block : int
        The device's limits, in bytes and in registers; by default Hopper's.
    seed : int
        Of the order in which threads take turns; every launch has its own.
    races, global_races : bool
        Look for races in shared memory, and in the arrays.
    """
    device = queue.Device("emulated", (9, 0), sms, shared_per_block, registers_per_block)
    own = EmulatedQueue(device, seed, races, global_races)

    def simulate(self: kernel.Kernel, blocks: int, arguments: tuple[Any, ...], shared: int) -> None:
        own.run(self, blocks, arguments, shared)

    def fits(self: kernel.Kernel, queue: Any, blocks: int) -> bool:
        return self.shared <= device.shared_per_block and blocks <= device.sms

    def replay(self: graph.Recorded, queue: EmulatedQueue) -> None:
        queue.recording = True
        try:
            self._run()
        finally:
            queue.recording = False

    patches = [
        (availability, "why_unavailable", lambda: None),
        (queue, "vendor", _Vendor()),
        (call, "vendor", _Vendor()),
        (queue, "SimulatedQueue", lambda: own),
        (kernel.Kernel, "_simulate", simulate),
        (kernel.Kernel, "fits", fits),
        (graph.Recorded, "replay", replay),
        (chunks, "_idle", {}),
    ]
    with ExitStack() as stack:
        for place, name, value in patches:
            stack.enter_context(mock.patch.object(place, name, value))
        yield own
