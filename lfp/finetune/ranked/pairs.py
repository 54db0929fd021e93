"""DPO on pairs of the base's own completions, of which a reward prefers one.

The trainer and its configuration are those of DPO on preference pairs. Pairs are the tokens that
were sampled: as texts they would be encoded anew, half a character would be another one, and every
completion would get an end that the base did not write.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune import dpo
from lfp.finetune.trainer_state import (
    checkpoint_to_resume,
    resumable_model,
    run_trainer,
    trainer_callbacks,
)
from lfp.models.loading import load_model, pure_sampling
from lfp.settings import DPO

log = logging.getLogger(__name__)


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

    if ranked.empty:
        log.warning("the corpus is empty: the policy stays the base")
        return load_model(base, device), []
    columns = ["prompt_ids", "chosen_ids", "rejected_ids"]
    data = Dataset.from_list(ranked[columns].to_dict("records"))
    config = dpo._configuration(settings, False, seed, state_dir, device)
    checkpoint = checkpoint_to_resume(config)
    torch.manual_seed(seed)  # adapters are drawn before the trainer seeds itself
    policy, peft_config = resumable_model(base, checkpoint, settings.lora, device)
    policy.generation_config = pure_sampling(tokenizer)
    trainer = dpo._trainer_on_tokens()(
        model=policy, ref_model=None if settings.lora else load_model(base, device), args=config,
        train_dataset=data, processing_class=tokenizer, peft_config=peft_config,
        callbacks=trainer_callbacks("DPO on ranked pairs"),
    )  # fmt: skip
    log.info("DPO on %d ranked pairs, resuming from %s", len(data), checkpoint)
    model = run_trainer(trainer, checkpoint, settings.lora)
    return model, dpo.training_curve(trainer.state.log_history)
