"""Ablating features while the model writes, and what that costs in reward (paper section 4.2, Table 6).

The features' contribution is taken out of the MLP output and the autoencoder's error is kept:
x' = x - sum over i in S of (f_i - c_i) d_i, where c_i is what takes the feature's place, so that an empty set
changes nothing at all. (The published notebook zeroes dimensions of the reconstruction in a randomly initialised
network: paper_vs_code F6.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from workflow_scripts.lfp import models
from workflow_scripts.lfp.activations import Edit, edited
from workflow_scripts.lfp.autoencoder import SparseAutoencoder, reconstruct
from workflow_scripts.lfp.lexicon import WORD, Lexicon
from workflow_scripts.lfp.rewards import Reward

#: Features to ablate, by layer.
FeatureSet = Mapping[int, Sequence[int]]

ARMS = ("none", "reconstruction", "explained", "random", "top_probe_weight", "top_match_unrelated")
INTERVENTIONS = ("zero", "mean", "negative")
#: Largest difference of two matched features' ranks in a trait, as a share of the layer's live features.
DECILE = 0.1 + 1e-9


def set_features(
    sae: SparseAutoencoder, features: Sequence[int], intervention: str = "zero", means: np.ndarray | None = None
) -> Edit:
    """An edit that sets `features` of an MLP output to 0, to their `means` [feature], or to minus themselves.

    The autoencoder's error is kept. ValueError for an unknown intervention.
    """
    if intervention not in INTERVENTIONS:
        raise ValueError(f"intervention: expected one of {', '.join(INTERVENTIONS)}, got {intervention!r}")
    index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)
    encoder, bias, decoder = sae.W_enc[:, index], sae.b_enc[index], sae.W_dec[index]
    kept = (
        torch.as_tensor(means[list(features)], dtype=torch.float32, device=index.device) if means is not None else 0.0
    )

    def edit(x: torch.Tensor) -> torch.Tensor:
        if len(index) == 0:
            return x
        code = torch.relu(x.float() @ encoder + bias)
        place = {"zero": 0.0, "mean": kept, "negative": -code}[intervention]
        return x - ((code - place) @ decoder).to(x.dtype)

    return edit


def arm_edits(
    arm: str,
    autoencoders: Mapping[int, SparseAutoencoder],
    features: FeatureSet,
    intervention: str = "zero",
    means: Mapping[int, np.ndarray] | None = None,
) -> dict[int, Edit]:
    """The edits of an arm by layer; `features` is read by the arms that ablate, `means` by the intervention `mean`."""
    if arm == "none":
        return {}
    if arm == "reconstruction":
        return {layer: reconstruct(sae) for layer, sae in autoencoders.items()}
    if arm in ARMS:
        return {
            layer: set_features(sae, features.get(layer, ()), intervention, means[layer] if means else None)
            for layer, sae in autoencoders.items()
        }
    raise ValueError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")


def explained_set(explanations: pd.DataFrame) -> dict[int, list[int]]:
    """The features that an explainer called related, by layer."""
    related = explanations[explanations["related"]]
    return {int(layer): group["feature"].tolist() for layer, group in related.groupby("layer")}


def top_set(explanations: pd.DataFrame, chosen: FeatureSet, rank: pd.Series) -> dict[int, list[int]]:
    """As many features per layer as `chosen` has, those of the highest `rank` (aligned with `explanations`).

    Features with a missing rank are left out.
    """
    ranked = explanations.assign(rank=rank).dropna(subset="rank").sort_values("rank", ascending=False, kind="stable")
    by_layer = dict(tuple(ranked.groupby("layer")))
    return {
        layer: sorted(by_layer[layer]["feature"].head(len(features)).tolist())
        for layer, features in chosen.items()
        if layer in by_layer
    }


def probe_weight_rank(explanations: pd.DataFrame, weight: np.ndarray) -> pd.Series:
    """Absolute weight of every live feature in the policy's probe, whose features run by layer and feature."""
    order = explanations.sort_values(["layer", "feature"], kind="stable").index
    rank = pd.Series(np.abs(weight), index=order)
    return rank.where(explanations["frequency"] > 0)


def unrelated_match_rank(explanations: pd.DataFrame) -> pd.Series:
    """Match cosine of the explained features that are not related: well matched, and not what is looked for."""
    return explanations["cosine"].where((explanations["status"] == "ok") & ~explanations["related"])


def matched_random_set(
    explanations: pd.DataFrame,
    chosen: FeatureSet,
    rng: np.random.Generator,
    trait: str = "frequency",
    neighbours: int = 5,
) -> dict[int, list[int]]:
    """Features outside `chosen`, as many per layer, alike in a `trait` and in their contribution.

    Each chosen feature draws among the live, unchosen and not yet drawn features whose rank in the trait is within a
    tenth of the layer's live features of its own, one of the `neighbours` nearest by mean contribution (directions
    have unit norm, so that is the mean activation). Where none is left within a tenth, the nearest by rank is drawn:
    :func:`share_within_decile` says how often. A layer with fewer candidates than chosen features gives all of them.
    """
    result: dict[int, list[int]] = {}
    for layer, features in chosen.items():
        table = explanations[(explanations["layer"] == layer) & (explanations["frequency"] > 0)]
        names, rank = table["feature"].to_numpy(), table[trait].rank(method="first", pct=True).to_numpy()
        contribution = np.log(table["mean_activation"].clip(lower=1e-12)).to_numpy()
        free = ~np.isin(names, features)
        drawn: list[int] = []
        for own in rng.permutation(np.flatnonzero(np.isin(names, features))):
            pool = np.flatnonzero(free)
            if not len(pool):
                break
            distance = np.abs(rank[pool] - rank[own])
            near = pool[distance <= DECILE]
            if len(near):
                alike = np.argsort(np.abs(contribution[near] - contribution[own]), kind="stable")
                pick = rng.choice(near[alike[:neighbours]])
            else:
                pick = pool[distance.argmin()]
            drawn.append(int(names[pick]))
            free[pick] = False
        result[int(layer)] = sorted(drawn)
    return result


def share_within_decile(
    explanations: pd.DataFrame, chosen: FeatureSet, drawn: FeatureSet, trait: str = "frequency"
) -> float:
    """Share of the `chosen` features that pairing with `drawn` matches within a tenth of the trait's ranks.

    Both sets are paired in order of the trait, which minimises the largest difference. NaN for empty sets.
    """
    within: list[bool] = []
    for layer, features in chosen.items():
        table = explanations[(explanations["layer"] == layer) & (explanations["frequency"] > 0)].set_index("feature")
        rank = table[trait].rank(method="first", pct=True)
        own = np.sort(rank[[feature for feature in features if feature in rank.index]])
        theirs = np.sort(rank[list(drawn.get(layer, ()))])
        within += [abs(a - b) <= DECILE for a, b in zip(own, theirs, strict=False)]
        within += [False] * (len(own) - len(theirs))
    return float(np.mean(within)) if within else float("nan")


def neutral_sentences(texts: Sequence[str], lexicon: Lexicon, n: int, min_words: int = 6) -> list[str]:
    """The `n` sentences of `texts` whose words hold the least feedback: lowest absolute mean of `lexicon`.

    Sentences of fewer than `min_words` words and repeated ones are left out; ValueError if none is left.
    """
    sentences = dict.fromkeys(part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text))
    scored = []
    for sentence in sentences:
        words = [match.group().lower() for match in WORD.finditer(sentence)]
        if len(words) >= min_words:
            scored.append((abs(sum(lexicon.get(word, 0.0) for word in words)) / len(words), sentence))
    if not scored:
        raise ValueError(f"no held-out sentence has {min_words} words; the cross-entropy needs neutral text")
    return [sentence for _, sentence in sorted(scored, key=lambda pair: pair[0])[:n]]


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
    """Sample and score a completion to every prefix under `edits`.

    Columns: ``prompt``, ``reward``, ``kl`` (exact divergence of the edited from the untouched model on its own
    completion, nats, summed over tokens), ``tokens``, ``distinct_2`` (distinct over all pairs of neighbouring tokens),
    ``completion``. The same `seed` draws the same uniforms in every arm (common random numbers), so differences are
    paired.
    """
    frames = []
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for start in range(0, len(prefixes), batch_size):
        part = prefixes[start : start + batch_size]
        batch = models.pad_batch(part, pad, model.device, left=True)
        with edited(model, edits):
            response = models.generate(model, batch, new_tokens, seed + start, eos, pad)
        mask = models.response_mask(
            response, torch.full((len(part),), new_tokens, device=response.device), tokenizer.eos_token_id
        )
        completions = models.decode_responses(tokenizer, response, mask)
        rewards = reward(tokenizer.batch_decode(part, skip_special_tokens=True), completions)
        rows = [row[keep].tolist() for row, keep in zip(response.cpu(), mask.cpu(), strict=True)]
        frames.append(pd.DataFrame({
            "prompt": np.arange(start, start + len(part)), "reward": rewards,
            "kl": _divergence(model, edits, batch, response, mask), "tokens": [len(row) for row in rows],
            "distinct_2": [distinct_2(row) for row in rows], "completion": completions,
        }))  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def distinct_2(tokens: Sequence[int]) -> float:
    """Distinct over all pairs of neighbouring tokens (Li et al. 2016); 1 for a text with fewer than two tokens."""
    pairs = list(zip(tokens, tokens[1:], strict=False))
    return len(set(pairs)) / len(pairs) if pairs else 1.0


@torch.no_grad()
def _divergence(
    model: PreTrainedModel,
    edits: Mapping[int, Edit],
    batch: dict[str, torch.Tensor],
    response: torch.Tensor,
    mask: torch.Tensor,
) -> np.ndarray:
    """KL [row] of the edited from the untouched model over the response's positions, exactly 0 without edits."""
    if not edits:
        return np.zeros(len(response))
    full = {
        "input_ids": torch.cat([batch["input_ids"], response], 1),
        "attention_mask": torch.cat([batch["attention_mask"], mask.long()], 1),
    }
    positions = models.position_ids(full["attention_mask"])

    def log_probabilities(active: Mapping[int, Edit]) -> torch.Tensor:
        with edited(model, active):
            hidden = model.base_model(**full, position_ids=positions, use_cache=False).last_hidden_state
        return torch.log_softmax(model.get_output_embeddings()(hidden[:, -response.shape[1] - 1 : -1]).float(), -1)

    ours, clean = log_probabilities(edits), log_probabilities({})
    return (((ours.exp() * (ours - clean)).sum(-1)) * mask).sum(1).double().cpu().numpy()
