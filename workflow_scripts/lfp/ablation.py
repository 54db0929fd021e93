"""Ablating features while the model writes, and what that costs in reward (paper section 4.2, Table 6).

The features' contribution is taken out of the MLP output and the autoencoder's error is kept:
x' = x - sum over i in S of f_i d_i, so that an empty set changes nothing at all. (The published notebook zeroes
dimensions of the reconstruction in a randomly initialised network: paper_vs_code F6.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp import models
from workflow_scripts.lfp.activations import Edit, edited
from workflow_scripts.lfp.autoencoder import SparseAutoencoder, reconstruct
from workflow_scripts.lfp.rewards import Reward

#: Features to ablate, by layer.
FeatureSet = Mapping[int, Sequence[int]]

ARMS = ("none", "reconstruction", "explained", "random")


def zero_features(sae: SparseAutoencoder, features: Sequence[int]) -> Edit:
    """An edit that removes `features` from an MLP output and keeps the autoencoder's error."""
    index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)
    encoder, bias, decoder = sae.W_enc[:, index], sae.b_enc[index], sae.W_dec[index]

    def edit(x: torch.Tensor) -> torch.Tensor:
        if len(index) == 0:
            return x
        code = torch.relu(x.float() @ encoder + bias)
        return x - (code @ decoder).to(x.dtype)

    return edit


def arm_edits(arm: str, autoencoders: Mapping[int, SparseAutoencoder], features: FeatureSet) -> dict[int, Edit]:
    """The edits of an arm by layer; `features` is read by the arms that ablate."""
    if arm == "none":
        return {}
    if arm == "reconstruction":
        return {layer: reconstruct(sae) for layer, sae in autoencoders.items()}
    if arm in ARMS:
        return {layer: zero_features(sae, features.get(layer, ())) for layer, sae in autoencoders.items()}
    raise ValueError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")


def explained_set(explanations: pd.DataFrame) -> dict[int, list[int]]:
    """The features that an explainer called related, by layer."""
    related = explanations[explanations["related"]]
    return {int(layer): group["feature"].tolist() for layer, group in related.groupby("layer")}


def matched_random_set(
    explanations: pd.DataFrame, chosen: FeatureSet, rng: np.random.Generator, neighbours: int = 5
) -> dict[int, list[int]]:
    """Features outside `chosen`, as many per layer, alike in activation frequency and contribution.

    Each chosen feature draws one of its `neighbours` nearest features that are alive, unchosen and not yet drawn,
    by the distance in (log frequency, log mean activation), each scaled by its standard deviation in the layer;
    directions have unit norm, so mean activation is the mean contribution. A layer with fewer candidates than
    chosen features gives all of them.
    """
    result: dict[int, list[int]] = {}
    for layer, features in chosen.items():
        table = explanations[(explanations["layer"] == layer) & (explanations["frequency"] > 0)].set_index("feature")
        traits = np.log(table[["frequency", "mean_activation"]].clip(lower=1e-12))
        traits = traits / traits.std(ddof=0).clip(lower=1e-6)
        pool = traits.drop(index=[feature for feature in features if feature in traits.index])
        drawn: list[int] = []
        for feature in rng.permutation(np.asarray(features, dtype=int)):
            if pool.empty:
                break
            distance = ((pool - traits.loc[feature]) ** 2).sum(axis=1)
            nearest = distance.sort_values(kind="stable").index[:neighbours]
            pick = int(rng.choice(nearest))
            drawn.append(pick)
            pool = pool.drop(index=pick)
        result[layer] = sorted(drawn)
    return result


def prefix_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, n: int) -> list[list[int]]:
    """The first `length` tokens of the first `n` texts that are longer than that; ValueError if there are none."""
    encoded = tokenizer(list(texts))["input_ids"]
    prefixes = [ids[:length] for ids in encoded if len(ids) > length][:n]
    if not prefixes:
        raise ValueError(f"no held-out text is longer than {length} tokens; lower ablation.prefix_tokens")
    return prefixes


def completion_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    edits: Mapping[int, Edit],
    prefixes: Sequence[Sequence[int]],
    reward: Reward,
    new_tokens: int,
    batch_size: int,
    seed: int,
) -> pd.DataFrame:
    """Sample and score a completion to every prefix under `edits`: ``prompt``, ``reward``, ``tokens``, ``completion``.

    The same `seed` draws the same uniforms in every arm (common random numbers), so differences are paired.
    """
    frames = []
    for start in range(0, len(prefixes), batch_size):
        part = prefixes[start : start + batch_size]
        batch = models.pad_batch(part, tokenizer.pad_token_id, model.device, left=True)
        with edited(model, edits):
            response = models.generate(
                model, batch, new_tokens, seed + start, tokenizer.eos_token_id, tokenizer.pad_token_id
            )
        mask = models.response_mask(
            response, torch.full((len(part),), new_tokens, device=response.device), tokenizer.eos_token_id
        )
        completions = models.decode_responses(tokenizer, response, mask)
        rewards = reward(tokenizer.batch_decode(part, skip_special_tokens=True), completions)
        frames.append(pd.DataFrame({
            "prompt": np.arange(start, start + len(part)), "reward": rewards,
            "tokens": mask.sum(1).cpu().numpy(), "completion": completions,
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)
