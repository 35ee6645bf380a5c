"""Gradient clipping against torch.nn.utils."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from scratchrnn import optim
from scratchrnn.testing import TOLERANCE, assert_close
from tests.test_optim import DTYPES, GRADIENTS, draw


def torch_gradients(gradients: dict[str, np.ndarray]) -> list[Any]:
    import torch

    parameters = []
    for value in gradients.values():
        parameter = torch.nn.Parameter(torch.from_numpy(np.zeros_like(value)))
        parameter.grad = torch.from_numpy(value.copy())
        parameters.append(parameter)
    return parameters


@pytest.mark.parametrize("max_norm", [0.0, 0.7, 1e3, math.inf])
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.5, 0.5, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_norm_equals_torch(dtype, norm_type, max_norm, rng):
    import torch

    gradients = draw(rng, dtype)
    if norm_type == math.inf:
        del gradients["empty"]  # torch has no maximum of nothing
    parameters = torch_gradients(gradients)
    want = torch.nn.utils.clip_grad_norm_(parameters, max_norm, norm_type=norm_type, foreach=False)
    truth = np.linalg.norm(np.concatenate([g.astype(np.float64).ravel() for g in gradients.values()]), norm_type)
    assert optim.global_norm(gradients, norm_type=norm_type) == pytest.approx(truth, rel=TOLERANCE["float64"])
    got = optim.clip_grad_norm_(gradients, max_norm, norm_type=norm_type)
    assert type(got) is float
    assert got == pytest.approx(truth, rel=TOLERANCE["float64"])
    # torch sums float32 in float32: its norm is the less exact of the two
    rel = TOLERANCE["float64"] if dtype is np.float64 else 1e-5
    assert got == pytest.approx(want.item(), rel=rel)
    for (name, g), parameter in zip(gradients.items(), parameters, strict=True):
        assert_close(name, g, parameter.grad.numpy(), rel=rel)


@pytest.mark.parametrize("dtype", DTYPES)
def test_norm_neither_overflows_nor_underflows(dtype):
    huge, tiny = float(np.finfo(dtype).max) / 8, float(np.finfo(dtype).smallest_subnormal) * 64
    for value in (huge, tiny):
        gradients = {"a": np.full(4, value, dtype), "b": np.full((3, 4), value, dtype)}
        for norm_type, want in ((2.0, 4 * value), (math.inf, value), (4.0, 2 * value)):
            assert optim.global_norm(gradients, norm_type=norm_type) == pytest.approx(want, rel=TOLERANCE["float64"])
    gradients = {"a": np.full(4, huge, dtype)}
    optim.clip_grad_norm_(gradients, 1.0)
    np.testing.assert_allclose(gradients["a"], 0.5, rtol=1e-5)


@pytest.mark.parametrize("norm_type", [2.0, 3.0, math.inf])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_clip_grad_norm_passes_nonfinite_values_as_torch(value, norm_type):
    import torch

    gradients = {"a": np.array([1.0, value]), "b": np.array(2.0)}
    parameters = torch_gradients(gradients)
    want = torch.nn.utils.clip_grad_norm_(parameters, 1.0, norm_type=norm_type)
    with pytest.raises(ValueError, match=r"gradients: expected a finite norm; got (nan|inf) .*\['a'\] are not finite"):
        optim.clip_grad_norm_(gradients, 1.0, norm_type=norm_type, error_if_nonfinite=True)
    np.testing.assert_array_equal(gradients["a"], [1.0, value])
    with np.errstate(all="raise"):
        got = optim.clip_grad_norm_(gradients, 1.0, norm_type=norm_type)
    np.testing.assert_array_equal(got, want.item())
    for g, parameter in zip(gradients.values(), parameters, strict=True):
        np.testing.assert_array_equal(g, parameter.grad.numpy())


@pytest.mark.parametrize("clip_value", [0.0, 0.3, 1e3, math.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_clip_grad_value_equals_torch(dtype, clip_value, rng):
    import torch

    gradients = draw(rng, dtype)
    gradients["special"] = np.array([np.nan, np.inf, -np.inf], dtype)
    parameters = torch_gradients(gradients)
    torch.nn.utils.clip_grad_value_(parameters, clip_value)
    arrays = dict(gradients)
    optim.clip_grad_value_(gradients, clip_value)
    for (name, g), parameter in zip(arrays.items(), parameters, strict=True):
        np.testing.assert_array_equal(g, parameter.grad.numpy(), err_msg=name)


def test_no_gradients_have_norm_zero():
    assert optim.global_norm({}) == 0.0
    assert optim.clip_grad_norm_({}, 1.0) == 0.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda g: optim.clip_grad_norm_(g, -1.0),
            ValueError,
            "max_norm: expected a finite number of at least 0; got -1",
        ),
        (lambda g: optim.clip_grad_norm_(g, math.nan), ValueError, "max_norm: expected a finite number of at least 0"),
        (lambda g: optim.clip_grad_norm_(g, "1"), TypeError, "max_norm: expected a number; got str '1'"),
        (
            lambda g: optim.clip_grad_norm_(g, 1.0, norm_type=0),
            ValueError,
            "norm_type: expected a number above 0; got 0",
        ),
        (lambda g: optim.clip_grad_norm_(g, 1.0, norm_type=-1.0), ValueError, "norm_type: expected a finite number"),
        (
            lambda g: optim.clip_grad_norm_(g, 1.0, error_if_nonfinite=1),
            TypeError,
            "error_if_nonfinite: expected True or",
        ),
        (lambda g: optim.clip_grad_value_(g, -1.0), ValueError, "clip_value: expected a finite number of at least 0"),
        (lambda g: optim.global_norm(list(g.values())), TypeError, "gradients: expected a dict of names and arrays"),
        (lambda g: optim.global_norm(g | {"b": [1.0]}), TypeError, "gradients['b']: expected a NumPy array; got list"),
        (
            lambda g: optim.clip_grad_norm_(g | {"c": np.ones(3, np.float32)}, 1.0),
            TypeError,
            "gradients: expected one dtype; got float64 for 'w' and float32 for 'c'",
        ),
        (
            lambda g: optim.clip_grad_value_(g | {"c": np.broadcast_to(1.0, (3,))}, 0.1),
            ValueError,
            "gradients['c']: expected a writable array",
        ),
        (lambda g: optim.clip_grad_norm_(g | {"c": g["b"]}, 0.1), ValueError, "'b' and 'c' share memory"),
    ],
)
def test_clipping_refuses_and_changes_nothing(call, error, message):
    gradients = {name: 3.0 * g for name, g in GRADIENTS.items()}
    with pytest.raises(error) as raised:
        call(gradients)
    assert message in str(raised.value)
    for name, g in GRADIENTS.items():
        assert_close(name, gradients[name], 3.0 * g, rel=0.0)
