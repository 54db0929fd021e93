"""Direct preference optimisation through TRL's trainer (paper section 3.1; Rafailov et al. 2023).

This module adds to the trainer the authors' prompt split, the tokens that texts have in every other
stage (:func:`encode_pairs`), and a resume that restores all weights
(:func:`~lfp.finetune.trainer_state.resumable_model`).
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from lfp.finetune.trainer_state import (
    checkpoint_to_resume,
    resumable_model,
    run_trainer,
    trainer_callbacks,
)
from lfp.models import limits
from lfp.models.loading import load_model, pure_sampling
from lfp.models.losses import log_probabilities
from lfp.models.tokens import added_tokens, pad_batch, pieces
from lfp.reporting import tensorboard
from lfp.settings import DPO
from lfp.texts.corpora import check_pairs, dropped_in_words, preference_pairs

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)


def preference_dataset(
    frame: pd.DataFrame, tokenizer: PreTrainedTokenizerBase, max_prompt_length: int
):
    """A ``datasets.Dataset`` of :func:`encode_pairs`, and the dropped rows by reason.

    Raises ValueError where there are rows and none gives a pair.
    """
    from datasets import Dataset

    check_pairs(frame, "DPO")
    pairs, dropped = preference_pairs(frame)
    return Dataset.from_list(encode_pairs(tokenizer, pairs, max_prompt_length)), dropped


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase, pairs: pd.DataFrame, max_prompt_length: int
) -> list[dict[str, list[int]]]:
    """Token ids of every pair: ``prompt_ids``, ``chosen_ids`` and ``rejected_ids``.

    A prompt and its two answers are encoded as two whole texts. The prompt ends where they stop to
    have the tokens of the prompt alone, and is cut from the left to `max_prompt_length` tokens. An
    answer ends with an end-of-text token.
    """
    front, _ = added_tokens(tokenizer)
    room, eos = max(0, max_prompt_length - len(front)), tokenizer.eos_token_id
    texts = [pairs["prompt"], *(pairs["prompt"] + pairs[side] for side in ("chosen", "rejected"))]
    encoded = [[ids for ids, _ in pieces(tokenizer, column)] for column in texts]
    rows = []
    for prompt, chosen, rejected in zip(*encoded, strict=True):
        shared = os.path.commonprefix([prompt, chosen, rejected])
        n = len(shared)
        rows.append({
            "prompt_ids": front + shared[max(0, n - room) :] or [eos],
            "chosen_ids": [*chosen[n:], eos],
            "rejected_ids": [*rejected[n:], eos],
        })  # fmt: skip
    return rows


def train(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: pd.DataFrame,
    held_out: pd.DataFrame,
    settings: DPO,
    seed: int,
    state_dir: str | Path,
    device: str = "cpu",
) -> tuple[PreTrainedModel, list[dict[str, float]], dict[str, int]]:
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
        The policy, the training curve (:func:`training_curve`), and the dropped rows by reason.
    """
    train_set, dropped = preference_dataset(pairs, tokenizer, settings.max_prompt_length)
    eval_set, _ = preference_dataset(
        held_out.head(settings.evaluation_pairs), tokenizer, settings.max_prompt_length
    )
    log.info("rows dropped: %s", dropped_in_words(dropped))
    policy, curve = train_on_tokens(
        base, tokenizer, train_set, eval_set, settings, seed, state_dir, device
    )
    return policy, curve, dropped


def train_on_tokens(
    base: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Dataset,
    held_out: Dataset,
    settings: DPO,
    seed: int,
    state_dir: str | Path,
    device: str = "cpu",
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Fine-tune the checkpoint at `base` by DPO on pairs that are token ids.

    Returns the policy and its training curve. Training resumes from the newest complete
    checkpoint. Without pairs the policy is the base and the curve is empty. Raises ValueError where
    a text is too long for the model.

    Parameters
    ----------
    base, tokenizer
        Directory of the base model, and its tokenizer.
    pairs, held_out
        Training and held-out pairs with the columns of :func:`encode_pairs`; none may be held out.
    settings
        Optimisation, ``max_length`` in tokens, and the coefficient ``beta``.
    seed
        Seed of adapters, of the order of pairs, and of the trainer.
    state_dir, device
        Folder of the trainer's checkpoints, and the device of the training.
    """
    if not len(pairs):
        log.warning("the corpus is empty: the policy stays the base")
        return load_model(base, device), []
    config = _configuration(settings, len(held_out) > 0, seed, state_dir, device)
    checkpoint = checkpoint_to_resume(config)
    torch.manual_seed(seed)  # adapters are drawn before the trainer seeds itself
    policy, peft_config = resumable_model(base, checkpoint, settings.lora, device)
    # With adapters the trainer takes the policy without them as the reference.
    reference = None if settings.lora else load_model(base, device)
    policy.generation_config = pure_sampling(tokenizer)
    _check_lengths(policy.config, [pairs, held_out], settings.max_length)
    trainer = _trainer_on_tokens()(
        model=policy, ref_model=reference, args=config, train_dataset=pairs,
        eval_dataset=held_out if len(held_out) else None, processing_class=tokenizer,
        peft_config=peft_config, callbacks=trainer_callbacks("DPO"),
    )  # fmt: skip
    log.info("DPO on %d pairs, resuming from %s", len(pairs), checkpoint)
    model = run_trainer(trainer, checkpoint, settings.lora)
    return model, training_curve(trainer.state.log_history)


def _check_lengths(config: PreTrainedConfig, sets: Sequence[Any], max_length: int) -> None:
    """Raise ValueError where a text of one of the data `sets` is too long for the model."""
    for row in chain.from_iterable(sets):
        answer = max(len(row["chosen_ids"]), len(row["rejected_ids"]))
        limits.check_length(config, min(max_length, len(row["prompt_ids"]) + answer))


def _trainer_on_tokens() -> type:
    """TRL's trainer, for a data set of tokens (:func:`encode_pairs`) in place of one of texts.

    The trainer would encode prompts again, end them with what the tokenizer adds behind, and append
    the end-of-text token as characters.
    """
    from trl import DPOTrainer

    class DPOTrainerOnTokens(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    return DPOTrainerOnTokens


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
    prompts: Sequence[list[int]],
    answers: Sequence[list[int]],
    pad: int,
    max_length: int,
) -> np.ndarray:
    """Summed log-probability (nats) of every answer after its prompt.

    As in training, sequences that are longer than `max_length` are cut from the right.

    Parameters
    ----------
    model
        A causal language model.
    prompts, answers
        Token ids [pair][token], as :func:`encode_pairs` gives them.
    pad
        The padding token's id.
    max_length
        Largest number of tokens of prompt and answer together.

    Returns
    -------
    numpy.ndarray
        Log-probabilities [pair].
    """
    result = [np.zeros(0)]
    for start in range(0, len(prompts), 32):
        prefix, suffix = prompts[start : start + 32], answers[start : start + 32]
        sequences = [(p + s)[:max_length] for p, s in zip(prefix, suffix, strict=True)]
        batch = pad_batch(sequences, pad, model.device)
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
    after, before = (
        answer_margins(model, tokenizer, held_out, settings) for model in (policy, base)
    )
    return after - before


def answer_margins(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: pd.DataFrame,
    settings: DPO,
) -> np.ndarray:
    """beta * [log p(chosen) - log p(rejected)] of held-out pairs under one model [pair].

    Pairs and settings are those of :func:`implicit_margins`.
    """
    pairs, _ = preference_pairs(held_out)
    pairs = pairs.head(settings.evaluation_pairs)
    rows = encode_pairs(tokenizer, pairs, settings.max_prompt_length)
    prompts = [row["prompt_ids"] for row in rows]
    chosen, rejected = (
        answer_log_probs(
            model, prompts, [row[f"{side}_ids"] for row in rows], tokenizer.pad_token_id,
            settings.max_length,
        )
        for side in ("chosen", "rejected")
    )  # fmt: skip
    return settings.beta * (chosen - rejected)


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
