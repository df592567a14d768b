"""A student cut from its teacher: the layers that change the hidden states least are left out (ShortGPT, arXiv 2403.03853).

Imports PyTorch inside functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from jobs.task import TaskContext
from jobs.tasks.checkpoints import save_weights
from jobs.tasks.finetune.rendering import Tokens
from model_registry.conversion.formats.checkpoint.writer import check_layers_alike, keep_layers

_EXAMPLES = 32


def cut(checkpoint: Path, num_layers: int, examples: Sequence[Tokens], folder: Path, context: TaskContext) -> list[int]:
    """Writes a checkpoint with so many of the layers into `folder`. Returns those that stay.

    Raises UnsupportedModel when layers are of several kinds in turn: without some, the turns would be others.
    """
    import torch
    from transformers import AutoModelForCausalLM

    check_layers_alike(checkpoint)
    context.stage("choosing layers")
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32, trust_remote_code=False)
    total = model.config.num_hidden_layers
    influence = [0.0] * total
    with torch.no_grad():
        for number, example in enumerate(examples[:_EXAMPLES]):
            states = model.model(torch.tensor([example.input_ids]), output_hidden_states=True, use_cache=False).hidden_states
            for layer in range(total):
                likeness = torch.nn.functional.cosine_similarity(states[layer], states[layer + 1], dim=-1)
                influence[layer] += float((1 - likeness).sum())
            context.progress(number + 1, min(len(examples), _EXAMPLES), unit="examples")
    stay = chosen(influence, num_layers)
    model.model.layers = torch.nn.ModuleList(model.model.layers[layer] for layer in stay)
    save_weights(model, checkpoint, folder)
    keep_layers(folder, stay)
    return stay


def chosen(influence: Sequence[float], num_layers: int) -> list[int]:
    """The first and the last layer, and those with the most influence; in order."""
    inner = sorted(range(1, len(influence) - 1), key=lambda layer: -influence[layer])
    return sorted([0, len(influence) - 1, *inner[: num_layers - 2]])
