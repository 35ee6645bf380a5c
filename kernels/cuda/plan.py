"""Which engine runs a recurrence, and how a persistent kernel lies over the device: a plain rule, asked of the device.

A group of `blocks` blocks holds all of W_hh in its registers, each block the weights of `units` hidden units, and runs
`per_group` samples of the batch through all time steps; `groups` of them share the batch and never meet. A step is

    meet      the blocks of a group wait for each other, unless the group is one block
    stage     every block reads what the group's blocks wrote: samples · columns numbers
    multiply  samples by the tile
    finish    the pointwise part, units · samples of it over the block's threads

More groups make each step shorter, but a group needs room for all of W_hh. Of all ways to cut, the one with the fewest
clocks a step is taken, and the persistent kernel at all where that is fewer than two launches and a matrix product.
The clocks are estimates for Hopper, not measurements; they decide the speed alone. What a device can hold (SMs, shared
memory, registers) is asked of it, and nothing here depends on T or on lengths. A launch has one block for each SM at
most, so that all should run at once; the driver is asked before the first (`Kernel.fits`), and it is an error if not.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from .queue import Device
from .tile import THREADS, Tile, choose

GATES = {"rnn": 1, "lstm": 4}
REGISTERS = 255  # of a thread, the most that there are
FAILED = 16  # bytes of shared memory that a block has beside `Plan.shared`: the word of `meeting.wait`, aligned

# clocks of an SM, estimated
MEET = 1200  # release, acquire, and the SMs' spread
ARRIVE = 4  # of each block: additions to one word come one after the other
STAGE = 600  # latency of the second cache
BYTES_PER_CLOCK = 24  # that an SM reads from the second cache while all do
FINISH = 300  # one item a thread: five exponentials, and the loads that were not ahead
LAUNCH = 3000  # of a kernel in a graph, and its tail
MULTIPLY_ADDS = 77  # a clock and SM of a small matrix product: 60 % of 128
DEPTH = 4  # of each term of its sums, which a small product cannot spread over SMs


@dataclass(frozen=True)
class Plan:
    """How a persistent kernel is launched."""

    hidden: int
    units: int  # hidden units of a block
    blocks: int  # of a group
    groups: int
    per_group: int  # samples of a group; the last may have fewer
    staged: int  # samples in shared memory at once
    tile: Tile

    @property
    def grid(self) -> int:
        """Blocks of the launch."""
        return self.blocks * self.groups

    @property
    def stride(self) -> int:
        """Samples of a group, rounded up to whole products."""
        return -(-self.per_group // self.tile.samples) * self.tile.samples

    @property
    def shared(self) -> int:
        """Bytes of shared memory that a launch asks for: the staged state, the sums, what is carried (c, or dc)."""
        return 4 * (self.staged * self.tile.columns + self._kept)

    @property
    def _kept(self) -> int:
        sums = self.tile.parts * self.tile.all_rows * self.stride
        return sums + self.units * self.per_group

    @property
    def clocks(self) -> int:
        """Estimated clocks of a time step."""
        meet = MEET + ARRIVE * self.blocks if self.blocks > 1 else 0
        stage = STAGE + 4 * self.per_group * self.tile.columns // BYTES_PER_CLOCK
        finish = -(-self.units * self.per_group // THREADS) * FINISH
        return meet + stage + self.stride * self.tile.clocks + finish


@functools.lru_cache(maxsize=256)
def persistent(cell: str, batch: int, hidden: int, backward: bool, device: Device) -> Plan | None:
    """The best plan of a persistent kernel; None where W_hh does not fit on the device.

    Forward, a block has the rows of W_hh of its units, all gates of them; backward, the columns.
    """
    gates = GATES[cell]
    plans = []
    for blocks in range(1, min(hidden, device.sms) + 1):
        units = -(-hidden // blocks)
        if -(-hidden // units) != blocks or batch == 0:
            continue
        groups = min(batch, device.sms // blocks)
        per_group = -(-batch // groups)
        rows, columns = (units, gates * hidden) if backward else (gates * units, hidden)
        tile = choose(rows, columns, per_group)
        if tile is None:
            continue
        plan = Plan(hidden, units, blocks, -(-batch // per_group), per_group, tile.samples, tile)
        room = (device.shared_per_block - FAILED - plan.shared) // (4 * tile.columns * tile.samples)
        if room >= 0:
            staged = min(plan.stride, (1 + room) * tile.samples)
            plans.append(Plan(hidden, units, blocks, plan.groups, per_group, staged, tile))
    return min(plans, key=lambda plan: (plan.clocks, plan.grid), default=None)


def per_step_clocks(cell: str, batch: int, hidden: int, backward: bool, device: Device) -> int:
    """Estimated clocks of a time step that is a matrix product and a pointwise kernel."""
    depth = GATES[cell] * hidden if backward else hidden
    return 2 * LAUNCH + DEPTH * depth + GATES[cell] * hidden * hidden * batch // (device.sms * MULTIPLY_ADDS)


_forced: ContextVar[str | None] = ContextVar("scratchrnn_cuda_engine", default=None)


@contextmanager
def only(engine: str) -> Iterator[None]:
    """Within the block "per_step" or "persistent" runs every recurrence, for tests and benchmarks.

    Raises
    ------
    ValueError
        Another name. Where "persistent" does not fit, `choose_engine` raises.
    """
    if engine not in ("per_step", "persistent"):
        raise ValueError(f"engine: expected 'per_step' or 'persistent'; got {engine!r}")
    token = _forced.set(engine)
    try:
        yield
    finally:
        _forced.reset(token)


def choose_engine(
    cell: str, batch: int, hidden: int, projected: bool, dtype: str, backward: bool, device: Device
) -> Plan | None:
    """The plan of the persistent kernel that runs this recurrence; None: it goes step by step.

    Raises
    ------
    ValueError
        Within `only("persistent")`, where none can.
    """
    forced = _forced.get()
    roomy = device.registers_per_block >= REGISTERS * THREADS  # so the device runs a block on every SM at once
    possible = forced != "per_step" and not projected and dtype == "float32" and roomy
    plan = persistent(cell, batch, hidden, backward, device) if possible else None
    if forced == "persistent" and plan is None:
        raise ValueError(
            f"engine: 'persistent' takes float32, no projection, and a W_hh that fits into the registers of "
            f"{device.name}; got {dtype}, B={batch}, H={hidden}" + (", projected" if projected else "")
        )
    if forced is None and plan is not None and plan.clocks > per_step_clocks(cell, batch, hidden, backward, device):
        return None
    return plan
