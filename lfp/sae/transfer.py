"""Whether a dictionary of one model serves another: its error and sparsity on base and policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel

from lfp.models.hooks import site_activations
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.sae.harvest import behind


@torch.no_grad()
def by_text(
    model: PreTrainedModel,
    autoencoders: Mapping[int, Sequence[SparseAutoencoder]],
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
    fronts: Sequence[int],
) -> pd.DataFrame:
    """Sums over every text's tokens, from which FVU and L0 of any set of texts follow.

    FVU is the sum of ``error`` over that of ``variance``, and L0 that of ``active`` over that of
    ``tokens``. The variance is about the mean of all the model's activations in the layer that
    count; outliers and the fronts of texts do not.

    Parameters
    ----------
    model
        The model whose activations are read.
    autoencoders
        Those of each layer, all of one site.
    sequences
        Token ids of texts.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.
    fronts
        Number of tokens in front of each sequence that are left out.

    Returns
    -------
    Columns ``layer``, ``place`` (of the autoencoder among its layer's), ``text``, ``tokens``,
    ``active``, ``error`` and ``variance``.
    """
    every = [sae for group in autoencoders.values() for sae in group]
    site, left = site_of(dict(enumerate(every))), np.array(fronts, int)
    rows, sums = [], {}
    batches = site_activations(model, sequences, sorted(autoencoders), pad, batch_size, site=site)
    for index, mask, outputs in Progress(batches, desc="transfer"):
        ordinary = behind(mask, left[index])
        for layer, group in autoencoders.items():
            for place, sae in enumerate(group):
                for text, x, kept in zip(index, outputs[layer], ordinary, strict=True):
                    x = x[kept].float()
                    x = x[sae.within(x)]
                    code, wide = sae.encode(x), x.double()
                    error = (x - sae.decode(code)).double().pow(2).sum().item()
                    active, label = int((code > 0).sum()), (layer, place, int(text))
                    rows.append((*label, len(x), active, error, wide.pow(2).sum().item()))
                    sums[label] = wide.sum(0).cpu().numpy()
    columns = ["layer", "place", "text", "tokens", "active", "error", "variance"]
    frame = pd.DataFrame(rows, columns=columns)
    for _, group in frame.groupby(["layer", "place"]):
        places = group[columns[:3]].itertuples(index=False, name=None)
        of_texts = np.stack([sums[place] for place in places])
        mean = of_texts.sum(0) / max(1, group["tokens"].sum())
        # |x - mean|^2 summed over a text's tokens.
        about = group["variance"] - 2 * of_texts @ mean + group["tokens"] * (mean @ mean)
        frame.loc[group.index, "variance"] = about.clip(lower=0)
    return frame.sort_values(columns[:3], ignore_index=True)
