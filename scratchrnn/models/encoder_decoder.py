"""Sequence to sequence: one recurrent layer reads the source, another writes the target from where the first ended.

    e_s = E[x_s]                       source_embedding   (B, E)    s = 1..S
    h_s = cell(e_s, h_{s-1})           encoder            (B, H), L layers, D directions
    h'_0 = h_S, or bridge(h_S)         bridge             where layers, directions, sizes or cells of the two differ
    e'_t = E'[y_{t-1}]                 target_embedding   (B, E')   t = 1..T; y_0 is a start code
    h'_t = cell'(e'_t, h'_{t-1})       decoder            (B, H'), L' layers
    z_t = W h'_t + b                   readout            (B, V) logits of y_t

The source reaches the target through the state alone, so backward leaves the decoder by dL/dh'_0 and enters the encoder
as dL/dh_S; at no other place does the encoder get a gradient. There is no attention.

References
----------
Sutskever, Vinyals, Le, "Sequence to sequence learning with neural networks", arXiv:1409.3215, 2014.
Cho et al., "Learning phrase representations using RNN encoder-decoder", arXiv:1406.1078, 2014.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self, cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_int, check_positive_int, describe, take_array
from scratchrnn.layers import LSTM, RNN, Embedding, Linear
from scratchrnn.layers.edge import enter_lengths
from scratchrnn.layers.embedding import EmbeddingTrace
from scratchrnn.layers.initial_state import StateShape
from scratchrnn.layers.linear import LinearTrace
from scratchrnn.layers.module import Module, check_trace
from scratchrnn.models.bridge import Bridge, BridgeTrace
from scratchrnn.models.parts import LAYERS, by_parts, check_codes, config_of, layer_of
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State, Trace


@dataclass(frozen=True, eq=False)
class EncoderDecoderTrace:
    """What `EncoderDecoder.forward` did.

    Attributes
    ----------
    logits : ndarray (T, B, V)
    state : ndarray or tuple of two
        The decoder's final state.
    source_embedding, encoder, bridge, target_embedding, decoder, readout
        The traces of the parts, `bridge` None where there is none; `trace.encoder[0].h` and so on hold every state.
    """

    logits: FloatArray
    state: State
    source_embedding: EmbeddingTrace
    encoder: Trace
    bridge: BridgeTrace | None
    target_embedding: EmbeddingTrace
    decoder: Trace
    readout: LinearTrace


@dataclass(frozen=True, eq=False)
class EncoderDecoderGradients:
    """A backward pass.

    Attributes
    ----------
    parameters : dict of ndarray
        The gradient of every parameter, by the model's names.
    encoder, decoder : Gradients
        Of the two recurrent layers: `grads.encoder[0].h` is dL/dh_s of every step of the source, `grads.decoder.state`
        dL/d(the state that the decoder started from).
    """

    parameters: dict[str, FloatArray]
    encoder: Gradients
    decoder: Gradients


class EncoderDecoder(Module):
    """Two embeddings, two recurrent layers and a linear one: reads a source, writes a target.

    Parameters
    ----------
    encoder : RNN or LSTM
        Reads the embedded source. Any layers, directions and sizes.
    decoder : RNN or LSTM
        Reads the embedded target so far. One direction: the other would read what is yet to be written. Bridge and
        readout run on its backend.
    source_size, target_size : int
        How many codes there are on either side. Start and stop code are among those of the target.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters of source_embedding, bridge, target_embedding and readout, in this order. Fresh entropy
        when absent.

    Attributes
    ----------
    source_embedding, encoder, bridge, target_embedding, decoder, readout
        The parts, the embeddings as wide as the layers' `input_size`. `bridge` is None where the final state of the
        encoder is a state of the decoder as it is (the same layers, directions, sizes, and both with or both without a
        cell state); it is then handed on unchanged.
    parameters : dict of ndarray
        All parameters under "source_embedding.weight", "encoder.weight_ih_l0", "bridge.h.weight", ..., "readout.bias":
        the parts' own live arrays.

    Raises
    ------
    TypeError, ValueError
        The layers are not such, are `batch_first`, are the same object, or differ in dtype.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> rng = np.random.default_rng(0)
    >>> encoder, decoder = srnn.LSTM(4, 8, bidirectional=True, rng=rng), srnn.LSTM(4, 16, rng=rng)
    >>> model = srnn.models.EncoderDecoder(encoder, decoder, source_size=10, target_size=11, rng=rng)
    >>> source, target_in = rng.integers(0, 10, (6, 3)), rng.integers(0, 11, (7, 3))
    >>> trace = model.forward(source, target_in, source_lengths=[6, 2, 4])
    >>> loss, d_logits = srnn.losses.cross_entropy(trace.logits, rng.integers(0, 11, (7, 3)))
    >>> model.backward(trace, d_logits).parameters["encoder.weight_hh_l0_reverse"].shape
    (32, 8)
    >>> [codes.shape for codes in model.greedy(source, [6, 2, 4], start=10, stop=10, max_length=5)]
    [(5,), (5,), (5,)]
    """

    def __init__(
        self,
        encoder: RNN | LSTM,
        decoder: RNN | LSTM,
        *,
        source_size: int,
        target_size: int,
        rng: Rng | None = None,
    ) -> None:
        _check_layers(encoder, decoder)
        sizes = check_positive_int("source_size", source_size), check_positive_int("target_size", target_size)
        generator = check_rng("rng", rng)
        dtype = encoder.dtype
        object.__setattr__(self, "dtype", dtype)
        self.encoder, self.decoder = encoder, decoder
        self.source_embedding = Embedding(sizes[0], encoder.input_size, dtype=dtype, rng=generator)
        alike = StateShape.of("encoder", encoder) == StateShape.of("decoder", decoder)
        self.bridge = None if alike else Bridge(encoder, decoder, backend=decoder.backend, rng=generator)
        self.target_embedding = Embedding(sizes[1], decoder.input_size, dtype=dtype, rng=generator)
        self.readout = Linear(decoder.output_size, sizes[1], dtype=dtype, backend=decoder.backend, rng=generator)
        parts: dict[str, Module | None] = {
            "source_embedding": self.source_embedding, "encoder": encoder, "bridge": self.bridge,
            "target_embedding": self.target_embedding, "decoder": decoder, "readout": self.readout,
        }  # fmt: skip
        live = {name: part.parameters for name, part in parts.items() if part is not None}
        object.__setattr__(self, "parameters", by_parts(live))

    def config(self) -> dict[str, Any]:
        """Configurations of encoder and decoder, and how many codes there are on either side."""
        layers = {"encoder": self.encoder, "decoder": self.decoder}
        return {name: config_of(layer) for name, layer in layers.items()} | {
            "source_size": self.source_embedding.num_embeddings,
            "target_size": self.target_embedding.num_embeddings,
        }

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        layers = {name: layer_of(name, config.get(name)) for name in ("encoder", "decoder")}
        return cls(**(config | layers))

    def __repr__(self) -> str:
        sizes = f"source_size={self.source_embedding.num_embeddings}, target_size={self.readout.out_features}"
        return f"EncoderDecoder({self.encoder!r}, {self.decoder!r}, {sizes})"

    # Teacher forcing

    def __call__(
        self, source: IntArray, target_in: IntArray, source_lengths: Any = None, target_lengths: Any = None
    ) -> FloatArray:
        """Inference: logits (T, B, V), no dropout; keeps nothing. Arguments as in `forward`."""
        source_lengths, target_lengths = self._enter(source, target_in, source_lengths, target_lengths)
        state = self._start(source, source_lengths)
        output, _ = self.decoder(self.target_embedding(target_in), state, target_lengths)
        return self.readout(output)

    def forward(
        self,
        source: IntArray,
        target_in: IntArray,
        source_lengths: Any = None,
        target_lengths: Any = None,
        training: bool = True,
        rng: np.random.Generator | None = None,
    ) -> EncoderDecoderTrace:
        """Run the model on codes and keep everything.

        Parameters
        ----------
        source : ndarray (S, B) of int
        target_in : ndarray (T, B) of int
            What the decoder reads: a start code, then the target without its last code.
        source_lengths, target_lengths : sequence of int (B,), optional
            Steps of each sequence; what stands beyond is a valid code that is not read. The logits there are the
            readout's bias: a loss should leave them out, as `cross_entropy` does with `ignore_index`.
        training : bool
            Whether dropout between the layers of encoder and decoder acts.
        rng : numpy.random.Generator, optional
            For their dropout masks; when absent, the layers' own.
        """
        source_lengths, target_lengths = self._enter(source, target_in, source_lengths, target_lengths)
        source_embedding = self.source_embedding.forward(source)
        encoder = self.encoder.forward(source_embedding.output, None, source_lengths, training, rng)
        bridge = None if self.bridge is None else self.bridge.forward(encoder.state)
        state = encoder.state if bridge is None else bridge.state
        target_embedding = self.target_embedding.forward(target_in)
        decoder = self.decoder.forward(target_embedding.output, state, target_lengths, training, rng)
        readout = self.readout.forward(decoder.output)
        return EncoderDecoderTrace(
            readout.output, decoder.state, source_embedding, encoder, bridge, target_embedding, decoder, readout
        )

    def backward(self, trace: EncoderDecoderTrace, d_logits: FloatArray) -> EncoderDecoderGradients:
        """Backpropagate d_logits (T, B, V) to everything, through the decoder's initial state into the encoder."""
        check_trace(trace, EncoderDecoderTrace, self, lambda t: (t.bridge is None) == (self.bridge is None))
        d_logits = take_array(
            "d_logits", d_logits, shape=trace.logits.shape, dtype=self.dtype, why="of the trace's logits"
        )
        readout = self.readout.backward(trace.readout, d_logits)  # undoes readout
        decoder = self.decoder.backward(trace.decoder, readout.input)  # undoes decoder
        target_embedding = self.target_embedding.backward(trace.target_embedding, cast(FloatArray, decoder.input))
        d_state = cast(State, decoder.state)
        parts = {"decoder": decoder, "target_embedding": target_embedding, "readout": readout}
        if self.bridge is not None and trace.bridge is not None:
            parts["bridge"] = self.bridge.backward(trace.bridge, d_state)  # undoes bridge
            d_state = cast(State, parts["bridge"].state)
        encoder = self.encoder.backward(trace.encoder, d_state=d_state)  # undoes encoder
        source_embedding = self.source_embedding.backward(trace.source_embedding, cast(FloatArray, encoder.input))
        parts |= {"encoder": encoder, "source_embedding": source_embedding}
        found = by_parts({name: part.parameters for name, part in parts.items()})
        return EncoderDecoderGradients({name: found[name] for name in self.parameters}, encoder, decoder)

    # Writing

    def greedy(
        self, source: IntArray, source_lengths: Any = None, *, start: int, stop: int, max_length: int
    ) -> list[IntArray]:
        """Write a target for each source, always the likeliest code, each until its stop code.

        Parameters
        ----------
        source : ndarray (S, B) of int
        source_lengths : sequence of int (B,), optional
        start, stop : int
            The code that the decoder reads first, and the one that ends a target; they may be the same.
        max_length : int
            A target that has not stopped by then is cut there.

        Returns
        -------
        list of B ndarray (n,) of int
            Without start and stop codes, n from 0 to `max_length`.
        """
        V = self.target_embedding.num_embeddings
        for name, value in (("start", start), ("stop", stop)):
            if check_int(name, value, least=0) >= V:
                raise ValueError(f"{name}: expected a code from 0 to {V - 1}; got {value}")
        check_positive_int("max_length", max_length)
        check_codes("source", source, self.source_embedding.num_embeddings)
        batch = source.shape[1]
        state = self._start(source, _lengths("source_lengths", source_lengths, source))
        code: IntArray = np.full(batch, start, np.int64)
        written = np.full((max_length + 1, batch), stop, np.int64)  # the last row ends what does not stop by itself
        stopped = np.zeros(batch, np.bool_)
        for t in range(max_length):
            output, state = self.decoder(self.target_embedding(code[None]), state)
            code = written[t] = self.readout(output)[0].argmax(axis=-1)
            stopped |= code == stop
            if stopped.all():
                break
        ends = (written == stop).argmax(axis=0)  # the first, (B,)
        return [written[:end, b].copy() for b, end in enumerate(ends)]

    def _start(self, source: IntArray, lengths: IntArray | None) -> State:
        """The state that the decoder starts from; keeps nothing."""
        _, state = self.encoder(self.source_embedding(source), None, lengths)
        return state if self.bridge is None else self.bridge(state)

    def _enter(
        self, source: Any, target_in: Any, source_lengths: Any, target_lengths: Any
    ) -> tuple[IntArray | None, IntArray | None]:
        """Check all codes; lengths (B,) of both sides, None where absent."""
        check_codes("source", source, self.source_embedding.num_embeddings)
        check_codes("target_in", target_in, self.target_embedding.num_embeddings)
        if target_in.shape[1] != source.shape[1]:
            expected = f"shape (time, {source.shape[1]}), the batch of source"
            raise ValueError(f"target_in: expected {expected}; got {target_in.shape}")
        return _lengths("source_lengths", source_lengths, source), _lengths("target_lengths", target_lengths, target_in)


def _lengths(name: str, lengths: Any, codes: IntArray) -> IntArray | None:
    """(B,) int64; None where absent, which spares the layers a copy."""
    steps, batch = codes.shape
    return None if lengths is None else enter_lengths(lengths, steps=steps, batch=batch, batched=True, name=name)


def _check_layers(encoder: Any, decoder: Any) -> None:
    for name, layer in (("encoder", encoder), ("decoder", decoder)):
        if type(layer) not in LAYERS.values():
            raise TypeError(f"{name}: expected an RNN or LSTM; got {describe(layer)}")
        if layer.batch_first:
            raise ValueError(f"{name}: expected batch_first=False, since codes come as (time, batch); got True")
    if decoder is encoder:
        raise ValueError("decoder: expected another layer than the encoder; got the same object")
    if decoder.bidirectional:
        raise ValueError("decoder: expected one direction, since the other reads what is yet to be written; got two")
    if decoder.dtype != encoder.dtype:
        raise TypeError(f"decoder: expected dtype {encoder.dtype.name}, the encoder's; got {decoder.dtype.name}")
