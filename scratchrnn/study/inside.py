"""What goes on inside a trained or untrained model: how states move, what they hold, and by which way gradients flow.

All of it on text held out, or at one constant input: the embedding of the commonest character of the text.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import cast

import numpy as np

from scratchrnn._typing import FloatArray, IntArray
from scratchrnn.dynamics import (
    CellHidden,
    Diagnosis,
    FixedPoints,
    Position,
    Projection,
    cell_hidden,
    diagnose_model,
    fixed_points,
    position,
    project,
)
from scratchrnn.gradflow import (
    Connectivity,
    ForgetProduct,
    Itemized,
    LyapunovSpectrum,
    PathsByDistance,
    SingularValues,
    connectivity,
    forget_product,
    itemized,
    lyapunov_spectrum,
    singular_values,
    split_paths,
)
from scratchrnn.losses import cross_entropy
from scratchrnn.models import CharModel
from scratchrnn.study.settings import Settings
from scratchrnn.trace import State

EXPONENTS, TRAJECTORIES = 32, 4  # of the Lyapunov spectrum
LAGS, FEW = 60, 4  # of the forget product, and the sequences that it is taken over
SPANS = (1, 2, 4, 8, 16, 32)  # characters over which Jacobians are multiplied
CANDIDATES, ITERATIONS = 8, 60  # of the search for fixed points
STRETCH = 64  # characters of the stretch that is shown one by one
WORDS, PLACES, BEFORE = 12, 8, 40  # different words, places of each, characters read before the word's end
WORD = re.compile(r"[^\W\d_]{3,}")


@dataclass(frozen=True, eq=False)
class WordStates:
    """Hidden states after the last character of frequent words, each met in several places.

    Attributes
    ----------
    words : tuple of str (N,)
        The word that ends there.
    projection : Projection
        Of the N states, on their first two principal components.
    same_word, same_letter : float
        Share of the states whose nearest neighbour, in the whole space, ends the same word, and a word with the same
        last letter.
    chance_word, chance_letter : float
        The same if the neighbour were any other state.
    """

    words: tuple[str, ...]
    projection: Projection
    same_word: float
    same_letter: float
    chance_word: float
    chance_letter: float


@dataclass(frozen=True, eq=False)
class Inside:
    """Result of `look_inside`. What only an LSTM has is None for an RNN.

    Attributes
    ----------
    spectrum : LyapunovSpectrum
        The largest exponents along the text.
    position : Position
        At constant input, `constant` in words.
    constant : str
        The character whose embedding that is.
    fixed : FixedPoints
        At that input, found from states of the stretch.
    singular : tuple of SingularValues
        Of the products of Jacobians over `SPANS`, from the start of the stretch, as far as that reaches.
    connectivity : Connectivity
        Of the stretch: how much each h depends on each embedding read before.
    itemized : Itemized
        Of the stretch of text that is shown character by character: what each loss sends to each step.
    words : WordStates or None
        None where the text held out has too few words that come again, where their states are all the same, and of one
        unit alone, which has no plane.
    diagnosis : Diagnosis
        Symptoms, on the text held out.
    paths : PathsByDistance or None
        Of the loss of one character: the gradient along the cells, and the rest of it.
    forget : ForgetProduct or None
    cells : CellHidden or None
        c against h.
    """

    spectrum: LyapunovSpectrum
    position: Position
    constant: str
    fixed: FixedPoints
    singular: tuple[SingularValues, ...]
    connectivity: Connectivity
    itemized: Itemized
    words: WordStates | None
    diagnosis: Diagnosis
    paths: PathsByDistance | None
    forget: ForgetProduct | None
    cells: CellHidden | None


def look_inside(model: CharModel, held_out: IntArray, settings: Settings) -> Inside:
    """Measure a model on the text held out (N,)."""
    layer, warm_up, distance = model.rnn, settings.warm_up, settings.distance
    codes = places(held_out, settings)
    _, state = model(codes[:warm_up])
    trace = model.forward(codes[warm_up:-1], state)
    _, d_logits = cross_entropy(trace.logits, codes[warm_up + 1 :], reduction="sum")
    head = model.decoder.forward(np.ascontiguousarray(trace.rnn.output))
    d_output = cast(FloatArray, model.decoder.backward(head, d_logits).input)  # (T, B, H) of each loss of its own

    few = model.embedding(codes[:, : min(TRAJECTORIES, codes.shape[1])])
    constant = model.vocabulary.decode(np.array([Counter(held_out.tolist()).most_common(1)[0][0]]))
    stretch = min(STRETCH, distance)
    alone = layer.forward(model.embedding(codes[warm_up : warm_up + stretch, :1]), samples(state, 1))
    lstm = layer.cell.has_c
    last = np.zeros_like(d_output)
    last[-1] = d_output[-1]
    at_constant = model.embedding(model.vocabulary.encode(constant))[0]
    return Inside(
        spectrum=lyapunov_spectrum(
            layer,
            few[:-1],
            warmup=warm_up,
            warmup_q=min(50, distance // 2),
            exponents=min(EXPONENTS, layer.hidden_size),
            rng=np.random.default_rng(settings.seed),
        ),
        position=position(layer, at_constant),
        constant=constant,
        fixed=fixed_points(
            layer,
            alone,
            x=at_constant,
            count=CANDIDATES,
            max_iterations=ITERATIONS,
            rng=np.random.default_rng(settings.seed),
        ),
        singular=tuple(singular_values(alone, 0, span) for span in SPANS if span <= stretch),
        connectivity=connectivity(alone),
        itemized=itemized(layer, alone, np.ascontiguousarray(d_output[:stretch, :1])),
        words=_words(model, held_out),
        diagnosis=diagnose_model(model, codes[warm_up:-1], codes[warm_up + 1 :], loss=cross_entropy),
        paths=split_paths(layer, trace.rnn, last).by_distance() if lstm else None,
        forget=forget_product(layer.forward(few[warm_up:-1], samples(state, few.shape[1])), max_lag=min(LAGS, distance))
        if lstm
        else None,
        cells=cell_hidden(layer, trace.rnn, rng=np.random.default_rng(settings.seed)) if lstm else None,
    )


def places(held_out: IntArray, settings: Settings) -> IntArray:
    """Evenly spread stretches of the text held out: (warm_up + distance + 1, sequences)."""
    length = settings.warm_up + settings.distance + 1
    starts = np.linspace(0, len(held_out) - length, settings.sequences).astype(np.int64)
    return cast(IntArray, held_out[starts + np.arange(length)[:, None]])


def samples(state: State, count: int) -> State:
    """The state of the first sequences alone."""
    if isinstance(state, tuple):
        return state[0][:, :count].copy(), state[1][:, :count].copy()
    return state[:, :count].copy()


def _words(model: CharModel, held_out: IntArray) -> WordStates | None:
    """States after the commonest words, as many places of each as there are for all."""
    text = model.vocabulary.decode(held_out)
    ends: dict[str, list[int]] = {}
    for found in WORD.finditer(text):
        if found.end() >= BEFORE:
            ends.setdefault(found[0].lower(), []).append(found.end())
    common = [word for word in sorted(ends, key=lambda word: -len(ends[word])) if len(ends[word]) >= 2][:WORDS]
    if len(common) < 2:
        return None
    each = min(PLACES, *(len(ends[word]) for word in common))
    chosen = [(word, end) for word in common for end in _spread(ends[word], each)]
    codes = held_out[np.array([end for _, end in chosen]) - BEFORE + np.arange(BEFORE)[:, None]]  # (BEFORE, N)
    trace = model.forward(codes)
    words = tuple(word for word, _ in chosen)
    h = trace.rnn[model.rnn.num_layers - 1].h[-1].astype(np.float64)
    if h.shape[1] < 2 or (h == h[0]).all():
        return None
    nearest = _nearest(h)
    by_word, by_letter = np.array(words), np.array([word[-1] for word in words])
    return WordStates(
        words=words,
        projection=project(h),
        same_word=float((by_word[nearest] == by_word).mean()),
        same_letter=float((by_letter[nearest] == by_letter).mean()),
        chance_word=_chance(by_word),
        chance_letter=_chance(by_letter),
    )


def _spread(places: list[int], count: int) -> list[int]:
    return [places[n] for n in np.linspace(0, len(places) - 1, count).astype(int)]


def _nearest(states: FloatArray) -> IntArray:
    """For each state (N, H) the nearest other one."""
    # by differences: products would lose the distance of two states that are nearly the same
    distance = np.stack([np.linalg.norm(states - state, axis=1) for state in states])
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(axis=1)


def _chance(labels: np.ndarray) -> float:
    """How often another state, any one, has the same label."""
    same = (labels[:, None] == labels).sum(axis=1) - 1
    return float(same.mean() / (len(labels) - 1))
