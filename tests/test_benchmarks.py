"""The benchmarks' own honesty: counts, quantiles, a wrong engine that must not be timed, and one run end to end."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

# programs, not a package: they import each other by plain names, as `python benchmarks/run.py` does
cases, compare, engines, memory, others, rows, timing, verify, worker = map(
    importlib.import_module,
    ["cases", "compare", "engines", "memory", "others", "rows", "timing", "verify", "worker"],
)
roofline = importlib.import_module("roofline")

SHAPE = (2, 5, 3, 4)  # B, T, D, H


def case(cell: str = "lstm", mode: str = "train", dtype: str = "float32", shape: Any = SHAPE) -> Any:
    return cases.Case(*shape, cell, mode, dtype)


ALL = [case(cell, mode, dtype) for cell in cases.CELLS for mode in cases.MODES for dtype in cases.DTYPES]


def results_of(c: Any, engine: str = "scratchrnn-numpy") -> dict[str, Any]:
    e = engines.REGISTRY[engine]
    e.load(1)
    call, collect = e.prepare(c, cases.inputs(c))
    return dict(collect(call()))


# --- counts


def counted_products(c: Any) -> int:
    """Every multiply-add of every product, one by one, times 2."""
    count = 0

    def product(rows: int, inner: int, columns: int) -> None:
        nonlocal count
        for _ in range(rows):
            for _ in range(columns):
                for _ in range(inner):
                    count += 2

    for _ in range(c.T):
        product(c.B, c.D, c.rows)  # x_t W_ih
        product(c.B, c.H, c.rows)  # h_{t-1} W_hh
        if c.mode != "infer":
            product(c.B, c.rows, c.D)  # dx_t
            product(c.B, c.rows, c.H)  # dh_{t-1}
            product(c.rows, c.B, c.D)  # dW_ih
            product(c.rows, c.B, c.H)  # dW_hh
    return count


@pytest.mark.parametrize("c", ALL, ids=str)
def test_flops_are_those_counted_one_by_one(c: Any) -> None:
    assert cases.flops(c) == counted_products(c)


@pytest.mark.parametrize("c", ALL, ids=str)
def test_bytes_are_those_of_the_arrays_that_go_in_and_come_out(c: Any) -> None:
    given, out = cases.inputs(c), results_of(c)
    arrays = [given.x, given.h_0, *given.weights.values()] + ([] if given.c_0 is None else [given.c_0])
    if c.mode != "infer":
        arrays += [given.d_output, given.d_h_n] + ([] if given.d_c_n is None else [given.d_c_n])
    # the output is a view of h, and a is computed when somebody asks for it
    arrays += [array for name, array in out.items() if name not in ("trace.h", "trace.a")]
    assert cases.least_bytes(c) == sum(array.nbytes for array in arrays)
    grads = [a.nbytes for name, a in out.items() if name.startswith("d_") and not name.startswith("d_trace")]
    assert memory.gradient_bytes(c) == sum(grads)


def test_inputs_are_the_same_numbers_in_both_dtypes_and_all_modes() -> None:
    one, two = cases.inputs(case(mode="infer", dtype="float32")), cases.inputs(case(mode="trace", dtype="float64"))
    np.testing.assert_array_equal(one.x, two.x)
    assert one.x.dtype == np.float32
    assert two.x.dtype == np.float64
    np.testing.assert_array_equal(one.weights["weight_hh_l0"], two.weights["weight_hh_l0"])
    np.testing.assert_array_equal(one.h_0, two.h_0)


# --- verification


@pytest.fixture(scope="module")
def truths(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return verify.Truths(tmp_path_factory.mktemp("truth"))


OFFERED = {"scratchrnn-numpy": cases.MODES, "torch": ("infer", "train"), "torch-loop": ("trace",)}


@pytest.mark.parametrize(
    ("engine", "c"), [(e, c) for e, modes in OFFERED.items() for c in ALL if c.mode in modes], ids=str
)
def test_a_right_engine_passes(c: Any, engine: str, truths: Any) -> None:
    assert engines.REGISTRY[engine].why_not(c) is None
    found = results_of(c, engine)
    error, where = verify.check(c, found, truths.read(truths.write(c), set(found)))
    assert 0 <= error < verify.tolerance(c)
    assert where in found
    assert set(found) >= verify.expected(c)


@pytest.mark.parametrize("c", [case("lstm", "trace"), case("rnn_tanh", "trace", "float64")], ids=str)
def test_each_single_wrong_result_is_refused_by_name(c: Any, truths: Any) -> None:
    right = results_of(c)
    true = truths.read(truths.write(c), set(right))
    for name, array in right.items():
        wrong = array.copy()
        wrong.flat[wrong.size // 2] += 100 * verify.tolerance(c) * np.abs(array).max()
        for planted in (wrong, np.where(np.arange(array.size).reshape(array.shape) == 0, np.nan, array)):
            with pytest.raises(verify.WrongResultError, match=rf"{name}: "):
                verify.check(c, {**right, name: planted.astype(array.dtype)}, true)
        if name in verify.expected(c):
            with pytest.raises(verify.WrongResultError, match=f"missing {name}"):
                verify.check(c, {n: a for n, a in right.items() if n != name}, true)
    other = "float64" if c.dtype == "float32" else "float32"
    with pytest.raises(verify.WrongResultError, match=f"expected dtype {c.dtype}; got {other}"):
        verify.check(c, {**right, "output": right["output"].astype(other)}, true)


class InProcess:
    """Stands in for a worker's process."""

    def __init__(self, engine: str) -> None:
        self.session = worker.Session(engine, 1)
        self.session.load()

    def ask(self, do: str, **arguments: Any) -> Any:
        return getattr(self.session, do)(**arguments)


def test_a_wrong_engine_is_never_timed(monkeypatch: pytest.MonkeyPatch, truths: Any) -> None:
    class Planted(engines.ScratchRNN):
        def prepare(self, c: Any, given: Any) -> Any:
            call, collect = super().prepare(c, given)
            return call, lambda raw: collect(raw) | {"d_bias_hh_l0": collect(raw)["d_bias_hh_l0"] * np.float32(1.001)}

    monkeypatch.setitem(engines.REGISTRY, "planted", Planted("numpy"))
    workers = {name: InProcess(name) for name in ("planted", "scratchrnn-numpy", "torch-loop")}
    found = timing.time_case(case(), workers, truths.write(case()), budget=0.01)
    assert set(found["planted"]) == {"wrong"}
    assert "d_bias_hh_l0" in found["planted"]["wrong"]
    with pytest.raises(RuntimeError, match="no verified call"):
        workers["planted"].ask("round", calls=1, limit=1.0)
    right = found["scratchrnn-numpy"]
    assert 0 < right["p20"] <= right["p50"] <= right["p80"]
    assert right["calls"] >= timing.LEAST_KEPT  # on a busy machine disturbed rounds are left out
    assert right["error"] <= right["tolerance"]
    assert found["torch-loop"] == {"skipped": "no mode train"}


# --- timing


def test_quantiles() -> None:
    q = timing.Quantiles.of([5.0, 1.0, 4.0, 2.0, 3.0, 6.0])
    assert (q.p20, q.p50, q.p80) == pytest.approx((2.0, 3.5, 5.0))
    with pytest.raises(ValueError, match="at least one"):
        timing.Quantiles.of([])


def test_a_plan_has_rounds_enough_and_keeps_the_budget() -> None:
    rounds, calls = timing.plan({"fast": 1e-5, "slow": 3.0}, budget=0.6)
    assert rounds == timing.MOST_ROUNDS
    assert calls["slow"] == 1
    assert rounds * calls["fast"] * 1e-5 <= 0.6
    assert timing.plan({"slow": 3.0}, budget=0.6) == (timing.LEAST_ROUNDS, {"slow": 1})


class Fake:
    """A worker whose calls take as long as told, its threads robbed of their core in the rounds told."""

    def __init__(self, name: str, log: list[str], waited: Any = lambda n: 0.0) -> None:
        self.name, self.log, self.waited = name, log, waited

    def ask(self, do: str, calls: int, limit: float) -> Any:
        self.log.append(self.name)
        share = self.waited(self.log.count(self.name))
        return {"seconds": [9.0 if others.disturbed(share) else 0.01] * calls, "waited": share}


def test_rounds_alternate_between_engines() -> None:
    asked: list[str] = []
    usual = {"a": 0.01, "b": 0.02}
    found = timing.interleaved({name: Fake(name, asked) for name in usual}, usual, budget=0.06)
    assert asked == ["a", "b"] * (len(asked) // 2)
    assert len(asked) == 2 * timing.plan(usual, 0.06)[0]
    assert set(found) == {"a", "b"}


def test_rounds_that_others_disturbed_are_replaced_and_dropped() -> None:
    asked: list[str] = []
    usual = {"a": 0.5, "b": 0.5}  # 5 rounds of one call
    workers = {"a": Fake("a", asked, lambda n: 0.4 if n in (2, 3) else 0.0), "b": Fake("b", asked)}
    figures = timing.interleaved(workers, usual, budget=0.06)["a"].figures()
    assert (figures["rounds"], figures["dropped"]) == (timing.LEAST_ROUNDS, 2)
    assert figures["p80"] == 0.01
    assert figures["waited"] == 0.0


def test_with_too_few_quiet_rounds_all_stay_and_the_row_is_marked() -> None:
    workers = {"a": Fake("a", [], lambda n: 0.0 if n == 1 else 0.4)}
    figures = timing.interleaved(workers, {"a": 0.5}, budget=0.06)["a"].figures()
    assert figures["dropped"] == 0
    assert figures["p50"] == 9.0
    assert rows.disturbed(figures)


def test_without_the_kernels_count_nothing_is_dropped() -> None:
    figures = timing.interleaved({"a": Fake("a", [], lambda n: None)}, {"a": 0.5}, budget=0.06)["a"].figures()
    assert (figures["rounds"], figures["waited"]) == (timing.LEAST_ROUNDS, None)
    assert not rows.disturbed(figures)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel does not count waiting threads")
def test_waiting_for_a_core_is_seen() -> None:
    """Two threads on one core: each waits while the other runs."""
    code = (
        "import os, sys, time; sys.path.insert(0, 'benchmarks'); import others\n"
        "os.sched_setaffinity(0, [min(os.sched_getaffinity(0))]); pid = os.fork()\n"
        "ends = time.perf_counter() + 0.5; before = others.waited()\n"
        "while time.perf_counter() < ends: pass\n"
        "if pid == 0: os._exit(0)\n"
        "os.waitpid(pid, 0); print(others.waited() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) > 0.1


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this kernel does not reset peak memory")
def test_peak_memory_counts_what_a_call_freed_again() -> None:
    def call() -> Any:
        freed = np.ones(48 << 17)  # 48 MiB
        return freed[: 16 << 17] + 1  # 16 MiB

    assert memory.peak_of(call) == pytest.approx(64 << 20, abs=4 << 20)


# --- what is read off the rows


def row(engine: str, p50: float, threads: int = 1, waited: float = 0.0, commit: str = "abc", **of: Any) -> Any:
    c = case(**of)
    return {
        "run": "r", "kind": "time", "engine": engine, **c.record(), "threads": threads, "p20": p50 * 0.9, "p50": p50,
        "p80": p50 * 1.1, "waited": waited, "commit": commit, "machine": {"cpu": "some", "cores": 2},
        "flops": cases.flops(c),
    }  # fmt: skip


def test_summary_tells_losses_first_and_leaves_disturbed_rows_out_of_the_means() -> None:
    found = [
        row(rows.OURS, 1.0), row("torch", 4.0),
        row(rows.OURS, 1.0, shape=(7, 5, 3, 4)), row("torch", 0.25, shape=(7, 5, 3, 4)),
        row(rows.OURS, 1.0, threads=2, waited=0.5), row("torch", 900.0, threads=2),
        row(rows.OURS, 2e-5, shape=cases.OVERHEAD), row("torch", 1e-5, shape=cases.OVERHEAD),
    ]  # fmt: skip
    text = rows.summary(found)
    assert "Losses: 1 of 3\n   0.25  lstm train float32 (7,5,3,4), threads 1" in text
    assert text.index("Losses") < text.index("Geometric means")
    assert "900.00*" in text
    assert rows.means(found) == {("float32", "lstm", "train", 1): [4.0, 0.25]}
    assert "20.0" in text.split("One call at")[1]


def test_ratios_pair_rows_of_one_run_the_last_that_nobody_disturbed() -> None:
    def run(name: str, ours: float, theirs: float, waited: float) -> list[Any]:
        return [r | {"run": name} for r in (row(rows.OURS, ours), row("torch", theirs, waited=waited))]

    first, second, third = run("1", 1.0, 9.0, 0.0), run("2", 1.0, 3.0, 0.0), run("3", 1.0, 90.0, 0.5)
    alone = [row(rows.OURS, 5.0) | {"run": "4"}]
    assert [r for _, r in rows.ratios([*first, *second, *third, *alone])] == [3.0]
    assert [r for _, r in rows.ratios([*third, *first])] == [9.0]
    assert [r for _, r in rows.ratios([*third, *alone])] == [90.0]


def test_geometric_mean_weighs_a_ratio_and_its_inverse_the_same() -> None:
    assert rows.geometric_mean([4.0, 0.25]) == pytest.approx(1.0)
    assert rows.geometric_mean([2.0, 8.0]) == pytest.approx(4.0)
    with pytest.raises(ValueError, match="at least one"):
        rows.geometric_mean([])


def test_compare_two_commits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before, after = tmp_path / "before.jsonl", tmp_path / "after.jsonl"
    rows.append(before, [row(rows.OURS, 9.0, commit="old"), row(rows.OURS, 2.0, mode="infer"), row("torch", 1.0)])
    rows.append(after, [row(rows.OURS, 3.0, commit="new"), row(rows.OURS, 2.05, mode="infer"), row("torch", 9.0)])
    assert compare.main([str(before), str(after)]) == 0
    text = capsys.readouterr().out
    assert f"{rows.OURS} at old / {rows.OURS} at new" in text
    lines = [line for line in text.splitlines() if "threads 1" in line and "geometric" not in line]
    assert lines[0].startswith("lstm train float32 (2,5,3,4)")
    assert lines[0].endswith("3.00  faster")
    assert lines[1].endswith("0.98  same")
    assert "torch" not in text


def test_compare_two_engines_of_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "run.jsonl"
    rows.append(path, [row("torch", 1.0), row(rows.OURS, 2.0)])
    assert compare.main([str(path)]) == 0
    assert "0.50  slower" in capsys.readouterr().out
    assert compare.main([str(path), "--engines", "torch", "jax"]) == 2


def test_roofline_fraction() -> None:
    ceiling = {"run": "r", "kind": "sgemm", "threads": 1, "flops_per_second": {"a": 50.0, "b": 100.0}}
    big = row(rows.OURS, 1.0, shape=(32, 5, 3, 128))
    assert roofline.ceilings([ceiling, big]) == {1: 100.0}
    assert roofline.fraction(big, 100.0) == pytest.approx(cases.flops(case(shape=(32, 5, 3, 128))) / 100)
    assert "(2,5,3,4)" not in roofline.report([ceiling, row(rows.OURS, 1.0)], every_shape=False)
    assert "(2,5,3,4)" in roofline.report([ceiling, row(rows.OURS, 1.0)], every_shape=True)


# --- end to end


def test_one_run_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "tiny.jsonl"
    names = ["scratchrnn-numpy", "torch", "torch-loop"]
    done = subprocess.run(
        [sys.executable, "benchmarks/run.py", "--shapes", "2,5,3,4", "--cells", "lstm", "--threads", "1",
         "--budget", "0.01", "--patience", "0", "--engines", *names, "--out", str(out)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["kind"] for r in found].count("sgemm") == 1
    timed = [r for r in found if r["kind"] == "time"]
    assert {(r["engine"], r["mode"]) for r in timed} == {
        *(("scratchrnn-numpy", mode) for mode in cases.MODES),
        *(("torch", mode) for mode in ("infer", "train")),
        ("torch-loop", "trace"),
    }  # fmt: skip
    for r in timed:
        assert 0 < r["p20"] <= r["p50"] <= r["p80"]
        assert 0 <= r["error"] <= r["tolerance"]
        assert r["machine"]["cores"] >= 1
        assert r["versions"]
        assert (r["peak_bytes"] is None) == (memory.why_unavailable() is not None)
    ratio = next(r["p50"] for r in timed if r["engine"] == "torch" and r["mode"] == "infer")
    ratio /= next(r["p50"] for r in timed if r["engine"] == "scratchrnn-numpy" and r["mode"] == "infer")
    table = done.stdout.split("lstm float32, threads 1")[1]
    assert f"{ratio:.2f}" in table.splitlines()[1]
    assert "Geometric means" in table
