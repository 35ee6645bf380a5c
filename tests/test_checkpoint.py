"""Checkpoints: what goes in comes out to the bit, damage is seen, an old file goes when the new one is whole."""

from __future__ import annotations

import json
import math
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import checkpoint
from scratchrnn._files import write_atomically
from scratchrnn.checkpoint import (
    Checkpoints,
    generator_state,
    generator_states,
    generators,
    set_generator_state,
    set_generator_states,
)


def same(got: Any, want: Any) -> bool:
    """Equal in value, type, dtype and every bit, whatever the nesting."""
    if isinstance(want, np.ndarray):
        return (got.dtype, got.shape, got.tobytes()) == (want.dtype, want.shape, want.tobytes())
    if isinstance(want, dict):
        return type(got) is dict and list(got) == list(want) and all(same(got[k], want[k]) for k in want)
    if isinstance(want, list):
        return len(got) == len(want) and all(map(same, got, want))
    if isinstance(want, float):
        return type(got) is float and (struct.pack("d", got) == struct.pack("d", want))
    return type(got) is type(want) and got == want


STATE: dict[str, Any] = {
    "none": None, "yes": True, "no": False, "zero": 0, "empty": {},
    "text": 'é "\n\x00 \U0001f40d', "list": [1, [2.5, None], {"a": "b"}],
    "wide": 2**127 + 12345678901234567890123456789, "negative": -(2**64),
    "floats": [0.1, -0.0, 5e-324, 1.7976931348623157e308, math.inf, -math.inf, math.nan, 1 / 3],
    "nested": {"weight.with.dots": np.arange(6.0).reshape(2, 3), "inner": {"x": np.float32([[1], [math.nan], [-0.0]])}},
    "scalar": np.array(7.5), "nothing": np.zeros((0, 3), np.float32), "flags": np.array([True, False]),
    "words": np.array([0, 2**32 - 1], np.uint32), "wide words": np.array([2**64 - 1], np.uint64),
}  # fmt: skip


def test_everything_comes_back_to_the_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a.safetensors", STATE)
    assert same(checkpoint.load(tmp_path / "a.safetensors"), STATE)
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("kind", ["int8", "int16", "int64", "uint8", "uint16", "float32", "float64"])
def test_dtypes_and_strides(kind: str, rng: np.random.Generator, tmp_path: Path) -> None:
    array = (rng.standard_normal((5, 7, 3)) * 40).astype(kind)
    for view in (array, array[::2, ::-1], array.T, array[:1, 0, 0].reshape(()), np.asfortranarray(array)):
        before = view.copy()
        checkpoint.save(tmp_path / "a.safetensors", {"x": view})
        assert same(checkpoint.load(tmp_path / "a.safetensors")["x"], np.array(before, order="C"))
        assert same(view.copy(), before)


def test_it_is_a_safetensors_file_with_dotted_names(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    checkpoint.save(tmp_path / "a.safetensors", {"optimizer": {"exp_avg.rnn.weight": np.ones(3), "step": 4}})
    assert list(load_file(tmp_path / "a.safetensors")) == ["optimizer.exp_avg.rnn.weight"]


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"a": {"b": (1, 2)}},
            r"a\.b: expected an array, dict, list, None, bool, int, float or str; got tuple \(1, 2\)",
        ),
        ({"a": [np.float64(1)]}, r"a\.0: expected .*; got float64"),
        ({"a": {1: 2}}, r"a: expected names that do not begin with \$ as keys; got int 1"),
        ({"a": {"$array": "b"}}, r"a: expected names .*; got str '\$array'"),
        ({"a": np.array(["x"])}, "a: expected an array of bool, int8, .*; got dtype <U1"),
        ({"a": np.ones(2, ">f8")}, "a: expected an array of .*; got dtype >f8"),
        ({"a": np.array([None])}, "a: expected an array of .*; got dtype object"),
        ({"a": object}, "a: expected an array"),
        ([1], "state: expected a dict; got list"),
    ],
)
def test_refuses_what_would_not_come_back(state: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=f"^{message}"):
        checkpoint.save(tmp_path / "a", state)
    assert list(tmp_path.iterdir()) == []


def test_two_arrays_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^a\.b\.c: two arrays of the state have this dotted name$"):
        checkpoint.save(tmp_path / "a", {"a": {"b.c": np.ones(1)}, "a.b": {"c": np.ones(1)}})


def test_any_damage_is_seen(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, {"x": rng.standard_normal(5), "y": np.arange(3), "n": 5, "t": [0.25, "text"]})
    whole = path.read_bytes()
    for at in [*range(0, len(whole), 2), *rng.integers(0, len(whole), 100).tolist()]:
        damaged = bytearray(whole)
        damaged[at] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"a\.safetensors: "):
            checkpoint.load(path)
    for length in range(0, len(whole), 5):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match=r"a\.safetensors: "):
            checkpoint.load(path)


def test_other_files(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        checkpoint.load(path)
    srnn.RNN(2, 3, rng=rng).save(path)
    with pytest.raises(ValueError, match="expected a checkpoint; this safetensors file has no scratchrnn-checkpoint"):
        checkpoint.load(path)
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    checkpoint.save(path, {})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="expected a checkpoint of version 1; got version 2"):
        checkpoint.load(path)


# --- generators


@pytest.mark.parametrize("kind", ["PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64"])
def test_numpy_generators_go_on(kind: str, tmp_path: Path) -> None:
    def new(seed: int) -> np.random.Generator:
        return np.random.Generator(getattr(np.random, kind)(seed))

    rng, other = new(1), new(2)
    rng.standard_normal(11), rng.integers(0, 5, 3, dtype=np.uint32)  # half a 64-bit draw is left
    checkpoint.save(tmp_path / "a", generator_state(rng))
    want = rng.integers(0, 2**32, 9, dtype=np.uint32), rng.standard_normal(5)
    set_generator_state(other, checkpoint.load(tmp_path / "a"))
    assert same([other.integers(0, 2**32, 9, dtype=np.uint32), other.standard_normal(5)], list(want))


def test_torch_generators_go_on(tmp_path: Path) -> None:
    rng, other = srnn.rng.torch_manual_seed(3), srnn.rng.torch_manual_seed(4)
    for draws in (0, 3, 700):  # 3 normals leave half a pair
        rng.randn(draws)
        checkpoint.save(tmp_path / "a", {"rng": generator_state(rng)})
        want = rng.randn(5)
        set_generator_state(other, checkpoint.load(tmp_path / "a")["rng"])
        assert same(other.randn(5), want)


def test_a_state_of_another_kind_of_generator() -> None:
    rng, torch = np.random.default_rng(0), srnn.rng.torch_manual_seed(0)
    with pytest.raises(ValueError, match="expected one of a PCG64 generator; got one of 'torch'"):
        set_generator_state(rng, generator_state(torch))
    with pytest.raises(ValueError, match="expected one of a torch generator; got one of 'PCG64'"):
        set_generator_state(torch, generator_state(rng))
    with pytest.raises(ValueError, match=r"generators: expected the states of \['a'\]; got those of \['b'\]"):
        set_generator_states({"a": rng}, generator_states({"b": rng}))


def test_generators_of_a_model_and_its_parts() -> None:
    shared = np.random.default_rng(0)
    model = srnn.models.CharModel("ab", "lstm", 3, 2, rng=shared)
    assert generators(model) == {"rnn.rng": shared}
    model.rnn.rng = other = np.random.default_rng(1)
    model.dropout = srnn.Dropout(0.5, rng=shared)
    assert generators(model) == {"rnn.rng": other, "dropout.rng": shared}


# --- a folder of them


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_the_last_few_are_kept(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c", keep=2)
    assert kept.newest() is None
    for step in (0, 7, 100, 123456789):
        path = kept.save(step, {"step": step})
        assert path == tmp_path / "c" / f"step-{step:08d}.safetensors"
    assert names(tmp_path / "c") == ["step-00000100.safetensors", "step-123456789.safetensors"]
    assert kept.newest() == (123456789, {"step": 123456789})
    assert list(kept.paths()) == [100, 123456789]


def test_an_old_one_goes_only_when_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Checkpoints(tmp_path, keep=1)
    kept.save(1, {"n": 1})
    seen: list[list[str]] = []
    replace = os.replace

    def spy(source: Any, target: Any) -> None:
        seen.append(names(tmp_path))
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    kept.save(2, {"n": 2})
    assert "step-00000001.safetensors" in seen[0]
    assert names(tmp_path) == ["step-00000002.safetensors"]

    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        kept.save(3, {"n": 3})
    assert kept.newest() == (2, {"n": 2})
    assert names(tmp_path) == ["step-00000002.safetensors"]


def test_checkpoints_of_a_course_that_was_left_go(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, keep=2)
    for step in (10, 20, 30):
        kept.save(step, {})
    kept.save(25, {})
    assert list(kept.paths()) == [20, 25]


def test_leftovers_of_killed_runs(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "c")
    kept.clean()  # no folder yet
    kept.save(5, {"n": 5})
    stale = tmp_path / "c" / ".step-00000009.safetensors.0123abcd.tmp"
    others = [
        ".step-00000009.safetensors.0123abcd.tmp.txt",
        ".mine.safetensors.0123abcd.tmp",
        "step-9.safetensors",
        "notes",
    ]
    for name in (stale.name, *others):
        (tmp_path / "c" / name).write_bytes(b"half")
    newest = kept.newest()
    assert newest is not None
    assert newest[0] == 5
    kept.clean()
    assert names(tmp_path / "c") == sorted([*others, "step-00000005.safetensors"])


def test_stale_names_are_those_that_writing_makes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)  # as if killed
    with pytest.raises(KeyboardInterrupt):
        Checkpoints(tmp_path).save(5, {"n": 5})
    monkeypatch.undo()
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].endswith(".tmp")
    Checkpoints(tmp_path).clean()
    assert names(tmp_path) == []


def test_a_damaged_newest_one_is_passed_over_aloud(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    for step in (1, 2, 3):
        kept.save(step, {"step": step, "x": np.arange(4.0)})
    paths = kept.paths()
    paths[3].write_bytes(paths[3].read_bytes()[:-5])
    with pytest.warns(RuntimeWarning, match=r"step-00000003\.safetensors: .*; going back to step 2$"):
        newest = kept.newest()
    assert newest is not None
    assert newest[0] == newest[1]["step"] == 2
    for path in paths.values():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no checkpoint is whole: .*00000003.*00000002.*00000001"):
        kept.newest()


def test_writing_flushes_file_and_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[bool] = []
    fsync = os.fsync

    def spy(handle: int) -> None:
        flushed.append((tmp_path / "a").exists())
        fsync(handle)

    monkeypatch.setattr(os, "fsync", spy)
    write_atomically(tmp_path / "a", b"x")
    assert flushed == [False, True]  # the data before the new name, the new name after


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="keep: expected an integer of at least 1; got 0"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(ValueError, match="step: expected an integer of at least 0; got -1"):
        Checkpoints(tmp_path).save(-1, {})


def test_nothing_is_executed_on_load(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "a", {"text": "__import__('os').abort()", "n": [1]})
    raw = (tmp_path / "a").read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    entry = json.loads(header["__metadata__"]["scratchrnn-checkpoint"])
    assert json.loads(entry["state"]) == {"text": "__import__('os').abort()", "n": [1]}  # JSON all the way down
