"""The material of selectors from the artefacts of a cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.change.account.vectors import Difference
from lfp.interventions.prompts import neutral_sentences
from lfp.interventions.selection import FeatureSet, explained_set
from lfp.interventions.selectors.circuit import COLUMNS as CIRCUIT_COLUMNS
from lfp.interventions.selectors.circuit import circuit
from lfp.interventions.selectors.criteria import criteria
from lfp.interventions.selectors.factorisation import COLUMNS as INTERACTION_COLUMNS
from lfp.interventions.selectors.factorisation import interaction_rows
from lfp.interventions.selectors.material import Material
from lfp.interventions.selectors.metrics import (
    ExpectedValence,
    Metric,
    answer_margin,
    token_valences,
)
from lfp.interventions.selectors.rankings import valence_direction
from lfp.models.tokens import added_tokens, encode
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import DPO, Ablation, Interventions
from lfp.texts.corpora import documents


@dataclass(frozen=True)
class Held:
    """Held-out texts of a cell, the feedback on them, and how they are read.

    Parameters
    ----------
    tokenizer
        The tokenizer of both models.
    corpus
        The held-out split of the task's corpus.
    lexicon
        Value by word of the feedback.
    settings
        Settings of the job: ``interventions``, ``ablation``, ``dpo``, ``feedback``, and
        ``max_tokens`` of a text.
    """

    tokenizer: PreTrainedTokenizerBase
    corpus: pd.DataFrame
    lexicon: Mapping[str, float]
    settings: Mapping[str, Any]

    @property
    def ablation(self) -> Ablation:
        """Prompts, new tokens and batches."""
        return Ablation.of(self.settings["ablation"])

    @property
    def asked(self) -> Interventions:
        """Selectors, actions and their numbers."""
        return Interventions.of(self.settings["interventions"])

    def texts(self) -> list[list[int]]:
        """Token ids of the texts that effects of single latents are measured on."""
        texts = documents(self.corpus)[: self.asked.texts]
        return encode(self.tokenizer, texts, self.settings["max_tokens"])

    def sentences(self, most: bool) -> list[list[int]]:
        """Token ids of the sentences with the most or the least feedback."""
        how = self.ablation
        texts = documents(self.corpus)
        chosen = neutral_sentences(texts, self.lexicon, how.neutral_texts, most=most)
        return encode(self.tokenizer, chosen, how.neutral_tokens)

    def valences(self, model: PreTrainedModel) -> np.ndarray:
        """The valence of every token of the vocabulary."""
        vocabulary = model.get_output_embeddings().weight.shape[0]
        return token_valences(self.tokenizer, self.lexicon, vocabulary)

    def metric(self, model: PreTrainedModel) -> Metric:
        """The number that latents are held to account for, by the kind of feedback."""
        batch = self.ablation.batch_size
        if self.settings["feedback"] == "preference":
            dpo = DPO.of(self.settings["dpo"])
            return answer_margin(self.tokenizer, self.corpus, self.asked.texts, dpo, batch)
        pad = self.tokenizer.pad_token_id
        return ExpectedValence(self.texts(), self.valences(model), pad, batch)


def gathered(
    model: PreTrainedModel,
    other: PreTrainedModel,
    autoencoders: dict[int, SparseAutoencoder],
    explanations: pd.DataFrame,
    probe_weight: np.ndarray | None,
    held: Held,
    seed: int,
) -> Material:
    """What the selectors of a cell choose from.

    Parameters
    ----------
    model, other
        The model that is changed, and the other one of policy and base.
    autoencoders
        Autoencoders by layer.
    explanations
        A row per latent with its statistics and its verdict.
    probe_weight
        Weights of the policy's probe, where a selector reads them.
    held
        Held-out texts and the feedback.
    seed
        Seed of what is drawn.
    """
    return Material(
        explanations=explanations,
        related=explained_set(explanations),
        probe_weight=probe_weight,
        rng=np.random.default_rng(seed),
        model=model,
        autoencoders=autoencoders,
        metric=held.metric(model),
        asked=held.asked,
        directions=_directions(model, other, autoencoders, held),
        neutral=held.sentences(most=False),
        rewarded=held.sentences(most=True),
        front=len(added_tokens(held.tokenizer)[0]),
        seed=seed,
    )


def _directions(
    model: PreTrainedModel,
    other: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    held: Held,
) -> dict[int, torch.Tensor]:
    """The directions by layer that decoder rows are held against."""
    layers: Sequence[int] = list(autoencoders)
    if held.asked.direction == "valence":
        return valence_direction(model, held.valences(model), layers)
    texts, site = held.texts(), site_of(autoencoders)
    if not texts:
        return {layer: torch.zeros(sae.d_in) for layer, sae in autoencoders.items()}
    pad, generator = held.tokenizer.pad_token_id, torch.Generator().manual_seed(0)
    front = len(added_tokens(held.tokenizer)[0])
    shift = Difference(other, model, texts, pad, site, 0, generator, front).vectors(layers)
    return {layer: vectors[0] for layer, vectors in shift.items()}


def accounts(material: Material, chosen: Mapping[str, FeatureSet]) -> dict[str, pd.DataFrame]:
    """What is known of the `chosen` sets and of single latents, by the name of its file.

    Interactions and circuits have no row where nothing asks for them, and where there is no text to
    measure them on.
    """
    asked = material.asked
    pairs = "factorisation" in chosen and len(material.interactions.latents) > 1
    pairs = pairs and material.metric.n > 0
    return {
        "sets": criteria(material, chosen),
        "effects": material.effects,
        "interactions": interaction_rows(material)
        if pairs
        else pd.DataFrame(columns=INTERACTION_COLUMNS),
        "circuit": circuit(material) if asked.circuit else pd.DataFrame(columns=CIRCUIT_COLUMNS),
    }
