"""Jacobians of spans: singular values against autograd and exact arithmetic, connectivity against autograd."""

from __future__ import annotations

import importlib
import itertools
from typing import Any

import mpmath  # torch brings it
import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn._typing import FloatArray
from scratchrnn.gradflow import Linearized, connectivity, jacobians, singular_values
from scratchrnn.testing import TOLERANCE, assert_close
from scratchrnn.trace import Trace

T, B, I, H, L = 7, 3, 4, 5, 2
LENGTHS = [7, 4, 1]
KINDS: dict[str, Any] = {
    "rnn": (srnn.RNN, {}),
    "relu": (srnn.RNN, {"nonlinearity": "relu"}),
    "lstm": (srnn.LSTM, {}),
    "projected": (srnn.LSTM, {"proj_size": 3}),
}


@pytest.fixture(params=KINDS)
def layer(request: pytest.FixtureRequest, rng: np.random.Generator) -> Any:
    kind, options = KINDS[request.param]
    made = kind(I, H, L, dtype=np.float64, rng=rng, **options)
    for weight in made.parameters.values():
        weight *= 2  # away from the linear part
    return made


def autograd(layer: Any, x: FloatArray, start: int, stop: int, initial: FloatArray, *, inputs: bool = False) -> Any:
    """∂s_stop/∂s_start, or all ∂h_t/∂x_s of the last layer, of one sequence (T, I), by torch.nn and autograd."""
    module = srnn.interop.torch.to_module(layer)
    sizes = [layer.output_size, layer.hidden_size] if layer.cell.has_c else [layer.output_size]
    read = torch.tensor(x)

    def run(s: torch.Tensor, steps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = torch.split(s, sizes * L)
        state = [torch.stack(parts[n :: len(sizes)]) for n in range(len(sizes))]
        output, after = module(steps, tuple(state) if len(state) == 2 else state[0])
        after = after if isinstance(after, tuple) else (after,)
        return output, torch.cat([array[n] for n in range(L) for array in after])

    s = torch.tensor(initial)
    if inputs:
        return torch.autograd.functional.jacobian(lambda u: run(s, u)[0], read).numpy()  # (T, P, T, I)
    if start:
        s = run(s, read[:start])[1].detach()
    if start == stop:
        return np.eye(len(s))
    return torch.autograd.functional.jacobian(lambda s: run(s, read[start:stop])[1], s).numpy()


def traced(layer: Any, rng: np.random.Generator) -> tuple[FloatArray, Trace, FloatArray]:
    """x (T, B, I), a trace with lengths, initial s (B, S)."""
    x = rng.standard_normal((T, B, I))
    state = tuple(rng.standard_normal(shape) for shape in layer._state_shapes(B, True))
    trace = layer.forward(x, state if len(state) == 2 else state[0], LENGTHS)
    return x, trace, Linearized(trace).states(0)


# Singular values


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (2, 3), (1, 5), (4, 4), (0, 0), (7, 7)])
def test_singular_values_are_those_of_autograd(
    layer: Any, start: int, stop: int, rng: np.random.Generator, each_backend: str
) -> None:
    x, trace, initial = traced(layer, rng)
    slices = Linearized(trace).slices
    whole = slice(0, initial.shape[1])
    ends = [(min(start, length), min(stop, length)) for length in LENGTHS]
    products = [autograd(layer, x[:, b], *span, initial[b]) for b, span in enumerate(ends)]
    parts = [None, (0, "h"), (1, "c" if layer.cell.has_c else "h")]
    for of, wrt in itertools.product(parts, parts):
        got = singular_values(trace, start, stop, of=of, wrt=wrt)
        assert (got.start, got.stop) == (start, stop)
        for b, product in enumerate(products):
            part = product[slices.get(of, whole), slices.get(wrt, whole)]
            want = np.linalg.svd(part, compute_uv=False)
            # an SVD knows the values to eps of the largest, and those of a part to eps of the product it was cut from
            atol = 1e-14 * np.linalg.norm(product)
            np.testing.assert_allclose(got.values[b], want, rtol=1e-10, atol=atol)


def exact_log(trace: Trace, b: int, start: int, stop: int, rows: slice, columns: slice) -> FloatArray:
    linear = Linearized(trace)
    with mpmath.workdps(300):
        product = mpmath.eye(linear.size)
        for t in range(start, stop):
            product = mpmath.matrix(linear.state_jacobian(t)[b].tolist()) * product
        part = product[rows.start : rows.stop, columns.start : columns.stop]
        values = mpmath.svd_r(part if part.rows >= part.cols else part.T, compute_uv=False)
        return np.array([float(mpmath.log(value)) for value in values])


@pytest.mark.parametrize("kind", ["rnn", "lstm", "projected"])
def test_small_singular_values_have_their_digits(kind: str, rng: np.random.Generator) -> None:
    """Down to e^-100 of the largest, where the product's own rounding is e^-36."""
    make, options = KINDS[kind]
    layer = make(I, 3 if kind == "rnn" else 4, L, dtype=np.float64, rng=rng, **options)
    trace = layer.forward(rng.standard_normal((60, 1, I)))
    slices = Linearized(trace).slices
    whole = slice(0, Linearized(trace).size)
    for start, stop in ((0, 60), (20, 25)):
        for of, wrt in ((None, None), ((1, "h"), None), (None, (0, "h"))):
            got = singular_values(trace, start, stop, of=of, wrt=wrt).log[0]
            want = exact_log(trace, 0, start, stop, slices.get(of, whole), slices.get(wrt, whole))
            np.testing.assert_allclose(got, want, atol=1e-9)  # of logarithms: nine digits of each value
            assert stop == 25 or of or wrt or want[-1] < want[0] - 100


def test_small_values_that_come_first_have_their_digits() -> None:
    """Upper triangular, the fading directions first: QR from the identity alone would take them for the others'."""
    rnn = srnn.RNN(1, 4, nonlinearity="relu", bias=False, dtype=np.float64)
    rnn.weight_hh_l0 = np.array([[0.1, 0.5, 0.3, 0.4], [0, 0.3, 0.1, 0.3], [0, 0, 0.9, 0.2], [0, 0, 0, 2.0]])
    trace = rnn.forward(np.zeros((60, 1, 1)), np.ones((1, 1, 4)))
    want = exact_log(trace, 0, 0, 60, slice(0, 4), slice(0, 4))
    assert want[0] > want[3] + 150
    np.testing.assert_allclose(singular_values(trace, 0, 60).log[0], want, atol=1e-9)


@pytest.mark.parametrize(("factor", "initial"), [(0.5, 1e300), (2.0, 1e-300)])
def test_beyond_the_range_of_float64(factor: float, initial: float) -> None:
    rnn = srnn.RNN(1, 2, nonlinearity="relu", bias=False, dtype=np.float64)
    rnn.weight_hh_l0 = np.diag([factor, factor * 0.9])
    trace = rnn.forward(np.zeros((1500, 1, 1)), np.full((1, 1, 2), initial))
    got = singular_values(trace, 0, 1500)
    np.testing.assert_allclose(got.log[0], 1500 * np.log([factor, factor * 0.9]), rtol=1e-12)
    assert (got.values == (0 if factor < 1 else np.inf)).all()


def test_long_lstm_product_underflows_only_in_its_values(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(2, 3, dtype=np.float64, rng=rng)
    trace = lstm.forward(rng.standard_normal((2000, 2, 2)))
    got = singular_values(trace, 0, 2000)
    assert np.isfinite(got.log[:, :2]).all()
    assert (got.log[:, 0] < -750).all()
    assert (got.values == 0).all()
    halves = singular_values(trace, 0, 1000).log[:, 0] + singular_values(trace, 1000, 2000).log[:, 0]
    assert (got.log[:, 0] <= halves + 1e-9).all()  # ‖AB‖ <= ‖A‖ ‖B‖
    assert (got.log[:, 0] > halves - 20).all()


def test_lower_rank_is_exact(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(1, 4, nonlinearity="relu", dtype=np.float64, rng=rng)
    rnn.weight_hh_l0 = rng.uniform(0.1, 0.5, (4, 4))
    rnn.weight_ih_l0 = np.zeros((4, 1))
    rnn.bias_ih_l0, rnn.bias_hh_l0 = np.array([1.0, -50.0, 1.0, 1.0]), np.zeros(4)  # unit 1 never fires
    trace = rnn.forward(np.zeros((9, 2, 1)))
    got = singular_values(trace, 0, 9)
    assert (got.log[:, 3] == -np.inf).all()
    assert (got.values[:, 3] == 0).all()
    product = np.linalg.multi_dot(jacobians(trace).state[::-1, 0])
    np.testing.assert_allclose(got.values[0, :2], np.linalg.svd(product)[1][:2], rtol=1e-8)


def test_nan_stays_in_its_sample(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(1, 3, dtype=np.float64, rng=rng)
    x = rng.standard_normal((5, 2, 1))
    x[2, 1] = np.nan
    got = singular_values(rnn.forward(x), 0, 5)
    assert np.isfinite(got.log[0]).all()
    assert np.isnan(got.log[1]).all()
    found = connectivity(rnn.forward(x)).norm
    assert np.isfinite(found[0]).all()
    assert np.isnan(found[1, 2:, 0]).all()


# Jacobians of all steps


def test_jacobians_of_every_step(layer: Any, rng: np.random.Generator) -> None:
    x, trace, initial = traced(layer, rng)
    got = jacobians(trace)
    size = initial.shape[1]
    assert got.state.shape == (T, B, size, size)
    assert got.input.shape == (T, B, size, I)
    assert got.slices == Linearized(trace).slices
    for b, length in enumerate(LENGTHS):
        product = np.eye(size)
        for t in range(T):
            product = got.state[t, b] @ product
        assert_close("product", product, autograd(layer, x[:length, b], 0, length, initial[b]), rel=1e-11)
        want = autograd(layer, x[:length, b], 0, length, initial[b], inputs=True)
        for t in range(length):
            assert_close("input", got.input[t, b, Linearized(trace).output], want[t, :, t], rel=1e-11)
        assert not got.input[length:, b].any()


# Connectivity


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_connectivity_is_that_of_autograd(
    layer: Any, chunk: int, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, trace, initial = traced(layer, rng)
    weight = rng.standard_normal((6, layer.output_size))
    module = importlib.import_module("scratchrnn.gradflow.connectivity")  # the package's attribute is the function
    monkeypatch.setattr(module, "_BYTES", chunk * B * initial.shape[1] * I * 8)
    plain, read = connectivity(trace, units=True), connectivity(trace, readout=weight, units=True)
    assert plain.units is not None
    assert read.units is not None
    assert plain.lengths.tolist() == LENGTHS
    for b, length in enumerate(LENGTHS):
        exact = np.zeros((T, layer.output_size, T, I))
        exact[:length, :, :length] = autograd(layer, x[:length, b], 0, length, initial[b], inputs=True)
        logits = np.einsum("vp,tpsi->tvsi", weight, exact)
        for name, got, want in (("h", plain, exact), ("logits", read, logits)):
            assert_close(f"{name} norm", got.norm[b], np.sqrt((want**2).sum(axis=(1, 3))), rel=1e-11)
            norms = np.sqrt((want**2).sum(axis=3)).transpose(0, 2, 1)
            assert_close(f"{name} units", got.units[b], norms, rel=1e-11)
    assert connectivity(trace).units is None


def test_connectivity_of_a_lower_layer_and_without_underflow(rng: np.random.Generator) -> None:
    stack = srnn.RNN(2, 3, 2, dtype=np.float64, rng=rng)
    x = rng.standard_normal((40, 1, 2))
    below = srnn.RNN(2, 3, dtype=np.float64, rng=rng)
    below.load_state_dict({name: stack.parameters[name] for name in below.parameters})
    want = connectivity(below.forward(x)).norm
    assert_close("norm", connectivity(stack.forward(x), layer=0).norm, want, rel=TOLERANCE["float64"])
    trace = stack.forward(x)
    assert_close("last layer", connectivity(trace, layer=1).norm, connectivity(trace).norm, rel=0)
    zeros = np.zeros_like(x)
    plain = connectivity(below.forward(zeros)).norm
    below.weight_ih_l0 *= 1e-200  # whose square is zero; the states are the same without input
    assert_close("scaled", connectivity(below.forward(zeros)).norm * 1e200, plain, rel=TOLERANCE["float64"])


def test_results_have_one_precision(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(2, 3, rng=rng)
    trace = lstm.forward(rng.standard_normal((5, 2, 2)).astype(np.float32))
    assert singular_values(trace, 0, 5).log.dtype == connectivity(trace).norm.dtype == np.float64
    assert jacobians(trace).state.dtype == np.float32


# Bad input


def test_bad_arguments(rng: np.random.Generator) -> None:
    trace = srnn.LSTM(2, 3, dtype=np.float64, rng=rng).forward(rng.standard_normal((5, 2, 2)))
    both = srnn.LSTM(2, 3, bidirectional=True, rng=rng).forward(np.zeros((5, 2, 2), np.float32))
    for call in (jacobians, connectivity, lambda trace: singular_values(trace, 0, 1)):
        with pytest.raises(TypeError, match="trace: expected what forward of"):
            call(np.zeros(3))  # type: ignore[operator]
        with pytest.raises(ValueError, match="trace: expected one direction"):
            call(both)  # type: ignore[operator]
    for start, stop, message in (
        (-1, 2, "start: expected an integer from 0 to 5; got -1"),
        (3, 2, "stop: expected an integer from 3 to 5; got 2"),
        (0, 6, "stop: expected an integer from 0 to 5; got 6"),
    ):
        with pytest.raises(ValueError, match=message):
            singular_values(trace, start, stop)
    with pytest.raises(ValueError, match=r"of: expected one of \(0, 'h'\), \(0, 'c'\); got \(1, 'h'\)"):
        singular_values(trace, 0, 1, of=(1, "h"))
    with pytest.raises(ValueError, match=r"wrt: expected one of .* got 'h'"):
        singular_values(trace, 0, 1, wrt="h")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"of: expected one of .* got \[0, 'h'\]"):
        singular_values(trace, 0, 1, of=[0, "h"])  # type: ignore[arg-type]
    empty = srnn.LSTM(2, 3, dtype=np.float64, rng=rng).forward(np.zeros((5, 0, 2)))
    with pytest.raises(ValueError, match="trace: expected at least one sequence; got a batch of 0"):
        singular_values(empty, 0, 1)
    with pytest.raises(ValueError, match="layer: expected an integer from 0 to 0; got 1"):
        connectivity(trace, layer=1)
    with pytest.raises(ValueError, match=r"readout: expected shape \(V, 3\), .* got \(3, 4\)"):
        connectivity(trace, readout=np.zeros((3, 4)))
    with pytest.raises(TypeError, match="readout: expected dtype float64"):
        connectivity(trace, readout=np.zeros((4, 3), np.float32))
    with pytest.raises(TypeError, match="units: expected True or False"):
        connectivity(trace, units=1)  # type: ignore[arg-type]
