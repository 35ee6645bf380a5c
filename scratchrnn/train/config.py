"""Every setting of a run that trains a character model, each declared once: its table, default, bounds and meaning.

The file of a run (`config_file`) and the options of `scratchrnn train` are made from these declarations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, get_args, get_type_hints

from scratchrnn import backends
from scratchrnn._validate import check_bool, check_int, check_probability, check_real, describe
from scratchrnn.models import CELLS

OPTIMIZERS = ("adam", "adamw", "sgd", "rmsprop", "adagrad")
SCHEDULES = ("constant", "linear", "cosine")
EPOCHS = 12.0  # where neither steps nor epochs are given


@dataclass(frozen=True)
class Setting:
    """What is known of one setting besides its type and default.

    Attributes
    ----------
    table : str
        Where it stands in the file.
    meaning : str
        One sentence for people.
    least, above : float, optional
        Lower bound: the least value, or one that is not reached.
    choices : tuple of str
        All values of a string; any if empty.
    endless : bool
        Whether inf is a value, and turns off what the setting bounds.
    share : bool
        Whether it is a number from 0 to below 1.
    option : bool
        Whether the command line has it.
    """

    table: str
    meaning: str
    least: float = -math.inf
    above: float | None = None
    choices: tuple[str, ...] = ()
    endless: bool = False
    share: bool = False
    option: bool = True

    def check(self, name: str, kind: type, value: Any) -> Any:
        """Return `value` as `kind` if it is of this kind and within the bounds."""
        if kind is bool:
            return check_bool(name, value)
        if kind is int:
            return check_int(name, value, least=int(self.least))
        if kind is float:
            return self._check_float(name, value)
        if not isinstance(value, str):
            raise TypeError(f"{name}: expected a string; got {describe(value)}")
        if self.choices and value not in self.choices:
            raise ValueError(f"{name}: expected one of {', '.join(self.choices)}; got {value!r}")
        if any("\ud800" <= character <= "\udfff" for character in value):  # of a file name that is not UTF-8
            raise ValueError(f"{name}: expected what UTF-8 can write; got {value!r}")
        return value

    def _check_float(self, name: str, value: Any) -> float:
        if self.endless and value == math.inf:
            return math.inf
        if self.share:
            share = check_probability(name, value)
            if share == 1.0:
                raise ValueError(f"{name}: expected a number below 1; got 1, which would leave nothing")
            return share
        return check_real(name, value, least=self.least, above=self.above)


def _setting(default: Any, table: str, meaning: str, **more: Any) -> Any:
    return field(default=default, metadata={"setting": Setting(table, meaning, **more)})


@dataclass(frozen=True, kw_only=True)
class Config:
    """All settings of a run; `SETTINGS` says what each means and which values it takes.

    A setting that is None is absent. Of `steps` and `epochs` exactly one stays; `k2` becomes `k1`.

    Raises
    ------
    TypeError, ValueError
        A setting is of another type, out of its bounds, or contradicts another one.

    Examples
    --------
    >>> config = Config(cell="rnn", hidden=100, steps=2000)
    >>> config.k2, config.epochs
    (100, None)
    """

    file: str | None = _setting(None, "text", "The text; absent: Python's own help texts.", option=False)
    sha256: str | None = _setting(None, "text", "Of the text, which must not have changed.", option=False)

    cell: str = _setting("lstm", "model", "rnn or lstm.", choices=CELLS)
    hidden: int = _setting(256, "model", "Hidden units of each layer.", least=1)
    layers: int = _setting(1, "model", "Recurrent layers.", least=1)
    embedding: int = _setting(64, "model", "Numbers that stand for a character.", least=1)
    learned_state: bool = _setting(False, "model", "Learn the state that a text begins with.")
    dtype: str = _setting("float32", "model", "float32 or float64.", choices=("float32", "float64"))

    steps: int | None = _setting(None, "training", "Updates, instead of epochs.", least=1)
    epochs: float | None = _setting(None, "training", f"Passes over the text.  [{EPOCHS:g}]", above=0.0)
    batch: int = _setting(32, "training", "Rows of the text read in parallel.", least=1)
    k1: int = _setting(100, "training", "Characters between two updates.", least=1)
    k2: int | None = _setting(None, "training", "Characters that the gradient flows back through.  [k1]", least=1)
    accumulate: int = _setting(1, "training", "Windows of k1 characters for each update.", least=1)
    clip: float = _setting(1.0, "training", "Bound on the gradient's norm; inf: none.", above=0.0, endless=True)
    step_clip: float = _setting(
        math.inf, "training", "Bound on each element of dL/da, at every time step; inf: none.", above=0.0, endless=True
    )
    patience: int | None = _setting(None, "training", "Evaluations without a better one until it stops.", least=1)

    optimizer: str = _setting("adam", "optimizer", f"{', '.join(OPTIMIZERS)}.", choices=OPTIMIZERS)
    learning_rate: float = _setting(3e-3, "optimizer", "Its highest value.", above=0.0)
    schedule: str = _setting("constant", "optimizer", "How it falls: constant, linear or cosine.", choices=SCHEDULES)
    final_rate: float = _setting(0.1, "optimizer", "Share of it at the end of linear and cosine.", least=0.0)
    warmup: int = _setting(0, "optimizer", "Updates over which it rises at first.", least=0)
    momentum: float = _setting(0.0, "optimizer", "Of sgd and rmsprop.", least=0.0)
    weight_decay: float = _setting(0.0, "optimizer", "Strength.", least=0.0)

    dropout: float = _setting(0.0, "regularization", "Share of embedding and output dropped.", share=True)
    weight_drop: float = _setting(0.0, "regularization", "Share of recurrent weights dropped.", share=True)
    h_detach: float = _setting(
        0.0, "regularization", "Share of steps whose gates pass no gradient on to h; of lstm.", share=True
    )
    ar: float = _setting(0.0, "regularization", "Weight of the squared size of the output.", least=0.0)
    tar: float = _setting(0.0, "regularization", "Weight of its squared change from step to step.", least=0.0)

    seed: int = _setting(0, "run", "Of everything random.", least=0)
    backend: str = _setting(backends.DEFAULT, "run", "What computes; `scratchrnn info` lists them.")
    evaluate_every: int = _setting(100, "run", "Updates between two looks at the text held out.", least=1)
    checkpoint_every: int = _setting(100, "run", "Updates between two checkpoints.", least=1)
    keep: int = _setting(3, "run", "Checkpoints that stay.", least=1)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None or name not in OPTIONAL:
                object.__setattr__(self, name, check_setting(name, value))
        if self.steps is not None and self.epochs is not None:
            raise ValueError(f"steps, epochs: expected one of them; got steps={self.steps} and epochs={self.epochs:g}")
        if self.steps is None and self.epochs is None:
            object.__setattr__(self, "epochs", EPOCHS)
        if self.k2 is None:
            object.__setattr__(self, "k2", self.k1)
        if self.momentum and self.optimizer not in {"sgd", "rmsprop"}:
            raise ValueError(f"momentum: expected 0 with {self.optimizer}, which has none; got {self.momentum:g}")
        if self.h_detach and self.cell != "lstm":
            raise ValueError(f"h_detach: expected 0 with {self.cell}, which has no other path; got {self.h_detach:g}")
        backends.check_backend(self.backend)


_HINTS = get_type_hints(Config)
SETTINGS: dict[str, Setting] = {f.name: f.metadata["setting"] for f in fields(Config)}
OPTIONAL = {name for name, hint in _HINTS.items() if type(None) in get_args(hint)}
KINDS: dict[str, type] = {name: (get_args(hint) or (hint,))[0] for name, hint in _HINTS.items()}
TABLES = tuple(dict.fromkeys(setting.table for setting in SETTINGS.values()))


def check_setting(name: str, value: Any) -> Any:
    """Return the value of one setting as its type, if it is one."""
    return SETTINGS[name].check(name, KINDS[name], value)
