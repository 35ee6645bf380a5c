"""What truncation costs, measured: the angle between truncated and full gradient of a character model, by k2.

    python benchmarks/truncation.py --out figure.png

Trains an RNN and an LSTM, and measures both before and after, in about a minute. One row for each model, state of
training and k2 goes to standard output. The text is Python's own help texts; the gradient is that of the last tenth,
which is held out, over windows of 512 characters in 16 rows.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import scratchrnn as srnn
from scratchrnn import bptt, data, plots
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.optim import Adam, clip_grad_norm_

HIDDEN, EMBEDDING, BATCH, WINDOW = 128, 64, 32, 64
STEPS, ROWS = 512, 16
REACH = tuple(2**n for n in range(10))


def train(model: CharModel, codes: np.ndarray, updates: int) -> None:
    """Truncated BPTT as a loop of one's own: windows, an update after each."""
    rows = data.ContiguousRows(codes, batch=BATCH)
    optimizer = Adam(model.parameters, lr=1e-2)
    done = 0
    while done < updates:
        kept: dict[str, Any] = {}

        def embed(start: int, stop: int, kept: dict[str, Any] = kept) -> np.ndarray:
            kept["embedding"] = model.embedding.forward(rows.inputs[start:stop])
            return kept["embedding"].output

        def slope(output: np.ndarray, first: int, kept: dict[str, Any] = kept) -> np.ndarray:
            trace = model.decoder.forward(output)
            kept["loss"], d_logits = cross_entropy(trace.output, rows.targets[first : first + len(output)])
            kept["decoder"] = model.decoder.backward(trace, d_logits)
            return kept["decoder"].input

        for window in bptt.windows(model.rnn, embed, slope, k1=WINDOW, k2=WINDOW, steps=rows.steps):
            parts = {
                "embedding": model.embedding.backward(kept["embedding"], window.gradients.input),
                "rnn": window.gradients,
                "decoder": kept["decoder"],
            }
            gradients = {f"{part}.{name}": g for part, one in parts.items() for name, g in one.parameters.items()}
            clip_grad_norm_(gradients, 1.0)
            optimizer.lr = 1e-2 * (1 - 0.9 * done / updates)
            optimizer.step(gradients)
            done += 1
            if done == updates:
                return


def measure(model: CharModel, codes: np.ndarray) -> bptt.TruncationBias:
    """On text that the model has not seen."""
    length = STEPS + 1
    starts = np.linspace(0, len(codes) - length, ROWS).astype(int)
    read = codes[starts + np.arange(length)[:, None]]  # (STEPS + 1, ROWS)

    def slope(output: np.ndarray, first: int) -> np.ndarray:
        trace = model.decoder.forward(output)
        return model.decoder.backward(trace, cross_entropy(trace.output, read[1:])[1]).input

    return bptt.truncation_bias(model.rnn, model.embedding(read[:-1]), slope, k2=REACH)


def main() -> None:
    """Measure, print rows, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="PNG to draw into")
    parser.add_argument("--updates", type=int, default=1200)
    options = parser.parse_args()
    text = data.default_text()
    vocabulary = data.Vocabulary(text)
    training, held_out = data.split(vocabulary.encode(text))
    found = {}
    for cell in ("rnn", "lstm"):
        rng = np.random.default_rng(0)
        model = CharModel(vocabulary.characters, cell, HIDDEN, EMBEDDING, dtype=np.float64, rng=rng)
        for state, updates in (("untrained", 0), ("trained", options.updates)):
            train(model, training, updates) if updates else None
            bias = found[f"{cell.upper()}, {state}"] = measure(model, held_out)
            for k2, cosine, ratio in zip(bias.k2, bias.cosine, bias.norm_ratio, strict=True):
                row = {"cell": cell, "state": state, "k2": int(k2), "cosine": cosine, "norm_ratio": ratio}
                print(json.dumps(row | {"scratchrnn": srnn.__version__}))
    if options.out:
        figure, axes = plots.figure(7, 4)
        plots.truncation_bias(axes, found)
        figure.savefig(options.out, dpi=200)


if __name__ == "__main__":
    main()
