"""Direct preference optimisation through TRL's trainer (paper section 3.1; Rafailov et al. 2023).

This module adds to the trainer the authors' prompt split, truncation of prompts from the left, and
a resume that restores all weights (:func:`~lfp.finetune.trainer_state.resumable_model`).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune.trainer_state import (
    newest_complete_checkpoint,
    resumable_model,
    run_trainer,
    trainer_callbacks,
)
from lfp.models.loading import load_model
from lfp.models.losses import log_probabilities
from lfp.models.tokens import pad_batch, tokenize
from lfp.reporting import tensorboard
from lfp.settings import DPO
from lfp.texts.corpora import preference_pairs

log = logging.getLogger(__name__)


def preference_dataset(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_prompt_length: int
):
    """A ``datasets.Dataset`` of (prompt, chosen, rejected), and the number of dropped pairs.

    Prompts are cut from the left.
    """
    from datasets import Dataset

    pairs, dropped = preference_pairs(frame)
    if dropped and pairs.empty:
        raise ValueError(
            "no preference pair has a prompt that both answers share; check the corpus' columns"
        )
    prompts = []
    for ids, prompt in zip(
        tokenize(tokenizer, pairs["prompt"])["input_ids"], pairs["prompt"], strict=True
    ):
        cut = ids[-max_prompt_length:]
        prompts.append(
            prompt if len(cut) == len(ids) else tokenizer.decode(cut, skip_special_tokens=True)
        )
    return Dataset.from_pandas(pairs.assign(prompt=prompts), preserve_index=False), dropped


def train(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    held_out: pd.DataFrame,
    settings: DPO,
    seed: int,
    state_dir: str | Path,
    device: str = "cpu",
) -> tuple[PreTrainedModel, list[dict[str, float]], int]:
    """Fine-tune the checkpoint at `base` by DPO.

    Training resumes from the newest complete checkpoint. Without pairs the policy is the base and
    the curve is empty.

    Parameters
    ----------
    base, tokenizer
        Directory of the base model, and its tokenizer.
    pairs, held_out
        Training and held-out pairs, as :func:`lfp.texts.corpora.preference_pairs` takes them.
    settings
        Optimisation, lengths in tokens, and the coefficient ``beta`` (paper section 3.1).
    seed
        Seed of adapters, of the order of pairs, and of the trainer.
    state_dir, device
        Folder of the trainer's checkpoints, and the device of the training.

    Returns
    -------
    tuple
        The policy, the training curve (:func:`training_curve`), and the number of dropped pairs.
    """
    from trl import DPOTrainer

    train_set, dropped = preference_dataset(pairs, tokenizer, settings.max_prompt_length)
    eval_set, _ = preference_dataset(
        held_out.head(settings.evaluation_pairs), tokenizer, settings.max_prompt_length
    )
    if not len(train_set):
        log.warning("the corpus is empty: the policy stays the base")
        return load_model(base, device), [], dropped
    checkpoint = newest_complete_checkpoint(state_dir)
    torch.manual_seed(seed)  # adapters are drawn before the trainer seeds itself
    policy, peft_config = resumable_model(base, checkpoint, settings.lora, device)
    # With adapters the trainer takes the policy without them as the reference.
    reference = None if settings.lora else load_model(base, device)
    config = _configuration(settings, len(eval_set) > 0, seed, state_dir, device)
    trainer = DPOTrainer(
        model=policy, ref_model=reference, args=config, train_dataset=train_set,
        eval_dataset=eval_set if len(eval_set) else None, processing_class=tokenizer,
        peft_config=peft_config, callbacks=trainer_callbacks("DPO"),
    )  # fmt: skip
    log.info("DPO on %d pairs (%d dropped), resuming from %s", len(train_set), dropped, checkpoint)
    model = run_trainer(trainer, checkpoint, settings.lora)
    return model, training_curve(trainer.state.log_history), dropped


def _configuration(
    settings: DPO, evaluated: bool, seed: int, state_dir: str | Path, device: str
) -> Any:
    """The trainer's configuration; `evaluated` says whether there are held-out pairs."""
    from trl import DPOConfig

    return DPOConfig(
        output_dir=str(state_dir), max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        # The trainer holds all logits of a batch: no more in evaluation than in training.
        per_device_eval_batch_size=settings.batch_size, learning_rate=settings.learning_rate,
        lr_scheduler_type="linear", warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_grad_norm=settings.max_grad_norm, optim="adamw_torch_fused", adam_epsilon=1e-8,
        beta=settings.beta, max_length=settings.max_length, bf16=settings.precision == "bfloat16",
        fp16=False, disable_dropout=True, gradient_checkpointing=settings.gradient_checkpointing,
        eval_strategy="steps" if evaluated else "no", eval_steps=settings.evaluate_every,
        logging_steps=max(1, settings.evaluate_every // 2), save_strategy="steps",
        save_steps=settings.save_every, save_total_limit=2, seed=seed, data_seed=seed,
        report_to=tensorboard.report_to(), logging_nan_inf_filter=False,
        disable_tqdm=not sys.stderr.isatty(), use_cpu=device == "cpu",
        dataloader_pin_memory=device != "cpu",
    )  # fmt: skip


def training_curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """One row per logged step.

    It has the training loss and, where evaluated, the held-out loss, accuracy and margin.
    """
    names = {
        "loss": "loss",
        "eval_loss": "held_out_loss",
        "eval_rewards/accuracies": "held_out_accuracy",
        "eval_rewards/margins": "held_out_margin",
    }
    rows: dict[int, dict[str, float]] = {}
    for entry in history:
        values = {ours: float(entry[theirs]) for theirs, ours in names.items() if theirs in entry}
        if values:
            rows.setdefault(int(entry["step"]), {"step": int(entry["step"])}).update(values)
    return [rows[step] for step in sorted(rows)]


@torch.no_grad()
def answer_log_probs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    answers: list[str],
    max_length: int,
    max_prompt_length: int,
) -> np.ndarray:
    """Summed log-probability (nats) of every answer after its prompt.

    An answer ends with its end-of-text token. As in training, prompts are cut from the left, and
    sequences that are longer than `max_length` from the right.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    prompts, answers
        Texts [pair].
    max_length, max_prompt_length
        Largest number of tokens of prompt and answer together, and of the prompt.

    Returns
    -------
    numpy.ndarray
        Log-probabilities [pair].
    """
    result = [np.zeros(0)]
    for start in range(0, len(prompts), 32):
        prefix = [
            tokenizer(text)["input_ids"][-max_prompt_length:]
            for text in prompts[start : start + 32]
        ]
        suffix = [
            [*tokenizer(text, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
            for text in answers[start : start + 32]
        ]
        sequences = [(p + s)[:max_length] for p, s in zip(prefix, suffix, strict=True)]
        batch = pad_batch(sequences, tokenizer.pad_token_id, model.device)
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]
        chosen = log_probabilities(model, hidden, batch["input_ids"][:, 1:])
        index = torch.arange(chosen.shape[1], device=chosen.device)
        starts = torch.tensor([len(p) - 1 for p in prefix], device=chosen.device)
        mask = (index >= starts[:, None]) & batch["attention_mask"][:, 1:].bool()
        result.append((chosen * mask).sum(1).double().cpu().numpy())
    return np.concatenate(result)


def implicit_margins(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: pd.DataFrame,
    settings: DPO,
) -> np.ndarray:
    """Implicit reward margins of held-out pairs (Rafailov et al. 2023).

    A margin is beta * [log-ratio(chosen) - log-ratio(rejected)], of the policy to the base.

    Parameters
    ----------
    policy, base, tokenizer
        The two models and their tokenizer.
    held_out
        Pairs as :func:`lfp.texts.corpora.preference_pairs` takes them; there may be none.
    settings
        The ``beta``, ``max_length``, ``max_prompt_length`` and ``evaluation_pairs`` are used.

    Returns
    -------
    numpy.ndarray
        Margins [pair] of the first ``evaluation_pairs`` pairs.
    """
    pairs, _ = preference_pairs(held_out)
    pairs = pairs.head(settings.evaluation_pairs)
    margin = np.zeros(len(pairs))
    prompts = list(pairs["prompt"])
    for side, sign in (("chosen", 1.0), ("rejected", -1.0)):
        for model, weight in ((policy, 1.0), (base, -1.0)):
            answers = list(pairs[side])
            scores = answer_log_probs(
                model, tokenizer, prompts, answers, settings.max_length, settings.max_prompt_length
            )
            margin += sign * weight * scores
    return settings.beta * margin


def summary(margins: np.ndarray) -> dict[str, float | None]:
    """Share of positive `margins` and their mean; None where there is no pair.

    Their intervals are made in the table ``fine_tuning``.
    """
    if not len(margins):
        return {"accuracy": None, "margin": None}
    return {"accuracy": float((margins > 0).mean()), "margin": float(margins.mean())}


def headline(means: Mapping[str, float | None], pairs: int) -> str:
    """The accuracy of :func:`summary` on so many held-out pairs, in one line."""
    if means["accuracy"] is None:
        return "not evaluated: no held-out pairs"
    return f"held-out accuracy {means['accuracy']:.3f} of {pairs} pairs"
