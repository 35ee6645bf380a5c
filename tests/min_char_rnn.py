"""The recipe of min-char-rnn in plain NumPy, sharing nothing with scratchrnn: what the library must reproduce.

    h_t = tanh(W_xh x_t + W_hh h_{t-1} + b_h)      one-hot x_t
    y_t = W_hy h_t + b_y,  p_t = softmax(y_t),  loss = -Σ_t ln p_t[target_t]        over windows of T steps

    every gradient element clipped to [-5, 5];  m += g²,  w -= rate · g / √(m + 1e-8)       Adagrad
    h goes on from window to window as a constant; it is zero where the text begins again
    smooth = 0.999 smooth + 0.001 loss, from T ln V

Dimensions: T steps, H hidden units, V characters; batch 1.

Written anew from the description of the recipe, in float64.

References
----------
Karpathy, "The unreasonable effectiveness of recurrent neural networks", 2015, and the program min-char-rnn named there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

T, RATE, CLIP, EPS, KEEP = 25, 0.1, 5.0, 1e-8, 0.999
Weights = dict[str, Any]


def draw(V: int, H: int, rng: np.random.Generator) -> Weights:
    """The initial weights, 0.01 N(0, 1) in this order; biases are zero."""
    shapes = {"W_xh": (H, V), "W_hh": (H, H), "W_hy": (V, H)}
    drawn: Weights = {name: 0.01 * rng.standard_normal(shape) for name, shape in shapes.items()}
    return drawn | {"b_h": np.zeros(H), "b_y": np.zeros(V)}


def window(w: Weights, inputs: Any, targets: Any, h_0: Any) -> tuple[float, Weights, Any]:
    """Loss of a window, the gradient of every weight, and the last h."""
    steps = len(inputs)
    h, p = [h_0], []  # h[t + 1] follows step t
    loss = 0.0
    for t in range(steps):
        a = w["W_xh"][:, inputs[t]] + w["W_hh"] @ h[t] + w["b_h"]
        h.append(np.tanh(a))
        y = w["W_hy"] @ h[t + 1] + w["b_y"]
        e = np.exp(y - y.max())
        p.append(e / e.sum())
        loss -= np.log(p[t][targets[t]])

    g = {name: np.zeros_like(array) for name, array in w.items()}
    dh_next = np.zeros_like(h_0)
    for t in reversed(range(steps)):
        dy = p[t]
        dy[targets[t]] -= 1.0
        g["W_hy"] += np.outer(dy, h[t + 1])
        g["b_y"] += dy
        dh = w["W_hy"].T @ dy + dh_next
        da = (1.0 - h[t + 1] ** 2) * dh
        g["W_xh"][:, inputs[t]] += da
        g["W_hh"] += np.outer(da, h[t])
        g["b_h"] += da
        dh_next = w["W_hh"].T @ da
    for array in g.values():
        np.clip(array, -CLIP, CLIP, out=array)
    return loss, g, h[steps]


def update(w: Weights, memory: Weights, g: Weights) -> None:
    """Adagrad, in place."""
    for name, array in w.items():
        memory[name] += g[name] ** 2
        array -= RATE * g[name] / np.sqrt(memory[name] + EPS)


def train(codes: Any, w: Weights) -> Iterator[tuple[float, float]]:
    """Train `w` in place over the text again and again; yields each window's loss and the smooth loss after it."""
    V, H = w["W_hy"].shape
    memory = {name: np.zeros_like(array) for name, array in w.items()}
    smooth = T * np.log(V)
    begin, h = 0, np.zeros(H)
    while True:
        if begin + T + 1 >= len(codes):  # the program's own condition: the very last character is never a target
            begin, h = 0, np.zeros(H)
        loss, g, h = window(w, codes[begin : begin + T], codes[begin + 1 : begin + T + 1], h)
        smooth = KEEP * smooth + (1 - KEEP) * loss
        update(w, memory, g)
        begin += T
        yield loss, smooth
