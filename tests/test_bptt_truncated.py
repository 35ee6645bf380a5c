"""Truncated backpropagation through time against full BPTT, torch with detach, and torch running each window again."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.bptt import schedule, truncated, truncation_bias, windows
from scratchrnn.testing import TOLERANCE, assert_close
from tests.problems import Case
from tests.test_bptt import CELLS, draw, ends, make, same, same_gradients

T, B = 23, 5
pytestmark = pytest.mark.usefixtures("each_backend")


def spans(steps: int, k1: int, k2: int) -> Iterator[tuple[int, int, int]]:
    """The definition once more: an update every k1 steps, its gradient over the last k2."""
    for before in range(0, steps, k1):
        nominal = before + k1  # where a whole window would end
        start = 0 if k2 >= steps else max(0, nominal - k2)
        if start < min(nominal, steps):
            yield start, max(before, start), min(nominal, steps)


@pytest.mark.parametrize("steps", [1, 2, 7, 12, 13])
def test_schedule(steps: int) -> None:
    for k1 in range(1, 15):
        for k2 in range(1, 15):
            got = [tuple(span) for span in schedule(steps, k1, k2)]
            assert got == list(spans(steps, k1, k2))
            losses = [t for _, first, stop in got for t in range(first, stop)]
            assert len(set(losses)) == len(losses)
            if k2 >= k1:
                assert losses == list(range(steps))
                assert all(k2 >= stop - start for start, _, stop in got)
                reach = [first - start + 1 for start, first, _ in got if start > 0]
                assert all(r == k2 - k1 + 1 for r in reach)
            assert [tuple(s) for s in schedule(steps, k1, k2, begin=min(k1, steps))] == [s for s in got if s[1] >= k1]


@pytest.mark.parametrize("arguments", [(0, 1, 1), (5, 0, 1), (5, 1, 0), (5, 2, 2, 1), (5, 2, 2, 6), (5, 1.0, 1)])
def test_schedule_refuses(arguments: tuple[Any, ...]) -> None:
    with pytest.raises((ValueError, TypeError), match="expected"):
        schedule(*arguments)


@pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("ragged", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", CELLS)
def test_far_reach_has_the_bits_of_full(
    cell: str, num_layers: int, ragged: bool, dtype: Any, rng: np.random.Generator
) -> None:
    layer = make(cell, rng, num_layers=num_layers, dtype=dtype)
    x, state, d_output, d_state = draw(layer, rng, 50, T)  # several blocks of sums
    keywords = {"state": state, "d_state": d_state, "lengths": ends(rng, 50, T) if ragged else None}
    want = srnn.bptt.full(layer, x, d_output, **keywords)
    for k1, k2 in ((1, T), (4, T), (4, T + 1), (T, T), (T + 5, 10 * T), (7, 10**9)):
        got = truncated(layer, x, d_output, k1=k1, k2=k2, **keywords)
        same_gradients(got, want)
        for key, one in want.layers.items():
            same("dh", got.layers[key].h, one.h)
            same("da", got.layers[key].a, one.a)
            if layer.cell.has_c:
                same("dc", got.layers[key].c, one.c)


def by_torch(
    module: torch.nn.Module,
    x: np.ndarray,
    state: Any,
    d_output: np.ndarray,
    d_state: Any,
    plan: list[tuple[int, int, int]],
) -> dict[str, np.ndarray]:
    """Every window run again by torch from its starting state, taken as a constant; gradients summed."""
    module.zero_grad()
    xs = torch.tensor(x, requires_grad=True)
    first_state = [torch.tensor(s, requires_grad=True) for s in (state if isinstance(state, tuple) else (state,))]
    d_last = [torch.tensor(d) for d in (d_state if isinstance(d_state, tuple) else (d_state,))]

    def pair(values: list[torch.Tensor]) -> Any:
        return tuple(values) if len(values) > 1 else values[0]

    for start, first, stop in plan:
        begin = first_state
        if start:
            with torch.no_grad():
                _, reached = module(xs[:start], pair(first_state))
            begin = [s.detach() for s in (reached if isinstance(reached, tuple) else (reached,))]
        output, final = module(xs[start:stop], pair(begin))
        loss = (output[first - start :] * torch.tensor(d_output[first:stop])).sum()
        if stop == len(x):
            finals = final if isinstance(final, tuple) else (final,)
            loss = loss + sum((f * d).sum() for f, d in zip(finals, d_last, strict=True))
        loss.backward()
    found = {f"d{letter}_0": s.grad for letter, s in zip("hc", first_state, strict=False)}
    found |= {"dx": xs.grad} | {f"d{name}": p.grad for name, p in module.named_parameters()}
    begun = {"dh_0": first_state[0], "dc_0": first_state[-1]}  # no gradient where no window starts at step 0
    return {name: (torch.zeros_like(begun[name]) if g is None else g).detach().numpy() for name, g in found.items()}


def named(grads: srnn.Gradients) -> dict[str, np.ndarray]:
    states = grads.state if isinstance(grads.state, tuple) else (grads.state,)
    found = {f"d{letter}_0": s for letter, s in zip("hc", states, strict=False)} | {"dx": grads.input}
    return found | {f"d{name}": g for name, g in grads.parameters.items()}


REACHES = [(1, 1), (4, 4), (5, 5), (T, T), (4, 9), (1, 6), (5, 7), (4, T - 1), (4, T), (6, 2), (4, 3)]


@pytest.mark.parametrize(("k1", "k2"), REACHES)
@pytest.mark.parametrize("cell", ["tanh", "relu", "lstm", "projected"])
def test_equals_torch_window_by_window(cell: str, k1: int, k2: int, rng: np.random.Generator) -> None:
    kind = cell if cell in ("tanh", "relu") else "lstm"
    case = Case(kind, num_layers=2, proj_size=4 if cell == "projected" else 0, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    x, state, d_output, d_state = draw(layer, rng, B, T)
    plan = list(spans(T, k1, k2))
    want = by_torch(case.module(layer, np.float64), x, state, d_output, d_state, plan)
    got = named(truncated(layer, x, d_output, k1=k1, k2=k2, state=state, d_state=d_state))
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert value.any() or (name in ("dh_0", "dc_0") and plan[0][0] > 0)
        assert_close(name, got[name], value, rel=TOLERANCE["float64"])


@pytest.mark.parametrize("k", [1, 4, 6])
def test_equals_torch_with_detach(k: int, rng: np.random.Generator) -> None:
    """The loop that everybody writes, stopped nowhere but at detach."""
    case = Case("lstm", num_layers=2, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    x, _, d_output, _ = draw(layer, rng, B, T)
    module = case.module(layer, np.float64)
    state: Any = None
    loss: Any = 0.0
    for start in range(0, T, k):
        if state is not None:
            state = tuple(s.detach() for s in state)
        output, state = module(torch.tensor(x[start : start + k]), state)
        loss = loss + (output * torch.tensor(d_output[start : start + k])).sum()
    loss.backward()
    got = truncated(layer, x, d_output, k1=k, k2=k)
    for name, parameter in module.named_parameters():
        assert_close(name, got.parameters[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])


@pytest.mark.parametrize(("k1", "k2"), REACHES)
@pytest.mark.parametrize("cell", CELLS)
def test_windows_add_up(cell: str, k1: int, k2: int, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=2, dtype=np.float64, batch_first=True)
    x, state, d_output, _ = draw(layer, rng, B, T)
    want = truncated(layer, x, d_output, k1=k1, k2=k2, state=state)
    total = {name: np.zeros_like(g) for name, g in want.parameters.items()}
    dx = np.zeros_like(x)
    found = []
    for window in windows(layer, x, d_output, k1=k1, k2=k2, state=state):
        found.append((window.start, window.first, window.stop))
        for name, g in window.gradients.parameters.items():
            total[name] += g
        dx[:, window.start : window.stop] += window.gradients.input
    assert found == list(spans(T, k1, k2))
    assert_close("dx", dx, want.input, rel=TOLERANCE["float64"])
    for name, g in want.parameters.items():
        assert_close(name, total[name], g, rel=TOLERANCE["float64"])


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 11), (3, 8), (6, 2)])
def test_updates_between_windows_equal_torch(k1: int, k2: int, rng: np.random.Generator) -> None:
    """With k2 > k1 a window starts from a state k1 steps into the one before, as that one computed it."""
    case = Case("lstm", num_layers=2, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    x, state, d_output, _ = draw(layer, rng, B, T)
    module = case.module(layer, np.float64)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    ours = srnn.optim.SGD(layer.parameters, lr=0.05)
    at, held = 0, tuple(torch.tensor(s) for s in state)  # the state before step `at`
    plan = list(spans(T, k1, k2))
    got = windows(layer, x, d_output, k1=k1, k2=k2, state=state)
    for n, (start, first, stop) in enumerate(plan):
        window = next(got)
        with torch.no_grad():
            if start > at:
                _, held = module(torch.tensor(x[at:start]), held)
            following = min(plan[n + 1][0], stop) if n + 1 < len(plan) else stop
            carry = module(torch.tensor(x[start:following]), held)[1] if following > start else held
        output, _ = module(torch.tensor(x[start:stop]), held)
        optimizer.zero_grad()
        (output[first - start :] * torch.tensor(d_output[first:stop])).sum().backward()
        for name, parameter in module.named_parameters():
            want = parameter.grad.numpy()
            assert_close(name, window.gradients.parameters[name], want, rel=TOLERANCE["trajectory"])
        for name, mine, theirs in zip("hc", window.carry, carry, strict=True):
            assert_close(f"{name} at {following}", mine, theirs.numpy(), rel=TOLERANCE["trajectory"])
        at, held = following, carry
        optimizer.step()
        ours.step(window.gradients.parameters)
    assert next(got, None) is None


@pytest.mark.parametrize(("k1", "k2"), [(4, 4), (4, 11), (1, 3), (6, 2), (4, 100)])
def test_going_on_from_a_window_has_the_same_bits(k1: int, k2: int, rng: np.random.Generator) -> None:
    """Stop after any window; `begin` and `carry` are all that it takes to go on."""
    layer = make("lstm", rng, num_layers=2)
    x, _, d_output, _ = draw(layer, rng, B, T)
    reset = rng.random((T, B)) < 0.1
    initial = tuple(rng.standard_normal((2, 6)).astype(np.float32) for _ in range(2))
    keywords = {"k1": k1, "k2": k2, "reset": reset, "initial": initial}
    whole = list(windows(layer, x, d_output, **keywords))
    for n, last in enumerate(whole[:-1]):
        rest = list(windows(layer, x, d_output, state=last.carry, begin=last.first - last.first % k1 + k1, **keywords))
        assert [w.stop for w in rest] == [w.stop for w in whole[n + 1 :]]
        for got, want in zip(rest, whole[n + 1 :], strict=True):
            same_gradients(got.gradients, want.gradients)
            same("initial", got.gradients.initial, want.gradients.initial)
            same("state", got.state, want.state)


def test_functions_of_time(rng: np.random.Generator) -> None:
    """x and d_output as functions: asked in order, for each window's own steps, with the weights of now."""
    layer = make("lstm", rng, batch_first=True, dtype=np.float64)
    x, state, d_output, _ = draw(layer, rng, B, T)
    asked: list[tuple[int, int]] = []

    def read(start: int, stop: int) -> np.ndarray:
        asked.append((start, stop))
        return x[:, start:stop]

    def slope(output: np.ndarray, first: int) -> np.ndarray:
        d = np.sin(output) * d_output[:, first : first + output.shape[1]]
        output[...] = np.nan  # the caller's own
        return d

    got = list(windows(layer, read, slope, k1=5, k2=9, steps=T, state=state))
    assert asked == [(start, stop) for start, _, stop in spans(T, 5, 9)]
    for window in got:
        output = window.trace.output
        assert np.isfinite(output).all()
        d = np.zeros_like(output)
        new = slice(window.first - window.start, None)
        d[:, new] = np.sin(output[:, new]) * d_output[:, window.first : window.stop]
        inner = layer.backward(window.trace.trace, d)
        same("weight", window.gradients.parameters["weight_hh_l0"], inner.parameters["weight_hh_l0"])
    asked.clear()
    list(windows(layer, read, None, k1=5, k2=3, steps=12, state=state))
    assert asked == [(0, 2), (2, 5), (5, 7), (7, 10)]

    calls: list[int] = []

    def once(output: np.ndarray, first: int) -> np.ndarray:
        calls.append(first)
        return slope(output, first)

    summed = truncated(layer, x, once, k1=5, k2=9, state=state)
    assert calls == [0, 5, 10, 15, 20]
    for name, g in summed.parameters.items():
        assert_close(name, g, sum(w.gradients.parameters[name] for w in got), rel=TOLERANCE["float64"])


@pytest.mark.parametrize("cell", CELLS)
def test_per_step_gradients_give_the_parameters(cell: str, rng: np.random.Generator) -> None:
    """dL/dW_hh is the sum over time of dL/da_t ⊗ h_{t-1}, truncated or not; and no flow crosses a window's start."""
    layer = make(cell, rng, num_layers=2, dtype=np.float64)
    x, state, d_output, _ = draw(layer, rng, B, T)
    trace = layer.forward(x, state)
    for k1, k2 in ((4, 4), (4, 9)):
        got = truncated(layer, x, d_output, k1=k1, k2=k2, state=state)
        for n in range(2):
            want = np.einsum("tbg,tbh->gh", got[n].a, trace[n].h[:-1])
            assert_close(f"weight_hh_l{n}", got.parameters[f"weight_hh_l{n}"], want, rel=TOLERANCE["float64"])
            states = got.state if isinstance(got.state, tuple) else (got.state,)
            same("state", states[0][n], got[n].h[0])
    cut = truncated(layer, x, d_output, k1=4, k2=4, state=state)
    same("the last state before a cut", cut[1].h[4], d_output[3])


@pytest.mark.parametrize("batch", [None, B])
@pytest.mark.parametrize("batch_first", [False, True])
def test_layouts(batch: int | None, batch_first: bool, rng: np.random.Generator) -> None:
    layer = make("projected", rng, num_layers=2, batch_first=batch_first, dtype=np.float64)
    x, state, d_output, d_state = draw(layer, rng, batch, T)
    plain = make("projected", rng, num_layers=2, dtype=np.float64)
    plain.load_state_dict(layer.state_dict())

    def major(a: np.ndarray) -> np.ndarray:
        return a[:, None] if batch is None else a.transpose(1, 0, 2) if batch_first else a

    wide = tuple(s[:, None] if batch is None else s for s in state)
    d_wide = tuple(s[:, None] if batch is None else s for s in d_state)
    want = truncated(plain, major(x).copy(), major(d_output).copy(), k1=4, k2=9, state=wide, d_state=d_wide)
    got = truncated(layer, x, d_output, k1=4, k2=9, state=state, d_state=d_state)
    same("dx", np.ascontiguousarray(major(got.input)), want.input)
    for mine, theirs in zip(got.state, want.state, strict=True):
        same("state", mine[:, None] if batch is None else mine, theirs)
    mine = list(windows(layer, x, d_output, k1=4, k2=9, state=state))
    theirs = list(windows(plain, major(x).copy(), major(d_output).copy(), k1=4, k2=9, state=wide))
    for one, two in zip(mine, theirs, strict=True):
        same("dx", np.ascontiguousarray(major(one.gradients.input)), two.gradients.input)
        same("weight", one.gradients.parameters["weight_hr_l1"], two.gradients.parameters["weight_hr_l1"])
        for a, b in zip(one.carry, two.carry, strict=True):
            same("carry", a[:, None] if batch is None else a, b)


def test_lengths_and_final_states(rng: np.random.Generator) -> None:
    """Ends inside windows, at their edges, before them: d_state goes to the window of each sequence's last step."""
    case = Case("lstm", num_layers=2, sizes=(T, B, 3, 6))
    layer = case.layer(rng, np.float64)
    module = case.module(layer, np.float64)
    x, state, d_output, d_state = draw(layer, rng, B, T)
    lengths = np.array([T, 4, 5, 1, 12])
    got = named(truncated(layer, x, d_output, k1=4, k2=7, state=state, d_state=d_state, lengths=lengths))
    total = {name: np.zeros_like(g) for name, g in got.items()}
    for b, n in enumerate(lengths):
        one = slice(b, b + 1)
        plan = [(start, first, min(stop, n)) for start, first, stop in spans(T, 4, 7) if first < n]
        alone = by_torch(
            module, x[:n, one], tuple(s[:, one] for s in state), d_output[:n, one], tuple(s[:, one] for s in d_state),
            plan,
        )  # fmt: skip
        for name, g in alone.items():
            into = total[name]
            part = (slice(n), one) if name == "dx" else (slice(None), one) if name in ("dh_0", "dc_0") else ...
            into[part] += g
    for name, want in total.items():
        assert_close(name, got[name], want, rel=TOLERANCE["float64"])


def test_dropout_between_layers_uses_one_mask(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(3, 6, 2, dropout=0.5, dtype=np.float64, rng=rng)
    x, state, d_output, _ = draw(layer, rng, B, T)
    layer.rng = np.random.default_rng(1)
    want = srnn.bptt.full(layer, x, d_output, state=state)
    layer.rng = np.random.default_rng(1)
    same_gradients(truncated(layer, x, d_output, k1=4, k2=T, state=state), want)
    layer.rng = np.random.default_rng(1)
    cut = truncated(layer, x, d_output, k1=4, k2=T - 1, state=state)
    assert_close("dx", cut.input[-4:], want.input[-4:], rel=TOLERANCE["float64"])


def test_no_window_is_there_while_the_next_is_made(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng, B, T)
    made: list[weakref.ref[Any]] = []
    alive: list[bool] = []

    def read(start: int, stop: int) -> np.ndarray:
        alive.extend(one() is not None for one in made)
        return x[start:stop]

    through = windows(layer, read, d_output, k1=4, k2=9, steps=T)
    for _ in range(4):
        window = next(through)
        made += weakref.ref(window.trace), weakref.ref(window.gradients)
        del window
    assert len(alive) == 2 + 4 + 6
    assert not any(alive)


def test_old_windows_are_not_kept(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng, B, T)
    last: weakref.ref[Any] | None = None
    for window in windows(layer, x, d_output, k1=4, k2=9):
        assert last is None or last() is None
        last = weakref.ref(window.trace.trace.layers[0, "forward"])
        del window


@pytest.mark.parametrize("cell", CELLS)
def test_no_window_has_a_loss(cell: str, rng: np.random.Generator) -> None:
    layer = make(cell, rng, num_layers=2)
    x, state, d_output, d_state = draw(layer, rng, B, 3)
    assert list(windows(layer, x, d_output, k1=5, k2=2)) == []
    grads = truncated(layer, x, d_output, k1=5, k2=2, state=state, d_state=d_state)
    want = srnn.bptt.full(layer, x, d_output, state)
    arrays = [(grads.input, want.input), *((grads.parameters[name], w) for name, w in want.parameters.items())]
    arrays += list(zip(*(s if isinstance(s, tuple) else (s,) for s in (grads.state, want.state)), strict=True))
    arrays += [(grads[n].h, want[n].h) for n in range(2)]
    for got, like in arrays:
        assert (got.shape, got.dtype) == (like.shape, like.dtype)
        assert like.any()
        assert not got.any()
    bias = truncation_bias(layer, x, d_output, k1=5, k2=(2,))
    assert np.isnan(bias.cosine).all()
    assert (bias.norm_ratio == 0).all()


def test_nothing_is_drawn_where_k1_is_wrong(rng: np.random.Generator) -> None:
    layer = make("lstm", rng, num_layers=2, dropout=0.5)
    x, _, d_output, _ = draw(layer, rng, B, T)
    before = layer.rng.bit_generator.state
    for run in (truncated, truncation_bias):
        with pytest.raises(ValueError, match="k1: expected an integer of at least 1; got 0"):
            run(layer, x, d_output, k1=0, k2=[3] if run is truncation_bias else 3)
    assert layer.rng.bit_generator.state == before


@pytest.mark.parametrize("run", [truncated, lambda *a, **k: next(windows(*a, **k))], ids=["truncated", "windows"])
def test_what_is_refused(run: Any, rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, state, d_output, _ = draw(layer, rng, B, T)
    with pytest.raises(ValueError, match="k1: expected an integer of at least 1; got 0"):
        run(layer, x, d_output, k1=0, k2=3)
    with pytest.raises(TypeError, match="k2: expected an integer"):
        run(layer, x, d_output, k1=3, k2=3.0)
    with pytest.raises(TypeError, match="layer: expected an RNN or LSTM"):
        run(srnn.Linear(3, 4), x, d_output, k1=3, k2=3)
    with pytest.raises(ValueError, match=r"layer: expected one direction.*bidirectional=True"):
        run(srnn.LSTM(3, 6, bidirectional=True), x, d_output, k1=3, k2=3)
    with pytest.raises(ValueError, match="d_output: expected"):
        run(layer, x, d_output[:-1], k1=3, k2=3)
    with pytest.raises(ValueError, match="d_output: expected shape"):
        run(layer, x, lambda output, first: output[1:], k1=3, k2=3)
    with pytest.raises(ValueError, match="h_0: expected shape"):
        run(layer, x, d_output, k1=3, k2=3, state=(state[0][:, 1:], state[1]))


def test_what_windows_refuse(rng: np.random.Generator) -> None:
    layer = make("lstm", rng)
    x, _, d_output, _ = draw(layer, rng, B, T)
    with pytest.raises(ValueError, match="steps: expected the number of time steps, since x is a function"):
        windows(layer, lambda start, stop: x[start:stop], d_output, k1=3, k2=3)
    with pytest.raises(ValueError, match=f"steps: expected None or the {T} of x; got 4"):
        windows(layer, x, d_output, k1=3, k2=3, steps=4)
    with pytest.raises(ValueError, match=r"begin: expected a multiple of k1=3 up to steps=23.*got 4"):
        windows(layer, x, d_output, k1=3, k2=3, begin=4)
    with pytest.raises(ValueError, match="h_0: expected shape"):
        windows(layer, x, d_output, k1=3, k2=3, initial=(np.zeros((1, 7), np.float32),) * 2)
    with pytest.raises(ValueError, match="reset: expected"):
        windows(layer, x, d_output, k1=3, k2=3, reset=np.zeros((T + 1, B), bool))
    with pytest.raises(TypeError, match="steps: expected an integer"):
        windows(layer, x, d_output, k1=3, k2=3, steps=float(T))  # type: ignore[arg-type]
    for more in (-1, 1):
        wrong = windows(layer, lambda start, stop, more=more: x[start : stop + more], k1=3, k2=3, steps=T)
        with pytest.raises(ValueError, match=rf"x: expected 3 time steps of x\(0, 3\); got {3 + more} in shape"):
            next(wrong)
    with pytest.raises(TypeError, match="reset: expected a NumPy array; got function"):
        windows(layer, x, d_output, k1=3, k2=3, reset=lambda start, stop: None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="x: expected a NumPy array"):
        windows(layer, x.tolist(), d_output, k1=3, k2=3)
    with pytest.raises(TypeError, match="k2: expected a sequence"):
        truncation_bias(layer, x, d_output, k2=3)  # type: ignore[arg-type]
