"""Ablating latents while the model writes, and its cost in reward (paper section 4.2, Table 6).

The latents' contribution is taken out of the activations and the autoencoder's error is kept: x' =
x - sum over i in S of (f_i - c_i) d_i, where c_i is the value in the latent's place, so that an
empty set changes nothing at all. (The published notebook zeroes dimensions of the reconstruction in
a randomly initialised network: paper_vs_code F6.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.interventions.actions import ACTIONS
from lfp.interventions.arms import ARMS, Candidates
from lfp.interventions.completions import completion_rewards
from lfp.interventions.selection import FeatureSet, explained_set, share_within_decile
from lfp.models import limits
from lfp.models.hooks import Edit, edited
from lfp.models.losses import text_losses
from lfp.registry import nearest
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Ablation


def set_features(
    sae: SparseAutoencoder,
    features: Sequence[int],
    action: str = "zero",
    means: np.ndarray | None = None,
) -> Edit:
    """An edit that sets some latents of an activation and keeps the autoencoder's error."""
    if action not in ACTIONS:
        raise ValueError(f"action {action!r} is unknown; {nearest(action, ACTIONS)}")
    index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)
    directions, replacement = sae.W_dec[index], ACTIONS[action]
    kept = means[list(features)] if means is not None else np.zeros(len(index))
    kept = torch.as_tensor(kept, dtype=torch.float32, device=index.device)

    def edit(x: torch.Tensor) -> torch.Tensor:
        if len(index) == 0:
            return x
        latents = sae.encode(x.float(), index)
        change = ((latents - replacement(latents, kept)) @ directions).to(x.dtype)
        return sae.spliced(x, x - change)

    return edit


def arm_edits(
    arm: str,
    autoencoders: Mapping[int, SparseAutoencoder],
    features: FeatureSet,
    means: Mapping[int, np.ndarray],
    action: str = "zero",
) -> dict[int, Edit]:
    """The edits of an arm by layer.

    Parameters
    ----------
    arm
        A name of :data:`lfp.interventions.arms.ARMS`; ValueError for another one.
    autoencoders
        Autoencoders by layer.
    features
        Latents by layer that the arm has selected.
    means
        Mean latents [latent] by layer.
    action
        A name of :data:`lfp.interventions.actions.ACTIONS`.
    """
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r} is unknown; {nearest(arm, ARMS)}")
    replace, select = ARMS[arm].replace, ARMS[arm].select
    if replace is not None:
        return {layer: replace(sae, means[layer]) for layer, sae in autoencoders.items()}
    if select is None:
        return {}
    return {
        layer: set_features(sae, features.get(layer, ()), action, means[layer])
        for layer, sae in autoencoders.items()
    }


@dataclass(frozen=True)
class Condition:
    """One arm under one action, with the latents that it selected in one draw.

    ``matched`` is the share of related latents that a random set matches within a decile of
    frequency, NaN for other arms.
    """

    arm: str
    action: str
    draw: int
    features: FeatureSet
    matched: float
    edits: Mapping[int, Edit]

    def labels(self) -> dict[str, object]:
        """Columns that tell the condition's rows from others."""
        return {
            "arm": self.arm,
            "action": self.action,
            "draw": self.draw,
            "matched": self.matched,
            "features": sum(map(len, self.features.values())),
        }


def conditions(
    settings: Ablation,
    autoencoders: Mapping[int, SparseAutoencoder],
    explanations: pd.DataFrame,
    probe_weight: np.ndarray | None,
    seed: int,
) -> list[Condition]:
    """All conditions of a model: its arms, each draw of those that draw, under their actions.

    Parameters
    ----------
    settings
        Arms, actions and number of draws.
    autoencoders
        Autoencoders by layer.
    explanations
        A row per latent with its statistics and its verdict.
    probe_weight
        Weights of the policy's probe, where an arm selects by them.
    seed
        Seed of random sets.
    """
    related, rng = explained_set(explanations), np.random.default_rng(seed)
    candidates = Candidates(explanations, related, probe_weight, rng)
    means = {
        int(layer): group.sort_values("feature")["mean_activation"].to_numpy()
        for layer, group in explanations.groupby("layer")
    }
    result = []
    for name in settings.arms:
        arm = ARMS[name]
        # Without a related latent there is nothing to match, and nothing to draw.
        for draw in range(settings.random_draws if arm.draws and related else 1):
            features = arm.select(candidates) if arm.select else {}
            matched = float("nan")
            if arm.draws:
                matched = share_within_decile(explanations, related, features)
            for action in settings.actions if arm.all_actions else ("zero",):
                edits = arm_edits(name, autoencoders, features, means, action)
                result.append(Condition(name, action, draw, features, matched, edits))
    return result


@dataclass(frozen=True)
class Ablated:
    """A row per condition and prompt, and a row per condition and neutral text."""

    completions: pd.DataFrame
    neutral: pd.DataFrame

    def headline(self) -> str:
        """Mean reward of every arm, over its draws and actions, in one line."""
        if self.completions.empty:
            return "no held-out text to prompt with"
        rewards = self.completions.groupby(["arm", "action", "draw"], sort=False)["reward"].mean()
        means = rewards.groupby("arm", sort=False).mean()
        return "reward " + ", ".join(f"{arm} {value:.3f}" for arm, value in means.items())


def ablate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    under: Sequence[Condition],
    prompts: Sequence[Sequence[int]],
    neutral: Sequence[Sequence[int]],
    reward: Reward,
    settings: Ablation,
    seed: int,
    state_path: str | Path | None = None,
) -> Ablated:
    """Let a model write under every condition, and weigh the cost of each.

    Parameters
    ----------
    model, tokenizer
        The policy or its base.
    autoencoders
        Autoencoders by layer whose latents are set; their site is edited.
    under
        The conditions (:func:`conditions`).
    prompts, neutral
        Token ids of prompts, and of sentences without feedback for the cross-entropy.
    reward
        Scores completions.
    settings
        New tokens and batch size.
    seed
        Seed of sampling: every condition draws the same uniforms.
    state_path
        A resume point for scored completions.
    """
    limits.check_texts(model.config, prompts, settings.new_tokens)
    limits.check_texts(model.config, neutral)
    site, edits = site_of(autoencoders), [condition.edits for condition in under]
    scored = completion_rewards(
        model, tokenizer, edits, prompts, reward, new_tokens=settings.new_tokens,
        batch_size=settings.batch_size, seed=seed, state_path=state_path, site=site,
    )  # fmt: skip
    losses, pad = [], tokenizer.pad_token_id
    for edit in edits:
        with edited(model, edit, site):
            nats, counts = text_losses(model, neutral, pad, settings.batch_size)
        losses.append(pd.DataFrame({"text": np.arange(len(nats)), "loss": nats / counts}))
    return Ablated(_labelled(scored, under), _labelled(losses, under))


def _labelled(frames: Sequence[pd.DataFrame], under: Sequence[Condition]) -> pd.DataFrame:
    """The rows of all conditions below each other."""
    pairs = zip(frames, under, strict=True)
    return pd.concat([frame.assign(**c.labels()) for frame, c in pairs], ignore_index=True)
