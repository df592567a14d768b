"""LoRA adapters in a decoder's graph: rows of one step have different ones, or none. Knows no session and no rows' places.

All adapters lie side by side along their rank. Beside each matrix product W x of a layer stands up @ (mask * (down @ x)), where
the mask, an added input float32 [batch, 1, width], is 1 for the ranks of the row's own adapter and 0 elsewhere: two small dense
products, whatever mixture of adapters a step has, and no copies of matrices per row (as S-LoRA's gathering kernels avoid them).
Products that read the same input share one `down`. Beside 8-bit and 4-bit products the adapters are 8-bit too.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from model_registry.errors import UnsupportedModel
from model_registry.lora import Floats, Lora, LowRank, read_lora
from runtime.model_folder import read_model_folder

MASK = "adapter_mask"
SMOOTHING = "smoothing.npz"  # what the importer divided inputs by, see its `smoothing`
_PRODUCT = re.compile(r"/model/layers\.(\d+)/(?:attn|mlp)/(\w+)/MatMul\w*")
_FUSED = {"qkv_proj": ("q_proj", "k_proj", "v_proj")}
_BLOCKS = (64, 32, 16)  # of what is rounded; the wider, the faster
_MICROSOFT = "com.microsoft"
_OUR_IMPORTER = "slmops"


@dataclass(frozen=True, slots=True)
class _Site:
    """A product of the graph. modules: whose rows it stacks, with their numbers of rows."""

    node: onnx.NodeProto
    layer: int
    modules: tuple[tuple[str, int], ...]
    columns: int

    @property
    def rows(self) -> int:
        return sum(size for _, size in self.modules)


class GraphAdapters:
    """names: in the order of `masks` [1 + adapters, width], whose first row chooses none.

    The matrices are read for each graph and not kept: they would take as much memory as half of a small model.
    """

    def __init__(self, folders: Mapping[str, Path], model_folder: Path) -> None:
        """Reads them all. Raises UnsupportedModel, naming the adapter."""
        self.names = tuple(folders)
        self._folders = dict(folders)
        ranks = [_named(name, folder).rank for name, folder in folders.items()]
        ends = np.cumsum([0, *ranks])
        self._starts = ends[:-1].tolist()
        self._width = _padded(int(ends[-1]))
        self.masks = np.zeros((1 + len(folders), self._width), np.float32)
        for number, rank in enumerate(ranks):
            self.masks[1 + number, ends[number] : ends[number] + rank] = 1
        shape = read_model_folder(model_folder).decoder
        self._head_size, self._kv_size = shape.head_size, shape.kv_heads * shape.head_size
        self._factors = _read_factors(model_folder)

    def add_to(self, model: onnx.ModelProto) -> None:
        """Raises UnsupportedModel when an adapter does not fit."""
        graph, loras = model.graph, [_named(name, folder) for name, folder in self._folders.items()]
        sites = {site.node.name: site for site in self._sites(graph)}
        self._check(model, list(sites.values()), loras)
        wanted = {key for lora in loras for key in lora.changes}
        groups: dict[str, list[_Site]] = {}
        for site in sites.values():
            if any((site.layer, module) in wanted for module, _ in site.modules):
                groups.setdefault(site.node.input[0], []).append(site)
        writer = _Writer(graph, self._width)
        nodes: list[onnx.NodeProto] = []
        begun: dict[str, dict[str, str]] = {}
        for node in graph.node:
            group = groups.get(node.input[0]) if node.name in sites else None
            if group is None or all(site.node.name != node.name for site in group):
                nodes.append(node)
                continue
            if node.input[0] not in begun:
                begun[node.input[0]] = self._write_down(writer, group, loras)
            taken = writer.take()
            self._write_up(writer, sites[node.name], begun[node.input[0]][node.name], loras)
            nodes += [*taken, node, *writer.take()]
        del graph.node[:]
        graph.node.extend([*writer.masks(), *nodes])
        graph.input.append(helper.make_tensor_value_info(MASK, TensorProto.FLOAT, ["batch_size", 1, self._width]))

    def _sites(self, graph: onnx.GraphProto) -> Iterator[_Site]:
        shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Transpose" and node.input[0] in shapes:
                shapes[node.output[0]] = shapes[node.input[0]][::-1]
        for node in graph.node:
            match = _PRODUCT.fullmatch(node.name)
            if match is None or node.op_type not in ("MatMul", "MatMulNBits"):
                continue
            if node.op_type == "MatMulNBits":
                attributes = {attribute.name: attribute.i for attribute in node.attribute}
                columns, rows = attributes["K"], attributes["N"]
            else:
                columns, rows = shapes[node.input[1]]
            kv = self._kv_size
            modules: tuple[tuple[str, int], ...] = ((match[2], rows),)
            if match[2] in _FUSED:
                modules = tuple(zip(_FUSED[match[2]], (rows - 2 * kv, kv, kv), strict=True))
            yield _Site(node, int(match[1]), modules, columns)

    def _check(self, model: onnx.ModelProto, sites: Sequence[_Site], loras: Sequence[Lora]) -> None:
        is_rounded = any(site.node.op_type == "MatMulNBits" for site in sites)
        if self._factors is None and is_rounded and model.producer_name == _OUR_IMPORTER:
            raise UnsupportedModel(
                "This build does not tell how its weights were smoothed, so no adapter can be served on it. It was imported by an "
                "older slmops: import the model again."
            )
        sizes = {(site.layer, module): (rows, site.columns) for site in sites for module, rows in site.modules}
        for name, lora in zip(self.names, loras, strict=True):
            for (layer, module), change in lora.changes.items():
                size, found = sizes.get((layer, module)), (len(change.up), change.down.shape[1])
                if size is None:
                    raise UnsupportedModel(f"Adapter {name} changes {module} of layer {layer}, which the model does not have.")
                if size != found:
                    raise UnsupportedModel(
                        f"Adapter {name} changes {module} of layer {layer} as a matrix of {found[0]} x {found[1]}; the model's is "
                        f"{size[0]} x {size[1]}: the adapter is another model's."
                    )

    def _write_down(self, writer: _Writer, group: Sequence[_Site], loras: Sequence[Lora]) -> dict[str, str]:
        """Names of the masked [batch, sequence, modules * width], by the product that goes on from it."""
        parts = [(site, module) for site in group for module, _ in site.modules]
        down = np.zeros((len(parts), self._width, group[0].columns), np.float32)
        for part, (site, module) in enumerate(parts):
            for start, change in self._changes(loras, site.layer, module):
                down[part, start : start + len(change.down)] = change.down
        factors = self._input_factors(group[0])
        weights = down.reshape(-1, group[0].columns)
        first = group[0].node
        path = f"{first.name}/adapters"
        masked = writer.masked(
            writer.product(first.input[0], weights if factors is None else weights * factors, f"{path}/down", first),
            len(parts),
            path,
        )
        return writer.split(masked, {site.node.name: len(site.modules) for site in group}, path)

    def _write_up(self, writer: _Writer, site: _Site, masked: str, loras: Sequence[Lora]) -> None:
        up = np.zeros((site.rows, len(site.modules), self._width), np.float32)
        row = 0
        for part, (module, size) in enumerate(site.modules):
            for start, change in self._changes(loras, site.layer, module):
                up[row : row + size, part, start : start + change.up.shape[1]] = change.up
            divisors = self._output_divisors(site.layer, module)
            if divisors is not None:
                up[row : row + size] /= divisors[:, None, None]
            row += size
        path = f"{site.node.name}/adapters"
        added = writer.product(masked, up.reshape(site.rows, -1), f"{path}/up", site.node)
        writer.add_to_output(site.node, added, path)

    def _changes(self, loras: Sequence[Lora], layer: int, module: str) -> Iterator[tuple[int, LowRank]]:
        """(place of its first rank, the change) of each adapter that has one."""
        for start, lora in zip(self._starts, loras, strict=True):
            if (layer, module) in lora.changes:
                yield start, lora.changes[layer, module]

    def _input_factors(self, site: _Site) -> Floats | None:
        """What the product's input was divided by, [columns]."""
        kind = {"q_proj": "attention", "o_proj": "value", "down_proj": "gated"}.get(site.modules[0][0], "ffn")
        factors = self._smoothing(site.layer, kind)
        if factors is None or kind != "value":
            return factors
        group = site.columns // len(factors)
        return np.repeat(factors.reshape(-1, self._head_size), group, axis=0).reshape(-1)

    def _output_divisors(self, layer: int, module: str) -> Floats | None:
        return self._smoothing(layer, {"v_proj": "value", "up_proj": "gated"}.get(module, ""))

    def _smoothing(self, layer: int, kind: str) -> Floats | None:
        return None if self._factors is None else self._factors.get(f"{layer}.{kind}")


def check_adapters(folders: Mapping[str, Path], model_folder: Path) -> None:
    """Whether a worker could serve them together on this build. Takes a tenth of a second. Raises UnsupportedModel."""
    model = onnx.load(read_model_folder(model_folder).decoder.path, load_external_data=False)
    GraphAdapters(folders, model_folder).add_to(model)


class _Writer:
    """Nodes to insert, in order, and weights."""

    def __init__(self, graph: onnx.GraphProto, width: int) -> None:
        self._graph = graph
        self._width = width
        self._nodes: list[onnx.NodeProto] = []
        self._wide: dict[int, onnx.NodeProto] = {}

    def take(self) -> list[onnx.NodeProto]:
        nodes, self._nodes = self._nodes, []
        return nodes

    def masks(self) -> list[onnx.NodeProto]:
        """Of several modules' ranks side by side, computed once."""
        return list(self._wide.values())

    def product(self, x: str, weights: Floats, path: str, like: onnx.NodeProto) -> str:
        """x [..., columns] times weights [rows, columns], rounded where the product that it stands beside is."""
        rows, columns = weights.shape
        output = f"{path}/output"
        if like.op_type == "MatMul":
            self._weight(f"{path}/weight", np.ascontiguousarray(weights.T))
            self._nodes.append(helper.make_node("MatMul", [x, f"{path}/weight"], [output], name=path))
            return output
        block = next(size for size in _BLOCKS if columns % size == 0)
        blocks = weights.reshape(rows, columns // block, block)
        scales = np.abs(blocks).max(axis=2) / np.float32(127)
        integers = np.rint(blocks / np.where(scales == 0, 1, scales)[..., None]) + 128
        self._weight(f"{path}/integers", integers.astype(np.uint8))
        self._weight(f"{path}/scales", scales.astype(np.float32))
        level = next((each.i for each in like.attribute if each.name == "accuracy_level"), 0)
        self._nodes.append(
            helper.make_node(
                "MatMulNBits",
                [x, f"{path}/integers", f"{path}/scales"],
                [output],
                name=path,
                domain=_MICROSOFT,
                K=columns,
                N=rows,
                bits=8,
                block_size=block,
                accuracy_level=level,
            )
        )
        return output

    def masked(self, x: str, num_modules: int, path: str) -> str:
        mask = MASK
        if num_modules > 1:
            mask = f"{MASK}/{num_modules}"
            self._wide.setdefault(num_modules, helper.make_node("Concat", [MASK] * num_modules, [mask], name=mask, axis=-1))
        self._nodes.append(helper.make_node("Mul", [x, mask], [f"{path}/masked"], name=f"{path}/Mul"))
        return f"{path}/masked"

    def split(self, x: str, modules_of: Mapping[str, int], path: str) -> dict[str, str]:
        if len(modules_of) == 1:
            return dict.fromkeys(modules_of, x)
        self._weight(f"{path}/sizes", np.array([count * self._width for count in modules_of.values()], np.int64))
        names = {name: f"{path}/masked_{number}" for number, name in enumerate(modules_of)}
        self._nodes.append(helper.make_node("Split", [x, f"{path}/sizes"], list(names.values()), name=f"{path}/Split", axis=-1))
        return names

    def add_to_output(self, node: onnx.NodeProto, added: str, path: str) -> None:
        output = node.output[0]
        node.output[0] = f"{path}/without"
        self._nodes.append(helper.make_node("Add", [f"{path}/without", added], [output], name=f"{path}/Add"))

    def _weight(self, name: str, values: NDArray[np.generic]) -> None:
        self._graph.initializer.append(numpy_helper.from_array(values, name))


def _padded(rank: int) -> int:
    """To whole blocks, as wide as the rank fills."""
    block = next((size for size in _BLOCKS if rank >= size), _BLOCKS[-1])
    return -(-rank // block) * block


def _named(name: str, folder: Path) -> Lora:
    try:
        return read_lora(folder)
    except UnsupportedModel as error:
        raise UnsupportedModel(f"Adapter {name} cannot be served: {error.message}") from None


def _read_factors(folder: Path) -> dict[str, Floats] | None:
    path = folder / SMOOTHING
    if not path.is_file():
        return None
    with np.load(path, allow_pickle=False) as factors:
        return {name: factors[name] for name in factors.files}
