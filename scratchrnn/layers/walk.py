"""The walk over layers and directions, between arrays in and arrays out.

for each layer:   both directions read the layer's input; their outputs stand side by side, dropout between layers
backward:         the same walk in reverse, each step undoing the one that it names

    B batch   T time   I input   H hidden   P projection (P = H without one)   L layers   D directions

Everything here is where the input is, on the host or on a device: `kernels.arrays` has the operations of that place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, cast

from scratchrnn._typing import BoolArray, FloatArray, IntArray
from scratchrnn.backends import Kernels
from scratchrnn.layers import direction
from scratchrnn.layers.direction import Weights
from scratchrnn.layers.factors import PerSample
from scratchrnn.layers.plan import Plan
from scratchrnn.trace import DIRECTIONS, Key, LayerGradients, LayerTrace

DrawMask = Callable[[tuple[int, ...]], FloatArray]  # shape to mask, on the host
RunForward = Callable[..., LayerTrace]  # direction.forward, or what stands in for it
RunBackward = Callable[..., tuple[FloatArray, LayerGradients, Weights]]  # direction.backward likewise
Parameters = Mapping[str, FloatArray]


class Kept(Protocol):
    """What the way back needs of a trace."""

    @property
    def layers(self) -> Mapping[Key, Any]:
        """Per layer and direction, as `run` takes it: a LayerTrace for `direction.backward`."""

    @property
    def parameters(self) -> Parameters:
        """The weights as they were."""

    @property
    def dropout_masks(self) -> Sequence[FloatArray | None]:
        """(T, B, D·P) of each boundary between layers."""


class Inferred(NamedTuple):
    """The result alone."""

    output: FloatArray  # (T, B, D·P)
    h_n: FloatArray  # (L·D, B, P)
    c_n: FloatArray | None  # (L·D, B, H) of an LSTM


class Ran(NamedTuple):
    """The result, and what was kept on the way."""

    output: FloatArray  # (T, B, D·P)
    h_n: FloatArray  # (L·D, B, P)
    c_n: FloatArray | None  # (L·D, B, H) of an LSTM
    layers: dict[Key, LayerTrace]
    masks: tuple[FloatArray | None, ...]  # (T, B, D·P) of each boundary between layers


class Returned(NamedTuple):
    """The gradient of everything."""

    dx: FloatArray  # (T, B, I)
    d_h_0: FloatArray  # (L·D, B, P)
    d_c_0: FloatArray | None  # (L·D, B, H) of an LSTM
    parameters: dict[str, FloatArray]
    layers: dict[Key, LayerGradients]
    per_sample: dict[str, FloatArray] | None  # (B, ...), where it was asked for


def infer(
    layer: Plan,
    kernels: Kernels,
    x: FloatArray,  # (T, B, I)
    h_0: FloatArray,  # (L·D, B, P)
    c_0: FloatArray | None,  # (L·D, B, H) of an LSTM
    lengths: IntArray,  # (B,)
    parameters: Parameters,
) -> Inferred:
    """Nothing is kept."""
    arrays, below = kernels.arrays, x
    h_n = arrays.empty(h_0.shape, layer.dtype)
    c_n = None if c_0 is None else arrays.empty(c_0.shape, layer.dtype)
    outputs: list[FloatArray] = []
    for n, key in enumerate(layer._keys):
        w = Weights.of(parameters, layer._suffix(key), arrays)
        reverse = key[1] == "reverse"
        read = arrays.reverse_time(below, lengths) if reverse else below
        c_start, c_end = (None, None) if c_0 is None or c_n is None else (c_0[n], c_n[n])
        output = direction.infer(kernels, layer.cell, read, h_0[n], c_start, w, lengths, h_n[n], c_end)
        outputs.append(arrays.reverse_time(output, lengths) if reverse else output)
        if len(outputs) == layer.num_directions:
            below = arrays.side_by_side(outputs)
            outputs = []
    return Inferred(below, h_n, c_n)


def forward(
    layer: Plan,
    kernels: Kernels,
    x: FloatArray,  # (T, B, I)
    h_0: FloatArray,  # (L·D, B, P)
    c_0: FloatArray | None,  # (L·D, B, H) of an LSTM
    lengths: IntArray,  # (B,)
    parameters: Parameters,
    draw: DrawMask | None,
    run: RunForward,
) -> Ran:
    """Each layer and direction run by `run`; dropout between layers by the masks of `draw`, None: no dropout."""
    arrays, below = kernels.arrays, x
    layers: dict[Key, LayerTrace] = {}
    masks: list[FloatArray | None] = []
    for n, key in enumerate(layer._keys):
        w = Weights.of(parameters, layer._suffix(key), arrays)
        c_start = None if c_0 is None else c_0[n]
        layers[key] = run(kernels, layer.cell, below, h_0[n], c_start, w, lengths, reverse=key[1] == "reverse")
        if key[1] == DIRECTIONS[layer.num_directions - 1]:
            traces = [layers[key[0], d] for d in DIRECTIONS[: layer.num_directions]]
            below = arrays.side_by_side([t.by_time(t.h[1:]) for t in traces])
            if key[0] < layer.num_layers - 1:
                masks.append(None if draw is None else arrays.upload(draw(below.shape)))
                below = below if masks[-1] is None else arrays.multiply(below, masks[-1])
    h_n = arrays.stack([arrays.states_at(t.h, lengths) for t in layers.values()])
    c_n = arrays.stack([arrays.states_at(t.c, lengths) for t in layers.values()]) if layer.cell.has_c else None
    output = below if layer.bidirectional else arrays.copy(below)  # one direction's is a view of its h
    return Ran(output, h_n, c_n, layers, tuple(masks))


def backward(
    layer: Plan,
    kernels: Kernels,
    trace: Kept,
    d_output: FloatArray | None,  # (T, B, D·P)
    d_h_n: FloatArray | None,  # (L·D, B, P)
    d_c_n: FloatArray | None,  # (L·D, B, H)
    clip: float,
    cut: BoolArray | None,  # (T, B)
    detach_h: BoolArray | None,  # (T, B)
    run: RunBackward,
    *,
    per_sample: bool = False,
) -> Returned:
    """Each layer and direction run by `run`."""
    arrays, above, size = kernels.arrays, d_output, layer.output_size
    layers: dict[Key, LayerGradients] = {}
    d_parameters: dict[str, FloatArray] = {}
    samples: dict[str, FloatArray] = {}
    for number in reversed(range(layer.num_layers)):
        mask = trace.dropout_masks[number] if number < layer.num_layers - 1 else None
        if mask is not None and above is not None:
            above = arrays.multiply(above, mask)  # undoes dropout
        d_below: FloatArray | None = None
        for d, side in enumerate(DIRECTIONS[: layer.num_directions]):
            key, n = (number, side), number * layer.num_directions + d
            each = PerSample() if per_sample else None
            dx, layers[key], dw = run(
                kernels,
                layer.cell,
                trace.layers[key],
                Weights.of(trace.parameters, layer._suffix(key), arrays),
                None if above is None else arrays.columns(above, d * size, (d + 1) * size),  # undoes side by side
                None if d_h_n is None else d_h_n[n],
                None if d_c_n is None else d_c_n[n],
                clip=clip,
                cut=cut,
                detach_h=detach_h,
                per_sample=each,
            )
            if d_below is None:
                d_below = dx
            else:
                arrays.add(d_below, dx)  # undoes that both directions read one input
            d_parameters |= layer._named(dw, key)
            samples |= {} if each is None else {name + layer._suffix(key): a for name, a in each.sums.items()}
        above = d_below
    d_h_0 = arrays.stack([layers[key].h[0] for key in layer._keys])
    d_c_0 = arrays.stack([layers[key].c[0] for key in layer._keys]) if layer.cell.has_c else None
    named = {name: d_parameters[name] for name in layer.parameters}
    by_sample = {name: samples[name] for name in layer.parameters} if per_sample else None
    by_step = {key: layers[key] for key in layer._keys}
    return Returned(cast(FloatArray, above), d_h_0, d_c_0, named, by_step, by_sample)


def uploaded(arrays: Any, parameters: Parameters) -> dict[str, FloatArray]:
    """The parameters, which are on the host, where `arrays` works."""
    return {name: arrays.upload(array) for name, array in parameters.items()}
