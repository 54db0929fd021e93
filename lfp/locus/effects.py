"""Effects of fine-tuning that are shared among the parts of the weights, instance by instance.

The effect of a policy that learned from a reward of text is the reward of its completions of
held-out prefixes; of one that learned from pairs, the implicit reward margin of held-out pairs; of
a given one, whose feedback may be unknown, minus its divergence from the grafted model, so that the
gap is the KL of policy and base.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward, scale_of, task_reward
from lfp.finetune import dpo, given, ppo
from lfp.finetune.prompts import sample_prompts
from lfp.locus import COMPONENTS
from lfp.locus.grafts import (
    OUTSIDE,
    Effect,
    P,
    Part,
    component_player,
    exact_values,
    grafted,
    layer_player,
    moved_players,
    players,
    sampled_values,
)
from lfp.models.generation import sampled
from lfp.models.losses import divergences
from lfp.models.tokens import encode, pad_batch
from lfp.reporting.progress import Progress
from lfp.settings import DPO, PPO, Locus
from lfp.texts.corpora import documents

#: The effect of one model on every instance [instance].
Measure = Callable[[PreTrainedModel], np.ndarray]


def effect_measure(
    base: PreTrainedModel,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: pd.DataFrame,
    feedback: Mapping[str, Any],
    classifier: Sequence[str],
    settings: Mapping[str, Any],
) -> Measure:
    """The effect that the settings of a job name: ``reward``, ``margin`` or ``kl``.

    Parameters
    ----------
    base, policy, tokenizer
        The two models and their tokenizer.
    held_out
        The held-out split of the task's corpus.
    feedback
        Content of the task's lexicon file, which the reward is made of.
    classifier
        Directory of the classifier where that is the reward, else nothing.
    settings
        Settings of the job: the name of the ``effect``, the stages ``locus``, ``ppo`` and ``dpo``,
        ``max_tokens`` of a text, and the ``seed`` of prefixes and samples.
    """
    asked, lengths = Locus.of(settings["locus"]), PPO.of(settings["ppo"])
    if settings["effect"] == "kl":
        texts = documents(held_out)[: asked.pairs]
        sequences = encode(tokenizer, texts, settings["max_tokens"])
        return divergence_measure(policy, sequences, tokenizer.pad_token_id)
    if settings["effect"] == "margin":
        pairs = replace(DPO.of(settings["dpo"]), evaluation_pairs=asked.pairs)
        return margin_measure(base, tokenizer, held_out, pairs)
    device = base.device.type
    reward = task_reward(feedback, **scale_of(lengths), classifier=classifier, device=device)
    texts = list(held_out["text"])
    return reward_measure(tokenizer, texts, reward, lengths, asked, settings["seed"])


def reward_measure(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    reward: Reward,
    lengths: PPO,
    settings: Locus,
    seed: int,
) -> Measure:
    """The reward of a model's completions of held-out prefixes, with common random numbers.

    Parameters
    ----------
    tokenizer, texts
        The models' tokenizer, and texts whose beginnings are completed.
    reward
        The score of completions.
    lengths
        Lengths of prefixes and of completions.
    settings
        Number of prefixes, and size of a batch.
    seed
        Seed of prefixes and samples.
    """
    rng = np.random.default_rng(seed)
    drawn = sample_prompts(tokenizer, texts, settings.prompts, lengths.prompt_tokens, rng)
    most, batch_size = lengths.new_tokens[1], settings.batch_size

    def measure(model: PreTrainedModel) -> np.ndarray:
        samples = sampled(model, tokenizer, drawn, most, batch_size, seed)
        return ppo.sampled_rewards(samples, tokenizer, reward)

    return measure


def margin_measure(
    base: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    held_out: pd.DataFrame,
    settings: DPO,
) -> Measure:
    """The implicit reward margin of a model against `base` on held-out pairs."""
    reference = dpo.answer_margins(base, tokenizer, held_out, settings)

    def measure(model: PreTrainedModel) -> np.ndarray:
        return dpo.answer_margins(model, tokenizer, held_out, settings) - reference

    return measure


def divergence_measure(
    policy: PreTrainedModel, sequences: Sequence[Sequence[int]], pad: int
) -> Measure:
    """Minus the KL of `policy` to a model, summed over the tokens of every text, in nats.

    The policy reads the texts once; its final hidden states are held.
    """
    batches = [
        pad_batch(sequences[start : start + given.BATCH], pad, policy.device)
        for start in range(0, len(sequences), given.BATCH)
    ]

    @torch.no_grad()
    def states(model: PreTrainedModel, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        return model.base_model(**batch, use_cache=False).last_hidden_state

    read = [states(policy, batch) for batch in batches]

    @torch.no_grad()
    def measure(model: PreTrainedModel) -> np.ndarray:
        values = [np.zeros(0)]
        for batch, ours in zip(batches, read, strict=True):
            kl = divergences(policy, ours, states(model, batch), model) * batch["attention_mask"]
            values.append(-kl.sum(1).double().cpu().numpy())
        return np.concatenate(values)

    return measure


def shapley_values(
    base: PreTrainedModel, policy: PreTrainedModel, measure: Measure, orders: int, seed: int
) -> pd.DataFrame:
    """The Shapley values of all parts in both games.

    Parameters
    ----------
    base, policy
        Models of one architecture.
    measure
        The effect whose gap between the two is shared.
    orders
        Number of random orders in the game over layers; 0 leaves it out.
    seed
        Seed of the orders.

    Returns
    -------
    pandas.DataFrame
        A row per part and instance: ``game`` (``components`` or ``layers``), ``component``,
        ``layer`` (-1 outside the blocks and for a whole component), ``instance`` and ``value``. In
        each game the values of an instance add up to the gap.
    """

    names = sorted(players(base, component_player), key=COMPONENTS.index)
    of_layers = players(base, layer_player)
    total = 2 ** len(names) + 2 * orders * (len(of_layers) + 1)
    bar = Progress(total=total, desc="sets of weights")

    def effect(player_of: Callable[[Part], P]) -> Effect:
        moved, known = moved_players(base, policy, player_of), {}

        def of_set(chosen: frozenset) -> np.ndarray:
            chosen = chosen & moved  # parts that fine-tuning left alone make no other model
            if chosen not in known:
                with grafted(base, policy, player_of, chosen) as mixed:
                    known[chosen] = measure(mixed)
            bar.update()
            return known[chosen]

        return of_set

    components = exact_values(names, effect(component_player))
    rows = [_rows("components", component, -1, value) for component, value in components.items()]
    if orders:
        layers = sampled_values(of_layers, effect(layer_player), orders, seed)
        for (component, layer), value in layers.items():
            place = -1 if component == OUTSIDE else layer
            rows.append(_rows("layers", component, place, value))
    bar.close()
    return pd.concat(rows, ignore_index=True)


def _rows(game: str, component: str, layer: int, value: np.ndarray) -> pd.DataFrame:
    part = {"game": game, "component": component, "layer": layer}
    return pd.DataFrame({"instance": np.arange(len(value)), "value": value}).assign(**part)


def headline(values: pd.DataFrame) -> str:
    """The shares of the components in one line, from the rows of :func:`shapley_values`."""
    whole = values[values["game"] == "components"]
    means = whole.groupby("component", sort=False)["value"].mean()
    gap = means.sum()
    if not len(whole) or not gap:
        return "no gap to share"
    shares = ", ".join(f"{name} {value / gap:.2f}" for name, value in means.items())
    return f"gap {gap:.3f}; shares: {shares}"
