"""Encoder, bridge and decoder against the same model in torch; greedy writing against a slow loop."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import scratchrnn as srnn
from scratchrnn.models import Bridge, EncoderDecoder
from scratchrnn.testing import TOLERANCE, assert_close

# torch says once per process that its float32 projection takes the slower path
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")

S, T, B, E_IN, E_OUT, V_IN, V = 6, 7, 5, 3, 4, 9, 8  # source and target steps, batch, embeddings, codes
SOURCE_LENGTHS, TARGET_LENGTHS = (4, 6, 1, 2, 6), (7, 3, 1, 5, 2)  # unsorted

Layer = tuple[str, int, int, bool, int]  # cell, hidden, layers, bidirectional, projection
ENCODERS: list[Layer] = [
    ("tanh", 6, 1, False, 0),
    ("lstm", 6, 1, False, 0),
    ("lstm", 6, 2, False, 0),
    ("relu", 6, 2, True, 0),
    ("lstm", 5, 2, True, 0),
    ("lstm", 6, 2, False, 4),
    ("lstm", 5, 1, True, 2),
]
DECODERS: list[Layer] = [
    ("tanh", 6, 1, False, 0),
    ("lstm", 6, 1, False, 0),
    ("lstm", 6, 2, False, 0),
    ("relu", 7, 2, False, 0),
    ("lstm", 6, 2, False, 4),
    ("lstm", 7, 3, False, 2),
]
WITHOUT_BRIDGE = {  # pairs of the lists above whose states agree
    (ENCODERS[0], DECODERS[0]),
    (ENCODERS[1], DECODERS[1]),
    (ENCODERS[2], DECODERS[2]),
    (ENCODERS[5], DECODERS[4]),
}


def layer(kind: Layer, inputs: int, rng: np.random.Generator, dtype: Any = np.float64) -> srnn.RNN | srnn.LSTM:
    cell, hidden, layers, both, proj = kind
    common: Any = {"num_layers": layers, "bidirectional": both, "dtype": dtype, "rng": rng}
    if cell == "lstm":
        return srnn.LSTM(inputs, hidden, proj_size=proj, **common)
    return srnn.RNN(inputs, hidden, nonlinearity=cell, **common)


def new(encoder: Layer, decoder: Layer, rng: np.random.Generator, dtype: Any = np.float64) -> EncoderDecoder:
    layers = layer(encoder, E_IN, rng, dtype), layer(decoder, E_OUT, rng, dtype)
    return EncoderDecoder(*layers, source_size=V_IN, target_size=V, rng=rng)


class TorchModel(torch.nn.Module):
    """The same model in torch, float64, with the same names; the bridge written out as its module says."""

    def __init__(self, model: EncoderDecoder) -> None:
        super().__init__()
        self.source_embedding = torch.nn.Embedding(V_IN, E_IN)
        self.encoder = srnn.interop.torch.to_module(model.encoder)
        self.target_embedding = torch.nn.Embedding(V, E_OUT)
        self.decoder = srnn.interop.torch.to_module(model.decoder)
        self.readout = torch.nn.Linear(model.decoder.output_size, V)
        if model.bridge is not None:
            shapes = {name.split(".")[0]: w.shape for name, w in model.bridge.parameters.items() if "weight" in name}
            self.bridge = torch.nn.ModuleDict({name: torch.nn.Linear(n, m) for name, (m, n) in shapes.items()})
        self.double()
        self.load_state_dict({name: torch.from_numpy(a.copy()) for name, a in model.parameters.items()})

    def start(self, final: Any) -> Any:
        if not hasattr(self, "bridge"):
            return final
        h, c = final if isinstance(final, tuple) else (final, final)
        rows = self.decoder.num_layers

        def dense(name: str, state: Any) -> Any:
            wide = self.bridge[name](torch.cat(list(state), dim=1))  # rows side by side
            return torch.stack(wide.chunk(rows, dim=1))

        h_0 = torch.tanh(dense("h", h))
        return (h_0, dense("c", c)) if "c" in self.bridge else h_0

    def run(self, module: Any, x: Any, state: Any, lengths: Any) -> Any:
        if lengths is None:
            return module(x, state)
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), enforce_sorted=False)
        output, state = module(packed, state)
        return torch.nn.utils.rnn.pad_packed_sequence(output, total_length=len(x))[0], state

    def forward(self, source: Any, target_in: Any, source_lengths: Any, target_lengths: Any) -> Any:
        _, final = self.run(self.encoder, self.source_embedding(source), None, source_lengths)
        output, _ = self.run(self.decoder, self.target_embedding(target_in), self.start(final), target_lengths)
        return self.readout(output)


def codes(rng: np.random.Generator, batch: int = B) -> tuple[np.ndarray, np.ndarray]:
    return rng.integers(0, V_IN, (S, batch)), rng.integers(0, V, (T, batch))


def compare(model: EncoderDecoder, rng: np.random.Generator, lengths: tuple[Any, Any]) -> None:
    source, target_in = codes(rng)
    reference = TorchModel(model)
    logits = reference(torch.from_numpy(source), torch.from_numpy(target_in), *lengths)
    d_logits = rng.standard_normal(logits.shape)
    (logits * torch.from_numpy(d_logits)).sum().backward()

    trace = model.forward(source, target_in, *lengths)
    grads = model.backward(trace, d_logits)
    assert_close("logits", trace.logits, logits.detach().numpy(), rel=TOLERANCE["float64"])
    assert_close("inferred", model(source, target_in, *lengths), trace.logits, rel=TOLERANCE["float64"])
    want = {name: p.grad for name, p in reference.named_parameters()}
    assert list(grads.parameters) == list(model.parameters)
    assert grads.parameters.keys() == want.keys()
    for name, got in grads.parameters.items():
        assert_close(name, got, want[name].numpy(), rel=TOLERANCE["float64"])


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize("ragged", [False, True], ids=["full", "lengths"])
@pytest.mark.parametrize(
    ("encoder", "decoder"), list(itertools.product(ENCODERS, DECODERS)), ids=lambda kind: "-".join(map(str, kind))
)
def test_logits_and_every_gradient_equal_torch(
    encoder: Layer, decoder: Layer, ragged: bool, rng: np.random.Generator
) -> None:
    model = new(encoder, decoder, rng)
    assert (model.bridge is None) == ((encoder, decoder) in WITHOUT_BRIDGE)
    compare(model, rng, (SOURCE_LENGTHS, TARGET_LENGTHS) if ragged else (None, None))


@pytest.mark.parametrize("lengths", [(SOURCE_LENGTHS, None), (None, TARGET_LENGTHS)], ids=["source", "target"])
def test_lengths_of_one_side(lengths: tuple[Any, Any], rng: np.random.Generator) -> None:
    compare(new(ENCODERS[4], DECODERS[1], rng), rng, lengths)


@pytest.mark.parametrize(("encoder", "decoder"), [(ENCODERS[2], DECODERS[2]), (ENCODERS[4], DECODERS[3])])
def test_one_sample_and_one_step(encoder: Layer, decoder: Layer, rng: np.random.Generator) -> None:
    model = new(encoder, decoder, rng)
    reference = TorchModel(model)
    for steps, batch in ((1, B), (4, 1), (1, 1)):
        source, target_in = rng.integers(0, V_IN, (steps, batch)), rng.integers(0, V, (1, batch))
        trace = model.forward(source, target_in)
        reference.zero_grad()
        logits = reference(torch.from_numpy(source), torch.from_numpy(target_in), None, None)
        logits.sum().backward()
        grads = model.backward(trace, np.ones_like(trace.logits)).parameters
        assert_close("logits", trace.logits, logits.detach().numpy(), rel=TOLERANCE["float64"])
        for name, parameter in reference.named_parameters():
            assert_close(name, grads[name], parameter.grad.numpy(), rel=TOLERANCE["float64"])


def test_the_state_is_the_only_way_into_the_encoder(rng: np.random.Generator) -> None:
    model = new(ENCODERS[2], DECODERS[2], rng)
    source, target_in = codes(rng)
    trace = model.forward(source, target_in)
    for n in range(2):  # handed on to the last bit
        np.testing.assert_array_equal(trace.decoder[n].h[0], trace.encoder.state[0][n])
        np.testing.assert_array_equal(trace.decoder[n].c[0], trace.encoder.state[1][n])
    grads = model.backward(trace, rng.standard_normal(trace.logits.shape))
    np.testing.assert_array_equal(grads.encoder[1].h[-1], grads.decoder.state[0][1])  # of the top layer's last h: all
    assert all(grads.parameters[name].any() for name in model.parameters)
    nothing = model.backward(trace, np.zeros_like(trace.logits)).parameters
    assert not any(g.any() for g in nothing.values())


def test_dropout_acts_in_training_only(rng: np.random.Generator) -> None:
    layers = [srnn.LSTM(E_IN, 6, 2, dropout=0.5, dtype=np.float64, rng=rng) for _ in range(2)]
    model = EncoderDecoder(*layers, source_size=V_IN, target_size=V, rng=rng)
    source, target_in = codes(rng)
    logits = model(source, target_in)
    assert_close("logits", model.forward(source, target_in, training=False).logits, logits, rel=TOLERANCE["float64"])
    one, two = (model.forward(source, target_in, rng=np.random.default_rng(1)) for _ in range(2))
    assert_close("logits", one.logits, two.logits, rel=0)
    assert abs(one.logits - logits).max() > 1e-3
    assert one.encoder.dropout_masks[0] is not None
    assert one.decoder.dropout_masks[0] is not None


# Writing


def slowly(model: EncoderDecoder, source: np.ndarray, *, start: int, stop: int, max_length: int) -> list[int]:
    """One sample; the whole target again for each code."""
    written: list[int] = []
    while len(written) < max_length:
        target_in = np.array([start, *written])[:, None]
        best = int(model.forward(source[:, None], target_in, training=False).logits[-1, 0].argmax())
        if best == stop:
            break
        written.append(best)
    return written


@pytest.mark.usefixtures("each_backend")
@pytest.mark.parametrize(("encoder", "decoder"), [(ENCODERS[2], DECODERS[2]), (ENCODERS[4], DECODERS[5])])
def test_greedy_equals_a_slow_loop(encoder: Layer, decoder: Layer, rng: np.random.Generator) -> None:
    model, batch = new(encoder, decoder, rng), 40
    for array in model.parameters.values():
        array[...] = 1.5 * rng.standard_normal(array.shape)  # large enough for the codes to vary
    model.readout.bias[...] = 0
    source = rng.integers(0, V_IN, (S, batch))
    lengths = rng.integers(1, S + 1, batch)

    def ends(stop: int) -> int:
        return len({len(w) for w in model.greedy(source, lengths, start=0, stop=stop, max_length=9)})

    stop = max(range(V), key=ends)
    got = model.greedy(source, lengths, start=0, stop=stop, max_length=9)
    want = [slowly(model, source[:n, b], start=0, stop=stop, max_length=9) for b, n in enumerate(lengths)]
    assert [written.tolist() for written in got] == want
    assert ends(stop) > 2
    longer = model.greedy(source, lengths, start=0, stop=stop, max_length=12)
    assert [written[:9].tolist() for written in longer] == want
    full = [slowly(model, source[:, b], start=stop, stop=stop, max_length=3) for b in range(batch)]
    assert [w.tolist() for w in model.greedy(source, start=stop, stop=stop, max_length=3)] == full


def test_greedy_may_write_nothing_or_never_stop(rng: np.random.Generator) -> None:
    model = new(ENCODERS[1], DECODERS[1], rng)
    source = rng.integers(0, V_IN, (S, 3))
    bias = model.parameters["readout.bias"]
    bias[5] = 100
    assert [w.tolist() for w in model.greedy(source, start=0, stop=5, max_length=4)] == [[], [], []]
    assert [w.tolist() for w in model.greedy(source, start=0, stop=2, max_length=4)] == [[5, 5, 5, 5]] * 3
    assert model.greedy(source[:, :0], start=0, stop=2, max_length=4) == []
    assert source.flags.writeable


def test_greedy_writes_codes_beyond_the_dtype_of_start_and_stop(rng: np.random.Generator) -> None:
    layers = [srnn.RNN(2, 3, rng=rng) for _ in range(2)]
    model = srnn.models.EncoderDecoder(*layers, source_size=4, target_size=300, rng=rng)
    model.readout.bias[299] = 100
    codes = np.array([1, 10], np.uint8)  # of a text with few codes
    written = model.greedy(np.zeros((2, 1), int), start=codes[0], stop=codes[1], max_length=3)
    assert [w.tolist() for w in written] == [[299, 299, 299]]


# Files, names, bad input


@pytest.mark.parametrize(("encoder", "decoder"), [(ENCODERS[2], DECODERS[2]), (ENCODERS[5], DECODERS[3])])
def test_save_and_load(encoder: Layer, decoder: Layer, rng: np.random.Generator, tmp_path: Path) -> None:
    model, path = new(encoder, decoder, rng, np.float32), tmp_path / "m.safetensors"
    model.save(path)
    loaded = EncoderDecoder.load(path)
    assert loaded.config() == model.config()
    assert repr(loaded) == repr(model)
    assert list(loaded.parameters) == list(model.parameters)
    source, target_in = codes(rng)
    assert_close("logits", loaded(source, target_in), model(source, target_in), rel=0)
    metadata = {"layer": "EncoderDecoder", "config": model.config()}
    for entry in (None, 3, {"layer": "GRU", "config": {}}, {"layer": "LSTM"}):
        metadata["config"] = model.config() | {"encoder": entry}
        save_file(load_file(path), tmp_path / "bad", {"scratchrnn": json.dumps(metadata)})
        with pytest.raises(ValueError, match="bad: encoder: expected the configuration of an RNN or LSTM; got "):
            EncoderDecoder.load(tmp_path / "bad")


def test_parameters_are_the_parts_own_arrays(rng: np.random.Generator) -> None:
    model = new(ENCODERS[4], DECODERS[5], rng)
    for name, array in model.parameters.items():
        part, _, rest = name.partition(".")
        assert array is getattr(model, part).parameters[rest]
    prefixes = list(dict.fromkeys(name.split(".")[0] for name in model.parameters))
    assert prefixes == ["source_embedding", "encoder", "bridge", "target_embedding", "decoder", "readout"]


LSTM = ("lstm", 6, 1, False, 0)


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        (lambda r: {"encoder": srnn.Linear(3, 6)}, TypeError, "encoder: expected an RNN or LSTM; got Linear"),
        (lambda r: {"decoder": None}, TypeError, "decoder: expected an RNN or LSTM; got NoneType None"),
        (lambda r: {"encoder": srnn.LSTM(3, 6, batch_first=True)}, ValueError, "encoder: expected batch_first=False"),
        (lambda r: {"decoder": srnn.LSTM(3, 6, bidirectional=True)}, ValueError, "decoder: expected one direction"),
        (lambda r: {"decoder": srnn.LSTM(3, 6, dtype=np.float64)}, TypeError, "decoder: expected dtype float32, the"),
        (lambda r: {"source_size": 0}, ValueError, "source_size: expected an integer of at least 1; got 0"),
        (lambda r: {"target_size": 2.5}, TypeError, "target_size: expected an integer of at least 1; got float 2.5"),
        (lambda r: {"rng": 1}, TypeError, "rng: expected None, np.random.Generator"),
    ],
)
def test_refuses_arguments(change: Any, kind: Any, message: str, rng: np.random.Generator) -> None:
    good = {"encoder": srnn.LSTM(3, 6), "decoder": srnn.LSTM(3, 6), "source_size": 4, "target_size": 5}
    with pytest.raises(kind, match=f"^{message}"):
        EncoderDecoder(**(good | change(rng)))


def test_refuses_one_layer_twice_and_bridges_of_two_dtypes() -> None:
    one = srnn.LSTM(3, 6)
    with pytest.raises(ValueError, match="decoder: expected another layer than the encoder; got the same object"):
        EncoderDecoder(one, one, source_size=4, target_size=5)
    with pytest.raises(TypeError, match="target: expected dtype float32, that of source; got float64"):
        Bridge(one, srnn.LSTM(3, 6, dtype=np.float64))
    with pytest.raises(TypeError, match="target: expected an RNN or LSTM; got int 3"):
        Bridge(one, 3)


def test_refuses_input(rng: np.random.Generator) -> None:
    model = new(ENCODERS[1], DECODERS[1], rng)
    source, target_in = codes(rng)
    trace = model.forward(source, target_in)
    bad: list[tuple[Any, type[Exception], str]] = [
        (
            lambda: model.forward(source[0], target_in),
            ValueError,
            r"source: expected shape \(time, batch\); got \(5,\)",
        ),
        (lambda: model(source, target_in * 1.0), TypeError, "target_in: expected a NumPy array of integers; got "),
        (lambda: model(source + V_IN, target_in), ValueError, "source: expected values from 0 to 8; got "),
        (lambda: model(source, target_in - V), ValueError, "target_in: expected values from 0 to 7; got "),
        (
            lambda: model(source, target_in[:, 1:]),
            ValueError,
            r"target_in: expected shape \(time, 5\), the batch of so",
        ),
        (
            lambda: model(source[:0], target_in),
            ValueError,
            r"source: expected at least one time step; got shape \(0, 5",
        ),
        (lambda: model(source, target_in[:0]), ValueError, "target_in: expected at least one time step; got shape"),
        (lambda: model(source, target_in, [1] * 4), ValueError, r"source_lengths: expected shape \(5,\)"),
        (lambda: model(source, target_in, None, [0] * 5), ValueError, "target_lengths: expected values from 1 to 7"),
        (lambda: model(source, target_in, [7] * 5), ValueError, "source_lengths: expected values from 1 to 6"),
        (lambda: model.backward(trace.decoder, trace.logits), TypeError, "trace: expected what forward of"),
        (
            lambda: model.backward(trace, trace.logits[1:]),
            ValueError,
            r"d_logits: expected shape \(7, 5, 8\) of the tr",
        ),
        (
            lambda: new(ENCODERS[1], DECODERS[2], rng).backward(trace, trace.logits),
            ValueError,
            "trace: expected one of",
        ),
        (lambda: model.greedy(source, start=8, stop=1, max_length=2), ValueError, "start: expected a code from 0 to 7"),
        (
            lambda: model.greedy(source, start=1, stop=-1, max_length=2),
            ValueError,
            "stop: expected an integer of at le",
        ),
        (lambda: model.greedy(source, start=1, stop=1, max_length=0), ValueError, "max_length: expected an integer of"),
        (
            lambda: model.greedy(source, [0] * 5, start=1, stop=1, max_length=1),
            ValueError,
            "source_lengths: expected v",
        ),
        (lambda: model.greedy(source[0], start=1, stop=1, max_length=1), ValueError, "source: expected shape"),
    ]
    for call, kind, message in bad:
        with pytest.raises(kind, match=f"^{message}"):
            call()


def test_nan_passes_through(rng: np.random.Generator) -> None:
    model = new(ENCODERS[4], DECODERS[5], rng)
    source, target_in = codes(rng)
    model.parameters["source_embedding.weight"][source[0, 2]] = np.nan
    trace = model.forward(source, target_in)
    assert np.isnan(trace.logits[:, 2]).all()
    grads = model.backward(trace, np.ones_like(trace.logits))
    assert np.isnan(grads.parameters["bridge.c.weight"]).any()
