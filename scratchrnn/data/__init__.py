"""Data to learn from: text, rows that continue from window to window, and tasks with a known answer."""

from scratchrnn.data.contiguous import ContiguousRows, Window
from scratchrnn.data.digit_images import digits
from scratchrnn.data.digit_strings import DigitStrings, digit_strings
from scratchrnn.data.tasks import (
    ADDING_BASELINE,
    TEMPORAL_ORDER_BASELINE,
    adding_problem,
    copy_memory,
    copy_memory_baseline,
    flip_flop,
    flip_flop_baseline,
    parity,
    parity_baseline,
    temporal_order,
)
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
    "ADDING_BASELINE",
    "DEFAULT_TEXT_NAME",
    "TEMPORAL_ORDER_BASELINE",
    "ContiguousRows",
    "DigitStrings",
    "Vocabulary",
    "Window",
    "adding_problem",
    "copy_memory",
    "copy_memory_baseline",
    "default_text",
    "digit_strings",
    "digits",
    "flip_flop",
    "flip_flop_baseline",
    "join_documents",
    "parity",
    "parity_baseline",
    "read_text",
    "split",
    "temporal_order",
    "text_sha256",
    "unigram_entropy",
]
