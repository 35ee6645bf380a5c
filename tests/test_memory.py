"""The pool behind big arrays: ordinary arrays, never two on one block, and no more idle than promised."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.kernels import memory
from scratchrnn.kernels.memory import ALIGNMENT, LEAST, empty, zeros

F4, F8 = np.dtype(np.float32), np.dtype(np.float64)
N = LEAST // 4  # float32 numbers that just come from the pool


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def first_block(array: np.ndarray) -> Any:
    return array.base._block


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A pool of the test's own, with nothing in it."""
    made = memory._Pool()
    monkeypatch.setattr(memory, "_pool", made)
    return made


def lend(pool: Any, nbytes: int) -> np.ndarray:
    return pool.lend((nbytes // 4,), F4, memory._rounded(nbytes), False)


# Ordinary arrays


@pytest.mark.parametrize("dtype", [F4, F8])
@pytest.mark.parametrize("make", [empty, zeros])
def test_it_is_an_ordinary_array(make: Any, dtype: np.dtype) -> None:
    a = make((3, 1001, 13), dtype)
    assert type(a) is np.ndarray
    assert a.shape == (3, 1001, 13)
    assert a.dtype is dtype
    assert a.flags.c_contiguous
    assert a.flags.writeable
    assert a.flags.aligned
    assert address(a) % ALIGNMENT == 0
    a[...] = np.arange(a.size).reshape(a.shape)
    b = pickle.loads(pickle.dumps(a))
    np.testing.assert_array_equal(b, a)
    assert not np.shares_memory(a, b)
    assert np.shares_memory(a, a[1:, ::2].T)
    assert not np.shares_memory(a[0], a[1])
    assert not np.shares_memory(a, make((3, 1001, 13), dtype))
    np.testing.assert_array_equal(np.asarray(memoryview(a)), a)


def test_small_arrays_are_numpys_own(pool: Any) -> None:
    assert empty((N - 1,), F4).base is None
    assert zeros((N - 1,), F4).base is None
    assert empty((0, N), F4).shape == (0, N)
    assert empty((), F4).shape == ()
    assert pool.idle_bytes() == pool.lent_bytes() == 0
    assert empty((N,), F4).base is not None


def test_what_the_caller_owns_is_no_part_of_it(pool: Any) -> None:
    own = np.ones(4 * N, np.float32)
    del own
    assert pool.idle_bytes() == pool.lent_bytes() == 0


def test_at_most_an_eighth_is_wasted() -> None:
    for n in [*range(LEAST, LEAST + 5000), *(int(LEAST * 1.001**k) for k in range(15000))]:
        assert n <= memory._rounded(n) <= n * 9 / 8
    sizes = {memory._rounded(n) for n in range(LEAST + 1, 2 * LEAST + 1)}
    assert len(sizes) == 8


# Used again


def test_a_block_is_used_again(pool: Any) -> None:
    a = empty((N, 3), F4)
    where = address(a)
    del a
    b = empty((3 * N // 2,), F8)  # another shape and dtype of the same size
    assert address(b) == where
    c = empty((N, 3), F4)
    assert address(c) != where


def test_the_block_last_given_back_comes_first(pool: Any) -> None:
    a, b = empty((N,), F4), empty((N,), F4)
    wheres = [address(b), address(a)]
    del a
    del b
    arrays = [empty((N,), F4), empty((N,), F4)]
    assert [address(array) for array in arrays] == wheres


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[5:7],
        lambda a: a.T,
        lambda a: a.reshape(-1)[::2],
        lambda a: a[:, None],
        lambda a: a.view(np.int32),
        lambda a: np.broadcast_to(a, (2, *a.shape)),
        lambda a: np.lib.stride_tricks.as_strided(a, (3,), (4,)),
        memoryview,
        lambda a: a.view(np.matrix),
        lambda a: a.base,  # even the loan itself
        iter,
        lambda a: a.flat,
    ],
)
def test_any_view_keeps_the_block(pool: Any, view: Any) -> None:
    a = empty((N, 3), F4)
    a.fill(3)
    where, size = address(a), pool.lent_bytes()
    v = view(a)
    del a
    assert pool.lent_bytes() == size
    b = empty((N, 3), F4)
    b.fill(7)
    assert address(b) != where
    assert pool.lent_bytes() == 2 * size
    del v
    assert pool.lent_bytes() == pool.idle_bytes() == size
    assert address(empty((N, 3), F4)) == where


def test_zeros_are_zero_on_used_memory_too(pool: Any) -> None:
    assert not zeros((N,), F4).any()
    a = empty((N,), F4)
    a.fill(5)
    where = address(a)
    del a
    b = zeros((N,), F4)
    assert address(b) == where
    assert not b.any()


def test_release(pool: Any) -> None:
    kept = empty((N,), F4)
    kept.fill(1)
    del (_ := [empty((2 * N,), F4), empty((N,), F4)])[:]
    assert pool.idle_bytes() == 12 * N
    backends.release_memory()
    assert pool.idle_bytes() == 0
    assert pool.lent_bytes() == 4 * N
    assert (kept == 1).all()
    del kept
    assert pool.idle_bytes() == 4 * N


def test_memory_that_runs_out_is_taken_from_the_pool(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    del (_ := [empty((N,), F4)])[:]
    real = np.empty

    def scarce(*args: Any) -> np.ndarray:
        if pool.idle_bytes():
            raise MemoryError
        return real(*args)

    monkeypatch.setattr(np, "empty", scarce)
    assert empty((2 * N,), F4).shape == (2 * N,)
    assert pool.idle_bytes() == 8 * N
    monkeypatch.setattr(np, "empty", lambda *args: (_ for _ in ()).throw(MemoryError))
    with pytest.raises(MemoryError):
        empty((3 * N,), F4)
    assert pool.lent_bytes() == 0


# The limit


def test_no_more_is_idle_than_the_limit(pool: Any) -> None:
    pool.limit = 10 * LEAST
    arrays = [lend(pool, LEAST) for _ in range(20)]
    del arrays[:]
    assert pool.idle_bytes() == 10 * LEAST
    big = lend(pool, 11 * LEAST)
    del big
    assert pool.idle_bytes() == 10 * LEAST  # too big to keep, and nothing was freed for it


def test_the_one_idle_longest_is_freed(pool: Any) -> None:
    pool.limit = 4 * LEAST
    a, b, c, d = lend(pool, LEAST), lend(pool, 2 * LEAST), lend(pool, LEAST), lend(pool, LEAST)
    wheres = [address(b), address(c), address(d)]
    del a
    del b
    del c
    assert pool.idle_bytes() == 4 * LEAST
    del d
    assert pool.idle_bytes() == 4 * LEAST  # a is gone
    again = [lend(pool, 2 * LEAST), *(lend(pool, LEAST) for _ in range(2))]
    assert [address(array) for array in again] == [wheres[0], wheres[2], wheres[1]]
    assert pool.idle_bytes() == 0


def test_no_more_is_idle_than_was_lent_at_once(pool: Any) -> None:
    for k in range(1, 9):
        array = lend(pool, k * LEAST)
        del array
        assert pool.idle_bytes() <= k * LEAST
    assert pool.idle_bytes() == 8 * LEAST


def test_totals_are_counted_anew(pool: Any) -> None:
    """An update that two threads lost between them does not last."""
    pool.window = 10
    kept = lend(pool, LEAST)
    pool._idle, pool._lent = 7 * LEAST, -3 * LEAST
    for _ in range(10):
        array = lend(pool, 2 * LEAST)
        del array
    assert pool._idle == pool.idle_bytes() == 2 * LEAST
    assert pool._lent == pool.lent_bytes() == LEAST
    assert kept.shape == (LEAST // 4,)


def test_what_was_lent_long_ago_no_longer_counts(pool: Any) -> None:
    pool.window = 10
    arrays = [lend(pool, LEAST) for _ in range(6)]
    del arrays[:]
    assert pool.idle_bytes() == 6 * LEAST
    counts = []
    for _ in range(30):
        array = lend(pool, LEAST)
        del array
        counts.append(pool.idle_bytes() // LEAST)
    assert counts[:10] == [6] * 10
    assert counts[20:] == [1] * 10
    assert sorted(counts, reverse=True) == counts


# Forks and the end of the process

DAEMON = """
import threading, time
def run():
    while True:
        make().fill(1)
threading.Thread(target=run, daemon=True).start()
time.sleep(0.05)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_begins_with_nothing_idle() -> None:
    code = f"""
import os, numpy as np
from scratchrnn.kernels import memory
f4 = np.dtype(np.float32)
a, b = memory.empty(({N},), f4), memory.empty(({N},), f4)
a.fill(1)
del b
assert memory.idle_bytes() == {LEAST}
pid = os.fork()
if pid == 0:
    assert memory.idle_bytes() == 0
    assert (a == 1).all()
    c = memory.empty(({N},), f4)
    c.fill(2)
    assert (a == 1).all()
    del a, c
    assert memory.idle_bytes() == 2 * {LEAST}
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
assert memory.idle_bytes() == {LEAST}
assert (a == 1).all()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    "held_by",
    [
        "a = make()",
        "import builtins; builtins.a = make()",
        "import sys; sys.a = make()",
        "a = [make()]; a.append(a)",
        "import scratchrnn.kernels.memory as m; m.a = make(); m._a = make()",
        "class A:\n    def __del__(self): make().fill(1)\na = A(); b = make()",
        "import atexit; a = make(); atexit.register(lambda: a.fill(1))",
        DAEMON,
    ],
)
def test_arrays_alive_at_exit_say_nothing(held_by: str) -> None:
    code = (
        "import numpy as np\nfrom scratchrnn.kernels.memory import empty\n"
        f"make = lambda empty=empty, shape=({N},), dtype=np.dtype(np.float32): empty(shape, dtype)\n{held_by}\n"
    )
    done = subprocess.run([sys.executable, "-X", "dev", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# Poison


def test_poisoned(pool: Any) -> None:
    with memory.poisoned():
        for shape in [(N,), (3,)]:
            for dtype in (F4, F8):
                assert np.isnan(empty(shape, dtype)).all()
                assert not zeros(shape, dtype).any()
        a = empty((N,), F4)
        a.fill(1)
        block = first_block(a)
        del a
        assert np.isnan(block.memory[:-ALIGNMENT].view(F4)).all()  # what still reads here shows
    a = empty((N,), F4)
    a.fill(1)
    del a
    assert (empty((N,), F4) == 1).all()


def test_poison_ends_with_an_error_and_nests(pool: Any) -> None:
    def fail() -> None:
        with memory.poisoned():
            with memory.poisoned():
                pass
            assert pool.poisoned
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert not pool.poisoned
