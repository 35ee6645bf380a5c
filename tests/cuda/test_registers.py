"""The persistent kernels as a device gets them: W in registers and loads of 16 bytes, for every tile there may be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scratchrnn.kernels.cuda import persistent_backward, persistent_forward, persistent_preactivations
from scratchrnn.kernels.cuda.persistent import Shape
from scratchrnn.kernels.cuda.tile import THREADS, Tile, choose
from tests.cuda import compiled

why_not = compiled.why_not()
pytestmark = pytest.mark.skipif(why_not is not None, reason=str(why_not))

REGISTERS = 65536 // THREADS - 1
STRONG = r"LDG\.E\.128\.STRONG\.GPU"  # seen by other blocks, and 16 bytes at once
STRONG_WORD = r"LDG\.E\.STRONG\.GPU"


def shape(cell: str, hidden: int, units: int, samples: int, backward: bool = False) -> Shape:
    gates = 4 if cell == "lstm" else 1
    tile = choose(units, gates * hidden, samples) if backward else choose(gates * units, hidden, samples)
    assert tile is not None
    return Shape(cell, hidden, units, tile, (gates * hidden if backward else hidden) % 4 == 0)


def check(kernel: Any, architecture: str, folder: Path) -> compiled.Code:
    """All in registers, and the state read from shared memory 16 bytes at a time."""
    code = compiled.code(kernel, architecture, folder)
    assert code.stack == code.local == 0
    assert not code.instructions("LDL|STL")
    assert code.registers <= REGISTERS
    assert code.instructions(r"LDS\.128")
    assert not code.instructions("CALL.*cudaCG")
    return code


@pytest.mark.parametrize("architecture", compiled.ARCHITECTURES)
@pytest.mark.parametrize(("hidden", "units", "samples"), [(512, 16, 4), (500, 16, 4), (37, 37, 1)])
def test_forward(hidden: int, units: int, samples: int, architecture: str, tmp_path: Path) -> None:
    of = shape("lstm", hidden, units, samples)
    code = check(persistent_forward.kernel(replace(of, keep_c=True, keep_gates=True)), architecture, tmp_path)
    multiply_adds = of.tile.held * of.tile.samples
    assert len(code.instructions("FFMA")) >= multiply_adds, "the product is not unrolled"
    # a step's state, and before the first step's
    assert len(code.instructions(STRONG)) >= 2 if of.vector else not code.instructions(STRONG)
    assert of.vector or len(code.instructions(STRONG_WORD)) > 2
    assert code.instructions(r"STS\.128") or not of.vector


@pytest.mark.parametrize(("cell", "hidden", "vector"), [("lstm", 225, True), ("rnn_tanh", 37, False)])
def test_backward(cell: str, hidden: int, vector: bool, tmp_path: Path) -> None:
    """A row of da has 4H numbers in an LSTM: they are read 16 bytes at a time, whatever H is."""
    of = shape(cell, hidden, 32, 2, backward=True)
    assert of.vector is vector
    code = check(persistent_backward.kernel(of, detaches=cell == "lstm"), "sm_90a", tmp_path)
    assert bool(code.instructions(STRONG)) is vector


def test_preactivations(tmp_path: Path) -> None:
    code = check(persistent_preactivations.kernel(shape("lstm", 64, 16, 3)), "sm_90a", tmp_path)
    assert code.instructions(STRONG)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("hidden", [33, 64])
def test_what_blocks_exchange_is_released_and_acquired(hidden: int, backward: bool) -> None:
    """The emulator has no weak memory, and a device forgives much: the order is read off the PTX."""
    of = shape("rnn_relu", hidden, 16, 2, backward)
    ptx = (persistent_backward.kernel(of, detaches=False) if backward else persistent_forward.kernel(of)).ptx()
    lines = [line.strip() for line in ptx.splitlines()]

    def where(start: str) -> list[int]:
        return [n for n, line in enumerate(lines) if line.startswith(start)]

    (arrival,) = where("red.release.gpu.global.add.u32")
    assert any(line.startswith(("bar.sync", "barrier.sync")) for line in lines[max(0, arrival - 20) : arrival])
    assert where("ld.acquire.gpu.global.u32")
    wide, single = where("ld.relaxed.gpu.global.v4.f32"), where("ld.relaxed.gpu.global.f32")
    assert bool(wide) is of.vector
    assert bool(single) is not of.vector


def reachable() -> Iterator[tuple[Tile, int, int]]:
    """Every tile that `choose` returns, with rows and columns that it is for."""
    found: set[Tile] = set()
    for rows in [*range(1, 130), *range(130, 600, 5)]:
        for columns in range(1, 4200, 7):
            for samples in (1, 2, 4):
                tile = choose(rows, columns, samples)
                if tile is not None and tile not in found:
                    found.add(tile)
                    yield tile, rows, columns


@pytest.mark.slow
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_every_tile(backward: bool, tmp_path: Path) -> None:
    """NVVM unrolls each: an array that it does not unroll is on the stack."""
    failed, count = [], 0
    for tile, rows, columns in reachable():
        if backward:
            of = Shape("lstm", max(1, columns // 4), rows, tile, vector=True)
            kernel = persistent_backward.kernel(of, detaches=True)
        else:
            of = Shape("lstm", columns, -(-rows // 4), tile, columns % 4 == 0, keep_c=True, keep_gates=True)
            kernel = persistent_forward.kernel(of)
        code = compiled.code(kernel, "sm_90a", tmp_path)
        count += 1
        if code.stack or code.local or code.registers > REGISTERS:
            failed.append((tile, code.stack, code.registers))
    assert count > 100
    assert not failed
