"""Baselines of steering: the same reward by a prompt, and by a part of the fine-tuning.

Both are set beside vectors at equal cost (AxBench: Wu et al. 2025 found them hard to beat). A
prompt is one point, with a cost of its own. The fine-tuned baseline has the weights θ_0 +
λ (θ_π - θ_0), where λ is the strength that is scaled until the cost is the one that is asked for:
a dose of the very fine-tuning that is looked into, at less than its full length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.interventions.completions import COLUMNS, Written, distinct_2, write
from lfp.models.generation import decode_responses, masked_rows
from lfp.models.losses import divergences, text_losses
from lfp.models.tokens import added_tokens, pad_batch, pieces
from lfp.reporting.progress import Progress


@dataclass(frozen=True)
class Writer:
    """A model that writes in the place of another one, with a text in front of every prompt.

    Parameters
    ----------
    base
        The untouched model, without a text in front.
    model
        The model that writes.
    tokenizer
        The tokenizer of both.
    prefix
        Token ids of the text in front, without those that the tokenizer adds.
    """

    base: PreTrainedModel
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prefix: Sequence[int] = ()

    def led(self, ids: Sequence[int]) -> list[int]:
        """The tokens of a text behind the prefix; those that the tokenizer adds stay in front."""
        n = self._added(ids)
        return [*ids[:n], *self.prefix, *ids[n:]]

    def _added(self, ids: Sequence[int]) -> int:
        front = list(added_tokens(self.tokenizer)[0])
        return len(front) if list(ids[: len(front)]) == front else 0

    def cross_entropy(self, sequences: Sequence[Sequence[int]], batch_size: int) -> np.ndarray:
        """Mean cross-entropy [text] of neutral texts behind the prefix, nats per token.

        The prefix's own tokens do not count, nor does a text's first, which nothing comes before
        where there is no prefix.
        """
        pad = self.tokenizer.pad_token_id
        heads = [ids[: max(1, self._added(ids))] for ids in sequences]
        (nats, counts), (before, fewer) = (
            text_losses(self.model, [self.led(ids) for ids in some], pad, batch_size)
            for some in (sequences, heads)
        )
        return (nats - before) / (counts - fewer)

    @torch.no_grad()
    def completions(
        self,
        prompts: Sequence[Sequence[int]],
        reward: Reward,
        new_tokens: int,
        batch_size: int,
        seed: int,
    ) -> pd.DataFrame:
        """Sample and score a completion to every prompt.

        Rewards read the prompts without the prefix. The columns are those of
        :func:`lfp.interventions.completions.completion_rewards`; ``kl`` is that of the writer to
        the base without a prefix. With the base's seed the uniforms are the base's.

        Parameters
        ----------
        prompts, reward
            Token ids of the prompts, and the score of completions.
        new_tokens, batch_size
            Tokens to sample, at most, and completions in a batch.
        seed
            Seed of the uniforms.
        """
        frames = [pd.DataFrame(columns=COLUMNS)]
        for start in Progress(range(0, len(prompts), batch_size), desc="baseline"):
            part = [list(ids) for ids in prompts[start : start + batch_size]]
            led = [self.led(ids) for ids in part]
            written = write(self.model, self.tokenizer, [{}], led, new_tokens, seed + start, "mlp")
            rows = masked_rows(written.response, written.mask)
            asked, texts = decode_responses(self.tokenizer, part, rows)
            frames.append(pd.DataFrame({
                "prompt": range(start, start + len(part)), "reward": reward(asked, texts),
                "kl": self._divergence(written, part), "tokens": [len(row) for row in rows],
                "distinct_2": [distinct_2(row) for row in rows], "completion": texts,
            }))  # fmt: skip
        return pd.concat(frames[len(frames) > 1 :], ignore_index=True)

    def _divergence(self, written: Written, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        """KL [row] of what was said to what the base would have said, nats of a completion."""
        pad = self.tokenizer.pad_token_id
        batch = pad_batch(prompts, pad, self.base.device, left=True)
        unled = replace(written, batch=batch)
        other = unled.read_again(self.base, {}, "mlp")
        by_token = divergences(self.model, written.states, other, self.base)
        return (by_token * written.mask).sum(1).double().cpu().numpy()


def prefix_tokens(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a prompt's text, without those that the tokenizer adds."""
    return next(pieces(tokenizer, [text]))[0]
