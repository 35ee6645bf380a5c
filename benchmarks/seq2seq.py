"""Teaches an encoder and a decoder to reverse strings of digits, and counts how many unseen ones come out right.

    python benchmarks/seq2seq.py                  # 1 to 10 digits, LSTM of 128 units: half a minute on two cores
    python benchmarks/seq2seq.py --task sort --seed 3
    python benchmarks/seq2seq.py --cell rnn --bidirectional --longest 5

Teacher forcing, Adam with a learning rate that rises over the first steps and then falls to zero, the global norm
clipped at 1. Each batch is drawn anew. The strings that are counted were held out of all training (see
`scratchrnn/data/digit_strings.py`), are distinct, and count only if every digit and the end are right, written
greedily with nothing but the source given. The seconds are those since the program began, imports (a third of a
second) left out; reading the kernels from their cache, or compiling them on a first run, is in them, and so is counting.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import scratchrnn as srnn
from scratchrnn.data.digit_strings import END, IGNORED, SOURCE_CODES, TARGET_CODES, DigitStrings, digit_strings
from scratchrnn.models import EncoderDecoder

WARM_UP = 50  # steps over which the learning rate rises


@dataclass(frozen=True)
class Recipe:
    """What is learned, by what, and how."""

    task: str = "reverse"
    longest: int = 10
    cell: str = "lstm"
    hidden: int = 128
    embedding: int = 16
    layers: int = 1
    bidirectional: bool = False  # of the encoder; the decoder then starts from a bridge
    steps: int = 1000
    batch: int = 128
    lr: float = 1e-2
    max_norm: float = 1.0


def build(recipe: Recipe, rng: np.random.Generator) -> EncoderDecoder:
    """A model, drawn from `rng`."""
    kind: Any = srnn.LSTM if recipe.cell == "lstm" else srnn.RNN
    encoder = kind(recipe.embedding, recipe.hidden, recipe.layers, bidirectional=recipe.bidirectional, rng=rng)
    decoder = kind(recipe.embedding, recipe.hidden, recipe.layers, rng=rng)
    return EncoderDecoder(encoder, decoder, source_size=SOURCE_CODES, target_size=TARGET_CODES, rng=rng)


def train(model: EncoderDecoder, recipe: Recipe, rng: np.random.Generator) -> Iterator[tuple[int, float]]:
    """Train, one step for each item that is taken: its number from 1, and its loss in nats per code."""
    optimizer = srnn.optim.Adam(model.parameters, lr=recipe.lr)
    for step in range(1, recipe.steps + 1):
        optimizer.lr = recipe.lr * min(step / WARM_UP, 1 - (step - 1) / recipe.steps)
        drawn = digit_strings(recipe.batch, rng, longest=recipe.longest, task=recipe.task)
        trace = model.forward(drawn.source, drawn.target_in, drawn.lengths, drawn.target_lengths)
        loss, d_logits = srnn.losses.cross_entropy(trace.logits, drawn.target_out, ignore_index=IGNORED)
        gradients = model.backward(trace, d_logits).parameters
        srnn.optim.clip_grad_norm_(gradients, recipe.max_norm)
        optimizer.step(gradients)
        yield step, float(loss)


def exact_match(model: EncoderDecoder, held_out: DigitStrings) -> float:
    """Share of strings whose answer is written without a fault."""
    longest = len(held_out.source)
    written = model.greedy(held_out.source, held_out.lengths, start=END, stop=END, max_length=longest + 1)
    return float(held_out.correct(written).mean())


def unseen(recipe: Recipe, count: int = 2000) -> DigitStrings:
    """Distinct strings that no training sees, of every length; the same in every run."""
    rng = np.random.default_rng(2024)
    return digit_strings(count, rng, longest=recipe.longest, task=recipe.task, held_out=True).distinct()


def main() -> None:
    """Train and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Recipe()
    parser.add_argument("--task", choices=("reverse", "sort"), default=default.task)
    parser.add_argument("--cell", choices=("lstm", "rnn"), default=default.cell)
    parser.add_argument("--bidirectional", action="store_true", help="the encoder, with a bridge to the decoder")
    for name in ("longest", "hidden", "embedding", "layers", "steps", "batch"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name))
    parser.add_argument("--lr", type=float, default=default.lr)
    parser.add_argument("--max-norm", type=float, default=default.max_norm)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    began, seed = time.perf_counter(), options.pop("seed")
    recipe = Recipe(**options)

    rng = np.random.default_rng(seed)
    model, held_out = build(recipe, rng), unseen(recipe)
    count = sum(array.size for array in model.parameters.values())
    print(f"{recipe}\n{count} parameters, {'no' if model.bridge is None else 'a'} bridge, seed {seed}")
    print(f"{len(held_out.lengths)} distinct strings held out, {srnn.get_num_threads()} threads\n")
    print("  step    loss  exact match  seconds")
    for step, loss in train(model, recipe, rng):
        if step % max(1, recipe.steps // 10) == 0:
            share = exact_match(model, held_out)
            print(f"{step:6d}  {loss:6.4f}  {share:10.2%}  {time.perf_counter() - began:7.1f}", flush=True)


if __name__ == "__main__":
    main()
