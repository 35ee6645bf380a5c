"""The truth in float64, and whether an engine's results are close enough to be worth timing.

Truth is the textbook equations, one line each, in torch's float64 with autograd: no code of any engine that is timed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from cases import Array, Case, inputs

from scratchrnn.testing import assert_close, difference

# In float32 each of K terms of a sum adds a rounding; K is the longest sum, and errors of random sign grow with its
# root. The factor leaves room for the recurrence to amplify. Measured on the grid: no engine needs more than a tenth.
ROUNDINGS = 8.0


class WrongResultError(Exception):
    """An engine's results are not the true ones: it is not timed."""


def tolerance(case: Case) -> float:
    """How far a result may lie from the truth, relative to the largest and to the usual element."""
    longest = max(case.D + case.H, case.T * case.B)
    return ROUNDINGS * float(np.finfo(case.dtype).eps) * longest**0.5


def truth(case: Case) -> dict[str, Array]:
    """All results of every mode, float64, by the names that `expected` lists."""
    return {name: tensor.numpy() for name, tensor in true_tensors(case, "cpu").items()}


def true_tensors(case: Case, device: str) -> dict[str, Any]:
    """The same, computed and left on one of torch's devices."""
    import torch

    given = inputs(case, "float64")

    def leaf(array: Array) -> Any:
        return torch.from_numpy(array).to(device).requires_grad_(True)

    def kept(tensor: Any) -> Any:
        tensor.retain_grad()
        return tensor

    x, h_0 = leaf(given.x), leaf(given.h_0)
    c_0 = None if given.c_0 is None else leaf(given.c_0)
    w = {name: leaf(array) for name, array in given.weights.items()}
    h, c = [kept(h_0[0])], [] if c_0 is None else [kept(c_0[0])]
    a: list[Any] = []
    gates: list[Any] = []
    for x_t in x.unbind(0):
        a_x = x_t @ w["weight_ih_l0"].T + w["bias_ih_l0"]
        a.append(kept(a_x + h[-1] @ w["weight_hh_l0"].T + w["bias_hh_l0"]))
        if c_0 is None:
            h.append(kept(torch.tanh(a[-1])))
            continue
        i, f, g, o = a[-1].chunk(4, dim=1)
        i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
        gates.append(torch.cat([i, f, g, o], 1).detach())
        c.append(kept(f * c[-1] + i * g))
        h.append(kept(o * torch.tanh(c[-1])))
    loss = (torch.stack(h[1:]) * torch.from_numpy(given.d_output).to(device)).sum()
    loss = loss + (h[-1] * torch.from_numpy(given.d_h_n[0]).to(device)).sum()
    if c_0 is not None:
        loss = loss + (c[-1] * torch.from_numpy(given.d_c_n[0]).to(device)).sum()
    loss.backward()

    def values(steps: list[Any]) -> Any:
        return torch.stack([s.detach() for s in steps])

    def slopes(steps: list[Any]) -> Any:
        return torch.stack([s.grad for s in steps])

    found = {"output": values(h[1:]), "h_n": values(h[-1:]), "trace.h": values(h), "trace.a": values(a)}
    found |= {"d_x": x.grad, "d_h_0": h_0.grad, "d_trace.h": slopes(h), "d_trace.a": slopes(a)}
    found |= {f"d_{name}": tensor.grad for name, tensor in w.items()}
    if c_0 is not None:
        found |= {"c_n": values(c[-1:]), "trace.c": values(c), "trace.gates": values(gates)}
        found |= {"d_c_0": c_0.grad, "d_trace.c": slopes(c)}
    return found


def expected(case: Case) -> set[str]:
    """Names of the results that every engine must hand out in this mode."""
    lstm = case.cell == "lstm"
    names = {"output", "h_n"} | ({"c_n"} if lstm else set())
    if case.mode != "infer":
        names |= {"d_x", "d_h_0", "d_weight_ih_l0", "d_weight_hh_l0", "d_bias_ih_l0", "d_bias_hh_l0"}
        names |= {"d_c_0"} if lstm else set()
    if case.mode == "trace":
        names |= {"trace.h", "d_trace.h"} | ({"trace.c", "d_trace.c"} if lstm else set())
    return names


def check(case: Case, results: Mapping[str, Array], true: Mapping[str, Array]) -> tuple[float, str]:
    """Compare every result with the truth.

    Returns
    -------
    error : float
        The largest ratio of error to truth over all results.
    name : str
        Where it is.

    Raises
    ------
    WrongResultError
        A result is missing, of the wrong shape or dtype, or further from the truth than `tolerance`.
    """
    missing = expected(case) - set(results)
    if missing:
        raise WrongResultError(f"{case}: missing {', '.join(sorted(missing))}")
    worst, where = -1.0, ""
    for name, got in results.items():
        if got.dtype != np.dtype(case.dtype):
            raise WrongResultError(f"{case}: {name}: expected dtype {case.dtype}; got {got.dtype}")
        try:
            assert_close(name, got, true[name], rel=tolerance(case), check_dtype=False)
        except AssertionError as error:
            raise WrongResultError(f"{case}: {error}") from None
        ratio = difference(got, true[name]).ratio
        if ratio > worst:
            worst, where = ratio, name
    return worst, where


class Truths:
    """Truths on disk, so that every process reads the same."""

    def __init__(self, folder: Path, compute: Callable[[Case], dict[str, Array]] = truth) -> None:
        self._folder = folder
        self._compute = compute

    def write(self, case: Case) -> Path:
        """Folder with one .npy file for each result of the case; computed if it is not there."""
        folder = self._folder / case.truth_key
        if not folder.exists():
            folder.mkdir()
            for name, array in self._compute(case).items():
                np.save(folder / f"{name}.npy", array)
        return folder

    def drop(self) -> None:
        """Remove what was written: the larger shapes leave gigabytes."""
        for folder in self._folder.iterdir():
            shutil.rmtree(folder)

    @staticmethod
    def read(folder: Path, names: set[str]) -> dict[str, Array]:
        """Results of the given names."""
        return {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in names}
