"""Second derivatives among the rest of torch: autograd's rules, traces, and what people take them for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.checkpoint import checkpoint

from scratchrnn import backends
from scratchrnn.interop import torch as interop
from scratchrnn.kernels import memory
from scratchrnn.testing import TOLERANCE, assert_close
from tests.modules import pair

# torch's own forward mode says so of itself
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")

EXACT = TOLERANCE["float64"]
X = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 2, 3)


@pytest.fixture(autouse=True)
def _on_each_backend(each_backend_with_tangents: str) -> None:
    """Everything here runs on each."""


def penalty(module: torch.nn.Module, x: torch.Tensor, create_graph: bool = True) -> Any:
    """Σ |dL/dx|², L = Σ sin(output)."""
    (dx,) = torch.autograd.grad(module(x)[0].sin().sum(), x, create_graph=create_graph)
    return dx.square().sum()


def both(compute: Callable[[torch.nn.Module], Any], kind: str = "LSTM", *args: Any, **options: Any) -> None:
    """Torch's module and ours give the same tensors."""
    want, got = (compute(m) for m in pair(kind, *(args or (3, 4)), dtype=torch.float64, **options))
    assert len(got) == len(want)
    for n, (a, b) in enumerate(zip(got, want, strict=True)):
        assert (a is None) == (b is None), n
        if b is not None:
            assert_close(f"{n}", a.detach().numpy(), b.detach().numpy(), rel=EXACT)


# Autograd's rules


def test_gradients_have_the_bits_that_they_have_without_a_graph() -> None:
    module = interop.LSTM(3, 4, 2, bidirectional=True)
    wanted = [X.float().requires_grad_(), *module.parameters()]
    plain, graphed = (
        torch.autograd.grad(module(wanted[0])[0].sin().sum(), wanted, create_graph=create) for create in (False, True)
    )
    for a, b in zip(plain, graphed, strict=True):
        assert torch.equal(a, b)
        assert b.requires_grad
        assert not a.requires_grad


def test_a_third_derivative_is_refused() -> None:
    module, x = interop.LSTM(3, 4, dtype=torch.float64), X.clone().requires_grad_()
    (second,) = torch.autograd.grad(penalty(module, x), x, create_graph=True)
    assert torch.equal(second, torch.autograd.grad(penalty(module, x), x)[0])  # it can be used
    with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
        (module(x)[0].sum() + second.square().sum()).backward()


def test_a_backend_without_tangents_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module, x = interop.LSTM(3, 4, dtype=torch.float64), X.clone().requires_grad_()
    monkeypatch.setattr(backends.Backend, "has_tangents", False)
    backends._import_tangents.cache_clear()
    loss = penalty(module, x)
    with pytest.raises(NotImplementedError, match=f"backend '{backends.current()}' has no tangents"):
        loss.backward()


def test_samples_gradients_are_not_left_without_their_part() -> None:
    module, x = interop.LSTM(3, 4, dtype=torch.float64), X.clone().requires_grad_()
    module.per_sample = True
    loss = penalty(module, x)
    with pytest.raises(NotImplementedError, match="per_sample=True: the gradient of each sample is not known"):
        loss.backward()


def test_frozen_weights_and_inputs_get_nothing() -> None:
    def compute(module: torch.nn.Module) -> Any:
        module.weight_hh_l0.requires_grad_(False)
        (g,) = torch.autograd.grad(module(X)[0].sin().sum(), module.weight_ih_l0, create_graph=True)
        g.square().sum().backward()
        assert module.weight_hh_l0.grad is None
        return [w.grad for w in module.parameters()]

    both(compute)


def test_a_weight_thawed_in_between_keeps_its_gradient() -> None:
    module = interop.LSTM(3, 4, dtype=torch.float64)
    loss = module(X)[0].sum()
    module.weight_hh_l0.requires_grad_(False)
    module.weight_hh_l0.requires_grad_(True)
    (g,) = torch.autograd.grad(loss, module.weight_hh_l0, create_graph=True)
    assert g.requires_grad


def test_tied_weights() -> None:
    def compute(module: torch.nn.Module) -> Any:
        module.weight_hh_l1 = module.weight_hh_l0
        module.bias_ih_l0 = module.bias_hh_l0
        wanted = list(module.parameters())
        g = torch.autograd.grad(module(X)[0].sin().sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(a.cos().sum() for a in g), wanted)

    both(compute, "RNN", 3, 4, 2)


def test_several_calls_and_states_between_them() -> None:
    def compute(module: torch.nn.Module) -> Any:
        output, state = module(X)
        again, state = module(X.flip(0), state)
        g = torch.autograd.grad((output * again).sum() + state[1].sum(), list(module.parameters()), create_graph=True)
        return torch.autograd.grad(sum(a.square().sum() for a in g), list(module.parameters()))

    both(compute)


def test_jacobian_times_a_vector_by_differentiating_twice() -> None:
    """J u as the derivative of Jᵀv in v."""

    def compute(module: torch.nn.Module) -> Any:
        x = X.clone().requires_grad_()
        output, _ = module(x)
        v = torch.zeros_like(output, requires_grad=True)
        (g,) = torch.autograd.grad(output, x, v, create_graph=True)
        return torch.autograd.grad(g, v, torch.ones_like(x))

    both(compute)


def test_twice_needs_retain_graph() -> None:
    module, x = interop.RNN(3, 4, dtype=torch.float64), X.clone().requires_grad_()
    loss = penalty(module, x)
    loss.backward(retain_graph=True)
    once = module.weight_ih_l0.grad.clone()
    loss.backward()
    assert torch.equal(module.weight_ih_l0.grad, 2 * once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_what_it_needs_is_freed_with_the_graph() -> None:
    module, x = interop.LSTM(128, 128), torch.randn(64, 8, 128, requires_grad=True)
    penalty(module, x).backward()
    module.zero_grad()
    x.grad = None
    before = memory._pool.lent_bytes()
    loss = penalty(module, x)
    assert memory._pool.lent_bytes() - before > 12 * x.nbytes  # h, c, four gates, and the gradients of these
    loss.backward()
    module.zero_grad()
    x.grad = None
    del loss
    assert memory._pool.lent_bytes() - before < 2 * x.nbytes


@pytest.mark.parametrize("name", ["weight_hh_l0", "x", "h_0"])
def test_a_change_in_between_is_found_out(name: str) -> None:
    for module in pair("RNN", 3, 4, dtype=torch.float64):
        _change_in_between(module, name)


def _change_in_between(module: torch.nn.Module, name: str) -> None:
    leaves = {"x": X.clone().requires_grad_(), "h_0": torch.ones(1, 2, 4, dtype=torch.float64, requires_grad=True)}
    tensors = {name: t.clone() for name, t in leaves.items()}
    output, _ = module(tensors["x"], tensors["h_0"])
    (g,) = torch.autograd.grad(output.sin().sum(), module.weight_ih_l0, create_graph=True)
    with torch.no_grad():
        (tensors | dict(module.named_parameters()))[name].mul_(2)
    with pytest.raises(RuntimeError, match=r"modified by an inplace operation|has been modified inplace"):
        g.square().sum().backward()


def test_a_state_without_gradient_may_change_in_between() -> None:
    """As a buffer that carries the state from batch to batch does."""
    module, state = interop.RNN(3, 4, dtype=torch.float64), torch.ones(1, 2, 4, dtype=torch.float64)
    output, h_n = module(X, state)
    (g,) = torch.autograd.grad(output.sin().sum(), module.weight_hh_l0, create_graph=True)
    want = torch.autograd.grad(g.square().sum(), module.weight_hh_l0, retain_graph=True)[0]
    state.copy_(h_n.detach())
    assert torch.equal(torch.autograd.grad(g.square().sum(), module.weight_hh_l0)[0], want)


def test_hooks_of_saved_tensors_have_all_that_is_kept() -> None:
    packed: list[int] = []

    def pack(t: Any) -> Any:
        packed.append(t.numel())
        return t.detach().clone() if t.grad_fn is None and not t.requires_grad else t

    def compute(module: torch.nn.Module) -> Any:
        x = X.clone().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            loss = penalty(module, x)
        return torch.autograd.grad(loss, [x, *module.parameters()], allow_unused=True)

    both(compute)
    assert packed


def test_checkpointed() -> None:
    def compute(module: torch.nn.Module) -> Any:
        x = X.clone().requires_grad_()
        output = checkpoint(lambda t: module(t)[0], x, use_reentrant=False)
        (g,) = torch.autograd.grad(output.sin().sum(), x, create_graph=True)
        return torch.autograd.grad(g.square().sum(), [x, *module.parameters()], allow_unused=True)

    both(compute, "LSTM", 3, 4, 2)


def test_an_empty_batch() -> None:
    def compute(module: torch.nn.Module) -> Any:
        wanted = [X[:, :0].clone().requires_grad_(), *module.parameters()]
        g = torch.autograd.grad(module(wanted[0])[0].sum(), wanted, create_graph=True)
        return torch.autograd.grad(sum(a.square().sum() for a in g), wanted, allow_unused=True)

    both(compute, "LSTM", 3, 4, 2, bidirectional=True)


def test_cotangents_of_any_strides() -> None:
    def compute(module: torch.nn.Module) -> Any:
        x = X.clone().requires_grad_()
        wanted = [x, *module.parameters()]
        g = torch.autograd.grad(module(x)[0].sin().sum(), wanted, create_graph=True)
        spread = torch.autograd.grad([a.sum() for a in g], wanted, retain_graph=True)  # of stride 0
        turned = [
            torch.arange(a.numel(), dtype=a.dtype).reshape(a.shape[::-1]).permute(*range(a.dim())[::-1]) for a in g
        ]
        return (*spread, *torch.autograd.grad(g, wanted, turned))

    both(compute, "LSTM", 3, 4, 2, proj_size=2)


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("kind", ["LSTMCell", "RNNCell"])
def test_cells(kind: str, batched: bool) -> None:
    """Three steps by hand: second derivatives, and tangents in forward mode."""

    def compute(cell: torch.nn.Module) -> Any:
        xs = (X[:3] if batched else X[:3, 0]).clone().requires_grad_()
        wanted = [xs, *cell.parameters()]

        def last(xs: torch.Tensor) -> Any:
            state = None
            for x in xs:
                state = cell(x, state)
            return state if kind == "LSTMCell" else (state,)

        g = torch.autograd.grad(sum(s.sin().sum() for s in last(xs)), wanted, create_graph=True)
        found = list(torch.autograd.grad(sum(a.square().sum() for a in g), wanted))
        with torch.autograd.forward_ad.dual_level():
            moved = last(torch.autograd.forward_ad.make_dual(xs, xs.detach().flip(0)))
            found += [torch.autograd.forward_ad.unpack_dual(s).tangent for s in moved]
            g = torch.autograd.grad(moved[-1].sin().sum(), wanted)
            found += [torch.autograd.forward_ad.unpack_dual(a).tangent for a in g]
        return found

    both(compute, kind)


# In forward mode


def test_forward_mode() -> None:
    """Tangents of x, h_0 and one weight: those of the result, and of all gradients (forward over reverse)."""

    def compute(module: torch.nn.Module) -> Any:
        generator = torch.Generator().manual_seed(3)
        h_0, c_0, x_dot, h_dot = (
            torch.randn(s, dtype=torch.float64, generator=generator) for s in [(4, 2, 2), (4, 2, 4), X.shape, (4, 2, 2)]
        )
        w_dot = torch.randn(module.weight_hh_l1.shape, dtype=torch.float64, generator=generator)
        unpack = torch.autograd.forward_ad.unpack_dual
        with torch.autograd.forward_ad.dual_level():
            make = torch.autograd.forward_ad.make_dual
            weights = {n: make(w, w_dot) if n == "weight_hh_l1" else w for n, w in module.named_parameters()}
            x = make(X.clone().requires_grad_(), x_dot)
            output, state = torch.func.functional_call(module, weights, (x, (make(h_0, h_dot), c_0)))
            found = [unpack(t).tangent for t in (output, *state)]
            loss = output.sin().sum() + state[1].square().sum()
            for create_graph in (False, True):
                wanted = [x, *weights.values()]
                g = torch.autograd.grad(loss, wanted, create_graph=create_graph, retain_graph=True)
                found += [unpack(t).tangent for t in g]
        return found

    both(compute, "LSTM", 3, 4, 2, bidirectional=True, proj_size=2)


@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_without_gradients(grad: bool) -> None:
    def compute(module: torch.nn.Module) -> Any:
        module.requires_grad_(grad)
        with torch.no_grad(), torch.autograd.forward_ad.dual_level():
            output, h_n = module(torch.autograd.forward_ad.make_dual(X, X.flip(0)))
            return [torch.autograd.forward_ad.unpack_dual(t).tangent for t in (output, h_n)]

    both(compute, "RNN", nonlinearity="relu")


def test_forward_mode_of_the_cotangents_alone() -> None:
    def compute(module: torch.nn.Module) -> Any:
        with torch.autograd.forward_ad.dual_level():
            v = torch.autograd.forward_ad.make_dual(
                torch.ones(5, 2, 4).double(), torch.arange(40.0).reshape(5, 2, 4).double()
            )
            g = torch.autograd.grad(module(X)[0], list(module.parameters()), v)
            return [torch.autograd.forward_ad.unpack_dual(t).tangent for t in g]

    both(compute)


def test_tangents_are_not_differentiated() -> None:
    """Neither that of the result, nor that of a gradient: in silence, they would be taken for constants."""
    module, unpack = interop.LSTM(3, 4, dtype=torch.float64), torch.autograd.forward_ad.unpack_dual
    with torch.autograd.forward_ad.dual_level():
        output, _ = module(torch.autograd.forward_ad.make_dual(X, X))
        (g,) = torch.autograd.grad(output.sin().sum(), module.weight_hh_l0, create_graph=True)
        for moved in (unpack(output).tangent, unpack(g).tangent):
            with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
                moved.square().sum().backward()


# With the trace


def test_return_trace_beside_create_graph() -> None:
    module, x = interop.LSTM(3, 4, 2, dtype=torch.float64), X.clone().requires_grad_()
    want = torch.autograd.grad(penalty(module, x), list(module.parameters()), allow_unused=True)
    output, _, trace = module(x, return_trace=True)
    (dx,) = torch.autograd.grad(output.sin().sum(), x, create_graph=True)
    first = trace.gradients
    assert_close("dx", first.input, dx.detach().numpy(), rel=0)
    kept = {key: (part.h.copy(), part.c.copy(), part.a.copy()) for key, part in first.layers.items()}
    got = torch.autograd.grad(dx.square().sum(), list(module.parameters()), allow_unused=True)
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.equal(a, b)
    assert trace.gradients is not first  # the second derivative went back through the call, too
    for key, arrays in kept.items():
        for before, now in zip(arrays, (first[key].h, first[key].c, first[key].a), strict=True):
            np.testing.assert_array_equal(now, before)


# What people take them for


def test_gradient_penalty_in_training() -> None:
    """Ten steps of a loss with |d score / dx|² in it, as in a Wasserstein critic."""

    def compute(module: torch.nn.Module) -> Any:
        torch.manual_seed(0)
        optimizer = torch.optim.Adam(module.parameters(), 0.01)
        losses = []
        for _ in range(10):
            x = torch.randn(7, 5, 3, dtype=torch.float64, requires_grad=True)
            score = module(x)[1][0][-1].mean(1)
            (slope,) = torch.autograd.grad(score.sum(), x, create_graph=True)
            loss = score.mean() + 10 * (slope.square().sum((0, 2)).sqrt() - 1).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        assert losses[-1] < losses[0]
        return [*losses, *module.parameters()]

    want, got = (compute(m) for m in pair("LSTM", 3, 6, dtype=torch.float64))
    for n, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_close(f"{n}", a.detach().numpy(), b.detach().numpy(), rel=TOLERANCE["trajectory"])


def language_model(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    torch.manual_seed(1)
    embedding, readout = torch.nn.Embedding(11, 3).double(), torch.nn.Linear(4, 11).double()
    tokens = torch.randint(11, (8, 2))
    logits = readout(module(embedding(tokens[:-1]))[0])
    yield torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[1:].flatten())
    yield from (*embedding.parameters(), *module.parameters(), *readout.parameters())


@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_hessian_vector_product_of_a_language_model(kind: str) -> None:
    def compute(module: torch.nn.Module) -> Any:
        loss, *weights = language_model(module)
        g = torch.autograd.grad(loss, weights, create_graph=True)
        u = [torch.randn_like(w) for w in weights]
        return torch.autograd.grad(g, weights, u)

    both(compute, kind)


def test_whole_hessian_by_torchs_own_function() -> None:
    def compute(module: torch.nn.Module) -> Any:
        def loss(w: torch.Tensor) -> torch.Tensor:
            return torch.func.functional_call(module, {"weight_hh_l0": w}, (X,))[0].sin().sum()

        hessian = torch.autograd.functional.hessian(loss, module.weight_hh_l0)
        n = module.weight_hh_l0.numel()
        assert_close("symmetric", hessian.reshape(n, n).T.numpy(), hessian.reshape(n, n).numpy(), rel=EXACT)
        return (hessian,)

    both(compute, "LSTM", 3, 2)
