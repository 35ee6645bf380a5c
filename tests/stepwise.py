"""A recurrent layer in torch, one sequence and one step at a time, with masks given: forward here, backward autograd.

What WeightDrop and Zoneout change, torch.nn cannot do, and weights put into it may go unread (pytorch#65688). So these
are the equations again, on the layer's numbers and the masks of a trace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.trace import Gradients, Key, Trace

Masks = dict[str, np.ndarray]


@dataclass
class Reference:
    """The forward pass of `layer` in torch, with leaves to differentiate to."""

    layer: srnn.RNN | srnn.LSTM
    x: np.ndarray  # (T, B, I)
    state: tuple[np.ndarray, ...]  # (h_0,) or (h_0, c_0), (L·D, B, ·)
    lengths: list[int]
    weight_masks: Masks = field(default_factory=dict)
    keep: dict[Key, tuple[Any, Any]] = field(default_factory=dict)  # k^h (T, B, P), k^c (T, B, H), in order of work
    dropout: tuple[Any, ...] = ()  # per boundary (T, B, D·P), or None
    clip: float | None = None
    cut: np.ndarray | None = None  # (T, B)
    detach_h: np.ndarray | None = None  # (T, B): the gates read h as a constant

    def __post_init__(self) -> None:
        self.leaves = {name: torch.tensor(w, requires_grad=True) for name, w in self.layer.parameters.items()}
        self.used = {  # dropped or not
            name: w * torch.tensor(self.weight_masks[name]) if name in self.weight_masks else w
            for name, w in self.leaves.items()
        }
        self.x_leaf = torch.tensor(self.x, requires_grad=True)
        self.state_leaves = [torch.tensor(s, requires_grad=True) for s in self.state]
        self.steps: dict[tuple[Key, int], list[dict[str, Any]]] = {}  # by key and sample: what each step computed
        self.ends: dict[tuple[Key, int], list[Any]] = {}
        outputs = [self._sequence(b, n) for b, n in enumerate(self.lengths)]
        blank = torch.zeros(len(self.x), outputs[0].shape[1], dtype=torch.float64)
        self.output = torch.stack([torch.cat([o, blank[len(o) :]]) for o in outputs], dim=1)
        self.final = [
            torch.stack([torch.stack([self.ends[key, b][k] for b in range(len(self.lengths))]) for key in self._keys()])
            for k in range(len(self.state))
        ]

    def _keys(self) -> list[Key]:
        sides = ("forward", "reverse")[: self.layer.num_directions]
        return [(n, side) for n in range(self.layer.num_layers) for side in sides]

    def _sequence(self, b: int, n: int) -> Any:  # (n, D·P)
        below = self.x_leaf[:n, b]
        for layer in range(self.layer.num_layers):
            sides = []
            for key in (k for k in self._keys() if k[0] == layer):
                turned = below.flip(0) if key[1] == "reverse" else below
                h = self._direction(key, b, turned)
                sides.append(h.flip(0) if key[1] == "reverse" else h)
            below = torch.cat(sides, dim=1)
            if layer < len(self.dropout) and self.dropout[layer] is not None:
                below = below * torch.tensor(self.dropout[layer][:n, b])
        return below

    def _direction(self, key: Key, b: int, read: Any) -> Any:  # (n, ·) to (n, P)
        suffix = f"_l{key[0]}" + ("_reverse" if key[1] == "reverse" else "")
        row = self._keys().index(key)
        carried = [s[row, b] for s in self.state_leaves]
        kept = self.steps[key, b] = []
        for t, x in enumerate(read):
            at = len(read) - 1 - t if key[1] == "reverse" else t
            if self.cut is not None and self.cut[at, b]:
                carried = [s.detach() for s in carried]
            constant = self.detach_h is not None and self.detach_h[at, b]
            values = self._cell(suffix, x, [carried[0].detach(), *carried[1:]] if constant else carried)
            if self.clip is not None:
                values["a"].register_hook(lambda d: d.clamp(-self.clip, self.clip))
            new = [values[letter] for letter in "hc"[: len(carried)]]
            if key in self.keep:
                masks = [torch.tensor(k[t, b]) for k in self.keep[key][: len(carried)]]
                carried = [k * old + (1 - k) * s for k, old, s in zip(masks, carried, new, strict=True)]
            else:
                carried = new
            step = {"a": values["a"], "h": carried[0]} | ({"c": carried[1]} if len(carried) > 1 else {})
            for tensor in step.values():
                tensor.retain_grad()
            kept.append(step)
        self.ends[key, b] = carried
        return torch.stack([step["h"] for step in kept])

    def _cell(self, suffix: str, x: Any, carried: list[Any]) -> dict[str, Any]:
        w = {name.removesuffix(suffix): value for name, value in self.used.items() if name.endswith(suffix)}
        a = w["weight_ih"] @ x + w["weight_hh"] @ carried[0]
        if self.layer.bias:
            a = a + w["bias_ih"] + w["bias_hh"]
        if len(carried) == 1:
            return {"a": a, "h": torch.tanh(a) if self.layer.cell.nonlinearity == "tanh" else torch.relu(a)}
        i, f, g, o = a.chunk(4)
        c = torch.sigmoid(f) * carried[1] + torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(o) * torch.tanh(c)
        return {"a": a, "c": c, "h": w["weight_hr"] @ m if "weight_hr" in w else m}


@dataclass
class Cotangents:
    """Random weights of a loss that is linear in the output and the final state."""

    d_output: np.ndarray | None
    d_state: tuple[np.ndarray | None, ...]

    def given(self) -> Any:
        """As `backward` takes those of the state."""
        if all(d is None for d in self.d_state):
            return None
        return self.d_state if len(self.d_state) > 1 else self.d_state[0]

    def backward(self, reference: Reference) -> None:
        """Fill the reference's gradients."""
        pairs = [(reference.output, self.d_output), *zip(reference.final, self.d_state, strict=True)]
        sum((value * torch.tensor(d)).sum() for value, d in pairs if d is not None).backward()  # type: ignore[union-attr]


def compare(reference: Reference, trace: Trace, grads: Gradients, cotangents: Cotangents, name: str = "") -> None:
    """Output, states, every step and every gradient, by name."""
    cotangents.backward(reference)
    rel, steps = TOLERANCE["float64"], len(reference.x)

    def check(what: str, got: Any, tensor: Any, gradient: bool = False) -> None:
        value = tensor.grad if gradient else tensor.detach()
        want = np.zeros_like(got) if value is None else value.numpy()
        assert_close(f"{name} {what}", got, want, rel=rel)

    check("output", trace.output, reference.output)
    check("dx", grads.input, reference.x_leaf, gradient=True)
    letters = "hc"[: len(reference.state)]
    for k, letter in enumerate(letters):
        final, initial = (s if isinstance(s, tuple) else (s,) for s in (trace.state, grads.state))
        check(f"{letter}_n", final[k], reference.final[k])
        check(f"d{letter}_0", initial[k], reference.state_leaves[k], gradient=True)
    assert list(grads.parameters) == list(reference.leaves)
    for parameter, leaf in reference.leaves.items():
        check(f"d{parameter}", grads.parameters[parameter], leaf, gradient=True)
    for key in reference._keys():
        for letter in [*letters, "a"]:
            first = 0 if letter == "a" else 1  # states have slot 0
            got = getattr(trace[key], letter)[first:], getattr(grads[key], letter)[first:]
            want = np.zeros_like(got[0]), np.zeros_like(got[1])
            for b, n in enumerate(reference.lengths):
                for t in range(n):
                    tensor = reference.steps[key, b][t][letter]
                    want[0][t, b] = tensor.detach().numpy()
                    want[1][t, b] = 0 if tensor.grad is None else tensor.grad.numpy()
            assert len(got[0]) == steps
            assert_close(f"{name} {letter} of {key}", got[0], want[0], rel=rel)
            assert_close(f"{name} d{letter} of {key}", got[1], want[1], rel=rel)
