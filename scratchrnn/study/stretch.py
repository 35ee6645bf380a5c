"""A stretch of text seen by a model, character by character: states, gates, predictions, and where gradients go.

    e_k                     embedding of the character read at step k            (E,)
    L_t = -log p_t[y_t]     loss of the prediction made after reading step t; y_t is the character that follows
    G[t, k] = ‖dL_t/de_k‖   what the loss at t sends back to the character at k  (K, K), zero for k > t
    d_h_k = Σ_t dL_t/dh_k   of a state, what all losses of the stretch send to it

The K losses must not be added up before their gradients are known. So the stretch is read by K rows of a batch at once,
row t has the loss L_t alone, and one backward pass gives all of G.

Dimensions: K characters, E embedding, H hidden, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.trace import LayerGradients, LayerTrace, State

NO_LOSS = -100  # target of a position that has none
GATES = ("i", "f", "g", "o")


@dataclass(frozen=True, eq=False)
class Stretch:
    """K characters that a model read, and what went on in it.

    Attributes
    ----------
    text : str (K,)
        The characters read.
    following : str (K,)
        The character that follows each: what the model should have predicted.
    layers : tuple of dict of ndarray (K, H)
        For each layer "h" after each character and "d_h", its gradient of the sum of all losses; of an LSTM also "c",
        "d_c" and the gates "i", "f", "g", "o". With a projection h is narrower.
    probability : ndarray (K,)
        That the model gave to the character that follows.
    candidates : tuple of str (K,)
        The likeliest next characters by the model, best first; as many as there are, at most three.
    candidate_probability : ndarray (K, up to 3)
        Of each of them.
    gradient : ndarray (K, K), float64
        [t, k]: norm of the gradient of the loss at t with respect to the embedding of the character at k.
    """

    text: str
    following: str
    layers: tuple[Mapping[str, FloatArray], ...]
    probability: FloatArray
    candidates: tuple[str, ...]
    candidate_probability: FloatArray
    gradient: FloatArray


def measure_stretch(model: CharModel, codes: IntArray, state: State) -> Stretch:
    """Read a stretch of text and take down everything.

    Parameters
    ----------
    model : CharModel
    codes : ndarray (K + 1,) of int
        The characters to read, and the one after them.
    state : ndarray (L, 1, H) or (h_0, c_0)
        State to go on from.

    Returns
    -------
    Stretch

    Raises
    ------
    ValueError
        Fewer than two codes, codes out of range, or a state of another shape.
    """
    if codes.ndim != 1 or len(codes) < 2:
        raise ValueError(f"codes: expected shape (K + 1,) with at least one character to read; got {codes.shape}")
    read, following = codes[:-1], codes[1:]
    steps = len(read)
    trace = model.forward(np.tile(read[:, None], steps), _repeat(state, steps))  # row t of the batch is for L_t

    targets = np.where(np.eye(steps, dtype=bool), following[:, None], NO_LOSS)  # (K, K): time, row
    _, d_logits = cross_entropy(trace.logits, targets, ignore_index=NO_LOSS, reduction="sum")
    d_output = cast(FloatArray, model.decoder.backward(trace.decoder, d_logits).input)
    grads = model.rnn.backward(trace.rnn, d_output)
    d_embedding = cast(FloatArray, grads.input).astype(np.float64)  # (K, K, E): time, row

    probabilities = _softmax(trace.logits[:, 0])  # (K, V); all rows read the same
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :3]
    return Stretch(
        text=model.vocabulary.decode(read),
        following=model.vocabulary.decode(following),
        layers=tuple(_layer(trace.rnn[n], grads[n], model.cell) for n in range(model.rnn.num_layers)),
        probability=probabilities[np.arange(steps), following],
        candidates=tuple(model.vocabulary.decode(row) for row in best),
        candidate_probability=np.take_along_axis(probabilities, best, axis=1),
        gradient=np.linalg.norm(d_embedding, axis=2).T,
    )


def _repeat(state: State, rows: int) -> State:
    if isinstance(state, tuple):
        return np.repeat(state[0], rows, axis=1), np.repeat(state[1], rows, axis=1)
    return np.repeat(state, rows, axis=1)


def _softmax(logits: FloatArray) -> FloatArray:  # (K, V)
    with np.errstate(all="ignore"):  # inf - inf is NaN, as the loss is
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shifted / shifted.sum(axis=1, keepdims=True)


def _layer(trace: LayerTrace, grads: LayerGradients, cell: str) -> dict[str, FloatArray]:
    kept = {"h": trace.h[1:, 0], "d_h": grads.h[1:].sum(axis=1)}
    if cell == "lstm":
        kept |= {"c": trace.c[1:, 0], "d_c": grads.c[1:].sum(axis=1)}
        kept |= {gate: getattr(trace, gate)[:, 0] for gate in GATES}
    return {name: array.copy() for name, array in kept.items()}  # else they would keep the whole trace alive
