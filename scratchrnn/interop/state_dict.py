"""From the bare tensors of a state dict, with torch's names, back to the recurrent layer that they belong to.

    weight_ih_l{k}[_reverse] (G·H, ·)   weight_hh_l{k}[_reverse] (G·H, P)   weight_hr_l{k}[_reverse] (P, H)
    bias_ih_l{k}[_reverse]   (G·H,)     bias_hh_l{k}[_reverse]   (G·H,)

G is 4 for the LSTM and 1 for the vanilla RNN; P = H, and no weight_hr, without a projection.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scratchrnn._typing import FloatArray
from scratchrnn._validate import describe, take_array
from scratchrnn.layers import LSTM, RNN
from scratchrnn.layers.module import FORMAT, read_safetensors
from scratchrnn.rng import Rng

NAME = re.compile(
    r"(?P<prefix>.*?)(?P<part>weight_ih|weight_hh|weight_hr|bias_ih|bias_hh)_l(?P<layer>\d+)(?P<side>_reverse)?"
)
KINDS = {1: "rnn", 4: "lstm"}


@dataclass(frozen=True)
class RecurrentConfig:
    """What the names and shapes of a state dict tell; the nonlinearity of an RNN is not among it."""

    cell: str  # "rnn" or "lstm"
    input_size: int
    hidden_size: int
    num_layers: int
    bias: bool
    bidirectional: bool
    proj_size: int  # 0 without a projection


def select(tensors: Mapping[str, Any], prefix: str | None = None) -> dict[str, Any]:
    """Tensors under `prefix`, with it taken off their names; all of them when it is absent.

    Raises
    ------
    ValueError
        No name has the form of a recurrent layer's parameter there; the message lists the prefixes under which some do.
    """
    found = {m["prefix"] for name in tensors if (m := NAME.fullmatch(str(name)))}
    wanted = prefix or ""
    if wanted and not wanted.endswith(".") and f"{wanted}." in found:
        wanted += "."
    if wanted not in found:
        others = ", ".join(repr(p) for p in sorted(found))
        where = f"under {prefix!r}" if prefix else "without a prefix"
        hint = f"there are some under the prefix {others}: say which" if found else "nor under any prefix"
        raise ValueError(f"prefix: no tensor {where} has a name such as weight_ih_l0; {hint}")
    return {str(name)[len(wanted) :]: value for name, value in tensors.items() if str(name).startswith(wanted)}


def infer_config(tensors: Mapping[str, Any], *, prefix: str | None = None) -> RecurrentConfig:
    """Read a recurrent layer's configuration from the names and shapes of its parameters.

    Parameters
    ----------
    tensors : mapping of str to arrays
        Torch's names; values need only a `shape`.
    prefix : str, optional
        Where in a larger model the layer stands, such as "rnn."; tensors elsewhere are left aside.

    Returns
    -------
    RecurrentConfig

    Raises
    ------
    ValueError
        No recurrent layer's names, a layer missing between others, or shapes of no RNN or LSTM.
    TypeError
        A value has no shape.
    """
    own = select(tensors, prefix)
    names = [m for name in own if (m := NAME.fullmatch(name)) and not m["prefix"]]
    layers = {int(m["layer"]) for m in names}
    projected = any(m["part"] == "weight_hr" for m in names)
    needed = ["weight_ih_l0", "weight_hh_l0", *(["weight_hr_l0"] if projected else [])]
    missing = [name for name in needed if name not in own]
    missing += [f"weight_ih_l{n}" for n in range(min(max(layers), len(own)) + 1) if n not in layers and n]
    if missing:
        raise ValueError(f"tensors: missing {', '.join(missing)}; got {', '.join(own)}")
    for name in needed:
        if not hasattr(own[name], "shape"):
            raise TypeError(f"{name}: expected an array; got {describe(own[name])}")
        if len(own[name].shape) != 2:
            raise ValueError(f"{name}: expected a matrix; got shape {tuple(own[name].shape)}")
    rows, size = own["weight_hh_l0"].shape
    proj_size, hidden_size = own["weight_hr_l0"].shape if projected else (0, size)
    gates = rows // hidden_size if hidden_size and rows % hidden_size == 0 else 0
    if gates not in KINDS:
        gru = " (3·H are those of a GRU, which is not supported)" if gates == 3 else ""
        raise ValueError(
            f"weight_hh_l0: expected 4·H rows for an LSTM or H for an RNN, with H={hidden_size}; "
            f"got shape {(rows, size)}{gru}"
        )
    return RecurrentConfig(
        cell=KINDS[gates],
        input_size=own["weight_ih_l0"].shape[1],
        hidden_size=hidden_size,
        num_layers=max(layers) + 1,
        bias=any(m["part"].startswith("bias") for m in names),
        bidirectional=any(m["side"] for m in names),
        proj_size=proj_size,
    )


def layer_from_state_dict(
    tensors: Mapping[str, FloatArray],
    nonlinearity: str = "tanh",
    batch_first: bool = False,
    *,
    prefix: str | None = None,
    backend: str | None = None,
    rng: Rng | None = None,
) -> RNN | LSTM:
    """Build the recurrent layer that a state dict of arrays belongs to.

    Parameters
    ----------
    tensors : mapping of str to ndarray
        Torch's names, all float32 or all float64. Torch tensors: `interop.torch.to_arrays` copies them.
    nonlinearity : "tanh" or "relu"
        Of an RNN, since no tensor tells; not used for an LSTM.
    batch_first : bool
    prefix : str, optional
        As for `infer_config`.
    backend, rng
        As for the layer's constructor.

    Raises
    ------
    ValueError
        A tensor is missing, extra, or of the wrong shape; the message names it.
    TypeError
        A tensor is no array of float32 or float64, or their dtypes differ.
    """
    config = infer_config(tensors, prefix=prefix)
    own = select(tensors, prefix)
    dtype = take_array("weight_ih_l0", own["weight_ih_l0"]).dtype
    sizes = (config.input_size, config.hidden_size, config.num_layers)
    shared: dict[str, Any] = {
        "bias": config.bias, "batch_first": batch_first, "bidirectional": config.bidirectional,
        "dtype": dtype, "backend": backend, "rng": rng,
    }  # fmt: skip
    layer: RNN | LSTM
    if config.cell == "lstm":
        layer = LSTM(*sizes, proj_size=config.proj_size, **shared)
    else:
        if config.proj_size:
            raise ValueError("tensors: weight_hr_l0 is a projection, which an RNN has not; weight_hh_l0 has H rows")
        layer = RNN(*sizes, nonlinearity=nonlinearity, **shared)
    layer.load_state_dict(own)
    return layer


def layer_from_safetensors(
    path: str | os.PathLike[str],
    nonlinearity: str | None = None,
    *,
    prefix: str | None = None,
    backend: str | None = None,
    rng: Rng | None = None,
) -> RNN | LSTM:
    """Build the recurrent layer in a safetensors file, whether `save` here or another program wrote it.

    Parameters
    ----------
    nonlinearity : "tanh" or "relu", optional
        Of an RNN. When absent, what the file's own metadata says if `save` wrote it, else "tanh".
    prefix, backend, rng
        As for `layer_from_state_dict`.

    Raises
    ------
    FileNotFoundError, ValueError, TypeError
        No such file, no safetensors file, or tensors that do not fit; the message names the file.
    """
    tensors, metadata = read_safetensors(path, lambda names: select({name: name for name in names}, prefix).values())
    if nonlinearity is None:
        nonlinearity = _saved_nonlinearity(metadata.get(FORMAT, ""))
    try:
        return layer_from_state_dict(tensors, nonlinearity, prefix=prefix, backend=backend, rng=rng)
    except (ValueError, TypeError) as error:
        raise type(error)(f"{path}: {error}") from None


def _saved_nonlinearity(entry: str) -> str:
    try:
        return str(json.loads(entry)["config"]["nonlinearity"])
    except (ValueError, TypeError, KeyError):  # another program's file, or an LSTM's
        return "tanh"
