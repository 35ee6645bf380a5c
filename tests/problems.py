"""Random recurrent problems and their answers by torch.nn: outputs, states and every gradient, by name."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import scratchrnn as srnn

# pairwise different and above 1, so that no axis can stand in for another
STEPS, BATCH, INPUTS, HIDDEN, PROJ = 7, 5, 3, 6, 4
LENGTHS = (4, 7, 1, 7, 3)  # unsorted


@dataclass(frozen=True)
class Case:
    """One configuration of a recurrent layer."""

    cell: str  # "lstm", "tanh", "relu"
    num_layers: int = 1
    bidirectional: bool = False
    proj_size: int = 0
    bias: bool = True
    batch_first: bool = False
    lengths: tuple[int, ...] | None = None
    sizes: tuple[int, int, int, int] = (STEPS, BATCH, INPUTS, HIDDEN)
    batched: bool = True

    def __str__(self) -> str:
        on = (
            [name for name in ("bidirectional", "batch_first", "lengths") if getattr(self, name)]
            + ([] if self.bias else ["nobias"])
            + ([f"proj{self.proj_size}"] if self.proj_size else [])
        )
        return "-".join([self.cell, f"l{self.num_layers}", *on])

    def layer(self, rng: np.random.Generator, dtype: Any) -> srnn.RNN | srnn.LSTM:
        """Ours."""
        _, _, inputs, hidden = self.sizes
        common = {
            "num_layers": self.num_layers, "bias": self.bias, "batch_first": self.batch_first,
            "bidirectional": self.bidirectional, "dtype": dtype, "rng": rng,
        }  # fmt: skip
        if self.cell == "lstm":
            return srnn.LSTM(inputs, hidden, proj_size=self.proj_size, **common)
        return srnn.RNN(inputs, hidden, nonlinearity=self.cell, **common)

    def module(self, layer: srnn.RNN | srnn.LSTM, dtype: Any) -> torch.nn.Module:
        """torch's, with the weights of `layer`."""
        _, _, inputs, hidden = self.sizes
        common = {
            "num_layers": self.num_layers, "bias": self.bias, "batch_first": self.batch_first,
            "bidirectional": self.bidirectional, "dtype": torch.from_numpy(np.zeros(0, dtype)).dtype,
        }  # fmt: skip
        if self.cell == "lstm":
            module = torch.nn.LSTM(inputs, hidden, proj_size=self.proj_size, **common)
        else:
            module = torch.nn.RNN(inputs, hidden, nonlinearity=self.cell, **common)
        module.load_state_dict({name: torch.tensor(w.astype(dtype)) for name, w in layer.parameters.items()})
        return module


def grid() -> list[Case]:
    """Every combination of cell, layers, directions, projection, bias, batch_first and lengths."""
    flags = (False, True)
    return [
        Case(cell, layers, bidirectional, proj, bias, batch_first, LENGTHS if ragged else None)
        for cell, layers, bidirectional, bias, batch_first, ragged in itertools.product(
            ("tanh", "relu", "lstm"), (1, 2, 3), flags, flags, flags, flags
        )
        for proj in ((0, PROJ) if cell == "lstm" else (0,))
    ]


@dataclass
class Problem:
    """Inputs and cotangents, drawn once and used by both sides."""

    x: np.ndarray
    state: tuple[np.ndarray, ...]  # (h_0,) or (h_0, c_0)
    d_output: np.ndarray
    d_state: tuple[np.ndarray, ...]
    lengths: tuple[int, ...] | None = None
    absent: frozenset[str] = field(default_factory=frozenset)  # of "d_output", "d_h_n", "d_c_n", "state"

    def astype(self, dtype: Any) -> Problem:
        return Problem(
            self.x.astype(dtype), tuple(s.astype(dtype) for s in self.state), self.d_output.astype(dtype),
            tuple(s.astype(dtype) for s in self.d_state), self.lengths, self.absent,
        )  # fmt: skip


def draw(case: Case, rng: np.random.Generator, absent: frozenset[str] = frozenset()) -> Problem:
    """Draw a problem in float32 values held as float64, so that both dtypes see the same numbers."""
    steps, batch, inputs, hidden = case.sizes
    directions = 2 if case.bidirectional else 1
    size = case.proj_size or hidden

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    lead = (batch, steps) if case.batch_first else (steps, batch)
    if not case.batched:
        lead = (steps,)
    rows = (case.num_layers * directions, *([batch] if case.batched else []))
    sizes = (size, hidden) if case.cell == "lstm" else (size,)
    return Problem(
        normal(*lead, inputs), tuple(normal(*rows, s) for s in sizes), normal(*lead, directions * size),
        tuple(normal(*rows, s) for s in sizes), case.lengths, absent,
    )  # fmt: skip


def _pair(arrays: tuple[Any, ...]) -> Any:
    return arrays if len(arrays) > 1 else arrays[0]


def by_torch(module: torch.nn.Module, case: Case, p: Problem) -> dict[str, np.ndarray]:
    """Outputs, states and all gradients from torch's own autograd."""
    x = torch.tensor(p.x, requires_grad=True)
    state = tuple(torch.tensor(s, requires_grad=True) for s in p.state)
    read: Any = x
    if p.lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(p.lengths), batch_first=case.batch_first, enforce_sorted=False
        )
    output, final = module(read, None if "state" in p.absent else _pair(state))
    if p.lengths is not None:
        total = p.x.shape[1 if case.batch_first else 0]
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, batch_first=case.batch_first, total_length=total)
    finals = final if isinstance(final, tuple) else (final,)
    loss = output.sum() * 0
    if "d_output" not in p.absent:
        loss = loss + (output * torch.tensor(p.d_output)).sum()
    for name, value, cotangent in zip(("d_h_n", "d_c_n"), finals, p.d_state, strict=False):
        if name not in p.absent:
            loss = loss + (value * torch.tensor(cotangent)).sum()
    loss.backward()
    found = {"output": output, "dx": x.grad}
    for letter, value, initial in zip("hc", finals, state, strict=False):
        found[f"{letter}_n"] = value
        if "state" not in p.absent:
            found[f"d{letter}_0"] = initial.grad
    found |= {f"d{name}": parameter.grad for name, parameter in module.named_parameters()}
    return {name: value.detach().numpy() for name, value in found.items()}


def by_us(layer: srnn.RNN | srnn.LSTM, p: Problem, *, training: bool = True, **options: Any) -> dict[str, np.ndarray]:
    """The same, from ours; `options` are of backward."""
    trace = layer.forward(p.x, None if "state" in p.absent else _pair(p.state), p.lengths, training=training)
    d_state = tuple(None if name in p.absent else d for name, d in zip(("d_h_n", "d_c_n"), p.d_state, strict=False))
    none = all(d is None for d in d_state)
    d_output = None if "d_output" in p.absent else p.d_output
    grads = layer.backward(trace, d_output, None if none else _pair(d_state), **options)
    found = {"output": trace.output, "dx": grads.input}
    finals = trace.state if isinstance(trace.state, tuple) else (trace.state,)
    initials = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    for letter, value, initial in zip("hc", finals, initials, strict=False):
        found[f"{letter}_n"] = value
        if "state" not in p.absent:
            found[f"d{letter}_0"] = initial
    return found | {f"d{name}": gradient for name, gradient in grads.parameters.items()}


def inferred(layer: srnn.RNN | srnn.LSTM, p: Problem) -> dict[str, np.ndarray]:
    """Output and final states of a call for inference."""
    output, final = layer(p.x, None if "state" in p.absent else _pair(p.state), p.lengths)
    finals = final if isinstance(final, tuple) else (final,)
    return {"output": output} | {f"{letter}_n": value for letter, value in zip("hc", finals, strict=False)}
