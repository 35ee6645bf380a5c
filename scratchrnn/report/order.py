"""Orders in which the units of a layer can stand, top to bottom: (H,) from states (K, H) over K characters."""

from __future__ import annotations

import numpy as np
from scipy.cluster.hierarchy import leaves_list, linkage

from scratchrnn._typing import FloatArray, IntArray


def sign_changes(states: FloatArray) -> IntArray:
    """How often each unit changes its sign over a stretch of text."""
    changes: IntArray = (np.diff(np.signbit(states), axis=0) != 0).sum(axis=0)
    return changes


def slow_first(states: FloatArray) -> IntArray:
    """Few changes of sign first; among equals, the positive ones first."""
    return np.lexsort((-states.mean(axis=0), sign_changes(states)))


def alike(states: FloatArray) -> IntArray:
    """Units that move alike next to each other: leaves of a tree of their courses, each over its own spread.

    Ward's tree; its leaves in the order with the least sum of distances between neighbours (Bar-Joseph, Gifford,
    Jaakkola, Fast optimal leaf ordering for hierarchical clustering, 2001).
    """
    courses = np.nan_to_num(states.T.astype(np.float64), posinf=0.0, neginf=0.0)  # (H, K); only an order is made of it
    if len(courses) < 2:
        return np.arange(len(courses))
    spread = courses.std(axis=1, keepdims=True)
    courses = (courses - courses.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return leaves_list(linkage(courses, "ward", optimal_ordering=True)).astype(np.int64)
