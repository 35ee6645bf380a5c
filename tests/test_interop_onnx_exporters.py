"""What stands around recurrent nodes in graphs of torch's two exporters and of Keras's.

Built by hand where the exporter is no package that the tests need.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper

from scratchrnn.interop.onnx import import_model
from scratchrnn.testing import assert_close
from tests.test_interop_onnx import from_torch, tensors, torch_model
from tests.test_interop_onnx_nodes import REL, B, F, H, I, T, assert_as_runtime, info, model_of, runtime, weights

INT = TensorProto.INT64
LSTM = ["X", "W", "R", "B"]


def beside(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any], opset: int) -> Any:
    """These nodes beside an LSTM whose result nobody asks for: alone they would be no recurrent model."""
    rng = np.random.default_rng(0)
    constants = constants | weights("LSTM", 1, rng) | {"nothing": np.zeros((1, 1, I), np.float32)}
    lstm = helper.make_node("LSTM", ["nothing", "W", "R", "B"], ["beside"], "lstm", hidden_size=H)
    return model_of([lstm, *nodes], inputs, outputs, constants, opset)


SHAPE = (3, 2, 4)
ARITHMETIC: list[tuple[str, int, dict[str, Any], list[Any]]] = [  # operator, opset, attributes, the second and third
    ("Add", 14, {}, [np.float32(1.5)]),
    ("Add", 7, {}, [np.ones((2, 1), np.float32)]),
    ("Sub", 14, {}, [np.ones((5, 1, 2, 4), np.float32)]),
    ("Mul", 14, {}, [np.array([1, -2, 0, 3], np.float32)]),
    ("Div", 14, {}, [np.array([1, -2, 0, 3], np.float32)]),
    ("MatMul", 14, {}, [np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)]),
    ("MatMul", 14, {}, [np.linspace(-1, 1, 4, dtype=np.float32)]),
    ("Relu", 14, {}, []),
    ("Sigmoid", 14, {}, []),
    ("Tanh", 14, {}, []),
    ("Softmax", 14, {"axis": -1}, []),
    ("Softmax", 14, {"axis": 2}, []),
    ("Softmax", 11, {"axis": 2}, []),
]


@pytest.mark.parametrize(("operator", "opset", "attributes", "further"), ARITHMETIC)
def test_arithmetic_is_the_runtimes(
    operator: str, opset: int, attributes: dict[str, Any], further: list[Any], rng: np.random.Generator
) -> None:
    constants = {f"c{n}": a for n, a in enumerate(further)}
    node = helper.make_node(operator, ["X", *constants], ["Z"], **attributes)
    model = beside([node], [info("X", list(SHAPE))], [info("Z", None)], constants, opset)
    x = (20 * rng.standard_normal(SHAPE)).astype(np.float32)
    x[0, 0] = [-np.inf, 100, -100, 0]
    got, want = import_model(model)(x)["Z"], runtime(model, {"X": x})["Z"]
    assert got.dtype == want.dtype
    np.testing.assert_allclose(got, want, rtol=2e-6, atol=2e-7, strict=True)


@pytest.mark.parametrize("c", [None, (2,), (3, 1), (3, 2)], ids=str)
@pytest.mark.parametrize("attributes", [{}, {"transA": 1, "alpha": 0.5}, {"transB": 1, "beta": -2.0}], ids=str)
def test_gemm(attributes: dict[str, Any], c: Any, rng: np.random.Generator) -> None:
    shapes = [(4, 3) if "transA" in attributes else (3, 4), (2, 4) if "transB" in attributes else (4, 2)]
    arrays = [rng.standard_normal(shape).astype(np.float32) for shape in [*shapes, *([] if c is None else [c])]]
    constants = {f"c{n}": a for n, a in enumerate(arrays[1:])}
    node = helper.make_node("Gemm", ["X", *constants], ["Z"], **attributes)
    model = beside([node], [info("X", list(shapes[0]))], [info("Z", None)], constants, 14)
    assert_as_runtime(model, {"X": arrays[0]})


@pytest.mark.parametrize(
    ("operator", "kind", "attributes", "further", "message"),
    [
        ("Softmax", F, {"axis": 1}, [], r"node 'n' \(Softmax\): axis: expected the last of 3; got 1"),
        ("Softmax", F, {}, [], r"axis: expected it to be given, since its default changed with opset 13; got none"),
        ("Div", INT, {}, [np.array(2)], r"node 'n' \(Div\): expected floating-point numbers; got int64"),
        ("Add", F, {}, [np.array(2)], r"node 'n' \(Add\): expected inputs of one dtype; got float32, int64"),
        ("MatMul", F, {}, [np.ones((3, 4), "f")], r"node 'n' \(MatMul\): matmul"),
    ],
)
def test_arithmetic_that_is_refused(
    operator: str, kind: int, attributes: dict[str, Any], further: list[Any], message: str
) -> None:
    constants = {f"c{n}": a for n, a in enumerate(further)}
    node = helper.make_node(operator, ["X", *constants], ["Z"], "n", **attributes)
    model = beside([node], [info("X", list(SHAPE), kind)], [info("Z", ["a", "b", "c"], kind)], constants, 14)
    x = np.ones(SHAPE, np.float32 if kind == F else np.int64)
    with pytest.raises((TypeError, ValueError), match=message):
        import_model(model)(x)


# --- torch


class Tagger(torch.nn.Module):
    """A tag for each word."""

    def __init__(self, m: torch.nn.Module) -> None:
        super().__init__()
        self.words, self.m, self.tags = torch.nn.Embedding(20, I), m, torch.nn.Linear(2 * H, 5)

    def forward(self, words: Any) -> Any:
        return self.tags(self.m(self.words(words))[0]).softmax(-1)


class Classifier(torch.nn.Module):
    """One number for a sequence."""

    def __init__(self, m: torch.nn.Module) -> None:
        super().__init__()
        self.m, self.hidden, self.end = m, torch.nn.Linear(H, 6), torch.nn.Linear(6, 1)

    def forward(self, x: Any) -> Any:
        return self.end(self.hidden(self.m(x)[0][:, -1]).relu()).sigmoid() * 2 - 1


@from_torch
@pytest.mark.parametrize("opset", [11, 13, 17, 20])
def test_embedding_and_dense_layers_around(opset: int, rng: np.random.Generator) -> None:
    torch.manual_seed(0)
    options: dict[str, Any] = {"input_names": ["x"], "dynamic_axes": {"x": {0: "a", 1: "b"}}, "opset_version": opset}
    words = rng.integers(20, size=(9, 6))
    x = rng.standard_normal((6, 9, I)).astype(np.float32)
    for m, given, example in (
        (Tagger(torch.nn.LSTM(I, H, 2, bidirectional=True)), words, words[:4, :2]),
        (Tagger(torch.nn.RNN(I, H, bidirectional=True)), words, words[:4, :2]),
        (Classifier(torch.nn.LSTM(I, H, 2, batch_first=True)), x, x[:2, :4]),
    ):
        model = torch_model(m.eval(), (torch.from_numpy(example),), **options)
        (got,) = assert_as_runtime(model, {"x": given}).values()
        assert_close("torch", got, *tensors(m(torch.from_numpy(given))), rel=REL)
        _, traces = import_model(model).forward(given)
        assert traces.keys() == import_model(model).layers.keys()


def test_shape_arithmetic_of_torchs_newer_exporter(rng: np.random.Generator) -> None:
    # dynamo=True, dynamic_shapes: D·H is a product in the graph
    constants: dict[str, Any] = {f"{n}_l0": a for n, a in weights("LSTM", 2, rng).items()}
    upper = weights("LSTM", 2, rng) | {"W": rng.uniform(-1, 1, (2, 4 * H, 2 * H)).astype(np.float32)}
    constants |= {f"{n}_l1": a for n, a in upper.items()}
    constants |= {f"at{n}": np.array([n]) for n in range(5)} | {"minus": np.array([-1]), "zero": np.float32(0)}
    options: dict[str, Any] = {"hidden_size": H, "direction": "bidirectional", "input_forget": 0, "layout": 0}

    def node(kind: str, arguments: str, result: str, **attributes: Any) -> Any:
        return helper.make_node(kind, arguments.split(" "), result.split(" "), **attributes)

    nodes = [
        node("Shape", "X", "batch", start=0, end=1), node("Concat", "at4 batch at4", "sizes", axis=0),
        node("Expand", "zero sizes", "zeros"), node("Transpose", "X", "below_l0", perm=[1, 0, 2]),
    ]  # fmt: skip
    for n, (start, end) in enumerate((("at0", "at2"), ("at2", "at4"))):
        nodes += [
            node("Slice", f"zeros {start} {end} at0", f"start_l{n}"),
            node("LSTM", f"below_l{n} W_l{n} R_l{n} B_l{n}  start_l{n} start_l{n}", f"Y{n} h{n} c{n}", **options),
            node("Transpose", f"Y{n}", f"turned{n}", perm=[0, 2, 1, 3]),
            node("Shape", f"turned{n}", f"shape{n}", start=0),
            node("Slice", f"shape{n} at0 at1", f"T{n}"), node("Slice", f"shape{n} at1 at2", f"B{n}"),
            node("Slice", f"shape{n} at2 at3", f"D{n}"), node("Slice", f"shape{n} at3 at4", f"H{n}"),
            node("Mul", f"D{n} H{n}", f"product{n}"), node("Reshape", f"product{n} minus", f"DH{n}", allowzero=0),
            node("Concat", f"T{n} B{n} DH{n}", f"wanted{n}", axis=0),
            node("Reshape", f"turned{n} wanted{n}", f"below_l{n + 1}", allowzero=0),
        ]  # fmt: skip
    nodes += [node("Concat", "h0 h1", "h_n", axis=0), node("Transpose", "below_l2", "output", perm=[1, 0, 2])]
    axes = [info(name, ["a", "b", 2 * H]) for name in ("output",)] + [info("h_n", [4, "b", H])]
    model = model_of(nodes, [info("X", ["b", "t", I])], axes, constants, 20)
    for shape in ((B, T, I), (6, 9, I)):
        assert_as_runtime(model, {"X": rng.standard_normal(shape).astype(np.float32)})


def test_weights_that_an_unoptimized_export_cuts_by_its_input(rng: np.random.Generator) -> None:
    w = weights("LSTM", 1, rng)
    nodes = [
        helper.make_node("Shape", ["X"], ["shape"]),
        helper.make_node("Slice", ["wide", "start", "shape", "axes"], ["W"]),
        helper.make_node("LSTM", LSTM, ["Y"], "cell", hidden_size=H),
    ]
    constants = {"wide": w["W"], "start": np.zeros(3, np.int64), "axes": np.arange(3), "R": w["R"], "B": w["B"]}
    model = model_of(nodes, [info("X", ["t", "b", I])], [info("Y", ["t", 1, "b", H])], constants)
    with pytest.raises(ValueError, match=r"\(LSTM\): W: expected a constant .* \(exporters fold .*: optimize=True"):
        import_model(model)


@from_torch
def test_layers_taken_apart_are_refused() -> None:
    cell = torch_model(torch.nn.LSTMCell(I, H), (torch.randn(B, I),))
    for model in (cell, torch_model(torch.nn.Linear(I, H), (torch.randn(B, I),))):
        with pytest.raises(
            ValueError, match=r"expected an RNN or LSTM node; got only others, such as Gemm.*dynamo=False"
        ):
            import_model(model)


@pytest.mark.parametrize(
    ("kind", "hint"), [("GRU", "no layer here computes it"), ("Dropout", "export the model in eval mode")]
)
def test_what_to_do_about_an_operator(kind: str, hint: str, rng: np.random.Generator) -> None:
    x = info("X", ["t", "b", I])
    options: dict[str, Any] = {"hidden_size": H} if kind == "GRU" else {}
    constants: dict[str, Any] = {"W": np.ones((1, 3 * H, I), "f"), "R": np.ones((1, 3 * H, H), "f")}
    arguments = ["X", "W", "R"] if kind == "GRU" else ["X"]
    model = model_of([helper.make_node(kind, arguments, ["Z"], "n", **options)], [x], [info("Z", None)], constants)
    with pytest.raises(ValueError, match=rf"node 'n' \({kind}\): expected one of .*; got {kind} \({hint}\)$"):
        import_model(model)


# --- Keras, as tf2onnx writes it


@pytest.mark.parametrize("sequences", [True, False])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_model_of_keras(direction: str, sequences: bool, rng: np.random.Generator) -> None:
    directions = 2 if direction == "bidirectional" else 1
    constants: dict[str, Any] = weights("LSTM", directions, rng) | {
        "rows": np.array([directions], np.int64), "units": np.array([H], np.int64), "zero": np.float32(0),
        "dense": rng.standard_normal((directions * H, 5)).astype(np.float32), "bias": np.ones(5, np.float32),
        "at0": np.array([0]), "at1": np.array([1]), "first": np.array([0]), "flat": np.array([0, 0, directions * H]),
    }  # fmt: skip
    make = helper.make_node
    nodes = [
        make("Shape", ["X"], ["shape"]), make("Cast", ["shape"], ["as_int32"], to=TensorProto.INT32),
        make("Cast", ["as_int32"], ["shape64"], to=INT), make("Slice", ["shape64", "at0", "at1", "first"], ["batch"]),
        make("Concat", ["rows", "batch", "units"], ["sizes"], axis=0), make("Expand", ["zero", "sizes"], ["zeros"]),
        make("Transpose", ["X"], ["time_major"], perm=[1, 0, 2]),
        make("LSTM", ["time_major", "W", "R", "B", "", "zeros", "zeros"], ["Y", "Y_h", "Y_c"], "lstm",
             hidden_size=H, direction=direction),
    ]  # fmt: skip
    if directions == 1 and sequences:
        nodes += [make("Squeeze", ["Y", "at1"], ["h"]), make("Transpose", ["h"], ["read"], perm=[1, 0, 2])]
    elif sequences:
        nodes += [make("Transpose", ["Y"], ["h"], perm=[2, 0, 1, 3]), make("Reshape", ["h", "flat"], ["read"])]
    else:
        constants["row"] = np.array([0, directions * H])
        nodes += [make("Transpose", ["Y_h"], ["h"], perm=[1, 0, 2]), make("Reshape", ["h", "row"], ["read"])]
    nodes += [
        make("MatMul", ["read", "dense"], ["product"]), make("Add", ["product", "bias"], ["logits"]),
        make("Softmax", ["logits"], ["Z"], axis=-1),
    ]  # fmt: skip
    axes: list[Any] = ["b", "t", 5] if sequences else ["b", 5]
    model = model_of(nodes, [info("X", ["b", "t", I])], [info("Z", axes)], constants, 17)
    x = rng.standard_normal((6, 9, I)).astype(np.float32)
    assert_as_runtime(model, {"X": x})
    imported = import_model(model)
    _, traces = imported.forward(x)
    assert traces["lstm"][0].h.shape == (10, 6, H)
