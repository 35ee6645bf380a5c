"""Data to learn from: text, and rows of it that continue from window to window."""

from scratchrnn.data.contiguous import ContiguousRows
from scratchrnn.data.rows import Stream, Window
from scratchrnn.data.text import (
    DEFAULT_TEXT_NAME,
    Vocabulary,
    default_text,
    join_documents,
    read_text,
    split,
    text_sha256,
    unigram_entropy,
)

__all__ = [
    "DEFAULT_TEXT_NAME",
    "ContiguousRows",
    "Stream",
    "Vocabulary",
    "Window",
    "default_text",
    "join_documents",
    "read_text",
    "split",
    "text_sha256",
    "unigram_entropy",
]
