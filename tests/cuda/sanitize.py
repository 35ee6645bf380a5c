"""Every kernel of both engines once, on tiny sizes: for NVIDIA's compute-sanitizer, which is slow.

compute-sanitizer --tool memcheck  python -m tests.cuda.sanitize
compute-sanitizer --tool racecheck python -m tests.cuda.sanitize
compute-sanitizer --tool initcheck python -m tests.cuda.sanitize
compute-sanitizer --tool synccheck python -m tests.cuda.sanitize
compute-sanitizer --tool racecheck python -m tests.cuda.sanitize lstm       one kind of cell
"""

from __future__ import annotations

import sys

import numpy as np

from scratchrnn import backends
from scratchrnn.kernels.cuda import plan
from tests.cuda.recurrent import CELLS, check, draw

SIZES = [  # T, B, I, H, P, and lengths
    ((4, 3, 2, 37, 5), (4, 0, 1)),
    ((3, 5, 3, 136, 4), (3, 3, 2, 0, 1)),  # an LSTM of several blocks, by 16 bytes
]


def main() -> None:
    """Run them, and compare with the definition."""
    backends.load("cuda")  # or an error that says what is missing
    rng = np.random.default_rng(0)
    for sizes, lengths in SIZES:
        for cell in sys.argv[1:] or CELLS:
            for engine in ("per_step", "persistent"):
                if cell == "projected" and engine == "persistent":
                    continue  # step by step only
                with plan.only(engine):
                    check("cuda", draw(cell, rng, sizes, lengths=lengths, clip=0.3, detaching=True), "float32")
                print(f"{cell}, {engine}, T, B, I, H, P = {sizes}: as defined", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
