"""DPO on pairs of the base's own completions, of which a reward prefers one.

The trainer and its configuration are those of DPO on preference pairs. Pairs are the tokens that
were sampled: as texts they would be encoded anew, half a character would be another one, and every
completion would get an end that the base did not write.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune import dpo
from lfp.settings import DPO


def train(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    ranked: pd.DataFrame,
    settings: DPO,
    seed: int,
    state_dir: str | Path,
    device: str = "cpu",
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Fine-tune the checkpoint at `base` by DPO; returns the policy and its training curve.

    Training resumes from the newest complete checkpoint. Without pairs the policy is the base and
    the curve is empty.

    Parameters
    ----------
    base, tokenizer
        Directory of the base model, and its tokenizer.
    ranked
        Pairs, as :func:`lfp.finetune.ranked.completions.told_apart` gives them.
    settings
        Optimisation and the coefficient ``beta``.
    seed
        Seed of adapters, of the order of pairs, and of the trainer.
    state_dir, device
        Folder of the trainer's checkpoints, and the device of the training.
    """
    from datasets import Dataset

    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    data = Dataset.from_list(ranked[columns].to_dict("records"))
    none = Dataset.from_list([])
    return dpo.train_on_tokens(base, tokenizer, data, none, settings, seed, state_dir, device)
