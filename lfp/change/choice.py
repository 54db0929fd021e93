"""The readout at the choice: what a policy would rather say next, by part of the model.

Probes read the tokens of a word after it stands there. Feedback changes what a model chooses: the
state in front of the word. The log-ratio of policy and base at a word, and its shares by part
(:mod:`lfp.change.decomposition`), are read at the last token in front of each of its pieces. Shares
of a word are means over contexts, those of an answer are sums over its tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.change.candidates import Candidates
from lfp.change.decomposition import Decomposition, Shifts
from lfp.models.heads import Heads
from lfp.models.hooks import continuations
from lfp.models.residual import Component, Residual, captured_residual
from lfp.probing.features import Elements

#: Sums of parts that stand beside them: their names, and whether a part is in it.
SUMS: dict[str, Callable[[Component], bool]] = {
    "attention": lambda part: part[0] == "attention",
    "mlp": lambda part: part[0] == "mlp",
    "blocks": lambda part: part[0] in ("attention", "mlp"),
    "log_ratio": lambda part: True,
}
#: Tokens at which the parts of the model are held at once.
POSITIONS = 512


@dataclass(frozen=True)
class Pair:
    """A base, a policy of the same architecture, and their tokenizer."""

    base: PreTrainedModel
    policy: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase


class Reader:
    """The decomposition of a pair, and the matrix of its sums.

    ``columns`` are its parts and their sums, and ``heads`` the parts that attention is shared among
    further, none where `heads` is false.
    """

    def __init__(self, pair: Pair, heads: bool = False) -> None:
        self.pair, self.decomposition = pair, Decomposition(pair.base, pair.policy)
        parts = self.decomposition.parts
        self.columns: list[Component] = [*parts, *((name, -1) for name in SUMS)]
        self._heads = [Heads(model) for model in (pair.base, pair.policy)] if heads else []
        self.heads: list[Component] = self._heads[0].parts if heads else []
        sums = [[float(of(part)) for of in SUMS.values()] for part in parts]
        self._sums = torch.tensor(sums, device=pair.base.device)

    def states(
        self, sequences: Sequence[Sequence[Sequence[int]]], shared: Sequence[int], rows: int
    ) -> Iterator[tuple[np.ndarray, Residual, Residual]]:
        """Indices of a batch's rows, and what both models wrote on their continuations.

        `sequences` and `shared` are those of :func:`~lfp.models.hooks.continuations`, and `rows`
        the number of rows in a batch.
        """
        pad = self.pair.tokenizer.pad_token_id
        with (
            captured_residual(self.pair.base, bool(self.heads)) as one,
            captured_residual(self.pair.policy, bool(self.heads)) as two,
        ):
            passes = (
                continuations(model, sequences, shared, [], pad, rows)
                for model in (self.pair.base, self.pair.policy)
            )
            for (index, *_), _ in zip(*passes, strict=True):
                yield index, one, two

    def values(
        self,
        written: tuple[Residual, Residual],
        places: tuple[torch.Tensor, torch.Tensor],
        tokens: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares in the log-ratios of `tokens` [position, token], and their likelihood.

        Shares are [position, token, column], the heads behind the columns; the likelihood is the
        base's log-probability [position, token].

        Parameters
        ----------
        written
            What base and policy have written.
        places
            Rows and tokens of the positions in it.
        tokens
            Ids of tokens [position, token].
        """
        parts, likely = [], []
        for start in range(0, len(tokens), POSITIONS):
            here = slice(start, start + POSITIONS)
            base, policy = (one.parts(places[0][here], places[1][here]) for one in written)
            shifts = self.decomposition.shifts(base, policy)
            values = self.decomposition.values(shifts, tokens[here])
            at = places[0][here], places[1][here]
            of_heads = self._of_heads(written, at, shifts, tokens[here])
            parts.append(torch.cat([values, values @ self._sums, *of_heads], -1))
            likely.append(shifts.likely.gather(1, tokens[here]))
        return torch.cat(parts), torch.cat(likely)

    def _of_heads(
        self,
        written: tuple[Residual, Residual],
        at: tuple[torch.Tensor, torch.Tensor],
        shifts: Shifts,
        tokens: torch.Tensor,
    ) -> Iterator[torch.Tensor]:
        """The shares of the heads, layer by layer: one layer's vectors are held at once."""
        gradients = self.decomposition.gradients(shifts, tokens) if self._heads else None
        for layer in written[0].joined:
            before, after = (
                heads.written(layer, residual.heads(layer, at[0], at[1]))
                for heads, residual in zip(self._heads, written, strict=True)
            )
            yield gradients @ (after - before).transpose(1, 2)


class _Pieces:
    """The tokens of words: the first ones, and the later ones behind those before them.

    ``first`` [word] and ``token`` [piece] are ids. ``heads`` are the pieces of every word of
    several, the last one left out, and ``owner``, ``kind`` and ``place`` [piece] are the word of a
    later piece, its number among those words, and its place behind the context.
    """

    def __init__(self, words: Candidates, device: torch.device) -> None:
        self.first = torch.tensor([ids[0] for ids in words.pieces], device=device)
        longer = [i for i, ids in enumerate(words.pieces) if len(ids) > 1]
        self.heads = [words.pieces[i][:-1] for i in longer] or [[]]
        later = [
            (i, kind, place, token)
            for kind, i in enumerate(longer)
            for place, token in enumerate(words.pieces[i])
            if place
        ]
        columns = torch.tensor(later, dtype=torch.long).reshape(-1, 4).T
        self.owner, self.token = columns[0].to(device), columns[3].to(device)
        self.kind, self.place = columns[1], columns[2]


@torch.inference_mode()
def word_shares(
    pair: Pair,
    words: Candidates,
    contexts: Sequence[Sequence[int]],
    exponent: float,
    batch_size: int,
    heads: bool = False,
) -> pd.DataFrame:
    """Shares in the log-ratio of every word, over contexts.

    A word of several pieces has the sum over them, each at its own choice. A word that hardly any
    text could have at a place says nothing there: contexts are weighted, word by word, by the
    base's probability of the word to the power of `exponent`. The shares add up all the same.

    Parameters
    ----------
    pair
        Base and policy.
    words
        Words and their pieces.
    contexts
        Token ids of texts up to a word.
    exponent
        0 for contexts of equal weight, 1 for weights in proportion to the probability.
    batch_size
        Sequences in a batch; each context is continued by every word of several pieces.
    heads
        Whether attention is shared further among its heads. These have means alone, no errors: so
        many values of all contexts are not held.

    Returns
    -------
    pandas.DataFrame
        A row per word and part: ``part``, ``layer`` (-1 for none), ``word``, ``tokens`` (pieces),
        ``value`` (weighted mean over contexts, nats), ``error`` (its standard error) and
        ``contexts`` (their effective number, the inverse sum of squared weights).
    """
    reader, pieces = Reader(pair, heads), _Pieces(words, pair.base.device)
    width, of_heads = len(reader.columns), RunningMean()
    sequences = [[[*context, *head] for context in contexts] for head in pieces.heads]
    shared, kinds = [len(context) - 1 for context in contexts], len(pieces.heads)
    values, likely = [], []
    for rows, *written in reader.states(sequences, shared, max(1, batch_size // kinds)):
        for row in range(len(rows)):
            at = torch.tensor([row * kinds]), torch.tensor([0])
            of_words, p = (
                x[0].double() for x in reader.values(tuple(written), at, pieces.first[None])
            )
            if len(pieces.owner):
                at = row * kinds + pieces.kind, pieces.place
                later, q = reader.values(tuple(written), at, pieces.token[:, None])
                of_words.index_add_(0, pieces.owner, later[:, 0].double())
                p.index_add_(0, pieces.owner, q[:, 0].double())
            values.append(of_words[:, :width])
            likely.append(p)
            of_heads.add(of_words[:, width:], exponent * p)
    mean, error, number = weighted_means(torch.stack(values), exponent * torch.stack(likely))
    columns = [*reader.columns, *reader.heads]
    errors = torch.cat([error, torch.full_like(of_heads.mean, torch.nan)], 1)
    return _tidy(columns, torch.cat([mean, of_heads.mean], 1), words.words).assign(
        error=errors.T.flatten().cpu().numpy(),
        tokens=np.tile([len(ids) for ids in words.pieces], len(columns)),
        contexts=np.tile(number.cpu().numpy(), len(columns)),
    )


class RunningMean:
    """The means of :func:`weighted_means`, context by context: no context's values are kept."""

    def __init__(self) -> None:
        self._total: torch.Tensor | None = None

    def add(self, values: torch.Tensor, log_weights: torch.Tensor) -> None:
        """Take in the `values` [word, column] of a context, and its `log_weights` [word]."""
        if self._total is None:
            self._total = torch.zeros_like(values)
            self._weight, self._top = torch.zeros_like(log_weights), log_weights
        top = torch.maximum(self._top, log_weights)
        kept, new = (self._top - top).exp(), (log_weights - top).exp()
        self._total = self._total * kept[:, None] + values * new[:, None]
        self._weight, self._top = self._weight * kept + new, top

    @property
    def mean(self) -> torch.Tensor:
        """The weighted means [word, column] of what was taken in."""
        return self._total / self._weight[:, None]


def weighted_means(
    values: torch.Tensor, log_weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Means of `values` [context, word, column] with weights [context, word], and their errors.

    The three results are the mean and its standard error [word, column], and the effective number
    of contexts [word], 1 over the sum of the squared weights.
    """
    weights = torch.softmax(log_weights, 0)
    mean = torch.einsum("cw,cwk->wk", weights, values)
    squares = weights.square()
    number = 1 / squares.sum(0)
    spread = torch.einsum("cw,cwk->wk", squares, (values - mean).square())
    correction = number / (number - 1).clamp(min=1e-9)
    return mean, (spread * correction[:, None]).sqrt(), number


@torch.inference_mode()
def answer_shares(
    pair: Pair,
    triples: pd.DataFrame,
    elements: Sequence[str],
    max_tokens: int,
    batch_size: int,
    heads: bool = False,
) -> pd.DataFrame:
    """Shares in the log-ratio of every answer: sums over its tokens, each at its own choice.

    Parameters
    ----------
    pair
        Base and policy.
    triples, elements
        Contrast triples, and the elements that are read.
    max_tokens
        Tokens of prompt and answer, at most.
    batch_size
        Sequences in a batch.
    heads
        Whether attention is shared further among its heads.

    Returns
    -------
    pandas.DataFrame
        A row per triple, element and part: ``part``, ``layer``, ``triple``, ``element``, ``value``
        (nats) and ``tokens``.
    """
    reader, device = Reader(pair, heads), pair.base.device
    columns = [*reader.columns, *reader.heads]
    texts = Elements(pair.tokenizer, triples, elements, max_tokens)
    sums = np.zeros((len(elements), len(triples), len(columns)))
    rows_at_once, kinds = max(1, batch_size // len(elements)), len(elements)
    for rows, *written in reader.states(texts.sequences, texts.shared, rows_at_once):
        for e in range(kinds):
            place, token, ids = texts.targets_of(rows, e, device)
            known = token > 0  # a text's first token is no choice
            at = place[known] * kinds + e, token[known] - 1
            values, _ = reader.values(tuple(written), at, ids[known.to(device), None])
            summed = values.new_zeros(len(rows), values.shape[-1])
            summed.index_add_(0, place[known].to(device), values[:, 0])
            sums[e][rows] = summed.cpu().numpy()
    frames = []
    for e, element in enumerate(elements):
        frame = _tidy(columns, torch.from_numpy(sums[e]), list(triples["triple"]), "triple")
        tokens = np.tile([len(target) for target in texts.targets[e]], len(columns))
        frames.append(frame.assign(element=element, tokens=tokens))
    return pd.concat(frames, ignore_index=True)


def _tidy(
    columns: Sequence[Component], values: torch.Tensor, units: Sequence, name: str = "word"
) -> pd.DataFrame:
    """A row per column and unit of `values` [unit, column]; a column is a part and its layer."""
    n = len(units)
    return pd.DataFrame({
        "part": np.repeat([part for part, _ in columns], n),
        "layer": np.repeat([layer for _, layer in columns], n),
        name: np.tile(np.asarray(units), len(columns)),
        "value": values.T.flatten().cpu().numpy(),
    })  # fmt: skip
