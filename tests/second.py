"""Second derivatives of a module, by torch's autograd: every one of them, by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch

from tests.problems import Case, Problem


def tensors(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}


def random_like(values: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    """A direction, or cotangents, for everything named."""
    return {name: torch.from_numpy(rng.standard_normal(v.shape)).to(v.dtype) for name, v in values.items()}


def run(module: torch.nn.Module, case: Case, given: dict[str, Any], lengths: Any) -> dict[str, Any]:
    """output, h_n and c_n of an LSTM for `given`: x, h_0, c_0."""
    read = given["x"]
    if lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(read, torch.tensor(lengths), case.batch_first, False)
    states = [given[name] for name in ("h_0", "c_0") if name in given]
    hx: Any = None if not states else tuple(states) if case.cell == "lstm" else states[0]
    output, final = module(read, hx)
    if lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, case.batch_first)
    finals = final if isinstance(final, tuple) else (final,)
    return {"output": output} | dict(zip(("h_n", "c_n"), finals, strict=False))


def entries(case: Case, p: Problem) -> dict[str, np.ndarray]:
    """x, and the initial state unless it is absent."""
    states = {} if "state" in p.absent else dict(zip(("h_0", "c_0"), p.state, strict=False))
    return {"x": p.x} | states


def second(
    module: torch.nn.Module,
    case: Case,
    p: Problem,
    *,
    v: dict[str, Any],
    u: dict[str, Any],
    also: Iterable[str] = (),
) -> dict[str, np.ndarray]:
    """The gradient of <u, g>, g = the gradient of <v, result>, in v, x, h_0, c_0 and every weight.

    `v` and `u` may lack entries: those cotangents are then absent, in the first backward and in the second. `also` are
    results that enter squared, as the loss of a user would.
    """
    given = tensors(entries(case, p))
    result = run(module, case, given, p.lengths)
    v = {name: d.clone().requires_grad_() for name, d in v.items()}
    loss = sum((result[name] * d).sum() for name, d in v.items()) + sum(result[name].square().sum() for name in also)
    wanted = given | dict(module.named_parameters())
    g = dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values()), create_graph=True), strict=True))
    product = sum((g[name] * d).sum() for name, d in u.items())
    asked = wanted | {f"d_{name}": d for name, d in v.items()}
    found = torch.autograd.grad(product, list(asked.values()), allow_unused=True)
    zero = {name: torch.zeros_like(a) if b is None else b for (name, a), b in zip(asked.items(), found, strict=True)}
    return {name: a.detach().numpy() for name, a in ({f"g_{n}": a for n, a in g.items()} | zero).items()}
