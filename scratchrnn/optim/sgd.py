"""Stochastic gradient descent with momentum.

Parameter w, gradient g, momentum buffer b, per step t:

    g = g + weight_decay w
    b = g                                  (t = 1)
    b = momentum b + (1 - dampening) g     (t > 1)
    w = w - lr (g + momentum b)            nesterov
    w = w - lr b                           otherwise; without momentum w - lr g
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_real
from scratchrnn.optim._arrays import add_
from scratchrnn.optim.optimizer import Optimizer


class SGD(Optimizer):
    """Stochastic gradient descent, as `torch.optim.SGD`.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Updated in place; one dtype, writable, no two sharing memory.
    lr : float
        Learning rate, at least 0 (torch has the default 1e-3; here it must be given).
    momentum : float
        At least 0; 0 keeps no buffer.
    dampening : float
        Reduces the gradient's share in the buffer, from the second step on.
    weight_decay : float
        At least 0; added to the gradient times the parameter.
    nesterov : bool
        Needs momentum above 0 and dampening 0.

    Raises
    ------
    TypeError, ValueError
        A parameter or number is not as above.

    Notes
    -----
    Rounds in the order of torch's `foreach=False` CPU path. Results are equal bit for bit but for one thing
    that torch's vectorised kernels do, fuse a multiplication with an addition; with it the difference stays
    within 2 eps per step, relative to the largest magnitude of the parameter. torch's `maximize` is not
    offered.

    References
    ----------
    Sutskever, Martens, Dahl, Hinton, "On the importance of initialization and momentum in deep learning"
    (2013), section 2; the learning rate stands outside the buffer, as in torch.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> SGD({"w": w}, lr=0.5).step({"w": np.array([1.0, -1.0])})
    >>> print(w.tolist())
    [0.5, 2.5]
    """

    _numbers = ("lr", "momentum", "dampening", "weight_decay", "nesterov")

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        lr: float,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.momentum = check_real("momentum", momentum, least=0.0)
        self.dampening = check_real("dampening", dampening)
        self.weight_decay = check_real("weight_decay", weight_decay, least=0.0)
        self.nesterov = check_bool("nesterov", nesterov)
        if self.nesterov and (self.momentum == 0.0 or self.dampening != 0.0):
            raise ValueError(
                "nesterov: expected momentum above 0 and dampening 0; "
                f"got momentum {self.momentum:g} and dampening {self.dampening:g}"
            )
        if self.momentum:
            self._add_buffer("momentum_buffer")

    def _update(self, name: str, parameter: FloatArray, gradient: FloatArray) -> None:
        s0, s1 = self._scratch(parameter)
        g = self._decayed(parameter, gradient, s0)
        if self.momentum:
            b = self._buffers["momentum_buffer"][name]
            if self.step_count == 1:
                np.copyto(b, g)
            else:
                np.multiply(b, self.momentum, out=b)
                add_(b, g, 1.0 - self.dampening, s1)
            if self.nesterov:
                np.multiply(b, self.momentum, out=s1)
                g = np.add(g, s1, out=s1)
            else:
                g = b
        add_(parameter, g, -self.lr, s1)
