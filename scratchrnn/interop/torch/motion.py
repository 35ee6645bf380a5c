"""How a call moves along a direction u, between arrays: the tangents of its result, and of its gradients.

u = tangents of x, h_0, c_0, weights           ──►  J u, those of output, h_n, c_n; J is the Jacobian of the call
and v' = those of d_output, d_h_n, d_c_n       ──►  those of dx, dh_0, dc_0, dW
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn.backends import memory
from scratchrnn.interop.torch.call import Call, Kept, flat
from scratchrnn.interop.torch.threads import on_torchs_threads
from scratchrnn.layers import edge, tangent
from scratchrnn.layers.plan import Plan
from scratchrnn.trace import LayerGradients


@dataclass(frozen=True)
class Motion:
    """How a call moves along u, the tangents of (x, h_0[, c_0], *weights), None for zero."""

    call: Call
    plan: Plan
    kept: Kept
    parameters_dot: dict[str, FloatArray]
    moved: tangent.Moved

    @classmethod
    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def of(
        cls, call: Call, x: FloatArray, weights: Sequence[FloatArray], kept: Sequence[Any], u: Sequence[Any]
    ) -> Motion:
        """The forward pass moved."""
        plan = call.plan(weights)
        trace = call.put_together(x, plan, kept)
        u_x, u_states, u_weights = u[0], u[1 : -len(weights)], u[-len(weights) :]
        if u_x is None:
            x_dot = memory.zeros(next(iter(trace.layers.values())).input.shape, x.dtype)
        else:
            x_dot = edge.readable(call.layout.enter(u_x))
        parameters_dot = {
            name: memory.zeros(w.shape, w.dtype) if d is None else edge.readable(d)
            for name, w, d in zip(call.names, weights, u_weights, strict=True)
        }
        h_0_dot, c_0_dot = (*map(call._enter_state, u_states), None)[:2]
        with on_torchs_threads():
            moved = tangent.forward(plan, call.kernels, trace, x_dot, h_0_dot, c_0_dot, parameters_dot)
        return cls(call, plan, trace, parameters_dot, moved)

    def result(self) -> list[FloatArray]:
        """The tangent of (output, h_n[, c_n])."""
        moved = self.moved
        return [self.call.layout.leave(moved.output), *flat(self.call._leave_state(moved.h_n, moved.c_n))]

    @np.errstate(all="ignore")
    def gradients(self, totals: Sequence[Any], v_dot: Sequence[Any]) -> list[FloatArray]:
        """The tangent of (dx, dh_0[, dc_0], *dW), as v = (d_output, d_h_n[, d_c_n]) moves along v_dot."""
        call = self.call
        by_layer: Any = zip(totals[::3], totals[1::3], totals[2::3], strict=True)
        layers = {key: LayerGradients(*arrays) for key, arrays in zip(self.plan._keys, by_layer, strict=True)}
        above = None if v_dot[0] is None else call.layout.enter(v_dot[0])
        ends = (*map(call._enter_state, v_dot[1:]), None)[:2]
        with on_torchs_threads():
            back = tangent.backward(
                self.plan, call.kernels, self.kept, layers, self.moved.layers, self.parameters_dot, above, *ends
            )
        return call.leave_gradients(back)
