"""interop.torch.LSTM and RNN against torch.nn's: every configuration, every result and gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from torch.nn.utils.rnn import pack_padded_sequence

from scratchrnn.interop import torch as interop
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests.modules import gradients, modules, ours_like, pair
from tests.problems import Case, by_torch, draw, grid

# torch says once per process that its float32 projection takes the slower path
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

ABSENT = [
    frozenset(a)
    for a in (
        {"d_output"},
        {"d_h_n"},
        {"d_c_n"},
        {"d_h_n", "d_c_n"},
        {"d_output", "d_h_n"},
        {"d_output", "d_c_n"},
        {"state"},
    )
]
EXACT = TOLERANCE["float64"]


def compare(case: Case, rng: np.random.Generator, absent: frozenset[str] = frozenset()) -> None:
    theirs, ours = modules(case, rng, np.float64)
    problem = draw(case, rng, absent)
    want, got = by_torch(theirs, case, problem), by_torch(ours, case, problem)
    assert got.keys() == want.keys()
    for name in want:
        assert_close(f"{case} {name}", got[name], want[name], rel=EXACT)


@pytest.mark.parametrize("case", grid(), ids=str)
def test_float64_equals_torch(case: Case, rng: np.random.Generator) -> None:
    compare(case, rng)


@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("absent", ABSENT, ids=lambda absent: "+".join(sorted(absent)))
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_absent_cotangents_and_state(cell: str, absent: frozenset[str], backend: str, rng: np.random.Generator) -> None:
    if cell != "lstm" and "d_h_n" in absent and "d_output" in absent:
        return  # nothing is left
    from scratchrnn import backends

    with backends.use_backend(backend):
        for lengths in (None, (4, 7, 1, 7, 3)):
            compare(Case(cell, 3, bidirectional=True, lengths=lengths), rng, absent)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("absent", [frozenset(), frozenset({"state"})], ids=["state", "no-state"])
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm"])
def test_without_a_batch(cell: str, absent: frozenset[str], batch_first: bool, rng: np.random.Generator) -> None:
    compare(Case(cell, 2, bidirectional=True, batch_first=batch_first, sizes=(7, 1, 3, 6), batched=False), rng, absent)


@pytest.mark.parametrize("sizes", [(1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_smallest_sizes(cell: str, sizes: tuple[int, int, int, int], rng: np.random.Generator) -> None:
    for layers, both in ((1, False), (2, True)):
        compare(Case(cell, layers, both, sizes=sizes), rng)


@pytest.mark.parametrize("ragged", [False, True], ids=["full", "packed"])
def test_float32_error_is_at_most_twice_torchs(ragged: bool) -> None:
    rng = np.random.default_rng(3)
    for case in grid():
        if case.batch_first or (case.lengths is not None) != ragged:
            continue
        theirs, ours = modules(case, rng, np.float32)
        problem = draw(case, rng)
        truth = by_torch(theirs.double(), case, problem)
        theirs.float()
        got, torchs = (by_torch(m, case, problem.astype(np.float32)) for m in (ours, theirs))
        for name in truth:
            assert got[name].dtype == np.float32
            mine, its = difference(got[name], truth[name]), difference(torchs[name], truth[name])
            allowed = max(TOLERANCE["float32_growth"] * its.rms_ratio, TOLERANCE["float32_floor"])
            assert mine.rms_ratio <= allowed, f"{case} {name}: ours {mine}, torch {its}"


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize(("layers", "both", "batch_first", "proj"), [(1, False, False, 0), (2, True, True, 1)])
def test_gradcheck(kind: str, layers: int, both: bool, batch_first: bool, proj: int) -> None:
    options: dict[str, Any] = {"proj_size": proj} if kind == "LSTM" else {}
    module = getattr(interop, kind)(
        2, 3, layers, bidirectional=both, batch_first=batch_first, dtype=torch.float64, **options
    )
    x = torch.randn(2, 3, 2, dtype=torch.float64, requires_grad=True)
    rows, batch = layers * (1 + both), 2 if batch_first else 3
    sizes = (proj or 3, 3) if kind == "LSTM" else (3,)
    states = [torch.randn(rows, batch, size, dtype=torch.float64, requires_grad=True) for size in sizes]
    names = [name for name, _ in module.named_parameters()]

    def call(x: Any, *tensors: Any) -> Any:
        hx = tensors[: len(states)] if kind == "LSTM" else tensors[0]
        weights = dict(zip(names, tensors[len(states) :], strict=True))
        output, final = torch.func.functional_call(module, weights, (x, hx))
        return (output, *final) if kind == "LSTM" else (output, final)

    weights = [p.detach().clone().requires_grad_() for p in module.parameters()]
    assert torch.autograd.gradcheck(call, (x, *states, *weights))


# Dropout


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("p", [0.4, 1.0])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_dropout_draws_torchs_own_masks(kind: str, p: float, batch_first: bool, packed: bool) -> None:
    theirs, ours = pair(
        kind, 3, 4, 3, dropout=p, bidirectional=True, batch_first=batch_first, dtype=torch.float64
    )  # fmt: skip
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 1, 4, 5] if batch_first else [2, 5, 1, 4, 5, 3])
    given = pack_padded_sequence(x, lengths, batch_first, enforce_sorted=False) if packed else x
    results = []
    for module in (theirs, ours):
        torch.manual_seed(5)
        output, _ = module(given)
        data = output.data if packed else output  # of a tensor, .data is detached
        data.sin().sum().backward()
        results.append([data.detach(), *(w.grad for w in module.parameters()), torch.rand(1)])
    for want, got in zip(*results, strict=True):
        assert_close("with dropout", got.numpy(), want.numpy(), rel=EXACT)
    ours.eval()
    theirs.eval()
    assert_close("eval", ours(given)[0].data.detach().numpy(), theirs(given)[0].data.detach().numpy(), rel=EXACT)


def test_dropout_acts_without_gradients_too() -> None:
    theirs, ours = pair("LSTM", 3, 4, 2, dropout=0.5)
    x = torch.randn(5, 2, 3)
    with torch.no_grad():
        torch.manual_seed(1)
        want, _ = theirs(x)
        torch.manual_seed(1)
        got, _ = ours(x)
    assert_close("output", got.numpy(), want.numpy(), rel=1e-6)
    assert difference(got.numpy(), ours.eval()(x)[0].detach().numpy()).ratio > 0.1


# Layouts of memory


def test_inputs_and_cotangents_that_are_not_contiguous() -> None:
    theirs, ours = pair("LSTM", 3, 4, 2, bidirectional=True, dtype=torch.float64)
    wide = torch.randn(2, 14, 6, dtype=torch.float64)
    x = wide.transpose(0, 1)[::2, :, ::2]
    h = torch.randn(2, 1, 4, dtype=torch.float64).repeat_interleave(2, 0)[:, :1].expand(4, 2, 4)
    assert not x.is_contiguous()
    assert not h.is_contiguous()
    want, got = gradients(theirs, x, (h, h)), gradients(ours, x, (h, h))
    for name in want:
        assert_close(name, got[name], want[name], rel=EXACT)
    found = []
    for module in (theirs, ours):
        leaf = x.clone().requires_grad_()
        output, _ = module(leaf)
        output.sum().backward()  # an expanded cotangent
        found.append(leaf.grad.numpy())
        module.zero_grad()
        output, _ = module(leaf)
        output.backward(torch.arange(7 * 2 * 8.0, dtype=torch.float64).view(8, 2, 7).permute(2, 1, 0))
        found.append(module.weight_hh_l1.grad.numpy())
    for got_one, want_one in zip(found[2:], found[:2], strict=True):
        assert_close("dx", got_one, want_one, rel=EXACT)


def test_arrays_and_tensors_share_memory() -> None:
    from scratchrnn.interop.torch.call import array_of

    x = torch.randn(5, 2, 3)
    assert array_of(x).ctypes.data == x.data_ptr()
    negated = torch.randn(5, 2, 3, dtype=torch.complex64).conj().imag
    assert negated.is_neg()
    ours = interop.LSTM(3, 4)
    assert torch.equal(ours(negated)[0], ours(negated.clone())[0])


def test_only_what_requires_grad_gets_one() -> None:
    theirs, ours = pair("RNN", 3, 4, 2, dtype=torch.float64)
    x, h = torch.randn(5, 2, 3, dtype=torch.float64), torch.randn(2, 2, 4, dtype=torch.float64, requires_grad=True)
    for module in (theirs, ours):
        module.weight_hh_l0.requires_grad_(False)
        module(x, h)[0].sum().backward()
        assert module.weight_hh_l0.grad is None
    assert x.grad is None
    assert_close("dW", ours.weight_ih_l0.grad.numpy(), theirs.weight_ih_l0.grad.numpy(), rel=EXACT)


def test_tied_weights_get_the_sum() -> None:
    theirs, ours = pair("LSTM", 4, 4, 2, dtype=torch.float64)
    for module in (theirs, ours):
        module.weight_hh_l1 = module.weight_hh_l0
        module.weight_ih_l0 = torch.nn.Parameter(module.weight_ih_l1.detach().clone().T.contiguous().T)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    want, got = gradients(theirs, x), gradients(ours, x)
    assert len([n for n in want if n.startswith("dweight")]) == 3
    for name in want:
        assert_close(name, got[name], want[name], rel=EXACT)


def test_a_batch_of_none() -> None:
    for kind in ("LSTM", "RNN"):
        theirs, ours = pair(kind, 3, 4, 2, bidirectional=True, dropout=0.5)
        results = []
        for module in (theirs, ours):
            x = torch.zeros(5, 0, 3, requires_grad=True)
            output, final = module(x)
            output.sum().backward()
            results.append([output, *final, x.grad, *(w.grad for w in module.parameters())])
        for want, got in zip(*results, strict=True):
            assert got.shape == want.shape
            assert torch.equal(got, want)


class WeightDrop(torch.nn.Module):
    """Recurrent weights with some left out, as in AWD-LSTM (Merity et al. 2017, arXiv:1708.02182)."""

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(weight, 0.5, self.training)


PARAMETRIZATIONS: dict[str, Any] = {
    "weight_norm": torch.nn.utils.parametrizations.weight_norm,
    "spectral_norm": torch.nn.utils.parametrizations.spectral_norm,
    "weight_drop": lambda m, name: torch.nn.utils.parametrize.register_parametrization(m, name, WeightDrop()),
    "weight_norm as of old": pytest.param(
        torch.nn.utils.weight_norm, marks=pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
    ),
    "pruned": lambda m, name: torch.nn.utils.prune.l1_unstructured(m, name, 0.5),
}


@pytest.mark.parametrize("parametrize", PARAMETRIZATIONS.values(), ids=PARAMETRIZATIONS)
def test_weights_that_are_computed(parametrize: Any) -> None:
    """As often as in torch: weights that are drawn, or change each time, are torch's own in every step."""
    theirs, ours = pair("LSTM", 3, 4, 2, dtype=torch.float64)
    losses = []
    for module in (theirs, ours):
        torch.manual_seed(1)
        for name in ("weight_hh_l0", "weight_hh_l1"):
            parametrize(module, name)
        optimizer = torch.optim.SGD(module.parameters(), 0.5)
        losses.append([])
        for _ in range(4):
            optimizer.zero_grad()
            loss = (module(torch.randn(5, 2, 3, dtype=torch.float64))[0] - 0.5).square().mean()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    assert_close("losses", np.array(losses[1]), np.array(losses[0]), rel=EXACT)
    assert "weight_hh_l0" not in dict(ours.named_parameters())
    for (name, want), got in zip(theirs.named_parameters(), ours.parameters(), strict=True):
        assert_close(name, got.grad.numpy(), want.grad.numpy(), rel=EXACT)


def test_copy_of_a_module_has_the_same_configuration() -> None:
    theirs = torch.nn.LSTM(3, 4, 2, False, True, 0.5, True, 2)
    assert repr(ours_like(theirs)) == repr(theirs)
