"""Paths of the blocks and of their parts in language models of every supported family.

No library of science is imported here: pages read checkpoints by these paths without one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Architecture:
    """Paths of the blocks and of the final norm of a family, and of modules inside a block.

    The output of ``mlp`` is the MLP's, and ``attention_output`` is the projection whose input are
    the heads' outputs side by side and whose output is the attention's; ``block`` is the block
    itself. ``attention_norm`` and ``mlp_norm`` are the norms between those outputs and the residual
    stream, in families that have them. Norms multiply by their weight plus ``gain_offset``.
    """

    blocks: str
    final_norm: str
    attention_output: str
    mlp: str = "mlp"
    block: str = ""
    attention_norm: str = ""
    mlp_norm: str = ""
    gain_offset: float = 0.0


#: Parts of a module's name by which it is a norm.
_IS_NORM = ("norm", "ln_")

_LLAMA = Architecture("model.layers", "model.norm", "self_attn.o_proj")
_NORMS = {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"}
_GEMMA = replace(_LLAMA, gain_offset=1.0)
_GEMMA_2 = replace(_GEMMA, **_NORMS)


#: Module paths by ``model_type``. OPT has no MLP module: its second projection ends the MLP
#: (dropout is off).
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.final_layer_norm", "attention.dense"),
    "gpt_neo": Architecture("transformer.h", "transformer.ln_f", "attn.attention.out_proj"),
    "gpt2": Architecture("transformer.h", "transformer.ln_f", "attn.c_proj"),
    "opt": Architecture(
        "model.decoder.layers", "model.decoder.final_layer_norm", "self_attn.out_proj", "fc2"
    ),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3"), _LLAMA),
    "gemma": _GEMMA,
    **dict.fromkeys(("gemma2", "gemma3_text"), _GEMMA_2),
    # Gemma 3 from 4b upwards is a vision model around the same text model.
    "gemma3": replace(
        _GEMMA_2, blocks="model.language_model.layers", final_norm="model.language_model.norm"
    ),
}


def of_family(family: str) -> Architecture:
    """The module paths of a `family`, the ``model_type``; ValueError where it is not supported."""
    if family not in ARCHITECTURES:
        raise ValueError(
            f"model type {family!r} is not supported; expected one of {', '.join(ARCHITECTURES)}"
        )
    return ARCHITECTURES[family]


def architecture(model: PreTrainedModel) -> Architecture:
    """The module paths of `model`'s family.

    Raises ValueError for a family that is not supported, or for an OPT without a final norm (its
    350m).
    """
    family = model.config.model_type
    paths = of_family(family)
    if family == "opt" and not model.config.do_layer_norm_before:
        raise ValueError(
            "OPT with layer norms after its blocks (opt-350m) is not supported; take another size"
        )
    return paths


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks of a causal language model, first to last."""
    return model.get_submodule(architecture(model).blocks)


def width(model: PreTrainedModel) -> int:
    """d_model of a causal language model."""
    return model.config.get_text_config().hidden_size


def output_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocab] of final hidden states [..., d_model].

    They are soft-capped where the family does so (Gemma 2). ValueError for a family that is not
    supported: it may scale its logits.
    """
    architecture(model)
    # Rows that are not contiguous would be multiplied sequence by sequence, with the weights
    # copied for each.
    logits = model.get_output_embeddings()(hidden.contiguous())
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else (logits / cap).tanh() * cap


class Part(NamedTuple):
    """The component of a parameter, and its block; None outside the blocks."""

    component: str
    layer: int | None


def part_of(name: str, blocks: str, final_norm: str, attention: str, output: str) -> Part:
    """The part that the parameter `name` belongs to.

    Inside a block parameters of the attention are its own, those of other norms are ``norms``, and
    the rest is the MLP's. Outside the blocks all but the output embedding and the final norm belong
    to the input.

    Parameters
    ----------
    name
        The parameter's name in the model.
    blocks, final_norm
        Paths of the blocks and of the final norm.
    attention
        Name of the attention's module in a block.
    output
        Path of the output embedding.
    """
    if name.startswith(f"{blocks}."):
        layer, _, inside = name.removeprefix(f"{blocks}.").partition(".")
        module = inside.partition(".")[0]
        if module == attention:
            return Part("attention", int(layer))
        is_norm = any(mark in module for mark in _IS_NORM)
        return Part("norms" if is_norm else "mlp", int(layer))
    if name.startswith(f"{output}."):
        return Part("unembedding", None)
    return Part("norms" if name.startswith(f"{final_norm}.") else "embedding", None)


def parts(model: PreTrainedModel) -> dict[str, Part]:
    """The part of every parameter of `model` by its name.

    A tied output embedding stands once, as the input's.
    """
    paths, head = architecture(model), model.get_output_embeddings()
    output = next(name for name, module in model.named_modules() if module is head)
    attention = paths.attention_output.partition(".")[0]
    tied = model.get_input_embeddings().weight is head.weight
    result = {}
    for name, _ in model.named_parameters():
        part = part_of(name, paths.blocks, paths.final_norm, attention, output)
        if tied and name == f"{output}.weight":
            part = Part("embedding", None)
        result[name] = part
    return result
