"""Adam and AdamW.

Parameter w, gradient g, running averages m ("exp_avg") and v ("exp_avg_sq"), per step t:

    g = g + weight_decay w                 Adam
    w = w (1 - lr weight_decay)            AdamW
    m = m + (1 - beta1) (g - m)
    v = beta2 v + (1 - beta2) g^2
    u = max(u, v)                          amsgrad ("max_exp_avg_sq"); else u = v
    w = w - lr / (1 - beta1^t)  m / (sqrt(u) / sqrt(1 - beta2^t) + eps)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_bool, check_real, describe
from scratchrnn.optim._arrays import addcdiv_, addcmul_, lerp_
from scratchrnn.optim.optimizer import Optimizer


class Adam(Optimizer):
    """Adam, as `torch.optim.Adam`.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Updated in place; one dtype, writable, no two sharing memory.
    lr : float
        Learning rate, at least 0.
    betas : tuple of two floats
        Decay of the averages of the gradient and of its square, each in [0, 1).
    eps : float
        Added to the denominator, at least 0.
    weight_decay : float
        At least 0; added to the gradient times the parameter.
    amsgrad : bool
        Divide by the largest average of squares so far.

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
    In the state the betas are the two numbers "beta1" and "beta2". torch's `maximize` is not offered.

    References
    ----------
    Kingma, Ba, "Adam: a method for stochastic optimization" (2015), algorithm 1. Reddi, Kale, Kumar, "On
    the convergence of Adam and beyond" (2018), algorithm 2: amsgrad; as in torch with bias correction, the
    maximum taken before it.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> Adam({"w": w}, lr=0.5).step({"w": np.array([1e-3, -1e3])})
    >>> print(w.round(4).tolist())
    [0.5, 2.5]
    """

    _numbers = ("lr", "beta1", "beta2", "eps", "weight_decay", "amsgrad", "decoupled_weight_decay")
    decoupled_weight_decay: ClassVar[bool] = False

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr)
        self.beta1, self.beta2 = _check_betas(betas)
        self.eps = check_real("eps", eps, least=0.0)
        self.weight_decay = check_real("weight_decay", weight_decay, least=0.0)
        self.amsgrad = check_bool("amsgrad", amsgrad)
        self._add_buffer("exp_avg")
        self._add_buffer("exp_avg_sq")
        if self.amsgrad:
            self._add_buffer("max_exp_avg_sq")

    def _arguments(self, numbers: dict[str, Any]) -> dict[str, Any]:
        decoupled = check_bool("decoupled_weight_decay", numbers.pop("decoupled_weight_decay"))
        if decoupled != self.decoupled_weight_decay:
            raise ValueError(
                f"decoupled_weight_decay: expected {self.decoupled_weight_decay}, "
                f"a state of {type(self).__name__}; got {decoupled}"
            )
        return {"betas": (numbers.pop("beta1"), numbers.pop("beta2")), **numbers}

    def _update(self, name: str, parameter: FloatArray, gradient: FloatArray) -> None:
        s0, s1 = self._scratch(parameter)
        g = gradient
        if not self.decoupled_weight_decay:
            g = self._decayed(parameter, gradient, s0)
        elif self.weight_decay:
            np.multiply(parameter, 1.0 - self.lr * self.weight_decay, out=parameter)

        m, v = self._buffers["exp_avg"][name], self._buffers["exp_avg_sq"][name]
        lerp_(m, g, 1.0 - self.beta1, s1)
        np.multiply(v, self.beta2, out=v)
        addcmul_(v, g, g, 1.0 - self.beta2, s1)
        u = v
        if self.amsgrad:
            u = self._buffers["max_exp_avg_sq"][name]
            np.maximum(u, v, out=u)

        correction1 = 1.0 - self.beta1**self.step_count
        correction2 = 1.0 - self.beta2**self.step_count
        denominator = np.sqrt(u, out=s1)
        np.divide(denominator, correction2**0.5, out=denominator)
        np.add(denominator, self.eps, out=denominator)
        addcdiv_(parameter, m, denominator, -(self.lr / correction1), s0)


class AdamW(Adam):
    """Adam whose weight decay shrinks the parameter, not the gradient, as `torch.optim.AdamW`.

    Parameters, Raises and Notes as for `Adam`; the default weight decay is 1e-2.

    References
    ----------
    Loshchilov, Hutter, "Decoupled weight decay regularization" (2019), algorithm 2.

    Examples
    --------
    >>> w = np.array([1.0, 2.0])
    >>> AdamW({"w": w}, lr=0.5, weight_decay=0.1).step({"w": np.zeros(2)})
    >>> print(w.tolist())
    [0.95, 1.9]
    """

    decoupled_weight_decay: ClassVar[bool] = True

    def __init__(
        self,
        parameters: Mapping[str, FloatArray],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(parameters, lr, betas, eps, weight_decay, amsgrad)


def _check_betas(betas: Any) -> tuple[float, float]:
    if not isinstance(betas, (tuple, list)) or len(betas) != 2:
        raise TypeError(f"betas: expected two numbers; got {describe(betas)}")
    for i, beta in enumerate(betas):
        if check_real(f"betas[{i}]", beta, least=0.0) >= 1.0:
            raise ValueError(f"betas[{i}]: expected a number of at least 0 and below 1; got {beta}")
    return float(betas[0]), float(betas[1])
