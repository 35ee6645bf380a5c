"""Weights and configurations from and to torch, and from bare tensors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.interop.state_dict import infer_config, layer_from_safetensors, layer_from_state_dict, select
from scratchrnn.interop.torch import from_module, to_arrays, to_module
from scratchrnn.testing import assert_close

MODULES: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("RNN", (5, 4), {}),
    ("RNN", (5, 4, 3), {"nonlinearity": "relu", "bias": False, "batch_first": True, "bidirectional": True}),
    ("LSTM", (5, 4), {}),
    ("LSTM", (5, 4, 2), {"bidirectional": True, "proj_size": 3, "dropout": 0.3}),
    ("RNNCell", (5, 4), {"nonlinearity": "relu"}),
    ("LSTMCell", (5, 4), {"bias": False}),
    ("Linear", (5, 4), {"bias": False}),
    ("Linear", (5, 4), {}),
    ("Embedding", (5, 4), {"padding_idx": 2}),
]


def arrays(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple):
        return [a for v in value for a in arrays(v)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")  # torch on its own code paths
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "args", "options"), MODULES)
def test_module_and_layer_compute_the_same(
    name: str, args: tuple[Any, ...], options: dict[str, Any], dtype: str, rng: np.random.Generator
) -> None:
    m = getattr(torch.nn, name)(*args, **options, dtype=getattr(torch, dtype)).eval()
    layer = from_module(m)
    assert type(layer).__name__ == name
    assert layer.dtype == dtype
    x = rng.integers(0, 5, (3, 2)) if name == "Embedding" else rng.standard_normal((3, 5)).astype(dtype)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    for got, want in zip(arrays(layer(x)), arrays(m(torch.from_numpy(x))), strict=True):
        assert_close(name, got, want, rel=tolerance)

    back = to_module(layer)
    assert repr(back) == repr(m)
    assert list(back.state_dict()) == list(m.state_dict())
    for key, tensor in m.state_dict().items():
        assert torch.equal(back.state_dict()[key], tensor)
        assert not np.shares_memory(layer.parameters[key], tensor.numpy())


def test_to_module_leaves_torchs_generator_alone() -> None:
    layer = srnn.LSTM(5, 4)
    torch.manual_seed(3)
    want = torch.randn(2)
    torch.manual_seed(3)
    to_module(layer)
    assert torch.equal(torch.randn(2), want)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: torch.nn.GRU(3, 4), TypeError, "m: expected one of torch.nn's RNN, LSTM, .*; got .*GRU"),
        (lambda: 3, TypeError, "m: expected one of torch.nn's .*; got builtins.int"),
        (lambda: torch.nn.LSTM(3, 4).half(), TypeError, "weight_ih_l0: expected dtype float32 or float64; got float16"),
        (lambda: torch.nn.LSTM(3, 4, device="meta"), TypeError, "weight_ih_l0: expected a tensor on the CPU"),
        (lambda: torch.nn.Embedding(3, 4, max_norm=1.0), ValueError, "no max_norm here; got max_norm=1.0"),
        (lambda: torch.nn.Embedding(3, 4, sparse=True), ValueError, "no sparse here"),
        (
            lambda: torch.nn.utils.parametrizations.weight_norm(torch.nn.RNN(3, 4), "weight_hh_l0"),
            ValueError,
            "missing weight_hh_l0; unexpected parametrizations",
        ),
    ],
)
def test_from_module_refuses(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        from_module(make())


def test_from_module_refuses_two_dtypes() -> None:
    m = torch.nn.RNN(3, 4)
    m.bias_hh_l0.data = m.bias_hh_l0.data.double()
    with pytest.raises(TypeError, match="m: expected one dtype; got float32 and float64"):
        from_module(m)


def test_to_module_refuses_what_torch_has_not() -> None:
    with pytest.raises(TypeError, match="layer: expected one of RNN, LSTM"):
        to_module(srnn.Dropout(0.5))


def test_without_torch_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match=r"pip install torch==2.13.0"):
        to_module(srnn.RNN(3, 4))


# State dicts


@pytest.mark.parametrize("prefix", ["", "model.rnn."])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("kind", "proj"), [("RNN", 0), ("LSTM", 0), ("LSTM", 2), ("LSTM", 1)])
def test_configuration_is_read_from_names_and_shapes(
    kind: str, proj: int, bias: bool, layers: int, bidirectional: bool, prefix: str
) -> None:
    options = {"proj_size": proj} if proj else {}
    m = getattr(torch.nn, kind)(5, 4, layers, bias=bias, bidirectional=bidirectional, **options)
    tensors = {prefix + name: array for name, array in to_arrays(m.state_dict()).items()}
    tensors |= {"decoder.weight": np.zeros((2, 2), np.float32)} if prefix else {}
    config = infer_config(tensors, prefix=prefix or None)
    assert (config.cell, config.input_size, config.hidden_size) == (kind.lower(), 5, 4)
    assert (config.num_layers, config.bias) == (layers, bias)
    assert (config.bidirectional, config.proj_size) == (bidirectional, proj)
    layer = layer_from_state_dict(tensors, prefix=prefix.rstrip(".") or None)
    assert repr(layer) == repr(from_module(m))
    for name, array in to_arrays(m.state_dict()).items():
        assert (layer.parameters[name] == array).all()


def state(**changes: Any) -> dict[str, Any]:
    tensors = dict(srnn.LSTM(5, 4, num_layers=2).state_dict())
    for name, value in changes.items():
        tensors.pop(name, None)
        if value is not None:
            tensors[name] = value
    return tensors


F = np.float32


@pytest.mark.parametrize(
    ("tensors", "error", "message"),
    [
        (state(weight_hh_l1=None), ValueError, "missing weight_hh_l1"),
        (state(weight_hh_l0=None), ValueError, "missing weight_hh_l0"),
        (state(weight_ih_l3=np.zeros((16, 4), F)), ValueError, "missing weight_ih_l2"),
        (state(weight_ih_l999999999=np.zeros((16, 4), F)), ValueError, "missing weight_ih_l2"),
        (state(scale=np.zeros(3, F)), ValueError, "unexpected scale"),
        (state(bias_ih_l1=np.zeros(3, F)), ValueError, r"bias_ih_l1: expected shape \(16,\) for LSTM.*; got \(3,\)"),
        (state(weight_hh_l0=np.zeros(3, F)), ValueError, r"weight_hh_l0: expected a matrix; got shape \(3,\)"),
        (state(weight_hh_l0=np.zeros((15, 4), F)), ValueError, "expected 4·H rows for an LSTM or H for an RNN"),
        (state(weight_hh_l0=np.zeros((12, 4), F)), ValueError, "those of a GRU, which is not supported"),
        (state(bias_ih_l1=np.zeros(16)), TypeError, "bias_ih_l1: expected dtype float32; got float64"),
        (state(weight_ih_l0=np.zeros((16, 5), np.float16)), TypeError, "weight_ih_l0: expected .*; got float16"),
        (state(weight_ih_l0=[[0.0] * 5] * 16), TypeError, "weight_ih_l0: expected an array; got list"),
        (state(weight_hh_l0="no"), TypeError, "weight_hh_l0: expected an array; got str 'no'"),
        ({}, ValueError, "no tensor without a prefix has a name such as weight_ih_l0; nor under any prefix"),
        (
            {"a.weight_ih_l0": 0, "b.c.weight_ih_l0": 0},
            ValueError,
            "under the prefix 'a.', 'b.c.': say which",
        ),
        (
            {
                "weight_ih_l0": np.zeros((4, 5), F),
                "weight_hh_l0": np.zeros((4, 2), F),
                "weight_hr_l0": np.zeros((2, 4), F),
            },
            ValueError,
            "a projection, which an RNN has not",
        ),
    ],
)
def test_state_dict_that_fits_no_layer(tensors: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        layer_from_state_dict(tensors)


def test_wrong_prefix_lists_the_right_ones() -> None:
    with pytest.raises(ValueError, match=r"no tensor under 'enc' has .*; there are some under the prefix 'rnn.'"):
        select({"rnn.weight_ih_l0": 0}, "enc")


def test_safetensors_files_of_both_origins(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    own = srnn.RNN(5, 4, nonlinearity="relu", bidirectional=True)
    own.save(tmp_path / "own.safetensors")
    layer = layer_from_safetensors(tmp_path / "own.safetensors")
    assert repr(layer) == repr(own)  # the metadata tells relu

    m = torch.nn.RNN(5, 4, nonlinearity="relu")
    save_file({f"rnn.{k}": v for k, v in m.state_dict().items()}, tmp_path / "torch.safetensors")
    layer = layer_from_safetensors(tmp_path / "torch.safetensors", "relu", prefix="rnn")
    assert repr(layer) == repr(from_module(m))
    with pytest.raises(ValueError, match=r"torch.safetensors: prefix: .* 'rnn.': say which"):
        layer_from_safetensors(tmp_path / "torch.safetensors")


@pytest.mark.parametrize("taught", [False, True], ids=["NumPy alone", "ml_dtypes"])
def test_other_tensors_of_a_file_may_be_of_dtypes_that_numpy_has_not(tmp_path: Path, taught: bool) -> None:
    if taught:
        pytest.importorskip("ml_dtypes")  # which onnx brings; from then on NumPy reads bfloat16
    from safetensors.torch import save_file

    m, path = torch.nn.LSTM(5, 4), tmp_path / "mixed.safetensors"
    rnn = {f"rnn.{k}": v for k, v in m.state_dict().items()}
    save_file({**rnn, "embedding": torch.zeros(3, 2, dtype=torch.bfloat16)}, path)
    assert repr(layer_from_safetensors(path, prefix="rnn")) == repr(from_module(m))
    with pytest.raises(ValueError, match=r"mixed.safetensors: prefix: .* 'rnn.': say which"):
        layer_from_safetensors(path)
    save_file({name: value.bfloat16() for name, value in rnn.items()}, path)
    with pytest.raises(ValueError, match=r"mixed.safetensors: rnn.\w+: expected dtype float32 or float64; .*bfloat16"):
        layer_from_safetensors(path, prefix="rnn.")
