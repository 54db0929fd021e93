"""Completions under edits of a site, their rewards, and their distance from the model's own."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.files.resume import Clock, load_tensors, save_tensors
from lfp.models.generation import decode_responses, generate, masked_rows, response_mask
from lfp.models.hooks import Edit, captured_steps, edited
from lfp.models.losses import divergences
from lfp.models.tokens import pad_batch, position_ids
from lfp.reporting.progress import Progress
from lfp.running import glibc

#: Batches between two times that freed memory goes back to the system. Small results of a batch lie
#: between large freed blocks, so that a process that keeps these would grow with every batch.
GIVE_BACK_EVERY = 8
#: Columns that describe a completion.
COLUMNS = ("prompt", "reward", "kl", "tokens", "distinct_2", "completion")


class RowEdit(ABC):
    """An edit whose values differ from row to row of a batch: it must know which ones it has."""

    @abstractmethod
    def of_rows(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """The replacement of the activations `x` of some rows of a batch, from the `first` on."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The replacement of the activations of a whole batch."""
        return self.of_rows(x, 0)


def _changed(change: Edit | None, part: torch.Tensor, first: int) -> torch.Tensor:
    """The rows `part` of a batch, from the `first` on, under an edit or none."""
    if change is None:
        return part
    return change.of_rows(part, first) if isinstance(change, RowEdit) else change(part)


def stacked(conditions: Sequence[Mapping[int, Edit]]) -> dict[int, Edit]:
    """Edits of a batch whose equal parts are each under a condition of their own.

    The parts lie one behind the other.
    """

    def edit_of(layer: int) -> Edit:
        changes = [edits.get(layer) for edits in conditions]

        def edit(x: torch.Tensor) -> torch.Tensor:
            size = len(x) // len(changes)
            parts = zip(changes, x.split(size), strict=True)
            return torch.cat([_changed(c, part, i * size) for i, (c, part) in enumerate(parts)])

        return edit

    return {
        layer: edit_of(layer)
        for layer in sorted({layer for edits in conditions for layer in edits})
    }


def _of_each(site: str | Sequence[str], conditions: int) -> Sequence[str]:
    """The site of each of so many conditions."""
    return [site] * conditions if isinstance(site, str) else site


@contextmanager
def edited_in_parts(
    model: PreTrainedModel, conditions: Sequence[Mapping[int, Edit]], sites: Sequence[str]
) -> Iterator[None]:
    """Within the block, each of equal parts of a batch is under the edits of its condition.

    `sites` [condition] are the parts of the layers that they change.
    """
    with ExitStack() as stack:
        for site in sorted(set(sites)):
            pairs = zip(conditions, sites, strict=True)
            here = [edits if of == site else {} for edits, of in pairs]
            stack.enter_context(edited(model, stacked(here), site))
        yield


@dataclass(frozen=True)
class Written:
    """What a model wrote to a batch of prompts.

    ``batch`` are the prompts, padded on the left, ``response`` [row, token] what follows, of which
    ``mask`` is true up to the end of the text. ``states`` [row, token, d_model] are the final
    hidden states that the response was drawn from.
    """

    batch: dict[str, torch.Tensor]
    response: torch.Tensor
    mask: torch.Tensor
    states: torch.Tensor

    def repeated(self, times: int) -> Written:
        """The whole batch `times` times."""
        batch = {name: values.repeat(times, 1) for name, values in self.batch.items()}
        response, mask = self.response.repeat(times, 1), self.mask.repeat(times, 1)
        return Written(batch, response, mask, self.states.repeat(times, 1, 1))

    @torch.no_grad()
    def read_again(
        self, model: PreTrainedModel, edits: Mapping[int, Edit], site: str
    ) -> torch.Tensor:
        """The final states from which `model` would have drawn the response under `edits`."""
        shown = self.mask.long()
        full = {
            "input_ids": torch.cat([self.batch["input_ids"], self.response], 1),
            "attention_mask": torch.cat([self.batch["attention_mask"], shown], 1),
        }
        positions = position_ids(full["attention_mask"])
        with edited(model, edits, site):
            hidden = model.base_model(
                **full, position_ids=positions, use_cache=False
            ).last_hidden_state
        return hidden[:, -self.response.shape[1] - 1 : -1]

    @torch.no_grad()
    def divergence(
        self, model: PreTrainedModel, states: torch.Tensor, other: torch.Tensor
    ) -> np.ndarray:
        """KL [row] of what `model` says after `states` from what it says after `other` ones.

        It is exact at every position, and summed over the positions of the response, in nats.
        """
        by_token = divergences(model, states, other)
        return (by_token * self.mask).sum(1).double().cpu().numpy()


def write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    conditions: Sequence[Mapping[int, Edit]],
    prefixes: Sequence[Sequence[int]],
    new_tokens: int,
    seed: int,
    site: str | Sequence[str],
) -> Written:
    """Let a model write to all `prefixes` under the edits of each condition.

    Parameters
    ----------
    model, tokenizer
        The model that writes, and its tokenizer.
    conditions, site
        Edits by layer of each condition, which has a part of the batch, and the part of the layers
        that they change: one for all, or one for each.
    prefixes
        Token ids of the prompts.
    new_tokens
        Tokens to sample, at most.
    seed
        Seed of the uniforms, which are the same under every condition.
    """
    eos, pad, groups = tokenizer.eos_token_id, tokenizer.pad_token_id, len(conditions)
    batch = pad_batch(list(prefixes) * groups, pad, model.device, left=True)
    sites = _of_each(site, groups)
    with edited_in_parts(model, conditions, sites), captured_steps(model) as states:
        response = generate(model, batch, new_tokens, seed, eos, pad, groups)
    lengths = torch.full((len(response),), new_tokens, device=response.device)
    mask = response_mask(response, lengths, eos)
    return Written(batch, response, mask, torch.stack(states, 1))


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
    site: str | Sequence[str] = "mlp",
) -> list[pd.DataFrame]:
    """Sample and score a completion to every prefix under the edits of each condition.

    Every condition draws the same uniforms (common random numbers), so differences are paired. As
    many conditions go through the model together as a batch has room for.

    Parameters
    ----------
    model, tokenizer
        The model that writes, and its tokenizer.
    conditions, site
        Edits by layer of each condition, none for the untouched model, and the part of the layers
        that they change, one for all or one for each.
    prefixes, reward
        Token ids of the prompts, and the score of completions.
    new_tokens, batch_size
        Tokens to sample, at most, and completions in a batch.
    seed
        Seed of the uniforms.
    state_path
        A resume point, kept once a minute; an interrupted call goes on behind it.

    Returns
    -------
    list of DataFrame
        One for each condition, with the columns ``prompt``, ``reward``, ``kl`` (exact divergence of
        the edited from the untouched model on its own completion, nats, summed over tokens),
        ``tokens``, ``distinct_2`` (distinct over all pairs of neighbouring tokens), ``completion``.
    """
    if not prefixes:
        return [pd.DataFrame(columns=COLUMNS) for _ in conditions]
    frames: list[list[pd.DataFrame]] = [[] for _ in conditions]
    bar, clock = Progress(total=len(conditions) * len(prefixes), desc="completions"), Clock()
    scored = _scored_before(state_path) if state_path else {}
    pairs = list(zip(conditions, _of_each(site, len(conditions)), strict=True))
    for start, first, together in _batches(len(prefixes), len(conditions), batch_size):
        part, some = prefixes[start : start + batch_size], pairs[first : first + together]
        if (start, first) not in scored:
            asked, frame = _completions(model, tokenizer, some, part, new_tokens, seed + start)
            frame.insert(1, "reward", reward(asked, list(frame["completion"])))
            frame["prompt"] += start
            scored[start, first] = frame
            if len(scored) % GIVE_BACK_EVERY == 0:
                glibc.give_back()
            if state_path and clock.due():
                _keep(scored, state_path)
        frame = scored[start, first]
        for i in range(len(some)):
            rows = frame.iloc[i * len(part) : (i + 1) * len(part)].reset_index(drop=True)
            frames[first + i].append(rows)
        bar.update(len(frame))
    bar.close()
    return [pd.concat(parts, ignore_index=True) for parts in frames]


def _batches(prefixes: int, conditions: int, size: int) -> Iterator[tuple[int, int, int]]:
    """(first prefix, first condition, number of conditions) of batches of a `size`, at most."""
    for start in range(0, prefixes, size):
        together = max(1, size // min(size, prefixes - start))
        for first in range(0, conditions, together):
            yield start, first, together


def _keep(scored: Mapping[tuple[int, int], pd.DataFrame], state_path: str | Path) -> None:
    """Write a resume point with the scored completions by the place of their batch."""
    kept = [frame.assign(start=start, first=first) for (start, first), frame in scored.items()]
    file = io.BytesIO()
    pd.concat(kept, ignore_index=True).to_parquet(file)
    content = torch.frombuffer(bytearray(file.getvalue()), dtype=torch.uint8)
    save_tensors(state_path, {"completions": content}, {})


def _scored_before(state_path: str | Path) -> dict[tuple[int, int], pd.DataFrame]:
    """Completions that an interrupted call scored, by the place of their batch.

    There are none where the file is missing or damaged.
    """
    state = load_tensors(state_path)
    if state is None:
        return {}
    frame = pd.read_parquet(io.BytesIO(state[0]["completions"].numpy().tobytes()))
    groups = frame.groupby(["start", "first"], sort=False)
    return {
        key: part.drop(columns=["start", "first"]).reset_index(drop=True) for key, part in groups
    }


def _completions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Sequence[tuple[Mapping[int, Edit], str]],
    prefixes: Sequence[Sequence[int]],
    new_tokens: int,
    seed: int,
) -> tuple[list[str], pd.DataFrame]:
    """One unscored batch of :func:`completion_rewards`, led by the texts of its prompts.

    All `prefixes` stand under the first of the `chosen` conditions, each of which has its site
    beside it, then under the next, and so on.
    """
    groups, (conditions, sites) = len(chosen), zip(*chosen, strict=True)
    written = write(model, tokenizer, conditions, prefixes, new_tokens, seed, sites)
    rows = masked_rows(written.response, written.mask)
    asked, completions = decode_responses(tokenizer, list(prefixes) * groups, rows)
    untouched = np.repeat([not edit for edit in conditions], len(prefixes))
    kl = np.zeros(len(rows))
    if not untouched.all():
        kl = written.divergence(model, written.states, written.read_again(model, {}, sites[0]))
    return asked, pd.DataFrame(
        {
            "prompt": np.tile(np.arange(len(prefixes)), groups),
            "kl": np.where(untouched, 0.0, kl),
            "tokens": [len(row) for row in rows],
            "distinct_2": [distinct_2(row) for row in rows],
            "completion": completions,
        }
    )


def distinct_2(tokens: Sequence[int]) -> float:
    """Distinct over all pairs of neighbouring tokens (Li et al. 2016).

    It is 1 for a text with fewer than two tokens.
    """
    pairs = list(zip(tokens, tokens[1:], strict=False))
    return len(set(pairs)) / len(pairs) if pairs else 1.0
