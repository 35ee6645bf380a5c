"""The backward pass as a node of torch's graph in its turn, for `create_graph=True`.

forward:    v = d_output, d_h_n, d_c_n; x, h_0, c_0, weights  ──►  g = dx, dh_0, dc_0, dW
backward:   u = the cotangents of these  ──►  the gradient of <u, g>

g is linear in v: it is Jᵀv, J the Jacobian of the call. So <u, g> = <J u, v>, and its gradient in v is J u, the tangent
of the result along u. As <u, g> is the derivative along u of <v, result>, its gradient in x, h_0, c_0 and the weights
is the tangent along u of g, with v held fixed (Pearlmutter 1994). `layers/tangent.py` computes both.

In forward mode (`torch.autograd.forward_ad`) the tangent of g is what is asked for, with v moving, too.

second:     u; and v, x, h_0, c_0, weights  ──►  that gradient: J u, and H u, H the second derivatives of <v, result>
backward:   p, q = the cotangents of these  ──►  the gradient in u of <p, J u> + <q, H u>

That is Jᵀp + H q, since H is symmetric: the tangent of g along q as v moves along p. `torch.autograd.functional.hvp`
asks for it. In anything but u a third derivative would be needed, which is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from scratchrnn.interop.torch.call import Call, array_of
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.motion import Motion
from scratchrnn.interop.torch.once import ended, fenced, forward_mode, primal
from scratchrnn.trace import Trace


def _entered(call: Call) -> int:
    """How many there are of v, x, h_0[, c_0] and weights."""
    return 2 * (1 + call.num_states) + len(call.names)


def _move(call: Call, saved: Sequence[Any], u: Sequence[Any]) -> tuple[Motion, Sequence[Any]]:
    """The call moved along u, and the totals dh, da, dc of each direction, from what a node saved."""
    at = 1 + call.num_states
    x, (_, weights, rest) = array_of(saved[at]), call.parts(saved[at + 1 :])
    weights, rest, u = ([array_of(t) for t in ts] for ts in (weights, rest, u))
    kept, totals = rest[: call.num_kept], rest[call.num_kept :]
    return Motion.of(call, x, weights, kept, u), totals


def _along(call: Call, saved: Sequence[Any], u: Sequence[Any], needs: Sequence[bool]) -> list[Any]:
    """J u, and H u, where they are needed."""
    motion, totals = _move(call, saved, u)
    found = [*motion.result(), *motion.gradients(totals, (None,) * (1 + call.num_states))]
    from_numpy = require_torch().from_numpy
    # what was kept stands last, and needs nothing
    return [from_numpy(a) if need else None for a, need in zip(found, needs, strict=False)]


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
            dual = forward_mode(torch)
            v = (d if need or dual else None for d, need in zip(cotangents, ctx.needs_input_grad[3:], strict=False))
            totals = (a for layer in back.layers.values() for a in (layer.h, layer._a, layer._c))
            saved = (*v, *tensors[count:], *(None if a is None else from_numpy(a) for a in totals))
            ctx.save_for_backward(*saved)
            if dual:
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
            needs, saved = ctx.needs_input_grad[3:], ctx.saved_tensors
            if torch.is_grad_enabled() or forward_mode(torch):
                entered = _entered(call)
                grads = along().apply(call, needs, *u, *map(fenced, saved[:entered]), *saved[entered:])
            else:
                grads = _along(call, saved, u, needs)
            return None, None, None, *grads, *(None for _ in range(call.num_kept))

        @staticmethod
        def jvp(ctx: Any, _: Any, __: Any, ___: Any, *tangents: Any) -> Any:
            call, saved, entered = ctx.call, ctx.saved_tensors, _entered(ctx.call)
            count = 1 + call.num_states
            motion, totals = _move(call, saved, tangents[count:entered])
            found = motion.gradients(totals, [array_of(d) for d in tangents[:count]])
            moved = [from_numpy(a) if need else None for a, need in zip(found, ctx.wanted, strict=True)]
            return tuple(ended(moved, [*tangents, *map(primal, saved[:entered])]))

    return RecurrenceGradient


@cache
def along() -> Any:
    """The autograd function of a second derivative, linear in its direction, made when torch is there."""
    torch = require_torch()
    from_numpy = torch.from_numpy

    class RecurrenceAlong(torch.autograd.Function):  # type: ignore[name-defined, misc]
        """(call, needs, *u, *saved) to (J u, H u); `saved` is what RecurrenceGradient saved, fenced.

        What is absent is None, and so is what is not needed.
        """

        @staticmethod
        def forward(ctx: Any, call: Call, needs: Sequence[bool], *tensors: Any) -> Any:
            count = _entered(call) - 1 - call.num_states
            u, saved = tensors[:count], tensors[count:]
            ctx.call, ctx.needs = call, needs
            ctx.set_materialize_grads(False)
            ctx.save_for_backward(*saved)
            if forward_mode(torch):
                ctx.save_for_forward(*saved)
            return tuple(_along(call, saved, u, needs))

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            call, saved, count = ctx.call, ctx.saved_tensors, 1 + ctx.call.num_states
            p, q = cotangents[:count], cotangents[count:]
            motion, totals = _move(call, saved, q)
            found = motion.gradients(totals, [array_of(d) for d in p])
            needs = ctx.needs_input_grad[2:]
            grads = [from_numpy(a) if need else None for a, need in zip(found, needs, strict=False)]
            grads = ended(grads, [*cotangents, *saved[: _entered(call)]])
            return None, None, *grads, *(None for _ in saved)

        @staticmethod
        def jvp(ctx: Any, _: Any, __: Any, *tangents: Any) -> Any:
            call, saved, entered = ctx.call, ctx.saved_tensors, _entered(ctx.call)
            u_dot = tangents[: entered - 1 - call.num_states]
            moved = _along(call, saved, u_dot, ctx.needs)
            return tuple(ended(moved, [*u_dot, *map(primal, saved[:entered])]))

    return RecurrenceAlong
