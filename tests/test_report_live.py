"""The live part of the page as a person meets it, in a real browser: pointer, keys, fingers, themes, widths."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from scratchrnn.report import render
from scratchrnn.report.order import alike, slow_first
from scratchrnn.report.payload import QUANTITIES, payload
from scratchrnn.study import Results
from tests.awkward import STEPS, awkward_study, now, stretches
from tests.chromium import BROWSER, Chromium
from tests.test_report import FIGURES

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome in PATH")


@pytest.fixture(scope="module")
def results() -> Results:
    return awkward_study()


@pytest.fixture(scope="module")
def html(results: Results) -> str:
    return render(results)["report.html"].decode()


@pytest.fixture(scope="module")
def page(html: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


def text(browser: Chromium, selector: str) -> str:
    return browser.js(f"document.querySelector({json.dumps(selector)}).textContent")


def texts(browser: Chromium, selector: str) -> list[str]:
    return browser.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")


def choose(browser: Chromium, name: str, value: str) -> None:
    where = f"document.getElementById('live-{name}')"
    browser.js(f"(s => {{ s.value = {value!r}; s.dispatchEvent(new Event('change')); }})({where})")


def number(shown: str) -> float:
    """The number that a person reads."""
    digits, _, exponent = shown.replace("−", "-").partition("·10")
    return float(digits) * 10.0 ** int(exponent.translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")) or 0)


def assert_shown(shown: str, value: float) -> None:
    """Two digits at least, and three decimals where the number is of the size of a gate."""
    tolerance = {"rel": 0.051, "abs": 0} if "·" in shown else {"rel": 0, "abs": 5.01e-4}
    assert number(shown) == pytest.approx(value, **tolerance)


def at_cell(step: int, row: int, units: int) -> tuple[float, float]:
    return (step + 0.5) / STEPS, (row + 0.5) / units


SIGNS = {" ": "␣", "\n": "⏎", "\t": "⇥", "\u2028": "□", "\x01": "□", "\u0301": "□"}


def sign(character: str) -> str:
    return SIGNS.get(character, character)


def test_page_loads_alone_and_whole(browser: Chromium, page: Path) -> None:
    browser.open(page)
    assert browser.errors == []
    assert {u for u in browser.requests if not u.startswith("data:image/png;base64,")} == {page.resolve().as_uri()}
    assert browser.js("document.querySelectorAll('figure').length") == len(FIGURES)
    shown = "[...document.querySelectorAll('figure svg')].filter((s) => s.getBoundingClientRect().width > 300).length"
    assert browser.js(shown) == len(FIGURES)  # each in one width alone
    assert browser.js("document.querySelectorAll('#live svg').length") == 4
    assert browser.js("document.getElementById('live-map').getBoundingClientRect().width") > 600
    assert texts(browser, "#live-text > span") == texts(browser, "#live-unit-text > span")
    assert browser.js("typeof data") == "undefined"  # nothing of ours is global


@pytest.mark.parametrize("number_of_model", [0, 1])
def test_hover_shows_the_character_and_its_numbers(
    browser: Chromium, page: Path, results: Results, number_of_model: int
) -> None:
    stretch = stretches(results)[number_of_model]
    arrays = stretch.layers[0]
    units = arrays["h"].shape[1]
    order = slow_first(arrays["h"])
    browser.open(page)
    browser.click(f"#live-models > :nth-child({number_of_model + 1})")
    assert texts(browser, "#live-text > span") == [sign(c) for c in stretch.text]
    for step, row in ((0, 0), (STEPS - 1, units - 1), (37, 2)):
        browser.click("#live-map", *at_cell(step, row, units))
        assert text(browser, "#live-glyph") == sign(stretch.text[step])
        assert text(browser, "#live-position") == f"character {step + 1} of {STEPS}"
        assert text(browser, "#live-unit") == str(order[row])
        names = [name for name in QUANTITIES if name in arrays]
        assert texts(browser, "#live-values b") == [QUANTITIES[name][0] for name in names]
        for shown, name in zip(texts(browser, "#live-values em"), names, strict=True):
            assert_shown(shown, arrays[name][step, order[row]])

        hovered = (row + 3) % units
        browser.hover("#live-map", *at_cell(step, hovered, units))
        unit, shown = re.fullmatch(r"unit (\d+): h (.*)", text(browser, "#live-map .tip")).groups()  # type: ignore[union-attr]
        assert int(unit) == order[hovered]
        assert_shown(shown, arrays["h"][step, order[hovered]])
        assert text(browser, "#live-unit") == str(order[row])  # which only a click chooses

        follows = stretch.following[step]
        candidates = dict(zip(stretch.candidates[step], stretch.candidate_probability[step], strict=True))
        candidates.setdefault(follows, stretch.probability[step])
        assert texts(browser, "#live-candidates b") == [sign(c) for c in candidates]
        assert texts(browser, "#live-candidates .true b") == [sign(follows)]
        for shown, p in zip(texts(browser, "#live-candidates em"), candidates.values(), strict=True):
            assert float(shown.strip("<>%")) == pytest.approx(100 * p, abs=0.51 if "." not in shown else 0.11)
    assert browser.errors == []


def test_held_prediction_shows_where_its_gradient_goes(browser: Chromium, page: Path, results: Results) -> None:
    gradient = stretches(results)[1].gradient
    t = 41
    browser.open(page)
    browser.click(f"#live-text > :nth-child({t + 1})")
    for k in (t, 20, 0):
        browser.hover(f"#live-text > :nth-child({k + 1})")
        assert text(browser, "#live-position") == f"character {k + 1} of {STEPS}"
        shown = texts(browser, "#live-gradient dd")
        assert_shown(shown[0], float(f"{gradient[t, k]:.3g}"))
        assert_shown(shown[2].partition(",")[0], float(f"{gradient[t].max():.3g}"))
        assert texts(browser, "#live-candidates .true b") == [sign(stretches(results)[1].following[t])]
    browser.hover(f"#live-text > :nth-child({t + 2})")
    assert texts(browser, "#live-gradient dd")[0] == "none: read later"
    half = int(np.argmax(gradient[t, t::-1].cumsum() >= gradient[t].sum() / 2)) + 1
    assert texts(browser, "#live-gradient dd")[3] == f"last {half} character{'' if half == 1 else 's'}"

    cells = "[...document.querySelectorAll('#live-text > span')]"
    shares = browser.js(f"{cells}.map((e) => parseInt(e.style.getPropertyValue('--share')))")
    want = [65 * max(0.0, 1 + np.log10(norm / gradient[t].max()) / 3) if norm else 0 for norm in gradient[t]]
    assert shares == pytest.approx(want, abs=1)
    assert shares[t + 1 :] == [0] * (STEPS - t - 1)
    bars = "[...document.querySelectorAll('#live-bars rect')]"
    heights = browser.js(f"{bars}.map((bar) => Number(bar.getAttribute('height')))")
    top = np.ceil(np.log10(gradient.max()))
    assert heights == pytest.approx([max(0.0, 100 - 20 * (top - np.log10(n))) for n in gradient[t, : t + 1]], abs=0.1)

    browser.click("#live-hold")
    browser.hover("#live-text > :nth-child(9)")
    assert_shown(texts(browser, "#live-gradient dd")[0], float(f"{gradient[8, 8]:.3g}"))
    assert browser.errors == []


def test_layer_quantity_and_order_can_be_chosen(browser: Chromium, page: Path, results: Results) -> None:
    stretch = stretches(results)[1]
    browser.open(page)
    assert texts(browser, "#live-layer option") == ["1", "2"]
    for layer, arrays in enumerate(stretch.layers):
        choose(browser, "layer", str(layer))
        orders = {"slow": slow_first(arrays["h"]), "alike": alike(arrays["h"]), "number": np.arange(6)}
        for order, name in (("slow", "c"), ("alike", "f"), ("number", "d_h")):
            choose(browser, "order", order)
            choose(browser, "quantity", name)
            for step, row in ((5, 0), (50, 4)):
                unit = orders[order][row]
                browser.click("#live-map", *at_cell(step, row, 6))
                _, at, shown = text(browser, "#live-map .tip").split(" ", 2)
                assert at == f"{unit}:"
                assert_shown(shown.removeprefix(f"{QUANTITIES[name][0]} "), arrays[name][step, unit])
                where = texts(browser, "#live-values b").index(QUANTITIES["o"][0])
                assert_shown(texts(browser, "#live-values em")[where], arrays["o"][step, unit])
    choose(browser, "quantity", "f")
    browser.click("#live-models > :nth-child(1)")  # which has neither a second layer nor gates
    assert browser.js("document.getElementById('live-quantity').value") == "h"
    assert browser.js("document.getElementById('live-layer').parentElement.hidden")
    assert texts(browser, "#live-quantity option") == ["h: hidden state", "∂L/∂h: gradient of h"]
    assert browser.errors == []


def pixel(browser: Chromium, step: int, row: int, units: int) -> list[int]:
    x, y = at_cell(step, row, units)
    place = f"Math.floor(c.width * {x}), Math.floor(c.height * {y})"
    drawn = f"(c => [...c.getContext('2d').getImageData({place}, 1, 1).data])"
    return browser.js(f"{drawn}(document.querySelector('#live-map canvas')).slice(0, 3)")


@pytest.mark.parametrize(
    ("name", "colors", "low", "high"), [("h", "RdBu_r", -1, 1), ("f", "cividis", 0, 1), ("c", "RdBu_r", -3, 3)]
)
def test_map_has_the_colours_of_the_values(
    browser: Chromium, page: Path, results: Results, name: str, colors: str, low: float, high: float
) -> None:
    array = stretches(results)[1].layers[0][name]
    browser.open(page)
    choose(browser, "order", "number")
    choose(browser, "quantity", name)
    for step, unit in ((0, 0), (17, 3), (63, 5), (40, 1)):
        want = [int(v) for v in mpl.colormaps[colors](float((array[step, unit] - low) / (high - low)), bytes=True)[:3]]
        assert pixel(browser, step, unit, 6) == pytest.approx(want, abs=8)  # 11 stops of 256 colours
        browser.click("#live-map", *at_cell(step, unit, 6))
        cell = f"document.querySelector('#live-unit-text > :nth-child({step + 1})')"
        ground = browser.js(f"getComputedStyle({cell}).backgroundColor")
        assert [int(v) for v in re.findall(r"\d+", ground)] == pytest.approx(want, abs=8)


def test_keys_move_and_tell(browser: Chromium, page: Path, results: Results) -> None:
    stretch = stretches(results)[1]
    h = stretch.layers[0]["h"]
    order = slow_first(h)
    browser.open(page)
    browser.js("document.getElementById('live-map').focus()")
    for key in ("Home", "ArrowRight", "ArrowRight", "ArrowLeft", "PageUp", "ArrowDown", "ArrowDown", "ArrowUp"):
        browser.press(key)
    assert text(browser, "#live-position") == f"character 2 of {STEPS}"
    assert text(browser, "#live-unit") == str(order[1])
    told = browser.js("document.getElementById('live-map').getAttribute('aria-valuetext')")
    assert told.startswith(f"{stretch.text[1]}, followed by {stretch.following[1]}, expected with ")
    assert_shown(re.search(rf"unit {order[1]}: h (\S+),", told)[1], h[1, order[1]])  # type: ignore[index]
    assert browser.js("document.getElementById('live-map').getAttribute('aria-valuenow')") == "2"
    browser.press("Enter")
    browser.press("End")
    assert browser.js("document.getElementById('live-hold').getAttribute('aria-pressed')") == "true"
    assert texts(browser, "#live-gradient dd")[0] == "none: read later"
    browser.press("Escape")
    assert browser.js("document.getElementById('live-hold').getAttribute('aria-pressed')") == "false"
    assert text(browser, "#live-position") == f"character {STEPS} of {STEPS}"
    active = "[...document.querySelectorAll('#live button, #live select, #live [tabindex]')]"
    assert browser.js(f"{active}.every((e) => e.textContent.trim() || e.getAttribute('aria-label'))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768, 1000, 1280])
def test_page_fits_every_width(browser: Chromium, page: Path, width: int, scheme: str) -> None:
    browser.open(page, width, 844, scheme=scheme, touch=width < 800)
    for model in (1, 2):
        browser.click(f"#live-models > :nth-child({model})")
        assert browser.js("document.scrollingElement.scrollWidth") <= width
        ends = browser.js("[...document.querySelectorAll('#live *')].map((e) => e.getBoundingClientRect().right)")
        assert max(ends) <= width + 0.5
    assert browser.errors == []


def test_finger_chooses_character_and_unit(browser: Chromium, page: Path, results: Results) -> None:
    stretch = stretches(results)[1]
    order = slow_first(stretch.layers[0]["h"])
    browser.open(page, 390, 844, touch=True)
    browser.touch("#live-map", *at_cell(11, 4, 6))
    assert text(browser, "#live-position") == f"character 12 of {STEPS}"
    assert text(browser, "#live-unit") == str(order[4])
    browser.touch("#live-text > :nth-child(31)")
    assert text(browser, "#live-position") == f"character 31 of {STEPS}"
    assert browser.js("document.getElementById('live-hold').getAttribute('aria-pressed')") == "false"
    browser.touch("#live-hold")
    browser.touch("#live-map", *at_cell(11, 4, 6))
    assert_shown(texts(browser, "#live-gradient dd")[0], float(f"{stretch.gradient[30, 11]:.3g}"))


def test_dark_theme_has_a_dark_middle(browser: Chromium, page: Path, results: Results) -> None:
    h = stretches(results)[1].layers[0]["h"]
    step, unit = np.unravel_index(np.abs(h).argmin(), h.shape)
    brightness = {}
    for scheme in ("light", "dark"):
        browser.open(page, scheme=scheme)
        choose(browser, "order", "number")
        ground = browser.js("getComputedStyle(document.body).backgroundColor")
        brightness[scheme] = (
            np.mean(pixel(browser, int(step), int(unit), 6)), np.mean([int(v) for v in re.findall(r"\d+", ground)])
        )  # fmt: skip
    assert min(brightness["light"]) > 200
    assert max(brightness["dark"]) < 60
    # and changes with the system's, without loading anew
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "light"}])
    browser.js("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert np.mean(pixel(browser, int(step), int(unit), 6)) > 200


def test_nothing_moves_where_motion_is_not_wanted(browser: Chromium, page: Path) -> None:
    moves = "getComputedStyle(document.querySelector('#live-values .track i')).transitionDuration"
    browser.open(page)
    assert browser.js(moves).startswith("0.12s")
    browser.open(page, motion="reduce")
    assert browser.js(moves) == "0s"


def test_without_scripts_the_figures_remain(browser: Chromium, page: Path) -> None:
    browser.open(page, scripts=False)
    try:
        assert browser.js("document.getElementById('live').getBoundingClientRect().height") == 0
        assert browser.js("document.querySelector('noscript p').getBoundingClientRect().height") > 20
        assert "needs JavaScript" in text(browser, "noscript p")
        assert browser.js("document.querySelectorAll('figure svg').length") == 2 * len(FIGURES)
    finally:
        browser.call("Emulation.setScriptExecutionDisabled", value=False)


def test_what_is_not_finite_is_said(browser: Chromium, html: str, tmp_path: Path, results: Results) -> None:
    m = now(results)["lstm"]
    h = m.stretch.layers[0]["h"].copy()
    h[2, 1], h[3, 1], h[4] = np.nan, -np.inf, np.nan
    layers = ({**m.stretch.layers[0], "h": h}, m.stretch.layers[1])
    odd = replace(
        m.stretch, layers=layers, gradient=np.full((STEPS, STEPS), np.nan), probability=np.full(STEPS, np.inf)
    )
    path = tmp_path / "odd.html"
    data = payload({"lstm": replace(m, stretch=odd)})
    path.write_text(html.replace(payload(now(results)), data), encoding="utf-8")
    browser.open(path)
    assert browser.js("document.getElementById('live-models').getBoundingClientRect().height") == 0  # one model
    choose(browser, "order", "number")
    for step in (2, 3):
        browser.click("#live-map", *at_cell(step, 1, 6))
        assert texts(browser, "#live-values em")[0] == "not finite"
    assert pixel(browser, 2, 1, 6) == [136, 136, 136]
    assert texts(browser, "#live-gradient dd") == ["not finite", "–", "–", "–"]
    assert browser.errors == []
