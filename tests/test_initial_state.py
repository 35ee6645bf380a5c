"""A learned initial state against torch: a parameter, expanded over the batch, through nn.RNN and nn.LSTM."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.layers.initial_state import StateShape
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import LENGTHS, PROJ, Case, draw

CASES = [
    Case(cell, layers, both, proj, batch_first=batch_first, lengths=lengths)
    for cell in ("tanh", "relu", "lstm")
    for layers, both in ((1, False), (1, True), (3, False), (2, True))
    for proj in ((0, PROJ) if cell == "lstm" else (0,))
    for batch_first, lengths in ((False, None), (True, LENGTHS))
]
EDGES = [
    Case(cell, 2, bidirectional=True, sizes=sizes)
    for cell in ("tanh", "lstm")
    for sizes in ((7, 1, 3, 6), (1, 5, 3, 6))
]
WITHOUT_BATCH = [
    Case(cell, 2, bidirectional=True, proj_size=proj, sizes=(7, 1, 3, 6), batched=False)
    for cell, proj in (("tanh", 0), ("lstm", 0), ("lstm", PROJ))
]


def drawn(layer: Any, rng: np.random.Generator) -> srnn.InitialState:
    """One that is not zero."""
    return srnn.InitialState(layer, rng=rng, std=0.7)


def parts(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


def by_torch(case: Case, layer: Any, start: srnn.InitialState, problem: Any) -> dict[str, np.ndarray]:
    """Output, and the gradients of the parameters and of the initial state's, from torch's autograd."""
    module = case.module(layer, np.float64)
    learned = {name: torch.nn.Parameter(torch.tensor(array)) for name, array in start.parameters.items()}
    expanded = [p[:, None].expand(-1, case.sizes[1], -1) if case.batched else p for p in learned.values()]
    state = tuple(expanded) if len(expanded) > 1 else expanded[0]
    read: Any = torch.tensor(problem.x)
    if case.lengths is not None:
        read = torch.nn.utils.rnn.pack_padded_sequence(
            read, torch.tensor(case.lengths), batch_first=case.batch_first, enforce_sorted=False
        )
    output, final = module(read, state)
    if case.lengths is not None:
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(output, case.batch_first, total_length=case.sizes[0])
    loss = (output * torch.tensor(problem.d_output)).sum()
    for value, cotangent in zip(parts(final), problem.d_state, strict=True):
        loss = loss + (value * torch.tensor(cotangent)).sum()
    loss.backward()
    found = {"output": output} | {name: p.grad for name, p in (learned | dict(module.named_parameters())).items()}
    return {name: value.detach().numpy() for name, value in found.items()}


def compare(case: Case, rng: np.random.Generator) -> None:
    layer, problem = case.layer(rng, np.float64), draw(case, rng)
    start = drawn(layer, rng)
    batch = case.sizes[1] if case.batched else None
    trace = layer.forward(problem.x, start.forward(batch), case.lengths)
    grads = layer.backward(trace, problem.d_output, problem.d_state if len(problem.d_state) > 1 else problem.d_state[0])
    learned = start.backward(grads.state)
    assert (learned.input, learned.state) == (None, None)
    got = {"output": trace.output} | learned.parameters | grads.parameters
    want = by_torch(case, layer, start, problem)
    assert got.keys() == want.keys()
    for name in want:
        assert_close(f"{case} {name}", got[name], want[name], rel=TOLERANCE["float64"])
    output, _ = layer(problem.x, start(batch), case.lengths)
    assert_close("inferred", output, want["output"], rel=TOLERANCE["float64"])


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_configuration_equals_torch(case: Case, rng: np.random.Generator) -> None:
    compare(case, rng)


@pytest.mark.parametrize("case", [*EDGES, *WITHOUT_BATCH], ids=lambda case: f"{case}-{case.sizes}-{case.batched}")
def test_edges_and_no_batch_equal_torch(case: Case, rng: np.random.Generator) -> None:
    compare(case, rng)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_the_gradient_is_a_sum_over_samples(cell: str, rng: np.random.Generator) -> None:
    """The same sample B times has B times the gradient: of a loss that is summed over the batch."""
    one = Case(cell, 2, sizes=(7, 1, 3, 6))
    layer, problem = one.layer(rng, np.float64), draw(one, rng)
    start = drawn(layer, rng)

    def gradient(batch: int) -> dict[str, np.ndarray]:
        trace = layer.forward(problem.x.repeat(batch, axis=1), start(batch))
        state = layer.backward(trace, problem.d_output.repeat(batch, axis=1)).state
        return start.backward(state).parameters

    once, often = gradient(1), gradient(4)
    for name in once:
        assert_close(name, often[name], 4 * once[name], rel=TOLERANCE["float64"])


def test_parts_of_the_gradient_may_be_absent(rng: np.random.Generator) -> None:
    start = srnn.InitialState(srnn.LSTM(3, 6, 2, proj_size=4, dtype=np.float64))
    d_h, d_c = rng.standard_normal((2, 5, 4)), rng.standard_normal((2, 5, 6))
    for d_state in ((d_h, None), (None, d_c), (d_h, d_c)):
        got = start.backward(d_state).parameters
        for name, d, size in zip(("h_0", "c_0"), d_state, (4, 6), strict=True):
            assert_close(name, got[name], np.zeros((2, size)) if d is None else d.sum(axis=1), rel=1e-15)
    for nothing in (None, (None, None)):
        assert [(name, g.shape, g.any()) for name, g in start.backward(nothing).parameters.items()] == [
            ("h_0", (2, 4), False),
            ("c_0", (2, 6), False),
        ]
    alone = srnn.InitialState(srnn.RNN(3, 6))
    assert not alone.backward(None).parameters["h_0"].any()


def test_float32_is_summed_in_float64() -> None:
    start = srnn.InitialState(srnn.RNN(2, 3))
    d = np.full((1, 20001, 3), 2.0**-24, np.float32)
    d[0, 0] = 1
    got = start.backward(d).parameters["h_0"]
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, np.float32(1 + 20000 * 2.0**-24))


def test_what_it_hands_out_is_new_each_time(rng: np.random.Generator) -> None:
    start = drawn(srnn.LSTM(3, 6, 2), rng)
    for batch in (None, 4):
        for array in parts(start(batch)):
            assert array.flags.carray
            array[...] = 7
    assert not any((array == 7).any() for array in start.parameters.values())
    d = rng.standard_normal((2, 6)).astype(np.float32)
    for array in start.backward((d, d)).parameters.values():
        assert not np.shares_memory(array, d)
    assert parts(start(0))[0].shape == (2, 0, 6)


def test_zero_by_default_else_drawn(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 60, 2, bidirectional=True)
    assert not any(array.any() for array in srnn.InitialState(layer).parameters.values())
    start = srnn.InitialState(layer, rng=np.random.default_rng(3), std=0.5)
    again = srnn.InitialState(layer, rng=np.random.default_rng(3), std=0.5)
    for name, array in start.parameters.items():
        assert 0.4 < array.std() < 0.6
        assert_close(name, again.parameters[name], array, rel=0)


def test_it_learns(rng: np.random.Generator) -> None:
    """A target that only the initial state can reach: the input is zero and the weights stay."""
    layer = srnn.RNN(2, 5, bias=False, dtype=np.float64, rng=rng)
    start, x = srnn.InitialState(layer), np.zeros((3, 4, 2))
    want = layer(x, np.repeat(rng.standard_normal((1, 1, 5)), 4, axis=1))[0]
    optimizer = srnn.optim.Adam(start.parameters, lr=0.05)
    losses = []
    for _ in range(400):
        trace = layer.forward(x, start(4))
        loss, d_output = srnn.losses.mse_loss(trace.output, want)
        losses.append(float(loss))
        optimizer.step(start.backward(layer.backward(trace, d_output).state).parameters)
    assert losses[-1] < 1e-4 * losses[0]


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_save_and_load(cell: str, rng: np.random.Generator, tmp_path: Path) -> None:
    layer = Case(cell, 2, bidirectional=True, proj_size=PROJ if cell == "lstm" else 0).layer(rng, np.float64)
    start = drawn(layer, rng)
    start.save(tmp_path / "start.safetensors")
    loaded = srnn.InitialState.load(tmp_path / "start.safetensors")
    assert loaded.config() == start.config()
    assert repr(loaded) == repr(start)
    for name, array in start.parameters.items():
        assert_close(name, loaded.parameters[name], array, rel=0)
    other = srnn.InitialState(layer)
    other.load_state_dict(start.state_dict())
    assert_close("h_0", other.h_0, start.h_0, rel=0)
    with pytest.raises(ValueError, match=r"start.safetensors: expected a saved Linear; got a saved InitialState"):
        srnn.Linear.load(tmp_path / "start.safetensors")


def test_refuses_arguments(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, 2)
    for wrong in (srnn.LSTMCell(3, 6), srnn.Linear(3, 6), 3, None):
        with pytest.raises(TypeError, match=r"^layer: expected an RNN or LSTM; got "):
            srnn.InitialState(wrong)
    with pytest.raises(ValueError, match="std: expected a finite number of at least 0; got -1"):
        srnn.InitialState(lstm, std=-1)
    with pytest.raises(TypeError, match=r"rng: expected None, np\.random\.Generator"):
        srnn.InitialState(lstm, rng=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cell_size: expected an integer of at least 1; got 0"):
        dataclasses.replace(StateShape.of("layer", lstm), cell_size=0)


def test_refuses_input(rng: np.random.Generator) -> None:
    start = srnn.InitialState(srnn.LSTM(3, 6, 2, proj_size=4))
    h, c = np.zeros((2, 5, 4), np.float32), np.zeros((2, 5, 6), np.float32)
    with pytest.raises(ValueError, match="batch: expected an integer of at least 0; got -1"):
        start(-1)
    with pytest.raises(TypeError, match=r"d_state: expected a pair \(d_h_0, d_c_0\) for an LSTM; got an array"):
        start.backward(h)
    with pytest.raises(ValueError, match=r"d_c_0: expected shape \(2, 5, 6\) of StateShape.*; got \(2, 4, 6\)"):
        start.backward((h, c[:, :4]))
    with pytest.raises(ValueError, match=r"d_h_0: expected shape \(2, 4\) of StateShape.*; got \(5, 4\)"):
        start.backward((h[0], c[0]))
    with pytest.raises(TypeError, match="d_h_0: expected dtype float32; got float64"):
        start.backward((h.astype(np.float64), c))
    start.parameters["h_0"] = np.zeros((2, 5), np.float32)
    with pytest.raises(ValueError, match=r"h_0: expected shape \(2, 4\); got \(2, 5\)"):
        start(3)


def test_nan_and_inf_pass_through() -> None:
    start = srnn.InitialState(srnn.RNN(2, 3, dtype=np.float64))
    got = start.backward(np.array([[[np.nan, np.inf, 1], [1, -np.inf, 2]]])).parameters["h_0"]
    np.testing.assert_array_equal(got, [[np.nan, np.nan, 3]])
