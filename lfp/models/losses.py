"""Log-probabilities of tokens, cross-entropy of texts: all that is made of logits.

No stage holds more logits than :data:`~lfp.models.HELD_LOGITS` at once: those of a batch of Gemma's
vocabulary would take more memory than the model. Hidden states, which are hundreds of times
smaller, are held of a whole batch, and go through the output head in parts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from lfp.models import HELD_LOGITS
from lfp.models.architectures import output_logits
from lfp.models.tokens import length_batches, pad_batch


def token_values(
    model: PreTrainedModel,
    hidden: torch.Tensor,
    beside: torch.Tensor,
    values_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """`values_of` the logits of final hidden states [..., d_model], part by part: [..., values].

    Where gradients are taken, the logits of several parts are computed once more in the backward
    pass. The logits are those of the model itself (:func:`~lfp.models.architectures.output_logits`)
    in float32.

    Parameters
    ----------
    model, hidden
        A causal language model and its final hidden states.
    beside
        A tensor [..., whatever] with an entry for every state, such as the token that follows.
    values_of
        Maps logits [token, vocabulary] and their entries of `beside` to values [token, ...].
    """
    shape = hidden.shape[:-1]
    entries = beside.reshape(-1, *beside.shape[len(shape) :])
    size = max(1, HELD_LOGITS // model.get_output_embeddings().weight.shape[0])

    def values(states: torch.Tensor, entry: torch.Tensor) -> torch.Tensor:
        return values_of(output_logits(model, states).float(), entry)

    parts = list(zip(hidden.flatten(0, -2).split(size), entries.split(size), strict=True))
    if len(parts) > 1 and torch.is_grad_enabled():
        done = [checkpoint(values, state, entry, use_reentrant=False) for state, entry in parts]
    else:
        done = [values(state, entry) for state, entry in parts]
    result = torch.cat(done)
    return result.reshape(*shape, *result.shape[1:])


def _likely(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return torch.log_softmax(logits, -1).gather(-1, tokens[..., None]).squeeze(-1)


def log_probabilities(
    model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Log-probabilities [...] of `tokens` after final hidden states [..., d_model]."""
    return token_values(model, hidden, tokens, _likely)


def cross_entropies(
    model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """Cross-entropies (nats) [...] of `tokens` after final hidden states [..., d_model]."""

    def values(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(logits, tokens, reduction="none")

    return token_values(model, hidden, tokens, values)


def log_probabilities_and_entropies(
    model: PreTrainedModel, hidden: torch.Tensor, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """As :func:`log_probabilities`, and the entropies (nats) without gradients, [...] each."""

    def values(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        log_p = torch.log_softmax(logits, -1)
        likely = log_p.gather(-1, tokens[..., None]).squeeze(-1)
        log_p = log_p.detach()
        return torch.stack([likely, -log_p.exp().mul_(log_p).sum(-1)], -1)

    likely, entropies = token_values(model, hidden, tokens, values).unbind(-1)
    return likely, entropies


def divergences(
    model: PreTrainedModel,
    hidden: torch.Tensor,
    other: torch.Tensor,
    other_model: PreTrainedModel | None = None,
) -> torch.Tensor:
    """KL [...] of the next token after `hidden` to that after `other` states, both [..., d_model].

    The `other` states are those of `other_model`, or of `model` itself. The values are exact sums
    over the vocabulary, in nats, without gradients.
    """
    other_model = other_model or model

    def values(logits: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
        ours = torch.log_softmax(logits, -1)
        del logits  # three such tensors are held at once, and no more
        weights = ours.exp()
        ours -= torch.log_softmax(output_logits(other_model, states).float(), -1)
        return weights.mul_(ours).sum(-1)

    return token_values(model, hidden, other, values)


def top_tokens(model: PreTrainedModel, hidden: torch.Tensor, top: int) -> torch.Tensor:
    """Ids [..., `top`] of the tokens of largest logits, after final hidden states."""
    return token_values(model, hidden, hidden, lambda logits, _: logits.topk(top, dim=-1).indices)


@torch.no_grad()
def text_losses(
    model: PreTrainedModel,
    sequences: Sequence[Sequence[int]],
    pad: int,
    batch_size: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Cross-entropy of every sequence of a model as it is, or as it is edited around the call.

    Parameters
    ----------
    model, sequences
        A causal language model and token ids.
    pad, batch_size
        The padding token's id and the number of sequences in a batch.

    Returns
    -------
    tuple
        Summed next-token cross-entropy (nats) and number of predicted tokens [sequence].
    """
    nats, counts = np.zeros(len(sequences)), np.zeros(len(sequences), dtype=np.int64)
    for index in length_batches([len(sequence) for sequence in sequences], batch_size):
        batch = pad_batch([sequences[i] for i in index], pad, model.device)
        hidden = model.base_model(**batch, use_cache=False).last_hidden_state[:, :-1]
        mask = batch["attention_mask"][:, 1:]
        losses = cross_entropies(model, hidden, batch["input_ids"][:, 1:])
        nats[index] = (losses * mask).sum(1).double().cpu().numpy()
        counts[index] = mask.sum(1).cpu().numpy()
    return nats, counts
