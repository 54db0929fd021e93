"""Pre-training of the small models that stand in for Pythia, GPT-Neo and Gemma."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from lfp.feedback.lexica import vader_lexicon
from lfp.files.resume import Clock, check_finite, load_state, save_state
from lfp.models.losses import cross_entropies, text_losses
from lfp.models.tokens import added_tokens, pieces
from lfp.organisms.configs import organism_config
from lfp.reporting.progress import Progress
from lfp.reporting.tensorboard import Tracker
from lfp.settings import Organism
from lfp.texts.words import count_words

log = logging.getLogger(__name__)


def packed_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> np.ndarray:
    """All `texts` as one token stream, each as :func:`led_tokens` gives it."""
    streams = [np.array(ids, dtype=np.int64) for ids in led_tokens(tokenizer, texts)]
    return np.concatenate([np.zeros(0, np.int64), *streams])  # of no text, too


def led_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of every text behind an end-of-text token and what the tokenizer adds in front."""
    eos = tokenizer.eos_token_id
    lead = [eos, *(n for n in added_tokens(tokenizer)[0] if n != eos)]
    return [lead + ids for ids, _ in pieces(tokenizer, texts)]


def _check_length(stream: torch.Tensor, context: int) -> None:
    """Raise ValueError where a stream of tokens is shorter than a window and a token behind it."""
    if len(stream) < context + 2:
        raise ValueError(
            f"organism: the train splits of its `corpora` have {len(stream)} tokens, and a window"
            f" needs {context + 2}: give them more text, or lower organism.context ({context})"
        )


def learning_rate(step: int, steps: int, peak: float, warmup: int) -> float:
    """Linear warm-up to `peak`, then a cosine to a tenth of it."""
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


def fair_config(tokenizer: PreTrainedTokenizerBase, settings: Organism) -> PreTrainedConfig:
    """The configuration of an organism in which what is read and ablated matters.

    Initial weights are wide, so that every layer keeps something to do. A GPT-NeoX ties its
    embeddings and has its MLPs read what the attention of their layer wrote, as the other families
    do; Pythia's do neither (docs/corpora.md has what each of these is worth).
    """
    config = organism_config(
        settings.architecture, len(tokenizer), tokenizer.eos_token_id, tokenizer.pad_token_id,
        settings.n_layers, settings.d_model, settings.n_heads, settings.d_mlp,
    )  # fmt: skip
    config.initializer_range = settings.initial_scale * settings.d_model**-0.5
    if settings.architecture == "gpt_neox":
        config.tie_word_embeddings, config.use_parallel_residual = True, False
    return config


def pretrain(
    tokenizer: PreTrainedTokenizerBase,
    stream: np.ndarray,
    settings: Organism,
    device: str = "cpu",
    state_path: str | Path | None = None,
) -> tuple[PreTrainedModel, list[dict[str, float]]]:
    """Train a small language model from scratch on a `stream` of tokens.

    Batches are random windows of ``context`` tokens.

    Parameters
    ----------
    tokenizer, stream
        The model's tokenizer, and the texts that it learns, as :func:`packed_tokens` gives them.
    settings, device
        Architecture, size and optimisation, and the device of the training.
    state_path
        A resume point, kept once a minute: training goes on behind it to the same result.

    Returns
    -------
    tuple
        The model in evaluation mode, and the loss curve (nats per token).
    """
    torch.manual_seed(settings.seed)
    rng = np.random.default_rng(settings.seed)
    config = fair_config(tokenizer, settings)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").to(device).train()
    peak, context, steps = settings.peak_learning_rate, settings.context, settings.steps
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=peak,
        betas=(0.9, 0.95),
        weight_decay=settings.weight_decay,
        fused=True,
    )
    tokens = torch.from_numpy(stream)
    _check_length(tokens, context)
    counters = load_state(state_path, model, optimizer) or {"step": 0, "curve": []}
    first, curve, tracker, clock = counters["step"], counters["curve"], Tracker(), Clock()
    for _ in range(first):
        rng.integers(0, len(tokens) - context - 1, settings.batch_size)  # the windows before
    for step in Progress(range(first, steps), desc="pre-training", initial=first, total=steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak, settings.warmup_steps)
        starts = rng.integers(0, len(tokens) - context - 1, settings.batch_size)
        windows = torch.stack([tokens[start : start + context + 1] for start in starts]).to(device)
        hidden = model.base_model(windows[:, :-1], use_cache=False).last_hidden_state
        loss = cross_entropies(model, hidden, windows[:, 1:]).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 or step == steps - 1:
            curve.append({"step": step, "loss": loss.item()})
            tracker.add(curve[-1])
            check_finite("pre-training", curve)
            log.info("step %d of %d: loss %.3f nats per token", step, steps, loss.item())
        if state_path and clock.due():
            save_state(state_path, model, optimizer, {"step": step + 1, "curve": curve})
    return model.eval(), curve


def held_out_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stream: np.ndarray,
    context: int,
    held_out: Sequence[str],
) -> pd.DataFrame:
    """Number of tokens and summed losses of every held-out text.

    Losses are those of the `model` and of an add-one unigram of a `stream` of tokens. Every text is
    led by an end-of-text token and cut to `context`.

    Parameters
    ----------
    model, tokenizer
        A causal language model and its tokenizer.
    stream
        Tokens of the unigram's texts.
    context
        The largest number of predicted tokens of a text.
    held_out
        Texts to evaluate.

    Returns
    -------
    pandas.DataFrame
        A row per text: ``tokens``, ``nats`` and ``unigram_nats``.
    """
    counts = np.bincount(stream, minlength=len(tokenizer)) + 1.0
    unigram = -np.log(counts / counts.sum())
    sequences = [ids[: context + 1] for ids in led_tokens(tokenizer, held_out)]
    nats, tokens = text_losses(model, sequences, tokenizer.pad_token_id, 32)
    return pd.DataFrame(
        {
            "tokens": tokens,
            "nats": nats,
            "unigram_nats": [unigram[ids[1:]].sum() for ids in sequences],
        }
    )


def pieces_of_words(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> dict[str, int]:
    """Number of tokens of every word inside a sentence (with its leading space)."""
    encoded = pieces(tokenizer, [f" {word}" for word in words])
    return {word: len(ids) for word, (ids, _) in zip(words, encoded, strict=True)}


def pieces_of_scored_words(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]
) -> dict[str, int]:
    """The result of :func:`pieces_of_words` for the words of `texts` that VADER scores."""
    words = {word for text in texts for word in count_words(text)}
    return pieces_of_words(tokenizer, sorted(words & set(vader_lexicon())))
