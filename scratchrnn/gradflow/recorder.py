"""How far the gradient reaches while a net learns: a callback for the Trainer.

After update n the net is looked at on the same fixed data, a probe (see `probes`):

    input[n, k], h[n, l, k], c[n, l, k]     median gradient norms at distance k from the last step
    horizon[n], decay_time[n], ...          what the curve input[n] says, see `measure_decay`
    saturation, forget gate                 shares and means over all steps of the probe
    spectral_radius[n, l] = max |λ(W_hh)|   of an RNN, whose dh_t/dh_{t-1} is diag(1 - h_t²) W_hh

Samples are taken after the updates

    n = 1, 2, 4, 8, ...         below `every`: most happens early
    n = every, 2·every, ...     and after the last one, unless it is `stop` that makes it the last

which is fixed, so that two runs can be compared sample by sample.

N samples   T distances   L layers
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from scratchrnn import checkpoint
from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn._validate import check_int, check_positive_int, describe
from scratchrnn.gradflow.distance import check_threshold, decay_if_any, gradient_by_distance
from scratchrnn.gradflow.probes import Probe
from scratchrnn.trace import LayerTrace, Trace
from scratchrnn.train import Step, Trainer
from scratchrnn.train.objective import check_same_settings, name_of

SATURATED, CLOSED, OPEN = 0.95, 0.1, 0.9  # as in dynamics.saturation

Record = dict[str, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """What a `GradientFlowRecorder` saw: N samples, in order. Arrays are float64 where nothing else is said.

    Attributes
    ----------
    steps : ndarray (N,) of int
        Updates made before each sample; 0 is the untrained net.
    loss, gradient_norm : ndarray (N,)
        Of that update, on its own batch: the gradient's global norm before clipping. NaN at step 0.
    input : ndarray (N, T)
        Median ‖dL/dx‖ by distance from the last step, index 0 the last step itself.
    h : ndarray (N, L, T)
        The same of each layer's total dL/dh.
    c : ndarray (N, L, T) or None
        The same of dL/dc of an LSTM.
    horizon : ndarray (N,) of int
        See `Decay`; this and the next four are of `input`.
    censored, exploding : ndarray (N,) of bool
    decay_factor, decay_time : ndarray (N,)
        NaN where the gradient at distance 0 is no scale for the others: not finite, or 0 while they are not. Such a
        sample counts as censored and exploding.
    h_saturation : ndarray (N, L)
        Share of |h| > 0.95.
    gate_saturation : ndarray (N, L, 3, 2) or None
        Of the LSTM's gates i, f, o: the shares below 0.1 and above 0.9.
    forget_gate : ndarray (N, L) or None
        Mean f of an LSTM.
    spectral_radius : ndarray (N, L) or None
        Of W_hh of an RNN; NaN where it is not finite. None for an LSTM, whose weight_hh is four matrices, none of which
        alone carries a state to the next.
    seconds : ndarray (N,)
        That each sample took.
    threshold : float
        Of the horizon.
    """

    steps: IntArray
    loss: FloatArray
    gradient_norm: FloatArray
    input: FloatArray
    h: FloatArray
    c: FloatArray | None
    horizon: IntArray
    censored: BoolArray
    exploding: BoolArray
    decay_factor: FloatArray
    decay_time: FloatArray
    h_saturation: FloatArray
    gate_saturation: FloatArray | None
    forget_gate: FloatArray | None
    spectral_radius: FloatArray | None
    seconds: FloatArray
    threshold: float

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a safetensors file."""
        checkpoint.save(path, {"gradient_flow": vars(self)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save`, or a recorder with a `file`, wrote; ValueError if it is something else."""
        state = checkpoint.load(path)
        if set(state.get("gradient_flow") or ()) != {field.name for field in fields(cls)}:
            raise ValueError(f"{path}: expected what GradientFlow.save wrote; got {', '.join(state) or 'nothing'}")
        return cls(**state["gradient_flow"])


class GradientFlowRecorder:
    """Samples how far the gradient reaches during training; give it to a `Trainer` among its callbacks.

    Training is not changed, to the bit: nothing random is drawn and nothing is written to the model.

    Parameters
    ----------
    probe : callable
        `TextProbe` or `TaskProbe`, or any function of the objective that returns (layer, trace, d_last). It must give
        the same number of time steps at every sample.
    every : int
        Updates between two samples, once there have been as many; before, samples are at the powers of 2.
    threshold : float
        Of the horizon, between 0 and 1, both excluded.
    file : path, optional
        Written anew after each sample, since a Trainer's checkpoints hold nothing of its callbacks. If it is there
        already, the recorder goes on from it; samples of updates that the resumed run makes again are dropped.

    Attributes
    ----------
    seconds : float
        That the samples took, those before a resume included.
    share : float
        The same as a share of the seconds that the trainer spent on updates and evaluations; NaN before the first.

    Raises
    ------
    ValueError, TypeError
        An argument out of range, or a `file` of other settings or of no recorder.

    Examples
    --------
    >>> from scratchrnn import data, models, optim, train
    >>> from scratchrnn.gradflow import TextProbe
    >>> model = models.CharModel("ab", "rnn", 8, 4, rng=np.random.default_rng(0))
    >>> text = model.vocabulary.encode("abaabaaab" * 40)
    >>> objective = train.LanguageModel(model, data.ContiguousRows(text[:270], batch=4), k1=15)
    >>> recorder = GradientFlowRecorder(TextProbe(text[270:], distance=20), every=10)
    >>> trainer = train.Trainer(objective, optim.Adam(model.parameters), steps=25, callbacks=[recorder], progress=False)
    >>> recorder(trainer)  # before the first update
    >>> _ = trainer.run()
    >>> flow = recorder.result()
    >>> flow.steps, flow.input.shape
    (array([ 0,  1,  2,  4,  8, 10, 20, 25]), (8, 20))
    """

    def __init__(
        self,
        probe: Probe,
        *,
        every: int = 50,
        threshold: float = 0.01,
        file: str | os.PathLike[str] | None = None,
    ) -> None:
        if not callable(probe):
            raise TypeError(f"probe: expected a function of the objective, such as TextProbe; got {describe(probe)}")
        self.probe, self.every = probe, check_positive_int("every", every)
        self.threshold = check_threshold(threshold)
        self.file = None if file is None else Path(file)
        self._trained = 0.0
        self._records: list[Record] = []
        self._resuming = self.file is not None and self.file.exists()
        if self.file is not None and self._resuming:
            self._load(checkpoint.load(self.file), self.file)

    def __call__(self, trainer: Trainer, step: Step | None = None) -> None:
        """Sample if it is time to. Without a `step` it is before the first update, and at no other time.

        Raises
        ------
        ValueError
            There are samples of later updates already: this recorder has been used for another run.
        """
        start, done = time.perf_counter(), trainer.done
        if step is None and done:  # of a resumed run
            return
        self._check_order(done)
        self._trained = trainer.seconds
        last = done == trainer.steps or trainer.result.stopped is not None
        if not (last or is_due(done, self.every)):
            return
        record = self._sample(trainer.objective)
        record["steps"] = np.array(done)
        record["loss"] = np.array(math.nan if step is None else step.loss)
        record["gradient_norm"] = np.array(math.nan if step is None else step.gradient_norm)
        record["seconds"] = np.array(time.perf_counter() - start)
        self._records.append(record)
        if self.file is not None:
            flow = vars(self.result())
            state = {"settings": self._settings(), "trained": self._trained, "gradient_flow": flow}
            checkpoint.save(self.file, state)
            record["seconds"] = np.array(time.perf_counter() - start)

    @property
    def seconds(self) -> float:
        """That the samples took."""
        return float(sum(record["seconds"] for record in self._records))

    @property
    def share(self) -> float:
        """Seconds of the samples, over those of training."""
        return self.seconds / self._trained if self._trained else math.nan

    def result(self) -> GradientFlow:
        """What has been seen so far.

        Raises
        ------
        ValueError
            Nothing: no update has been made.
        """
        if not self._records:
            raise ValueError("records: expected a sample to have been taken; there was none (is it among callbacks?)")
        return GradientFlow(**_stacked(self._records), threshold=self.threshold)

    # --- one sample

    def _sample(self, objective: Any) -> Record:
        layer, trace, d_last = self.probe(objective)
        by_distance = gradient_by_distance(layer, trace, d_last)
        self._check_length(len(by_distance.input))
        decay = decay_if_any(by_distance.input, threshold=self.threshold, dtype=layer.dtype)
        record = {name: np.array(value) for name, value in vars(decay).items()}
        record |= {"input": by_distance.input, "h": by_distance.h}
        if by_distance.c is not None:
            record["c"] = by_distance.c
        parts = [_rates(trace, trace[n]) for n in range(layer.num_layers)]
        record |= {name: np.stack([part[name] for part in parts]) for name in parts[0]}
        if trace.cell != "lstm":
            weights = [trace.parameters[f"weight_hh_l{n}"] for n in range(layer.num_layers)]
            record["spectral_radius"] = np.array([_spectral_radius(weight) for weight in weights])
        return record

    def _check_length(self, length: int) -> None:
        if self._records and self._records[0]["input"].shape != (length,):
            expected = len(self._records[0]["input"])
            raise ValueError(f"probe: expected {expected} time steps, as at the first sample; got {length}")

    def _check_order(self, done: int) -> None:
        """What a resumed run makes again is dropped; any other way back is a mistake."""
        if self._records and int(self._records[-1]["steps"]) >= done and not self._resuming:
            last = int(self._records[-1]["steps"])
            raise ValueError(f"trainer: expected more than {last} updates, those of the last sample; got {done}")
        if self._resuming:
            self._records = [record for record in self._records if int(record["steps"]) < done]
            self._resuming = False

    # --- the file

    def _settings(self) -> dict[str, Any]:
        return {"every": self.every, "threshold": self.threshold, "probe": name_of(self.probe)}

    def _load(self, state: Mapping[str, Any], path: Path) -> None:
        if "gradient_flow" not in state or "settings" not in state:
            raise ValueError(f"{path}: expected what a GradientFlowRecorder wrote; got {', '.join(state) or 'nothing'}")
        check_same_settings(state["settings"], self._settings())
        self._trained = state["trained"]
        arrays = {name: value for name, value in state["gradient_flow"].items() if isinstance(value, np.ndarray)}
        count = len(arrays["steps"])
        self._records = [{name: np.array(value[n]) for name, value in arrays.items()} for n in range(count)]


def is_due(done: int, every: int) -> bool:
    """Whether there is a sample after update `done`: at the powers of 2 below `every`, then at its multiples.

    >>> [n for n in range(1, 200) if is_due(n, 50)]
    [1, 2, 4, 8, 16, 32, 50, 100, 150]
    """
    done, every = check_int("done", done, least=0), check_positive_int("every", every)
    return done % every == 0 or (done < every and done.bit_count() == 1)


def _stacked(records: list[Record]) -> dict[str, Any]:
    """Fields of a `GradientFlow`; None for what the cell has not."""
    names = [field.name for field in fields(GradientFlow) if field.name != "threshold"]
    return {name: np.stack([r[name] for r in records]) if name in records[0] else None for name in names}


def _rates(trace: Trace, part: LayerTrace) -> Record:
    """Saturation of one layer, over all steps that are no padding.

    Of `dynamics.saturation` only what is recorded: all of it takes longer than the backward pass.
    """
    steps = np.arange(len(part.input))[:, None] < part.lengths  # (T, B)
    rates: dict[str, Any] = {"h_saturation": np.mean(np.abs(part.h[1:][steps]) > SATURATED)}
    if trace.cell == "lstm":
        gates = part.gates[steps]  # (n, 4H)
        i, f, _, o = np.split(gates, 4, axis=1)
        ends = [[np.mean(gate < CLOSED), np.mean(gate > OPEN)] for gate in (i, f, o)]
        rates |= {"gate_saturation": np.array(ends), "forget_gate": f.mean(dtype=np.float64)}
    return {name: np.asarray(value) for name, value in rates.items()}


def _spectral_radius(weight: FloatArray) -> float:
    if not np.isfinite(weight).all():
        return math.nan
    return float(np.abs(np.linalg.eigvals(weight.astype(np.float64))).max())
