"""Strings of digits to reverse or to sort: a small task that an encoder and a decoder can be measured by.

    source       2 7 1 . .        digits, S steps
    target_in    # 1 7 2 . .      what the decoder reads: END, then the answer            T = S + 1 steps
    target_out   1 7 2 # . .      what it should write: the answer, then END

    B strings   S longest   . is padding: 0 where it is read past, IGNORED where a loss leaves it out

A string is either for training or held out, once and for all, by its CRC-32: of any length about one in ten is held
out, "6" of the ten strings of one digit. So no held-out string was trained on, however short, and all lengths are
asked.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from scratchrnn._typing import BoolArray, IntArray
from scratchrnn._validate import check_bool, check_positive_int, describe
from scratchrnn.trace import reverse_time

END = 10  # begins and ends a target; after the ten digits
IGNORED = -100  # `cross_entropy`'s ignore_index
SOURCE_CODES, TARGET_CODES = 10, 11
TASKS = ("reverse", "sort")
HELD_OUT = 10  # one string in so many


@dataclass(frozen=True, eq=False)
class DigitStrings:
    """B strings and their answers, time-major.

    Attributes
    ----------
    source : ndarray (S, B) of int
    lengths : ndarray (B,) of int
        Digits of each string.
    target_in, target_out : ndarray (S+1, B) of int
    target_lengths : ndarray (B,) of int
        One more than `lengths`, for END.
    """

    source: IntArray
    lengths: IntArray
    target_in: IntArray
    target_out: IntArray

    @property
    def target_lengths(self) -> IntArray:
        """Steps of each target."""
        return self.lengths + 1

    @property
    def strings(self) -> list[str]:
        """The sources as text."""
        return [text.decode() for text in _texts(self.source, self.lengths)]

    def distinct(self) -> DigitStrings:
        """The same without repetitions; shorter, since there are few short strings."""
        _, first = np.unique(self.strings, return_index=True)
        first.sort()
        return DigitStrings(
            self.source[:, first], self.lengths[first], self.target_in[:, first], self.target_out[:, first]
        )

    def correct(self, written: list[IntArray]) -> BoolArray:
        """Which of B written targets, as `EncoderDecoder.greedy` returns them, are right in every digit: (B,)."""
        if len(written) != len(self.lengths):
            raise ValueError(f"written: expected {len(self.lengths)} targets, one for each string; got {len(written)}")
        answers = (self.target_out[:n, b] for b, n in enumerate(self.lengths))
        return np.array([np.array_equal(w, a) for w, a in zip(written, answers, strict=True)], np.bool_)


def digit_strings(
    batch: int,
    rng: np.random.Generator,
    *,
    shortest: int = 1,
    longest: int = 10,
    task: str = "reverse",
    held_out: bool = False,
) -> DigitStrings:
    """Draw strings of digits: first a length, then digits, all equally likely.

    Parameters
    ----------
    batch : int
        B.
    rng : numpy.random.Generator
    shortest, longest : int
        Bounds of the lengths, both included; `longest` is S.
    task : "reverse" or "sort"
        What the answer is: the digits from last to first, or in ascending order.
    held_out : bool
        Draw those that are held out instead of those to train on.

    Returns
    -------
    DigitStrings

    Notes
    -----
    Who guesses writes a string of n digits and its end with probability 1/11^(n+1).

    References
    ----------
    Grefenstette et al., "Learning to transduce with unbounded memory", arXiv:1506.02516, 2015: reversal as a task.

    Examples
    --------
    >>> drawn = digit_strings(3, np.random.default_rng(0), longest=4)
    >>> drawn.strings
    ['2085', '306', '655']
    >>> print(drawn.target_out.T)
    [[   5    8    0    2   10]
     [   6    0    3   10 -100]
     [   5    5    6   10 -100]]
    """
    check_positive_int("batch", batch)
    if check_positive_int("longest", longest) < check_positive_int("shortest", shortest):
        raise ValueError(f"longest: expected at least shortest={shortest}; got {longest}")
    if task not in TASKS:
        raise ValueError(f"task: expected 'reverse' or 'sort'; got {task!r}")
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator; got {describe(rng)}")
    check_bool("held_out", held_out)
    source, lengths = np.zeros((longest, batch), np.int64), np.zeros(batch, np.int64)
    missing = np.arange(batch)
    while missing.size:
        lengths[missing] = rng.integers(shortest, longest + 1, missing.size)
        source[:, missing] = rng.integers(0, 10, (longest, missing.size))
        missing = missing[_are_held_out(source[:, missing], lengths[missing]) != held_out]
    padding = np.arange(longest)[:, None] >= lengths  # (S, B)
    source[padding] = 0
    if task == "reverse":
        answer = reverse_time(source[:, :, None], lengths)[:, :, 0]
    else:
        answer = np.sort(np.where(padding, END, source), axis=0)  # padding goes last
    strings = np.arange(batch)
    target_in, target_out = np.zeros((2, longest + 1, batch), np.int64)
    target_in[0] = END
    target_in[1:][~padding] = answer[~padding]
    target_out[:-1] = np.where(padding, IGNORED, answer)
    target_out[-1] = IGNORED
    target_out[lengths, strings] = END
    return DigitStrings(source, lengths, target_in, target_out)


def _texts(source: IntArray, lengths: IntArray) -> list[bytes]:
    """Each string in ASCII."""
    characters = (source.T + ord("0")).astype(np.uint8)  # (B, S)
    return [row[:n].tobytes() for row, n in zip(characters, lengths, strict=True)]


def _are_held_out(source: IntArray, lengths: IntArray) -> BoolArray:
    """(B,)."""
    return np.array([zlib.crc32(text) % HELD_OUT == 0 for text in _texts(source, lengths)], np.bool_)
