"""min-char-rnn's recipe from scratchrnn's parts, beside the same recipe in plain NumPy: losses and time.

    python benchmarks/min_char_rnn.py                    # 2,000 windows of the default text, 1 thread
    python benchmarks/min_char_rnn.py --text my.txt --windows 20000 --out mine

Both train in one process on one thread, in alternating blocks of windows, from the same weights: float64 as the recipe
has it, and ours in float32 as well. docs/min-char-rnn.md says what stands for what.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import rows
import timing

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
T, H, RATE, CLIP, KEEP = 25, 100, 0.1, 5.0, 0.999
BLOCK = 100  # windows of one turn


class Net:
    """An RNN and a Linear that learn by the recipe.

    The recipe has one hidden bias where torch's layer has two: `bias_hh_l0` is zero, and since `parameters`, which the
    optimizer gets, does not hold it, it stays so.
    """

    def __init__(self, V: int, hidden: int = H, *, rng: np.random.Generator, dtype: Any = np.float64) -> None:
        import scratchrnn as srnn

        self.rnn = srnn.RNN(V, hidden, dtype=dtype, rng=rng.spawn(1)[0])  # drawn anew below, in the recipe's order
        self.decoder = srnn.Linear(hidden, V, dtype=dtype, rng=rng.spawn(1)[0])
        self.one_hot = np.eye(V, dtype=dtype)
        self.parameters = {
            "weight_ih_l0": self.rnn.parameters["weight_ih_l0"],  # W_xh (H, V)
            "weight_hh_l0": self.rnn.parameters["weight_hh_l0"],  # W_hh (H, H)
            "weight": self.decoder.parameters["weight"],  # W_hy (V, H)
            "bias_ih_l0": self.rnn.parameters["bias_ih_l0"],  # b_h (H,)
            "bias": self.decoder.parameters["bias"],  # b_y (V,)
        }
        for array in self.parameters.values():
            array[...] = 0.01 * rng.standard_normal(array.shape) if array.ndim == 2 else 0.0
        self.rnn.parameters["bias_hh_l0"][...] = 0.0
        # the recipe's √(m + 1e-8) with m from 0 is √m with m from 1e-8
        self.optimizer = srnn.optim.Adagrad(self.parameters, lr=RATE, initial_accumulator_value=1e-8, eps=0.0)
        self.state: Any = None  # h (1, 1, H) at the end of the last window; None where the text begins

    def learn(self, inputs: Any, targets: Any) -> float:
        """One window, one update; returns the loss summed over the window, before the update."""
        from scratchrnn import losses, optim

        rnn = self.rnn.forward(self.one_hot[inputs][:, None], self.state)  # x (T, 1, V)
        decoder = self.decoder.forward(rnn.output)
        loss, d_logits = losses.cross_entropy(decoder.output, targets[:, None], reduction="sum")
        d_decoder = self.decoder.backward(decoder, d_logits)
        d_rnn = self.rnn.backward(rnn, d_decoder.input)
        found = d_rnn.parameters | d_decoder.parameters
        gradients = {name: found[name] for name in self.parameters}
        optim.clip_grad_value_(gradients, CLIP)
        self.optimizer.step(gradients)
        self.state = rnn.state
        return float(loss)


def train(codes: Any, net: Net) -> Iterator[tuple[float, float]]:
    """Train over the text again and again; yields each window's loss and the smooth loss after it."""
    smooth = T * np.log(len(net.one_hot))
    while True:
        net.state = None
        for begin in range(0, len(codes) - T - 1, T):
            loss = net.learn(codes[begin : begin + T], codes[begin + 1 : begin + T + 1])
            smooth = KEEP * smooth + (1 - KEEP) * loss
            yield loss, smooth


def compare(codes: Any, V: int, windows: int, seed: int) -> dict[str, Any]:
    """Losses and seconds per window of each, in alternating blocks; the first block, which compiles, is not timed."""
    sys.path.insert(0, str(ROOT))
    from tests import min_char_rnn as recipe

    runs = {
        "plain NumPy": recipe.train(codes, recipe.draw(V, H, np.random.default_rng(seed))),
        "scratchrnn float64": train(codes, Net(V, rng=np.random.default_rng(seed))),
        "scratchrnn float32": train(codes, Net(V, rng=np.random.default_rng(seed), dtype=np.float32)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    losses: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    while len(losses["plain NumPy"]) < windows:
        for name, run in runs.items():
            began = time.perf_counter()
            losses[name] += islice(run, BLOCK)
            seconds[name].append((time.perf_counter() - began) / BLOCK)
    return {
        name: timing.Quantiles.of(taken[1:] or taken).__dict__
        | {"first": losses[name][0][0], "smooth": losses[name][-1][1]}
        for name, taken in seconds.items()
    }


def main() -> None:
    """Compare, print, and append a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="a text file; default: the text that ships inside CPython")
    parser.add_argument("--windows", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", help="append the row to benchmarks/results/OUT.jsonl")
    options = parser.parse_args()
    timing.start_anew(threads=1)
    import scratchrnn as srnn
    from scratchrnn import data

    text = data.read_text(options.text) if options.text else data.default_text()
    vocabulary = data.Vocabulary(text)
    found = compare(vocabulary.encode(text), len(vocabulary), options.windows, options.seed)
    row = {
        "kind": "min-char-rnn", "V": len(vocabulary), "H": H, "T": T, "windows": options.windows, "seed": options.seed,
        "text": data.text_sha256(text), "threads": 1, "loops": found, "run": timing.moment(), "commit": timing.commit(),
        "machine": timing.machine(), "versions": {"scratchrnn": srnn.__version__, "numpy": np.__version__},
    }  # fmt: skip
    plain = found["plain NumPy"]
    print(f"V={len(vocabulary)}, H={H}, T={T}; {options.windows} windows each, 1 thread")
    for name, run in found.items():
        p20, p50, p80 = (1e3 * run[p] for p in ("p20", "p50", "p80"))
        ratio = plain["p50"] / run["p50"]
        print(f"{name:<19} {p50:6.3f} ms a window ({p20:.3f} to {p80:.3f})   {ratio:5.2f} times as fast")
        print(f"{'':<19} first loss {run['first']:.9f}, smooth loss at the end {run['smooth']:.3f}")
    if options.out:
        rows.append(RESULTS / f"{options.out}.jsonl", [row])


if __name__ == "__main__":
    main()
