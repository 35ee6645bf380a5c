"""A CUDA driver without a device: a real libcuda.so.1, for a process of its own.

    build      the library, and one in cuBLAS's place, by a C compiler from NVIDIA's own header
    environment   of a child process that shall find them
    attach     in the child: kernels that are launched run in the emulator, on the driver's memory

Everything between the backend and the driver is the real one: numba-cuda, cuda.bindings, the linker, ctypes. Nothing of
it is replaced, but the place where cuBLAS is found.
"""

from tests.cuda.driver.build import build, environment, why_unavailable

__all__ = ["build", "environment", "why_unavailable"]
