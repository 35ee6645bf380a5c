"""A recurrent layer whose every output is read by a linear one: a prediction at each step.

    h_t = cell(x_t, h_{t-1})        rnn       (T, B, D·P), top layer
    y_t = W h_t + b                 decoder   (T, B, O)

Dimensions: B batch, T time, I inputs, P state size, D directions, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from scratchrnn._typing import FloatArray
from scratchrnn._validate import take_array
from scratchrnn.layers.linear import LinearTrace
from scratchrnn.layers.module import check_trace
from scratchrnn.models.parts import by_parts
from scratchrnn.models.readout import Readout, check_batched
from scratchrnn.trace import Gradients, Trace


@dataclass(frozen=True, eq=False)
class EveryStepTrace:
    """What `EveryStep.forward` did.

    Attributes
    ----------
    output : ndarray (T, B, O), or (B, T, O) with the layer's `batch_first`
    rnn, decoder
        The traces of the two layers.
    """

    output: FloatArray
    rnn: Trace
    decoder: LinearTrace


class EveryStep(Readout):
    """RNN or LSTM, then Linear on its output at every step. All sequences of a batch have one length.

    Parameters
    ----------
    layer : RNN or LSTM, or a wrapper of one
        Any layers, directions and sizes; the predictions are made from the top layer. `save` writes no wrapper.
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
    >>> model = EveryStep(srnn.LSTM(2, 8, rng=rng), 1, rng=rng)
    >>> trace = model.forward(rng.standard_normal((50, 4, 2), np.float32))
    >>> grads = model.backward(trace, d_output=trace.output)  # for the loss ½ Σ output²
    >>> trace.output.shape, grads.parameters["rnn.weight_hh_l0"].shape
    ((50, 4, 1), (32, 8))
    """

    def __call__(self, x: FloatArray) -> FloatArray:
        """Inference: predictions (T, B, O) for x (T, B, I); keeps nothing."""
        check_batched(x)
        return self.decoder(self.rnn(x)[0])

    def forward(self, x: FloatArray) -> EveryStepTrace:
        """Run both layers on x (T, B, I), or (B, T, I) with the layer's `batch_first`, and keep everything."""
        check_batched(x)
        rnn = self.rnn.forward(x)
        decoder = self.decoder.forward(rnn.output)
        return EveryStepTrace(decoder.output, rnn, decoder)

    def backward(self, trace: EveryStepTrace, d_output: FloatArray) -> Gradients:
        """Backpropagate d_output, of the output's shape, to everything; `input` is dL/dx, the rest as of the layer."""
        check_trace(trace, EveryStepTrace, self)
        d_output = take_array(
            "d_output", d_output, shape=trace.output.shape, dtype=self.dtype, why="of the trace's output"
        )
        decoder = self.decoder.backward(trace.decoder, d_output)  # undoes decoder
        rnn = self.rnn.backward(trace.rnn, d_output=cast(FloatArray, decoder.input))  # undoes rnn
        parameters = by_parts({"rnn": rnn.parameters, "decoder": decoder.parameters})
        return Gradients(rnn.input, rnn.state, parameters, rnn.layers)
