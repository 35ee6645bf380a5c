"""What torch says: torch.nn itself, and a cell at a time in torch for all that torch.nn keeps to itself.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh
    RNN     h_t = tanh(a_t) or relu(a_t)
    LSTM    i, f, o = σ(a_i), σ(a_f), σ(a_o)   g = tanh(a_g)   c_t = f c_{t-1} + i g   h_t = W_hr (o tanh(c_t))

Only the forward pass is written here; every gradient comes from torch's autograd. Nothing is shared with the kernels or
the layers of this package, and time is walked differently: the reverse direction runs over the input from its last step
down, each sequence joining at its own end. `loop` is itself compared with `module` in every report.

Both return values by name: output, h_n, c_n, dx, dh_0, dc_0, dweight_ih_l0 and so on; `loop` also h_l0, c_l0, i_l0,
f_l0, g_l0, o_l0, a_l0, dh_l0, dc_l0, da_l0 per layer, with the suffix _reverse for the second direction. The latter are
laid out as in `scratchrnn.trace`: time-major, in the direction's own order of steps, states with slot 0, zero beyond
the end.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.interop.torch import require_torch
from scratchrnn.testing import difference

STEP_VALUES = {"rnn": ("h", "a"), "lstm": ("h", "c", "i", "f", "g", "o", "a")}
STEP_GRADIENTS = {"rnn": ("h", "a"), "lstm": ("h", "c", "a")}


@dataclass(frozen=True, eq=False)
class Inputs:
    """One problem: arrays in the layout of the module that gets them."""

    x: FloatArray  # (T, B, I), or (B, T, I) with batch_first, or (T, I)
    state: tuple[FloatArray, ...]  # h_0, and c_0 of an LSTM: (L·D, B, ·), or (L·D, ·)
    lengths: IntArray | None  # (B,)
    d_output: FloatArray | None
    d_state: tuple[FloatArray | None, ...]  # d_h_n, and d_c_n of an LSTM

    def cast(self, dtype: Any) -> Inputs:
        """The same numbers in another dtype."""
        return self.each(lambda array: array.astype(dtype))

    def each(self, change: Callable[[FloatArray], FloatArray]) -> Inputs:
        """A copy, every array changed."""

        def to(array: FloatArray | None) -> Any:
            return None if array is None else change(array)

        return Inputs(
            to(self.x), tuple(map(to, self.state)), self.lengths, to(self.d_output), tuple(map(to, self.d_state))
        )


def module(m: Any, inputs: Inputs) -> dict[str, FloatArray]:
    """What torch.nn shows: output, final state, and the gradient of everything that went in."""
    torch = require_torch()
    x, state = _leaf(inputs.x), tuple(_leaf(s) for s in inputs.state)
    given = state if len(state) > 1 else state[0]
    m.zero_grad(set_to_none=True)
    if inputs.lengths is None:
        output, final = _call(m, x, given)
    else:
        pack, pad = torch.nn.utils.rnn.pack_padded_sequence, torch.nn.utils.rnn.pad_packed_sequence
        first = m.batch_first
        lengths = torch.from_numpy(np.array(inputs.lengths, np.int64))
        packed, final = _call(m, pack(x, lengths, batch_first=first, enforce_sorted=False), given)
        output, _ = pad(packed, batch_first=first, total_length=x.shape[1 if first else 0])
    final = final if isinstance(final, tuple) else (final,)
    _backward(inputs, output, final)
    return _outer(x, state, output, final, dict(m.named_parameters()))


def _call(m: Any, x: Any, state: Any) -> Any:
    with warnings.catch_warnings():
        # torch says which of its own code paths it takes, and takes it
        warnings.filterwarnings("ignore", "LSTM with projections is not supported with oneDNN", UserWarning)
        return m(x, state)


def loop(m: Any, inputs: Inputs) -> dict[str, FloatArray]:
    """The same and all in between, one cell at a time, with the weights of the torch module `m`."""
    torch = require_torch()
    weights = {name: p.detach().clone().requires_grad_() for name, p in m.named_parameters()}
    x, state = _leaf(inputs.x), tuple(_leaf(s) for s in inputs.state)
    batched = inputs.x.ndim == 3
    below = x[:, None] if not batched else x.transpose(0, 1) if m.batch_first else x  # (T, B, I)
    initial = [s if batched else s[:, None] for s in state]  # (L·D, B, ·)
    steps, batch, _ = below.shape
    lengths = np.full(batch, steps) if inputs.lengths is None else np.asarray(inputs.lengths)
    running = torch.from_numpy(np.arange(steps)[:, None] < lengths)[:, :, None]  # (T, B, 1)
    below = torch.where(running, below, 0.0)

    directions = 2 if m.bidirectional else 1
    kept: dict[str, _Steps] = {}
    final: list[list[Any]] = [[] for _ in state]
    for layer in range(m.num_layers):
        outputs = []
        for d in range(directions):
            suffix = f"_l{layer}" + ("_reverse" if d else "")
            carried = [s[layer * directions + d] for s in initial]
            kept[suffix] = one = _Steps(steps, reverse=d == 1)
            for t in reversed(range(steps)) if d else range(steps):
                new = _cell(m, weights, suffix, below[t], carried)
                one.values[t] = new
                now = [new["h"], new["c"]] if len(state) > 1 else [new["h"]]
                carried = [torch.where(running[t], n, old) for n, old in zip(now, carried, strict=True)]
            outputs.append(torch.stack([torch.where(running[t], v["h"], 0.0) for t, v in enumerate(one.values)]))
            for ends_of_one, end in zip(final, carried, strict=True):
                ends_of_one.append(end)
        below = torch.cat(outputs, dim=2)
    output = below[:, 0] if not batched else below.transpose(0, 1) if m.batch_first else below
    ends = tuple(torch.stack(e) if batched else torch.stack(e)[:, 0] for e in final)

    _backward(inputs, output, ends)
    values = _outer(x, state, output, ends, weights)
    kind = "lstm" if len(state) > 1 else "rnn"
    for n, (suffix, one) in enumerate(kept.items()):
        for name in STEP_VALUES[kind]:
            values[name + suffix] = one.in_order(name, lengths)
        for name in STEP_GRADIENTS[kind]:
            values[f"d{name}{suffix}"] = one.in_order(name, lengths, gradient=True)
        for k, name in enumerate("hc"[: len(state)]):
            for prefix, whole in (("", inputs.state[k]), ("d", _grad(state[k]))):
                slot_0 = whole[n] if batched else whole[n][None]
                values[f"{prefix}{name}{suffix}"] = np.concatenate([slot_0[None], values[f"{prefix}{name}{suffix}"]])
    return values


def amplification(m: Any, inputs: Inputs, truth: dict[str, FloatArray]) -> dict[str, float]:
    """How far each value moves when every weight and input is rounded once to float32, in units of eps(float32).

    The largest of four evaluations in float64, in each of which every number moves by eps/2 of itself, up or down at
    random. It is the error of a computation that makes none of its own.
    """
    torch = require_torch()
    rng = np.random.default_rng(0)  # a fixed set of directions: a verdict can be repeated
    eps = float(np.finfo(np.float32).eps)

    def moved(array: FloatArray) -> FloatArray:
        return array * (1 + rng.choice([-eps / 2, eps / 2], array.shape))

    effects: list[dict[str, float]] = []
    for _ in range(4):
        near = copy.deepcopy(m)
        with torch.no_grad():
            for p in near.parameters():
                p.copy_(torch.from_numpy(moved(p.numpy())))
        values = loop(near, inputs.each(moved))
        effects.append({name: difference(values[name], truth[name]).ratio / eps for name in truth})
    return {name: max(effect[name] for effect in effects) for name in truth}


@dataclass(frozen=True, eq=False)
class _Steps:
    """What one direction of one layer computed, by time step of the input."""

    steps: int
    reverse: bool
    values: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.values.extend({} for _ in range(self.steps))

    def in_order(self, name: str, lengths: IntArray, gradient: bool = False) -> FloatArray:
        """(T, B, ·) in the direction's own order of steps, zero beyond each sequence's end."""
        tensors = [v[name] for v in self.values]
        by_time = np.stack([_grad(v) if gradient else v.detach().numpy() for v in tensors])
        ordered = np.zeros_like(by_time)
        for b, n in enumerate(lengths):
            ordered[:n, b] = by_time[:n, b][::-1] if self.reverse else by_time[:n, b]
        return ordered


def _cell(m: Any, weights: dict[str, Any], suffix: str, x: Any, carried: list[Any]) -> dict[str, Any]:
    """One step of one direction of one layer: the equations above."""
    torch = require_torch()
    linear = torch.nn.functional.linear
    a = linear(x, weights[f"weight_ih{suffix}"], weights.get(f"bias_ih{suffix}"))
    a = a + linear(carried[0], weights[f"weight_hh{suffix}"], weights.get(f"bias_hh{suffix}"))
    if len(carried) == 1:
        values = {"a": a, "h": torch.tanh(a) if m.nonlinearity == "tanh" else torch.relu(a)}
    else:
        a_i, a_f, a_g, a_o = a.chunk(4, dim=1)
        i, f, g, o = torch.sigmoid(a_i), torch.sigmoid(a_f), torch.tanh(a_g), torch.sigmoid(a_o)
        c = f * carried[1] + i * g
        h = o * torch.tanh(c)
        if m.proj_size:
            h = linear(h, weights[f"weight_hr{suffix}"])
        values = {"a": a, "i": i, "f": f, "g": g, "o": o, "c": c, "h": h}
    for name in STEP_GRADIENTS["rnn" if len(carried) == 1 else "lstm"]:
        values[name].retain_grad()
    return values


def _leaf(array: FloatArray) -> Any:
    return require_torch().from_numpy(array.copy()).requires_grad_()


def _grad(tensor: Any) -> FloatArray:
    of: FloatArray = np.zeros_like(tensor.detach().numpy()) if tensor.grad is None else tensor.grad.numpy()
    return of


def _backward(inputs: Inputs, output: Any, final: tuple[Any, ...]) -> None:
    """Gradients of L = <d_output, output> + <d_h_n, h_n> + <d_c_n, c_n>, without the absent ones."""
    torch = require_torch()
    pairs = [(output, inputs.d_output), *zip(final, inputs.d_state, strict=True)]
    given = [(value, torch.from_numpy(d.copy())) for value, d in pairs if d is not None]
    if given:
        values, cotangents = zip(*given, strict=True)
        torch.autograd.backward(values, cotangents)


def _outer(
    x: Any, state: tuple[Any, ...], output: Any, final: tuple[Any, ...], weights: dict[str, Any]
) -> dict[str, FloatArray]:
    values = {"output": output.detach().numpy(), "dx": _grad(x)}
    for name, start, end in zip("hc", state, final, strict=False):
        values[f"{name}_n"] = end.detach().numpy()
        values[f"d{name}_0"] = _grad(start)
    return values | {f"d{name}": _grad(p) for name, p in weights.items()}
