"""Fidelity of autoencoders to the activations of two models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.models.hooks import site_activations
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.sae.harvest import behind
from lfp.sae.metrics import CROSS_ENTROPIES, Reconstruction, cross_entropy, recovered
from lfp.sae.pairs.activations import joined_rows

#: What stands for the policy's activations, from the base's and the policy's [..., width].
Change = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def within(sae: SparseAutoencoder, base: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """Whether tokens, of activations [..., width] in each model, are outliers in neither."""
    norms = torch.maximum(base.float().norm(dim=-1), policy.float().norm(dim=-1))
    return ~(norms > sae.largest_norm)


def said_of_policy(
    sae: SparseAutoencoder, base: torch.Tensor, policy: torch.Tensor
) -> torch.Tensor:
    """The policy's activations [..., width] as a dictionary of both models has them.

    It is the policy's half of a pair's reconstruction, or the base's activations with the
    reconstructed difference. Outliers stay as they are.
    """
    one, two = base.float(), policy.float()
    output = sae.decode(sae.encode(joined_rows(one, two, sae.reads)))
    half = one + output if sae.reads == "difference" else output[..., -sae.width :]
    return torch.where(within(sae, base, policy)[..., None], half.to(policy), policy)


def _without(sae: SparseAutoencoder, base: torch.Tensor, policy: torch.Tensor) -> torch.Tensor:
    """The policy's activations without what a dictionary is of: 0, or those of the base."""
    nothing = base.to(policy) if sae.reads == "difference" else torch.zeros_like(policy)
    return torch.where(within(sae, base, policy)[..., None], nothing, policy)


def evaluate_pairs(
    models: tuple[PreTrainedModel, PreTrainedModel],
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    fronts: Sequence[int],
) -> dict[int, list[dict[str, float | None]]]:
    """Fidelity of autoencoders that read a pair or the difference of two models.

    Both models read each batch. Cross-entropies are those of the policy, with what a dictionary
    says of its activations (:func:`said_of_policy`) in their place; ``ce_zero`` has 0 there, or the
    base's activations where the dictionary is of the difference. A token is an outlier where it is
    one in either model.

    Parameters
    ----------
    models
        Base and policy.
    autoencoders
        Those of each layer, all of one site and one setting ``reads``, with the largest norm of
        what is no outlier in one model.
    sequences
        Token ids of held-out texts; without any, all metrics are None.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    fronts
        Number of tokens in front of each sequence that are left out.

    Returns
    -------
    dict
        Metrics of each autoencoder, by layer and in the order given.
    """
    read = {n: [Reconstruction(sae) for sae in group] for n, group in autoencoders.items()}
    site = site_of({n: group[0] for n, group in autoencoders.items()})
    left = np.array(fronts)
    base, policy = (
        site_activations(model, sequences, sorted(autoencoders), pad, batch_size, site=site)
        for model in models
    )
    for (index, mask, before), (_, _, after) in zip(base, policy, strict=True):
        kept = behind(mask, left[index])
        for layer, group in read.items():
            one, two = (values[layer][kept].float() for values in (before, after))
            for reconstruction in group:
                inside = within(reconstruction.sae, one, two)
                reconstruction.left_out += int(mask.sum() - inside.sum())
                reads = reconstruction.sae.reads
                reconstruction.add(joined_rows(one[inside], two[inside], reads))
    if not sequences:
        nothing = dict.fromkeys(CROSS_ENTROPIES) | {"layer_needed": False}
        return {n: [r.metrics() | nothing for r in group] for n, group in read.items()}

    entropies = _entropies(models, autoencoders, sequences, pad, batch_size)
    return {
        n: [one.metrics() | of_one for one, of_one in zip(group, entropies[n], strict=True)]
        for n, group in read.items()
    }


def _entropies(
    models: tuple[PreTrainedModel, PreTrainedModel],
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> dict[int, list[dict[str, float | bool]]]:
    """The policy's cross-entropies by layer and autoencoder, and what follows from them."""
    (base, policy), site = models, site_of({n: group[0] for n, group in autoencoders.items()})

    def loss(layer: int, change: Change) -> float:
        # In the order in which the policy is shown the texts.
        beside = site_activations(base, sequences, [layer], pad, batch_size, site=site)

        def edit(after: torch.Tensor) -> torch.Tensor:
            _, _, outputs = next(beside)
            return change(outputs[layer].reshape(after.shape), after)

        return cross_entropy(policy, sequences, pad, batch_size, {layer: edit}, site)

    clean = cross_entropy(policy, sequences, pad, batch_size, {}, site)
    result = {}
    for layer, group in autoencoders.items():
        zero = loss(layer, partial(_without, group[0]))
        kept = [loss(layer, partial(said_of_policy, sae)) for sae in group]
        result[layer] = [recovered(clean, remaining, zero) for remaining in kept]
    return result
