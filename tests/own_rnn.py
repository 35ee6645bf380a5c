"""A small LSTM of a user's own, in NumPy, with mistakes to switch on: nothing in it is shared with the package.

`bugs` holds words; the code asks for them where the mistake would be made. The backward pass reads the states that the
mistaken forward pass made, and is otherwise written for a right one, as by hand; words that begin with "backward" are
mistakes in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Array = Any


def sigmoid(a: Array) -> Array:
    return 1 / (1 + np.exp(-a))


class Own:
    """forward(x, h_0, c_0, ...) and backward(..., d_output, d_h_n, d_c_n) with the mistakes named in `bugs`."""

    def __init__(self, *bugs: str, order: str = "ifgo", k: int = 3) -> None:
        self.bugs, self.order, self.k = set(bugs), order, k
        self.kept: Array = None

    def has(self, bug: str) -> bool:
        return bug in self.bugs

    def steps(self, x: Array, h: Array, c: Array, wi: Array, wh: Array, bi: Array, bh: Array) -> list[dict[str, Array]]:
        if self.has("state kept"):
            h = h if self.kept is None or self.kept.shape != h.shape else self.kept
        if self.has("h_0 ignored"):
            h = np.zeros_like(h)
        if self.has("c_0 ignored"):
            c = np.zeros_like(c)
        if self.has("h_0 and c_0 swapped"):
            h, c = c, h
        size = h.shape[1]
        b = bi * (1 + self.has("bias_ih twice")) * (not self.has("no bias_ih"))
        b = b + bh * (not self.has("no bias_hh"))
        if self.has("bias_ih for bias_hh"):
            b = bi + bi
        if self.has("forget bias"):
            b = b + np.repeat(np.array([gate == "f" for gate in self.order], x.dtype), size)
        if self.has("transposed W_hh"):
            wh = np.concatenate([w.T for w in np.split(wh, 4)])
        if self.has("transposed W_ih"):
            wi = np.concatenate([w.T for w in np.split(wi, 4)])
        trace = []
        start = h, c
        for x_t in x[::-1] if self.has("reversed") else x:
            h_in, c_in = start if self.has("state not carried") else (h, c)
            a = x_t @ wi.T + h_in @ wh.T + b
            pre = dict(zip(self.order, np.split(a, 4, axis=1), strict=True))
            phi = {"i": sigmoid, "f": sigmoid, "g": np.tanh, "o": sigmoid}
            if self.has("hard sigmoid"):
                phi |= dict.fromkeys("ifo", lambda v: np.clip(0.2 * v + 0.5, 0, 1))
            if self.has("sigmoid on g"):
                phi["g"] = sigmoid
            if self.has("relu on g"):
                phi["g"] = lambda v: np.maximum(v, 0)
            if self.has("tanh on o"):
                phi["o"] = np.tanh
            g = {name: phi[name](pre[name]) for name in "ifgo"}
            c = g["f"] * c_in + g["i"] * g["g"]
            h = g["o"] * (c if self.has("no tanh") else np.tanh(c))
            trace.append({**g, "c": c, "h": h, "h_in": h_in, "c_in": c_in, "x": x_t})
        self.kept = h
        return trace

    def forward(self, x: Array, *rest: Array) -> dict[str, Array]:
        trace = self.steps(x, *rest)
        out = {name: np.stack([s[name] for s in trace]) for name in "hcifgo"}
        h, c = out.pop("h"), out["c"]
        result = {"output": h, "h_n": h[-1], "c_n": c[-1], **out}
        if self.has("reversed"):
            result |= {k: v[::-1] for k, v in result.items() if v.ndim == 3}
        if self.has("shifted output"):
            result["output"] = np.concatenate([rest[0][None], h[:-1]])
        if self.has("sample 0 in all"):
            result = {k: np.broadcast_to(v[..., :1, :], v.shape) for k, v in result.items()}
        if self.has("row 0 only"):
            result = {k: v * (np.arange(v.shape[-2]) == 0)[:, None] for k, v in result.items()}
        if self.has("row 0 right, others noise"):
            result = {
                k: np.where((np.arange(v.shape[-2]) == 0)[:, None], v, v[..., :1, :] * 0.9) for k, v in result.items()
            }
        if self.has("bfloat16"):
            result = {k: _rounded(v, 16) for k, v in result.items()}
        if self.has("TF32"):
            result = {k: _rounded(v, 13) for k, v in result.items()}
        if self.has("float32"):
            result = {k: v.astype(np.float32) for k, v in result.items()}
        if self.has("float32 inside"):
            result = {k: v.astype(np.float32).astype(x.dtype) for k, v in result.items()}
        return result

    def backward(self, x: Array, h_0: Array, c_0: Array, wi: Array, wh: Array, bi: Array, bh: Array,
                 d_output: Array, d_h_n: Array, d_c_n: Array) -> dict[str, Array]:  # fmt: skip
        trace = self.steps(x, h_0, c_0, wi, wh, bi, bh)
        last, wh_back = len(x) - 1, wh
        if self.has("backward: transposed W_hh"):
            wh_back = np.concatenate([w.T for w in np.split(wh, 4)])
        dh = d_h_n * (not self.has("backward: d_h_n dropped"))
        dc = d_c_n * (not self.has("backward: d_c_n dropped"))
        if self.has("backward: sample 0"):
            first = (np.arange(len(h_0)) == 0)[:, None]
            d_output, dh, dc = d_output * first, dh * first, dc * first
        grads = {name: np.zeros_like(w) for name, w in (("dweight_ih", wi), ("dweight_hh", wh), ("dbias_ih", bi))}
        dx = np.zeros_like(x)
        for t in reversed(range(len(x))):
            s = trace[t]
            if self.has("backward: last step only") and t < last:
                dh, dc = 0 * dh, 0 * dc
                d_t = 0 * dh
            elif self.has("backward: d_output dropped") or (
                self.has("backward: d_output at the end only") and t < last
            ):
                d_t = 0 * dh
            else:
                d_t = d_output[t]
            if self.has("backward: windows") and t < last and (t + 1) % self.k == 0:
                dh, dc = 0 * dh, 0 * dc
            if self.has("backward: no BPTT") and t < last:
                dh, dc = 0 * dh, 0 * dc
            dh = dh + d_t
            tanh_c = np.tanh(s["c"])
            slope = 1 - s["c"] ** 2 if self.has("backward: 1 - c²") else 1 - tanh_c**2
            if self.has("backward: tanh' of tanh(c)"):
                slope = 1 - np.tanh(tanh_c) ** 2
            dc = dc + dh * s["o"] * slope
            c_in = s["c" if self.has("backward: f with c_t") else "c_in"]
            d = {"i": dc * s["g"], "f": dc * c_in, "g": dc * s["i"], "o": dh * tanh_c}
            a = {n: d[n] * s[n] * (1 - s[n]) for n in "ifo"} | {"g": d["g"] * (1 - s["g"] ** 2)}
            if self.has("backward: g' missing"):
                a["g"] = d["g"]
            if self.has("backward: f' of y"):  # one derivative function for values, given to another for arguments
                a |= {n: d[n] * sigmoid(s[n]) * (1 - sigmoid(s[n])) for n in "ifo"}
            if self.has("backward: g' of y"):
                a["g"] = d["g"] * (1 - np.tanh(s["g"]) ** 2)
            if self.has("backward: slopes of a"):
                logit = {n: np.log(s[n] / (1 - s[n])) for n in "ifo"}
                a = {n: d[n] * logit[n] * (1 - logit[n]) for n in "ifo"}
                a["g"] = d["g"] * (1 - np.arctanh(s["g"]) ** 2)
            da = np.concatenate([a[n] for n in self.order], axis=1)
            dx[t] = da @ wi
            add = {"dweight_ih": da.T @ s["x"], "dweight_hh": da.T @ s["h_in"], "dbias_ih": da.sum(0)}
            if self.has("backward: W_hh from h_t"):
                add["dweight_hh"] = da.T @ s["h"]
            for name, value in add.items():
                grads[name] = value if self.has("backward: overwritten") else grads[name] + value
            dh, dc = da @ wh_back, dc * s["f"]
        result = {"dx": dx, "dh_0": dh, "dc_0": dc, **grads, "dbias_hh": grads["dbias_ih"].copy()}
        batch, steps = x.shape[1], x.shape[0]
        weights = [k for k in result if k.startswith(("dw", "db"))]
        if self.has("backward: mean over batch"):
            result |= {k: result[k] / batch for k in weights}
        if self.has("backward: mean over time"):
            result |= {k: result[k] / steps for k in weights}
        if self.has("backward: sign"):
            result = {k: -v for k, v in result.items()}
        if self.has("backward: zeros"):
            result = {k: np.zeros_like(v) for k, v in result.items()}
        return result


def _rounded(v: Array, bits: int) -> Array:
    """float32 with its last bits rounded away."""
    as_int = np.ascontiguousarray(v, np.float32).view(np.uint32).astype(np.uint64) + (1 << (bits - 1))
    return ((as_int >> bits) << bits).astype(np.uint32).view(np.float32).astype(v.dtype)
