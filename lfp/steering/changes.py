"""Changes: what is added to the activations of a site, at a strength that is chosen later.

A vector, the gradient of a classifier and the ablation of a set of latents are all changes, so that
each can be scaled until it costs as much as another one, and gated to some tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch

from lfp.models.hooks import Edit

#: Maps the activations of a site [..., width] to what is added to them at strength 1.
Change = Callable[[torch.Tensor], torch.Tensor]
#: Changes by layer.
Changes = Mapping[int, Change]


def constant(vectors: Mapping[int, torch.Tensor]) -> dict[int, Change]:
    """Changes that are the same vector [width] of a layer at every token."""

    def change(vector: torch.Tensor) -> Change:
        return lambda values: vector.to(values).expand_as(values)

    return {layer: change(vector) for layer, vector in vectors.items()}


def of_edits(edits: Mapping[int, Edit]) -> dict[int, Change]:
    """What `edits` by layer, such as ablations, change, so that they have a strength as well."""

    def change(edit: Edit) -> Change:
        return lambda values: edit(values) - values

    return {layer: change(edit) for layer, edit in edits.items()}


def applied(changes: Changes, strength: float) -> dict[int, Edit]:
    """The edits by layer that add `strength` times the changes."""

    def edit(change: Change) -> Edit:
        return lambda values: values + strength * change(values)

    return {layer: edit(change) for layer, change in changes.items()}


def gated(changes: Changes, gates: Mapping[int, Edit]) -> dict[int, Change]:
    """Changes that are 0 at tokens whose gate is shut.

    Parameters
    ----------
    changes
        Changes by layer.
    gates
        By layer, what maps activations [..., width] to whether each is steered [...].
    """

    def change(before: Change, gate: Edit, values: torch.Tensor) -> torch.Tensor:
        return before(values) * gate(values)[..., None].to(values.dtype)

    return {layer: partial(change, before, gates[layer]) for layer, before in changes.items()}
