"""From an ONNX model to a callable.

Every node is read at once: what follows from constants alone is computed, each RNN or LSTM becomes a layer, and the
rest waits for inputs. A node that cannot be run stops the import, so that there is never half a model.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn.interop.onnx import arithmetic, plumbing, recurrent
from scratchrnn.interop.onnx.files import opset_of, read_model, require_onnx
from scratchrnn.interop.onnx.graph import ImportedModel, Input, Step, Values, named
from scratchrnn.interop.onnx.plumbing import Operator
from scratchrnn.interop.onnx.recurrent import RecurrentNode

STANDARD = ("", "ai.onnx")  # two names of the one domain
OPERATORS = plumbing.OPERATORS | arithmetic.OPERATORS
NUMBERS = (1, 2, 3, 4, 5, 6, 7, 9, 10, 11, 12, 13)  # TensorProto.DataType: bool, integers, float16, float32, float64
HINTS = {
    "Loop": "a recurrence that its exporter did not recognize; what it makes of the framework's own LSTM is read",
    "Scan": "a recurrence that its exporter did not recognize; what it makes of the framework's own LSTM is read",
    "GRU": "no layer here computes it",
    "Dropout": "export the model in eval mode",
    "DynamicQuantizeLSTM": "export the model before it is quantized",
}


def import_model(model: Any, *, backend: str | None = None) -> ImportedModel:
    """Make a callable of an ONNX model, whose RNN and LSTM nodes run on layers of ours.

    Parameters
    ----------
    model : onnx.ModelProto, or the path of a file
        Of RNN and LSTM nodes, the operators that move, cut and shape arrays around them, and those of embeddings and
        dense layers (`importing.OPERATORS`), opset 7 or newer. Weights are constants of the graph, float32 or float64.
    backend : str, optional
        As for the layers' constructors.

    Returns
    -------
    ImportedModel

    Raises
    ------
    ImportError
        onnx is not installed.
    FileNotFoundError, IsADirectoryError
        No such file.
    ValueError, TypeError
        Not a valid model, or one with a node that cannot be run here: another operator, other activations, clip,
        peepholes, a coupled forget gate, weights that follow from inputs. The message names the file and the node. And
        a model that computes without any RNN or LSTM node, whose exporter has taken its recurrence apart.

    Notes
    -----
    Where ONNX Runtime differs: a sequence length of 0 is an error here.

    Examples
    --------
    >>> import numpy as np, scratchrnn as srnn
    >>> from scratchrnn.interop.onnx import export_model
    >>> model = import_model(export_model(srnn.LSTM(3, 4), lengths=True))
    >>> model
    ImportedModel(x, lengths -> output, h_n, c_n; layers LSTM_l0)
    >>> model(np.ones((7, 2, 3), np.float32), np.array([7, 5], np.int32))["output"].shape
    (7, 2, 4)
    """
    proto = read_model(model)
    try:
        return _Reader(proto, backend).model()
    except (ValueError, TypeError) as error:
        if isinstance(model, (str, os.PathLike)):
            raise type(error)(f"{model}: {error}") from None
        raise


class _Reader:
    """A graph on its way to steps: what is constant so far, and what is only known once it runs."""

    def __init__(self, proto: Any, backend: str | None) -> None:
        self.onnx, self.graph, self.backend = require_onnx(), proto.graph, backend
        opset_of(proto)
        if self.graph.sparse_initializer:
            raise ValueError(f"initializer {self.graph.sparse_initializer[0].values.name!r}: expected a dense one")
        self.constants: Values = {}
        for tensor in self.graph.initializer:
            with named(f"initializer {tensor.name!r}"):
                self.constants[tensor.name] = self.array(tensor)
        self.steps: list[Step] = []

    def model(self) -> ImportedModel:
        """Read the whole graph."""
        inputs = {v.name: self.described(v) for v in self.graph.input if v.name not in self.constants}
        self.refuse_taken_apart()
        for node in self.graph.node:
            self.read(node)
        known = {*inputs, *self.constants, *(name for step in self.steps for name in step.outputs)}
        for value in self.graph.output:
            if value.name not in known:
                raise ValueError(f"output {value.name!r}: expected a node's result; none has this name")
        return ImportedModel(inputs, [v.name for v in self.graph.output], self.constants, self.steps)

    def refuse_taken_apart(self) -> None:
        """Raise where nodes compute, and none of them is an RNN or LSTM: there would be no layer to look into."""
        kinds = [node.op_type for node in self.graph.node]
        computing = [kind for kind in dict.fromkeys(kinds) if kind not in plumbing.OPERATORS]
        if computing and not any(kind in recurrent.KINDS or kind in HINTS for kind in kinds):
            raise ValueError(
                f"expected an RNN or LSTM node; got only others, such as {', '.join(computing[:5])}. An exporter that "
                "takes recurrent layers apart leaves none: torch.onnx.export(..., dynamo=False) keeps torch.nn.RNN and "
                "LSTM whole, but no cells"
            )

    def described(self, value: Any) -> Input:
        """What the graph says of an input."""
        if value.type.WhichOneof("value") != "tensor_type":
            raise ValueError(f"input {value.name!r}: expected a tensor; got {value.type.WhichOneof('value')}")
        tensor = value.type.tensor_type
        with named(f"input {value.name!r}"):
            dtype = self.dtype_of(tensor.elem_type)
        sizes = (d.dim_value if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim)
        return Input(dtype, tuple(sizes))

    def array(self, tensor: Any) -> NDArray[Any]:
        """A TensorProto as an array."""
        self.dtype_of(tensor.data_type)
        array: NDArray[Any] = self.onnx.numpy_helper.to_array(tensor)
        return array

    def dtype_of(self, element: int) -> np.dtype[Any]:
        """NumPy's dtype for one of ONNX's, of numbers."""
        known = self.onnx.TensorProto.DataType
        if element not in known.values():
            raise TypeError(f"expected a dtype of ONNX; got number {element}")
        if element not in NUMBERS:  # older versions of onnx read such as float32
            raise TypeError(f"expected numbers; got dtype {known.Name(element).lower()}")
        return np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(element))

    def attributes(self, node: Any) -> dict[str, Any]:
        """Attributes by name, as plain values and arrays."""
        found: dict[str, Any] = {}
        for attribute in node.attribute:
            value = self.onnx.helper.get_attribute_value(attribute)
            if isinstance(value, self.onnx.TensorProto):
                value = self.array(value)
            elif isinstance(value, bytes):
                value = value.decode()
            elif attribute.type == attribute.STRINGS:
                value = [text.decode() for text in value]
            elif node.op_type == "Cast" and attribute.name == "to":
                value = self.dtype_of(value)
            found[attribute.name] = value
        return found

    def read(self, node: Any) -> None:
        """Compute a node now, or make it a step."""
        first = next((name for name in node.output if name), "")
        label = f"node {node.name or first!r} ({node.op_type})"
        compute: Operator | RecurrentNode
        if node.domain not in STANDARD or node.op_type not in OPERATORS | recurrent.KINDS:
            domain = "" if node.domain in STANDARD else f" of domain {node.domain!r}"
            known = ", ".join([*recurrent.KINDS, *OPERATORS])
            hint = f" ({HINTS[node.op_type]})" if node.op_type in HINTS else ""
            raise ValueError(f"{label}: expected one of {known}; got {node.op_type}{domain}{hint}")
        with named(label):
            attributes = self.attributes(node)
            if node.op_type in recurrent.KINDS:
                compute = recurrent.build(node.op_type, attributes, self.weights(node), self.backend)
            else:
                compute = OPERATORS[node.op_type]
        name = node.name if node.name and all(step.name != node.name for step in self.steps) else first
        step = Step(label, name, list(node.input), list(node.output), attributes, compute)
        constant = not isinstance(compute, RecurrentNode) and all(n in self.constants for n in node.input if n)
        if constant:
            step.run(self.constants, None)
        else:
            self.steps.append(step)

    def weights(self, node: Any) -> Values:
        """The constants of a recurrent node: W, R, B, P."""
        found: Values = {}
        for name, place in recurrent.CONSTANTS.items():
            given = node.input[place] if place < len(node.input) else ""
            if given and given not in self.constants:
                raise ValueError(
                    f"{name}: expected a constant of the graph; {given!r} follows from its inputs (exporters fold what "
                    "is constant if they may: optimize=True, do_constant_folding=True)"
                )
            if given:
                found[name] = self.constants[given]
        return found
