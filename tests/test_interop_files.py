"""A wrong file or state dict is an error that says what is wrong, and nothing of it is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save

import scratchrnn as srnn
from scratchrnn.interop.state_dict import layer_from_safetensors
from scratchrnn.testing import assert_close

READERS: dict[str, Callable[[Path], Any]] = {"load": srnn.LSTM.load, "bare": layer_from_safetensors}
Weights = dict[str, np.ndarray]


def layer() -> srnn.LSTM:
    return srnn.LSTM(2, 1, rng=np.random.default_rng(0))


def without(name: str) -> Callable[[Weights], Weights]:
    return lambda state: {key: array for key, array in state.items() if key != name}


def with_(name: str, array: Any) -> Callable[[Weights], Weights]:
    return lambda state: {**state, name: array}


WRONG: list[tuple[Callable[[Weights], Weights], type[Exception], str]] = [
    (without("bias_hh_l0"), ValueError, "missing bias_hh_l0"),
    (without("weight_hh_l0"), ValueError, "missing weight_hh_l0"),
    (with_("weight_hr_l9", np.ones((1, 1), "f")), ValueError, "(unexpected|missing) weight_"),
    (with_("more", np.ones(3, "f")), ValueError, "unexpected more"),
    (lambda s: without("bias_hh_l0")(with_("bias_hh_l00", s["bias_hh_l0"])(s)), ValueError, "bias_hh_l0"),
    (with_("bias_hh_l0", np.ones(5, "f")), ValueError, r"bias_hh_l0: expected shape \(4,\).*; got \(5,\)"),
    (with_("bias_hh_l0", np.ones((4, 1), "f")), ValueError, r"bias_hh_l0: expected shape \(4,\).*; got \(4, 1\)"),
    (with_("bias_hh_l0", np.ones((), "f")), ValueError, r"bias_hh_l0: expected shape \(4,\).*; got \(\)"),
    (with_("bias_hh_l0", np.ones(4)), TypeError, "bias_hh_l0: expected dtype float32; got float64"),
    (with_("bias_hh_l0", np.ones(4, "i4")), TypeError, "bias_hh_l0: expected dtype float32; got int32"),
    (with_("bias_hh_l0", np.ones(4, "f2")), TypeError, "bias_hh_l0: expected dtype float32; got float16"),
]


@pytest.mark.parametrize(("spoil", "error", "message"), WRONG)
def test_load_state_dict_changes_nothing_when_it_raises(
    spoil: Callable[[Weights], Weights], error: type[Exception], message: str
) -> None:
    target = layer()
    before, arrays = target.state_dict(), dict(target.parameters)
    other = {name: array + 1 for name, array in before.items()}  # every value that fits would show
    with pytest.raises(error, match=message):
        target.load_state_dict(spoil(other))
    for name, array in target.parameters.items():
        assert array is arrays[name]
        assert_close(name, array, before[name], rel=0)


@pytest.mark.parametrize("state", [{"bias_hh_l0": [1.0] * 4}, {"bias_hh_l0": np.ma.ones(4, "f")}, {"bias_hh_l0": None}])
def test_values_that_are_no_arrays(state: Mapping[str, Any]) -> None:
    target = layer()
    before = target.state_dict()
    with pytest.raises(TypeError, match=r"bias_hh_l0: expected a (plain )?NumPy array; got"):
        target.load_state_dict({**{name: array + 1 for name, array in before.items()}, **state})
    for name, array in target.parameters.items():
        assert_close(name, array, before[name], rel=0)


def test_a_state_dict_of_torchs_own_tensors() -> None:
    m, target = torch.nn.LSTM(2, 1), layer()
    target.load_state_dict(m.state_dict())
    for name, tensor in m.state_dict().items():
        assert_close(name, target.parameters[name], tensor.numpy(), rel=0)
        assert not np.shares_memory(target.parameters[name], tensor.numpy())
    before = target.state_dict()
    with pytest.raises(TypeError, match=r"requires grad: give weight_ih_l0\.detach\(\)"):
        target.load_state_dict(dict(m.named_parameters()))
    with pytest.raises(TypeError, match="weight_ih_l0: expected dtype float32; got float64"):
        target.load_state_dict(m.double().state_dict())
    for name, array in before.items():
        assert_close(name, target.parameters[name], array, rel=0)


@pytest.mark.parametrize(("spoil", "error", "message"), WRONG)
@pytest.mark.parametrize("reader", READERS)
def test_files_of_wrong_tensors(
    reader: str, spoil: Callable[[Weights], Weights], error: type[Exception], message: str, tmp_path: Path
) -> None:
    path, made = tmp_path / "net.safetensors", layer()
    metadata = {"scratchrnn": json.dumps({"layer": "LSTM", "config": made.config()})} if reader == "load" else None
    path.write_bytes(save(spoil(made.state_dict()), metadata))
    # `load` says of any file that does not fit that its value is wrong
    with pytest.raises(ValueError if reader == "load" else error, match=rf"net\.safetensors: .*{message}"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_every_truncation_names_the_file(reader: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    layer().save(path)
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.safetensors: expected a safetensors file"):
            READERS[reader](path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(ValueError, match=r"cut\.safetensors: expected a safetensors file"):
        READERS[reader](path)


@pytest.mark.parametrize("reader", READERS)
def test_damaged_bytes_are_read_or_refused_by_name(reader: str, tmp_path: Path, rng: np.random.Generator) -> None:
    path, messages = tmp_path / "bad.safetensors", []
    layer().save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            READERS[reader](path)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) for message in messages)
    assert len(messages) > len(whole) / 2  # elsewhere a weight, or what nobody reads, is another


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ([], "expected scratchrnn metadata in JSON"),
        ({"layer": "LSTM", "config": [1]}, "expected scratchrnn metadata in JSON"),
        ({"layer": "LSTM", "config": {"input_size": 2}}, "missing .* 'hidden_size'"),
        ({"layer": "LSTM", "config": {"input_size": 2, "hidden_size": "1"}}, "hidden_size: expected an integer"),
        ({"layer": "LSTM", "config": {"input_size": 2, "hidden_size": 3}}, r"weight_ih_l0: expected shape \(12, 2\)"),
        ({"layer": "LSTM", "config": {"input_size": 2, "hidden_size": 1, "num_layers": 2}}, "missing weight_ih_l1"),
    ],
)
def test_metadata_that_does_not_fit(entry: Any, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    path.write_bytes(save(layer().state_dict(), {"scratchrnn": json.dumps(entry)}))
    with pytest.raises(ValueError, match=rf"net\.safetensors: .*{message}"):
        srnn.LSTM.load(path)
