"""Initialisers: the distributions they promise, orthogonality to rounding, and torch's own values."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scratchrnn import init
from scratchrnn.rng import torch_manual_seed
from scratchrnn.testing import assert_close

DTYPES = [np.float32, np.float64]


@pytest.fixture
def torch() -> ModuleType:
    module = importlib.import_module("torch")
    if module.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch's own bits differ on a machine without AVX2")
    return module


@dataclass
class Layer:
    """What the layer-level initialisers look at."""

    parameters: dict[str, np.ndarray]
    hidden_size: int


def lstm_like(hidden: int, dtype: Any = np.float64, gates: int = 4, suffixes: tuple[str, ...] = ("_l0",)) -> Layer:
    shapes: dict[str, tuple[int, ...]]
    shapes = {"weight_ih": (gates * hidden, 3), "weight_hh": (gates * hidden, hidden)}
    shapes |= {"bias_ih": (gates * hidden,), "bias_hh": (gates * hidden,)}
    rng = np.random.default_rng(1)
    parameters = {n + s: rng.normal(size=shape).astype(dtype) for s in suffixes for n, shape in shapes.items()}
    return Layer(parameters, hidden)


STACKED = ("_l0", "_l0_reverse", "_l1", "_l1_reverse")


def copies(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in parameters.items()}


def largest_gap(sample: np.ndarray, distribution: Callable[[np.ndarray], np.ndarray]) -> float:
    """Kolmogorov's distance between the sample and the distribution function."""
    sample = np.sort(sample.ravel().astype(np.float64))
    steps = np.arange(len(sample) + 1) / len(sample)
    expected = distribution(sample)
    return float(max(np.max(expected - steps[:-1]), np.max(steps[1:] - expected)))


def gap_bound(count: int) -> float:
    """Exceeded by chance once in a million (Dvoretzky, Kiefer, Wolfowitz; Massart's constant)."""
    return math.sqrt(math.log(2 / 1e-6) / (2 * count))


# arrays


@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform(dtype: Any, rng: np.random.Generator) -> None:
    array = np.full((40, 3, 50), np.nan, dtype)
    assert init.uniform_(array, -0.5, 2.0, rng) is array
    assert array.min() >= -0.5
    assert array.max() <= 2.0
    assert largest_gap(array, lambda x: (x + 0.5) / 2.5) < gap_bound(array.size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal(dtype: Any, rng: np.random.Generator) -> None:
    array = np.full((60, 100), np.nan, dtype)
    assert init.normal_(array, 0.3, 2.0, rng) is array
    cdf = np.vectorize(lambda x: 0.5 * math.erfc((0.3 - x) / (2.0 * math.sqrt(2.0))))
    assert largest_gap(array, cdf) < gap_bound(array.size)


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_equal_torch(torch: ModuleType, dtype: Any) -> None:
    ours, theirs = torch_manual_seed(3), torch.Generator().manual_seed(3)
    for shape in ((5,), (7, 9)):
        tensor = torch.from_numpy(np.zeros(shape, dtype))
        want = torch.nn.init.uniform_(tensor, -0.1, 0.4, generator=theirs).numpy().copy()
        assert_close("uniform_", init.uniform_(np.zeros(shape, dtype), -0.1, 0.4, ours), want, rel=0.0)
        want = torch.nn.init.normal_(tensor, -0.1, 0.4, generator=theirs).numpy()
        assert_close("normal_", init.normal_(np.zeros(shape, dtype), -0.1, 0.4, ours), want, rel=0.0)


def test_views_are_filled_and_the_rest_is_kept(rng: np.random.Generator) -> None:
    whole = np.zeros((6, 8))
    init.orthogonal_(whole[1:4, ::2], rng=rng)
    outside = np.ones_like(whole, dtype=bool)
    outside[1:4, ::2] = False
    assert not whole[outside].any()
    assert whole[~outside].all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (5, 5), (13, 4), (4, 13), (64, 64), (90, 37), (2, 300)])
def test_orthogonal_to_rounding(shape: tuple[int, int], dtype: Any, rng: np.random.Generator) -> None:
    gain = 1.7
    array = np.full(shape, np.nan, dtype)
    assert init.orthogonal_(array, gain, rng) is array
    tall = array.astype(np.float64) if shape[0] >= shape[1] else array.T.astype(np.float64)
    # each entry is rounded by eps / 2 at most, which moves an inner product of unit vectors by eps;
    # the decomposition itself adds some eps(float64) per row
    bound = 2 * np.finfo(dtype).eps + 4 * max(shape) * np.finfo(np.float64).eps
    np.testing.assert_allclose(tall.T @ tall / gain**2, np.eye(min(shape)), rtol=0.0, atol=bound)


@pytest.mark.parametrize("gates", [1, 2, 4])
def test_orthogonal_per_gate(gates: int, rng: np.random.Generator) -> None:
    hidden, columns = 9, 6
    array = init.orthogonal_(np.full((gates * hidden, columns), np.nan), rng=rng, gates=gates)
    blocks = array.reshape(gates, hidden, columns)
    for block in blocks:
        np.testing.assert_allclose(block.T @ block, np.eye(columns), rtol=0.0, atol=1e-14)
    assert len({block.tobytes() for block in blocks}) == gates


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(6, 6), (11, 4), (4, 11)])
def test_orthogonal_equals_torch(torch: ModuleType, shape: tuple[int, int], dtype: Any) -> None:
    # the same normals, so the same matrix up to the rounding of torch's decomposition: this shows the signs
    want = torch.from_numpy(np.zeros(shape, dtype))
    torch.nn.init.orthogonal_(want, 1.3, generator=torch.Generator().manual_seed(5))
    got = init.orthogonal_(np.zeros(shape, dtype), 1.3, torch_manual_seed(5))
    assert_close("orthogonal_", got, want.numpy(), rel=1000 * float(np.finfo(dtype).eps))


@pytest.mark.parametrize("dtype", DTYPES)
def test_identity(dtype: Any) -> None:
    array = np.full((4, 4), np.nan, dtype)
    assert init.identity_(array, 0.01) is array
    assert_close("identity_", array, (0.01 * np.eye(4)).astype(dtype), rel=0.0)


ON_ARRAYS = [init.uniform_, init.normal_, init.orthogonal_, init.identity_]


@pytest.mark.parametrize("initialise", ON_ARRAYS)
@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ([[1.0, 2.0]], TypeError, "array: expected a NumPy array; got list"),
        (np.zeros((3, 3), np.float16), TypeError, "array: expected dtype float32 or float64; got float16"),
        (np.zeros((3, 3), int), TypeError, "array: expected dtype float32 or float64; got int64"),
        (np.broadcast_to(np.zeros(3), (3, 3)), ValueError, "array: expected a writable array"),
    ],
)
def test_arrays_refused(initialise: Any, array: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        initialise(array)


@pytest.mark.parametrize("initialise", [init.orthogonal_, init.identity_])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 3)])
def test_ranks_refused(initialise: Any, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="array: expected 2 dimensions; got shape"):
        initialise(np.zeros(shape))


def test_arguments_refused() -> None:
    array = np.zeros((6, 4))
    with pytest.raises(ValueError, match="low: expected at most high"):
        init.uniform_(array, 1.0, -1.0)
    with pytest.raises(ValueError, match="std: expected a finite number of at least 0"):
        init.normal_(array, 0.0, -1.0)
    with pytest.raises(ValueError, match=r"array: expected rows that divide by gates=4; got shape \(6, 4\)"):
        init.orthogonal_(array, gates=4)
    with pytest.raises(ValueError, match="gates: expected an integer of at least 1"):
        init.orthogonal_(array, gates=0)
    with pytest.raises(ValueError, match="gain: expected a finite number"):
        init.orthogonal_(array, math.nan)
    with pytest.raises(ValueError, match=r"array: expected a square matrix; got shape \(6, 4\)"):
        init.identity_(array)
    with pytest.raises(TypeError, match="scale: expected a number"):
        init.identity_(np.zeros((2, 2)), "1")  # type: ignore[arg-type]
    for initialise in (init.uniform_, init.normal_, init.orthogonal_):
        with pytest.raises(TypeError, match=r"rng: .*np.random.default_rng\(3\)"):
            initialise(array, rng=3)  # type: ignore[arg-type]
    assert not array.any()


# torch's default


MODULES = [
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"num_layers": 2, "bidirectional": True}),
    ("RNN", {"num_layers": 2, "bias": False}),
    ("LSTM", {}),
    ("LSTM", {"num_layers": 2, "bidirectional": True}),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 4}),
    ("LSTM", {"proj_size": 2, "bias": False}),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("name", "options"), MODULES)
@pytest.mark.parametrize("seed", [0, 12345])
def test_default_equals_torch(torch: ModuleType, name: str, options: dict[str, Any], dtype: Any, seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = getattr(torch.nn, name)(3, 7, dtype=torch.from_numpy(np.zeros(1, dtype)).dtype, **options)
    want = {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}
    got = {name: np.full(array.shape, np.nan, dtype) for name, array in want.items()}
    init.torch_default_(got, 7, torch_manual_seed(seed))
    for parameter, array in want.items():
        assert_close(parameter, got[parameter], array, rel=0.0)


def test_default_fills_in_the_order_of_the_mapping() -> None:
    shapes = {"weight_ih_l0": (8, 3), "weight_hh_l0": (8, 2), "bias_ih_l0": (8,), "bias_hh_l0": (8,)}
    parameters = {name: np.full(shape, np.nan, np.float32) for name, shape in shapes.items()}
    g = torch_manual_seed(0)
    g.randn(1, 4, 3)
    init.torch_default_(parameters, 2, g)
    # printed by torch 2.13 for torch.manual_seed(0); torch.randn(1, 4, 3); torch.nn.LSTM(3, 2)
    np.testing.assert_allclose(parameters["weight_ih_l0"][0], [-0.113974, 0.074822, 0.640268], atol=6e-7, rtol=0)
    np.testing.assert_allclose(parameters["weight_hh_l0"][7], [-0.418856, 0.213622], atol=6e-7, rtol=0)
    np.testing.assert_allclose(parameters["bias_hh_l0"][:3], [0.277900, 0.585873, 0.615330], atol=6e-7, rtol=0)


def test_default_with_numpys_generator(rng: np.random.Generator) -> None:
    layer = lstm_like(25, suffixes=STACKED)
    init.torch_default_(layer.parameters, 25, rng)
    values = np.concatenate([array.ravel() for array in layer.parameters.values()])
    assert np.abs(values).max() <= 0.2
    assert largest_gap(values, lambda x: (x + 0.2) / 0.4) < gap_bound(values.size)


def test_default_refuses_and_changes_nothing() -> None:
    layer = lstm_like(5)
    layer.parameters["bias_hh_l0"].flags.writeable = False
    before = copies(layer.parameters)
    with pytest.raises(ValueError, match="bias_hh_l0: expected a writable array"):
        init.torch_default_(layer.parameters, 5)
    with pytest.raises(ValueError, match="hidden_size: expected an integer of at least 1"):
        init.torch_default_(layer.parameters, 0)
    with pytest.raises(TypeError, match="rng: expected"):
        init.torch_default_(layer.parameters, 5, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="parameters: expected a dict of arrays; got Layer"):
        init.torch_default_(layer, 5)  # type: ignore[arg-type]
    for name, array in before.items():
        assert np.array_equal(layer.parameters[name], array)


# gate biases


def rows_outside(array: np.ndarray, first: int, last: int) -> np.ndarray:
    return np.concatenate([array[:first], array[last:]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("suffixes", [("_l0",), STACKED, ("",)])
def test_forget_bias(dtype: Any, suffixes: tuple[str, ...]) -> None:
    hidden = 5
    layer = lstm_like(hidden, dtype, suffixes=suffixes)
    before = copies(layer.parameters)
    init.forget_bias_(layer, 1.5)
    for suffix in suffixes:
        b_ih, b_hh = layer.parameters["bias_ih" + suffix], layer.parameters["bias_hh" + suffix]
        assert (b_ih + b_hh)[hidden : 2 * hidden].tolist() == [1.5] * hidden
        assert not b_hh[hidden : 2 * hidden].any()
    for name, array in before.items():
        first, last = (hidden, 2 * hidden) if name.startswith("bias") else (0, 0)
        assert np.array_equal(rows_outside(layer.parameters[name], first, last), rows_outside(array, first, last))


def test_forget_bias_opens_torchs_forget_gate(torch: ModuleType) -> None:
    # with all else zero, c_1 = f c_0 and f = sigmoid(value): the rows are the forget gate's
    hidden = 3
    layer = lstm_like(hidden)
    for array in layer.parameters.values():
        array[...] = 0.0
    init.forget_bias_(layer, 1.0)
    module = torch.nn.LSTM(3, hidden, dtype=torch.float64)
    module.load_state_dict({name: torch.from_numpy(array) for name, array in layer.parameters.items()})
    c_0 = torch.arange(1.0, hidden + 1.0, dtype=torch.float64).reshape(1, hidden)
    with torch.no_grad():
        _, (_, c_1) = module(torch.zeros(1, 3, dtype=torch.float64), (torch.zeros_like(c_0), c_0))
    assert_close("c_1", c_1.numpy(), c_0.numpy() / (1.0 + math.exp(-1.0)), rel=1e-15)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("source", [np.random.default_rng, torch_manual_seed])
def test_chrono(dtype: Any, source: Any) -> None:
    hidden, t_max = 400, 50.0
    layer = lstm_like(hidden, dtype, suffixes=STACKED)
    before = copies(layer.parameters)
    init.chrono_(layer, t_max, source(7))
    draws = []
    for suffix in STACKED:
        b_ih, b_hh = layer.parameters["bias_ih" + suffix], layer.parameters["bias_hh" + suffix]
        b_f = b_ih[hidden : 2 * hidden]
        assert np.array_equal(b_ih[:hidden], -b_f)
        assert not b_hh[: 2 * hidden].any()
        draws.append(np.exp(b_f.astype(np.float64)))
    assert len({draw.tobytes() for draw in draws}) == len(STACKED)
    eps = float(np.finfo(dtype).eps)
    assert np.min(draws) >= 1.0
    assert np.max(draws) <= (t_max - 1.0) * (1.0 + 4 * eps)
    assert largest_gap(np.concatenate(draws), lambda u: (u - 1.0) / (t_max - 2.0)) < gap_bound(4 * hidden)
    for name, array in before.items():
        last = 2 * hidden if name.startswith("bias") else 0
        assert np.array_equal(layer.parameters[name][last:], array[last:])


@pytest.mark.parametrize("initialise", [lambda layer: init.forget_bias_(layer), lambda layer: init.chrono_(layer, 9)])
def test_layers_refused(initialise: Any) -> None:
    without = lstm_like(5)
    del without.parameters["bias_ih_l0"], without.parameters["bias_hh_l0"]
    with pytest.raises(ValueError, match="lstm: expected a layer with bias=True; got one with weight_ih_l0, weight"):
        initialise(without)
    with pytest.raises(
        ValueError, match=r"bias_ih_l0: expected shape \(20,\) for an LSTM of hidden_size=5; got \(5,\)"
    ):
        initialise(lstm_like(5, gates=1))
    with pytest.raises(TypeError, match="lstm: expected a layer with `hidden_size` and a dict `parameters`; got dict"):
        initialise({})
    frozen = lstm_like(5, suffixes=STACKED)
    frozen.parameters["bias_hh_l1"].flags.writeable = False
    before = copies(frozen.parameters)
    with pytest.raises(ValueError, match="bias_hh_l1: expected a writable array"):
        initialise(frozen)
    for name, array in before.items():
        assert np.array_equal(frozen.parameters[name], array)


@pytest.mark.parametrize("t_max", [2, 2.0, 1, -5.0, math.nan, math.inf])
def test_chrono_refuses_short_spans(t_max: float) -> None:
    layer = lstm_like(5)
    before = copies(layer.parameters)
    with pytest.raises(ValueError, match="t_max: expected a finite number above 2; got"):
        init.chrono_(layer, t_max)
    assert all(np.array_equal(layer.parameters[name], array) for name, array in before.items())


def test_gate_bias_values_refused() -> None:
    with pytest.raises(ValueError, match="value: expected a finite number"):
        init.forget_bias_(lstm_like(5), math.inf)
    with pytest.raises(TypeError, match="t_max: expected a number"):
        init.chrono_(lstm_like(5), "9")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="rng: expected"):
        init.chrono_(lstm_like(5), 9, 0)  # type: ignore[arg-type]
