"""scikit-learn is an extra: its images are stood in for, and read where it is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from scratchrnn.data import digits

ROOT = Path(__file__).resolve().parents[1]
PIXELS = np.random.default_rng(0).integers(0, 17, (1797, 64)).astype(np.float64)
LABELS = np.arange(1797) % 10


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets: Any = ModuleType("sklearn.datasets")

    def load_digits(*, return_X_y: bool) -> tuple[np.ndarray, np.ndarray]:
        assert return_X_y
        return PIXELS.copy(), LABELS.copy()

    datasets.load_digits = load_digits
    monkeypatch.setitem(sys.modules, "sklearn", ModuleType("sklearn"))
    monkeypatch.setitem(sys.modules, "sklearn.datasets", datasets)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("part", "begin", "count"), [("train", 0, 1437), ("test", 1437, 360)])
def test_rows_and_pixels(part: Any, begin: int, count: int, dtype: Any) -> None:
    by_row, labels = digits(part, dtype=dtype)
    by_pixel, same = digits(part, "pixels", dtype=dtype)
    assert (by_row.shape, by_pixel.shape) == ((8, count, 8), (64, count, 1))
    assert by_row.dtype == by_pixel.dtype == dtype
    assert by_row.flags.c_contiguous
    assert by_pixel.flags.c_contiguous
    assert labels.dtype == np.int64
    assert labels.tolist() == same.tolist() == LABELS[begin : begin + count].tolist()
    for n in (0, 1, count - 1):
        image = PIXELS[begin + n]  # row by row
        for t in range(64):
            assert by_pixel[t, n, 0] == by_row[t // 8, n, t % 8] == image[t] / 16
    assert (by_row.min(), by_row.max()) == (0, 1)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("validation",), ValueError, "part: expected 'train' or 'test'; got 'validation'"),
        (("train", "columns"), ValueError, "reading: expected 'rows' or 'pixels'; got 'columns'"),
        ((1,), ValueError, "part: expected 'train' or 'test'; got 1"),
    ],
)
def test_digits_refuse(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as raised:
        digits(*arguments)
    assert str(raised.value) == message


@pytest.mark.usefixtures("stand_in")
def test_digits_refuse_a_dtype() -> None:
    with pytest.raises(TypeError, match="dtype: expected float32 or float64; got float16"):
        digits(dtype=np.float16)


@pytest.mark.parametrize("missing", ["sklearn", "sklearn.datasets"])
def test_without_scikit_learn_the_extra_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        ImportError, match=r"^scikit-learn, .* cannot be imported .* pip install 'scratchrnn\[digits\]'$"
    ):
        digits()


def test_data_imports_without_scikit_learn() -> None:
    program = "import sys; sys.modules['sklearn'] = None; import scratchrnn.data, scratchrnn.data.digit_images"
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=120)


def test_real_digits() -> None:
    parts = [digits("train"), digits("test")]
    assert [inputs.shape for inputs, _ in parts] == [(8, 1437, 8), (8, 360, 8)]
    for inputs, targets in parts:
        assert (inputs.min(), inputs.max()) == (0, 1)
        assert (inputs * 16 == np.round(inputs * 16)).all()
        assert set(targets) == set(range(10))
