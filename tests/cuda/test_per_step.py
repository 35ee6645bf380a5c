"""The per-step engine and the sums over time from their PTX, emulated; products are NumPy's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from scratchrnn.kernels import blocks
from scratchrnn.kernels.cuda import chunks, plan
from tests.cuda import emulator
from tests.cuda.emulator.device import EmulatedQueue, emulated_device
from tests.cuda.recurrent import CELLS, Problem, backward_of, check, draw, everything, forward_of, same

pytest.importorskip("numba_cuda", reason="numba-cuda is not installed: pip install scratchrnn[cuda13]")
pytestmark = pytest.mark.skipif(emulator.why_unavailable() is not None, reason=str(emulator.why_unavailable()))

SIZES = 37, 7, 5, 19, 11  # T, B, I, H, P: chunks of 32, 4 and 1 steps; two blocks for each pointwise kernel of a B·4H
LENGTHS = 37, 33, 32, 5, 1, 0, 36
SHORT = 7, 3, 2, 5, 4
each_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def device() -> Iterator[EmulatedQueue]:
    with emulated_device() as queue, plan.only("per_step"):
        yield queue


@each_cell
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])
def test_every_function(cell: str, dtype: str, lengths: Any, rng: np.random.Generator) -> None:
    clip = 0.05 if lengths is not None else float("inf")
    check("cuda", draw(cell, rng, SIZES, lengths=lengths, clip=clip, detaching=lengths is not None), dtype)


@each_cell
def test_everything_repeats(cell: str, rng: np.random.Generator) -> None:
    p = draw(cell, rng, (9, *SIZES[1:]), detaching=True).astype("float32")
    found = everything("cuda", p)
    for name, array in everything("cuda", p).items():
        same(name, array, found[name])


@each_cell
def test_a_longer_sequence_on_the_same_chunk(cell: str, rng: np.random.Generator) -> None:
    """What an earlier call left in the chunk's memory is not seen by the next."""
    check("cuda", draw(cell, rng, SHORT, lengths=(4, 7, 0), clip=0.5, detaching=True), "float64")
    kept = dict(chunks._idle)
    check("cuda", draw(cell, rng, (9, *SHORT[1:]), clip=0.5), "float64")
    assert chunks._idle == kept


@each_cell
def test_pieces_cut_between_blocks_have_the_bits_of_the_whole(
    cell: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    block = 4
    monkeypatch.setattr(blocks, "SUM_ROWS_CUDA", 3 * block)
    p = draw(cell, rng, (11, *SHORT[1:]), lengths=(11, 6, 3), clip=0.3, detaching=True).astype("float32")
    whole = everything("cuda", p)
    forward, start = [], p.start
    for first in range(0, 11, block):
        piece = _piece(p, slice(first, min(first + block, 11)), start)
        forward.append((piece, forward_of("cuda", piece)))
        start = tuple(forward[-1][1][name] for name in ("h_n", "c_n")[: len(start)])
    for name in ("output", "gates", "a"):
        if name in whole:
            same(name, np.concatenate([found[name] for _, found in forward]), whole[name])
    given, later, rest = p.given, None, []
    for piece, found in reversed(forward):
        piece.given = given
        if later is not None:
            for outside, following in zip(piece.outside, later, strict=True):
                outside[-1] = following[0]  # its outside cotangent is in it
        d = backward_of("cuda", piece, found)
        given = {name: d[name] for name in given}
        later = [d[name] for name in ("dh", "dc")[: len(start)]]
        rest.insert(0, d)
    for name in given:
        same(name, given[name], whole[name])
    for name in ("da", "dx"):
        same(name, np.concatenate([d[name] for d in rest]), whole[name])
    same("dh", np.concatenate([d["dh"][:-1] for d in rest] + [rest[-1]["dh"][-1:]]), whole["dh"])


def _piece(p: Problem, part: slice, start: tuple[np.ndarray, ...]) -> Problem:
    lengths = np.clip(p.lengths - part.start, 0, part.stop - part.start)
    outside = tuple(d[part.start : part.stop + 1].copy() for d in p.outside)
    detach_h = None if p.detach_h is None else p.detach_h[part]
    return Problem(p.cell, p.x[part], lengths, p.weights, p.weight_hr, start, outside, p.given, p.clip, detach_h)


@each_cell
def test_chunks_of_other_lengths_have_the_same_bits(
    cell: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    p = draw(cell, rng, SHORT, lengths=(4, 7, 0), detaching=True)
    found = everything("cuda", p)
    for chunk, numbers in ((2, 1 << 24), (4, 1 << 24), (32, 1), (32, 3 * p.weights["bias_ih"].size * 3)):
        monkeypatch.setattr(chunks, "CHUNK", chunk)
        monkeypatch.setattr(chunks, "NUMBERS", numbers)
        chunks._idle.clear()
        for name, array in everything("cuda", p).items():
            same(name, array, found[name])
