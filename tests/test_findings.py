"""The sentences of the report: computed from the numbers, right in each case, and English in each."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from scratchrnn.gradflow import GradientFlow, SingularValues
from scratchrnn.report import sections
from scratchrnn.report.sections import (
    cells,
    diagnosis,
    flow,
    itemized,
    jacobians,
    learning,
    lyapunov,
    paths,
    position,
    words,
)  # fmt: skip
from scratchrnn.study import Results, run
from tests.test_study import SETTINGS, TEXT
from tests.told import both, having, only, unmeasured, untrained

INF, NAN = float("inf"), float("nan")
OURS = (flow, lyapunov, jacobians, position, paths, itemized, cells, words, diagnosis)
OF_LSTM = (paths, cells)


@pytest.fixture(scope="module")
def whole() -> Results:
    return run(TEXT, replace(SETTINGS, backend="numpy", steps=3))


# --- what all of them say


@pytest.mark.parametrize("module", OURS)
def test_without_a_measurement_nothing_is_claimed(whole: Results, module: Any) -> None:
    nothing, half = unmeasured(whole, "rnn", "lstm"), unmeasured(whole, "lstm")
    if module is flow:
        assert [module.finding(results) for results in (nothing, half)] == ["No update was made."] * 2
        return
    assert module.finding(nothing) == "No measurement was reached."
    only_one = "Only the untrained RNN was measured: there is nothing to compare it with."
    assert module.finding(half) == only_one
    assert not any(module.SECTION.drawable(r, name) for r in (nothing, half) for name in module.SECTION.figures)


@pytest.mark.parametrize("module", OURS)
def test_one_model_is_one_model(whole: Results, module: Any) -> None:
    for cell in ("rnn", "lstm"):
        alone = only(whole, cell)
        if module in OF_LSTM and cell == "rnn":
            assert not module.SECTION.shown(alone)
            continue
        text = module.finding(alone)
        assert {"rnn": "LSTM", "lstm": "RNN"}[cell] not in text
        assert "models" not in text
        assert "both" not in text
        assert cell.upper() in text


@pytest.mark.parametrize("module", OURS)
def test_untrained_models_are_called_so(whole: Results, module: Any) -> None:
    text = module.finding(untrained(whole))
    assert ("untrained" in text) == (module is not flow)
    assert "untrained" not in module.finding(whole)
    assert re.search(r"(?<!un)trained", text) is None
    assert "nan" not in text
    assert "Training moved" not in text


@pytest.mark.parametrize("module", OURS[1:])
def test_models_are_compared_at_the_same_time(whole: Results, module: Any) -> None:
    """Where the second was not measured after training, both are told as they were before."""
    half = replace(whole, models=whole.models | {"lstm": replace(whole.models["lstm"], after=None)})
    text = module.finding(half)
    assert " untrained " in text
    assert " trained " not in text


# --- how far the gradient reaches, over training


def grown(horizon: Iterable[int], *, steps: Iterable[int] = (0, 1, 2, 4), **flags: Iterable[bool]) -> GradientFlow:
    known: dict[str, Any] = {"steps": np.array([*steps]), "horizon": np.array([*horizon])}
    never = np.zeros(len(known["steps"]), bool)
    known |= {name: np.array([*flags[name]]) if name in flags else never for name in ("censored", "exploding")}
    fields = GradientFlow.__dataclass_fields__
    return GradientFlow(**{name: known.get(name) for name in fields})


def flows(results: Results, rnn: GradientFlow | None, lstm: GradientFlow | None) -> str:
    models = {n: replace(results.models[n], flow=f) for n, f in (("rnn", rnn), ("lstm", lstm))}
    return flow.finding(replace(results, models=models))


def test_flow(whole: Results) -> None:
    assert flows(whole, grown([3, 4, 4, 5]), grown([6, 9, 7, 1])) == (
        "While they learned, the horizon of the RNN's gradient goes from 3 to 5 characters in 4 updates, that of the "
        "LSTM's gradient goes from 6 to 1 character in 4 updates (9 after 1 update)."
    )
    one = grown([3, 4], steps=[0, 1])
    alone = "While it learned, the horizon of the RNN's gradient goes from 3 to 4 characters in 1 update."
    assert flows(whole, one, None) == alone
    assert flows(whole, one, grown([3], steps=[0])) == alone  # the LSTM diverged before its first
    assert flows(whole, None, None) == "No update was made."
    text = flows(whole, grown([3, 20, 2, 20], censored=[0, 1, 0, 1]), grown([2, 2, 1300], steps=[0, 1, 1200]))
    assert text == (
        "While they learned, the horizon of the RNN's gradient goes from 3 to 20+ characters in 4 updates, that of the "
        "LSTM's gradient goes from 2 to 1300 characters in 1,200 updates. A + stands where the measurement ended "
        "first, so that the truth may lie beyond."
    )
    text = flows(whole, grown([3, 20, 2, 4], censored=[0, 1, 0, 0], exploding=[0, 1, 0, 0]), None)
    assert text == (
        "While it learned, the horizon of the RNN's gradient goes from 3 to 4 characters in 4 updates "
        "(20! after 1 update). An ! stands where the gradient explodes: that horizon means little."
    )


# --- Lyapunov exponents


def spectra(results: Results, rnn: tuple[float, float], lstm: tuple[float, float] = (-0.5, 0.01)) -> Results:
    def spectrum(exponent: float, error: float) -> Any:
        return SimpleNamespace(exponents=np.array([exponent, -7.0]), standard_error=np.array([error, 0.1]))

    return both(results, "spectrum", spectrum(*rnn), spectrum(*lstm))


@pytest.mark.parametrize(
    ("exponent", "error", "said"),
    [
        (-0.25, 0.01, "it fades to 1/e of its size in 4.0 characters"),
        (-0.01, 0.001, "it fades to 1/e of its size in 100 characters"),
        (-0.04, 0.001, "it fades to 1/e of its size in 25 characters"),
        (-0.0004, 1e-5, "it fades to 1/e of its size in 2,500 characters"),
        (-0.25, NAN, "it fades to 1/e of its size in 4.0 characters"),
        (0.5, 0.01, "it grows: it is e times as large after 2.0 characters: this is chaos"),
        (
            0.5,
            NAN,
            "it grows: it is e times as large after 2.0 characters; how sure that is cannot be told from so few steps",
        ),
        (0.5, 0.25, "it neither fades nor grows, as far as this measurement can tell"),
        (-0.5, 0.3, "it neither fades nor grows, as far as this measurement can tell"),
        (0.0, 0.0, "it neither fades nor grows, as far as this measurement can tell"),
        (0.0, NAN, "it neither fades nor grows, as far as this measurement can tell"),
        (-INF, NAN, "it is lost altogether at some step, which maps every change of the state to zero"),
    ],
)
def test_lyapunov(whole: Results, exponent: float, error: float, said: str) -> None:
    results = spectra(whole, (exponent, error))
    before = {cell: one.before.inside.spectrum.exponents[0] for cell, one in whole.models.items() if one.before}
    after = f"{exponent:.3f}".replace("-", "−").replace("inf", "∞")
    assert lyapunov.finding(results) == (
        "How long does a small change of the state last? Where it lasts longest, in the trained RNN "
        f"{said}; in the trained LSTM it fades to 1/e of its size in 2.0 characters. Training moved the largest "
        f"exponent from −{-before['rnn']:.3f} to {after} in the RNN and from −{-before['lstm']:.3f} to −0.500 in "
        "the LSTM."
    )
    tile = lyapunov.SECTION.tile(results)
    assert tile is not None
    digits = 2 if abs(exponent) >= 0.005 else 3  # what is near 0 is not said to be 0
    assert tile.values == {"rnn": f"{exponent:.{digits}f}".replace("-", "−").replace("inf", "∞"), "lstm": "−0.50"}
    assert lyapunov.SECTION.drawable(results, "lyapunov") == (exponent > -INF)


# --- the two paths of an LSTM


def split(
    results: Results, share: float, total: float = 1.0, ratio: float = NAN, *, length: int = 30, lags: int = 26
) -> str:
    by_distance = SimpleNamespace(c_path=np.full((1, length), share * total), total=np.full((1, length), total))
    forget = SimpleNamespace(ratio=np.full((1, lags), ratio))
    return paths.finding(having(results, "lstm", paths=by_distance, forget=forget))


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0.34, "34% of the whole in size"),
        (0.006, "1% of the whole in size"),
        (0.003, "0.003 times the whole in size"),
        (2e-5, "2·10<sup>−5</sup> times the whole in size"),
        (1.0, "100% of the whole in size"),
        (1.5, "150% of the whole in size"),
        (4.25, "4.2 times the whole in size"),
        (31.4, "31 times the whole in size"),
    ],
)
def test_share_along_the_cells(whole: Results, share: float, said: str) -> None:
    assert split(whole, share) == (
        f"20 characters back, what the trained LSTM's gradient has left along the cells alone is {said}; the rest, or "
        "what it cancels, went through a gate."
    )


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (26.2, "26 times too small"),
        (1.2, "1.2 times too small"),
        (0.5, "2 times too large"),
        (1e-6, "1·10<sup>6</sup> times too large"),
        (1.0, "right in size"),
        (1.02, "right in size"),
        (0.98, "right in size"),
    ],
)
def test_product_of_forget_gates(whole: Results, ratio: float, said: str) -> None:
    end = f" The product of forget gates, often taken for the gradient of c, is {said} at a lag of 20."
    assert split(whole, 0.34, ratio=ratio).endswith(f"went through a gate.{end}")
    # told whether or not a gradient arrives
    assert split(whole, 0.0, 0.0, ratio=ratio) == (
        f"In the trained LSTM no gradient that can be told from 0 arrives 20 characters back.{end}"
    )


def test_paths_where_there_is_little_to_tell(whole: Results) -> None:
    for ratio in (NAN, INF, 0.0):
        assert "product" not in split(whole, 0.34, ratio=ratio)
    for share, total in ((0.5, NAN), (0.5, INF), (INF, 1.0), (NAN, 1.0)):
        assert split(whole, share, total) == "In the trained LSTM the gradient is not finite 20 characters back."
    lost = SimpleNamespace(c_path=np.ones((1, 30)), total=np.full((1, 30), INF))
    text = paths.finding(having(whole, "lstm", paths=lost))
    assert text.startswith("In the trained LSTM the gradient is not finite 20 characters back.")
    assert split(whole, 0.0) == (
        "20 characters back, nothing is left of the trained LSTM's gradient along the cells alone: all went through a "
        "gate."
    )
    short = split(whole, 0.34, ratio=3.0, length=2, lags=3)
    assert short.startswith("1 character back, what the trained LSTM's gradient has left")
    assert short.endswith("is 3 times too small at a lag of 2.")


# --- whose gradient it is


def sent(results: Results, rnn: float, lstm: float, *, length: int = 9) -> str:
    def items(value: float) -> Any:
        share = np.full(length, 0.77)
        share[min(5, length - 1)] = value
        return SimpleNamespace(share_beyond=lambda: share)

    return itemized.finding(both(results, "itemized", items(rnn), items(lstm)))


START = "Of the gradient that reaches the state after a character, losses more than 5 characters later send "


def test_itemized(whole: Results) -> None:
    assert sent(whole, 0.124, 0.3) == f"{START}12% in the trained RNN and 30% in the trained LSTM."
    below, above = (
        " Below 0 they pull against the losses nearer by.",
        " Above 100% the losses nearer by pull against them.",
    )
    assert sent(whole, -0.06, 0.3) == f"{START}−6% in the trained RNN and 30% in the trained LSTM.{below}"
    assert sent(whole, -0.001, 1.0) == f"{START}0% in the trained RNN and 100% in the trained LSTM."
    assert sent(whole, 0.1, 1.3) == f"{START}10% in the trained RNN and 130% in the trained LSTM.{above}"
    assert sent(whole, NAN, 0.3) == (
        f"{START}30% in the trained LSTM. In the trained RNN there is no gradient to divide."
    )
    assert sent(whole, NAN, INF) == "In the trained RNN and LSTM there is no gradient to divide among the losses."
    alone = sent(whole, 0.124, 0.3, length=2)
    assert alone == START.replace("5 characters", "1 character") + "12% in the trained RNN and 30% in the trained LSTM."


def test_itemized_without_a_gradient(whole: Results) -> None:
    """Where every unit is saturated nothing arrives anywhere."""
    model = whole.models["rnn"]
    assert model.after is not None
    items = model.after.inside.itemized
    none = replace(items, h=0 * items.h, along=0 * items.along)
    results = having(whole, "rnn", itemized=none)
    assert itemized.finding(results).endswith(" In the trained RNN there is no gradient to divide.")
    assert not itemized.SECTION.drawable(results, "itemized")
    assert not itemized.SECTION.drawable(results, "share-beyond")


# --- real ones, whatever comes out


@pytest.mark.parametrize(
    "change",
    [
        {"learning_rate": 10.0},  # everything saturated
        {"learning_rate": 1e38},  # not finite after one update
        {"hidden_size": 1, "embedding_size": 1},
        {"distance": 2, "warm_up": 1, "trial_length": 2, "sequences": 1},
    ],
)
def test_every_sentence_of_odd_studies(change: dict[str, Any]) -> None:
    results = run(TEXT, replace(SETTINGS, backend="numpy", steps=3, **change))
    assert (results.stopped is not None) == (change.get("learning_rate") == 1e38)
    for section in sections.SECTIONS:
        text = section.finding(results)
        assert text.endswith((".", "</span>", "!", "?"))
        assert re.search(r"\bnan\b|\binf\b|None\b(?! of)|(?<![.\d])\b1 (?!holds|is\b)\w+s\b", text) is None, text
        assert isinstance(section.more(results), str)
        if section.tile(results) is not None:
            assert "nan" not in str(section.tile(results))
    assert len(learning.SECTION.figures["loss"](results, 7.0).axes) == 1


def test_a_loss_that_is_not_finite_is_told(whole: Results) -> None:
    rnn = whole.models["rnn"]
    lost = replace(rnn, curve=replace(rnn.curve, validation=[*rnn.curve.validation[:-1], (3, NAN)]))
    results = replace(whole, models=whole.models | {"rnn": lost})
    assert learning.finding(results) == (
        "After 3 steps the loss of the RNN on the text held out is not finite: training has diverged."
    )
    tile = learning.SECTION.tile(results)
    assert tile is not None
    assert tile.values == {"rnn": "–", "lstm": f"{whole.models['lstm'].curve.validation[-1][1]:.2f}"}


# --- products of Jacobians, and where a state goes


def singular(span: int, *values: float) -> tuple[SingularValues, ...]:
    with np.errstate(divide="ignore"):
        return (SingularValues(log=np.log(np.array([values])), start=0, stop=span),)


def test_jacobians_say_what_is_left(whole: Results) -> None:
    told = both(whole, "singular", singular(32, 0.002, 0.0), singular(32, 2.5, 0.02))
    assert jacobians.finding(told) == (
        "After 32 characters a small change of the state has at most 0.002 times its size in the trained RNN and "
        "2.5 times its size in the trained LSTM, whatever its direction. Directions that keep one percent: none of 2 "
        "in the RNN and 2 of 2 in the LSTM."
    )
    dead = both(whole, "singular", singular(1, 0.0, 0.0), singular(1, INF, 1.0))
    text = jacobians.finding(dead)
    assert text.startswith(
        "After 1 character a small change of the state has at most nothing left in the trained RNN and"
    )
    assert "a size beyond all bounds in the trained LSTM" in text
    assert not jacobians.SECTION.drawable(dead, "singular-values")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"verdict": "fixed point", "settling_time": 1, "spectral_radius": 0.7, "contraction": 0.69},
         "point after 1 step, each step leaving 0.700 of the distance by the Jacobian there, 0.690 as measured."),
        ({"verdict": "fixed point", "settling_time": 5, "spectral_radius": 0.7, "contraction": NAN},
         "its fixed point after 5 steps, each step leaving 0.700 of the distance by the Jacobian there."),
        ({"verdict": "fixed point", "settling_time": None}, "comes to rest, so slowly that it is still on its way"),
        ({"verdict": "cycle", "period": 2}, "goes round in a cycle of 2 steps"),
        ({"verdict": "chaos", "lyapunov": 0.25}, "chaos, with an exponent of 0.250"),
        ({"verdict": "grows"}, "it adds up what it reads, and still grows"),
        ({"verdict": "diverges"}, "goes beyond all bounds"),
        ({"verdict": "undecided"}, "has neither come to rest nor returned"),
    ],
)  # fmt: skip
def test_position_says_where_the_state_goes(whole: Results, changes: dict[str, Any], said: str) -> None:
    found = replace(whole.models["rnn"].after.inside.position, **changes)  # type: ignore[union-attr]
    text = position.finding(having(only(whole, "rnn"), "rnn", position=found))
    assert text.startswith("Given nothing but ")
    assert "again and again, the trained RNN " in text
    assert said in text
    assert re.search(r"finds (no fixed point|\d+ fixed points? \((none|\d+) stable\)) in the RNN\.$", text)


def test_a_horizon_that_stays_is_not_said_to_go(whole: Results) -> None:
    one = whole.models["rnn"]
    assert one.flow is not None
    calm = np.zeros_like(one.flow.censored)
    same = replace(one.flow, horizon=np.full_like(one.flow.horizon, 8), censored=calm, exploding=calm)
    text = flow.finding(replace(whole, models={"rnn": replace(one, flow=same)}))
    assert text == "While it learned, the horizon of the RNN's gradient begins and ends at 8 characters in 3 updates."
