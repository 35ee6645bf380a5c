"""The number of threads, and how work is handed to them."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cpu import threads

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = srnn.get_num_threads()
    yield
    srnn.set_num_threads(before)


# --- the number


def test_set_and_get() -> None:
    counts: list[Any] = [3, np.int64(5), 1]
    for count in counts:
        srnn.set_num_threads(count)
        assert srnn.get_num_threads() == count
        assert type(srnn.get_num_threads()) is int


@pytest.mark.parametrize("value", [0, -1])
def test_set_refuses_a_number_below_one(value: int) -> None:
    before = srnn.get_num_threads()
    with pytest.raises(ValueError, match=f"n: expected an integer of at least 1; got {value}"):
        srnn.set_num_threads(value)
    assert srnn.get_num_threads() == before


@pytest.mark.parametrize("value", [2.0, "2", None, True, np.array(2.0)])
def test_set_refuses_what_is_no_integer(value: Any) -> None:
    with pytest.raises(TypeError, match="n: expected an integer of at least 1; got "):
        srnn.set_num_threads(value)


def from_environment(value: str | None, program: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != threads.VARIABLE}
    if value is not None:
        environment[threads.VARIABLE] = value
    return subprocess.run(
        [sys.executable, "-c", f"import numpy as np, scratchrnn as srnn\n{program}"],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip


def test_the_environment_decides_until_a_call_does() -> None:
    program = "print(srnn.get_num_threads()); srnn.set_num_threads(2); print(srnn.get_num_threads())"
    assert from_environment("5", program).stdout.split() == ["5", "2"]
    assert from_environment(None, program).stdout.split() == [str(threads.usable_cores()), "2"]


@pytest.mark.parametrize("value", ["0", "-2", "two", "2.5", "", " "])
def test_a_bad_environment_is_named(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(threads.VARIABLE, value)
    monkeypatch.setattr(threads, "_threads", None)  # as at the start of a process
    with pytest.raises(ValueError, match=r"^SCRATCHRNN_NUM_THREADS: expected an integer of at least 1; got ") as caught:
        srnn.get_num_threads()
    assert str(caught.value).endswith(repr(value))
    with pytest.raises(ValueError, match="SCRATCHRNN_NUM_THREADS"):
        srnn.RNN(3, 4)(np.zeros((2, 1, 3), np.float32))


def test_the_environment_is_no_matter_for_an_explicit_number() -> None:
    assert from_environment("two", "srnn.set_num_threads(3); print(srnn.get_num_threads())").stdout == "3\n"


# --- running tasks


def test_split_covers_everything_once() -> None:
    for count in (0, 1, 2, 5, 23, 100):
        for parts in (1, 2, 3, 7, 200):
            for multiple in (1, 6):
                ranges = threads.split(count, parts, multiple)
                assert [n for a, b in ranges for n in range(a, b)] == list(range(count))
                assert len(ranges) <= parts
                assert all(a < b for a, b in ranges)
                assert all(a % multiple == 0 for a, _ in ranges)
                sizes = [-(-b // multiple) - a // multiple for a, b in ranges]
                assert not sizes or max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_exception_in_a_task_reaches_the_caller(bad: int) -> None:
    srnn.set_num_threads(3)
    done: list[int] = []

    def task(part: int, wait: float) -> None:
        if part == bad:
            raise ArithmeticError(f"part {part}")
        time.sleep(wait)
        done.append(part)

    with pytest.raises(ArithmeticError, match=f"part {bad}"):
        threads.run(task, [(part, 0.2 * (part == (bad + 1) % 3)) for part in range(3)])
    assert sorted(done) == sorted({0, 1, 2} - {bad}), "a task still runs after the call"
    threads.run(lambda part: done.append(part), [(part,) for part in range(3)])  # the pool still serves
    assert len(done) == 5


def test_the_last_call_is_made_by_the_caller_and_the_others_beside_it() -> None:
    srnn.set_num_threads(3)
    all_there = threading.Barrier(3)
    found: dict[int, int] = {}

    def task(part: int) -> None:
        all_there.wait(30)
        found[part] = threading.get_ident()

    threads.run(task, [(part,) for part in range(3)])
    assert len(set(found.values())) == 3
    assert found[2] == threading.get_ident()


@pytest.mark.parametrize("started", [0, 1, 2])
def test_no_call_is_made_twice_where_threads_cannot_start(started: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit on threads is reached while the pool grows: the caller makes the calls that nobody else makes."""
    srnn.set_num_threads(2 if srnn.get_num_threads() != 2 else 3)
    srnn.set_num_threads(5)  # a new pool
    made, starts, start = [0] * 5, [0], threading.Thread.start

    def limited(thread: threading.Thread) -> None:
        starts[0] += 1
        if starts[0] > started:
            raise RuntimeError("can't start new thread")
        start(thread)

    def task(part: int) -> None:
        time.sleep(0.02)
        made[part] += 1

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", limited)
        threads.run(task, [(part,) for part in range(5)])
        assert made == [1] * 5
        time.sleep(0.2)
    all_there = threading.Barrier(5)
    threads.run(lambda: all_there.wait(10), [()] * 5)  # now they can, and nothing is left over
    assert made == [1] * 5


def test_a_layer_still_computes_when_the_interpreter_ends() -> None:
    program = (
        "import atexit\n"
        "srnn.set_num_threads(3)\n"
        "layer, x = srnn.LSTM(71, 101, backend='numba'), np.ones((31, 23, 71), np.float32)\n"
        "want = layer(x)[0]\n"
        "atexit.register(lambda: print((layer(x)[0] == want).all()))"
    )
    done = from_environment(None, program)
    assert done.stdout == "True\n", done.stderr


# --- threads that are busy, and calls that end early


def test_no_meeting_waits_for_another_callers_work() -> None:
    srnn.set_num_threads(3)
    go, begun = threading.Event(), threading.Barrier(3)

    def busy() -> None:
        begun.wait(10)
        go.wait(10)

    other = threading.Thread(target=threads.run, args=(busy, [()] * 3))
    other.start()
    while threads._pool is None or threads._pool.free() > 0:
        time.sleep(0.001)
    called: list[int] = []
    assert not threads.run_together(called.append, [(1,), (2,), (3,)], lambda: None)
    assert called == []
    go.set()
    other.join(10)
    assert threads.run_together(called.append, [(1,), (2,), (3,)], lambda: None)
    assert sorted(called) == [1, 2, 3]


def test_what_has_not_begun_when_handing_out_is_interrupted_never_does(monkeypatch: pytest.MonkeyPatch) -> None:
    srnn.set_num_threads(2)
    begun, made, puts, put = threading.Event(), [], [0], threads._Pool.put

    def task(part: int) -> None:
        begun.set()
        time.sleep(0.1)
        made.append(part)

    def interrupted(pool: threads._Pool, job: threads._Job) -> None:
        puts[0] += 1
        if puts[0] == 3:
            raise KeyboardInterrupt
        put(pool, job)
        begun.wait(10)

    with monkeypatch.context() as patch:
        patch.setattr(threads._Pool, "put", interrupted)
        with pytest.raises(KeyboardInterrupt):
            threads.run(task, [(part,) for part in range(4)])
    assert made == [0], "the call returned before its thread had ended, or began what was left"
    threads.run(task, [(5,), (6,)])
    assert sorted(made) == [0, 5, 6]
    assert threads._pool is not None
    assert threads._pool.free() == 1


@pytest.mark.parametrize(("text", "most"), [("150000 100000", 2), ("1000 100000", 1), ("max 100000", None), ("", None)])
def test_a_containers_quota_counts(
    text: str, most: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "none")
    all_cores = threads.usable_cores()
    (tmp_path / "cpu.max").write_text(text, encoding="ascii")
    monkeypatch.setattr(threads, "QUOTA", tmp_path / "cpu.max")
    assert threads.usable_cores() == (all_cores if most is None else min(all_cores, most))
