"""LSTM and RNN for torch's users: subclasses of torch.nn's that compute on the kernels here.

Everything but `forward` is torch's own: the constructor, parameters and their names, state_dict, pickling, `repr`. So a
module of torch.nn becomes one of these when its class is exchanged, and back (`swap`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from scratchrnn import backends
from scratchrnn.interop.torch.call import Call, array_of, node
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.layout import Layout, Packed, Padded
from scratchrnn.interop.torch.samples import Samples
from scratchrnn.layers.direction import Cell

DTYPES = ("torch.float32", "torch.float64")


def why_not(module: Any, devices: tuple[str, ...] = ("cpu",)) -> str | None:
    """Say which of a module's parameters cannot be computed with here, or None."""
    for name in module._flat_weights_names:
        weight = getattr(module, name, None)
        if not isinstance(weight, require_torch().Tensor):
            return f"{name}: expected a tensor; got {type(weight).__name__}"
        if weight.device.type not in devices:
            return f"{name}: expected a tensor on the CPU; got one on {weight.device}"
        if str(weight.dtype) not in DTYPES:
            return f"{name}: expected dtype float32 or float64; got {str(weight.dtype).removeprefix('torch.')}"
    return None


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
            As torch.nn's. TypeError as well for parameters that are not float32 or float64 on the CPU.
        """
        torch = require_torch()
        self._update_flat_weights()  # type: ignore[attr-defined]
        packed = isinstance(input, torch.nn.utils.rnn.PackedSequence)
        enter = self._enter_packed if packed else self._enter
        x, states, layout = enter(input, hx)
        weights = [getattr(self, name) for name in self._flat_weights_names]
        self._check_tensors(torch, x, states, weights)

        call = Call(
            Cell("lstm") if self.mode == "LSTM" else Cell("rnn", self.mode.removeprefix("RNN_").lower()),
            self.hidden_size, self.num_layers, self.bidirectional, self.proj_size, tuple(self._flat_weights_names),
            self.dropout if self.training and self.num_layers > 1 else 0.0, layout, bool(return_trace), backends.load(),
            Samples.of(dict(zip(self._flat_weights_names, weights, strict=True))) if self.per_sample else None,
        )  # fmt: skip
        states = states or (None,) * (2 if call.cell.has_c else 1)
        given = (x, *states, *weights)
        traces: list[Any] = []
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in given):
            output, *final = node().apply(call, traces, *given)
        else:
            arrays = (array_of(x), [array_of(s) for s in states], [array_of(w) for w in weights])
            if call.dropout or return_trace:
                result, _, trace = call.forward(*arrays)
                traces.append(trace)
            else:
                result = call.infer(*arrays)
            output, *final = map(torch.from_numpy, result)
        if packed:
            output = torch.nn.utils.rnn.PackedSequence(output, *input[1:])
        state = tuple(final) if call.cell.has_c else final[0]
        return (output, state, traces[0]) if return_trace else (output, state)

    def _states(self, hx: Any) -> tuple[Any, ...]:
        """hx as one tensor, or two of an LSTM."""
        if hx is None:
            return ()
        if self.mode != "LSTM":
            hx.dim  # noqa: B018  a tuple fails here, as in torch
            return (hx,)
        states = (hx[0], hx[1])
        if isinstance(hx, require_torch().Tensor):
            dims = "-D, ".join(str(s.dim()) for s in states)
            kind = RuntimeError if states[0].dim() != 3 else TypeError  # as torch's own come to be
            raise kind(f"hx: expected a tuple (h_0, c_0); got a tensor, whose rows are ({dims}-D)")
        if len(hx) != 2:
            raise RuntimeError(f"hx: expected a tuple (h_0, c_0); got {len(hx)} entries")
        return states

    def _enter(self, input: Any, hx: Any) -> tuple[Any, tuple[Any, ...], Layout]:  # noqa: A002
        """Input and states as they are, once torch's own checks have passed."""
        if input.dim() not in (2, 3):
            raise ValueError(f"{self.mode[:4].rstrip('_')}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        batched = input.dim() == 3
        states = self._states(hx)
        if any(s.dim() != input.dim() for s in states):
            got = ", ".join(f"{s.dim()}-D" for s in states)
            raise RuntimeError(
                f"For {'batched' if batched else 'unbatched'} {input.dim()}-D input, hx should also be {input.dim()}-D "
                f"but got {got}"
            )
        self._check(input if batched else input.unsqueeze(0 if self.batch_first else 1), states, batched, None)
        if input.shape[1 if batched and self.batch_first else 0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        return input, states, Padded(self.batch_first, batched)

    def _enter_packed(self, input: Any, hx: Any) -> tuple[Any, tuple[Any, ...], Layout]:  # noqa: A002
        """The data of a PackedSequence, and how it is packed."""
        data, batch_sizes, sorted_indices, _ = input
        states = self._states(hx)
        self._check(data, states, True, batch_sizes)
        return data, states, Packed.of(batch_sizes.numpy(), array_of(sorted_indices))

    def _check(self, x: Any, states: tuple[Any, ...], batched: bool, batch_sizes: Any) -> None:
        """torch's checks of sizes."""
        if not states:
            self.check_input(x, batch_sizes)  # type: ignore[attr-defined]
            return
        hidden = states if batched else tuple(s.unsqueeze(1) for s in states)
        self.check_forward_args(x, hidden if self.mode == "LSTM" else hidden[0], batch_sizes)  # type: ignore[attr-defined]

    def _check_tensors(self, torch: Any, x: Any, states: tuple[Any, ...], weights: list[Any]) -> None:
        """What torch's kernels would find out: one dtype, on the CPU."""
        dtype = weights[0].dtype
        if dtype in (torch.float32, torch.float64) and all(
            t.is_cpu and t.dtype is dtype for t in (x, *states, *weights)
        ):
            return
        reason = why_not(self)
        if reason is not None:
            raise TypeError(f"{reason}: scratchrnn computes on the CPU, in float32 or float64")
        named = {"input": x, **{f"hx[{n}]": s for n, s in enumerate(states)}}
        named |= dict(zip(self._flat_weights_names, weights, strict=True))
        odd = [f"{name} of {t.dtype} on {t.device}" for name, t in named.items() if not (t.is_cpu and t.dtype is dtype)]
        raise RuntimeError(f"expected {dtype} on cpu, as {self._flat_weights_names[0]} is; got {', '.join(odd)}")


@cache
def module_class(name: str) -> Any:
    """LSTM or RNN, made when torch is there."""
    base = getattr(require_torch().nn, name)
    package = __name__.rpartition(".")[0]  # pickles name the class by where users find it
    doc = f"torch.nn.{name}, computed on the kernels of scratchrnn: same constructor, parameters and calls."
    return type(name, (OnKernels, base), {"__module__": package, "__qualname__": name, "__doc__": doc})
