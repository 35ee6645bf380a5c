"""A problem small enough to be followed by hand: mean ½‖w - x‖² over a few points x."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from scratchrnn.checkpoint import generator_state, set_generator_state
from scratchrnn.optim import SGD
from scratchrnn.train import Outcome, Trainer

CENTRE = np.array([1.0, -2.0, 0.5])


class Points:
    """Batches of 1 to 4 points around CENTRE; a penalty of 0.01 ‖w‖² counted apart."""

    def __init__(self, seed: int = 0) -> None:
        self.parameters = {"w": np.zeros(3), "scale": np.ones(1)}
        self.rng = np.random.default_rng(seed)
        self.drawn = 0
        self.bad: dict[int, float] = {}  # number of the batch -> loss
        self.bad_gradient: dict[int, float] = {}
        self.held_out: list[float] | None = None  # losses that evaluate tells, one after another
        self.looks = 0

    def step(self) -> Outcome:
        self.drawn += 1
        count = int(self.rng.integers(1, 5))
        x = CENTRE + 0.1 * self.rng.standard_normal((count, 3))
        w = self.parameters["w"]
        loss = float(0.5 * ((w - x) ** 2).sum(axis=1).mean())
        gradient = (w - x).mean(axis=0) + 0.02 * w
        gradient[0] = self.bad_gradient.get(self.drawn, gradient[0])
        gradients = {"w": gradient, "scale": np.array([0.1])}
        return Outcome(self.bad.get(self.drawn, loss), count, gradients, float(0.01 * (w**2).sum()))

    def evaluate(self) -> dict[str, float]:
        self.looks += 1
        if self.held_out is not None:
            return {"loss": self.held_out[self.looks - 1], "looks": float(self.looks)}
        return {"loss": float(0.5 * ((self.parameters["w"] - CENTRE) ** 2).sum())}

    def state_dict(self) -> dict[str, Any]:
        return {"rng": generator_state(self.rng), "drawn": self.drawn, "looks": self.looks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        set_generator_state(self.rng, state["rng"])
        self.drawn, self.looks = state["drawn"], state["looks"]

    def blame(self) -> str | None:
        return "batch of points" if self.bad or self.bad_gradient else None


def trainer(objective: Points | None = None, **arguments: Any) -> Trainer:
    objective = objective or Points()
    optimizer = arguments.pop("optimizer", None) or SGD(objective.parameters, lr=0.1)
    return Trainer(objective, optimizer, **({"steps": 12, "progress": False} | arguments))


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
