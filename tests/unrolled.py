"""RNN and LSTM as torch's autograd sees them when unrolled: one sample after the other, one step after the other.

Written from torch's equations, sharing nothing with the code under test: a clip is a hook on each pre-activation, a cut
detaches the state that a step reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import scratchrnn as srnn
from tests.problems import Case, Problem


@dataclass
class Unrolled:
    """A layer's weights as torch's tensors, and what to do to gradients on their way back."""

    case: Case
    weights: dict[str, torch.Tensor]
    clip: float | None = None
    cut: np.ndarray | None = None  # (T, B)
    sizes: list[np.ndarray] = field(default_factory=list)  # |dL/da_t| of each step, before the clip

    def _hook(self, gradient: torch.Tensor) -> torch.Tensor:
        self.sizes.append(gradient.abs().numpy())
        return gradient if self.clip is None else gradient.clamp(-self.clip, self.clip)

    def step(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor | None, suffix: str
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(h, c) after one step of one sample: torch.nn.RNN's and torch.nn.LSTM's equations."""
        w = {name: self.weights.get(f"{name}{suffix}") for name in ("weight_hr", "bias_ih", "bias_hh")}
        a = self.weights[f"weight_ih{suffix}"] @ x + self.weights[f"weight_hh{suffix}"] @ h
        if w["bias_ih"] is not None:
            a = a + w["bias_ih"] + w["bias_hh"]
        a.register_hook(self._hook)
        if c is None:
            return (torch.tanh(a) if self.case.cell == "tanh" else torch.relu(a)), None
        i, f, g, o = a.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        return (h if w["weight_hr"] is None else w["weight_hr"] @ h), c

    def direction(
        self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor | None, sample: int, suffix: str
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Output (n, P) in the input's order and the last state, from x (n, ·) of one sample."""
        outputs: list[Any] = [None] * len(x)
        order = range(len(x))
        for t in reversed(order) if suffix.endswith("_reverse") else order:
            if self.cut is not None:
                stop = torch.tensor(bool(self.cut[t, sample]))
                h = torch.where(stop, h.detach(), h)
                c = None if c is None else torch.where(stop, c.detach(), c)
            h, c = self.step(x[t], h, c, suffix)
            outputs[t] = h
        return torch.stack(outputs), h, c


def by_unrolled(
    layer: srnn.RNN | srnn.LSTM, case: Case, p: Problem, dtype: Any, clip: float | None = None, cut: Any = None
) -> tuple[dict[str, np.ndarray], float]:
    """Gradients by name as in `problems.by_us`, and the share of elements of dL/da_t that were clamped."""
    weights = {name: torch.tensor(w.astype(dtype), requires_grad=True) for name, w in layer.parameters.items()}
    run = Unrolled(case, weights, clip, cut)
    p = p.astype(dtype)
    x = torch.tensor(p.x, requires_grad=True)
    state = [torch.tensor(s, requires_grad=True) for s in p.state]
    loss = torch.zeros((), dtype=x.dtype)
    sides = ("", "_reverse") if case.bidirectional else ("",)
    for b in range(p.x.shape[1]):
        n = p.x.shape[0] if p.lengths is None else p.lengths[b]
        below = x[:n, b]
        for layer_at in range(case.num_layers):
            outputs = []
            for d, side in enumerate(sides):
                row = layer_at * len(sides) + d
                c_0 = state[1][row, b] if len(state) == 2 else None
                output, h, c = run.direction(below, state[0][row, b], c_0, b, f"_l{layer_at}{side}")
                outputs.append(output)
                for value, cotangent in zip((h, c), p.d_state, strict=False):
                    loss = loss + (value * torch.tensor(cotangent[row, b])).sum()
            below = torch.cat(outputs, dim=1)
        loss = loss + (below * torch.tensor(p.d_output[:n, b])).sum()
    loss.backward()
    found = {"dx": x.grad} | {f"d{letter}_0": s.grad for letter, s in zip("hc", state, strict=False)}
    found |= {f"d{name}": w.grad for name, w in weights.items()}
    clamped = np.concatenate(run.sizes) > (np.inf if clip is None else clip)
    return {name: value.numpy() for name, value in found.items()}, float(clamped.mean())
