"""The frame of every optimizer: checked parameters, one step over all of them, a state that can be saved."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from scratchrnn._typing import FloatArray
from scratchrnn._validate import check_array, check_int, check_real, describe
from scratchrnn.optim._arrays import check_arrays, check_writable


class Optimizer(ABC):
    """Updates named arrays in place from gradients of the same names.

    A subclass lists its constructor's numbers in `_numbers`, makes its buffers with `_add_buffer`, and
    updates one parameter in `_update`. All parameters share one learning rate; for several rates make
    several optimizers.

    Attributes
    ----------
    parameters : dict of str to ndarray
        The live arrays given at construction.
    lr : float
        Learning rate, may be set between steps, at least 0.
    step_count : int
        Number of steps done.
    """

    _numbers: ClassVar[tuple[str, ...]]
    weight_decay: float

    def __init__(self, parameters: Mapping[str, FloatArray], lr: float) -> None:
        self.parameters = check_arrays("parameters", parameters, in_place=True)
        if not self.parameters:
            raise ValueError("parameters: expected at least one array; got an empty dict")
        self.lr = lr
        self.step_count = 0
        self._buffers: dict[str, dict[str, FloatArray]] = {}
        largest = max(self.parameters.values(), key=np.size)
        self._work = (np.empty(largest.size, largest.dtype), np.empty(largest.size, largest.dtype))

    @property
    def lr(self) -> float:
        """Learning rate."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = check_real("lr", value, least=0.0)

    def step(self, gradients: Mapping[str, FloatArray]) -> None:
        """Update every parameter once, in place.

        Parameters
        ----------
        gradients : dict of str to ndarray
            Exactly the parameters' names, shapes and dtype. Not changed.

        Raises
        ------
        TypeError, ValueError
            A gradient is missing, unexpected, or of another shape or dtype. All checks come before the
            first change, so nothing is half-updated.
        """
        self._check_gradients(gradients)
        self.step_count += 1
        with np.errstate(all="ignore"):  # NaN and inf pass through, as in torch
            for name, parameter in self.parameters.items():
                self._update(name, parameter, gradients[name])

    @abstractmethod
    def _update(self, name: str, parameter: FloatArray, gradient: FloatArray) -> None:
        """Update one parameter and its buffers; `step_count` already counts this step."""

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that a resumed run needs, the parameters excepted.

        Returns
        -------
        dict
            "step", the constructor's numbers under their own names, and one array per buffer and parameter
            under "<buffer>.<parameter>", as in "exp_avg.weight_ih_l0".
        """
        state: dict[str, Any] = {"step": self.step_count}
        state.update((number, getattr(self, number)) for number in self._numbers)
        for buffer, arrays in self._buffers.items():
            state.update((f"{buffer}.{name}", array.copy()) for name, array in arrays.items())
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict()` of an optimizer of this kind over the same names and shapes.

        As in torch the numbers of `state` replace those given at construction, `lr` included. Numbers may
        also come as 0-d arrays, the form in which `numpy.savez` and safetensors return them.

        Raises
        ------
        TypeError, ValueError
            A key is missing or unexpected, a number out of range, or an array of another shape or dtype.
            Then this optimizer is left as it was.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: expected a dict; got {describe(state)}")
        missing = [key for key in ("step", *self._numbers) if key not in state]
        if missing:
            raise ValueError(f"state: expected a state of {type(self).__name__}; missing {missing}")
        numbers = {key: _number(state[key]) for key in self._numbers}
        loaded = type(self)(self.parameters, **self._arguments(numbers))
        loaded.step_count = check_int("step", _number(state["step"]), least=0)
        _check_names("state", state, loaded.state_dict())
        for buffer, arrays in loaded._buffers.items():
            for name, array in arrays.items():
                key = f"{buffer}.{name}"
                why = f"of parameter {name!r}"
                np.copyto(array, check_array(key, state[key], shape=array.shape, dtype=array.dtype, why=why))
        self.__dict__.update(loaded.__dict__)

    def _arguments(self, numbers: dict[str, Any]) -> dict[str, Any]:
        """Turn the numbers of a state into the constructor's arguments."""
        return numbers

    def _add_buffer(self, buffer: str, fill: float = 0.0) -> None:
        """Give every parameter an array of its shape under `buffer`."""
        arrays = {name: np.full_like(p, fill, subok=False) for name, p in self.parameters.items()}
        self._buffers[buffer] = arrays

    def _scratch(self, parameter: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return two work arrays of the parameter's shape; all parameters share their memory."""
        shape, size = parameter.shape, parameter.size
        return self._work[0][:size].reshape(shape), self._work[1][:size].reshape(shape)

    def _decayed(self, parameter: FloatArray, gradient: FloatArray, scratch: FloatArray) -> FloatArray:
        """Return gradient + weight_decay * parameter, in `scratch`, or the gradient itself without decay."""
        if self.weight_decay == 0.0:
            return gradient
        np.multiply(parameter, self.weight_decay, out=scratch)
        np.add(gradient, scratch, out=scratch)
        return scratch

    def _check_gradients(self, gradients: Any) -> None:
        if not isinstance(gradients, Mapping):
            raise TypeError(f"gradients: expected a dict of names and arrays; got {describe(gradients)}")
        _check_names("gradients", gradients, self.parameters)
        for name, parameter in self.parameters.items():
            label, why = f"gradients[{name!r}]", f"of parameter {name!r}"
            check_array(label, gradients[name], shape=parameter.shape, dtype=parameter.dtype, why=why)
            check_writable(f"parameters[{name!r}]", parameter)


def _check_names(argument: str, got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    """Raise unless both mappings have the same keys."""
    missing = [key for key in want if key not in got]
    unexpected = [key for key in got if key not in want]
    if missing or unexpected:
        raise ValueError(
            f"{argument}: expected exactly {len(want)} names; missing {missing or 'none'}, "
            f"unexpected {unexpected or 'none'}"
        )


def _number(value: Any) -> Any:
    """Take a number out of a 0-d array."""
    return value.item() if isinstance(value, np.ndarray) and value.ndim == 0 else value
