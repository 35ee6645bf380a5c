from __future__ import annotations

import math
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchrnn.data import (
    Vocabulary,
    default_text,
    read_text,
    split,
    text_sha256,
    unigram_entropy,
)


def test_default_text_is_the_help_of_python() -> None:
    text = default_text()
    assert 300_000 < len(text) < 1_000_000
    assert "generator" in text
    assert text == default_text()


@pytest.mark.skipif(sys.version_info[:3] != (3, 11, 7), reason="the text differs between versions of Python")
def test_default_text_of_one_version_has_the_published_numbers() -> None:
    codes = Vocabulary(default_text()).encode(default_text())
    assert (len(codes), int(codes.max()) + 1) == (464_970, 103)
    assert unigram_entropy(codes) == pytest.approx(3.250, abs=5e-4)  # nats


def test_default_text_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(ValueError, match=r"^text: this Python ships without pydoc_data.topics"):
        default_text()


def test_sha256_of_a_published_example() -> None:
    assert text_sha256("abc").startswith("ba7816bf8f01cfea414140de5dae2223")


# --- reading


def test_read_text_keeps_every_character_but_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\n\xc3\xa4\n")
    assert read_text(path) == "a\r\nä\n"


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        (b"", ValueError, "expected text; the file is empty"),
        (b"\xef\xbb\xbf", ValueError, "expected text; the file is empty"),
        (b"abc\xff\xfe", ValueError, "expected UTF-8 text; got byte 0xff at position 3"),
        (b"aaaaaa", ValueError, "expected at least two distinct characters; got only 'a'"),
        (None, FileNotFoundError, "no such file"),
    ],
)
def test_read_text_refuses(tmp_path: Path, data: bytes | None, error: type[Exception], message: str) -> None:
    path = tmp_path / "bad.txt"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(error, match=r"bad\.txt: ") as raised:
        read_text(path)
    assert message in str(raised.value)


def test_read_text_refuses_a_folder(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="expected a text file; got a folder"):
        read_text(tmp_path)


# --- vocabulary


@given(st.text(min_size=1), st.data())
def test_vocabulary_is_sorted_and_decode_undoes_encode(text: str, data: st.DataObject) -> None:
    vocabulary = Vocabulary(text)
    assert list(vocabulary.characters) == sorted(set(text))
    other = data.draw(st.text(alphabet=vocabulary.characters))
    assert vocabulary.decode(vocabulary.encode(other)) == other
    assert [vocabulary.characters[code] for code in vocabulary.encode(text)] == list(text)


@pytest.mark.parametrize(
    ("text", "named"),
    [("abxa", r"'x' \(U\+0078\) at position 2"), ("z", r"'z' .* at position 0"), ("a\U0001f600", "U")],
)
def test_unknown_character_is_named(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=f"text: character .*{named}"):
        Vocabulary("abc").encode(text)


def test_vocabulary_refuses() -> None:
    with pytest.raises(ValueError, match="text: expected at least one character"):
        Vocabulary("")
    with pytest.raises(TypeError, match="text: expected a string; got bytes"):
        Vocabulary(b"abc")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="codes: expected values from 0 to 2; got 3 at 1"):
        Vocabulary("abc").decode(np.array([0, 3]))
    with pytest.raises(TypeError, match="codes: expected a one-dimensional array of integers"):
        Vocabulary("abc").decode(np.array([0.0]))


def test_unigram_entropy() -> None:
    assert unigram_entropy(np.array([0, 1, 2, 3] * 5)) == pytest.approx(math.log(4))
    assert unigram_entropy(np.array([2, 2, 2])) == 0


# --- parallel streams


def test_split_holds_out_the_last_tenth() -> None:
    training, held_out = split(np.arange(59))
    assert training.tolist() == list(range(54))
    assert held_out.tolist() == list(range(54, 59))
