"""Streams: state carried from call to call, set anew per sample, against torch reading every document alone."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.bptt import Stream, truncated, windows
from scratchrnn.bptt.pieces import Pieces
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import Case
from tests.test_bptt import CELLS, draw, make, same

T, B, L = 13, 5, 2
pytestmark = pytest.mark.usefixtures("each_backend")


def pair(state: Any) -> tuple[Any, ...]:
    return state if isinstance(state, tuple) else (state,)


def unpair(arrays: Any) -> Any:
    arrays = tuple(arrays)
    return arrays if len(arrays) > 1 else arrays[0]


def some_resets(rng: np.random.Generator, steps: int = T, batch: int = B) -> np.ndarray:
    """Dense and sparse rows, at the first step, at the last, twice in a row, and a row without any."""
    reset = rng.random((steps, batch)) < 0.15
    reset[:, 0] = False
    reset[0, 1] = reset[-1, 1] = True
    reset[3:5, 2] = True
    reset[:, 3] = True
    return reset


@pytest.mark.parametrize("cell", CELLS)
def test_calls_continue_one_another(cell: str, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=L, dtype=np.float64)
    x, _, _, _ = draw(layer, rng, B, T)
    output, state = layer(x)
    stream, training = Stream(layer), Stream(layer)
    parts, traces = [], []
    for start, stop in ((0, 5), (5, 6), (6, 13)):
        parts.append(stream(x[start:stop]))
        traces.append(training.forward(x[start:stop]))
    assert_close("output", np.concatenate(parts), output, rel=TOLERANCE["float64"])
    assert_close("output", np.concatenate([t.output for t in traces]), output, rel=TOLERANCE["float64"])
    for one in (stream, training):
        for mine, theirs in zip(pair(one.state), pair(state), strict=True):
            assert mine.any()
            assert_close("state", mine, theirs, rel=TOLERANCE["float64"])


def torch_by_document(
    module: torch.nn.Module, p: dict[str, Any], reset: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], dict[str, np.ndarray]]:
    """Every document of every row alone through torch: output, final states, all gradients."""
    x = torch.tensor(p["x"], requires_grad=True)
    state = [torch.tensor(s, requires_grad=True) for s in pair(p["state"])]
    initial = [torch.tensor(s, requires_grad=True) for s in pair(p["initial"])]
    output = torch.zeros(p["d_output"].shape, dtype=torch.float64)
    rows, ends = [], []
    for b in range(reset.shape[1]):
        held = unpair(s[:, b : b + 1] for s in state)
        steps = []
        for t in range(len(reset)):
            if reset[t, b]:
                held = unpair(s[:, None] for s in initial)
            out, held = module(x[t : t + 1, b : b + 1], held)
            steps.append(out)
        rows.append(torch.cat(steps))
        ends.append(pair(held))
    output = torch.cat(rows, dim=1)
    finals = [torch.cat(parts, dim=1) for parts in zip(*ends, strict=True)]
    loss = (output * torch.tensor(p["d_output"])).sum()
    loss = loss + sum((f * torch.tensor(d)).sum() for f, d in zip(finals, pair(p["d_state"]), strict=True))
    loss.backward()
    found = {"dx": x.grad} | {f"d{name}": w.grad for name, w in module.named_parameters()}
    found |= {f"d{letter}": s.grad for letter, s in zip("hc", state, strict=False)}
    found |= {f"d{letter}_initial": s.grad for letter, s in zip("hc", initial, strict=False)}
    unused = {f"d{letter}": s for letter, s in zip("hc", state, strict=False)}
    unused |= {f"d{letter}_initial": s for letter, s in zip("hc", initial, strict=False)}
    gradients = {k: (torch.zeros_like(unused[k]) if g is None else g).detach().numpy() for k, g in found.items()}
    return output.detach().numpy(), [f.detach().numpy() for f in finals], gradients


@pytest.mark.parametrize("resets", ["some", "all", "none", "first", "last"])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "projected"])
def test_resets_equal_torch_document_by_document(cell: str, resets: str, rng: np.random.Generator) -> None:
    kind = cell if cell in ("tanh", "relu") else "lstm"
    case = Case(kind, num_layers=L, proj_size=4 if cell == "projected" else 0, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    x, state, d_output, d_state = draw(layer, rng, B, T)
    initial = unpair(rng.standard_normal((L, s.shape[2])) for s in pair(state))
    reset = some_resets(rng) if resets == "some" else np.full((T, B), resets == "all")
    if resets in ("first", "last"):
        reset[0 if resets == "first" else -1] = True
    p = {"x": x, "state": state, "initial": initial, "d_output": d_output, "d_state": d_state}
    output, finals, want = torch_by_document(case.module(layer, np.float64), p, reset)

    stream = Stream(layer, initial)
    stream.load_state_dict(dict(zip("hc", pair(state), strict=False)))
    trace = stream.forward(x, reset)
    assert_close("output", trace.output, output, rel=TOLERANCE["float64"])
    for mine, theirs in zip(pair(stream.state), finals, strict=True):
        assert_close("state", mine, theirs, rel=TOLERANCE["float64"])
    grads = stream.backward(trace, d_output, d_state)
    got = {"dx": grads.input} | {f"d{name}": g for name, g in grads.parameters.items()}
    got |= {f"d{letter}": s for letter, s in zip("hc", pair(grads.state), strict=False)}
    got |= {f"d{letter}_initial": s for letter, s in zip("hc", pair(grads.initial), strict=False)}
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert_close(name, got[name], value, rel=TOLERANCE["float64"])

    stream.load_state_dict(dict(zip("hc", pair(state), strict=False)))
    same("inference", stream(x, reset), trace.output)
    for steps in range(T + 1):
        part = Stream(layer, initial)
        part.load_state_dict(dict(zip("hc", pair(state), strict=False)))
        if steps:
            part(x[:steps], reset[:steps])
        want_state = pair(part.state)
        if not steps:  # a reset at step 0 comes before it
            want_state = tuple(
                np.where(reset[0][:, None], i[:, None], s) for s, i in zip(pair(state), pair(initial), strict=True)
            )
        for mine, theirs in zip(pair(trace.state_after(steps)), want_state, strict=True):
            assert_close(f"state after {steps}", mine, theirs, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_a_first_call_begins_with_the_initial_state(cell: str, rng: np.random.Generator) -> None:
    """All samples share it: its gradient is their sum, as of torch's expand; there is none of a carried state."""
    case = Case(cell, num_layers=L, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    x, state, d_output, _ = draw(layer, rng, B, T)
    initial = unpair(rng.standard_normal((L, s.shape[2])) for s in pair(state))
    learned = [torch.tensor(s, requires_grad=True) for s in pair(initial)]
    module = case.module(layer, np.float64)
    output, _ = module(torch.tensor(x), unpair(s[:, None].expand(-1, B, -1).contiguous() for s in learned))
    (output * torch.tensor(d_output)).sum().backward()
    stream = Stream(layer, initial)
    trace = stream.forward(x)
    grads = stream.backward(trace, d_output)
    assert_close("output", trace.output, output.detach().numpy(), rel=TOLERANCE["float64"])
    for mine, theirs in zip(pair(grads.initial), learned, strict=True):
        assert_close("initial", mine, theirs.grad.numpy(), rel=TOLERANCE["float64"])
    assert not any(s.any() for s in pair(grads.state))
    # k2 > k1: the windows that still start at step 0 give theirs to it as well
    each = list(windows(layer, x, d_output, k1=4, k2=9, initial=initial))
    assert [any(s.any() for s in pair(w.gradients.initial)) for w in each] == [True, True, False, False]
    assert [any(s.any() for s in pair(w.gradients.state)) for w in each] == [False, False, True, True]


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 9), (5, 3), (T, T)])
def test_windows_reset_where_the_mask_says(k1: int, k2: int, rng: np.random.Generator) -> None:
    """A document apart: no window sees another's state or gradient, so each row is that of its documents alone."""
    layer = make("lstm", rng, num_layers=L, dtype=np.float64)
    x, _, d_output, _ = draw(layer, rng, B, T)
    reset = some_resets(rng)
    found = list(windows(layer, x, d_output, k1=k1, k2=k2, reset=reset))
    whole = Stream(layer)(x, reset)
    for window in found:
        part = slice(window.start, window.stop)
        assert_close("output", window.trace.output, whole[part], rel=TOLERANCE["float64"])
    if k2 == T:
        trace = Stream(layer).forward(x, reset)
        want = Stream(layer).backward(trace, d_output)
        for name, g in want.parameters.items():
            same(name, found[0].gradients.parameters[name], g)
        for mine, theirs in zip(found[0].gradients.initial, want.initial, strict=True):
            same("initial", mine, theirs)
    late = x.copy()
    late[7:, 1] += 1  # row 1: what comes before its next reset does not reach the steps after it
    reset[9, 1] = True
    for one, two in zip(
        windows(layer, x, d_output, k1=k1, k2=k2, reset=reset),
        windows(layer, np.where(np.arange(T)[:, None, None] < 9, late, x), d_output, k1=k1, k2=k2, reset=reset),
        strict=True,
    ):
        after = slice(max(9 - one.start, 0), None)
        same("output", one.trace.output[after], two.trace.output[after])
        same("dx", one.gradients.input[after], two.gradients.input[after])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batch", [None, B])
def test_layouts(batch: int | None, batch_first: bool, rng: np.random.Generator) -> None:
    layer = make("projected", rng, num_layers=L, batch_first=batch_first, dtype=np.float64)
    plain = make("projected", rng, num_layers=L, dtype=np.float64)
    plain.load_state_dict(layer.state_dict())
    x, _, d_output, d_state = draw(layer, rng, batch, T)

    def major(a: np.ndarray) -> np.ndarray:
        return a[:, None] if batch is None else a.swapaxes(0, 1) if batch_first else a

    reset = some_resets(rng)[:, 1:2] if batch is None else some_resets(rng)
    own = reset[:, 0] if batch is None else reset.T if batch_first else reset
    mine, theirs = Stream(layer), Stream(plain)
    a, b = mine.forward(x, own), theirs.forward(major(x).copy(), reset)
    same("output", np.ascontiguousarray(major(a.output)), b.output)
    d_wide = tuple(d[:, None] if batch is None else d for d in d_state)
    one, two = mine.backward(a, d_output, d_state), theirs.backward(b, major(d_output).copy(), d_wide)
    same("dx", np.ascontiguousarray(major(one.input)), two.input)
    for name in ("state", "initial"):
        for s, t in zip(getattr(one, name), getattr(two, name), strict=True):
            same(name, s.reshape(t.shape), t)
    for s, t in zip(mine.state, theirs.state, strict=True):
        assert s.ndim == (2 if batch is None else 3)
        same("state", s.reshape(t.shape), t)
    mine.load_state_dict(mine.state_dict())
    mine(x)


def test_pieces_fold_what_they_unfold(rng: np.random.Generator) -> None:
    for _ in range(200):
        steps, batch = rng.integers(1, 9, 2)
        reset = rng.random((steps, batch)) < rng.random()
        pieces = Pieces(reset)
        array = rng.standard_normal((steps, batch, 2))
        same("fold", pieces.fold(pieces.unfold(array)), array)
        assert pieces.length.sum() == steps * batch
        assert len(pieces.row) == batch + reset[1:].sum()
        assert (pieces.begins == reset[pieces.start, pieces.row]).all()
        assert pieces.begins[batch:].all()
        assert (pieces.row[:batch] == np.arange(batch)).all()
        assert (pieces.start[pieces.last] + pieces.length[pieces.last] == steps).all()
        assert (pieces.row[pieces.last] == np.arange(batch)).all()
        unfolded = pieces.unfold(array)
        for n, (b, start, length) in enumerate(zip(pieces.row, pieces.start, pieces.length, strict=True)):
            same("piece", unfolded[:length, n], np.ascontiguousarray(array[start : start + length, b]))


def test_state_after_an_update_is_not_touched(rng: np.random.Generator) -> None:
    """The stream keeps its own state: writing into what it handed out or read changes nothing."""
    layer = make("lstm", rng)
    x, _, _, _ = draw(layer, rng, B, T)
    stream, other = Stream(layer), Stream(layer)
    trace = stream.forward(x)
    other.forward(x)
    held = stream.state_dict()
    trace.output[...] = np.nan
    x_next = x + 1
    trace.trace.layers[0, "forward"].h[...] = np.nan
    for array in trace.state:
        array[...] = np.nan
    x[...] = np.nan
    for name, array in stream.state_dict().items():
        same(name, array, held[name])
    same("next", stream(x_next), other(x_next))


def test_another_batch_is_refused(rng: np.random.Generator) -> None:
    for batch_first in (False, True):
        layer = make("lstm", rng, batch_first=batch_first)
        x, _, _, _ = draw(layer, rng, B, T)
        fewer = x[:3] if batch_first else x[:, :3]
        stream = Stream(layer)
        stream(x)
        before = stream.state_dict()
        for read in (stream, stream.forward):
            with pytest.raises(
                ValueError, match=r"x: expected a batch of 5, whose state is carried; got a batch of 3.*reset\(\)"
            ):
                read(fewer)
            with pytest.raises(ValueError, match="got no batch axis"):
                read(x[0] if batch_first else x[:, 0])
        for name, array in stream.state_dict().items():
            same(name, array, before[name])
        stream.reset()
        assert stream.state is None
        assert stream.state_dict() == {}
        stream(fewer)
    alone = Stream(make("tanh", rng))
    alone(x[0])
    with pytest.raises(ValueError, match="x: expected no batch axis"):
        alone(x)


@pytest.mark.parametrize("cell", CELLS)
def test_a_batch_of_nobody(cell: str, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=L)
    x, _, d_output, _ = draw(layer, rng, 0, T)
    stream, reset = Stream(layer), np.ones((T, 0), bool)
    for mask in (None, reset):
        assert stream(x, mask).shape == d_output.shape
        grads = stream.backward(stream.forward(x, mask), d_output)
        assert grads.input.shape == x.shape
        assert not any(g.any() for g in [*grads.parameters.values(), *pair(grads.initial)])
    assert [w.stop for w in windows(layer, x, d_output, k1=6, k2=8)] == [6, 12, 13]


def test_inf_and_nan_pass_through(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng, B, T)
    d_output[0, 0], d_output[0, 1] = np.inf, -np.inf  # the sum over samples is nan
    stream = Stream(layer)
    grads = stream.backward(stream.forward(x), d_output)
    assert np.isnan(grads.initial[0]).any()
    x[3, 2] = np.nan
    assert np.isnan(stream(x)[3:, 2]).all()


def test_the_initial_gradient_keeps_its_digits(rng: np.random.Generator) -> None:
    """Of as many beginnings as there are, summed in float64 like every other parameter's."""
    layer, steps = make("tanh", rng), 20_000
    x, _, _, _ = draw(layer, rng, 1, 1)
    stream = Stream(layer)
    trace = stream.forward(np.repeat(x, steps, axis=0), np.ones((steps, 1), bool))
    grads = stream.backward(trace, np.ones_like(trace.output))
    one = stream.backward(stream.forward(x, np.ones((1, 1), bool)), np.ones_like(trace.output[:1]))
    assert_close("initial", grads.initial, steps * one.initial, rel=2 * 2.0**-23)


def test_what_is_refused(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, d_state = draw(layer, rng, B, T)
    with pytest.raises(ValueError, match="layer: expected one direction"):
        Stream(srnn.LSTM(3, 6, bidirectional=True))
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM"):
        Stream(srnn.LSTMCell(3, 6))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"h_0: expected shape \(1, 6\) of one sample"):
        Stream(layer, (np.zeros((1, 5, 6), np.float32), np.zeros((1, 6), np.float32)))
    stream = Stream(layer)
    with pytest.raises(ValueError, match=r"reset: expected shape \(13, 5\).*got \(5, 13\)"):
        stream(x, np.zeros((B, T), bool))
    with pytest.raises(TypeError, match="reset: expected a NumPy array of bool"):
        stream(x, np.zeros((T, B), int))
    with pytest.raises(TypeError, match="reset: expected a NumPy array of bool; got a masked array"):
        stream(x, np.ma.masked_array(np.zeros((T, B), bool), mask=True))
    with pytest.raises(ValueError, match="x: expected"):
        stream(x[0, 0])
    assert stream.state is None
    trace = stream.forward(x)
    with pytest.raises(TypeError, match="trace: expected what forward of this stream returned"):
        stream.backward(layer.forward(x), d_output)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="d_output: expected shape"):
        stream.backward(trace, d_output[1:])
    with pytest.raises(ValueError, match="d_h_n: expected shape"):
        stream.backward(trace, d_output, (d_state[0][:, 1:], d_state[1]))
    with pytest.raises(ValueError, match=r"state: expected the keys \['h', 'c'\]"):
        stream.load_state_dict({"h": np.zeros((1, 5, 6), np.float32)})
    with pytest.raises(ValueError, match="expected shape"):
        stream.load_state_dict({"h": np.zeros((1, 5, 6), np.float32), "c": np.zeros((1, 4, 6), np.float32)})
    with pytest.raises(ValueError, match="steps: expected an integer of at least 0"):
        trace.state_after(-1)
    with pytest.raises(ValueError, match="steps: expected at most 13"):
        trace.state_after(T + 1)


def test_no_old_window_is_held(rng: np.random.Generator) -> None:
    layer = make("lstm", rng, num_layers=L)
    x, _, _, _ = draw(layer, rng, B, T)
    stream = Stream(layer)
    for _ in range(3):
        trace = stream.forward(x)
        stream.backward(trace, trace.output)
        last = weakref.ref(trace), weakref.ref(trace.trace), weakref.ref(trace.trace.layers[0, "forward"])
        del trace
        assert [ref() for ref in last] == [None] * 3
        for array in stream.state:
            assert array.base is None or array.base.nbytes <= array.nbytes


def test_memory_is_flat_over_a_million_steps(rng: np.random.Generator) -> None:
    """Half of them with a trace and its backward: what is held at the end is what was held after ten calls.

    The numpy backend, which takes a second for 10,000 steps, reads 30,000.
    """
    layer = srnn.LSTM(2, 4, rng=rng)
    steps, calls = (5000, 100) if backends.current() == "numba" else (500, 30)  # of two passes each
    x = rng.standard_normal((steps, 2, 2)).astype(np.float32)
    reset = rng.random((steps, 2)) < 0.001
    stream = Stream(layer)

    def read() -> None:
        trace = stream.forward(x, reset)
        stream.backward(trace, trace.output)
        stream(x)

    trace = layer.forward(x)

    peaks, held = [], []
    tracemalloc.start()
    try:
        for call in range(calls):
            tracemalloc.reset_peak()
            read()
            if call in (9, calls - 1):
                gc.collect()
                size, peak = tracemalloc.get_traced_memory()
                held.append(size)
                peaks.append(peak)
    finally:
        tracemalloc.stop()
    kept = sum(a.nbytes for a in (x, trace.h, trace.c, trace.gates))  # what one call more would hold, at least
    assert held[1] - held[0] < 2 * kept, (held, kept)  # of 20 calls, or 90
    assert peaks[1] - peaks[0] < 2 * kept, (peaks, kept)


def test_truncated_by_hand_with_a_stream(rng: np.random.Generator) -> None:
    """Stream calls of k steps, each with its own backward, are truncated BPTT with k1 = k2 = k."""
    layer = make("lstm", rng, num_layers=L, dtype=np.float64)
    x, _, d_output, _ = draw(layer, rng, B, T)
    stream, total = Stream(layer), None
    for start in range(0, T, 4):
        trace = stream.forward(x[start : start + 4])
        grads = stream.backward(trace, d_output[start : start + 4]).parameters
        total = grads if total is None else {name: total[name] + g for name, g in grads.items()}
    for name, g in truncated(layer, x, d_output, k1=4, k2=4).parameters.items():
        assert_close(name, total[name], g, rel=TOLERANCE["float64"])
