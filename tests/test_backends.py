"""The registry, and what every backend must offer."""

from __future__ import annotations

import dataclasses
import inspect
import threading

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.backends import Backend, BackendUnavailableError


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> str:
    record = Backend("broken", ("cuda",), "never runs", "broken", lambda: "no driver")
    monkeypatch.setitem(backends.REGISTRY, "broken", record)
    return "broken"


def test_records_are_frozen_and_checked() -> None:
    record = backends.REGISTRY["numpy"]
    with pytest.raises(dataclasses.FrozenInstanceError):
        record.name = "other"  # type: ignore[misc]
    with pytest.raises(ValueError, match="name: expected a Python identifier; got 'a b'"):
        Backend("a b", ("cpu",), "", "a")
    for devices in ((), ("tpu",)):
        with pytest.raises(ValueError, match="devices: expected some of 'cpu', 'cuda'"):
            Backend("a", devices, "", "a")


def test_unknown_and_unavailable(broken: str) -> None:
    assert broken not in backends.available()
    assert {r.name for r in backends.known()} == {"numba", "numpy", "cuda", "broken"}
    x = np.zeros((7, 5, 3), np.float32)
    with pytest.raises(BackendUnavailableError, match="backend 'broken' cannot run here: no driver"):
        srnn.LSTM(3, 6, backend=broken)(x)
    with pytest.raises(BackendUnavailableError, match="no driver"), srnn.use_backend(broken):
        pytest.fail("the block must not run")
    for call in (backends.load, backends.check_backend, lambda name: srnn.use_backend(name).__enter__()):
        with pytest.raises(ValueError, match="backend: unknown name 'cudda'; known: broken, cuda, numba, numpy"):
            call("cudda")
    assert backends.current() == backends.DEFAULT


def test_the_choice_of_a_layer_beats_the_context(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(backends.REGISTRY, "broken", dataclasses.replace(backends.REGISTRY["numpy"], name="broken"))
    x = np.zeros((7, 5, 3), np.float32)
    with srnn.use_backend(broken):
        assert backends.current() == broken
        assert srnn.LSTM(3, 6).forward(x).backend == broken
        assert srnn.LSTM(3, 6, backend="numpy").forward(x).backend == "numpy"
        seen: list[str] = []
        thread = threading.Thread(target=lambda: seen.append(backends.current()))
        thread.start()
        thread.join()
        assert seen == [backends.DEFAULT]
        with srnn.use_backend("numpy"):
            assert backends.current() == "numpy"
        assert backends.current() == broken
    assert backends.current() == backends.DEFAULT


FUNCTIONS = {
    "rnn": ("infer", "forward", "backward", "preactivations"),
    "lstm": ("infer", "forward", "backward", "preactivations", "activate"),
    "linear": ("forward", "backward"),
}


@pytest.mark.parametrize("module", FUNCTIONS)
@pytest.mark.parametrize("name", [name for name in backends.REGISTRY if name in backends.available()])
def test_every_backend_has_the_definitions_signatures(name: str, module: str) -> None:
    definition, other = getattr(backends.load("numpy"), module), getattr(backends.load(name), module)
    for function in FUNCTIONS[module]:
        want = inspect.signature(getattr(definition, function))
        got = inspect.signature(getattr(other, function))
        assert list(got.parameters) == list(want.parameters), f"{name}.{module}.{function}"


def test_a_backend_has_no_module_that_this_file_forgot() -> None:
    assert {field.name for field in dataclasses.fields(backends.Kernels)} == {"name", "arrays", *FUNCTIONS}


# --- tangents, which a backend may have


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("name", [name for name in backends.available() if backends.REGISTRY[name].has_tangents])
def test_tangents_have_the_definitions_signatures(name: str, cell: str) -> None:
    definition, other = (getattr(backends.load(n).tangent, cell) for n in ("numpy", name))
    for function in ("forward", "backward"):
        want, got = (list(inspect.signature(getattr(m, function)).parameters) for m in (definition, other))
        assert got == want, f"{name}.{cell}_tangent.{function}"


def test_a_backend_without_tangents_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    bare = dataclasses.replace(backends.REGISTRY["numpy"], name="bare", folder="cuda")
    monkeypatch.setitem(backends.REGISTRY, "bare", bare)
    assert not bare.has_tangents
    kernels = dataclasses.replace(backends.load("numpy"), name="bare")
    with pytest.raises(NotImplementedError, match=r"backend 'bare' has no tangents, .*; these have: .*'numpy'"):
        _ = kernels.tangent
