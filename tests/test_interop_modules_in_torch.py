"""interop.torch.LSTM and RNN among the rest of torch: autograd's rules, traces, optimizers, copies, processes."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils.rnn import pack_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import DataLoader, Dataset

import scratchrnn as srnn
from scratchrnn import backends
from scratchrnn.interop import torch as interop
from scratchrnn.kernels import memory
from scratchrnn.testing import TOLERANCE, assert_close
from tests.modules import gradients, pair

KINDS = ["LSTM", "RNN"]


X = torch.zeros(5, 2, 3)


# Autograd's rules


def test_no_grad_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from scratchrnn.layers import walk

    module = interop.LSTM(3, 4)
    want = module(X)[0].detach()
    monkeypatch.setattr(walk, "forward", None)
    with torch.no_grad():
        output, (h_n, _) = module(X)
    with torch.inference_mode():
        inferred, _ = module(X)
    assert not output.requires_grad
    assert not h_n.requires_grad
    assert torch.equal(output, want)
    assert torch.equal(inferred, want)
    module.requires_grad_(False)
    assert not module(X)[0].requires_grad


def test_backward_in_eval_mode() -> None:
    """cuDNN refuses it (pytorch#5878)."""
    theirs, ours = pair("LSTM", 3, 4, 2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    want, got = gradients(theirs.eval(), x), gradients(ours.eval(), x)
    for name in want:
        assert_close(name, got[name], want[name], rel=TOLERANCE["float64"])


def test_several_calls_before_one_backward() -> None:
    theirs, ours = pair("LSTM", 4, 4, dtype=torch.float64)
    x = torch.randn(5, 2, 4, dtype=torch.float64)
    for module in (theirs, ours):
        output, state = module(x)
        again, state = module(output, state)
        (again.sin().sum() + module(x[:2])[0].sum() + state[1].sum()).backward()
    for got, want in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_close("gradient", got.grad.numpy(), want.grad.numpy(), rel=TOLERANCE["float64"])


def test_backward_twice_needs_retain_graph() -> None:
    module = interop.RNN(3, 4)
    loss = module(X + 1)[0].sum()
    loss.backward(retain_graph=True)
    once = module.weight_ih_l0.grad.clone()
    loss.backward()
    assert torch.equal(module.weight_ih_l0.grad, 2 * once)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_what_backward_needs_is_freed_with_the_graph() -> None:
    module = interop.LSTM(128, 128)
    x = torch.randn(64, 8, 128)
    module(x)[0].sum().backward()
    module.zero_grad()
    before = memory._pool.lent_bytes()
    output, _ = module(x)
    assert memory._pool.lent_bytes() - before > 6 * x.nbytes  # h, c, four gates, and the output
    output.sum().backward()
    module.zero_grad()
    assert memory._pool.lent_bytes() - before < 2 * x.nbytes
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        output.sum().backward()


def test_a_weight_changed_in_between_is_found_out() -> None:
    module = interop.LSTM(3, 4)
    output, _ = module(X)
    with torch.no_grad():
        module.weight_hh_l0.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        output.sum().backward()


def test_results_may_be_changed_in_place() -> None:
    _, ours = pair("LSTM", 3, 4, 2, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64)
    (ours(x)[0] * 2).sum().backward()
    want = ours.weight_ih_l0.grad.clone()
    ours.zero_grad()
    output, (h_n, _) = ours(x)
    output.mul_(2)
    h_n.zero_()
    output.sum().backward()
    assert torch.equal(ours.weight_ih_l0.grad, want)


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing(use_reentrant: bool) -> None:
    module = interop.LSTM(3, 4, 2, dropout=0.5, dtype=torch.float64)
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    found = []
    for run in (lambda t: module(t)[0], lambda t: checkpoint(lambda u: module(u)[0], t, use_reentrant=use_reentrant)):
        module.zero_grad()
        torch.manual_seed(0)
        run(x).sin().sum().backward()
        found.append(module.weight_ih_l0.grad.clone())
    assert torch.equal(*found)


def test_hooks_run() -> None:
    module, seen = interop.LSTM(3, 4), []
    module.register_forward_hook(lambda m, args, result: seen.append("forward"))
    module.register_full_backward_hook(lambda m, d_in, d_out: seen.append("backward"))
    module.weight_hh_l0.register_hook(lambda g: seen.append("weight"))
    module(X.clone().requires_grad_())[0].sum().backward()
    assert sorted(seen) == ["backward", "forward", "weight"]


def test_nan_and_inf_pass_through() -> None:
    for kind in KINDS:
        theirs, ours = pair(kind, 3, 4)
        x = torch.randn(5, 2, 3)
        x[2, 0, 1], x[3, 1, 0] = torch.nan, torch.inf
        found = []
        for module in (theirs, ours):
            output, _ = module(x)
            output.sum().backward()
            found.append(output.detach())
        assert torch.equal(found[0].isnan(), found[1].isnan())
        assert module.weight_ih_l0.grad.isnan().any()


# Packed sequences


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_packed_results_are_packed_alike(kind: str, enforce_sorted: bool) -> None:
    theirs, ours = pair(kind, 3, 4, bidirectional=True)
    sequences = [torch.randn(n, 3) for n in ((6, 4, 4, 1) if enforce_sorted else (4, 1, 6, 4))]
    given = pack_sequence(sequences, enforce_sorted)
    want, _ = theirs(given)
    got, _ = ours(given)
    assert isinstance(got, torch.nn.utils.rnn.PackedSequence)
    for a, b in zip(got, want, strict=True):
        assert (a is None) == (b is None)
        assert a is None or torch.allclose(a, b, atol=1e-6)
    trace = ours(given, return_trace=True)[2]
    assert trace.lengths.tolist() == [len(s) for s in sequences]  # in the caller's order


# Traces


def test_trace_is_that_of_our_layer() -> None:
    module = interop.LSTM(3, 4, 2, bidirectional=True, batch_first=True, dtype=torch.float64)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    output, (h_n, _), trace = module(x, return_trace=True)
    layer = interop.from_module(module)
    want = layer.forward(x.numpy())
    d_output = torch.randn(2, 5, 8, dtype=torch.float64)
    assert trace.gradients is None
    output.backward(d_output)
    grads = layer.backward(want, d_output.numpy())
    assert_close("output", trace.output, want.output, rel=0)
    assert_close("h_n", trace.state[0], h_n.detach().numpy(), rel=0)
    for key in want.layers:
        for name in ("h", "c", "gates", "a"):
            assert_close(name, getattr(trace[key], name), getattr(want[key], name), rel=0)
        for name in ("h", "c", "a"):
            assert_close(f"d{name}", getattr(trace.gradients[key], name), getattr(grads[key], name), rel=0)
    assert_close("dx", trace.gradients.input, grads.input, rel=0)
    assert_close("dW", trace.gradients.parameters["weight_hh_l1"], module.weight_hh_l1.grad.numpy(), rel=0)
    assert layer.backward(trace, d_output.numpy()).parameters.keys() == grads.parameters.keys()
    assert type(trace) is srnn.Trace


def test_trace_stays_as_it_was() -> None:
    module = interop.LSTM(3, 4)
    x = torch.randn(5, 2, 3)
    output, _, trace = module(x, return_trace=True)
    output.sum().backward()
    before = copy.deepcopy((trace.output, trace[0].input, trace.parameters, trace.gradients.parameters, trace[0].a))
    with torch.no_grad():
        x.zero_()
        output.zero_()
        module.weight_hh_l0.zero_()
        module.weight_hh_l0.grad.zero_()
    after = (trace.output, trace[0].input, trace.parameters, trace.gradients.parameters, trace[0].a)
    for a, b in zip(before, after, strict=True):
        for one, other in zip(*([v.values() if isinstance(v, dict) else [v] for v in (a, b)]), strict=True):
            assert_close("trace", other, one, rel=0)


def test_what_asks_for_a_layer_says_that_a_module_came_and_takes_from_module() -> None:
    rnn = interop.LSTM(3, 4, 2)
    trace = rnn(torch.ones(5, 2, 3), return_trace=True)[2]
    d_output = np.ones((5, 2, 4), np.float32)
    with pytest.raises(TypeError, match=r"^layer: expected an RNN or LSTM layer; got LSTM, a torch\.nn\.Module$"):
        srnn.gradflow.itemized(rnn, trace, d_output)
    assert isinstance(srnn.gradflow.itemized(interop.from_module(rnn), trace, d_output), srnn.gradflow.Itemized)


def test_each_call_has_its_own_gradients() -> None:
    module = interop.RNN(3, 4)
    first = module(torch.randn(5, 2, 3), return_trace=True)
    second = module(torch.randn(6, 2, 3), return_trace=True)
    (first[0].sum() + 2 * second[0].sum()).backward()
    assert first[2].gradients.h.shape == (6, 2, 4)
    assert second[2].gradients.h.shape == (7, 2, 4)
    with torch.no_grad():
        assert module(X, return_trace=True)[2].h.shape == (6, 2, 4)


# Training, copies, processes


@pytest.mark.parametrize("kind", KINDS)
def test_adam_takes_the_same_path(kind: str) -> None:
    theirs, ours = pair(kind, 3, 4, 2, bidirectional=True, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    data = [torch.randn(6, 5, 3, generator=generator, dtype=torch.float64) for _ in range(20)]
    losses = []
    for module in (theirs, ours):
        optimizer = torch.optim.Adam(module.parameters(), 0.05)
        path = []
        for x in data:
            optimizer.zero_grad()
            loss = (module(x)[0].mean(2) - x.sum(2).tanh()).square().mean()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), 0.1)
            optimizer.step()
            path.append(loss.item())
        losses.append(path)
    assert losses[1][-1] < losses[1][0]
    assert_close("losses", np.array(losses[1]), np.array(losses[0]), rel=TOLERANCE["trajectory"])


@pytest.mark.parametrize("kind", KINDS)
def test_copies_and_pickles(kind: str) -> None:
    module = getattr(interop, kind)(3, 4, 2, bidirectional=True)
    want, _ = module(X + 1)
    want.sum().backward()
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    copies = [copy.deepcopy(module), pickle.loads(pickle.dumps(module)), torch.load(file, weights_only=False)]
    for other in copies:
        assert type(other) is type(module) is getattr(interop, kind)
        assert torch.equal(other(X + 1)[0], want)
        with torch.no_grad():
            other.weight_ih_l0.zero_()
    assert torch.equal(module(X + 1)[0], want)
    plain = getattr(torch.nn, kind)(3, 4, 2, bidirectional=True)
    plain.load_state_dict(torch.load(_saved(module.state_dict()), weights_only=True))
    assert torch.allclose(plain(X + 1)[0], want, atol=1e-6)


def _saved(state: Any) -> io.BytesIO:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return file


class Encoded(Dataset[torch.Tensor]):
    """Each item is what a module makes of it, in the worker."""

    def __init__(self, module: torch.nn.Module) -> None:
        self.module = module

    def __len__(self) -> int:
        return 6

    def __getitem__(self, n: int) -> torch.Tensor:
        x = torch.full((40, 8, 64), n / 10, requires_grad=True)
        self.module(x)[0].sum().backward()
        return x.grad


@pytest.mark.parametrize("context", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_data_loader_with_workers(context: str) -> None:
    threads = backends.get_num_threads()
    backends.set_num_threads(2)
    try:
        dataset = Encoded(interop.LSTM(64, 64))
        want = torch.stack([dataset[n] for n in range(6)])  # our threads run before the fork
        loader = DataLoader(dataset, batch_size=2, num_workers=2, multiprocessing_context=context, timeout=100)
        got = torch.cat(list(loader))
    finally:
        backends.set_num_threads(threads)
    assert torch.equal(got, want)


def test_calls_from_several_threads() -> None:
    module = interop.LSTM(16, 16, 2)
    inputs = [torch.randn(20, 4, 16) for _ in range(4)]
    want = [torch.autograd.grad(module(x)[0].sum(), module.weight_hh_l0)[0] for x in inputs]
    got: list[Any] = [None] * 4

    def work(n: int) -> None:
        for _ in range(5):
            got[n] = torch.autograd.grad(module(inputs[n])[0].sum(), module.weight_hh_l0)[0]

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))


def test_the_backend_in_use_computes() -> None:
    module = interop.LSTM(3, 4)
    with backends.use_backend("numpy"):
        output, _, trace = module(X, return_trace=True)
    output.sum().backward()  # by the backend of the forward pass
    assert trace.backend == "numpy"
