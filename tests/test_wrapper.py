"""What WeightDrop and Zoneout share: the layer's parameters and attributes, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.testing import assert_close

KINDS: list[Callable[..., Wrapper]] = [
    lambda layer, **options: srnn.WeightDrop(layer, 0.5, **options),
    lambda layer, **options: srnn.Zoneout(layer, 0.1, 0.5, **options),
]
each_kind = pytest.mark.parametrize("wrap", KINDS, ids=["WeightDrop", "Zoneout"])


@each_kind
def test_all_else_is_the_layers(wrap: Callable[..., Wrapper], rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, 2, batch_first=True, bidirectional=True, proj_size=4, dtype=np.float64, rng=rng)
    wrapper = wrap(lstm)
    names = ["input_size", "hidden_size", "num_layers", "num_directions", "bidirectional", "proj_size", "output_size"]
    names += ["batch_first", "bias", "dropout", "dtype", "cell", "backend", "rng", "parameters"]
    for name in names:
        assert getattr(wrapper, name) is getattr(lstm, name) or getattr(wrapper, name) == getattr(lstm, name), name
    assert wrapper.weight_hh_l1 is lstm.weight_hh_l1
    wrapper.weight_hh_l1 = np.ones((24, 4))
    assert (lstm.weight_hh_l1 == 1).all()
    wrapper.backend = "numpy"
    assert lstm.backend == "numpy"
    wrapper.load_state_dict({name: np.full_like(w, 3) for name, w in lstm.parameters.items()})
    assert all((w == 3).all() for w in wrapper.state_dict().values())
    assert repr(wrapper).startswith(f"{type(wrapper).__name__}(LSTM(input_size=3, ")


@each_kind
def test_unknown_names(wrap: Callable[..., Wrapper]) -> None:
    wrapper = wrap(srnn.LSTM(3, 6))
    with pytest.raises(AttributeError, match="'LSTM' object has no attribute 'weight'"):
        _ = wrapper.weight
    with pytest.raises(AttributeError, match="object has no attribute '_keys'"):
        _ = wrapper._keys
    with pytest.raises(AttributeError, match="has no parameter weight"):
        wrapper.weight = np.zeros(3)


@each_kind
def test_an_optimizer_on_the_wrapper_moves_the_layer(wrap: Callable[..., Wrapper], rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, rng=rng)
    wrapper, before = wrap(lstm), lstm.state_dict()
    optimizer = srnn.optim.SGD(wrapper.parameters, lr=0.1)
    trace = wrapper.forward(rng.standard_normal((7, 5, 3), np.float32))
    optimizer.step(wrapper.backward(trace, np.ones_like(trace.output)).parameters)
    assert all((lstm.parameters[name] != before[name]).any() for name in before)


@each_kind
def test_the_generator_is_the_layers_unless_given(wrap: Callable[..., Wrapper], rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, 2, dropout=0.5, rng=rng)
    assert wrap(lstm).rng is rng
    own = np.random.default_rng(1)
    wrapper, before = wrap(lstm, rng=own), rng.bit_generator.state
    wrapper.forward(np.zeros((7, 5, 3), np.float32))
    assert rng.bit_generator.state == before
    assert own.bit_generator.state != np.random.default_rng(1).bit_generator.state


@each_kind
def test_copies(wrap: Callable[..., Wrapper], rng: np.random.Generator) -> None:
    wrapper = wrap(srnn.LSTM(3, 6, rng=rng))
    x = rng.standard_normal((7, 5, 3), np.float32)
    for twin in (copy.deepcopy(wrapper), pickle.loads(pickle.dumps(wrapper))):
        assert twin.parameters is twin.layer.parameters
        assert_close("output", twin(x)[0], wrapper(x)[0], rel=0)
        twin.weight_ih_l0[...] = 0
        assert wrapper.weight_ih_l0.any()


@each_kind
def test_the_file_is_the_layers(wrap: Callable[..., Wrapper], tmp_path: Path, rng: np.random.Generator) -> None:
    wrapper = wrap(srnn.LSTM(3, 6, rng=rng))
    wrapper.save(tmp_path / "layer.safetensors")
    loaded = srnn.LSTM.load(tmp_path / "layer.safetensors")
    assert_close("weight_hh_l0", loaded.weight_hh_l0, wrapper.weight_hh_l0, rel=0)
    with pytest.raises(ValueError, match=f"expected a saved {type(wrapper).__name__}; got a saved LSTM"):
        type(wrapper).load(tmp_path / "layer.safetensors")


@each_kind
def test_what_is_wrapped(wrap: Callable[..., Wrapper]) -> None:
    inner = srnn.WeightDrop(srnn.LSTM(3, 6), 0.5)
    with pytest.raises(TypeError, match=r"layer: expected an RNN or LSTM, since wrappers do not nest; got WeightDrop"):
        wrap(inner)
    bad: list[Any] = [srnn.LSTMCell(3, 6), srnn.Linear(3, 6), None]
    for layer in bad:
        with pytest.raises(TypeError, match="layer: expected an RNN or LSTM; got"):
            wrap(layer)
    with pytest.raises(TypeError, match=r"rng: expected None, np\.random\.Generator or .*; got int 0"):
        wrap(srnn.LSTM(3, 6), rng=0)
