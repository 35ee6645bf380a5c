"""What it costs that blocks meet: kernels that do nothing else, by number of blocks and by way of meeting.

    counter   kernels/cuda/meeting.py: one word, additions with release, readings with acquire
    flags     the data is the flag: a block writes its number of this step, and reads everybody's until none is missing
    grid      cooperative groups' this_grid().sync()

A meeting costs the difference of two launches, 2N meetings and N, over N: what launching costs drops out. Medians of
alternating rounds. One row of kind "cuda-barrier" for each way and number of blocks, failed or not.

python benchmarks/cuda_barrier.py --out gpu
python benchmarks/cuda_barrier.py --dry-run         without a GPU: compile the kernels where numba-cuda is installed
"""

from __future__ import annotations

import argparse
import functools
import importlib
import sys
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import cuda_clock
import cuda_plan
import cuda_run
import numpy as np
import rows as row_file
from timing import commit, machine, moment

WAYS = ("counter", "flags", "grid")  # last the one whose waits have no bound
THREADS = 256  # of a block, as in the persistent kernels; as many blocks can be read at once
MEETINGS = 2000
ROUNDS = 7
BLOCKS = (2, 4, 5, 6, 8, 16, 32, 64, 96, 128)  # and as many as there are SMs


def _cuda(module: str) -> Any:
    return importlib.import_module(f"scratchrnn.kernels.cuda.{module}")


@functools.cache
def kernel(way: str) -> Any:
    """The kernel that meets, (memory, alarm, meetings, patience): memory is a counter of int32, or float32 flags."""
    build, memory = {"counter": (_counter, "int32"), "grid": (_grid, "int32"), "flags": (_flags, "float32")}[way]
    return _cuda("kernel").Kernel(
        name=f"meet_by_{way}", build=build, signature=f"{memory}[::1], int32[::1], int32, int32", threads=THREADS,
        cooperative=True,
    )  # fmt: skip


def _counter() -> Callable[..., None]:
    from numba import cuda, int32, uint32

    arrive, wait = _cuda("meeting").arrive(), _cuda("meeting").wait()

    def meet_by_counter(counters, alarm, meetings, patience):  # type: ignore[no-untyped-def]
        failed = cuda.shared.array(1, int32)
        if cuda.threadIdx.x == 0:
            failed[0] = int32(0)
        cuda.syncthreads()
        for t in range(meetings):
            arrive(counters, 0)
            if not wait(counters, 0, uint32((t + 1) * cuda.gridDim.x), patience, alarm, failed):
                break

    return meet_by_counter


def _grid() -> Callable[..., None]:
    from numba import cuda

    def meet_by_grid(unused, alarm, meetings, patience):  # type: ignore[no-untyped-def]
        everybody = cuda.cg.this_grid()
        for _ in range(meetings):
            everybody.sync()

    return meet_by_grid


def _flags() -> Callable[..., None]:
    from numba import cuda, float32, int32

    vendor = _cuda("vendor")
    load, store, give_up = vendor.load1(), vendor.store1(), vendor.store_error()

    def meet_by_flags(flags, alarm, meetings, patience):  # type: ignore[no-untyped-def]
        # flags: (meetings, blocks), zeros
        failed = cuda.shared.array(1, int32)
        thread, blocks = int32(cuda.threadIdx.x), int32(cuda.gridDim.x)
        if thread == 0:
            failed[0] = int32(0)
        cuda.syncthreads()
        for t in range(meetings):
            if thread == 0:
                store(flags, t * blocks + int32(cuda.blockIdx.x), float32(1.0))
            if thread < blocks:
                readings = int32(0)
                while load(flags, t * blocks + thread) == float32(0.0):
                    readings += int32(1)
                    if readings >= patience:
                        failed[0] = int32(1)
                        give_up(alarm, 0)
                        break
            cuda.syncthreads()
            if failed[0] != 0:
                break

    return meet_by_flags


def sizes(sms: int) -> list[int]:
    """Numbers of blocks to measure on a device with so many SMs."""
    return [*(blocks for blocks in BLOCKS if blocks < sms), sms]


def cost(torch: Any, way: str, blocks: int, meetings: int) -> list[float]:
    """Seconds of a meeting, from each round.

    Raises
    ------
    RuntimeError
        Somebody gave up waiting.
    """
    clock, patience = cuda_clock.Clock(torch, "cuda"), _cuda("meeting").PATIENCE
    dtype = torch.float32 if way == "flags" else torch.int32
    words = 2 * meetings * blocks if way == "flags" else 1
    memory = torch.zeros(words, dtype=dtype, device="cuda")
    alarm = torch.zeros(1, dtype=torch.int32, device="cuda")

    def launch(count: int) -> None:
        with _cuda("queue").Call(memory, alarm) as call:
            kernel(way).launch(call.queue, blocks, call.read(memory), call.read(alarm), count, patience)

    def seconds(count: int) -> float:
        memory.zero_()
        return clock.seconds(lambda: launch(count), 1)[0][0]

    seconds(meetings), seconds(2 * meetings)
    found = [(seconds(2 * meetings) - seconds(meetings)) / meetings for _ in range(ROUNDS)]
    if alarm.item():
        raise RuntimeError("a block gave up waiting for the others")
    return found


def measure(way: str, blocks: int, meetings: int) -> dict[str, Any]:
    """A row: quantiles in microseconds, or why there are none."""
    row: dict[str, Any] = {
        "kind": "cuda-barrier",
        "how": way,
        "blocks": blocks,
        "threads": THREADS,
        "meetings": meetings,
    }
    try:
        p20, p50, p80 = np.quantile(cost(importlib.import_module("torch"), way, blocks, meetings), [0.2, 0.5, 0.8])
    except Exception as error:  # noqa: BLE001 (a way that fails is a row too)
        return row | {"failed": f"{type(error).__name__}: {error}"[:500]}
    return row | {"microseconds": float(p50) * 1e6, "p20": float(p20) * 1e6, "p80": float(p80) * 1e6}


def rehearse() -> int:
    """Compile every kernel, where that can be done, and say what would run."""
    print(f"would measure {', '.join(WAYS)} with {', '.join(map(str, sizes(132)))} blocks on a device of 132 SMs")
    availability = _cuda("availability")
    if not availability.installed():
        print("numba-cuda is not installed: kernels not compiled")
        return 0
    for way in WAYS:
        print(f"{way}: {len(kernel(way).ptx().splitlines())} lines of PTX for sm_90a")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; 0 if every row has a number, 1 if one failed, 2 if nothing can run here."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    p.add_argument("--meetings", type=int, default=MEETINGS)
    p.add_argument("--out", default="gpu", metavar="NAME", help="file results/NAME.jsonl, or a path; default: gpu")
    p.add_argument("--dry-run", action="store_true", help="compile the kernels; run nothing")
    options = p.parse_args(arguments)
    if options.meetings < 1:
        p.error(f"--meetings: expected at least 1; got {options.meetings}")
    if options.dry_run:
        return rehearse()
    reason = cuda_run.why_unavailable() or _cuda("availability").why_unavailable()
    if reason is not None:
        print(f"cannot run here: {reason}", file=sys.stderr)
        return 2
    sms = importlib.import_module("torch").cuda.get_device_properties(0).multi_processor_count
    common = {"run": uuid.uuid4().hex[:12], "commit": commit(), "machine": machine() | {"gpu": cuda_plan.device()}}
    failures = 0
    for way in options.ways:
        for blocks in sizes(sms):
            row = measure(way, blocks, options.meetings)
            failures += "failed" in row
            row_file.append(cuda_run.path_of(options.out), [{**common, **moment(), **row}])
            told = f"{row['microseconds']:.3f} µs" if "microseconds" in row else row["failed"]
            print(f"{way:<8} {blocks:>4} blocks: {told}", flush=True)
            if "failed" in row:
                break  # what broke with few blocks, or broke the device, will not work with more
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
