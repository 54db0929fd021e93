"""The material of vectors from the artefacts of a cell: activations, labels and gates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.change.account.vectors import Difference
from lfp.change.choice import Pair
from lfp.feedback.rewards.base import Reward
from lfp.feedback.scoring import tokenize
from lfp.models.hooks import site_activations
from lfp.models.losses import divergences, token_values
from lfp.models.tokens import added_tokens, length_batches, pad_batch
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Steering
from lfp.steering import gates
from lfp.steering.changes import constant
from lfp.steering.strength import NeutralText, strengths_at
from lfp.steering.targeted import EffectMap, LatentReading, measured_map
from lfp.steering.vectors import Material

#: Share of the tokens, those at which the policy changes most of what feedback is about, that a
#: gate is to know.
CHANGED = 0.25


@dataclass(frozen=True)
class Attributes:
    """What a text is to have: positive feedback, and words that are wanted or are not.

    Parameters
    ----------
    reward
        The score of texts.
    words
        A sign and a set of words of every further attribute; 1 for words one of which is wanted,
        and -1 for words of which none is.
    """

    reward: Reward
    words: Sequence[tuple[float, frozenset[str]]]

    @classmethod
    def of(cls, reward: Reward, asked: Steering) -> Attributes:
        """The attributes of the settings."""
        lists = ((1.0, asked.wanted), (-1.0, asked.unwanted))
        words = [(sign, frozenset(map(str.lower, words))) for sign, words in lists if words]
        return cls(reward, words)

    @property
    def signs(self) -> list[float]:
        """The sign of every attribute; the first is positive feedback."""
        return [1.0, *(sign for sign, _ in self.words)]

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """The reward [text] of texts by themselves."""
        return np.asarray(self.reward([""] * len(texts), list(texts)), float)

    def with_words(self, texts: Sequence[str]) -> np.ndarray:
        """Whether each text has a word of each further attribute [text, attribute]."""
        tokens = [set(tokenize(text)) for text in texts] if self.words else [set()] * len(texts)
        rows = [[not words.isdisjoint(of) for _, words in self.words] for of in tokens]
        return np.array(rows, bool).reshape(len(texts), len(self.words))

    def measured(self) -> Reward:
        """What is measured of completions: the reward, or whether they have all that is asked for.

        The second is measured where there are further attributes; feedback above 0 is positive.
        """
        if not self.words:
            return self.reward
        wanted = np.array(self.signs[1:]) > 0

        def has_all(prompts: Sequence[str], completions: Sequence[str]) -> np.ndarray:
            words = (self.with_words(completions) == wanted).all(1)
            return (words & (self.scores(completions) > 0)).astype(float)

        return has_all


@dataclass(frozen=True)
class Read:
    """Texts of a pair of models, at the layer that is steered.

    Parameters
    ----------
    pair
        Base and policy.
    sae
        The dictionary of the layer and site.
    texts
        Token ids of held-out texts.
    batch_size
        Texts that are read at once.
    valence
        The value that feedback gives to every token of the vocabulary [token]; 0 for most.
    """

    pair: Pair
    sae: SparseAutoencoder
    texts: Sequence[Sequence[int]]
    batch_size: int
    valence: np.ndarray

    @property
    def front(self) -> int:
        """Tokens in front of a text that the tokenizer adds.

        They are left out: their activations are alike in all texts and may be hundreds of times as
        large as others, so that what counts them tells short texts from long ones.
        """
        return len(added_tokens(self.pair.tokenizer)[0])

    def activations(self, texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """The base's activations [token, width] of every text."""
        front = self.front
        layer, result = self.sae.layer, [torch.zeros(0, self.sae.d_in)] * len(texts)
        read = site_activations(
            self.pair.base, texts, [layer], self.pair.tokenizer.pad_token_id, self.batch_size,
            site=self.sae.site,
        )  # fmt: skip
        for index, mask, values in read:
            for row, keep, i in zip(values[layer], mask, index, strict=True):
                result[i] = row[keep][front:].float()
        return result

    def labelled(self, attributes: Attributes) -> tuple[torch.Tensor, torch.Tensor]:
        """Activations [token, width] of texts with feedback, and their attributes.

        Whether each token has each attribute is [token, attribute]. The texts are the third that
        the reward likes best, whose tokens alone have positive feedback, and the third that it
        likes least; those that it scores alike are of one kind. A token has words where one of them
        is in its sentence.
        """
        asked = self.pair.tokenizer.batch_decode(self.texts, skip_special_tokens=True)
        scores, front = attributes.scores(asked), self.front
        low, high = np.quantile(scores, [1 / 3, 2 / 3])
        chosen = np.flatnonzero((scores <= low) | (scores > high))
        values = self.activations([self.texts[i] for i in chosen])
        likes = np.repeat(scores[chosen] > high, [len(rows) for rows in values])
        tokenizer = self.pair.tokenizer
        sentences = [of for i in chosen for of in sentences_of(tokenizer, self.texts[i][front:])]
        words = attributes.with_words(tokenizer.batch_decode(sentences))
        of_token = np.repeat(words, [len(ids) for ids in sentences], axis=0)
        return torch.cat(values), torch.tensor(np.column_stack([likes, of_token]))

    @torch.no_grad()
    def changed_tokens(self) -> torch.Tensor:
        """Whether the policy changes what comes next at each token of the texts [token].

        Those are the :data:`CHANGED` of the tokens at which the valence that it expects of the next
        token differs most from the base's. Where the KL is largest there may be next to no reward,
        and most of the cost. It stands in where feedback has no value for any token.
        """
        base, policy, front = self.pair.base, self.pair.policy, self.front
        changes: list[torch.Tensor] = [torch.zeros(0)] * len(self.texts)
        for index in length_batches([len(ids) for ids in self.texts], self.batch_size):
            texts = [self.texts[i] for i in index]
            batch = pad_batch(texts, self.pair.tokenizer.pad_token_id, base.device)
            theirs, ours = (
                model.base_model(**batch, use_cache=False).last_hidden_state
                for model in (policy, base)
            )
            if self.valence.any():
                by_token = self._expected(policy, theirs) - self._expected(base, ours)
            else:
                by_token = divergences(policy, theirs, ours, base)
            for row, i in zip(by_token.abs(), index, strict=True):
                changes[i] = row[front : len(self.texts[i])].cpu()
        values = torch.cat(changes)
        return values > values.quantile(1 - CHANGED)

    def _expected(self, model: PreTrainedModel, states: torch.Tensor) -> torch.Tensor:
        """The valence [text, token] that a model expects of the next token in final states."""
        valence = torch.as_tensor(self.valence, dtype=torch.float32, device=states.device)
        return token_values(
            model, states, states, lambda logits, _: logits.float().softmax(-1) @ valence
        )


def sentences_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> list[list[int]]:
    """The token ids of each sentence of a text; a sentence ends with a token that has a full stop.

    An exclamation or a question mark ends it as well.
    """
    ends = [bool(set(".!?") & set(tokenizer.decode([i]))) for i in ids]
    starts = [0, *(place + 1 for place, end in enumerate(ends[:-1]) if end), len(ids)]
    return [list(ids[start:end]) for start, end in pairwise(starts) if end > start]


def vector_material(
    read: Read,
    explanations: pd.DataFrame,
    attributes: Attributes,
    reading: LatentReading,
    neutral: NeutralText,
    asked: Steering,
    seed: int,
) -> Material:
    """What the vectors of a cell are made of.

    Parameters
    ----------
    read
        The pair of models, the dictionary of the steered layer, and held-out texts.
    explanations
        A row per latent with its statistics and its verdict.
    attributes
        What texts are to have.
    reading
        Measures effects on latents.
    neutral
        Text on which the length of the measured directions is found.
    asked
        Costs, and numbers of random vectors and of directions.
    seed
        Seed of what is drawn.
    """
    sae, pair = read.sae, read.pair
    generator = torch.Generator().manual_seed(seed)
    pad = pair.tokenizer.pad_token_id
    difference = Difference(
        pair.base, pair.policy, read.texts, pad, sae.site, asked.draws, generator, read.front
    )
    values, labels = read.labelled(attributes)
    of_words = [
        _telling(sae.latents(values), has, sign)
        for has, sign in zip(labels.T[1:], attributes.signs[1:], strict=True)
    ]

    @cache
    def effects() -> EffectMap:
        unit = torch.nn.functional.normalize(torch.randn(sae.d_in, generator=generator), dim=0)
        along = constant({sae.layer: unit})
        # So far that a random direction costs something, and does not break the model; where none
        # costs as much, as far as activations are long.
        [length] = strengths_at(lambda at: neutral.rise(along, at), [float(np.median(asked.costs))])
        if np.isnan(length):
            length = float(torch.cat(read.activations(read.texts)).norm(dim=1).median())
        return measured_map(reading, asked.directions, length, seed)

    return Material(
        difference=difference,
        layer=sae.layer,
        values=values,
        labels=labels,
        directions=sae.W_dec.detach(),
        related=[_related(explanations, sae.layer), *of_words],
        effects=effects,
        seed=seed,
        signs=attributes.signs,
    )


def _related(explanations: pd.DataFrame, layer: int) -> dict[int, float]:
    """The latents of a layer that are related to feedback, the most related first, with signs."""
    of_layer = explanations[(explanations["layer"] == layer) & explanations["related"]]
    order = of_layer["direction"].abs().sort_values(ascending=False, kind="stable").index
    signs = np.sign(of_layer.loc[order, "direction"].fillna(1.0))
    return dict(zip(of_layer.loc[order, "feature"].tolist(), signs.tolist(), strict=True))


def _telling(latents: torch.Tensor, has: torch.Tensor, sign: float) -> dict[int, float]:
    """The latent of `latents` [token, latent] that tells best whether texts have an attribute.

    It is the one whose mean differs most between tokens of texts with and without it (`has`), in
    standard deviations. Its sign is that of the difference times the attribute's `sign`. There is
    none where all texts are alike.
    """
    if bool(has.all()) or not bool(has.any()):
        return {}
    spread = latents.std(0).clamp(min=torch.finfo().tiny)
    difference = (latents[has].mean(0) - latents[~has].mean(0)) / spread
    best = int(difference.abs().argmax())
    return {best: sign * float(difference[best].sign())} if difference[best] else {}


def gates_of(read: Read, share: float, seed: int) -> dict[str, gates.Probe]:
    """The gates of a cell by name, each open at a `share` of the tokens.

    Beside the gate that knows where the policy changes something stands one that has learned from
    the same labels in random order. There are none where the policy is its base.
    """
    values, changed = torch.cat(read.activations(read.texts)), read.changed_tokens()
    if not changed.any():
        return {}
    order = torch.randperm(len(changed), generator=torch.Generator().manual_seed(seed))
    return {
        name: gates.fitted_gate(values, labels, share)
        for name, labels in (("gate", changed), ("shuffled gate", changed[order]))
    }
