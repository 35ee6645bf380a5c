"""What is timed side by side on a GPU. As in engines.py, but all arrays stand on the device before the clock starts.

Ours is called as a backend is, with torch's tensors, which it takes without a copy; the call allocates every result.

`device` is "cuda". A rehearsal sets it to "cpu": the same code on torch's CPU tensors and the NumPy backend, to see
that the programs run; its times say nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import cuda_cases
from cases import Case, Inputs
from engines import WEIGHTS, Call, Collect, Engine, Torch, TorchLoop

TF32_TOLERANCE = 0.1  # of the largest element: TF32 keeps 10 bits of each factor


class Settings:
    """What stands while an engine runs: torch's switches are the process's."""

    tf32 = False

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Within the block, products round their factors to TF32 or do not."""
        backends = importlib.import_module("torch").backends
        backends.cudnn.allow_tf32 = backends.cuda.matmul.allow_tf32 = self.tf32
        yield

    def tolerance(self, usual: float) -> float:
        """How far a result may lie from the truth; `usual` is float32's bound."""
        return max(usual, TF32_TOLERANCE) if self.tf32 else usual


class CudaTorch(Settings, Torch):
    """torch.nn.LSTM and torch.nn.RNN through cuDNN, gradients by autograd."""

    device = "cuda"
    dtypes = ("float32",)

    def __init__(self, tf32: bool) -> None:
        self.name = cuda_cases.CUDNN_TF32 if tf32 else cuda_cases.CUDNN
        self.tf32 = tf32

    def _result(self, tensor: Any) -> Any:
        return tensor.detach()


class CudaTorchLoop(Settings, TorchLoop):
    """A loop over torch.nn.LSTMCell or RNNCell with retain_grad."""

    name = cuda_cases.LOOP
    device = "cuda"
    dtypes = ("float32",)

    def _result(self, tensor: Any) -> Any:
        return tensor.detach()


class ScratchCuda(Settings, Engine):
    """This project's backend "cuda": its own choice of engine, or one that is forced."""

    packages = ("torch", "numba-cuda")
    dtypes = ("float32",)
    device = "cuda"

    def __init__(self, name: str, forced: str | None) -> None:
        self.name, self.forced = name, forced

    def load(self, threads: int) -> None:  # noqa: D102 (as in Engine)
        self.torch = importlib.import_module("torch")
        backends = importlib.import_module("scratchrnn.backends")
        self.kernels = backends.load("cuda" if self.device == "cuda" else "numpy")
        self.plan = importlib.import_module("scratchrnn.kernels.cuda.plan")

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a backend's function, on the engine that is forced."""
        if self.device == "cpu":
            arguments = tuple(a.numpy() if isinstance(a, self.torch.Tensor) else a for a in arguments)
        with nullcontext() if self.forced is None else self.plan.only(self.forced):
            function(*arguments)

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        torch, lstm = self.torch, case.cell == "lstm"

        def tensor(array: Any) -> Any:
            return torch.from_numpy(array).to(self.device)

        module = self.kernels.lstm if lstm else self.kernels.rnn
        kind = [] if lstm else ["tanh"]  # the RNN's nonlinearity
        weights = [tensor(given.weights[name]) for name in WEIGHTS]
        projection = [None] if lstm else []
        x, d_output = tensor(given.x), tensor(given.d_output)
        initial = [tensor(s[0]) for s in (given.h_0, given.c_0) if s is not None]  # (B, H) each
        d_final = [tensor(s[0]) for s in (given.d_h_n, given.d_c_n) if s is not None]
        lengths = torch.full((case.B,), case.T, dtype=torch.int32, device=self.device)
        T, B, H, R = case.T, case.B, case.H, case.rows

        def empty(*shape: int) -> Any:
            return torch.empty(shape, dtype=torch.float32, device=self.device)

        def infer() -> Any:
            output, final = empty(T, B, H), [empty(B, H) for _ in initial]
            self._run(module.infer, x, *initial, *weights, *projection, *kind, lengths, output, *final)
            return output, final

        def step() -> Any:
            states = [empty(T + 1, B, H) for _ in initial]
            for state, first in zip(states, initial, strict=True):
                state[0] = first
            gates = [empty(T, B, R)] if lstm else []
            d_states = [empty(T + 1, B, H) for _ in initial]
            d_states[0][0] = 0
            d_states[0][1:] = d_output
            d_states[0][T] += d_final[0]
            if lstm:
                d_states[1][:T] = 0
                d_states[1][T] = d_final[1]
            da, dx = empty(T, B, R), torch.empty_like(x)
            d_weights = [torch.zeros_like(w) for w in weights]
            detach_h = [None] if lstm else []
            self._run(module.forward, x, *weights, *projection, *kind, lengths, *states, *gates)
            self._run(
                module.backward, x, *weights[:2], *projection, *kind, lengths, *states, *gates, math.inf, *detach_h,
                *d_states, da, dx, *d_weights, *projection,
            )  # fmt: skip
            return states, gates, d_states, da, dx, d_weights

        def collect(raw: Any) -> dict[str, Any]:
            letters = "hc" if lstm else "h"
            if case.mode == "infer":
                output, final = raw
                return {"output": output} | {f"{s}_n": f[None] for s, f in zip(letters, final, strict=True)}
            states, gates, d_states, da, dx, d_weights = raw
            found = {"output": states[0][1:], "d_x": dx}
            found |= {f"d_{name}": d for name, d in zip(WEIGHTS, d_weights, strict=True)}
            for s, state, d_state in zip(letters, states, d_states, strict=True):
                found |= {f"{s}_n": state[T:], f"d_{s}_0": d_state[:1]}
                if case.mode == "trace":
                    found |= {f"trace.{s}": state, f"d_trace.{s}": d_state}
            if case.mode == "trace":
                found |= {"d_trace.a": da} | ({"trace.gates": gates[0]} if lstm else {})
            return found

        return infer if case.mode == "infer" else step, collect


REGISTRY: dict[str, Any] = {
    engine.name: engine
    for engine in (
        ScratchCuda(cuda_cases.CHOSEN, None),
        ScratchCuda(cuda_cases.PER_STEP, "per_step"),
        ScratchCuda(cuda_cases.PERSISTENT, "persistent"),
        CudaTorch(tf32=False),
        CudaTorch(tf32=True),
        CudaTorchLoop(),
    )
}
