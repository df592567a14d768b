"""Models put together from two builds of one source with the same scales: each matrix from the one or the other.

Nothing is rounded again, so many mixtures can be measured, and the one that is chosen is the very one that was. Which matrices get
the coarser build: those that save the most time for the least damage, which is how far the model's predictions move when they alone
are coarse. Damages nearly add up; how many units fit within a loss is then measured on whole builds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_registry.conversion.decoder.graph import ExternalData
from model_registry.conversion.source import EMBEDDING, TensorSource
from model_registry.conversion.source import HEAD as HEAD_TENSOR

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

HEAD = "head"  # head and embedding go together: they may be one matrix
_MODEL, _DATA = "model.onnx", "model.onnx.data"
_PATHS = {
    "attn_q": "attn/qkv_proj",
    "attn_output": "attn/o_proj",
    "ffn_gate": "mlp/gate_proj",
    "ffn_up": "mlp/up_proj",
    "ffn_down": "mlp/down_proj",
}
MATRICES = tuple(_PATHS)  # of a layer; attn_q means fused q, k and v
_FUSED = {"attn_q": ("attn_q", "attn_k", "attn_v")}
MAX_BANDS = 6  # of layers: neighbours are alike, and each unit takes a second or two to measure
_FLOAT32_ACTIVATIONS = 1  # MatMulNBits accuracy_level


@dataclass(frozen=True, slots=True)
class Unit:
    """Matrices that get 4 bits together, and how many weights they have."""

    name: str
    matrices: tuple[str, ...]
    num_weights: int


def units(source: TensorSource) -> list[Unit]:
    """Each kind of matrix in bands of layers, and the head."""
    num_layers = source.architecture.num_layers
    size = -(-num_layers // MAX_BANDS)
    found = []
    for kind in MATRICES:
        for start in range(0, num_layers, size):
            layers = range(start, min(start + size, num_layers))
            names = [f"blk.{layer}.{each}.weight" for layer in layers for each in _FUSED.get(kind, (kind,))]
            matrices = tuple(f"blk.{layer}.{kind}" for layer in layers)
            num_weights = sum(source.tensors[name].num_values for name in names)
            found.append(Unit(f"{kind} {layers[0]}-{layers[-1]}", matrices, num_weights))
    head = source.tensors[HEAD_TENSOR if HEAD_TENSOR in source.tensors else EMBEDDING]
    return [*found, Unit("head", (HEAD,), head.num_values)]


def by_worth(found: Sequence[Unit], damages: Mapping[str, float]) -> list[Unit]:
    """The least damage per weight first."""
    return sorted(found, key=lambda unit: damages[unit.name] / unit.num_weights)


def most_within(count: int, ratio: Callable[[int], float], max_ratio: float) -> int:
    """The most of the first units, of `count`, that keep the ratio: by halving, where 0 are known to and all are not."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        if ratio(middle) <= max_ratio:
            low = middle
        else:
            high = middle
    return low


def mix(build: Path, other: Path, folder: Path, names: Collection[str], *, is_exact: bool = False) -> None:
    """Writes into `folder`, which is empty, `build` with some matrices of `other`.

    names: of these, such as `blk.3.attn_q`; or HEAD. is_exact: products do not round their inputs, so that only the
    rounding of weights shows.
    """
    import onnx

    for file in build.iterdir():
        if file.name not in (_MODEL, _DATA):
            os.link(file, folder / file.name)
    model, theirs = (onnx.load(each / _MODEL, load_external_data=False) for each in (build, other))
    replaced = _replace(model, theirs, [path for name in names for path in _paths(name)])
    if is_exact:
        _round_no_inputs(model.graph.node)
    with ExternalData(folder / _DATA) as data:
        tensors = _copied(model, {False: build / _DATA, True: other / _DATA}, replaced, data)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)
    onnx.save(model, folder / _MODEL)


def _paths(name: str) -> tuple[str, ...]:
    """How the names of its nodes begin."""
    if name == HEAD:
        return "/lm_head/", "/model/embed_tokens/"
    _, layer, kind = name.split(".")
    return (f"/model/layers.{layer}/{_PATHS[kind]}/",)


def _replace(model: ModelProto, other: ModelProto, paths: Collection[str]) -> set[str]:
    """Exchanges nodes and what they read. Returns the names of the tensors that are the other's."""
    others = {tensor.name: tensor for tensor in other.graph.initializer}
    nodes: list[NodeProto] = []
    done: set[str] = set()
    taken: set[str] = set()
    for node in model.graph.node:
        path = next((path for path in paths if node.name.startswith(path)), None)
        if path is None:
            nodes.append(node)
        elif path not in done:
            done.add(path)
            theirs = [each for each in other.graph.node if each.name.startswith(path)]
            nodes += theirs
            taken |= {name for each in theirs for name in each.input if name in others}
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used - taken]
    kept += [others[name] for name in sorted(taken)]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    return taken


def _round_no_inputs(nodes: Collection[NodeProto]) -> None:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "accuracy_level":
                attribute.i = _FLOAT32_ACTIVATIONS


def _copied(model: ModelProto, files: dict[bool, Path], others: set[str], data: ExternalData) -> list[TensorProto]:
    """The model's tensors, with their bytes in `data`; those that share bytes share them again."""
    from onnx import TensorProto, helper

    maps = {is_other: np.memmap(path, np.uint8, "r") for is_other, path in files.items()}
    done: dict[tuple[bool, int], TensorProto] = {}
    copied = []
    for tensor in model.graph.initializer:
        if tensor.data_location != TensorProto.EXTERNAL:
            copied.append(tensor)
            continue
        place = {entry.key: entry.value for entry in tensor.external_data}
        is_other, start, length = tensor.name in others, int(place["offset"]), int(place["length"])
        known = done.get((is_other, start))
        if known is None:
            kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            values = maps[is_other][start : start + length].view(kind)
            known = done[is_other, start] = data.write(tensor.name, kind, tuple(tensor.dims), [values])
            copied.append(known)
        else:
            copied.append(data.view(known, tensor.name, tuple(tensor.dims)))
    return copied
