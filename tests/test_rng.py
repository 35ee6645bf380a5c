"""The replay of torch's generator: equal bits, for every size, both dtypes and any order of calls."""

from __future__ import annotations

import copy
import importlib
import io
import os
import pickle
import subprocess
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scratchrnn.rng import TorchGenerator, check_rng, draw_normal, draw_uniform, torch_manual_seed
from scratchrnn.testing import assert_close

DTYPES = [np.float32, np.float64]


@pytest.fixture
def torch() -> ModuleType:
    module = importlib.import_module("torch")
    if module.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        pytest.skip("torch's own bits differ on a machine without AVX2")
    return module


def assert_same_bits(name: str, got: Any, tensor: Any) -> None:
    want = tensor.detach().numpy()
    assert_close(name, got, want, rel=0.0)
    assert np.array_equal(np.signbit(got), np.signbit(want)), f"{name}: signs of zero differ"


def torch_dtype(torch: ModuleType, dtype: Any) -> Any:
    return torch.float32 if dtype is np.float32 else torch.float64


# what torch 2.13 printed, so that something is checked where torch is absent


def test_printed_digits_of_a_small_tensor_and_an_lstm() -> None:
    g = torch_manual_seed(0)
    x = g.randn(1, 4, 3)
    k = 2**-0.5
    w_ih, w_hh, b_ih, b_hh = (g.uniform(-k, k, shape) for shape in ((8, 3), (8, 2), 8, 8))
    printed: dict[str, Any] = {
        "x": [
            [1.540996, -0.293429, -2.178789, 0.568431, -1.084522, -1.398595],
            [0.403347, 0.838026, -0.719258, -0.403344, -0.596635, 0.182036],
        ],
        "w_ih": [-0.113974, 0.074822, 0.640268],
        "w_hh": [-0.418856, 0.213622],
        "b_ih": [0.388182, -0.089249, 0.026998, 0.163840, 0.438672, 0.678960, -0.544913, -0.259133],
        "b_hh": [0.277900, 0.585873, 0.615330, 0.623920, 0.140725, -0.614888, 0.065049, -0.442370],
    }
    got = {"x": x.reshape(2, 6), "w_ih": w_ih[0], "w_hh": w_hh[7], "b_ih": b_ih, "b_hh": b_hh}
    for name, want in printed.items():
        np.testing.assert_allclose(got[name], want, rtol=0.0, atol=6e-7, err_msg=name)


def test_printed_digits_of_blocks() -> None:
    g = torch_manual_seed(1)
    assert g.randn(17)[-2:].tolist() == [-0.13162320852279663, -0.7984398007392883]
    printed = ((17, [0.09832652870275599, -2.7712892906770543]), (3, [-0.7525347278328434, -0.15231087041596747]))
    for size, want in printed:  # the last digit is the C library's
        np.testing.assert_allclose(g.randn(size, dtype=np.float64)[-2:], want, rtol=2.0**-51, atol=0.0)
    assert g.uniform(-0.3, 0.5, 2).tolist() == [0.12088669836521149, 0.3741832375526428]
    assert g.uniform(-0.3, 0.5, 2, np.float64).tolist() == [0.3631405080270937, 0.49026778187469744]


# torch itself


def test_input_then_lstm_parameters_from_one_seed(torch: ModuleType) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        x, lstm = torch.randn(1, 4, 3), torch.nn.LSTM(3, 2)
    g = torch_manual_seed(0)
    assert_same_bits("x", g.randn(1, 4, 3), x)
    for name, parameter in lstm.named_parameters():
        assert_same_bits(name, g.uniform(-(2**-0.5), 2**-0.5, tuple(parameter.shape)), parameter)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", [0, 7, 2**31 + 5])
def test_every_size_from_one_stream(torch: ModuleType, seed: int, dtype: Any) -> None:
    ours, theirs = torch_manual_seed(seed), torch.Generator().manual_seed(seed)
    for size in range(201):
        kind = torch_dtype(torch, dtype)
        want = torch.randn(size, dtype=kind, generator=theirs)
        assert_same_bits(f"randn {size}", ours.randn(size, dtype=dtype), want)
        want = torch.empty(size, dtype=kind).normal_(0.3, 1.7, generator=theirs)
        assert_same_bits(f"normal {size}", ours.normal(0.3, 1.7, size, dtype), want)
        want = torch.empty(size, dtype=kind).uniform_(-0.3, 0.5, generator=theirs)
        assert_same_bits(f"uniform {size}", ours.uniform(-0.3, 0.5, size, dtype), want)


def test_any_order_of_calls(torch: ModuleType, rng: np.random.Generator) -> None:
    for seed in range(60):
        ours, theirs = torch_manual_seed(seed), torch.Generator().manual_seed(seed)
        for call in range(25):
            dtype = DTYPES[rng.integers(2)]
            shape = tuple(rng.integers(0, 9, size=rng.integers(0, 4)).tolist())
            tensor = torch.empty(shape, dtype=torch_dtype(torch, dtype))
            # widths far below and far above the offset: there the fused rounding shows
            a = float(rng.normal() * 10.0 ** rng.uniform(-6, 6))
            b = float(abs(rng.normal()) * 10.0 ** rng.uniform(-6, 6))
            if rng.integers(2):
                got, want = ours.normal(a, b, shape, dtype), tensor.normal_(a, b, generator=theirs)
            else:
                got, want = ours.uniform(a, a + b, shape, dtype), tensor.uniform_(a, a + b, generator=theirs)
            assert_same_bits(f"seed {seed} call {call} {shape} a={a} b={b}", got, want)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_million(torch: ModuleType, dtype: Any) -> None:
    count = 10**6 + 3
    ours, theirs = torch_manual_seed(11), torch.Generator().manual_seed(11)
    kind = torch_dtype(torch, dtype)
    want = torch.empty(count, dtype=kind).normal_(-0.2, 3.3, generator=theirs)
    assert_same_bits("normal", ours.normal(-0.2, 3.3, count, dtype), want)
    want = torch.empty(count, dtype=kind).uniform_(1000.0, 1000.001, generator=theirs)
    assert_same_bits("uniform", ours.uniform(1000.0, 1000.001, count, dtype), want)


def untempered(words: np.ndarray) -> np.ndarray:
    """State words that MT19937 will put out as `words`: its last step undone."""
    y = words.astype(np.uint32)
    y ^= y >> np.uint32(18)
    y ^= (y << np.uint32(15)) & np.uint32(0xEFC60000)
    z = y
    for _ in range(4):
        z = y ^ ((z << np.uint32(7)) & np.uint32(0x9D2C5680))
    y = z
    for _ in range(2):
        z = y ^ (z >> np.uint32(11))
    return z


def check_float32_inputs(torch: ModuleType, words: np.ndarray) -> None:
    """Feed chosen 24-bit uniforms through both generators: as u_1 with u_2 = 0 they show r, as u_2 cos and sin."""
    radius_two = 14506667  # u_1 for which r is exactly 2, which leaves the bits of cos and sin as they are
    template = torch.Generator().manual_seed(0).get_state().numpy()
    ours, theirs = torch_manual_seed(0), torch.Generator()
    for first_half in (True, False):
        other = np.full_like(words, 0 if first_half else radius_two)
        lanes = (words, other) if first_half else (other, words)
        blocks = np.concatenate([lane.reshape(-1, 8) for lane in lanes], axis=1).reshape(-1, 608)
        for block in blocks:
            key = np.zeros(624, np.uint32)
            key[:608] = untempered(block)
            ours.set_state({**ours.get_state(), "words": key, "position": 0})
            raw = template.copy()
            raw[8:12] = np.array([624], np.int32).view(np.uint8)  # words left
            raw[16:24] = np.array([0], np.uint64).view(np.uint8)  # position
            raw[24 : 24 + 8 * 624] = key.astype(np.uint64).view(np.uint8)
            theirs.set_state(torch.from_numpy(raw))
            got, want = ours.randn(608), torch.randn(608, generator=theirs).numpy()
            if not np.array_equal(got.view(np.uint32), want.view(np.uint32)):
                assert_close(f"inputs {block[0]} to {block[-1]}", got, want, rel=0.0)


def test_float32_inputs_sampled(torch: ModuleType) -> None:
    first_and_last = np.concatenate([np.arange(1520), np.arange(2**24 - 1520, 2**24)])
    spread = np.arange(304 * 300) * 183 % 2**24
    check_float32_inputs(torch, np.concatenate([first_and_last, spread]).astype(np.uint32))


@pytest.mark.slow
def test_float32_inputs_all(torch: ModuleType) -> None:
    # 2**24 inputs, filled up to whole blocks with the first ones
    check_float32_inputs(torch, (np.arange(-(-(2**24) // 304) * 304) % 2**24).astype(np.uint32))


def test_open_end_is_never_drawn(torch: ModuleType) -> None:
    high = 1.0 + 2.0**-20  # 8 float32 steps: one draw in 16 rounds up to the bound
    ours, theirs = torch_manual_seed(3), torch.Generator().manual_seed(3)
    got = ours.uniform(1.0, high, 5000)
    assert got.max() < high
    assert_same_bits("uniform", got, torch.empty(5000).uniform_(1.0, high, generator=theirs))
    assert ours.uniform(0.25, 0.25, 3).tolist() == [0.25] * 3
    assert ours.normal(0.25, 0.0, 20).tolist() == [0.25] * 20


@pytest.mark.parametrize("seed", [-1, -(2**63), 2**63, 2**64 - 1, 2**32 + 9, np.int64(9)])
def test_seeds_as_torch_reads_them(torch: ModuleType, seed: int) -> None:
    theirs = torch.Generator().manual_seed(int(seed))
    ours = torch_manual_seed(seed)
    assert ours.seed == theirs.initial_seed()
    assert_same_bits("randn", ours.randn(21), torch.randn(21, generator=theirs))


def test_state_equals_torchs(torch: ModuleType) -> None:
    ours, theirs = torch_manual_seed(4), torch.Generator().manual_seed(4)
    ours.randn(701)
    torch.randn(701, generator=theirs)
    ours.randn(5)
    torch.randn(5, generator=theirs)
    raw = theirs.get_state().numpy().tobytes()
    state = ours.get_state()
    words = np.frombuffer(raw, np.uint64, 624, offset=24)
    _, next_normal, _ = np.frombuffer(raw, np.float64, 3, offset=24 + 8 * 624)
    assert np.array_equal(state["words"], words)
    assert state["next_normal"].tolist() == [next_normal]


@pytest.mark.slow
def test_how_far_torch_differs_without_avx2(torch: ModuleType) -> None:
    """The figures that TorchGenerator's notes state."""
    script = (
        "import sys, numpy as np, torch; g = torch.Generator().manual_seed(1); out = {}\n"
        "for kind in (torch.float32, torch.float64):\n"
        "    e = lambda n: torch.empty(n, dtype=kind)\n"
        "    out[f'uniform {kind}'] = e(10**6).uniform_(-.3, .5, generator=g)\n"
        "    out[f'blocks {kind}'] = e(16 * 10**5).normal_(.1, .3, generator=g)\n"
        "    out[f'singles {kind}'] = torch.cat([e(15).normal_(.1, .3, generator=g) for _ in range(10**4)])\n"
        "np.savez(sys.stdout.buffer, **{k: v.numpy() for k, v in out.items()})\n"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    run = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    plain = np.load(io.BytesIO(run.stdout))
    g = torch_manual_seed(1)
    for dtype in (np.float32, np.float64):
        eps, name = float(np.finfo(dtype).eps), f"torch.{dtype.__name__}"
        uniform = np.abs(g.uniform(-0.3, 0.5, 10**6, dtype) - plain[f"uniform {name}"])
        blocks = np.abs(g.normal(0.1, 0.3, 16 * 10**5, dtype) - plain[f"blocks {name}"])
        singles = np.concatenate([g.normal(0.1, 0.3, 15, dtype) for _ in range(10**4)])
        singles = np.abs(singles - plain[f"singles {name}"])
        assert 0.4 < (uniform > 0).mean() < 0.6
        assert uniform.max() <= eps / 4
        assert (0 < blocks.max() <= 20 * eps * 0.3) if dtype is np.float32 else blocks.max() == 0
        assert singles.max() == 0 if dtype is np.float32 else 0 < singles.max() <= eps


# what needs no torch


def test_generators_are_independent() -> None:
    first, second = torch_manual_seed(1), torch_manual_seed(2)
    pairs = [(first.uniform(size=7), second.uniform(size=7)) for _ in range(5)]
    got_first, got_second = (np.stack(rows) for rows in zip(*pairs, strict=True))
    assert np.array_equal(got_first, torch_manual_seed(1).uniform(size=(5, 7)))
    assert np.array_equal(got_second, torch_manual_seed(2).uniform(size=(5, 7)))
    assert not np.array_equal(got_first, got_second)


def test_state_resumes_in_the_middle_of_a_pair() -> None:
    g = torch_manual_seed(5)
    g.randn(37)
    g.randn(3)  # odd: the second half of a pair waits
    state = g.get_state()
    copies = [copy.deepcopy(g), pickle.loads(pickle.dumps(g)), torch_manual_seed(99)]
    want = [g.randn(2), g.uniform(size=700), g.randn(20, dtype=np.float64)]
    copies[2].set_state(state)
    for other in copies:
        got = [other.randn(2), other.uniform(size=700), other.randn(20, dtype=np.float64)]
        assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
        assert other.seed == 5
    assert state["next_normal"].shape == (1,)
    assert torch_manual_seed(5).get_state()["next_normal"].shape == (0,)


def test_state_is_a_copy() -> None:
    g, same = torch_manual_seed(6), torch_manual_seed(6)
    state = g.get_state()
    g.set_state(state)
    state["words"][:] = 0
    assert np.array_equal(g.randn(9), same.randn(9))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"words": np.zeros(623, np.uint32)},
            ValueError,
            r"state\['words'\]: expected a uint32 array of shape \(624,\)",
        ),
        ({"words": np.zeros(624)}, ValueError, r"got an array of shape \(624,\) and dtype float64"),
        ({"position": 625}, ValueError, r"state\['position'\]: expected at most 624; got 625"),
        ({"position": -1}, ValueError, r"state\['position'\]"),
        ({"position": 1.5}, TypeError, r"state\['position'\]"),
        ({"seed": -1}, ValueError, r"state\['seed'\]"),
        ({"seed": 2**64}, ValueError, r"state\['seed'\]"),
        ({"next_normal": None}, TypeError, r"state\['next_normal'\]"),
        ({"next_normal": np.zeros(2)}, ValueError, r"state\['next_normal'\]: expected shape \(0,\) or \(1,\)"),
        ({"extra": 1}, ValueError, "state: expected the keys"),
    ],
)
def test_wrong_states_change_nothing(change: dict[str, Any], error: type[Exception], message: str) -> None:
    g = torch_manual_seed(8)
    g.randn(3)
    with pytest.raises(error, match=message):
        g.set_state({**torch_manual_seed(1).get_state(), **change})
    same = torch_manual_seed(8)
    same.randn(3)
    assert np.array_equal(g.randn(30), same.randn(30))
    with pytest.raises(TypeError, match="state: expected a dict"):
        g.set_state(3)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [True, 1.0, "1", None, np.float64(2), -(2**63) - 1, 2**64])
def test_seeds_refused(seed: Any) -> None:
    with pytest.raises(ValueError if type(seed) is int else TypeError, match="seed: expected an integer"):
        torch_manual_seed(seed)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"low": 1.0, "high": 0.0}, ValueError, "low: expected at most high=0.0; got 1.0"),
        ({"low": np.nan}, ValueError, "low: expected a finite number"),
        ({"high": np.inf}, ValueError, "high: expected a finite number"),
        ({"high": "1"}, TypeError, "high: expected a number"),
        ({"low": -3e38, "high": 3e38}, ValueError, "within float32's range"),
        ({"high": 1e39}, ValueError, "within float32's range"),
        ({"size": -1}, ValueError, "size: expected an integer of at least 0; got -1"),
        ({"size": (2, 1.5)}, TypeError, "size: expected an integer"),
        ({"size": None}, TypeError, "size: expected an integer or a tuple of integers; got NoneType None"),
        ({"dtype": np.float16}, TypeError, "dtype: expected float32 or float64; got float16"),
    ],
)
def test_uniform_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    full = {"low": 0.0, "high": 1.0, "size": 3, "dtype": np.float32, **arguments}
    for draw in (torch_manual_seed(0).uniform, lambda **a: draw_uniform(np.random.default_rng(0), **a)):
        with pytest.raises(error, match=message):
            draw(**full)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"std": -1.0}, ValueError, "std: expected a finite number of at least 0; got -1.0"),
        ({"std": np.nan}, ValueError, "std: expected a finite number"),
        ({"mean": np.inf}, ValueError, "mean: expected a finite number"),
        ({"mean": 1e39}, ValueError, "within float32's range"),
        ({"size": -1}, ValueError, "size: expected an integer of at least 0; got -1"),
        ({"dtype": int}, TypeError, "dtype: expected float32 or float64; got int64"),
    ],
)
def test_normal_refuses(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    full = {"mean": 0.0, "std": 1.0, "size": 3, "dtype": np.float32, **arguments}
    for draw in (torch_manual_seed(0).normal, lambda **a: draw_normal(np.random.default_rng(0), **a)):
        with pytest.raises(error, match=message):
            draw(**full)


@pytest.mark.parametrize("tiny", [1e-250, 1e250])
def test_magnitudes_whose_rounding_is_not_replayed(tiny: float) -> None:
    g = torch_manual_seed(0)
    with pytest.raises(ValueError, match="high - low: expected 0 or a magnitude of"):
        g.uniform(0.0, tiny, 3, np.float64)
    with pytest.raises(ValueError, match="std: expected 0 or a magnitude of"):
        g.normal(0.0, tiny, 3, np.float64)


def test_shapes() -> None:
    g = torch_manual_seed(0)
    for shape in ((), (0,), (2, 0, 3), (4,), (2, 3, 5)):
        assert g.randn(*shape).shape == g.randn(shape).shape == g.uniform(size=shape).shape == shape
        assert isinstance(g.normal(size=shape), np.ndarray)
    assert g.randn(4).shape == g.uniform(size=4).shape == (4,)
    before = g.get_state()["position"]
    g.uniform(size=(3, 0))
    assert g.get_state()["position"] == before


@pytest.mark.parametrize("dtype", DTYPES)
def test_draws_dispatch_on_the_generator(dtype: Any) -> None:
    uniform = draw_uniform(np.random.default_rng(2), -0.5, 2.0, (3, 4), dtype)
    assert uniform.dtype == dtype
    assert np.array_equal(uniform, np.random.default_rng(2).uniform(-0.5, 2.0, (3, 4)).astype(dtype))
    normal = draw_normal(np.random.default_rng(2), -0.5, 2.0, 7, dtype)
    assert normal.dtype == dtype
    assert np.array_equal(normal, np.random.default_rng(2).normal(-0.5, 2.0, 7).astype(dtype))
    replay = draw_uniform(torch_manual_seed(2), -0.5, 2.0, (3, 4), dtype)
    assert np.array_equal(replay, torch_manual_seed(2).uniform(-0.5, 2.0, (3, 4), dtype))
    replay = draw_normal(torch_manual_seed(2), -0.5, 2.0, 7, dtype)
    assert np.array_equal(replay, torch_manual_seed(2).normal(-0.5, 2.0, 7, dtype))
    assert draw_uniform(np.random.default_rng(2), 0.0, 1.0, (), dtype).shape == ()


def test_check_rng() -> None:
    for source in (np.random.default_rng(0), torch_manual_seed(0)):
        assert check_rng("rng", source) is source
    fresh, other = check_rng("rng", None), check_rng("rng", None)
    assert isinstance(fresh, np.random.Generator)
    assert not isinstance(fresh, TorchGenerator)
    assert not np.array_equal(draw_uniform(fresh, 0, 1, 4, np.float64), draw_uniform(other, 0, 1, 4, np.float64))
    with pytest.raises(TypeError, match=r"rng: .* got int 5 \(use np.random.default_rng\(5\)"):
        check_rng("rng", 5)
    for wrong in (np.random.RandomState(0), np.random, "0"):
        with pytest.raises(TypeError, match=r"rng: expected None, np.random.Generator or"):
            check_rng("rng", wrong)
        with pytest.raises(TypeError, match=r"rng: expected None, np.random.Generator or"):
            draw_uniform(wrong, 0.0, 1.0, 3, np.float32)  # type: ignore[arg-type]
