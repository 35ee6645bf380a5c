"""RNN and LSTM, with the arguments, names and shapes of torch.nn.RNN and torch.nn.LSTM."""

from __future__ import annotations

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn.layers.direction import Cell, check_nonlinearity
from scratchrnn.layers.stack import Recurrent
from scratchrnn.rng import Rng


class RNN(Recurrent):
    """Vanilla (Elman) RNN: h_t = φ(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), φ = tanh or relu.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L, each reading the output of the one below.
    nonlinearity : "tanh" or "relu"
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether input and output are (B, T, ·) instead of (T, B, ·). States are (D·L, B, H) either way.
    dropout : float
        Probability of zeroing an element of each layer's output but the last, in training.
    bidirectional : bool
        Whether a second direction reads each sequence from its end; the outputs stand side by side.
    dtype : float32 or float64
    backend : str, optional
        See `scratchrnn.backends`. When absent, the one of the enclosing `use_backend`, else the default.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters, U(-1/√H, 1/√H) as torch does, and later the dropout masks. Fresh entropy when absent.

    Attributes
    ----------
    parameters : dict of ndarray
        weight_ih_l0 (H, I or D·H), weight_hh_l0 (H, H), bias_ih_l0 (H,), bias_hh_l0 (H,), and so on for l1 ...,
        with the suffix _reverse for the second direction: torch's names, shapes and order.

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type; the message names it.

    Notes
    -----
    Where torch differs: all arguments after `num_layers` are keywords here.

    References
    ----------
    Elman, Finding structure in time, 1990. Le, Jaitly, Hinton, arXiv:1504.00941, 2015 (relu).

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> rnn = srnn.RNN(3, 4, dtype=np.float64, rng=rng)
    >>> trace = rnn.forward(rng.standard_normal((7, 2, 3)))
    >>> trace.output.shape, trace.state.shape, trace.h.shape
    ((7, 2, 4), (1, 2, 4), (8, 2, 4))
    >>> grads = rnn.backward(trace, d_output=np.ones_like(trace.output))
    >>> grads.input.shape, grads.h.shape, grads.parameters["weight_hh_l0"].shape
    ((7, 2, 3), (8, 2, 4), (4, 4))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: DTypeLike = np.float32,
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        super().__init__(
            Cell("rnn", check_nonlinearity(nonlinearity)), input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, 0, dtype, backend, rng,
        )  # fmt: skip

    @property
    def nonlinearity(self) -> str:
        """φ, "tanh" or "relu"."""
        return self.cell.nonlinearity


class LSTM(Recurrent):
    """Long short-term memory, without peepholes, with an optional projection of h.

    a_t = W_ih x_t + b_ih + W_hh h_{t-1} + b_hh; i, f, o = σ(a_i), σ(a_f), σ(a_o); g = tanh(a_g);
    c_t = f ⊙ c_{t-1} + i ⊙ g; h_t = o ⊙ tanh(c_t), or W_hr (o ⊙ tanh(c_t)) with a projection.

    Parameters
    ----------
    input_size, hidden_size : int
        I and H.
    num_layers : int
        L, each reading the output of the one below.
    bias : bool
        Whether there are bias_ih and bias_hh.
    batch_first : bool
        Whether input and output are (B, T, ·) instead of (T, B, ·). States are (D·L, B, ·) either way.
    dropout : float
        Probability of zeroing an element of each layer's output but the last, in training.
    bidirectional : bool
        Whether a second direction reads each sequence from its end; the outputs stand side by side.
    proj_size : int
        P, less than H: size of h after the projection; 0 for none.
    dtype : float32 or float64
    backend : str, optional
        See `scratchrnn.backends`. When absent, the one of the enclosing `use_backend`, else the default.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters, U(-1/√H, 1/√H) as torch does, and later the dropout masks. Fresh entropy when absent.

    Attributes
    ----------
    parameters : dict of ndarray
        weight_ih_l0 (4H, I or D·P), weight_hh_l0 (4H, P), bias_ih_l0 (4H,), bias_hh_l0 (4H,), weight_hr_l0 (P, H),
        and so on for l1 ..., with the suffix _reverse for the second direction: torch's names, shapes and order. Gate
        rows are in the order i, f, g, o.

    Raises
    ------
    ValueError, TypeError
        An argument out of range or of the wrong type; the message names it.

    Notes
    -----
    Where torch differs: all arguments after `num_layers` are keywords here.

    References
    ----------
    Hochreiter, Schmidhuber, Long short-term memory, 1997. Gers, Schmidhuber, Cummins, Learning to forget, 2000.
    Sak, Senior, Beaufays, arXiv:1402.1128, 2014 (projection).

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> g = srnn.rng.torch_manual_seed(0)  # the numbers of torch.manual_seed(0), without torch
    >>> x = g.randn(1, 4, 3)
    >>> lstm = srnn.LSTM(3, 2, batch_first=True, rng=g)
    >>> trace = lstm.forward(x)
    >>> print(np.round(trace.output[0], 4))
    [[-0.1491  0.0378]
     [-0.2774  0.0892]
     [-0.0008  0.228 ]
     [ 0.0942  0.1251]]
    >>> print(np.round(trace.c[1:, 0], 4))  # torch returns only the last of these
    [[-0.2062  0.4409]
     [-0.4016  0.8418]
     [-0.0024  0.7915]
     [ 0.208   0.3955]]
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        dtype: DTypeLike = np.float32,
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        super().__init__(
            Cell("lstm"), input_size, hidden_size, num_layers, bias, batch_first,
            dropout, bidirectional, proj_size, dtype, backend, rng,
        )  # fmt: skip
