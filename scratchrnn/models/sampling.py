"""Writing with a model: one character at a time, each drawn from what those before it make likely.

    z_t      logits after the prompt and the characters drawn so far                       (V,)
    K        the k largest of z_t, or all V
    x_t      drawn from softmax(z_t[K] / τ), as argmax over K of z_t / τ + g with g_v ~ Gumbel(0, 1)

The Gumbel-max draw needs no cumulative sum, so rounding can yield no character of probability 0. Multiplied by τ its
argmax stays the same, and τ = 0 becomes the likeliest character, without a case of its own. Every character takes V
numbers from the generator, whatever k and τ are.

References
----------
Maddison, Tarlow, Minka, "A* sampling", 2014, section 2 (the Gumbel-max trick).
Fan, Lewis, Dauphin, "Hierarchical neural story generation", 2018, section 5.3 (top-k).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Protocol

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, check_positive_int, check_real, describe
from scratchrnn.data import Vocabulary
from scratchrnn.trace import State


class Predictor(Protocol):
    """What can write: a vocabulary, and logits (T, B, V) with the state after them for codes (T, B)."""

    vocabulary: Vocabulary

    def __call__(self, indices: IntArray, state: State | None = None) -> tuple[FloatArray, State]:
        """Logits and state."""


def write(
    model: Predictor,
    prompt: str,
    length: int | None,
    *,
    rng: np.random.Generator,
    temperature: float,
    top_k: int | None,
) -> Iterator[str]:
    """Check everything, then draw; see `CharModel.write`."""
    vocabulary = model.vocabulary
    if length is not None:
        check_int("length", length, least=0)
    check_real("temperature", temperature, least=0.0)
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator; got {describe(rng)}")
    if top_k is not None and check_positive_int("top_k", top_k) > len(vocabulary):
        raise ValueError(f"top_k: expected at most the {len(vocabulary)} characters of the vocabulary; got {top_k}")
    if not isinstance(prompt, str):
        raise TypeError(f"prompt: expected a string; got {describe(prompt)}")
    codes = vocabulary.encode(prompt, "prompt") if prompt else _beginning(vocabulary, rng)
    return _draw_on(model, codes, length, rng, temperature, top_k)


def _beginning(vocabulary: Vocabulary, rng: np.random.Generator) -> IntArray:
    """What is read where there is no prompt: a line break, after which a text may begin; without one, any character."""
    if "\n" in vocabulary.characters:
        return vocabulary.encode("\n")
    return rng.integers(len(vocabulary), size=1)


def _draw_on(
    model: Predictor,
    codes: IntArray,
    length: int | None,
    rng: np.random.Generator,
    temperature: float,
    top_k: int | None,
) -> Iterator[str]:
    state: State | None = None
    for _ in count() if length is None else range(length):
        logits, state = model(codes[:, None], state)
        code = draw(logits[-1, 0], rng=rng, temperature=temperature, top_k=top_k)
        yield model.vocabulary.characters[code]
        codes = np.array([code])


def draw(logits: FloatArray, *, rng: np.random.Generator, temperature: float = 1.0, top_k: int | None = None) -> int:
    """Draw one code from softmax(logits / temperature), or from that of the `top_k` largest alone.

    Parameters
    ----------
    logits : ndarray (V,)
        -inf is never drawn.
    rng : numpy.random.Generator
    temperature : float
        At least 0; 0 is the largest logit.
    top_k : int, optional
        From 1 to V. Of equal logits the one with the lower code counts as larger.

    Raises
    ------
    ValueError
        A logit is NaN, so that nothing follows for any of them.
    """
    if np.isnan(logits).any():
        raise ValueError("logits: expected numbers; got NaN, as of a model whose training diverged")
    z = logits.astype(np.float64)
    if top_k is not None:
        z[np.argsort(-z, kind="stable")[top_k:]] = -np.inf
    # both divided by max(1, τ), so that nothing overflows at either end
    return int(np.argmax(z / max(1.0, temperature) + min(1.0, temperature) * rng.gumbel(size=z.shape)))
