"""Where derivatives end: what may be used, and not be differentiated.

A derivative that is computed outside of torch is a constant to it. It is tied here to all that it depends on, so that
whoever asks for its derivative in any of these gets an error, and not zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

from scratchrnn.interop.torch.convert import require_torch


def forward_mode(torch: Any) -> bool:
    """Whether tangents may travel with tensors: within torch's `forward_ad.dual_level`."""
    return bool(torch.autograd.forward_ad._current_level >= 0)  # what unpack_dual asks, at each call of a module


@cache
def once() -> Any:
    """The autograd function that ends a graph, made when torch is there."""
    torch = require_torch()
    refusal = "this derivative of scratchrnn's LSTM and RNN cannot be differentiated in its turn"

    class Once(torch.autograd.Function):  # type: ignore[name-defined, misc]  # torch is a variable here
        """(values, *what they depend on) to the values."""

        @staticmethod
        def forward(_: Any, values: Sequence[Any], *__: Any) -> Any:
            return tuple(values)

        @staticmethod
        def backward(_: Any, *__: Any) -> Any:
            raise RuntimeError(refusal)

        @staticmethod
        def jvp(_: Any, *__: Any) -> Any:
            raise RuntimeError(refusal)

    return Once


def ended(values: Sequence[Any], origins: Iterable[Any]) -> list[Any]:
    """The values, None left as it is, such that differentiating them in any of their origins raises."""
    there = [a for a in values if a is not None]
    tied = iter(once().apply(there, *(t for t in origins if t is not None)))
    return [None if a is None else next(tied) for a in values]


def fenced(tensor: Any) -> Any:
    """The tensor, such that no derivative in it can be taken through what is computed from here on."""
    return None if tensor is None else ended([tensor.detach()], [tensor])[0]


def primal(tensor: Any) -> Any:
    """The tensor without its tangent."""
    return None if tensor is None else require_torch().autograd.forward_ad.unpack_dual(tensor).primal
