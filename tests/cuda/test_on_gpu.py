"""Both engines on a GPU: against the definition, again and again, side by side, and where an arrival is lost."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest

from scratchrnn import backends
from scratchrnn.kernels.cuda import driver, lstm, meeting, persistent_backward, persistent_forward, plan
from scratchrnn.kernels.cuda.call import Call
from scratchrnn.kernels.cuda.queue import Queue, address
from tests.cuda.recurrent import Problem, backward_of, check, draw, everything, same

reason = backends.REGISTRY["cuda"].why_unavailable()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(reason is not None, reason=str(reason))]

CELLS = ("tanh", "relu", "lstm")
SIZES = [  # T, B, I, H, P
    (7, 3, 2, 37, 5),  # odd, so one number a load
    (1, 1, 1, 1, 1),
    (40, 5, 3, 64, 2),
    (33, 44, 7, 160, 2),
    (9, 16, 5, 500, 2),  # many blocks, padded columns
    (5, 64, 3, 784, 2),  # shared memory to the last byte
]
engines = pytest.mark.parametrize("engine", ["per_step", "persistent"])
each_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def unset_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Device memory that nobody wrote is NaN."""
    empty = Queue.empty

    def poisoned(queue: Queue, shape: Any, dtype: Any) -> Any:
        array = empty(queue, shape, dtype)
        if array.size:
            driver.call("cuMemsetD8Async", address(array), 0xFF, array.nbytes, queue.handle)
        return array

    monkeypatch.setattr(Queue, "empty", poisoned)


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("torch sees no GPU")
    return module


def ragged(rng: np.random.Generator, steps: int, batch: int) -> np.ndarray:
    """Lengths with 0, 1 and T among them, where there is room."""
    lengths = rng.integers(0, steps + 1, batch)
    lengths[: min(batch, 3)] = [steps, 1, 0][: min(batch, 3)]
    return lengths


@engines
@each_cell
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_definition(engine: str, cell: str, sizes: Any, rng: np.random.Generator) -> None:
    p = draw(cell, rng, sizes, lengths=ragged(rng, *sizes[:2]), clip=0.3, detaching=True)
    with plan.only(engine):
        check("cuda", p, "float32")


@each_cell
def test_the_engine_that_the_rule_takes(cell: str, rng: np.random.Generator) -> None:
    check("cuda", draw(cell, rng, (20, 8, 3, 96, 2)), "float32")


@pytest.mark.parametrize("cell", ["tanh", "projected"])
def test_float64_goes_step_by_step(cell: str, rng: np.random.Generator) -> None:
    check("cuda", draw(cell, rng, SIZES[0], lengths=(7, 1, 0)), "float64")


@engines
@each_cell
def test_twenty_runs_have_the_same_bits(engine: str, cell: str, rng: np.random.Generator) -> None:
    p = draw(cell, rng, SIZES[3], lengths=ragged(rng, *SIZES[3][:2]), clip=0.3, detaching=True).astype("float32")
    with plan.only(engine):
        first = everything("cuda", p)
        for _ in range(19):
            for name, array in everything("cuda", p).items():
                same(name, array, first[name])


class OnDevice:
    """The arguments of `lstm.infer` as torch's tensors."""

    def __init__(self, torch: Any, p: Problem) -> None:
        def there(array: np.ndarray) -> Any:
            return torch.as_tensor(array, device="cuda")

        self.inputs = [there(a) for a in (p.x, *p.start, *p.weights.values())]
        self.lengths = there(p.lengths.astype(np.int32))
        self.outputs = [
            torch.full((len(p.x), *p.start[0].shape), float("nan"), device="cuda"),
            *(torch.full(s.shape, float("nan"), device="cuda") for s in p.start),
        ]

    def infer(self) -> None:
        """Into `outputs`; the host does not wait."""
        lstm.infer(*self.inputs, None, self.lengths, *self.outputs)

    def numbers(self) -> list[np.ndarray]:
        """The outputs, once they are there."""
        return [tensor.cpu().numpy() for tensor in self.outputs]


@engines
def test_tensors_are_read_and_written_where_they_are(engine: str, torch: Any, rng: np.random.Generator) -> None:
    p = draw("lstm", rng, SIZES[2], lengths=(40, 0, 1, 7, 39)).astype("float32")
    on = OnDevice(torch, p)
    pointers = [tensor.data_ptr() for tensor in on.outputs]
    with plan.only(engine):
        on.infer()
        here = everything("cuda", p)
    for name, array in zip(("output", "h_n", "c_n"), on.numbers(), strict=True):
        same(name, array, here[name])
    assert pointers == [tensor.data_ptr() for tensor in on.outputs]
    with Call(*on.inputs) as call:
        assert address(call.read(on.inputs[0])) == on.inputs[0].data_ptr()


@engines
def test_rows_that_begin_anywhere(engine: str, torch: Any, rng: np.random.Generator) -> None:
    """Tensors of four bytes' alignment: the persistent kernels read them one number at a time."""
    p = draw("lstm", rng, SIZES[2]).astype("float32")
    on, odd = OnDevice(torch, p), OnDevice(torch, p)

    def moved(tensor: Any) -> Any:
        memory = torch.empty(tensor.numel() + 1, device="cuda")
        memory[1:].copy_(tensor.reshape(-1))
        return memory[1:].reshape(tensor.shape)

    odd.inputs, odd.outputs = [moved(t) for t in odd.inputs], [moved(t) for t in odd.outputs]
    with plan.only(engine):
        on.infer()
        odd.infer()
    for got, want in zip(odd.numbers(), on.numbers(), strict=True):
        same("moved", got, want)


@engines
def test_a_thousand_launches(engine: str, torch: Any, rng: np.random.Generator) -> None:
    on = OnDevice(torch, draw("lstm", rng, (3, 4, 2, 96, 1)).astype("float32"))
    with plan.only(engine):
        on.infer()
        first = on.numbers()
        for _ in range(1000):
            on.infer()
    for got, want in zip(on.numbers(), first, strict=True):
        same("the last", got, want)


@engines
def test_two_streams(engine: str, torch: Any, rng: np.random.Generator) -> None:
    """Two recurrences under way at once, each of which would fill the device."""
    both = [OnDevice(torch, draw("lstm", rng, (200, 16, 3, 512, 1)).astype("float32")) for _ in range(2)]
    streams = [torch.cuda.Stream() for _ in both]
    with plan.only(engine):
        for on in both:
            on.infer()
        alone = [on.numbers() for on in both]
        torch.cuda.synchronize()
        for _ in range(10):
            for on, stream in zip(both, streams, strict=True):
                with torch.cuda.stream(stream):
                    on.infer()
        torch.cuda.synchronize()
    for on, want in zip(both, alone, strict=True):
        for got, expected in zip(on.numbers(), want, strict=True):
            same("beside another", got, expected)


@each_cell
def test_a_recording_is_replayed_for_any_length(cell: str, rng: np.random.Generator) -> None:
    with plan.only("per_step"):
        for steps in (70, 1, 33, 70, 64):
            sizes = (steps, 3, 2, 37, 5)
            check("cuda", draw(cell, rng, sizes, lengths=ragged(rng, steps, 3)), "float32")


# --- an arrival that is lost


@pytest.fixture
def one_is_lost(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Counters miss an arrival, and nobody waits long."""

    def short(queue: Queue, groups: int) -> Any:
        queue.check_alarm()
        return queue.upload(np.full(groups * meeting.APART, -1, np.int32).view(np.uint32))

    monkeypatch.setattr(meeting, "counters", short)
    for module, name in ((persistent_forward, "forward"), (persistent_backward, "backward")):
        monkeypatch.setattr(module, name, functools.partial(getattr(module, name), patience=10_000))
    return monkeypatch


def test_a_lost_arrival_is_an_error_and_leaves_the_device_well(
    one_is_lost: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    p = draw("lstm", rng, (9, 16, 3, 512, 1)).astype("float32")  # too large for a block alone
    found = everything("numpy", p)
    with plan.only("persistent"):
        with pytest.raises(driver.GaveUpError):
            everything("cuda", p)
        with pytest.raises(driver.GaveUpError):
            backward_of("cuda", p, found)
        one_is_lost.undo()
        check("cuda", draw("lstm", rng, (9, 16, 3, 512, 1)), "float32")
