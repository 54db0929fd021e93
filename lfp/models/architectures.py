"""Where language models of every supported family keep their blocks, MLPs and final norm."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
)


@dataclass(frozen=True)
class Architecture:
    """Where a family keeps its blocks and its final norm, and the module inside a block whose
    output is the MLP's.
    """

    blocks: str
    final_norm: str
    mlp: str = "mlp"


_LLAMA = Architecture("model.layers", "model.norm")


#: Module paths by ``model_type``. OPT has no MLP module: its second projection ends the MLP
#: (dropout is off).
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "gpt_neo": Architecture("transformer.h", "transformer.ln_f"),
    "gpt2": Architecture("transformer.h", "transformer.ln_f"),
    "opt": Architecture("model.decoder.layers", "model.decoder.final_layer_norm", "fc2"),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA
    ),
    # Gemma 3 from 4b upwards is a vision model around the same text model.
    "gemma3": Architecture("model.language_model.layers", "model.language_model.norm"),
}


def architecture(model: PreTrainedModel) -> Architecture:
    """The module paths of `model`'s family.

    Raises ValueError for a family that is not supported, or for an OPT without a final norm (its
    350m).
    """
    family = model.config.model_type
    if family not in ARCHITECTURES:
        raise ValueError(
            f"model type {family!r} is not supported; expected one of {', '.join(ARCHITECTURES)}"
        )
    if family == "opt" and not model.config.do_layer_norm_before:
        raise ValueError(
            "OPT with layer norms after its blocks (opt-350m) is not supported; take another size"
        )
    return ARCHITECTURES[family]


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks of a causal language model, first to last."""
    return model.get_submodule(architecture(model).blocks)


def mlps(model: PreTrainedModel, layers: Iterable[int]) -> dict[int, nn.Module]:
    """MLP modules by layer; their output is the [batch, token, d_model] tensor after the
    down-projection.
    """
    stack = blocks(model)
    name = architecture(model).mlp
    return {layer: stack[layer].get_submodule(name) for layer in layers}


def hook_name(model: PreTrainedModel, layer: int) -> str:
    """Dotted path of the module whose output is a layer's MLP output."""
    family = architecture(model)
    return f"{family.blocks}.{layer}.{family.mlp}"


def width(model: PreTrainedModel) -> int:
    """d_model of a causal language model."""
    return model.config.get_text_config().hidden_size


def output_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocab] of final hidden states [..., d_model], soft-capped where the family does
    so (Gemma 2).
    """
    # Rows that do not lie behind each other would be multiplied sequence by sequence, with the
    # weights copied for each.
    logits = model.get_output_embeddings()(hidden.contiguous())
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
