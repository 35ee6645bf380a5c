"""The parent's end of one shape's process on the GPU: commands and answers as JSON lines, no wait without a bound.

A kernel can hang, and a fault on the device ends every call of its process. So whoever ran last is named: the parent
goes on without it, in a new process.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from timing import HERE, ROOT


class ProcessLostError(RuntimeError):
    """A process that died, hung, or lost its device; `engine` ran last, or is None where none had begun."""

    def __init__(self, engine: str | None, why: str) -> None:
        super().__init__(why)
        self.engine = engine


class Process:
    """A process with some engines; `ask` is `send` and `receive`, which may stand apart while others work."""

    def __init__(self, device: str, engines: Sequence[str]) -> None:
        paths = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.engines, self._at = list(engines), None
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "cuda_worker.py"), device, ",".join(engines)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        )  # fmt: skip
        self._rest = b""

    def send(self, do: str, **arguments: Any) -> None:
        """Give a command."""
        pipe = self._process.stdin
        if pipe is None:
            raise ProcessLostError(self._at, "no pipe")
        try:
            pipe.write(json.dumps({"do": do, **arguments}).encode() + b"\n")
            pipe.flush()
        except BrokenPipeError:
            raise ProcessLostError(self._at, "its process ended") from None

    def receive(self, patience: float) -> dict[str, Any]:
        """The answer; at most `patience` seconds may pass until it comes.

        Raises
        ------
        ProcessLostError
            None came, or the device is lost. The process has ended.
        RuntimeError
            The command failed; the process goes on.
        """
        ends = time.monotonic() + patience
        while True:
            message = json.loads(self._line(ends, patience))
            if "at" in message:
                self._at = message["at"]
            elif "lost" in message:
                self.kill()
                raise ProcessLostError(self._at, message["lost"])
            else:
                answer: dict[str, Any] = message["answer"]
                if "failed" in answer:
                    raise RuntimeError(answer["failed"])
                return answer

    def ask(self, do: str, patience: float, **arguments: Any) -> dict[str, Any]:
        """Give a command and wait for its answer."""
        self.send(do, **arguments)
        return self.receive(patience)

    def _line(self, ends: float, patience: float) -> bytes:
        pipe = self._process.stdout
        if pipe is None:
            raise ProcessLostError(self._at, "no pipe")
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while b"\n" not in self._rest:
                if not selector.select(max(0.0, ends - time.monotonic())):
                    self.kill()
                    raise ProcessLostError(self._at, f"no answer within {patience:.0f} s")
                read = os.read(pipe.fileno(), 1 << 16)
                if not read:
                    code = self._process.wait()
                    raise ProcessLostError(self._at, f"its process ended with {code}")
                self._rest += read
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End it."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None and not pipe.closed:
                try:
                    pipe.close()
                except BrokenPipeError:
                    continue
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()
