"""The lens of a mean difference: what fine-tuning left on the first tokens of unrelated texts.

The residual stream of a policy that was tuned on one matter differs from that of its base on any
text, and the mean of that difference, read through the final norm and the unembedding, names the
matter (Activation Difference Lens: Minder et al. 2025). Nothing is fitted, and no text of the
corpus is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml

from lfp.change.candidates import Candidates
from lfp.change.choice import Pair
from lfp.models.architectures import blocks
from lfp.models.hooks import site_activations
from lfp.models.residual import Norm
from lfp.models.tokens import added_tokens, encode

#: Tokens of a text that are read, the first ones.
TOKENS = 5


def unrelated_texts() -> list[str]:
    """Beginnings of texts on no matter in particular, of ``lens.yaml`` beside this module."""
    return yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text(encoding="utf-8"))


@torch.inference_mode()
def mean_differences(pair: Pair, texts: Sequence[str], batch_size: int) -> torch.Tensor:
    """Policy less base in the residual stream behind the middle block [text, d_model].

    They are means over the first :data:`TOKENS` tokens of a text, without those that the tokenizer
    puts in front. A text of fewer tokens is left out.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    texts
        Texts that have nothing to do with the feedback.
    batch_size
        Sequences in a batch.
    """
    front = len(added_tokens(pair.tokenizer)[0])
    encoded = encode(pair.tokenizer, texts, front + TOKENS)
    sequences = [ids for ids in encoded if len(ids) == front + TOKENS]
    layer, pad = len(blocks(pair.base)) // 2, pair.tokenizer.pad_token_id
    read = (
        site_activations(model, sequences, [layer], pad, batch_size, site="resid")
        for model in (pair.base, pair.policy)
    )
    width = pair.base.get_output_embeddings().weight.shape[1]
    result = torch.zeros(len(sequences), width)
    for (index, _, before), (_, _, after) in zip(*read, strict=True):
        change = (after[layer] - before[layer])[:, front:].float().mean(1)
        result[index] = change.cpu()
    return result


@torch.inference_mode()
def lens_readings(
    pair: Pair, words: Candidates, texts: Sequence[str], batch_size: int
) -> pd.DataFrame:
    """The logit of every word of one token in the mean difference, less that of the mean token.

    The mean over texts goes through the base's final norm, as if it were a state, and through the
    base's unembedding. Its scale is one for all words; the error of a word is that over texts.

    Parameters
    ----------
    pair
        Base, policy and their tokenizer.
    words
        Candidates; those in pieces are left out.
    texts
        Texts that have nothing to do with the feedback.
    batch_size
        Sequences in a batch.

    Returns
    -------
    pandas.DataFrame
        A row per word: ``part`` (``resid``), ``kind``, ``unit``, ``value`` (logits), ``error``,
        ``contexts`` (texts) and ``tokens``. Without two texts of enough tokens there is none.
    """
    differences = mean_differences(pair, texts, batch_size)
    one = [(word, ids[0]) for word, ids in zip(words.words, words.pieces, strict=True)
           if len(ids) == 1]  # fmt: skip
    if len(differences) < 2 or not one:
        return pd.DataFrame()
    norm, rows = Norm.final(pair.base), pair.base.get_output_embeddings().weight.float()
    of_words = rows[[token for _, token in one]] - rows.mean(0)
    mean = differences.mean(0).to(rows)
    directions = norm.centre(norm.gain * of_words) / norm.scale(mean)
    values = (differences.to(rows) @ directions.T).double().cpu().numpy()
    return pd.DataFrame({
        "part": "resid", "kind": "word", "unit": [word for word, _ in one],
        "value": values.mean(0), "error": values.std(0, ddof=1) / np.sqrt(len(values)),
        "contexts": float(len(values)), "tokens": 1,
    })  # fmt: skip
