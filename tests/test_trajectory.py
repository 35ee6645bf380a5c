"""Training, not only one gradient: ten optimizer steps of a two-layer LSTM give torch's losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import scratchrnn as srnn
from scratchrnn import losses, optim
from scratchrnn.testing import TOLERANCE, assert_close

T, B, I, H, C = 7, 5, 3, 6, 4
STEPS = 10
pytestmark = pytest.mark.usefixtures("each_backend")

OPTIMIZERS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "sgd": (lambda p: optim.SGD(p, lr=0.5), lambda p: torch.optim.SGD(p, lr=0.5)),
    "sgd-momentum": (
        lambda p: optim.SGD(p, lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-2),
        lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.9, nesterov=True, weight_decay=1e-2),
    ),
    "adam": (lambda p: optim.Adam(p, lr=0.05), lambda p: torch.optim.Adam(p, lr=0.05)),
    "adagrad": (lambda p: optim.Adagrad(p, lr=0.1), lambda p: torch.optim.Adagrad(p, lr=0.1)),
    "rmsprop": (lambda p: optim.RMSprop(p, lr=0.01), lambda p: torch.optim.RMSprop(p, lr=0.01)),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("loss_name", ["cross_entropy", "mse_loss"])
def test_ten_steps(name: str, loss_name: str) -> None:
    rng = np.random.default_rng(len(name + loss_name))  # of no backend: how far ten steps lead depends on the draw
    lstm = srnn.LSTM(I, H, num_layers=2, dtype=np.float64, rng=rng)
    head = srnn.Linear(H, C, dtype=np.float64, rng=rng)
    parts: dict[str, Any] = {"lstm": lstm, "head": head}
    parameters = {f"{k}.{n}": w for k, part in parts.items() for n, w in part.parameters.items()}
    modules = torch.nn.ModuleDict(
        {"lstm": torch.nn.LSTM(I, H, 2, dtype=torch.float64), "head": torch.nn.Linear(H, C, dtype=torch.float64)}
    )
    modules.load_state_dict({n: torch.tensor(w) for n, w in parameters.items()})
    make_ours, make_torchs = OPTIMIZERS[name]
    ours, theirs = make_ours(parameters), make_torchs(modules.parameters())
    x = rng.standard_normal((T, B, I))
    targets = rng.integers(0, C, (T, B)) if loss_name == "cross_entropy" else rng.standard_normal((T, B, C))
    lengths = [4, 7, 1, 7, 3]
    if loss_name == "cross_entropy":
        targets[np.arange(T)[:, None] >= lengths] = -100

    got, want = [], []
    for _ in range(STEPS):
        trace = lstm.forward(x, lengths=lengths)
        scores = head.forward(trace.output)
        loss, d_scores = getattr(losses, loss_name)(scores.output, targets)
        d_head = head.backward(scores, d_scores)
        d_lstm = lstm.backward(trace, d_head.input)
        gradients = {f"lstm.{n}": g for n, g in d_lstm.parameters.items()}
        gradients |= {f"head.{n}": g for n, g in d_head.parameters.items()}
        optim.clip_grad_norm_(gradients, 0.5)
        ours.step(gradients)
        got.append(loss)

        packed = torch.nn.utils.rnn.pack_padded_sequence(torch.tensor(x), torch.tensor(lengths), enforce_sorted=False)
        output, _ = torch.nn.utils.rnn.pad_packed_sequence(modules["lstm"](packed)[0], total_length=T)
        y = modules["head"](output)
        if loss_name == "cross_entropy":
            value = torch.nn.functional.cross_entropy(y.movedim(-1, 1), torch.tensor(targets))
        else:
            value = torch.nn.functional.mse_loss(y, torch.tensor(targets))
        theirs.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 0.5)
        theirs.step()
        want.append(value.item())

    assert_close("losses", np.array(got), np.array(want), rel=TOLERANCE["trajectory"])
    assert want[-1] < 0.99 * want[0]  # it did learn, so the losses do depend on the updates
    for n, p in modules.named_parameters():
        assert_close(n, parameters[n], p.detach().numpy(), rel=TOLERANCE["trajectory"])
