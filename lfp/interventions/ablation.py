"""Ablating features while the model writes, and what that costs in reward (paper section 4.2, Table
6).

The features' contribution is taken out of the MLP output and the autoencoder's error is kept: x' =
x - sum over i in S of (f_i - c_i) d_i, where c_i is what takes the feature's place, so that an
empty set changes nothing at all. (The published notebook zeroes dimensions of the reconstruction in
a randomly initialised network: paper_vs_code F6.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards import Reward
from lfp.files.artefacts import read_table, write_table
from lfp.files.provenance import ArtefactError
from lfp.files.resume import Clock
from lfp.interventions.selectors import FeatureSet
from lfp.models.architectures import output_logits
from lfp.models.generation import decode_responses, generate, response_mask
from lfp.models.hooks import Edit, edited
from lfp.models.tokens import pad_batch, position_ids, tokenize
from lfp.reporting.progress import Progress
from lfp.sae.autoencoder import SparseAutoencoder, reconstruct
from lfp.texts.words import WORD, Lexicon

ARMS = ("none", "reconstruction", "explained", "random", "top_probe_weight", "top_match_unrelated")
INTERVENTIONS = ("zero", "mean", "negative")
#: What is kept of a completion.
COLUMNS = ("prompt", "reward", "kl", "tokens", "distinct_2", "completion")


def set_features(
    sae: SparseAutoencoder,
    features: Sequence[int],
    intervention: str = "zero",
    means: np.ndarray | None = None,
) -> Edit:
    """An edit that sets `features` of an MLP output to 0, to their `means` [feature], or to minus
    themselves.

    The autoencoder's error is kept. ValueError for an unknown intervention.
    """
    if intervention not in INTERVENTIONS:
        raise ValueError(
            f"intervention: expected one of {', '.join(INTERVENTIONS)}, got {intervention!r}"
        )
    index = torch.as_tensor(list(features), dtype=torch.long, device=sae.b_dec.device)
    encoder, bias, decoder = sae.W_enc[:, index], sae.b_enc[index], sae.W_dec[index]
    kept = (
        torch.as_tensor(means[list(features)], dtype=torch.float32, device=index.device)
        if means is not None
        else 0.0
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
    """The edits of an arm by layer; `features` is read by the arms that ablate, `means` by the
    intervention `mean`.
    """
    if arm == "none":
        return {}
    if arm == "reconstruction":
        return {layer: reconstruct(sae) for layer, sae in autoencoders.items()}
    if arm in ARMS:
        return {
            layer: set_features(
                sae, features.get(layer, ()), intervention, means[layer] if means else None
            )
            for layer, sae in autoencoders.items()
        }
    raise ValueError(f"arm: expected one of {', '.join(ARMS)}, got {arm!r}")


def neutral_sentences(
    texts: Sequence[str], lexicon: Lexicon, n: int, min_words: int = 6
) -> list[str]:
    """The `n` sentences of `texts` whose words hold the least feedback: lowest absolute mean of
    `lexicon`.

    Sentences of fewer than `min_words` words and repeated ones are left out; ValueError if none of
    some is left.
    """
    sentences = dict.fromkeys(
        part.strip() for text in texts for part in re.split(r"(?<=[.!?])\s+|\n+", text)
    )
    scored = []
    for sentence in sentences:
        words = [match.group().lower() for match in WORD.finditer(sentence)]
        if len(words) >= min_words:
            scored.append(
                (abs(sum(lexicon.get(word, 0.0) for word in words)) / len(words), sentence)
            )
    if texts and not scored:
        raise ValueError(
            f"no held-out sentence has {min_words} words; the cross-entropy needs neutral text"
        )
    return [sentence for _, sentence in sorted(scored, key=lambda pair: pair[0])[:n]]


def prefix_tokens(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], length: int, n: int
) -> list[list[int]]:
    """The first `length` tokens of the first `n` texts that are longer than that; ValueError if
    none of some is.
    """
    encoded = tokenize(tokenizer, texts)["input_ids"]
    prefixes = [ids[:length] for ids in encoded if len(ids) > length][:n]
    if texts and not prefixes:
        raise ValueError(
            f"no held-out text is longer than {length} tokens; lower ablation.prefix_tokens"
        )
    return prefixes


def stacked(conditions: Sequence[Mapping[int, Edit]]) -> dict[int, Edit]:
    """Edits of a batch whose equal parts, one behind the other, are each under its own
    condition.
    """

    def edit_of(layer: int) -> Edit:
        own = [edits.get(layer) for edits in conditions]

        def edit(x: torch.Tensor) -> torch.Tensor:
            parts = zip(own, x.chunk(len(own)), strict=True)
            return torch.cat([part if change is None else change(part) for change, part in parts])

        return edit

    return {
        layer: edit_of(layer)
        for layer in sorted({layer for edits in conditions for layer in edits})
    }


def completion_rewards(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conditions: Sequence[Mapping[int, Edit]],
    prefixes: Sequence[Sequence[int]],
    reward: Reward,
    new_tokens: int,
    batch_size: int,
    seed: int,
    state_path: str | Path | None = None,
) -> list[pd.DataFrame]:
    """Sample and score a completion to every prefix under the edits of each condition, a data frame
    for each.

    Columns: ``prompt``, ``reward``, ``kl`` (exact divergence of the edited from the untouched model
    on its own completion, nats, summed over tokens), ``tokens``, ``distinct_2`` (distinct over all
    pairs of neighbouring tokens), ``completion``. Every condition draws the same uniforms (common
    random numbers), so differences are paired. As many conditions go through the model together as
    `batch_size` has room for. With `state_path` what is scored is kept there once a minute, and an
    interrupted call goes on behind it.
    """
    frames: list[list[pd.DataFrame]] = [[] for _ in conditions]
    bar, clock = Progress(total=len(conditions) * len(prefixes), desc="completions"), Clock()
    scored = _scored_before(state_path) if state_path else {}
    for start in range(0, len(prefixes), batch_size):
        part = prefixes[start : start + batch_size]
        together = max(1, batch_size // len(part))
        for first in range(0, len(conditions), together):
            chosen = conditions[first : first + together]
            if (start, first) not in scored:
                found = _completions(model, tokenizer, chosen, part, new_tokens, seed + start)
                asked = tokenizer.batch_decode(part, skip_special_tokens=True) * len(chosen)
                found.insert(1, "reward", reward(asked, list(found["completion"])))
                found["prompt"] += start
                scored[start, first] = found
                if state_path and clock.due():
                    kept = [
                        frame.assign(start=key[0], first=key[1]) for key, frame in scored.items()
                    ]
                    write_table(state_path, pd.concat(kept, ignore_index=True), {})
            found = scored[start, first]
            for i in range(len(chosen)):
                rows = found.iloc[i * len(part) : (i + 1) * len(part)].reset_index(drop=True)
                frames[first + i].append(rows)
            bar.update(len(found))
    bar.close()
    if not prefixes:
        return [pd.DataFrame(columns=COLUMNS) for _ in conditions]
    return [pd.concat(parts, ignore_index=True) for parts in frames]


def _scored_before(state_path: str | Path) -> dict[tuple[int, int], pd.DataFrame]:
    """What an interrupted call scored, by the place of its batch; nothing where that cannot be
    read.
    """
    try:
        frame = read_table(state_path)
    except (FileNotFoundError, ArtefactError):
        return {}
    groups = frame.groupby(["start", "first"], sort=False)
    return {
        key: part.drop(columns=["start", "first"]).reset_index(drop=True) for key, part in groups
    }


def _completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conditions: Sequence[Mapping[int, Edit]],
    prefixes: Sequence[Sequence[int]],
    new_tokens: int,
    seed: int,
) -> pd.DataFrame:
    """One unscored batch of :func:`completion_rewards`: all `prefixes` under the first condition,
    then the next, ...
    """
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    edits, groups = stacked(conditions), len(conditions)
    batch = pad_batch(list(prefixes) * groups, pad, model.device, left=True)
    with edited(model, edits):
        response = generate(model, batch, new_tokens, seed, eos, pad, groups)
    lengths = torch.full((len(response),), new_tokens, device=response.device)
    mask = response_mask(response, lengths, eos)
    completions = decode_responses(tokenizer, response, mask)
    rows = [row[keep].tolist() for row, keep in zip(response.cpu(), mask.cpu(), strict=True)]
    untouched = np.repeat([not own for own in conditions], len(prefixes))
    return pd.DataFrame({
        "prompt": np.tile(np.arange(len(prefixes)), groups),
        "kl": np.where(untouched, 0.0, _divergence(model, edits, batch, response, mask)),
        "tokens": [len(row) for row in rows], "distinct_2": [distinct_2(row) for row in rows],
        "completion": completions,
    })  # fmt: skip


def distinct_2(tokens: Sequence[int]) -> float:
    """Distinct over all pairs of neighbouring tokens (Li et al. 2016); 1 for a text with fewer than
    two tokens.
    """
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
    """KL [row] of the edited from the untouched model over the response's positions, exactly 0
    without edits.
    """
    if not edits:
        return np.zeros(len(response))
    full = {
        "input_ids": torch.cat([batch["input_ids"], response], 1),
        "attention_mask": torch.cat([batch["attention_mask"], mask.long()], 1),
    }
    positions = position_ids(full["attention_mask"])

    def log_probabilities(active: Mapping[int, Edit]) -> torch.Tensor:
        with edited(model, active):
            hidden = model.base_model(
                **full, position_ids=positions, use_cache=False
            ).last_hidden_state
        return torch.log_softmax(
            output_logits(model, hidden[:, -response.shape[1] - 1 : -1]).float(), -1
        )

    ours, clean = log_probabilities(edits), log_probabilities({})
    return (((ours.exp() * (ours - clean)).sum(-1)) * mask).sum(1).double().cpu().numpy()


def headline(labels: Sequence[Mapping[str, Any]], completions: Sequence[pd.DataFrame]) -> str:
    """Mean reward of every arm, over its draws and interventions, in a line."""
    if all(frame.empty for frame in completions):
        return "no held-out text to prompt with"
    arms: dict[str, list[float]] = {}
    for label, frame in zip(labels, completions, strict=True):
        arms.setdefault(label["arm"], []).append(frame["reward"].mean())
    return "reward " + ", ".join(f"{arm} {np.mean(values):.3f}" for arm, values in arms.items())
