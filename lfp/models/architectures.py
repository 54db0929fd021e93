"""Paths of the blocks and of their parts in language models of every supported family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from lfp.models.sites import SITES


@dataclass(frozen=True)
class Architecture:
    """Paths of the blocks and of the final norm of a family, and of modules inside a block.

    The output of ``mlp`` is the MLP's, and ``attention_output`` is the projection whose input are
    the heads' outputs side by side and whose output is the attention's; ``block`` is the block
    itself.
    """

    blocks: str
    final_norm: str
    attention_output: str
    mlp: str = "mlp"
    block: str = ""


_LLAMA = Architecture("model.layers", "model.norm", "self_attn.o_proj")


#: Module paths by ``model_type``. OPT has no MLP module: its second projection ends the MLP
#: (dropout is off).
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention.dense"),
    "gpt_neo": Architecture("transformer.h", "transformer.ln_f", "attn.attention.out_proj"),
    "gpt2": Architecture("transformer.h", "transformer.ln_f", "attn.c_proj"),
    "opt": Architecture(
        "model.decoder.layers", "model.decoder.final_layer_norm", "self_attn.out_proj", "fc2"
    ),
    **dict.fromkeys(
        ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA
    ),
    # Gemma 3 from 4b upwards is a vision model around the same text model.
    "gemma3": Architecture(
        "model.language_model.layers", "model.language_model.norm", "self_attn.o_proj"
    ),
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


def site_modules(
    model: PreTrainedModel, layers: Iterable[int], site: str = "mlp"
) -> dict[int, nn.Module]:
    """The module of a `site` (:data:`lfp.models.sites.SITES`) in each of `layers`."""
    stack = blocks(model)
    name = getattr(architecture(model), SITES[site].module)
    return {layer: stack[layer].get_submodule(name) for layer in layers}


def hook_name(model: PreTrainedModel, layer: int, site: str = "mlp") -> str:
    """Dotted path of the module that a layer's `site` is a side of."""
    family = architecture(model)
    return f"{family.blocks}.{layer}.{getattr(family, SITES[site].module)}".rstrip(".")


def site_width(model: PreTrainedModel, site: str = "mlp") -> int:
    """Width of a `site`: d_model, or that of all heads together."""
    config = model.config.get_text_config()
    if (SITES[site].module, SITES[site].side) != ("attention_output", "input"):
        return config.hidden_size
    heads = config.num_attention_heads
    return heads * (getattr(config, "head_dim", None) or config.hidden_size // heads)


def width(model: PreTrainedModel) -> int:
    """d_model of a causal language model."""
    return model.config.get_text_config().hidden_size


def output_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocab] of final hidden states [..., d_model].

    They are soft-capped where the family does so (Gemma 2).
    """
    # Rows that are not contiguous would be multiplied sequence by sequence, with the weights
    # copied for each.
    logits = model.get_output_embeddings()(hidden.contiguous())
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap
