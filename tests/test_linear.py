"""Linear and the kernels that it runs on: numbers, bits, threads, and what stands at the edge."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.interop.torch import from_module
from scratchrnn.kernels.cpu import plan, threads
from scratchrnn.models import Bridge, CharModel, EncoderDecoder, LastStep
from scratchrnn.testing import TOLERANCE, assert_close, difference

ROOT = Path(__file__).resolve().parents[1]
NAMES = ("y", "dx", "dweight", "dbias")
# N, I, O: around a register's lanes, its tile and panel, the blocks of sums over k and over rows; each alone 1
SIZES = [
    (0, 3, 6), (1, 1, 1), (1, 5, 7), (2, 129, 65), (5, 3, 6), (8, 33, 1), (16, 7, 67), (17, 70, 9), (31, 1, 66),
    (127, 5, 3), (128, 4, 65), (129, 3, 7), (300, 131, 37), (400, 257, 1),
]  # fmt: skip
DTYPES = [np.float32, np.float64]


class Problem(NamedTuple):
    """Arguments of the kernels, and sums that are there before."""

    x: np.ndarray  # (N, I)
    weight: np.ndarray  # (O, I)
    bias: np.ndarray  # (O,)
    d_output: np.ndarray  # (N, O)
    dweight: np.ndarray  # (O, I)
    dbias: np.ndarray  # (O,)

    @classmethod
    def of(cls, sizes: tuple[int, int, int], dtype: Any, rng: np.random.Generator) -> Problem:
        N, I, O = sizes
        return cls(*(rng.standard_normal(s).astype(dtype) for s in ((N, I), (O, I), (O,), (N, O), (O, I), (O,))))

    def run(self, kernels: Any, parts: Sequence[slice] = (slice(None),)) -> dict[str, np.ndarray]:
        """All results, the rows taken part by part: forward from the first, backward from the last."""
        output, dx = np.empty_like(self.d_output), np.empty_like(self.x)
        dweight, dbias = self.dweight.copy(), self.dbias.copy()
        for part in parts:
            kernels.forward(self.x[part], self.weight, self.bias, output[part])
        for part in reversed(parts):
            kernels.backward(self.x[part], self.weight, self.d_output[part], dx[part], dweight, dbias)
        return dict(zip(NAMES, (output, dx, dweight, dbias), strict=True))

    def torchs(self) -> dict[str, np.ndarray]:
        """The same by torch, in this dtype."""
        x, w, b, *rest = (torch.tensor(a, requires_grad=True) for a in self)
        y = torch.nn.functional.linear(x, w, b)
        (y * rest[0].detach()).sum().backward()
        found = [y.detach(), x.grad, w.grad + rest[1].detach(), b.grad + rest[2].detach()]
        return {name: a.numpy() for name, a in zip(NAMES, found, strict=True)}

    def truth(self) -> dict[str, np.ndarray]:
        """The same by torch in float64."""
        return Problem(*(a.astype(np.float64) for a in self)).torchs()


def allowed(its: np.ndarray, truth: np.ndarray) -> float:
    """How far a float32 result may be from the truth, given torch's."""
    return max(TOLERANCE["float32_growth"] * difference(its, truth).ratio, TOLERANCE["float32_floor"])


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray], when: str) -> None:
    wrong = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not wrong, f"{when}: other bits in {', '.join(wrong)}"


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels(sizes: tuple[int, int, int], dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    problem = Problem.of(sizes, dtype, rng)
    found, truth, its = problem.run(backends.load(each_backend).linear), problem.truth(), problem.torchs()
    for name, got in found.items():
        rel = TOLERANCE["float64"] if dtype is np.float64 else allowed(its[name], truth[name])
        assert got.dtype == dtype
        assert_close(name, got, truth[name], rel=rel, check_dtype=False)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums_are_as_close_to_the_truth_as_torchs(dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    problem = Problem.of((40, 2000, 1100), dtype, rng)
    found, truth, its = problem.run(backends.load(each_backend).linear), problem.truth(), problem.torchs()
    for name in NAMES:
        rel = TOLERANCE["float64"] if dtype is np.float64 else allowed(its[name], truth[name])
        assert_close(name, found[name], truth[name], rel=rel, check_dtype=False)


@pytest.mark.parametrize("n", [3200, 20_000, 100_000])
@pytest.mark.parametrize("sign", ["both", "one"])
def test_gradients_over_many_positions_are_as_close_to_the_truth_as_torchs(
    n: int, sign: str, rng: np.random.Generator, each_backend: str
) -> None:
    x, d = (rng.random((n, k), np.float32) - (0.5 if sign == "both" else 0) for k in (7, 5))
    x, d = x.astype(np.float32), d.astype(np.float32)
    ours, theirs = srnn.Linear(7, 5, rng=rng), torch.nn.Linear(7, 5)
    grads = ours.backward(ours.forward(x), d)
    (theirs(torch.tensor(x)) * torch.tensor(d)).sum().backward()
    wide = d.astype(np.float64)
    for name, truth in (("weight", wide.T @ x), ("bias", wide.sum(axis=0))):
        its = dict(theirs.named_parameters())[name].grad.numpy()
        assert grads.parameters[name].dtype == np.float32
        assert_close(name, grads.parameters[name], truth, rel=allowed(its, truth), check_dtype=False)
    assert_close("dx", grads.input, wide @ ours.weight, rel=TOLERANCE["float32_floor"], check_dtype=False)


def test_sums_of_a_block_are_added_in_float64(rng: np.random.Generator, each_backend: str) -> None:
    block = backends.block_steps(1)
    d = rng.random((block, 5), np.float32)
    ours = srnn.Linear(7, 5, rng=rng)
    grads = ours.backward(ours.forward(np.zeros((block, 7), np.float32)), d)
    assert_close("bias", grads.parameters["bias"], d.sum(axis=0, dtype=np.float64).astype(np.float32), rel=0)


def test_a_million_positions_round_no_further_than_once(rng: np.random.Generator, each_backend: str) -> None:
    x, d = (rng.random((1_000_000, k), np.float32) for k in (3, 2))
    ours = srnn.Linear(3, 2, rng=rng)
    grads = ours.backward(ours.forward(x), d)
    wide = d.astype(np.float64)
    for name, truth in (("weight", wide.T @ x), ("bias", wide.sum(axis=0))):
        assert_close(name, grads.parameters[name], truth, rel=2.0**-23, check_dtype=False)


# --- the same bits


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_may_be_cut_between_blocks(dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    kernels, block = backends.load(each_backend).linear, backends.block_steps(1)
    for n in (3 * block + 1, 3 * block + 50, 2 * block):
        problem = Problem.of((n, 37, 21), dtype, rng)
        want = problem.run(kernels)
        for blocks in (1, 2):
            size = blocks * block
            parts = [slice(first, first + size) for first in range(0, n, size)]
            assert_same(problem.run(kernels, parts), want, f"{n} rows, {blocks} blocks at a time")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_has_the_same_bits_whatever_the_others(dtype: Any, rng: np.random.Generator) -> None:
    kernels = backends.load("numba").linear
    problem = Problem.of((45, 150, 83), dtype, rng)
    want = problem.run(kernels)
    for count in (1, 2, 7, 8, 9, 15, 16, 17, 31):
        parts = [slice(first, first + count) for first in range(0, 45, count)]
        found = problem.run(kernels, parts)
        assert_same({n: found[n] for n in ("y", "dx")}, {n: want[n] for n in ("y", "dx")}, f"{count} rows at a time")


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """In how many parts each call of the kernels ran; even the smallest is shared."""
    parts: list[int] = []
    run = threads.run

    def noted(task: Callable[..., Any], calls: Sequence[tuple[Any, ...]]) -> None:
        parts.append(len(calls))
        run(task, calls)

    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(threads, "run", noted)
    before = srnn.get_num_threads()
    yield parts
    srnn.set_num_threads(before)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("sizes", [(3, 40, 90), (90, 40, 23), (700, 33, 70), (300, 5, 1)], ids=str)
def test_bits_do_not_depend_on_the_number_of_threads(
    sizes: tuple[int, int, int], dtype: Any, rng: np.random.Generator, split: list[int]
) -> None:
    problem, kernels = Problem.of(sizes, dtype, rng), backends.load("numba").linear
    srnn.set_num_threads(1)
    want = problem.run(kernels)
    assert set(split) == {1}
    for count in (2, 3, 4):
        split.clear()
        srnn.set_num_threads(count)
        assert_same(problem.run(kernels), want, f"{count} threads")
        assert split[0] == count, "forward was not split"
        assert max(split[1:]) >= 2, "backward was not split"


def test_small_products_pay_for_no_thread(rng: np.random.Generator, split: list[int]) -> None:
    plan.LEAST_WORK = 3_000_000  # as it is; `split` puts it back
    srnn.set_num_threads(4)
    Problem.of((32, 256, 100), np.float32, rng).run(backends.load("numba").linear)
    assert set(split) == {1}


BLAS = """
import os, time
from pathlib import Path
import numpy as np
import scratchrnn as srnn
from scratchrnn import losses, optim, train

def seconds():  # of all threads but this one: with one of our own, those of NumPy's BLAS
    others = [task for task in Path("/proc/self/task").iterdir() if int(task.name) != os.getpid()]
    ticks = [sum(map(int, (task / "stat").read_text().rpartition(")")[2].split()[11:13])) for task in others]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")

rng = np.random.default_rng(0)
model = srnn.models.CharModel("".join(map(chr, range(33, 133))), "lstm", 256, 64, rng=rng)
rows = srnn.data.ContiguousRows(rng.integers(0, 100, 32 * 301), batch=32)
objective = train.LanguageModel(model, rows, k1=75, dropout=0.1, rng=rng)
trainer = train.Trainer(objective, optim.Adam(model.parameters), steps=4, max_norm=1.0, progress=False)
updates = iter(trainer)
next(updates)  # loads libraries, whose threads wake once
time.sleep(0.1)
before = seconds()
for _ in updates:
    pass
trained = seconds()
for _ in range(20):
    rows = np.ones((2000, 500), np.float32) @ np.ones((500, 500), np.float32)
print(trained - before, seconds() - trained > 0)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux's account of each thread's time")
@pytest.mark.skipif(threads.usable_cores() < 2, reason="NumPy's BLAS has one thread on one core")
def test_training_wakes_no_thread_of_numpys_blas() -> None:
    """They would spin on the cores that our kernels need, and decide on the last bits."""
    environment = os.environ | {"SCRATCHRNN_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    environment |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "2")
    done = subprocess.run(
        [sys.executable, "-c", BLAS], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0.0 True\n"


# --- at the edge


@pytest.mark.parametrize("dtype", DTYPES)
def test_arrays_of_any_layout_are_read_and_left_alone(dtype: Any, rng: np.random.Generator, each_backend: str) -> None:
    ours = srnn.Linear(6, 5, dtype=dtype, rng=rng)
    plain = rng.standard_normal((7, 4, 6)).astype(dtype), rng.standard_normal((7, 4, 5)).astype(dtype)
    trace = ours.forward(plain[0])
    grads = ours.backward(trace, plain[1])
    want = {"y": trace.output, "dx": grads.input, **grads.parameters}

    def misaligned(a: np.ndarray) -> np.ndarray:
        made = np.zeros(a.nbytes + 1, np.uint8)[1:].view(a.dtype).reshape(a.shape)
        made[...] = a
        return made

    def read_only(a: np.ndarray) -> np.ndarray:
        made = a.copy()
        made.setflags(write=False)
        return made

    layouts: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "read-only": read_only,
        "every other": lambda a: np.repeat(a, 2, axis=2)[..., ::2],
        "backward": lambda a: a[::-1].copy()[::-1],
        "Fortran": np.asfortranarray,
        "transposed": lambda a: a.transpose(1, 2, 0).copy().transpose(2, 0, 1),
        "misaligned": misaligned,
    }
    for w in ours.parameters.values():
        w.setflags(write=False)
    for name, layout in layouts.items():
        x, d = (layout(a) for a in plain)
        before = x.tobytes(), d.tobytes()
        trace = ours.forward(x)
        grads = ours.backward(trace, d)
        assert_same({"y": trace.output, "dx": grads.input, **grads.parameters}, want, name)
        assert ours(x).tobytes() == want["y"].tobytes()
        assert (x.tobytes(), d.tobytes()) == before
        assert trace.output.flags.c_contiguous


@pytest.mark.parametrize("rows", [3, 40])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_pass_through_as_in_torch(
    value: float, rows: int, rng: np.random.Generator, each_backend: str
) -> None:
    for place in ("x", "weight", "bias", "d_output"):
        problem = Problem.of((rows, 6, 5), np.float64, rng)
        getattr(problem, place)[-1] = value
        getattr(problem, place)[0] = 0  # 0 · inf is nan
        ours = srnn.Linear(6, 5, dtype=np.float64, rng=rng)
        ours.weight, ours.bias = problem.weight, problem.bias
        trace = ours.forward(problem.x)
        grads = ours.backward(trace, problem.d_output)
        found = (trace.output, grads.input, grads.parameters["weight"], grads.parameters["bias"])
        problem.dweight[...], problem.dbias[...] = 0, 0
        for name, got, want in zip(NAMES, found, problem.torchs().values(), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-12, atol=1e-12, err_msg=f"{name} of {value} in {place}")


def test_a_parameter_of_another_shape_is_refused() -> None:
    """Kernels read memory as they are told."""
    for name, wrong in (("weight", np.zeros((5, 3), np.float32)), ("bias", np.zeros(6, np.float64))):
        linear = srnn.Linear(3, 6)
        linear.parameters[name] = wrong
        with pytest.raises((ValueError, TypeError), match=f"{name}: expected"):
            linear(np.zeros((2, 3), np.float32))


def test_a_trace_of_another_dtype_is_refused() -> None:
    trace = srnn.Linear(3, 6).forward(np.zeros((2, 3), np.float32))
    with pytest.raises(ValueError, match=r"trace: expected one of .*dtype=float64\); got .* another size or dtype"):
        srnn.Linear(3, 6, dtype=np.float64).backward(trace, np.zeros((2, 6)))


# --- which backend


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the backends that were loaded, one for each time; "other" computes as "numpy" does."""
    loaded: list[str] = []
    load = backends.load

    def noted(name: str | None = None) -> backends.Kernels:
        kernels = load(name)
        loaded.append(kernels.name)
        return kernels

    monkeypatch.setitem(backends.REGISTRY, "other", dataclasses.replace(backends.REGISTRY["numpy"], name="other"))
    monkeypatch.setattr(backends, "load", noted)
    return loaded


def test_the_choice_of_a_layer_beats_the_context_and_backward_goes_where_forward_was(used: list[str]) -> None:
    x, d = np.ones((2, 3), np.float32), np.ones((2, 6), np.float32)
    layer = srnn.Linear(3, 6)
    with srnn.use_backend("other"):
        assert srnn.Linear(3, 6, backend="numpy").forward(x).backend == "numpy"
        trace = layer.forward(x)
    assert trace.backend == "other"
    used.clear()
    layer.backward(trace, d)
    assert used == ["other"]
    assert layer.forward(x).backend == backends.DEFAULT
    assert "backend" not in layer.config()
    assert pickle.loads(pickle.dumps(trace)).backend == "other"
    with pytest.raises(ValueError, match="backend: unknown name 'abacus'; known: "):
        srnn.Linear(3, 6, backend="abacus")
    assert from_module(torch.nn.Linear(3, 6), backend="other").backend == "other"


def test_models_run_wholly_on_the_backend_of_their_layers(used: list[str], rng: np.random.Generator) -> None:
    char = CharModel("abcde", "lstm", 6, 4, backend="other", rng=rng)
    codes = rng.integers(0, 5, (7, 3))
    char.backward(char.forward(codes), np.ones((7, 3, 5), np.float32))
    char(codes)
    last = LastStep(srnn.Zoneout(srnn.LSTM(4, 6, backend="other", rng=rng), 0.1, 0.1), 2, rng=rng)
    x = rng.standard_normal((7, 3, 4)).astype(np.float32)
    last.backward(last.forward(x), np.ones((3, 2), np.float32))
    last(x)
    layers = (cell(4, h, backend="other", rng=rng) for cell, h in ((srnn.RNN, 6), (srnn.LSTM, 5)))
    both = EncoderDecoder(*layers, source_size=5, target_size=5, rng=rng)
    both.backward(both.forward(codes, codes), np.ones((7, 3, 5), np.float32))
    both.greedy(codes, start=0, stop=1, max_length=2)
    bridge = Bridge(srnn.LSTM(4, 6), srnn.LSTM(4, 5), backend="other", rng=rng)
    bridge((np.ones((1, 3, 6), np.float32),) * 2)
    assert set(used) == {"other"}
