"""How the persistent kernels lie over a device: every plan's limits, and every number's place, without a kernel."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scratchrnn.kernels.cuda import plan as plans
from scratchrnn.kernels.cuda.plan import FAILED, GATES, Plan, choose_engine, only, persistent
from scratchrnn.kernels.cuda.queue import Device
from scratchrnn.kernels.cuda.tile import HELD, THREADS, UNROLLED, WARP, Tile, choose
from tests.cuda import tilings
from tests.cuda.tilings import NOTHING, Weights


def device(sms: int, shared: int, capability: tuple[int, int] = (9, 0)) -> Device:
    return Device(f"{sms} SMs, {shared} bytes", capability, sms, shared, 65536)


H100 = device(132, 232448)
A100 = device(108, 166912)
T4 = device(40, 65536)


def every_tile() -> Iterator[Tile]:
    """All that `choose` can return."""
    for slices in (4, 8, 16, 32, 64, 128, 256):
        for rows in (1, 2, 4, 8, 16, 32):
            for vectors in range(1, HELD // (4 * rows) + 1):
                for samples in (1, 2, 4):
                    if samples == 1 or 4 * rows * vectors * samples <= UNROLLED:
                        yield Tile(rows, vectors, slices, samples)


# --- plans


@settings(max_examples=400)
@given(
    cell=st.sampled_from(["lstm", "rnn"]),
    batch=st.integers(1, 200),
    hidden=st.one_of(st.integers(1, 40), st.integers(1, 1100)),
    backward=st.booleans(),
    sms=st.integers(4, 144),
    shared=st.integers(48 << 10, 227 << 10),
)
@example("lstm", 1, 1, False, 4, 48 << 10)
@example("lstm", 16, 512, False, 132, 232448)
@example("lstm", 64, 1024, True, 132, 232448)
@example("rnn", 200, 1100, True, 144, 48 << 10)
def test_a_plan_fits_the_device_and_the_problem(
    cell: str, batch: int, hidden: int, backward: bool, sms: int, shared: int
) -> None:
    plan = persistent(cell, batch, hidden, backward, device(sms, shared))
    if plan is None:
        return
    tile = plan.tile
    assert 1 <= plan.grid <= sms
    assert plan.shared + FAILED <= shared
    assert (plan.blocks - 1) * plan.units < hidden <= plan.blocks * plan.units  # no block is idle
    assert (plan.groups - 1) * plan.per_group < batch <= plan.groups * plan.per_group  # nor a group
    assert plan.units * (1 if backward else GATES[cell]) <= tile.all_rows
    assert (GATES[cell] if backward else 1) * hidden <= tile.columns
    assert tile.held <= HELD
    assert tile.held * tile.samples <= UNROLLED or tile.samples == 1
    assert THREADS % tile.slices == 0
    assert tile.slices & (tile.slices - 1) == 0
    assert tile.samples <= plan.staged <= plan.stride
    assert plan.staged % tile.samples == 0 == plan.stride % tile.samples
    assert plan.per_group <= plan.stride < plan.per_group + tile.samples
    sums = tile.parts * tile.all_rows * plan.stride
    assert plan.shared == 4 * (plan.staged * tile.columns + sums + plan.units * plan.per_group)


def test_staged_samples_leave_room_for_the_static_word() -> None:
    """Two more samples would fit but for it: an exact fit that no device launches."""
    plan = persistent("lstm", 64, 784, False, H100)
    assert plan is not None
    assert plan.shared + FAILED <= H100.shared_per_block
    assert plan.shared + 4 * plan.tile.columns * plan.tile.samples == H100.shared_per_block


def test_w_stays_in_registers_or_there_is_no_plan() -> None:
    """256 threads of 128 numbers, on each SM."""
    assert persistent("lstm", 1, 512, False, H100) is not None
    for sms in (4, 40, 132):
        most = sms * THREADS * HELD
        for hidden in range(8, 1101, 28):
            plan = persistent("lstm", 1, hidden, False, device(sms, 232448))
            assert plan is None or 4 * hidden * hidden <= most
    assert persistent("lstm", 1, 1100, False, A100) is None
    assert persistent("rnn", 0, 32, False, H100) is None


def test_less_shared_memory_means_more_rounds_and_then_no_plan() -> None:
    staged: list[int | None] = []
    for shared in (232448, 98304, 81920, 65536, 49152, 16384):
        plan = persistent("lstm", 300, 150, False, device(16, shared))
        staged.append(None if plan is None else plan.staged)
        assert plan is None or plan.shared + FAILED <= shared
    assert staged == sorted((s for s in staged if s is not None), reverse=True) + [None] * staged.count(None)
    assert None in staged
    assert len({s for s in staged if s is not None}) > 2


# --- tiles


def test_tiles_have_powers_of_two() -> None:
    """The exchange halves values and lanes; a thread's row group and lane come from shifts."""
    for tile in every_tile():
        for number in (tile.rows, tile.slices, tile.samples):
            assert number & (number - 1) == 0
        assert tile.held <= HELD
        assert tile.parts == max(1, tile.slices // WARP)


@settings(max_examples=200)
@given(rows=st.integers(1, 600), columns=st.integers(1, 4400), samples=st.integers(1, 20))
def test_choose_returns_one_of_every_tile(rows: int, columns: int, samples: int) -> None:
    tile = choose(rows, columns, samples)
    if tile is None:
        assert all(tile.all_rows < rows or tile.columns < columns for tile in every_tile())
        return
    assert tile in EVERY_TILE
    assert tile.all_rows >= rows
    assert tile.columns >= columns > tile.columns - 4 * tile.slices  # padding in the last vectors alone
    assert tile.samples <= samples


EVERY_TILE = set(every_tile())

PLACES = [
    ("lstm", 3, 37, H100), ("lstm", 1, 1, T4), ("lstm", 5, 130, device(7, 98304)), ("lstm", 16, 512, H100),
    ("rnn", 2, 37, H100), ("rnn", 7, 260, device(5, 65536)), ("rnn", 1, 1021, A100), ("lstm", 2, 768, H100),
]  # fmt: skip
directions = pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
places = pytest.mark.parametrize(
    ("cell", "batch", "hidden", "on"), PLACES, ids=lambda value: getattr(value, "name", str(value))
)


def planned(cell: str, batch: int, hidden: int, backward: bool, on: Device) -> tuple[Plan, Weights]:
    plan = persistent(cell, batch, hidden, backward, on)
    assert plan is not None
    return plan, Weights(hidden, GATES[cell], backward)


@directions
@places
def test_every_weight_is_in_one_register(cell: str, batch: int, hidden: int, on: Device, backward: bool) -> None:
    plan, weights = planned(cell, batch, hidden, backward, on)
    gates = GATES[cell]
    rows = hidden if backward else gates * hidden
    times = np.zeros((rows, gates * hidden if backward else hidden), int)
    for unit, _ in tilings.blocks(plan):
        row, column = tilings.registers(plan.tile, weights, unit, plan.units)
        assert row[0].size == plan.tile.held
        real = row != NOTHING
        assert np.array_equal(real, column != NOTHING)
        np.add.at(times, (row[real], column[real]), 1)
    assert (times == 1).all()


@directions
@places
def test_every_item_has_one_thread(cell: str, batch: int, hidden: int, on: Device, backward: bool) -> None:
    plan, _ = planned(cell, batch, hidden, backward, on)
    times = np.zeros((batch, hidden), int)
    for samples in tilings.groups(plan, batch):
        for unit, mine in tilings.blocks(plan):
            for u, b in tilings.items(plan, samples.stop - samples.start):
                own = u < mine
                np.add.at(times, (samples.start + b[own], unit + u[own]), 1)
    assert (times == 1).all()


@pytest.mark.parametrize("samples", [1, 2, 4])
@pytest.mark.parametrize("slices", [4, 8, 16, 32, 64, 128, 256])
@pytest.mark.parametrize("rows", [1, 2, 8, 32])
def test_the_exchange_adds_every_lane_once(rows: int, slices: int, samples: int) -> None:
    """Each thread brings a bit of its own: a sum names the threads that are in it."""
    tile = Tile(rows, 1, slices, samples)
    lanes = min(WARP, slices)
    values = rows * samples
    for value in range(min(values, 5)):
        acc = np.zeros((THREADS, values), np.float64)
        acc[:, value] = 2.0 ** (np.arange(THREADS) % lanes)
        sums, which = tilings.exchange(tile, acc)  # type: ignore[arg-type]
        assert sums.shape[1] == max(1, values // lanes)
        assert np.array_equal(sums[which == value], np.full((which == value).sum(), 2.0**lanes - 1))
        assert not sums[which != value].any()
        holders = (which == value).any(axis=1).reshape(-1, lanes).sum(axis=1)
        assert (holders == max(1, lanes // values)).all()


# --- the product


@directions
@places
def test_the_product_is_w_times_s(
    cell: str, batch: int, hidden: int, on: Device, backward: bool, rng: np.random.Generator
) -> None:
    plan, weights = planned(cell, batch, hidden, backward, on)
    weight_hh = rng.standard_normal((GATES[cell] * hidden, hidden)).astype(np.float32)
    state = rng.standard_normal((batch, weights.depth)).astype(np.float32)
    z = tilings.product(plan, weights, weight_hh, state)
    seen = weights.seen(weight_hh).astype(np.float64)
    # each of K products is rounded into a sum at most (4 vectors + lanes + parts) deep
    depth = 4 * plan.tile.vectors + plan.tile.slices.bit_length() + plan.tile.parts
    bound = depth * 2.0**-24 * (np.abs(state) @ np.abs(seen).T) * 1.01
    assert (np.abs(z - state @ seen.T) <= bound).all()


def test_a_sample_has_the_same_bits_whatever_its_neighbours_hold(rng: np.random.Generator) -> None:
    plan, weights = planned("lstm", 5, 130, False, device(7, 98304))
    weight_hh = rng.standard_normal((520, 130)).astype(np.float32)
    state = rng.standard_normal((5, 130)).astype(np.float32)
    whole = tilings.product(plan, weights, weight_hh, state)
    state[[0, 3]] = np.nan
    again = tilings.product(plan, weights, weight_hh, state)
    assert np.isnan(again[[0, 3]]).all()
    assert np.array_equal(again[[1, 2, 4]], whole[[1, 2, 4]])


def test_fma_is_rounded_once(rng: np.random.Generator) -> None:
    """Where two roundings differ: against exact integers."""
    a, b = rng.integers(1 << 23, 1 << 24, (2, 20000))
    # a sum that lies next to the middle of two float32
    c = (rng.integers(1 << 23, 1 << 24, 20000) << 24) + (rng.integers(0, 2, 20000) << 22)
    c = c.astype(np.float32).astype(np.int64)
    exact = [int(p) * int(q) + int(r) for p, q, r in zip(a, b, c, strict=True)]
    want = np.array([_rounded(n) for n in exact], np.float32)
    got = tilings.fma(a.astype(np.float32), b.astype(np.float32), c.astype(np.float32))
    assert np.array_equal(got, want)
    tricky = tilings.fma(
        np.array([1 + 2**-12, np.inf, np.nan, 0], np.float32), np.array([1 + 2**-12, 1, 1, np.inf], np.float32),
        np.array([2**-60, -1, 1, 1], np.float32),
    )  # fmt: skip
    assert tricky[0] == np.float32(1 + 2**-11 + 2**-23)  # a tie but for 2^-60
    assert np.array_equal(tricky[1:], np.array([np.inf, np.nan, np.nan], np.float32), equal_nan=True)


def _rounded(n: int) -> float:
    """An integer as float32, ties to even."""
    drop = max(0, n.bit_length() - 24)
    kept, rest = n >> drop, n & ((1 << drop) - 1)
    middle = 1 << drop >> 1
    up = rest > middle or (rest == middle and drop and kept & 1)
    return float((kept + bool(up)) << drop)


# --- which engine


def test_the_engine_may_be_asked_for() -> None:
    with only("per_step"):
        assert choose_engine("lstm", 16, 512, False, "float32", False, H100) is None
    with only("persistent"):
        plan = choose_engine("lstm", 128, 1024, False, "float32", False, H100)
        assert plan == persistent("lstm", 128, 1024, False, H100)
        with only("per_step"):
            assert choose_engine("lstm", 16, 512, False, "float32", False, H100) is None
        assert choose_engine("lstm", 128, 1024, False, "float32", False, H100) == plan
    chosen = choose_engine("lstm", 16, 512, False, "float32", False, H100)
    assert chosen == persistent("lstm", 16, 512, False, H100)
    assert plans._forced.get() is None


@pytest.mark.parametrize(
    ("batch", "hidden", "projected", "dtype", "message"),
    [
        (16, 512, False, "float64", "got float64, B=16, H=512$"),
        (16, 512, True, "float32", "got float32, B=16, H=512, projected$"),
        (16, 4096, False, "float32", "registers of 132 SMs, 232448 bytes; got float32, B=16, H=4096$"),
    ],
)
def test_an_engine_that_cannot_run_is_an_error(
    batch: int, hidden: int, projected: bool, dtype: str, message: str
) -> None:
    with only("persistent"), pytest.raises(ValueError, match=message):
        choose_engine("lstm", batch, hidden, projected, dtype, False, H100)
    assert choose_engine("lstm", batch, hidden, projected, dtype, False, H100) is None


def test_another_engine_is_an_error() -> None:
    with pytest.raises(ValueError, match="expected 'per_step' or 'persistent'; got 'cudnn'"), only("cudnn"):
        pass
    with pytest.raises(RuntimeError), only("persistent"):
        raise RuntimeError
    assert plans._forced.get() is None


def test_the_faster_engine_runs_by_estimate() -> None:
    """A short step runs in one kernel; a wide batch on few SMs goes step by step."""
    few = device(4, 232448)
    for batch, hidden, on, wins in ((1, 256, H100, True), (200, 128, few, False)):
        plan = persistent("rnn", batch, hidden, True, on)
        assert plan is not None
        assert (plan.clocks <= plans.per_step_clocks("rnn", batch, hidden, True, on)) is wins
        assert choose_engine("rnn", batch, hidden, False, "float32", True, on) == (plan if wins else None)
