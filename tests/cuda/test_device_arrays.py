"""Recurrent layers on arrays that are on a device: there they stay, and have the bits of the same call with NumPy's."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.kernels import arrays as host_arrays
from scratchrnn.kernels.cuda.arrays import Arrays
from scratchrnn.testing import assert_close
from tests.cuda.layers import CASES, LENGTHS, WHY_NOT, B, Case, H, I, T, emulated, make, run


def test_the_operations_are_those_of_the_host() -> None:
    def signatures(of: Any) -> dict[str, list[str]]:
        found = {name: f for name, f in vars(of).items() if inspect.isfunction(f) and not name.startswith("_")}
        return {name: [p for p in inspect.signature(f).parameters if p != "self"] for name, f in found.items()}

    assert signatures(Arrays) == signatures(host_arrays)
    assert (host_arrays.on_device, Arrays.on_device) == (False, True)


if WHY_NOT is None:
    from tests.cuda.emulator.device import DeviceMemory, EmulatedQueue, OnDevice, emulated_device


@pytest.fixture
def device() -> Iterator[EmulatedQueue]:
    with emulated_device() as queue:
        yield queue


def on_device(value: Any) -> Any:
    """The same on the device: an array, or a pair."""
    if isinstance(value, tuple):
        return tuple(map(on_device, value))
    return value if value is None else OnDevice(value)


@emulated
@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("device")
def test_bits_of_the_same_call_with_numpy(name: str) -> None:
    case = CASES[name]
    there = run(case, "cuda", np.random.default_rng(3), on_device)
    here = run(case, "cuda", np.random.default_rng(3))
    truth = run(case, "numpy", np.random.default_rng(3))
    assert there.keys() == here.keys() == truth.keys()
    for what, array in there.items():
        assert type(array) is DeviceMemory, f"{what} is on the host"
        assert type(here[what]) is np.ndarray
        assert array.dtype == here[what].dtype
        np.testing.assert_array_equal(np.asarray(array), here[what], err_msg=what, strict=False)
        assert_close(what, here[what], truth[what], rel=1e-4)


@emulated
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.usefixtures("device")
def test_every_operation(dtype: str, rng: np.random.Generator) -> None:
    """On the device and on the host, one beside the other."""
    t, b, n = 5, 3, 7
    draw = lambda *shape: rng.standard_normal(shape).astype(dtype)  # noqa: E731
    x, y, states, d = draw(t, b, n), draw(t, b, n), draw(t + 1, b, n), draw(b, n)
    x[1, 2, 3], states[2, 1, 1] = np.nan, np.inf
    outside = np.array([0, t + 1, t])  # a segment: one has ended before it, one ends after it

    def everything(on: Any) -> Iterator[Any]:
        moved = [on.copy(on.take(OnDevice(a) if on.on_device else a)) for a in (x, y, states, d)]
        x_, y_, states_, d_ = moved
        yield from moved
        yield on.zeros((b, n), x.dtype)
        yield on.upload(y)
        for lengths in ([5, 1, 3], [5, 5, 5], [0, 2, 5]):
            yield on.reverse_time(x_, np.array(lengths))
            padded = on.copy(x_)
            on.zero_padding(padded, np.array(lengths))
            yield padded
            yield on.states_at(states_, np.array(lengths))
            summed = on.copy(states_)
            on.add_at(summed, on.ends(np.array(lengths), t), d_)
            yield summed
        summed = on.copy(states_)
        on.add_at(summed, on.ends(outside, t), d_)
        yield summed
        yield on.swap_time_and_batch(x_)
        yield on.batch_inside(d_)
        yield on.drop_batch(on.batch_inside(d_))
        target = on.copy(states_)
        on.put(target[1:], x_)
        on.clear(target[0])
        yield on.copy(target)
        on.add(target[1:], y_)
        yield on.copy(target)
        on.keep(target[2], d_, np.array([True, False, True]))
        yield on.copy(target)
        yield on.multiply(x_, y_)
        yield on.side_by_side([x_])
        yield on.side_by_side([x_, y_, x_])
        yield on.columns(on.side_by_side([x_, y_]), 3, 9)
        yield on.columns(x_, 0, n)
        yield on.stack([d_, states_[1], d_])

    with Arrays(OnDevice(x)) as there:
        found = list(everything(there))
    for number, (got, want) in enumerate(zip(found, everything(host_arrays), strict=True)):
        assert type(got) is DeviceMemory
        assert (got.dtype, got.flags.c_contiguous) == (want.dtype, True)
        np.testing.assert_array_equal(np.asarray(got), want, err_msg=str(number))


@emulated
def test_nothing_but_weights_lengths_and_masks_goes_there(
    device: EmulatedQueue, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    uploaded: list[Any] = []
    upload = device.upload

    def seen(host: np.ndarray) -> Any:
        uploaded.append(host)
        return upload(host)

    def never(*_: Any) -> None:
        pytest.fail("downloaded")

    monkeypatch.setattr(device, "upload", seen)
    monkeypatch.setattr(device, "download", never)
    lstm = make(Case({"num_layers": 2, "dropout": 0.5}), "cuda")
    weights = [array.shape for array in lstm.parameters.values()]
    x, d_output = (rng.standard_normal(shape, np.float32) for shape in ((T, B, I), (T, B, H)))
    lengths = [(B,)]

    lstm(OnDevice(x), lengths=LENGTHS)
    assert {a.shape for a in uploaded} == {*weights, *lengths}
    uploaded.clear()
    trace = lstm.forward(OnDevice(x), lengths=LENGTHS)
    floats = [a.shape for a in uploaded if a.dtype == np.float32]
    assert sorted(floats) == sorted([*weights, (T, B, H)])
    assert {a.shape for a in uploaded if a.dtype != np.float32} == set(lengths)
    uploaded.clear()
    lstm.backward(trace, OnDevice(d_output))
    assert {(a.shape, a.dtype.name) for a in uploaded} == {((B,), "int32")}


@emulated
@pytest.mark.usefixtures("device")
def test_a_trace_owns_what_it_needs(rng: np.random.Generator) -> None:
    """The caller's x and the layer's weights may change once forward has returned."""
    lstm = make(Case(), "cuda")
    x, d_output = (rng.standard_normal(shape, np.float32) for shape in ((T, B, I), (T, B, H)))
    want = lstm.backward(lstm.forward(OnDevice(x)), OnDevice(d_output))
    trace = lstm.forward(given := OnDevice(x.copy()))
    given.array[...] = np.nan
    for array in lstm.parameters.values():
        array[...] = np.nan
    got = lstm.backward(trace, OnDevice(d_output))
    np.testing.assert_array_equal(np.asarray(got.input), np.asarray(want.input))
    assert np.isfinite(np.asarray(trace.a)).all()
    trace.output[...] = np.nan  # the caller's own
    assert np.isfinite(np.asarray(trace.h)).all()


@emulated
@pytest.mark.usefixtures("device")
def test_arguments_are_read_only(rng: np.random.Generator) -> None:
    lstm = make(Case({"bidirectional": True}), "cuda")
    x, d_output = (rng.standard_normal(shape, np.float32) for shape in ((T, B, I), (T, B, 2 * H)))
    state, d_state = (tuple(rng.standard_normal((2, B, H), np.float32) for _ in range(2)) for _ in range(2))
    given = [OnDevice(a) for a in (x, d_output, *state, *d_state)]
    before = [a.array.copy() for a in given]
    lstm(given[0], tuple(given[2:4]), LENGTHS)
    trace = lstm.forward(given[0], tuple(given[2:4]), LENGTHS)
    lstm.backward(trace, given[1], tuple(given[4:]))
    for one, array in zip(given, before, strict=True):
        np.testing.assert_array_equal(one.array, array)


@emulated
@pytest.mark.usefixtures("device")
def test_weight_drop_and_full(rng: np.random.Generator) -> None:
    x, d_output = (rng.standard_normal(shape, np.float32) for shape in ((T, B, I), (T, B, H)))
    found = []
    for move in (lambda a: a, OnDevice):
        dropping = srnn.WeightDrop(make(Case(), "cuda"), 0.5, rng=np.random.default_rng(5))
        found.append(srnn.bptt.full(dropping, move(x), lambda output, first, move=move: move(d_output), clip=0.5))
    for name, d in found[0].parameters.items():
        assert type(found[1].parameters[name]) is DeviceMemory
        np.testing.assert_array_equal(np.asarray(found[1].parameters[name]), d)


# --- NumPy arrays with this backend, in all that calls its kernels


@emulated
@pytest.mark.usefixtures("device")
def test_every_bptt_with_numpy(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    monkeypatch.setattr(backends.blocks, "SUM_ROWS_CUDA", 4)  # blocks of 4 steps
    steps = 11
    lstm = make(Case({"num_layers": 2}), "cuda")
    assert backends.block_steps(B, "cuda") == 4
    x, d_output = (rng.standard_normal(shape, np.float32) for shape in ((steps, B, I), (steps, B, H)))
    full = srnn.bptt.full(lstm, x, d_output, lengths=(11, 6, 3))
    for got in (
        srnn.bptt.checkpointed(lstm, x, d_output, lengths=(11, 6, 3)),
        srnn.bptt.truncated(lstm, x, d_output, k1=4, k2=steps, lengths=(11, 6, 3)),
        lstm.backward(lstm.forward(x, lengths=(11, 6, 3), trace="minimal"), d_output),
    ):
        for name, d in full.parameters.items():
            np.testing.assert_array_equal(got.parameters[name], d, err_msg=name)
    stream = srnn.bptt.Stream(lstm)
    parts = [stream.forward(x[:5]), stream.forward(x[5:])]
    np.testing.assert_array_equal(np.concatenate([part.output for part in parts]), lstm(x)[0])
    zoneout = srnn.Zoneout(lstm, 0.1, 0.2, rng=rng)
    zoneout.backward(zoneout.forward(x), d_output)
    for window in srnn.bptt.windows(lstm, x, d_output, k1=4, k2=8):
        assert type(window.gradients.input) is np.ndarray
