"""Settings of every stage: names, types, defaults, bounds, units and meanings, written once.

Functions take these objects, ``config/schema.yaml`` and the tables of ``config/README.md`` are made
from them (:mod:`lfp.schema`). Nothing is imported here, so that planning a run loads no library of
science.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

#: The default of a field that a configuration must give.
REQUIRED = dataclasses.MISSING


def setting(default: Any, meaning: str, **bounds: Any) -> Any:
    """A field with its `default`, its `meaning` with the unit, and its `bounds`.

    Parameters
    ----------
    default
        The value where a configuration gives none.
    meaning
        One sentence for readers of a configuration.
    bounds
        ``least``, ``most`` (inclusive), ``above``, ``below`` (exclusive) of a number, the same with
        ``each_`` in front for the items of a tuple; ``choices`` of a string or of a tuple's items,
        the values or the name of a registry (:mod:`lfp.schema`);
        ``min_items``, ``contains`` and ``unique`` of a tuple.
    """
    return dataclasses.field(default=default, metadata={"meaning": meaning, **bounds})


@dataclass(frozen=True)
class Settings:
    """What all settings can do."""

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The settings among `values`, which may have further keys; lists become tuples."""
        names = {field.name for field in dataclasses.fields(cls)}
        chosen = {name: value for name, value in values.items() if name in names}
        return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in chosen.items()})


@dataclass(frozen=True)
class Lora(Settings):
    """Low-rank adapters on all linear layers, merged when training ends; null trains all
    weights.
    """

    r: int = setting(REQUIRED, "Rank.", least=1)
    alpha: float = setting(REQUIRED, "Scale: the update is multiplied by alpha / r.", above=0)
    dropout: float = setting(REQUIRED, "Share of the adapters' inputs that drops.", least=0, most=1)


@dataclass(frozen=True)
class PPO(Settings):
    """Proximal policy optimisation (docs/finetune.md)."""

    steps: int = setting(390, "Updates of one batch each.", least=1)
    batch_size: int = setting(64, "Prompts per update.", least=1)
    mini_batch_size: int = setting(16, "Prompts per optimiser step.", least=1)
    epochs: int = setting(4, "Passes over every batch.", least=1)
    learning_rate: float = setting(1e-06, "AdamW.", above=0)
    weight_decay: float = setting(0.01, "AdamW.", least=0)
    warmup_steps: int = setting(10, "Linear warm-up, then linear decay to 0.", least=0)
    init_kl_coef: float = setting(0.5, "Start of the adaptive KL coefficient.", least=0)
    kl_target: float = setting(6.0, "Nats per completion.", above=0)
    kl_horizon: float = setting(10000.0, "Prompts.", above=0)
    stop_kl: float | None = setting(
        100.0,
        "Nats per completion at which PPO ends the cell with its curve kept in the logs; null"
        " never does. Group methods ignore it.",
        above=0,
    )
    gamma: float = setting(1.0, "Discount.", least=0, most=1)
    gae_lambda: float = setting(0.95, "Advantage estimation.", least=0, most=1)
    clip_range: float = setting(0.2, "Of the probability ratio.", above=0)
    value_clip_range: float = setting(0.2, "Of the value's change.", above=0)
    value_coef: float = setting(0.1, "Weight of the value loss.", least=0)
    max_grad_norm: float = setting(1.0, "Gradient clipping.", above=0)
    prompt_tokens: tuple[int, int] = setting((2, 9), "Prefix length, uniform, both ends included.")
    new_tokens: tuple[int, int] = setting(
        (8, 19), "Completion length, uniform, both ends included."
    )
    reward_on: str = setting("full", "Text that the reward reads.", choices=("full", "completion"))
    reward_divisor: float = setting(5.0, "The lexicon sum is divided by it.", above=0)
    reward_clip: float = setting(10.0, "Largest absolute reward.", above=0)
    min_characters: int = setting(200, "Shorter training texts are left out.", least=0)
    evaluation_prompts: int = setting(256, "Held-out prefixes.", least=8)
    save_every: int = setting(50, "Steps between resume points.", least=1)
    gradient_accumulation_steps: int = setting(1, "Parts of an optimiser step.", least=1)
    gradient_checkpointing: bool = setting(False, "Compute activations twice to save memory.")
    precision: str = setting(
        "float32", "`bfloat16` computes in mixed precision.", choices=("float32", "bfloat16")
    )
    lora: Lora | None = setting(
        None,
        "Low-rank adapters on all linear layers, merged when training ends; null trains all"
        " weights.",
    )


@dataclass(frozen=True)
class Group(Settings):
    """What `rloo` and `grpo` have beside the settings of `ppo` (docs/finetune.md)."""

    num_generations: int = setting(4, "Completions of every prompt.", least=2)
    beta: float = setting(0.05, "Weight of the KL to the base.", least=0)
    num_iterations: int = setting(1, "Updates on every batch.", least=1)
    epsilon: float = setting(0.2, "Clipping of the probability ratio.", above=0)


@dataclass(frozen=True)
class DPO(Settings):
    """Direct preference optimisation (docs/finetune.md)."""

    steps: int = setting(5000, "Optimiser steps.", least=1)
    batch_size: int = setting(8, "Pairs per step and device.", least=1)
    gradient_accumulation_steps: int = setting(1, "Batches per step.", least=1)
    learning_rate: float = setting(3e-05, "AdamW, linear decay.", above=0)
    warmup_steps: int = setting(150, "Linear warm-up.", least=0)
    weight_decay: float = setting(0.0, "AdamW.", least=0)
    beta: float = setting(0.1, "Strength of the reference.", above=0)
    max_length: int = setting(256, "Tokens of prompt and answer.", least=8)
    max_prompt_length: int = setting(128, "Tokens of the prompt, cut from the left.", least=4)
    max_grad_norm: float = setting(1.0, "Gradient clipping.", above=0)
    precision: str = setting(
        "float32", "`bfloat16` runs the trainer's mixed precision.", choices=("float32", "bfloat16")
    )
    gradient_checkpointing: bool = setting(False, "Compute activations twice to save memory.")
    lora: Lora | None = setting(
        None,
        "Low-rank adapters on all linear layers, merged when training ends; null trains all"
        " weights.",
    )
    evaluate_every: int = setting(500, "Steps between held-out evaluations.", least=1)
    evaluation_pairs: int = setting(256, "Held-out pairs.", least=8)
    save_every: int = setting(500, "Steps between resume points.", least=1)


@dataclass(frozen=True)
class Divergence(Settings):
    """Which layers changed most (docs/divergence.md)."""

    measure: str = setting(
        "mlp_l2",
        "Measure that ranks the layers.",
        choices=("mlp_l2", "block_frobenius_sum", "mlp_relative", "activation"),
    )
    n_layers: int = setting(5, "Layers to choose.", least=1)
    texts: int = setting(128, "Held-out texts for the activation measure.", least=1)
    max_tokens: int = setting(128, "Tokens per text.", least=8)
    batch_size: int = setting(32, "Texts per forward pass.", least=1)


@dataclass(frozen=True)
class Activations(Settings):
    """MLP outputs that the autoencoders learn from (docs/autoencoders.md)."""

    split: str = setting("test", "Split of the task's corpus.", choices=("train", "test"))
    texts: int = setting(25000, "Texts to read.", least=10)
    max_tokens: int = setting(256, "Tokens per text.", least=8)
    batch_size: int = setting(32, "Texts per forward pass.", least=1)
    held_out_texts: int = setting(64, "Last texts of the split", least=1)
    max_disk_gb: float = setting(200.0, "Harvested activations of a cell at most.", above=0)


@dataclass(frozen=True)
class Autoencoder(Settings):
    """Sparse autoencoder pairs (docs/autoencoders.md)."""

    architecture: str = setting(
        "standard", "Kind of autoencoder (docs/autoencoders.md).", choices="architectures"
    )
    site: str = setting("mlp", "Part of a layer whose activations are learned.", choices="sites")
    reads: str = setting(
        "policy", "Model whose activations are learned.", choices=("policy", "base")
    )
    sizes: tuple[int, ...] = setting(
        (1, 2),
        "Numbers of latents in multiples of the activations' width, ascending; the first is probed,"
        " explained and ablated, and matched with the last.",
        each_least=1,
        min_items=2,
        unique=True,
    )
    k: int = setting(32, "`topk`: active latents of a token.", least=1)
    l1: float = setting(0.001, "Against a squared error that is a mean over dimensions.", least=0)
    learning_rate: float = setting(0.001, "Adam.", above=0)
    batch_size: int = setting(4096, "Tokens per step.", least=1)
    epochs: int = setting(1, "Passes over the activations.", least=1)
    seed: int = setting(0, "Seed of the autoencoder, nested in the fine-tuning seed.", least=0)
    tied: bool = setting(True, "Encoder is the decoder's transpose.")
    precision: str = setting(
        "float32",
        "Of the matrix products of training; weights and Adam's moments are float32.",
        choices=("float32", "bfloat16"),
    )


@dataclass(frozen=True)
class Contrasts(Settings):
    """Contrast triples of a task (docs/contrasts.md)."""

    source: str = setting(
        "corpus",
        "Preferences: where a prompt's three answers come from. `corpus` has the columns positive,"
        " neutral, negative; `pairs` takes the chosen and the rejected answer, and as neutral one"
        " the answer to another prompt that is nearest in length; `rewrites` lets a language model"
        " write them (stage `rewrites`).",
        choices=("corpus", "pairs", "rewrites"),
    )
    triples: int = setting(1000, "Preferences: triples at most.", least=10)
    contexts_per_word: int = setting(5, "Words: contexts for each.", least=1)
    words_per_class: int = setting(500, "Words: for each form and sign, at most.", least=2)
    seed: int = setting(0, "Seed of words and contexts.", least=0)


@dataclass(frozen=True)
class Rewrites(Settings):
    """Contrast triples that a language model writes (docs/contrasts.md)."""

    service: str | None = setting(None, "Name of the service that grades and rewrites.")
    entries: int = setting(1000, "Held-out answers to rewrite, at most.", least=1)
    words: tuple[int, int] = setting((8, 120), "Words of an answer.")
    max_prompt_words: int = setting(400, "Words of a conversation.", least=1)
    tolerance: float = setting(0.4, "Relative difference of a rewrite's words.", most=1, above=0)
    copy: float = setting(0.8, "Similarity from which a rewrite is a copy.", most=1, above=0)
    verify: bool = setting(True, "Grade the rewrites as well and keep those that differ.")


@dataclass(frozen=True)
class Features(Settings):
    """Features of the triples (docs/features.md)."""

    subjects: tuple[str, ...] = setting(
        ("policy", "base", "untrained", "text"),
        "Whose activations are read. `other_seed` is the policy of the next seed of the cell (or"
        " of the seed after its last, trained for this alone), `other_task` the model's policy of"
        " `other_task`; `text` reads words and no model.",
        choices=("policy", "base", "untrained", "other_seed", "other_task", "text"),
        contains="policy",
        unique=True,
    )
    other_task: str | None = setting(
        None,
        "Task of the subject `other_task`; null takes the first other task of the model in the"
        " grid.",
    )
    max_tokens: int = setting(128, "Tokens per text, cut from the left.", least=8)
    batch_size: int = setting(64, "Texts per forward pass.", least=1)


@dataclass(frozen=True)
class Probes(Settings):
    """Probes (docs/probes.md)."""

    alphas: tuple[float, ...] = setting(
        (1, 10, 100, 1000), "Ridge, chosen inside the training part.", each_above=0, min_items=1
    )
    Cs: tuple[float, ...] = setting(
        (0.001, 0.1), "Logistic, chosen inside the training part.", each_above=0, min_items=1
    )
    delta: str = setting(
        "concatenation",
        "Norm over all layers or a sum of norms.",
        choices=("concatenation", "per_layer_sum"),
    )
    features: tuple[str, ...] = setting(
        ("latents", "reconstruction", "raw", "pca", "random_code", "embedding"),
        "Features of the policy. `latents` is the autoencoder's code and the default of every"
        " table, `pca` principal components of `raw`, as many as the code has live features,"
        " `random_code` the code of an untrained autoencoder, `embedding` the static input"
        " embedding.",
        choices=("latents", "reconstruction", "raw", "pca", "random_code", "embedding"),
        min_items=1,
        contains="latents",
        unique=True,
    )
    control_features: tuple[str, ...] = setting(
        ("latents", "raw"),
        "Features of every other subject.",
        choices=("latents", "reconstruction", "raw", "pca", "random_code", "embedding"),
        min_items=1,
        contains="latents",
        unique=True,
    )
    label_shuffles: int = setting(200, "Refits on permuted labels, `latents` features.", least=0)
    folds: int = setting(5, "Outer folds.", least=2)
    inner_folds: int = setting(2, "Folds inside the training part.", least=2)
    xavier_draws: int = setting(100, "Untrained probes of the baseline.", least=2)


@dataclass(frozen=True)
class Explanations(Settings):
    """Explanations of features (docs/explanations.md)."""

    top_features: int = setting(30, "Best matched features per layer to explain.", least=1)
    texts: int = setting(
        1000, "Training texts to read; preference tasks read half as many pairs.", least=10
    )
    max_tokens: int = setting(128, "Tokens per text.", least=8)
    batch_size: int = setting(64, "Texts per forward pass.", least=1)
    permutations: int = setting(999, "Shuffles of the lexicon.", least=99)
    false_discovery_rate: float = setting(0.05, "Of related features.", most=1, above=0)
    min_valence: float = setting(
        0.4, "Lexicon tasks: least absolute mean valence of a related feature's words.", least=0
    )
    min_auc: float = setting(
        0.65,
        "Preference tasks: least area under the ROC curve of a related feature.",
        least=0.5,
        most=1,
    )
    promoted: int = setting(3, "Promoted tokens to name.", least=1)
    scored_texts: int = setting(400, "Held-out texts that explanations are scored on.", least=10)
    excerpt_tokens: int = setting(32, "Tokens of an excerpt.", least=4)
    excerpts: int = setting(10, "Excerpts per feature, of either kind.", least=1)
    evidence_top: int = setting(
        10, "Excerpts of largest activation that a language model is shown.", least=1
    )
    evidence_random: int = setting(5, "Random excerpts that it is shown.", least=0)
    judge: str | None = setting(None, "Service that judges explanations, beside the word judge.")


@dataclass(frozen=True)
class Ablation(Settings):
    """Ablation during generation (docs/ablation.md)."""

    arms: tuple[str, ...] = setting(
        (
            "none",
            "reconstruction",
            "explained",
            "random",
            "top_probe_weight",
            "top_match_unrelated",
        ),
        "What is ablated in the policy.",
        choices=(
            "none",
            "reconstruction",
            "explained",
            "random",
            "top_probe_weight",
            "top_match_unrelated",
        ),
        contains="none",
        unique=True,
    )
    base_arms: tuple[str, ...] = setting(
        ("none", "explained", "random"),
        "What is ablated in the base, for the difference in differences; empty leaves the base"
        " out.",
        choices=(
            "none",
            "reconstruction",
            "explained",
            "random",
            "top_probe_weight",
            "top_match_unrelated",
        ),
        unique=True,
    )
    actions: tuple[str, ...] = setting(
        ("zero", "mean", "negative"),
        "What takes the place of a feature in the policy's arm `explained`: 0, its mean"
        " activation, or minus its activation; all other arms set to 0.",
        choices=("zero", "mean", "negative"),
        contains="zero",
        unique=True,
    )
    explainer: str = setting(
        "heuristic", "Explainer whose related features are the arm `explained`."
    )
    prompts: int = setting(1000, "Held-out prefixes.", least=8)
    prefix_tokens: int = setting(30, "Length of a review's prefix.", least=1)
    prompt_tokens: int = setting(
        128, "Preferences: tokens of a prompt, cut from the left.", least=1
    )
    new_tokens: int = setting(20, "Tokens to sample, at most.", least=1)
    random_draws: int = setting(
        20, "Matched random sets; p over sets cannot go below 1 / (draws + 1).", least=1
    )
    neutral_texts: int = setting(
        200, "Held-out sentences without feedback for the cross-entropy.", least=2
    )
    neutral_tokens: int = setting(64, "Tokens of a neutral sentence, at most.", least=4)
    batch_size: int = setting(64, "Completions per batch; arms and draws share it.", least=1)


@dataclass(frozen=True)
class Export(Settings):
    """Features and explanations for other tools (docs/exports.md)."""

    context: int = setting(64, "Tokens of a window.", least=8)
    windows: int = setting(2000, "Windows of held-out text, at most.", least=1)
    batch_size: int = setting(32, "Windows per forward pass.", least=1)


@dataclass(frozen=True)
class Tables(Settings):
    """Intervals, tests and thresholds of the tables (docs/tables.md)."""

    resamples: int = setting(2000, "Bootstrap resamples and permutations.", least=100)
    confidence: float = setting(0.95, "Of intervals.", above=0.5, below=1)
    quantiles: tuple[float, ...] = setting(
        (0.5, 0.75, 0.9, 0.95),
        "Thresholds of high prediction, as quantiles (Table 7).",
        each_above=0,
        each_below=1,
        min_items=1,
    )
    matched_draws: int = setting(99, "Matched control sets (Table 7).", least=19)
    seed: int = setting(0, "Seed of resampling.", least=0)
