"""What is private in numba-cuda, or written in PTX. A port to its successor touches this file.

Written against numba-cuda 0.29 and 0.30. Every access says why it is needed.

The intrinsics are for float32 and 32-bit words, on contiguous one-dimensional arrays; `index` counts elements. Each is
made on first call, since numba.cuda may only be imported inside functions:

    def build():
        load4 = vendor.load4()

        def kernel(array, ...):
            a, b, c, d = load4(array, index)

        return kernel

`relaxed`, `acquire` and `release` are those of the PTX memory model, at the scope of the device (.gpu): other blocks
see such a store, and such a load sees theirs. cuda.ldcg and cuda.ldcv will not do: they are asm without side effects,
which the compiler moves out of loops.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

ComputeCapability = tuple[int, int] | tuple[int, int, str]  # (8, 0), (9, 0, "a")


@functools.cache
def numba_cuda() -> Any:
    """The module numba.cuda, able to compile on this NumPy."""
    from numba import cuda

    if not simulated() and not hasattr(np, "row_stack"):
        # numba-cuda registers np.row_stack by name at its first compilation; NumPy 2.5 removed it (numba-cuda#907)
        from numba.cuda.descriptor import cuda_target

        np.row_stack = np.vstack  # noqa: NPY201
        try:
            cuda_target.typing_context.refresh()
            cuda_target.target_context.refresh()
        finally:
            del np.row_stack  # noqa: NPY201
    return cuda


@functools.cache
def simulated() -> bool:
    """Whether NUMBA_ENABLE_CUDASIM=1 was set when numba.cuda was first imported: kernels run in Python."""
    from numba.cuda.core import config

    return bool(config.ENABLE_CUDASIM)


# --- compiling


def launch_bounds(threads: int) -> tuple[int, int]:
    """Threads of a block and blocks of a multiprocessor that must fit: one, so that each thread gets all registers."""
    return threads, 1


def compile_kernel(function: Callable[..., None], signature: str, threads: int) -> Any:
    """Compile for the current device.

    lto=False: with it, code for the device comes from another compiler than the PTX of `compile_ptx`, which is what
    tests inspect. Numba reads the option in this form of the call only.
    """
    dispatcher = numba_cuda().jit(function, launch_bounds=launch_bounds(threads), lto=False)
    return dispatcher.compile(argument_types(signature))


def compile_ptx(function: Callable[..., None], signature: str, threads: int, cc: ComputeCapability) -> str:
    """PTX of a kernel for any compute capability. Needs no GPU."""
    with _device(cc):
        ptx, _ = numba_cuda().compile_ptx(
            function, argument_types(signature), cc=cc, launch_bounds=launch_bounds(threads)
        )
    return str(ptx)


@contextmanager
def _device(cc: ComputeCapability) -> Iterator[None]:
    """Within the block, the current device has this compute capability: a kernel's device functions ask for it."""
    from numba.cuda import dispatcher

    ask = dispatcher.get_current_device
    dispatcher.get_current_device = lambda: type("Device", (), {"compute_capability": cc[:2]})
    try:
        yield
    finally:
        dispatcher.get_current_device = ask


@functools.cache
def argument_types(signature: str) -> tuple[Any, ...]:
    """Numba's types of "float32[::1], int32"."""
    numba_cuda()
    from numba.cuda.core import sigutils

    types, _ = sigutils.normalize_signature(f"void({signature})")
    return tuple(types)


def entry(compiled: Any) -> int:
    """CUkernel of a compiled kernel, loaded for the current device.

    For the driver's own launch: Numba's takes no blocks by the count, warns of small grids, and costs 4 µs an array.
    """
    return int(compiled._codelibrary.get_cufunc().handle)


def array_words(pointer: int, size: int, itemsize: int) -> tuple[int, ...]:
    """What a contiguous one-dimensional array is to a kernel: seven 64-bit words (ArrayModel in numba.cuda.models).

    Memory's owner and parent object, which kernels have not; elements, bytes of one, address, shape, strides.
    """
    return 0, 0, size, itemsize, pointer, size, itemsize


# --- the simulator


def simulate(
    function: Callable[..., None], blocks: int, threads: int, shared: int, arguments: list[np.ndarray[Any, Any] | Any]
) -> None:
    """Run a kernel in the simulator, on NumPy's arrays as they are: given them, it would copy each in and out."""
    from numba.cuda.simulator.cudadrv.devicearray import FakeCUDAArray

    _use_simulated_module(function)
    given = [FakeCUDAArray(argument) if isinstance(argument, np.ndarray) else argument for argument in arguments]
    numba_cuda().jit(function)[blocks, threads, 0, shared](*given)


class _SimulatedModule:
    """numba.cuda inside a kernel in the simulator: threadIdx and the rest are those of the thread that asks."""

    def __getattr__(self, name: str) -> Any:
        from numba.cuda.simulator.kernel import _get_kernel_context

        return getattr(_get_kernel_context() or numba_cuda(), name)


def _use_simulated_module(function: Callable[..., None]) -> None:
    """Let a kernel, and the device functions it calls, use it where they close over numba.cuda.

    The simulator replaces the module among a function's globals, while ours close over it.
    """
    for cell in function.__closure__ or ():
        if cell.cell_contents is numba_cuda():
            cell.cell_contents = _SimulatedModule()
        elif hasattr(cell.cell_contents, "py_func"):
            _use_simulated_module(cell.cell_contents.py_func)


# --- PTX


@functools.cache
def arrive() -> Any:
    """arrive(counter, index): counter[index] += 1, releasing what this thread wrote, or saw before a block barrier."""
    return _store("arrive", "red.release.gpu.global.add.u32 [$0], 1;", 0, "uint32")


@functools.cache
def arrived() -> Any:
    """arrived(counter, index) -> uint32: the count, acquiring what the arrivals that it counts released."""
    return _load("arrived", "ld.acquire.gpu.global.u32 $0, [$1];", 1, "uint32")


@functools.cache
def load1() -> Any:
    """load1(array, index) -> float32, relaxed."""
    return _load("load1", "ld.relaxed.gpu.global.f32 $0, [$1];", 1, "float32")


@functools.cache
def load4() -> Any:
    """load4(array, index) -> four float32, relaxed. The address is a multiple of 16 bytes."""
    return _load("load4", "ld.relaxed.gpu.global.v4.f32 {$0, $1, $2, $3}, [$4];", 4, "float32")


@functools.cache
def store1() -> Any:
    """store1(array, index, value), relaxed."""
    return _store("store1", "st.relaxed.gpu.global.f32 [$0], $1;", 1, "float32")


@functools.cache
def store_error() -> Any:
    """store_error(error, index): error[index] = 1, relaxed, and for the host to see too."""
    return _store("store_error", "st.relaxed.sys.global.u32 [$0], 1;", 0, "uint32")


@functools.cache
def shared_load4() -> Any:
    """shared_load4(array, index) -> four float32 of a shared array, in one load.

    The address is a multiple of 16 bytes; the array is made with `alignment=16`, since 4 is Numba's own choice.
    An ordinary load, which the compiler may move, but never over cuda.syncthreads.
    """
    numba_cuda()
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic
    from numba.cuda.typing import signature

    @intrinsic
    def shared_load4(typing_context, array, index):
        _check_array("shared_load4", array, types.float32)

        def codegen(context, builder, sig, arguments):
            loaded = builder.load(_shared_four(context, builder, sig, arguments), align=16)
            parts = [builder.extract_element(loaded, ir.Constant(ir.IntType(32), n)) for n in range(4)]
            return context.make_tuple(builder, sig.return_type, parts)

        return signature(types.UniTuple(types.float32, 4), array, index), codegen

    return shared_load4


@functools.cache
def shared_store4() -> Any:
    """shared_store4(array, index, four): four float32, a tuple, to a shared array in one store, as `shared_load4`."""
    numba_cuda()
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.core.errors import TypingError
    from numba.cuda.extending import intrinsic
    from numba.cuda.typing import signature

    @intrinsic
    def shared_store4(typing_context, array, index, four):
        _check_array("shared_store4", array, types.float32)
        if four != types.UniTuple(types.float32, 4):
            raise TypingError(f"shared_store4: expected four float32; got {four}")

        def codegen(context, builder, sig, arguments):
            stored = ir.Constant(ir.VectorType(ir.FloatType(), 4), ir.Undefined)
            for n in range(4):
                part = builder.extract_value(arguments[2], n)
                stored = builder.insert_element(stored, part, ir.Constant(ir.IntType(32), n))
            builder.store(stored, _shared_four(context, builder, sig, arguments), align=16)
            return context.get_dummy_value()

        return signature(types.void, array, index, four), codegen

    return shared_store4


GLOBAL, SHARED = 1, 3  # NVPTX's address spaces


def _check_array(name: str, array: Any, element: Any) -> None:
    """Raise Numba's typing error, which names the kernel's line, unless this is a contiguous array of such elements."""
    from numba.cuda import types
    from numba.cuda.core.errors import TypingError

    words = (types.int32, types.uint32)
    fits = isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"
    if not fits or (array.dtype not in words if element in words else array.dtype != element):
        raise TypingError(f"{name}: expected a contiguous one-dimensional array of {element}; got {array}")


def _element(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    """Generic pointer to array[index], the first two arguments."""
    from numba.cuda import types

    array = context.make_array(sig.args[0])(context, builder, arguments[0])
    return builder.gep(array.data, [context.cast(builder, arguments[1], sig.args[1], types.intp)])


def _shared_four(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    """Pointer to four float32 in shared memory, from array[index] on, the first two arguments."""
    from llvmlite import ir

    element = _element(context, builder, sig, arguments)
    shared = builder.addrspacecast(element, ir.PointerType(ir.FloatType(), SHARED))
    return builder.bitcast(shared, ir.PointerType(ir.VectorType(ir.FloatType(), 4), SHARED))


def _global_address(context: Any, builder: Any, sig: Any, arguments: Any) -> Any:
    """Address in global memory of array[index], the first two arguments."""
    from llvmlite import ir

    element = _element(context, builder, sig, arguments)
    return builder.addrspacecast(element, ir.PointerType(element.type.pointee, GLOBAL))


def _load(name: str, ptx: str, count: int, element: str) -> Any:
    """An intrinsic name(array, index) of one line of PTX: $0 and on are what it returns, the last is the address."""
    numba_cuda()
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.extending import intrinsic
    from numba.cuda.typing import signature

    kind = getattr(types, element)
    word, register = (ir.FloatType(), "=f") if kind == types.float32 else (ir.IntType(32), "=r")
    loaded = word if count == 1 else ir.LiteralStructType([word] * count)
    returned = kind if count == 1 else types.UniTuple(kind, count)

    def load(typing_context, array, index):
        _check_array(name, array, kind)

        def codegen(context, builder, sig, arguments):
            address = _global_address(context, builder, sig, arguments)
            asm = ir.InlineAsm(
                ir.FunctionType(loaded, [address.type]),
                ptx,
                ",".join([*[register] * count, "l", "~{memory}"]),
                side_effect=True,  # not hoisted, not merged, not moved over another such
            )
            value = builder.call(asm, [address])
            if count == 1:
                return value
            return context.make_tuple(builder, returned, [builder.extract_value(value, n) for n in range(count)])

        return signature(returned, array, index), codegen

    load.__name__ = name  # in Numba's errors
    return intrinsic(load)


def _store(name: str, ptx: str, count: int, element: str) -> Any:
    """An intrinsic name(array, index, *values) of one line of PTX: $0 is the address, $1 and on are the values."""
    numba_cuda()
    from llvmlite import ir
    from numba.cuda import types
    from numba.cuda.core.errors import TypingError
    from numba.cuda.extending import intrinsic
    from numba.cuda.typing import signature

    kind = getattr(types, element)

    def typed(typing_context, array, index, *values):
        _check_array(name, array, kind)
        if values != (kind,) * count:
            raise TypingError(f"{name}: expected {count} values of {kind}; got {values}")

        def codegen(context, builder, sig, arguments):
            address = _global_address(context, builder, sig, arguments)
            asm = ir.InlineAsm(
                ir.FunctionType(ir.VoidType(), [address.type, *[ir.FloatType()] * count]),
                ptx,
                ",".join(["l", *["f"] * count, "~{memory}"]),
                side_effect=True,
            )
            builder.call(asm, [address, *arguments[2:]])
            return context.get_dummy_value()

        return signature(types.void, array, index, *values), codegen

    # Numba reads the number of arguments off the function
    def store0(typing_context, array, index):
        return typed(typing_context, array, index)

    def store1(typing_context, array, index, a):
        return typed(typing_context, array, index, a)

    store: Any = {0: store0, 1: store1}[count]
    store.__name__ = name  # in Numba's errors
    return intrinsic(store)
