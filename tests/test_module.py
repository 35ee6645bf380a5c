"""Parameters in and out: attributes, state dicts, files; all or nothing."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import scratchrnn as srnn
from scratchrnn import _files

LAYERS = [
    lambda rng: srnn.LSTM(3, 6, 2, bidirectional=True, proj_size=4, batch_first=True, dropout=0.3, rng=rng),
    lambda rng: srnn.RNN(3, 6, nonlinearity="relu", bias=False, dtype=np.float64, rng=rng),
    lambda rng: srnn.LSTMCell(3, 6, dtype=np.float64, rng=rng),
    lambda rng: srnn.RNNCell(3, 6, nonlinearity="relu", rng=rng),
    lambda rng: srnn.Linear(3, 6, bias=False, rng=rng),
    lambda rng: srnn.Embedding(3, 6, padding_idx=1, rng=rng),
]


@pytest.mark.parametrize("make", LAYERS)
def test_save_and_load(make: Any, rng: np.random.Generator, tmp_path: Path) -> None:
    layer = make(rng)
    path = tmp_path / "m.safetensors"
    layer.save(path)
    again = type(layer).load(path)
    assert again.config() == layer.config()
    assert repr(again) == repr(layer)
    assert list(again.parameters) == list(layer.parameters)
    for name, w in layer.parameters.items():
        np.testing.assert_array_equal(again.parameters[name], w)
        assert again.parameters[name].dtype == w.dtype == layer.dtype
        again.parameters[name][...] = 1  # writable
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_repr_is_the_construction() -> None:
    lstm = srnn.LSTM(3, 6, 2, proj_size=4, dtype=np.float64)
    assert repr(lstm) == (
        "LSTM(input_size=3, hidden_size=6, num_layers=2, bias=True, batch_first=False, dropout=0.0, "
        "bidirectional=False, proj_size=4, dtype=float64)"
    )


def test_attributes_are_the_parameters() -> None:
    lstm = srnn.LSTM(3, 6)
    assert lstm.weight_hh_l0 is lstm.parameters["weight_hh_l0"]
    live = lstm.weight_hh_l0
    lstm.weight_hh_l0 = np.ones((24, 6), np.float32)
    assert lstm.weight_hh_l0 is live
    assert (live == 1).all()
    with pytest.raises(ValueError, match=r"weight_hh_l0: expected shape \(24, 6\); got \(6, 24\)"):
        lstm.weight_hh_l0 = np.ones((6, 24), np.float32)
    with pytest.raises(TypeError, match="weight_hh_l0: expected dtype float32; got float64"):
        lstm.weight_hh_l0 = np.ones((24, 6))
    with pytest.raises(AttributeError, match="'LSTM' object has no attribute 'weight_hr_l0'"):
        _ = lstm.weight_hr_l0


def test_load_state_dict_is_all_or_nothing(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, rng=rng)
    before = lstm.state_dict()
    good = {name: w + 1 for name, w in before.items()}
    bad: list[tuple[Any, type[Exception], str]] = [
        ({n: w for n, w in good.items() if n != "bias_hh_l0"}, ValueError, "missing bias_hh_l0"),
        (good | {"bias_hh_l1": good["bias_hh_l0"]}, ValueError, "unexpected bias_hh_l1"),
        (good | {"bias_hh_l0": np.ones(6, np.float32)}, ValueError, r"bias_hh_l0: expected shape \(24,\) for LSTM"),
        (good | {"bias_hh_l0": np.ones(24)}, TypeError, "bias_hh_l0: expected dtype float32; got float64"),
        (list(good.values()), TypeError, "state: expected a mapping"),
    ]
    for state, kind, message in bad:
        with pytest.raises(kind, match=message):
            lstm.load_state_dict(state)
        for name, w in before.items():
            np.testing.assert_array_equal(lstm.parameters[name], w)
    lstm.load_state_dict(good)
    good["bias_hh_l0"][...] = 99  # copied, not kept
    np.testing.assert_array_equal(lstm.bias_hh_l0, before["bias_hh_l0"] + 1)


def test_bad_files(tmp_path: Path) -> None:
    lstm = srnn.LSTM(3, 6)
    path = tmp_path / "m.safetensors"
    with pytest.raises(FileNotFoundError, match="no such file"):
        srnn.LSTM.load(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(ValueError, match=r"m.safetensors: expected a safetensors file"):
        srnn.LSTM.load(path)
    save_file(lstm.state_dict(), path)
    with pytest.raises(ValueError, match=r"no scratchrnn metadata \(for a bare state dict"):
        srnn.LSTM.load(path)
    lstm.save(path)
    whole = path.read_bytes()
    with pytest.raises(ValueError, match="expected a saved RNN; got a saved LSTM"):
        srnn.RNN.load(path)
    for cut in (0, 4, 40, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="expected a safetensors file"):
            srnn.LSTM.load(path)
    path.write_bytes(whole)
    tensors = load_file(path)
    config = {"layer": "LSTM", "config": lstm.config()}
    save_file({n: w for n, w in tensors.items() if n != "bias_ih_l0"}, path, {"scratchrnn": json.dumps(config)})
    with pytest.raises(ValueError, match=r"m.safetensors: state: .*missing bias_ih_l0"):
        srnn.LSTM.load(path)
    for metadata in ("{", "[]", '{"layer": "LSTM"}', '{"layer": "LSTM", "config": 3}'):
        save_file(tensors, path, {"scratchrnn": metadata})
        with pytest.raises(ValueError, match="expected scratchrnn metadata in JSON"):
            srnn.LSTM.load(path)
    config["config"] = {"input_size": 3, "hidden_size": 6, "gates": 5}
    save_file(tensors, path, {"scratchrnn": json.dumps(config)})
    with pytest.raises(ValueError, match=r"m.safetensors: .*gates"):
        srnn.LSTM.load(path)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.safetensors"
    lstm = srnn.LSTM(3, 6)
    lstm.save(path)
    old = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(_files.os, "fsync", fail)
    lstm.bias_ih_l0[...] = 0
    with pytest.raises(OSError, match="disk full"):
        lstm.save(path)
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["m.safetensors"]


def test_written_files_follow_the_umask_and_what_was_there(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        _files.write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(old)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "link").symlink_to("a")
    inode = (tmp_path / "a").stat().st_ino
    _files.write_atomically(tmp_path / "link", b"y")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "a").read_bytes() == b"y"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "a").stat().st_ino != inode  # renamed into place, not written over
    with pytest.raises(FileNotFoundError, match=r"x/a: there is no folder .*x"):
        _files.write_atomically(tmp_path / "x" / "a", b"z")


def test_a_failed_write_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")  # as the system does: without a name

    monkeypatch.setattr(_files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        _files.write_atomically(tmp_path / "a", b"x")
    assert caught.value.filename == str(tmp_path / "a")


def test_bytes_are_written_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows asks for a flag for that."""
    flags: list[int] = []
    monkeypatch.setattr(_files.os, "O_BINARY", os.O_SYNC, raising=False)
    open_ = os.open

    def spy(path: Any, flag: int, *mode: int) -> int:
        flags.append(flag)
        return open_(path, flag, *mode)

    monkeypatch.setattr(_files.os, "open", spy)
    _files.write_atomically(tmp_path / "a", b"x")
    assert flags[0] & os.O_SYNC == os.O_SYNC


def test_a_layers_own_arrays_may_be_loaded_into_it(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(3, 6, bidirectional=True, rng=rng)
    before, live = lstm.state_dict(), dict(lstm.parameters)

    def other(name: str) -> str:
        return name.removesuffix("_reverse") if name.endswith("_reverse") else f"{name}_reverse"

    # input sizes of the two directions are equal, so all shapes fit
    lstm.load_state_dict({other(name): w for name, w in lstm.parameters.items()})
    for name, w in before.items():
        np.testing.assert_array_equal(lstm.parameters[other(name)], w)
        assert lstm.parameters[name] is live[name]  # optimizers hold these arrays
    lstm.bias_hh_l0.flags.writeable = False
    now = lstm.state_dict()
    with pytest.raises(ValueError, match="bias_hh_l0: expected a parameter that can be written"):
        lstm.load_state_dict(before)
    for name, w in now.items():
        np.testing.assert_array_equal(lstm.parameters[name], w)


def test_an_array_under_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="Linear has no parameter bias; it has weight"):
        srnn.Linear(3, 6, bias=False).bias = np.zeros(6, np.float32)
    with pytest.raises(AttributeError, match="LSTM has no parameter weight_hh_l1"):
        srnn.LSTM(3, 6).weight_hh_l1 = np.zeros((24, 6), np.float32)
    with pytest.raises(IsADirectoryError, match="expected a file; this is a folder"):
        srnn.LSTM.load(".")
