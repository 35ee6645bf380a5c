"""LSTM and RNN for torch's users: subclasses of torch.nn's that compute on the kernels here.

Everything but `forward` is torch's own: the constructor, parameters and their names, state_dict, pickling, `repr`. So a
module of torch.nn becomes one of these when its class is exchanged (`swap`), and one of torch's again (`swap_back`).
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from scratchrnn import backends
from scratchrnn._validate import describe
from scratchrnn.interop.torch.call import Call, array_of
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.layout import Layout, Packed, Padded
from scratchrnn.interop.torch.node import node
from scratchrnn.interop.torch.once import forward_mode
from scratchrnn.interop.torch.samples import Samples
from scratchrnn.layers.direction import Cell
from scratchrnn.trace import Trace

DTYPES = ("torch.float32", "torch.float64")


def weight_names(module: Any) -> list[str]:
    """Names of a module's weights, in the order in which a call takes them."""
    names: list[str] | None = module.__dict__.get("_flat_weights_names")
    return names or ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if module.bias else [])]  # of a cell


@cache
def weight_shapes(names: tuple[str, ...], gates: int, inputs: int, hidden: int, out: int, directions: int) -> list[Any]:
    """The shapes that a call reads, since kernels look at none; `out` is the width of h."""

    def shape(name: str) -> tuple[int, ...]:
        if name.startswith("bias"):
            return (gates * hidden,)
        if name.startswith("weight_ih"):
            first = name.removesuffix("_reverse") in ("weight_ih", "weight_ih_l0")
            return gates * hidden, inputs if first else directions * out
        return (out, hidden) if name.startswith("weight_hr") else (gates * hidden, out)

    return [shape(name) for name in names]


def check_weights(module: Any, names: tuple[str, ...], weights: list[Any], has_c: bool) -> None:
    """Raise unless every weight is a tensor of the shape that the module's sizes ask for."""
    hidden, told = module.hidden_size, module.__dict__
    out, directions = told.get("proj_size") or hidden, 2 if told.get("bidirectional") else 1
    want = weight_shapes(names, 4 if has_c else 1, module.input_size, hidden, out, directions)
    if [getattr(w, "shape", None) for w in weights] == want:
        return
    for name, weight, shape in zip(names, weights, want, strict=True):
        check_tensor(name, weight)
        if weight.shape != shape:
            sizes = f"input_size={module.input_size}, hidden_size={hidden}"
            raise RuntimeError(f"{name}: expected shape {shape} for {sizes}; got {tuple(weight.shape)}")


def why_not(module: Any, devices: tuple[str, ...] = ("cpu",)) -> str | None:
    """Say which of a module's parameters cannot be computed with here, or None."""
    for name in weight_names(module):
        weight = getattr(module, name, None)
        if not isinstance(weight, require_torch().Tensor):
            return f"{name}: expected a tensor; got {type(weight).__name__}"
        if weight.device.type not in devices:
            return f"{name}: expected a tensor on the CPU; got one on {weight.device}"
        if str(weight.dtype) not in DTYPES:
            return f"{name}: expected dtype float32 or float64; got {str(weight.dtype).removeprefix('torch.')}"
    return None


def export_error() -> RuntimeError:
    """What is raised where a model is being written down, by what only sees operators of torch."""
    return RuntimeError(
        "modules of scratchrnn.interop.torch cannot be traced or exported: first give the model torch's own again "
        "with scratchrnn.interop.torch.swap_back(model)"
    )


class NotATensor(TypeError, AttributeError):
    """Something else in the place of a tensor: in torch's modules one of the two, as it comes."""


def check_tensor(name: str, value: Any) -> None:
    """Raise NotATensor unless `value` is a torch tensor."""
    if not isinstance(value, require_torch().Tensor):
        raise NotATensor(f"{name}: expected a tensor; got {describe(value)}")


def refuse_export(torch: Any, x: Any) -> None:
    """Raise where operators of torch are written down, which would keep our results: jit, export, fx and their like."""
    exporting = getattr(torch.compiler, "is_exporting", None)  # from torch 2.7 on
    proxies = sys.modules.get("torch.fx.experimental.proxy_tensor")  # there once make_fx or linearize was called
    recording = getattr(proxies, "get_proxy_mode", None)
    asked = (torch.jit.is_tracing, exporting, recording)
    if isinstance(x, torch.fx.Proxy) or any(ask() for ask in asked if ask is not None):
        raise export_error()


def check_tensors(torch: Any, module: Any, x: Any, states: tuple[Any, ...], weights: list[Any]) -> None:
    """What torch's kernels would find out: one dtype, on the CPU."""
    dtype = weights[0].dtype
    if dtype in (torch.float32, torch.float64) and all(
        t.is_cpu and t.dtype is dtype and t.layout is torch.strided for t in (x, *states, *weights)
    ):
        return
    reason = why_not(module)
    if reason is not None:
        raise TypeError(f"{reason}: scratchrnn computes on the CPU, in float32 or float64")
    names = weight_names(module)
    named = {"input": x, **{f"hx[{n}]" if len(states) == 2 else "hx": s for n, s in enumerate(states)}}
    named |= dict(zip(names, weights, strict=True))
    sparse = [f"{name} of {t.layout}" for name, t in named.items() if t.layout is not torch.strided]
    if sparse:
        raise RuntimeError(f"expected strided tensors, as to_dense() returns; got {', '.join(sparse)}")
    odd = [f"{name} of {t.dtype} on {t.device}" for name, t in named.items() if not (t.is_cpu and t.dtype is dtype)]
    raise RuntimeError(f"expected {dtype} on cpu, as {names[0]} is; got {', '.join(odd)}")


def compute(
    torch: Any, call: Call, x: Any, states: tuple[Any, ...], weights: list[Any]
) -> tuple[list[Any], Trace | None]:
    """Run a call: the tensors (output, h_n, and c_n of an LSTM), and the trace if it is asked for."""
    states = states or (None,) * (2 if call.cell.has_c else 1)
    given = (x, *states, *weights)
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given)
    if wanted or forward_mode(torch):
        traces: list[Trace] = []
        return list(node().apply(call, traces, *given)), traces[0] if traces else None
    arrays = (array_of(x), [array_of(s) for s in states], [array_of(w) for w in weights])
    if call.dropout or call.own_trace:
        result, _, trace = call.forward(*arrays)
    else:
        result, trace = call.infer(*arrays), None
    return [torch.from_numpy(a) for a in result], trace


class OnKernels:
    """`forward` on the kernels here, for a subclass of torch.nn.LSTM or RNN."""

    # of torch's module
    mode: str
    input_size: int
    hidden_size: int
    num_layers: int
    batch_first: bool
    dropout: float
    bidirectional: bool
    proj_size: int
    training: bool
    _flat_weights_names: list[str]
    _flat_weights: list[Any]

    # True on a module: backward leaves beside `parameter.grad` each sample's own part of it, in
    # `parameter.grad_sample` (B, ...); see docs/per-sample.md
    per_sample: bool = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reason = why_not(self, ("cpu", "meta"))  # on meta nothing can be computed, but to_empty moves it
        if reason is not None:
            raise TypeError(reason)

    def forward(self, input: Any, hx: Any = None, *, return_trace: bool = False) -> Any:  # noqa: A002  torch's name
        """As torch.nn.LSTM's and RNN's, with `return_trace` beside it.

        Parameters
        ----------
        input : Tensor or PackedSequence
            (T, B, I), or (B, T, I) with `batch_first`, or (T, I) without a batch.
        hx : Tensor, or (h_0, c_0) for the LSTM, optional
            h_0 (D·L, B, P) and c_0 (D·L, B, H), without the axis B if the input has none; zeros when absent.
        return_trace : bool
            Whether a third result is the `scratchrnn.Trace` of this call: h, c, gates and pre-activations of every
            step, as arrays; read them, and write into copies. `trace.gradients` is None until backward has been through
            the call, and then holds the gradients of all of these, from the latest backward.

        Returns
        -------
        (output, h_n) or (output, (h_n, c_n)), and the trace where it is asked for.

        Raises
        ------
        ValueError, RuntimeError, TypeError
            As torch.nn's. TypeError as well for parameters that are not float32 or float64 on the CPU, and RuntimeError
            where the model is traced or exported: `swap_back` first.
        """
        torch = require_torch()
        refuse_export(torch, input)
        self._update_flat_weights()  # type: ignore[attr-defined]
        names, weights = tuple(self._flat_weights_names), self._flat_weights  # asked for once: they may be drawn
        check_weights(self, names, weights, self.mode == "LSTM")
        packed = isinstance(input, torch.nn.utils.rnn.PackedSequence)
        enter = self._enter_packed if packed else self._enter
        x, states, layout = enter(input, hx)
        check_tensors(torch, self, x, states, weights)

        call = Call(
            Cell("lstm") if self.mode == "LSTM" else Cell("rnn", self.mode.removeprefix("RNN_").lower()),
            self.hidden_size, self.num_layers, self.bidirectional, self.proj_size, names,
            self.dropout if self.training and self.num_layers > 1 else 0.0, layout, bool(return_trace), backends.load(),
            Samples.of(dict(zip(names, weights, strict=True))) if self.per_sample else None,
        )  # fmt: skip
        (output, *final), trace = compute(torch, call, x, states, weights)
        if packed:
            output = torch.nn.utils.rnn.PackedSequence(output, *input[1:])
        state = tuple(final) if call.cell.has_c else final[0]
        return (output, state, trace) if return_trace else (output, state)

    def __prepare_scriptable__(self) -> Any:
        """What `torch.jit.script` asks for first, wherever the module stands."""
        raise export_error()

    def _states(self, hx: Any, packed: bool) -> tuple[Any, ...]:
        """hx as one tensor, or two of an LSTM."""
        if hx is None:
            return ()
        if self.mode != "LSTM":
            check_tensor("hx", hx)
            return (hx,)
        tensor = isinstance(hx, require_torch().Tensor)
        if not isinstance(hx, (tuple, list)) and (packed or not tensor):
            got = f"a tensor of shape {tuple(hx.shape)}" if tensor else describe(hx)
            raise NotATensor(f"hx: expected a tuple (h_0, c_0); got {got}")
        count = 0 if tensor and hx.dim() == 0 else len(hx)
        if count != 2:
            kind = RuntimeError if packed or count > 2 else IndexError
            raise kind(f"hx: expected a tuple (h_0, c_0); got {count} entries")
        check_tensor("hx[0]", hx[0])
        check_tensor("hx[1]", hx[1])
        return (hx[0], hx[1])

    def _enter(self, input: Any, hx: Any) -> tuple[Any, tuple[Any, ...], Layout]:  # noqa: A002
        """Input and states as they are, once torch's own checks have passed."""
        check_tensor("input", input)
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode[:4].rstrip('_')}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        states = self._states(hx, False)
        if any(s.dim() != input.dim() for s in states):
            got = ", ".join(f"{s.dim()}-D" for s in states)
            raise RuntimeError(
                f"For {'batched' if batched else 'unbatched'} {input.dim()}-D input, hx should also be {input.dim()}-D "
                f"but got {got}"
            )
        if batched and self.mode == "LSTM" and isinstance(hx, require_torch().Tensor):  # without a batch torch takes it
            raise TypeError(f"hx: expected a tuple (h_0, c_0); got a tensor of shape {tuple(hx.shape)}")
        self._check(input if batched else input.unsqueeze(0 if self.batch_first else 1), states, batched, None)
        if input.shape[1 if batched and self.batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return input, states, Padded(self.batch_first, batched)

    def _enter_packed(self, input: Any, hx: Any) -> tuple[Any, tuple[Any, ...], Layout]:  # noqa: A002
        """The data of a PackedSequence, and how it is packed."""
        data, batch_sizes, sorted_indices, _ = input
        check_tensor("input.data", data)
        states = self._states(hx, True)
        if self.mode == "LSTM" and data.dtype is not self._flat_weights[0].dtype:
            raise RuntimeError(f"input.data: expected {self._flat_weights[0].dtype}, as weights; got {data.dtype}")
        self._check(data, states, True, batch_sizes)
        if sorted_indices is not None:
            check_tensor("input.sorted_indices", sorted_indices)
        return data, states, Packed.of(len(data), batch_sizes.numpy(), array_of(sorted_indices))

    def _check(self, x: Any, states: tuple[Any, ...], batched: bool, batch_sizes: Any) -> None:
        """torch's checks of sizes."""
        if not states:
            self.check_input(x, batch_sizes)  # type: ignore[attr-defined]
            return
        hidden = states if batched else tuple(s.unsqueeze(1) for s in states)
        self.check_forward_args(x, hidden if self.mode == "LSTM" else hidden[0], batch_sizes)  # type: ignore[attr-defined]
