"""What is timed on a GPU, and what is wanted there: shapes in the order in which they matter, engines, goals.

A goal is a bound on a ratio of medians, their time over ours, on an H100 or H200; above 1, ours is faster.
"""

from __future__ import annotations

from dataclasses import dataclass

from cases import Shape

PER_STEP = "scratchrnn-cuda-per-step"  # a product and a kernel for each time step, replayed from a graph
PERSISTENT = "scratchrnn-cuda-persistent"  # one kernel for all time steps
CHOSEN = "scratchrnn-cuda"  # whichever the rule of kernels/cuda/plan.py takes
OURS = (CHOSEN, PER_STEP, PERSISTENT)
CUDNN = "torch-cuda"  # nn.LSTM, TF32 off
CUDNN_TF32 = "torch-cuda-tf32"  # nn.LSTM, TF32 on, as torch has it by default
LOOP = "torch-cuda-loop"  # LSTMCell in a loop, retain_grad on every h and c

NAMED = (CUDNN, CUDNN_TF32, PERSISTENT)  # whose kernels' names stand in the rows

RIVAL = {"infer": CUDNN, "train": CUDNN, "trace": LOOP}
MODE = {"infer": "forward", "train": "forward+backward", "trace": "full trace"}

# (B, T, D, H): those with goals first, in the goals' order
GRID: tuple[Shape, ...] = (
    (1, 1000, 256, 256),
    (16, 512, 512, 512),
    (44, 1125, 40, 160),
    (62, 2058, 16, 168),
    (16, 1024, 768, 768),
    (32, 100, 128, 128),
    (64, 256, 1024, 1024),
    (128, 512, 512, 512),
    (8, 1000, 1, 32),
)


@dataclass(frozen=True)
class Goal:
    """Their median over ours, at one shape and mode."""

    shape: Shape
    mode: str
    at_least: float

    @property
    def rival(self) -> str:
        """The engine that is compared with."""
        return RIVAL[self.mode]


_AGAINST_CUDNN = {
    (1, 1000, 256, 256): 2.0,
    (16, 512, 512, 512): 1.5,
    (44, 1125, 40, 160): 1.5,
    (62, 2058, 16, 168): 1.5,
    (16, 1024, 768, 768): 1.0,
    (32, 100, 128, 128): 1.0,
}
GOALS: tuple[Goal, ...] = (
    *(Goal(shape, mode, ratio) for shape, ratio in _AGAINST_CUDNN.items() for mode in ("infer", "train")),
    *(Goal(shape, "trace", 20.0) for shape in GRID),
)
STEP_SHAPE: Shape = (16, 512, 512, 512)
STEP_MICROSECONDS = 3.5  # of a time step of the persistent forward pass there
ERROR_FACTOR = 1.5  # our error against float64 over cuDNN's with TF32 off
