"""Whose gradient is it? Split the gradient at every character by the loss that it comes from.

Trains a small LSTM for some seconds, itemises its gradient on a sentence that it has not read, and draws the map: row t
is the loss after reading character t, column k the state that it reaches back to.
"""

import numpy as np

from scratchrnn import plots
from scratchrnn.data import default_text
from scratchrnn.gradflow import itemized
from scratchrnn.losses import cross_entropy
from scratchrnn.train import Config, from_config

text = default_text()
start = text.index("The ", len(text) * 19 // 20)  # in the last tenth, which is held out
read = text[start : start + 61]


def items_of(model):
    """Split the gradient of the model's loss on the sentence."""
    codes = model.vocabulary.encode(read)[:, None]  # (T + 1, 1)
    trace = model.forward(codes[:-1])
    _, d_logits = cross_entropy(trace.logits, codes[1:], reduction="sum")
    d_output = model.decoder.backward(trace.decoder, d_logits).input
    return itemized(model.rnn, trace.rnn, d_output)


def tell(name, items):
    """Print how much of a state's gradient comes from near and far."""
    share = items.share_beyond()
    print(f"{name}: the loss at its own step makes {1 - share[0]:.0%} of a state's gradient, ", end="")
    print(f"losses more than 3 steps later {share[3]:.1%}, more than 10 steps later {share[10]:.2%}")


model, trainer = from_config(Config(hidden=64, batch=16, k1=50, steps=300, learning_rate=5e-3), text, progress=False)
tell("untrained", items_of(model))
trainer.run()
items = items_of(model)
tell("trained", items)

far = items.h[0, :, :, 0].copy()
far[np.arange(60)[:, None] < np.arange(60) + 5] = 0  # at least 5 steps between them
t, k = np.unravel_index(int(far.argmax()), far.shape)
print(f"strongest link over 5 steps or more: from {read[k]!r} to the loss after {read[k : t + 1]!r}")

with plots.style():
    figure, ax = plots.figure(8, 6.5)
    plots.itemized_map(ax, items, list(read[:-1]))
    figure.savefig("whose_gradient.png", dpi=150)
