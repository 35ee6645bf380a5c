"""`grad_sample` of torch modules: torch.nn and autograd on each sample alone, and how several passes come together."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.utils.checkpoint import checkpoint

from scratchrnn.interop import torch as interop
from scratchrnn.testing import TOLERANCE, assert_close
from tests.modules import modules, pair
from tests.problems import BATCH, LENGTHS, Case, Problem, by_torch, draw
from tests.test_per_sample import one_of

EXACT = TOLERANCE["float64"]
CASES = [
    *(Case(cell) for cell in ("tanh", "relu", "lstm")),
    *(Case(cell, 2, bidirectional=True, lengths=LENGTHS) for cell in ("tanh", "lstm")),
    *(Case("lstm", 2, bidirectional=True, proj_size=4, batch_first=True, lengths=n) for n in (None, LENGTHS)),
    *(Case(cell, 2, bias=False, batch_first=True, lengths=LENGTHS) for cell in ("relu", "lstm")),
]


def each(module: Any) -> dict[str, np.ndarray]:
    """`grad_sample` of every parameter."""
    return {name: p.grad_sample.numpy() for name, p in module.named_parameters()}


def on(module: Any) -> Any:
    """The module, with per_sample set."""
    module.per_sample = True
    return module


def batch_of(case: Case, p: Problem) -> Any:
    """The problem's input, packed where it has lengths."""
    x = torch.tensor(p.x)
    return x if p.lengths is None else pack_padded_sequence(x, torch.tensor(p.lengths), case.batch_first, False)


def back(module: Any, case: Case, p: Problem) -> None:
    """One training step but for the update: the loss of `by_torch`."""
    states = [torch.tensor(s) for s in p.state]
    output, final = module(batch_of(case, p), tuple(states) if case.cell == "lstm" else states[0])
    if p.lengths is not None:
        output, _ = pad_packed_sequence(output, case.batch_first, total_length=p.x.shape[1 if case.batch_first else 0])
    finals = final if isinstance(final, tuple) else (final,)
    loss = (output * torch.tensor(p.d_output)).sum()
    for value, d in zip(finals, p.d_state, strict=True):
        loss = loss + (value * torch.tensor(d)).sum()
    loss.backward()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_torch_on_each_sequence_alone(case: Case, rng: np.random.Generator) -> None:
    theirs, ours = modules(case, rng, np.float64)
    problem = draw(case, rng)
    back(ours, case, problem)
    assert not any(hasattr(p, "grad_sample") for p in ours.parameters())
    plain = [p.grad.clone() for p in ours.parameters()]
    ours.zero_grad()
    back(on(ours), case, problem)
    assert all(torch.equal(p.grad, want) for p, want in zip(ours.parameters(), plain, strict=True))
    got = each(ours)
    for b in range(BATCH):
        theirs.zero_grad()
        want = by_torch(theirs, *one_of(case, problem, b))
        for name, d in got.items():
            assert_close(f"{name} of sample {b}", d[b], want[f"d{name}"], rel=EXACT)
    for name, p in ours.named_parameters():
        assert_close(f"{name} summed", got[name].sum(axis=0), p.grad.numpy(), rel=EXACT)


def test_without_a_batch_there_is_one_sample() -> None:
    module = on(interop.LSTM(3, 4, dtype=torch.float64))
    module(torch.randn(5, 3, dtype=torch.float64))[0].sum().backward()
    for p in module.parameters():
        assert_close("grad_sample", p.grad_sample.numpy(), p.grad.numpy()[None], rel=EXACT)


def test_a_mean_is_not_scaled_back() -> None:
    module = on(interop.RNN(3, 4, dtype=torch.float64))
    x = torch.randn(5, 6, 3, dtype=torch.float64)
    module(x)[0].sum().backward()
    want = each(module)
    module.weight_ih_l0.grad_sample = None
    module(x)[0].sum(dim=(0, 2)).mean().backward()
    assert_close("mean", module.weight_ih_l0.grad_sample.numpy(), want["weight_ih_l0"] / 6, rel=EXACT)


# Several calls, several passes


def test_calls_in_one_pass_add_up() -> None:
    theirs, ours = pair("LSTM", 4, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 4, dtype=torch.float64)

    def loss(module: Any, xs: torch.Tensor) -> Any:
        output, state = module(xs)
        again, state = module(output, state)
        return again.sin().sum() + module(xs[:2])[0].sum() + state[1].sum()

    loss(on(ours), x).backward()
    for b in range(2):
        want = torch.autograd.grad(loss(theirs, x[:, b : b + 1]), list(theirs.parameters()))
        for (name, got), d in zip(each(ours).items(), want, strict=True):
            assert_close(name, got[b], d.numpy(), rel=EXACT)


def test_another_pass_joins_a_list() -> None:
    module = on(interop.LSTM(3, 4, dtype=torch.float64))
    batches = [torch.randn(5, n, 3, dtype=torch.float64) for n in (2, 6, 2)]
    found = []
    for x in batches:
        for p in module.parameters():
            p.grad_sample = None
        module(x)[0].sin().sum().backward()
        found.append(each(module))
    for p in module.parameters():
        p.grad_sample = None
    for x in batches:
        module(x)[0].sin().sum().backward()
    for name, p in module.named_parameters():
        assert [len(g) for g in p.grad_sample] == [2, 6, 2]
        for got, want in zip(p.grad_sample, found, strict=True):
            assert_close(name, got.numpy(), want[name], rel=0)
    (module(batches[0])[0].sin().sum() + module(batches[0])[0].sin().sum()).backward()
    last = module.weight_hh_l0.grad_sample
    assert len(last) == 4
    assert_close("the last of the list", last[3].numpy(), 2 * found[0]["weight_hh_l0"], rel=EXACT)


def test_a_pass_run_again_is_another_one() -> None:
    module = on(interop.RNN(3, 4))
    loss = module(torch.randn(5, 2, 3))[0].sum()
    loss.backward(retain_graph=True)
    loss.backward()
    first, second = module.weight_hh_l0.grad_sample
    assert torch.equal(first, second)


@pytest.mark.parametrize("create_graph", [False, True])
def test_a_pass_that_leaves_no_grad_leaves_no_samples(create_graph: bool) -> None:
    """As for a picture of what the input does, or in a penalty on its gradient."""
    module = on(interop.LSTM(3, 4, 2, dtype=torch.float64))
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    loss = module(x)[0].sin().sum()
    torch.autograd.grad(loss, x, retain_graph=True, create_graph=create_graph)
    torch.autograd.grad(loss, [x, *module.parameters()], retain_graph=True, create_graph=create_graph)
    loss.backward(inputs=[x], retain_graph=True)
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())
    loss.backward(inputs=[x, module.weight_hh_l1], retain_graph=True)
    assert [name for name, p in module.named_parameters() if hasattr(p, "grad_sample")] == ["weight_hh_l1"]
    module.weight_hh_l1.grad_sample = module.weight_hh_l1.grad = None
    loss.backward()
    for name, p in module.named_parameters():
        assert_close(name, p.grad_sample.sum(0).numpy(), p.grad.numpy(), rel=EXACT)


def test_a_penalty_on_the_inputs_gradient_is_refused() -> None:
    module = on(interop.LSTM(3, 4))
    x = torch.randn(5, 2, 3, requires_grad=True)
    (dx,) = torch.autograd.grad(module(x)[0].sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="grad_sample would lack its part"):
        dx.square().sum().backward()


def test_one_pass_has_one_number_of_samples() -> None:
    module = on(interop.LSTM(3, 4))
    loss = module(torch.randn(5, 2, 3))[0].sum() + module(torch.randn(5, 6, 3))[0].sum()
    with pytest.raises(RuntimeError, match=r"one number of samples in one backward pass, .*; got 6 and 2"):
        loss.backward()


def test_what_was_taken_away_is_not_added_to() -> None:
    module = on(interop.RNN(3, 4))
    first, second = (module(torch.randn(5, 2, 3))[0] for _ in range(2))
    taken = []

    def take(_: torch.Tensor) -> None:
        taken.append(module.weight_hh_l0.grad_sample)
        module.weight_hh_l0.grad_sample = None

    first.register_hook(take)  # between the two, in the middle of the pass
    second.sum().backward(retain_graph=True)
    want, module.weight_hh_l0.grad_sample = module.weight_hh_l0.grad_sample, None
    (first.sum() + second.sum()).backward()
    assert torch.equal(taken[0], want)
    assert not torch.equal(module.weight_hh_l0.grad_sample, want)


def test_tied_weights_get_the_sum() -> None:
    theirs, ours = pair("LSTM", 4, 4, 2, dtype=torch.float64)
    for module in (theirs, ours):
        module.weight_hh_l1 = module.weight_hh_l0
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    on(ours)(x)[0].sin().sum().backward()
    for b in range(3):
        want = torch.autograd.grad(theirs(x[:, b : b + 1])[0].sin().sum(), list(theirs.parameters()))
        for (name, got), d in zip(each(ours).items(), want, strict=True):
            assert_close(name, got[b], d.numpy(), rel=EXACT)


def test_frozen_weights_get_none() -> None:
    module = on(interop.LSTM(3, 4))
    module.weight_hh_l0.requires_grad_(False)
    x = torch.randn(5, 2, 3, requires_grad=True)
    module(x)[0].sum().backward()
    assert not hasattr(module.weight_hh_l0, "grad_sample")
    assert module.weight_ih_l0.grad_sample.shape == (2, 16, 3)
    module.requires_grad_(False)
    module(x)[0].sum().backward()
    assert module.weight_ih_l0.grad_sample.shape == (2, 16, 3)
    with torch.no_grad():
        module.requires_grad_(True)(x)
    assert module.weight_ih_l0.grad_sample.shape == (2, 16, 3)


# With the rest


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant: bool) -> None:
    module = on(interop.LSTM(3, 4, 2, dtype=torch.float64))
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (lambda t: module(t)[0], lambda t: checkpoint(lambda u: module(u)[0], t, use_reentrant=use_reentrant)):
        run(x).sin().sum().backward()
        found.append(each(module))
        for p in module.parameters():
            p.grad_sample = None
    for name, want in found[0].items():
        assert_close(name, found[1][name], want, rel=0)


def test_a_trace_has_its_own() -> None:
    module = on(interop.LSTM(3, 4, dtype=torch.float64))
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    first, second = (module(x * scale, return_trace=True) for scale in (1, 2))
    (first[0].sum() + second[0].sum()).backward()
    a, b = (trace.gradients.per_sample for *_, trace in (first, second))
    for name, got in each(module).items():
        assert_close(name, got, a[name] + b[name], rel=EXACT)
    *_, plain = interop.LSTM(3, 4)(torch.randn(5, 2, 3), return_trace=True)
    assert plain.gradients is None


def test_dropout_and_functional_call() -> None:
    module = on(interop.LSTM(3, 4, 2, dropout=0.5, dtype=torch.float64))
    x = torch.randn(5, 3, 3, dtype=torch.float64)
    weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    found = []
    for chosen in (slice(0, 3), slice(0, 1), slice(1, 2), slice(2, 3)):
        torch.manual_seed(3)
        for w in weights.values():
            w.grad_sample = None
        output, _ = torch.func.functional_call(module, weights, (x,))
        output[:, chosen].sin().sum().backward()
        found.append({name: w.grad_sample for name, w in weights.items()})
    assert not any(hasattr(p, "grad_sample") for p in module.parameters())
    for name, whole in found[0].items():
        for b in range(3):
            assert_close(name, whole[b].numpy(), found[1 + b][name][b].numpy(), rel=EXACT)
            assert not np.delete(found[1 + b][name].numpy(), b, axis=0).any()


def test_computed_weights_are_refused() -> None:
    module = on(interop.LSTM(3, 4))
    torch.nn.utils.parametrizations.weight_norm(module, "weight_hh_l0")
    with pytest.raises(ValueError, match="weight_hh_l0: expected a parameter itself for per_sample=True"):
        module(torch.randn(5, 2, 3))


def test_modules_of_a_model_that_was_swapped() -> None:
    model = torch.nn.Sequential(torch.nn.LSTM(3, 4))
    interop.swap(model)
    assert model[0].per_sample is False
    model[0].per_sample = True
    model(torch.randn(5, 2, 3))[0].sum().backward()
    assert model[0].weight_hh_l0.grad_sample.shape == (2, 16, 4)
    model[0].__class__ = torch.nn.LSTM
    model(torch.randn(5, 2, 3))


def test_state_dict_and_copies_are_torchs() -> None:
    module = on(interop.LSTM(3, 4))
    module(torch.randn(5, 2, 3))[0].sum().backward()
    theirs = torch.nn.LSTM(3, 4)
    theirs.load_state_dict(module.state_dict())
    assert not any(hasattr(t, "grad_sample") for t in module.state_dict().values())
    twin, loaded = copy.deepcopy(module), pickle.loads(pickle.dumps(module))
    assert not any(hasattr(p, "grad_sample") for p in twin.parameters())
    for other in (twin, loaded):
        assert other.per_sample is True
        for p in other.parameters():
            p.grad_sample = None
        other(torch.randn(5, 2, 3))[0].sum().backward()
        assert other.weight_hh_l0.grad_sample.shape == (2, 16, 4)
    assert module.weight_hh_l0.grad_sample.shape == (2, 16, 4)
    assert repr(module) == repr(theirs)


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_a_cell_in_a_loop_is_a_sequence(kind: str) -> None:
    sequence = on(getattr(interop, kind)(3, 4, dtype=torch.float64))
    cell = on(getattr(interop, kind + "Cell")(3, 4, dtype=torch.float64))
    cell.load_state_dict({name.removesuffix("_l0"): w for name, w in sequence.state_dict().items()})
    x = torch.randn(6, 5, 3, dtype=torch.float64)
    sequence(x)[0][-1].square().sum().backward()
    state = None
    for step in x:
        state = cell(step, state)
    (state if kind == "RNN" else state[0]).square().sum().backward()
    for name, array in each(cell).items():
        assert_close(name, array, each(sequence)[name + "_l0"], rel=EXACT)
