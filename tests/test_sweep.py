"""Several studies that differ in one setting, and the page that compares them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from scratchrnn import plots
from scratchrnn.cli import main
from scratchrnn.report import render_comparison
from scratchrnn.report.comparison import _figure, finding
from scratchrnn.study import run
from scratchrnn.study.folder import is_study, is_sweep
from scratchrnn.study.record import summary
from scratchrnn.study.sweep import Comparison, Sweep, sweep_json
from tests.test_report import read
from tests.test_study import SETTINGS, TEXT


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    sweep = Sweep.parse("hidden=9,4")
    made = Comparison(sweep, "fox & <dog>.txt", SETTINGS.cells, seconds=12.0)
    for value, settings in zip(sweep.values, sweep.settings(SETTINGS), strict=True):
        made.studies[value] = summary(run(TEXT, settings))
    return made


def with_numbers(comparison: Comparison, key: str, **numbers: list[Any]) -> Comparison:
    studies = {
        value: found
        | {"models": {cell: model | {key: numbers[cell][n]} for cell, model in found["models"].items()}}
        for n, (value, found) in enumerate(comparison.studies.items())
    }  # fmt: skip
    return replace(comparison, studies=studies)


def test_each_study_has_its_setting() -> None:
    sweep = Sweep.parse(" learning-rate = 0.5, 1e-3")
    assert sweep == Sweep("learning-rate", (0.5, 0.001))
    assert [s.learning_rate for s in sweep.settings(SETTINGS)] == [0.5, 0.001]
    assert sweep.folder(0.001) == "learning-rate-0.001"
    hidden = Sweep.parse("hidden=32,64,128")
    assert [replace(s, hidden_size=9) for s in hidden.settings(SETTINGS)] == [SETTINGS] * 3
    assert [hidden.folder(v) for v in hidden.values] == ["hidden-32", "hidden-64", "hidden-128"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hidden", "sweep: expected a setting and its values, as in hidden=32,64,128; got 'hidden'"),
        ("hidden=", "sweep: expected a setting and its values"),
        ("hiden=1,2", "sweep: expected one of hidden, .*; got 'hiden'"),
        ("hidden=1,two", "sweep: expected numbers after hidden=, between commas; got '1,two'"),
        ("hidden=1.5,2", "sweep: expected numbers after hidden="),
        ("hidden=4", "sweep: expected at least two values of hidden, all different; got '4'"),
        ("hidden=4,4", "all different; got '4,4'"),
        ("hidden=4,,5", "sweep: expected numbers"),
    ],
)
def test_bad_sweeps_are_named(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sweep.parse(text)


def test_the_page_compares(comparison: Comparison) -> None:
    files = render_comparison(comparison)
    page = read(files["report.html"])
    text = files["report.html"].decode()
    assert page.counts["figure"] == 2
    assert [a for a in page.addresses if "report.html" in a] == [
        "hidden-9/report.html", "hidden-9/report.html", "hidden-4/report.html", "hidden-4/report.html",
    ]  # fmt: skip
    assert "fox &amp; &lt;dog&gt;.txt" in text
    assert "did not run" not in text
    assert {"figures/learning.svg", "figures/learning.png", "figures/reach.svg", "figures/reach.png"} < files.keys()
    for found in comparison.studies.values():
        for model in found["models"].values():
            assert f"<td>{model['bits']:.2f}</td>" in text
    record = json.loads(sweep_json(comparison, ["report.html"]))
    assert (record["format"], record["parameter"], record["values"]) == ("scratchrnn-sweep", "hidden", [9, 4])
    assert [study["folder"] for study in record["studies"]] == ["hidden-9", "hidden-4"]
    assert record["studies"][1]["models"] == comparison.studies[4]["models"]


def test_findings_follow_the_numbers(comparison: Comparison) -> None:
    told = with_numbers(comparison, "bits", rnn=[2.5, 2.25], lstm=[2.0, 2.125])
    assert finding(told, "bits") == (
        "From 9 to 4 hidden units the RNN goes from 2.50 to 2.25 bits per character, "
        "the LSTM from 2.00 to 2.12 bits per character."
    )
    still = with_numbers(comparison, "bits", rnn=[2.501, 2.499], lstm=[2.0, 2.125])
    assert "the RNN stays at 2.50 bits per character, the LSTM goes from" in finding(still, "bits")
    seeds = replace(told, sweep=Sweep("seed", (9, 4)))
    assert finding(seeds, "bits").startswith("Over 2 seeds the RNN lies between 2.25 and 2.50 bits per character")
    assert "Over 2 seeds the RNN lies at 2.50 bits per character," in finding(
        replace(still, sweep=Sweep("seed", (9, 4))), "bits"
    )
    missing = with_numbers(comparison, "bits", rnn=[2.5, None], lstm=[2.0, 2.125])
    assert finding(missing, "bits") == "There are not two studies to compare yet."
    assert read(render_comparison(missing)["report.html"]).counts["figure"] == 2
    none = with_numbers(comparison, "bits", rnn=[None, None], lstm=[2.0, 2.125])
    assert read(render_comparison(none)["report.html"]).counts["figure"] == 1


def test_best_in_between_is_told(comparison: Comparison) -> None:
    studies = dict(zip((1, 2, 3), [*comparison.studies.values(), comparison.studies[9]], strict=True))
    three = with_numbers(
        replace(comparison, sweep=Sweep("steps", (1, 2, 3)), studies=studies),
        "horizon_on_text", rnn=[1, 7, 2], lstm=[3, 2, 1],
    )  # fmt: skip
    assert finding(three, "horizon_on_text") == (
        "From 1 to 3 updates the RNN goes from 1 to 2 characters (at best 7, at 2), the LSTM from 3 to 1 characters."
    )
    round_trip = with_numbers(three, "horizon_on_text", rnn=[2, 7, 2], lstm=[3, 2, 1])
    assert "the RNN begins and ends at 2 characters (at best 7, at 2)" in finding(round_trip, "horizon_on_text")


def test_an_unfinished_sweep_says_so(comparison: Comparison) -> None:
    files = render_comparison(replace(comparison, stopped="interrupted"))
    assert b"This sweep did not run to its end: interrupted." in files["report.html"]


@pytest.fixture
def plain_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages of the studies, whose figures have tests of their own, take no time."""
    monkeypatch.setattr("scratchrnn.report.render", lambda results: {"report.html": b"<!doctype html>"})


@pytest.mark.usefixtures("plain_pages")
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TEXT)
    arguments = ["study", "--quick", "--steps", "3", "--text", "t.txt", "--cell", "lstm", "--out", "out"]
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--sweep", "hidden=5,7", "--json"])
    assert done.value.code == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["studies"]) == ["5", "7"]
    assert list(found["studies"]["7"]["models"]) == ["lstm"]
    out = Path("out")
    assert is_sweep(out)
    assert is_study(out / "hidden-5")
    assert json.loads((out / "hidden-7" / "results.json").read_bytes())["settings"]["hidden_size"] == 7
    assert json.loads((out / "results.json").read_bytes())["stopped"] is None

    # over it: another sweep of as many steps, but neither a study nor a smaller sweep
    for more, message in (
        ([], "holds files that are not of a study"),
        (["--sweep", "hidden=5,6", "--steps", "2"], "hidden-5: holds a complete study of 3 steps, and this one has 2"),
    ):
        with pytest.raises(SystemExit) as done:
            main([*arguments, *more])
        assert done.value.code == 2
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit) as done:
        main([*arguments, "--sweep", "hidden=5,6"])
    assert done.value.code == 0
    assert "out/report.html" in capsys.readouterr().out


def test_a_text_too_short_for_the_largest_is_refused_before_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("t.txt").write_text(TEXT)
    with pytest.raises(SystemExit) as done:
        main(["study", "--quick", "--text", "t.txt", "--sweep", "window=64,6400"])
    assert done.value.code == 2
    assert "text: expected at least" in capsys.readouterr().err
    assert not Path("scratchrnn-study").exists()


# --- the figure


def test_points_stand_at_their_values() -> None:
    with plots.style():
        _, ax = plots.figure()
        plots.by_setting(ax, [64, 16], {"RNN": [1.0, 3.0], "LSTM": [None, 2.0]}, xlabel="x", ylabel="y")
    rnn, lstm = ax.lines
    assert rnn.get_xdata().tolist() == [16, 64]
    assert rnn.get_ydata().tolist() == [3.0, 1.0]
    assert np.isnan(lstm.get_ydata()).tolist() == [False, True]
    assert ax.get_xscale() == "log"
    assert [t.get_text() for t in ax.texts] == ["RNN", "LSTM"]
    assert rnn.get_linestyle() == "-"
    assert mpl.rcParams["axes.spines.top"]


def test_seeds_are_not_joined(comparison: Comparison) -> None:
    seeds = replace(comparison, sweep=Sweep("seed", (9, 4)))
    for one, line in ((comparison, "-"), (seeds, "None")):
        figure = _figure(one, "bits", "y")(8.0)
        assert {curve.get_linestyle() for curve in figure.axes[0].lines} == {line}


def test_bad_curves_are_named() -> None:
    _, ax = plots.figure()
    with pytest.raises(ValueError, match=r"curves\['a'\]: expected 2 numbers"):
        plots.by_setting(ax, [1, 2], {"a": [1.0]}, xlabel="", ylabel="")
    with pytest.raises(ValueError, match=r"curves\['a'\]: expected at least one finite number"):
        plots.by_setting(ax, [1, 2], {"a": [None, np.nan]}, xlabel="", ylabel="")
    with pytest.raises(ValueError, match=r"colors: expected 1, one for each curve; got 2"):
        plots.by_setting(ax, [1, 2], {"a": [1, 2]}, xlabel="", ylabel="", colors=["r", "g"])
