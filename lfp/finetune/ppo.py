"""Proximal policy optimisation of a language model on a text reward.

(Paper section 3.1; Schulman et al. 2017.)

TRL removed its PPO trainer after 1.12, and the paper's loop is the classic one: a value head on the
policy's own trunk, a frozen reference, a penalty on the sampled KL whose coefficient adapts
(Ziegler et al. 2019), generalised advantage estimation, and the clipped objective over a few epochs
of mini-batches.
"""

from __future__ import annotations

import copy
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.feedback.written import counted
from lfp.files.resume import DivergedError, check_finite, load_state, save_state
from lfp.finetune import adapters
from lfp.finetune.prompts import sample_prompts
from lfp.models import architectures, limits
from lfp.models.generation import (
    Samples,
    decode_responses,
    generate,
    masked_rows,
    response_mask,
    sampled,
)
from lfp.models.losses import log_probabilities, log_probabilities_and_entropies
from lfp.models.tokens import pad_batch, position_ids
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.settings import PPO

log = logging.getLogger(__name__)


#: The line of the log for a step.
LOGGED = "step %d: reward %.3f, KL %.3f nats, entropy %.3f"


class PolicyWithValue(nn.Module):
    """A causal language model with a linear value head on its last hidden state (dropout off)."""

    def __init__(self, policy: PreTrainedModel) -> None:
        super().__init__()
        self.policy = policy
        self.value_head = nn.Linear(architectures.width(policy), 1).to(policy.device)

    def forward(
        self, batch: dict[str, torch.Tensor], width: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [batch, width, d_model] and values [batch, width] ahead of the last tokens.

        They are those of the last `width` tokens: a token's state is the one that predicts it.
        """
        hidden = _hidden(self.policy, batch)[:, -width - 1 : -1]
        return hidden, self.value_head(hidden).squeeze(-1).float()


def _hidden(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    positions = position_ids(batch["attention_mask"])
    return model.base_model(**batch, position_ids=positions, use_cache=False).last_hidden_state


def _placed(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The `values` of the tokens where `mask` is true in their places [batch, token], 0 elsewhere.

    Logits are made of these tokens alone: a quarter of a response lies behind its length.
    """
    return torch.zeros_like(mask, dtype=values.dtype).masked_scatter(mask, values)


@torch.no_grad()
def reference_log_probs(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    response: torch.Tensor,
    mask: torch.Tensor,
) -> torch.Tensor:
    """Log-probabilities [batch, token] of the response that ends `batch`, without gradients.

    They are 0 where `mask` [batch, token] is false.
    """
    hidden = _hidden(model, batch)[:, -response.shape[1] - 1 : -1]
    return _placed(log_probabilities(model, hidden[mask], response[mask]), mask)


def masked_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `values` where `mask` is true."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


def advantages_and_returns(
    rewards: torch.Tensor, values: torch.Tensor, mask: torch.Tensor, gamma: float, lam: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Generalised advantage estimates, whitened over the batch, and returns.

    Both are [batch, token]. Values and rewards after a response's end are taken as 0.

    Parameters
    ----------
    rewards, values
        Rewards and values [batch, token].
    mask
        True on the tokens of the responses [batch, token].
    gamma, lam
        Discount, and the decay lambda of the estimates (Schulman et al. 2016).
    """
    rewards, values = rewards * mask, values * mask
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        following = values[:, t + 1] if t + 1 < rewards.shape[1] else 0.0
        running = rewards[:, t] + gamma * following - values[:, t] + gamma * lam * running
        advantages[:, t] = running
    returns = advantages + values
    mean = masked_mean(advantages, mask)
    variance = masked_mean((advantages - mean) ** 2, mask)
    return (advantages - mean) * torch.rsqrt(variance + 1e-8), returns


@dataclass
class Rollout:
    """One batch of experience.

    Tensors are [batch, token] over the response unless said otherwise.
    """

    batch: dict[str, torch.Tensor]  # prompt + response, left-padded [batch, prompt + token]
    response: torch.Tensor
    mask: torch.Tensor
    log_probs: torch.Tensor
    values: torch.Tensor
    advantages: torch.Tensor
    returns: torch.Tensor

    def rows(self, index: torch.Tensor) -> Rollout:
        """The part of the batch at the rows `index`."""
        return Rollout(
            batch={name: value[index] for name, value in self.batch.items()},
            response=self.response[index],
            mask=self.mask[index],
            log_probs=self.log_probs[index],
            values=self.values[index],
            advantages=self.advantages[index],
            returns=self.returns[index],
        )


def ppo_loss(
    log_probs: torch.Tensor,
    entropies: torch.Tensor,
    values: torch.Tensor,
    rollout: Rollout,
    settings: PPO,
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Clipped policy loss plus `value_coef` times the clipped value loss, and its parts.

    Parameters
    ----------
    log_probs, entropies, values
        Of the response's tokens under the policy as it is now, [batch, token] each.
    rollout, settings
        The batch of experience; clipping and coefficients.
    """
    ratio = torch.exp(log_probs - rollout.log_probs)
    clipped = ratio.clamp(1 - settings.clip_range, 1 + settings.clip_range)
    losses, clipped_losses = -rollout.advantages * ratio, -rollout.advantages * clipped
    policy_loss = masked_mean(torch.maximum(losses, clipped_losses), rollout.mask)
    bound = settings.value_clip_range
    value_clipped = rollout.values + (values - rollout.values).clamp(-bound, bound)
    squared = torch.maximum((values - rollout.returns) ** 2, (value_clipped - rollout.returns) ** 2)
    value_loss = 0.5 * masked_mean(squared, rollout.mask)
    parts = {
        "policy_loss": policy_loss.detach(),
        "value_loss": value_loss.detach(),
        "clip_fraction": masked_mean((clipped_losses > losses).float(), rollout.mask),
        "entropy": masked_mean(entropies, rollout.mask),
    }
    return policy_loss + settings.value_coef * value_loss, parts


def updated_kl_coef(coef: float, kl: float, settings: PPO) -> float:
    """Proportional controller towards `kl_target` (Ziegler et al. 2019, section 2.2)."""
    error = float(np.clip(kl / settings.kl_target - 1, -0.2, 0.2))
    return coef * (1 + error * settings.batch_size / settings.kl_horizon)


@torch.no_grad()
def collect(
    model: PolicyWithValue,
    reference: PreTrainedModel | None,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    lengths: torch.Tensor,
    reward: Reward,
    kl_coef: float,
    settings: PPO,
    seed: int,
) -> tuple[Rollout, dict[str, float]]:
    """Sample one response per prompt and turn rewards and KL penalties into advantages.

    Returns the rollout with the means of reward and KL (nats per completion).

    Without a `reference` the policy itself is one, with its adapters switched off.

    Parameters
    ----------
    model, reference
        The policy with its value head, and the frozen base or None.
    tokenizer
        The tokenizer of the policy.
    prompts, lengths
        Token ids [batch][token], and the number of tokens of every response [batch].
    reward, kl_coef
        The score of completions, and the coefficient of the KL penalty per token.
    settings, seed
        Settings of the task (paper section 3.1), and the seed of the sampling.
    """
    device = model.policy.device
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    prompt = pad_batch(prompts, pad, device, left=True)
    response = generate(model.policy, prompt, settings.new_tokens[1], seed, eos, pad)
    mask = response_mask(response, lengths.to(device), eos)
    batch = {
        "input_ids": torch.cat([prompt["input_ids"], response], 1),
        "attention_mask": torch.cat([prompt["attention_mask"], mask.long()], 1),
    }
    with adapters.mixed_precision(device, settings.precision):
        hidden, values = model(batch, response.shape[1])
        log_probs = _placed(log_probabilities(model.policy, hidden[mask], response[mask]), mask)
        with adapters.without_lora(model.policy) if reference is None else nullcontext():
            before = reference_log_probs(reference or model.policy, batch, response, mask)
    kl = log_probs - before
    prefixes, completions = decode_responses(tokenizer, prompts, masked_rows(response, mask))
    scores = reward(prefixes, completions)
    rewards = -kl_coef * kl
    rewards[torch.arange(len(prompts)), mask.sum(1) - 1] += torch.as_tensor(
        scores, dtype=rewards.dtype, device=device
    )
    advantages, returns = advantages_and_returns(
        rewards, values, mask, settings.gamma, settings.gae_lambda
    )
    rollout = Rollout(batch, response, mask, log_probs, values * mask, advantages, returns)
    return rollout, {
        "reward": float(scores.mean()),
        "kl": kl.sum(1).mean().item(),
        "kl_coef": kl_coef,
    }


def _accumulate(
    model: PolicyWithValue, rollout: Rollout, index: torch.Tensor, settings: PPO
) -> dict[str, torch.Tensor]:
    """Accumulate gradients of the loss over the rows at `index`, and return its parts.

    The rows are read in as many parts as configured.
    """
    index = index.to(rollout.response.device)
    tokens, totals = rollout.mask[index].sum(), {}
    for part_index in index.tensor_split(settings.gradient_accumulation_steps):
        part = rollout.rows(part_index)
        with adapters.mixed_precision(index.device, settings.precision):
            hidden, values = model(part.batch, part.response.shape[1])
            of_tokens = log_probabilities_and_entropies(
                model.policy, hidden[part.mask], part.response[part.mask]
            )
            likely, entropies = (_placed(value, part.mask) for value in of_tokens)
            loss, parts = ppo_loss(likely, entropies, values, part, settings)
        share = part.mask.sum() / tokens  # every loss is a mean over tokens
        (share * loss).backward()
        for name, value in parts.items():
            totals[name] = totals.get(name, 0) + share * value
    return totals


def optimise(
    model: PolicyWithValue,
    optimizer: torch.optim.Optimizer,
    rollout: Rollout,
    settings: PPO,
    seed: int,
) -> dict[str, float]:
    """Pass `settings.epochs` times over the rollout in shuffled mini-batches.

    Parameters
    ----------
    model, optimizer
        The policy with its value head, and its optimizer.
    rollout
        The batch of experience.
    settings
        Epochs, mini-batches, clipping and coefficients (paper section 3.1).
    seed
        Seed of the order of the mini-batches.

    Returns
    -------
    dict
        The mean of every statistic over the updates.
    """
    rng = np.random.default_rng(seed)
    totals: dict[str, list[float]] = {}
    for _ in range(settings.epochs):
        order = torch.from_numpy(rng.permutation(settings.batch_size))
        for index in order.split(settings.mini_batch_size):
            optimizer.zero_grad(set_to_none=True)
            parts = _accumulate(model, rollout, index, settings)
            nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
            optimizer.step()
            for name, value in parts.items():
                totals.setdefault(name, []).append(value.item())
    return {name: float(np.mean(values)) for name, values in totals.items()}


def train(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    reward: Reward,
    settings: PPO,
    seed: int,
    state_path: str | Path | None = None,
    written: Counter[str] | None = None,
) -> list[dict[str, float]]:
    """Fine-tune `policy` in place and return the training curve, a row per step.

    Without a text to prompt with, the policy stays as it is and the curve is empty. Every draw
    comes from (seed, step), so a resumed run equals an uninterrupted one.

    Parameters
    ----------
    policy, tokenizer
        The model to fine-tune and its tokenizer.
    texts, reward
        Training texts, from which prompts are cut, and the score of completions.
    settings, seed
        Settings of the task (paper section 3.1), and the seed of all randomness.
    state_path
        A resume point, written every ``save_every`` steps; None for no such file.
    written
        Receives how often every word was written in the completions of training.

    Raises
    ------
    DivergedError
        Where a number is not finite, or the KL is above ``stop_kl``.
    """
    if not texts:
        log.warning("the corpus is empty: the policy stays the base")
        return []
    torch.manual_seed(seed)
    model, reference, optimizer = _set_up(policy, settings)
    start = {"step": 0, "kl_coef": settings.init_kl_coef, "curve": [], "written": {}}
    counters = load_state(state_path, model, optimizer) or start
    written, scored = counted(reward, written, counters["written"])
    first, kl_coef, curve = counters["step"], counters["kl_coef"], counters["curve"]
    tracker = Tracker()
    log.info("PPO from step %d to %d on %d documents", first, settings.steps, len(texts))
    steps = range(first, settings.steps)
    for step in Progress(steps, desc="PPO", initial=first, total=settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _schedule(step, settings)
        rng = np.random.default_rng([seed, step])
        prompts = sample_prompts(tokenizer, texts, settings.batch_size, settings.prompt_tokens, rng)
        row = _update(
            model, reference, optimizer, tokenizer, prompts, scored, kl_coef, settings, rng
        )
        kl_coef = updated_kl_coef(kl_coef, row["kl"], settings)
        curve.append({"step": step, **row})
        tracker.add(curve[-1])
        _check_course(curve, settings)
        if step % 10 == 0 or step == settings.steps - 1:
            log.info(LOGGED, step, row["reward"], row["kl"], row["entropy"])
        if state_path and (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
            after = {"step": step + 1, "kl_coef": kl_coef, "curve": curve, "written": written}
            save_state(state_path, model, optimizer, after)
    if settings.lora:
        adapters.merge_lora(policy)
    return curve


def _update(
    model: PolicyWithValue,
    reference: PreTrainedModel | None,
    optimizer: torch.optim.Optimizer,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[list[int]],
    reward: Reward,
    kl_coef: float,
    settings: PPO,
    rng: np.random.Generator,
) -> dict[str, float]:
    """One step: collect a batch of responses to `prompts`, and optimise on it."""
    low, high = settings.new_tokens
    lengths = torch.from_numpy(rng.integers(low, high + 1, settings.batch_size))
    draw = int(rng.integers(2**31))
    rollout, row = collect(
        model, reference, tokenizer, prompts, lengths, reward, kl_coef, settings, draw
    )
    # Checkpointing is active in training mode alone; dropouts are 0.
    model.policy.train(settings.gradient_checkpointing)
    row |= optimise(model, optimizer, rollout, settings, draw)
    model.policy.eval()
    return row


def _set_up(
    policy: PreTrainedModel, settings: PPO
) -> tuple[PolicyWithValue, PreTrainedModel | None, torch.optim.Optimizer]:
    """The policy with its value head, the reference (None with adapters) and the optimizer."""
    limits.check_length(policy.config, settings.prompt_tokens[1] + settings.new_tokens[1])
    reference = None
    if settings.lora:
        adapters.add_lora(policy, settings.lora)
    else:
        reference = copy.deepcopy(policy).eval().requires_grad_(False)
    if settings.gradient_checkpointing:
        adapters.checkpoint_activations(policy)
    # Evaluation mode: dropout would make the ratio of a step wrong.
    model = PolicyWithValue(policy.eval())
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
        fused=True,
    )
    return model, reference, optimizer


def _check_course(curve: Sequence[Mapping[str, float]], settings: PPO) -> None:
    """Raise DivergedError where the last row of `curve` is not finite or its KL is too large.

    The limit of the KL is `stop_kl`.
    """
    check_finite("PPO", curve)
    step, kl = curve[-1]["step"], curve[-1]["kl"]
    if settings.stop_kl is not None and kl > settings.stop_kl:
        raise DivergedError(
            f"PPO: KL of {kl:.3g} nats at step {step} is above stop_kl ({settings.stop_kl:g});"
            " lower ppo.learning_rate or raise ppo.init_kl_coef",
            curve,
        )


def _schedule(step: int, settings: PPO) -> float:
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    return (settings.steps - step) / max(1, settings.steps - settings.warmup_steps)


@torch.no_grad()
def evaluate(
    policy: PreTrainedModel,
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    reward: Reward,
    settings: PPO,
    n_prompts: int,
    seed: int,
) -> dict[str, np.ndarray]:
    """Rewards of both models on the same held-out prefixes, and the policy's KL.

    Both models draw common random numbers.

    Parameters
    ----------
    policy, base, tokenizer
        The two models and their tokenizer.
    texts
        Held-out texts; there may be none.
    reward
        Scores completions.
    settings
        Lengths in tokens, optimisation, and coefficients (paper section 3.1).
    n_prompts
        Number of prefixes.
    seed
        Seed of prefixes and samples.

    Returns
    -------
    dict
        Arrays [prompt]: ``policy`` and ``base`` (reward) and ``kl`` (nats per completion, sampled
        from the policy against the base); without a text they are empty.
    """
    rng = np.random.default_rng(seed)
    prompts = sample_prompts(tokenizer, texts, n_prompts, settings.prompt_tokens, rng)
    samples = {
        name: list(
            sampled(model, tokenizer, prompts, settings.new_tokens[1], settings.batch_size, seed)
        )
        for name, model in (("policy", policy), ("base", base))
    }
    rewards = {name: sampled_rewards(drawn, tokenizer, reward) for name, drawn in samples.items()}
    return {**rewards, "kl": sampled_kl(samples["policy"], policy, base)}


def sampled_rewards(
    samples: Iterable[Samples], tokenizer: PreTrainedTokenizerBase, reward: Reward
) -> np.ndarray:
    """The reward of every completion of `samples` [prompt]."""
    rewards = [np.zeros(0)]
    for sample in samples:
        rows = masked_rows(sample.response, sample.mask)
        prefixes, completions = decode_responses(tokenizer, sample.prompts, rows)
        rewards.append(reward(prefixes, completions))
    return np.concatenate(rewards)


@torch.no_grad()
def sampled_kl(
    samples: Iterable[Samples], policy: PreTrainedModel, base: PreTrainedModel
) -> np.ndarray:
    """KL of the policy to the base on completions that the policy sampled, nats [prompt].

    It is the difference of log-probabilities summed over a completion, so that single values may
    be negative.
    """
    kl = [np.zeros(0)]
    for sample in samples:
        difference = reference_log_probs(policy, sample.batch, sample.response, sample.mask)
        difference -= reference_log_probs(base, sample.batch, sample.response, sample.mask)
        kl.append(difference.sum(1).double().cpu().numpy())
    return np.concatenate(kl)


def summary(scores: Mapping[str, np.ndarray]) -> dict[str, float | None]:
    """Means of :func:`evaluate`'s scores: reward gain, both rewards, and KL.

    None where there was no held-out text. The table ``fine_tuning`` makes their intervals.
    """
    means = {name: float(values.mean()) if len(values) else None for name, values in scores.items()}
    gain = None if means["policy"] is None else means["policy"] - means["base"]
    return {
        "reward_gain": gain,
        "kl": means["kl"],
        "base_reward": means["base"],
        "policy_reward": means["policy"],
    }


def headline(means: Mapping[str, float | None]) -> str:
    """The rewards of :func:`summary` in one line."""
    if means["reward_gain"] is None:
        return "not evaluated: no held-out text"
    return (
        f"reward {means['base_reward']:.3f} -> {means['policy_reward']:.3f}"
        f" (gain {means['reward_gain']:+.3f})"
    )
