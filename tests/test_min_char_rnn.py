"""min-char-rnn's recipe from our parts gives the losses of the plain NumPy transcription, window for window.

Training by this recipe at H = 100 on English is chaotic: Adagrad's first steps have the size 0.1 whatever the gradient,
they saturate the net, and from there one rounding grows to percents of the loss within some ten windows. Two programs
that sum in different orders, or one program with two BLAS libraries, cannot give one sequence there. So there are two
claims: where the recipe itself does not amplify rounding (which the test measures), the whole sequences are equal; and
where it does, each single window of our own run is the recipe's window from the same weights, accumulators and h.
"""

from __future__ import annotations

import importlib
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.testing import TOLERANCE, assert_close
from tests import min_char_rnn as recipe

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
ours = importlib.import_module("min_char_rnn")

NAMES = {"W_xh": "weight_ih_l0", "W_hh": "weight_hh_l0", "W_hy": "weight", "b_h": "bias_ih_l0", "b_y": "bias"}
WORDS = """
a after all and as at before but by each ends every first for from gate goes hidden in into is it keeps last learn less
long more net next no not of on one or other over past same so state step that the then they this time to until we what
when where which while with word
"""
PER_PASS = 160  # windows


def lower_case(rng: np.random.Generator) -> str:
    """Random words, most of the alphabet, a blank between them."""
    return " ".join(rng.choice(WORDS.split(), 2000))


def word_lengths(rng: np.random.Generator) -> str:
    """The same with every letter the same: only where words end is to be learned."""
    return "".join("x" if c != " " else c for c in lower_case(rng))


def codes_of(text: str, extra: int = 12) -> tuple[Any, int]:
    """Codes of so much of the text that a pass has PER_PASS windows and leaves characters over; and V.

    With one character over, the program's condition already drops the last window.
    """
    text = text[: PER_PASS * recipe.T + extra]
    characters = sorted(set(text))
    return np.array([characters.index(c) for c in text]), len(characters)


def plain(codes: Any, V: int, H: int, windows: int, *, shake: int | None = None) -> tuple[Any, dict[str, Any]]:
    """The transcription's losses and smooth losses (windows, 2), and its weights.

    With `shake` the initial weights are moved by at most one rounding each.
    """
    w = recipe.draw(V, H, np.random.default_rng(7))
    if shake is not None:
        rng = np.random.default_rng(shake)
        w = {name: array * (1 + 2.0**-52 * rng.integers(-1, 2, array.shape)) for name, array in w.items()}
    return np.array(list(islice(recipe.train(codes, w), windows))), w


def farthest(got: Any, want: Any) -> float:
    """The largest relative difference of a window's loss or smooth loss."""
    return float(np.abs(got / want - 1).max())


@pytest.mark.parametrize(
    ("text", "H", "extra"),
    [(word_lengths, 100, 12), (word_lengths, 100, 1), (lower_case, 20, 12)],
    ids=["word-lengths", "word-lengths-one-over", "lower-case-small"],
)
@pytest.mark.usefixtures("each_backend")
def test_losses_of_two_passes_are_the_recipes(text: Any, H: int, extra: int) -> None:
    codes, V = codes_of(text(np.random.default_rng(1)), extra)
    windows = 2 * PER_PASS + 20  # into the third
    want, w = plain(codes, V, H, windows)
    # a rounding alone must not move the recipe's own losses, or the comparison would say nothing
    assert max(farthest(plain(codes, V, H, windows, shake=s)[0], want) for s in range(2)) < TOLERANCE["trajectory"] / 10

    net = ours.Net(V, H, rng=np.random.default_rng(7))
    got = np.array(list(islice(ours.train(codes, net), windows)))
    assert farthest(got, want) < TOLERANCE["trajectory"]
    for name, ours_name in NAMES.items():
        assert_close(name, net.parameters[ours_name], w[name], rel=TOLERANCE["trajectory"])
    assert not net.rnn.parameters["bias_hh_l0"].any()
    assert want[0, 0] == pytest.approx(recipe.T * np.log(V), rel=1e-2)
    assert want[-PER_PASS:, 0].mean() < 0.85 * want[0, 0]  # it did learn, so the losses do depend on the updates


@pytest.mark.usefixtures("each_backend")
def test_every_window_of_our_run_is_one_of_the_recipe() -> None:
    codes, V = codes_of(lower_case(np.random.default_rng(1)))
    net = ours.Net(V, rng=np.random.default_rng(7))
    run = ours.train(codes, net)
    begin, smooth, largest = 0, recipe.T * np.log(V), 0.0
    for _ in range(2 * PER_PASS + 20):
        w = {name: net.parameters[ours_name].copy() for name, ours_name in NAMES.items()}
        saved = net.optimizer.state_dict()
        memory = {name: saved[f"sum.{ours_name}"] - recipe.EPS for name, ours_name in NAMES.items()}
        if begin + recipe.T + 1 >= len(codes):
            begin = 0
        h_0 = np.zeros(ours.H) if begin == 0 else net.state[0, 0].copy()
        inputs, targets = codes[begin : begin + recipe.T], codes[begin + 1 : begin + recipe.T + 1]
        want, g, h_n = recipe.window(w, inputs, targets, h_0)
        recipe.update(w, memory, g)
        smooth = recipe.KEEP * smooth + (1 - recipe.KEEP) * want
        begin += recipe.T

        got = next(run)
        assert got == (pytest.approx(want, rel=TOLERANCE["float64"]), pytest.approx(smooth, rel=TOLERANCE["float64"]))
        assert_close("h_n", net.state[0, 0], h_n, rel=TOLERANCE["float64"])
        for name, ours_name in NAMES.items():  # Adagrad multiplies a rounding of g by up to RATE / √EPS = 1000
            assert_close(name, net.parameters[ours_name], w[name], rel=TOLERANCE["trajectory"])
        largest = max(largest, want)
    assert largest > 2 * recipe.T * np.log(V)  # the first updates do throw it off, as the recipe's own do


def test_the_recipe_amplifies_a_rounding() -> None:
    """Why the full English run is compared window by window: not even the transcription reproduces itself."""
    codes, V = codes_of(lower_case(np.random.default_rng(1)))
    want, _ = plain(codes, V, 100, 150)
    assert farthest(plain(codes, V, 100, 150, shake=0)[0], want) > 1e-4


def test_gradients_of_the_transcription_are_torchs(rng: np.random.Generator) -> None:
    V, H, steps = 7, 5, 11
    w = {name: array * 60 for name, array in recipe.draw(V, H, rng).items()}
    w |= {"b_h": rng.standard_normal(H), "b_y": rng.standard_normal(V)}
    inputs, targets, h_0 = rng.integers(0, V, steps), rng.integers(0, V, steps), rng.standard_normal(H)
    loss, g, h_n = recipe.window(w, inputs, targets, h_0)

    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in w.items()}
    h, total = torch.tensor(h_0), torch.zeros((), dtype=torch.float64)
    for t in range(steps):
        x = torch.nn.functional.one_hot(torch.tensor(inputs[t]), V).double()
        h = torch.tanh(leaves["W_xh"] @ x + leaves["W_hh"] @ h + leaves["b_h"])
        total -= torch.log_softmax(leaves["W_hy"] @ h + leaves["b_y"], 0)[targets[t]]
    total.backward()
    assert loss == pytest.approx(total.item(), rel=TOLERANCE["float64"])
    assert_close("h_n", h_n, h.detach().numpy(), rel=TOLERANCE["float64"])
    for name, leaf in leaves.items():
        assert np.abs(g[name]).max() < recipe.CLIP
        assert_close(name, g[name], leaf.grad.numpy(), rel=TOLERANCE["float64"])
