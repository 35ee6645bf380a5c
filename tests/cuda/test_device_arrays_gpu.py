"""Recurrent layers on torch's tensors, on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import scratchrnn as srnn
from scratchrnn import backends
from tests.cuda.layers import CASES, B, I, T, run

pytestmark = pytest.mark.gpu


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return module


def test_torch_tensors_without_a_copy(torch: Any) -> None:
    there = run(CASES["layers, directions, lengths"], "cuda", np.random.default_rng(3), _to_torch(torch))
    here = run(CASES["layers, directions, lengths"], "cuda", np.random.default_rng(3))
    for what, array in there.items():
        tensor = torch.as_tensor(array, device="cuda")
        assert tensor.data_ptr() == array.__cuda_array_interface__["data"][0], what
        np.testing.assert_array_equal(tensor.cpu().numpy(), here[what], err_msg=what)


def test_an_input_is_taken_without_a_copy(torch: Any) -> None:
    """Where nothing is kept, kernels read the caller's own memory."""
    x = torch.zeros((T, B, I), device="cuda")
    with backends.placed(backends.load("cuda"), "x", x) as kernels:
        assert kernels.arrays.take(x).__cuda_array_interface__["data"][0] == x.data_ptr()


def test_two_streams(torch: Any, rng: np.random.Generator) -> None:
    """Forward on one stream and backward on another, each while that stream is busy with what it has to wait for."""
    steps, batch, hidden = 200, 16, 64
    x = rng.standard_normal((steps, batch, I), np.float32)
    d_output = rng.standard_normal((steps, batch, hidden), np.float32)
    lstm = srnn.LSTM(I, hidden, backend="cuda", rng=rng)
    want = lstm.backward(lstm.forward(x), d_output)
    first, second = torch.cuda.Stream(), torch.cuda.Stream()
    busy = torch.ones((4096, 4096), device="cuda")
    x_ready, d_ready = (torch.as_tensor(a).cuda() for a in (x, d_output))
    given, slope = torch.full_like(x_ready, np.nan), torch.full_like(d_ready, np.nan)
    torch.cuda.synchronize()
    for _ in range(3):
        with torch.cuda.stream(first):
            for _ in range(20):
                busy @ busy
            given.copy_(x_ready)
            trace = lstm.forward(given)
            given.fill_(np.nan)  # after forward has read it
        with torch.cuda.stream(second):
            for _ in range(20):
                busy @ busy
            slope.copy_(d_ready)
            got = lstm.backward(trace, slope)
            slope.fill_(np.nan)
            dx = torch.as_tensor(got.input, device="cuda").clone()
        torch.cuda.synchronize()
        np.testing.assert_array_equal(dx.cpu().numpy(), want.input)
        for name, d in want.parameters.items():
            np.testing.assert_array_equal(got.parameters[name].copy_to_host(), d, err_msg=name)


def _to_torch(torch: Any) -> Any:
    def move(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(map(move, value))
        return value if value is None else torch.as_tensor(value).cuda()

    return move
