"""Where threads that share one time step wait for each other: a counter in memory that all of them watch.

Each thread adds one to the counter when it arrives and goes on once everybody has. A step takes microseconds, so they
watch in a loop; one that waits long lets others have its core. A second number, set, calls everybody off.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from .jit import inner

PATIENCE = 4000  # looks at the counter before a thread offers its core to others
I64 = ir.IntType(64)
YIELD = "SwitchToThread" if os.name == "nt" else "sched_yield"
LINE = 16  # int64 numbers between the two: each has its cache lines for itself


class Meeting:
    """What the threads of one call share: how many they are, who has arrived, whether all are called off."""

    def __init__(self, parties: int) -> None:
        self.parties = parties
        self.state = np.zeros(2 * LINE, np.int64)

    def call_off(self) -> None:
        """Make everybody who waits, or will, leave."""
        self.state[LINE] = 1


NOBODY = Meeting(1)  # for a call whose parts do not wait


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    return builder.gep(cgutils.create_struct_proxy(array_type)(context, builder, array).data, [index])


@intrinsic
def _arrive(typingctx: Any, state: Any) -> Any:
    """state[0] += 1, one thread after the other, and everything written before is seen by whoever sees it."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        address = _address(context, builder, signature.args[0], args[0], ir.Constant(I64, 0))
        builder.atomic_rmw("add", address, ir.Constant(I64, 1), "seq_cst")
        return context.get_dummy_value()

    return types.void(state), codegen


@intrinsic
def _look(typingctx: Any, state: Any, index: Any) -> Any:
    """state[index] as it is now, and everything that was written before it was set."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_address(context, builder, signature.args[0], *args), "seq_cst", 8)

    return types.int64(state, types.int64), codegen


@intrinsic
def _let_others(typingctx: Any) -> Any:
    """Let another thread of the machine run on this core."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(ir.IntType(32), []), YIELD)
        builder.call(function, [])
        return context.get_dummy_value()

    return types.void(), codegen


@inner
def meet(state, everybody):
    """Arrive, and wait until `everybody`, counted from the start of the call, have; False if called off."""
    _arrive(state)
    looks = 0
    while _look(state, 0) < everybody:
        if _look(state, LINE) != 0:
            return False
        looks += 1
        if looks > PATIENCE:
            _let_others()
    return True
