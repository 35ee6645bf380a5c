"""torch.nn's recurrent modules and ours side by side: the same weights, input and cotangents."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from scratchrnn.interop import torch as interop
from scratchrnn.testing import assert_close
from tests.problems import Case


def pair(kind: str, *args: Any, **options: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's module and ours, of the same weights."""
    theirs, ours = getattr(torch.nn, kind)(*args, **options), getattr(interop, kind)(*args, **options)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def ours_like(module: torch.nn.Module) -> torch.nn.Module:
    """Ours with the configuration and weights of a torch.nn module."""
    kind = type(module).__name__
    names = ["input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional"]
    names += ["proj_size"] if kind == "LSTM" else ["nonlinearity"]
    options = {name: getattr(module, name) for name in names}
    ours: torch.nn.Module = getattr(interop, kind)(**options, dtype=next(module.parameters()).dtype)
    ours.load_state_dict(module.state_dict())
    return ours


def modules(case: Case, rng: np.random.Generator, dtype: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """torch's module and ours for a case."""
    theirs = case.module(case.layer(rng, np.float64), dtype)
    return theirs, ours_like(theirs)


def gradients(module: torch.nn.Module, x: torch.Tensor, hx: Any = None) -> dict[str, np.ndarray]:
    """Output, states, and the gradients of everything for the loss Σ sin of all that came out."""
    states = () if hx is None else hx if isinstance(hx, tuple) else (hx,)
    inputs = [t.detach().clone().requires_grad_() for t in (x, *states)]
    given: Any = None if hx is None else tuple(inputs[1:]) if isinstance(hx, tuple) else inputs[1]
    output, final = module(inputs[0], given)
    results = [output, *(final if isinstance(final, tuple) else (final,))]
    wanted = [*inputs, *module.parameters()]
    found = torch.autograd.grad(sum(r.sin().sum() for r in results), wanted)
    names = ["dx", *(f"d_state{n}" for n in range(len(states))), *(f"d{n}" for n, _ in module.named_parameters())]
    values = dict(zip(names, found, strict=True)) | {f"result{n}": r for n, r in enumerate(results)}
    return {name: value.detach().numpy() for name, value in values.items()}


def assert_as_torch(got: Any, want: Any, kept: Any) -> None:
    """A call's outcome, an error or tensors, is torch's; or one of `kept`, where we mean to differ."""
    if kept is not None:
        assert isinstance(got, kept)
        assert not isinstance(got, type(want))
    elif isinstance(want, Exception):
        assert isinstance(got, type(want)), f"torch: {want!r}; ours: {got!r}"
    else:
        assert isinstance(got, list), got
        for number, (a, b) in enumerate(zip(got, want, strict=True)):
            assert_close(f"result {number}", a.detach().numpy(), b.detach().numpy(), rel=2e-6)
