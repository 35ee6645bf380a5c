"""The compiled tangents against the definition's: every array, in every shape, with any number of threads."""

from __future__ import annotations

import importlib
import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.kernels.cpu import affine, affine_tangent, lstm_tangent_loops, plan, rnn_tangent_loops, threads
from scratchrnn.kernels.cpu.jit import Kernel
from scratchrnn.kernels.cpu.machine import UNIT
from scratchrnn.testing import TOLERANCE, assert_close

CELLS = ("tanh", "relu", "lstm", "projected")
COUNTS = (2, 3, 7)
T, B, I, H, P = 9, 5, 6, 4 * 16 + 5, 11  # units of float32 for several threads with the widest vectors
LENGTHS = (9, 0, 4, 1, 8)
RELATIVE = {np.float32: 1e-5, np.float64: TOLERANCE["float64"]}
Arrays = dict[str, np.ndarray]
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64], ids=["float32", "float64"])
cells = pytest.mark.parametrize("cell", CELLS)
ragged = pytest.mark.parametrize("lengths", [None, LENGTHS], ids=["whole", "lengths"])


def module(cell: str, backend: str) -> Any:
    folder = {"numba": "cpu", "numpy": "numpy"}[backend]
    kind = "lstm" if cell in ("lstm", "projected") else "rnn"
    return importlib.import_module(f"scratchrnn.kernels.{folder}.{kind}_tangent")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = srnn.get_num_threads()
    srnn.set_num_threads(1)
    yield
    srnn.set_num_threads(before)


class Problem:
    """What the ordinary passes leave, tangents for it, and what the tangents' kernels make of both."""

    def __init__(
        self, cell: str, dtype: Any, rng: np.random.Generator, lengths: Sequence[int] | np.ndarray | None = None,
        sizes: tuple[int, int, int, int] = (T, B, I, H), projection: int = P,
    ) -> None:  # fmt: skip
        self.cell, self.dtype, (steps, batch, inputs, hidden) = cell, np.dtype(dtype), sizes
        self.lengths = np.full(batch, steps) if lengths is None else np.array(lengths)
        self.lstm, projected = cell in ("lstm", "projected"), cell == "projected"
        size, rows = projection if projected else hidden, 4 * hidden if self.lstm else hidden
        shapes: dict[str, tuple[int, ...]] = {
            "x": (steps, batch, inputs), "weight_ih": (rows, inputs), "weight_hh": (rows, size), "bias_ih": (rows,),
            "bias_hh": (rows,), "h_0": (batch, size), "dh": (steps + 1, batch, size),
        }  # fmt: skip
        shapes |= {"c_0": (batch, hidden), "dc": (steps + 1, batch, hidden)} if self.lstm else {}
        shapes |= {"weight_hr": (size, hidden)} if projected else {}
        self.beyond = np.arange(steps + 1)[:, None] > self.lengths

        def normal() -> Arrays:
            # recurrent weights that do not make a chaos, where roundings would grow
            found = {name: (rng.standard_normal(shape) / 3).astype(dtype) for name, shape in shapes.items()}
            found["weight_hh"] /= dtype(max(1, size)) ** 0.5
            found["x"][self.beyond[1:]] = 0
            for name in {"dh", "dc"} & found.keys():
                found[name][self.beyond] = 0
            return found

        self.at, self.along = normal(), normal()
        self.before = {name: normal()[name] for name in found_sums(shapes)}  # the sums that are added to
        self.left = self.ordinary()

    def ordinary(self) -> Arrays:
        """What forward and backward of the definition leave."""
        kernels, at, w = backends.load("numpy"), self.at, self.weights(self.at)
        rows, (steps, batch, _) = len(at["bias_ih"]), at["x"].shape
        a, da, dx = (np.empty((steps, batch, n), self.dtype) for n in (rows, rows, at["x"].shape[2]))
        states = {name: np.empty_like(at[f"d{name}"]) for name in ("h", "c")[: 1 + self.lstm]}
        for name, array in states.items():
            array[0] = at[f"{name}_0"]
        totals = {f"d{name}": at[f"d{name}"].copy() for name in states}
        sums = [np.zeros_like(w[name]) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        of: Any = kernels.lstm if self.lstm else kernels.rnn
        last = w["weight_hr"] if self.lstm else self.cell
        gates = [a] if self.lstm else []
        how = (math.inf, None) if self.lstm else (math.inf,)
        d_hr = [None if last is None else np.zeros_like(last)] if self.lstm else []
        of.forward(at["x"], *list(w.values())[:4], last, self.lengths, *states.values(), *gates)
        of.backward(
            at["x"], w["weight_ih"], w["weight_hh"], last, self.lengths, *states.values(), *gates, *how,
            *totals.values(), da, dx, *sums, *d_hr,
        )  # fmt: skip
        return states | totals | {"da": da} | ({"gates": a} if self.lstm else {})

    def weights(self, of: Arrays) -> dict[str, Any]:
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", *(("weight_hr",) if self.lstm else ()))
        return {name: of.get(name) for name in names}

    def arguments(self) -> tuple[dict[str, Any], dict[str, Any], Arrays]:
        """By name: what forward takes, what backward takes, and everything that they write."""
        of, along, left = self.weights(self.at), self.along, self.left
        dots = {f"{name}_dot": array for name, array in self.weights(along).items()}
        (steps, batch, inputs), rows = self.at["x"].shape, len(self.at["bias_ih"])
        out = {f"{name}_dot": np.empty_like(left[name]) for name in ("h", "c")[: 1 + self.lstm]}
        for name in ("h", "c")[: 1 + self.lstm]:
            out[f"{name}_dot"][0] = along[f"{name}_0"]
        out["a_dot"] = np.empty((steps, batch, rows), self.dtype)
        out |= {f"{name}_dot": along[name].copy() for name in ("dh", "dc")[: 1 + self.lstm]}
        out |= {"da_dot": np.empty_like(out["a_dot"]), "dx_dot": np.empty((steps, batch, inputs), self.dtype)}
        out |= {f"d{name}_dot": array.copy() for name, array in self.before.items()}
        given = {"x": self.at["x"], "x_dot": along["x"], "lengths": self.lengths, "nonlinearity": self.cell}
        everything: dict[str, Any] = {"dweight_hr_dot": None} | given | of | dots | left | out
        functions = module(self.cell, "numpy")
        forward, backward = (
            {name: everything[name] for name in inspect.signature(function).parameters}
            for function in (functions.forward, functions.backward)
        )
        return forward, backward, out

    def everything(self, backend: str = "numba") -> Arrays:
        """All that the two passes write."""
        forward, backward, out = self.arguments()
        kernels = module(self.cell, backend)
        kernels.forward(*forward.values())
        kernels.backward(*backward.values())
        return out


def found_sums(shapes: dict[str, Any]) -> list[str]:
    return [name for name in shapes if name.startswith(("weight", "bias"))]


def assert_same(got: Arrays, want: Arrays, when: str) -> None:
    assert got.keys() == want.keys()
    wrong = [name for name in want if got[name].tobytes() != want[name].tobytes()]
    assert not wrong, f"{when}: other bits in {', '.join(wrong)}"


def check(p: Problem) -> None:
    """Against the definition in float64, and exact zeros beyond every end."""
    got, want = p.everything(), p.everything("numpy")
    for name, value in want.items():
        assert_close(name, got[name], value, rel=RELATIVE[p.dtype.type])
    for name in {"h_dot", "c_dot", "dh_dot", "dc_dot"} & got.keys():
        assert not got[name][p.beyond].any(), name
    for name in ("a_dot", "da_dot", "dx_dot"):
        assert not got[name][p.beyond[1:]].any(), name


# --- values


def test_signatures_are_the_definitions() -> None:
    for cell, function in (("lstm", "forward"), ("lstm", "backward"), ("tanh", "forward"), ("tanh", "backward")):
        ours, theirs = (inspect.signature(getattr(module(cell, of), function)) for of in ("numba", "numpy"))
        assert list(ours.parameters.items()) == list(theirs.parameters.items())


@dtypes
@ragged
@cells
def test_values_are_those_of_the_definition(cell: str, lengths: Any, dtype: Any, rng: np.random.Generator) -> None:
    check(Problem(cell, dtype, rng, lengths))


def torch_loss(cell: str, lengths: np.ndarray, at: dict[str, Any], v: dict[str, Any]) -> Any:
    """Σ <v, state> over the steps that run: what `dh` and `dc` are the cotangents of, in torch's operations."""
    import torch

    loss = torch.zeros((), dtype=torch.float64)
    for b, n in enumerate(lengths):
        h, c = at["h_0"][b], at["c_0"][b] if "c_0" in at else None
        for t in range(n + 1):
            loss = loss + h @ v["dh"][t, b] + (0 if c is None else c @ v["dc"][t, b])
            if t == n:
                break
            a = at["weight_ih"] @ at["x"][t, b] + at["weight_hh"] @ h + at["bias_ih"] + at["bias_hh"]
            if c is None:
                h = torch.tanh(a) if cell == "tanh" else torch.relu(a)
            else:
                i, f, g, o = a.chunk(4)
                c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
                h = torch.sigmoid(o) * torch.tanh(c)
                h = at["weight_hr"] @ h if cell == "projected" else h
    return loss


@ragged
@cells
def test_torch_differentiates_twice(cell: str, lengths: Any, rng: np.random.Generator) -> None:
    """The loss is linear in v, its Hessian symmetric: so ∇L's tangent is the gradient of <∇L(v), u> + L(v_dot)."""
    import torch

    p = Problem(cell, np.float64, rng, lengths, (T, B, 3, 7), 4)
    p.before = {name: np.zeros_like(array) for name, array in p.before.items()}
    at, u = ({name: torch.tensor(array) for name, array in of.items()} for of in (p.at, p.along))
    v, v_dot = ({name: of.pop(name) for name in ("dh", "dc")[: 1 + p.lstm]} for of in (at, u))
    inputs = [tensor.requires_grad_() for tensor in at.values()]
    gradient = torch.autograd.grad(torch_loss(cell, p.lengths, at, v), inputs, create_graph=True)
    along_u = sum((g * u[name]).sum() for name, g in zip(at, gradient, strict=True))
    want = torch.autograd.grad(along_u + torch_loss(cell, p.lengths, at, v_dot), inputs)
    got = p.everything()
    got |= {"dh_0_dot": got["dh_dot"][0]} | ({"dc_0_dot": got["dc_dot"][0]} if p.lstm else {})
    for name, value in zip(at, want, strict=True):
        assert_close(name, got[f"d{name}_dot"], value.numpy(), rel=TOLERANCE["float64"])


SIZES = {  # T, B, I, H: of one, of a vector and one more, of several blocks of time and of sums over the gates
    "one": (1, 1, 1, 1), "one sample": (7, 1, 3, 33), "one step": (1, 13, 5, 17), "no inputs": (4, 3, 0, 9),
    "long": (150, 2, 2, 5), "wide": (3, 2, 150, 70), "many samples": (3, 131, 2, 3), "one unit": (5, 4, 3, 1),
}  # fmt: skip


@dtypes
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@cells
def test_odd_sizes(cell: str, sizes: Any, dtype: Any, rng: np.random.Generator) -> None:
    steps, batch, _, hidden = sizes
    for lengths in (None, rng.integers(0, steps + 1, batch), np.zeros(batch, int)):
        for projection in {1, hidden, hidden + 2} if cell == "projected" else {0}:
            check(Problem(cell, dtype, rng, lengths, sizes, projection))


@pytest.mark.parametrize("sizes", [(0, 3, 2, 5), (4, 0, 2, 5), (0, 0, 2, 5)], ids=["no steps", "no samples", "neither"])
@cells
def test_nothing_to_do(cell: str, sizes: Any, rng: np.random.Generator) -> None:
    p = Problem(cell, np.float32, rng, None, sizes)
    got = p.everything()
    assert_same(got, p.everything("numpy"), "nothing to do")
    for name, array in p.before.items():
        assert got[f"d{name}_dot"].tobytes() == array.tobytes()


@cells
def test_sums_are_added_to(cell: str, rng: np.random.Generator) -> None:
    p = Problem(cell, np.float64, rng, LENGTHS)
    added = p.everything()
    before, p.before = p.before, {name: np.zeros_like(array) for name, array in p.before.items()}
    for name, array in p.everything().items():
        if name.removeprefix("d").removesuffix("_dot") in before:
            assert array.any()
            array += before[name.removeprefix("d").removesuffix("_dot")]
        assert_close(name, added[name], array, rel=TOLERANCE["float64"])


def test_relu_at_its_kink(rng: np.random.Generator) -> None:
    p = Problem("relu", np.float64, rng)
    for of in (p.at, p.along):
        of["weight_hh"][...] = 0
    for name in ("x", "bias_ih", "bias_hh"):
        p.at[name][...] = 0  # so a is 0 everywhere
    p.left = p.ordinary()
    got = p.everything()
    assert got["a_dot"].any()
    assert not got["h_dot"][1:].any()
    assert not got["da_dot"].any()


# --- numbers that are not finite


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@pytest.mark.parametrize("name", ["x", "weight_ih", "weight_hh", "bias_hh", "h_0"])
@cells
def test_what_is_not_finite_passes_in_silence(cell: str, name: str, bad: float, rng: np.random.Generator) -> None:
    p = Problem(cell, np.float64, rng, LENGTHS)
    index = (0,) * p.along[name].ndim
    p.along[name][index] = bad
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = p.everything()
    with np.errstate(all="ignore"):
        want = p.everything("numpy")
    for quantity in ("a_dot", "h_dot", "dh_dot", "da_dot", "dx_dot"):
        assert np.array_equal(np.isfinite(got[quantity]), np.isfinite(want[quantity])), quantity
    assert not np.isfinite(got["a_dot"]).all()
    assert not got["h_dot"][p.beyond].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf], ids=str)
@cells
def test_a_last_state_that_is_not_finite_stays_its_own(cell: str, bad: float, rng: np.random.Generator) -> None:
    """Nothing reads the last state of a sequence: neither what is beyond its end, nor the sums."""
    p = Problem(cell, np.float64, rng, LENGTHS)
    want = p.everything()
    end = p.lengths[2], 2
    assert 0 < end[0] < T
    if p.lstm:  # the RNN's slope is a function of h_t
        p.left["h"][end] = bad
    forward, backward, got = p.arguments()
    kernels = module(cell, "numba")
    kernels.forward(*forward.values())
    assert_same({"h_dot": got["h_dot"]}, {"h_dot": want["h_dot"]}, "forward")
    got["h_dot"][end] = bad
    kernels.backward(*backward.values())
    got["h_dot"][end] = want["h_dot"][end]
    assert_same(got, want, "backward")


# --- what is only read, and threads


@cells
def test_inputs_may_be_read_only_and_are_not_written(cell: str, rng: np.random.Generator) -> None:
    p = Problem(cell, np.float32, rng, LENGTHS)
    want = p.everything()
    given = [*p.at.values(), *p.along.values(), *p.left.values()]
    kept = [array.copy() for array in given]
    for array in given:
        array.setflags(write=False)
    assert_same(p.everything(), want, "read-only")
    assert all(a.tobytes() == b.tobytes() for a, b in zip(given, kept, strict=True))


class Together:
    """Stands in for threads.run_together: how many parts each call had, and whether they ran."""

    def __init__(self, refuse: bool = False) -> None:
        self.calls: list[tuple[int, bool]] = []
        self.refuse = refuse
        self._run = threads.run_together

    def __call__(self, task: Callable[..., Any], calls: Sequence[Any], call_off: Callable[[], None]) -> bool:
        done = not self.refuse and self._run(task, calls, call_off)
        self.calls.append((len(calls), done))
        return done


@dtypes
@ragged
@pytest.mark.parametrize("share", ["samples", "units", "no threads for units"])
@cells
def test_bits_of_one_thread(
    cell: str, share: str, lengths: Any, dtype: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    p = Problem(cell, dtype, rng, lengths)
    want = p.everything()
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(plan, "LEAST_STEP", 1)
    monkeypatch.setattr(plan, "FEW_SAMPLES", 0 if share == "samples" else 1000)
    together = Together(refuse=share == "no threads for units")
    monkeypatch.setattr(threads, "run_together", together)
    for count in COUNTS:
        srnn.set_num_threads(count)
        together.calls.clear()
        assert_same(p.everything(), want, f"{count} threads")
        parts = min(count, -(-H // UNIT.lanes(p.dtype.itemsize)))
        by_units = share != "samples" and cell != "projected"  # whose h_t needs all units
        assert together.calls == ([(parts, not together.refuse)] * 2 if by_units else [])


@dtypes
@cells
def test_types_depend_on_the_dtype_alone(
    cell: str, dtype: Any, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a call compiles in the middle of a program."""
    monkeypatch.setattr(plan, "LEAST_WORK", 1)
    monkeypatch.setattr(plan, "LEAST_STEP", 1)
    p = Problem(cell, dtype, rng, LENGTHS)
    for writeable in (True, False):
        for array in (*p.at.values(), *p.along.values(), *p.left.values()):
            array.setflags(write=writeable)
        for count in (1, 3):
            srnn.set_num_threads(count)
            p.everything()
    modules = (affine, affine_tangent, lstm_tangent_loops, rnn_tangent_loops)
    kernels = [k for found in modules for k in vars(found).values() if isinstance(k, Kernel) and k._dtypes]
    assert len(kernels) > 5
    for kernel in kernels:
        assert len(kernel.dispatcher().signatures) == len(kernel._dtypes), kernel.__name__
