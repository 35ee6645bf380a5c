"""A sequence of launches and copies, recorded once and replayed at the cost of one launch."""

from __future__ import annotations

from collections.abc import Callable

from . import cublas, driver
from .queue import Queue, SimulatedQueue


class Recorded:
    """What `run` puts on the queue, to be replayed: the same kernels on the same memory, as it is then.

    Nothing runs while it is recorded. `run` launches kernels that are already compiled, calls `gemm.product`, and
    copies on the device; it allocates nothing and waits for nothing. The arrays that it closes over live as long as
    this does. A replay goes to the stream that the queue had then. In Numba's simulator it calls `run`.
    """

    def __init__(self, queue: Queue, run: Callable[[], None]) -> None:
        self._run = run
        self._graph: driver.Graph | None = None
        if isinstance(queue, SimulatedQueue):
            return
        # A caller's stream may be the legacy one, which cannot be recorded; and memory that dies meanwhile is freed on
        # its stream. So the queue stands on another for now, with its own workspace: a replay waits for its turn, too.
        cublas.handle(queue)
        stream, handle = driver.Stream(), queue.handle
        self._workspace = queue.workspaces[stream.handle] = queue.workspace  # kept: the queue may die before the graph
        queue.handle, queue.recording = stream.handle, True
        try:
            self._graph = driver.Graph(stream.handle, run)
        finally:
            queue.handle, queue.recording = handle, False
            del queue.workspaces[stream.handle]

    def replay(self, queue: Queue) -> None:
        """Put it on the queue."""
        if self._graph is None:
            self._run()
        else:
            self._graph.launch(queue.handle)
