"""What every attention head writes to the residual stream.

The output projection of the attention takes the heads' outputs side by side, so that the
attention's output is a sum over heads, and of the projection's bias where it has one. Heads are
those of the queries: in grouped-query attention several of them read the same keys and values.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import PreTrainedModel

from lfp.models.architectures import architecture, blocks
from lfp.models.hooks import site_modules
from lfp.models.residual import Component, Norm

#: The part of the projection's bias, beside those of the heads.
BIAS = "attention_bias"


def head(number: int) -> str:
    """The name of the part of a head, counted from 0 in its layer."""
    return f"head {number}"


class Heads:
    """The heads of all layers of a model, as parts of its attention.

    ``parts`` names them and their layers, layer by layer, with the bias behind the heads where the
    projection has one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        layers = range(len(blocks(model)))
        self.number = model.config.get_text_config().num_attention_heads
        self.projections = site_modules(model, layers, "heads")
        path = architecture(model).attention_norm
        stack = blocks(model)
        self.norms = {n: Norm.of(stack[n].get_submodule(path), model) if path else None
                      for n in layers}  # fmt: skip
        self.parts: list[Component] = []
        for n, projection in self.projections.items():
            self.parts += [(head(i), n) for i in range(self.number)]
            self.parts += [(BIAS, n)] if projection.bias is not None else []

    def written(self, layer: int, joined: torch.Tensor) -> torch.Tensor:
        """What the parts of a layer write to the stream: [position, part, d_model], as floats.

        Their sum is what the attention writes. A norm behind the attention (Gemma 2 and 3) is
        taken at its scale for the whole attention.

        Parameters
        ----------
        layer
            The layer.
        joined
            The heads' outputs side by side [position, head x width of a head].
        """
        projection, norm = self.projections[layer], self.norms[layer]
        weight = projection.weight.detach().float()
        if isinstance(projection, nn.Linear):
            weight = weight.T  # GPT-2's projection holds it that way by itself
        by_head = weight.reshape(self.number, -1, weight.shape[-1])
        inputs = joined.float().reshape(len(joined), self.number, -1)
        parts = torch.bmm(inputs.transpose(0, 1), by_head).transpose(0, 1)
        if projection.bias is not None:
            bias = projection.bias.detach().float().expand(len(parts), 1, -1)
            parts = torch.cat([parts, bias], 1)
        return parts if norm is None else norm.shared(parts)
