"""A recurrent layer whose last state is read by a linear one: one prediction for each sequence.

    h_t = cell(x_t, h_{t-1})        rnn       (B, P), top layer
    y   = W h_n + b                 decoder   (B, O), h_n at each sequence's own end

With two directions h_n is the final state of both, side by side: the reverse one ends at step 0.

Dimensions: B batch, T time, I inputs, P state size, D directions, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, describe
from scratchrnn.layers import LSTM, RNN, Linear
from scratchrnn.layers.linear import LinearTrace
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.layers.wrapper import Wrapper
from scratchrnn.models.parts import by_parts, config_of, layer_of
from scratchrnn.rng import Rng
from scratchrnn.trace import Gradients, State, Trace


@dataclass(frozen=True, eq=False)
class LastStepTrace:
    """What `LastStep.forward` did.

    Attributes
    ----------
    output : ndarray (B, O)
    rnn, decoder
        The traces of the two layers.
    """

    output: FloatArray
    rnn: Trace
    decoder: LinearTrace


class LastStep(Module):
    """RNN or LSTM, then Linear on its final state: a number, or logits, for each sequence.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
        Any layers, directions and sizes; the prediction is made from the top layer, on its backend. `save` writes no
        wrapper.
    out_features : int
        O.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the decoder's parameters. Fresh entropy when absent.

    Attributes
    ----------
    rnn, decoder
        The layers.
    parameters : dict of ndarray
        Their own live arrays under "rnn.weight_ih_l0", ..., "decoder.weight", "decoder.bias".

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> model = LastStep(srnn.LSTM(2, 8, rng=rng), 1, rng=rng)
    >>> trace = model.forward(rng.standard_normal((50, 4, 2), np.float32))
    >>> grads = model.backward(trace, d_output=trace.output)  # for the loss ½ Σ output²
    >>> trace.output.shape, grads.parameters["rnn.weight_hh_l0"].shape
    ((4, 1), (32, 8))
    """

    def __init__(self, layer: RNN | LSTM | Wrapper, out_features: int, *, rng: Rng | None = None) -> None:
        if not isinstance(layer, RNN | LSTM | Wrapper):
            raise TypeError(f"layer: expected an RNN or LSTM; got {describe(layer)}")
        object.__setattr__(self, "dtype", layer.dtype)
        self.rnn = layer
        size = layer.num_directions * layer.output_size
        self.decoder = Linear(size, out_features, dtype=layer.dtype, backend=layer.backend, rng=rng)
        parts: dict[str, Module] = {"rnn": self.rnn, "decoder": self.decoder}
        object.__setattr__(self, "parameters", by_parts({name: part.parameters for name, part in parts.items()}))

    def config(self) -> dict[str, Any]:
        """The layer's kind and configuration, and O."""
        return {"layer": config_of(self.rnn), "out_features": self.decoder.out_features}

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        return cls(**(config | {"layer": layer_of("layer", config.get("layer"))}))

    def __repr__(self) -> str:
        return f"LastStep({self.rnn!r}, out_features={self.decoder.out_features})"

    def __call__(self, x: FloatArray, lengths: Any = None) -> FloatArray:
        """Inference: predictions (B, O) for x (T, B, I); keeps nothing. Arguments as in `forward`."""
        _check_batched(x)
        return self.decoder(self._last(self.rnn(x, None, lengths)[1]))

    def forward(self, x: FloatArray, lengths: Any = None) -> LastStepTrace:
        """Run both layers and keep everything.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with the layer's `batch_first`
        lengths : sequence of int (B,), optional
            Steps of each sequence; what follows is padding.
        """
        _check_batched(x)
        rnn = self.rnn.forward(x, None, lengths)
        decoder = self.decoder.forward(self._last(rnn.state))
        return LastStepTrace(decoder.output, rnn, decoder)

    def backward(self, trace: LastStepTrace, d_output: FloatArray) -> Gradients:
        """Backpropagate d_output (B, O) to everything; `input` is dL/dx, the rest as of the recurrent layer."""
        check_trace(trace, LastStepTrace, self)
        check_array("d_output", d_output, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output")
        decoder = self.decoder.backward(trace.decoder, d_output)  # undoes decoder
        h_n = _h(trace.rnn.state)
        d_h_n, directions = np.zeros_like(h_n), self.rnn.num_directions
        d_last = cast(FloatArray, decoder.input).reshape(h_n.shape[1], directions, h_n.shape[2])
        d_h_n[-directions:] = d_last.transpose(1, 0, 2)  # undoes side by side
        d_state: Any = (d_h_n, None) if self.rnn.cell.has_c else d_h_n
        rnn = self.rnn.backward(trace.rnn, d_state=d_state)  # undoes rnn
        parameters = by_parts({"rnn": rnn.parameters, "decoder": decoder.parameters})
        return Gradients(rnn.input, rnn.state, parameters, rnn.layers)

    def _last(self, state: State) -> FloatArray:
        """Final states (D·L, B, P) to those of the top layer, directions side by side: (B, D·P)."""
        top = _h(state)[-self.rnn.num_directions :]
        return np.concatenate(list(top), axis=1)


def _check_batched(x: Any) -> None:
    if np.ndim(x) != 3:
        raise ValueError(f"x: expected three axes, time, batch and input; got shape {np.shape(x)}")


def _h(state: State) -> FloatArray:
    return state[0] if isinstance(state, tuple) else state
