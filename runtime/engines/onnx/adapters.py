"""LoRA adapters in a decoder's graph: rows of one step have different ones, or none. Knows no session and no rows' places.

All adapters are stored side by side along their rank. Of an input x of a matrix product W x of a layer, t = mask * (down @ x) is
computed, where the mask, an added input float32 [batch, 1, width], is 1 for the ranks of the row's own adapter and 0 elsewhere. A
product of 8 bits then reads x and t together by a wider matrix, [W up] [x t]; others have up @ t added. So whatever mixture of
adapters a step has, its arithmetic is dense, and no matrices are copied per row (as S-LoRA's gathering kernels avoid it). Products
that read the same input share one `down`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from model_registry.errors import UnsupportedModel
from model_registry.lora import Floats, Lora, LowRank, read_lora
from runtime.engines.model_folder import read_model_folder
from runtime.engines.onnx.graph import SideBranches, Weights
from runtime.engines.onnx.products import Product, layer_products, to_byte_blocks, widen

MASK = "adapter_mask"
SMOOTHING = "smoothing.npz"  # what the importer divided inputs by, see its `smoothing`
_WIDTHS = (64, 32, 16)  # that ranks are filled up to; above, multiples of the first
_MOST_MODULES, _WIDEST_BLOCK = 3, 128  # of a product, and of its columns
_OUR_IMPORTER = "slmops"


@dataclass(frozen=True, slots=True)
class _Site:
    """A product, and the columns of t that it reads: of each of its modules all ranks, and zeros up to whole blocks."""

    product: Product
    reach: int


class GraphAdapters:
    """names: in the order of `masks` [1 + adapters, wide enough for every product], whose first row chooses none.

    The matrices are read for each graph and not kept: they would take as much memory as half of a small model.
    """

    def __init__(self, folders: Mapping[str, Path], model_folder: Path) -> None:
        """Reads them all. Raises UnsupportedModel, naming the adapter."""
        self.names = tuple(folders)
        self._folders = dict(folders)
        ranks = [_named(name, folder).rank for name, folder in folders.items()]
        ends = np.cumsum([0, *ranks])
        self._starts = ends[:-1].tolist()
        self._width = _padded(int(ends[-1]), next((size for size in _WIDTHS if ends[-1] >= size), _WIDTHS[-1]))
        own = np.zeros((1 + len(folders), self._width), np.float32)
        for number, rank in enumerate(ranks):
            own[1 + number, ends[number] : ends[number] + rank] = 1
        widest = _padded(_MOST_MODULES * self._width, _WIDEST_BLOCK)
        self.masks = np.ascontiguousarray(np.tile(own, -(-widest // self._width))[:, :widest])
        decoder = read_model_folder(model_folder).decoder
        self._head_size, self._kv_size = decoder.head_size, decoder.kv_heads * decoder.head_size
        self._weights_folder = decoder.path.parent
        self._factors = _read_factors(model_folder)

    def add_to(self, model: onnx.ModelProto) -> Weights:
        """What the session must be given besides. Raises UnsupportedModel when an adapter does not fit."""
        graph, loras = model.graph, [_named(name, folder) for name, folder in self._folders.items()]
        products = list(layer_products(graph, self._kv_size))
        self._check(model, products, loras)
        wanted = {key for lora in loras for key in lora.changes}
        groups: dict[str, list[_Site]] = {}
        for product in products:
            if any((product.layer, module) in wanted for module, _ in product.modules):
                groups.setdefault(product.node.input[0], []).append(self._site(product))
        sites = {site.product.node.name: (x, site) for x, group in groups.items() for site in group}
        branches = SideBranches(graph, MASK)
        nodes: list[onnx.NodeProto] = []
        begun: dict[str, dict[str, str]] = {}
        for node in list(graph.node):
            if node.name not in sites:
                nodes.append(node)
                continue
            x, site = sites[node.name]
            if x not in begun:
                begun[x] = self._write_down(branches, groups[x], loras)
            self._write_up(branches, graph, site, begun[x][node.name], loras)
            nodes += branches.around(node)
        _replace_nodes(graph, [*branches.first(), *nodes])
        graph.input.append(helper.make_tensor_value_info(MASK, TensorProto.FLOAT, ["batch_size", 1, self.masks.shape[1]]))
        return branches.weights

    def _site(self, product: Product) -> _Site:
        wide = len(product.modules) * self._width
        return _Site(product, _padded(wide, product.block) if product.can_widen else wide)

    def _check(self, model: onnx.ModelProto, products: Sequence[Product], loras: Sequence[Lora]) -> None:
        is_rounded = any(product.block for product in products)
        if self._factors is None and is_rounded and model.producer_name == _OUR_IMPORTER:
            raise UnsupportedModel(
                "This build lacks its smoothing factors, so no adapter can be served on it. It was imported by an "
                "older slmops: import the model again."
            )
        sizes = {(product.layer, module): (rows, product.columns) for product in products for module, rows in product.modules}
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

    def _write_down(self, branches: SideBranches, group: Sequence[_Site], loras: Sequence[Lora]) -> dict[str, str]:
        """Names of each product's part of t, by the product's node."""
        first = group[0].product
        down = np.zeros((sum(site.reach for site in group), first.columns), np.float32)
        begin = 0
        for site in group:
            for part, (module, _) in enumerate(site.product.modules):
                for start, change in self._changes(loras, site.product.layer, module):
                    row = begin + part * self._width + start
                    down[row : row + len(change.down)] = change.down
            begin += site.reach
        factors = self._input_factors(first)
        path = f"{first.node.name}/adapters"
        x = branches.product(first.node.input[0], down if factors is None else down * factors, f"{path}/down", first)
        parts = branches.masked(x, [site.reach for site in group], path)
        return {site.product.node.name: part for site, part in zip(group, parts, strict=True)}

    def _write_up(self, branches: SideBranches, graph: onnx.GraphProto, site: _Site, t: str, loras: Sequence[Lora]) -> None:
        product, row = site.product, 0
        up = np.zeros((product.rows, site.reach), np.float32)
        for part, (module, size) in enumerate(product.modules):
            for start, change in self._changes(loras, product.layer, module):
                column = part * self._width + start
                up[row : row + size, column : column + change.up.shape[1]] = change.up
            divisors = self._output_divisors(product.layer, module)
            if divisors is not None:
                up[row : row + size] /= divisors[:, None]
            row += size
        path = f"{product.node.name}/adapters"
        if product.can_widen:
            branches.widen(widen(product, to_byte_blocks(up, product.block), graph, self._weights_folder), t, path)
        else:
            branches.add_to_output(product.node, branches.product(t, up, f"{path}/up", product), path)

    def _changes(self, loras: Sequence[Lora], layer: int, module: str) -> Iterator[tuple[int, LowRank]]:
        """(place of its first rank, the change) of each adapter that has one."""
        for start, lora in zip(self._starts, loras, strict=True):
            if (layer, module) in lora.changes:
                yield start, lora.changes[layer, module]

    def _input_factors(self, product: Product) -> Floats | None:
        """What the product's input was divided by, [columns]."""
        kind = {"q_proj": "attention", "o_proj": "value", "down_proj": "gated"}.get(product.modules[0][0], "ffn")
        factors = self._smoothing(product.layer, kind)
        if factors is None or kind != "value":
            return factors
        group = product.columns // len(factors)
        return np.repeat(factors.reshape(-1, self._head_size), group, axis=0).reshape(-1)

    def _output_divisors(self, layer: int, module: str) -> Floats | None:
        return self._smoothing(layer, {"v_proj": "value", "up_proj": "gated"}.get(module, ""))

    def _smoothing(self, layer: int, kind: str) -> Floats | None:
        return None if self._factors is None else self._factors.get(f"{layer}.{kind}")


def check_adapters(folders: Mapping[str, Path], model_folder: Path) -> None:
    """Whether a worker could serve them together on this build. Takes a tenth of a second. Raises UnsupportedModel."""
    model = onnx.load(read_model_folder(model_folder).decoder.path, load_external_data=False)
    GraphAdapters(folders, model_folder).add_to(model)


def _replace_nodes(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    """And drops weights that none of them reads."""
    del graph.node[:]
    graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def _padded(size: int, block: int) -> int:
    """The matrix, padded to whole blocks."""
    return -(-size // block) * block


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
