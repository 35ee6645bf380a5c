"""What checkpointed BPTT saves and costs: memory, time and bits beside plain BPTT, over one long sequence.

    python benchmarks/checkpointed.py                                  # T = 100,000, H = 128, batch 1
    python benchmarks/checkpointed.py --steps 10000 --hidden 64 --out mine

Memory is the peak of one call in a child that has made only a tiny call before, beyond x and dL/dx (see `memory.py`);
the plain trace's is what h, c and the gates take. Times alternate, medians of a few calls each.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import memory
import numpy as np
import rows
import timing

RESULTS = Path(__file__).parent / "results"


def problem(steps: int, hidden: int) -> tuple[Any, Any, Any]:
    """A layer, x (T, 1, H), and dL/d(output)."""
    import scratchrnn as srnn

    rng = np.random.default_rng(0)
    layer = srnn.LSTM(hidden, hidden, rng=rng)
    x, d_output = (rng.standard_normal((steps, 1, hidden), dtype=np.float32) for _ in range(2))
    return layer, x, d_output


def peak(name: str, steps: int, hidden: int) -> int:
    """Peak bytes of one call, in a child, beyond x and dL/dx."""

    def measure() -> int:
        import scratchrnn as srnn

        call = getattr(srnn.bptt, name)
        call(*problem(300, 4))
        layer, x, d_output = problem(steps, hidden)
        return memory.peak_of(lambda: call(layer, x, d_output)) - int(x.nbytes)

    return memory.in_child(name, measure)


def times(steps: int, hidden: int, calls: int) -> tuple[dict[str, float], bool]:
    """Median seconds of each, alternating; and whether all gradients have the same bits."""
    import scratchrnn as srnn

    layer, x, d_output = problem(steps, hidden)
    seconds: dict[str, list[float]] = {"full": [], "checkpointed": []}
    found: dict[str, Any] = {}
    for n in range(calls + 1):
        for name, taken in seconds.items():
            began = time.perf_counter()
            found[name] = getattr(srnn.bptt, name)(layer, x, d_output)
            if n:  # the first call compiles
                taken.append(time.perf_counter() - began)
    full, other = found["full"], found["checkpointed"]
    pairs = [(full.input, other.input), *zip(full.state, other.state, strict=True)]
    pairs += [(full.parameters[name], other.parameters[name]) for name in full.parameters]
    return {k: statistics.median(v) for k, v in seconds.items()}, all(a.tobytes() == b.tobytes() for a, b in pairs)


def main() -> None:
    """Measure, print, and append a row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--calls", type=int, default=5)
    parser.add_argument("--out", help="append the row to benchmarks/results/OUT.jsonl")
    options = parser.parse_args()
    missing = memory.why_unavailable()
    if missing:
        parser.exit(1, f"memory cannot be measured here: {missing}\n")
    peaks = {name: peak(name, options.steps, options.hidden) for name in ("full", "checkpointed")}
    seconds, same = times(options.steps, options.hidden, options.calls)
    trace = 4 * 6 * options.hidden * options.steps  # h, c and four gates, float32
    row = {
        "kind": "checkpointed", "T": options.steps, "H": options.hidden, "B": 1, "cell": "lstm", "dtype": "float32",
        "same_bits": same, "trace_bytes": trace, "peak_bytes": peaks, "p50": seconds, "run": timing.moment(),
        "commit": timing.commit(), "machine": timing.machine(),
    }  # fmt: skip
    print(f"plain trace (h, c, gates) {trace / 2**20:8.1f} MiB")
    for name in seconds:
        print(f"{name:<14} peak       {peaks[name] / 2**20:8.1f} MiB   {seconds[name]:.3f} s")
    share, cost = peaks["checkpointed"] / trace, seconds["checkpointed"] / seconds["full"]
    print(f"1/{1 / share:.0f} of the trace's memory, {cost:.2f} times the time, bits {'equal' if same else 'DIFFER'}")
    if options.out:
        rows.append(RESULTS / f"{options.out}.jsonl", [row])
    if not same:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
