"""What a study found, as records of arrays. A part that was not reached is None.

Losses are in bits per character. A distance k counts characters back from the one whose loss is taken: 0 is the last
character read before the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from scratchrnn.dynamics import Saturation
from scratchrnn.gradflow import Decay, EffectiveMemory, GradientByDistance, GradientFlow
from scratchrnn.models import CharModel
from scratchrnn.study.inside import Inside
from scratchrnn.study.settings import Settings
from scratchrnn.study.stretch import Stretch


@dataclass
class Curve:
    """How training went; index n is step n+1.

    Attributes
    ----------
    bits : list of float
        Loss of each window, before its update.
    gradient_norm : list of float
        Before clipping.
    seconds : list of float
        That each update took.
    validation : list of (step, bits)
        Loss on the text held out, after that step; the first is before any training.
    """

    bits: list[float] = field(default_factory=list)
    gradient_norm: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured on one model at one time.

    Attributes
    ----------
    by_distance : GradientByDistance
        Of the loss at one character of the text held out: median norm of the gradient at each distance back.
    decay : Decay
        Of `by_distance.input`: horizon and rate on the text.
    memory : EffectiveMemory
        On random input, by the familiar rule and by the corrected one.
    saturation : Saturation
        Of hidden state and gates, on the text held out.
    stretch : Stretch
        Of the text held out, character by character.
    inside : Inside
        How states move, what they hold, and by which way gradients flow.
    """

    by_distance: GradientByDistance
    decay: Decay
    memory: EffectiveMemory
    saturation: Saturation
    stretch: Stretch
    inside: Inside


@dataclass
class ModelResults:
    """One of the two models: itself, how training went, what was measured before and after, and what it writes.

    `flow` is how far the gradient reached during training; None before the first update. `known_words` is the share of
    the sample's words, of three letters or more, that occur in the training text.
    """

    model: CharModel
    curve: Curve = field(default_factory=Curve)
    before: Measurement | None = None
    after: Measurement | None = None
    flow: GradientFlow | None = None
    sample: str | None = None
    known_words: float | None = None


@dataclass
class Results:
    """A study, whole or as far as it came.

    Attributes
    ----------
    settings : Settings
    text_name : str
        Where the text came from.
    text_sha256 : str
    text_length, vocabulary_size : int
    dropped : int
        Characters at the end of the training text that no row reads.
    unigram_bits : float
        Entropy of the characters' frequencies: what a guess without context costs.
    models : dict of str to ModelResults
        "rnn" and "lstm".
    prompt : str
        What both models read before they wrote their sample.
    steps_done : int
    seconds : float
        Wall time, all together.
    stopped : str or None
        Why it stopped early; None if it ran to its end.
    """

    settings: Settings
    text_name: str
    text_sha256: str
    text_length: int
    vocabulary_size: int
    dropped: int
    unigram_bits: float
    models: dict[str, ModelResults]
    prompt: str
    steps_done: int = 0
    seconds: float = 0.0
    stopped: str | None = None
