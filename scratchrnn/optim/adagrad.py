"""Adagrad.

Parameter w, gradient g, sum of squares s ("sum", starts at initial_accumulator_value), per step t:

    g = g + weight_decay w
    s = s + g^2
    w = w - lr / (1 + (t - 1) lr_decay)  g / (sqrt(s) + eps)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_real
from scratchrnn.optim._arrays import addcdiv_, addcmul_
from scratchrnn.optim.optimizer import Optimizer


class Adagrad(Optimizer):
    """Adagrad, as `torch.optim.Adagrad`.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Updated in place; one dtype, writable, no two sharing memory.
    lr : float
        Learning rate, at least 0.
    lr_decay : float
        At least 0; the rate is divided by 1 + (t - 1) lr_decay.
    weight_decay : float
        At least 0; added to the gradient times the parameter.
    initial_accumulator_value : float
        Start of the sum of squares, at least 0.
    eps : float
        Added to the denominator, at least 0.

    Raises
    ------
    TypeError, ValueError
        A parameter or number is not as above.

    Notes
    -----
    Rounds in the order of torch's `foreach=False` CPU path. Results are equal bit for bit but for two
    things that torch's vectorised kernels do: fuse a multiplication with an addition, and take square roots
    to 1 ulp (here they are correctly rounded). With them the difference stays within 2 eps per step, relative
    to the largest magnitude of the parameter.
    torch's `maximize` and sparse gradients are not offered.

    References
    ----------
    Duchi, Hazan, Singer, "Adaptive subgradient methods for online learning and stochastic optimization"
    (2011), figure 1, the diagonal form.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> Adagrad({"w": w}, lr=0.5).step({"w": np.array([1e-3, -1e3])})
    >>> print(w.round(4).tolist())
    [0.5, 2.5]
    """

    _numbers = ("lr", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(parameters, lr)
        self.lr_decay = check_real("lr_decay", lr_decay, least=0.0)
        self.weight_decay = check_real("weight_decay", weight_decay, least=0.0)
        start = check_real("initial_accumulator_value", initial_accumulator_value, least=0.0)
        self.initial_accumulator_value = start
        self.eps = check_real("eps", eps, least=0.0)
        self._add_buffer("sum", start)

    def _update(self, name: str, parameter: FloatArray, gradient: FloatArray) -> None:
        s0, s1 = self._scratch(parameter)
        g = self._decayed(parameter, gradient, s0)
        s = self._buffers["sum"][name]
        addcmul_(s, g, g, 1.0, s1)
        denominator = np.sqrt(s, out=s1)
        np.add(denominator, self.eps, out=denominator)
        rate = self.lr / (1.0 + (self.step_count - 1) * self.lr_decay)
        addcdiv_(parameter, g, denominator, -rate, s0)
