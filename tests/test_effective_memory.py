"""Effective memory of whole nets: as they are initialised, compared with torch.nn; exploding, censored, overflowing.

Oracle: torch.nn with the same weights on the same inputs, for the counting rule.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.gradflow import effective_memory
from scratchrnn.testing import assert_close


def lstm_with_forget_bias(value: float | None, hidden: int, rng: np.random.Generator) -> srnn.LSTM:
    lstm = srnn.LSTM(10, hidden, rng=rng)
    if value is not None:
        srnn.init.forget_bias_(lstm, value)
    return lstm


def default_net(kind: str, hidden: int, rng: np.random.Generator) -> Any:
    if kind == "rnn":
        return srnn.RNN(10, hidden, rng=rng)
    return lstm_with_forget_bias(1.0 if "bias" in kind else None, hidden, rng)


def torchs_rule(layer: Any, inputs_seed: list[int]) -> int:
    """The count of the rule for torch's own module, of the same weights and on the same inputs."""
    module = (torch.nn.LSTM if layer.cell.has_c else torch.nn.RNN)(10, layer.hidden_size)
    module.load_state_dict({name: torch.tensor(value) for name, value in layer.parameters.items()})
    x = np.random.default_rng(inputs_seed).standard_normal((100, 50, 10)).astype(np.float32)
    source = torch.tensor(x, requires_grad=True)
    module(source)[0][-1].sum().backward()
    assert source.grad is not None
    norms = source.grad.norm(dim=-1).mean(dim=1)
    return int((norms > 0.01 * norms.max()).sum())


# smallest and largest over 24 seeds, T = 100, 50 trials, for H = 16, 64, 128: the rule's count, on which torch agrees
# net by net, and the horizon
COUNTED = {
    ("rnn", 16): ((6, 8), (5, 6)),
    ("rnn", 64): ((7, 9), (7, 7)),
    ("rnn", 128): ((7, 9), (7, 8)),
    ("lstm", 16): ((8, 11), (7, 9)),
    ("lstm", 64): ((7, 11), (8, 9)),
    ("lstm", 128): ((8, 11), (8, 8)),
    ("lstm, forget bias 1", 16): ((16, 29), (16, 22)),
    ("lstm, forget bias 1", 64): ((19, 34), (22, 26)),
    ("lstm, forget bias 1", 128): ((21, 31), (23, 26)),
}


def check_counts(kind: str, hidden: int, seeds: int) -> tuple[list[int], list[int]]:
    """Rule and horizon of nets with these seeds, each net's rule compared with torch's."""
    rules, horizons = [], []
    for seed in range(seeds):
        layer = default_net(kind, hidden, np.random.default_rng(seed))
        memory = effective_memory(layer, rng=np.random.default_rng([seed, 1]))
        assert memory.seed_rule == torchs_rule(layer, [seed, 1])
        assert (memory.censored, memory.exploding) == (False, False)
        assert 1 < memory.decay_time < 8
        rules.append(memory.seed_rule)
        horizons.append(memory.horizon)
    return rules, horizons


@pytest.mark.parametrize(("kind", "hidden"), COUNTED)
def test_default_nets_remember_as_long_as_torchs(kind: str, hidden: int) -> None:
    for got, (least, most) in zip(check_counts(kind, hidden, 4), COUNTED[kind, hidden], strict=True):
        assert least <= min(got) <= max(got) <= most


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "hidden"), COUNTED)
def test_the_ranges_over_24_seeds(kind: str, hidden: int) -> None:
    rules, horizons = check_counts(kind, hidden, 24)
    assert ((min(rules), max(rules)), (min(horizons), max(horizons))) == COUNTED[kind, hidden]


def test_the_rule_is_the_one_of_a_torch_module_trial_by_trial() -> None:
    # the rule as it is usually written: one trial at a time, sum of the last output, norms added up
    rng = np.random.default_rng(8)
    lstm = lstm_with_forget_bias(1.0, 32, rng)
    module = torch.nn.LSTM(10, 32, batch_first=True)
    module.load_state_dict({name: torch.tensor(value) for name, value in lstm.parameters.items()})
    memory = effective_memory(lstm, seq_length=60, num_trials=12, rng=np.random.default_rng(5))
    x = np.random.default_rng(5).standard_normal((60, 12, 10)).astype(np.float32)
    total = torch.zeros(60)
    for trial in range(12):
        one = torch.tensor(x[:, trial])[None].requires_grad_()
        module(one)[0][0, -1, :].sum().backward()
        assert one.grad is not None
        total += one.grad[0].norm(dim=-1)
    total /= 12
    assert memory.seed_rule == int((total > total.max() * 0.01).sum())
    assert_close("gradient_norms", memory.gradient_norms, total.double().numpy(), rel=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_exploding_gradients_are_flagged_where_the_rule_prints_eight(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rnn = srnn.RNN(10, 64, nonlinearity="relu", rng=rng)
    srnn.init.normal_(rnn.parameters["weight_hh_l0"], 0.0, 2.5 / np.sqrt(64), rng)
    memory = effective_memory(rnn, rng=rng)
    assert 4 <= memory.seed_rule <= 12
    assert memory.gradient_norms[0] > 1e15 * memory.gradient_norms[-1]
    assert memory.exploding
    assert memory.censored
    assert memory.decay_time == np.inf
    assert memory.decay_factor > 1.3


def test_gradients_that_overflow_are_exploding() -> None:
    # a chaotic tanh net, gain 5: |h| <= 1, while the gradient grows by exp(0.53) per step (the Lyapunov exponent)
    rng = np.random.default_rng(1)
    rnn = srnn.RNN(10, 64, rng=rng)
    srnn.init.normal_(rnn.parameters["weight_hh_l0"], 0.0, 5 / np.sqrt(64), rng)
    memory = effective_memory(rnn, seq_length=400, num_trials=4, rng=rng)
    assert not np.isfinite(memory.by_distance[-1])
    assert memory.exploding
    assert memory.censored
    assert 1.2 < memory.decay_factor < 2.0


def test_hidden_states_that_overflow_are_an_error() -> None:
    # gradients of a relu that met nan would still be finite numbers, and mean nothing
    rng = np.random.default_rng(1)
    rnn = srnn.RNN(10, 16, nonlinearity="relu", rng=rng)
    rnn.parameters["weight_hh_l0"][:] = 100.0
    with pytest.raises(ValueError, match=r"hidden states that stay finite in float32; got .* at step 1\d of 30"):
        effective_memory(rnn, seq_length=30, rng=rng)


@pytest.mark.parametrize("hidden", [16, 64])
def test_a_memory_longer_than_the_window_is_censored_not_exploding(hidden: int) -> None:
    rng = np.random.default_rng(0)
    memory = effective_memory(lstm_with_forget_bias(3.0, hidden, rng), rng=rng)
    assert (memory.seed_rule, memory.horizon) == (100, 99)
    assert memory.censored
    assert not memory.exploding


def test_float32_agrees_with_float64() -> None:
    # RNN gradients over 100 steps fall to 1e-27: still far above float32's end
    rng = np.random.default_rng(2)
    small = srnn.RNN(10, 32, rng=rng)
    large = srnn.RNN(10, 32, dtype=np.float64)
    large.load_state_dict({name: value.astype(np.float64) for name, value in small.parameters.items()})
    a, b = (effective_memory(layer, rng=np.random.default_rng(4)) for layer in (small, large))
    assert b.by_distance[-1] < 1e-22
    assert a.by_distance.dtype == a.gradient_norms.dtype == np.float64
    np.testing.assert_allclose(a.by_distance, b.by_distance, rtol=1e-4)
    assert (a.seed_rule, a.horizon) == (b.seed_rule, b.horizon)
    assert a.decay_time == pytest.approx(b.decay_time, rel=1e-5)


def test_random_directions_show_what_a_sum_over_units_hides() -> None:
    # units in pairs of opposite sign: their sum depends on nothing
    rng = np.random.default_rng(6)
    rnn = srnn.RNN(3, 8, dtype=np.float64, rng=rng)
    for weight in rnn.parameters.values():
        weight[4:] = -weight[:4]
    memory = effective_memory(rnn, rng=rng)
    assert memory.gradient_norms.max() < 1e-15
    assert memory.by_distance[0] > 0.1


def test_measuring_changes_nothing_and_drops_nothing() -> None:
    options: dict[str, Any] = {"num_layers": 2, "dtype": np.float64}
    lstm = srnn.LSTM(4, 6, **options, dropout=0.9, rng=np.random.default_rng(1))
    plain = srnn.LSTM(4, 6, **options, rng=np.random.default_rng(1))
    before = lstm.state_dict()
    memory = effective_memory(lstm, seq_length=9, num_trials=3, rng=np.random.default_rng(2))
    without = effective_memory(plain, seq_length=9, num_trials=3, rng=np.random.default_rng(2))
    assert_close("by_distance", memory.by_distance, without.by_distance, rel=0)
    for name, value in before.items():
        assert_close(name, lstm.parameters[name], value, rel=0)


def test_torchs_generator_will_do_and_the_result_is_frozen() -> None:
    lstm = srnn.LSTM(4, 6, rng=srnn.rng.torch_manual_seed(1))
    memory = effective_memory(lstm, seq_length=7, num_trials=3, rng=srnn.rng.torch_manual_seed(2))
    assert memory.gradient_norms.shape == memory.by_distance.shape == memory.state_by_distance.shape == (7,)
    with pytest.raises(dataclasses.FrozenInstanceError):
        memory.horizon = 3  # type: ignore[misc]
