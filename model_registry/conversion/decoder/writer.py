"""Writes a llama-family decoder as `model.onnx` with `model.onnx.data`, laid out like onnxruntime-genai's exports.

Inputs: input_ids int64 [batch, sequence]; attention_mask int64 [batch, total], whose row sums are the rows' lengths
after the run; past_key_values.N.key/value float32 [batch, kv_heads, past, head_size]. Outputs: logits float32
[batch, sequence, vocab]; present.N.key/value. Past and present may share one buffer. Knows nothing of tokenizers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from model_registry.conversion.decoder.architecture import Activation, Rope, rotation
from model_registry.conversion.decoder.graph import MICROSOFT, ExternalData, Graph
from model_registry.conversion.decoder.matrix import Matrix, Part, attention_parts, make_matrix
from model_registry.conversion.quantizers.recipe import InputFigures, Recipe
from model_registry.conversion.quantizers.smoothing import Smoothing, to_heads
from model_registry.conversion.source import (
    EMBEDDING,
    FINAL_NORM,
    HEAD,
    POST_ATTENTION_NORM,
    POST_FFN_NORM,
    ROPE_DIVISORS,
    Floats,
    TensorSource,
    vocab_size,
)
from model_registry.progress import Progress
from model_registry.records import Precision

if TYPE_CHECKING:
    from onnx import ValueInfoProto

POSITIONS_AT_A_TIME = 4096


@dataclass(frozen=True, slots=True)
class WrittenBits:
    """How weights were stored: the distinct bit widths and block sizes of the layers' matrices, and the head's width."""

    layers: frozenset[int]
    blocks: frozenset[int]
    head: int


def write_decoder(
    source: TensorSource,
    folder: Path,
    precision: Precision,
    smoothing: Smoothing,
    progress: Progress,
    recipe: Recipe | None = None,
) -> WrittenBits:
    """Write both files into `folder`. recipe: decides instead of precision."""
    with ExternalData(folder / "model.onnx.data") as data:
        writer = _DecoderWriter(source, precision, smoothing, Graph(data), recipe)
        written = writer.write(progress)
        inputs, outputs = writer.signature()
        writer.graph.save(folder / "model.onnx", inputs, outputs)
    return written


class _DecoderWriter:
    def __init__(
        self,
        source: TensorSource,
        precision: Precision,
        smoothing: Smoothing,
        graph: Graph,
        recipe: Recipe | None,
    ) -> None:
        self.recipe = recipe
        self.source = source
        self.architecture = source.architecture
        self.precision = precision
        self.smoothing = smoothing
        self.graph = graph
        self._layer_bits: set[int] = set()
        self._layer_blocks: set[int] = set()
        self._rotations: dict[Rope, list[str]] = {}

    def write(self, progress: Progress) -> WrittenBits:
        layers = self.architecture.num_layers
        progress.stage("writing weights")
        self._write_lengths()
        self._write_rotations()
        head, hidden, stored = self._write_embedding()
        progress.update(1, layers + 1)
        norm = self._norm("blk.0.attn_norm.weight", self.smoothing.layers[0].attention)
        normed = self._normalized(hidden, norm, "/model/layers.0/input_layernorm")
        for layer in range(layers):
            hidden, normed = self._write_layer(layer, hidden, normed)
            progress.update(layer + 2, layers + 1)
        self.graph.product(normed, head, stored, "/lm_head", output="logits")
        return WrittenBits(frozenset(self._layer_bits), frozenset(self._layer_blocks), head.bits)

    def _write_lengths(self) -> None:
        from onnx import TensorProto

        graph = self.graph
        one, index = graph.constant("one", [1]), graph.constant("index_one", 1)
        total = graph.node("ReduceSum", ["attention_mask", one], ["/model/mask/sum"], "/model/mask/ReduceSum")
        last = graph.node("Sub", [total, one], ["/model/mask/last"], "/model/mask/Sub")
        graph.node("Cast", [last], ["seqlens_k"], "/model/mask/Cast", to=TensorProto.INT32)
        shape = graph.node("Shape", ["attention_mask"], ["/model/mask/shape"], "/model/mask/Shape")
        width = graph.node("Gather", [shape, index], ["/model/mask/width"], "/model/mask/Gather", axis=0)
        graph.node("Cast", [width], ["total_sequence_length"], "/model/mask/Cast_width", to=TensorProto.INT32)

    def _write_rotations(self) -> None:
        """One pair of tables for each rotary embedding that layers share."""
        ropes = [self.architecture.layer_rope(layer) for layer in range(self.architecture.num_layers)]
        self._rotations = {rope: self._write_rotation(rope, index) for index, rope in enumerate(dict.fromkeys(ropes))}

    def _write_rotation(self, rope: Rope, index: int) -> list[str]:
        head_size, length = self.architecture.head_size, self.architecture.context_length
        divisors = self.source.read(ROPE_DIVISORS) if ROPE_DIVISORS in self.source.tensors else None
        frequencies = rope.frequencies(head_size, divisors)

        def pieces(which: int) -> Iterator[NDArray[np.float32]]:
            for start in range(0, length, POSITIONS_AT_A_TIME):
                yield rotation(rope, frequencies, start, min(start + POSITIONS_AT_A_TIME, length))[which]

        names = [f"{name}_{index}" if index else name for name in ("cos_cache", "sin_cache")]
        return [self.graph.streamed(name, (length, head_size // 2), pieces(which)) for which, name in enumerate(names)]

    def _write_embedding(self) -> tuple[Matrix, str, str]:
        """(the head's matrix, the embedded ids, the head's stored name); one matrix serves both when they are tied."""
        tied = HEAD not in self.source.tensors
        name = (EMBEDDING if tied else HEAD).removesuffix(".weight")
        outliers = self.smoothing.outliers
        head = make_matrix(self.source, (Part(name),), self.precision, is_head=True, outliers=outliers, recipe=self.recipe)
        stored = self.graph.store(head, "/lm_head")
        embedding, weight = head, stored
        if not tied:
            part = Part(EMBEDDING.removesuffix(".weight"))
            embedding = make_matrix(self.source, (part,), self.precision, is_head=True, recipe=self.recipe)
            weight = self.graph.store(embedding, "/model/embed_tokens")
        embedded = self.graph.gather("input_ids", embedding, weight, "/model/embed_tokens")
        if self.architecture.family.scaled_embedding:
            scale = self.graph.weight("embed_scale", np.array([self.architecture.embedding_scale], np.float32))
            embedded = self.graph.node("Mul", [embedded, scale], ["/model/embed_tokens/scaled"], "/model/embed_tokens/Mul")
        return head, embedded, stored

    def _write_layer(self, layer: int, hidden: str, normed: str) -> tuple[str, str]:
        """(residual stream after the layer, its norm for the next layer or the head)."""
        path, smoothing = f"/model/layers.{layer}", self.smoothing.layers[layer]
        attended = self._post_normed(self._write_attention(layer, normed, f"{path}/attn"), layer, POST_ATTENTION_NORM)
        ffn_norm = self._norm(f"blk.{layer}.ffn_norm.weight", smoothing.ffn)
        hidden, normed = self._residual(hidden, attended, ffn_norm, f"{path}/post_attention_layernorm")
        gate = self._linear(normed, (Part(f"blk.{layer}.ffn_gate"),), f"{path}/mlp/gate_proj", smoothing.ffn)
        up_part = Part(f"blk.{layer}.ffn_up", divisors=smoothing.gated)
        up = self._linear(normed, (up_part,), f"{path}/mlp/up_proj", smoothing.ffn)
        gated = self.graph.node("Mul", [self._activated(gate, f"{path}/mlp"), up], [f"{path}/mlp/gated"], f"{path}/mlp/Mul")
        down = self._linear(gated, (Part(f"blk.{layer}.ffn_down"),), f"{path}/mlp/down_proj", smoothing.gated)
        down = self._post_normed(down, layer, POST_FFN_NORM)
        following = layer + 1
        if following == self.architecture.num_layers:
            return self._residual(hidden, down, self._norm(FINAL_NORM), "/model/final_norm", is_last=True)
        norm = self._norm(f"blk.{following}.attn_norm.weight", self.smoothing.layers[following].attention)
        return self._residual(hidden, down, norm, f"/model/layers.{following}/input_layernorm")

    def _activated(self, gate: str, path: str) -> str:
        node = self.graph.node
        if self.architecture.family.activation is Activation.GELU:
            return node("Gelu", [gate], [f"{path}/gelu"], f"{path}/act/Gelu", approximate="tanh")
        sigmoid = node("Sigmoid", [gate], [f"{path}/sigmoid"], f"{path}/Sigmoid")
        return node("Mul", [gate, sigmoid], [f"{path}/silu"], f"{path}/act/Mul")

    def _post_normed(self, x: str, layer: int, name: str) -> str:
        if not self.architecture.family.post_norms:
            return x
        return self._normalized(x, self._norm(f"blk.{layer}.{name}.weight"), f"/model/layers.{layer}/{name}")

    def _write_attention(self, layer: int, normed: str, path: str) -> str:
        architecture, smoothing = self.architecture, self.smoothing.layers[layer]
        parts = attention_parts(architecture, layer, smoothing.value)
        fused = self._linear(normed, parts, f"{path}/qkv_proj", smoothing.attention)
        query, key, value = self._normed_heads(layer, fused, path) if architecture.family.query_key_norm else (fused, "", "")
        tables = self._rotations[architecture.layer_rope(layer)] if architecture.rotates(layer) else []
        window = architecture.window(layer)
        past = [f"past_key_values.{layer}.key", f"past_key_values.{layer}.value"]
        attended = self.graph.node(
            "GroupQueryAttention",
            [query, key, value, *past, "seqlens_k", "total_sequence_length", *tables],
            [f"{path}/attended", f"present.{layer}.key", f"present.{layer}.value"],
            f"{path}/GroupQueryAttention",
            MICROSOFT,
            num_heads=architecture.num_heads,
            kv_num_heads=architecture.num_kv_heads,
            scale=architecture.attention_scale,
            do_rotary=int(bool(tables)),
            rotary_interleaved=0,
            local_window_size=-1 if window is None else window,
        )
        heads = architecture.num_heads, architecture.num_kv_heads
        factors = None if smoothing.value is None else to_heads(smoothing.value, *heads)
        return self._linear(attended, (Part(f"blk.{layer}.attn_output"),), f"{path}/o_proj", factors)

    def _normed_heads(self, layer: int, fused: str, path: str) -> tuple[str, str, str]:
        """Fused q, k, v taken apart, with RMS norm over each head of q and k."""
        graph, architecture = self.graph, self.architecture
        sizes = graph.constant(f"{path}/sizes", [architecture.query_size, architecture.kv_size, architecture.kv_size])
        names = [f"{path}/{part}" for part in ("q", "k", "v")]
        graph.node("Split", [fused, sizes], names, f"{path}/Split", axis=-1)
        normed = []
        for name, part, size in zip(names, ("q", "k"), (architecture.query_size, architecture.kv_size), strict=False):
            heads = graph.constant(f"{name}_heads_shape", [0, 0, -1, architecture.head_size])
            flat = graph.constant(f"{name}_flat_shape", [0, 0, size])
            split = graph.node("Reshape", [name, heads], [f"{name}_heads"], f"{name}_norm/Reshape_heads")
            weight = self._norm(f"blk.{layer}.attn_{part}_norm.weight")
            result = self._normalized(split, weight, f"{name}_norm")
            normed.append(graph.node("Reshape", [result, flat], [f"{name}_norm/flat"], f"{name}_norm/Reshape_flat"))
        return normed[0], normed[1], names[2]

    def _normalized(self, x: str, weight: str, path: str) -> str:
        """x's RMS norm over its last axis."""
        return self.graph.node(
            "SimplifiedLayerNormalization",
            [x, weight],
            [f"{path}/output"],
            f"{path}/LayerNorm",
            axis=-1,
            epsilon=self.architecture.norm_epsilon,
            stash_type=1,
        )

    def _residual(self, hidden: str, added: str, norm: str, path: str, *, is_last: bool = False) -> tuple[str, str]:
        """(hidden + added, its RMS norm). The sum after the last layer has no reader and no name."""
        total = "" if is_last else f"{path}/residual"
        normed = f"{path}/output"
        self.graph.node(
            "SkipSimplifiedLayerNormalization",
            [hidden, added, norm],
            [normed, "", "", total] if total else [normed],
            f"{path}/SkipLayerNorm",
            MICROSOFT,
            epsilon=self.architecture.norm_epsilon,
        )
        return total, normed

    def _linear(self, x: str, parts: tuple[Part, ...], path: str, factors: Floats | None = None) -> str:
        matrix = make_matrix(
            self.source, parts, self.precision, factors=factors, recipe=self.recipe, inputs=self._inputs(parts[0].name)
        )
        self._layer_bits.add(matrix.bits)
        self._layer_blocks.add(matrix.block)
        return self.graph.linear(x, matrix, path)

    def _inputs(self, name: str) -> InputFigures | None:
        """The statistics of the matrix's input, which are stored under the first of the matrices that share it."""
        _, layer, kind = name.split(".")
        return self.smoothing.layers[int(layer)].inputs.get("ffn_gate" if kind == "ffn_up" else kind)

    def _norm(self, name: str, divisors: Floats | None = None) -> str:
        weight = self.source.read(name)
        return self.graph.weight(name, weight if divisors is None else weight / divisors)

    def signature(self) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
        """The graph's inputs and outputs."""
        from onnx import TensorProto, helper

        architecture = self.architecture
        make = helper.make_tensor_value_info
        inputs = [
            make("input_ids", TensorProto.INT64, ["batch_size", "sequence_length"]),
            make("attention_mask", TensorProto.INT64, ["batch_size", "total_sequence_length"]),
        ]
        outputs = [make("logits", TensorProto.FLOAT, ["batch_size", "sequence_length", vocab_size(self.source)])]
        for layer in range(architecture.num_layers):
            for kind in ("key", "value"):
                heads, size = architecture.num_kv_heads, architecture.head_size
                past: list[str | int] = ["batch_size", heads, "past_sequence_length", size]
                present: list[str | int] = ["batch_size", heads, "total_sequence_length", size]
                inputs.append(make(f"past_key_values.{layer}.{kind}", TensorProto.FLOAT, past))
                outputs.append(make(f"present.{layer}.{kind}", TensorProto.FLOAT, present))
        return inputs, outputs
