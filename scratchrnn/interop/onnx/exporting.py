"""A recurrent layer as an ONNX model: one RNN or LSTM node for each of its layers.

    x ──[Transpose]──► LSTM_l0 ──Y──► Transpose ──► Reshape ──► LSTM_l1 ── ... ──[Transpose]──► output
                  (T, D, B, H)     (T, B, D, H)  (T, B, D·H)
    h_0 ──Gather──► initial_h of each        Y_h of each ──Concat──► h_n

    B batch   T time   I input   H hidden   L layers   D directions

These operators take their arguments in the same way in every opset from 7 on; [Transpose] is there with batch_first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from scratchrnn import __version__
from scratchrnn._validate import check_bool, check_int
from scratchrnn.interop.onnx import weights
from scratchrnn.interop.onnx.files import LEAST_OPSET, require_onnx
from scratchrnn.layers import LSTM, RNN

OPSET = 14  # 2021: runtimes in use read it
LEAST_IR = 4  # the first where an initializer need not be an input


def export_model(layer: RNN | LSTM, *, lengths: bool = False, initial_state: bool = False, opset: int = OPSET) -> Any:
    """Describe inference of a recurrent layer as an ONNX model; `onnx.save(model, path)` writes it.

    Parameters
    ----------
    layer : RNN or LSTM
        Any number of layers, both directions, tanh or relu, with biases or without, batch_first or not; no projection,
        which ONNX has not. Dropout does not act in inference and is left out.
    lengths : bool
        Whether the model has the input "lengths", int32 (B,), each in 1..T: steps of each sequence.
    initial_state : bool
        Whether it has the inputs "h_0" and, of an LSTM, "c_0", (L·D, B, H). Without them they are zero.
    opset : int
        Version of the standard operators, from 7 to the newest that the installed onnx knows.

    Returns
    -------
    onnx.ModelProto
        Inputs "x", then those asked for, in the order lengths, h_0, c_0; outputs "output", "h_n" and, of an LSTM,
        "c_n": shapes as the layer takes and returns them, batch and time of any size. Past onnx.checker.

    Raises
    ------
    ImportError
        onnx is not installed.
    TypeError
        No RNN or LSTM of this package.
    ValueError
        A projection, or an opset out of range.

    Notes
    -----
    The model has the layer's dtype. ONNX Runtime runs these nodes on the CPU in float32 only.

    Examples
    --------
    >>> import scratchrnn as srnn
    >>> model = export_model(srnn.LSTM(3, 4, num_layers=2, bidirectional=True), lengths=True)
    >>> [node.name for node in model.graph.node if node.op_type == "LSTM"]
    ['LSTM_l0', 'LSTM_l1']
    >>> [value.name for value in model.graph.input], [value.name for value in model.graph.output]
    (['x', 'lengths'], ['output', 'h_n', 'c_n'])
    """
    if type(layer) not in (RNN, LSTM):
        raise TypeError(f"layer: expected an RNN or LSTM; got {type(layer).__module__}.{type(layer).__qualname__}")
    if layer.proj_size:
        raise ValueError(f"layer: expected no projection, which ONNX's LSTM has not; got proj_size={layer.proj_size}")
    check_bool("lengths", lengths)
    check_bool("initial_state", initial_state)
    onnx = require_onnx()
    check_int("opset", opset, least=LEAST_OPSET, most=onnx.defs.onnx_opset_version())
    model = _Writer(onnx, layer, lengths, initial_state).model(opset)
    onnx.checker.check_model(model)
    return model


class _Writer:
    """The parts of a graph, as they come about."""

    def __init__(self, onnx: Any, layer: RNN | LSTM, lengths: bool, initial_state: bool) -> None:
        self.onnx, self.layer = onnx, layer
        self.lengths = "lengths" if lengths else ""  # an empty name: the node's input is absent
        self.letters = "hc" if layer.cell.has_c else "h"
        self.initial = initial_state
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def model(self, opset: int) -> Any:
        """Write the whole model."""
        helper, last = self.onnx.helper, self.layer.num_layers - 1
        below = self.node("Transpose", ["x"], "x_time_major", perm=[1, 0, 2]) if self.layer.batch_first else "x"
        for number in range(self.layer.num_layers):
            output = "output" if number == last and not self.layer.batch_first else f"output_l{number}"
            below = self.recurrent(number, below, output)
        if self.layer.batch_first:
            self.node("Transpose", [below], "output", perm=[1, 0, 2])
        for letter in self.letters:
            self.node("Concat", [f"{letter}_n_l{n}" for n in range(last + 1)], f"{letter}_n", axis=0)
        graph = helper.make_graph(self.nodes, "scratchrnn", self.inputs(), self.outputs(), self.constants)
        opsets = [helper.make_opsetid("", opset)]
        # onnx 1.22 has an opset that its own table of IR versions has not
        ir_version = max(LEAST_IR, helper.find_min_ir_version_for(opsets, ignore_unknown=True))
        return helper.make_model(
            graph, opset_imports=opsets, ir_version=ir_version,
            producer_name="scratchrnn", producer_version=__version__,
        )  # fmt: skip

    def recurrent(self, number: int, below: str, output: str) -> str:
        """Write the node of one layer, what picks its initial state, and what brings Y (T, D, B, H) to (T, B, D·H)."""
        layer, name = self.layer, f"{'LSTM' if self.layer.cell.has_c else 'RNN'}_l{number}"
        parts = zip("WRB", weights.to_onnx(layer, number), strict=True)
        arguments = [below, *("" if a is None else self.constant(f"{part}_l{number}", a) for part, a in parts)]
        arguments.append(self.lengths)
        if self.initial:
            first = number * layer.num_directions
            rows = self.constant(f"rows_l{number}", np.arange(first, first + layer.num_directions))
            arguments += [self.node("Gather", [f"{s}_0", rows], f"{s}_0_l{number}", axis=0) for s in self.letters]
        while not arguments[-1]:
            arguments.pop()
        options: dict[str, Any] = {"hidden_size": layer.hidden_size}
        if layer.bidirectional:
            options["direction"] = "bidirectional"
        if not layer.cell.has_c:
            options["activations"] = [layer.cell.nonlinearity.capitalize()] * layer.num_directions
        results = [f"Y_l{number}", *(f"{s}_n_l{number}" for s in self.letters)]
        self.nodes.append(self.onnx.helper.make_node(name.partition("_")[0], arguments, results, name, **options))
        turned = self.node("Transpose", [results[0]], f"Y_by_batch_l{number}", perm=[0, 2, 1, 3])
        # 0 keeps an axis as it is
        shape = self.constant(f"shape_l{number}", np.array([0, 0, layer.num_directions * layer.hidden_size]))
        return self.node("Reshape", [turned, shape], output)

    def node(self, kind: str, arguments: list[str], result: str, **options: Any) -> str:
        """Add a node with one result, and return the result's name."""
        self.nodes.append(self.onnx.helper.make_node(kind, arguments, [result], f"{kind}_{result}", **options))
        return result

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """Add an initializer, and return its name."""
        self.constants.append(self.onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def inputs(self) -> list[Any]:
        """What the caller gives."""
        layer, int32 = self.layer, self.onnx.TensorProto.INT32
        wanted = [self.described("x", [*self.axes(), layer.input_size])]
        if self.lengths:
            wanted.append(self.onnx.helper.make_tensor_value_info("lengths", int32, ["batch"]))
        return wanted + (self.states("0") if self.initial else [])

    def outputs(self) -> list[Any]:
        """What the caller gets."""
        layer = self.layer
        width = layer.num_directions * layer.hidden_size
        return [self.described("output", [*self.axes(), width]), *self.states("n")]

    def states(self, slot: str) -> list[Any]:
        rows = self.layer.num_layers * self.layer.num_directions
        return [self.described(f"{s}_{slot}", [rows, "batch", self.layer.hidden_size]) for s in self.letters]

    def axes(self) -> list[str]:
        return ["batch", "time"] if self.layer.batch_first else ["time", "batch"]

    def described(self, name: str, shape: list[Any]) -> Any:
        """An input or output of the layer's dtype."""
        kind = self.onnx.helper.np_dtype_to_tensor_dtype(self.layer.dtype)
        return self.onnx.helper.make_tensor_value_info(name, kind, shape)
