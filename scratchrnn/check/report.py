"""What a comparison found: frozen records, no measuring and no printing in colour."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

from scratchrnn import testing


@dataclass(frozen=True)
class Row:
    """One quantity.

    Attributes
    ----------
    quantity : str
        As in `scratchrnn.check.torch_truth`: output, h_n, c_l0, f_l1_reverse, dx, dc_l0, dweight_hh_l0; with a prime
        where the layer was called for inference. dc is dL/dc.
    ours : float
        Our error against float64 truth, `scratchrnn.testing.difference(...).ratio`.
    torch : float or None
        torch's own error in float32; None in float64, where torch is the truth.
    amplified : float or None
        How far rounding every weight and input once moves the true value, in units of eps(float32); measured only if
        something in the report exceeds its first bound.
    allowed : float
        Bound on `ours`.
    loop : float or None
        How far torch's cell loop lies from torch.nn, in float64; None for what torch.nn keeps to itself.
    index : tuple of int
        Of the worst element.
    where : str
        The same in words.
    got, want : float
        Our value and the true one, there.
    problem : str
        What is wrong besides the error: a shape, a dtype, something on padding. Empty if nothing is.
    """

    quantity: str
    ours: float
    torch: float | None
    amplified: float | None
    allowed: float
    loop: float | None
    index: tuple[int, ...]
    where: str
    got: float
    want: float
    problem: str = ""

    @classmethod
    def failed(cls, quantity: str, problem: str, index: tuple[int, ...] = ()) -> Row:
        """A quantity that could not be compared, or that breaks a rule besides its error."""
        return cls(quantity, math.inf, None, None, 0.0, None, index, "", math.nan, math.nan, problem)

    @property
    def oracle_ok(self) -> bool:
        """Whether torch agrees with itself."""
        return self.loop is None or self.loop <= testing.TOLERANCE["float64"]

    @property
    def ok(self) -> bool:
        """Whether ours matches, and the oracle holds."""
        return not self.problem and self.ours <= self.allowed and self.oracle_ok

    @property
    def used(self) -> float:
        """Our error as a share of what is allowed."""
        return self.ours / self.allowed if self.allowed and not math.isnan(self.ours) else math.inf

    def __str__(self) -> str:
        if self.problem:
            return f"{self.quantity}: {self.problem}"
        text = f"{self.quantity}: error {self.ours:.2g}, allowed {self.allowed:.2g}"
        if self.torch is not None:
            text += f" (torch {self.torch:.2g})"
        text += f", worst at {self.where}: got {self.got!r}, want {self.want!r}"
        return text if self.oracle_ok else f"{text}; torch.nn and the torch cell loop differ by {self.loop:.2g}"


@dataclass(frozen=True)
class CheckReport:
    """A comparison of one layer with torch.

    Attributes
    ----------
    layer : str
        Its configuration.
    dtype, backend, sizes : str
    rows : tuple of Row
        Every quantity; `report["dc_l0"]` is one of them.
    """

    layer: str
    dtype: str
    backend: str
    sizes: str
    rows: tuple[Row, ...]

    @property
    def ok(self) -> bool:
        """Whether everything matches."""
        return bool(self.rows) and all(row.ok for row in self.rows)

    @property
    def failures(self) -> tuple[Row, ...]:
        """The rows that do not match."""
        return tuple(row for row in self.rows if not row.ok)

    @property
    def worst(self) -> Row:
        """The row nearest to its bound, or furthest beyond."""
        return max(self.rows, key=lambda row: (not row.ok, row.used))

    def __getitem__(self, quantity: str) -> Row:
        for row in self.rows:
            if row.quantity == quantity:
                return row
        raise KeyError(f"no quantity {quantity!r}; there is {', '.join(row.quantity for row in self.rows)}")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as what JSON can hold: an error that is no finite number becomes None."""
        rows = [{k: _plain(v) for k, v in asdict(row).items()} | {"ok": row.ok} for row in self.rows]
        head = {"layer": self.layer, "dtype": self.dtype, "backend": self.backend, "sizes": self.sizes}
        return head | {"ok": self.ok, "rows": rows}

    def __str__(self) -> str:
        lines = [f"{self.layer}, {self.sizes}, backend {self.backend}"]
        if self.ok:
            return f"{lines[0]}: {len(self.rows)} quantities match torch; nearest to its bound is {self.worst}"
        lines[0] += f": {len(self.failures)} of {len(self.rows)} quantities do not match torch"
        return "\n  ".join([*lines, *map(str, self.failures)])


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value
