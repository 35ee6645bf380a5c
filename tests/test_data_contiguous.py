from __future__ import annotations

import inspect
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scratchrnn.data import ContiguousRows, Vocabulary, join_documents
from scratchrnn.data.contiguous import IGNORED
from scratchrnn.losses import cross_entropy

SIZES = st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(0, 11))  # batch, steps of a window, items more


def read_back(rows: ContiguousRows, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs, targets and reset of all windows put together again."""
    windows = list(rows.windows(steps))
    inputs, targets, reset = zip(*((w.inputs, w.targets, w.reset) for w in windows), strict=True)
    return np.concatenate(inputs), np.concatenate(targets), np.concatenate(reset)


# --- windows continue one another


@given(SIZES)
def test_row_b_goes_on_where_row_b_stopped(sizes: tuple[int, int, int]) -> None:
    batch, steps, more = sizes
    codes = np.arange(100, 100 + batch + 1 + more)
    rows = ContiguousRows(codes, batch=batch)
    windows = list(rows.windows(steps))
    for before, after in pairwise(windows):  # fails for rows in another order, keras#1820
        assert (after.inputs[0] == before.inputs[-1] + 1).all()
        assert (after.inputs[0] == before.targets[-1]).all()
    assert [w.start for w in windows] == list(range(0, rows.steps, steps))
    assert [len(w.inputs) for w in windows[:-1]] == [steps] * (len(windows) - 1)
    assert 1 <= len(windows[-1].inputs) <= steps


@given(SIZES)
def test_every_item_is_read_and_predicted_once_or_counted_as_dropped(sizes: tuple[int, int, int]) -> None:
    batch, steps, more = sizes
    codes = np.arange(100, 100 + batch + 1 + more)
    rows = ContiguousRows(codes, batch=batch)
    inputs, targets, reset = read_back(rows, steps)
    used = len(codes) - rows.dropped
    # rows one after another: the last step of a row predicts the first item of the next row
    assert inputs.T.ravel().tolist() == codes[: used - 1].tolist()
    assert targets.T.ravel().tolist() == codes[1:used].tolist()
    assert 0 <= rows.dropped < batch
    assert inputs.shape == targets.shape == reset.shape == (rows.steps, rows.batch)
    assert not reset.any()


@given(SIZES)
def test_given_targets_stand_beside_their_inputs(sizes: tuple[int, int, int]) -> None:
    batch, steps, more = sizes
    count = batch + more
    series = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    wanted = -np.arange(count * 2, dtype=np.float32).reshape(count, 2)
    rows = ContiguousRows(series, wanted, batch=batch)
    inputs, targets, _ = read_back(rows, steps)
    assert rows.steps == count // batch
    assert inputs.shape == (rows.steps, batch, 3)
    assert targets.shape == (rows.steps, batch, 2)
    used = count - rows.dropped  # the last item is read too: its target is known
    assert (inputs.swapaxes(0, 1).reshape(-1, 3) == series[:used]).all()
    assert (targets.swapaxes(0, 1).reshape(-1, 2) == wanted[:used]).all()
    assert 0 <= rows.dropped < batch


def test_known_layout() -> None:
    rows = ContiguousRows(np.array([7, 3, 5, 1, 4, 2, 8, 6]), batch=2)
    assert rows.inputs.tolist() == [[7, 1], [3, 4], [5, 2]]
    assert rows.targets.tolist() == [[3, 4], [5, 2], [1, 8]]
    assert (rows.batch, rows.steps, rows.dropped) == (2, 3, 1)
    assert repr(rows) == "ContiguousRows(batch=2, steps=3, dropped=1)"


# --- documents


def by_hand(count: int, batch: int, starts: set[int]) -> tuple[list[list[int]], list[list[bool]]]:
    """Targets and reset, one step at a time, for codes 0, 1, ..., N - 1."""
    steps = (count - 1) // batch
    targets, reset = [], []
    for t in range(steps):
        items = [b * steps + t for b in range(batch)]
        targets.append([-100 if item + 1 in starts else item + 1 for item in items])
        reset.append([item in starts or item == 0 for item in items])
    return targets, reset


@given(SIZES, st.data())
def test_documents(sizes: tuple[int, int, int], data: st.DataObject) -> None:
    batch, steps, more = sizes
    count = batch + 1 + more
    starts = data.draw(st.sets(st.integers(0, count - 1)))
    rows = ContiguousRows(np.arange(count), batch=batch, documents=sorted(starts))
    inputs, targets, reset = read_back(rows, steps)
    assert (inputs == ContiguousRows(np.arange(count), batch=batch).inputs).all()
    assert (targets.tolist(), reset.tolist()) == by_hand(count, batch, starts)


def test_documents_at_the_edges_of_rows() -> None:
    #       rows 0..3, 4..7 of nine codes; documents 0..2, 3 (one item, at a row's end), 4..6, 7 (a row's end), 8
    rows = ContiguousRows(np.arange(9), batch=2, documents=np.array([3, 4, 7, 8]))
    assert rows.reset.T.astype(int).tolist() == [[1, 0, 0, 1], [1, 0, 0, 1]]
    assert rows.targets.T.tolist() == [[1, 2, -100, -100], [5, 6, -100, -100]]


def test_documents_of_one_item_each() -> None:
    rows = ContiguousRows(np.arange(7), batch=3, documents=range(7))
    assert rows.reset.all()
    assert (rows.targets == IGNORED).all()


def test_the_first_item_begins_a_document_named_or_not() -> None:
    first, second, third = (ContiguousRows(np.arange(7), batch=2, documents=given) for given in ([], [0], (0,)))
    for rows in (first, second, third):
        assert rows.reset.T.astype(int).tolist() == [[1, 0, 0], [0, 0, 0]]
        assert (rows.targets == rows.inputs + 1).all()


def test_documents_leave_given_targets_alone() -> None:
    tags = np.array([2, 0, 1, 1, 0, 2])
    rows = ContiguousRows(np.arange(6), tags, batch=2, documents=[2, 3])
    assert rows.targets.T.ravel().tolist() == tags.tolist()
    assert rows.reset.T.astype(int).tolist() == [[1, 0, 1], [1, 0, 0]]


def test_ignored_is_what_the_loss_ignores() -> None:
    assert inspect.signature(cross_entropy).parameters["ignore_index"].default == IGNORED


# --- arrays


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64])
def test_dtypes_of_codes(dtype: Any) -> None:
    codes = np.array([200, 1, 2, 3, 4, 5, 6], dtype)
    plain = ContiguousRows(codes, batch=2)
    assert (plain.inputs.dtype, plain.targets.dtype) == (codes.dtype, codes.dtype)
    parted = ContiguousRows(codes, batch=2, documents=[0, 2])
    assert (parted.inputs.dtype, parted.targets.dtype) == (codes.dtype, np.int64)
    assert parted.targets.T.tolist() == [[1, -100, 3], [4, 5, 6]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_real_values_keep_dtype_and_nan(dtype: Any) -> None:
    series = np.array([[1.0], [np.nan], [np.inf], [4.0]], dtype)
    rows = ContiguousRows(series, series.copy(), batch=2)
    np.testing.assert_array_equal(rows.inputs[:, :, 0].T, [[1, np.nan], [np.inf, 4]])
    assert rows.inputs.dtype == rows.targets.dtype == dtype


@pytest.mark.parametrize("batch", [1, 3])
def test_windows_are_time_major_in_c_order_and_without_copies(batch: int, rng: np.random.Generator) -> None:
    wide = rng.normal(size=(20, 4))[:, ::2]  # strided, and unmodified afterwards
    before = wide.copy()
    rows = ContiguousRows(wide, wide[::-1], batch=batch)
    for window in rows.windows(4):
        for whole, part in ((rows.inputs, window.inputs), (rows.targets, window.targets), (rows.reset, window.reset)):
            assert whole.flags.c_contiguous
            assert part.flags.carray
            assert np.shares_memory(whole, part)
    assert (wide == before).all()
    rows.inputs[:] = 0
    assert (wide == before).all()


@pytest.mark.parametrize(("count", "batch"), [(12, 1), (12, 11), (12, 3)], ids=["one row", "one step", "both more"])
def test_rows_are_the_readers_own(count: int, batch: int) -> None:
    codes, series = np.arange(count), np.arange(2.0 * count).reshape(count, 2)
    series.flags.writeable = False
    rows, real = ContiguousRows(codes, batch=batch), ContiguousRows(series, series, batch=batch)
    for array in (rows.inputs, rows.targets, real.inputs, real.targets):
        assert array.flags.carray
        assert not any(np.shares_memory(array, given) for given in (codes, series))
    assert not np.shares_memory(rows.inputs, rows.targets)


def test_one_step_and_more_steps_than_there_are() -> None:
    rows = ContiguousRows(np.arange(4), batch=3)  # just enough: one step
    (window,) = rows.windows(5)
    assert (window.inputs.tolist(), window.targets.tolist(), window.start) == ([[0, 1, 2]], [[1, 2, 3]], 0)
    (window,) = ContiguousRows(np.arange(2), batch=1).windows(1)
    assert (window.inputs.tolist(), window.targets.tolist()) == ([[0]], [[1]])


# --- refusals


CODES, FLOATS = np.arange(6), np.zeros((6, 2), np.float32)


@pytest.mark.parametrize(
    ("inputs", "targets", "batch", "error", "message"),
    [
        (CODES, None, 6, ValueError, "inputs: expected at least one item for each of 6 rows and one after them"),
        (CODES[:1], None, 1, ValueError, "each of 1 rows and one after them to predict; got 1"),
        (CODES[:0], None, 1, ValueError, "each of 1 rows and one after them to predict; got 0"),
        (FLOATS, FLOATS, 7, ValueError, "inputs: expected at least one item for each of 7 rows; got 6"),
        (CODES, None, 0, ValueError, "batch: expected an integer of at least 1; got 0"),
        (CODES, None, 2.0, TypeError, "batch: expected an integer of at least 1; got float 2.0"),
        ([1, 2], None, 1, TypeError, "inputs: expected an array of codes (N,) or real-valued items (N, ·); got list"),
        (CODES > 2, None, 1, TypeError, "inputs: expected an array of codes"),
        (np.ma.array([1, 2, 3]), None, 1, TypeError, "inputs: expected an array of codes"),
        (CODES.reshape(3, 2), None, 1, ValueError, "inputs: expected shape (N,) for codes; got (3, 2)"),
        (FLOATS[:, 0], FLOATS, 1, ValueError, "inputs: expected shape (N, ·) for real-valued items; got (6,)"),
        (FLOATS.astype(np.float16), FLOATS, 1, TypeError, "inputs: expected dtype float32 or float64; got float16"),
        (FLOATS, None, 1, TypeError, "targets: expected an array for real-valued inputs; got None"),
        (FLOATS, FLOATS[:5], 1, ValueError, "targets: expected one for each of 6 inputs; got 5"),
        (FLOATS, FLOATS.astype(float), 1, TypeError, "targets: expected dtype float32; got float64"),
        (FLOATS, FLOATS[:, 0], 1, ValueError, "targets: expected shape (N, ·) for real-valued items; got (6,)"),
    ],
)
def test_rows_refuse(inputs: Any, targets: Any, batch: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        ContiguousRows(inputs, targets, batch=batch)
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ([0, 6], ValueError, "documents: expected offsets from 0 to 5; got 6 at position 1"),
        ([-1, 2], ValueError, "documents: expected offsets from 0 to 5; got -1 at position 0"),
        ([0, 3, 3], ValueError, "documents: expected strictly increasing offsets; got 3 after 3 at position 2"),
        (np.array([4, 2], np.uint8), ValueError, "documents: expected strictly increasing offsets; got 2 after 4"),
        ([0.0, 2.0], TypeError, "documents: expected integers, where documents begin; got list [0.0, 2.0]"),
        ([True, False], TypeError, "documents: expected integers"),
        (np.array([True, False]), TypeError, "documents: expected integers"),
        ([[0], [2]], TypeError, "documents: expected integers"),
        ([[0], [2, 3]], TypeError, "documents: expected integers"),
        ([0, True], TypeError, "documents: expected integers"),
        (np.ma.array([0, 2]), TypeError, "documents: expected integers"),
        (np.array([[0, 2]]), TypeError, "documents: expected integers"),
        (3, TypeError, "documents: expected integers, where documents begin; got int 3"),
        ("02", TypeError, "documents: expected integers, where documents begin; got str '02'"),
    ],
)
def test_documents_are_refused(documents: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        ContiguousRows(np.arange(6), batch=2, documents=documents)
    assert message in str(raised.value)


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_windows_refuse_at_the_call(steps: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="steps: expected an integer of at least 1"):
        ContiguousRows(np.arange(6), batch=2).windows(steps)


# --- from documents to rows


@given(st.lists(st.text(min_size=1), min_size=1))
def test_join_documents(documents: list[str]) -> None:
    text, starts = join_documents(documents)
    assert (starts.dtype, starts[0], len(starts)) == (np.int64, 0, len(documents))
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], None], strict=True)] == documents


def test_from_documents_to_rows() -> None:
    text, starts = join_documents(["abc", "d", "bca"])
    vocabulary = Vocabulary(text)
    rows = ContiguousRows(vocabulary.encode(text), batch=1, documents=starts)
    assert vocabulary.decode(rows.inputs[:, 0]) == "abcdbc"
    assert rows.targets[:, 0].tolist() == [1, 2, -100, -100, 2, 0]
    assert rows.reset[:, 0].astype(int).tolist() == [1, 0, 0, 1, 1, 0]


@pytest.mark.parametrize(
    ("documents", "error", "message"),
    [
        ("abc", TypeError, "documents: expected a sequence of strings; got str 'abc'"),
        (7, TypeError, "documents: expected a sequence of strings; got int 7"),
        ([], ValueError, "documents: expected at least one; got none"),
        (["a", b"b"], TypeError, r"documents[1]: expected a string; got bytes b'b'"),
        (["a", ""], ValueError, "documents[1]: expected at least one character; got an empty string"),
    ],
)
def test_join_documents_refuses(documents: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        join_documents(documents)
    assert message in str(raised.value)
