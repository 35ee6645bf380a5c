"""A model from memory or from a file, whole and valid, or a clear error."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any

from scratchrnn._validate import describe

LEAST_OPSET = 7  # of RNN and LSTM as they are now: before it, inputs were broadcast by an attribute


def require_onnx() -> Any:
    """Return the module onnx, with its checker.

    Raises
    ------
    ImportError
        It is not installed; the message says what to install.
    """
    try:
        for part in ("helper", "numpy_helper", "checker"):
            importlib.import_module(f"onnx.{part}")
        return importlib.import_module("onnx")
    except ImportError as error:
        raise ImportError(
            f'onnx cannot be imported ({error}): pip install "scratchrnn[onnx]", or onnx from 1.16 on'
        ) from None


def read_model(source: Any) -> Any:
    """The ModelProto that `source` is or whose file it names, past onnx.checker.

    Raises
    ------
    FileNotFoundError, IsADirectoryError
        No such file.
    ValueError
        Not an ONNX model, or not a valid one; of a file, the message names it.
    TypeError
        Neither a ModelProto nor a path.
    """
    onnx = require_onnx()
    if isinstance(source, onnx.ModelProto):
        return _checked(onnx, source)
    if not isinstance(source, (str, os.PathLike)):
        raise TypeError(f"model: expected an onnx.ModelProto or the path of a file; got {describe(source)}")
    path = Path(source)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: expected a file; this is a folder")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    unreadable = importlib.import_module("google.protobuf.message").Error
    try:
        # external data, where there is any, lies beside the file
        return _checked(onnx, onnx.load_model(path, format="protobuf"))
    except (unreadable, ValueError, TypeError, OSError, onnx.checker.ValidationError) as error:
        raise ValueError(f"{path}: expected an ONNX model; {error}") from None


def _checked(onnx: Any, model: Any) -> Any:
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        raise ValueError(f"onnx.checker refuses it: {str(error).strip()}") from None
    return model


def opset_of(model: Any) -> int:
    """The version of the standard operators that a model uses.

    Raises
    ------
    ValueError
        It uses none, or one that is too old.
    """
    versions = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not versions:
        raise ValueError("opset_import: expected a version of the standard operators; got none")
    if versions[0] < LEAST_OPSET:
        raise ValueError(f"opset_import: expected version {LEAST_OPSET} or newer; got {versions[0]}")
    return int(versions[0])
