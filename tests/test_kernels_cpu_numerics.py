"""tanh, sigmoid and the packed product of the compiled kernels, by themselves: every class of float, every odd size."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numba
import numpy as np
import pytest

from scratchrnn.kernels.cpu import activations, affine, gemm
from scratchrnn.kernels.cpu.jit import OPTIONS
from scratchrnn.kernels.cpu.machine import UNIT

ULP = 2  # of distance to the correctly rounded value
FUNCTIONS = ["tanh", "sigmoid"]
DTYPES = [np.float32, np.float64]
BITS: dict[Any, Any] = {np.float32: np.uint32, np.float64: np.uint64}
MANTISSA = {np.float32: 23, np.float64: 52}
EXPONENTS = {np.float32: 256, np.float64: 2048}
# where something changes: n of exp2, 1 - tanh below a rounding, the least normal and least denormal exp(x)
SEAMS = {
    np.float32: (0.1733, 0.3466, 0.5199, 0.55, 1.0, 9.01, 10.0, 16.6, 17.33, 87.34, 88.0, 88.73, 103.28, 103.97, 104.0),
    np.float64: (0.1733, 0.3466, 0.5199, 0.55, 1.0, 19.06, 20.0, 36.74, 37.43, 708.4, 709.78, 745.13, 746.0),
}
LN2 = float(np.log(2.0))


@numba.njit(**OPTIONS)
def all_tanh(x, out):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        out[j] = activations.tanh(x[j])


@numba.njit(**OPTIONS)
def all_sigmoid(x, out):  # type: ignore[no-untyped-def]
    for j in range(x.size):
        out[j] = activations.sigmoid(x[j])


COMPILED = {"tanh": all_tanh, "sigmoid": all_sigmoid}


def ours(name: str, x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    COMPILED[name](x, out)
    return out


def truth(name: str, x: np.ndarray, wide: Any) -> np.ndarray:
    """The value, computed in `wide`."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):  # invalid: a signalling nan is cast
        y = x.astype(wide)
        return np.tanh(y) if name == "tanh" else 1 / (1 + np.exp(-y))


def order(x: np.ndarray) -> np.ndarray:
    """Integers that count floats from zero: neighbours differ by 1, and the two zeros are one."""
    signed: Any = x.view(np.int32 if x.dtype == np.float32 else np.int64)
    return np.where(signed < 0, np.iinfo(signed.dtype).min - signed, signed)


def check(name: str, x: np.ndarray, wide: Any) -> None:
    """Our function at x: nan where x is, else within ULP floats of the rounded truth, and within its range."""
    got, exact = ours(name, x), truth(name, x, wide)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        want = exact.astype(x.dtype)
    nan = np.isnan(x)
    assert np.isnan(got[nan]).all(), f"{name} lost a nan"
    finite = np.isfinite(got) | nan
    assert finite.all(), f"{name}({x[~finite][0]!r}) = {got[~finite][0]!r}"
    away = np.where(nan, 0, np.abs(order(got) - order(want)))
    worst = int(np.argmax(away))
    assert away[worst] <= ULP, f"{name}({x[worst]!r}) = {got[worst]!r}, {away[worst]} floats from {want[worst]!r}"
    least = -1 if name == "tanh" else 0
    out = (got < least) | (got > 1)
    assert not out.any(), f"{name}({x[out][0]!r}) = {got[out][0]!r} is out of range"
    if name == "tanh":
        turned = np.signbit(got) != np.signbit(x)
        assert not (turned & ~nan).any(), f"tanh({x[turned][0]!r}) has the wrong sign"


def every_exponent(dtype: Any, mantissas: int, rng: np.random.Generator) -> np.ndarray:
    """Both signs, all exponents (zero, denormal, infinite, nan) times mantissas: random, first, last, single bits."""
    bits, places = BITS[dtype], MANTISSA[dtype]
    edges = [0, 1, 2, 3, *((1 << p) for p in range(2, places)), *((1 << places) - n for n in (1, 2, 3))]
    fraction = np.concatenate([np.array(edges, bits), rng.integers(0, 1 << places, mantissas, dtype=bits)])
    exponent = np.arange(EXPONENTS[dtype], dtype=bits) << bits(places)
    positive = (exponent[:, None] | fraction).reshape(-1)
    return np.concatenate([positive, positive | bits(1 << (8 * bits().itemsize - 1))]).view(dtype)


def around(dtype: Any, places: tuple[float, ...], each: int) -> np.ndarray:
    """`each` neighbouring floats around each place and its negative."""
    near = np.arange(-each // 2, each // 2)
    at = (np.array([place], dtype).view(BITS[dtype]).astype(np.int64) + near for place in places)
    positive = np.concatenate(list(at)).astype(BITS[dtype]).view(dtype)
    return np.concatenate([positive, -positive])


def dense(dtype: Any, count: int, rng: np.random.Generator) -> np.ndarray:
    """Values where networks live, and as far as the result still changes."""
    # the third and fourth: where tanh changes from one form to the other, and rounds most
    spans = [(-0.2, 0.2), (-2, 2), (-0.28, -0.17), (0.17, 0.28), (-12, 12), (-24, 24), (-110, 110), (-750, 750)]
    return np.concatenate([rng.uniform(low, high, count).astype(dtype) for low, high in spans])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_over_every_class_of_bit_patterns(name: str, rng: np.random.Generator) -> None:
    check(name, every_exponent(np.float32, 2000, rng), np.float64)
    halves = tuple(k * LN2 / 4 for k in range(1, 64, 2))  # where n of either function changes
    check(name, around(np.float32, SEAMS[np.float32] + halves, 8192), np.float64)
    check(name, dense(np.float32, 100_000, rng), np.float64)
    few = np.arange(1 << 17, dtype=np.uint32)  # zero and the first denormals
    check(name, np.concatenate([few, few | np.uint32(1 << 31)]).view(np.float32), np.float64)


@pytest.mark.skipif(np.finfo(np.longdouble).nmant < 63, reason="long double has no more bits than double here")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float64_over_every_class_of_bit_patterns(name: str, rng: np.random.Generator) -> None:
    check(name, every_exponent(np.float64, 60, rng), np.longdouble)
    halves = tuple(k * LN2 / 4 for k in range(1, 64, 2))
    check(name, around(np.float64, SEAMS[np.float64] + halves, 2048), np.longdouble)
    check(name, dense(np.float64, 50_000, rng), np.longdouble)


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_all_float32_numbers(name: str) -> None:
    step = 1 << 22
    for start in range(0, 1 << 32, step):
        check(name, np.arange(start, start + step, dtype=np.uint64).astype(np.uint32).view(np.float32), np.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values(dtype: Any) -> None:
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, -np.nan], dtype)
    t, s = ours("tanh", x), ours("sigmoid", x)
    assert np.array_equal(t, np.array([0, 0, 1, -1, np.nan, np.nan], dtype), equal_nan=True)
    assert np.signbit(t[:2]).tolist() == [False, True]
    assert np.array_equal(s, np.array([0.5, 0.5, 1, 0, np.nan, np.nan], dtype), equal_nan=True)
    tiny = np.array([np.finfo(dtype).smallest_subnormal, np.finfo(dtype).smallest_normal], dtype)
    assert np.array_equal(ours("tanh", tiny), tiny)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_number_does_not_depend_on_its_place_in_a_vector(name: str, dtype: Any, rng: np.random.Generator) -> None:
    x = dense(dtype, 40, rng)
    whole = ours(name, x)
    for start, size in itertools.product(range(20), (1, 2, 3, 7, 16, 33)):
        assert np.array_equal(ours(name, x[start : start + size]), whole[start : start + size])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_almost_monotone_over_neighbouring_floats(name: str, dtype: Any) -> None:
    seams = SEAMS[dtype] + tuple(k * LN2 / 4 for k in range(1, 64, 2))
    for seam in seams:
        x = np.sort(around(dtype, (seam,), 4096))
        got = order(ours(name, x))
        fall = int((np.maximum.accumulate(got) - got).max())
        assert fall <= 1, f"{name} falls by {fall} floats near ±{seam}"


# --- the product


@pytest.fixture(params=DTYPES, ids=lambda dtype: dtype.__name__)
def dtype(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[False, True], ids=["right", "both"])
def packed(request: pytest.FixtureRequest) -> bool:
    """Whether the left factor is packed, too: by `pack_left`."""
    return bool(request.param)


class Problem:
    """C += A·B inside larger memory: guards around C, nan around A, strides of its own for each."""

    GUARD = -0.0  # adding a padded column's zero would turn it to +0

    def __init__(self, rng: np.random.Generator, dtype: Any, rows: int, n: int, k: int, packed: bool) -> None:
        self.rows, self.n, self.k = rows, n, k
        self.packed = packed  # A too, as in a weight gradient: stored as (k, rows)
        self.a, self.b, self.c = (rng.standard_normal(s).astype(dtype) for s in ((rows, k), (k, n), (rows, n)))
        self.gap = [int(g) for g in rng.integers(0, 5, 4)]
        self.lanes = UNIT.lanes(self.a.itemsize)

    def right(self) -> np.ndarray:
        """B, packed from a larger array with nan around it."""
        before, pad = self.gap[2:]
        source = self.b if self.packed else self.b.T
        w = np.full((len(source), before + source.shape[1] + pad), np.nan, source.dtype)
        w[:, before : before + source.shape[1]] = source
        stride, out = w.shape[1], np.full(gemm.packed_size(self.n, self.k, w.dtype), np.nan, w.dtype)
        if self.packed:
            gemm.pack_columns(w.reshape(-1), before, stride, self.n, self.k, self.lanes, out)
        else:
            gemm.pack_rows(w.reshape(-1), before, stride, self.n, 0, self.n, self.k, self.lanes, out)
        assert np.isfinite(out).all(), "padding of a panel is not written"
        return out

    def memory(self) -> tuple[np.ndarray, int, int, np.ndarray, int, int]:
        """c, c_at, c_row, a, a_at, and the stride of a's rows, or of its columns if it is to be packed."""
        dtype, (c_at, c_pad, a_at, pad) = self.a.dtype, self.gap
        c_row = self.n + c_pad
        c = np.full(c_at + self.rows * c_row + 64, self.GUARD, dtype)
        c[c_at + np.arange(self.rows)[:, None] * c_row + np.arange(self.n)] = self.c
        stride = (self.rows if self.packed else self.k) + pad
        a_row, a_column = (1, stride) if self.packed else (stride, 1)
        a = np.full(a_at + self.rows * self.k + (self.rows + self.k) * pad + 64, np.nan, dtype)
        a[a_at + np.arange(self.rows)[:, None] * a_row + np.arange(self.k) * a_column] = self.a
        return c, c_at, c_row, a, a_at, stride

    def compute(self, cuts: Iterator[tuple[int, int]] | None = None) -> np.ndarray:
        """The whole memory of C after the product, made at once or in `cuts` of its rows."""
        c, c_at, c_row, a, a_at, stride = self.memory()
        b, edge, before = self.right(), gemm.scratch(self.a.dtype), a.copy()
        for first, last in cuts or [(0, self.rows)]:
            at, rows = c_at + first * c_row, last - first
            if self.packed:
                left = np.full(rows * self.k, np.nan, a.dtype)
                gemm.pack_left(a, a_at + first, stride, rows, self.k, left)
                gemm.product(c, at, c_row, left, 0, gemm.PACKED, b, self.n, self.k, self.lanes, rows, edge)
            else:
                a_0 = a_at + first * stride
                gemm.product(c, at, c_row, a, a_0, stride, b, self.n, self.k, self.lanes, rows, edge)
        assert np.array_equal(a, before, equal_nan=True)
        return c

    def inside(self, c: np.ndarray) -> np.ndarray:
        at, row = self.gap[0], self.n + self.gap[1]
        return c[at + np.arange(self.rows)[:, None] * row + np.arange(self.n)]

    def check(self) -> None:
        whole = self.compute()
        got = self.inside(whole)
        wide = np.float64 if self.a.dtype == np.float32 else np.longdouble
        arrays: Any = [array.astype(wide) for array in (self.a, self.b, self.c)]
        a, b, c = arrays
        # what rounding may do to such a sum in any order
        bound = (self.k + 2) * np.finfo(self.a.dtype).eps / 2 * (abs(c) + abs(a) @ abs(b))
        wrong = ~(abs(got - (c + a @ b)) <= bound)
        assert not wrong.any(), f"rows {self.rows}, n {self.n}, k {self.k}: wrong at {np.argwhere(wrong)[:5].tolist()}"
        guards = (whole == 0) & np.signbit(whole)
        assert guards.sum() == whole.size - got.size, "written outside of the columns"


def test_every_number_of_rows_and_columns(dtype: Any, packed: bool, rng: np.random.Generator) -> None:
    for rows, n in itertools.product(range(1, 71, 4), range(1, 71)):
        Problem(rng, dtype, rows, n, int(rng.integers(1, 71)), packed).check()
    for rows, k in itertools.product(range(1, 71), range(1, 71, 4)):
        Problem(rng, dtype, rows, int(rng.integers(1, 71)), k, packed).check()


def test_long_sums_and_wide_panels(dtype: Any, packed: bool, rng: np.random.Generator) -> None:
    block = gemm.BLOCK
    for k, n in itertools.product((block - 1, block, block + 1, 3 * block + 5), (1, 31, 64, 65, 200, 513)):
        Problem(rng, dtype, int(rng.integers(1, 20)), n, k, packed).check()


def test_no_rows_and_no_terms_leave_everything(dtype: Any, packed: bool, rng: np.random.Generator) -> None:
    for rows, k in ((0, 5),) if packed else ((0, 5), (3, 0)):  # a packed block has terms
        p = Problem(rng, dtype, rows, 7, k, packed)
        assert np.array_equal(p.compute(), p.memory()[0])


def cut(rows: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    places = [0, *sorted(set(rng.integers(1, rows + 1, 4).tolist()) - {rows}), rows]
    return itertools.pairwise(places)


def test_a_result_does_not_depend_on_the_rows_beside_it(dtype: Any, packed: bool, rng: np.random.Generator) -> None:
    groupings: list[Callable[[int], Iterator[tuple[int, int]]]] = [
        lambda rows: itertools.pairwise(range(rows + 1)),  # one at a time
        lambda rows: cut(rows, rng),
        lambda rows: cut(rows, rng),
    ]
    for rows, (n, k) in itertools.product((2, 5, 6, 7, 12, 13, 29), ((5, 9), (64, 131), (100, 300))):
        p = Problem(rng, dtype, rows, n, k, packed)
        whole = p.compute()
        for grouping in groupings:
            assert np.array_equal(p.compute(grouping(rows)), whole), f"rows {rows}, n {n}, k {k}"


def test_a_result_does_not_depend_on_the_columns_beside_it(dtype: Any, packed: bool, rng: np.random.Generator) -> None:
    for rows, n, k in ((6, 67, 33), (5, 130, 140)):
        p = Problem(rng, dtype, rows, n, k, packed)
        whole = p.inside(p.compute())
        for first in (0, 1, 15, n - 1):
            part = Problem(rng, dtype, rows, n - first, k, packed)
            part.a, part.b, part.c = p.a, p.b[:, first:], p.c[:, first:]
            assert np.array_equal(part.inside(part.compute()), whole[:, first:])


# --- packing


def unpack(packed: np.ndarray, n: int, k: int, lanes: int) -> np.ndarray:
    """B again, from panels [panel][k][columns]; what stands in the padding is zero."""
    panels, at = [], 0
    for p in range(0, n, gemm.VECTORS * lanes):
        width = min(gemm.VECTORS, -(-(n - p) // lanes)) * lanes
        panels.append(packed[at : at + k * width].reshape(k, width))
        at += k * width
    assert at == packed.size
    whole = np.concatenate(panels, axis=1)
    assert not whole[:, n:].any()
    return whole[:, :n]


def test_rows_of_several_groups_are_packed_side_by_side(dtype: Any, rng: np.random.Generator) -> None:
    """A range of units of every gate, as threads that share a step pack them."""
    lanes = UNIT.lanes(np.dtype(dtype).itemsize)
    for groups, hidden, k in itertools.product((1, 4), (1, 5, 37, 101), (1, lanes - 1, lanes, lanes + 1, 50)):
        w = rng.standard_normal((groups, hidden, k)).astype(dtype)
        for unit, units in ((0, hidden), (hidden // 2, hidden - hidden // 2), (hidden - 1, 1), (hidden // 3, 1)):
            out = np.full(gemm.packed_size(groups * units, k, np.dtype(dtype)) + 5, np.nan, dtype)
            gemm.pack_rows(w.reshape(-1), unit * k, k, units, hidden * k, groups * units, k, lanes, out)
            assert np.isnan(out[-5:]).all(), "written beyond the end"
            want = w[:, unit : unit + units].reshape(groups * units, k).T
            assert np.array_equal(unpack(out[:-5], groups * units, k, lanes), want)


def test_a_row_of_a_packed_block_is_zeroed_alone(dtype: Any, rng: np.random.Generator) -> None:
    lanes, k = UNIT.lanes(np.dtype(dtype).itemsize), 7
    for n in (1, lanes, gemm.VECTORS * lanes + 1, 3 * gemm.VECTORS * lanes + lanes):
        b = rng.standard_normal((k, n)).astype(dtype)
        for row in range(k):
            out = np.full(gemm.packed_size(n, k, np.dtype(dtype)), np.nan, dtype)
            gemm.pack_columns(b.reshape(-1), 0, n, n, k, lanes, out)
            gemm.pack_zeros(out, row, n, k, lanes)
            want = b.copy()
            want[row] = 0
            assert np.array_equal(unpack(out, n, k, lanes), want)


def test_left_factor_and_its_sums(dtype: Any, rng: np.random.Generator) -> None:
    """Tiles of rows, and each row summed in float64 onto what was there, first to last."""
    strips = (1, gemm.STRIP - 1, gemm.STRIP, gemm.STRIP + 1, 128)
    for rows, k in itertools.product((*range(1, 3 * gemm.ROWS + 2), 100), strips):
        at, stride = 3, rows + 4
        w = np.full(at + k * stride + 32, np.nan, dtype)
        a = rng.standard_normal((k, rows)).astype(dtype)
        w[at + np.arange(k)[:, None] * stride + np.arange(rows)] = a
        left, before = np.full(rows * k + 32, np.nan, dtype), rng.standard_normal(rows)
        sums = np.concatenate([before, [np.nan]])
        affine.add_rows(w, at, stride, rows, k, sums)
        gemm.pack_left(w, at, stride, rows, k, left)
        assert np.isnan(left[rows * k :]).all(), "written beyond the end"
        assert np.isnan(sums[-1])
        for r in range(0, rows, gemm.ROWS):
            tile = left[r * k : min(r + gemm.ROWS, rows) * k].reshape(k, -1)
            assert np.array_equal(tile, a[:, r : r + gemm.ROWS])
        want = before
        for row in a.astype(np.float64):
            want = want + row
        assert np.array_equal(sums[:-1], want)
