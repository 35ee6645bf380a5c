"""The comparison with torch: it passes what is right, catches every planted error, and says where it stands."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.check import against_torch, gradcheck_layer, torch_truth
from scratchrnn.interop.torch import to_module
from tests.mutants import MUTANTS, Mutant

LENGTHS = [4, 7, 1]
KINDS: dict[str, dict[str, Any]] = {
    "tanh": {"nonlinearity": "tanh"},
    "relu": {"nonlinearity": "relu"},
    "lstm": {},
    "projected": {"proj_size": 2},
}


def make(kind: str, rng: np.random.Generator, dtype: Any = np.float64, **options: Any) -> srnn.RNN | srnn.LSTM:
    cls = srnn.RNN if kind in ("tanh", "relu") else srnn.LSTM
    return cls(5, 4, **KINDS[kind] | options, dtype=dtype, rng=rng)


def draw(rng: np.random.Generator, *shape: int, dtype: Any = np.float64) -> np.ndarray:
    return rng.standard_normal(shape).astype(dtype)


DEEP = {"num_layers": 2, "bidirectional": True}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_right_gradients_pass_both_checkers(kind: str, dtype: Any, rng: np.random.Generator) -> None:
    layer = make(kind, rng, dtype, **DEEP)
    report = against_torch(layer, draw(rng, 7, 3, 5, dtype=dtype), lengths=LENGTHS, rng=rng)
    assert report.ok, report
    if dtype is np.float64:
        gradients = gradcheck_layer(layer, draw(rng, 7, 3, 5), lengths=LENGTHS, rng=rng, elements=4)
        assert gradients.ok, gradients


def test_every_quantity_is_there(rng: np.random.Generator) -> None:
    report = against_torch(make("projected", rng, **DEEP), draw(rng, 7, 3, 5))
    sides = ["l0", "l0_reverse", "l1", "l1_reverse"]
    per_step = [f"{name}_{side}" for name in ("h", "c", "i", "f", "g", "o", "a", "dh", "dc", "da") for side in sides]
    names = ["weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr"]
    parameters = [f"d{name}_{side}" for name in names for side in sides]
    outer = ["output", "output'", "h_n", "h_n'", "c_n", "c_n'", "dx", "dh_0", "dc_0"]
    assert sorted(row.quantity for row in report.rows) == sorted(per_step + parameters + outer)
    # the cell loop is held to torch.nn in all that torch.nn shows
    assert {row.quantity for row in report.rows if row.loop is not None} == {*outer, *parameters}


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_planted_error_is_caught_by_both_checkers(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    layer = make(mutant.kind, rng, **DEEP)
    x = draw(rng, 7, 3, 5)
    mutant.plant(monkeypatch)
    assert not against_torch(layer, x, lengths=LENGTHS, rng=rng).ok
    assert not gradcheck_layer(layer, x, lengths=LENGTHS, rng=rng, elements=0).ok


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_planted_error_is_caught_in_float32(
    mutant: Mutant, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    layer = make(mutant.kind, rng, np.float32, **DEEP)
    mutant.plant(monkeypatch)
    assert not against_torch(layer, draw(rng, 7, 3, 5, dtype=np.float32), lengths=LENGTHS, rng=rng).ok


def test_derivative_of_relu_at_zero_is_torchs(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    layer = make("relu", rng, bias=False)
    x = np.zeros((7, 3, 5))  # every pre-activation is exactly zero
    assert against_torch(layer, x, rng=rng).ok
    Mutant("relu", "rnn", "step_backward", "h <= 0", "h < 0").plant(monkeypatch)
    report = against_torch(layer, x, rng=rng)
    assert not report.ok
    assert "da_l0" in {row.quantity for row in report.failures}


def test_padding_must_be_exactly_zero(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    Mutant("lstm", "affine", "backward", "dx[block][beyond] = 0", "dx[block][beyond] = 1e-300").plant(monkeypatch)
    report = against_torch(make("lstm", rng), draw(rng, 7, 3, 5), lengths=LENGTHS)
    assert [row.quantity for row in report.failures] == ["dx"]
    assert "expected exactly zero beyond a sequence's end" in str(report["dx"])


# Where


@pytest.mark.parametrize(
    ("name", "index", "where"),
    [
        ("f_l0", (3, 1, 2), "t=3 f[2] sample 1"),
        ("f_l0_reverse", (3, 1, 2), "t=3 f[2] sample 1"),  # sample 1 has 7 steps: its reverse step 3 reads x[3]
        ("a_l0_reverse", (1, 0, 13), "t=2 o[1] sample 0"),  # sample 0 has 4: its reverse step 1 reads x[2]
        ("c_l0", (0, 2, 1), "start c[1] sample 2"),
        ("h_l0_reverse", (1, 0, 3), "t=3 h[3] sample 0"),
    ],
)
def test_where_names_step_gate_unit_sample(
    name: str, index: tuple[int, ...], where: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    layer = make("lstm", rng, bidirectional=True)
    forward = layer.forward

    def off_by_a_little(*args: Any, **options: Any) -> srnn.Trace:
        trace = forward(*args, **options)
        side = "reverse" if name.endswith("_reverse") else "forward"
        getattr(trace[0, side], name[0])[index] += 1e-3
        return trace

    monkeypatch.setattr(layer, "forward", off_by_a_little)
    row = against_torch(layer, draw(rng, 7, 3, 5), lengths=LENGTHS)[name]
    assert not row.ok
    assert (row.index, row.where) == (index, where)
    assert row.got - row.want == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("name", "index", "where"),
    [
        ("weight_ih_l0", (9, 3), "g[1] in[3]"),
        ("weight_hh_l0", (2, 1), "i[2] h[1]"),
        ("bias_ih_l0", (15,), "o[3]"),
        ("weight_hr_l0", (1, 3), "h[1] m[3]"),
    ],
)
def test_where_in_a_parameter(
    name: str, index: tuple[int, ...], where: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    layer = make("projected", rng)
    backward = layer.backward

    def off_by_a_little(*args: Any) -> srnn.Gradients:
        grads = backward(*args)
        grads.parameters[name][index] += 1
        return grads

    monkeypatch.setattr(layer, "backward", off_by_a_little)
    report = against_torch(layer, draw(rng, 7, 3, 5))
    assert [(row.quantity, row.where) for row in report.failures] == [(f"d{name}", where)]


@pytest.mark.parametrize(
    ("batch_first", "name", "index", "where"),
    [
        (False, "output", (3, 1, 2), "t=3 h[2] sample 1"),
        (True, "output", (1, 3, 6), "t=3 reverse h[2] sample 1"),
        (True, "dx", (1, 3, 4), "t=3 x[4] sample 1"),
        (False, "h_n", (3, 2, 0), "l1_reverse h[0] sample 2"),
        (False, "dc_0", (0, 2, 0), "l0 c[0] sample 2"),
    ],
)
def test_where_in_what_torch_shows(
    batch_first: bool, name: str, index: tuple[int, ...], where: str, rng: np.random.Generator
) -> None:
    from scratchrnn.check.where import Geometry

    geometry = Geometry("lstm", 4, 4, 2, batch_first, True, np.array(LENGTHS))
    assert geometry.where(name, index) == where


# What goes in


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_each_cotangent_may_be_absent(kind: str, batch_first: bool, rng: np.random.Generator) -> None:
    layer = make(kind, rng, batch_first=batch_first, **DEEP)
    x = draw(rng, 3, 7, 5) if batch_first else draw(rng, 7, 3, 5)
    output, final = layer(x)
    d_output = draw(rng, *output.shape)
    two = isinstance(final, tuple)
    d_h = draw(rng, *(final[0] if two else final).shape)
    choices: list[Any] = [(d_output, None), (None, d_h)]
    if two:
        d_c = draw(rng, *final[1].shape)
        choices = [(d_output, None), (d_output, (d_h, d_c))]
        choices += [(None, pair) for pair in ((d_h, None), (None, d_c), (None, None))]
    state = (draw(rng, *d_h.shape), draw(rng, *final[1].shape)) if two else draw(rng, *d_h.shape)
    for d_out, d_state in choices:
        report = against_torch(layer, x, state, LENGTHS, d_out, d_state)
        assert report.ok, report


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_never_read(kind: str, rng: np.random.Generator) -> None:
    x = draw(rng, 7, 3, 5)
    for b, n in enumerate(LENGTHS):
        x[n:, b] = np.nan
    report = against_torch(make(kind, rng, **DEEP), x, lengths=LENGTHS)
    assert report.ok, report


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_torch_module_and_tensors_are_taken(dtype: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    m = torch.nn.LSTM(5, 4, 2, dtype=dtype, dropout=0.5)
    before = {name: p.clone() for name, p in m.named_parameters()}
    x = torch.randn(7, 5, generator=generator, dtype=dtype)
    state = (torch.randn(2, 4, generator=generator, dtype=dtype), torch.randn(2, 4, generator=generator, dtype=dtype))
    report = against_torch(m, x, state)
    assert report.ok, report
    batch = torch.randn(7, 3, 5, generator=generator, dtype=dtype)
    report = against_torch(m, batch, lengths=torch.tensor(LENGTHS), d_output=torch.ones(7, 3, 4, dtype=dtype))
    assert report.ok, report
    assert m.training
    assert all(p.grad is None and torch.equal(p, before[name]) for name, p in m.named_parameters())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"module": torch.nn.GRU(5, 4)}, TypeError, "module: expected an RNN or LSTM, of .*; got GRU"),
        ({"x": np.zeros((7, 3, 5), np.float32)}, TypeError, "x: expected dtype float64; got float32"),
        ({"x": np.zeros((7, 3, 6))}, ValueError, "x: expected a last axis of input_size=5"),
        ({"lengths": [4, 8, 1]}, ValueError, "lengths: expected values from 1 to 7"),
        ({"state": np.zeros((1, 3, 5))}, ValueError, "h_0: expected shape"),
        ({"d_output": np.zeros((7, 3, 5))}, ValueError, "d_output: expected shape"),
        ({"backend": "numpy"}, ValueError, "backend: expected None, since the layer has its own"),
    ],
)
def test_bad_input(change: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator) -> None:
    arguments = {"module": make("tanh", rng), "x": draw(rng, 7, 3, 5)} | change
    with pytest.raises(error, match=message):
        against_torch(**arguments)


# The oracle and the rule


def test_a_wrong_oracle_is_no_pass(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    cell = torch_truth._cell

    def scaled(*args: Any) -> dict[str, Any]:
        values = cell(*args)
        values["h"] = values["h"] * (1 + 1e-9)
        values["h"].retain_grad()
        return values

    monkeypatch.setattr(torch_truth, "_cell", scaled)
    row = against_torch(make("tanh", rng), draw(rng, 7, 3, 5))["output"]
    assert row.ours <= row.allowed
    assert not row.ok
    assert "torch.nn and the torch cell loop differ" in str(row)


def test_float32_error_beyond_torchs_is_no_pass(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Sums in half precision would be right in every formula, and still wrong."""
    layer = make("lstm", rng, np.float32)
    x = draw(rng, 7, 3, 5, dtype=np.float32)
    assert against_torch(layer, x).ok
    Mutant("lstm", "lstm", "step_backward", "return da, dc", "return da.astype(np.float16), dc").plant(monkeypatch)
    report = against_torch(layer, x)
    assert not report["da_l0"].ok
    assert report["da_l0"].amplified is not None
    assert report["dc_0"].ok


def test_nan_is_no_pass(rng: np.random.Generator) -> None:
    layer = make("tanh", rng)
    layer.parameters["weight_hh_l0"][1, 2] = np.nan
    assert not against_torch(layer, draw(rng, 7, 3, 5)).ok


@pytest.mark.parametrize("wrong", [np.zeros((7, 3, 5), np.float32), np.zeros((7, 3, 4)), None])
def test_wrong_shape_or_dtype_is_no_pass(wrong: Any, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    layer = make("tanh", rng)
    backward = layer.backward

    def changed(*args: Any) -> srnn.Gradients:
        grads = backward(*args)
        return srnn.Gradients(wrong, grads.state, grads.parameters, grads.layers)

    monkeypatch.setattr(layer, "backward", changed)
    report = against_torch(layer, draw(rng, 7, 3, 5))
    assert [row.quantity for row in report.failures] == ["dx"]
    assert "dx: expected shape (7, 3, 5), dtype float64; got" in str(report)


def test_report_is_json(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x = draw(rng, 7, 3, 5)
    report = against_torch(layer, x)
    assert json.loads(json.dumps(report.to_dict(), allow_nan=False))["ok"] is True
    assert f"{len(report.rows)} quantities match torch" in str(report)
    Mutant("lstm", "affine", "backward", "dbias_hh += dbias", "dbias_hh[...] = np.nan").plant(monkeypatch)
    report = against_torch(layer, x)
    facts = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert facts["ok"] is False
    assert [row["quantity"] for row in facts["rows"] if not row["ok"]] == ["dbias_hh_l0"]
    with pytest.raises(KeyError, match="no quantity 'nothing'; there is output"):
        report["nothing"]


def test_backend_of_a_torch_module(rng: np.random.Generator) -> None:
    m = to_module(make("tanh", rng))
    assert against_torch(m, draw(rng, 7, 3, 5), backend="numpy").backend == "numpy"
    with pytest.raises(ValueError, match="unknown name 'abacus'"):
        against_torch(m, draw(rng, 7, 3, 5), backend="abacus")
