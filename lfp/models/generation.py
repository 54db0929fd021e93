"""Pure sampling with common random numbers, and the texts of what was sampled."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from transformers import (
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lfp.models import limits
from lfp.models.tokens import pad_batch


class _CommonNoise(LogitsProcessor):
    """Sampling whose random numbers repeat every `rows` rows, in place of the likeliest token.

    The index of the largest p / q with independent exponential q is a draw from p; it is how torch
    draws as well. Here q is -log u of a uniform u in double precision, so that unlikely tokens are
    drawn as often as they should. On a CPU ``exponential_`` takes three times as long, a sixth of
    all PPO.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        p = scores.float().softmax(-1)
        uniform = torch.rand_like(p[: self.rows], dtype=torch.float64)
        noise = uniform.log_().neg_().float()
        return p.view(-1, *noise.shape).div_(noise).flatten(0, 1)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    new_tokens: int,
    seed: int,
    eos: int,
    pad: int,
    groups: int = 1,
) -> torch.Tensor:
    """Sample up to `new_tokens` tokens at temperature 1 for a left-padded batch.

    This is pure sampling (no top-k, no top-p; :func:`lfp.models.loading.load_model` leaves out what
    a checkpoint asks for). The same `seed` draws the same uniforms for every
    model and edit of it, and for each of `groups` equal parts of the batch: common random
    numbers. After an end-of-text token a row holds padding. Raises ValueError where the model has
    fewer positions.

    Parameters
    ----------
    model
        A causal language model.
    batch
        ``input_ids`` and ``attention_mask`` [row, token], padded on the left.
    new_tokens
        The largest number of tokens to sample.
    seed
        Seed of the uniforms.
    eos, pad
        Ids of the end-of-text and the padding token.
    groups
        Number of equal parts of the batch that share their random numbers.

    Returns
    -------
    torch.Tensor
        Ids of the sampled tokens [row, at most `new_tokens`].
    """
    limits.check_length(model.config, batch["input_ids"].shape[1] + new_tokens)
    torch.manual_seed(seed)
    output = model.generate(
        **batch, max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad,
        use_cache=True, logits_processor=[_CommonNoise(len(batch["input_ids"]) // groups)],
    )  # fmt: skip
    return output[:, batch["input_ids"].shape[1] :]


def response_mask(response: torch.Tensor, lengths: torch.Tensor, eos: int) -> torch.Tensor:
    """Boolean mask [row, token] of a response.

    It holds up to the length of the response and up to its first end-of-text token.
    """
    index = torch.arange(response.shape[1], device=response.device)
    is_eos = response == eos
    first_eos = torch.where(is_eos.any(1), is_eos.int().argmax(1), response.shape[1])
    return (index < lengths[:, None]) & (index <= first_eos[:, None])


def decode_responses(
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
) -> tuple[list[str], list[str]]:
    """Texts of `prompts` and of the `responses` to them, special tokens left out.

    Prompt and response are decoded together and cut by characters: by itself a response of Llama 2
    or Mistral loses its first space, and half a character is no text. So the two parts of a text
    are the whole of it, and a character that the two share is the response's.
    """
    before, whole = (
        tokenizer.batch_decode(rows, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        for rows in (
            [list(prompt) for prompt in prompts],
            [[*prompt, *rest] for prompt, rest in zip(prompts, responses, strict=True)],
        )
    )
    cuts = [len(os.path.commonprefix(pair)) for pair in zip(before, whole, strict=True)]
    texts = list(zip(whole, cuts, strict=True))
    return [text[:cut] for text, cut in texts], [text[cut:] for text, cut in texts]


def masked_rows(response: torch.Tensor, mask: torch.Tensor) -> list[list[int]]:
    """Token ids of every row of `response` under its mask."""
    return [row[keep].tolist() for row, keep in zip(response.cpu(), mask.cpu(), strict=True)]


class Samples(NamedTuple):
    """Completions of a batch of prompts.

    ``prompts`` are token ids [prompt][token], ``batch`` has prompt and completion, padded, and
    ``response`` and ``mask`` [prompt, token] are the completions and their tokens.
    """

    prompts: list[list[int]]
    batch: dict[str, torch.Tensor]
    response: torch.Tensor
    mask: torch.Tensor


@torch.no_grad()
def sampled(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    new_tokens: int,
    batch_size: int,
    seed: int,
) -> Iterator[Samples]:
    """Completions of `prompts`, batch by batch, with the same random numbers for every model.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    prompts
        Token ids [prompt][token].
    new_tokens
        The largest number of tokens of a completion.
    batch_size
        Number of prompts in a batch.
    seed
        Seed of the samples.
    """
    limits.check_texts(model.config, prompts, new_tokens)
    eos, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    for start in range(0, len(prompts), batch_size):
        part = list(prompts[start : start + batch_size])
        prompt = pad_batch(part, pad, model.device, left=True)
        response = generate(model, prompt, new_tokens, seed + start, eos, pad)
        lengths = torch.full((len(part),), new_tokens, device=model.device)
        mask = response_mask(response, lengths, eos)
        batch = {
            "input_ids": torch.cat([prompt["input_ids"], response], 1),
            "attention_mask": torch.cat([prompt["attention_mask"], mask.long()], 1),
        }
        yield Samples(part, batch, response, mask)
