"""Programs whose threads share hidden units, each a process of its own with a time limit: a deadlock is a failure."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def compile_first() -> None:
    """Compile what the programs need, so that their limits are of computing alone."""
    run("srnn.set_num_threads(2)\ncheck_met()", limit=300)
