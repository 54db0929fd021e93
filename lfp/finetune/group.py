"""RLOO and GRPO through TRL's trainers (Ahmadian et al. 2024; Shao et al. 2024).

Reward, prompts and evaluation are those of PPO. Both need no value head, and others maintain them.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.feedback.written import counted
from lfp.finetune.prompts import sample_prompts
from lfp.finetune.trainer_state import (
    all_counts,
    checkpoint_to_resume,
    restored_counts,
    resumable_model,
    run_trainer,
    trainer_callbacks,
)
from lfp.models import limits
from lfp.models.generation import decode_responses
from lfp.models.loading import load_model, pure_sampling
from lfp.models.tokens import position_ids
from lfp.reporting import tensorboard
from lfp.settings import PPO, Group

log = logging.getLogger(__name__)


def train(
    method: str,
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    reward: Reward,
    settings: PPO,
    group: Group,
    seed: int,
    state_dir: str | Path,
    device: str = "cpu",
    written: Counter[str] | None = None,
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Fine-tune the checkpoint at `base`; returns the policy and its training curve.

    A step is an update on `settings.batch_size` completions of ``batch_size / num_generations``
    prompts, prefixes of random training texts as in PPO; completions have up to the largest
    configured number of tokens. Training resumes from the newest complete checkpoint. Where there
    is no text to prompt with, the policy is the base and the curve is empty.

    Parameters
    ----------
    method, base, tokenizer
        ``rloo`` or ``grpo``, directory of the base model, and its tokenizer.
    texts, reward
        Training texts, from which prompts are cut, and the score of completions.
    settings, group
        The settings of PPO, and those of the method beside them.
    seed
        Seed of adapters, prompts and the trainer.
    state_dir, device, written
        Folder of the trainer's checkpoints, the device of the training, and what receives the
        number of times that all processes wrote each word in training.
    """
    from datasets import Dataset

    if not texts:
        log.warning("the corpus is empty: the policy stays the base")
        return load_model(base, device), []
    config_class, trainer_class = _classes(method)
    config = _configuration(config_class, settings, group, seed, state_dir, device)
    # Prompts for all steps of all processes: the trainer would shuffle a second round of them, and
    # one that goes on in that round would shuffle as in the first.
    size = settings.steps * settings.batch_size // group.num_generations * config.world_size
    rng = np.random.default_rng(seed)
    prompts = sample_prompts(tokenizer, texts, size, settings.prompt_tokens, rng)
    data = Dataset.from_dict({"prompt": prompts})
    checkpoint = checkpoint_to_resume(config)
    torch.manual_seed(seed)  # adapters are drawn before the trainer seeds itself
    policy, peft_config = resumable_model(base, checkpoint, settings.lora, device)
    policy.generation_config = pure_sampling(tokenizer)
    limits.check_length(policy.config, settings.prompt_tokens[1] + settings.new_tokens[1])
    words, scored = counted(reward, None, restored_counts(checkpoint, config))
    trainer = trainer_class(
        model=policy, reward_funcs=_scored(scored, tokenizer), args=config,
        train_dataset=data, processing_class=tokenizer, peft_config=peft_config,
        callbacks=trainer_callbacks(method.upper(), words),
    )  # fmt: skip
    _count_positions(policy, trainer.ref_model)
    log.info("%s on %d prompts, from %s", method.upper(), len(data), checkpoint or "the base")
    model = run_trainer(trainer, checkpoint, settings.lora)
    if written is not None:
        written.update(all_counts(words))
    return model, training_curve(trainer.state.log_history)


def _count_positions(*models: nn.Module | None) -> None:
    """Have `models` count the positions of every text from its first token that is no padding.

    Sampling does. The trainers pad prompts on the left and give a pass that scores completions no
    positions, so that GPT-2 and GPT-Neo would score them at others than they were written at.
    """

    def begin(module: nn.Module, inputs: tuple, named: dict[str, Any]) -> tuple | None:
        mask, cache = named.get("attention_mask"), named.get("past_key_values")
        if mask is None or cache is not None or named.get("position_ids") is not None:
            return None
        return inputs, named | {"position_ids": position_ids(mask)}

    for model in filter(None, models):
        model.register_forward_pre_hook(begin, with_kwargs=True)


def _scored(reward: Reward, tokenizer: PreTrainedTokenizerBase) -> Callable[..., list[float]]:
    """The `reward` as TRL's trainers call it, of the texts of token ids."""

    def scored(
        prompts: list[list[int]], completion_ids: list[list[int]], **_: object
    ) -> list[float]:
        prefixes, completions = decode_responses(tokenizer, prompts, completion_ids)
        return reward(prefixes, completions).tolist()

    return scored


def _classes(method: str) -> tuple[type, type]:
    """TRL's class of the configuration, and its trainer for prompts that are token ids."""
    import trl

    config, trainer = {
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
    }[method]

    class TrainerOnTokens(trainer):
        def _tokenize_prompts(self, prompts: list[list[int]]) -> tuple[Any, None, dict[str, Any]]:
            return prompts, None, {}

    return config, TrainerOnTokens


def _configuration(
    kind: type, settings: PPO, group: Group, seed: int, state_dir: str | Path, device: str
) -> Any:
    """The trainer's configuration, of the class `kind`.

    A checkpoint has no completions, so that none is written before the last update on a batch.
    """
    every = -(-settings.save_every // group.num_iterations) * group.num_iterations
    return kind(
        output_dir=str(state_dir), max_steps=settings.steps, learning_rate=settings.learning_rate,
        per_device_train_batch_size=settings.batch_size // settings.gradient_accumulation_steps,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        lr_scheduler_type="linear", warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay, max_grad_norm=settings.max_grad_norm,
        optim="adamw_torch_fused", num_generations=group.num_generations, beta=group.beta,
        num_iterations=group.num_iterations, epsilon=group.epsilon,
        max_completion_length=settings.new_tokens[1], temperature=1.0, top_p=1.0, top_k=0,
        disable_dropout=True, bf16=settings.precision == "bfloat16", fp16=False,
        gradient_checkpointing=settings.gradient_checkpointing, save_strategy="steps",
        save_steps=every, save_total_limit=2, logging_steps=1, seed=seed,
        data_seed=seed, report_to=tensorboard.report_to(), logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(), use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )  # fmt: skip


def training_curve(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One row per step: mean reward, KL (nats per token), and entropy where it is logged."""
    names = {"reward": "reward", "kl": "kl", "entropy": "entropy"}
    rows = [
        {
            "step": int(entry["step"]) - 1,
            **{ours: float(entry[t]) for t, ours in names.items() if t in entry},
        }
        for entry in history
        if "reward" in entry
    ]
    return sorted(rows, key=lambda row: row["step"])
