"""RMSprop.

Parameter w, gradient g, running averages v ("square_avg") and a ("grad_avg"), momentum buffer b, per step:

    g = g + weight_decay w
    v = alpha v + (1 - alpha) g^2
    a = a + (1 - alpha) (g - a)            centered
    r = sqrt(v - a^2) + eps                centered; else sqrt(v) + eps
    b = momentum b + g / r;  w = w - lr b  with momentum
    w = w - lr g / r                       otherwise
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_probability, check_real
from scratchrnn.optim._arrays import add_, addcdiv_, addcmul_, lerp_
from scratchrnn.optim.optimizer import Optimizer


class RMSprop(Optimizer):
    """RMSprop, as `torch.optim.RMSprop`.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Updated in place; one dtype, writable, no two sharing memory.
    lr : float
        Learning rate, at least 0.
    alpha : float
        Decay of the averages, in [0, 1] (torch takes values above 1 as well, which diverge).
    eps : float
        Added to the denominator, at least 0.
    weight_decay : float
        At least 0; added to the gradient times the parameter.
    momentum : float
        At least 0; 0 keeps no buffer.
    centered : bool
        Divide by the standard deviation of the gradient rather than its root mean square.

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
    With `centered`, v - a^2 cancels where a gradient hardly changes: there rounding is magnified, and may
    give NaN from a negative difference, in torch as here. torch's `maximize` is not offered.

    References
    ----------
    Tieleman, Hinton, "Lecture 6.5: rmsprop", COURSERA: Neural networks for machine learning (2012). Graves,
    "Generating sequences with recurrent neural networks" (2013), section 4.2: the centered form; as in
    torch, eps stands outside the root.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> RMSprop({"w": w}, lr=0.5, alpha=0.75).step({"w": np.array([1e-3, -1e3])})
    >>> print(w.round(4).tolist())
    [0.0, 3.0]
    """

    _numbers = ("lr", "alpha", "eps", "weight_decay", "momentum", "centered")

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        lr: float = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.alpha = check_probability("alpha", alpha)
        self.eps = check_real("eps", eps, least=0.0)
        self.weight_decay = check_real("weight_decay", weight_decay, least=0.0)
        self.momentum = check_real("momentum", momentum, least=0.0)
        self.centered = check_bool("centered", centered)
        self._add_buffer("square_avg")
        if self.momentum:
            self._add_buffer("momentum_buffer")
        if self.centered:
            self._add_buffer("grad_avg")

    def _update(self, name: str, parameter: FloatArray, gradient: FloatArray) -> None:
        s0, s1 = self._scratch(parameter)
        g = self._decayed(parameter, gradient, s0)
        v = self._buffers["square_avg"][name]
        np.multiply(v, self.alpha, out=v)
        addcmul_(v, g, g, 1.0 - self.alpha, s1)
        if self.centered:
            a = self._buffers["grad_avg"][name]
            lerp_(a, g, 1.0 - self.alpha, s1)
            np.multiply(a, a, out=s1)
            np.subtract(v, s1, out=s1)
            r = np.sqrt(s1, out=s1)
        else:
            r = np.sqrt(v, out=s1)
        np.add(r, self.eps, out=r)

        if self.momentum:
            b = self._buffers["momentum_buffer"][name]
            np.multiply(b, self.momentum, out=b)
            addcdiv_(b, g, r, 1.0, s0)
            add_(parameter, b, -self.lr, s0)
        else:
            addcdiv_(parameter, g, r, -self.lr, s0)
