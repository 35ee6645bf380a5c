"""The GPU benchmarks without a GPU: verification, rows of what fails, summary, predictions, and a rehearsal end to end.

All rows in here are made up; none was measured.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.testing import difference

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "benchmarks"))

cases, verify, run, rows = map(importlib.import_module, ["cases", "verify", "run", "rows"])
names = ["cases", "clock", "engines", "plan", "process", "run", "summary", "verify", "worker"]
cuda = SimpleNamespace(**{name: importlib.import_module(f"cuda_{name}") for name in names})

SHAPE = (2, 5, 3, 4)  # B, T, D, H
GRID = [
    (1, 1000, 256, 256), (16, 512, 512, 512), (16, 1024, 768, 768), (64, 256, 1024, 1024), (128, 512, 512, 512),
    (44, 1125, 40, 160), (62, 2058, 16, 168), (32, 100, 128, 128), (8, 1000, 1, 32),
]  # fmt: skip


def case(mode: str = "train", cell: str = "lstm", shape: Any = SHAPE) -> Any:
    return cases.Case(*shape, cell, mode, "float32")


@pytest.fixture
def rehearsed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Any, list[str]]]]:
    """Make a session on the CPU; hand out it and the lines that it says."""

    def make(engines: list[str]) -> tuple[Any, list[str]]:
        said: list[str] = []
        answers = SimpleNamespace(write=said.append, flush=lambda: None)
        return cuda.worker.Session(answers, "cpu", engines), said

    before = {name: engine.device for name, engine in cuda.engines.REGISTRY.items()}
    yield make
    for name, device in before.items():
        cuda.engines.REGISTRY[name].device = device


# --- the plan


def test_grid_and_goals_are_those_that_were_set() -> None:
    assert sorted(cuda.cases.GRID) == sorted(GRID)
    against_cudnn = {(g.shape, g.at_least) for g in cuda.cases.GOALS if g.mode == "train"}
    assert against_cudnn == {(g.shape, g.at_least) for g in cuda.cases.GOALS if g.mode == "infer"}
    assert against_cudnn == {
        (GRID[0], 2.0), (GRID[1], 1.5), (GRID[5], 1.5), (GRID[6], 1.5), (GRID[2], 1.0), (GRID[7], 1.0),
    }  # fmt: skip
    assert {(g.shape, g.at_least) for g in cuda.cases.GOALS if g.mode == "trace"} == {(s, 20.0) for s in GRID}


def test_dry_run_names_every_case_and_engine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--device", "cuda", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "Nothing was run" in told
    assert all(rows.describe_shape(shape) in told for shape in GRID)
    assert all(name in told for name in cuda.engines.REGISTRY)


def test_a_cut_trace_is_a_process_of_its_own() -> None:
    options = cuda.run.parser(run.parse_shape).parse_args(["--shapes", "2,9,3,4", "--trace-steps", "5"])
    assert cuda.run.jobs(options) == [
        [case("infer", shape=(2, 9, 3, 4)), case("train", shape=(2, 9, 3, 4))],
        [case("trace", shape=(2, 5, 3, 4))],
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shapes", "1,2,3"], "expected B,T,D,H"),
        (["--trace-steps", "0"], "--trace-steps: expected at least 1; got 0"),
        (["--budget", "0"], "--budget: expected seconds above 0; got 0.0"),
        (["--engines", "torch"], "invalid choice: 'torch'"),
        (["--quick"], "unrecognized arguments: --quick"),
    ],
)
def test_wrong_arguments(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main(["--device", "cuda", *arguments])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("built_for", "message"), [(None, "is built without CUDA"), ("13.0", "torch sees no CUDA device")]
)
@pytest.mark.parametrize("program", ["run", "barrier", "profile"])
def test_without_a_gpu_it_says_what_is_missing(
    program: str, built_for: str | None, message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.version, "cuda", built_for)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    main = run.main if program == "run" else importlib.import_module(f"cuda_{program}").main
    assert main(["--device", "cuda"] if program == "run" else []) == 2
    assert message in capsys.readouterr().err


# --- verification


@pytest.mark.parametrize("spoiled", [None, "nan", "zeros", "shifted"])
def test_distance_is_that_of_the_tests(spoiled: str | None) -> None:
    rng = np.random.default_rng(3)
    want = rng.standard_normal((3, 5)) if spoiled != "zeros" else np.zeros((3, 5))
    got = want.astype(np.float32) if spoiled != "shifted" else (want + rng.standard_normal((3, 5))).astype(np.float32)
    if spoiled == "nan":
        got[1, 2] = np.nan
    found = cuda.verify.distance(torch.from_numpy(got), torch.from_numpy(want))
    assert found == pytest.approx(difference(got, want).ratio, rel=1e-12)


def test_distance_from_zeros_is_infinite() -> None:
    assert cuda.verify.distance(torch.ones(2, 3), torch.zeros(2, 3)) == np.inf


@pytest.mark.parametrize("cell", cases.CELLS)
def test_truth_stands_on_the_device_as_it_does_on_the_host(cell: str) -> None:
    tensors, arrays = verify.true_tensors(case(cell=cell), "cpu"), verify.truth(case(cell=cell))
    assert tensors.keys() == arrays.keys()
    assert all(np.array_equal(tensors[name].numpy(), arrays[name]) for name in arrays)


POSSIBLE = [
    pytest.param(wanted, name, id=f"{wanted}, {name}")
    for name, engine in cuda.engines.REGISTRY.items()
    for wanted in (case(mode, cell) for mode in cases.MODES for cell in cases.CELLS)
    if engine.why_not(wanted) is None
]


@pytest.mark.parametrize(("wanted", "name"), POSSIBLE)
def test_every_engine_hands_out_what_is_true(wanted: Any, name: str, rehearsed: Any) -> None:
    mode = wanted.mode
    session, _ = rehearsed([name])
    session.prepare(wanted.record(), [mode])
    assert session.failed == {}
    figures = session.time(wanted.record(), 0.001)["engines"][name]
    assert 0 < figures["error"] <= figures["tolerance"]
    assert verify.expected(wanted) <= figures["errors"].keys()
    assert figures["p20"] <= figures["p50"] <= figures["p80"]


def test_what_is_wrong_is_not_timed(rehearsed: Any) -> None:
    session, _ = rehearsed([cuda.cases.CUDNN, cuda.cases.CHOSEN])
    session.prepare(case().record(), ["train"])
    call, collect = session.calls["train", cuda.cases.CHOSEN]
    wrong = lambda raw: collect(raw) | {"d_x": collect(raw)["d_x"] * 1.001}  # noqa: E731
    session.calls["train", cuda.cases.CHOSEN] = call, wrong
    found = session.time(case().record(), 0.001)["engines"]
    assert found[cuda.cases.CHOSEN].keys() == {"wrong"}
    assert "d_x: off by" in found[cuda.cases.CHOSEN]["wrong"]
    assert "p50" in found[cuda.cases.CUDNN]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: {k: v for k, v in r.items() if k != "c_n"}, "missing c_n"),
        (lambda r: r | {"d_x": r["d_x"].double()}, "d_x: expected dtype float32"),
        (lambda r: r | {"d_x": r["d_x"][:1]}, r"d_x: expected shape \(5, 2, 3\); got \(1, 2, 3\)"),
        (lambda r: r | {"d_x": r["d_x"] * np.nan}, "d_x: off by inf"),
    ],
)
def test_results_that_are_not_what_was_asked_for(spoil: Any, message: str) -> None:
    true = verify.true_tensors(case(), "cpu")
    results = {name: true[name].float() for name in verify.expected(case())}
    cuda.verify.check(case(), results, true, 1e-6)
    with pytest.raises(verify.WrongResultError, match=message):
        cuda.verify.check(case(), spoil(results), true, 1e-6)


def test_tf32_is_set_for_its_engine_only() -> None:
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    try:
        for name, engine in cuda.engines.REGISTRY.items():
            with engine.settings():
                assert torch.backends.cudnn.allow_tf32 == (name == cuda.cases.CUDNN_TF32)
                assert torch.backends.cuda.matmul.allow_tf32 == (name == cuda.cases.CUDNN_TF32)
            assert (engine.tolerance(1e-5) == 1e-5) == (name != cuda.cases.CUDNN_TF32)
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


# --- the clock, on a torch.cuda that counts


class FakeCuda:
    """Events of a device on which a call takes 3 ms."""

    def __init__(self) -> None:
        self.now, self.waits = 0.0, 0

    def synchronize(self) -> None:
        self.waits += 1

    def Event(self, enable_timing: bool) -> Any:
        assert enable_timing
        event = SimpleNamespace()
        event.record = lambda: setattr(event, "at", self.now)
        event.elapsed_time = lambda later: later.at - event.at
        return event


def test_a_call_takes_what_lies_between_two_events() -> None:
    device = FakeCuda()

    def call() -> None:
        device.now += 3.0

    seconds, host = cuda.clock.Clock(SimpleNamespace(cuda=device), "cuda").seconds(call, 4)
    assert seconds == pytest.approx([0.003] * 4)
    assert len(host) == 4
    assert device.waits == 2  # before the first event and after the last: never between calls


# --- what fails, dies or hangs


class Scripted:
    """A process by script: engines in `deadly` end it at a command."""

    deadly: dict[str, str] = {}  # noqa: RUF012 (set by the test): command -> engine
    started: list[list[str]] = []  # noqa: RUF012

    def __init__(self, device: str, engines: list[str]) -> None:
        self.engines = list(engines)
        self.started.append(self.engines)

    def send(self, do: str, **arguments: Any) -> None:
        self.do, self.arguments = do, arguments

    def receive(self, patience: float) -> dict[str, Any]:
        if self.deadly.get(self.do) in self.engines:
            raise cuda.process.ProcessLostError(self.deadly[self.do], f"it ended in {self.do}")
        if self.do == "prepare":
            return {"versions": {}, "plans": {"forward": {"blocks": 32}}}
        times = {"error": 1e-7, "p20": 1.0, "p50": 2.0, "p80": 3.0}
        wanted = cases.Case(**self.arguments["case"])
        able = [name for name in self.engines if cuda.engines.REGISTRY[name].why_not(wanted) is None]
        return {"engines": {name: dict(times) for name in able}, "sm_clock_mhz": None}

    def ask(self, do: str, patience: float, **arguments: Any) -> dict[str, Any]:
        self.send(do, **arguments)
        return self.receive(patience)

    def kill(self) -> None: ...

    def close(self) -> None:
        self.started.append([])


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[dict[str, Any]]]:
    def go(deadly: dict[str, str], *arguments: str) -> list[dict[str, Any]]:
        monkeypatch.setattr(Scripted, "deadly", deadly)
        monkeypatch.setattr(Scripted, "started", [])
        monkeypatch.setattr(cuda.run, "Process", Scripted)
        out = tmp_path / "made-up.jsonl"
        cuda.run.main(["--rehearse", "--shapes", "2,5,3,4", "--out", str(out), *arguments], run.parse_shape)
        return rows.read(out)

    return go


@pytest.mark.parametrize("command", ["prepare", "time"])
def test_who_ends_the_process_has_a_row_and_the_others_go_on(command: str, scripted: Any) -> None:
    engine = cuda.cases.PERSISTENT
    found = scripted({command: engine})
    assert Scripted.started[:2] == [list(cuda.engines.REGISTRY), [n for n in cuda.engines.REGISTRY if n != engine]]
    assert {row["failed"] for row in found if row["engine"] == engine} == {f"it ended in {command}"}
    assert all("p50" in row for row in found if row["engine"] != engine)
    assert len(found) == 3 * 3 + 2 * 2 + 1  # ours in all modes, nn.LSTM twice in two, the loop in one


def test_a_process_that_dies_of_nobody_ends_the_shape(scripted: Any) -> None:
    found = scripted({"time": "truth"}, "--engines", cuda.cases.CUDNN)
    assert all("p50" in row for row in found)  # "truth" is no engine of it: nothing dies here
    Scripted.deadly = {}
    process = SimpleNamespace(engines=["a", "b"])
    failed: dict[str, str] = {}
    lost = cuda.process.ProcessLostError("truth", "out of memory")
    assert cuda.run.Run.without(SimpleNamespace(), [], process, lost, failed) is None
    assert failed == {"a": "out of memory", "b": "out of memory"}


@pytest.mark.parametrize("mode", ["Default", "Exclusive_Process"])
def test_processes_do_not_overlap_on_a_device_that_takes_one(
    mode: str, scripted: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda.plan, "device", lambda: {"compute_mode": mode})
    name = cuda.cases.CUDNN
    scripted({}, "--shapes", "2,5,3,4", "3,5,3,4", "--engines", name)
    starts = [n for n, what in enumerate(Scripted.started) if what == [name]]
    first_end = Scripted.started.index([])
    assert len(starts) == 2
    assert (first_end < starts[1]) == (mode == "Exclusive_Process")


def test_names_of_kernels_stand_in_the_rows_of_those_that_were_timed() -> None:
    asked = []

    def ask(do: str, patience: float, **arguments: Any) -> dict[str, Any]:
        asked.append((do, arguments["mode"], arguments["engine"]))
        if arguments["mode"] == "train":
            raise RuntimeError("no profiler")
        return {"kernels": [{"name": "made up"}]}

    wanted = [("infer", cuda.cases.CUDNN), ("infer", cuda.cases.PER_STEP), ("train", cuda.cases.PERSISTENT)]
    given: list[dict[str, Any]] = [{"mode": mode, "engine": engine, "p50": 1.0} for mode, engine in wanted]
    given.append({"mode": "infer", "engine": cuda.cases.CUDNN_TF32, "failed": "it was not timed"})
    cuda.run.Run.name_kernels(SimpleNamespace(left=lambda: 1.0), SimpleNamespace(ask=ask), given)
    assert asked == [("kernels", "infer", cuda.cases.CUDNN), ("kernels", "train", cuda.cases.PERSISTENT)]
    assert given[0]["kernels"] == [{"name": "made up"}]
    assert given[2]["kernels_failed"] == "no profiler"


def test_when_the_time_is_over_rows_say_so(scripted: Any) -> None:
    found = scripted({}, "--seconds", "0")
    assert {row["failed"] for row in found} == {cuda.run.NO_TIME}


def test_a_row_has_the_measured_cost_of_its_meeting(scripted: Any, tmp_path: Path) -> None:
    meetings = [
        {"kind": "cuda-barrier", "how": how, "blocks": blocks, "microseconds": us}
        for how, blocks, us in (("counter", 30, 1.5), ("counter", 128, 2.5), ("flags", 32, 0.5))
    ]
    rows.append(tmp_path / "made-up.jsonl", meetings)
    found = scripted({})[len(meetings) :]
    assert all(row["meeting"] == {"how": "counter", "blocks": 30, "microseconds": 1.5} for row in found)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ("sys.exit(7)", "its process ended with 7"),
        ("time.sleep(60)", "no answer within 3 s"),
        ("print(json.dumps({'lost': 'illegal address'}), flush=True)", "illegal address"),
    ],
)
def test_whoever_ran_last_is_named(last: str, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    worker = f"import json, sys, time\nsys.stdin.readline()\nprint(json.dumps({{'at': 'b'}}), flush=True)\n{last}\n"
    (tmp_path / "cuda_worker.py").write_text(worker)
    monkeypatch.setattr(cuda.process, "HERE", tmp_path)
    process = cuda.process.Process("cuda", ["a", "b"])
    with pytest.raises(cuda.process.ProcessLostError, match=message) as lost:
        process.ask("time", 3.0)
    assert lost.value.engine == "b"
    process.close()


def test_rehearsal_end_to_end(tmp_path: Path) -> None:
    out = tmp_path / "rehearsal.jsonl"
    command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), "--device", "cuda", "--rehearse", "--out", str(out)]
    done = subprocess.run(
        [*command, "--shapes", "2,5,3,4", "--budget", "0.01"], capture_output=True, text=True, timeout=300,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = rows.read(out)
    assert {row["kind"] for row in found} == {"rehearsal"}
    assert all("p50" in row and row["error"] <= row["tolerance"] for row in found)
    assert "nothing was measured" in cuda.summary.summary(found)  # its times are nobody's
