"""interop.torch.LSTM and RNN raise what torch.nn's raise, and are made as they are."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence

from scratchrnn.interop import torch as interop
from tests.modules import pair

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


# Wrong arguments of a call

X = torch.zeros(5, 2, 3)
H = torch.zeros(2, 2, 4)
P = pack_padded_sequence(X, [5, 3])
SHARED: dict[
    str, tuple[Any, Callable[[Any], Any]]
] = {  # input, and hx from a function that makes it a pair for the LSTM
    "1-D": (X[0, 0], lambda pair: None),
    "4-D": (X[None], lambda pair: None),
    "input size": (X[..., :2], lambda pair: None),
    "input size, without a batch": (X[:, 0, :2], lambda pair: None),
    "no steps": (X[:0], lambda pair: None),
    "float64 input": (X.double(), lambda pair: None),
    "integers": (X.long(), lambda pair: None),
    "an array": (X.numpy(), lambda pair: None),
    "nothing": (None, lambda pair: None),
    "another device": (X.to("meta"), lambda pair: None),
    "hx of another batch": (X, lambda pair: pair(H[:, :1])),
    "hx of another size": (X, lambda pair: pair(H[..., :3])),
    "hx of another depth": (X, lambda pair: pair(H[:1])),
    "2-D hx, 3-D input": (X, lambda pair: pair(H[:, 0])),
    "3-D hx, 2-D input": (X[:, 0], lambda pair: pair(H)),
    "float64 hx": (X, lambda pair: pair(H.double())),
    "packed, input size": (pack_padded_sequence(X[..., :2], [5, 3]), lambda pair: None),
    "packed, hx of another batch": (P, lambda pair: pair(torch.zeros(2, 3, 4))),
    "packed, hx of another size": (P, lambda pair: pair(H[..., :3])),
}
OF_LSTM: dict[str, tuple[Any, Any]] = {
    "a tensor for the pair": (X, H),
    "a 4-D tensor for the pair": (X, torch.zeros(2, 2, 2, 4)),
    "one of the pair": (X, (H,)),
    "three": (X, (H, H, H)),
    "c of another size": (X, (H, H[..., :2])),
    "c of float64": (X, (H, H.double())),
}


def raised(module: torch.nn.Module, x: Any, hx: Any) -> type[BaseException]:
    with pytest.raises(Exception, match=r".") as caught:
        module(x, hx)
    return caught.type


@pytest.mark.parametrize("case", SHARED)
@pytest.mark.parametrize("kind", KINDS)
def test_raises_what_torch_raises(kind: str, case: str) -> None:
    theirs, ours = pair(kind, 3, 4, 2)
    x, make = SHARED[case]
    hx = make((lambda h: (h, h)) if kind == "LSTM" else (lambda h: h))
    assert raised(ours, x, hx) is raised(theirs, x, hx)


@pytest.mark.parametrize("case", OF_LSTM)
def test_raises_what_torchs_lstm_raises(case: str) -> None:
    theirs, ours = pair("LSTM", 3, 4, 2)
    assert raised(ours, *OF_LSTM[case]) is raised(theirs, *OF_LSTM[case])


def test_a_tuple_for_an_rnn() -> None:
    theirs, ours = pair("RNN", 3, 4, 2)
    assert raised(ours, X, (H, H)) is raised(theirs, X, (H, H)) is AttributeError


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
