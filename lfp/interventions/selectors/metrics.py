"""Numbers of a model that have gradients: what single latents are held to account for.

The reward of sampled text has no gradient, and is too noisy for one latent among hundreds. In its
place stands what the model would rather say: for a lexicon the valence that it expects of the next
token, m = sum over v of p(v) r(v), at the positions in front of scored words; for preferences beta
times the log-probability of the preferred answer minus that of the other one, whose gradient is
that of the implicit reward margin, for its reference does not move.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.change.candidates import candidates
from lfp.finetune.dpo import encode_pairs
from lfp.interventions.completions import stacked
from lfp.models.hooks import Edit, edited
from lfp.models.losses import log_probabilities, token_values
from lfp.models.tokens import length_batches, pad_batch
from lfp.settings import DPO
from lfp.texts.corpora import preference_pairs

#: A batch of token ids and their mask [row, token].
Batch = dict[str, torch.Tensor]


class Metric(ABC):
    """A number of a model on every instance, a sum over the instance's rows of tokens.

    Parameters
    ----------
    sequences
        Token ids [row].
    owners
        The instance of every row [row], numbered from 0.
    pad
        The padding token's id.
    batch_size
        Rows that are read at once.
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], owners: Sequence[int], pad: int, batch_size: int
    ) -> None:
        self.sequences, self.owners = list(sequences), np.asarray(owners, dtype=np.int64)
        self.pad, self.batch_size = pad, batch_size
        #: Number of instances.
        self.n = int(self.owners.max()) + 1 if len(self.owners) else 0

    @abstractmethod
    def scores(self, model: PreTrainedModel, batch: Batch, rows: np.ndarray) -> torch.Tensor:
        """The number [row] of the `rows` of a batch, with gradients where they are taken."""

    def batches(
        self, device: torch.device, together: int = 1
    ) -> Iterator[tuple[np.ndarray, Batch]]:
        """Rows in batches with their tokens, every batch `together` times in a row."""
        lengths = [len(sequence) for sequence in self.sequences]
        for index in length_batches(lengths, self.batch_size):
            rows = np.tile(index, together)
            yield rows, pad_batch([self.sequences[i] for i in rows], self.pad, device)

    @torch.no_grad()
    def measured(
        self,
        model: PreTrainedModel,
        conditions: Sequence[Mapping[int, Edit]],
        site: str,
    ) -> np.ndarray:
        """The number [condition, instance] under the edits of each condition.

        As many conditions go through the model together as a batch has room for.
        """
        result = np.zeros((len(conditions), self.n))
        largest = min(self.batch_size, max(1, len(self.sequences)))
        at_once = max(1, self.batch_size // largest)
        for first in range(0, len(conditions), at_once):
            chosen = conditions[first : first + at_once]
            for rows, batch in self.batches(model.device, len(chosen)):
                with edited(model, stacked(chosen), site):
                    values = self.scores(model, batch, rows).double().cpu().numpy()
                places = np.repeat(np.arange(len(chosen)), len(rows) // len(chosen))
                np.add.at(result, (first + places, self.owners[rows]), values)
        return result


class ExpectedValence(Metric):
    """The valence that a model expects of the next token, in the mean over positions of a text.

    Parameters
    ----------
    sequences
        Token ids of texts; those without a scored word are left out.
    valence
        The valence r(v) of every token of the vocabulary [token]; 0 for most.
    pad, batch_size
        The padding token's id, and texts that are read at once.
    """

    def __init__(
        self, sequences: Sequence[Sequence[int]], valence: np.ndarray, pad: int, batch_size: int
    ) -> None:
        scored = [ids for ids in sequences if np.any(valence[np.asarray(ids[1:], dtype=int)])]
        super().__init__(scored, range(len(scored)), pad, batch_size)
        self.valence = torch.tensor(valence, dtype=torch.float32)

    def scores(self, model: PreTrainedModel, batch: Batch, rows: np.ndarray) -> torch.Tensor:
        """The mean [row] of m over the positions in front of scored words."""
        valence = self.valence.to(model.device)
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]
        asked = (valence[batch["input_ids"][:, 1:]] != 0) & batch["attention_mask"][:, 1:].bool()
        expected = token_values(
            model, hidden[asked], hidden[asked], lambda logits, _: logits.softmax(-1) @ valence
        )
        row = asked.nonzero()[:, 0]
        sums = torch.zeros(len(rows), device=expected.device, dtype=expected.dtype)
        return sums.index_add(0, row, expected) / asked.sum(1)


class AnswerMargin(Metric):
    """beta * [log p(chosen) - log p(rejected)] of pairs of answers.

    Parameters
    ----------
    pairs
        ``prompt_ids``, ``chosen_ids`` and ``rejected_ids`` of every pair, as
        :func:`lfp.finetune.dpo.encode_pairs` gives them.
    beta
        The coefficient of the implicit reward.
    max_length
        Tokens of prompt and answer, at most.
    pad, batch_size
        The padding token's id, and answers that are read at once.
    """

    def __init__(
        self,
        pairs: Sequence[Mapping[str, Sequence[int]]],
        beta: float,
        max_length: int,
        pad: int,
        batch_size: int,
    ) -> None:
        rows = [
            ((*pair["prompt_ids"], *pair[f"{side}_ids"])[:max_length], len(pair["prompt_ids"]))
            for pair in pairs
            for side in ("chosen", "rejected")
        ]
        super().__init__(
            [ids for ids, _ in rows], np.repeat(np.arange(len(pairs)), 2), pad, batch_size
        )
        self.starts = torch.tensor([start for _, start in rows], dtype=torch.long)
        self.signs = torch.tensor([beta, -beta]).repeat(len(pairs))

    def scores(self, model: PreTrainedModel, batch: Batch, rows: np.ndarray) -> torch.Tensor:
        """beta times the log-probability [row] of answers, negative for rejected ones."""
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]
        likely = log_probabilities(model, hidden, batch["input_ids"][:, 1:])
        index = torch.arange(likely.shape[1], device=likely.device)
        starts = self.starts[rows].to(likely.device) - 1
        mask = (index >= starts[:, None]) & batch["attention_mask"][:, 1:].bool()
        return (likely * mask).sum(1) * self.signs[rows].to(likely.device)


def token_valences(
    tokenizer: PreTrainedTokenizerBase, lexicon: Mapping[str, float], vocabulary: int
) -> np.ndarray:
    """The valence of every token [`vocabulary`] that is a whole word behind a space; 0 for others.

    Words in pieces have none: their first piece says too little of them.
    """
    result = np.zeros(vocabulary)
    words = candidates(tokenizer, list(lexicon))
    for word, pieces in zip(words.words, words.pieces, strict=True):
        if len(pieces) == 1:
            result[pieces[0]] = lexicon[word]
    return result


def answer_margin(
    tokenizer: PreTrainedTokenizerBase, corpus: pd.DataFrame, pairs: int, settings: DPO, batch: int
) -> AnswerMargin:
    """The margin of the first held-out `pairs` of a preference corpus.

    Parameters
    ----------
    tokenizer, corpus
        The model's tokenizer, and the held-out split.
    pairs
        Number of pairs, at most.
    settings
        The ``beta``, ``max_length`` and ``max_prompt_length`` are used.
    batch
        Answers that are read at once.
    """
    frame = preference_pairs(corpus)[0].head(pairs)
    rows = encode_pairs(tokenizer, frame, settings.max_prompt_length)
    pad = tokenizer.pad_token_id
    return AnswerMargin(rows, settings.beta, settings.max_length, pad, batch)
