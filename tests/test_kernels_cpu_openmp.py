"""Calls handed to torch's OpenMP threads: each made once, errors and interrupts raised, no thread waits in vain."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest

from scratchrnn.interop import torch as interop
from scratchrnn.interop.torch import threads as of_torch
from scratchrnn.kernels.cpu import plan, threads
from scratchrnn.kernels.cpu.openmp import Team, team_of

torch = pytest.importorskip("torch")

ROOT = Path(__file__).resolve().parents[1]
OPENMP = of_torch.openmp_path()
needs_openmp = pytest.mark.skipif(
    OPENMP is None or team_of(OPENMP) is None, reason="this build of torch has no OpenMP that can be called"
)


@pytest.fixture(autouse=True)
def four() -> Iterator[None]:
    """torch uses four threads, however many cores there are, and we might use more."""
    before, ours = torch.get_num_threads(), threads.get_num_threads()
    torch.set_num_threads(4)
    threads.set_num_threads(8)
    yield
    torch.set_num_threads(before)
    threads.set_num_threads(ours)


@pytest.fixture
def team() -> Team:
    assert OPENMP is not None
    found = team_of(OPENMP)
    assert found is not None
    return found


class Flag:
    """Tasks that wait for each other, or for being called off."""

    def __init__(self, parties: int) -> None:
        self.parties, self.there = parties, list[int]()
        self.off = threading.Event()

    def meet(self, number: int) -> None:
        self.there.append(number)
        limit = time.monotonic() + 30
        while len(self.there) < self.parties and not self.off.is_set():
            assert time.monotonic() < limit, "not everybody came"
            time.sleep(0)


@needs_openmp
@pytest.mark.parametrize("count", [2, 3, 4])
def test_each_call_in_a_thread_of_its_own(team: Team, count: int) -> None:
    for _ in range(20):
        flag, who = Flag(count), list[int]()

        def task(number: int, flag: Flag = flag, who: list[int] = who) -> None:
            who.append(threading.get_ident())
            flag.meet(number)

        team.run(task, [(n,) for n in range(count)])
        assert sorted(flag.there) == list(range(count))
        assert len(set(who)) == count


@needs_openmp
def test_errors_are_raised_once_all_have_ended(team: Team) -> None:
    ended: list[int] = []

    def task(number: int) -> None:
        if number == 1:
            raise ValueError("the second")
        time.sleep(0.05)
        ended.append(number)

    with pytest.raises(ValueError, match="the second"):
        team.run(task, [(n,) for n in range(4)])
    assert sorted(ended) == [0, 2, 3]


@needs_openmp
def test_an_error_calls_the_others_off(team: Team) -> None:
    flag = Flag(4)

    def task(number: int) -> None:
        if number == 2:
            raise ValueError("the third")
        flag.meet(number)

    with pytest.raises(ValueError, match="the third"):
        team.run_together(task, [(n,) for n in range(4)], flag.off.set)


@needs_openmp
def test_an_error_that_is_gone_holds_nothing(team: Team) -> None:
    def task(_: Flag) -> None:
        raise ValueError("each")

    gc.disable()  # a cycle would keep the call's arrays until it runs
    try:
        for run in (team.run, lambda task, calls: team.run_together(task, calls, lambda: None)):
            flag = Flag(2)
            gone = weakref.ref(flag)
            with contextlib.suppress(ValueError):
                run(task, [(flag,), (flag,)])
            del flag
            assert gone() is None
    finally:
        gc.enable()


@needs_openmp
def test_within_a_loop_of_the_library(team: Team) -> None:
    """Its threads are busy: the calls are made one after the other, and those that must be together not at all."""
    made: list[int] = []
    together: list[bool] = []

    def nested(_: int) -> None:
        team.run(made.append, [(n,) for n in range(3)])
        together.append(team.run_together(made.append, [(9,), (9,)], lambda: None))

    team.run(nested, [(0,), (1,)])
    assert sorted(made) == [0, 0, 1, 1, 2, 2]
    assert together == [False, False]


@needs_openmp
def test_more_calls_than_threads(team: Team) -> None:
    torch.set_num_threads(2)
    made: list[int] = []
    team.run(made.append, [(n,) for n in range(5)])
    assert sorted(made) == [0, 1, 2, 3, 4]
    assert not team.run_together(made.append, [(9,)] * 5, lambda: None)
    assert 9 not in made


def test_a_library_without_openmp() -> None:
    name = ctypes.util.find_library("z" if sys.platform != "darwin" else "System")
    if name is None:
        pytest.skip("no such library here")
    assert team_of(Path(name)) is None


def where(number: int, seen: list[str]) -> None:
    seen.append(threading.current_thread().name)
    time.sleep(0.02)


@needs_openmp
def test_who_computes_while_threads_are_lent(team: Team) -> None:
    def names(calls: int) -> set[str]:
        seen: list[str] = []
        threads.run(where, [(n, seen) for n in range(calls)])
        assert len(seen) == calls
        return {"pool" if name == "scratchrnn" else "team or caller" for name in seen}

    with threads.lend(3, team):
        assert threads.get_num_threads() == 3
        assert names(3) == {"team or caller"}
        torch.set_num_threads(2)  # torch uses fewer: the others would be strangers to it
        assert "pool" in names(3)
        assert names(2) == {"team or caller"}
    with threads.lend(2, None):
        assert threads.get_num_threads() == 2
        assert "pool" in names(2)
    threads.set_num_threads(2)
    with threads.lend(3, team):
        assert threads.get_num_threads() == 2


@needs_openmp
def test_an_error_of_lent_threads_calls_the_others_off(team: Team) -> None:
    flag = Flag(4)

    def task(number: int) -> None:
        if number == 2:
            raise ValueError("the third")
        flag.meet(number)

    with threads.lend(4, team):
        with pytest.raises(ValueError, match="the third"):
            threads.run_together(task, [(n,) for n in range(4)], flag.off.set)
        again = Flag(4)
        assert threads.run_together(again.meet, [(n,) for n in range(4)], again.off.set)  # the turn was given back


@needs_openmp
def test_lent_threads_are_one_threads_own(team: Team) -> None:
    seen: list[int] = []
    with threads.lend(7, team):
        other = threading.Thread(target=lambda: seen.append(threads.get_num_threads()))
        other.start()
        other.join()
    assert seen == [threads.get_num_threads()]


@pytest.mark.skipif(sys.platform == "win32", reason="no interval timers")
def test_an_interrupt_leaves_nothing_lent() -> None:
    text = """
import random
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
random.seed(0)
own = threads.get_num_threads()
rung = 0
for n in range(3000):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-6, 3e-5))
        while True:
            with threads.lend(7, None):
                pass
    except Alarm as error:
        rung += 1
    with threads.lend(5, None):
        pass
    assert threads.get_num_threads() == own
print(rung)
"""
    assert program(text) == "3000\n"


@pytest.mark.parametrize("n", [1, 2, 4])
def test_modules_use_torchs_number_of_threads(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    run = Team.run
    monkeypatch.setattr(Team, "run", lambda team, task, calls: (used.append(len(calls)), run(team, task, calls))[1])
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    torch.set_num_threads(n)
    torch.manual_seed(0)
    module, x = interop.LSTM(6, 16, 2), torch.randn(9, 8, 6, requires_grad=True)
    output, _ = module(x)
    output.sum().backward()
    module.eval()
    with torch.no_grad():
        module(x)
    assert set(used) == (set() if n == 1 or OPENMP is None else {n})
    used.clear()
    threads.set_num_threads(2)  # a limit of ours holds, too
    module(x)
    assert set(used) == (set() if n == 1 or OPENMP is None else {2})


def test_bits_are_those_of_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(plan, "LEAST_STEP", 1)
    torch.manual_seed(0)
    for batch in (2, 16):  # threads share units, or samples
        module, x = interop.LSTM(6, 40, 2, bidirectional=True), torch.randn(9, batch, 6)
        found = []
        for n in (1, 2, 3, 4):
            torch.set_num_threads(n)
            module.zero_grad()
            output, _ = module(x)
            output.square().sum().backward()
            found.append([output.detach().numpy().tobytes(), *(p.grad.numpy().tobytes() for p in module.parameters())])
        assert found.count(found[0]) == 4


PROGRAM = """
import os, signal, sys, threading
import numpy as np, torch
import scratchrnn as srnn
from scratchrnn.interop.torch import LSTM, threads as of_torch
from scratchrnn.kernels.cpu import openmp, plan, threads

plan.LEAST_WORK = plan.LEAST_STEP = 1
torch.set_num_threads(4)
srnn.set_num_threads(8)
torch.manual_seed(0)
team = openmp.team_of(of_torch.openmp_path())
few, many = LSTM(5, 133), LSTM(5, 133)
# threads share units, or samples; small, or torch's own loops would hang in a forked child
inputs = [torch.randn(40, 1, 5), torch.randn(20, 8, 5)]

def everything():
    found = b""
    for x in inputs:
        few.zero_grad()
        output, _ = few(x)
        output.sum().backward()
        found += output.detach().numpy().tobytes() + few.weight_hh_l0.grad.numpy().tobytes()
    return found

want = everything()
"""


ALARM = """
import random, time
unseen = []
sys.unraisablehook = unseen.append
class Alarm(Exception): pass
def ring(*_): raise Alarm
signal.signal(signal.SIGALRM, ring)
random.seed(0)
rung = whole = 0
"""  # a signal whose handler raises; what is raised where nobody can catch it


def program(text: str, **variables: str) -> str:
    """Output of a program; a deadlock is a failure."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM + text], cwd=ROOT, env=os.environ | {"OMP_WAIT_POLICY": "passive"} | variables,
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert [line for line in ended.stderr.splitlines() if not line.startswith("scratchrnn: compil")] == []
    return ended.stdout


@needs_openmp
@pytest.mark.skipif(sys.platform == "win32", reason="no os.fork")
def test_a_forked_child_has_threads_of_its_own() -> None:
    text = """
assert team.size() == 4
child = os.fork()
if child == 0:
    signal.alarm(60)
    assert team.size() == 0
    os._exit(0 if everything() == want else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), everything() == want)
"""
    assert program(text) == "0 True\n"


@needs_openmp
@pytest.mark.skipif(sys.platform == "win32", reason="no interval timers")
def test_interrupts_at_any_moment() -> None:
    """A signal's error comes out of the call that it met; nothing hangs, is lost, or computes other bits."""
    text = """
for n in range(800):
    made = []
    together = n % 2
    state = threading.Event()
    there = []
    def task(number):
        made.append(number)
        if together:
            there.append(number)
            while len(there) < 4 and not state.is_set():
                time.sleep(0)
    try:
        signal.setitimer(signal.ITIMER_REAL, 10 ** random.uniform(-6, -2))
        if together:
            team.run_together(task, [(k,) for k in range(4)], state.set)
        else:
            team.run(task, [(k,) for k in range(4)])
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert sorted(made) == [0, 1, 2, 3], made
        whole += 1
    except Alarm:
        rung += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
assert everything() == want
print(rung > 50, whole > 50, unseen)
"""
    assert program(ALARM + text) == "True True []\n"


@needs_openmp
def test_several_callers_at_once() -> None:
    text = """
import copy
found = []
def work():
    torch.set_num_threads(4)
    mine = copy.deepcopy(few)
    for _ in range(5):
        mine.zero_grad()
        output, _ = mine(inputs[0])
        output.sum().backward()
        found.append(output.detach().numpy().tobytes() + mine.weight_hh_l0.grad.numpy().tobytes())
callers = [threading.Thread(target=work) for _ in range(4)]
for caller in callers: caller.start()
for caller in callers: caller.join()
print(len(found), len(set(found)), want.startswith(found[0]))
"""
    assert program(text) == "20 1 True\n"


@needs_openmp
def test_another_openmp_in_the_place_of_torchs(tmp_path: Path) -> None:
    """LD_PRELOAD, as for Intel's: the team is the one that torch computes with."""
    found = sorted(Path(torch.__file__).parent.glob("lib/libgomp*"))
    if not found:
        pytest.skip("this build of torch brings no libgomp that could be loaded a second time")
    other = tmp_path / "libother.so"
    other.write_bytes(found[0].read_bytes().replace(b"libgomp", b"libgimp"))  # or the loader takes it for torch's
    text = """
for n in (3, 2):
    torch.set_num_threads(n)
    print(team.size())
print(sum("libother" in line or "libgomp" in line for line in {l.split()[-1] for l in open("/proc/self/maps")}))
"""
    assert program(text, LD_PRELOAD=str(other)) == "3\n2\n2\n"


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_elsewhere_threads_are_our_own(platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert of_torch.openmp_path.__wrapped__() is None


@needs_openmp
def test_at_the_interpreters_end() -> None:
    text = """
import atexit
atexit.register(lambda: print(everything() == want, flush=True))
class Late:
    def __del__(self):
        print(team.size(), everything() == want, flush=True)
sys.late = Late()
"""
    assert program(text).splitlines()[0] == "True"
