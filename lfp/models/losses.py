"""Cross-entropy of texts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional as F
from transformers import PreTrainedModel

from lfp.models.tokens import length_batches, pad_batch


@torch.no_grad()
def text_losses(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of every sequence of a model as it is, or as it is edited around the call.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.

    Returns
    -------
    tuple
        Summed next-token cross-entropy (nats) and number of predicted tokens [sequence].
    """
    nats, counts = np.zeros(len(sequences)), np.zeros(len(sequences), dtype=np.int64)
    for index in length_batches([len(sequence) for sequence in sequences], batch_size):
        batch = pad_batch([sequences[i] for i in index], pad, model.device)
        logits = model(**batch, use_cache=False).logits[:, :-1].float()
        mask = batch["attention_mask"][:, 1:]
        losses = F.cross_entropy(
            logits.flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="none"
        )
        nats[index] = (losses.view(mask.shape) * mask).sum(1).double().cpu().numpy()
        counts[index] = mask.sum(1).cpu().numpy()
    return nats, counts
