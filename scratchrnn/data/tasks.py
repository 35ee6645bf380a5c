"""Tasks whose answer is known, and so is the loss of a net that remembers nothing.

    adding           x_t = (u_t, m_t), u_t from U(0, 1), two of the m_t are 1:     y = sum_t m_t u_t
    copy memory      s_1 ... s_10, T - 1 blanks, a marker, 10 blanks:              y = T + 10 blanks, s_1 ... s_10
    temporal order   E ... X or Y at t_1 ... X or Y at t_2 ... B:                  y = which of XX, XY, YX, YY
    parity           bits x_t:                                                     y_t = x_0 xor x_1 xor ... xor x_t
    flip-flop        pulses x_t of 1 and -1 among zeros, in every channel:         y_t = the last pulse that came

A memoryless net sees the number of the step and the input of that step. Its least loss is the baseline: whoever stays
there has learned nothing that lies further back. For the adding problem the net that always answers 1 is meant.

Dimensions: B batch, T time (in the copy task the delay, the sequence having T + 20 steps). Everything is time-major.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import DTypeLike, NDArray

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_dtype, check_int, check_positive_int, check_probability
from scratchrnn.rng import Rng, check_rng, draw_uniform

Codes = NDArray[np.int64]

# Var U(0, 1) = 1/3 - 1/4 = 1/12, and variances of independent terms add up: the constant 1, the mean of the sum of two,
# misses it by 2/12 in the mean square, and no other constant by less
ADDING_BASELINE = 1 / 6

# the last input is always B, and the four classes are equally likely
TEMPORAL_ORDER_BASELINE = math.log(4)

_COPIED = 10  # symbols to remember
_BLANK, _MARKER = 8, 9  # after the symbols 0 to 7
_X, _E, _B = 4, 6, 7  # after the distractors a b c d, 0 to 3; Y is _X + 1


def adding_problem(steps: int, batch: int, rng: Rng, *, dtype: DTypeLike = np.float32) -> tuple[FloatArray, FloatArray]:
    """The sum of two marked numbers among many, to be said at the end.

    Parameters
    ----------
    steps : int
        T, at least 2: one marker falls into steps 0 to T // 2 - 1, one into the rest.
    batch : int
        B.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator
    dtype : float32 or float64

    Returns
    -------
    inputs : ndarray (T, B, 2)
        Values from U(0, 1), and 1 at the two marked steps, 0 elsewhere.
    targets : ndarray (B, 1)
        The sum of the two marked values, 0 to 2.

    Raises
    ------
    TypeError, ValueError
        A size is no integer or too small, `rng` is no generator, or another dtype.

    Notes
    -----
    Baseline: `ADDING_BASELINE`, a mean squared error of 1/6 for always answering 1. In Hochreiter and Schmidhuber the
    values come from U(-1, 1) and the sum is scaled; this is the form used since.

    References
    ----------
    Hochreiter, Schmidhuber, "Long short-term memory", 1997, experiment 4.
    Arjovsky, Shah, Bengio, "Unitary evolution recurrent neural networks", 2016 (a marker in each half).

    Examples
    --------
    >>> inputs, targets = adding_problem(5, 3, np.random.default_rng(0), dtype=np.float64)
    >>> inputs[:, 0].round(2).tolist(), targets[0].round(2).tolist()
    ([[0.64, 1.0], [0.02, 0.0], [0.61, 1.0], [0.94, 0.0], [0.86, 0.0]], [1.24])
    """
    check_int("steps", steps, least=2)
    check_positive_int("batch", batch)
    kind, source = check_dtype("dtype", dtype), check_rng("rng", rng)
    half, samples = steps // 2, np.arange(batch)
    inputs = np.zeros((steps, batch, 2), kind)
    inputs[:, :, 0] = draw_uniform(source, 0.0, 1.0, (steps, batch), kind)
    first = _draw_codes(source, half, (batch,))
    second = half + _draw_codes(source, steps - half, (batch,))
    inputs[first, samples, 1] = inputs[second, samples, 1] = 1
    targets = inputs[first, samples, 0] + inputs[second, samples, 0]  # (B,)
    return inputs, targets[:, None]


def copy_memory(delay: int, batch: int, rng: Rng) -> tuple[Codes, Codes]:
    """Ten symbols, to be said again when a marker comes.

    Parameters
    ----------
    delay : int
        T, steps from the last symbol to the marker; the sequence has T + 20.
    batch : int
        B.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator

    Returns
    -------
    inputs : ndarray (T + 20, B) of int64
        Codes 0 to 9: ten symbols from 0 to 7, T - 1 blanks (8), the marker (9) and ten blanks.
    targets : ndarray (T + 20, B) of int64
        T + 10 blanks and the ten symbols.

    Raises
    ------
    TypeError, ValueError
        A size is no integer or less than 1, or `rng` is no generator.

    Notes
    -----
    Baseline: `copy_memory_baseline(delay)`. Some programs number the codes otherwise, or repeat the marker over the
    last eleven steps; neither changes the baseline.

    References
    ----------
    Arjovsky, Shah, Bengio, "Unitary evolution recurrent neural networks", 2016.

    Examples
    --------
    >>> inputs, targets = copy_memory(4, 2, np.random.default_rng(0))
    >>> inputs[:, 0].tolist()
    [5, 0, 6, 4, 4, 6, 6, 5, 6, 2, 8, 8, 8, 9, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    >>> targets[:, 0].tolist()
    [8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 5, 0, 6, 4, 4, 6, 6, 5, 6, 2]
    """
    check_positive_int("delay", delay)
    check_positive_int("batch", batch)
    symbols = _draw_codes(check_rng("rng", rng), _BLANK, (_COPIED, batch))
    inputs, targets = (np.full((delay + 2 * _COPIED, batch), _BLANK, np.int64) for _ in range(2))
    inputs[:_COPIED] = symbols
    inputs[_COPIED + delay - 1] = _MARKER
    targets[-_COPIED:] = symbols
    return inputs, targets


def copy_memory_baseline(delay: int) -> float:
    """Cross-entropy in nats of the memoryless net, averaged over all T + 20 steps: 10 ln 8 / (T + 20).

    It says blank for T + 10 steps, which costs nothing, then each of eight symbols with probability 1/8.
    """
    return _COPIED * math.log(_BLANK) / (check_positive_int("delay", delay) + 2 * _COPIED)


def temporal_order(steps: int, batch: int, rng: Rng) -> tuple[Codes, Codes]:
    """In which order did two symbols come, far apart among distractors?

    Parameters
    ----------
    steps : int
        T, at least 10, for all sequences.
    batch : int
        B.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator

    Returns
    -------
    inputs : ndarray (T, B) of int64
        Codes 0 to 7: E (6) first, B (7) last, X (4) or Y (5) at one step from T // 10 to 2T // 10 and at one from
        5T // 10 to 6T // 10, both ends included, and distractors a b c d (0 to 3) elsewhere.
    targets : ndarray (B,) of int64
        Class at the end: 0 for X X, 1 for X Y, 2 for Y X, 3 for Y Y.

    Raises
    ------
    TypeError, ValueError
        A size is no integer or too small, or `rng` is no generator.

    Notes
    -----
    Baseline: `TEMPORAL_ORDER_BASELINE`, ln 4 nats, one answer in four right. A net that remembers one of the two
    symbols reaches ln 2. In the paper T is drawn for each sequence, from 100 to 110, with the symbols at steps 10 to
    20 and 50 to 60.

    References
    ----------
    Hochreiter, Schmidhuber, "Long short-term memory", 1997, experiment 6a.

    Examples
    --------
    >>> inputs, targets = temporal_order(12, 2, np.random.default_rng(0))
    >>> "".join("abcdXYEB"[code] for code in inputs[:, 0]), int(targets[0])
    ('EaYccddYdbaB', 3)
    """
    check_int("steps", steps, least=10)
    check_positive_int("batch", batch)
    source = check_rng("rng", rng)
    samples = np.arange(batch)
    inputs = _draw_codes(source, _X, (steps, batch))
    inputs[0], inputs[-1] = _E, _B
    targets = np.zeros(batch, np.int64)
    for tenth in (1, 5):
        begin, end = tenth * steps // 10, (tenth + 1) * steps // 10
        at = begin + _draw_codes(source, end - begin + 1, (batch,))
        symbol = _draw_codes(source, 2, (batch,))
        inputs[at, samples] = _X + symbol
        targets = 2 * targets + symbol
    return inputs, targets


def parity(steps: int, batch: int, rng: Rng) -> tuple[Codes, Codes]:
    """Is the number of ones so far odd? To be said at every step.

    Parameters
    ----------
    steps, batch : int
        T and B.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator

    Returns
    -------
    inputs, targets : ndarray (T, B) of int64
        Bits, and 1 where an odd number of them were 1 up to and with that step. The task that asks once, at the end,
        has the targets `targets[-1]`; it is much harder to learn.

    Raises
    ------
    TypeError, ValueError
        A size is no integer or less than 1, or `rng` is no generator.

    Notes
    -----
    Baseline: `parity_baseline(steps)`, and ln 2 for the last step alone where T > 1. No bit may be forgotten, and any
    of them turns the answer over: a net that has lost one is no better than a guess.

    References
    ----------
    Bengio, Simard, Frasconi, "Learning long-term dependencies with gradient descent is difficult", 1994 (at the end).

    Examples
    --------
    >>> inputs, targets = parity(6, 2, np.random.default_rng(0))
    >>> inputs[:, 0].tolist(), targets[:, 0].tolist()
    ([1, 0, 1, 1, 1, 1], [1, 1, 0, 1, 0, 1])
    """
    check_positive_int("steps", steps)
    check_positive_int("batch", batch)
    bits = _draw_codes(check_rng("rng", rng), 2, (steps, batch))
    return bits, np.cumsum(bits, axis=0) % 2


def parity_baseline(steps: int) -> float:
    """Cross-entropy in nats of the memoryless net, averaged over all T steps: (T - 1) ln 2 / T.

    At step 0 the answer is the bit that it sees. Later the bits before, unseen, are even or odd with probability 1/2.
    """
    return (check_positive_int("steps", steps) - 1) * math.log(2) / steps


def flip_flop(
    steps: int, batch: int, rng: Rng, *, bits: int = 3, probability: float = 0.5, dtype: DTypeLike = np.float32
) -> tuple[FloatArray, FloatArray]:
    """Which pulse came last? To be said at every step, of each channel by itself.

    Parameters
    ----------
    steps, batch : int
        T and B.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator
    bits : int
        Channels.
    probability : float
        Of a pulse in a channel at a step, in [0, 1]. At step 0 every channel has one, so that every answer is known.
    dtype : float32 or float64

    Returns
    -------
    inputs : ndarray (T, B, bits)
        Pulses, 1 or -1 with equal probability, and 0 elsewhere.
    targets : ndarray (T, B, bits)
        The channel's last pulse up to and with that step, 1 or -1.

    Raises
    ------
    TypeError, ValueError
        A size is no integer or less than 1, `probability` is none, `rng` is no generator, or another dtype.

    Notes
    -----
    Baseline: `flip_flop_baseline(steps, probability)`. A net that keeps `bits` bits for as long as it takes has a
    stable state for each of their 2 ** bits patterns; see `scratchrnn.dynamics.fixed_points`.

    References
    ----------
    Sussillo, Barak, "Opening the black box", 2013, the 3-bit flip-flop. Golub, Sussillo, "FixedPointFinder", 2018 (a
    pulse in every channel at step 0, probability 1/2).

    Examples
    --------
    >>> inputs, targets = flip_flop(6, 2, np.random.default_rng(3), bits=1)
    >>> inputs[:, 0, 0].tolist(), targets[:, 0, 0].tolist()
    ([-1.0, 0.0, -1.0, 1.0, 0.0, -1.0], [-1.0, -1.0, -1.0, 1.0, 1.0, -1.0])
    """
    size = (check_positive_int("steps", steps), check_positive_int("batch", batch), check_positive_int("bits", bits))
    check_probability("probability", probability)
    kind, source = check_dtype("dtype", dtype), check_rng("rng", rng)
    pulse = draw_uniform(source, 0.0, 1.0, size, np.float64) < probability
    pulse[0] = True
    sign = 2 * _draw_codes(source, 2, size) - 1
    last = np.maximum.accumulate(np.where(pulse, np.arange(steps)[:, None, None], 0))  # (T, B, bits) step of a pulse
    targets = np.take_along_axis(sign, last, axis=0)
    return np.where(pulse, sign, 0).astype(kind), targets.astype(kind)


def flip_flop_baseline(steps: int, probability: float = 0.5) -> float:
    """Mean squared error of the memoryless net over all T steps: (T - 1) (1 - probability) / T.

    It is right where there is a pulse, as at step 0. Elsewhere the answer is 1 or -1, equally likely: it says 0.
    """
    return (check_positive_int("steps", steps) - 1) * (1 - check_probability("probability", probability)) / steps


def _draw_codes(rng: Rng, count: int, size: tuple[int, ...]) -> Codes:
    """Draw from 0 to `count - 1`, each equally likely."""
    # floor, since TorchGenerator draws no integers; u is at most 1 - 2**-53, and count times that rounds below count
    return np.floor(count * draw_uniform(rng, 0.0, 1.0, size, np.float64)).astype(np.int64)
