"""The other model beside the one that is changed: what a site of it holds at the same tokens.

Feedback changed a latent by what the policy's value differs from the base's at the same token; a
mean over a corpus is another thing. So the other model reads every token that the changed one reads
or writes, in the same batches, and keeps its own keys and values while text is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel

from lfp.interventions.completions import RowEdit
from lfp.interventions.vocabulary import setting_edit
from lfp.models.architectures import architecture
from lfp.models.hooks import captured
from lfp.sae.architectures.base import SparseAutoencoder


class Beside:
    """The `other` model, which reads what `model` reads.

    It reads when its activations are asked for, and not otherwise: an edit that asks for them must
    do so at every token of a text that is written.

    Parameters
    ----------
    model, other
        Models of one architecture.
    layers
        Layers whose activations are asked for.
    site
        The part of these layers.
    """

    def __init__(
        self, model: PreTrainedModel, other: PreTrainedModel, layers: Sequence[int], site: str
    ) -> None:
        self.model, self.other, self.layers, self.site = model, other, tuple(layers), site
        self.holder = architecture(model).blocks.rpartition(".")[0]
        self._reader = self.holder
        self._arguments: dict[str, Any] = {}
        self._cache: DynamicCache | None = None
        self._read: dict[int, torch.Tensor] = {}

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Within the block, the other model can be asked at every pass of the changed one."""

        def begin(place: str, module: nn.Module, inputs: tuple, named: dict[str, Any]) -> None:
            named = named | ({"input_ids": inputs[0]} if inputs else {})
            if named.get("input_ids") is None:  # the module around it has embedded the tokens
                return
            self._reader, self._arguments, self._read = place, named, {}
            kept = named.get("past_key_values")
            if kept is None:
                self._cache = None
            elif kept.get_seq_length() == 0:
                self._cache = DynamicCache(config=self.other.config)

        # OPT's head calls the module that holds the blocks, and that of Gemma 3 with images the one
        # around it; tokens come to one of the two alone.
        places = {self.model.base_model_prefix, self.holder}
        handles = [
            self.model.get_submodule(place).register_forward_pre_hook(
                partial(begin, place), with_kwargs=True
            )
            for place in places
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            self._arguments, self._read, self._cache = {}, {}, None

    @torch.no_grad()
    def activations(self, layer: int) -> torch.Tensor:
        """Activations [row, token, width] of a layer of the other model in the current pass."""
        if not self._arguments:
            raise RuntimeError("the other model is asked outside of `reading`; enter it first")
        if not self._read:
            asked = self._arguments | {"past_key_values": self._cache}
            with captured(self.other, self.layers, site=self.site) as outputs:
                self.other.get_submodule(self._reader)(**asked)
            shape = self._arguments["input_ids"].shape
            # OPT flattens batch and tokens in front of its MLP.
            self._read = {n: values.reshape(*shape, -1) for n, values in outputs.items()}
        return self._read[layer]


class Swapped(RowEdit):
    """An edit that puts the other model's activations at the same token in the place of a layer's.

    Parameters
    ----------
    beside
        The other model.
    layer
        The layer that is changed.
    """

    def __init__(self, beside: Beside, layer: int) -> None:
        self.beside, self.layer = beside, layer

    def of_rows(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """The other model's activations in the place of those of some rows, `x`."""
        theirs = self.beside.activations(self.layer)
        if x.ndim == 2:  # OPT has flattened rows and tokens
            theirs = theirs.flatten(0, 1)
        return theirs[first : first + len(x)].to(x.dtype)


class Patched(Swapped):
    """An edit that gives some latents the values that the other model's have at the same token.

    Parameters
    ----------
    beside
        The other model.
    layer
        The layer that is changed.
    sae
        The autoencoder of the layer, which reads both models.
    features
        Numbers of the latents.
    """

    def __init__(
        self, beside: Beside, layer: int, sae: SparseAutoencoder, features: Sequence[int]
    ) -> None:
        super().__init__(beside, layer)
        self.sae = sae
        self.index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)

    def of_rows(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """The activations `x` of some rows, with the other model's latents."""
        values = self.sae.latents(super().of_rows(x, first).float(), self.index)
        return setting_edit(self.sae, self.index, lambda latents: values)(x)
