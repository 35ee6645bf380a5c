"""What all layers share: named parameters, and moving them in and out whole."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from scratchrnn._files import write_atomically
from scratchrnn._typing import DType, FloatArray
from scratchrnn._validate import check_array, speaks_protocol, take_array
from scratchrnn.backends import memory

FORMAT = "scratchrnn"  # key of the safetensors metadata


class Module(ABC):
    """A layer: parameters by name, a configuration, and where it drops out a generator; no other state.

    Attributes
    ----------
    parameters : dict of ndarray
        The live arrays, under torch's names and in torch's order; optimizers update them in place. Each is also an
        attribute: `lstm.weight_hh_l0`. Assigning to that attribute copies into the array.
    dtype : numpy dtype
        float32 or float64.
    """

    parameters: dict[str, FloatArray]
    dtype: DType
    _parameter_shapes: dict[str, tuple[int, ...]]

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """Arguments that construct a layer of this kind and size, without backend and rng."""

    @classmethod
    def _of_config(cls, config: dict[str, Any]) -> Self:
        """Build what `config` describes; where its values are not the constructor's own, they are turned into them."""
        return cls(**config)

    def _allocate(self, shapes: Mapping[str, tuple[int, ...]], dtype: DType) -> None:
        object.__setattr__(self, "dtype", dtype)
        object.__setattr__(self, "_parameter_shapes", dict(shapes))
        object.__setattr__(self, "parameters", {name: np.zeros(shape, dtype) for name, shape in shapes.items()})

    def _check_parameters(self) -> None:
        """Raise unless every parameter is as it was allocated: the dict is open, and nothing in it is broadcast."""
        parameters, dtype = self.parameters, self.dtype
        for name, shape in self._parameter_shapes.items():
            array = parameters[name]
            # check_array's first question, asked here since the call takes longer than the answer
            if not (type(array) is np.ndarray and array.dtype is dtype and array.shape == shape):
                check_array(name, array, shape=shape, dtype=dtype)

    def __getattr__(self, name: str) -> Any:
        # reached only for names that are no ordinary attribute
        parameters = self.__dict__.get("parameters", {})
        if name in parameters:
            return parameters[name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __setattr__(self, name: str, value: Any) -> None:
        parameters = self.__dict__.get("parameters", {})
        if name in parameters:
            target = parameters[name]
            target[...] = take_array(name, value, shape=target.shape, dtype=target.dtype)
        elif isinstance(value, np.ndarray) or speaks_protocol(value):
            raise AttributeError(f"{type(self).__name__} has no parameter {name}; it has {', '.join(parameters)}")
        else:
            object.__setattr__(self, name, value)

    def __repr__(self) -> str:
        arguments = dict(self.config())
        dtype = arguments.pop("dtype", self.dtype.name)
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in arguments.items())}, dtype={dtype})"

    def state_dict(self) -> dict[str, FloatArray]:
        """Copies of all parameters, by name."""
        return {name: memory.copy(array) for name, array in self.parameters.items()}

    def load_state_dict(self, state: Mapping[str, FloatArray]) -> None:
        """Copy parameters in; all of them or, if anything does not fit, none.

        Raises
        ------
        ValueError
            A name is missing or extra, or a shape differs.
        TypeError
            A value is no array of this layer's dtype.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a mapping of names to arrays; got {type(state).__name__}")
        missing = [name for name in self.parameters if name not in state]
        extra = [name for name in state if name not in self.parameters]
        if missing or extra:
            parts = [f"missing {', '.join(missing)}"] if missing else []
            parts += [f"unexpected {', '.join(map(str, extra))}"] if extra else []
            raise ValueError(f"state: expected exactly the parameters of {self!r}; {'; '.join(parts)}")
        values = {}
        for name, target in self.parameters.items():
            array = take_array(name, state[name], shape=target.shape, dtype=target.dtype, why=f"for {self!r}")
            values[name] = array.copy()  # it may be this layer's own
            if not target.flags.writeable:
                raise ValueError(f"{name}: expected a parameter that can be written; this one is read-only")
        for name, target in self.parameters.items():
            target[...] = values[name]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the parameters as a safetensors file, with the configuration in its metadata; whole or not at all."""
        from safetensors.numpy import save

        metadata = {FORMAT: json.dumps({"layer": type(self).__name__, "config": self.config()})}
        write_atomically(path, save(self.state_dict(), metadata))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Build the layer that `save` wrote.

        Raises
        ------
        ValueError
            Not a safetensors file, not written by `save` of this class, or its tensors do not fit its configuration.
        """
        tensors, metadata = read_safetensors(path)
        if FORMAT not in metadata:
            raise ValueError(
                f"{path}: expected a file written by {cls.__name__}.save; this one has no scratchrnn metadata "
                f"(for a bare state dict, build the layer and use load_state_dict)"
            )
        try:
            entry = json.loads(metadata[FORMAT])
            written_by, config = entry["layer"], dict(entry["config"])
        except (ValueError, TypeError, KeyError):
            raise ValueError(f"{path}: expected scratchrnn metadata in JSON; got {metadata[FORMAT]!r}") from None
        if written_by != cls.__name__:
            raise ValueError(f"{path}: expected a saved {cls.__name__}; got a saved {written_by}")
        try:
            layer = cls._of_config(config)
            layer.load_state_dict(tensors)
        except (ValueError, TypeError, MemoryError) as error:
            raise ValueError(f"{path}: {error}") from None
        return layer


def check_trace(trace: Any, kind: type, layer: Module, trace_of: Callable[[Any], bool] = lambda _: True) -> None:
    """Raise unless `trace` is of this kind, and of a layer like this one as far as `trace_of` can tell."""
    if not isinstance(trace, kind):
        raise TypeError(f"trace: expected what forward of {layer!r} returned; got {type(trace).__name__}")
    if not trace_of(trace):
        raise ValueError(f"trace: expected one of {layer!r}; got one of a layer of another size or dtype")


def read_safetensors(
    path: str | os.PathLike[str], choose: Callable[[list[str]], Iterable[str]] = iter
) -> tuple[dict[str, FloatArray], dict[str, str]]:
    """Tensors of a safetensors file, and its metadata.

    Parameters
    ----------
    choose : function, optional
        Of all names those to read; what NumPy has no dtype for (bfloat16) may stand beside them.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        It is not a safetensors file, or one of the tensors cannot be read; the message names it. What `choose` raises
        gets the file's name.
    """
    from safetensors import SafetensorError, safe_open

    if Path(path).is_dir():
        raise IsADirectoryError(f"{path}: expected a file; this is a folder")
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata, names = dict(file.metadata() or {}), list(file.keys())
            return {name: _read(file, name) for name in choose(names)}, metadata
    except SafetensorError as error:
        raise ValueError(f"{path}: expected a safetensors file of float32 or float64 tensors; {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(file: Any, name: str) -> FloatArray:
    """One tensor; a dtype that NumPy has not is one of these errors, or is read where ml_dtypes was imported."""
    try:
        array: FloatArray = file.get_tensor(name)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"{name}: expected dtype float32 or float64; {error}") from None
    if array.dtype.isbuiltin != 1:
        raise ValueError(f"{name}: expected dtype float32 or float64; got {array.dtype}")
    return array
