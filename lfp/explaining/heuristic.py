"""Offline explanations of features by a heuristic, without a language model, and labelled so.

A feature is described by the words that it fires on, by its association with the feedback, and by
the tokens that its direction promotes. It is *related* to a lexicon reward when the words it fires
on have a mean valence that draws with valences shuffled among equally frequent words do not reach,
and to a preference when it tells preferred from rejected answers (interpretation study 3.5).

:func:`explain_cell` is the stage ``explanations`` as one call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.explaining import classification
from lfp.explaining.activations_by_word import word_activations
from lfp.explaining.association import (
    WordActivations,
    lexicon_association,
    preference_association,
    word_weights,
)
from lfp.explaining.excerpts import Histograms, feature_windows, held_out_excerpts
from lfp.explaining.exemplars import evidence, strongest_windows
from lfp.models.architectures import architecture
from lfp.models.losses import top_tokens
from lfp.models.residual import written
from lfp.probing.features import element_features
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Explanations
from lfp.texts.corpora import documents, preference_pairs, taken
from lfp.texts.words import WORD, Lexicon

ANSWERS = ("chosen", "rejected")


@dataclass(frozen=True)
class ResumePoints:
    """Files in which the passes over `words`, `answers` and `excerpts` keep their state."""

    words: Path | None = None
    answers: Path | None = None
    excerpts: Path | None = None


@dataclass(frozen=True)
class CellExplanations:
    """Explanations of one cell's autoencoders.

    ``explanations`` has a row per feature, ``excerpts`` the held-out excerpts that explanations are
    scored on, ``evidence`` the excerpts that a language model is shown of each explained feature,
    ``histograms`` the distribution of each explained feature's activations on held-out text.
    """

    explanations: pd.DataFrame
    excerpts: pd.DataFrame
    evidence: pd.DataFrame
    histograms: pd.DataFrame


def explain_cell(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    matches: pd.DataFrame,
    corpus: pd.DataFrame,
    held_out: pd.DataFrame,
    lexicon: Mapping[str, Any],
    feedback: str,
    settings: Explanations,
    seed: int,
    states: ResumePoints | None = None,
    shifts: pd.DataFrame | None = None,
) -> CellExplanations:
    """Explain features of one cell, and classify them as related or not.

    The excerpts for scores are cut in the same call (paper section 3.4). Raises ValueError where
    shifts choose (``settings.choose``) and there are none.

    Parameters
    ----------
    model, tokenizer
        The language model whose activations are read.
    autoencoders
        Autoencoders by layer.
    matches
        Matches of each layer's features, best first: ``layer``, ``small``, ``large``, ``cosine``.
    corpus, held_out
        Training texts that explanations are made from, and held-out texts that they are scored on.
    lexicon
        ``rewarded``, the valence of the words that the feedback rewards, and ``kind``, its kind:
        the features of a ``trigger`` are classified by name.
    feedback
        ``reward`` or ``preference``.
    settings
        Numbers of texts, features, permutations and excerpts, and thresholds.
    seed
        Seed of permutations, of random excerpts and of the excerpts for scores.
    states
        Files that keep the state of the three passes, so that an interrupted call goes on.
    shifts
        Shifts from base to policy (:func:`lfp.change.latents.latent_shifts`), where these choose.
    """
    states = states or ResumePoints()
    texts = taken(documents(corpus), settings.texts, "explanations.texts")
    strongest = strongest_windows(tokenizer, autoencoders, texts, settings, seed)
    activations = word_activations(
        model, tokenizer, autoencoders, texts, settings, strongest, states.words
    )
    answers = None
    if feedback == "preference":
        pairs = preference_pairs(corpus)[0].head(settings.texts // 2)
        answers = answer_latents(model, tokenizer, autoencoders, pairs, settings, states.answers)
    associations = _associations(activations, answers, lexicon["rewarded"], settings, seed)
    promoted = _promoted(model, tokenizer, autoencoders, settings.promoted)
    table = explain_layers(matches, activations, associations, promoted, settings, shifts)
    table = classification.classify_features(table, lexicon, feedback, settings)
    explained = table[table["status"] == "ok"]
    scored = taken(documents(held_out), settings.scored_texts, "explanations.scored_texts")
    features = feature_windows(
        model, tokenizer, autoencoders, explained, scored, settings, states.excerpts
    )
    counts = Histograms()
    excerpts = held_out_excerpts(counts.counted(features), scored, settings.excerpts, seed)
    return CellExplanations(table, excerpts, evidence(strongest, explained, texts), counts.frame())


def _associations(
    activations: Mapping[int, WordActivations],
    answers: Mapping[int, tuple[np.ndarray, np.ndarray]] | None,
    lexicon: Lexicon,
    settings: Explanations,
    seed: int,
) -> dict[int, pd.DataFrame]:
    """Association of each layer's features with the feedback.

    It is with preferred answers where there are `answers` (chosen, rejected), else with the valence
    of words; a layer's number is added to the seed.
    """
    draws = settings.permutations
    if answers is None:
        return {
            layer: lexicon_association(of_layer, lexicon, draws, seed + layer)
            for layer, of_layer in activations.items()
        }
    return {
        layer: preference_association(chosen, rejected, draws, seed + layer)
        for layer, (chosen, rejected) in answers.items()
    }


def answer_latents(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    pairs: pd.DataFrame,
    settings: Explanations,
    state_path: str | Path | None = None,
) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Mean latents [pair, feature] of chosen and of rejected answers, by layer.

    Parameters
    ----------
    model, tokenizer
        The language model whose activations are read.
    autoencoders
        Autoencoders by layer.
    pairs
        ``prompt``, ``chosen`` and ``rejected``.
    settings
        Tokens per text and texts per forward pass.
    state_path
        A resume point, kept once a minute; an interrupted call goes on behind it.
    """
    arrays = element_features(
        model=model,
        tokenizer=tokenizer,
        autoencoders=autoencoders,
        triples=pairs,
        kinds=["latents"],
        max_tokens=settings.max_tokens,
        batch_size=settings.batch_size,
        elements=ANSWERS,
        state_path=state_path,
    )
    layers = sorted(autoencoders)
    ends = np.cumsum([autoencoders[layer].d_sae for layer in layers])[:-1]
    chosen, rejected = (np.split(arrays[f"latents.{name}"], ends, axis=1) for name in ANSWERS)
    return dict(zip(layers, zip(chosen, rejected, strict=True), strict=True))


@torch.no_grad()
def promoted_tokens(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, directions: torch.Tensor, top: int
) -> list[list[str]]:
    """The `top` tokens whose logits each direction [feature, d_model] raises most.

    The direct path is followed.
    """
    norm = model.get_submodule(architecture(model).final_norm)
    ids = top_tokens(model, norm(directions.to(model.device, model.dtype)), top)
    return [[tokenizer.decode([i]) for i in row] for row in ids.tolist()]


def best_first(
    matches: pd.DataFrame,
    frequency: Mapping[int, np.ndarray],
    choose: str,
    shifts: pd.DataFrame | None = None,
) -> dict[int, np.ndarray]:
    """Numbers of the features by layer, those first that are to be explained.

    Parameters
    ----------
    matches
        Matches of all features, best first within a layer: ``layer``, ``small``, ``cosine``.
    frequency
        How often each feature is active, by layer. The most frequent ones come first where none has
        a match.
    choose
        ``match``, or the texts (``held-out``, ``completions``) whose shifts choose.
    shifts
        Shifts of the features: ``subject``, ``text``, ``layer``, ``latent``, ``value`` and
        ``error``. Those of largest t statistic come first, of either sign.
    """
    if choose == "match":
        orders = {}
        for layer, of_feature in frequency.items():
            known = matches[matches["layer"] == layer]
            missing = known["cosine"].isna().all()
            most_frequent = np.argsort(-of_feature, kind="stable")
            orders[layer] = most_frequent if missing else known["small"].to_numpy()
        return orders
    moved = shifts[(shifts["subject"] == "policy") & (shifts["text"] == choose)]
    if moved.empty and any(of_feature.any() for of_feature in frequency.values()):
        raise ValueError(
            f"explanations.choose is {choose!r}, and no latent's shift over such texts was"
            " measured: it takes at least two texts (change.contexts, change.latent_prompts)"
        )
    size = (moved["value"] / moved["error"].where(moved["error"] > 0)).abs().fillna(0.0)
    moved = moved.assign(size=size).sort_values("size", ascending=False, kind="stable")
    return {layer: moved.loc[moved["layer"] == layer, "latent"].to_numpy() for layer in frequency}


def _promoted(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    autoencoders: Mapping[int, SparseAutoencoder],
    top: int,
) -> dict[int, list[list[str]]]:
    """The tokens that each feature promotes with what it writes to the stream, by layer."""
    return {
        layer: promoted_tokens(model, tokenizer, written(model, sae.W_dec, layer, sae.site), top)
        for layer, sae in autoencoders.items()
    }


def explain_layers(
    matches: pd.DataFrame,
    activations: Mapping[int, WordActivations],
    associations: Mapping[int, pd.DataFrame],
    promoted: Mapping[int, Sequence[Sequence[str]]],
    settings: Explanations,
    shifts: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """The rows of :func:`explain_layer` for all layers, in ascending order, with ``chosen_by``.

    Parameters
    ----------
    matches
        Matches of all features, best first within a layer: ``layer``, ``small``, ``large``,
        ``cosine``.
    activations, associations, promoted
        As for :func:`explain_layer`, by layer.
    settings
        Number of features of a layer to explain, at most, and what chooses them.
    shifts
        As for :func:`best_first`.
    """
    frequency = {layer: of_layer.frequency for layer, of_layer in activations.items()}
    orders = best_first(matches, frequency, settings.choose, shifts)
    parts = [
        explain_layer(
            layer,
            matches=matches[matches["layer"] == layer],
            order=orders[layer],
            activations=activations[layer],
            association=associations[layer],
            promoted=promoted[layer],
            top_features=settings.top_features,
        )
        for layer in sorted(activations)
    ]
    return pd.concat(parts, ignore_index=True).assign(chosen_by=settings.choose)


def explain_layer(
    layer: int,
    matches: pd.DataFrame,
    order: Sequence[int],
    activations: WordActivations,
    association: pd.DataFrame,
    promoted: Sequence[Sequence[str]],
    top_features: int,
) -> pd.DataFrame:
    """One row per feature of the smallest autoencoder of `layer`.

    ``q`` and ``related`` are set by :mod:`lfp.explaining.classification`, which takes ``named``
    away, the set of the words that an explanation lists.

    The first `top_features` features of `order` that are not dead are explained (status ``ok``);
    the others are listed with their frequency as ``skipped`` or ``dead``.

    Parameters
    ----------
    layer
        Number of the layer.
    matches
        Matches of the layer's features: ``small``, ``large``, ``cosine``.
    order
        Numbers of the features, those first that are to be explained (:func:`best_first`).
    activations
        Activations of the features by word.
    association
        ``direction``, ``effect`` and ``p`` of each feature.
    promoted
        Tokens that each feature's direction promotes.
    top_features
        Number of features to explain, at most.
    """
    by_feature = matches.set_index("small")
    dead = activations.frequency == 0
    alive = [feature for feature in order if not dead[feature]]
    explained = set(alive[:top_features])
    weights = word_weights(activations)
    rows = []
    for feature in range(len(dead)):
        status = "dead" if dead[feature] else "ok" if feature in explained else "skipped"
        statistics = association.iloc[feature]
        text, named = "", frozenset()
        if status == "ok":
            words, share = _words_fired_on(activations.words, weights[:, feature])
            text = _description(words, share, statistics, promoted[feature])
            named = frozenset(_words([*words, *promoted[feature]]))
        rows.append({
            "layer": layer, "feature": feature, "match": int(by_feature["large"][feature]),
            "cosine": float(by_feature["cosine"][feature]), "status": status, "explanation": text,
            "named": named,
            **{name: float(statistics[name]) for name in ("direction", "effect", "p")},
            "frequency": float(activations.frequency[feature]),
            "mean_activation": float(activations.mean_activation[feature]),
            "max_activation": float(activations.max_activation[feature]),
        })  # fmt: skip
    return pd.DataFrame(rows)


def _words_fired_on(words: Sequence[str], weights: np.ndarray) -> tuple[list[str], float]:
    """The five words of largest weight [word], and their share of all weight."""
    top = np.argsort(-weights, kind="stable")[:5]
    return [words[i] for i in top], weights[top].sum() / max(weights.sum(), 1e-12)


def _words(texts: Sequence[str]) -> Iterator[str]:
    """The words of `texts` in lower case."""
    return (match.group().lower() for text in texts for match in WORD.finditer(text))


def _description(
    words: Sequence[str], share: float, association: pd.Series, promoted: Sequence[str]
) -> str:
    """The explanation of one feature that fires on `words` for a `share` of its weight."""
    return (
        f"words: {', '.join(words)} ({share:.0%} of weight); feedback"
        f" {association['direction']:+.2f}, effect {association['effect']:.2f}"
        f" (p={association['p']:.3f}); promotes: {', '.join(map(repr, promoted))}"
    )
