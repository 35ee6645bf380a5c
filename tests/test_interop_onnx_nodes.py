"""Single nodes, built by hand, against ONNX Runtime; and what is refused, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from scratchrnn.interop.onnx import import_model
from scratchrnn.testing import assert_close

REL = 1e-5
I, H, B, T = 3, 4, 2, 5
F = TensorProto.FLOAT
GATES = {"LSTM": 4, "RNN": 1}


def info(name: str, shape: list[Any], kind: int = F) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def model_of(
    nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: dict[str, Any], opset: int = 14
) -> Any:
    initializers = [numpy_helper.from_array(np.asarray(a), name) for name, a in constants.items()]
    graph = helper.make_graph(nodes, "by hand", inputs, outputs, initializers)
    opsets = [helper.make_opsetid("", opset)]
    ir = max(4, helper.find_min_ir_version_for(opsets))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    if any(not value.type.tensor_type.HasField("shape") for value in outputs):  # onnx.checker wants them
        model = onnx.shape_inference.infer_shapes(model)
    for value in model.graph.output:  # what is wrong has none
        if not value.type.WhichOneof("value") or value.type.tensor_type.HasField("shape"):
            continue
        value.type.tensor_type.shape.dim.add().dim_param = "unknown"
    return model


def weights(kind: str, directions: int, rng: np.random.Generator, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    rows = GATES[kind] * H
    shapes = {"W": (directions, rows, I), "R": (directions, rows, H), "B": (directions, 2 * rows)}
    return {name: rng.uniform(-1, 1, shape).astype(dtype) for name, shape in shapes.items()}


def node_model(
    kind: str,
    constants: dict[str, Any],
    given: tuple[str, ...] = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c"),
    results: tuple[str, ...] = ("Y", "Y_h", "Y_c"),
    opset: int = 14,
    **attributes: Any,
) -> Any:
    """One node, whose inputs are the graph's unless they are constants."""
    names, gone = (given[:6], results[:2]) if kind == "RNN" else (given, results)
    node = helper.make_node(kind, list(names), list(gone), "cell", hidden_size=H, **attributes)
    free = [name for name in names if name and name not in constants]
    kinds = {"sequence_lens": TensorProto.INT32}
    inputs = [info(name, ["p", "q", "r"] if name not in kinds else ["b"], kinds.get(name, F)) for name in free]
    return model_of([node], inputs, [info(name, None) for name in gone if name], constants, opset)


def runtime(model: Any, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def assert_as_runtime(model: Any, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    got, want = import_model(model)(feeds), runtime(model, feeds)
    assert list(got) == list(want)
    for name in want:
        assert_close(name, got[name], want[name], rel=REL)
    return got


def feeds_of(kind: str, directions: int, rng: np.random.Generator, *, lens: bool = True) -> dict[str, np.ndarray]:
    feeds = {
        "X": rng.standard_normal((T, B, I)),
        "initial_h": rng.standard_normal((directions, B, H)),
        "initial_c": rng.standard_normal((directions, B, H)),
    }
    named: dict[str, np.ndarray] = {name: a.astype(np.float32) for name, a in feeds.items()}
    if kind == "RNN":
        del named["initial_c"]
    return named | ({"sequence_lens": np.array([3, T], np.int32)} if lens else {})


# --- what is computed


@pytest.mark.parametrize("opset", [7, 14, 22])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_directions_lengths_and_states(kind: str, direction: str, opset: int, rng: np.random.Generator) -> None:
    directions = 2 if direction == "bidirectional" else 1
    model = node_model(kind, weights(kind, directions, rng), opset=opset, direction=direction)
    got = assert_as_runtime(model, feeds_of(kind, directions, rng))
    assert not got["Y"][3:, :, 0].any()
    assert got["Y"][:3, :, 0].all()
    ends = {"forward": [2], "reverse": [0], "bidirectional": [2, 0]}[direction]  # of the sample of three steps
    for d, at in enumerate(ends):
        assert_close("Y_h", got["Y_h"][d, 0], got["Y"][at, d, 0], rel=0)


@pytest.mark.parametrize("absent", ["B", "sequence_lens", "initial_h", "initial_c", "all"])
def test_absent_inputs(absent: str, rng: np.random.Generator) -> None:
    optional = ("B", "sequence_lens", "initial_h", "initial_c")
    given = ("X", "W", "R", *("" if absent in (name, "all") else name for name in optional))
    constants = {name: a for name, a in weights("LSTM", 1, rng).items() if name in given}
    model = node_model("LSTM", constants, given)
    assert_as_runtime(model, {name: a for name, a in feeds_of("LSTM", 1, rng).items() if name in given})


@pytest.mark.parametrize("results", [("Y",), ("", "Y_h"), ("", "", "Y_c"), ("Y", "", "Y_c")])
def test_absent_outputs(results: tuple[str, ...], rng: np.random.Generator) -> None:
    model = node_model("LSTM", weights("LSTM", 1, rng), results=results)
    assert list(assert_as_runtime(model, feeds_of("LSTM", 1, rng))) == [name for name in results if name]


@pytest.mark.parametrize("names", [["Relu"] * 2, ["Tanh"] * 2])
def test_activations_of_an_rnn(names: list[str], rng: np.random.Generator) -> None:
    model = node_model("RNN", weights("RNN", 2, rng), direction="bidirectional", activations=names)
    assert_as_runtime(model, feeds_of("RNN", 2, rng))


def test_default_activations_and_zero_peepholes_written_out(rng: np.random.Generator) -> None:
    constants = weights("LSTM", 1, rng) | {"P": np.zeros((1, 3 * H), np.float32)}
    given = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
    model = node_model("LSTM", constants, given, activations=["Sigmoid", "Tanh", "Tanh"], input_forget=0)
    assert_as_runtime(model, feeds_of("LSTM", 1, rng))


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "RNN"])
def test_layout_1_is_layout_0_with_the_batch_first(kind: str, direction: str, rng: np.random.Generator) -> None:
    # ONNX Runtime has no layout 1 on the CPU: it computes the other, which is turned round here
    directions = 2 if direction == "bidirectional" else 1
    constants, feeds = weights(kind, directions, rng), feeds_of(kind, directions, rng)
    want = runtime(node_model(kind, constants, direction=direction), feeds)
    turned = {name: a if a.ndim == 1 else a.swapaxes(0, 1) for name, a in feeds.items()}  # not contiguous
    got = import_model(node_model(kind, constants, direction=direction, layout=1))(turned)
    assert_close("Y", got["Y"], want["Y"].transpose(2, 0, 1, 3), rel=REL)
    for name in list(want)[1:]:
        assert_close(name, got[name], want[name].swapaxes(0, 1), rel=REL)


def test_reverse_alone_has_a_trace_in_its_own_order(rng: np.random.Generator) -> None:
    model = import_model(node_model("RNN", weights("RNN", 1, rng), direction="reverse"))
    outputs, traces = model.forward(feeds_of("RNN", 1, rng))
    assert_close("h", traces["cell"].output[2::-1, 0], outputs["Y"][:3, 0, 0], rel=0)


def test_weights_that_constants_lead_to(rng: np.random.Generator) -> None:
    w = weights("LSTM", 1, rng)
    constants = {"Wt": w["W"].transpose(0, 2, 1), "R1": w["R"][:, :H], "R2": w["R"][:, H:], "B": w["B"][0]}
    nodes = [
        helper.make_node("Transpose", ["Wt"], ["W"], perm=[0, 2, 1]),
        helper.make_node("Concat", ["R1", "R2"], ["R"], axis=1),
        helper.make_node("Constant", [], ["zero"], value_ints=[0]),
        helper.make_node("Unsqueeze", ["B", "zero"], ["B1"]),
        helper.make_node("LSTM", ["X", "W", "R", "B1"], ["Y"]),  # without a name and without hidden_size
    ]
    model = model_of(nodes, [info("X", [T, "b", I])], [info("Y", None)], constants)
    imported = import_model(model)
    assert list(imported.layers) == ["Y"]
    assert imported.inputs["X"].shape == (T, "b", I)
    nodes[-1].attribute.append(helper.make_attribute("hidden_size", H))  # which ONNX Runtime needs
    assert_as_runtime(
        model_of(nodes, [info("X", [T, "b", I])], [info("Y", None)], constants), {"X": feeds_of("RNN", 1, rng)["X"]}
    )


def test_two_nodes_of_one_name_are_two_layers(rng: np.random.Generator) -> None:
    nodes = [
        helper.make_node("RNN", [x, "W", "R"], ["", y], "same", hidden_size=I) for x, y in (("X", "H"), ("H", "Z"))
    ]
    constants = {"W": np.ones((1, I, I), np.float32), "R": np.ones((1, I, I), np.float32)}
    model = import_model(model_of(nodes, [info("X", [T, B, I])], [info("Z", None)], constants))
    assert list(model.layers) == ["same", "Z"]
    assert set(model.forward(np.ones((T, B, I), np.float32))[1]) == {"same", "Z"}


def test_initializers_among_the_inputs_are_constants(rng: np.random.Generator) -> None:
    model = node_model("RNN", weights("RNN", 1, rng))
    model.graph.input.extend([info("W", [1, H, I]), info("R", [1, H, H])])
    imported = import_model(model)
    assert list(imported.inputs) == ["X", "sequence_lens", "initial_h"]
    assert_as_runtime(model, feeds_of("RNN", 1, rng))


# --- what moves and shapes

PLUMBING: list[tuple[str, int, dict[str, Any], list[Any]]] = [  # operator, opset, attributes, further inputs
    ("Transpose", 14, {}, []),
    ("Transpose", 14, {"perm": [1, 2, 0, 3]}, []),
    ("Squeeze", 11, {"axes": [-1]}, []),
    ("Squeeze", 11, {}, []),
    ("Squeeze", 14, {}, [np.array([3])]),
    ("Squeeze", 14, {}, []),
    ("Unsqueeze", 11, {"axes": [0, -1]}, []),
    ("Unsqueeze", 14, {}, [np.array([-1, 1])]),
    ("Reshape", 14, {}, [np.array([0, -1])]),
    ("Reshape", 14, {}, [np.array([], np.int64)[:0].reshape(0)]),
    ("Reshape", 14, {"allowzero": 1}, [np.array([6, 20])]),
    ("Slice", 9, {"starts": [1, -3], "ends": [9, 3], "axes": [2, 1]}, []),
    ("Slice", 9, {"starts": [1], "ends": [2]}, []),
    ("Slice", 14, {}, [np.array([1]), np.array([2**62])]),
    ("Slice", 14, {}, [np.array([-1]), np.array([-(2**62)]), np.array([1]), np.array([-2])]),
    ("Slice", 14, {}, [np.array([0, 0]), np.array([-1, 3]), np.array([-2, 0], np.int64)]),
    ("Identity", 14, {}, []),
    ("Gather", 14, {"axis": 1}, [np.array([[2, -1]])]),
    ("Gather", 14, {}, [np.array(0)]),
    ("Shape", 14, {}, []),
    ("Shape", 15, {"start": 1, "end": -1}, []),
    ("Shape", 15, {"start": -2}, []),
    ("Cast", 14, {"to": TensorProto.INT64}, []),
    ("Cast", 14, {"to": TensorProto.DOUBLE}, []),
    ("Expand", 14, {}, [np.array([7, 2, 1, 1, 3])]),
    ("Concat", 14, {"axis": -1}, [np.ones((2, 3, 20, 1), np.float32)]),
    ("ScatterElements", 14, {"axis": 2}, [np.array([[[[-1], [4]]]]), np.ones((1, 1, 2, 1), np.float32)]),
    ("ScatterElements", 14, {}, [np.array([[[[1], [0]]]]), np.ones((1, 1, 2, 1), np.float32)]),
]


@pytest.mark.parametrize("number", range(len(PLUMBING)))
def test_shape_operators_do_what_the_runtime_does(number: int, rng: np.random.Generator) -> None:
    operator, opset, attributes, further = PLUMBING[number]
    shape = (2, 3, 20, 1) if not (operator == "Reshape" and not further[0].size) else (1, 1, 1, 1)
    constants = {f"c{n}": a for n, a in enumerate(further)}
    node = helper.make_node(operator, ["X", *constants], ["Z"], **attributes)
    kind = {"Shape": TensorProto.INT64, "Cast": attributes.get("to")}.get(operator, F)
    model = model_of([node], [info("X", list(shape))], [info("Z", None, kind)], constants, opset)
    x = (9 * rng.standard_normal(shape)).astype(np.float32)
    got, want = import_model(model)(x)["Z"], runtime(model, {"X": x})["Z"]
    assert got.dtype == want.dtype
    np.testing.assert_array_equal(got, want, strict=True)


@pytest.mark.parametrize("attributes", [{}, {"largest": 0}, {"axis": 0, "largest": 1}, {"axis": 1, "sorted": 1}])
@pytest.mark.parametrize("k", [1, 3])
def test_top_k_with_ties(k: int, attributes: dict[str, Any], rng: np.random.Generator) -> None:
    node = helper.make_node("TopK", ["X", "K"], ["V", "N"], **attributes)
    outputs = [info("V", ["a", "b"], TensorProto.INT64), info("N", ["a", "b"], TensorProto.INT64)]
    model = model_of([node], [info("X", [4, 7], TensorProto.INT64)], outputs, {"K": np.array([k])})
    x = rng.integers(-2, 3, (4, 7))
    got, want = import_model(model)(x), runtime(model, {"X": x})
    for name in ("V", "N"):
        np.testing.assert_array_equal(got[name], want[name], strict=True)


def test_top_k_of_old_opsets(rng: np.random.Generator) -> None:
    node = helper.make_node("TopK", ["X"], ["V", "N"], k=2)
    outputs = [info("V", ["a", "b"]), info("N", ["a", "b"], TensorProto.INT64)]
    assert_as_runtime(
        model_of([node], [info("X", [3, 5])], outputs, {}, opset=9), {"X": np.float32(rng.random((3, 5)))}
    )


@pytest.mark.parametrize("value", [None, helper.make_tensor("v", TensorProto.INT64, [1], [7])])
def test_constant_of_shape(value: Any) -> None:
    node = helper.make_node("ConstantOfShape", ["S"], ["Z"], **({} if value is None else {"value": value}))
    kind = F if value is None else TensorProto.INT64
    model = model_of([node], [info("S", [2], TensorProto.INT64)], [info("Z", None, kind)], {})
    size = np.array([3, 2])
    np.testing.assert_array_equal(import_model(model)(size)["Z"], runtime(model, {"S": size})["Z"], strict=True)


@pytest.mark.parametrize(
    ("attributes", "kind"),
    [
        ({"value": numpy_helper.from_array(np.arange(6.0).reshape(2, 3))}, TensorProto.DOUBLE),
        ({"value_float": 1.5}, F),
        ({"value_floats": [1.5, 2]}, F),
        ({"value_int": 3}, TensorProto.INT64),
        ({"value_ints": [3, 4]}, TensorProto.INT64),
    ],
)
def test_constants_in_nodes(attributes: dict[str, Any], kind: int) -> None:
    model = model_of([helper.make_node("Constant", [], ["Z"], **attributes)], [], [info("Z", None, kind)], {})
    np.testing.assert_array_equal(import_model(model)()["Z"], runtime(model, {})["Z"], strict=True)


# --- what is refused


@pytest.mark.parametrize(
    ("kind", "attributes", "message"),
    [
        ("LSTM", {"clip": 3.0}, "clip: expected none, since ours bounds nothing in forward; got 3"),
        ("RNN", {"clip": 3.0}, "clip: expected none"),
        ("LSTM", {"input_forget": 1}, "input_forget: expected 0"),
        (
            "LSTM",
            {"direction": "sideways"},
            "direction: expected one of forward, reverse, bidirectional; got 'sideways'",
        ),
        ("LSTM", {"layout": 2}, "layout: expected 0 or 1; got 2"),
        ("LSTM", {"activations": ["HardSigmoid", "Tanh", "Tanh"]}, "activations: expected .*; got .*'HardSigmoid'"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh"]}, "activations: expected "),
        ("RNN", {"activations": ["Affine"]}, "activations: expected Tanh or Relu, the same in each of 1 directions"),
        (
            "RNN",
            {"direction": "bidirectional", "activations": ["Tanh", "Relu"]},
            "activations: expected Tanh or Relu, the same in each of 2",
        ),
    ],
)
def test_attributes_that_ours_have_not(
    kind: str, attributes: dict[str, Any], message: str, rng: np.random.Generator, tmp_path: Path
) -> None:
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    model = node_model(kind, weights(kind, directions, rng), **attributes)
    with pytest.raises(ValueError, match=rf"^node 'cell' \({kind}\): {message}"):
        import_model(model)
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    with pytest.raises(ValueError, match=rf"net\.onnx: node 'cell' \({kind}\): {message}"):
        import_model(path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"W": np.ones((2, 4 * H, I), "f")}, ValueError, r"W: expected shape \(1, 16, 3\) for 1 directions and H=4"),
        ({"W": np.ones((1, 3 * H, I), "f")}, ValueError, r"W: expected shape \(1, 16, 3\)"),
        ({"W": np.ones((4 * H, I), "f")}, ValueError, r"W: expected shape \(1, 16, 0\)"),
        ({"R": np.ones((1, 4 * H, 5), "f")}, ValueError, r"hidden_size: expected 5, as R of shape \(1, 16, 5\) says"),
        ({"R": np.ones((1, 3 * H, H), "f")}, ValueError, r"R: expected shape \(1, 16, 4\)"),
        ({"R": np.ones(H, "f")}, ValueError, r"R: expected shape \(directions, 4·H, H\); got \(4,\)"),
        ({"B": np.ones((1, 4 * H), "f")}, ValueError, r"B: expected shape \(1, 32\)"),
        ({"B": np.ones((1, 8 * H))}, TypeError, "B: expected dtype float32, that of W; got float64"),
        ({"W": np.ones((1, 4 * H, I), "f2")}, TypeError, "W: expected dtype float32 or float64; got float16"),
        ({"P": np.ones((1, 3 * H), "f")}, ValueError, "P: expected zeros, since our LSTM has no peepholes"),
        ({"P": np.zeros((1, H), "f")}, ValueError, r"P: expected shape \(1, 12\)"),
    ],
)
def test_constants_that_do_not_fit(
    change: dict[str, Any], error: type[Exception], message: str, rng: np.random.Generator
) -> None:
    given = ("X", "W", "R", "B", "", "", "", *(["P"] if "P" in change else []))
    with pytest.raises(error, match=r"^node 'cell' \(LSTM\): " + message):
        import_model(node_model("LSTM", weights("LSTM", 1, rng) | change, given))


def test_weights_that_follow_from_inputs(rng: np.random.Generator) -> None:
    constants = weights("LSTM", 1, rng)
    del constants["R"]
    with pytest.raises(ValueError, match=r"node 'cell' \(LSTM\): R: expected a constant of the graph; 'R' follows"):
        import_model(node_model("LSTM", constants))


def test_other_operators_domains_and_opsets() -> None:
    x, z = [info("X", [1])], [info("Z", [1])]
    with pytest.raises(ValueError, match=r"expected an RNN or LSTM node; got only others, such as Relu\. An exporter"):
        import_model(model_of([helper.make_node("Relu", ["X"], ["Z"])], x, z, {}))
    foreign = model_of([helper.make_node("Identity", ["X"], ["Z"], "n", domain="my.own")], x, z, {})
    foreign.opset_import.append(helper.make_opsetid("my.own", 1))
    with pytest.raises(ValueError, match=r"node 'n' \(Identity\): .*; got Identity of domain 'my\.own'"):
        import_model(foreign)
    with pytest.raises(ValueError, match="opset_import: expected version 7 or newer; got 6"):
        import_model(model_of([helper.make_node("Identity", ["X"], ["Z"])], x, z, {}, opset=6))
    only_foreign = model_of([], x, [info("X", [1])], {})
    only_foreign.opset_import[0].domain = "my.own"
    with pytest.raises(ValueError, match="opset_import: expected a version of the standard operators; got none"):
        import_model(only_foreign)


def test_graphs_that_do_not_hold_together() -> None:
    identity = helper.make_node("Identity", ["X"], ["Z"])
    with pytest.raises(ValueError, match="utput 'V'"):
        import_model(model_of([identity], [info("X", [1])], [info("V", [1])], {}))
    with pytest.raises(
        ValueError, match=r"onnx\.checker refuses it: .*[Nn]odes in a graph must be topologically sorted"
    ):
        import_model(model_of([helper.make_node("Identity", ["Y"], ["Z"])], [info("X", [1])], [info("Z", [1])], {}))
    listed = helper.make_tensor_sequence_value_info("X", F, None)
    with pytest.raises(ValueError, match="input 'X': expected a tensor; got sequence_type"):
        import_model(model_of([identity], [listed], [info("Z", None)], {}))
    words = model_of([identity], [info("X", [1], TensorProto.STRING)], [info("Z", [1], TensorProto.STRING)], {})
    with pytest.raises(TypeError, match="input 'X': expected numbers; got dtype string"):
        import_model(words)
    cut = model_of([identity], [info("X", [1])], [info("Z", [1])], {"c": np.ones(3, "f")})
    cut.graph.initializer[0].raw_data = b"\0" * 11
    with pytest.raises(ValueError, match=r"tensor|initializer"):
        import_model(cut)
    cut.graph.initializer[0].raw_data = b"\0" * 12
    for number, message in (
        (99, "expected a dtype of ONNX; got number 99"),
        (16, "expected numbers; got dtype bfloat16"),
    ):
        cut.graph.initializer[0].data_type = number
        if number == 16:
            cut.graph.initializer[0].raw_data = b"\0" * 6
        with pytest.raises(TypeError, match=f"initializer 'c': {message}"):
            import_model(cut)
    dense = model_of([identity], [info("X", [1])], [info("Z", [1])], {})
    at = helper.make_tensor("i", TensorProto.INT64, [1], [0])
    dense.graph.sparse_initializer.append(helper.make_sparse_tensor(helper.make_tensor("s", F, [1], [1.0]), at, [3]))
    with pytest.raises(ValueError, match="initializer 's': expected a dense one"):
        import_model(dense)


@pytest.mark.parametrize(
    ("operator", "attributes", "further", "message"),
    [
        ("Squeeze", {}, [np.array([0])], r"node 'n' \(Squeeze\): cannot select an axis"),
        ("Reshape", {}, [np.array([7, 7])], r"node 'n' \(Reshape\): cannot reshape"),
        ("Gather", {}, [np.array([9])], r"node 'n' \(Gather\): index 9 is out of bounds"),
        ("TopK", {}, [np.array([3])], r"node 'n' \(TopK\): K: expected 0 to 2; got 3"),
        ("ScatterElements", {}, [np.array([0]), np.ones(1)], "expected updates of shape (.*) and dtype float32"),
        ("Reshape", {}, [np.array([2**62, 2**62])], r"node 'n' \(Reshape\): "),
        ("Expand", {}, [np.array([3])], r"node 'n' \(Expand\): shape mismatch"),
        (
            "Concat",
            {"axis": 0},
            [np.ones(2)],
            r"node 'n' \(Concat\): expected inputs of one dtype; got float32, float64",
        ),
    ],
)
def test_shapes_that_do_not_fit_at_run_time(
    operator: str, attributes: dict[str, Any], further: list[Any], message: str
) -> None:
    constants = {f"c{n}": a for n, a in enumerate(further)}
    node = helper.make_node(operator, ["X", *constants], ["Z", "N"][: 1 + (operator == "TopK")], "n", **attributes)
    imported = import_model(model_of([node], [info("X", ["n"])], [info("Z", None)], constants))
    with pytest.raises((ValueError, TypeError), match=message):
        imported(np.ones(2, np.float32))
