"""A recurrent layer whose last state is read by a linear one: one prediction for each sequence.

    h_t = cell(x_t, h_{t-1})        rnn       (B, P), top layer
    y   = W h_n + b                 decoder   (B, O), h_n at each sequence's own end

With two directions h_n is the final state of both, side by side: the reverse one ends at step 0.

Dimensions: B batch, T time, I inputs, P state size, D directions, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import take_array
from scratchrnn.layers.linear import LinearTrace
from scratchrnn.layers.module import check_trace
from scratchrnn.models.parts import by_parts
from scratchrnn.models.readout import Readout, check_batched
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


class LastStep(Readout):
    """RNN or LSTM, then Linear on its final state: a number, or logits, for each sequence.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
        Any layers, directions and sizes; the prediction is made from the top layer. `save` writes no wrapper.
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

    def __call__(self, x: FloatArray, lengths: Any = None) -> FloatArray:
        """Inference: predictions (B, O) for x (T, B, I); keeps nothing. Arguments as in `forward`."""
        check_batched(x)
        return self.decoder(self._last(self.rnn(x, None, lengths)[1]))

    def forward(self, x: FloatArray, lengths: Any = None) -> LastStepTrace:
        """Run both layers and keep everything.

        Parameters
        ----------
        x : ndarray (T, B, I), or (B, T, I) with the layer's `batch_first`
        lengths : sequence of int (B,), optional
            Steps of each sequence; what follows is padding.
        """
        check_batched(x)
        rnn = self.rnn.forward(x, None, lengths)
        decoder = self.decoder.forward(self._last(rnn.state))
        return LastStepTrace(decoder.output, rnn, decoder)

    def backward(self, trace: LastStepTrace, d_output: FloatArray) -> Gradients:
        """Backpropagate d_output (B, O) to everything; `input` is dL/dx, the rest as of the recurrent layer."""
        check_trace(trace, LastStepTrace, self)
        d_output = take_array(
            "d_output", d_output, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output"
        )
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


def _h(state: State) -> FloatArray:
    return state[0] if isinstance(state, tuple) else state
