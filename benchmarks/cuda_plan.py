"""What kernels/cuda/plan.py decides for a shape, as rows and predictions tell it; and what is installed.

`plan.py` estimates clocks of a time step. Seconds come from them by the device's clock: PREDICTIONS, not measurements.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import subprocess
from typing import Any

from cases import Case

PACKAGES = ("scratchrnn", "numpy", "numba", "numba-cuda", "cuda-bindings", "torch", "cupy-cuda13x", "cupy-cuda12x")
HERTZ = 1.98e9  # an H100 SXM's highest clock; 132 SMs · 128 FMAs at it are the data sheet's 67 TFLOP/s
PRODUCT = 0.6  # of the peak, that a large float32 product reaches
START = 20e-6  # seconds for a call's launches, beside what they do


def module() -> Any:
    """kernels/cuda/plan.py."""
    return importlib.import_module("scratchrnn.kernels.cuda.plan")


def h100() -> Any:
    """The device of the predictions: compute capability 9.0, 132 SMs, 227 KiB of shared memory a block."""
    return importlib.import_module("scratchrnn.kernels.cuda.queue").Device("H100", (9, 0), 132, 232448, 65536)


def decision(cell: str, batch: int, hidden: int, device: Any) -> dict[str, dict[str, Any]]:
    """Forward and backward: the persistent kernel's plan if one fits, estimated clocks a step, what the rule takes."""
    plan, found = module(), {}
    kind = cell.partition("_")[0]
    for direction, backward in (("forward", False), ("backward", True)):
        one_by_one = plan.per_step_clocks(kind, batch, hidden, backward, device)
        fits = plan.persistent(kind, batch, hidden, backward, device)
        taken = plan.choose_engine(kind, batch, hidden, False, "float32", backward, device)
        found[direction] = {
            "engine": "per_step" if taken is None else "persistent",
            "per_step_clocks": one_by_one,
            "persistent_clocks": None if fits is None else fits.clocks,
        }
        if fits is not None:
            found[direction] |= {name: getattr(fits, name) for name in ("units", "blocks", "groups", "per_group")}
            found[direction] |= {"shared_bytes": fits.shared, "weights_held": fits.tile.held}
    return found


def here(cell: str, batch: int, hidden: int) -> dict[str, dict[str, Any]]:
    """The same for the device of this machine; empty where it cannot be asked."""
    try:
        queue = importlib.import_module("scratchrnn.kernels.cuda.queue").own_queue()
        return decision(cell, batch, hidden, queue.device)
    except Exception as error:  # noqa: BLE001 (a row without its plan is still a row)
        return {"failed": {"why": f"{type(error).__name__}: {error}"[:500]}}


def clocks(decided: dict[str, dict[str, Any]], direction: str, engine: str | None = None) -> int | None:
    """Clocks of a step, of the engine that the rule takes or of another."""
    return decided[direction][f"{engine or decided[direction]['engine']}_clocks"]


def products(case: Case, sms: int = 132) -> tuple[float, float]:
    """Estimated seconds of the products over all time steps, forward and backward; those of the recurrence left out.

    Forward one of (T·B, D) by (D, R); backward one such for dx, one for dW_ih, and (R, T·B) by (T·B, H) for dW_hh.
    """
    rate = PRODUCT * sms * 256 * HERTZ
    input_part = 2 * case.T * case.B * case.rows * case.D
    return input_part / rate, (2 * input_part + 2 * case.T * case.B * case.rows * case.H) / rate


def predicted(case: Case, device: Any, engine: str | None = None) -> float | None:
    """Predicted seconds of a call; None where that engine does not fit."""
    decided = decision(case.cell, case.B, case.H, device)
    forward, backward = (clocks(decided, direction, engine) for direction in ("forward", "backward"))
    before, after = products(case, device.sms)
    if forward is None:
        return None
    seconds = START + before + case.T * forward / HERTZ
    if case.mode == "infer":
        return seconds
    return None if backward is None else seconds + after + case.T * backward / HERTZ


def versions(torch: Any) -> dict[str, str]:
    """Of every package that takes part, and of the libraries that torch brings."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    found.setdefault("scratchrnn", importlib.import_module("scratchrnn").__version__)
    if torch.version.cuda is not None:
        found |= {"cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version())}
    return found


def device() -> dict[str, Any]:
    """What nvidia-smi says of the first device; empty without it."""
    fields = (
        "name",
        "driver_version",
        "memory.total",
        "clocks.max.sm",
        "power.limit",
        "compute_cap",
        "compute_mode",
    )
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return {}
    return dict(zip(fields, (part.strip() for part in done.stdout.splitlines()[0].split(",")), strict=False))
