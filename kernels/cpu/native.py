"""Calls of compiled kernels as data: made by threads that run no Python, and so wait for no lock.

Numba's way into a kernel takes its arguments apart under Python's lock: 50 µs for each thread after the one before it,
where a thread's whole part may take 500. Here the caller takes all calls apart beforehand:

    job        next call to make, number of calls, ...; then where each part stands
    part       number of calls in it; then an address of code and an address of arguments for each
    arguments  one 64-bit word each for a number, seven for an array

and `enter(job)`, compiled once, claims a part and makes its calls. The code of a kernel is entered as Numba itself
declares it (its calling convention's function type); where that is not what is known here, there is no job.
"""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Sequence
from functools import cache
from operator import attrgetter
from typing import Any

import llvmlite.binding as llvm
import numba
import numpy as np
from llvmlite import ir
from numba.core.dispatcher import Dispatcher

from .jit import do

I8, I32, I64 = map(ir.IntType, (8, 32, 64))
WORDS = I64.as_pointer()
ARRAY = "ppiipii"  # of an array in one row: owner, parent, number of items, bytes of one, address, shape, strides
KINDS = {float: "d", bool: "b"}
NEXT, COUNT, FAILED, LEAST, TEAM, PARTS = range(6)  # words of a job

code_of = attrgetter("library")  # of what Numba compiled: its code, linked

_lock = threading.RLock()  # a signal's handler may compute, too
_engines: list[Any] = []  # they own the code
_codes: dict[tuple[Any, str], int] = {}  # (kernel, kinds of its arguments) to the address of its code


class Job:
    """Parts of a call, each a sequence of kernels' calls, for `enter`.

    `least` and `team` are the number of threads without which nobody begins, and the address of the function that says
    how many there are; 0 where any number will do.
    """

    def __init__(self, parts: Sequence[Sequence[tuple[int, list[int]]]], least: int = 0, team: int = 0) -> None:
        self._kept: list[Any] = []
        words = [0, len(parts), 0, least, team]
        for part in parts:
            made = [len(part)]
            for code, arguments in part:
                made += [code, self._address(arguments)]
            words.append(self._address(made))
        self.words = np.array(words, np.int64)
        self.address = _address_of(self.words)

    def _address(self, words: list[int]) -> int:
        array = np.array(words, np.int64)
        self._kept.append(array)
        return _address_of(array)

    def begun(self) -> int:
        """Parts that a thread has come for."""
        return min(int(self.words[NEXT]), int(self.words[COUNT]))

    def check(self) -> None:
        """Raise if a kernel failed, which none should."""
        if self.words[FAILED]:
            raise RuntimeError("a compiled kernel failed")


def parts_of(task: Any, calls: Sequence[Any]) -> list[list[tuple[int, list[int]]]] | None:
    """task(*call) for each call, taken apart; None if it is not of kernels, or one cannot be entered here."""
    if task is not do and not isinstance(task, Dispatcher):
        return None
    parts = []
    for call in calls:
        made = []
        for kernel, arguments in call if task is do else ((task, call),):
            apart = _apart(arguments)
            code = 0 if apart is None else _code(kernel, arguments, apart[1])
            if apart is None or not code:
                return None
            made.append((code, apart[0]))
        parts.append(made)
    return parts


@cache
def enter() -> Any:
    """`void enter(int64 *job)`, for ctypes and whoever else calls by address."""
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p)(_compiled(_enter_module(), "enter"))


def _address_of(array: Any) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _apart(arguments: Sequence[Any]) -> tuple[list[int], str] | None:
    """The arguments as words, and of what kinds they are; None where one is of no known kind.

    i integer, b bool, d float64, and an array's dtype.
    """
    words: list[int] = []
    kinds: list[str] = []
    for a in arguments:
        kind = type(a)
        if kind is np.ndarray:
            if a.ndim != 1 or not (a.flags.carray and a.dtype.isnative):
                return None
            size, itemsize = a.size, a.itemsize
            words += (0, 0, size, itemsize, a.__array_interface__["data"][0], size, itemsize)
            kinds.append(a.dtype.str)
        elif kind is int or kind is np.int64:
            words.append(int(a))
            kinds.append("i")
        elif kind is float:
            words.append(struct.unpack("q", struct.pack("d", a))[0])
            kinds.append("d")
        elif kind is bool:
            words.append(int(a))
            kinds.append("b")
        else:
            return None
    return words, "".join(kinds)


def _code(kernel: Any, arguments: Sequence[Any], kinds: str) -> int:
    """Address of `int32 code(int64 *arguments)` for a kernel that is compiled for these; 0 where there is none."""
    found = _codes.get((kernel, kinds), 0)
    if not found:
        with _lock:
            try:
                found = _made(kernel, arguments)
            except AttributeError:  # another Numba, which names or declares something else
                return 0
            if found:
                _codes[kernel, kinds] = found
    return found


def _made(kernel: Any, arguments: Sequence[Any]) -> int:
    compiled = kernel.overloads.get(tuple(map(numba.typeof, arguments)))
    if compiled is None or compiled.fndesc.restype != numba.types.none:
        return 0
    described, context = compiled.fndesc, compiled.target_context
    declared = context.call_conv.get_function_type(described.restype, described.argtypes)
    known = "".join(ARRAY if isinstance(a, np.ndarray) else KINDS.get(type(a), "i") for a in arguments)
    address = code_of(compiled).get_pointer_to_function(described.llvm_func_name)
    if declared.return_type != I32 or "".join(map(_kind, declared.args[2:])) != known or not address:
        return 0
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(I32, [WORDS]), "code")
    build = ir.IRBuilder(function.append_basic_block())
    given = [build.alloca(of.pointee) for of in declared.args[:2]]  # where its result and its error would stand
    for n, of in enumerate(declared.args[2:]):
        word = build.gep(function.args[0], [ir.Constant(I64, n)])
        value = build.trunc(build.load(word), I8) if of == I8 else build.load(build.bitcast(word, of.as_pointer()))
        given.append(value)
    build.ret(build.call(build.inttoptr(ir.Constant(I64, address), declared.as_pointer()), given))
    return _compiled(module, "code")


def _kind(of: Any) -> str:
    if isinstance(of, ir.PointerType):
        return "p"
    return {I64: "i", I8: "b", ir.DoubleType(): "d"}.get(of, "?")


def _enter_module() -> ir.Module:
    """Claim a part, and make its calls; if that takes a team of some size, only in one."""
    module = ir.Module()
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [WORDS]), "enter")
    first, ask, claim, begin, look, call, more, end = (function.append_basic_block() for _ in range(8))
    job = function.args[0]
    build = ir.IRBuilder(first)

    def word(base: Any, n: Any) -> Any:
        return build.gep(base, [ir.Constant(I64, n) if isinstance(n, int) else n])

    def pointer(address: Any, to: Any) -> Any:
        return build.inttoptr(address, to.as_pointer())

    least = build.load(word(job, LEAST))
    build.cbranch(build.icmp_signed(">", least, ir.Constant(I64, 0)), ask, claim)
    build.position_at_end(ask)
    threads = build.call(pointer(build.load(word(job, TEAM)), ir.FunctionType(I32, [])), [])
    build.cbranch(build.icmp_signed("<", build.sext(threads, I64), least), end, claim)
    build.position_at_end(claim)
    mine = build.atomic_rmw("add", word(job, NEXT), ir.Constant(I64, 1), "seq_cst")
    build.cbranch(build.icmp_signed("<", mine, build.load(word(job, COUNT))), begin, end)
    build.position_at_end(begin)
    part = pointer(build.load(word(job, build.add(mine, ir.Constant(I64, PARTS)))), I64)
    count = build.load(part)
    build.branch(look)
    build.position_at_end(look)
    done = build.phi(I64)
    done.add_incoming(ir.Constant(I64, 0), begin)
    build.cbranch(build.icmp_signed("<", done, count), call, end)
    build.position_at_end(call)
    at = build.add(build.shl(done, ir.Constant(I64, 1)), ir.Constant(I64, 1))
    code = pointer(build.load(word(part, at)), ir.FunctionType(I32, [WORDS]))
    arguments = pointer(build.load(word(part, build.add(at, ir.Constant(I64, 1)))), I64)
    status = build.zext(build.call(code, [arguments]), I64)
    build.atomic_rmw("or", word(job, FAILED), status, "seq_cst")
    build.cbranch(build.icmp_unsigned("==", status, ir.Constant(I64, 0)), more, end)
    build.position_at_end(more)
    done.add_incoming(build.add(done, ir.Constant(I64, 1)), more)
    build.branch(look)
    build.position_at_end(end)
    build.ret_void()
    return module


def _compiled(module: ir.Module, name: str) -> int:
    parsed = llvm.parse_assembly(str(module))
    parsed.verify()
    machine = llvm.Target.from_default_triple().create_target_machine(opt=2, jit=True)
    engine = llvm.create_mcjit_compiler(parsed, machine)
    engine.finalize_object()
    _engines.append(engine)
    address: int = engine.get_function_address(name)
    return address
