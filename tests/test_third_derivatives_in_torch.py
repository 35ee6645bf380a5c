"""What of a second derivative may be differentiated: its direction, in which it is linear, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from scratchrnn.interop import torch as interop
from tests.test_second_derivatives_in_torch import X, _on_each_backend, both, penalty  # noqa: F401

# torch's own forward mode says so of itself
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


@pytest.mark.parametrize("cell", ["LSTM", "RNN"])
def test_a_third_derivative_is_refused_in_each_input(cell: str) -> None:
    """Asked for alone: the graph is only walked where it leads there, and must not lead past the refusal."""
    module = getattr(interop, cell)(3, 4, 2, dtype=torch.float64)
    leaves = {"x": X.clone().requires_grad_()} | dict(module.named_parameters())
    sizes = {"h_0": (2, 2, 4)} | ({"c_0": (2, 2, 4)} if cell == "LSTM" else {})
    leaves |= {name: torch.ones(size, dtype=torch.float64, requires_grad=True) for name, size in sizes.items()}
    state = tuple(leaves[name] for name in sizes)
    output, _ = module(leaves["x"], state if cell == "LSTM" else state[0])
    v = torch.ones_like(output, requires_grad=True)
    (g,) = torch.autograd.grad(output, module.weight_hh_l0, v, create_graph=True)
    u = torch.ones_like(g, requires_grad=True)
    seconds = torch.autograd.grad(g, [v, *leaves.values()], u, create_graph=True)
    for found in seconds:
        for leaf in (v, *leaves.values()):
            with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
                torch.autograd.grad(found.sum(), leaf, retain_graph=True)


def test_a_second_derivative_is_linear_in_its_direction() -> None:
    """Its derivative in that, Jᵀp + H q, is no third one: reverse, forward, and neither to be differentiated again."""

    def compute(module: torch.nn.Module) -> Any:
        h_0 = torch.ones(4, 2, 4, dtype=torch.float64, requires_grad=True)
        wanted = [X.clone().requires_grad_(), h_0, *module.parameters()]
        output, h_n = module(*wanted[:2])
        v = [torch.ones_like(a, requires_grad=True) for a in (output, h_n)]
        g = torch.autograd.grad([output.sin(), h_n], wanted, v, create_graph=True)
        u, weights = (
            [torch.linspace(-1, end, a.numel(), dtype=a.dtype).reshape(a.shape).requires_grad_(end == 1) for a in like]
            for end, like in ((1, g), (2, (*v, *wanted)))
        )
        found = torch.autograd.grad(g, [*v, *wanted], u, create_graph=True)
        in_u = torch.autograd.grad(found, u, weights, retain_graph=True)
        some = torch.autograd.grad(found[:4], u[::2], weights[:4], retain_graph=True)
        with torch.autograd.forward_ad.dual_level():
            dual = [torch.autograd.forward_ad.make_dual(a.detach(), w) for a, w in zip(u, weights[2:], strict=True)]
            moved = torch.autograd.grad(g, [*v, *wanted], dual)
            tangents = [torch.autograd.forward_ad.unpack_dual(a).tangent for a in moved]
        return (*in_u, *some, *tangents)

    both(compute, "RNN", 3, 4, 2, bidirectional=True)


def test_a_derivative_in_the_direction_is_not_differentiated() -> None:
    module, x = interop.LSTM(3, 4, dtype=torch.float64), X.clone().requires_grad_()
    (g,) = torch.autograd.grad(module(x)[0].sin().sum(), x, create_graph=True)
    u = torch.ones_like(g, requires_grad=True)
    (found,) = torch.autograd.grad(g, x, u, create_graph=True)
    (in_u,) = torch.autograd.grad(found.square().sum(), u, create_graph=True)
    for leaf in (x, u):
        with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
            torch.autograd.grad(in_u.sum(), leaf, retain_graph=True)


def test_tangents_are_not_differentiated_in_one_input_alone() -> None:
    module, unpack = interop.RNN(3, 4, dtype=torch.float64), torch.autograd.forward_ad.unpack_dual
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(X.clone().requires_grad_(), X)
        output, _ = module(x)
        (g,) = torch.autograd.grad(output.sum(), module.weight_hh_l0, create_graph=True)
        for moved in (unpack(output).tangent, unpack(g).tangent):
            for leaf in (x, module.weight_ih_l0):
                with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
                    torch.autograd.grad(moved.sum(), leaf, retain_graph=True)


def test_a_second_derivative_has_no_tangent() -> None:
    """It would be a third derivative."""
    module = interop.LSTM(3, 4, dtype=torch.float64)
    with torch.autograd.forward_ad.dual_level():
        x = torch.autograd.forward_ad.make_dual(X.clone().requires_grad_(), X)
        loss = penalty(module, x)
        with pytest.raises(RuntimeError, match=r"this derivative .* cannot be differentiated in its turn"):
            torch.autograd.grad(loss, x)


@pytest.mark.parametrize("name", ["jvp", "vjp", "hvp", "vhp"])
@pytest.mark.parametrize("options", [{}, {"create_graph": True}, {"strict": True}], ids=str)
def test_products_by_torchs_own_functions(name: str, options: dict[str, bool]) -> None:
    """jvp and hvp differentiate in the direction of the derivative before."""

    def compute(module: torch.nn.Module) -> Any:
        def f(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
            y: torch.Tensor = torch.func.functional_call(module, {"weight_hh_l0": w}, (x,))[0].sin()
            return y if name in ("jvp", "vjp") else y.square().sum()

        w = module.weight_hh_l0.detach()
        v: Any = torch.linspace(-1, 1, 40).double().reshape(5, 2, 4) if name == "vjp" else (X.flip(0), w.flip(1))
        _, found = getattr(torch.autograd.functional, name)(f, (X, w), v, **options)
        return [found] if name == "jvp" else found

    both(compute)


@pytest.mark.filterwarnings("ignore")  # of torch itself
def test_linearize_would_keep_numbers() -> None:
    module = interop.LSTM(3, 4, dtype=torch.float64)
    with pytest.raises(RuntimeError, match="cannot be traced or exported"):
        torch.func.linearize(lambda x: module(x)[0], X)
