"""A call as one node of torch's graph.

What backward needs are saved tensors of the node, so that torch frees them with the graph, sees when one was changed in
between, and lets its hooks (checkpointing, offloading) have them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

from scratchrnn.interop.torch.call import Call, array_of
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.motion import Motion
from scratchrnn.interop.torch.once import ended, forward_mode, primal
from scratchrnn.interop.torch.second import second
from scratchrnn.trace import Trace


@cache
def node() -> Any:
    """The autograd function, made when torch is there."""
    torch = require_torch()
    from_numpy = torch.from_numpy

    class Recurrence(torch.autograd.Function):  # type: ignore[name-defined, misc]  # torch is a variable here
        """(call, traces, x, h_0[, c_0], *weights) to (output, h_n[, c_n]); h_0 and c_0 may be None."""

        @staticmethod
        def forward(ctx: Any, call: Call, traces: list[Trace], x: Any, *states_and_weights: Any) -> Any:
            count = len(call.names)
            states, weights = states_and_weights[:-count], states_and_weights[-count:]
            result, ran, trace = call.forward(array_of(x), *([array_of(t) for t in ts] for ts in (states, weights)))
            traces.extend([] if trace is None else [trace])
            ctx.call, ctx.trace = call, trace
            ctx.set_materialize_grads(False)
            # backward has its numbers in h and c; only a second derivative asks where they came from
            dual = forward_mode(torch)
            needed = (s if need or dual else None for s, need in zip(states, ctx.needs_input_grad[3:], strict=False))
            kept = (None if a is None else from_numpy(a) for a in call.take_apart(ran))
            saved = (x, *needed, *weights, *kept)
            ctx.save_for_backward(*saved)
            if dual:
                ctx.save_for_forward(*saved)
            return tuple(from_numpy(a) for a in result)

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            call: Call = ctx.call
            if call.samples is not None:
                nodes = [node for node, _ in ctx.next_functions[-len(call.names) :]]
                call = replace(call, samples=call.samples.in_this_pass(dict(zip(call.names, nodes, strict=True))))
            wanted = ctx.needs_input_grad[2:]
            if torch.is_grad_enabled() or forward_mode(torch):  # create_graph=True, or tangents among the cotangents
                return None, None, *second().apply(call, ctx.trace, wanted, *cotangents, *ctx.saved_tensors)
            x, *saved = map(array_of, ctx.saved_tensors)
            _, weights, kept = call.parts(saved)
            found, _ = call.undo(ctx.trace, x, weights, kept, [array_of(d) for d in cotangents])
            return None, None, *(from_numpy(a) if need else None for a, need in zip(found, wanted, strict=True))

        @staticmethod
        def jvp(ctx: Any, _: Any, __: Any, *u: Any) -> Any:
            call: Call = ctx.call
            x, *saved = map(array_of, ctx.saved_tensors)
            _, weights, kept = call.parts(saved)
            moved = [from_numpy(a) for a in Motion.of(call, x, weights, kept, [array_of(d) for d in u]).result()]
            return tuple(ended(moved, [*u, *map(primal, ctx.saved_tensors[: len(u)])]))

    return Recurrence
