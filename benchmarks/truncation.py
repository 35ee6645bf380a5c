"""What truncation costs, measured: the angle between truncated and full gradient of a character model, by k2.

    python benchmarks/truncation.py --figure figure.png

Trains an RNN and an LSTM, and measures both before and after, in about a minute. The text is Python's own help texts;
the gradient is that of the last tenth, which is held out, over windows of 512 characters in 16 rows.
"""

from __future__ import annotations

import argparse
from itertools import chain, count, islice
from pathlib import Path
from typing import Any

import numpy as np
import rows
import timing

from scratchrnn import bptt, data, plots
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.optim import Adam, clip_grad_norm_

RESULTS = Path(__file__).resolve().parent / "results"
HIDDEN, EMBEDDING, BATCH, WINDOW = 128, 64, 32, 64
STEPS, ROWS = 512, 16
REACH = tuple(2**n for n in range(10))


def train(model: CharModel, codes: np.ndarray, updates: int) -> None:
    """Truncated BPTT as a loop of one's own: windows, an update after each."""
    text = data.ContiguousRows(codes, batch=BATCH)
    optimizer = Adam(model.parameters, lr=1e-2)
    kept: dict[str, Any] = {}

    def embed(start: int, stop: int) -> np.ndarray:
        kept["embedding"] = model.embedding.forward(text.inputs[start:stop])
        return kept["embedding"].output

    def slope(output: np.ndarray, first: int) -> np.ndarray:
        trace = model.decoder.forward(output)
        _, d_logits = cross_entropy(trace.output, text.targets[first : first + len(output)])
        kept["decoder"] = model.decoder.backward(trace, d_logits)
        return kept["decoder"].input

    passes = (bptt.windows(model.rnn, embed, slope, k1=WINDOW, k2=WINDOW, steps=text.steps) for _ in count())
    for done, window in enumerate(islice(chain.from_iterable(passes), updates)):
        parts = {
            "embedding": model.embedding.backward(kept["embedding"], window.gradients.input),
            "rnn": window.gradients,
            "decoder": kept["decoder"],
        }
        gradients = {f"{part}.{name}": g for part, one in parts.items() for name, g in one.parameters.items()}
        clip_grad_norm_(gradients, 1.0)
        optimizer.lr = 1e-2 * (1 - 0.9 * done / updates)
        optimizer.step(gradients)


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
    """Measure, print, append rows, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=1200)
    parser.add_argument("--out", help="append the rows to benchmarks/results/OUT.jsonl")
    parser.add_argument("--figure", type=Path, help="PNG to draw into")
    options = parser.parse_args()
    text = data.default_text()
    vocabulary = data.Vocabulary(text)
    training, held_out = data.split(vocabulary.encode(text))
    found = {}
    for cell in ("rnn", "lstm"):
        rng = np.random.default_rng(0)
        model = CharModel(vocabulary.characters, cell, HIDDEN, EMBEDDING, dtype=np.float64, rng=rng)
        for state, updates in (("untrained", 0), ("trained", options.updates)):
            train(model, training, updates)
            bias = found[f"{cell.upper()}, {state}"] = measure(model, held_out)
            angles = "  ".join(f"{k2}: {angle:.1f}" for k2, angle in zip(bias.k2, bias.angle, strict=True))
            print(f"{cell:<5}{state:<10} degrees at k2 = {angles}")
            if options.out:
                row = {
                    "kind": "truncation", "cell": cell, "updates": updates, "T": STEPS, "B": ROWS, "H": HIDDEN,
                    "k2": bias.k2.tolist(), "cosine": bias.cosine.tolist(), "norm_ratio": bias.norm_ratio.tolist(),
                    "text": data.text_sha256(text), "run": timing.moment(), "commit": timing.commit(),
                    "machine": timing.machine(),
                }  # fmt: skip
                rows.append(RESULTS / f"{options.out}.jsonl", [row])
    if options.figure:
        figure, axes = plots.figure(7, 4)
        plots.truncation_bias(axes, found)
        figure.savefig(options.figure, dpi=200)


if __name__ == "__main__":
    main()
