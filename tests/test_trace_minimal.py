"""What a trace does not keep: computed again on access and by backward, with the bits that forward had."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends

T, B, I, H, P = 61, 9, 3, 6, 4  # blocks of 14 steps, segments of one block
pytestmark = pytest.mark.usefixtures("each_backend")
LENGTHS = [61, 14, 28, 1, 33, 60, 15, 43, 2]
SHAPES: dict[str, dict[str, Any]] = {
    "one": {},
    "two layers": {"num_layers": 2},
    "both directions": {"num_layers": 2, "bidirectional": True, "batch_first": True},
}


def make(cell: str, rng: np.random.Generator, **options: Any) -> srnn.RNN | srnn.LSTM:
    if cell in ("tanh", "relu"):
        return srnn.RNN(I, H, nonlinearity=cell, rng=rng, **options)
    return srnn.LSTM(I, H, proj_size=P if cell == "projected" else 0, rng=rng, **options)


def draw(layer: srnn.RNN | srnn.LSTM, rng: np.random.Generator) -> tuple[Any, Any, Any, Any]:
    """x, state, d_output, d_state."""
    lead, rows = ((B, T) if layer.batch_first else (T, B)), layer.num_layers * layer.num_directions
    sizes = [layer.output_size, H] if isinstance(layer, srnn.LSTM) else [layer.output_size]

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(layer.dtype)

    state, d_state = (tuple(normal(rows, B, size) for size in sizes) for _ in range(2))
    one = len(sizes) == 1
    d_output = normal(*lead, layer.num_directions * layer.output_size)
    return normal(*lead, I), state[0] if one else state, d_output, d_state[0] if one else d_state


def same(name: str, got: Any, want: Any) -> None:
    got, want = (v if isinstance(v, tuple) else (v,) for v in (got, want))
    for a, b in zip(got, want, strict=True):
        assert a.dtype == b.dtype, name
        assert a.tobytes() == b.tobytes(), f"{name}: worst difference {np.abs(a - b).max():.3g}"


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "projected"])
def test_a_minimal_trace_has_the_bits_of_a_full_one(
    cell: str, shape: str, lengths: Any, dtype: Any, rng: np.random.Generator
) -> None:
    layer = make(cell, rng, dtype=dtype, **SHAPES[shape])
    x, state, d_output, d_state = draw(layer, rng)
    full, minimal = (layer.forward(x, state, lengths, trace=kind) for kind in ("full", "minimal"))
    lstm = isinstance(layer, srnn.LSTM)
    same("output", minimal.output, full.output)
    same("state", minimal.state, full.state)
    for key, layer_trace in full.layers.items():
        for name in ("h", "c", "i", "f", "g", "o", "gates", "a") if lstm else ("h", "a"):
            same(name, getattr(minimal.layers[key], name), getattr(layer_trace, name))
    for arguments in ((d_output, d_state), (None, d_state), (d_output, None)):
        a, b = layer.backward(full, *arguments), layer.backward(minimal, *arguments)
        same("input", b.input, a.input)
        same("d_state", b.state, a.state)
        for name, want in a.parameters.items():
            same(name, b.parameters[name], want)
        for key, step in a.layers.items():
            for name in ("h", "c") if lstm else ("h",):
                same(f"d{name}", getattr(b.layers[key], name), getattr(step, name))


@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "projected"])
def test_preactivations_are_those_of_the_steps(cell: str, rng: np.random.Generator, each_backend: str) -> None:
    """The definition's step by step, from the trace's own states; other backends have their own sums."""
    layer = make(cell, rng)
    x, state, *_ = draw(layer, rng)
    trace = layer.forward(x, state, LENGTHS)
    definition = backends.load("numpy")
    w = {name.removesuffix("_l0"): p for name, p in layer.parameters.items()}
    lengths, beyond = np.array(LENGTHS), np.arange(T)[:, None] >= LENGTHS
    parts = definition.rnn.affine.input_part(trace[0].input, w["weight_ih"], w["bias_ih"], w["bias_hh"])
    for t, a_x in enumerate(parts):
        b = lengths > t
        if isinstance(layer, srnn.LSTM):
            a, gates, c, _ = definition.lstm.step_forward(
                a_x[b], trace.h[t][b], trace.c[t][b], w["weight_hh"], w.get("weight_hr")
            )
        else:
            a, h = definition.rnn.step_forward(a_x[b], trace.h[t][b], w["weight_hh"], cell)
        if each_backend == "numpy":
            same("a", trace.a[t][b], a)
            found = (trace.gates[t][b], trace.c[t + 1][b]) if isinstance(layer, srnn.LSTM) else trace.h[t + 1][b]
            same("what follows from it", found, (gates, c) if isinstance(layer, srnn.LSTM) else h)
        else:
            np.testing.assert_allclose(trace.a[t][b], a, rtol=1e-4, atol=1e-5)
    assert not trace.a[beyond].any()


def test_what_is_kept(rng: np.random.Generator) -> None:
    lstm = make("lstm", rng)
    x, state, d_output, _ = draw(lstm, rng)
    full, minimal = lstm.forward(x, state), lstm.forward(x, state, trace="minimal")
    assert full.a is full.a
    assert full.gates is full.gates
    assert minimal.a is not minimal.a
    assert minimal.gates is not minimal.gates
    assert (full[0].minimal, minimal[0].minimal) == (False, True)
    assert repr(minimal[0]) == "LayerTrace(T=61, B=9, h=(62, 9, 6), reverse=False, minimal=True)"
    grads = lstm.backward(minimal, d_output)
    with pytest.raises(AttributeError, match=r'a: dL/da_t was computed segment by segment .* trace="full"'):
        _ = grads.a
    assert lstm.backward(full, d_output).a.shape == (T, B, 4 * H)
    rnn = make("tanh", rng)
    one = rnn.forward(x, trace="minimal")
    with pytest.raises(AttributeError, match="a vanilla RNN has no cell state and no gates"):
        _ = one.gates
    with pytest.raises(AttributeError, match='trace="full"'):
        _ = rnn.backward(one).a


@pytest.mark.parametrize("kind", ["full", "minimal"])
def test_what_is_computed_late_does_not_depend_on_when(kind: str, rng: np.random.Generator) -> None:
    lstm = make("lstm", rng, num_layers=2, bidirectional=True)
    x, state, d_output, _ = draw(lstm, rng)
    early, late = (lstm.forward(x, state, LENGTHS, trace=kind) for _ in range(2))
    copied = pickle.loads(pickle.dumps(late))
    want = {key: (t.a, t.gates, t.h.copy()) for key, t in early.layers.items()}
    grads = lstm.backward(early, d_output)
    x[...], late.output[...] = 7, 7
    for array in (*lstm.parameters.values(), *state, *(late.state)):
        array *= -3
    with np.errstate(all="raise"):
        for trace in (late, copied):
            for key, t in trace.layers.items():
                for name, got, value in zip(("a", "gates", "h"), (t.a, t.gates, t.h), want[key], strict=True):
                    same(name, got, value)
            same("dx", lstm.backward(trace, d_output).input, grads.input)


@pytest.mark.usefixtures("host_memory")
def test_a_minimal_trace_is_small(rng: np.random.Generator) -> None:
    """Of 6 arrays of H per step, h, c and four gates, two stay; and backward adds dh and dc, not da and gates."""
    steps, hidden = 3000, 32
    lstm = srnn.LSTM(2, hidden, rng=rng)
    x = rng.standard_normal((steps, 8, 2), dtype=np.float32)
    unit = steps * 8 * hidden * 4
    held, peaks = {}, {}
    for kind in ("full", "minimal"):
        lstm.backward(lstm.forward(x[:50], trace=kind))  # whatever is set up once
        backends.release_memory()  # so that what is kept is counted
        tracemalloc.start()
        trace = lstm.forward(x, trace=kind)
        backends.release_memory()
        held[kind] = tracemalloc.get_traced_memory()[0] / unit
        lstm.backward(trace, d_state=(np.ones((1, 8, hidden), np.float32), None))
        peaks[kind] = tracemalloc.get_traced_memory()[1] / unit
        tracemalloc.stop()
    assert 7 < held["full"] < 7.5  # and the output, which is the caller's own
    assert 3 < held["minimal"] < 3.5
    assert peaks["full"] > 13  # 7, dh, dc and four da
    assert peaks["minimal"] < 6  # 3, dh and dc


@pytest.mark.parametrize("wrong", ["all", None, True, 1, ["full"]])
def test_bad_kind(wrong: Any, rng: np.random.Generator) -> None:
    with pytest.raises(ValueError, match="trace: expected 'full' or 'minimal'; got"):
        make("lstm", rng).forward(np.zeros((T, B, I), np.float32), trace=wrong)
