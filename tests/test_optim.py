"""Optimizers against live torch, step by step.

Run as a program this file compares every case bit by bit and writes the result as JSON; a test starts it in a process
where torch uses no fused multiply-add, since there the same order of operations must give the same bits.
"""

from __future__ import annotations

import io
import itertools
import json
import math
import os
import platform
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from scratchrnn import optim
from scratchrnn.testing import assert_close

STEPS = 12
SHAPES = {"scalar": (), "vector": (67,), "matrix": (13, 41), "one": (1,), "empty": (0, 3)}


def grid(kind: str, **options: Any) -> list[tuple[str, dict[str, Any]]]:
    """Every combination of the options' values."""
    return [(kind, dict(zip(options, values, strict=True))) for values in itertools.product(*options.values())]


CASES = [
    *grid("SGD", lr=[0.1], momentum=[0.0, 0.9], dampening=[0.0, 0.3], weight_decay=[0.0, 0.1]),
    *grid("SGD", lr=[0.1], momentum=[0.9], weight_decay=[0.0, 0.1], nesterov=[True]),
    *grid(
        "Adam", lr=[0.02], betas=[(0.9, 0.999), (0.5, 0.7), (0.0, 0.9)], weight_decay=[0.0, 0.1], amsgrad=[False, True]
    ),
    *grid("Adam", lr=[0.02], eps=[1e-3]),
    *grid("AdamW", lr=[0.02], betas=[(0.9, 0.999), (0.4, 0.7)], weight_decay=[0.0, 0.1], amsgrad=[False, True]),
    *grid("Adagrad", lr=[0.1], lr_decay=[0.0, 0.1], weight_decay=[0.0, 0.1], initial_accumulator_value=[0.0, 0.5]),
    *grid("Adagrad", lr=[0.1], eps=[1e-2]),
    *grid(
        "RMSprop", lr=[0.02], alpha=[0.99, 0.7], weight_decay=[0.0, 0.1], momentum=[0.0, 0.9], centered=[False, True]
    ),
    *grid("RMSprop", lr=[0.02], eps=[1e-2]),
]
DTYPES = (np.float32, np.float64)
# one case of each kind that keeps every buffer the kind has
FULL = [
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
    ("Adam", {"lr": 0.02, "weight_decay": 0.1, "amsgrad": True}),
    ("AdamW", {"lr": 0.02, "amsgrad": True}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.9, "centered": True}),
]


def case_id(value: Any) -> str | None:
    return ",".join(f"{k}={v}" for k, v in value.items()) or "defaults" if isinstance(value, dict) else None


def draw(rng: np.random.Generator, dtype: Any) -> dict[str, np.ndarray]:
    return {name: np.array(rng.standard_normal(shape), dtype) for name, shape in SHAPES.items()}


def trajectories(kind: str, options: dict[str, Any], dtype: Any, rng: np.random.Generator) -> dict[str, Any]:
    """Ours and torch's (steps, *shape) for every parameter and, under "<buffer>.<parameter>", every buffer."""
    import torch

    ours = draw(rng, dtype)
    theirs = {name: torch.nn.Parameter(torch.from_numpy(value.copy())) for name, value in ours.items()}
    opt = getattr(optim, kind)(ours, **options)
    torch_opt = getattr(torch.optim, kind)(list(theirs.values()), foreach=False, **options)
    history: dict[str, Any] = {}
    for step in range(STEPS):
        if step == STEPS // 2:  # as a schedule does
            opt.lr *= 0.7
            torch_opt.param_groups[0]["lr"] *= 0.7
        gradients = draw(rng, dtype)
        for name, parameter in theirs.items():
            parameter.grad = torch.from_numpy(gradients[name].copy())
        opt.step(gradients)
        torch_opt.step()
        state = opt.state_dict()
        for name, parameter in theirs.items():
            pairs = {name: (ours[name].copy(), parameter.detach().numpy().copy())}
            for buffer, tensor in torch_opt.state[parameter].items():
                if buffer != "step" and tensor is not None:
                    pairs[f"{buffer}.{name}"] = (state[f"{buffer}.{name}"], tensor.numpy().copy())
            for key, pair in pairs.items():
                history.setdefault(key, []).append(pair)
    assert {key for key in state if "." in key} == {key for key in history if "." in key}
    return {key: tuple(np.stack(side) for side in zip(*pairs, strict=True)) for key, pairs in history.items()}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "options"), CASES, ids=case_id)
def test_every_option_follows_torch(kind, options, dtype, rng):
    # Per step torch's fused multiply-adds and its own square root leave out or add one rounding of the parameter and
    # one of the state that moves it: 2 eps of the largest value on the way.
    bound = 2 * STEPS * np.finfo(dtype).eps
    for key, (got, want) in trajectories(kind, options, dtype, rng).items():
        assert_close(key, got, want, rel=bound)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="torch has a path without FMA only there")
def test_bits_equal_torch_without_fused_multiply_add():
    environment = os.environ | {"ATEN_CPU_CAPABILITY": "default", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["capability"] == "DEFAULT"
    assert result["compared"] >= len(CASES) * len(DTYPES) * len(SHAPES)
    assert result["different"] == []


def compare_bits() -> dict[str, Any]:
    """Compare every case for equal bits, square roots in torch replaced: its own are at times 1 ulp off."""
    import torch

    def sqrt(tensor: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.asarray(np.sqrt(tensor.numpy())))

    torch.Tensor.sqrt = sqrt
    torch.Tensor.sqrt_ = lambda tensor: tensor.copy_(sqrt(tensor))
    different, compared = [], 0
    for seed, (dtype, (kind, options)) in enumerate(itertools.product(DTYPES, CASES)):
        for key, (got, want) in trajectories(kind, options, dtype, np.random.default_rng(seed)).items():
            compared += 1
            if got.tobytes() != want.tobytes():
                different.append(f"{kind} {options} {dtype.__name__} {key}: {int((got != want).sum())} of {got.size}")
    return {"capability": torch.backends.cpu.get_cpu_capability(), "compared": compared, "different": different}


EXTREMES = [
    (kind, options, value)
    for kind, options in [*FULL, ("Adam", {"eps": 0.0}), ("RMSprop", {"eps": 0.0})]
    for value in (np.nan, np.inf, -np.inf, 0.0, 1e300)
    if not (options.get("centered") and value == 1e300)  # inf - inf is NaN, but fused it is inf
]


@pytest.mark.parametrize(("kind", "options", "value"), EXTREMES, ids=case_id)
def test_extreme_gradients_pass_as_in_torch(kind, options, value):
    import torch

    ours, theirs = np.array([1.0, 2.0, 3.0]), torch.nn.Parameter(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    gradient = np.array([value, 0.5, -2.0])
    opt = getattr(optim, kind)({"w": ours}, **options)
    torch_opt = getattr(torch.optim, kind)([theirs], foreach=False, **options)
    with np.errstate(all="raise"):  # the caller's setting must not matter
        for _ in range(3):
            theirs.grad = torch.from_numpy(gradient.copy())
            opt.step({"w": gradient})
            torch_opt.step()
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-14)


@pytest.mark.parametrize(("kind", "options"), FULL, ids=case_id)
def test_gradients_are_left_alone_and_any_memory_layout_will_do(kind, options, rng):
    matrix = rng.standard_normal((6, 10))
    gradient = rng.standard_normal((6, 5))
    base = np.stack([matrix, matrix]).transpose(1, 2, 0).copy()  # parameters as strided views of one base
    views = {"left": base[:, ::2, 0], "right": base[:, 1::2, 0], "fortran": np.asfortranarray(matrix[:, ::2])}
    plain = {name: view.copy() for name, view in views.items()}
    gradients = {name: np.asfortranarray(gradient) for name in views}
    for value in gradients.values():
        value.flags.writeable = False
    strided_opt, plain_opt = (getattr(optim, kind)(p, **options) for p in (views, plain))
    for _ in range(3):
        strided_opt.step(gradients)
        plain_opt.step(dict.fromkeys(plain, gradient))
    for name in views:
        assert_close(name, views[name], plain[name], rel=0.0)
        assert_close("gradient", gradients[name], gradient, rel=0.0)
    assert_close("the rest of the base", base[:, :, 1], matrix, rel=0.0)
    assert np.shares_memory(strided_opt.parameters["left"], base)


@pytest.mark.parametrize("store", ["dict", "npz"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("kind", "options"), FULL, ids=case_id)
def test_resuming_from_a_state_gives_the_same_bits(kind, options, dtype, store, rng):
    parameters, gradients = draw(rng, dtype), [draw(rng, dtype) for _ in range(8)]
    opt = getattr(optim, kind)(parameters, **options)
    for g in gradients[:4]:
        opt.step(g)
    opt.lr = 0.05
    state = opt.state_dict()
    if store == "npz":
        file = io.BytesIO()
        np.savez(file, **state)
        file.seek(0)
        state = dict(np.load(file))
    again = {name: p.copy() for name, p in parameters.items()}
    resumed = getattr(optim, kind)(again, lr=9.0)
    resumed.load_state_dict(state)
    for g in gradients[4:]:
        opt.step(g)
        resumed.step(g)
    assert resumed.lr == 0.05
    assert resumed.step_count == 8
    for name in parameters:
        assert again[name].tobytes() == parameters[name].tobytes(), name
    ours, theirs = resumed.state_dict(), opt.state_dict()
    assert list(ours) == list(theirs)
    for key, value in theirs.items():
        assert np.asarray(ours[key]).tobytes() == np.asarray(value).tobytes(), key


@pytest.mark.parametrize(("kind", "options"), FULL, ids=case_id)
def test_a_state_holds_copies_of_plain_arrays_and_numbers(kind, options, rng):
    parameters = draw(rng, np.float64)
    opt = getattr(optim, kind)(parameters, **options)
    opt.step(draw(rng, np.float64))
    state, kept = opt.state_dict(), opt.state_dict()
    assert {type(value) for value in state.values()} <= {np.ndarray, float, int, bool}
    opt.load_state_dict(state)
    for value in state.values():
        if isinstance(value, np.ndarray):
            value[...] = -1.0
    for key, value in opt.state_dict().items():
        np.testing.assert_array_equal(value, kept[key], err_msg=key)


def sgd(**options: Any) -> optim.SGD:
    return optim.SGD({"w": np.arange(6.0).reshape(2, 3), "b": np.zeros(3)}, lr=0.1, momentum=0.9, **options)


GRADIENTS = {"w": np.ones((2, 3)), "b": np.ones(3)}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"b": None}, TypeError, "gradients['b']: expected a NumPy array; got NoneType None"),
        ({"b": [1.0, 1.0, 1.0]}, TypeError, "gradients['b']: expected a NumPy array; got list"),
        ({"b": np.ones(4)}, ValueError, "gradients['b']: expected shape (3,) of parameter 'b'; got (4,)"),
        ({"b": np.ones((1, 3))}, ValueError, "gradients['b']: expected shape (3,) of parameter 'b'; got (1, 3)"),
        ({"b": np.ones(3, np.float32)}, TypeError, "gradients['b']: expected dtype float64; got float32"),
        ({"b": np.ones(3, int)}, TypeError, "gradients['b']: expected dtype float64; got int64"),
        ({"c": np.ones(3)}, ValueError, "gradients: expected exactly 2 names; missing none, unexpected ['c']"),
        ({"b": ...}, ValueError, "gradients: expected exactly 2 names; missing ['b'], unexpected none"),
    ],
)
def test_a_refused_gradient_changes_nothing(change, error, message):
    opt = sgd()
    opt.step(GRADIENTS)
    before = opt.state_dict() | {name: p.copy() for name, p in opt.parameters.items()}
    with pytest.raises(error) as raised:
        opt.step({name: g for name, g in (GRADIENTS | change).items() if g is not ...})
    assert message in str(raised.value)
    after = opt.state_dict() | opt.parameters
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)


def test_gradients_must_be_a_dict():
    with pytest.raises(TypeError, match="gradients: expected a dict of names and arrays; got list"):
        sgd().step([np.ones(3)])


def test_a_parameter_made_read_only_later_is_refused_before_any_change():
    opt = sgd()
    opt.parameters["b"].flags.writeable = False
    with pytest.raises(ValueError, match=r"parameters\['b'\]: expected a writable array"):
        opt.step(GRADIENTS)
    assert_close("w", opt.parameters["w"], np.arange(6.0).reshape(2, 3), rel=0.0)
    assert opt.step_count == 0


BASE = np.zeros((4, 6))


@pytest.mark.parametrize(
    ("parameters", "error", "message"),
    [
        ([np.zeros(3)], TypeError, "parameters: expected a dict of names and arrays; got list"),
        ({}, ValueError, "parameters: expected at least one array; got an empty dict"),
        ({1: np.zeros(3)}, TypeError, "parameters: expected names as str; got int 1"),
        ({"w": 1.0}, TypeError, "parameters['w']: expected a NumPy array; got float 1.0"),
        ({"w": np.zeros(3, int)}, TypeError, "parameters['w']: expected dtype float32 or float64; got int64"),
        (
            {"w": np.zeros(3), "b": np.zeros(3, np.float32)},
            TypeError,
            "parameters: expected one dtype; got float64 for 'w' and float32 for 'b'",
        ),
        ({"w": np.broadcast_to(0.0, (3,))}, ValueError, "parameters['w']: expected a writable array, as it is changed"),
        ({"w": BASE, "b": BASE[1]}, ValueError, "'w' and 'b' share memory and would be changed twice"),
        ({"w": BASE[:, ::2], "x": np.zeros(2), "b": BASE[1:2, 3:5]}, ValueError, "'w' and 'b' share memory"),
    ],
)
def test_parameters_are_checked(parameters, error, message):
    with pytest.raises(error) as raised:
        optim.Adam(parameters)
    assert message in str(raised.value)


def test_interleaved_views_that_share_no_element_are_accepted():
    base = np.zeros((4, 6))
    optim.SGD({"even": base[:, ::2], "odd": base[:, 1::2]}, lr=1.0).step(
        {"even": np.ones((4, 3)), "odd": -np.ones((4, 3))}
    )
    assert_close("base", base, np.tile([-1.0, 1.0], (4, 3)), rel=0.0)


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    [
        ("SGD", {"lr": -1.0}, ValueError, "lr: expected a finite number of at least 0; got -1.0"),
        ("SGD", {"lr": math.nan}, ValueError, "lr: expected a finite number of at least 0; got nan"),
        ("SGD", {"lr": "0.1"}, TypeError, "lr: expected a number; got str '0.1'"),
        (
            "SGD",
            {"lr": 1.0, "momentum": -0.1},
            ValueError,
            "momentum: expected a finite number of at least 0; got -0.1",
        ),
        ("SGD", {"lr": 1.0, "dampening": math.inf}, ValueError, "dampening: expected a finite number; got inf"),
        ("SGD", {"lr": 1.0, "weight_decay": -1}, ValueError, "weight_decay: expected a finite number of at least 0"),
        ("SGD", {"lr": 1.0, "nesterov": 1}, TypeError, "nesterov: expected True or False; got int 1"),
        (
            "SGD",
            {"lr": 1.0, "nesterov": True},
            ValueError,
            "nesterov: expected momentum above 0 and dampening 0; got momentum 0 and dampening 0",
        ),
        (
            "SGD",
            {"lr": 1.0, "momentum": 0.9, "dampening": 0.5, "nesterov": True},
            ValueError,
            "got momentum 0.9 and dampening 0.5",
        ),
        ("Adam", {"betas": 0.9}, TypeError, "betas: expected two numbers; got float 0.9"),
        ("Adam", {"betas": (0.9,)}, TypeError, "betas: expected two numbers; got tuple (0.9,)"),
        ("Adam", {"betas": (0.9, 1.0)}, ValueError, "betas[1]: expected a number of at least 0 and below 1; got 1.0"),
        ("Adam", {"betas": (-0.1, 0.9)}, ValueError, "betas[0]: expected a finite number of at least 0; got -0.1"),
        ("Adam", {"eps": -1e-8}, ValueError, "eps: expected a finite number of at least 0"),
        ("Adam", {"weight_decay": -1.0}, ValueError, "weight_decay: expected a finite number of at least 0"),
        ("Adam", {"amsgrad": None}, TypeError, "amsgrad: expected True or False; got NoneType None"),
        ("Adagrad", {"lr_decay": -1.0}, ValueError, "lr_decay: expected a finite number of at least 0"),
        ("Adagrad", {"weight_decay": -1.0}, ValueError, "weight_decay: expected a finite number of at least 0"),
        ("Adagrad", {"initial_accumulator_value": -1.0}, ValueError, "initial_accumulator_value: expected a finite"),
        ("Adagrad", {"eps": -1.0}, ValueError, "eps: expected a finite number of at least 0"),
        ("RMSprop", {"alpha": 1.1}, ValueError, "alpha: expected a number between 0 and 1; got 1.1"),
        ("RMSprop", {"eps": -1.0}, ValueError, "eps: expected a finite number of at least 0"),
        ("RMSprop", {"momentum": -1.0}, ValueError, "momentum: expected a finite number of at least 0"),
        ("RMSprop", {"weight_decay": -1.0}, ValueError, "weight_decay: expected a finite number of at least 0"),
        ("RMSprop", {"centered": 0}, TypeError, "centered: expected True or False; got int 0"),
    ],
)
def test_numbers_are_checked(kind, options, error, message):
    with pytest.raises(error) as raised:
        getattr(optim, kind)({"w": np.zeros(3)}, **options)
    assert message in str(raised.value)


def test_learning_rate_is_checked_when_set():
    opt = sgd()
    with pytest.raises(ValueError, match="lr: expected a finite number of at least 0; got -2"):
        opt.lr = -2
    assert opt.lr == 0.1


def sgd_state(**change: Any) -> dict[str, Any]:
    opt = sgd()
    opt.step(GRADIENTS)
    return {key: value for key, value in (opt.state_dict() | change).items() if value is not ...}


@pytest.mark.parametrize(
    ("state", "error", "message"),
    [
        ([1], TypeError, "state: expected a dict; got list [1]"),
        (sgd_state(momentum=...), ValueError, "state: expected a state of SGD; missing ['momentum']"),
        (sgd_state(step=...), ValueError, "state: expected a state of SGD; missing ['step']"),
        (sgd_state(step=-1), ValueError, "step: expected an integer of at least 0; got -1"),
        (sgd_state(step=1.0), TypeError, "step: expected an integer of at least 0; got float 1.0"),
        (sgd_state(lr=-1.0), ValueError, "lr: expected a finite number of at least 0; got -1.0"),
        (sgd_state(**{"momentum_buffer.b": ...}), ValueError, "missing ['momentum_buffer.b'], unexpected none"),
        (sgd_state(momentum=0.0), ValueError, "unexpected ['momentum_buffer.w', 'momentum_buffer.b']"),
        (sgd_state(alpha=0.9), ValueError, "missing none, unexpected ['alpha']"),
        (
            sgd_state(**{"momentum_buffer.b": np.zeros(4)}),
            ValueError,
            "momentum_buffer.b: expected shape (3,) of parameter 'b'; got (4,)",
        ),
        (
            sgd_state(**{"momentum_buffer.b": np.zeros(3, np.float32)}),
            TypeError,
            "momentum_buffer.b: expected dtype float64; got float32",
        ),
        (optim.RMSprop(GRADIENTS).state_dict(), ValueError, "state: expected a state of SGD; missing ['dampening',"),
    ],
)
def test_a_refused_state_changes_nothing(state, error, message):
    opt = sgd()
    opt.step(GRADIENTS)
    before = opt.state_dict()
    with pytest.raises(error) as raised:
        opt.load_state_dict(state)
    assert message in str(raised.value)
    for key, value in opt.state_dict().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)


def test_adam_and_adamw_do_not_take_each_others_state():
    adam, adamw = optim.Adam({"w": np.zeros(3)}), optim.AdamW({"w": np.zeros(3)})
    message = "decoupled_weight_decay: expected True, a state of AdamW; got False"
    with pytest.raises(ValueError, match=message):
        adamw.load_state_dict(adam.state_dict())
    with pytest.raises(ValueError, match="expected False, a state of Adam; got True"):
        adam.load_state_dict(adamw.state_dict())


if __name__ == "__main__":
    sys.stdout.write(json.dumps(compare_bits()))
