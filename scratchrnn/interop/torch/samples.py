"""`parameter.grad_sample`: the gradient of each sample alone, left beside `parameter.grad` by a module's backward.

    parameter.grad            Σ_n dL/dW_n        (...)
    parameter.grad_sample     dL/dW_n, n < B     (B, ...)

This is the attribute that Opacus reads. Within one backward pass, what several calls and tied weights give is added up,
sample by sample; what another pass gives is of other samples, and joins a list.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scratchrnn._typing import FloatArray
from scratchrnn.interop.torch.convert import require_torch

# (backward pass, id of the parameter) to the tensor that this pass is filling
_filling: weakref.WeakValueDictionary[tuple[int, int], Any] = weakref.WeakValueDictionary()


@dataclass(frozen=True, eq=False)
class Samples:
    """The parameters of one call, which get `grad_sample` from its backward."""

    parameters: Mapping[str, Any]  # those that require a gradient

    @classmethod
    def of(cls, weights: Mapping[str, Any]) -> Samples:
        """Of the tensors that a module computes with.

        Raises
        ------
        ValueError
            One of them is computed from others, so that it is not where the gradient belongs.
        """
        for name, weight in weights.items():
            if not weight.is_leaf:
                raise ValueError(
                    f"{name}: expected a parameter itself for per_sample=True, so that it can have grad_sample; got "
                    f"one that is computed from others"
                )
        return cls({name: weight for name, weight in weights.items() if weight.requires_grad})

    def in_this_pass(self, nodes: Mapping[str, Any]) -> Samples:
        """Those whose gradient this backward pass adds to `.grad`; their nodes of the graph are given by name."""
        return Samples({name: weight for name, weight in self.parameters.items() if _runs(nodes[name])})

    def take(self, found: Mapping[str, FloatArray], *, copy: bool) -> None:
        """Leave (B, ...) of each parameter on it; a copy where somebody else holds the arrays too."""
        torch = require_torch()
        this_pass = torch._C._current_graph_task_id()
        for name, parameter in self.parameters.items():
            new = torch.from_numpy(found[name].copy() if copy else found[name])
            before = getattr(parameter, "grad_sample", None)
            passes = [] if before is None else before if isinstance(before, list) else [before]
            filling: Any = _filling.get((this_pass, id(parameter)))
            if not passes or passes[-1] is not filling:
                parameter.grad_sample = [*passes, new] if passes else new
                _filling[this_pass, id(parameter)] = new
            elif len(filling) == len(new):
                filling += new
            else:
                raise RuntimeError(
                    f"{name}: expected calls with one number of samples in one backward pass, whose gradients add up "
                    f"sample by sample; got {len(filling)} and {len(new)}"
                )


def _runs(node: Any) -> bool:
    """Whether this backward pass adds to `.grad` at this node, a parameter's."""
    try:
        return bool(require_torch()._C._will_engine_execute_node(node))
    except RuntimeError:  # so it says where torch.autograd.grad hands the gradient to its caller
        return False
