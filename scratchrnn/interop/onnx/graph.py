"""An ONNX graph as a callable: the nodes that wait for inputs, one after the other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn._validate import host_array
from scratchrnn.interop.onnx.plumbing import Operator
from scratchrnn.interop.onnx.recurrent import RecurrentNode
from scratchrnn.layers import LSTM, RNN
from scratchrnn.trace import Trace

Values = dict[str, NDArray[Any]]
Traces = dict[str, Trace]


@dataclass(frozen=True)
class Input:
    """What a graph says of one of its inputs."""

    dtype: np.dtype[Any]
    shape: tuple[int | str, ...]  # a word or "?" for an axis of any size

    def check(self, name: str, value: Any) -> NDArray[Any]:
        """Return `value` as an array, if it is what the graph expects."""
        array = host_array(name, value)
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: expected dtype {self.dtype}; got {array.dtype}")
        fits = [
            isinstance(wanted, str) or wanted == size for wanted, size in zip(self.shape, array.shape, strict=False)
        ]
        if array.ndim != len(self.shape) or not all(fits):
            raise ValueError(f"{name}: expected shape ({', '.join(map(str, self.shape))}); got {array.shape}")
        return array


@dataclass(frozen=True)
class Step:
    """A node that waits for inputs."""

    label: str  # for messages
    name: str
    inputs: list[str]  # "" for an absent one
    outputs: list[str]
    attributes: Mapping[str, Any]
    compute: Operator | RecurrentNode

    def run(self, values: Values, traces: Traces | None) -> None:
        """Add the node's results to `values` and, if there is a dict for it, its trace to `traces`."""
        given = [values[name] if name else None for name in self.inputs]
        with named(self.label):
            if isinstance(self.compute, RecurrentNode):
                results, trace = self.compute.run(given, keep=traces is not None)
                if traces is not None and trace is not None:
                    traces[self.name] = trace
            else:
                computed = self.compute(self.attributes, *given)
                results = list(computed) if isinstance(computed, tuple) else [computed]
        # a node may leave out its last results, and ONNX's may be unnamed
        values.update((name, value) for name, value in zip(self.outputs, results, strict=False) if name)


@contextmanager
def named(label: str) -> Iterator[None]:
    """Within the block, a message gets `label` before it."""
    try:
        yield
    except (ValueError, TypeError, IndexError, OverflowError, MemoryError) as error:
        raise (TypeError if isinstance(error, TypeError) else ValueError)(f"{label}: {error}") from None


class ImportedModel:
    """A callable with an ONNX graph's own inputs and outputs; `import_model` makes it.

    Attributes
    ----------
    inputs : dict of str to Input
        By name, in the graph's order, with dtype and shape. Initializers among them are constants here, and not inputs.
    outputs : tuple of str
        Names.
    layers : dict of str to RNN or LSTM
        Of each recurrent node, by the node's name, or its first output's where it has none of its own. Live: what is
        done to their parameters shows in the next call.
    """

    def __init__(self, inputs: dict[str, Input], outputs: Sequence[str], constants: Values, steps: list[Step]) -> None:
        self.inputs = inputs
        self.outputs = tuple(outputs)
        self.layers: dict[str, RNN | LSTM] = {
            s.name: s.compute.layer for s in steps if isinstance(s.compute, RecurrentNode)
        }
        self._constants = constants
        self._steps = steps

    def __repr__(self) -> str:
        names = f"{', '.join(self.inputs)} -> {', '.join(self.outputs)}"
        return f"ImportedModel({names}; layers {', '.join(self.layers)})"

    def __call__(self, *inputs: Any) -> Values:
        """Run the graph.

        Parameters
        ----------
        inputs
            Arrays in the order of `self.inputs`, or one dict of all of them by name: dtype and shape as the graph has
            them, nothing is cast. Sequence lengths are at least 1.

        Returns
        -------
        dict of ndarray
            By the graph's output names, arrays of their own.

        Raises
        ------
        ValueError, TypeError
            Inputs that the graph has not, or of another dtype or shape; the message names the input or the node.
        """
        return self._run(inputs, None)

    def forward(self, *inputs: Any) -> tuple[Values, Traces]:
        """Run the graph and keep everything: its outputs, and the trace of each layer in `self.layers`, by name.

        `self.layers[name].backward(traces[name], ...)` takes it from there. A node of direction "reverse" alone has a
        trace in the order of its work, from each sequence's end.
        """
        traces: Traces = {}
        return self._run(inputs, traces), traces

    def _run(self, inputs: tuple[Any, ...], traces: Traces | None) -> Values:
        values = self._constants | self._enter(inputs)
        for step in self._steps:
            step.run(values, traces)
        return {name: np.array(values[name], order="C") for name in self.outputs}

    def _enter(self, inputs: tuple[Any, ...]) -> Values:
        names = ", ".join(self.inputs)
        if len(inputs) == 1 and isinstance(inputs[0], Mapping):
            given = dict(inputs[0])
            missing = [name for name in self.inputs if name not in given]
            extra = [str(name) for name in given if name not in self.inputs]
            if missing or extra:
                parts = [f"missing {', '.join(missing)}"] if missing else []
                parts += [f"unexpected {', '.join(extra)}"] if extra else []
                raise ValueError(f"inputs: expected {names}; {'; '.join(parts)}")
        elif len(inputs) != len(self.inputs):
            raise ValueError(f"inputs: expected {len(self.inputs)} ({names}); got {len(inputs)}")
        else:
            given = dict(zip(self.inputs, inputs, strict=True))
        return {name: wanted.check(name, given[name]) for name, wanted in self.inputs.items()}
