"""Threads that wait for each other always leave: whoever fails, forks, interrupts, ends, or has no core to run on.

Each program runs in a process of its own with a time limit, so that a deadlock is a failure.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numba
import numpy as np
import pytest

from scratchrnn.kernels.cpu.barrier import NOBODY, Meeting, meet
from scratchrnn.kernels.cpu.jit import OPTIONS

ROOT = Path(__file__).resolve().parents[1]

# layers that share units, what one thread computes with them, and how often threads met
PROLOGUE = """
import os, signal, sys, threading, time
import numpy as np
import scratchrnn as srnn
from scratchrnn.kernels.cpu import plan, threads

plan.LEAST_WORK = plan.LEAST_STEP = 1
plan.FEW_SAMPLES = 1000
met = {True: 0, False: 0}
run_together = threads.run_together

def counted(*arguments):
    done = run_together(*arguments)
    met[done] += 1
    return done

threads.run_together = counted
rng = np.random.default_rng(0)
T, B, I, H = 23, 3, 5, 133
x = rng.standard_normal((T, B, I)).astype(np.float32)
layers = [srnn.LSTM(I, H, rng=rng), srnn.RNN(I, H, rng=rng), srnn.RNN(I, H, nonlinearity="relu", rng=rng)]

def everything(layer, lengths=None):
    output, _ = layer(x, lengths=lengths)
    trace = layer.forward(x, lengths=lengths)
    grads = layer.backward(trace, np.ones_like(trace.output))
    return b"".join(a.tobytes() for a in (output, trace.output, trace.a, grads.input, *grads.parameters.values()))

srnn.set_num_threads(1)
lengths = [None, np.array([7, 23, 16])]
cases = [(layer, sizes) for layer in layers for sizes in lengths]
want = [everything(*case) for case in cases]
assert not met[True]

def check():
    for case, expected in zip(cases, want):
        assert everything(*case) == expected, "other bits"

def check_met():
    before = met[True]
    check()
    assert met[True] >= before + 3 * len(cases), "threads did not meet"
"""


def run(program: str, *arguments: str, limit: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program after the prologue; one that takes longer than `limit` seconds is stuck."""
    command = [sys.executable, "-c", PROLOGUE + program, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    """What the programs need, so that their limits are of computing alone."""
    run("srnn.set_num_threads(2)\ncheck_met()", limit=300)


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


PATIENT = """
from scratchrnn.kernels.cpu import barrier, jit
import numba

@numba.njit(**jit.OPTIONS)
def arrive(state, everybody):
    return barrier.meet(state, everybody)

arrive(barrier.Meeting(1).state, 1)
meeting, found = barrier.Meeting(3), []
others = [threading.Thread(target=lambda: found.append(arrive(meeting.state, 3))) for _ in range(2)]
for other in others:
    other.start()
time.sleep(0.3)
assert found == [] and meeting.state[0] == 2, "who came first did not wait"
"""


def test_who_comes_first_waits_for_the_last() -> None:
    run(PATIENT + "found.append(arrive(meeting.state, 3))\n[o.join() for o in others]\nassert found == [True] * 3")


def test_who_waits_is_called_off() -> None:
    run(PATIENT + "meeting.call_off()\n[o.join() for o in others]\nassert found == [False] * 2")


# --- exceptions

FAIL = """
from scratchrnn.kernels.cpu import barrier, jit
import numba

@numba.njit(**jit.OPTIONS)
def arrive(state, everybody):
    return barrier.meet(state, everybody)

arrive(barrier.Meeting(1).state, 1)
bad, meetings, parties = int(sys.argv[1]), int(sys.argv[2]), 3
left = []

def fail():
    raise MemoryError("no room")

def calls(part, meeting):
    arrivals = [(arrive, (meeting.state, n * parties)) for n in range(1, 5)]
    return (*arrivals[:meetings], (fail, ())) if part.unit == bad else (*arrivals, (left.append, (part.unit,)))

srnn.set_num_threads(parties)
try:
    plan.run([plan.Part(0, 1, unit, 1) for unit in range(parties)], [], calls)
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
    run(FAIL, str(bad), str(meetings), limit=15)


LAYER_FAILS = """

def failing(do, bad):
    def one(*calls):
        if calls[-1][1][-2] == bad:  # its first unit
            raise MemoryError("no room")
        do(*calls)
    return one

srnn.set_num_threads(3)
do = plan._do
units = [p.unit for p in plan.ranges_of_units(B, H, 3, 10**9, 16)]
for bad in units:
    plan._do = failing(do, bad)
    for layer in layers:
        for use in (lambda: layer(x), lambda: layer.forward(x)):
            try:
                use()
            except MemoryError:
                pass
            else:
                raise AssertionError("the exception was lost")
    plan._do = do
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
    print("same", met[False] > 0)

srnn.set_num_threads(3)
check_met()
atexit.register(last)
"""
    assert run(program).stdout == "same True\n"


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


# --- interrupts

LONG = """
srnn.set_num_threads(3)
check_met()
long = np.ones((int(sys.argv[1]), 1, I), np.float32)
wide = srnn.LSTM(I, 500, rng=rng)
wide(long[:10])
before = met[True]
interrupted = 0
print("begin", flush=True)
"""


def interrupted(program: str, steps: int, signals: int, pause: float) -> tuple[int, str, str]:
    """Exit code, output and errors of a program that gets SIGINT again and again."""
    with subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + LONG + program, str(steps)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        stuck = threading.Timer(60, process.kill)
        stuck.start()
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "begin\n"
            for _ in range(signals):
                time.sleep(pause)
                if process.poll() is None:
                    process.send_signal(signal.SIGINT)
            out, errors = process.communicate()
        finally:
            stuck.cancel()
            process.kill()
    return process.returncode, out, errors


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_an_interrupt_ends_a_long_call() -> None:
    code, out, errors = interrupted("wide(long)\nprint('not interrupted')", steps=20_000, signals=1, pause=0.3)
    assert (code, out) == (-signal.SIGINT, ""), errors
    assert errors.rstrip().endswith("KeyboardInterrupt")


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_after_an_interrupt_threads_meet_again() -> None:
    program = """
try:
    wide(long)
except KeyboardInterrupt:
    interrupted = 1
check_met()
print(interrupted)
"""
    code, out, errors = interrupted(program, steps=20_000, signals=1, pause=0.3)
    assert (code, out) == (0, "1\n"), errors


@pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")
def test_many_interrupts_at_any_moment() -> None:
    """Wherever one hits: no call hangs, and later calls compute the same bits."""
    program = """
end = time.monotonic() + 4
while time.monotonic() < end:
    try:
        while time.monotonic() < end:
            wide(long)
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
check()
print(interrupted > 50)
"""
    code, out, errors = interrupted(program, steps=20, signals=500, pause=0.005)
    assert (code, out) == (0, "True\n"), errors


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
