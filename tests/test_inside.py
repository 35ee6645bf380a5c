"""What a study measures inside a model: against torch autograd, step by step, and against plain loops."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from scratchrnn.models import CharModel
from scratchrnn.study import Inside, Settings, inside
from scratchrnn.study.inside import BEFORE, EXPONENTS, PLACES, TRAJECTORIES, WORDS, look_inside, places
from scratchrnn.testing import TOLERANCE, assert_close

TEXT = "The ox eats hay; the cat sat, the dog lay by, a bat hid: cat and dog ran by the oat hay, man. " * 5
SETTINGS = Settings(hidden_size=6, embedding_size=4, distance=13, sequences=5, warm_up=7, seed=3, backend="numpy")
T = SETTINGS.distance


@dataclass
class Case:
    model: CharModel
    codes: np.ndarray  # (warm_up + T + 1, sequences)
    found: Inside

    @property
    def held_out(self) -> np.ndarray:
        return self.model.vocabulary.encode(TEXT)


@pytest.fixture(scope="module", params=["rnn", "lstm"])
def case(request: pytest.FixtureRequest) -> Case:
    return make(request.param)


@pytest.fixture(scope="module")
def lstm() -> Case:
    return make("lstm")


def make(cell: str) -> Case:
    rng = np.random.default_rng(11)
    model = CharModel("".join(sorted(set(TEXT))), cell, 6, 4, dtype=np.float64, backend="numpy", rng=rng)
    for array in model.parameters.values():  # far enough from the initial ones for every gate to matter
        array *= 1.5
    held_out = model.vocabulary.encode(TEXT)
    codes = held_out[:, None][:, [0] * SETTINGS.sequences].copy()[: SETTINGS.warm_up + T + 1]
    for n, start in enumerate(np.linspace(0, len(held_out) - len(codes), SETTINGS.sequences).astype(int)):
        codes[:, n] = held_out[start : start + len(codes)]
    return Case(model, codes, look_inside(model, held_out, SETTINGS))


# --- the model again, in torch, one sequence and one step at a time


def tensors(model: CharModel) -> dict[str, Any]:
    return {name.removeprefix("rnn."): torch.tensor(array) for name, array in model.parameters.items()}


def step(w: dict[str, Any], x: Any, state: list[Any], *, detach_h: bool = False) -> list[Any]:
    h = state[0].detach() if detach_h else state[0]
    a = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ h + w["bias_hh_l0"]
    if len(state) == 1:
        return [torch.tanh(a)]
    i, f, g, o = a.chunk(4)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def read(model: CharModel, codes: np.ndarray, state: list[Any] | None = None, **options: Any) -> list[list[Any]]:
    """The states after each of the codes (T,), as nodes of a graph that keep their gradients; first the initial one."""
    w, zeros = tensors(model), torch.zeros(6, dtype=torch.float64)
    states = [[zeros] * (2 if model.cell == "lstm" else 1) if state is None else [s.detach() for s in state]]
    for code in codes:
        now = step(w, w["embedding.weight"][code], [s.requires_grad_() for s in states[-1]], **options)
        for tensor in now:
            tensor.retain_grad()
        states.append(now)
    return states


def warm(model: CharModel, codes: np.ndarray) -> list[Any]:
    return read(model, codes[: SETTINGS.warm_up])[-1]


def loss(model: CharModel, h: Any, target: int) -> Any:
    w = tensors(model)
    return torch.nn.functional.cross_entropy(w["decoder.weight"] @ h + w["decoder.bias"], torch.tensor(target))


def gradients(model: CharModel, codes: np.ndarray, which: int, at: int, **options: Any) -> np.ndarray:
    """Norms (at + 1,) of the gradient of the loss after step `at` with respect to h (0) or c (1) after each step."""
    states = read(model, codes[SETTINGS.warm_up : -1], warm(model, codes), **options)[1:]
    loss(model, states[at][0], codes[SETTINGS.warm_up + at + 1]).backward()
    return np.array([s[which].grad.norm() if s[which].grad is not None else 0.0 for s in states[: at + 1]])


# --- where


def test_places_are_stretches_of_the_text(case: Case) -> None:
    assert np.array_equal(places(case.held_out, SETTINGS), case.codes)
    assert case.codes[:, 0].tolist() == case.held_out[: len(case.codes)].tolist()
    assert case.codes[:, -1].tolist() == case.held_out[-len(case.codes) :].tolist()


# --- gradients


def test_each_loss_of_its_own_is_itemized(case: Case) -> None:
    want = np.zeros((T, T))
    for t in range(T):
        want[t, : t + 1] = gradients(case.model, case.codes[:, 0], 0, t)
    got = case.found.itemized
    assert got.h.shape == (1, T, T, 1)
    assert_close("itemized.h", got.h[0, :, :, 0], want, rel=TOLERANCE["float64"])


def test_paths_are_those_of_the_last_loss_alone(lstm: Case) -> None:
    total, cells = (
        np.array([gradients(lstm.model, column, 1, T - 1, detach_h=detach)[::-1] for column in lstm.codes.T])
        for detach in (False, True)
    )  # (sequences, T), by distance
    paths = lstm.found.paths
    assert paths is not None
    assert_close("total", paths.total, np.median(total, axis=0)[None], rel=TOLERANCE["float64"])
    assert_close("c_path", paths.c_path, np.median(cells, axis=0)[None], rel=TOLERANCE["float64"])
    assert paths.count.tolist() == [5] * T
    assert paths.through_h[0, 0] == 0
    assert paths.through_h[0, -1] > 0


def test_forget_product_is_of_the_first_few_places(lstm: Case) -> None:
    product, truth = np.zeros((TRAJECTORIES, T + 1)), np.zeros((TRAJECTORIES, T + 1))
    for n, column in enumerate(lstm.codes.T[:TRAJECTORIES]):
        start = warm(lstm.model, column)
        states = read(lstm.model, column[SETTINGS.warm_up : -1], start)
        last = states[-1][1]
        rows = [torch.autograd.grad(last[k], [s[1] for s in states], retain_graph=True) for k in range(6)]
        truth[n] = [torch.stack([row[t] for row in rows]).norm() for t in reversed(range(T + 1))]
        w, running = tensors(lstm.model), torch.ones(6, dtype=torch.float64)
        product[n, 0] = running.norm()
        for back in range(T):
            t = T - 1 - back
            x = w["embedding.weight"][column[SETTINGS.warm_up + t]]
            a = w["weight_ih_l0"] @ x + w["bias_ih_l0"] + w["weight_hh_l0"] @ states[t][0] + w["bias_hh_l0"]
            running = running * torch.sigmoid(a[6:12]).detach()
            product[n, back + 1] = running.norm()
    forget = lstm.found.forget
    assert forget is not None
    assert_close("product", forget.product, np.median(product, axis=0)[None], rel=TOLERANCE["float64"])
    assert_close("truth", forget.truth, np.median(truth, axis=0)[None], rel=TOLERANCE["float64"])


def test_cells_are_those_of_all_places(lstm: Case) -> None:
    rng = np.random.default_rng(SETTINGS.seed)
    found = lstm.found.cells
    assert found is not None
    for which, letter in ((1, "c"), (0, "h")):
        u = rng.standard_normal((SETTINGS.sequences, 6))
        u /= np.linalg.norm(u, axis=1, keepdims=True)
        norms = []
        for direction, column in zip(u, lstm.codes.T, strict=True):
            states = read(lstm.model, column[SETTINGS.warm_up : -1], warm(lstm.model, column))[1:]
            (torch.tensor(direction) @ states[-1][which]).backward()
            norms.append([float(s[which].grad.norm()) if s[which].grad is not None else 0.0 for s in states[::-1]])
        want = np.median(norms, axis=0)
        assert_close(letter, getattr(found, letter).gradient, want, rel=TOLERANCE["float64"])


def test_only_an_lstm_has_two_paths(case: Case) -> None:
    parts = (case.found.paths, case.found.forget, case.found.cells)
    assert all((part is None) == (case.model.cell == "rnn") for part in parts)


# --- the forward pass


def test_exponents_are_those_along_the_text(case: Case) -> None:
    w, letters = tensors(case.model), 2 if case.model.cell == "lstm" else 1
    size, count = 6 * letters, min(EXPONENTS, 6)
    rng = np.random.default_rng(SETTINGS.seed)
    starts = torch.tensor(rng.uniform(-1.0, 1.0, (TRAJECTORIES, size)))
    first = np.linalg.qr(rng.standard_normal((size, count)))[0]
    unmeasured = SETTINGS.warm_up + T // 2
    growth = np.zeros((TRAJECTORIES, SETTINGS.warm_up + T - unmeasured, count))
    for n, (s, column) in enumerate(zip(starts, case.codes.T, strict=False)):
        q = first
        for t, code in enumerate(column[:-1]):

            def forward(s: Any, code: Any = code) -> Any:
                return torch.cat(step(w, w["embedding.weight"][code], list(s.split(6))))

            if t >= SETTINGS.warm_up:
                q, r = np.linalg.qr(torch.autograd.functional.jacobian(forward, s).numpy() @ q)
                if t >= unmeasured:
                    growth[n, t - unmeasured] = np.log(np.abs(np.diag(r)))
            s = forward(s)
    spectrum = case.found.spectrum
    want = np.sort(growth.mean(axis=(0, 1)))[::-1]
    assert (spectrum.size, spectrum.steps, spectrum.warmup) == (size, growth.shape[1], SETTINGS.warm_up)
    assert_close("exponents", spectrum.exponents, want, rel=1e-10)  # logarithms of a running product


def test_jacobians_are_those_of_the_stretch(case: Case) -> None:
    w, column, first = tensors(case.model), case.codes[:, 0], SETTINGS.warm_up
    states = [torch.cat(s).detach() for s in read(case.model, column[first:-1], warm(case.model, column))]
    product = torch.eye(len(states[0]), dtype=torch.float64)
    spans = {one.stop - one.start: one for one in case.found.singular}
    assert sorted(spans) == [1, 2, 4, 8]  # as far as 13 characters reach
    for t, (s, code) in enumerate(zip(states, column[first:], strict=False)):

        def forward(s: Any, code: Any = code) -> Any:
            return torch.cat(step(w, w["embedding.weight"][code], list(s.split(6))))

        product = torch.autograd.functional.jacobian(forward, s) @ product
        if t + 1 in spans:
            want = torch.linalg.svdvals(product).log().numpy()
            assert_close(f"span {t + 1}", spans[t + 1].log[0][:2], want[:2], rel=1e-10)  # the small ones are rounding
        if t + 1 == max(spans):
            break


def test_fixed_points_are_at_the_constant_input(case: Case) -> None:
    w, fixed = tensors(case.model), case.found.fixed
    code = case.model.vocabulary.encode(case.found.constant)[0]
    assert len(fixed) > 0
    for point in torch.tensor(fixed.states):
        after = torch.cat(step(w, w["embedding.weight"][code], list(point.split(6))))
        assert_close("point", after.numpy(), point.numpy(), rel=1e-6)


def test_constant_input_is_the_commonest_character(case: Case) -> None:
    (commonest, _), *_ = Counter(TEXT).most_common(1)
    assert case.found.constant == commonest
    code = case.model.vocabulary.encode(commonest)[0]
    position = case.found.position
    assert np.array_equal(position.x, case.model.embedding.weight[code])
    states = [torch.cat(s).detach().numpy() for s in read(case.model, np.repeat(code, len(position.states) - 1))]
    assert_close("states", position.states, np.array(states), rel=TOLERANCE["float64"])


def test_diagnosis_saw_every_place_once_forwards_and_back(case: Case) -> None:
    found = case.found.diagnosis
    assert (found.passes, found.cell) == (1, {"rnn": "rnn_tanh", "lstm": "lstm"}[case.model.cell])
    assert found.healthy
    figures = found.layers[0, "forward"]["h"]
    states = [torch.stack([s[0] for s in read(case.model, c[SETTINGS.warm_up : -1])[1:]]) for c in case.codes.T]
    h = torch.cat(states).detach().numpy()
    assert figures.shape == (SETTINGS.sequences * T, 6)
    assert (figures.mean, figures.max) == pytest.approx((h.mean(), h.max()), rel=1e-10)
    assert list(found.gradients) == [(0, "forward")]


# --- words


def words_of(model: CharModel, text: str, *, least: int = 3) -> Any:
    """The states after frequent words, by loops alone: words, states, and how many nearest neighbours match."""
    ends: dict[str, list[int]] = {}
    for found in re.finditer(r"[A-Za-z]+", text):
        if len(found[0]) >= least and found.end() >= BEFORE:
            ends.setdefault(found[0].lower(), []).append(found.end())
    frequent = sorted((word for word in ends if len(ends[word]) > 1), key=lambda word: -len(ends[word]))[:WORDS]
    each = min([PLACES, *(len(ends[word]) for word in frequent)])
    codes, words, states = model.vocabulary.encode(text), [], []
    for word in frequent:
        for n in range(each):
            end = ends[word][n * (len(ends[word]) - 1) // (each - 1)]
            assert text[:end].lower().endswith(word)
            words.append(word)
            states.append(read(model, codes[end - BEFORE : end])[-1][0].detach().numpy())
    return tuple(words), np.array(states)


def shares(states: np.ndarray, labels: list[str]) -> tuple[float, float]:
    """How often the nearest other state, and any other state, has the same label."""
    near = chance = 0.0
    for n, state in enumerate(states):
        others = [m for m in range(len(states)) if m != n]
        nearest = min(others, key=lambda m: sum((states[m] - state) ** 2))
        near += labels[nearest] == labels[n]
        chance += sum(labels[m] == labels[n] for m in others) / len(others)
    return near / len(states), chance / len(states)


def test_words_against_a_plain_loop(case: Case) -> None:
    words, states = words_of(case.model, TEXT)
    found = case.found.words
    assert found is not None
    assert found.words == words
    assert len(set(words)) > 3
    assert {word[-1] for word in words} < set("".join(words))
    assert (found.same_word, found.chance_word) == pytest.approx(shares(states, list(words)))
    assert (found.same_letter, found.chance_letter) == pytest.approx(shares(states, [word[-1] for word in words]))
    centred = states - states.mean(axis=0)
    variances = np.sort(np.linalg.eigvalsh(centred.T @ centred))[::-1]
    assert found.projection.explained_variance_ratio == pytest.approx(variances[:2] / variances.sum())
    assert found.projection.points.var(axis=0).sum() == pytest.approx(variances[:2].sum() / len(words))


@pytest.mark.parametrize(
    "text",
    [
        "no it is as if we go to be or so " * 20,  # nothing of three letters
        "x" * BEFORE + " cat 12 ab",  # one word once
        "x" * BEFORE + " cat cat cat " * 3,  # one word alone
        "cat dog cat dog cat dog cat dog  " + " " * 40,  # before there is enough to read
        "x" * BEFORE + " cat x1 dog 3cat_ do",  # none comes again
    ],
)
def test_too_few_words_that_come_again(text: str) -> None:
    model = CharModel("".join(sorted(set(text))), "rnn", 6, 4, rng=np.random.default_rng(0))
    assert inside._words(model, model.vocabulary.encode(text)) is None


def test_no_words_for_states_that_are_all_the_same_or_of_one_unit() -> None:
    codes = CharModel("".join(sorted(set(TEXT))), "rnn", 6, 4).vocabulary.encode(TEXT)
    same = CharModel("".join(sorted(set(TEXT))), "rnn", 6, 4)
    for array in same.parameters.values():
        array[:] = 0
    assert inside._words(same, codes) is None
    assert inside._words(CharModel("".join(sorted(set(TEXT))), "lstm", 1, 4), codes) is None


def test_nearest_of_states_that_are_nearly_the_same(rng: np.random.Generator) -> None:
    near = 0.9 + 1e-9 * rng.standard_normal((9, 64))
    want = [min((m for m in range(9) if m != n), key=lambda m: sum((near[m] - near[n]) ** 2)) for n in range(9)]
    assert inside._nearest(near).tolist() == want
    assert inside._nearest(np.array([[0.0, 0.0], [3.0, 0.0], [5.0, 0.0]])).tolist() == [1, 2, 1]


def test_chance_of_a_label() -> None:
    assert inside._chance(np.array(["a", "a", "a", "b"])) == pytest.approx((3 * 2 / 3 + 0) / 4)
    assert inside._chance(np.array(["a", "b"])) == 0.0
