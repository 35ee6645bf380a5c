"""LSTMCell and RNNCell for torch's users: a step is a call over one step of time.

    x (B, I)  ──►  (1, B, I)  ──Call──►  h_n (1, B, H), c_n (1, B, H)  ──►  h', c' (B, H)

    B batch   I input   H hidden;  without a batch, the axis B is missing outside

As torch's cells these take no layers, directions or lengths; the trace is that of `scratchrnn.LSTMCell.forward`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from scratchrnn import backends
from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe
from scratchrnn.interop.torch.call import Call
from scratchrnn.interop.torch.convert import require_torch
from scratchrnn.interop.torch.layout import Padded
from scratchrnn.interop.torch.modules import (
    NotATensor,
    check_tensor,
    check_tensors,
    check_weights,
    compute,
    export_error,
    refuse_export,
    weight_names,
    why_not,
)
from scratchrnn.interop.torch.samples import Samples
from scratchrnn.layers import walk
from scratchrnn.layers.direction import Cell
from scratchrnn.trace import Gradients, State, Trace

SUFFIX = "_l0"  # of the one layer's weights in a walk


class Step(Padded):
    """(B, N), or (N,) without a batch, as one step of time."""

    def enter(self, array: FloatArray) -> FloatArray:
        """As (1, B, N), a view."""
        return array[None] if self.batched else array[None, None]

    def leave(self, array: FloatArray) -> FloatArray:  # (1, B, N)
        """In the caller's layout, a view."""
        return array[0] if self.batched else array[0, 0]


class StepCall(Call):
    """A call whose states have no axis of layers, and whose weights no number."""

    def _enter_state(self, state: Any) -> Any:
        return None if state is None else self.layout.enter(state)

    def _leave_state(self, h: FloatArray, c: FloatArray | None) -> State:
        return self.layout.leave(h) if c is None else (self.layout.leave(h), self.layout.leave(c))

    def forward(
        self, x: FloatArray, states: Sequence[FloatArray | None], weights: Sequence[FloatArray]
    ) -> tuple[list[FloatArray], walk.Ran, Trace | None]:
        """As a call's, with the cell's names in the trace."""
        result, ran, trace = super().forward(x, states, weights)
        return result, ran, None if trace is None else replace(trace, parameters=named(trace.parameters))

    def record(self, back: walk.Returned) -> Gradients:
        """As a call's, with the cell's names."""
        gradients = super().record(back)
        return replace(gradients, parameters=named(gradients.parameters))


def named(parameters: Mapping[str, FloatArray]) -> dict[str, FloatArray]:
    """Parameters by the cell's names."""
    return {name.removesuffix(SUFFIX): array for name, array in parameters.items()}


class CellOnKernels:
    """`forward` on the kernels here, for a subclass of torch.nn.LSTMCell or RNNCell."""

    # of torch's module
    input_size: int
    hidden_size: int
    nonlinearity: str

    per_sample: bool = False  # as of the modules for sequences

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        reason = why_not(self, ("cpu", "meta"))  # on meta nothing can be computed, but to_empty moves it
        if reason is not None:
            raise TypeError(reason)

    def _cell(self) -> Cell:
        nonlinearity = self.__dict__.get("nonlinearity")  # an LSTM has none
        if nonlinearity is None:
            return Cell("lstm")
        if nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"nonlinearity: expected 'tanh' or 'relu'; got {nonlinearity!r}")
        return Cell("rnn", nonlinearity)

    def forward(self, input: Any, hx: Any = None, *, return_trace: bool = False) -> Any:  # noqa: A002  torch's name
        """As torch.nn.LSTMCell's and RNNCell's, with `return_trace` beside it.

        Parameters
        ----------
        input : Tensor
            (B, I), or (I,) without a batch.
        hx : Tensor, or (h, c) for the LSTM, optional
            (B, H) each, or (H,) without a batch; zeros when absent.
        return_trace : bool
            Whether a second result is the `scratchrnn.Trace` of this step, with T = 1. `trace.gradients` is None until
            backward has been through the call, and then holds the gradients, from the latest backward.

        Returns
        -------
        h', or (h', c') of the LSTM; with `return_trace` a pair of this and the trace.

        Raises
        ------
        ValueError, RuntimeError, TypeError
            As torch.nn's. TypeError as well for parameters that are not float32 or float64 on the CPU, and RuntimeError
            where the model is traced or exported: `swap_back` first.
        """
        torch = require_torch()
        refuse_export(torch, input)
        cell, names = self._cell(), weight_names(self)
        states = self._check(input, hx, cell)
        weights = [getattr(self, name) for name in names]
        check_weights(self, tuple(names), weights, cell.has_c)
        check_tensors(torch, self, input, states, weights)
        call = StepCall(
            cell, self.hidden_size, 1, False, 0, tuple(name + SUFFIX for name in names), 0.0,
            Step(False, input.dim() == 2), bool(return_trace), backends.load(),
            Samples.of(dict(zip((name + SUFFIX for name in names), weights, strict=True))) if self.per_sample else None,
        )  # fmt: skip
        (_, *final), trace = compute(torch, call, input, states, weights)
        state = tuple(final) if cell.has_c else final[0]
        return (state, trace) if return_trace else state

    def __prepare_scriptable__(self) -> Any:
        """What `torch.jit.script` asks for first, wherever the module stands."""
        raise export_error()

    def _check(self, input: Any, hx: Any, cell: Cell) -> tuple[Any, ...]:  # noqa: A002
        """torch's checks of sizes; the states."""
        check_tensor("input", input)
        kind = "LSTMCell" if cell.has_c else "RNNCell"
        if input.dim() not in (1, 2):
            raise ValueError(f"{kind}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        states = self._states(hx, cell, input.dim() == 2)
        for n, state in enumerate(states):
            name = f"hx[{n}]" if cell.has_c else "hx"
            check_tensor(name, state)
            if state.dim() not in (1, 2):
                raise ValueError(f"{kind}: Expected {name} to be 1D or 2D, got {state.dim()}D instead")
        if cell.has_c and hx is not None and len(states) != 2:
            wrong = IndexError if input.dim() == 1 and len(states) < 2 else RuntimeError
            raise wrong(f"hx: expected a tuple (h, c); got {len(states)} entries")
        if input.shape[-1] != self.input_size:
            raise RuntimeError(f"input: expected a last axis of {self.input_size}; got shape {tuple(input.shape)}")
        wanted = (*input.shape[:-1], self.hidden_size)
        for n, state in enumerate(states):
            if state.shape != wanted:
                name = f"hx[{n}]" if cell.has_c else "hx"
                raise RuntimeError(f"{name}: expected shape {wanted}; got {tuple(state.shape)}")
        return states

    def _states(self, hx: Any, cell: Cell, batched: bool) -> tuple[Any, ...]:
        """hx as one tensor, or as all that stands for the two of an LSTM."""
        if hx is None:
            return ()
        if not cell.has_c:
            return (hx,)
        tensor = isinstance(hx, require_torch().Tensor)
        if not isinstance(hx, (tuple, list)) and (batched or not tensor or hx.dim() == 0):  # else both in one, as torch
            got = f"a tensor of shape {tuple(hx.shape)}" if tensor else describe(hx)
            raise NotATensor(f"hx: expected a tuple (h, c); got {got}")
        return tuple(hx)
