"""The pool under fire: random orders, several threads, the garbage collector. No array's numbers ever change."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from scratchrnn.kernels import memory
from scratchrnn.kernels.memory import LEAST

F4 = np.dtype(np.float32)


def lend(pool: Any, nbytes: int, zeroed: bool = False) -> np.ndarray:
    return pool.lend((nbytes // 4,), F4, memory._rounded(nbytes), zeroed)


class Arrays(RuleBasedStateMachine):
    """Arrays and views of them, made and dropped in any order: each keeps the number that was written into it."""

    @initialize()
    def start(self) -> None:
        self.pool = memory._Pool(limit=12 * LEAST, window=7)
        self.live: list[tuple[np.ndarray, float]] = []
        self.number = 0.0

    @rule(sixteenths=st.integers(16, 64), zeroed=st.booleans())
    def make(self, sixteenths: int, zeroed: bool) -> None:
        nbytes = sixteenths * LEAST // 16
        array = lend(self.pool, nbytes, zeroed).reshape(4, -1)
        assert not zeroed or not array.any()
        self.number += 1
        array.fill(self.number)
        self.live.append((array, self.number))

    @rule(
        at=st.integers(0, 99), how=st.sampled_from([lambda a: a[..., 1:], lambda a: a.T, lambda a: a[None], np.ravel])
    )
    def look(self, at: int, how: Any) -> None:
        if self.live:
            array, number = self.live[at % len(self.live)]
            self.live.append((how(array), number))

    @rule(at=st.integers(0, 99))
    def drop(self, at: int) -> None:
        if self.live:
            del self.live[at % len(self.live)]

    @rule()
    def release(self) -> None:
        self.pool.release()

    @invariant()
    def as_promised(self) -> None:
        for array, number in self.live:
            assert (array == number).all()
        lent = {id(a.base._block): a.base._block.size for a, _ in map(root, self.live) if a.base is not None}
        assert self.pool.lent_bytes() == self.pool._lent == sum(lent.values())
        assert self.pool.idle_bytes() == self.pool._idle
        assert self.pool.idle_bytes() <= 12 * LEAST

    def teardown(self) -> None:
        self.live.clear()
        assert self.pool.lent_bytes() == 0


def root(entry: tuple[np.ndarray, float]) -> tuple[np.ndarray, float]:
    array, number = entry
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array, number


TestArrays = Arrays.TestCase
TestArrays.settings = settings(max_examples=50, stateful_step_count=30)


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that take turns at every few bytecodes."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def churn(pool: Any, seed: int, rounds: int, wrong: list[str]) -> None:
    """Make, view, write, check and drop at random."""
    rng = np.random.default_rng(seed)
    live: list[tuple[np.ndarray, float]] = []
    for k in range(rounds):
        number = float(seed * rounds + k + 1)
        array = lend(pool, LEAST + LEAST // 8 * int(rng.integers(6)))
        array.fill(number)
        live.append((array if k % 2 else array[3:].reshape(-1, 1).T, number))
        del array
        while len(live) > rng.integers(1, 9):
            view, expected = live.pop(int(rng.integers(len(live))))
            if not (view == expected).all():
                wrong.append(f"expected {expected}; got {np.unique(view)}")
    live.clear()


@pytest.mark.usefixtures("hasty_threads")
def test_sizes_that_appear_while_another_thread_counts() -> None:
    """Sums walk over all sizes; each thread here brings new ones all the time."""
    pool = memory._Pool(limit=4 * LEAST, window=2)
    failed: list[BaseException] = []

    def run(first: int) -> None:
        try:
            for k in range(300):
                size = LEAST + 64 * (4 * k + first)
                array = pool.lend((16,), F4, size, False)
                pool.lent_bytes()
                del array
        except RuntimeError as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []


@pytest.mark.usefixtures("hasty_threads")
def test_threads() -> None:
    pool = memory._Pool(limit=20 * LEAST, window=10)
    wrong: list[str] = []
    threads = [threading.Thread(target=churn, args=(pool, seed, 400, wrong)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert pool.lent_bytes() == 0
    assert pool.idle_bytes() <= 20 * LEAST


def test_loans_that_end_in_the_garbage_collector() -> None:
    """Cycles hold arrays; collected after nearly every allocation, their loans end in the middle of other calls."""
    pool = memory._Pool()
    before = gc.get_threshold()
    wrong: list[str] = []
    gc.set_threshold(1, 1, 1)
    try:
        for k in range(200):
            cycle: list[Any] = [lend(pool, LEAST)]
            cycle.append(cycle)
            cycle[0].fill(-1)
            del cycle
            churn(pool, k, 3, wrong)
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert wrong == []
    assert pool.lent_bytes() == 0
