"""Threads change how long a call takes, and nothing else: not a bit of it, and nothing outside of it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn.kernels.cpu import plan, threads

ROOT = Path(__file__).resolve().parents[1]
COUNTS = (1, 2, 3, 4, 7)
T, B, I, H, P = 71, 23, 71, 101, 67  # enough work for seven threads, none of it a whole number of tiles
CELLS = ["tanh", "relu", "lstm", "lstm-projected"]


@pytest.fixture(autouse=True)
def numba_and_threads_as_before() -> Iterator[None]:
    before = srnn.get_num_threads()
    with srnn.use_backend("numba"):
        yield
    srnn.set_num_threads(before)


def layer_of(cell: str, dtype: Any, rng: np.random.Generator) -> srnn.RNN | srnn.LSTM:
    if cell in ("tanh", "relu"):
        return srnn.RNN(I, H, nonlinearity=cell, dtype=dtype, rng=rng)
    return srnn.LSTM(I, H, proj_size=P if cell == "lstm-projected" else 0, dtype=dtype, rng=rng)


def problem(
    layer: srnn.RNN | srnn.LSTM, dtype: Any, rng: np.random.Generator, lengths: bool = False
) -> Callable[[], dict[str, np.ndarray]]:
    """A function that computes everything: inference, trace, gradients, by name."""
    x = rng.standard_normal((T, B, I)).astype(dtype)
    sizes = rng.integers(1, T + 1, B) if lengths else None
    d_output: list[np.ndarray] = []

    def everything() -> dict[str, np.ndarray]:
        output, state = layer(x, lengths=sizes)
        trace = layer.forward(x, lengths=sizes)
        if not d_output:
            d_output.append(rng.standard_normal(trace.output.shape).astype(dtype))
        grads = layer.backward(trace, d_output[0])
        states = state if isinstance(state, tuple) else (state,)
        found: dict[str, Any] = {
            "infer": output,
            "output": trace.output,
            "dx": grads.input,
            "a": trace[0].a,
            "da": grads[0].a,
        }
        found |= {f"state {n}": array for n, array in enumerate(states)}
        found |= {"h": trace[0].h, "dh": grads[0].h}
        if isinstance(layer, srnn.LSTM):
            found |= {"c": trace[0].c, "gates": trace[0].gates, "dc": grads[0].c}
        return found | {f"d{name}": gradient for name, gradient in grads.parameters.items()}

    return everything


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray], when: str) -> None:
    assert got.keys() == want.keys()
    wrong = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not wrong, f"{when}: other bits in {', '.join(wrong)}"
    assert all(np.isfinite(array).all() for array in want.values())


class Recorder:
    """Stands in for threads.run: how many parts each call had, and who worked on them."""

    def __init__(self) -> None:
        self.parts: list[int] = []
        self.workers: set[int] = set()
        self._run = threads.run

    def __call__(self, task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
        self.parts.append(len(calls))

        def noted(*arguments: Any) -> None:
            self.workers.add(threading.get_ident())
            task(*arguments)

        self._run(noted, calls)


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    made = Recorder()
    monkeypatch.setattr(plan, "LEAST_WORK", 1_000_000)  # the smallest product here is split, too
    monkeypatch.setattr(threads, "run", made)
    return made


# --- the same bits


@pytest.mark.parametrize("lengths", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_depend_on_the_number_of_threads(
    cell: str, dtype: Any, lengths: bool, rng: np.random.Generator, recorder: Recorder
) -> None:
    everything = problem(layer_of(cell, dtype, rng), dtype, rng, lengths)
    srnn.set_num_threads(1)
    want = everything()
    assert set(recorder.parts) == {1}
    assert recorder.workers == {threading.get_ident()}
    for count in COUNTS:
        recorder.parts.clear()
        recorder.workers.clear()
        srnn.set_num_threads(count)
        assert_same(everything(), want, f"{count} threads")
        assert set(recorder.parts) == {count}, "the work was not split: make it larger"
        assert (len(recorder.workers) > 1) == (count > 1)


@pytest.mark.parametrize("cell", CELLS)
def test_bits_do_not_change_from_run_to_run(cell: str, rng: np.random.Generator) -> None:
    everything = problem(layer_of(cell, np.float32, rng), np.float32, rng, lengths=True)
    srnn.set_num_threads(4)
    want = everything()
    for run in range(8):
        assert_same(everything(), want, f"run {run}")


def test_a_batch_of_one_and_more_threads_than_samples(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    for batch, steps in ((1, 1), (1, 9), (2, 1), (3, 200)):
        for layer in (srnn.RNN(3, 5, rng=rng), srnn.LSTM(3, 5, proj_size=4, rng=rng)):
            x = rng.standard_normal((steps, batch, 3)).astype(np.float32)
            found: list[dict[str, Any]] = []
            for count in COUNTS:
                srnn.set_num_threads(count)
                trace = layer.forward(x)
                grads = layer.backward(trace, np.ones_like(trace.output))
                found.append({"output": trace.output, "infer": layer(x)[0], "dx": grads.input, **grads.parameters})
            for count, got in zip(COUNTS, found, strict=True):
                assert_same(got, found[0], f"{count} threads, batch {batch}, {steps} steps")


# --- many callers


def at_once(calls: list[Callable[[], None]]) -> None:
    """All calls started together, each in a Python thread of its own; the first exception is raised."""
    gate = threading.Barrier(len(calls))

    def start(call: Callable[[], None]) -> None:
        gate.wait(30)
        call()

    with ThreadPoolExecutor(len(calls)) as pool:
        for future in [pool.submit(start, call) for call in calls]:
            future.result(60)


@pytest.mark.parametrize("shared", [True, False], ids=["one layer", "several layers"])
def test_many_callers_get_the_same_bits(shared: bool, rng: np.random.Generator) -> None:
    srnn.set_num_threads(3)
    layers = [layer_of(cell, np.float32, rng) for cell in ("lstm", "tanh", "lstm-projected", "relu")]
    # one layer: the same weights read by all, each caller with inputs of its own
    chosen = [layers[0] if shared else layers[n % len(layers)] for n in range(6)]
    problems = [problem(layer, np.float32, rng, lengths=n % 2 == 1) for n, layer in enumerate(chosen)]
    wanted = [everything() for everything in problems]

    def check(n: int) -> None:
        with srnn.use_backend("numba"):
            for run in range(3):
                assert_same(problems[n](), wanted[n], f"caller {n}, run {run}")

    at_once([lambda n=n: check(n) for n in range(len(problems))])  # type: ignore[misc]


def test_the_number_may_change_while_others_compute(rng: np.random.Generator) -> None:
    everything = problem(layer_of("lstm", np.float32, rng), np.float32, rng)
    want = everything()
    done = threading.Event()

    def change() -> None:
        while not done.is_set():
            for count in COUNTS:
                srnn.set_num_threads(count)

    def compute() -> None:
        try:
            for run in range(8):
                assert_same(everything(), want, f"run {run}")
        finally:
            done.set()

    at_once([change, compute])


# --- fork


FORK = """
import os, sys, threading
import numpy as np
import scratchrnn as srnn
from scratchrnn.kernels.cpu import threads

srnn.set_num_threads(4)
rng = np.random.default_rng(0)
layer = srnn.LSTM(71, 101, rng=rng)
x = rng.standard_normal((31, 23, 71)).astype(np.float32)

def everything():
    trace = layer.forward(x)
    grads = layer.backward(trace, np.ones_like(trace.output))
    return b"".join(a.tobytes() for a in (layer(x)[0], trace.output, grads.input, *grads.parameters.values()))

want = everything()
assert threads._pool is not None, "the parent's pool has not run"
busy = threading.Event()
if sys.argv[1] == "busy":  # others compute in the parent while it forks

    def compute():
        while not busy.is_set():
            everything()

    others = [threading.Thread(target=compute) for _ in range(2)]
    for other in others:
        other.start()
children = []
for _ in range(4):
    pid = os.fork()
    if pid == 0:
        busy.set()
        assert threads._pool is None
        same = everything() == want and threads._pool is not None
        srnn.set_num_threads(2)
        same = same and everything() == want
        sys.exit(0 if same else 3)  # through the interpreter's own end
    children.append(pid)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
busy.set()
assert everything() == want, "the parent after its forks"
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("parent", ["idle", "busy"])
def test_a_forked_child_computes_the_same_bits(parent: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, parent], cwd=ROOT, capture_output=True, text=True, timeout=60
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "[0, 0, 0, 0]\n"), done.stderr


# --- what else a caller sees


def test_an_exception_in_a_kernel_reaches_the_caller_of_a_layer(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = problem(layer_of("tanh", np.float32, rng), np.float32, rng)
    want = everything()
    srnn.set_num_threads(3)
    run = threads.run

    def failing(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
        def one(part: int, *arguments: Any) -> None:
            if part == 0:
                raise MemoryError("no room")
            task(*arguments)

        run(one, [(part, *call) for part, call in enumerate(calls)])

    with monkeypatch.context() as patch:
        patch.setattr(threads, "run", failing)
        with pytest.raises(MemoryError, match="no room"):
            everything()
    assert_same(everything(), want, "after an exception")


def test_other_libraries_keep_their_threads(rng: np.random.Generator) -> None:
    import torch

    limits: list[Callable[[], Any]] = [torch.get_num_threads, torch.get_num_interop_threads]
    try:
        import threadpoolctl  # type: ignore[import-not-found]
    except ImportError:
        pass
    else:
        limits.append(lambda: [(pool["filepath"], pool["num_threads"]) for pool in threadpoolctl.threadpool_info()])
    everything = problem(layer_of("lstm", np.float32, rng), np.float32, rng)
    everything()  # what is loaded is loaded
    before = [limit() for limit in limits]
    for count in COUNTS:
        srnn.set_num_threads(count)
        everything()
        assert [limit() for limit in limits] == before
    kept = torch.get_num_threads()
    ours = srnn.get_num_threads()
    torch.set_num_threads(1)
    assert srnn.get_num_threads() == ours
    torch.set_num_threads(kept)
