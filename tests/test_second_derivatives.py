"""Second derivatives through interop.torch.LSTM and RNN: against torch.nn's own double backward, and differences."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from scratchrnn.interop import torch as interop
from scratchrnn.testing import TOLERANCE, assert_close, difference
from tests.modules import modules, pair
from tests.problems import Case, draw, grid
from tests.second import entries, random_like, run, second, tensors

EXACT = TOLERANCE["float64"]
RESULTS = ("output", "h_n", "c_n")


def cotangents(module: torch.nn.Module, case: Case, p: Any, rng: np.random.Generator) -> dict[str, Any]:
    with torch.no_grad():
        return random_like(run(module, case, tensors(entries(case, p)), p.lengths), rng)


def direction(module: torch.nn.Module, case: Case, p: Any, rng: np.random.Generator) -> dict[str, Any]:
    return random_like(tensors(entries(case, p)) | dict(module.named_parameters()), rng)


def without(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in names}


def compare(case: Case, got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert got.keys() == want.keys()
    for name in want:
        assert_close(f"{case} {name}", got[name], want[name], rel=EXACT)


# Against torch's double backward


@pytest.mark.parametrize("case", grid(), ids=str)
def test_float64_equals_torch(case: Case, rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    theirs, ours = modules(case, rng, np.float64)
    p = draw(case, rng)
    v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
    compare(case, *(second(m, case, p, v=v, u=u, also=["output"]) for m in (ours, theirs)))


@pytest.mark.parametrize("cell", ["lstm", "tanh", "relu"])
@pytest.mark.parametrize("lengths", [None, (4, 7, 1, 7, 3)], ids=["full", "packed"])
def test_absent_cotangents(cell: str, lengths: Any, rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    """Every subset of what goes in at the first backward, and each one and all but each one at the second."""
    case = Case(cell, 2, bidirectional=True, lengths=lengths)
    theirs, ours = modules(case, rng, np.float64)
    p = draw(case, rng)
    v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
    for count in range(1, len(v) + 1):
        for names in itertools.combinations(v, count):
            some = {name: v[name] for name in names}
            compare(case, *(second(m, case, p, v=some, u=u) for m in (ours, theirs)))
    for name in u:
        for some in ({name: u[name]}, without(u, name)):
            compare(case, *(second(m, case, p, v=v, u=some) for m in (ours, theirs)))


@pytest.mark.parametrize("cell", ["lstm", "tanh"])
def test_without_an_initial_state(cell: str, rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    case = Case(cell, 2, bidirectional=True)
    theirs, ours = modules(case, rng, np.float64)
    p = draw(case, rng, frozenset({"state"}))
    v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
    compare(case, *(second(m, case, p, v=v, u=u) for m in (ours, theirs)))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "tanh", "relu"])
def test_without_a_batch(
    cell: str, batch_first: bool, rng: np.random.Generator, each_backend_with_tangents: str
) -> None:
    case = Case(cell, 2, True, batch_first=batch_first, sizes=(7, 1, 3, 6), batched=False)
    theirs, ours = modules(case, rng, np.float64)
    p = draw(case, rng)
    v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
    compare(case, *(second(m, case, p, v=v, u=u) for m in (ours, theirs)))


@pytest.mark.parametrize("sizes", [(1, 5, 3, 6), (7, 1, 3, 6), (1, 1, 1, 2)], ids=str)
@pytest.mark.parametrize("cell", ["lstm", "tanh"])
def test_smallest_sizes(
    cell: str, sizes: tuple[int, int, int, int], rng: np.random.Generator, each_backend_with_tangents: str
) -> None:
    for layers, both in ((1, False), (2, True)):
        case = Case(cell, layers, both, sizes=sizes)
        theirs, ours = modules(case, rng, np.float64)
        p = draw(case, rng)
        v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
        compare(case, *(second(m, case, p, v=v, u=u) for m in (ours, theirs)))


def test_long_sequences(rng: np.random.Generator, each_backend_with_tangents: str) -> None:
    """Several blocks of the sums over time."""
    case = Case("lstm", 1, proj_size=4, sizes=(60, 5, 3, 6))
    theirs, ours = modules(case, rng, np.float64)
    p = draw(case, rng)
    v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
    compare(case, *(second(m, case, p, v=v, u=u) for m in (ours, theirs)))


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
@pytest.mark.parametrize("p", [0.4, 1.0])
@pytest.mark.parametrize("packed", [False, True])
def test_dropout_has_the_masks_of_the_first_pass(
    kind: str, p: float, packed: bool, each_backend_with_tangents: str
) -> None:
    theirs, ours = pair(kind, 3, 4, 3, dropout=p, bidirectional=True, dtype=torch.float64)
    x = torch.randn(6, 5, 3, dtype=torch.float64)
    lengths = torch.tensor([2, 6, 1, 4, 5])
    u = [torch.randn_like(w) for w in theirs.parameters()]
    found = []
    for module in (ours, theirs):
        torch.manual_seed(5)
        data = x.clone().requires_grad_()
        output, _ = module(pack_padded_sequence(data, lengths, enforce_sorted=False) if packed else data)
        loss = (output.data if packed else output).square().sum()
        wanted = list(module.parameters())
        g = torch.autograd.grad(loss, wanted, create_graph=True)
        torch.rand(3)  # another use of the generator in between
        product = sum((a * b).sum() for a, b in zip(g, u, strict=True))
        found.append(torch.autograd.grad(product, [data, *wanted]))
    for n, (got, want) in enumerate(zip(*found, strict=True)):
        assert_close(f"{n}", got.numpy(), want.numpy(), rel=EXACT)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_float32_error_is_at_most_twice_torchs(each_backend_with_tangents: str) -> None:
    rng = np.random.default_rng(4)
    for case in grid():
        if case.batch_first or not case.bias:
            continue
        theirs, ours = modules(case, rng, np.float32)
        p = draw(case, rng)
        theirs.double()
        v, u = cotangents(theirs, case, p, rng), direction(theirs, case, p, rng)
        v, u = ({name: d.float() for name, d in values.items()} for values in (v, u))
        doubles = ({name: d.double() for name, d in values.items()} for values in (v, u))
        truth = second(theirs, case, p, **dict(zip("vu", doubles, strict=True)))
        theirs.float()
        got, torchs = (second(m, case, p.astype(np.float32), v=v, u=u) for m in (ours, theirs))
        for name in truth:
            assert got[name].dtype == np.float32
            mine, its = difference(got[name], truth[name]), difference(torchs[name], truth[name])
            allowed = max(TOLERANCE["float32_growth"] * its.rms_ratio, TOLERANCE["float32_floor"])
            assert mine.rms_ratio <= allowed, f"{case} {name}: ours {mine}, torch {its}"


# Against finite differences, by torch's own checkers

CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {}),
    "lstm, deep, both ways": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "lstm, projection, no bias": ("LSTM", {"proj_size": 2, "bias": False}),
    "lstm, batch first": ("LSTM", {"batch_first": True}),
    "tanh": ("RNN", {}),
    "tanh, deep, both ways": ("RNN", {"num_layers": 2, "bidirectional": True}),
    "relu, no bias": ("RNN", {"nonlinearity": "relu", "bias": False}),
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")  # torch's own forward mode
@pytest.mark.parametrize("packed", [False, True], ids=["full", "packed"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_gradcheck_and_gradgradcheck(name: str, packed: bool, each_backend_with_tangents: str) -> None:
    kind, options = CONFIGURATIONS[name]
    torch.manual_seed(0)
    module = getattr(interop, kind)(2, 3, dtype=torch.float64, **options)
    lengths = torch.tensor([3, 1, 4, 2] if options.get("batch_first") else [4, 2, 3])
    steps, batch = 4, len(lengths)
    x = torch.randn(batch, steps, 2) if options.get("batch_first") else torch.randn(steps, batch, 2)
    as_packed = pack_padded_sequence(x, lengths, options.get("batch_first", False), enforce_sorted=False)
    x = as_packed.data if packed else x
    rows = options.get("num_layers", 1) * (1 + options.get("bidirectional", False))
    sizes = (options.get("proj_size", 3), 3) if kind == "LSTM" else (3,)
    states = [torch.randn(rows, batch, size) for size in sizes]
    names = [name for name, _ in module.named_parameters()]

    def call(x: Any, *given: Any) -> Any:
        hx = given[: len(states)] if kind == "LSTM" else given[0]
        weights = dict(zip(names, given[len(states) :], strict=True))
        read = PackedSequence(x, *as_packed[1:]) if packed else x  # packing itself has no forward mode in torch
        output, final = torch.func.functional_call(module, weights, (read, hx))
        finals = final if kind == "LSTM" else (final,)
        return ((output.data if packed else output), *finals)

    inputs = [t.double().requires_grad_() for t in (x, *states)]
    inputs += [w.detach().clone().requires_grad_() for w in module.parameters()]
    fast = "num_layers" in options  # random projections in place of every number
    assert torch.autograd.gradcheck(call, inputs, fast_mode=fast, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(call, inputs, fast_mode=fast, check_fwd_over_rev=True)
