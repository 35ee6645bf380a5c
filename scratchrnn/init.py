"""Initialisers: in place, like `torch.nn.init`, with the random source passed in.

On arrays: `uniform_`, `normal_`, `orthogonal_`, `identity_`. On a whole layer: `torch_default_` (what every
layer starts with), `forget_bias_`, `chrono_`. Gate rows stand in torch's order i, f, g, o: the forget gate is
rows H to 2H.

torch keeps two biases, `bias_ih` and `bias_hh`, and only their sum acts. An initialiser that asks for a gate
bias puts it in `bias_ih` and 0 in `bias_hh`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_positive_int, check_real, describe
from scratchrnn.rng import Rng, check_rng, draw_normal, draw_uniform

_INPUT_BIAS = re.compile(r"bias_ih(_l\d+(_reverse)?)?")  # of a layer, or of a cell


class _Recurrent(Protocol):
    @property
    def parameters(self) -> dict[str, FloatArray]: ...

    @property
    def hidden_size(self) -> int: ...


def uniform_(array: FloatArray, low: float = 0.0, high: float = 1.0, rng: Rng | None = None) -> FloatArray:
    """Fill `array` from U[low, high).

    Parameters
    ----------
    array : ndarray, float32 or float64, any shape
        Overwritten.
    low, high : float
        low <= high.
    rng : np.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Freshly seeded when absent.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        `array` is not a writable float32 or float64 array, or the bounds are not finite or in the wrong
        order.
    """
    _check_writable("array", array)
    array[...] = draw_uniform(check_rng("rng", rng), low, high, array.shape, array.dtype)
    return array


def normal_(array: FloatArray, mean: float = 0.0, std: float = 1.0, rng: Rng | None = None) -> FloatArray:
    """Fill `array` from N(mean, std^2).

    Parameters
    ----------
    array : ndarray, float32 or float64, any shape
        Overwritten.
    mean, std : float
        std >= 0.
    rng : np.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Freshly seeded when absent.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        `array` is not a writable float32 or float64 array, or `std` is negative.
    """
    _check_writable("array", array)
    array[...] = draw_normal(check_rng("rng", rng), mean, std, array.shape, array.dtype)
    return array


def orthogonal_(array: FloatArray, gain: float = 1.0, rng: Rng | None = None, *, gates: int = 1) -> FloatArray:
    """Fill a matrix with `gain` times a random orthogonal one, uniform over all such (Haar measure).

    A tall matrix gets orthonormal columns, a wide one orthonormal rows: the Q of a normal matrix's QR
    decomposition, its columns' signs fixed by R's diagonal.

    Parameters
    ----------
    array : ndarray (rows, columns), float32 or float64
        Overwritten.
    gain : float
        Every singular value of the result.
    rng : np.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Freshly seeded when absent.
    gates : int
        The rows are so many stacked matrices, each made orthogonal by itself: 4 for an LSTM's `weight_hh_l0`
        (4H, H). torch.nn.init.orthogonal_ has no such argument and treats the stack as one tall matrix, whose
        blocks are then not orthogonal.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        `array` is not a writable float32 or float64 matrix, or its rows do not divide by `gates`.

    References
    ----------
    Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", ICLR 2014. Mezzadri, "How to generate random matrices from the classical compact groups",
    Notices of the AMS 54 (2007), for the signs.
    """
    _check_writable("array", array, rank=2)
    gain = check_real("gain", gain)
    gates = check_positive_int("gates", gates)
    source = check_rng("rng", rng)
    rows, columns = array.shape
    if rows % gates:
        raise ValueError(f"array: expected rows that divide by gates={gates}; got shape {array.shape}")
    for block in np.split(array, gates):
        drawn = draw_normal(source, 0.0, 1.0, block.shape, array.dtype).astype(np.float64)
        q, r = np.linalg.qr(drawn if len(block) >= columns else drawn.T)
        q = q * np.copysign(1.0, np.diagonal(r))
        block[...] = gain * (q if len(block) >= columns else q.T)
    return array


def identity_(array: FloatArray, scale: float = 1.0) -> FloatArray:
    """Fill a square matrix with `scale` times the identity.

    As `weight_hh_l0` of an RNN with nonlinearity "relu", zero biases and scale 1 this is the IRNN: at the
    start the hidden state is kept, and so is the gradient.

    Parameters
    ----------
    array : ndarray (H, H), float32 or float64
        Overwritten.
    scale : float
        Below 1 for tasks that need less memory.

    Returns
    -------
    ndarray
        `array` itself.

    Raises
    ------
    TypeError, ValueError
        `array` is not a writable square float32 or float64 matrix.

    References
    ----------
    Le, Jaitly and Hinton, "A simple way to initialize recurrent networks of rectified linear units", arXiv
    1504.00941.
    """
    _check_writable("array", array, rank=2)
    if array.shape[0] != array.shape[1]:
        raise ValueError(f"array: expected a square matrix; got shape {array.shape}")
    array[...] = check_real("scale", scale) * np.eye(len(array))
    return array


def torch_default_(parameters: Mapping[str, FloatArray], hidden_size: int, rng: Rng | None = None) -> None:
    """Fill every parameter from U[-k, k), k = 1 / sqrt(hidden_size), as torch.nn.RNN and LSTM do.

    They are filled in the mapping's order. With a TorchGenerator and the parameters in torch's order of
    registration (per layer and direction: `weight_ih`, `weight_hh`, `bias_ih`, `bias_hh`, `weight_hr`) the
    values equal torch's bit for bit.

    Parameters
    ----------
    parameters : dict of str to ndarray
        Overwritten.
    hidden_size : int
        H, also where there is a projection.
    rng : np.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Freshly seeded when absent.

    Raises
    ------
    TypeError, ValueError
        A parameter is not a writable float32 or float64 array, or `hidden_size` is not a positive integer;
        nothing is changed then.
    """
    if not isinstance(parameters, Mapping):
        raise TypeError(f"parameters: expected a dict of arrays; got {describe(parameters)}")
    k = 1.0 / math.sqrt(check_positive_int("hidden_size", hidden_size))
    source = check_rng("rng", rng)
    for name, array in parameters.items():
        _check_writable(name, array)
    for array in parameters.values():
        uniform_(array, -k, k, source)


def forget_bias_(lstm: _Recurrent, value: float = 1.0) -> None:
    """Give every forget gate of an LSTM the bias `value`, in all layers and directions.

    `value` goes into the forget rows of `bias_ih` and 0 into those of `bias_hh`, so that their sum is `value`
    exactly (written into both, as is easily done with torch, it would be twice that). Other rows stay.

    Parameters
    ----------
    lstm : LSTM
        Anything with `hidden_size` and a dict `parameters` under torch's names.
    value : float
        1 is the usual choice: the forget gate then starts at sigmoid(1) = 0.73 rather than 0.5.

    Raises
    ------
    ValueError
        The layer has no biases, or they are not an LSTM's; nothing is changed then.

    References
    ----------
    Gers, Schmidhuber and Cummins, "Learning to forget: continual prediction with LSTM", Neural Computation 12
    (2000). Jozefowicz, Zaremba and Sutskever, "An empirical exploration of recurrent network architectures",
    ICML 2015.
    """
    value = check_real("value", value)
    for bias_ih, bias_hh in _gate_biases(lstm):
        hidden = len(bias_ih) // 4
        bias_ih[hidden : 2 * hidden] = value
        bias_hh[hidden : 2 * hidden] = 0.0


def chrono_(lstm: _Recurrent, t_max: float, rng: Rng | None = None) -> None:
    """Spread an LSTM's memory over time scales up to `t_max` steps, in all layers and directions.

        b_f = log(u),  u ~ U(1, t_max - 1),  b_i = -b_f

    per unit. A gate f = sigmoid(b_f) forgets over 1 / (1 - f) = 1 + u steps when nothing else drives it: from
    2 to t_max. b_f and b_i go into `bias_ih`, 0 into the same rows of `bias_hh`; those of g and o stay.

    Parameters
    ----------
    lstm : LSTM
        Anything with `hidden_size` and a dict `parameters` under torch's names.
    t_max : float
        The longest dependency expected, in time steps; above 2.
    rng : np.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Freshly seeded when absent.

    Raises
    ------
    ValueError
        `t_max` is 2 or less, the layer has no biases, or they are not an LSTM's; nothing is changed then.

    References
    ----------
    Tallec and Ollivier, "Can recurrent neural networks warp time?", ICLR 2018, arXiv 1804.11188, on chrono
    initialization.
    """
    t_max = check_real("t_max", t_max, above=2.0)
    source = check_rng("rng", rng)
    for bias_ih, bias_hh in _gate_biases(lstm):
        hidden = len(bias_ih) // 4
        b_f = np.log(draw_uniform(source, 1.0, t_max - 1.0, hidden, bias_ih.dtype))
        bias_ih[hidden : 2 * hidden] = b_f
        bias_ih[:hidden] = -b_f
        bias_hh[: 2 * hidden] = 0.0


def _check_writable(name: str, array: Any, rank: int | None = None) -> None:
    check_array(name, array)
    if rank is not None and array.ndim != rank:
        raise ValueError(f"{name}: expected {rank} dimensions; got shape {array.shape}")
    if not array.flags.writeable:
        raise ValueError(f"{name}: expected a writable array; got a read-only one")


def _gate_biases(lstm: _Recurrent) -> list[tuple[FloatArray, FloatArray]]:
    """Return (bias_ih, bias_hh) of every layer and direction in the layer's order, checked."""
    parameters, hidden = getattr(lstm, "parameters", None), getattr(lstm, "hidden_size", None)
    if not isinstance(parameters, Mapping) or not isinstance(hidden, int):
        wanted = "a layer with `hidden_size` and a dict `parameters`"
        raise TypeError(f"lstm: expected {wanted}; got {describe(lstm)}")
    names = [name for name in parameters if _INPUT_BIAS.fullmatch(name)]
    if not names:
        raise ValueError(f"lstm: expected a layer with bias=True; got one with {', '.join(parameters)}")
    pairs = []
    for bias_ih in names:
        bias_hh = bias_ih.replace("_ih", "_hh")
        for name in (bias_ih, bias_hh):
            why = f"for an LSTM of hidden_size={hidden}"
            check_array(name, parameters.get(name), shape=(4 * hidden,), why=why)
            _check_writable(name, parameters[name])
        pairs.append((parameters[bias_ih], parameters[bias_hh]))
    return pairs
