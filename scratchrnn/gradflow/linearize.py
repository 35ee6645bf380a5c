"""Every step of a recurrent net, linearised where it was taken: Jacobians in closed form, and products with them.

    B batch   T time   I input   H hidden   P size of h (H without a projection)   L layers   K directions at once
    s = (h⁰, c⁰, h¹, c¹, ...)   state of the whole stack, (B, S); an RNN has no c
    s_t = F(x_t, s_{t-1})       one step of all layers, layer n reading u = h_t of layer n-1 (x_t the first one)

One layer of an LSTM (equations (1) to (5) of kernels/numpy/lstm.py), with τ = tanh(c_t) and D(v) = diag(v):

    α_i = g i(1-i)   α_f = c_{t-1} f(1-f)   α_g = i(1-g²)   α_o = τ o(1-o)   β = o(1-τ²)
    C(W) = D(α_i) W_i + D(α_f) W_f + D(α_g) W_g        how c_t follows what comes through the weights W
    ∂c_t/∂h_{t-1} = C(W_hh)                            ∂c_t/∂c_{t-1} = D(f)                            (6)
    ∂m_t/∂h_{t-1} = D(α_o) W_hh,o + D(β) C(W_hh)       ∂m_t/∂c_{t-1} = D(β f)                          (7)
    ∂h_t = W_hr ∂m_t  with a projection, else ∂m_t; with respect to u the same with W_ih               (8)

and of an RNN ∂h_t/∂h_{t-1} = D(φ') W_hh, with φ' = 1-h² for tanh, 1 or 0 for relu (0 at 0, as in torch). In a stack the
state of layer n depends on that of every layer below at the step before, through u: the blocks left of the diagonal.

J_t is taken at (x_t, s_{t-1}), so that ∂s_t/∂s_{t-k} = J_t J_{t-1} ... J_{t-k+1}. Beyond a sequence's end a step is the
identity, so that a product to the last slot is one to the sequence's own end.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, describe, take_array
from scratchrnn.gradflow.distance import check_one_direction
from scratchrnn.layers.stack import Recurrent
from scratchrnn.layers.zoneout import ZoneoutTrace
from scratchrnn.trace import State, Trace

Part = tuple[int, str]  # layer from 0, "h" or "c"


class _Rates(NamedTuple):
    """How one layer's step answers small changes, at one time: factors per sample and unit, (B, H) each."""

    a: FloatArray  # (B, 4H) α_i, α_f, α_g, α_o; (B, H) φ' of an RNN
    f: FloatArray | None = None  # of an LSTM
    beta: FloatArray | None = None  # of an LSTM


class Linearized:
    """The steps of a trace as linear maps, each at the state and input that it was taken at.

    Parameters
    ----------
    trace : Trace
        From the forward pass of an RNN or LSTM of one direction, of a cell, or of WeightDrop around a layer; its own
        weights, dropped ones included, and its dropout masks are used.

    Attributes
    ----------
    steps, batch : int
        T and B.
    size, input_size : int
        S and I.
    slices : dict of (layer, "h" or "c") to slice
        Where each layer's states lie within s.
    output : slice
        Where the last layer's h lies.
    lengths : ndarray (B,) of int
    dtype : dtype
        Of the trace. Vectors of the other precision may be given; results then have the wider one.

    Raises
    ------
    TypeError
        Not a trace, or Zoneout's: what a unit kept comes to the next state past these equations.
    ValueError
        A trace of both directions: the reverse one takes its steps in another order.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> lstm = srnn.LSTM(3, 4, num_layers=2, dtype=np.float64, rng=rng)
    >>> linear = Linearized(lstm.forward(rng.standard_normal((10, 5, 3))))
    >>> linear.size, linear.slices[1, "c"], linear.state_jacobian(7).shape
    (16, slice(12, 16, None), (5, 16, 16))
    >>> v = rng.standard_normal((5, 16, 2))
    >>> np.allclose(linear.jvp(7, v), linear.state_jacobian(7) @ v)
    True
    """

    def __init__(self, trace: Trace) -> None:
        if not isinstance(trace, Trace):
            raise TypeError(f"trace: expected what forward of an RNN or LSTM returned; got {describe(trace)}")
        if isinstance(trace, ZoneoutTrace):
            raise TypeError(
                "trace: expected what forward of an RNN or LSTM returned; got Zoneout's, where units keep old values "
                "past these equations"
            )
        if any(direction == "reverse" for _, direction in trace.layers):
            raise ValueError(
                "trace: expected one direction; got both. The reverse one takes its steps in another order, so that "
                "no step maps the state of both"
            )
        self._layers = [trace[n] for n in range(len(trace.layers))]
        self._weights = [_LayerWeights.of(trace, n) for n in range(len(self._layers))]
        self._masks = [None, *trace.dropout_masks]  # on the input of each layer but the first
        self._relu = trace.cell == "rnn_relu"
        self._gates: dict[int, FloatArray] = {}
        self.has_c = trace.cell == "lstm"
        self.lengths: IntArray = trace.lengths
        self.steps, self.batch, self.input_size = self._layers[0].input.shape
        self.dtype = self._layers[0].h.dtype
        hidden = [layer.c.shape[2] if self.has_c else 0 for layer in self._layers]
        self.slices = state_slices([layer.h.shape[2] for layer in self._layers], hidden if self.has_c else None)
        self.size = max(part.stop for part in self.slices.values())
        self.output = self.slices[len(self._layers) - 1, "h"]

    def __repr__(self) -> str:
        return f"Linearized(T={self.steps}, B={self.batch}, S={self.size}, {self.dtype.name})"

    def states(self, slot: int) -> FloatArray:
        """s (B, S) in a slot: 0 is the initial state, t+1 the one after step t; beyond a sequence's end, its last."""
        at = np.minimum(check_int("slot", slot, least=0, most=self.steps), self.lengths), np.arange(self.batch)
        parts = [array[at] for layer in self._layers for array in ((layer.h, layer.c) if self.has_c else (layer.h,))]
        return np.concatenate(parts, axis=1)

    # Products with vectors; no Jacobian is formed

    @np.errstate(all="ignore")  # inf and nan in data pass through
    def jvp(
        self,
        t: int,
        ds: FloatArray,  # (B, S, K)
        dx: FloatArray | None = None,  # (B, I, K)
    ) -> FloatArray:  # (B, S, K)
        """Carry K small changes of the state through step t, and with `dx` K changes of x_t beside them.

        Parameters
        ----------
        t : int
            From 0; it leads from slot t to slot t+1.
        ds : ndarray (B, S, K)
            Changes of s in slot t.
        dx : ndarray (B, I, K), optional
            Changes of x_t; none when absent.

        Returns
        -------
        ndarray (B, S, K)
            J_t ds + (∂s_t/∂x_t) dx, the changes in slot t+1.
        """
        ds = self._check(t, "ds", ds, (self.batch, self.size, None))
        if dx is not None:
            dx = self._check(t, "dx", dx, (self.batch, self.input_size, ds.shape[2]))
        out = np.empty(ds.shape, np.result_type(ds, self.dtype, *([] if dx is None else [dx])))
        du = dx
        for n, w in enumerate(self._weights):
            h, rates = self.slices[n, "h"], self._rates(n, t)
            da = w.hh @ ds[:, h]  # (B, G·H, K)
            if du is not None:
                da = da + w.ih @ self._masked(n, t, du)
            da = da * _column(rates.a)
            if rates.f is None or rates.beta is None:
                out[:, h] = da
            else:
                d_i, d_f, d_g, d_o = np.split(da, 4, axis=1)
                dc = _column(rates.f) * ds[:, self.slices[n, "c"]] + d_i + d_f + d_g  # (6)
                dm = d_o + _column(rates.beta) * dc  # (7)
                out[:, self.slices[n, "c"]] = dc
                out[:, h] = dm if w.hr is None else w.hr @ dm  # (8)
            du = out[:, h]
        over = self._over(t)
        out[over] = ds[over]
        return out

    @np.errstate(all="ignore")
    def vjp(
        self,
        t: int,
        g: FloatArray,  # (B, K, S)
    ) -> tuple[FloatArray, FloatArray]:  # (B, K, S), (B, K, I)
        """Carry K gradients back through step t: (g J_t, g ∂s_t/∂x_t), with respect to slot t and to x_t.

        Each row of `g` holds derivatives with respect to the components of s in slot t+1, taken as independent.
        """
        g = self._check(t, "g", g, (self.batch, None, self.size))
        back = np.empty(g.shape, np.result_type(g, self.dtype))
        du: FloatArray | None = None  # with respect to what the layer above has read
        for n, w in reversed(list(enumerate(self._weights))):
            h, rates = self.slices[n, "h"], self._rates(n, t)
            dh = g[..., h] if du is None else g[..., h] + du
            if rates.f is None or rates.beta is None:
                da = dh * _row(rates.a)  # (B, K, H)
            else:
                dm = dh if w.hr is None else dh @ w.hr  # undoes (8)
                dc = g[..., self.slices[n, "c"]] + dm * _row(rates.beta)  # undoes (7), in c
                back[..., self.slices[n, "c"]] = dc * _row(rates.f)  # undoes (6), in c_{t-1}
                da = np.concatenate([dc, dc, dc, dm], axis=2) * _row(rates.a)  # undoes (6) and (7)
            back[..., h] = _rows_times(da, w.hh)
            du = _rows_times(da, w.ih)
            mask = self._masks[n]
            du = du if mask is None else du * mask[t][:, None]
        dx = np.empty((0, 0, 0), self.dtype) if du is None else du
        over = self._over(t)
        back[over], dx[over] = g[over], 0
        return back, dx

    # In closed form

    @np.errstate(all="ignore")
    def state_jacobian(self, t: int) -> FloatArray:
        """J_t = ∂s_t/∂s_{t-1}, (B, S, S): row i holds the derivatives of component i in slot t+1."""
        check_int("t", t, least=0, most=self.steps - 1)
        state = np.zeros((self.batch, self.size, self.size), self.dtype)
        for n, w in enumerate(self._weights):
            own, rates = self._own(n), self._rates(n, t)
            state[:, own, own] = _answer(rates, w.hr, w.hh, own_c=True)
            if n > 0:
                du = state[:, self.slices[n - 1, "h"], : own.start]
                state[:, own, : own.start] = _answer(rates, w.hr, w.ih) @ self._masked(n, t, du)
        state[self._over(t)] = np.eye(self.size, dtype=self.dtype)
        return state

    @np.errstate(all="ignore")
    def input_jacobian(self, t: int) -> FloatArray:
        """∂s_t/∂x_t, (B, S, I)."""
        check_int("t", t, least=0, most=self.steps - 1)
        inputs = np.empty((self.batch, self.size, self.input_size), self.dtype)
        for n, w in enumerate(self._weights):
            to_u = _answer(self._rates(n, t), w.hr, w.ih)  # (B, P+H, ·)
            inputs[:, self._own(n)] = to_u if n == 0 else to_u @ self._masked(n, t, inputs[:, self.slices[n - 1, "h"]])
        inputs[self._over(t)] = 0
        return inputs

    # One layer at one time

    def _own(self, n: int) -> slice:
        """Where layer n's h and c lie."""
        return slice(self.slices[n, "h"].start, self.slices[n, "c" if self.has_c else "h"].stop)

    def _rates(self, n: int, t: int) -> _Rates:
        layer = self._layers[n]
        if not self.has_c:
            h = layer.h[t + 1]
            return _Rates((h > 0).astype(h.dtype) if self._relu else 1 - h**2)
        if n not in self._gates:
            self._gates[n] = layer.gates  # once: a minimal trace computes them at each access
        i, f, g, o = np.split(self._gates[n][t], 4, axis=1)
        tanh_c = np.tanh(layer.c[t + 1])
        a = [g * i * (1 - i), layer.c[t] * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)]
        return _Rates(np.concatenate(a, axis=1), f, o * (1 - tanh_c**2))

    def _masked(self, n: int, t: int, du: FloatArray) -> FloatArray:
        """Changes (B, ·, K) of what the layer below gives, as layer n reads them."""
        mask = self._masks[n]
        return du if mask is None else du * mask[t][:, :, None]

    def _over(self, t: int) -> IntArray:
        """Samples that have no step t."""
        return np.flatnonzero(self.lengths <= t)

    def _check(self, t: int, name: str, value: Any, shape: tuple[int | None, ...]) -> FloatArray:
        check_int("t", t, least=0, most=self.steps - 1)
        value = take_array(name, value)
        if value.ndim != 3 or any(want not in (None, got) for want, got in zip(shape, value.shape, strict=True)):
            wanted = ", ".join("K" if n is None else str(n) for n in shape)
            raise ValueError(f"{name}: expected shape ({wanted}); got {value.shape}")
        return value


class _LayerWeights(NamedTuple):
    ih: FloatArray  # (G·H, I or P)
    hh: FloatArray  # (G·H, P)
    hr: FloatArray | None  # (P, H)

    @classmethod
    def of(cls, trace: Trace, n: int) -> _LayerWeights:
        p = trace.parameters
        suffix = "" if "weight_ih" in p else f"_l{n}"  # a cell's have none
        return cls(p["weight_ih" + suffix], p["weight_hh" + suffix], p.get("weight_hr" + suffix))


def _column(factor: FloatArray) -> FloatArray:
    """(B, H) as a factor of (B, H, K)."""
    return factor[:, :, None]


def _row(factor: FloatArray) -> FloatArray:
    """(B, H) as a factor of (B, K, H)."""
    return factor[:, None]


def _rows_times(rows: FloatArray, weight: FloatArray) -> FloatArray:
    """(B, K, R) by (R, C): one product, not B of them."""
    batch, count, _ = rows.shape
    return (rows.reshape(batch * count, rows.shape[2]) @ weight).reshape(batch, count, weight.shape[1])


def _answer(rates: _Rates, hr: FloatArray | None, w: FloatArray, *, own_c: bool = False) -> FloatArray:
    """Jacobian (B, P+H, ·) of one layer's (h_t, c_t) in what comes through the weights `w` (G·H, ·).

    With `own_c` the columns of c_{t-1} stand beside: (6) to (8) in full.
    """
    through = _column(rates.a) * w  # (B, G·H, ·)
    if rates.f is None or rates.beta is None:
        return through
    t_i, t_f, t_g, t_o = np.split(through, 4, axis=1)
    dc = t_i + t_f + t_g  # C(W)
    if own_c:
        eye = np.eye(rates.f.shape[1], dtype=rates.f.dtype)
        dc = np.concatenate([dc, _column(rates.f) * eye], axis=2)  # (6)
        t_o = np.concatenate([t_o, np.zeros_like(t_o, shape=(*t_o.shape[:2], len(eye)))], axis=2)
    dm = t_o + _column(rates.beta) * dc  # (7)
    return np.concatenate([dm if hr is None else hr @ dm, dc], axis=1)  # (8)


# States of a stack as one vector


def state_slices(h_sizes: list[int], c_sizes: list[int] | None) -> dict[Part, slice]:
    """Where each layer's h, and c if there are sizes for it, lie within s."""
    slices: dict[Part, slice] = {}
    start = 0
    for n, size in enumerate(h_sizes):
        for name, width in (("h", size), ("c", None if c_sizes is None else c_sizes[n])):
            if width is not None:
                slices[n, name] = slice(start, start := start + width)
    return slices


def flatten_state(state: State) -> FloatArray:
    """h_n (L, B, P), or (h_n, c_n) with c_n (L, B, H), as s (B, S)."""
    arrays = state if isinstance(state, tuple) else (state,)
    return np.concatenate([array[n] for n in range(len(arrays[0])) for array in arrays], axis=1)


def unflatten_state(layer: Recurrent, s: FloatArray) -> State:
    """s (B, S) as the state that `layer` takes: h (L, B, P), or (h, c) with c (L, B, H)."""
    slices = _slices_of(layer)
    size = max(part.stop for part in slices.values())
    s = take_array("s", s)
    if s.ndim != 2 or s.shape[1] != size:
        raise ValueError(f"s: expected shape (B, {size}), the states of all layers; got {s.shape}")
    h, *c = (
        np.stack([s[:, slices[n, name]] for n in range(layer.num_layers)])
        for name in ("hc" if layer.cell.has_c else "h")
    )
    return (h, c[0]) if c else h


def _slices_of(layer: Recurrent) -> dict[Part, slice]:
    check_one_direction(layer)
    layers = layer.num_layers
    return state_slices([layer.output_size] * layers, [layer.hidden_size] * layers if layer.cell.has_c else None)


def linearize_at(layer: Recurrent, x: FloatArray, s: FloatArray) -> Linearized:
    """Linearise one step at B points of the state space, whether or not the net ever gets there.

    Parameters
    ----------
    layer : RNN or LSTM
        Of one direction. Dropout between layers does not act.
    x : ndarray (B, I)
    s : ndarray (B, S)
        Points; see `flatten_state`. Of the layer's dtype, as x.

    Returns
    -------
    Linearized
        Of T = 1 step: `states(1)` is F(x, s).
    """
    s = take_array("s", s)
    state = unflatten_state(layer, s)
    x = take_array("x", x, shape=(len(s), layer.input_size), dtype=layer.dtype, why="one input for each point")
    return Linearized(layer.forward(x[:, None] if layer.batch_first else x[None], state, training=False))


def step(layer: Recurrent, x: FloatArray, s: FloatArray) -> FloatArray:
    """One step of all layers: F(x, s) (B, S) of x (B, I) and s (B, S), without dropout."""
    s = take_array("s", s)
    state = unflatten_state(layer, s)
    x = take_array("x", x, shape=(len(s), layer.input_size), dtype=layer.dtype, why="one input for each point")
    return flatten_state(layer(x[:, None] if layer.batch_first else x[None], state)[1])


def float64_copy(layer: Recurrent) -> Recurrent:
    """A copy of the layer that computes in float64, with the original's weights to the last bit and without dropout."""
    check_one_direction(layer)
    rng = np.random.default_rng(0)  # not the layer's own, which must not move; what it draws is overwritten
    copy: Recurrent = type(layer)(
        **(layer.config() | {"dtype": np.float64, "dropout": 0.0}), backend=layer.backend, rng=rng
    )
    copy.load_state_dict({name: array.astype(np.float64) for name, array in layer.parameters.items()})
    return copy
