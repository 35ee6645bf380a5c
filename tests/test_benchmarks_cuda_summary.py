"""What is read off GPU rows, what is predicted, and the script that makes them, without a GPU.

All rows in here are made up; none was measured.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scratchrnn import backends

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

cases, rows = map(importlib.import_module, ["cases", "rows"])
names = ["barrier", "cases", "plan", "predict", "summary"]
cuda = SimpleNamespace(**{name: importlib.import_module(f"cuda_{name}") for name in names})

LONG, SQUARE = (1, 1000, 256, 256), (16, 512, 512, 512)  # B, T, D, H


def case(mode: str, shape: Any) -> Any:
    return cases.Case(*shape, "lstm", mode, "float32")


# --- the summary

FAST, SLOW = 1e-3, 5e-3


def made_up(engine: str, mode: str, p50: float | None, **more: Any) -> dict[str, Any]:
    row = {"run": "made-up", "commit": "0", "machine": {"gpu": {"name": "NVIDIA H100 (made up)"}}, "kind": "cuda-time"}
    row |= {"engine": engine, **case(mode, more.pop("shape", LONG)).record()}
    return row | ({} if p50 is None else {"p50": p50, "error": 1e-6}) | more


def verdicts(given: list[dict[str, Any]]) -> dict[str, str]:
    """Of each goal's line: what stands in the last column."""
    lines = cuda.summary.goals(cuda.summary.by_cell(given))[2:]
    return {line.split(" | ")[0].removeprefix("| "): line.removesuffix(" |").split(" | ")[-1] for line in lines}


FORWARD = "(1,1000,256,256) forward, torch-cuda / ours"


@pytest.mark.parametrize(("ours", "verdict"), [(FAST, "met"), (SLOW / 2, "met"), (SLOW / 1.9, "missed")])
def test_a_goal_is_met_or_missed(ours: float, verdict: str) -> None:
    given = [made_up(cuda.cases.CHOSEN, "infer", ours), made_up(cuda.cases.CUDNN, "infer", SLOW)]
    found = verdicts(given)
    assert found.pop(FORWARD) == verdict
    assert {text for name, text in found.items() if "error" not in name} == {"not measured"}


def test_without_rows_every_goal_is_not_measured() -> None:
    assert set(verdicts([]).values()) == {"not measured"}
    assert len(verdicts([])) == len(cuda.cases.GOALS) + 2


def test_another_device_is_named() -> None:
    other = {"machine": {"gpu": {"name": "NVIDIA T4 (made up)"}}}
    given = [made_up(cuda.cases.CHOSEN, "infer", FAST, **other), made_up(cuda.cases.CUDNN, "infer", SLOW, **other)]
    assert verdicts(given)[FORWARD] == "met on NVIDIA T4 (made up), which no goal is about"


def test_times_of_two_runs_are_not_compared() -> None:
    given = [made_up(cuda.cases.CHOSEN, "infer", FAST), made_up(cuda.cases.CUDNN, "infer", SLOW, run="another")]
    assert verdicts(given)[FORWARD] == "not measured"


def test_the_last_run_that_has_both_counts() -> None:
    both = [made_up(cuda.cases.CHOSEN, "infer", FAST, run="both"), made_up(cuda.cases.CUDNN, "infer", SLOW, run="both")]
    later = made_up(cuda.cases.CUDNN, "infer", FAST, run="later")
    assert verdicts([*both, later])[FORWARD] == "met"
    assert verdicts([*both, later, made_up(cuda.cases.CHOSEN, "infer", FAST, run="later")])[FORWARD] == "missed"


@pytest.mark.parametrize(
    ("broken", "reason"), [({"wrong": "d_x: off"}, "WRONG, not timed: d_x: off"), ({"failed": "hung"}, "failed: hung")]
)
def test_what_failed_is_said(broken: dict[str, str], reason: str) -> None:
    given = [made_up(cuda.cases.CHOSEN, "infer", None, **broken), made_up(cuda.cases.CUDNN, "infer", SLOW)]
    told = cuda.summary.summary(given)
    assert f"ours: {reason} | not measured" in told
    assert next(iter(broken.values())) in told.partition("## Failed or wrong")[2]


def test_a_step_is_timed_by_its_kernel_where_its_name_is_known() -> None:
    shape = cuda.cases.STEP_SHAPE
    whole = made_up(cuda.cases.PERSISTENT, "infer", shape[1] * 4e-6, shape=shape)
    assert cuda.summary.step_time(cuda.summary.by_cell([whole])) == ("4.00 µs by the whole call", "missed")
    kernels = [
        {"name": "lstm_persistent_forward", "launches": 1, "microseconds": shape[1] * 3.0},
        {"name": "gemm", "launches": 1, "microseconds": 999.0},
    ]
    found = cuda.summary.step_time(cuda.summary.by_cell([whole | {"kernels": kernels}]))
    assert found == ("3.00 µs by the kernel", "met")


@pytest.mark.parametrize(("ours", "verdict"), [(1.4e-6, "met"), (1.6e-6, "missed")])
def test_the_error_is_held_against_cudnn(ours: float, verdict: str) -> None:
    given = [made_up(cuda.cases.CHOSEN, "train", FAST, error=ours), made_up(cuda.cases.CUDNN, "train", SLOW)]
    assert cuda.summary.error_goal(cuda.summary.by_cell(given))[1] == verdict


def test_a_cut_trace_says_on_how_many_steps() -> None:
    cut = {"shape": (1, 100, 256, 256), "cut_from_steps": 1000}
    given = [made_up(cuda.cases.CHOSEN, "trace", FAST, **cut), made_up(cuda.cases.LOOP, "trace", 30 * FAST, **cut)]
    assert "30.00× (30 ms / 1 ms, on 100 of 1000 steps) | met" in cuda.summary.summary(given)


def test_meetings_stand_side_by_side() -> None:
    common = {"kind": "cuda-barrier", "run": "made-up", "commit": "0", "machine": {}}
    given = [common | {"how": how, "blocks": 8, "microseconds": us} for how, us in (("counter", 1.25), ("grid", 2.5))]
    assert "| 8 | 1.25 | 2.50 |" in cuda.summary.meetings(given)


def test_summary_without_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cuda.summary.main([str(tmp_path / "none.jsonl")]) == 2
    told = capsys.readouterr()
    assert "no such file" in told.err
    assert "not measured" in told.out


# --- predictions


def test_predictions_say_that_they_are() -> None:
    page = (ROOT / "benchmarks" / "predictions-cuda.md").read_text("utf-8")
    assert "**Predicted, not measured.**" in page
    tables = page.partition(cuda.predict.BEGIN)[2].partition(cuda.predict.END)[0]
    assert all(rows.describe_shape(shape) in tables for shape in cuda.cases.GRID)


def test_a_call_is_its_steps_and_its_products() -> None:
    device, wanted = cuda.plan.h100(), case("infer", SQUARE)
    B, T, D, H = SQUARE
    step = cuda.plan.decision("lstm", B, H, device)["forward"]["per_step_clocks"]
    product = 2 * T * B * 4 * H * D / (0.6 * 132 * 128 * 2 * 1.98e9)
    expected = 20e-6 + T * step / 1.98e9 + product
    assert cuda.plan.predicted(wanted, device, "per_step") == pytest.approx(expected)
    back = cuda.plan.decision("lstm", B, H, device)["backward"]["per_step_clocks"]
    expected += T * back / 1.98e9 + 3 * product  # dx and dW_ih, and dW_hh, which costs the same where D = H
    assert cuda.plan.predicted(case("train", SQUARE), device, "per_step") == pytest.approx(expected)


def test_measured_stands_beside_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "made-up.jsonl"
    expected = cuda.plan.predicted(case("infer", LONG), cuda.plan.h100())
    rows.append(out, [made_up(cuda.cases.CHOSEN, "infer", 2 * expected)])
    assert cuda.predict.main([str(out)]) == 0
    assert "| 2.00 |" in capsys.readouterr().out
    assert cuda.predict.main([str(tmp_path / "none.jsonl")]) == 2


# --- the script, and the kernels


def test_the_script_stays_below_eight_minutes(tmp_path: Path) -> None:
    script = ROOT / "benchmarks" / "gpu_all.sh"
    done = subprocess.run(
        ["bash", str(script), str(tmp_path), sys.executable], capture_output=True, text=True, timeout=60,
        env=os.environ | {"DRY_RUN": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = [re.match(r"(\S+) +(\d+) s  ", line) for line in done.stdout.splitlines()]
    assert [step[1] for step in steps if step] == [
        "info", "tests-cuda", "tests-engine", "barrier", "grid", "sanitizer", "profile", "compare", "summary",
    ]  # fmt: skip
    seconds = {step[1]: int(step[2]) for step in steps if step}
    assert seconds.pop("tests-engine") == seconds["tests-cuda"]  # which run side by side
    assert sum(seconds.values()) <= 480
    assert list(tmp_path.iterdir()) == []


def test_a_step_that_fails_does_not_end_the_script(tmp_path: Path) -> None:
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\ncase $2 in *why_unavailable*) exit 0 ;; esac\nexit 3\n")
    broken.chmod(0o755)
    script, out = ROOT / "benchmarks" / "gpu_all.sh", tmp_path / "out"
    done = subprocess.run(["bash", str(script), str(out), str(broken)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    told = (out / "gpu-steps.txt").read_text()
    assert "grid: FAILED with 3" in told
    assert "summary: FAILED with 3" in told


@pytest.mark.skipif(backends.REGISTRY["cuda"].why_unavailable() is None, reason="there is a GPU here")
def test_the_script_says_what_is_missing_and_writes_nothing(tmp_path: Path) -> None:
    script, out = ROOT / "benchmarks" / "gpu_all.sh", tmp_path / "out"
    done = subprocess.run(["bash", str(script), str(out), sys.executable], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.strip() == f"nothing was run: {backends.REGISTRY['cuda'].why_unavailable()}"
    assert not out.exists()


@pytest.mark.skipif(importlib.util.find_spec("numba_cuda") is None, reason="numba-cuda compiles the kernels")
@pytest.mark.parametrize("way", ["counter", "flags"])
def test_blocks_meet(way: str) -> None:
    emulator = pytest.importorskip("tests.cuda.emulator")
    if emulator.why_unavailable():
        pytest.skip(emulator.why_unavailable())
    meetings, blocks = 5, 3
    memory = np.zeros(1, np.int32) if way == "counter" else np.zeros(meetings * blocks, np.float32)
    alarm = np.zeros(1, np.int32)
    arguments = [memory, alarm, np.int32(meetings), np.int32(1 << 20)]
    emulator.launch(cuda.barrier.kernel(way).ptx(), blocks=blocks, threads=cuda.barrier.THREADS, arguments=arguments)
    assert alarm[0] == 0
    assert np.array_equal(memory, np.full_like(memory, meetings * blocks if way == "counter" else 1))


def test_numbers_of_blocks_end_with_the_device() -> None:
    assert cuda.barrier.sizes(132)[-2:] == [128, 132]
    assert cuda.barrier.sizes(6) == [2, 4, 5, 6]
