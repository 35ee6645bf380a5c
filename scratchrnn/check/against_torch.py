"""Ours against torch, quantity by quantity: every output, state, gate and gradient, at every time step.

Truth is torch in float64: torch.nn itself for what it returns, a torch cell loop for what it keeps to itself
(`torch_truth.py`). The loop is held to torch.nn in the same report: where torch.nn has the value too, `loop` in a row
says how far the two lie apart, and a row whose oracle is out by more than the float64 tolerance is no pass.

    float64   our error <= TOLERANCE["float64"]
    float32   our error <= max(TOLERANCE["float32_growth"] · torch's error, TOLERANCE["float32_floor"])

where an error is `scratchrnn.testing.difference(got, truth).ratio`. torch's error is that of torch.nn or of the cell
loop in float32, whichever is larger: both are torch, in two orders of summation, and one alone may be exact by luck.
Where terms cancel, luck reaches further than the floor. So if anything exceeds its bound, it is judged once more, with
the floor multiplied by what rounding every weight and input once does to that quantity (`torch_truth.amplification`, in
units of eps, if that is more than 1): no better result can be asked of arithmetic that rounds.

Beyond a sequence's end everything must be exactly zero, in either dtype.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scratchrnn import testing
from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.check import torch_truth
from scratchrnn.check.report import CheckReport, Row
from scratchrnn.check.where import Geometry
from scratchrnn.interop.torch import from_module, require_torch, to_array, to_module
from scratchrnn.layers import LSTM, RNN
from scratchrnn.layers.edge import enter_lengths
from scratchrnn.trace import DIRECTIONS, Gradients, State, Trace


def against_torch(
    module: Any,
    x: Any,
    state: Any = None,
    lengths: Any = None,
    d_output: Any = None,
    d_state: Any = None,
    *,
    rng: np.random.Generator | None = None,
    backend: str | None = None,
) -> CheckReport:
    """Compare a recurrent layer here with torch, forward and backward, value by value.

    Parameters
    ----------
    module : torch.nn.RNN or torch.nn.LSTM, or scratchrnn.RNN or scratchrnn.LSTM
        Its counterpart in the other library is built from its weights. Dropout is off on both sides.
    x : array or torch tensor, (T, B, I), or (B, T, I) with `batch_first`, or (T, I)
        Of the module's dtype.
    state : array, or (h_0, c_0) for the LSTM, optional
        Zeros when absent.
    lengths : sequence of int or torch tensor (B,), optional
    d_output : array, optional
        dL/d(output).
    d_state : array, or (d_h_n, d_c_n) for the LSTM, optional
        Either of a pair may be None. If neither `d_output` nor `d_state` is given, all are drawn from a normal
        distribution; if one is given, what is absent is absent.
    rng : numpy.random.Generator, optional
        Draws those; a generator of seed 0 when absent, so that a check can be repeated.
    backend : str, optional
        Ours that computes, if `module` is torch's; a layer of ours has its own.

    Returns
    -------
    CheckReport
        True in `ok` if everything matches; printing it says what does not, and where.

    Raises
    ------
    ImportError
        torch is not installed.
    ValueError, TypeError
        Another kind of module, or an argument of the wrong shape, dtype or range.

    Examples
    --------
    >>> import torch
    >>> lstm = torch.nn.LSTM(3, 4, bidirectional=True, dtype=torch.float64)
    >>> report = against_torch(lstm, torch.randn(7, 2, 3, dtype=torch.float64), lengths=[4, 7])
    >>> report.ok, len(report.rows), report["dc_l0_reverse"].ours < 1e-12
    (True, 37, True)
    """
    torch = require_torch()
    layer, theirs = _both(module, torch, backend)
    x = _array("x", x, torch)
    state, d_state = _state("state", state, torch), _state("d_state", d_state, torch)
    d_output = None if d_output is None else _array("d_output", d_output, torch)
    lengths = lengths.tolist() if isinstance(lengths, torch.Tensor) else lengths

    trace = layer.forward(x, state, lengths, training=False)
    if d_output is None and d_state is None:
        d_output, d_state = _cotangents(trace, rng or np.random.default_rng(0))
    grads = layer.backward(trace, d_output, d_state)
    ours = _ours(layer, trace, grads, layer(x, state, lengths))

    batch, steps = len(trace.lengths), len(trace[0].input)
    ns = None if lengths is None else enter_lengths(lengths, steps=steps, batch=batch, batched=trace.batched)
    zeros = tuple(np.zeros_like(end) for end in _pair(trace.state))
    inputs = torch_truth.Inputs(
        x, zeros if state is None else _pair(state), ns, d_output, _pair(d_state) or (None,) * len(zeros)
    )
    geometry = Geometry(layer.cell.kind, layer.hidden_size, layer.output_size, layer.num_directions,
                        layer.batch_first, trace.batched, trace.lengths)  # fmt: skip
    rows = _rows(ours, theirs, inputs, geometry)
    return CheckReport(repr(layer), layer.dtype.name, trace.backend, _sizes(trace, lengths), tuple(rows))


def _both(module: Any, torch: Any, backend: str | None) -> tuple[RNN | LSTM, Any]:
    """Our layer and a torch module in evaluation mode, of equal weights; `module` itself is left alone."""
    if isinstance(module, (RNN, LSTM)):
        if backend is not None:
            raise ValueError(f"backend: expected None, since the layer has its own; got {backend!r}")
        return module, to_module(module).eval()
    if isinstance(module, (torch.nn.RNN, torch.nn.LSTM)):
        # the generator is for dropout, which is off
        return from_module(module, backend=backend, rng=np.random.default_rng(0)), copy.deepcopy(module).eval()
    raise TypeError(f"module: expected an RNN or LSTM, of torch.nn or of scratchrnn; got {describe(module)}")


def _array(name: str, value: Any, torch: Any) -> Any:
    return to_array(name, value) if isinstance(value, torch.Tensor) else value


def _state(name: str, value: Any, torch: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(None if v is None else _array(name, v, torch) for v in value)
    return None if value is None else _array(name, value, torch)


def _pair(state: Any) -> tuple[Any, ...]:
    return () if state is None else state if isinstance(state, tuple) else (state,)


def _cotangents(trace: Trace, rng: np.random.Generator) -> tuple[FloatArray, State]:
    def draw(like: FloatArray) -> FloatArray:
        return rng.standard_normal(like.shape).astype(like.dtype)

    d_output, d_state = draw(trace.output), tuple(map(draw, _pair(trace.state)))
    return d_output, d_state if len(d_state) == 2 else d_state[0]


def _ours(layer: RNN | LSTM, trace: Trace, grads: Gradients, inferred: tuple[FloatArray, State]) -> dict[str, Any]:
    """Our values under the names of `torch_truth`; those of the inference call end in a prime."""
    values: dict[str, Any] = {"output": trace.output, "output'": inferred[0]}
    for name, end, end_inferred in zip("hc", _pair(trace.state), _pair(inferred[1]), strict=False):
        values |= {f"{name}_n": end, f"{name}_n'": end_inferred}
    for (n, side), one in trace.layers.items():
        suffix = f"_l{n}" + ("_reverse" if side == DIRECTIONS[1] else "")
        for name in torch_truth.STEP_VALUES[layer.cell.kind]:
            values[name + suffix] = getattr(one, name)
        for name in torch_truth.STEP_GRADIENTS[layer.cell.kind]:
            values[f"d{name}{suffix}"] = getattr(grads.layers[n, side], name)
    values["dx"] = grads.input
    values |= {f"d{name}_0": start for name, start in zip("hc", _pair(grads.state), strict=False)}
    return values | {f"d{name}": array for name, array in grads.parameters.items()}


@dataclass(frozen=True, eq=False)
class _Oracle:
    """What torch says of one problem, by quantity."""

    truth: dict[str, FloatArray]  # float64
    loop: dict[str, float]  # how far the cell loop lies from torch.nn, where both have it
    torch: dict[str, float]  # torch's own error in float32; empty for float64
    amplified: dict[str, float]  # by how much roundings are amplified; empty unless asked for

    def allowed(self, key: str) -> float:
        if not self.torch:
            return testing.TOLERANCE["float64"]
        floor = testing.TOLERANCE["float32_floor"] * max(1.0, self.amplified.get(key, 1.0))
        return max(testing.TOLERANCE["float32_growth"] * self.torch[key], floor)


def _rows(ours: dict[str, Any], theirs: Any, inputs: torch_truth.Inputs, geometry: Geometry) -> list[Row]:
    dtype = inputs.x.dtype
    exact = theirs if dtype == np.float64 else copy.deepcopy(theirs).double()
    wide = inputs.cast(np.float64)
    shown, looped = torch_truth.module(exact, wide), torch_truth.loop(exact, wide)
    oracle = _Oracle(looped | shown, {k: testing.difference(looped[k], shown[k]).ratio for k in shown}, {}, {})
    if dtype == np.float32:
        rounded = [torch_truth.module(theirs, inputs), torch_truth.loop(theirs, inputs)]
        errors = {
            k: max(testing.difference(r[k], want).ratio for r in rounded if k in r) for k, want in oracle.truth.items()
        }
        oracle = replace(oracle, torch=errors)

    def compare() -> list[Row]:
        rows = [_row(name, got, oracle, dtype, geometry) for name, got in ours.items()]
        absent = [name for name in oracle.truth if name not in ours]
        return rows + [Row.failed(name, f"missing; expected shape {oracle.truth[name].shape}") for name in absent]

    rows = compare()
    if dtype == np.float32 and not all(row.ok for row in rows):
        oracle = replace(oracle, amplified=torch_truth.amplification(exact, wide, oracle.truth))
        rows = compare()
    return rows


def _row(name: str, got: Any, oracle: _Oracle, dtype: Any, geometry: Geometry) -> Row:
    key = name.rstrip("'")
    want = oracle.truth[key]
    if not isinstance(got, np.ndarray) or got.shape != want.shape or got.dtype != dtype:
        return Row.failed(name, f"expected shape {want.shape}, dtype {dtype}; got {describe(got)}")
    padding = geometry.padding(key, want.shape)
    if padding is not None and (got[padding] != 0).any():
        index = tuple(int(k) for k in np.argwhere(padding & (got != 0))[0])
        where = geometry.where(key, index)
        return Row.failed(name, f"expected exactly zero beyond a sequence's end; got {got[index]!r} at {where}", index)
    ours = testing.difference(got, want)
    return Row(
        quantity=name,
        ours=ours.ratio,
        torch=oracle.torch.get(key),
        amplified=oracle.amplified.get(key),
        allowed=oracle.allowed(key),
        loop=oracle.loop.get(key),
        index=ours.index,
        where=geometry.where(key, ours.index),
        got=ours.got,
        want=ours.want,
    )


def _sizes(trace: Trace, lengths: Any) -> str:
    batch = f", batch {len(trace.lengths)}" if trace.batched else ", no batch"
    ragged = "" if lengths is None else f", lengths {', '.join(map(str, trace.lengths.tolist()))}"
    return f"{len(trace[0].input)} steps{batch}{ragged}"
