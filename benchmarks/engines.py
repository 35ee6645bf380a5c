"""What is timed side by side. An engine turns a case and its inputs into a call without arguments, and reads results.

Preparing (layers, inputs in the engine's own arrays) stands outside the clock; the call is what a user would write,
output allocation included. Libraries are imported by `load`, in a process of the engine's own.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from cases import DTYPES, MODES, Array, Case, Inputs

Call = Callable[[], Any]
Collect = Callable[[Any], dict[str, Array]]  # what a call returned, as arrays by the names in `verify.expected`
WEIGHTS = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")


class Engine(ABC):
    """One implementation, as a process of its own runs it."""

    name: str
    packages: tuple[str, ...]  # it needs these, and their versions stand in its rows
    modes: tuple[str, ...] = MODES
    dtypes: tuple[str, ...] = DTYPES
    baseline = False  # ratios are another engine's time over ours: whether this is one of ours

    def environment(self, threads: int) -> dict[str, str]:
        """Variables that must stand before the process starts."""
        names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
        return dict.fromkeys(names, str(threads))

    def why_unavailable(self) -> str | None:
        """Say what is missing here, or None; imports nothing."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return f"{package} is not installed"
        return None

    def why_not(self, case: Case) -> str | None:
        """Say why this engine has no such case, or None."""
        if case.mode not in self.modes:
            return f"no mode {case.mode}"
        return None if case.dtype in self.dtypes else f"no {case.dtype}"

    def versions(self) -> dict[str, str]:
        """Version of each package."""
        return {package: importlib.metadata.version(package) for package in self.packages}

    @abstractmethod
    def load(self, threads: int) -> None:
        """Import what is needed and set the number of threads."""

    @abstractmethod
    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:
        """Return the call to time, and the function that turns what it returned into arrays."""


def _named(prefix: str, h: Array, c: Array | None) -> dict[str, Array]:
    return {f"{prefix}h": h} | ({} if c is None else {f"{prefix}c": c})


def _final(state: Any) -> dict[str, Array]:
    h_n, c_n = state if isinstance(state, tuple) else (state, None)
    return {"h_n": h_n} | ({} if c_n is None else {"c_n": c_n})


def _d_initial(state: Any) -> dict[str, Array]:
    h_0, c_0 = state if isinstance(state, (tuple, list)) else (state, None)
    return {"d_h_0": h_0} | ({} if c_0 is None else {"d_c_0": c_0})


class ScratchRNN(Engine):
    """This project, through its public layers, on one of its backends."""

    packages = ("numpy", "numba")
    baseline = True

    def __init__(self, backend: str, trace: str = "full") -> None:
        self.name = f"scratchrnn-{backend}" + ("" if trace == "full" else f"-{trace}")
        self.backend = backend
        self.trace = trace
        if trace == "minimal":
            self.modes, self.baseline = ("train",), False

    def environment(self, threads: int) -> dict[str, str]:  # noqa: D102 (as in Engine)
        return super().environment(threads) | {"SCRATCHRNN_NUM_THREADS": str(threads)}

    def load(self, threads: int) -> None:  # noqa: D102
        self.srnn = importlib.import_module("scratchrnn")

    def versions(self) -> dict[str, str]:  # noqa: D102
        return super().versions() | {"scratchrnn": importlib.import_module("scratchrnn").__version__}

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        kind = self.srnn.LSTM if case.cell == "lstm" else self.srnn.RNN
        layer = kind(case.D, case.H, dtype=np.dtype(case.dtype), backend=self.backend)
        layer.load_state_dict(given.weights)
        x, state, d_output, d_state = given.x, given.state, given.d_output, given.d_state

        if case.mode == "infer":
            return lambda: layer(x, state), lambda raw: {"output": raw[0]} | _final(raw[1])

        def step() -> Any:
            trace = layer.forward(x, state, trace=self.trace)
            return trace, layer.backward(trace, d_output, d_state)

        def collect(raw: Any) -> dict[str, Array]:
            trace, grads = raw
            found = {"output": trace.output, "d_x": grads.input} | _final(trace.state) | _d_initial(grads.state)
            found |= {f"d_{name}": grads.parameters[name] for name in WEIGHTS}
            if case.mode == "trace":
                found |= {"trace.a": trace.a, "d_trace.a": grads.a}
                found |= _named("trace.", trace.h, trace.c if case.cell == "lstm" else None)
                found |= _named("d_trace.", grads.h, grads.c if case.cell == "lstm" else None)
                found |= {"trace.gates": trace.gates} if case.cell == "lstm" else {}
            return found

        return step, collect


class Torch(Engine):
    """torch.nn.LSTM and torch.nn.RNN, eager, gradients by autograd."""

    name = "torch"
    packages = ("torch",)
    modes = ("infer", "train")
    device = "cpu"

    def load(self, threads: int) -> None:  # noqa: D102
        self.torch = importlib.import_module("torch")
        self.torch.set_num_threads(threads)

    def _tensor(self, array: Array) -> Any:
        """An input, on the device."""
        return self.torch.from_numpy(array).to(self.device)

    def _result(self, tensor: Any) -> Any:
        """A result, as `collect` hands it out."""
        return tensor.detach().numpy()

    def _tensors(self, case: Case, given: Inputs) -> tuple[Any, list[Any], list[Any]]:
        """x, the initial state, and the cotangents of output and final state."""
        grad = case.mode != "infer"
        x = self._tensor(given.x).requires_grad_(grad)
        state = [self._tensor(s).requires_grad_(grad) for s in (given.h_0, given.c_0) if s is not None]
        arrays = (given.d_output, given.d_h_n, given.d_c_n)
        return x, state, [self._tensor(a) for a in arrays if a is not None]

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        torch = self.torch
        kind = torch.nn.LSTM if case.cell == "lstm" else torch.nn.RNN
        module = kind(case.D, case.H, dtype=getattr(torch, case.dtype), device=self.device)
        module.load_state_dict({name: self._tensor(w) for name, w in given.weights.items()})
        x, state, cotangents = self._tensors(case, given)
        start = tuple(state) if case.cell == "lstm" else state[0]
        wanted = [x, *state, *(getattr(module, name) for name in WEIGHTS)]
        module.train(case.mode != "infer")

        def infer() -> Any:
            with torch.inference_mode():
                return module(x, start)

        def train() -> Any:
            output, final = module(x, start)
            results = [output, *(final if case.cell == "lstm" else [final])]
            return results, torch.autograd.grad(results, wanted, cotangents)

        def collect(raw: Any) -> dict[str, Array]:
            if case.mode == "infer":
                output, final = raw
                raw = [output, *(final if case.cell == "lstm" else [final])], []
            return self._collect(case, *raw)

        return infer if case.mode == "infer" else train, collect

    def _collect(self, case: Case, results: Any, grads: Any) -> dict[str, Array]:
        names = ["output", "h_n"] + (["c_n"] if case.cell == "lstm" else [])
        found = dict(zip(names, results, strict=True))
        if grads:
            names = ["d_x", "d_h_0"] + (["d_c_0"] if case.cell == "lstm" else [])
            found |= zip([*names, *(f"d_{name}" for name in WEIGHTS)], grads, strict=True)
        return {name: self._result(tensor) for name, tensor in found.items()}


class TorchLoop(Torch):
    """A loop over torch.nn.LSTMCell or RNNCell with retain_grad: the plain way in torch to dL/dh_t and dL/dc_t.

    It hands out states and their gradients, but neither gates nor pre-activations.
    """

    name = "torch-loop"
    modes = ("trace",)

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        torch, lstm = self.torch, case.cell == "lstm"
        kind = torch.nn.LSTMCell if lstm else torch.nn.RNNCell
        cell = kind(case.D, case.H, dtype=getattr(torch, case.dtype), device=self.device)
        cell.load_state_dict({n.removesuffix("_l0"): self._tensor(w) for n, w in given.weights.items()})
        x, state, cotangents = self._tensors(case, given)
        leaves = [x, *state]

        def step() -> Any:
            for tensor in (*leaves, *cell.parameters()):
                tensor.grad = None
            h, c = state[0][0], state[1][0] if lstm else None
            for tensor in (h, c) if lstm else (h,):
                tensor.retain_grad()
            hs, cs = [h], [c]
            for x_t in x.unbind(0):
                if lstm:
                    h, c = cell(x_t, (h, c))
                    c.retain_grad()
                    cs.append(c)
                else:
                    h = cell(x_t, h)
                h.retain_grad()
                hs.append(h)
            results = [torch.stack(hs[1:]), h[None]] + ([c[None]] if lstm else [])
            torch.autograd.backward(results, cotangents)
            return results, hs, cs

        def collect(raw: Any) -> dict[str, Array]:
            results, hs, cs = raw
            grads = [x.grad, *(s.grad for s in state), *(getattr(cell, n.removesuffix("_l0")).grad for n in WEIGHTS)]
            found = self._collect(case, results, grads)
            for name, steps in (("h", hs), ("c", cs)) if lstm else (("h", hs),):
                found[f"trace.{name}"] = self._result(torch.stack(steps))
                found[f"d_trace.{name}"] = self._result(torch.stack([s.grad for s in steps]))
            return found

        return step, collect


class Jax(Engine):
    """jax.lax.scan under jit; its gradients by vjp, under jit too."""

    name = "jax"
    packages = ("jax", "jaxlib")
    modes = ("infer", "train")

    def environment(self, threads: int) -> dict[str, str]:  # noqa: D102
        return super().environment(threads) | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}

    def load(self, threads: int) -> None:  # noqa: D102
        if hasattr(os, "sched_setaffinity"):  # XLA sizes its pool by the cores it may use, and has no other switch
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.jax = importlib.import_module("jax")

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        jax, lstm = self.jax, case.cell == "lstm"
        jnp = jax.numpy

        def forward(x: Any, state: Any, w: Mapping[str, Any]) -> Any:
            a_x = x @ w["weight_ih_l0"].T + (w["bias_ih_l0"] + w["bias_hh_l0"])

            def step(before: Any, a_t: Any) -> Any:
                a = a_t + before[0] @ w["weight_hh_l0"].T
                if not lstm:
                    h = jnp.tanh(a)
                    return (h,), h
                i, f, g, o = jnp.split(a, 4, axis=1)
                c = jax.nn.sigmoid(f) * before[1] + jax.nn.sigmoid(i) * jnp.tanh(g)
                h = jax.nn.sigmoid(o) * jnp.tanh(c)
                return (h, c), h

            final, output = jax.lax.scan(step, tuple(s[0] for s in state), a_x)
            return output, tuple(s[None] for s in final)

        def train(x: Any, state: Any, w: Any, d_output: Any, d_state: Any) -> Any:
            results, pullback = jax.vjp(forward, x, state, w)
            return results, pullback((d_output, d_state))

        x, d_output = jnp.asarray(given.x), jnp.asarray(given.d_output)
        state = tuple(jnp.asarray(s) for s in (given.h_0, given.c_0) if s is not None)
        d_state = tuple(jnp.asarray(s) for s in (given.d_h_n, given.d_c_n) if s is not None)
        w = {name: jnp.asarray(array) for name, array in given.weights.items()}
        compiled = jax.jit(forward if case.mode == "infer" else train)
        arguments = (x, state, w) if case.mode == "infer" else (x, state, w, d_output, d_state)

        def collect(raw: Any) -> dict[str, Array]:
            (output, final), grads = (raw, None) if case.mode == "infer" else raw
            found = {"output": output, "h_n": final[0]} | ({"c_n": final[1]} if lstm else {})
            if grads:
                d_x, d_initial, d_w = grads
                found |= {"d_x": d_x, "d_h_0": d_initial[0]} | ({"d_c_0": d_initial[1]} if lstm else {})
                found |= {f"d_{name}": d_w[name] for name in WEIGHTS}
            return {name: np.asarray(array) for name, array in found.items()}

        return lambda: jax.block_until_ready(compiled(*arguments)), collect


class OnnxRuntime(Engine):
    """ONNX Runtime's LSTM and RNN operators on CPU."""

    name = "onnxruntime"
    packages = ("onnxruntime", "onnx")
    modes = ("infer",)
    dtypes = ("float32",)

    def load(self, threads: int) -> None:  # noqa: D102
        self.ort = importlib.import_module("onnxruntime")
        self.onnx = importlib.import_module("onnx")
        self.options = self.ort.SessionOptions()
        self.options.intra_op_num_threads = threads

    def prepare(self, case: Case, given: Inputs) -> tuple[Call, Collect]:  # noqa: D102
        helper, lstm = self.onnx.helper, case.cell == "lstm"

        def rows(array: Array) -> Array:
            """Gate rows from torch's i, f, g, o to ONNX's i, o, f, c."""
            if not lstm:
                return array
            i, f, g, o = np.split(array, 4)
            return np.concatenate([i, o, f, g])

        w = {name: rows(array) for name, array in given.weights.items()}
        constants = {
            "W": w["weight_ih_l0"][None],
            "R": w["weight_hh_l0"][None],
            "B": np.concatenate([w["bias_ih_l0"], w["bias_hh_l0"]])[None],
        }
        feed = {"X": given.x, "h_0": given.h_0} | ({"c_0": given.c_0} if lstm else {})
        outputs = ["Y", "h_n"] + (["c_n"] if lstm else [])
        names = ["X", "W", "R", "B", "", "h_0"] + (["c_0"] if lstm else [])
        node = helper.make_node("LSTM" if lstm else "RNN", names, outputs, hidden_size=case.H)
        number = self.onnx.TensorProto.FLOAT
        graph = helper.make_graph(
            [node],
            case.cell,
            [helper.make_tensor_value_info(name, number, array.shape) for name, array in feed.items()],
            [helper.make_tensor_value_info(name, number, None) for name in outputs],
            [self.onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)], ir_version=8)
        session = self.ort.InferenceSession(model.SerializeToString(), self.options, ["CPUExecutionProvider"])

        def collect(raw: Any) -> dict[str, Array]:
            return {"output": raw[0][:, 0], "h_n": raw[1]} | ({"c_n": raw[2]} if lstm else {})

        return lambda: session.run(None, feed), collect


REGISTRY: dict[str, Engine] = {
    engine.name: engine
    for engine in (
        ScratchRNN("numba"),
        ScratchRNN("numba", "minimal"),
        ScratchRNN("numpy"),
        Torch(),
        TorchLoop(),
        Jax(),
        OnnxRuntime(),
    )
}
