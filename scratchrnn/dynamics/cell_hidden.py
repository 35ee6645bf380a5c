"""Cell against hidden state: which of the two remembers, and how long.

    B batch   T time   H hidden   P size of h (H without a projection)   n steps of a sequence

    c_t = f_t ⊙ c_{t-1} + i_t ⊙ g_t      m_t = o_t ⊙ tanh(c_t)      h_t = m_t, or W_hr m_t with a projection

    likeness      autocorrelation of c and of h over the sequence (`scratchrnn.dynamics.autocorrelation`)
    memory        ‖∂⟨u, c_n⟩/∂c_{n-k}‖ and ‖∂⟨u, h_n⟩/∂h_{n-k}‖ by distance k, u random unit vectors: what a small
                  change of the state leaves of itself k steps later, in one random direction
    gates alone   ‖u ⊙ f_n ⊙ ... ⊙ f_{n-k+1}‖: what that of c would be if c changed no gate
    forget        f̄_j = exp(mean log f_j): over k steps the gates multiply to f̄_j^k, so unit j forgets in 1/(1 - f̄_j)
    carried       Σ |f c_{t-1}| / Σ (|f c_{t-1}| + |i g|): how much of c is old, by unit
    exposed       correlation of m_j and c_j: its square is the share of c_j's variation that m_j shows

It is often said that c flows mostly unchanged and remembers long, while h is volatile and short-lived. Whether that is
so is a matter of the weights: `CellHidden.claims` states when it would be, and whether it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int
from scratchrnn.dynamics.autocorrelation import Autocorrelation, autocorrelation
from scratchrnn.gradflow._norms import row_norms
from scratchrnn.gradflow.distance import Decay, average_norms, check_one_direction, measure_decay
from scratchrnn.layers.stack import Recurrent
from scratchrnn.rng import Rng, check_rng, draw_normal
from scratchrnn.trace import LayerGradients, Trace

# what the claims ask for
UNCHANGED = 0.9  # of a unit kept by each step
LONG = 20  # steps
SOONER = 0.9  # of the time that c takes
RECOMPUTED = 0.5  # autocorrelation from one step to the next
HIDDEN = 0.5  # share of c's variation that h shows
THRESHOLD = 0.01  # of a gradient's norm


@dataclass(frozen=True, eq=False)
class Claim:
    """Something that is said of an LSTM's states, and whether it is true of these.

    Attributes
    ----------
    name : str
        Short, for a table.
    statement : str
        What is said.
    criterion : str
        When it counts as true.
    measured : mapping of str to float
        What was found.
    holds : bool
        False too where something measured is NaN: there was nothing to measure, or the sequences are too short to tell.
    """

    name: str
    statement: str
    criterion: str
    measured: Mapping[str, float]
    holds: bool


@dataclass(frozen=True, eq=False)
class StateMemory:
    """How long c, or h, lasts.

    Attributes
    ----------
    autocorrelation : Autocorrelation
        Of its units over the sequence.
    gradient : ndarray (T,), float64
        Median over sequences of ‖∂⟨u, s_n⟩/∂s_{n-k}‖, index k; 1 at k = 0.
    decay : Decay
        Of `gradient`: its horizon is where 1 % is left.
    cosine : float
        Median cosine of s_t and s_{t-1} over all steps but the first; NaN where there is none.
    """

    autocorrelation: Autocorrelation
    gradient: FloatArray
    decay: Decay
    cosine: float


@dataclass(frozen=True, eq=False)
class CellHidden:
    """Result of `cell_hidden`. All arrays are float64.

    Attributes
    ----------
    c, h : StateMemory
    gates_gradient : ndarray (T,)
        What `c.gradient` would be by the forget gates alone.
    gates_decay : Decay
        Of `gates_gradient`.
    forget : ndarray (H,)
        Geometric mean of each unit's forget gate over all steps.
    forget_time : ndarray (H,)
        1 / (1 - `forget`), in steps: the forget horizon.
    output : ndarray (H,)
        Mean of each unit's output gate.
    carried : ndarray (H,)
        Share of each unit's c that is old rather than just written, 0 to 1. NaN where both are zero.
    correlation : ndarray (H,)
        Of c and m = o ⊙ tanh(c), -1 to 1. NaN for a unit of which either never changes.
    """

    c: StateMemory
    h: StateMemory
    gates_gradient: FloatArray
    gates_decay: Decay
    forget: FloatArray
    forget_time: FloatArray
    output: FloatArray
    carried: FloatArray
    correlation: FloatArray

    @property
    def exposed(self) -> FloatArray:
        """Share of each unit's variation of c that shows in m, `correlation` squared: (H,)."""
        return self.correlation**2

    def claims(self) -> tuple[Claim, ...]:
        """Test what is often said of c and h on these states."""
        kept = _median(self.forget)
        times = {"time of c": self.c.autocorrelation.time, "time of h": self.h.autocorrelation.time}
        of_c, of_h = self.c.decay, self.h.decay
        # a horizon that is the sequences' end, where more may tell otherwise, is none
        long = float("nan") if of_c.censored and of_c.horizon < LONG else of_c.horizon
        open_end = of_c.censored and 2 * of_h.horizon > of_c.horizon
        horizons = {"horizon of c": float("nan") if open_end else of_c.horizon, "horizon of h": of_h.horizon}
        next_step = float(self.h.autocorrelation.by_lag[1])
        shown = _median(self.exposed)
        return (
            Claim(
                "c mostly unchanged",
                "The cell state flows along the sequence mostly unchanged.",
                f"the median unit keeps at least {UNCHANGED:g} of c at each step: geometric mean of its forget gate",
                {"median forget gate": kept, "cosine of c and the c before": self.c.cosine},
                kept >= UNCHANGED,
            ),
            Claim(
                "c long-term",
                "The cell state is long-term memory.",
                f"of a small change of c, at least {THRESHOLD:.0%} is left after {LONG} steps",
                {"horizon of c": long},
                long >= LONG,
            ),
            Claim(
                "h short-term",
                "The hidden state is short-term memory.",
                f"a small change of h falls to {THRESHOLD:.0%} in at most half as many steps as one of c",
                horizons,
                2 * of_h.horizon <= horizons["horizon of c"],
            ),
            Claim(
                "h more volatile",
                "The hidden state is more volatile than the cell state.",
                "the autocorrelation of h falls below 1/e in at most nine tenths of the time of that of c",
                times,
                times["time of h"] < np.inf and times["time of h"] <= SOONER * times["time of c"],
            ),
            Claim(
                "h recomputed",
                "The hidden state is fully recomputed at every step.",
                f"from one step to the next, the median unit's autocorrelation of h is within ±{RECOMPUTED:g}",
                {"autocorrelation of h at lag 1": next_step},
                abs(next_step) < RECOMPUTED,
            ),
            Claim(
                "stored unexposed",
                "The cell stores information without exposing it.",
                f"of the median unit's variation of c, o ⊙ tanh(c) shows less than {HIDDEN:.0%}",
                {"median share shown": shown},
                shown < HIDDEN,
            ),
        )


def cell_hidden(
    layer: Recurrent, trace: Trace, *, rng: Rng, layer_index: int = -1, max_lag: int | None = None
) -> CellHidden:
    """Measure how long the cell state and the hidden state of an LSTM last, on the data that `trace` was made from.

    Two backward passes. A trace that begins at the zero state has a transient in it, which likens c to itself: begin
    with the state after some text, or take long sequences.

    Parameters
    ----------
    layer : LSTM
        In one direction.
    trace : Trace
        From this layer's `forward`; at least one sequence of two steps.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator
        Draws the directions u: of c (B, H), then of h (B, P).
    layer_index : int
        Which layer of a stack, from 0; the last when absent.
    max_lag : int, optional
        Of the autocorrelation; see there.

    Returns
    -------
    CellHidden

    Raises
    ------
    ValueError
        An RNN, which has no cell state; a bidirectional layer; no sequence of two steps; states that are not finite; a
        number out of range.
    TypeError
        Not a layer, or not a trace.

    References
    ----------
    Hochreiter, Schmidhuber, Long short-term memory, 1997. Tallec, Ollivier, Can recurrent neural networks warp time?,
    arXiv:1804.11188, 2018 (1/(1 - f)).

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 8, rng=rng)
    >>> found = cell_hidden(lstm, lstm.forward(rng.standard_normal((200, 4, 3), np.float32)), rng=rng)
    >>> [claim.holds for claim in found.claims() if claim.name == "c mostly unchanged"]
    [False]
    """
    check_one_direction(layer)
    if not layer.cell.has_c:
        raise ValueError("layer: expected an LSTM; got an RNN, which has no cell state")
    layer._check_trace(trace, Trace)
    count = layer.num_layers
    n = check_int("layer_index", layer_index, least=-count, most=count - 1) % count
    source = check_rng("rng", rng)
    part, lengths = trace[n], trace.lengths
    if not len(lengths) or lengths.max() < 2:
        raise ValueError("trace: expected a sequence of at least two steps; got none")
    finite = np.isfinite(part.h).all(axis=(1, 2)) & np.isfinite(part.c).all(axis=(1, 2))
    if not finite.all():
        raise ValueError(
            f"trace: expected finite states; got nan or inf in slot {int(np.argmin(finite))} of layer {n} "
            "(scratchrnn.dynamics.first_nonfinite says where it began)"
        )

    u_c, u_h = (_directions(source, states[0]) for states in (part.c, part.h))
    through_c, through_h = _gradient(layer, trace, n, "c", u_c).c, _gradient(layer, trace, n, "h", u_h).h
    all_gates = part.gates  # taken once: a minimal trace computes them at each access
    f_back = _back_through_gates(np.split(all_gates, 4, axis=2)[1], u_c, lengths)
    steps = np.arange(len(part.input))[:, None] < lengths  # (T, B)
    i, f, g, o = np.split(all_gates[steps].astype(np.float64), 4, axis=1)  # (N, H), N steps that are no padding
    c_prev, c = part.c[:-1][steps].astype(np.float64), part.c[1:][steps].astype(np.float64)
    with np.errstate(all="ignore"):
        gates_gradient = average_norms(f_back, lengths, np.median)
        forget = np.exp(np.log(f).mean(axis=0))
        old, new = np.abs(f * c_prev).sum(axis=0), np.abs(i * g).sum(axis=0)
        return CellHidden(
            c=_memory(part.c, through_c, lengths, max_lag),
            h=_memory(part.h, through_h, lengths, max_lag),
            gates_gradient=gates_gradient,
            gates_decay=measure_decay(gates_gradient, threshold=THRESHOLD, dtype=layer.dtype),
            forget=forget,
            forget_time=1 / (1 - forget),
            output=o.mean(axis=0),
            carried=old / (old + new),
            correlation=_correlation(c, o * np.tanh(c)),
        )


def _directions(rng: Rng, like: FloatArray) -> FloatArray:
    """A random unit vector for each row of `like` (B, ·)."""
    u = draw_normal(rng, 0.0, 1.0, like.shape, like.dtype)
    return u / np.linalg.norm(u, axis=1, keepdims=True)


def _gradient(layer: Recurrent, trace: Trace, n: int, letter: str, u: FloatArray) -> LayerGradients:
    """Gradient of ⟨u, s_n⟩, s the h or c of layer n at each sequence's own end."""
    d_state = {name: np.zeros_like(array) for name, array in zip("hc", trace.state, strict=True)}
    d_state[letter][n] = u if trace.batched else u[0]
    return layer.backward(trace, d_state=(d_state["h"], d_state["c"]))[n]


def _back_through_gates(
    f: FloatArray,  # (T, B, H)
    u: FloatArray,  # (B, H)
    lengths: IntArray,  # (B,)
) -> FloatArray:  # (T, B, H)
    """u ⊙ f_n ⊙ ... ⊙ f_{t+1} after each step t, zero on padding."""
    back = np.zeros_like(f)
    d = u
    for t in reversed(range(len(f))):
        running = (t < lengths)[:, None]
        back[t] = np.where(running, d, 0)
        d = np.where(running, f[t] * d, d)
    return back


def _memory(
    states: FloatArray,  # (T+1, B, ·)
    d: FloatArray,  # (T+1, B, ·)
    lengths: IntArray,  # (B,)
    max_lag: int | None,
) -> StateMemory:
    gradient = average_norms(d[1:], lengths, np.median)
    decay = measure_decay(gradient, threshold=THRESHOLD, dtype=states.dtype)
    return StateMemory(autocorrelation(states[1:], lengths, max_lag=max_lag), gradient, decay, _cosine(states, lengths))


def _cosine(states: FloatArray, lengths: IntArray) -> float:
    """Median cosine of the states before and after each step but the first of each sequence."""
    later = np.arange(1, len(states) - 1)[:, None] < lengths  # (T-1, B), of steps 1, 2, ...
    old, new = states[1:-1][later].astype(np.float64), states[2:][later].astype(np.float64)
    cosine = (old * new).sum(axis=1) / (row_norms(old) * row_norms(new))
    return _median(cosine)


@np.errstate(all="ignore")
def _correlation(a: FloatArray, b: FloatArray) -> FloatArray:  # (N, H) both, to (H,)
    constant = (np.ptp(a, axis=0) == 0) | (np.ptp(b, axis=0) == 0)
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return np.where(constant, np.nan, (a * b).sum(axis=0) / (row_norms(a.T) * row_norms(b.T)))


def _median(values: FloatArray) -> float:
    """Over what is not NaN; NaN where nothing else is there."""
    known = values[~np.isnan(values)]
    return float(np.median(known)) if len(known) else float("nan")
