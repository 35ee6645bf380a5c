"""Threads that wait for each other always leave: whoever fails, forks, ends, or has no core to run on."""

from __future__ import annotations

import os

import numba
import numpy as np
import pytest

from scratchrnn.kernels.cpu.barrier import NOBODY, Meeting, meet
from scratchrnn.kernels.cpu.jit import OPTIONS
from tests.meetings import compile_first, run


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_first()


# --- the counter


@numba.njit(**OPTIONS)
def arrive(state, everybody):  # type: ignore[no-untyped-def]
    return meet(state, everybody)


def test_who_is_last_does_not_wait() -> None:
    meeting = Meeting(1)
    for round_ in range(1, 5):
        assert arrive(meeting.state, round_)
    assert meeting.state[0] == 4
    assert np.count_nonzero(meeting.state) == 1
    assert (NOBODY.parties, NOBODY.state.any()) == (1, False), "whoever is alone does not arrive"


def test_who_is_called_off_leaves() -> None:
    meeting = Meeting(2)
    meeting.call_off()
    assert not arrive(meeting.state, 2)


ARRIVE = """
from scratchrnn.kernels.cpu import barrier, jit
import numba

@numba.njit(**jit.OPTIONS)
def arrive(state, everybody):
    return barrier.meet(state, everybody)

arrive(barrier.Meeting(1).state, 1)
"""

PATIENT = """
meeting, found = barrier.Meeting(3), []
others = [threading.Thread(target=lambda: found.append(arrive(meeting.state, 3))) for _ in range(2)]
for other in others:
    other.start()
time.sleep(0.3)
assert found == [] and meeting.state[0] == 2, "who came first did not wait"
"""


def test_who_comes_first_waits_for_the_last() -> None:
    run(
        ARRIVE
        + PATIENT
        + "found.append(arrive(meeting.state, 3))\n[o.join() for o in others]\nassert found == [True] * 3"
    )


def test_who_waits_is_called_off() -> None:
    run(ARRIVE + PATIENT + "meeting.call_off()\n[o.join() for o in others]\nassert found == [False] * 2")


# --- exceptions

FAIL = """
bad, meetings, parties = int(sys.argv[1]), int(sys.argv[2]), 3
left = []
def fail():
    raise MemoryError("no room")

def calls(part, meeting):
    arrivals = [(arrive, (meeting.state, n * parties)) for n in range(1, 5)]
    return (*arrivals[:meetings], (fail, ())) if part.unit == bad else (*arrivals, (left.append, (part.unit,)))

srnn.set_num_threads(parties)
try:
    plan.run([plan.Part(0, 1, unit, 1) for unit in range(parties)], 0, 1, parties, calls)
except MemoryError as error:
    assert str(error) == "no room"
else:
    raise AssertionError("the exception was lost")
assert sorted(left) == [unit for unit in range(parties) if unit != bad], "a task still runs after the call"
check_met()
"""


@pytest.mark.parametrize("meetings", [0, 2], ids=["before all are there", "later"])
@pytest.mark.parametrize("bad", [0, 1, 2])
def test_an_exception_calls_the_others_off_and_reaches_the_caller(bad: int, meetings: int) -> None:
    run(ARRIVE + FAIL, str(bad), str(meetings), limit=15)


LAYER_FAILS = """

def failing(do, bad):
    def one(*calls):
        if calls[-1][1][-2] == bad:  # its first unit
            raise MemoryError("no room")
        do(*calls)
    return one

srnn.set_num_threads(3)
do = plan.do
units = [p.unit for p in plan.ranges_of_units(B, H, 3, 10**9, 16)]
for bad in units:
    plan.do = failing(do, bad)
    for layer in layers:
        for use in (lambda: layer(x), lambda: layer.forward(x)):
            try:
                use()
            except MemoryError:
                pass
            else:
                raise AssertionError("the exception was lost")
    plan.do = do
    check_met()
"""


def test_an_exception_reaches_the_caller_of_a_layer() -> None:
    run(LAYER_FAILS, limit=15)


# --- many callers

MANY = """
end = time.monotonic() + float(sys.argv[1])
wrong, rounds = [], [0] * 4

def compute(n):
    try:
        while time.monotonic() < end:
            for k in range(len(cases)):
                k = (k + n) % len(cases)
                if everything(*cases[k]) != want[k]:
                    wrong.append(k)
            rounds[n] += 1
    except BaseException as error:
        wrong.append(error)

def change():
    while time.monotonic() < end:
        for count in (1, 2, 3, 4, 7):
            srnn.set_num_threads(count)
            time.sleep(0.0003)

workers = [threading.Thread(target=compute, args=(n,)) for n in range(4)] + [threading.Thread(target=change)]
for worker in workers:
    worker.start()
for worker in workers:
    worker.join()
assert not wrong, wrong
assert min(rounds) > 0, rounds
assert met[True] > 20 and met[False] > 20, met
srnn.set_num_threads(3)
check_met()
"""


def test_many_callers_while_the_number_changes() -> None:
    run(MANY, "10", limit=60)


# --- fork

FORK = """
srnn.set_num_threads(4)
check_met()
stop = threading.Event()
wrong = []

def compute(n):
    while not stop.is_set():
        if everything(*cases[n]) != want[n]:
            wrong.append(n)

others = [threading.Thread(target=compute, args=(n,)) for n in range(2)] if sys.argv[1] == "busy" else []
for other in others:
    other.start()
codes = []
for _ in range(6):
    before = met[True] + met[False]
    while others and met[True] + met[False] == before:
        pass  # they are in the middle of it
    pid = os.fork()
    if pid == 0:
        stop.set()
        check_met()
        srnn.set_num_threads(2)
        check_met()
        sys.exit(0)  # through the interpreter's own end
    codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
for other in others:
    other.join()
assert not wrong
check_met()
assert codes == [0] * 6, codes
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_a_forked_child_meets_its_own_threads(parent: str) -> None:
    run(FORK, parent)


# --- the end


def test_computing_while_the_interpreter_ends() -> None:
    program = """
import atexit

def last():
    check()
    print("same")

srnn.set_num_threads(3)
check_met()
atexit.register(last)
"""
    assert run(program).stdout == "same\n"


def test_ending_while_others_compute() -> None:
    program = """
srnn.set_num_threads(3)
check_met()
begun = threading.Barrier(3)

def compute(n):
    begun.wait()
    while True:
        everything(*cases[n])

for n in range(2):
    threading.Thread(target=compute, args=(n,), daemon=True).start()
begun.wait()
time.sleep(0.2)
print("end")
"""
    for _ in range(3):
        assert run(program, limit=15).stdout == "end\n"


# --- more threads than cores

CROWDED = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
srnn.set_num_threads(8)
check_met()
long = np.ones((4000, 1, I), np.float32)
began = time.monotonic()
layers[0](long)
print(time.monotonic() - began)
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system ties no process to a core")
def test_eight_threads_on_one_core() -> None:
    """Who waits gives its core away: else each of 4000 steps takes some eight slices of time, a minute in all."""
    assert float(run(CROWDED, limit=60).stdout) < 15
