"""Checkpointed backpropagation through time: the bits of the full one, in little memory."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends

T, B, I, H, P = 73, 50, 3, 6, 4  # many blocks: of two steps, on a GPU of four
pytestmark = pytest.mark.usefixtures("each_backend", "small_blocks")
CELLS = ("tanh", "relu", "lstm", "projected")
EVERY = (None, 1, 7, T, 10 * T)


def make(cell: str, rng: np.random.Generator, hidden: int = H, **options: Any) -> srnn.RNN | srnn.LSTM:
    if cell in ("tanh", "relu"):
        return srnn.RNN(I, hidden, nonlinearity=cell, rng=rng, **options)
    return srnn.LSTM(I, hidden, proj_size=P if cell == "projected" else 0, rng=rng, **options)


def draw(
    layer: srnn.RNN | srnn.LSTM, rng: np.random.Generator, batch: int | None = B, steps: int = T
) -> tuple[np.ndarray, Any, np.ndarray, Any]:
    """x, state, d_output, d_state; without a batch where it is None."""
    lead = (steps,) if batch is None else (batch, steps) if layer.batch_first else (steps, batch)
    rows = (layer.num_layers, *([] if batch is None else [batch]))
    sizes = [layer.output_size, layer.hidden_size] if isinstance(layer, srnn.LSTM) else [layer.output_size]

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(layer.dtype)

    state, d_state = (tuple(normal(*rows, size) for size in sizes) for _ in range(2))
    one = len(sizes) == 1
    d_output = normal(*lead, layer.output_size)
    return normal(*lead, I), state[0] if one else state, d_output, d_state[0] if one else d_state


def ends(rng: np.random.Generator, batch: int, steps: int) -> np.ndarray:
    """Ends at the seams, beside them, and everywhere."""
    block = backends.block_steps(batch)
    lengths = rng.integers(1, steps + 1, batch)
    lengths[:5] = steps, block, 2 * block, 2 * block + 1, 1
    return np.minimum(lengths, steps)


def same(name: str, got: Any, want: Any) -> None:
    got, want = (v if isinstance(v, tuple) else (v,) for v in (got, want))
    for a, b in zip(got, want, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), name
        assert a.tobytes() == b.tobytes(), f"{name}: worst difference {np.abs(a - b).max():.3g}"


def same_gradients(got: srnn.Gradients, want: srnn.Gradients) -> None:
    same("input", got.input, want.input)
    same("state", got.state, want.state)
    assert list(got.parameters) == list(want.parameters)
    for name, gradient in want.parameters.items():
        assert gradient.any()
        same(name, got.parameters[name], gradient)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_as_full(cell: str, num_layers: int, ragged: bool, dtype: Any, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=num_layers, dtype=dtype, dropout=0)
    x, state, d_output, d_state = draw(layer, rng)
    keywords = {"state": state, "d_state": d_state, "lengths": ends(rng, B, T) if ragged else None}
    want = srnn.bptt.full(layer, x, d_output, **keywords)
    for every in EVERY:
        same_gradients(srnn.bptt.checkpointed(layer, x, d_output, every=every, **keywords), want)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("batch", [None, 5, 200], ids=["no batch", "B5", "B200"])
def test_every_layout(cell: str, batch: int | None, rng: np.random.Generator) -> None:
    """Long sums over the gates, batch_first, no biases; blocks of 128, 25 and one steps; on a GPU 128, 24 and four."""
    layer = make(cell, rng, hidden=40, num_layers=2, batch_first=True, bias=False)
    steps = {None: 300, 5: 110, 200: 7}[batch]
    x, state, d_output, d_state = draw(layer, rng, batch, steps)
    keywords = {"state": state, "d_state": d_state, "lengths": None if batch is None else ends(rng, batch, steps)}
    want = srnn.bptt.full(layer, x, d_output, **keywords)
    for every in (1, 3):
        same_gradients(srnn.bptt.checkpointed(layer, x, d_output, every=every, **keywords), want)


@pytest.mark.parametrize("absent", ["d_output", "d_state", "d_h_n", "d_c_n", "state", "bias"])
def test_what_is_absent(absent: str, rng: np.random.Generator) -> None:
    layer = make("lstm", rng, num_layers=2, bias=absent != "bias")
    x, state, d_output, (d_h_n, d_c_n) = draw(layer, rng)
    pair = (None if absent == "d_h_n" else d_h_n, None if absent == "d_c_n" else d_c_n)
    keywords = {
        "state": None if absent == "state" else state,
        "d_state": None if absent == "d_state" else pair,
        "lengths": ends(rng, B, T),
    }
    cotangent = None if absent == "d_output" else d_output
    want = srnn.bptt.full(layer, x, cotangent, **keywords)
    same_gradients(srnn.bptt.checkpointed(layer, x, cotangent, every=7, **keywords), want)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("batch", [None, B], ids=["no batch", "batch"])
def test_cotangent_of_each_segment(batch: int | None, batch_first: bool, rng: np.random.Generator) -> None:
    layer = make("projected", rng, num_layers=2, batch_first=batch_first)
    steps = 300 if batch is None else T
    x, state, target, d_state = draw(layer, rng, batch, steps)
    lengths = None if batch is None else ends(rng, B, T)
    axis = 1 if batch_first and batch is not None else 0
    starts: list[int] = []
    outputs: list[np.ndarray] = []

    def slope(output: np.ndarray, start: int) -> np.ndarray:
        starts.append(start)
        outputs.append(output.copy())
        place = [slice(None)] * output.ndim
        place[axis] = slice(start, start + output.shape[axis])
        d = np.sin(output) - target[tuple(place)]
        output[...] = np.nan  # the caller's own
        return d

    keywords = {"state": state, "d_state": d_state, "lengths": lengths}
    got = srnn.bptt.checkpointed(layer, x, slope, every=9, **keywords)
    block = backends.block_steps(batch or 1)
    size = -(-9 // block) * block
    assert starts == list(range(0, steps, size))[::-1]
    same("output", np.concatenate(outputs[::-1], axis=axis), layer(x, state, lengths)[0])
    same_gradients(got, srnn.bptt.full(layer, x, slope, **keywords))
    assert starts[-1] == 0


def test_padding_is_never_read(rng: np.random.Generator) -> None:
    layer = make("lstm", rng, num_layers=2, dtype=np.float64)
    x, state, d_output, d_state = draw(layer, rng)
    lengths = ends(rng, B, T)
    want = srnn.bptt.full(layer, x, d_output, state=state, d_state=d_state, lengths=lengths)
    padding = np.arange(T)[:, None] >= lengths
    x[padding], d_output[padding] = np.nan, np.inf
    before = x.copy()
    got = srnn.bptt.checkpointed(layer, x, d_output, every=7, state=state, d_state=d_state, lengths=lengths)
    same_gradients(got, want)
    assert not got.input[padding].any()
    same("x", x, before)


def test_nan_and_inf_pass_through(rng: np.random.Generator) -> None:
    layer = make("relu", rng)
    x, state, d_output, d_state = draw(layer, rng)
    x[5, 1, 0], x[70, 2, 1], d_output[30, 3, 0] = np.nan, np.inf, np.inf
    with np.errstate(all="raise"):
        want = srnn.bptt.full(layer, x, d_output, state=state, d_state=d_state)
        same_gradients(srnn.bptt.checkpointed(layer, x, d_output, state=state, d_state=d_state), want)


def test_nothing_is_kept_per_step(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng)
    grads = srnn.bptt.checkpointed(layer, x, d_output)
    assert grads.layers == {}
    for name in ("h", "c", "a"):
        with pytest.raises(AttributeError, match=f"{name}: nothing per time step was kept"):
            getattr(grads, name)
    with pytest.raises(IndexError, match="nothing per time step was kept"):
        grads[0]
    assert repr(grads) == "Gradients(no layers)"


@pytest.mark.usefixtures("host_memory")
def test_memory_does_not_grow_with_the_steps(rng: np.random.Generator) -> None:
    steps, batch, hidden = 5000, 16, 16
    lstm = srnn.LSTM(1, hidden, rng=rng)
    x = np.zeros((steps, batch, 1), np.float32)

    def last(output: np.ndarray, start: int) -> np.ndarray:
        return np.full_like(output, start + len(output) == steps)

    srnn.bptt.checkpointed(lstm, x[:50], last)  # whatever is set up once
    tracemalloc.start()
    srnn.bptt.checkpointed(lstm, x, last, every=40)
    peak = tracemalloc.get_traced_memory()[1] - x.nbytes  # dL/dx
    tracemalloc.stop()
    trace = 6 * hidden * batch * 4 * steps  # h, c and four gates, for every step
    assert peak < trace / 20


def test_bad_arguments(rng: np.random.Generator) -> None:
    checkpointed = srnn.bptt.checkpointed
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng)
    with pytest.raises(ValueError, match=r"layer: expected one direction, .*; got bidirectional=True"):
        checkpointed(make("tanh", rng, bidirectional=True), x)
    with pytest.raises(ValueError, match=r"layer: expected no dropout between layers, .*; got dropout=0\.3"):
        checkpointed(make("tanh", rng, num_layers=2, dropout=0.3), x)
    for function in (checkpointed, srnn.bptt.full):
        with pytest.raises(TypeError, match="layer: expected an RNN or LSTM; got Linear"):
            function(srnn.Linear(I, H, rng=rng), x)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"d_output: expected shape \(73, 50, 6\)"):
            function(layer, x, d_output[:-1])
        with pytest.raises(ValueError, match=r"h_0: expected shape \(1, 50, 6\)"):
            function(layer, x, state=(d_output, d_output))
        with pytest.raises(ValueError, match="lengths: expected values from 1 to 73"):
            function(layer, x, lengths=[0] * B)
        with pytest.raises(TypeError, match="x: expected dtype float32"):
            function(layer, x.astype(np.float64))
    for every, error in ((0, ValueError), (2.0, TypeError), (True, TypeError)):
        with pytest.raises(error, match="every: expected an integer of at least 1"):
            checkpointed(layer, x, every=every)
    with pytest.raises(ValueError, match=r"d_output: expected shape \(3, 50, 6\) of the output; got \(1,\)"):
        checkpointed(layer, x[:3], lambda output, start: np.zeros(1, np.float32), every=100)
    with pytest.raises(TypeError, match="d_output: expected dtype float32; got float64"):
        checkpointed(layer, x, lambda output, start: output.astype(np.float64))


@pytest.mark.parametrize("cell", CELLS)
def test_same_bits_as_full_with_a_clip(cell: str, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=2)
    x, state, d_output, d_state = draw(layer, rng)
    keywords = {"state": state, "d_state": d_state, "lengths": ends(rng, B, T), "clip": 0.01}
    want = srnn.bptt.full(layer, x, d_output, **keywords)
    same_gradients(srnn.bptt.checkpointed(layer, x, d_output, every=7, **keywords), want)
    plain = srnn.bptt.full(layer, x, d_output, state=state, d_state=d_state, lengths=keywords["lengths"])
    assert plain.input.tobytes() != want.input.tobytes()
