"""WeightDrop: dropout on the recurrent weights, drawn once for a forward pass.

    Ŵ_hh = M ⊙ W_hh,   M zero with probability p and 1/(1-p) otherwise         (G·H, P), every layer and direction
    forward and backward as the layer has them, with Ŵ_hh
    dL/dW_hh = M ⊙ dL/dŴ_hh

All time steps and samples share M: the same connections are missing throughout a sequence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from scratchrnn import backends
from scratchrnn._typing import BoolArray, FloatArray
from scratchrnn._validate import check_probability
from scratchrnn.layers import direction
from scratchrnn.layers.dropout import draw_mask
from scratchrnn.layers.stack import Recurrent
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.rng import Rng
from scratchrnn.trace import Gradients, State, Trace


def _is_recurrent(name: str) -> bool:
    return name.startswith("weight_hh")


@dataclass(frozen=True, eq=False, repr=False)
class WeightDropTrace(Trace):
    """What `WeightDrop.forward` did: a `Trace` whose `parameters` are the weights that were used, Ŵ_hh among them.

    Attributes
    ----------
    weight_masks : dict of ndarray
        M of each weight_hh, by its name; empty where nothing was dropped.
    """

    weight_masks: dict[str, FloatArray]


class WeightDrop(Wrapper):
    """Zero each recurrent weight with probability p in training, scaling the rest by 1/(1-p) (DropConnect).

    On `weight_hh` of every layer and direction. The layer's own weights are never written: a forward pass runs on
    dropped copies, which its trace keeps. In inference the weights are used as they are.

    Parameters
    ----------
    layer : RNN or LSTM
    p : float
        Probability of zero, in [0, 1]. AWD-LSTM takes 0.5.
    rng : numpy.random.Generator, optional
        Draws all masks of a forward pass, those between layers too. The layer's own when absent.

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type; the message names it.

    References
    ----------
    Wan et al., Regularization of neural networks using DropConnect, ICML 2013. Merity, Keskar, Socher,
    arXiv:1708.02182, 2017, section 2 (on hidden-to-hidden weights).

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, rng=rng)
    >>> dropping = srnn.WeightDrop(lstm, 0.5, rng=rng)
    >>> trace = dropping.forward(rng.standard_normal((7, 2, 3), np.float32))
    >>> zeros = trace.parameters["weight_hh_l0"] == 0
    >>> int(zeros.sum()), zeros.size
    (28, 64)
    >>> grads = dropping.backward(trace, d_output=np.ones_like(trace.output))
    >>> bool((grads.parameters["weight_hh_l0"][zeros] == 0).all()), bool((lstm.weight_hh_l0 == 0).any())
    (True, False)
    """

    p: float

    def __init__(self, layer: Recurrent, p: float = 0.5, *, rng: Rng | None = None) -> None:
        super().__init__(layer, rng)
        self.p = check_probability("p", p)

    def config(self) -> dict[str, Any]:
        """The wrapper's own arguments."""
        return {"p": self.p}

    def __call__(self, x: FloatArray, state: State | None = None, lengths: Any = None) -> tuple[FloatArray, State]:
        """Inference with the weights as they are: the layer's own call."""
        return self.layer(x, state, lengths)

    @np.errstate(all="ignore")  # inf and nan in data pass through, as in torch
    def forward(
        self,
        x: FloatArray,
        state: State | None = None,
        lengths: Any = None,
        training: bool = True,
        rng: Rng | None = None,
    ) -> WeightDropTrace:
        """Run the layer on dropped weights and keep everything.

        Parameters
        ----------
        x, state, lengths
            As in the layer's `forward`.
        training : bool
            Whether weights are dropped, and dropout between layers acts.
        rng : numpy.random.Generator, optional
            For all masks; when absent, the wrapper's own. The weights' are drawn first.
        """
        generator = self._generator(rng)
        masks: dict[str, FloatArray] = {}

        def weights() -> dict[str, FloatArray]:
            copies = self.layer.state_dict()
            if training and self.p > 0:
                for name in filter(_is_recurrent, copies):
                    masks[name] = draw_mask(copies[name].shape, self.p, copies[name].dtype, generator)
                    copies[name] *= masks[name]
            return copies

        trace = self.layer._forward(x, state, lengths, training, generator, weights, direction.forward)
        return WeightDropTrace(**vars(trace), weight_masks=masks)

    @np.errstate(all="ignore")
    def backward(
        self,
        trace: Any,
        d_output: FloatArray | None = None,
        d_state: State | None = None,
        *,
        clip: float | None = None,
        cut: BoolArray | None = None,
        detach_h: BoolArray | None = None,
        per_sample: bool = False,
    ) -> Gradients:
        """Backpropagate through time, to the weights as they were before the drop.

        Parameters
        ----------
        trace : WeightDropTrace
            From this wrapper's `forward`.
        d_output, d_state, clip, cut, detach_h, per_sample
            As in the layer's `backward`.
        """
        self.layer._check_trace(trace, WeightDropTrace)
        grads = self.layer._backward(trace, d_output, d_state, clip, cut, detach_h, per_sample, direction.backward)
        masks, raw = trace.weight_masks, dict(grads.parameters)
        with backends.arrays_at(next(iter(raw.values()))) as arrays:
            for name, mask in masks.items():
                raw[name] = arrays.multiply(raw[name], arrays.upload(mask))  # undoes the drop
                if grads.per_sample is not None:
                    grads.per_sample[name] *= mask  # all samples read the same copy
        return replace(grads, parameters=raw)
