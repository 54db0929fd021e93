"""What a first grid of a model and a file asks for: every value, and where it comes from.

Sizes are those of the run on a real model that the documentation shows (``config/smollm2.yaml``),
except where the model or the file says another number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from lfp.settings import STAGES, Ablation, Change, Export
from lfp.start.models import Model
from lfp.start.page import Said
from lfp.start.texts import Corpus

SAME = "as in config/smollm2.yaml"
#: Weights up to which fine-tuning goes by the settings of the small models that are grown here: a
#: larger model moves at smaller rates.
SMALL = 3e7
#: Share of the latents that are active on a token.
ACTIVE = 0.05
#: Tokens of activations for each latent, about those of ``config/smollm2.yaml``, and least of all.
TOKENS_PER_LATENT, LEAST_TOKENS = 150, 50_000
#: Tokens of a text that autoencoders read, and of a pair that is learned from, at most.
READ_TOKENS, PAIR_TOKENS = 160, 128
#: Blocks up to which the orders of :mod:`lfp.locus` take minutes and no hour.
FEW_LAYERS = 12
#: Training texts that lengths are measured on.
MEASURED = 300
#: Settings of fine-tuning by method, and the configuration that they are of.
_Tuning = tuple[dict[str, Any], str]
_SMALL: dict[str, _Tuning] = {
    "ppo": (
        {
            "steps": 32, "batch_size": 128, "mini_batch_size": 64, "epochs": 2,
            "learning_rate": 5.0e-4, "warmup_steps": 10, "init_kl_coef": 0.1,
        },
        "as in config/config.yaml",
    ),
    "dpo": (
        {"steps": 80, "batch_size": 8, "learning_rate": 6.0e-5, "warmup_steps": 10},
        "as in config/config.yaml",
    ),
}  # fmt: skip
_LARGE: dict[str, _Tuning] = {
    "ppo": (
        {
            "steps": 30, "batch_size": 32, "mini_batch_size": 16, "epochs": 2,
            "learning_rate": 1.0e-4, "warmup_steps": 3, "init_kl_coef": 0.05,
        },
        SAME,
    ),
    "dpo": (
        {"steps": 32, "batch_size": 8, "learning_rate": 5.0e-5, "warmup_steps": 3},
        SAME,
    ),
}  # fmt: skip
#: Characters that PPO asks a training text for by default.
CHARACTERS = 200


def grid(
    model: Model, corpus: Corpus, task: str, reward: str, machine: Mapping[str, Said]
) -> dict[str, Any]:
    """The configuration of one cell, with a comment at every value.

    Parameters
    ----------
    model, corpus
        What is known of the checkpoint and of the file.
    task
        Name of the task.
    reward
        Name of a reward, or ``module:function``; pairs are learned from as they are.
    machine
        Values of the model's entry that depend on the machine.
    """
    lengths = _token_counts(model, corpus)
    settings = _pair_settings if corpus.has_pairs else _text_settings
    name = f"{model.d_model} latents, one for each dimension of the width"
    active = max(1, math.floor(ACTIVE * model.d_model))
    return {
        "corpora": {corpus.name: _corpus(corpus)},
        "models": {model.name: _model(model) | machine},
        "tasks": {task: _task(corpus, reward)},
        "autoencoders": {
            "topk": {
                "architecture": Said("topk", "its k is the number of active latents"),
                "site": Said("mlp", "the part that the paper reads; others: resid, attn, heads"),
                "sizes": Said([1, 2], "latents in multiples of the width"),
                "k": Said(active, f"{active / model.d_model:.1%} of {name}"),
                "tied": Said(False, SAME),
            }
        },
        "settings": settings(model, corpus, lengths),
        "keep_activations": Said(False, "the chosen layers alone, and they go when they are read"),
        "cells": [Said({"model": model.name, "task": task}, "seeds: [0, 1, 2] gives three")],
    }


def _token_counts(model: Model, corpus: Corpus) -> np.ndarray:
    """Tokens of the first training texts, as the model's tokenizer cuts them."""
    texts = list(corpus.texts[:MEASURED])
    encoded = model.tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return np.array([len(ids) for ids in encoded])


def _corpus(corpus: Corpus) -> dict[str, Said]:
    """The entry of the corpus."""
    why = corpus.why
    entry = {"path": Said(dict(corpus.path), why["path"])}
    if corpus.test_share:
        entry["test_share"] = Said(corpus.test_share, why["test_share"])
    entry["columns"] = Said(dict(corpus.columns), why["columns"])
    if corpus.clean.html:
        entry["clean"] = Said({"html": True}, why["clean"])
    return entry


def _model(model: Model) -> dict[str, Said]:
    """The entry of the model, without what depends on the machine."""
    entry = {key: Said(value, "--model") for key, value in model.source.items()}
    if "revision" in entry:
        entry["revision"] = Said(model.source["revision"], "the commit of its branch main now")
    numbers = f"{model.n_layers} layers, width {model.d_model}: from {model.origin}"
    shape = {
        "parameters": model.parameters, "d_model": model.d_model, "vocab_size": model.vocab_size,
    }  # fmt: skip
    shape |= {} if model.tied else {"tied": False}
    weights = f"{model.parameters:,} weights by {model.origin}, tied ones once"
    return entry | {"n_layers": Said(model.n_layers, numbers), "shape": Said(shape, weights)}


def _task(corpus: Corpus, reward: str) -> dict[str, Said]:
    """The entry of the task."""
    if corpus.has_pairs:
        method = Said("dpo", "the file has preference pairs")
        return {"method": method, "corpus": Said(corpus.name, "--data")}
    method = Said("ppo", "the file has texts, which a reward can score")
    task = {"method": method, "corpus": Said(corpus.name, "--data")}
    if ":" not in reward:
        why = "valences of words (docs/finetune.md has other rewards)"
        return task | {"reward": Said(reward, why if reward == "vader" else "--reward")}
    reason = "a function of your own, which gives words no value: VADER's words are probed"
    return task | {"reward": Said("callable", reason), "callable": Said(reward, "--reward")}


# ----------------------------------------------------------------------------------------- settings


def _text_settings(model: Model, corpus: Corpus, lengths: np.ndarray) -> dict[str, Any]:
    """Settings of a cell that learns from a reward of texts."""
    characters = np.array([len(text) for text in corpus.texts])
    least = CHARACTERS if np.mean(characters >= CHARACTERS) >= 0.5 else _quartile(characters)
    share = np.mean(characters >= least)
    prefix = max(1, min(9, _quartile(lengths)))
    prompt = Said(
        [min(2, prefix), prefix], f"3 of 4 texts have {_quartile(lengths)} tokens or more"
    )
    return {
        "ppo": {
            **_tuning(model, "ppo"),
            "prompt_tokens": prompt,
            "min_characters": Said(least, f"{share:.0%} of the training texts have as many"),
        },
        **_shared(model, corpus, lengths, read=READ_TOKENS),
        "locus": {
            "prompts": Said(128, SAME),
            "batch_size": Said(128, SAME),
            "orders": _orders(model),
        },
        "contrasts": {"contexts_per_word": Said(4, SAME), "words_per_class": Said(40, SAME)},
        "features": {"max_tokens": Said(model.fitting(64), f"of a word's context, {SAME}")},
        "explanations": {
            "texts": Said(3000, f"at most, {SAME}"),
            "max_tokens": Said(model.fitting(128), SAME),
            "scored_texts": Said(80, f"at most, {SAME}"),
            "min_valence": Said(0.1, "words outside the lexicon count as 0 (docs/smollm2.md)"),
        },
        "ablation": _ablation(model, 96, {"prefix_tokens": Said(model.fitting(16), SAME)}),
    }


def _pair_settings(model: Model, corpus: Corpus, lengths: np.ndarray) -> dict[str, Any]:
    """Settings of a cell that learns from preference pairs."""
    nine_of_ten = math.ceil(float(np.quantile(lengths, 0.9)))
    longest = model.fitting(min(PAIR_TOKENS, max(16, nine_of_ten)))
    cut = f"9 of 10 pairs have at most {nine_of_ten} tokens; longer than {longest} are cut"
    return {
        "dpo": {
            **_tuning(model, "dpo"),
            "max_length": Said(longest, cut),
            "max_prompt_length": Said(longest // 2, "half of that, so that an answer has room"),
            "evaluate_every": Said(16, "steps, for the curve"),
            "evaluation_pairs": Said(160, f"at most, {SAME}"),
        },
        **_shared(model, corpus, lengths, read=longest),
        "locus": {"pairs": Said(32, SAME), "orders": _orders(model)},
        "contrasts": {
            "source": Said("pairs", "the file has no three answers to a prompt"),
            "triples": Said(200, f"at most, {SAME}"),
        },
        "features": {"max_tokens": Said(longest, "as many as are learned from")},
        "explanations": {
            "texts": Said(800, f"at most, {SAME}"),
            "max_tokens": Said(longest, "as many as are learned from"),
            "scored_texts": Said(40, f"at most, {SAME}"),
            "min_auc": Said(0.55, SAME),
        },
        "ablation": _ablation(model, 64, {"prompt_tokens": Said(longest // 2, "as dpo reads")}),
    }


def _shared(model: Model, corpus: Corpus, lengths: np.ndarray, read: int) -> dict[str, Any]:
    """Settings of divergence, activations, autoencoders and probes; `read` tokens of a text."""
    layers = min(5, model.n_layers)
    most = model.fitting(read)
    of_text = max(1.0, float(np.minimum(lengths, most).mean()))
    wanted = max(LEAST_TOKENS, TOKENS_PER_LATENT * model.d_model)
    answers = 2 if corpus.has_pairs else 1
    held_out = 16
    texts = min(math.ceil(wanted / of_text), answers * len(corpus.texts) - held_out)
    tokens = f"about {texts * of_text:,.0f} tokens, at {of_text:.0f} a text"
    return {
        "divergence": {
            "n_layers": Said(layers, f"the most changed ones of {model.n_layers}"),
            "texts": Said(32, SAME),
            "max_tokens": Said(model.fitting(64), SAME),
        },
        "activations": {
            "texts": Said(texts, tokens),
            "max_tokens": Said(most, f"{np.mean(lengths <= most):.0%} of the texts are no longer"),
            "held_out_texts": Said(held_out, SAME),
        },
        "autoencoder": {
            "batch_size": Said(512, f"{texts * of_text / 512:.0f} steps a pass"),
            "epochs": Said(10, f"at most, {SAME}"),
            "learning_rate": Said(1.0e-3, SAME),
        },
        "probes": {"label_shuffles": Said(199, SAME)},
        **_few_positions(model),
    }


def _few_positions(model: Model) -> dict[str, dict[str, Said]]:
    """Settings of stages whose default reads more tokens than the model has positions."""
    change, export = Change(), Export()
    why = f"together at most the model's {model.positions} positions"
    context = model.fitting(change.context_tokens + change.new_tokens) * 3 // 5
    written = model.fitting(change.context_tokens + change.new_tokens) - context
    chosen = {}
    if context < change.context_tokens:
        chosen["change"] = {
            "context_tokens": Said(context, why), "new_tokens": Said(written, why),
        }  # fmt: skip
    if model.fitting(export.context) < export.context:
        chosen["export"] = {"context": Said(model.fitting(export.context), "all positions")}
    return chosen


def _tuning(model: Model, method: str) -> dict[str, Said]:
    """Settings of fine-tuning that were seen to move a model of about this size."""
    small = model.parameters <= SMALL
    values, source = (_SMALL if small else _LARGE)[method]
    size = f"{'below' if small else 'above'} {SMALL / 1e6:.0f} million weights"
    entry = {key: Said(value, source) for key, value in values.items()}
    paper = STAGES[method]().steps
    entry["steps"] = Said(values["steps"], f"{source}: a first look; the paper has {paper}")
    entry["learning_rate"] = Said(values["learning_rate"], f"{source}, for a model {size}")
    return entry


def _orders(model: Model) -> Said:
    """Orders of the parts of layers whose share of the effect is measured."""
    few = model.n_layers <= FEW_LAYERS
    why = f"an order of {model.n_layers} layers takes {2 * (2 * model.n_layers + 1)} sets more"
    return Said(int(few), why if few else f"{why}, which is long")


def _ablation(model: Model, prompts: int, length: Mapping[str, Said]) -> dict[str, Said]:
    """Settings of the ablation of a `model`, for so many `prompts` of a `length`."""
    neutral, [read] = Ablation().neutral_tokens, [one.value for one in length.values()]
    fewer = model.fitting(neutral)
    length |= {"neutral_tokens": Said(fewer, "all positions")} if fewer < neutral else {}
    small = "so many show large differences alone (docs/smollm2.md)"
    return {
        "actions": Said(["zero"], SAME),
        "prompts": Said(prompts, f"at most, {SAME}; {small}"),
        **length,
        "new_tokens": Said(model.fitting(read + 16) - read, SAME),
        "random_draws": Said(4, SAME),
        "base_arms": Said([], f"{SAME}: the policy alone"),
        "batch_size": Said(prompts, SAME),
        "neutral_texts": Said(32, SAME),
    }


def _quartile(numbers: np.ndarray) -> int:
    """What three of four `numbers` reach."""
    return int(np.quantile(numbers, 0.25))
