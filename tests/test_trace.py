"""The trace and the gradients of every step, against a torch loop that shows what torch.nn hides."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn.testing import TOLERANCE, assert_close

T, B, I, H, P = 7, 5, 3, 6, 4
REL = TOLERANCE["float64"]
pytestmark = pytest.mark.usefixtures("each_backend")
Found = dict[str, list[torch.Tensor]]


def torch_loop(w: dict[str, torch.Tensor], x: torch.Tensor, h: torch.Tensor, c: torch.Tensor, cell: str) -> Found:
    """One direction of one layer, step by step, every intermediate kept with its gradient."""
    found: Found = {name: [] for name in ("h", "c", "a", "i", "f", "g", "o")}

    def keep(name: str, value: torch.Tensor) -> torch.Tensor:
        value.retain_grad()
        found[name].append(value)
        return value

    keep("h", h)
    keep("c", c)
    for x_t in x:
        a = keep("a", x_t @ w["weight_ih_l0"].T + w["bias_ih_l0"] + h @ w["weight_hh_l0"].T + w["bias_hh_l0"])
        if cell == "lstm":
            i, f, g, o = a.chunk(4, dim=1)
            i, f, g, o = keep("i", i.sigmoid()), keep("f", f.sigmoid()), keep("g", g.tanh()), keep("o", o.sigmoid())
            c = keep("c", f * c + i * g)
            h = o * c.tanh()
            h = keep("h", h @ w["weight_hr_l0"].T if "weight_hr_l0" in w else h)
        else:
            h = keep("h", torch.tanh(a) if cell == "tanh" else torch.relu(a))
    return found


def make(cell: str, proj: int, rng: np.random.Generator) -> srnn.RNN | srnn.LSTM:
    if cell == "lstm":
        return srnn.LSTM(I, H, proj_size=proj, dtype=np.float64, rng=rng)
    return srnn.RNN(I, H, nonlinearity=cell, dtype=np.float64, rng=rng)


@pytest.mark.parametrize(("cell", "proj"), [("tanh", 0), ("relu", 0), ("lstm", 0), ("lstm", P)])
def test_every_state_gate_and_gradient_of_every_step(cell: str, proj: int, rng: np.random.Generator) -> None:
    layer = make(cell, proj, rng)
    x, h_0, c_0 = rng.standard_normal((T, B, I)), rng.standard_normal((1, B, proj or H)), rng.standard_normal((1, B, H))
    d_output, d_h, d_c = (rng.standard_normal(s) for s in ((T, B, proj or H), h_0.shape, c_0.shape))
    lstm = cell == "lstm"
    trace = layer.forward(x, (h_0, c_0) if lstm else h_0)
    grads = layer.backward(trace, d_output, (d_h, d_c) if lstm else d_h)

    w = {name: torch.tensor(v) for name, v in layer.parameters.items()}
    start = [torch.tensor(s[0], requires_grad=True) for s in (h_0, c_0)]
    want = torch_loop(w, torch.tensor(x), *start, cell)
    loss = (torch.stack(want["h"][1:]) * torch.tensor(d_output)).sum() + (want["h"][-1] * torch.tensor(d_h[0])).sum()
    if lstm:
        loss = loss + (want["c"][-1] * torch.tensor(d_c[0])).sum()
    loss.backward()
    for name in ("h", "c", "a", "i", "f", "g", "o") if lstm else ("h", "a"):
        assert_close(name, getattr(trace, name), torch.stack(want[name]).detach().numpy(), rel=REL)
    for name in ("h", "c", "a") if lstm else ("h", "a"):
        assert_close(f"d{name}", getattr(grads, name), np.stack([v.grad.numpy() for v in want[name]]), rel=REL)


@pytest.mark.parametrize("cell", ["tanh", "lstm"])
def test_reverse_direction_is_the_forward_one_on_turned_sequences(cell: str, rng: np.random.Generator) -> None:
    lengths = [4, 7, 1, 7, 3]
    make_layer = {"tanh": srnn.RNN, "lstm": srnn.LSTM}[cell]
    both = make_layer(I, H, bidirectional=True, dtype=np.float64, rng=rng)
    one = make_layer(I, H, dtype=np.float64, rng=rng)
    one.load_state_dict({n.removesuffix("_reverse"): v for n, v in both.parameters.items() if n.endswith("_reverse")})
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, 2 * H))
    turned, d_turned = x.copy(), d_output[:, :, H:].copy()
    for b, n in enumerate(lengths):
        turned[:n, b] = x[:n, b][::-1]
        d_turned[:n, b] = d_output[:n, b, H:][::-1]
    trace, want = both.forward(x, lengths=lengths), one.forward(turned, lengths=lengths)
    grads, d_want = both.backward(trace, d_output), one.backward(want, d_turned)
    assert_close("h", trace[0, "reverse"].h, want.h, rel=0)
    assert_close("dh", grads[0, "reverse"].h, d_want.h, rel=0)
    by_time = trace[0, "reverse"].by_time(trace[0, "reverse"].h[1:])
    assert_close("output", by_time, trace.output[:, :, H:], rel=0)


def test_padding_is_never_read_and_all_zero(rng: np.random.Generator) -> None:
    lengths = np.array([4, 7, 1, 7, 3])
    lstm = srnn.LSTM(I, H, num_layers=2, bidirectional=True, proj_size=P, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, 2 * P))
    padding = np.arange(T)[:, None] >= lengths
    spoilt, d_spoilt = x.copy(), d_output.copy()
    spoilt[padding], d_spoilt[padding] = np.nan, np.inf
    clean, dirty = (lstm.forward(v, lengths=lengths) for v in (x, spoilt))
    assert_close("output", dirty.output, clean.output, rel=0)
    a, b = lstm.backward(clean, d_output), lstm.backward(dirty, d_spoilt)
    for name in a.parameters:
        assert_close(name, b.parameters[name], a.parameters[name], rel=0)
    assert not b.input[padding].any()
    assert not clean.output[padding].any()
    for key, layer in clean.layers.items():
        for array in (layer.h[1:], layer.c[1:], layer.gates, layer.a, b[key].h[1:], b[key].c[1:], b[key].a):
            assert not array[padding].any()
    output, state = lstm(spoilt, lengths=lengths)
    assert_close("inference", output, clean.output, rel=0)
    assert_close("c_n", state[1], clean.state[1], rel=0)


def test_padding_gradient_is_zero_even_with_infinite_weights(rng: np.random.Generator) -> None:
    rnn = srnn.RNN(I, H, dtype=np.float64, rng=rng)
    rnn.weight_ih_l0[0, 0] = np.inf
    trace = rnn.forward(rng.standard_normal((T, 2, I)), lengths=[T, 3])
    grads = rnn.backward(trace, np.ones_like(trace.output))
    assert not grads.input[3:, 1].any()


def test_sample_by_sample_equals_the_batch(rng: np.random.Generator) -> None:
    lengths = [4, 7, 1, 7, 3]
    lstm = srnn.LSTM(I, H, num_layers=2, bidirectional=True, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, 2 * H))
    trace = lstm.forward(x, lengths=lengths)
    grads = lstm.backward(trace, d_output)
    total = {name: np.zeros_like(v) for name, v in grads.parameters.items()}
    for b, n in enumerate(lengths):
        alone = lstm.forward(x[:n, b])  # without a batch
        d_alone = lstm.backward(alone, d_output[:n, b])
        assert alone.output.shape == (n, 2 * H)
        assert_close("output", trace.output[:n, b], alone.output, rel=REL)
        assert_close("h_n", trace.state[0][:, b], alone.state[0], rel=REL)
        assert_close("c_n", trace.state[1][:, b], alone.state[1], rel=REL)
        assert_close("dx", grads.input[:n, b], d_alone.input, rel=REL)
        assert_close("dh_0", grads.state[0][:, b], d_alone.state[0], rel=REL)
        for name, gradient in d_alone.parameters.items():
            total[name] += gradient
    for name, gradient in total.items():
        assert_close(name, grads.parameters[name], gradient, rel=REL)


def test_a_trace_outlives_updates_of_weights_and_buffers(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    state = (rng.standard_normal((2, B, H)), rng.standard_normal((2, B, H)))
    trace = lstm.forward(x, state)
    want = lstm.backward(trace, d_output)
    x[...] = 7
    for array in (*lstm.parameters.values(), *state):
        array *= -3
    again = lstm.backward(trace, d_output)
    assert_close("dx", again.input, want.input, rel=0)
    for name in want.parameters:
        assert_close(name, again.parameters[name], want.parameters[name], rel=0)


def test_inputs_may_be_views_and_stay_unmodified(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, bidirectional=True, batch_first=True, dtype=np.float64, rng=rng)
    large = rng.standard_normal((2 * B, T + 3, 2 * I))
    d_large = rng.standard_normal((B, T, 4 * H))
    x, d_output = large[::2, 2:-1, ::-2], d_large[:, ::-1, ::2]
    before = large.copy(), d_large.copy()
    for array in (large, d_large):
        array.flags.writeable = False
    trace = lstm.forward(x, lengths=[4, 7, 1, 7, 3])
    grads = lstm.backward(trace, d_output)
    plain = lstm.forward(np.array(x, order="C"), lengths=(4, 7, 1, 7, 3))
    assert_close("output", trace.output, plain.output, rel=0)
    assert_close("dx", grads.input, lstm.backward(plain, d_output.copy()).input, rel=0)
    assert (large == before[0]).all()
    assert (d_large == before[1]).all()


def test_dropout_between_layers(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=3, dropout=0.4, dtype=np.float64, rng=rng)
    x, d_output = rng.standard_normal((T, B, I)), rng.standard_normal((T, B, H))
    trace = lstm.forward(x, rng=np.random.default_rng(1))
    grads = lstm.backward(trace, d_output)
    assert len(trace.dropout_masks) == 2
    xt = torch.tensor(x, requires_grad=True)
    value, modules = xt, []
    for n in range(3):
        modules.append(torch.nn.LSTM(I if n == 0 else H, H, dtype=torch.float64))
        names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        modules[n].load_state_dict({f"{k}_l0": torch.tensor(lstm.parameters[f"{k}_l{n}"]) for k in names})
        value, _ = modules[n](value)
        if n < 2:
            value = value * torch.tensor(trace.dropout_masks[n])
    (value * torch.tensor(d_output)).sum().backward()
    assert_close("output", trace.output, value.detach().numpy(), rel=REL)
    assert_close("dx", grads.input, xt.grad.numpy(), rel=REL)
    for n in range(3):
        for name, p in modules[n].named_parameters():
            assert_close(name, grads.parameters[name.replace("l0", f"l{n}")], p.grad.numpy(), rel=REL)
    kept = [float((m != 0).mean()) for m in trace.dropout_masks]
    assert all(abs(k - 0.6) < 4 * np.sqrt(0.24 / (T * B * H)) for k in kept)
    assert {float(v) for m in trace.dropout_masks for v in np.unique(m)} == {0.0, 1 / 0.6}
    assert lstm.forward(x, training=False).dropout_masks == (None, None)
    assert_close("inference", lstm(x)[0], lstm.forward(x, training=False).output, rel=0)
    everything = srnn.LSTM(I, H, num_layers=2, dropout=1.0, dtype=np.float64, rng=rng)
    assert not everything.forward(x)[1].input.any()


def test_without_an_rng_dropout_masks_go_on_with_the_layers_own(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, dropout=0.5, rng=rng)
    x = np.ones((T, B, I), np.float32)
    first, second = lstm.forward(x).dropout_masks[0], lstm.forward(x).dropout_masks[0]
    assert (first != second).any()


def test_per_step_gradients_are_consistent_with_the_parameters(rng: np.random.Generator) -> None:
    """dW_hh = Σ_t da_t h_{t-1}ᵀ, from the arrays that the user sees."""
    lstm = srnn.LSTM(I, H, dtype=np.float64, rng=rng)
    trace = lstm.forward(rng.standard_normal((T, B, I)), lengths=[4, 7, 1, 7, 3])
    grads = lstm.backward(trace, rng.standard_normal((T, B, H)))
    dw = np.einsum("tbg,tbh->gh", grads.a, trace.h[:-1])
    assert_close("dW_hh", grads.parameters["weight_hh_l0"], dw, rel=REL)
    assert_close("dh_0", grads.state[0][0], grads.h[0], rel=0)
    assert_close("dc_0", grads.state[1][0], grads.c[0], rel=0)


def test_nan_and_inf_pass_through_as_in_torch(rng: np.random.Generator) -> None:
    for cell, make_torch in (("tanh", torch.nn.RNN), ("relu", torch.nn.RNN), ("lstm", torch.nn.LSTM)):
        layer = make(cell, 0, rng)
        keywords = {} if cell == "lstm" else {"nonlinearity": cell}
        module = make_torch(I, H, dtype=torch.float64, **keywords)
        module.load_state_dict({n: torch.tensor(w) for n, w in layer.parameters.items()})
        x = rng.standard_normal((T, B, I))
        x[2, 1, 0], x[3, 2, 1], x[4, 3, 2], x[1, 4, 0] = np.nan, np.inf, -np.inf, 1e308
        if cell == "relu":  # the last state of sample 0 is infinite, and padding follows
            layer.weight_ih_l0 = 1 + np.abs(layer.weight_ih_l0)
            x[3, 0] = 1e308
            module.load_state_dict({n: torch.tensor(w) for n, w in layer.parameters.items()})
        for kept, lengths in ((list(range(B)), None), ([0, 1], [4, 7])):  # sample 1 has a nan, sample 0 an infinite h
            part = x[:, kept].copy()
            if lengths:
                part[2, 1] = 0.5
            xt = torch.tensor(part, requires_grad=True)
            read = xt
            if lengths:
                read = torch.nn.utils.rnn.pack_padded_sequence(xt, torch.tensor(lengths), enforce_sorted=False)
            output = module(read)[0]
            if lengths:
                output = torch.nn.utils.rnn.pad_packed_sequence(output, total_length=T)[0]
            module.zero_grad()
            torch.where(output.abs() < 1e300, output, 0).sum().backward()
            trace = layer.forward(part, lengths=lengths)
            d_output = (np.abs(trace.output) < 1e300).astype(float)
            grads = layer.backward(trace, d_output)
            near = {"rtol": 1e-10, "atol": 1e-12}
            np.testing.assert_allclose(trace.output, output.detach().numpy(), **near)
            np.testing.assert_allclose(grads.input, xt.grad.numpy(), **near)
            for name, p in module.named_parameters():
                np.testing.assert_allclose(grads.parameters[name], p.grad.numpy(), **near)


def test_access_by_layer_says_what_there_is(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, num_layers=2, bidirectional=True, rng=rng)
    trace = lstm.forward(np.zeros((T, B, I), np.float32))
    assert trace[1].h is trace[1, "forward"].h
    assert np.shares_memory(trace[1, "reverse"].f, trace[1, "reverse"].gates)
    with pytest.raises(IndexError, match=r"no layer 2 in direction 'forward'; there is \[0\], \[0, .reverse.\], \[1\]"):
        trace[2]
    with pytest.raises(AttributeError, match="4 layers and directions; say which"):
        _ = trace.h
    with pytest.raises(AttributeError, match="no attribute 'hidden'"):
        _ = trace.hidden
    with pytest.raises(TypeError, match="iterate over"):
        list(trace)
    rnn = srnn.RNN(I, H, rng=rng)
    single = rnn.forward(np.zeros((T, B, I), np.float32))
    assert single.h.shape == (T + 1, B, H)
    for name in ("c", "gates", "i"):
        with pytest.raises(AttributeError, match=f"{name}: a vanilla RNN has no cell state"):
            getattr(single[0], name)
    grads = rnn.backward(single)
    with pytest.raises(AttributeError, match="c: a vanilla RNN has no cell state"):
        _ = grads.c
    with pytest.raises(ValueError, match=f"array: expected {T} steps"):
        single[0].by_time(single.h)


def test_output_is_the_callers_own(rng: np.random.Generator) -> None:
    for layer in (srnn.RNN(I, H, rng=rng), srnn.LSTM(I, H, 2, batch_first=True, rng=rng)):
        trace = layer.forward(np.ones((B, T, I), np.float32))
        want = layer.backward(trace, np.ones_like(trace.output)).input
        trace.output[...] = 0
        assert_close("dx", layer.backward(trace, np.ones_like(trace.output)).input, want, rel=0)


def test_the_hunt_for_nan_is_not_disturbed(rng: np.random.Generator) -> None:
    """Saturation underflows inside; a caller's np.seterr(all="raise") must not meet it."""
    with np.errstate(all="raise"):
        for layer in (srnn.LSTM(I, H, 2, bidirectional=True, rng=rng), srnn.RNN(I, H, rng=rng)):
            x = np.full((T, B, I), 1e4, np.float32)
            layer(x)
            trace = layer.forward(x)
            layer.backward(trace, np.full_like(trace.output, np.inf))
        linear = srnn.Linear(I, H, rng=rng)
        linear.backward(linear.forward(np.full((2, I), np.inf, np.float32)), np.full((2, H), np.inf, np.float32))


def test_repr_is_short(rng: np.random.Generator) -> None:
    lstm = srnn.LSTM(I, H, 2, rng=rng)
    trace = lstm.forward(np.ones((T, B, I), np.float32))
    assert repr(trace) == "Trace((0, 'forward'), (1, 'forward'))"
    assert repr(trace[0]) == "LayerTrace(T=7, B=5, h=(8, 5, 6), reverse=False)"
    assert repr(lstm.backward(trace)) == "Gradients((0, 'forward'), (1, 'forward'))"
