"""Passes of Olive that run nothing but Olive's own code, and their settings that are plain values. Values only.

Made from release 0.13: every setting of each pass was looked at. What is missing here names scripts, functions, modules, files or
other machines, trusts a folder's code, or takes data that a workflow describes in such words.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_SAVING = frozenset({"save_as_external_data", "all_tensors_to_one_file", "size_threshold", "convert_attribute"})
_LAYERS = frozenset({"bits", "group_size", "sym", "lm_head", "embeds"})
_EXPORT = frozenset(
    {
        *("target_opset", "use_dynamo_exporter", "past_key_value_name", "device", "torch_dtype", "merge_adapter_weights"),
        *("save_metadata_for_token_generation", "optimize", "dynamic"),
    }
)
_BUILD = frozenset(
    {
        *("precision", "metadata_only", "int4_accuracy_level", "int4_block_size", "int4_is_symmetric", "int4_op_types_to_quantize"),
        *("int4_nodes_to_exclude", "int4_algo_config", "use_qdq", "use_8bits_moe", "use_webgpu_fp32", "use_cuda_bf16"),
        *("include_hidden_states", "exclude_embeds", "exclude_lm_head", "enable_cuda_graph", "extra_options"),
    }
)
_DYNAMIC = frozenset(
    {
        *("quant_mode", "precision", "op_types_to_quantize", "op_types_to_exclude", "nodes_to_quantize", "nodes_to_exclude"),
        *("per_channel", "reduce_range", "quant_preprocess", "activation_symmetric", "weight_symmetric"),
    }
)
_FLOAT16 = frozenset(
    {
        *("min_positive_val", "max_finite_val", "keep_io_types", "use_symbolic_shape_infer", "op_block_list", "op_include_list"),
        *("node_block_list", "node_include_list"),
    }
)
_FUSION = frozenset(
    {
        *("model_type", "num_heads", "num_key_value_heads", "hidden_size", "opt_level", "use_gpu", "only_onnxruntime", "float16"),
        *("keep_io_types", "force_fp32_ops", "force_fp32_nodes", "use_gqa", "input_int32"),
    }
)
_PEEPHOLE = frozenset(
    {
        *("onnxscript_optimize", "onnxoptimizer_optimize", "fuse_reshape_operations", "fix_com_microsoft_opset"),
        "cast_chain_elimination",
    }
)
_MIXED = frozenset({"algorithm", "bits", "group_size", "sym", "high_bits", "high_group_size", "high_sym", "ratio"})

# By the pass's type in lower case, as Olive compares them.
PLAIN_PASSES: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "modelbuilder": _BUILD,
        "onnxconversion": _EXPORT | _SAVING,
        "rtn": _LAYERS,
        "kquant": _LAYERS,
        "quarot": frozenset({"seed", "rotate_mode"}),
        "selectivemixedprecision": _MIXED,
        "onnxblockwisertnquantization": _SAVING
        | {"bits", "block_size", "axis", "is_symmetric", "accuracy_level", "nodes_to_exclude", "nodes_to_include"},
        "onnxhqqquantization": _SAVING | {"block_size", "axis", "accuracy_level", "nodes_to_exclude", "nodes_to_include"},
        "onnxkquantquantization": _SAVING | {"bits", "block_size", "accuracy_level", "nodes_to_exclude"},
        "onnxdynamicquantization": _SAVING | _DYNAMIC,
        "onnxfloattofloat16": _SAVING | _FLOAT16,
        "onnxiodatatypeconverter": _SAVING | {"name_pattern", "source_dtype", "target_dtype"},
        "onnxopversionconversion": _SAVING | {"target_opset"},
        "onnxpeepholeoptimizer": _SAVING | _PEEPHOLE,
        "orttransformersoptimization": _SAVING | _FUSION,
        "matmulnbitstoqdq": _SAVING | {"use_transpose_op", "use_int4", "use_signed_int", "add_zero_point", "nodes_to_exclude"},
        "dynamictofixedshape": _SAVING | {"dim_param", "dim_value", "input_name", "input_shape"},
    }
)

# What ModelBuilder passes on to onnxruntime-genai's builder: others of its options name files, or trust a folder's code.
PLAIN_BUILDER_OPTIONS = frozenset(
    {
        *("int4_accuracy_level", "int4_block_size", "int4_is_symmetric", "int4_op_types_to_quantize", "int4_nodes_to_exclude"),
        *("int4_algo_config", "accuracy_level", "block_size", "is_symmetric", "op_types_to_quantize", "nodes_to_exclude"),
        *("algo_config", "shared_embeddings", "fuse_qkv", "use_qdq", "use_8bits_moe", "use_cuda_bf16", "use_webgpu_fp32"),
        *("enable_cuda_graph", "use_paged_attention", "include_hidden_states", "exclude_embeds", "exclude_lm_head"),
        *("matmul_mixed_precision", "windowed_kv_cache"),
    }
)
