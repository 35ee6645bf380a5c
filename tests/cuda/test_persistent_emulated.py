"""The persistent kernels' PTX, many blocks at once on the CPU: against the definition, and bit for bit their tiling."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from scratchrnn.kernels.cuda import meeting, pointwise
from scratchrnn.kernels.cuda.kernel import Kernel
from scratchrnn.kernels.cuda.persistent import vector
from scratchrnn.kernels.cuda.plan import Plan, persistent
from scratchrnn.kernels.cuda.pointwise_lstm import activate
from scratchrnn.kernels.cuda.queue import Device
from scratchrnn.kernels.cuda.tile import Tile
from tests.cuda import emulator, tilings
from tests.cuda.persistent_calls import aligned, backward, forward, kept, preactivations
from tests.cuda.recurrences import Arrays, Recurrence, cut, draw
from tests.cuda.recurrent import close, same

pytest.importorskip("numba_cuda", reason="numba-cuda compiles the kernels")
pytestmark = [
    pytest.mark.skipif(emulator.why_unavailable() is not None, reason=str(emulator.why_unavailable())),
    pytest.mark.usefixtures("launched_there"),
]
if emulator.why_unavailable() is None:
    from tests.cuda.emulator.device import EmulatedQueue

DEVICE = Device("emulated", (9, 0), sms=24, shared_per_block=100 << 10, registers_per_block=65536)


class Case(NamedTuple):
    """Sizes, and a cut of them."""

    cell: str
    batch: int
    hidden: int
    steps: int
    units: int
    groups: int
    lengths: Any = None
    tile: tuple[Tile, Tile] | tuple[None, None] = None, None  # forward's and backward's; None: the rule's
    staged: int = 0  # samples at once; 0: all

    def plan(self, backward: bool) -> Plan:
        """As the case has it."""
        sizes = self.cell, self.batch, self.hidden, self.units, self.groups, backward
        return cut(*sizes, self.tile[backward], self.staged)

    def __str__(self) -> str:
        return f"{self.cell}-B{self.batch}-H{self.hidden}-U{self.units}-G{self.groups}"


CASES = [
    Case("lstm", 5, 37, 6, 10, 2, (6, 1, 0, 4, 6)),  # four blocks, the last of 7 units; groups of 3 and 2 samples
    Case("lstm", 7, 44, 5, 22, 3, (0, 5, 2, 1, 5, 3, 4)),  # by 16 bytes; groups of 3, 3 and 1
    Case("lstm", 20, 40, 3, 20, 1),  # 400 items: threads have a second one
    Case("rnn_tanh", 5, 40, 5, 40, 3, (5, 0, 3, 1, 4)),  # blocks that wait for nobody
    Case("rnn_relu", 7, 44, 5, 15, 3, (5, 1, 0, 2, 5, 4, 3)),
    Case("rnn_relu", 6, 150, 4, 8, 1, None, (Tile(2, 1, 64, 2), Tile(4, 1, 128, 1)), 4),  # parts; two rounds
    Case("lstm", 9, 36, 4, 6, 2, (4, 4, 0, 1, 2, 3, 4, 4, 1), (None, None), 2),  # three rounds, the last not full
    Case("lstm", 1, 1, 1, 1, 1),
    Case("rnn_tanh", 2, 130, 3, 33, 1, None, (Tile(16, 1, 64, 2), Tile(1, 9, 4, 1))),
]  # fmt: skip
each_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture
def launched_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are launched on the emulated queue that they are given."""

    def launch(kernel: Kernel, queue: Any, blocks: int, *arguments: Any, shared: int = 0) -> None:
        kernel._check(arguments)
        queue.run(kernel, blocks, arguments, shared)

    monkeypatch.setattr(Kernel, "launch", launch)


def on(seed: int = 0, device: Device = DEVICE) -> EmulatedQueue:
    """A queue whose threads take turns in an order of the seed's."""
    return EmulatedQueue(device, seed, races=True, global_races=True)


def problem(case: Case, rng: np.random.Generator, **options: Any) -> Recurrence:
    return draw(rng, case.cell, case.batch, case.hidden, case.steps, case.lengths, **options)


def check(found: Arrays, p: Recurrence, want: dict[str, Any], which: dict[str, Any]) -> None:
    """As near to the definition in float64 as the definition in float32 is."""
    for name, pick in which.items():
        close(name, found[name], pick(want), pick(p.definition("float32")))


def before(p: Recurrence, y: np.ndarray) -> np.ndarray:
    """h of the step before each."""
    return np.concatenate([p.h_0[None], y[:-1]])


# --- forward


@each_case
def test_forward(case: Case, rng: np.random.Generator) -> None:
    p, queue = problem(case, rng), on()
    found = forward(queue, case.plan(False), p)
    own = p.lengths, np.arange(case.batch)
    check(found, p, p.definition("float64"), {
        "y": lambda d: d["h"][1:], "h_n": lambda d: d["h"][own],
        **({"c": lambda d: d["c"][1:], "gates": lambda d: d["gates"], "c_n": lambda d: d["c"][own]} if p.lstm else {}),
    })  # fmt: skip
    beyond = np.arange(case.steps)[:, None] >= p.lengths
    for name in {"y", "c", "gates"} & set(found):
        assert not found[name][beyond].any(), name
    assert not queue.alarm[0]
    assert queue.launches == [f"{case.cell}_persistent_forward"]


@each_case
def test_forward_has_the_same_bits_in_any_order(case: Case, rng: np.random.Generator) -> None:
    p = problem(case, rng)
    first = forward(on(1), case.plan(False), p)
    for seed in range(2, 6):
        for name, array in forward(on(seed), case.plan(False), p).items():
            same(name, array, first[name])


@pytest.mark.parametrize("case", [case for case in CASES if case.cell == "rnn_relu"], ids=str)
def test_forward_has_the_bits_of_its_tiling(case: Case, rng: np.random.Generator) -> None:
    p, plan = problem(case, rng), case.plan(False)
    h, weights = p.h_0, tilings.Weights(case.hidden, 1, False)
    found = forward(on(), plan, p)
    for t in range(case.steps):
        a = (p.a_x[t] + p.bias) + tilings.product(plan, weights, p.weight_hh, h)
        h = np.where((t < p.lengths)[:, None], np.maximum(a, 0), np.float32(0))
        same(f"y[{t}]", found["y"][t], h)


@each_case
def test_preactivations_have_the_bits_of_forward(case: Case, rng: np.random.Generator) -> None:
    p, plan = problem(case, rng), case.plan(False)
    gates = 4 if p.lstm else 1
    found = forward(on(), plan, p)
    h = before(p, found["y"])
    a = preactivations(on(), plan, p, h)
    for t in range(case.steps):
        z = tilings.product(plan, tilings.Weights(case.hidden, gates, False), p.weight_hh, h[t])
        same(f"a[{t}]", a[t], np.where((t < p.lengths)[:, None], (p.a_x[t] + p.bias) + z, np.float32(0)))
    if case.cell == "rnn_relu":
        same("y", found["y"], np.maximum(a, 0))
    if p.lstm:
        again = np.full_like(a, np.nan)
        pointwise.launch(
            activate("float32"), on(), a.size, a, p.lengths, case.hidden, again
        )  # fmt: skip
        same("gates", again, found["gates"])


@pytest.mark.parametrize("sms", [1, 5, 24])
def test_preactivations_have_the_same_bits_on_any_number_of_sms(sms: int, rng: np.random.Generator) -> None:
    case = CASES[0]
    p, plan = problem(case, rng), case.plan(False)
    h = rng.standard_normal((case.steps, case.batch, case.hidden)).astype(np.float32)
    want = preactivations(on(), plan, p, h)
    fewer = on(sms, Device("fewer", (9, 0), sms, 100 << 10, 65536))
    same("a", preactivations(fewer, plan, p, h), want)


@pytest.mark.parametrize("case", CASES[:2], ids=str)
def test_what_is_not_kept_changes_nothing(case: Case, rng: np.random.Generator) -> None:
    p, plan = problem(case, rng), case.plan(False)
    whole = forward(on(), plan, p)
    for options in ({"keeps": False}, {"ends": False}, {"in_place": True}):
        found = forward(on(), plan, p, **options)
        for name, array in found.items():
            same(f"{name} of {options}", array, whole[name])


# --- backward


def check_backward(case: Case, p: Recurrence, found: Arrays) -> None:
    names = ("da", "dh", "dc") if p.lstm else ("da", "dh")
    check(found, p, p.definition("float64"), {name: lambda d, name=name: d[name] for name in names})
    beyond = np.arange(case.steps + 1)[:, None] > p.lengths
    for name in names:
        assert not found[name][beyond[1:] if name == "da" else beyond].any(), name
    gates, plan = 4 if p.lstm else 1, case.plan(True)
    for t in range(case.steps):
        z = tilings.product(plan, tilings.Weights(case.hidden, gates, True), p.weight_hh, found["da"][t])
        sent = t < p.lengths if p.detach_h is None else (t < p.lengths) & ~p.detach_h[t]
        same(f"dh[{t}]", found["dh"][t], np.where(sent[:, None], p.outside[0][t] + z, p.outside[0][t]))


@pytest.mark.parametrize(
    ("case", "detaching"),
    [(case, detaching) for case in CASES for detaching in (False, True) if case.cell == "lstm" or not detaching],
    ids=lambda value: str(value) if isinstance(value, Case) else "detaching" if value else "attached",
)
@pytest.mark.parametrize("clip", [math.inf, 0.3])
def test_backward(case: Case, detaching: bool, clip: float, rng: np.random.Generator) -> None:
    p = problem(case, rng, clip=clip, detaching=detaching)
    states = kept(p)
    first = backward(on(1), case.plan(True), p, states)
    check_backward(case, p, first)
    if clip < math.inf and case.hidden > 1:
        assert np.abs(first["da"]).max() == np.float32(clip)
    for seed in range(2, 5):
        for name, array in backward(on(seed), case.plan(True), p, states).items():
            same(name, array, first[name])


@pytest.mark.parametrize("cell", ["lstm", "rnn_tanh"])
def test_no_steps(cell: str, rng: np.random.Generator) -> None:
    case = Case(cell, 3, 5, 0, 2, 1)
    p = problem(case, rng)
    found = forward(on(), case.plan(False), p)
    same("h_n", found["h_n"], p.h_0)
    d = backward(on(), case.plan(True), p, kept(p))
    for name, outside in zip(("dh", "dc"), p.outside, strict=False):
        same(name, d[name], outside)


# --- what a device may have otherwise


@pytest.mark.parametrize(("cell", "batch", "hidden", "steps", "sms", "shared"), [
    ("lstm", 3, 130, 3, 12, 48 << 10),
    ("rnn_tanh", 5, 200, 3, 24, 48 << 10),
    ("lstm", 24, 45, 2, 2, 20 << 10),
])  # fmt: skip
def test_plans_by_the_rule(
    cell: str, batch: int, hidden: int, steps: int, sms: int, shared: int, rng: np.random.Generator
) -> None:
    device = Device("small", (8, 0), sms, shared, 65536)
    p = draw(rng, cell, batch, hidden, steps)
    kind = cell.partition("_")[0]
    there, back = (persistent(kind, batch, hidden, backward, device) for backward in (False, True))
    assert there is not None
    assert back is not None
    found = forward(on(device=device), there, p)
    check(found, p, p.definition("float64"), {"y": lambda d: d["h"][1:]})
    case = Case(cell, batch, hidden, steps, back.units, back.groups, None, (None, back.tile), back.staged)
    assert case.plan(True) == back
    check_backward(case, p, backward(on(device=device), back, p, kept(p)))


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=str)
def test_any_alignment_and_any_rounds_have_the_same_bits(case: Case, rng: np.random.Generator) -> None:
    p = problem(case, rng)
    states = kept(p)
    there, back = (case._replace(staged=0).plan(direction) for direction in (False, True))
    y, d = forward(on(), there, p), backward(on(), back, p, states)
    for offset in (4, 8):
        same("y", forward(on(), there, p, offset=offset)["y"], y["y"])
        same("da", backward(on(), back, p, states, offset=offset)["da"], d["da"])
    rounds = case._replace(staged=2)
    same("y", forward(on(), rounds.plan(False), p)["y"], y["y"])
    same("da", backward(on(), rounds.plan(True), p, states)["da"], d["da"])
    h = before(p, y["y"])
    a = preactivations(on(), there, p, h)
    same("a", preactivations(on(), rounds.plan(False), p, h), a)


def test_rows_are_read_by_16_bytes_where_all_begin_at_such() -> None:
    states = aligned(np.zeros((3, 5, 44), np.float32))
    assert vector(44, states)
    assert vector(44, states[1:], states[0])
    assert not vector(37, states)
    assert not vector(44, states, aligned(states, 4))
    assert not vector(44, aligned(states, 8))


# --- what must not spread


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf], ids=str)
@pytest.mark.parametrize("case", [CASES[0], CASES[1], CASES[4], CASES[6]], ids=str)
def test_a_sample_that_is_not_finite_stays_alone(case: Case, value: float, rng: np.random.Generator) -> None:
    p, sick = problem(case, rng, clip=0.5), int(np.argmax(case.lengths))
    there, back = case.plan(False), case.plan(True)
    well = np.arange(case.batch) != sick
    y, states = forward(on(), there, p), kept(p)
    d = backward(on(), back, p, states)
    p.a_x[1, sick, 2] = p.outside[0][-1, sick, 3] = value
    again = forward(on(), there, p)
    for name, array in again.items():
        part = (slice(None),) * (array.ndim - 2) + (well,)
        same(name, array[part], y[name][part])
    if math.isnan(value):
        assert np.isnan(again["y"][1, sick, 2])
        assert np.isnan(again["y"][2, sick]).all()
        assert np.isnan(again["h_n"][sick]).all()
    for name, array in backward(on(), back, p, states).items():
        same(name, array[:, well], d[name][:, well])
        if name == "dh":
            assert not np.isfinite(array[-1, sick, 3])


@pytest.mark.parametrize("case", [CASES[0], CASES[4]], ids=str)
def test_infinite_weights_do_not_reach_beyond_an_end(case: Case, rng: np.random.Generator) -> None:
    p = problem(case, rng)
    states = kept(p)
    p.weight_hh[:] = np.inf
    beyond = np.arange(case.steps + 1)[:, None] > p.lengths
    found = forward(on(), case.plan(False), p)
    d = backward(on(), case.plan(True), p, states)
    a = preactivations(on(), case.plan(False), p, before(p, found["y"]))
    for array in (found["y"], d["da"], a):
        assert not array[beyond[1:]].any()
    for name in set(d) - {"da"}:
        assert not d[name][beyond].any()


# --- an arrival that is lost


@pytest.fixture
def one_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counters miss an arrival."""

    def short(queue: EmulatedQueue, groups: int) -> np.ndarray:
        return np.full(groups * meeting.APART, -1, np.int32).view(np.uint32)

    monkeypatch.setattr(meeting, "counters", short)


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("one_is_lost")
def test_a_lost_arrival_ends_with_an_alarm(direction: str, seed: int, rng: np.random.Generator) -> None:
    case = CASES[0]
    p, queue = problem(case, rng), on(seed)
    if direction == "forward":
        found = forward(queue, case.plan(False), p, patience=300)
        assert not np.isnan(found["y"][0]).any()  # nobody waits in the first step
        assert np.isnan(found["y"][1:]).all()  # and nobody goes on after it
    else:
        found = backward(queue, case.plan(True), p, kept(p), patience=300)
        assert not np.isnan(found["da"][-1]).any()
        assert np.isnan(found["da"][:-1]).all()
        same("dh[0]", found["dh"][0], p.outside[0][0])  # to which the last of the steps adds
        same("dc[0]", found["dc"][0], p.outside[1][0])
    assert queue.alarm[0] == 1


@pytest.mark.usefixtures("one_is_lost")
def test_a_block_alone_waits_for_nobody(rng: np.random.Generator) -> None:
    case = CASES[3]
    p, queue = problem(case, rng), on()
    forward(queue, case.plan(False), p, patience=1)
    assert not queue.alarm[0]
    backward(queue, case.plan(True), p, kept(p), patience=1)
    assert not queue.alarm[0]
