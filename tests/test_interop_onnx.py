"""Layers to ONNX and back: ONNX Runtime runs what we write, and we what torch writes, to 1e-5 of each other."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.reference
import onnxruntime
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.interop.onnx import export_model, import_model
from scratchrnn.testing import TOLERANCE, assert_close

REL = 1e-5  # of float32 in two orders of summation
I, H, B, T = 3, 4, 2, 5
NEWEST_RUN = 26  # the newest opset that every onnxruntime in use runs


def runtime(model: Any, feeds: dict[str, Any]) -> dict[str, np.ndarray]:
    """What ONNX Runtime computes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # advice on initializers that nothing reads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), sess_options=options, providers=["CPUExecutionProvider"]
    )
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def assert_same(got: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
    assert list(got) == list(want)
    for name in want:
        assert_close(name, got[name], want[name], rel=REL)


def flat(output: Any, state: Any) -> dict[str, np.ndarray]:
    """What a layer returns, under the names of an exported model."""
    states = state if isinstance(state, tuple) else (state,)
    return dict(zip(["output", "h_n", "c_n"], [output, *states], strict=False))


def feeds_of(layer: Any, rng: np.random.Generator, dtype: str = "float32") -> dict[str, np.ndarray]:
    """Inputs of a model with lengths and initial states."""
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    rows = layer.num_layers * layer.num_directions
    states = {f"{s}_0": rng.standard_normal((rows, B, H)).astype(dtype) for s in ("hc" if layer.cell.has_c else "h")}
    return {"x": rng.standard_normal(shape).astype(dtype), "lengths": np.array([3, T], np.int32), **states}


def called(layer: Any, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    states = tuple(value for name, value in feeds.items() if name in ("h_0", "c_0"))
    state = None if not states else states if len(states) == 2 else states[0]
    return flat(*layer(feeds["x"], state, feeds.get("lengths")))


# --- what we write


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("kind", ["LSTM", "tanh", "relu"])
def test_runtime_runs_what_is_exported(
    kind: str, num_layers: int, bidirectional: bool, batch_first: bool, bias: bool, rng: np.random.Generator
) -> None:
    options: dict[str, Any] = {"bidirectional": bidirectional, "batch_first": batch_first, "bias": bias, "rng": rng}
    if kind == "LSTM":
        layer: Any = srnn.LSTM(I, H, num_layers, **options)
    else:
        layer = srnn.RNN(I, H, num_layers, nonlinearity=kind, **options)
    all_feeds = feeds_of(layer, rng)
    for lengths in (False, True):
        for initial_state in (False, True):
            model = export_model(layer, lengths=lengths, initial_state=initial_state)
            onnx.checker.check_model(model, full_check=True)  # types and shapes inferred too
            names = ["x", *(["lengths"] if lengths else [])]
            names += [n for n in ("h_0", "c_0") if n in all_feeds and initial_state]
            assert [value.name for value in model.graph.input] == names
            assert sum(node.op_type in ("RNN", "LSTM") for node in model.graph.node) == num_layers
            feeds = {name: all_feeds[name] for name in names}
            want = called(layer, feeds)
            assert_same(runtime(model, feeds), want)
            assert_same(import_model(model)(feeds), want)


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 14, 17, 21, 22, 24, NEWEST_RUN])
def test_every_opset(opset: int, rng: np.random.Generator) -> None:
    for layer in (srnn.LSTM(I, H, 2, bidirectional=True, rng=rng), srnn.RNN(I, H, 2, batch_first=True, rng=rng)):
        model = export_model(layer, lengths=True, initial_state=True, opset=opset)
        assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]
        feeds = feeds_of(layer, rng)
        assert_same(runtime(model, feeds), called(layer, feeds))
        assert_same(import_model(model)(feeds), called(layer, feeds))


def test_the_newest_opset_of_the_installed_onnx(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, rng=rng)
    feeds = {"x": feeds_of(layer, rng)["x"]}
    model = export_model(layer, opset=onnx.defs.onnx_opset_version())
    assert_same(import_model(model)(feeds), called(layer, feeds))


def test_float64_comes_back_bit_for_bit(rng: np.random.Generator) -> None:
    # ONNX Runtime does not run it: onnx's own evaluator does, for one direction
    layer = srnn.LSTM(I, H, 2, dtype=np.float64, rng=rng)
    feeds = feeds_of(layer, rng, "float64")
    model = export_model(layer, lengths=True, initial_state=True)
    got = import_model(model)(feeds)
    for name, want in called(layer, feeds).items():
        assert_close(name, got[name], want, rel=TOLERANCE["float64"])
    del feeds["lengths"]
    plain = export_model(layer, initial_state=True)
    results = onnx.reference.ReferenceEvaluator(plain).run(None, feeds)
    for want, (name, got_) in zip(results, called(layer, feeds).items(), strict=True):
        assert_close(name, got_, want, rel=TOLERANCE["float64"])


def test_sizes_that_the_graph_leaves_open(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, 2, bidirectional=True, rng=rng)
    model = export_model(layer)
    for steps, batch in ((1, 1), (9, 1), (1, 6)):
        feeds = {"x": rng.standard_normal((steps, batch, I)).astype(np.float32)}
        assert_same(runtime(model, feeds), called(layer, feeds))
        assert_same(import_model(model)(feeds), called(layer, feeds))


def test_the_model_keeps_its_weights_when_the_layer_learns(rng: np.random.Generator) -> None:
    layer = srnn.RNN(I, H, rng=rng)
    model, before = export_model(layer), layer.state_dict()
    layer.weight_ih_l0 = np.zeros((H, I), np.float32)
    again = import_model(model).layers["RNN_l0"]
    for name, array in before.items():
        assert_close(name, again.parameters[name], array, rel=0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: export_model(srnn.LSTM(I, H, proj_size=2)), ValueError, "layer: expected no projection.*proj_size=2"),
        (lambda: export_model(srnn.Linear(I, H)), TypeError, "layer: expected an RNN or LSTM; got .*Linear"),
        (lambda: export_model(srnn.Zoneout(srnn.LSTM(I, H), 0.1)), TypeError, "layer: expected an RNN or LSTM"),
        (lambda: export_model(srnn.LSTM(I, H), opset=6), ValueError, "opset: expected an integer from 7 to .*; got 6"),
        (lambda: export_model(srnn.LSTM(I, H), opset=999), ValueError, "opset: expected an integer from 7 to"),
        (lambda: export_model(srnn.LSTM(I, H), lengths=1), TypeError, "lengths: expected True or False; got int 1"),
    ],
)
def test_what_cannot_be_exported(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


# --- what torch writes


def torch_model(m: Any, arguments: tuple[Any, ...], **options: Any) -> Any:
    file = io.BytesIO()
    torch.onnx.export(m, arguments, file, dynamo=False, **options)
    return onnx.load_model_from_string(file.getvalue())


class Packed(torch.nn.Module):
    """Padded sequences in and out."""

    def __init__(self, m: torch.nn.Module, ordered: bool = True) -> None:
        super().__init__()
        self.m, self.ordered = m, ordered

    def forward(self, x: Any, lengths: Any) -> Any:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=self.ordered)
        output, state = self.m(packed)
        return torch.nn.utils.rnn.pad_packed_sequence(output)[0], state


from_torch = pytest.mark.filterwarnings(  # torch's own, of its exporter
    "ignore::DeprecationWarning", "ignore::UserWarning", "ignore::torch.jit.TracerWarning"
)


@from_torch
@pytest.mark.parametrize("opset", [9, 10, 11, 12, 13, 14, 17, 20])
@pytest.mark.parametrize("folded", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_we_run_what_torch_exports(
    opset: int, folded: bool, batch_first: bool, bidirectional: bool, rng: np.random.Generator
) -> None:
    torch.manual_seed(0)
    for m in (
        torch.nn.LSTM(I, H, 2, bidirectional=bidirectional, batch_first=batch_first),
        torch.nn.RNN(I, H, 2, bidirectional=bidirectional, batch_first=batch_first, nonlinearity="relu", bias=False),
    ):
        axes = {"x": {0: "first", 1: "second"}}
        options = {"do_constant_folding": folded, "opset_version": opset, "input_names": ["x"], "dynamic_axes": axes}
        model = torch_model(m, (torch.randn(B, T, I),), **options)
        for shape in ((T, B, I), (7, 6, I)):  # other sizes than it was traced with
            feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
            want = runtime(model, feeds)
            assert_same(import_model(model)(feeds), want)
            for got, expected in zip(want.values(), tensors(m(torch.from_numpy(feeds["x"]))), strict=True):
                assert_close("torch", got, expected, rel=REL)


def tensors(value: Any) -> list[np.ndarray]:
    if isinstance(value, tuple):
        return [a for v in value for a in tensors(v)]
    return [value.detach().numpy()]


@from_torch
@pytest.mark.parametrize("keep", [False, True])  # initializers among the inputs, as before IR 4
def test_states_one_sequence_and_lengths_from_torch(keep: bool, rng: np.random.Generator) -> None:
    torch.manual_seed(1)
    x, h, c = torch.randn(T, B, I), torch.randn(4, B, H), torch.randn(4, B, H)
    lstm = torch.nn.LSTM(I, H, 2, bidirectional=True)
    options = {"keep_initializers_as_inputs": keep}
    for m, arguments in (
        (lstm, (x, (h, c))),
        (torch.nn.RNN(I, H, 2, bidirectional=True), (x, h)),
        (torch.nn.RNN(I, H, bias=False), (x[:, 0],)),
        (torch.nn.LSTM(I, H), (x[:, 0], (h[0, :1], c[0, :1]))),
        (Packed(lstm), (x, torch.tensor([T, 3]))),
        (Packed(lstm, ordered=False), (x, torch.tensor([3, T]))),
    ):
        model = torch_model(m, arguments, **options)
        imported = import_model(model)
        given = [a for argument in arguments for a in (argument if isinstance(argument, tuple) else (argument,))]
        feeds = dict(zip(imported.inputs, [a.numpy() for a in given], strict=True))
        got = imported(feeds)
        assert_same(got, runtime(model, feeds))
        assert_same(imported(*feeds.values()), got)  # by position
        assert_same(imported(*given), got)  # torch's own tensors
        for name, want in zip(got, tensors(m(*arguments)), strict=True):
            assert_close(name, got[name], want, rel=REL)


@from_torch
def test_an_operator_of_torchs_that_is_not_read() -> None:
    class OfExp(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.m = torch.nn.LSTM(I, H)

        def forward(self, x: Any) -> Any:
            return self.m(x.exp())

    model = torch_model(OfExp(), (torch.randn(T, B, I),))
    with pytest.raises(ValueError, match=r"node '/Exp' \(Exp\): expected one of RNN, LSTM, Cast, .*; got Exp$"):
        import_model(model)


# --- the callable


def test_traces_and_gradients_of_an_imported_model(rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, 2, bidirectional=True, dtype=np.float64, rng=rng)
    model = import_model(export_model(layer, lengths=True))
    x, lengths = rng.standard_normal((T, B, I)), np.array([3, T], np.int32)
    outputs, traces = model.forward(x, lengths)
    assert list(traces) == list(model.layers) == ["LSTM_l0", "LSTM_l1"]
    want = layer.forward(x, None, lengths, training=False)
    d_output = rng.standard_normal(want.output.shape)
    grads = layer.backward(want, d_output)
    assert_close("output", outputs["output"], want.output, rel=TOLERANCE["float64"])
    upper = model.layers["LSTM_l1"].backward(traces["LSTM_l1"], d_output)
    lower = model.layers["LSTM_l0"].backward(traces["LSTM_l0"], upper.input)
    assert_close("dx", lower.input, grads.input, rel=TOLERANCE["float64"])
    for number, part in enumerate((lower, upper)):
        for name, d in part.parameters.items():
            assert_close(name, d, grads.parameters[name.replace("_l0", f"_l{number}")], rel=TOLERANCE["float64"])
    for side in ("forward", "reverse"):
        assert_close("gates", traces["LSTM_l1"][0, side].gates, want[1, side].gates, rel=TOLERANCE["float64"])


def test_what_comes_out_is_the_callers_own(rng: np.random.Generator) -> None:
    model = import_model(export_model(srnn.RNN(I, H, batch_first=True, rng=rng)))
    x = rng.standard_normal((B, T, I)).astype(np.float32)
    first = model(x)
    kept = {name: array.copy() for name, array in first.items()}
    for array in first.values():
        assert array.flags.c_contiguous
        array[...] = 9
    assert_same(model(x), kept)


def test_backend_is_the_layers(each_backend: str) -> None:
    model = import_model(export_model(srnn.LSTM(I, H)), backend=each_backend)
    assert model.layers["LSTM_l0"].backend == each_backend
    assert repr(model) == "ImportedModel(x -> output, h_n, c_n; layers LSTM_l0)"


MODEL = import_model(export_model(srnn.LSTM(I, H), lengths=True))
X, N = np.zeros((T, B, I), np.float32), np.array([T, 3], np.int32)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        ((), ValueError, r"inputs: expected 2 \(x, lengths\); got 0"),
        ((X, N, N), ValueError, r"inputs: expected 2 \(x, lengths\); got 3"),
        (({"x": X},), ValueError, "inputs: expected x, lengths; missing lengths"),
        (({"x": X, "n": N},), ValueError, "inputs: expected x, lengths; missing lengths; unexpected n"),
        ((X.astype(float), N), TypeError, "x: expected dtype float32; got float64"),
        ((X, N.astype(np.int64)), TypeError, "lengths: expected dtype int32; got int64"),
        ((X[0], N), ValueError, r"x: expected shape \(time, batch, 3\); got \(2, 3\)"),
        ((X[..., :2], N), ValueError, r"x: expected shape \(time, batch, 3\); got \(5, 2, 2\)"),
        ((X.tolist(), N), TypeError, "x: expected a NumPy array; got list"),
        ((X, N[:1]), ValueError, r"node 'LSTM_l0' \(LSTM\): sequence_lens: expected shape \(2,\)"),
        ((X, N + 1), ValueError, r"node 'LSTM_l0' \(LSTM\): sequence_lens: expected values from 1 to 5.*got 6"),
        ((X, N * 0), ValueError, r"node 'LSTM_l0' \(LSTM\): sequence_lens: expected values from 1 to 5.*got 0"),
        ((X[:0], N), ValueError, r"node 'LSTM_l0' \(LSTM\): "),
    ],
)
def test_wrong_inputs(inputs: tuple[Any, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MODEL(*inputs)


# --- files


def test_round_trip_of_a_file(tmp_path: Path, rng: np.random.Generator) -> None:
    layer = srnn.LSTM(I, H, 2, rng=rng)
    onnx.save(export_model(layer), tmp_path / "net.onnx")
    onnx.save(export_model(layer), tmp_path / "big.onnx", save_as_external_data=True, location="w", size_threshold=0)
    x = rng.standard_normal((T, B, I)).astype(np.float32)
    for name in ("net.onnx", "big.onnx"):
        assert_same(import_model(tmp_path / name)(x), called(layer, {"x": x}))
    assert_same(import_model(str(tmp_path / "net.onnx"))(x), called(layer, {"x": x}))
    (tmp_path / "w").write_bytes((tmp_path / "w").read_bytes()[:100])
    with pytest.raises(ValueError, match=r"big\.onnx: "):
        import_model(tmp_path / "big.onnx")
    (tmp_path / "w").unlink()
    with pytest.raises(ValueError, match=r"big\.onnx: expected an ONNX model; .*"):
        import_model(tmp_path / "big.onnx")


def test_every_truncation_of_a_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    whole = export_model(srnn.RNN(2, 1)).SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=r"cut\.onnx: expected an ONNX model; "):
            import_model(path)


def test_damaged_bytes_are_read_or_refused_by_name(tmp_path: Path, rng: np.random.Generator) -> None:
    whole = export_model(srnn.LSTM(2, 1), lengths=True, initial_state=True).SerializeToString()
    path, messages = tmp_path / "bad.onnx", []
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            import_model(path)
        except (ValueError, TypeError) as error:
            messages.append(str(error))
    assert all(message.startswith(str(path)) for message in messages)
    assert len(messages) > len(whole) / 3  # elsewhere a name or a weight is another one


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.onnx: no such file"):
        import_model(tmp_path / "no.onnx")
    with pytest.raises(IsADirectoryError, match="expected a file; this is a folder"):
        import_model(tmp_path)
    (tmp_path / "text.onnx").write_text("weights\n" * 9)
    with pytest.raises(ValueError, match=r"text\.onnx: expected an ONNX model; "):
        import_model(tmp_path / "text.onnx")
    with pytest.raises(TypeError, match=r"model: expected an onnx\.ModelProto or the path of a file; got int 3"):
        import_model(3)


def test_without_onnx_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    for attempt in (lambda: export_model(srnn.LSTM(I, H)), lambda: import_model("net.onnx")):
        with pytest.raises(ImportError, match=r'pip install "scratchrnn\[onnx\]", or onnx from 1\.16 on'):
            attempt()
