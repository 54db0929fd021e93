"""Selectors that rank latents by what they write, or by where they are active."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors.material import Material


def aligned(material: Material) -> FeatureSet:
    """The latents whose directions have the largest absolute cosine with a layer's direction.

    A direction of 0, as of no scored word or of a policy that is its base, has none.
    """
    cosines = {
        layer: F.cosine_similarity(
            sae.W_dec.float(), material.directions[layer].to(sae.W_dec)[None], dim=1
        )
        .abs()
        .detach()
        .cpu()
        .numpy()
        for layer, sae in material.autoencoders.items()
    }
    pairs = zip(material.live["layer"], material.live["feature"], strict=True)
    rank = pd.Series([float(cosines[layer][feature]) for layer, feature in pairs], dtype=float)
    return material.top(rank.where(rank > 0))


def rare_on_neutral_text(material: Material) -> FeatureSet:
    """The latents that are active most often on texts full of feedback, of those rare on others.

    It is the rule of SAE unlearning (Farrell et al. 2024): what is to be retained keeps the latents
    that it needs. Rare are the share ``retain`` of latents that are least active on neutral text,
    where the paper has a frequency of its own dictionaries.
    """
    if material.live.empty:
        return {}
    often = pd.Series(material.frequencies(material.rewarded))
    neutral = pd.Series(material.frequencies(material.neutral))
    rare = neutral <= neutral.quantile(material.asked.retain)
    return material.top(often.where(rare & (often > 0)))


@torch.no_grad()
def valence_direction(
    model: PreTrainedModel, valence: np.ndarray, layers: Sequence[int]
) -> dict[int, torch.Tensor]:
    """The direction by layer in which the output head writes a lexicon's valences.

    It is the mean of the head's rows, weighted by the valence of their tokens, after the mean row
    has been taken off: what all rows share moves no probability. `valence` is [token].
    """
    head = model.get_output_embeddings().weight.float()
    weights = torch.tensor(valence, dtype=torch.float32, device=head.device)
    direction = weights @ (head[: len(weights)] - head.mean(0))
    return dict.fromkeys(layers, direction)
