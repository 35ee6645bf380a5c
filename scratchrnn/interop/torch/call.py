"""One call of a module, between arrays in and arrays out.

forward:    x, h_0, c_0, weights  ──walk──►  output, h_n, c_n;   h, c, gates of every step are kept
backward:   d_output, d_h_n, d_c_n  ──walk, in reverse──►  dx, dh_0, dc_0, dW

Arrays and tensors are two views of one memory. `node.py` has the call as a node of torch's graph.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.backends import Kernels, memory
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.layout import Layout, draw_mask
from scratchrnn.interop.torch.samples import Samples
from scratchrnn.interop.torch.threads import on_torchs_threads
from scratchrnn.layers import direction, edge, walk
from scratchrnn.layers.direction import Cell, Recompute, Weights
from scratchrnn.layers.plan import Plan
from scratchrnn.trace import Gradients, Key, LayerTrace, State, Trace

Arrays = list[FloatArray | None]


def array_of(tensor: Any) -> Any:
    """See a tensor on the CPU as an array: no copy, unless it stands negated. `torch.from_numpy` is the way back."""
    try:
        return None if tensor is None else tensor.numpy(force=True)  # force: what requires a gradient, too
    except RuntimeError as error:
        raise RuntimeError(
            f"expected a tensor with numbers of its own; got a {type(tensor).__name__} without: modules of "
            f"scratchrnn.interop.torch do not go through vmap (is_grads_batched=True, vectorize=True) or fake tensors"
        ) from error


class Kept(NamedTuple):
    """What the way back needs; see `walk.Kept`."""

    layers: dict[Key, LayerTrace]
    parameters: dict[str, FloatArray]
    dropout_masks: Sequence[FloatArray | None]


def flat(state: State) -> list[FloatArray]:
    """h, and c of an LSTM."""
    return list(state) if isinstance(state, tuple) else [state]


@dataclass(frozen=True, eq=False)
class Call:
    """All about a call that is no tensor."""

    cell: Cell
    hidden_size: int
    num_layers: int
    bidirectional: bool
    proj_size: int
    names: tuple[str, ...]  # of the weights
    dropout: float  # 0 where it does not act
    layout: Layout
    own_trace: bool  # whether the caller gets the trace, which then shares nothing with any tensor
    kernels: Kernels
    samples: Samples | None  # takes the gradients of each sample, where they are wanted

    @property
    def num_states(self) -> int:
        """Two of an LSTM, one of an RNN."""
        return 2 if self.cell.has_c else 1

    @property
    def num_kept(self) -> int:
        """Arrays that `take_apart` gives: three of each direction, two of each boundary between layers."""
        return 3 * self.num_layers * (2 if self.bidirectional else 1) + 2 * (self.num_layers - 1)

    def plan(self, weights: Sequence[FloatArray]) -> Plan:
        """The stack over these weights."""
        named = {name: edge.readable(w) for name, w in zip(self.names, weights, strict=True)}
        sizes = (self.hidden_size, self.num_layers, self.bidirectional, self.proj_size)
        return Plan(self.cell, *sizes, weights[0].dtype, named)

    def _enter(
        self, x: FloatArray, states: Sequence[FloatArray | None], plan: Plan
    ) -> tuple[FloatArray, FloatArray, FloatArray | None, IntArray]:
        """x (T, B, I), h_0 (L·D, B, P), c_0 (L·D, B, H) of an LSTM, as kernels read them, and lengths (B,)."""
        xs = edge.readable(self.layout.enter(x))
        if self.own_trace and np.may_share_memory(xs, x):
            xs = memory.copy(xs)
        rows, batch = self.num_layers * plan.num_directions, xs.shape[1]
        h_0, *c_0 = (
            memory.zeros((rows, batch, size), x.dtype) if s is None else edge.readable(self._enter_state(s))
            for s, size in zip(states, (plan.output_size, self.hidden_size), strict=False)
        )
        return xs, h_0, c_0[0] if c_0 else None, self.layout.lengths(xs.shape)

    def _enter_state(self, state: Any) -> Any:  # (L·D, B, ·) or (L·D, ·)
        return state if self.layout.batched or state is None else state[:, None]

    def _leave_state(self, h: FloatArray, c: FloatArray | None) -> State:
        return edge.leave_state(h, c, batched=self.layout.batched)

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def infer(
        self, x: FloatArray, states: Sequence[FloatArray | None], weights: Sequence[FloatArray]
    ) -> list[FloatArray]:
        """The result (output, h_n, and c_n of an LSTM), with nothing kept; dropout does not act."""
        plan = self.plan(weights)
        entered = self._enter(x, states, plan)
        with on_torchs_threads():
            output, h_n, c_n = walk.infer(plan, self.kernels, *entered, plan.parameters)
        return [self.layout.leave(output), *flat(self._leave_state(h_n, c_n))]

    @np.errstate(all="ignore")
    def forward(
        self, x: FloatArray, states: Sequence[FloatArray | None], weights: Sequence[FloatArray]
    ) -> tuple[list[FloatArray], walk.Ran, Trace | None]:
        """The result, everything on the way, and the trace for the caller."""
        plan = self.plan([memory.copy(w) for w in weights] if self.own_trace else weights)
        xs, hs, cs, ns = self._enter(x, states, plan)
        draw = partial(draw_mask, require_torch(), self.layout, p=self.dropout, dtype=x.dtype) if self.dropout else None
        with on_torchs_threads():
            ran = walk.forward(plan, self.kernels, xs, hs, cs, ns, plan.parameters, draw, direction.forward)
        result = [self.layout.leave(ran.output), *flat(self._leave_state(ran.h_n, ran.c_n))]
        if not self.own_trace:
            return result, ran, None
        output, h_n, c_n = (None if a is None else a.copy() for a in (ran.output, ran.h_n, ran.c_n))
        trace = Trace(
            self.layout.show(cast(FloatArray, output)), self._leave_state(cast(FloatArray, h_n), c_n), ran.layers, ns,
            plan.parameters, ran.masks, self.layout.batched, self.layout.batch_first, self.kernels.name, self.cell.name,
        )  # fmt: skip
        return result, ran, trace

    def take_apart(self, ran: walk.Ran) -> Arrays:
        """Arrays that backward needs besides x and weights: h, c, gates by direction; inputs and masks by layer."""
        parts = list(ran.layers.values())
        above = parts[len(parts) // self.num_layers :: len(parts) // self.num_layers]  # one of each layer but the first
        return [a for t in parts for a in (t.h, t._c, t._gates)] + [t.input for t in above] + list(ran.masks)

    def put_together(self, x: FloatArray, plan: Plan, arrays: Sequence[FloatArray | None]) -> Kept:
        """Undo `take_apart`."""
        xs = edge.readable(self.layout.enter(x))
        lengths = self.layout.lengths(xs.shape)
        keys = plan._keys
        states = iter(arrays[: 3 * len(keys)])
        inputs: Any = [xs, *arrays[3 * len(keys) : 3 * len(keys) + self.num_layers - 1]]
        layers = {}
        for key in keys:
            h: Any = next(states)
            again = Recompute(self.kernels.name, self.cell, Weights.of(plan.parameters, plan._suffix(key)))
            c, gates = next(states), next(states)
            layers[key] = LayerTrace(h, inputs[key[0]], lengths, key[1] == "reverse", False, c, gates, again)
        return Kept(layers, plan.parameters, arrays[len(arrays) - self.num_layers + 1 :])

    @np.errstate(all="ignore")
    def backward(self, plan: Plan, kept: Kept, d_output: Any, d_h_n: Any, d_c_n: Any = None) -> walk.Returned:
        """The gradient of everything, from cotangents in the caller's layout, None for zero."""
        above = None if d_output is None else self.layout.enter(d_output)
        d_h, d_c = self._enter_state(d_h_n), self._enter_state(d_c_n)
        with on_torchs_threads():
            return walk.backward(
                plan, self.kernels, kept, above, d_h, d_c, math.inf, None, None, direction.backward,
                per_sample=self.samples is not None,
            )  # fmt: skip

    def leave_gradients(self, back: walk.Returned) -> list[FloatArray]:
        """dx, dh_0, dc_0 of an LSTM, in the caller's layout, and those of the weights."""
        d_state = flat(self._leave_state(back.d_h_0, back.d_c_0))
        return [self.layout.leave(back.dx), *d_state, *(back.parameters[name] for name in self.names)]

    def record(self, back: walk.Returned) -> Gradients:
        """Gradients for the caller of `return_trace`."""
        d_state = self._leave_state(back.d_h_0, back.d_c_0)
        return Gradients(self.layout.show(back.dx), d_state, back.parameters, back.layers, per_sample=back.per_sample)

    def parts(self, saved: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any], Sequence[Any]]:
        """Initial states, weights, and what `take_apart` gave, from all of them in a row."""
        end = self.num_states + len(self.names)
        return saved[: self.num_states], saved[self.num_states : end], saved[end:]

    def undo(
        self,
        trace: Trace | None,
        x: FloatArray,
        weights: Sequence[FloatArray],
        kept: Sequence[Any],
        cotangents: Sequence[Any],
    ) -> tuple[list[FloatArray], walk.Returned]:
        """Backward as a node does it: the gradients that it gives away, and everything; the trace gets its own."""
        plan = self.plan(weights)
        back = self.backward(plan, self.put_together(x, plan, kept), *cotangents)
        found = self.leave_gradients(back)
        if self.samples is not None and back.per_sample is not None:
            self.samples.take(back.per_sample, copy=trace is not None)
        if trace is not None:
            object.__setattr__(trace, "gradients", self.record(back))
            found = [a.copy() for a in found]  # torch may add to these in place
        return found, back
