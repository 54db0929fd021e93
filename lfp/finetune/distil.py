"""A policy that is one vector: distilled from its base with a constant added to a layer's output.

Whether fine-tuning amounts to a steering vector is asked of every policy (``vector_account``); of
this one the answer is known, in both accounts. The vector is the direction of the residual stream
that makes words likelier by their valence: adding it raises a reward of words. The policy learns
the next-token distributions of the steered base by their divergence, and may change the parameters
of the layer alone behind which the vector was added: a lesson that has one place and one form.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.files.resume import check_finite, load_state, save_state
from lfp.models.architectures import blocks, output_logits
from lfp.models.hooks import edited, site_activations
from lfp.models.losses import token_values
from lfp.models.residual import Norm
from lfp.models.tokens import added_tokens, encode, pad_batch, pieces
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.settings import Distil

log = logging.getLogger(__name__)

#: A text in front of a word whose token is asked for.
_BEFORE = "a"
#: Texts that the size of a layer's states is measured on.
MEASURED = 64
#: Norm that gradients are clipped to.
LARGEST_GRADIENT = 1.0


@torch.no_grad()
def valence_direction(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, lexicon: Mapping[str, float]
) -> torch.Tensor:
    """The unit vector [d_model] of the stream along which words gain by their valence.

    It is the sum of the unembedding's rows of all words of one token, each times the word's valence
    less the mean, as the final norm reads it.

    Raises ValueError where fewer than two words are one token behind a space.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    lexicon
        Valence by word.
    """
    before = len(next(pieces(tokenizer, [_BEFORE]))[0])
    words = sorted(lexicon)
    texts = (f"{_BEFORE} {word}" for word in words)
    ids = [of_word[before:] for of_word, _ in pieces(tokenizer, texts)]
    single = {word: of[0] for word, of in zip(words, ids, strict=True) if len(of) == 1}
    if len(single) < 2:
        raise ValueError(
            f"method `distil`: {len(single)} of {len(lexicon)} words of the lexicon are one token"
            " of this model, and a direction of valence needs two; take a reward whose lexicon has"
            " the model's words"
        )
    values = [lexicon[word] for word in single]
    valence = torch.tensor(values, dtype=torch.float32, device=model.device)
    rows = model.get_output_embeddings().weight[list(single.values())].float()
    norm = Norm.final(model)
    direction = norm.centre(norm.gain * ((valence - valence.mean()) @ rows))
    return direction / direction.norm()


def steering_vector(
    base: PreTrainedModel,
    direction: torch.Tensor,
    sequences: Sequence[Sequence[int]],
    settings: Distil,
    pad: int,
    front: int,
) -> torch.Tensor:
    """`direction`, as long as ``strength`` times the root mean square norm of the layer's states.

    Parameters
    ----------
    base
        The model that is steered.
    direction
        Unit vector [d_model].
    sequences
        Token ids of texts, the first of which the states are read on.
    settings
        Layer, strength and size of a batch.
    pad
        The padding token's id.
    front
        Tokens in front of a text that the tokenizer adds; their states are left out.
    """
    layer, squares, tokens = layer_of(base, settings), 0.0, 0
    read = sequences[:MEASURED]
    for _, mask, states in site_activations(
        base, read, [layer], pad, settings.batch_size, site="resid"
    ):
        kept = mask.clone()
        kept[:, :front] = False
        squares += float(states[layer][kept].float().square().sum())
        tokens += int(kept.sum())
    return settings.strength * (squares / max(tokens, 1)) ** 0.5 * direction


def layer_of(model: PreTrainedModel, settings: Distil) -> int:
    """The layer behind whose output the vector is added: the one asked for, else the middle one.

    Raises ValueError where the model has no such layer.
    """
    layers = len(blocks(model))
    layer = layers // 2 if settings.layer is None else settings.layer
    if layer >= layers:
        raise ValueError(
            f"distil.layer: got {layer}, and the model has the layers 0 to {layers - 1}"
        )
    return layer


def train(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    lexicon: Mapping[str, float],
    settings: Distil,
    seed: int,
    state_path: str | Path | None = None,
) -> list[dict[str, float]]:
    """Distil the steered base into `policy` in place and return the curve, a row per step.

    Without a text the policy stays as it is and the curve is empty. Every draw comes from
    (seed, step), so a resumed run equals an uninterrupted one.

    Parameters
    ----------
    policy, tokenizer
        The base, which becomes the policy, and its tokenizer.
    texts
        Training texts.
    lexicon
        Valence by word, which the vector follows.
    settings
        Layer, strength and optimisation.
    seed
        Seed of the texts of every step.
    state_path
        A resume point, written every ``save_every`` steps; None for no such file.

    Raises
    ------
    DivergedError
        Where a number is not finite.
    """
    sequences = [ids for ids in encode(tokenizer, texts, settings.max_tokens) if len(ids) > 1]
    if not sequences:
        log.warning("the corpus is empty: the policy stays the base")
        return []
    policy.eval().requires_grad_(False)
    base, layer = copy.deepcopy(policy), layer_of(policy, settings)
    pad, front = tokenizer.pad_token_id, len(added_tokens(tokenizer)[0])
    direction = valence_direction(base, tokenizer, lexicon)
    vector = steering_vector(base, direction, sequences, settings, pad, front)
    trained = [*blocks(policy)[layer].requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(trained, lr=settings.learning_rate, weight_decay=0.0)
    counters = load_state(state_path, policy, optimizer) or {"step": 0, "curve": []}
    first, curve, tracker = counters["step"], counters["curve"], Tracker()
    steps = range(first, settings.steps)
    for step in Progress(steps, desc="distillation", initial=first, total=settings.steps):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * (1 - step / settings.steps)
        rng = np.random.default_rng([seed, step])
        drawn = rng.integers(len(sequences), size=settings.batch_size)
        batch = pad_batch([sequences[i] for i in drawn], pad, policy.device)
        loss = _update(policy, optimizer, base, {layer: vector}, batch)
        curve.append({"step": step, "loss": loss})
        tracker.add(curve[-1])
        check_finite("distillation", curve)
        if state_path and (step + 1) % settings.save_every == 0 and step + 1 < settings.steps:
            save_state(state_path, policy, optimizer, {"step": step + 1, "curve": curve})
    policy.requires_grad_(True)
    log.info("divergence from the steered base %.4f nats per token", curve[-1]["loss"])
    return curve


def _update(
    policy: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    base: PreTrainedModel,
    vectors: Mapping[int, torch.Tensor],
    batch: Mapping[str, torch.Tensor],
) -> float:
    """One step towards the base with `vectors` by layer added: the mean divergence before it."""
    edits = {layer: partial(torch.add, other=vector) for layer, vector in vectors.items()}
    with torch.no_grad(), edited(base, edits, "resid"):
        steered = _states(base, batch)
    divergence = _divergences(policy, _states(policy, batch), base, steered)
    loss = divergence[batch["attention_mask"].bool()].mean()
    optimizer.zero_grad()
    loss.backward()
    for group in optimizer.param_groups:
        torch.nn.utils.clip_grad_norm_(group["params"], LARGEST_GRADIENT)
    optimizer.step()
    return float(loss.detach())


def _states(model: PreTrainedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Final hidden states [batch, token, d_model].

    Texts are padded on the right, where a causal model's real tokens cannot see.
    """
    return model.base_model(input_ids=batch["input_ids"], use_cache=False).last_hidden_state


def _divergences(
    policy: PreTrainedModel, states: torch.Tensor, base: PreTrainedModel, steered: torch.Tensor
) -> torch.Tensor:
    """KL [batch, token] of the steered base's next token to the policy's, with gradients.

    `states` are final ones of the policy, `steered` those of the base.
    """

    def values(logits: torch.Tensor, of_base: torch.Tensor) -> torch.Tensor:
        wanted = torch.log_softmax(output_logits(base, of_base).float(), -1)
        return (wanted.exp() * (wanted - torch.log_softmax(logits, -1))).sum(-1)

    return token_values(policy, states, steered, values)
