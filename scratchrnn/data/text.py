"""Text as numbers: reading it, its vocabulary, and the part held out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from scratchrnn._typing import IntArray
from scratchrnn._validate import describe

DEFAULT_TEXT_NAME = "Python's help texts (pydoc_data.topics)"


def default_text() -> str:
    """The help texts of Python's own documentation that ship inside CPython, as one English text.

    They are `pydoc_data.topics`, joined in sorted order of their keys: about 465,000 characters in CPython 3.11. They
    differ between versions of Python, so state `text_sha256` beside any number measured on them.

    Raises
    ------
    ValueError
        This Python was built without them.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError:
        raise ValueError(
            "text: this Python ships without pydoc_data.topics, the default text; give a text file of your own"
        ) from None
    return "".join(topics[key] for key in sorted(topics))


def text_sha256(text: str) -> str:
    """SHA-256 of the text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def read_text(path: str | os.PathLike[str]) -> str:
    """Read a UTF-8 text file: every character as it stands, line ends included, without a byte order mark.

    Raises
    ------
    ValueError
        The file is empty, not UTF-8 (the message gives the byte and its position), or one character repeated.
    FileNotFoundError, IsADirectoryError, PermissionError
        There is no such file, it is a folder, or it may not be read.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a text file; got a folder")
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise type(error)(f"{path}: cannot be read: {error.strerror}") from None
    try:
        text = data.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8 text; got byte 0x{data[error.start]:02x} at position {error.start} "
            f"({error.reason})"
        ) from None
    if not text:
        raise ValueError(f"{path}: expected text; the file is empty")
    if len(set(text)) == 1:
        raise ValueError(f"{path}: expected at least two distinct characters; got only {text[0]!r}")
    return text


def join_documents(documents: Sequence[str]) -> tuple[str, IntArray]:
    """Several texts as one, and where each of them begins in it.

    Nothing is put between them: their characters stay what they are, and `ContiguousRows` lets neither a state nor a
    target cross from one to the next. To hold some out, part the list before joining it, with one vocabulary for all.

    Parameters
    ----------
    documents : sequence of str
        At least one, none of them empty.

    Returns
    -------
    text : str
    starts : ndarray (K,) of int64
        Offset of each document's first character, the first being 0.

    Raises
    ------
    TypeError
        One string, or something else that is no sequence of strings.
    ValueError
        There are no documents, or one is empty.

    Examples
    --------
    >>> text, starts = join_documents(["ab", "c", "bca"])
    >>> text, starts.tolist(), Vocabulary(text).encode(text).tolist()
    ('abcbca', [0, 2, 3], [0, 1, 2, 1, 2, 0])
    """
    if isinstance(documents, str) or not isinstance(documents, Sequence):
        raise TypeError(f"documents: expected a sequence of strings; got {describe(documents)}")
    if not documents:
        raise ValueError("documents: expected at least one; got none")
    for at, document in enumerate(documents):
        if not isinstance(document, str):
            raise TypeError(f"documents[{at}]: expected a string; got {describe(document)}")
        if not document:
            raise ValueError(f"documents[{at}]: expected at least one character; got an empty string")
    ends = np.cumsum([len(document) for document in documents], dtype=np.int64)
    return "".join(documents), np.append(np.zeros(1, np.int64), ends[:-1])


class Vocabulary:
    """The distinct characters of a text, numbered in sorted order.

    Parameters
    ----------
    text : str
        At least one character.

    Attributes
    ----------
    characters : str
        Each once, sorted by code point; the character with code k is `characters[k]`.

    Examples
    --------
    >>> vocabulary = Vocabulary("banana")
    >>> vocabulary.characters, vocabulary.encode("nab").tolist(), vocabulary.decode(np.array([1, 0, 2]))
    ('abn', [2, 0, 1], 'ban')
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise TypeError(f"text: expected a string; got {describe(text)}")
        if not text:
            raise ValueError("text: expected at least one character; got an empty string")
        self.characters = "".join(sorted(set(text)))
        self._points = _code_points(self.characters)

    def __len__(self) -> int:
        return len(self.characters)

    def encode(self, text: str, name: str = "text") -> IntArray:
        """Codes (N,) of the characters of `text`; `name` is what a message calls it.

        Raises
        ------
        ValueError
            A character is not in the vocabulary; the message names the first such one and its position.
        """
        points = _code_points(text)
        codes = np.searchsorted(self._points, points)
        unknown = self._points[np.minimum(codes, len(self) - 1)] != points
        if unknown.any():
            at = int(np.argmax(unknown))
            raise ValueError(
                f"{name}: character {text[at]!r} (U+{ord(text[at]):04X}) at position {at} is not among the "
                f"{len(self)} of the vocabulary"
            )
        return codes

    def decode(self, codes: IntArray) -> str:
        """The text with these codes (N,)."""
        codes = np.asarray(codes)
        if codes.ndim != 1 or (codes.size and codes.dtype.kind not in "iu"):
            raise TypeError(f"codes: expected a one-dimensional array of integers; got {describe(codes)}")
        outside = (codes < 0) | (codes >= len(self))
        if outside.any():
            at = int(np.argmax(outside))
            raise ValueError(f"codes: expected values from 0 to {len(self) - 1}; got {codes[at]} at {at}")
        return "".join(self.characters[code] for code in codes)


def _code_points(text: str) -> IntArray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def unigram_entropy(codes: IntArray) -> float:
    """Entropy in nats of the characters' frequencies: the loss of the best guess that knows no context."""
    counts = np.bincount(codes)
    p = counts[counts > 0] / len(codes)
    return float(-(p * np.log(p)).sum())


def split(codes: IntArray) -> tuple[IntArray, IntArray]:
    """The first nine tenths to train on, and the last tenth held out for validation; both are views."""
    held_out = len(codes) // 10
    return codes[: len(codes) - held_out], codes[len(codes) - held_out :]
