"""Where a call's time goes on the GPU: the time of each kernel, ours and cuDNN's, of one forward and backward.

By CUPTI, through torch's profiler, which sees every kernel of the process. Where it sees none, by events around the
four doors of kernels/cuda (launches, products, graphs, copies): these times include what the host needs between two.

python benchmarks/cuda_profile.py --out gpu         rows of kind "cuda-profile", and gpu-kernels.txt beside them
"""

from __future__ import annotations

import argparse
import importlib
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import cuda_cases
import cuda_clock
import cuda_plan
import cuda_run
import rows as row_file
from cases import Case, Shape, inputs
from cuda_engines import REGISTRY
from run import parse_shape
from timing import commit, machine, moment

SHAPES: tuple[Shape, ...] = ((16, 512, 512, 512), (16, 1024, 768, 768))
ENGINES = (cuda_cases.CHOSEN, cuda_cases.PER_STEP, cuda_cases.CUDNN)
MODES = ("infer", "train")
MOST_NAMES = 30
WARM_CALLS = 2


def by_events(torch: Any, call: Callable[[], Any]) -> list[dict[str, Any]]:
    """Times of what goes through the doors, by name: launches in order of the time that they take."""
    spans: list[tuple[str, Any, Any]] = []
    with _watched(torch, spans):
        call()
    torch.cuda.synchronize()
    totals: dict[str, list[float]] = {}
    for name, begin, end in spans:
        took = totals.setdefault(name, [0, 0.0])
        took[0] += 1
        took[1] += begin.elapsed_time(end) * 1e3
    order = sorted(totals.items(), key=lambda item: -item[1][1])[:MOST_NAMES]
    return [{"name": name, "launches": int(n), "microseconds": round(us, 1)} for name, (n, us) in order]


@contextmanager
def _watched(torch: Any, spans: list[tuple[str, Any, Any]]) -> Iterator[None]:
    """Within the block, each door notes an event before and after."""

    def watch(door: Callable[..., Any], name: Callable[[tuple[Any, ...]], str]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            result = door(*arguments, **named)
            end.record()
            spans.append((name(arguments), begin, end))
            return result

        return noted

    def module(name: str) -> Any:
        return importlib.import_module(f"scratchrnn.kernels.cuda.{name}")

    def shapes(arguments: tuple[Any, ...]) -> str:
        return "product " + " ".join("×".join(map(str, a.shape)) for a in arguments[1:4])

    doors = [
        (module("kernel").Kernel, "launch", lambda arguments: arguments[0].name),
        (module("graph").Recorded, "replay", lambda arguments: "graph"),
        (module("queue").Queue, "copy", lambda arguments: "copy"),
        *((user, "product", shapes) for user in _users(module("gemm").product)),
    ]
    before = [(owner, door, getattr(owner, door)) for owner, door, _ in doors]
    try:
        for owner, door, name in doors:
            setattr(owner, door, watch(getattr(owner, door), name))
        yield
    finally:
        for owner, door, original in before:
            setattr(owner, door, original)


def _users(product: Any) -> list[Any]:
    """Modules of kernels/cuda that call it by the name `product`."""
    modules = [module for name, module in sys.modules.items() if name.startswith("scratchrnn.kernels.cuda.")]
    return [module for module in modules if getattr(module, "product", None) is product]


def profile(torch: Any, case: Case, engine: Any) -> dict[str, Any]:
    """A row's own fields: by CUPTI, or by events where it sees nothing."""
    engine.load(1)
    call, _ = engine.prepare(case, inputs(case))
    with engine.settings():
        for _ in range(WARM_CALLS):
            call()
        torch.cuda.synchronize()
        why = None
        try:
            found = cuda_clock.kernels(torch, call, MOST_NAMES)
            if found:
                return {"how": "cupti", "kernels": found}
        except Exception as error:  # noqa: BLE001 (there is another way)
            why = f"{type(error).__name__}: {error}"[:300]
        if engine.name not in cuda_cases.OURS:
            return {"failed": why or "CUPTI saw no kernel"}
        return {"how": "events", "cupti_failed": why or "it saw no kernel", "kernels": by_events(torch, call)}


def text(row: dict[str, Any]) -> str:
    """A row for readers."""
    head = f"{row_file.case_of(row)}, {row['engine']}"
    if "failed" in row:
        return f"{head}: FAILED: {row['failed']}\n"
    total = sum(k["microseconds"] for k in row["kernels"])
    lines = [f"{head}: {total / 1e3:.3f} ms in kernels, by {row['how']}"]
    for k in row["kernels"]:
        lines.append(f"  {k['microseconds'] / 1e3:9.3f} ms  {k['launches']:6d} ×  {k['name'][:100]}")  # noqa: PERF401
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile; 0 if every row has kernels, 1 if one failed, 2 if nothing can run here."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--shapes", nargs="+", type=parse_shape, metavar="B,T,D,H", default=list(SHAPES))
    p.add_argument("--engines", nargs="+", choices=list(REGISTRY), default=list(ENGINES))
    p.add_argument("--out", default="gpu", metavar="NAME", help="file results/NAME.jsonl, or a path; default: gpu")
    options = p.parse_args(arguments)
    reason = cuda_run.why_unavailable()
    if reason is not None:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    torch = importlib.import_module("torch")
    out = cuda_run.path_of(options.out)
    page = out.with_name(f"{out.stem}-kernels.txt")
    common = {"run": uuid.uuid4().hex[:12], "commit": commit(), "machine": machine() | {"gpu": cuda_plan.device()}}
    failures = 0
    for shape in options.shapes:
        for mode in MODES:
            for name in options.engines:
                case = Case(*shape, "lstm", mode, "float32")
                row: dict[str, Any] = {"kind": "cuda-profile", "engine": name, **case.record()}
                try:
                    row |= profile(torch, case, REGISTRY[name])
                except Exception as error:  # noqa: BLE001 (the others are still of use)
                    row["failed"] = f"{type(error).__name__}: {error}"[:500]
                failures += "failed" in row
                row_file.append(out, [{**common, **moment(), **row}])
                with page.open("a", encoding="utf-8") as file:
                    file.write(text(row) + "\n")
                print(text(row), flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
