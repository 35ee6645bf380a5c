"""Lyapunov spectra, and the largest exponent against the gain of random nets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, describe
from scratchrnn.gradflow.lyapunov import LyapunovSpectrum, mean_field_exponent
from scratchrnn.plots._style import FAINT, INK, MUTED, check_curves, colors_of, frame, style
from scratchrnn.plots._text import HALO, Name, name_ends


@style()
def lyapunov_spectrum(
    ax: Axes, spectra: Mapping[str, LyapunovSpectrum], *, colors: Sequence[str] | None = None
) -> None:
    """Draw Lyapunov exponents in falling order, each against its rank as a share of all directions.

    Above the line at 0 changes grow, below it they fade. A dot marks the Kaplan-Yorke dimension D of a net that has one
    above 0, and stands beside its name. Directions that died have no place on the axis: a curve ends before them, and
    its name says how many.

    Parameters
    ----------
    ax : matplotlib Axes
    spectra : mapping of label to LyapunovSpectrum
    colors : sequence of str, optional
        One for each entry.

    Raises
    ------
    ValueError, TypeError
        No entries, one that is something else, or one without a finite exponent.
    """
    check_curves("spectra", spectra)
    ends: list[Name] = []
    for (label, spectrum), color in zip(spectra.items(), colors_of(spectra, colors), strict=True):
        if not isinstance(spectrum, LyapunovSpectrum):
            raise TypeError(f"spectra[{label!r}]: expected what lyapunov_spectrum() returned; got {describe(spectrum)}")
        alive = spectrum.exponents[np.isfinite(spectrum.exponents)]
        if not len(alive):
            raise ValueError(f"spectra[{label!r}]: expected at least one finite exponent; got none")
        share = (np.arange(len(alive)) + 0.5) / spectrum.size
        ax.plot(share, alive, color=color, marker="o" if len(alive) < 20 else "", markersize=4)
        name = label
        if (dimension := spectrum.kaplan_yorke_dimension) > 0:
            at = dimension / spectrum.size
            ax.plot(at, np.interp(at, share, alive), "o", color=color, markersize=7, zorder=3)
            name += f", D = {dimension:.1f}"
        if dead := len(spectrum.exponents) - len(alive):
            name += f", {dead} dead"
        ends.append((float(share[-1]), float(alive[-1]), name, color))
    frame(ax)
    ax.axhline(0, color=FAINT, linewidth=1, zorder=1)
    # a spectrum that is not computed to its end leaves the rest of the axis away
    ax.set_xlim(
        0,
        max(
            (len(one.exponents) + 0.5) / one.size if len(one.exponents) < one.size else 1.0 for one in spectra.values()
        ),
    )
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    ax.set_xlabel("Directions of the state, fastest growing first")
    ax.set_ylabel("Lyapunov exponent\n(nats per step)")
    name_ends(ax, ends)


@style()
def largest_exponent(ax: Axes, gains: FloatArray, exponents: Mapping[str, FloatArray]) -> None:
    """Draw the largest Lyapunov exponent of random tanh nets against their gain g, with the mean-field curve.

    Parameters
    ----------
    ax : matplotlib Axes
    gains : ndarray (N,)
        g > 0, W_hh having entries from N(0, g²/H).
    exponents : mapping of label to ndarray (N,)
        λ_1 at each gain, such as those of nets of one size. One that is not finite leaves a gap.

    Raises
    ------
    ValueError, TypeError
        No entries, an array of another shape, or a gain that is not above 0.
    """
    check_array("gains", gains)
    if gains.ndim != 1 or len(gains) < 2 or not (np.isfinite(gains) & (gains > 0)).all():
        raise ValueError(f"gains: expected shape (N,) with at least two values above 0; got {gains}")
    check_curves("exponents", exponents)
    order = np.argsort(gains)
    fine = np.linspace(float(gains.min()), float(gains.max()), 100)
    theory = np.array([mean_field_exponent(g) for g in fine])
    ax.axhline(0, color=FAINT, linewidth=1, zorder=1)
    ax.plot(fine, theory, color=INK, linewidth=1.5, zorder=2)
    ends: list[Name] = [(float(fine[-1]), float(theory[-1]), "mean field", INK)]
    for (label, values), color in zip(exponents.items(), colors_of(exponents), strict=True):
        check_array(f"exponents[{label!r}]", values, shape=gains.shape, why="one for each gain")
        shown = np.where(np.isfinite(values), values, np.nan)[order]
        if np.isnan(shown).all():
            raise ValueError(f"exponents[{label!r}]: expected at least one finite value; got none")
        ax.plot(gains[order], shown, "o", color=color, markersize=6, zorder=3, clip_on=False)
        last = int(np.flatnonzero(~np.isnan(shown))[-1])
        ends.append((float(gains[order][last]), float(shown[last]), label, color))
    frame(ax)
    ax.margins(x=0.02)
    for side, text in ((1, "chaos: changes grow"), (-1, "changes fade")):
        ax.annotate(
            text, (1, 0), (-4, 4 * side), xycoords=ax.get_yaxis_transform(), textcoords="offset points", color=MUTED,
            ha="right", va="bottom" if side > 0 else "top", path_effects=HALO,
        )  # fmt: skip
    ax.set_xlabel("Gain g of the recurrent weights, N(0, g²/H)")
    ax.set_ylabel("Largest Lyapunov exponent\n(nats per step)")
    name_ends(ax, ends)
