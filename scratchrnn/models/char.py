"""A character-level language model: Embedding, then RNN or LSTM, then Linear.

    e_t = E[x_t]                 embedding     (B, E)
    h_t = cell(e_t, h_{t-1})     rnn           (B, H), L layers; h_0 zero, or learned
    z_t = W h_t + b              decoder       (B, V) logits of the next character

Forward calls the three layers in this order, backward calls theirs in reverse; nothing here is differentiated twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import DTypeLike

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn._validate import check_bool, check_dtype, check_positive_int
from scratchrnn.data import Vocabulary
from scratchrnn.layers import LSTM, RNN, Embedding, InitialState, Linear
from scratchrnn.layers.embedding import EmbeddingTrace
from scratchrnn.layers.linear import LinearTrace
from scratchrnn.layers.module import Module
from scratchrnn.models.parts import by_parts, check_codes
from scratchrnn.models.sampling import write
from scratchrnn.rng import Rng, check_rng
from scratchrnn.trace import Gradients, State, Trace

CELLS = ("rnn", "lstm")


@dataclass(frozen=True, eq=False)
class CharTrace:
    """What `CharModel.forward` did.

    Attributes
    ----------
    logits : ndarray (T, B, V)
    state : ndarray or tuple of two
        As the recurrent layer returns it.
    embedding, rnn, decoder
        The traces of the three layers; `trace.rnn[0].h` and so on hold every hidden state.
    learned : bool
        Whether it began with the model's learned initial state.
    """

    logits: FloatArray
    state: State
    embedding: EmbeddingTrace
    rnn: Trace
    decoder: LinearTrace
    learned: bool


class CharModel(Module):
    """Embedding, RNN or LSTM, Linear: predicts the next character of a text.

    Parameters
    ----------
    characters : str
        The vocabulary, as `Vocabulary.characters` has it.
    cell : "rnn" or "lstm"
        A vanilla tanh RNN, or an LSTM.
    hidden_size, embedding_size, num_layers : int
        H, E, L.
    learned_state : bool
        Whether the state that a text begins with is learned; else it is zero.
    dtype : float32 or float64
    backend : str, optional
        For rnn and decoder; see `scratchrnn.backends`.
    rng : numpy.random.Generator or scratchrnn.rng.TorchGenerator, optional
        Draws the parameters of embedding, rnn and decoder, in this order. Fresh entropy when absent.

    Attributes
    ----------
    vocabulary : Vocabulary
    embedding, rnn, decoder : Embedding, RNN or LSTM, Linear
        The layers; `rnn` is the name in either case.
    initial_state : InitialState or None
        The learned one, zero at first.
    parameters : dict of ndarray
        All parameters under "embedding.weight", "rnn.weight_ih_l0", ..., "decoder.bias": the layers' own live arrays.

    Examples
    --------
    >>> model = CharModel("abc", "lstm", hidden_size=8, embedding_size=4, rng=np.random.default_rng(0))
    >>> trace = model.forward(model.vocabulary.encode("abca")[:, None])  # T=4, B=1
    >>> trace.logits.shape, trace.rnn.c.shape
    ((4, 1, 3), (5, 1, 8))
    """

    def __init__(
        self,
        characters: str,
        cell: str,
        hidden_size: int,
        embedding_size: int = 32,
        num_layers: int = 1,
        *,
        learned_state: bool = False,
        dtype: DTypeLike = np.float32,
        backend: str | None = None,
        rng: Rng | None = None,
    ) -> None:
        if cell not in CELLS:
            raise ValueError(f"cell: expected 'rnn' or 'lstm'; got {cell!r}")
        self.cell = cell
        self.vocabulary = Vocabulary(characters)
        if self.vocabulary.characters != characters:
            raise ValueError("characters: expected each character once and sorted, as Vocabulary.characters has them")
        sizes = (check_positive_int("embedding_size", embedding_size), check_positive_int("hidden_size", hidden_size))
        generator = check_rng("rng", rng)
        object.__setattr__(self, "dtype", check_dtype("dtype", dtype))
        self.embedding = Embedding(len(characters), sizes[0], dtype=dtype, rng=generator)
        layer = RNN if cell == "rnn" else LSTM
        self.rnn: RNN | LSTM = layer(*sizes, num_layers, dtype=dtype, backend=backend, rng=generator)
        self.decoder = Linear(hidden_size, len(characters), dtype=dtype, backend=backend, rng=generator)
        self.initial_state = InitialState(self.rnn) if check_bool("learned_state", learned_state) else None
        parts: dict[str, Module] = {"embedding": self.embedding, "rnn": self.rnn, "decoder": self.decoder}
        if self.initial_state is not None:
            parts["initial_state"] = self.initial_state
        object.__setattr__(self, "parameters", by_parts({name: part.parameters for name, part in parts.items()}))

    def config(self) -> dict[str, Any]:
        """Arguments that construct a model of this kind and size, without backend and rng."""
        return {
            "characters": self.vocabulary.characters,
            "cell": self.cell,
            "hidden_size": self.rnn.hidden_size,
            "embedding_size": self.embedding.embedding_dim,
            "num_layers": self.rnn.num_layers,
            "learned_state": self.initial_state is not None,
            "dtype": self.dtype.name,
        }

    def __repr__(self) -> str:
        sizes = f"hidden_size={self.rnn.hidden_size}, embedding_size={self.embedding.embedding_dim}"
        return f"CharModel({len(self.vocabulary)} characters, {self.cell!r}, {sizes}, num_layers={self.rnn.num_layers})"

    def __call__(self, indices: IntArray, state: State | None = None) -> tuple[FloatArray, State]:
        """Inference: logits (T, B, V) and the final state for codes (T, B); keeps nothing."""
        embedded = self.embedding(self._codes(indices))
        output, state = self.rnn(embedded, self._state(state, embedded))
        return self.decoder(output), state

    def forward(self, indices: IntArray, state: State | None = None) -> CharTrace:
        """Run the model on codes (T, B) and keep everything.

        Parameters
        ----------
        indices : ndarray (T, B) of int
        state : ndarray or (h_0, c_0), optional
            State to go on from, as the recurrent layer takes it; when absent, the learned one or zeros.
        """
        embedding = self.embedding.forward(self._codes(indices))
        rnn = self.rnn.forward(embedding.output, self._state(state, embedding.output))
        decoder = self.decoder.forward(rnn.output)
        learned = state is None and self.initial_state is not None
        return CharTrace(decoder.output, rnn.state, embedding, rnn, decoder, learned)

    def _state(self, state: State | None, embedded: FloatArray) -> State | None:  # embedded (T, B, E)
        return state if state is not None or self.initial_state is None else self.initial_state(embedded.shape[1])

    def backward(self, trace: CharTrace, d_logits: FloatArray, d_state: State | None = None) -> Gradients:
        """Backpropagate d_logits (T, B, V), and d_state if given, to everything.

        Returns
        -------
        Gradients
            `parameters` by the model's names; `state` and the gradients of every step (`grads[0].h` and so on) are the
            recurrent layer's; `input` is None, since codes have no gradient.
        """
        decoder = self.decoder.backward(trace.decoder, d_logits)  # undoes decoder
        rnn = self.rnn.backward(trace.rnn, decoder.input, d_state)  # undoes rnn
        embedding = self.embedding.backward(trace.embedding, cast(FloatArray, rnn.input))  # undoes embedding
        parts = {"embedding": embedding, "rnn": rnn, "decoder": decoder}
        if self.initial_state is not None:
            parts["initial_state"] = self.initial_state.backward(rnn.state if trace.learned else None)
        parameters = by_parts({name: part.parameters for name, part in parts.items()})
        return Gradients(None, rnn.state, parameters, rnn.layers)

    def write(
        self,
        prompt: str = "",
        length: int | None = None,
        *,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> Iterator[str]:
        """Read `prompt`, then write on, character by character, each handed out as soon as it is drawn.

        Parameters
        ----------
        prompt : str
            What the model has read before; it is not handed out. If empty, the model starts after a line break, or
            after a character drawn from `rng` where its vocabulary has no line break.
        length : int, optional
            Characters to write; without end when absent.
        rng : numpy.random.Generator
        temperature : float
            Each character is drawn from softmax(logits / temperature). Below 1 prefers the likelier ones; 0 always
            takes the likeliest.
        top_k : int, optional
            Draw from this many likeliest characters only, at most as many as the vocabulary has.

        Returns
        -------
        iterator of str

        Raises
        ------
        ValueError
            The prompt has a character that the vocabulary has not, or a number is out of range: at the call. A logit
            is NaN: where the character would be drawn.

        Examples
        --------
        >>> model = CharModel("abc", "rnn", hidden_size=4, rng=np.random.default_rng(0))
        >>> characters = model.write("ab", rng=np.random.default_rng(1))
        >>> next(characters) in "abc"
        True
        """
        return write(self, prompt, length, rng=rng, temperature=temperature, top_k=top_k)

    def sample(
        self,
        prompt: str,
        length: int,
        *,
        rng: np.random.Generator,
        temperature: float = 1.0,
        top_k: int | None = None,
    ) -> str:
        """Read `prompt`, then write `length` characters; as `write`, in one string."""
        return "".join(self.write(prompt, length, rng=rng, temperature=temperature, top_k=top_k))

    def _codes(self, indices: Any) -> IntArray:
        return check_codes("indices", indices, len(self.vocabulary))
