"""Interrupts at any moment of a call whose threads meet: it ends, and later calls compute the same bits."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.meetings import PROLOGUE, ROOT, compile_first

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT cannot be sent to one process")


@pytest.fixture(scope="module", autouse=True)
def compiled() -> None:
    compile_first()


LONG = """
srnn.set_num_threads(3)
check_met()
long = np.ones((int(sys.argv[1]), 1, I), np.float32)
wide = srnn.LSTM(I, 500, rng=rng)
wide(long[:10])
before = met[True]
interrupted = 0
"""
BEGIN = 'print("begin", flush=True)\n'


def interrupted(program: str, steps: int, signals: int, pause: float) -> tuple[int, str, str]:
    """Exit code, output and errors of a program that gets SIGINT again and again."""
    with subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + LONG + program.replace("# begin\n", BEGIN), str(steps)],
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


def test_an_interrupt_ends_a_long_call() -> None:
    code, out, errors = interrupted("# begin\nwide(long)\nprint('not interrupted')", steps=20_000, signals=1, pause=0.3)
    assert (code, out) == (-signal.SIGINT, ""), errors
    assert errors.rstrip().endswith("KeyboardInterrupt")


def test_after_an_interrupt_threads_meet_again() -> None:
    program = """# begin
try:
    wide(long)
except KeyboardInterrupt:
    interrupted = 1
check_met()
print(interrupted)
"""
    code, out, errors = interrupted(program, steps=20_000, signals=1, pause=0.3)
    assert (code, out) == (0, "1\n"), errors


def test_many_interrupts_at_any_moment() -> None:
    """Wherever one hits: no call hangs, and later calls compute the same bits."""
    program = """
inside = False

def stop(*_):
    # within the call alone: this program is not to end
    global inside
    if inside:
        inside = False
        raise KeyboardInterrupt

signal.signal(signal.SIGINT, stop)
# begin
end = time.monotonic() + 4
while time.monotonic() < end:
    try:
        inside = True
        wide(long)
        inside = False
    except KeyboardInterrupt:
        interrupted += 1
signal.signal(signal.SIGINT, signal.SIG_IGN)
check_met()
print(interrupted > 50)
"""
    code, out, errors = interrupted(program, steps=20, signals=500, pause=0.005)
    assert (code, out) == (0, "True\n"), errors
