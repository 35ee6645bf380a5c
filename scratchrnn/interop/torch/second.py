"""The backward pass as a node of torch's graph in its turn, for `create_graph=True`.

forward:    v = d_output, d_h_n, d_c_n; x, h_0, c_0, weights  ──►  g = dx, dh_0, dc_0, dW
backward:   u = the cotangents of these  ──►  the gradient of <u, g>

g is linear in v: it is Jᵀv, J the Jacobian of the call. So <u, g> = <J u, v>, and its gradient in v is J u, the tangent
of the result along u. As <u, g> is the derivative along u of <v, result>, its gradient in x, h_0, c_0 and the weights
is the tangent along u of g, with v held fixed (Pearlmutter 1994). `layers/tangent.py` computes both.

In forward mode (`torch.autograd.forward_ad`) the tangent of g is what is asked for, with v moving, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from scratchrnn.interop.torch.call import Call, array_of
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.motion import Motion
from scratchrnn.trace import Trace


def forward_mode(torch: Any) -> bool:
    """Whether tangents may travel with tensors: within torch's `forward_ad.dual_level`."""
    return bool(torch.autograd.forward_ad._current_level >= 0)  # what unpack_dual asks, at each call of a module


@cache
def once() -> Any:
    """The autograd function that ends a graph, made when torch is there."""
    torch = require_torch()

    class Once(torch.autograd.Function):  # type: ignore[name-defined, misc]  # torch is a variable here
        """A derivative that depends on more than torch knows of: it can be used, and not differentiated."""

        @staticmethod
        def forward(_: Any, derivative: Any) -> Any:
            return derivative.view_as(derivative)

        @staticmethod
        def backward(_: Any, __: Any) -> Any:
            raise RuntimeError("this derivative of scratchrnn's LSTM and RNN cannot be differentiated in its turn")

    return Once


def ended(derivatives: list[Any]) -> list[Any]:
    """The tensors among these, which torch takes for constants, as such that raise when they are differentiated."""
    return [None if d is None else once().apply(d.requires_grad_()) for d in derivatives]


def _move(ctx: Any, u: Sequence[Any]) -> tuple[Motion, Sequence[Any]]:
    """The call moved along u, and the totals dh, da, dc of each direction, from what the node saved."""
    call: Call = ctx.call
    x, *saved = map(array_of, ctx.saved_tensors)
    kept_from, kept_to = len(call.names), len(call.names) + call.num_kept
    weights, kept, totals = saved[:kept_from], saved[kept_from:kept_to], saved[kept_to:]
    return Motion.of(call, x, weights, kept, [array_of(d) for d in u]), totals


@cache
def second() -> Any:
    """The autograd function, made when torch is there."""
    torch = require_torch()
    from_numpy = torch.from_numpy

    class RecurrenceGradient(torch.autograd.Function):  # type: ignore[name-defined, misc]
        """(call, trace, wanted, d_output, d_h_n[, d_c_n], x, h_0[, c_0], *weights, *kept) to (dx, dh_0[, dc_0], *dW).

        What is absent is None: cotangents, states that need no gradient, and gradients that are not wanted.
        """

        @staticmethod
        def forward(ctx: Any, call: Call, trace: Trace | None, wanted: Sequence[bool], *tensors: Any) -> Any:
            count = 1 + call.num_states
            cotangents, x, (_, weights, kept) = tensors[:count], tensors[count], call.parts(tensors[count + 1 :])
            arrays = [[array_of(t) for t in ts] for ts in (weights, kept, cotangents)]
            found, back = call.undo(trace, array_of(x), *arrays)
            ctx.call, ctx.wanted = call, wanted
            ctx.set_materialize_grads(False)
            totals = (a for layer in back.layers.values() for a in (layer.h, layer._a, layer._c))
            saved = (x, *weights, *kept, *(None if a is None else from_numpy(a) for a in totals))
            ctx.save_for_backward(*saved)
            if forward_mode(torch):
                ctx.save_for_forward(*saved)
            return tuple(from_numpy(a) if need else None for a, need in zip(found, wanted, strict=True))

        @staticmethod
        def backward(ctx: Any, *u: Any) -> Any:
            call: Call = ctx.call
            if call.samples is not None:
                raise NotImplementedError(
                    "per_sample=True: the gradient of each sample is not known of a second derivative, and grad_sample "
                    "would lack its part; set it to False, or leave out create_graph=True"
                )
            needs = ctx.needs_input_grad[3:]
            motion, totals = _move(ctx, u)
            found = [*motion.result(), *motion.gradients(totals, (None,) * (1 + call.num_states))]
            # what was kept stands last, and needs nothing
            grads = [from_numpy(a) if need else None for a, need in zip(found, needs, strict=False)]
            grads = ended(grads) if torch.is_grad_enabled() else grads
            return None, None, None, *grads, *(None for _ in range(call.num_kept))

        @staticmethod
        def jvp(ctx: Any, _: Any, __: Any, ___: Any, *tangents: Any) -> Any:
            count = 1 + ctx.call.num_states
            entered = count + 1 + ctx.call.num_states + len(ctx.call.names)
            motion, totals = _move(ctx, tangents[count:entered])
            found = motion.gradients(totals, [array_of(d) for d in tangents[:count]])
            moved = [from_numpy(a) if need else None for a, need in zip(found, ctx.wanted, strict=True)]
            return tuple(ended(moved) if any(ctx.needs_input_grad) and torch.is_grad_enabled() else moved)

    return RecurrenceGradient
