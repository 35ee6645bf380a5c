"""Planted errors: one small change each to the text of a function, for tests that a checker sees it."""

from __future__ import annotations

import inspect
import textwrap
from dataclasses import dataclass
from typing import Any

import pytest

from scratchrnn import backends
from scratchrnn.layers import direction, walk

KERNELS = backends.load("numpy")
OWNERS: dict[str, tuple[Any, dict[str, Any]]] = {  # where the function is, and the names that it sees
    "lstm": (KERNELS.lstm, vars(KERNELS.lstm)),
    "rnn": (KERNELS.rnn, vars(KERNELS.rnn)),
    "affine": (KERNELS.lstm.affine, vars(KERNELS.lstm.affine)),
    "direction": (direction, vars(direction)),
    "walk": (walk, vars(walk)),
}


@dataclass(frozen=True)
class Mutant:
    """An error in one place."""

    kind: str  # of the layer that shows it: tanh, relu, lstm, projected
    owner: str  # of OWNERS
    function: str
    old: str  # stands in the function exactly once
    new: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.new}"

    def plant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        owner, names = OWNERS[self.owner]
        source = textwrap.dedent(inspect.getsource(getattr(owner, self.function)))
        assert source.count(self.old) == 1, f"{self.old!r} stands {source.count(self.old)} times in {self.function}"
        monkeypatch.setattr(backends, "DEFAULT", "numpy")  # whose code this is
        made: dict[str, Any] = {}
        exec(source.replace(self.old, self.new), names, made)
        monkeypatch.setattr(owner, self.function, made[self.function])


def _of(kind: str, owner: str, function: str, *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(kind, owner, function, old, new) for old, new in changes]


MUTANTS = [
    *_of(
        "lstm", "lstm", "step_backward",
        # a sign, in each term
        ("di * i * (1 - i)", "-di * i * (1 - i)"),
        ("df * f * (1 - f)", "-df * f * (1 - f)"),
        ("dg * (1 - g**2)", "-dg * (1 - g**2)"),
        ("do * o * (1 - o)", "-do * o * (1 - o)"),
        ("do = dm * tanh_c", "do = -dm * tanh_c"),
        ("dc + dm * o", "dc - dm * o"),
        ("dc_prev = dc * f", "dc_prev = -dc * f"),
        ("dh_prev = da @ weight_hh", "dh_prev = -da @ weight_hh"),
        # a wrong derivative
        ("di * i * (1 - i)", "di * (1 - i**2)"),
        ("dg * (1 - g**2)", "dg * g * (1 - g)"),
        ("(1 - tanh_c**2)", "(1 - c**2)"),
        ("dc * c_prev", "dc * c"),
        # gates in another library's order
        ("dc * g, dc * c_prev, dc * i", "dc * c_prev, dc * g, dc * i"),
    ),
    *_of(
        "lstm", "lstm", "backward",
        # one time step dropped, one row of the batch, the initial state's gradient missing
        ("dh[t][b] += dh_prev", "dh[t][b] += dh_prev * (t != 3)"),
        ("dc[t][b] += dc_prev", "dc[t][b] += dc_prev * (t != 3)"),
        ("reversed(range(x.shape[0]))", "reversed(range(1, x.shape[0]))"),
        ("dc[t][b] += dc_prev", "dc[t][0] += dc_prev[0]"),
        ("dh[t][b] += dh_prev", "dh[t][b] += dh_prev * (t > 0)"),
        ("dc[t][b] += dc_prev", "dc[t][b] += dc_prev * (t > 0)"),
        # what came from outside overwritten
        ("dh[t][b] += dh_prev", "dh[t][b] = dh_prev"),
    ),
    *_of("projected", "lstm", "backward", ("dh[1:][block]", "dh[:-1][block]")),
    *_of("projected", "lstm", "step_backward", ("else dh @ weight_hr", "else -dh @ weight_hr")),
    *_of(
        "tanh", "rnn", "step_backward",
        ("dh * (1 - h**2)", "-dh * (1 - h**2)"),
        ("dh * (1 - h**2)", "dh * (1 - h)"),
        ("dh_prev = da @ weight_hh", "dh_prev = da @ weight_hh.T"),
    ),
    *_of("relu", "rnn", "step_backward", ("np.where(h <= 0, 0, dh)", "dh")),
    *_of(
        "tanh", "rnn", "backward",
        ("dh[t][b] += dh_prev", "dh[t][b] += dh_prev * (t != 3)"),
        ("dh[t][b] += dh_prev", "dh[t][b] += dh_prev * (t > 0)"),
    ),
    *_of(
        "lstm", "affine", "backward",
        ("rows = flat(da[block])", "rows = flat(da[block] * (np.arange(batch) == 0)[:, None])"),
        ("rows = flat(da[block])", "rows = flat((da * (np.arange(steps) != 3)[:, None, None])[block])"),
        ("dbias_hh += dbias", "pass"),
        ("h[block].copy()", "h[1:][block].copy()"),
        ("rows.sum(", "rows.mean("),
    ),
    *_of(
        "lstm", "direction", "cotangents",
        # the final state's gradient ignored, or put over that of the output
        ("arrays.add_at(dc, ends, d_c_n)", "pass"),
        ("arrays.add_at(dh, ends, d_h_n)", "pass"),
        ("arrays.add_at(dh, ends, d_h_n)", "dh[ends] = d_h_n[ends[1]]"),
        ("arrays.ends(lengths,", "arrays.ends(lengths * 0 + len(trace.input),"),
    ),
    # the gradient of the forward direction overwritten by the reverse one's, in a deep net
    *_of("lstm", "walk", "backward", ("arrays.add(d_below, dx)", "d_below = dx")),
]  # fmt: skip
