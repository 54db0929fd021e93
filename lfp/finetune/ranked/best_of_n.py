"""Supervised fine-tuning on the best of n completions by a reward (rejection sampling).

Nakano et al. 2021 choose the best of n completions when a model is asked; Touvron et al. 2023 train
on them. Nothing holds the policy to its base but the number of updates.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from lfp.files.resume import check_finite, load_state, save_state
from lfp.finetune import adapters
from lfp.models.losses import cross_entropies
from lfp.models.tokens import pad_batch
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.settings import PPO

log = logging.getLogger(__name__)

#: Token ids of a prompt and of its completion.
Example = tuple[Sequence[int], Sequence[int]]


def train(
    policy: PreTrainedModel,
    examples: Sequence[Example],
    settings: PPO,
    seed: int,
    pad: int,
    state_path: str | Path | None = None,
) -> list[dict[str, float]]:
    """Fine-tune `policy` in place on completions and return the training curve, a row per step.

    The loss is the cross-entropy of the completions' tokens. Without an example the policy stays as
    it is and the curve is empty. Every draw comes from (seed, step), so that a resumed run equals
    an uninterrupted one.

    Parameters
    ----------
    policy
        The base, which becomes the policy.
    examples
        Prompts and their completions.
    settings
        Steps, batches and optimisation, as of PPO.
    seed, pad
        Seed of adapters and of the examples of every step; the padding token's id.
    state_path
        A resume point, written every ``save_every`` steps; None for no such file.

    Raises
    ------
    DivergedError
        Where a number is not finite.
    """
    if not examples:
        log.warning("the corpus is empty: the policy stays the base")
        return []
    optimizer = _set_up(policy, settings, seed)
    counters = load_state(state_path, policy, optimizer) or {"step": 0, "curve": []}
    first, curve, tracker = counters["step"], counters["curve"], Tracker()
    steps = range(first, settings.steps)
    for step in Progress(steps, desc="best of n", initial=first, total=settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * warmed(step, settings)
        drawn = np.random.default_rng([seed, step]).integers(
            len(examples), size=settings.batch_size
        )
        loss = _update(policy, optimizer, [examples[i] for i in drawn], settings, pad)
        curve.append({"step": step, "cross_entropy": loss})
        tracker.add(curve[-1])
        check_finite("best of n", curve)
        if state_path and (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
            save_state(state_path, policy, optimizer, {"step": step + 1, "curve": curve})
    policy.eval()
    if settings.lora:
        adapters.merge_lora(policy)
    log.info(
        "cross-entropy of the best completions %.4f nats per token", curve[-1]["cross_entropy"]
    )
    return curve


def _set_up(policy: PreTrainedModel, settings: PPO, seed: int) -> torch.optim.Optimizer:
    """Prepare `policy` for training as configured, and return its optimizer."""
    if settings.lora:
        torch.manual_seed(seed)
        adapters.add_lora(policy, settings.lora)
    if settings.gradient_checkpointing:
        adapters.checkpoint_activations(policy)
    # Checkpointing is active in training mode alone.
    policy.train(settings.gradient_checkpointing)
    trained = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    decay = settings.weight_decay
    return torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=decay, fused=True)


def warmed(step: int, settings: PPO) -> float:
    """The share of the learning rate at a step: a linear warm-up, then a linear decay."""
    rising = (step + 1) / max(1, settings.warmup_steps)
    falling = (settings.steps - step) / max(1, settings.steps - settings.warmup_steps)
    return min(rising, falling, 1.0)


def _update(
    policy: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    settings: PPO,
    pad: int,
) -> float:
    """One step on a batch; the mean cross-entropy per token of the completions before it."""
    optimizer.zero_grad(set_to_none=True)
    tokens, total = sum(len(completion) for _, completion in examples), 0.0
    size = len(examples) // settings.gradient_accumulation_steps
    for start in range(0, len(examples), size):
        part = examples[start : start + size]
        batch = pad_batch([[*prompt, *rest] for prompt, rest in part], pad, policy.device)
        # A token's state is the one that predicts it.
        index = torch.arange(1, batch["input_ids"].shape[1], device=policy.device)
        starts = torch.tensor([len(prompt) for prompt, _ in part], device=policy.device)
        mask = (index >= starts[:, None]) & batch["attention_mask"][:, 1:].bool()
        with adapters.mixed_precision(policy.device, settings.precision):
            hidden = policy.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]
            losses = cross_entropies(policy, hidden, batch["input_ids"][:, 1:])
        loss = (losses * mask).sum() / tokens
        loss.backward()
        total += float(loss.detach())
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(trained, settings.max_grad_norm)
    optimizer.step()
    return total
