"""interop.torch.LSTM and RNN raise what torch.nn's raise, and are made as they are."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from scratchrnn.interop import torch as interop

KINDS = ["LSTM", "RNN"]


# Constructor, parameters, state dict


CONSTRUCTIONS: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
    ("LSTM", (3, 4), {}),
    ("LSTM", (3, 4, 2, False, True, 0.25, True, 2, "cpu", torch.float64), {}),
    ("LSTM", (3, 4), {"proj_size": 1, "device": torch.device("cpu"), "dtype": torch.float32}),
    ("RNN", (3, 4, 2, "relu", False, True, 0.25, True), {}),
    ("RNN", (3, 4), {"nonlinearity": "relu", "num_layers": 3, "bidirectional": True}),
]


@pytest.mark.parametrize(("kind", "args", "options"), CONSTRUCTIONS)
def test_same_constructor_same_draws_same_names(kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(*args, **options)
    torch.manual_seed(0)
    ours = getattr(interop, kind)(*args, **options)
    assert isinstance(ours, type(theirs))
    assert repr(ours) == repr(theirs)
    assert inspect.signature(type(ours)) == inspect.signature(type(theirs))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert [name for name, _ in ours.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], tensor)
    theirs.load_state_dict(ours.state_dict())
    ours.load_state_dict(theirs.state_dict())
    ours.flatten_parameters()


@pytest.mark.parametrize(
    ("kind", "args", "options"),
    [
        ("LSTM", (0, 4), {}), ("LSTM", (3, 0), {}), ("LSTM", (3, 4, 0), {}), ("LSTM", (3.0, 4), {}),
        ("LSTM", (3, "4"), {}), ("LSTM", (3, 4), {"dropout": 1.5}), ("LSTM", (3, 4), {"dropout": True}),
        ("LSTM", (3, 4), {"proj_size": 4}), ("LSTM", (3, 4), {"proj_size": -1}), ("LSTM", (3, 4), {"bias": 1}),
        ("LSTM", (3, 4), {"batch_first": None}), ("LSTM", (3, 4), {"hidden": 3}), ("LSTM", (), {}),
        ("RNN", (3, 4), {"proj_size": 2}), ("RNN", (3, 4), {"nonlinearity": "sigmoid"}), ("RNN", (3, 4, 1, "elu"), {}),
    ],
)  # fmt: skip
def test_constructor_raises_where_torchs_does(kind: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
    with pytest.raises(Exception) as theirs:  # noqa: PT011
        getattr(torch.nn, kind)(*args, **options)
    with pytest.raises(theirs.type, match=r".") as ours:
        getattr(interop, kind)(*args, **options)
    assert ours.type is theirs.type


def test_dropout_without_a_layer_above_warns_as_in_torch() -> None:
    with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
        interop.LSTM(3, 4, dropout=0.5)


def test_forward_has_torchs_arguments_and_one_more() -> None:
    assert list(inspect.signature(interop.LSTM.forward).parameters) == ["self", "input", "hx", "return_trace"]
    assert list(inspect.signature(torch.nn.LSTM.forward).parameters) == ["self", "input", "hx"]


# Tensors that do not go together


X = torch.zeros(5, 2, 3)
H = torch.zeros(2, 2, 4)


def test_the_odd_one_out_is_named() -> None:
    module = interop.LSTM(3, 4, 2)
    with pytest.raises(
        RuntimeError, match=r"expected torch.float32 on cpu, as weight_ih_l0 is; got hx\[1\] of torch.float64"
    ):
        module(X, (H, H.double()))
    module.bias_hh_l1.data = module.bias_hh_l1.data.double()
    with pytest.raises(RuntimeError, match=r"; got bias_hh_l1 of torch.float64 on cpu$"):
        module(X)


def test_other_dtypes_and_devices_are_refused() -> None:
    module = interop.LSTM(3, 4)
    with pytest.raises(TypeError, match=r"weight_ih_l0: expected dtype float32 or float64; got float16: scratchrnn"):
        module.half()(X.half())
    assert module.float()(X)[0].shape == (5, 2, 4)
    with pytest.raises(TypeError, match="weight_ih_l0: expected a tensor on the CPU; got one on meta: scratchrnn"):
        module.to("meta")(X.to("meta"))
    for kind in KINDS:
        with pytest.raises(TypeError, match="weight_ih_l0: expected dtype float32 or float64; got bfloat16"):
            getattr(interop, kind)(3, 4, dtype=torch.bfloat16)
    later = interop.LSTM(3, 4, device="meta").to_empty(device="cpu")
    later.reset_parameters()
    assert later(X)[0].isfinite().all()


@pytest.mark.parametrize("kind", ["LSTM", "RNNCell"])
def test_what_is_no_plain_tensor_is_refused(kind: str) -> None:
    module, x = getattr(interop, kind)(3, 4), X if kind == "LSTM" else X[0]
    weight = next(module.parameters())

    def call(x: torch.Tensor) -> torch.Tensor:
        result = module(x)
        return result if kind == "RNNCell" else result[0]

    tried: list[Callable[[], Any]] = [
        lambda: torch.autograd.grad(call(x), weight, torch.ones(3, *call(x).shape), is_grads_batched=True),
        lambda: torch.autograd.functional.jacobian(call, x, vectorize=True),
        lambda: torch.autograd.functional.hessian(lambda x: call(x).sum(), x, vectorize=True),
    ]
    for one in tried:
        with pytest.raises(RuntimeError, match=r"do not go through vmap \(is_grads_batched=True, vectorize=True\)"):
            one()
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(RuntimeError, match="got a FakeTensor without"):
        call(torch.zeros(x.shape))


SIZES = {"weight_ih": (16, 3), "weight_hh": (16, 4), "bias_ih": (16,), "bias_hh": (16,)}


@pytest.mark.parametrize("shape", [(3, 3), (17, 4), (16, 5), (16, 2), (1,), (16, 1)], ids=str)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind", ["LSTM", "LSTMCell"])
def test_weights_of_another_shape_are_refused(kind: str, name: str, shape: tuple[int, ...]) -> None:
    """Kernels look at no shape: they would read beyond a weight, as torch's own LSTM does in float32."""
    module = getattr(interop, kind)(3, 4)
    name, want = name + ("" if kind == "LSTMCell" else "_l0"), SIZES[name]
    setattr(module, name, torch.nn.Parameter(torch.zeros(shape)))
    text = f"{name}: expected shape {want} for input_size=3, hidden_size=4; got {shape}"
    with pytest.raises(RuntimeError, match=f"^{re.escape(text)}$"):
        module(X if kind == "LSTM" else X[0])


def test_weights_of_layers_above_and_projections_are_looked_at() -> None:
    module = interop.LSTM(3, 4, 2, bidirectional=True, proj_size=2)
    assert module(X)[0].shape == (5, 2, 4)
    for name, shape in (("weight_ih_l1_reverse", "(16, 4)"), ("weight_hr_l0", "(2, 4)"), ("weight_hh_l1", "(16, 2)")):
        given = {name: torch.zeros(5, 7)}
        with pytest.raises(RuntimeError, match=f"^{name}: expected shape {re.escape(shape)} for .*; got \\(5, 7\\)$"):
            torch.func.functional_call(module, given, (X,))


@pytest.mark.parametrize("name", ["weight_ih_l0", "weight_hh_l0"])
def test_an_absent_weight_is_named(name: str) -> None:
    module = interop.LSTM(3, 4)
    setattr(module, name, None)
    with pytest.raises(TypeError, match=f"^{name}: expected a tensor; got None"):
        module(X)
