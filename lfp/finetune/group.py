"""RLOO and GRPO through TRL's trainers, with the reward, prompts and evaluation of PPO (Ahmadian et
al. 2024; Shao et al. 2024): alternatives that need no value head and that others maintain."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback

from lfp.feedback.rewards import Reward
from lfp.finetune import ppo
from lfp.finetune.trainer_state import (
    newest_complete_checkpoint,
    resumable_model,
    trainer_callbacks,
)
from lfp.models.loading import load_model
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
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Fine-tune the checkpoint at `base` by `method` (``rloo`` or ``grpo``); returns the policy and
    its curve.

    A step is an update on `settings.batch_size` completions of ``batch_size / num_generations``
    prompts, prefixes of random training texts as in PPO; completions have up to the largest
    configured number of tokens. `state_dir` holds the trainer's checkpoints; training resumes from
    the newest complete one. Without a text to prompt with the policy is the base and the curve is
    empty.
    """
    import trl
    from datasets import Dataset

    config_class, trainer_class = {
        "rloo": (trl.RLOOConfig, trl.RLOOTrainer),
        "grpo": (trl.GRPOConfig, trl.GRPOTrainer),
    }[method]
    encoded = ppo.encode_documents(tokenizer, texts, settings.prompt_tokens[1])
    if not encoded:
        log.warning("the corpus is empty: the policy stays the base")
        return load_model(base, device), []
    prompts = ppo.sample_prompts(
        encoded,
        settings.steps * settings.batch_size // group.num_generations,
        settings.prompt_tokens,
        np.random.default_rng(seed),
    )
    data = Dataset.from_dict({"prompt": tokenizer.batch_decode(prompts, skip_special_tokens=True)})
    checkpoint = newest_complete_checkpoint(state_dir)
    torch.manual_seed(seed)  # adapters are drawn before the trainer seeds itself
    policy, peft_config = resumable_model(base, checkpoint, settings.lora, device)
    config = config_class(
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
        save_steps=settings.save_every, save_total_limit=2, logging_steps=1, seed=seed,
        data_seed=seed, report_to=tensorboard.report_to(), logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(), use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )  # fmt: skip

    def scored(prompts: list[str], completions: list[str], **_: object) -> list[float]:
        return reward(prompts, completions).tolist()

    trainer = trainer_class(
        model=policy,
        reward_funcs=scored,
        args=config,
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=peft_config,
        callbacks=trainer_callbacks(method.upper()),
    )
    log.info("%s on %d prompts, resuming from %s", method.upper(), len(data), checkpoint)
    trainer.remove_callback(PrinterCallback)  # what it prints is in the curve
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    model = trainer.accelerator.unwrap_model(trainer.model)
    if settings.lora:
        model = model.merge_and_unload()
    return model.eval(), training_curve(trainer.state.log_history)


def training_curve(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """One row per step: mean reward, KL (nats per token), entropy where it is logged."""
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
