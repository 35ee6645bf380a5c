"""Seconds between events on the device's own clock, and the kernels that ran between them."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

MOST_NAMES = 12  # kernels of a call, those that took longest


class Clock:
    """Calls queued one after another, an event between each two. The host waits at the end only.

    So a call's time is the device's, unless the host needs longer to issue it: then the device waits, as it does in any
    loop of such calls, and `host` says so. A device of "cpu" has no events; the host's clock stands in.
    """

    def __init__(self, torch: Any, device: str) -> None:
        self.torch, self.device = torch, device

    def wait(self) -> None:
        """Until the device is idle; raise if something on it failed."""
        if self.device == "cuda":
            self.torch.cuda.synchronize()

    def _now(self) -> Any:
        if self.device != "cuda":
            return time.perf_counter()
        event = self.torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, call: Callable[[], Any], calls: int) -> tuple[list[float], list[float]]:
        """Of each of some calls: on the device, and until the host had issued it. Results are dropped at once."""
        self.wait()
        events, host = [self._now()], []
        for _ in range(calls):
            began = time.perf_counter()
            call()
            host.append(time.perf_counter() - began)
            events.append(self._now())
        self.wait()
        if self.device != "cuda":
            return [b - a for a, b in pairwise(events)], host
        return [a.elapsed_time(b) / 1e3 for a, b in pairwise(events)], host


def kernels(torch: Any, call: Callable[[], Any], most: int = MOST_NAMES) -> list[dict[str, Any]]:
    """The kernels of one call that took longest: name, how many, microseconds in all. Seen by CUPTI, ours included."""
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        call()
        torch.cuda.synchronize()
    totals: dict[str, list[float]] = {}
    for event in seen.events():
        if str(event.device_type).endswith("CUDA"):
            took = totals.setdefault(event.name, [0, 0.0])
            took[0] += 1
            took[1] += event.time_range.elapsed_us()
    order = sorted(totals.items(), key=lambda item: -item[1][1])[:most]
    return [{"name": name, "launches": int(n), "microseconds": round(us, 1)} for name, (n, us) in order]
