"""A model put together from two builds of one source with the same scales: each matrix from the one or the other.

Nothing is rounded again, so many mixtures can be measured, and the one that is chosen is the very one that was.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from model_registry.conversion.decoder.graph import ExternalData

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
MATRICES = tuple(_PATHS)  # of a layer; attn_q stands for fused q, k and v
_FLOAT32_ACTIVATIONS = 1  # MatMulNBits accuracy_level


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
