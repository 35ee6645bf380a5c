"""Data to learn from: text, and rows of it that continue from window to window."""

from scratchrnn.data.digit_strings import DigitStrings, digit_strings
from scratchrnn.data.rows import Stream, Window
from scratchrnn.data.text import (
    DEFAULT_TEXT_NAME,
    Vocabulary,
    default_text,
    read_text,
    split,
    text_sha256,
    unigram_entropy,
)

__all__ = [
    "DEFAULT_TEXT_NAME",
    "DigitStrings",
    "Stream",
    "Vocabulary",
    "Window",
    "default_text",
    "digit_strings",
    "read_text",
    "split",
    "text_sha256",
    "unigram_entropy",
]
