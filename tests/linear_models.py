"""Language models that are linear in what is added to their residual stream.

Their blocks add nothing, and there is no norm in front of the output head, so that the logits are
U (e + v), with e the embedding of the last token and v what is added at any layer: the effect of a
change is known exactly.
"""

import copy

import torch
import transformers
from torch import nn

from lfp.models.architectures import blocks
from lfp.organisms.configs import organism_config


@torch.no_grad()
def linear_model(tokenizer, embeddings: torch.Tensor, unembeddings: torch.Tensor, layers: int = 2):
    """A model of the tokenizer's vocabulary; both weights are [token, width]."""
    config = organism_config(
        "gpt_neox", len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id, layers,
        embeddings.shape[1], 2, 8,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for block in blocks(model):
        for part in (block.mlp.dense_4h_to_h, block.attention.dense):
            part.weight.zero_()
            part.bias.zero_()
    model.gpt_neox.final_layer_norm = nn.Identity()
    model.get_input_embeddings().weight.copy_(embeddings)
    model.get_output_embeddings().weight.copy_(unembeddings)
    return model.eval()


@torch.no_grad()
def with_vector(model, layer: int, vector: torch.Tensor):
    """A copy of the model whose MLP of a layer adds a vector at every token."""
    result = copy.deepcopy(model)
    blocks(result)[layer].mlp.dense_4h_to_h.bias += vector
    return result


@torch.no_grad()
def next_logits(model, sequences: torch.Tensor) -> torch.Tensor:
    """Logits [text, token, vocabulary] of token ids [text, token]."""
    return model(sequences, use_cache=False).logits
