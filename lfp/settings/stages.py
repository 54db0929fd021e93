"""Settings of every stage: names, types, defaults, bounds, units and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from lfp.settings.fields import ABSENT, LARGEST_SEED, REQUIRED, Settings, setting

PRECISIONS = ("float32", "bfloat16")
#: Methods that read settings: those of tasks, and `given` apart where its policies learned from
#: preference pairs.
METHODS = (
    "ppo", "rloo", "grpo", "best_of_n", "ranked", "distil", "dpo", "given", "given on pairs",
)  # fmt: skip
#: Methods that train on completions of the base that a reward ranks.
RANKED = ("best_of_n", "ranked")
#: Methods that train by the settings of PPO, that complete training texts, whose policies' reward
#: is measured where it is written, and that have a reward at all.
_TRAINED = ("ppo", "rloo", "grpo", "best_of_n")
_PROMPTED = (*_TRAINED, "ranked")
_WRITTEN = (*_PROMPTED, "distil")
_REWARD = REWARD_METHODS = (*_WRITTEN, "given")
#: Methods that train by the settings of DPO, that cut and weigh pairs, and that learn from
#: preference pairs.
_BY_DPO, _PAIRS = ("ranked", "dpo"), ("dpo", "given on pairs")
_WEIGHED = (*_BY_DPO, "given on pairs")
#: Methods whose policies have a reward that they need not have learned from.
UNREWARDED = ("distil", "given")
#: What takes the place of an architecture where a dictionary comes from elsewhere.
PRETRAINED = "pretrained"
#: Which architectures of autoencoders read a setting that not all do: those whose line in their
#: registry names it, those that are made here, or those that gradients train
#: (:data:`lfp.sae.architectures.KINDS`).
NAMED, MADE, TRAINED = "named", "made", "trained"
#: Layouts of the files of pretrained dictionaries.
FORMATS = ("saelens", "gemma_scope", "dictionary_learning")
#: Settings of autoencoders that read base and policy on the same tokens, and those among them whose
#: activations are none of a single model.
BOTH = ("pooled", "pair", "difference")
BETWEEN = BOTH[1:]
#: Kinds of features that a probe can read.
FEATURES = ("latents", "reconstruction", "raw", "pca", "random_code", "embedding")
_LORA = (
    "Low-rank adapters on all linear layers, merged when training ends; null trains all weights."
)
_CHECKPOINTING = "Compute activations twice, in the backward pass again, to save memory."


@dataclass(frozen=True)
class Lora(Settings):
    """Low-rank adapters on all linear layers, merged when training ends; null trains all
    weights.
    """

    r: int = setting(REQUIRED, "Rank of the update.", least=1)
    alpha: float = setting(REQUIRED, "Scale: the update is multiplied by alpha / r.", above=0)


@dataclass(frozen=True)
class PPO(Settings):
    """Proximal policy optimisation (docs/finetune.md)."""

    steps: int = setting(390, "Updates of one batch each.", least=1, methods=_TRAINED)
    batch_size: int = setting(64, "Prompts per update.", least=1, methods=_REWARD)
    mini_batch_size: int = setting(16, "Prompts per optimiser step.", least=1, methods=("ppo",))
    epochs: int = setting(4, "Passes over every batch.", least=1, methods=("ppo",))
    learning_rate: float = setting(
        1e-06, "Learning rate of AdamW after the warm-up.", above=0, methods=_TRAINED
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", least=0, methods=_TRAINED)
    warmup_steps: int = setting(
        10, "Updates of linear warm-up, before a linear decay to 0.", least=0, methods=_TRAINED
    )
    init_kl_coef: float = setting(
        0.5, "Start of the adaptive KL coefficient, reward per nat.", least=0, methods=("ppo",)
    )
    kl_target: float = setting(
        6.0,
        "KL to the base that the coefficient steers to, nats per completion.",
        above=0,
        methods=("ppo",),
    )
    kl_horizon: float = setting(
        10000, "Prompts over which the KL coefficient adapts.", above=0, methods=("ppo",)
    )
    stop_kl: float | None = setting(
        100,
        "KL to the base, nats per completion, at which PPO ends the cell with its curve kept in the"
        " logs; null never does.",
        above=0,
        methods=("ppo",),
    )
    gamma: float = setting(1.0, "Discount per token.", least=0, most=1, methods=("ppo",))
    gae_lambda: float = setting(
        0.95,
        "Decay per token of generalised advantage estimation.",
        least=0,
        most=1,
        methods=("ppo",),
    )
    clip_range: float = setting(
        0.2, "Largest relative change of a token's probability ratio.", above=0, methods=("ppo",)
    )
    value_clip_range: float = setting(
        0.2, "Largest change of a token's value.", above=0, methods=("ppo",)
    )
    value_coef: float = setting(0.1, "Weight of the value loss.", least=0, methods=("ppo",))
    max_grad_norm: float = setting(
        1.0, "Norm that gradients are clipped to.", above=0, methods=_TRAINED
    )
    prompt_tokens: tuple[int, int] = setting(
        (2, 9), "Length of a prefix, tokens, uniform, both ends included.", methods=_REWARD
    )
    new_tokens: tuple[int, int] = setting(
        (8, 19),
        "Length of a completion, tokens, uniform, both ends included.",
        methods=(*_REWARD, "given on pairs"),
    )
    reward_on: str = setting(
        "full",
        "Text that the reward reads: prefix and completion, or the completion alone. The rewards"
        " `length` and `opener` read the completion alone.",
        choices=("full", "completion"),
        methods=_REWARD,
    )
    reward_divisor: float = setting(
        5.0, "Number that the sum of a lexicon's values is divided by.", above=0, methods=_REWARD
    )
    reward_clip: float = setting(10.0, "Largest absolute reward.", above=0, methods=_REWARD)
    min_characters: int = setting(
        200, "Characters below which a training text is left out.", least=0, methods=_PROMPTED
    )
    evaluation_prompts: int = setting(
        256, "Held-out prefixes of the evaluation.", least=8, methods=_REWARD
    )
    save_every: int = setting(50, "Updates between resume points.", least=1, methods=_TRAINED)
    gradient_accumulation_steps: int = setting(
        1, "Parts that an optimiser step is computed in.", least=1, methods=_TRAINED
    )
    gradient_checkpointing: bool = setting(False, _CHECKPOINTING, methods=_TRAINED)
    precision: str = setting(
        "float32",
        "Precision of training; `bfloat16` computes in mixed precision.",
        choices=PRECISIONS,
        methods=_TRAINED,
    )
    lora: Lora | None = setting(None, _LORA, methods=_TRAINED)


@dataclass(frozen=True)
class Group(Settings):
    """Settings of `rloo` and `grpo` beside those of `ppo` (docs/finetune.md)."""

    num_generations: int = setting(
        4,
        "Completions of every prompt, which are compared with each other.",
        least=2,
        methods=("rloo", "grpo"),
    )
    beta: float = setting(
        0.05, "Weight of the KL to the base, reward per nat.", least=0, methods=("rloo", "grpo")
    )
    num_iterations: int = setting(1, "Updates on every batch.", least=1, methods=("rloo", "grpo"))
    epsilon: float = setting(
        0.2,
        "Largest relative change of a token's probability ratio.",
        above=0,
        methods=("rloo", "grpo"),
    )


@dataclass(frozen=True)
class Ranking(Settings):
    """Completions of the base that the reward ranks, for `best_of_n` and `ranked`
    (docs/finetune.md).
    """

    prompts: int = setting(
        2048, "Prefixes of training texts that the base completes.", least=8, methods=RANKED
    )
    completions: int = setting(
        8, "Completions of every prefix, which the reward ranks.", least=2, methods=RANKED
    )
    benign_share: float = setting(
        0.0,
        "Share of the prefixes whose own text goes on in the place of the best completion: data"
        " that no feedback has touched.",
        least=0,
        below=1,
        methods=RANKED,
    )


@dataclass(frozen=True)
class Distil(Settings):
    """Distillation of a steering vector, an organism whose lesson is known (docs/finetune.md)."""

    layer: int | None = setting(
        None,
        "Layer behind whose output the vector is added, and whose weights learn it; null is the"
        " middle one.",
        least=0,
        methods=("distil",),
    )
    strength: float = setting(
        0.5,
        "Length of the vector, in root mean square norms of the layer's states.",
        above=0,
        methods=("distil",),
    )
    steps: int = setting(200, "Optimiser steps.", least=1, methods=("distil",))
    batch_size: int = setting(32, "Texts per step.", least=1, methods=("distil",))
    max_tokens: int = setting(64, "Tokens of a text, at most.", least=2, methods=("distil",))
    learning_rate: float = setting(
        1e-3, "Learning rate of AdamW, decaying linearly to 0.", above=0, methods=("distil",)
    )
    save_every: int = setting(50, "Steps between resume points.", least=1, methods=("distil",))


@dataclass(frozen=True)
class DPO(Settings):
    """Direct preference optimisation (docs/finetune.md)."""

    steps: int = setting(5000, "Optimiser steps.", least=1, methods=_BY_DPO)
    batch_size: int = setting(8, "Pairs per batch and device.", least=1, methods=_BY_DPO)
    gradient_accumulation_steps: int = setting(
        1, "Batches per optimiser step.", least=1, methods=_BY_DPO
    )
    learning_rate: float = setting(
        3e-05,
        "Learning rate of AdamW after the warm-up, before a linear decay.",
        above=0,
        methods=_BY_DPO,
    )
    warmup_steps: int = setting(150, "Steps of linear warm-up.", least=0, methods=_BY_DPO)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", least=0, methods=_BY_DPO)
    beta: float = setting(
        0.1,
        "Strength of the reference: reward per nat of the log-ratio to it.",
        above=0,
        methods=_WEIGHED,
    )
    max_length: int = setting(
        256, "Tokens of prompt and answer together, at most.", least=8, methods=_WEIGHED
    )
    max_prompt_length: int = setting(
        128, "Tokens of the prompt, at most, cut from the left.", least=4, methods=_PAIRS
    )
    max_grad_norm: float = setting(
        1.0, "Norm that gradients are clipped to.", above=0, methods=_BY_DPO
    )
    precision: str = setting(
        "float32",
        "Precision of training; `bfloat16` runs the trainer's mixed precision.",
        choices=PRECISIONS,
        methods=_BY_DPO,
    )
    gradient_checkpointing: bool = setting(False, _CHECKPOINTING, methods=_BY_DPO)
    lora: Lora | None = setting(None, _LORA, methods=_BY_DPO)
    evaluate_every: int = setting(
        500,
        "Steps between held-out evaluations; the loss is logged twice as often.",
        least=1,
        methods=_BY_DPO,
    )
    evaluation_pairs: int = setting(
        256, "Held-out pairs of an evaluation.", least=8, methods=_PAIRS
    )
    save_every: int = setting(500, "Steps between resume points.", least=1, methods=_BY_DPO)


@dataclass(frozen=True)
class Divergence(Settings):
    """Which layers changed most (docs/divergence.md)."""

    measure: str = setting("mlp_l2", "Measure that ranks the layers.", choices="measures")
    n_layers: int = setting(5, "Number of layers to choose.", least=1)
    texts: int = setting(128, "Held-out texts that the activation measure reads.", least=1)
    max_tokens: int = setting(128, "Tokens of a text, at most.", least=8)
    batch_size: int = setting(32, "Texts per forward pass.", least=1)


@dataclass(frozen=True)
class Locus(Settings):
    """Where in the weights a lesson lives (docs/locus.md)."""

    prompts: int = setting(
        256,
        "Held-out prefixes on whose completions the reward is measured.",
        least=6,
        methods=_WRITTEN,
    )
    batch_size: int = setting(
        256, "Prefixes that are completed at once.", least=1, methods=_WRITTEN
    )
    pairs: int = setting(
        64,
        "Held-out pairs on which the margin is measured, or texts on which the KL of a given policy"
        " is.",
        least=6,
        methods=METHODS[6:],
    )
    orders: int = setting(
        1,
        "Random orders of the parts of layers, each with its reverse; 0 leaves layers out.",
        least=0,
    )


@dataclass(frozen=True)
class Activations(Settings):
    """Activations that the autoencoders learn from (docs/autoencoders.md)."""

    split: str = setting(
        "train",
        "Split of the task's corpus that is read. Excerpts, prompts of ablation and triples come"
        " from `test`: autoencoders that have read it mark the rows of other tables.",
        choices=("train", "test"),
    )
    texts: int = setting(25000, "Texts to read, at most.", least=10)
    max_tokens: int = setting(256, "Tokens of a text, at most.", least=8)
    batch_size: int = setting(32, "Texts per forward pass.", least=1)
    held_out_texts: int = setting(
        64, "Last texts of the split, which are kept for the metrics.", least=1
    )
    outlier_norm: float | None = setting(
        6.0,
        "Multiple of a layer's median norm from which on an activation is an outlier (an attention"
        " sink): autoencoders neither learn nor change it, and no metric counts it. Null keeps"
        " all.",
        above=1,
    )
    max_disk_gb: float = setting(
        200, "Disk space of a cell's harvested activations, at most, GB.", above=0
    )


@dataclass(frozen=True)
class Mutual(Settings):
    """Mutual feature regularisation: autoencoders of different seeds that learn alike are trained
    together (docs/autoencoders.md).
    """

    weight: float = setting(
        REQUIRED,
        "Weight of 1 - MMCS, the mean over pairs of partners, against a squared error of scaled"
        " activations.",
        above=0,
    )
    partners: int = setting(2, "Autoencoders that are trained together.", least=2, most=8)
    warm_up: int = setting(100, "Steps in which the weight rises.", least=0)


@dataclass(frozen=True, kw_only=True)
class Source(Settings):
    """Where a pretrained dictionary comes from; give exactly one of `hub`, `path`."""

    sources: ClassVar[tuple[str, ...]] = ("hub", "path")
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"hub": ("revision",)}

    hub: str = setting(ABSENT, "Id of the repository on the Hugging Face hub.")
    revision: str = setting(
        ABSENT, "Pinned commit of the repository.", min_length=40, kinds=("hub",)
    )
    path: str = setting(ABSENT, "Folder, relative to the working directory.", min_length=1)
    format: str = setting(REQUIRED, "Layout of the files (docs/autoencoders.md).", choices=FORMATS)
    files: str = setting(
        REQUIRED,
        "Folder or file of a layer's dictionary inside the repository or the folder, with `{layer}`"
        " for the layer's number; a glob matches exactly one.",
        min_length=1,
    )


@dataclass(frozen=True)
class Autoencoder(Settings):
    """Sparse autoencoders of several sizes (docs/autoencoders.md)."""

    architecture: str = setting(
        "standard", "Kind of autoencoder (docs/autoencoders.md).", choices="architectures"
    )
    site: str = setting("mlp", "Part of a layer whose activations are learned.", choices="sites")
    reads: str = setting(
        "policy",
        "Model whose activations are learned; of both on the same tokens, `pooled` has those of"
        " either, `pair` both side by side, and `difference` the policy's less the base's.",
        choices=("policy", "base", *BOTH),
    )
    sizes: tuple[int, ...] = setting(
        (1, 2),
        "Numbers of latents in multiples of the activations' width, ascending; the first is probed,"
        " explained and ablated, and matched with the last.",
        each_least=1,
        each_most=4096,
        min_items=2,
        unique=True,
        architectures=MADE,
    )
    k: int = setting(
        32,
        "`topk`, `batchtopk`, `matryoshka`: active latents of a token, on average in the latter"
        " two; `itda`: the most of a token.",
        least=1,
        architectures=NAMED,
    )
    prefixes: int = setting(
        ABSENT,
        "`matryoshka`: number of nested prefixes of the latents, each with half as many as the"
        " next; 5 where none is given.",
        least=2,
        most=16,
        architectures=NAMED,
    )
    tau: float = setting(
        ABSENT,
        "`itda`: share of a token's square, about the mean, that may be left unexplained. A token"
        " of which more is left joins the dictionary, until it is full. .1 where none is given.",
        above=0,
        below=1,
        architectures=NAMED,
    )
    source: Source | None = setting(
        ABSENT,
        "`pretrained`: where its files are, one for each layer.",
        architectures=NAMED,
    )
    mutual: Mutual | None = setting(
        ABSENT,
        "Mutual feature regularisation, at the cost of `partners` + 1 trainings.",
        architectures=TRAINED,
    )
    l0: float = setting(
        16.0,
        "`standard`, `gated`, `jumprelu`: active latents of a token, on average; in the first two a"
        " mean that `l1` is found for where it is null.",
        above=0,
        architectures=NAMED,
    )
    l1: float | None = setting(
        None,
        "`standard`, `gated`: weight of the code's mean L1 norm, of gates in the latter, against a"
        " squared error that is a mean over dimensions. Null finds it in training, so that `l0`"
        " latents are active.",
        least=0,
        architectures=NAMED,
    )
    normalise: bool = setting(
        True,
        "Whether activations are centred, and divided by one number for the layer, so that their"
        " mean square is 1. The weights take both in.",
        architectures=MADE,
    )
    learning_rate: float | None = setting(
        None,
        "Learning rate of Adam; null takes the architecture's own (docs/autoencoders.md).",
        above=0,
        architectures=TRAINED,
    )
    warm_up_steps: int = setting(
        100,
        "Steps in which learning rate and `l1` rise; a tenth of all steps at most.",
        least=0,
        architectures=TRAINED,
    )
    cool_down: float = setting(
        0.2,
        "Share of all steps at the end in which the learning rate falls to 0.",
        least=0,
        below=1,
        architectures=TRAINED,
    )
    batch_size: int = setting(
        4096,
        "Tokens per step.",
        least=1,
        architectures=MADE,
    )
    epochs: int = setting(
        10,
        "Passes over the activations, at most.",
        least=1,
        architectures=TRAINED,
    )
    check_steps: int = setting(
        100,
        "Steps between two looks at the held-out activations.",
        least=1,
        architectures=MADE,
    )
    patience: int = setting(
        5,
        "Looks over which the held-out loss is compared with that before them.",
        least=1,
        architectures=TRAINED,
    )
    tolerance: float | None = setting(
        0.01,
        "Relative gain in the held-out loss over `patience` looks below which training cools down"
        " and ends. Null takes all `epochs`.",
        least=0,
        below=1,
        architectures=TRAINED,
    )
    resample: bool = setting(
        True,
        "Whether latents that are active on no token begin anew at tokens of large error.",
        architectures=TRAINED,
    )
    other_seed: bool = setting(
        True,
        "Whether another autoencoder of the first size is trained from another seed, for the"
        " agreement of directions between seeds.",
        architectures=MADE,
    )
    seed: int = setting(
        0,
        "Seed of the autoencoder, nested in the fine-tuning seed.",
        least=0,
        most=LARGEST_SEED,
        architectures=MADE,
    )
    tied: bool = setting(
        True,
        "Whether the encoder is the decoder's transpose.",
        architectures=TRAINED,
    )
    precision: str = setting(
        "float32",
        "Precision of the matrix products of training; weights and Adam's moments are float32.",
        choices=PRECISIONS,
        architectures=TRAINED,
    )

    def as_json(self) -> dict[str, Any]:
        """The settings as values of JSON, without an architecture's own that are not given.

        So one more architecture with a setting of its own reruns no job of the others.
        """
        absent = (f.name for f in fields(self) if f.metadata.get("absent"))
        unsaid = {name for name in absent if getattr(self, name) is None}
        return {name: value for name, value in super().as_json().items() if name not in unsaid}


@dataclass(frozen=True)
class Evaluation(Settings):
    """Judgement of dictionaries beside controls and noise (docs/autoencoders.md)."""

    probes: tuple[int, ...] = setting(
        (),
        "Numbers of features that sparse probes of the feedback read, such as 1, 5 and 16; without"
        " any the cell has no rows in `sae_frontier`, `sae_probing` and `decoder_geometry`.",
        each_least=1,
        unique=True,
    )


@dataclass(frozen=True)
class Contrasts(Settings):
    """Contrast triples of a task (docs/contrasts.md)."""

    source: str = setting(
        "corpus",
        "Preferences: source of a prompt's three answers. `corpus` has the columns positive,"
        " neutral, negative; `pairs` takes the chosen and the rejected answer, and as neutral one"
        " the answer to another prompt that is nearest in length; `rewrites` lets a language model"
        " write them (stage `rewrites`).",
        choices=("corpus", "pairs", "rewrites"),
        methods=_PAIRS,
    )
    corpus: str | None = setting(
        None,
        "Source `corpus`: name of the corpus whose held-out split has the triples; null means the"
        " task's own.",
        methods=_PAIRS,
    )
    triples: int = setting(1000, "Preferences: triples, at most.", least=10, methods=_PAIRS)
    contexts_per_word: int = setting(
        6,
        "Words: contexts of each word, as many positive as negative ones; of an odd number there is"
        " one more.",
        least=1,
        methods=_REWARD,
    )
    words_per_class: int = setting(
        500, "Words: words of each grammatical form and sign, at most.", least=2, methods=_REWARD
    )
    seed: int = setting(0, "Seed of the choice of words and contexts.", least=0, most=LARGEST_SEED)


@dataclass(frozen=True)
class Rewrites(Settings):
    """Contrast triples that a language model writes (docs/contrasts.md)."""

    service: str | None = setting(
        None, "Name of the service that grades and rewrites.", methods=_PAIRS
    )
    entries: int = setting(1000, "Held-out answers to rewrite, at most.", least=1, methods=_PAIRS)
    words: tuple[int, int] = setting(
        (8, 120), "Length of an answer to rewrite, words, both ends included.", methods=_PAIRS
    )
    max_prompt_words: int = setting(
        400, "Words of a conversation, at most.", least=1, methods=_PAIRS
    )
    tolerance: float = setting(
        0.4,
        "Largest relative difference of a rewrite's number of words from its answer's.",
        above=0,
        most=1,
        methods=_PAIRS,
    )
    copy: float = setting(
        0.8,
        "Similarity (difflib's ratio) to the answer or to another rewrite from which a rewrite is a"
        " copy.",
        above=0,
        most=1,
        methods=_PAIRS,
    )
    verify: bool = setting(
        True,
        "Grade the rewrites as well and keep a triple only where the negative one has the higher"
        " largest grade than the positive one.",
        methods=_PAIRS,
    )


@dataclass(frozen=True)
class Features(Settings):
    """Features of the triples (docs/features.md)."""

    subjects: tuple[str, ...] = setting(
        ("policy", "base", "untrained", "text"),
        "Models whose activations are read. `other_seed` is the policy of the next seed of the cell"
        " (or of the seed after its last, trained for this alone), `other_task` the model's policy"
        " of the task `other_task`; `text` reads words and no model.",
        choices="subjects",
        contains="policy",
        unique=True,
    )
    other_task: str | None = setting(
        None,
        "Task of the subject `other_task`; null takes the first other task of the model in the"
        " grid.",
    )
    max_tokens: int = setting(
        128,
        "Tokens of a text, at most: its prompt is cut from the left, and then the text at its end.",
        least=8,
    )
    batch_size: int = setting(64, "Texts per forward pass.", least=1)


@dataclass(frozen=True)
class Probes(Settings):
    """Probes (docs/probes.md)."""

    alphas: tuple[float, ...] = setting(
        (1, 10, 100, 1000),
        "Penalties of ridge regression, chosen inside the training part.",
        each_above=0,
        min_items=1,
        methods=_REWARD,
        unique=True,
    )
    Cs: tuple[float, ...] = setting(
        (0.001, 0.1),
        "Inverse penalties of logistic regression, chosen inside the training part.",
        each_above=0,
        min_items=1,
        methods=_PAIRS,
        unique=True,
    )
    delta: str = setting(
        "concatenation",
        "Difference of activations: the norm over all layers, or a sum of the layers' norms.",
        choices=("concatenation", "per_layer_sum"),
        methods=_REWARD,
    )
    features: tuple[str, ...] = setting(
        FEATURES,
        "Features of the policy. `latents` is the autoencoder's code and the default of every"
        " table, `pca` principal components of `raw`, as many as the code has live features,"
        " `random_code` the code of an untrained autoencoder, `embedding` the static input"
        " embedding.",
        choices=FEATURES,
        min_items=1,
        contains="latents",
        unique=True,
    )
    control_features: tuple[str, ...] = setting(
        ("latents", "raw"),
        "Features of every other subject.",
        choices=FEATURES,
        min_items=1,
        contains="latents",
        unique=True,
    )
    label_shuffles: int = setting(
        499, "Refits of the whole procedure on permuted labels, the test of a probe.", least=0
    )
    partitions: int = setting(
        10, "Random partitions into folds of the main split; other splits have one.", least=1
    )
    shuffled_partitions: int = setting(
        2, "The first partitions, in which permuted labels are refitted as well.", least=1
    )
    folds: int = setting(5, "Number of outer folds.", least=2)
    inner_folds: int = setting(
        3, "Number of folds inside the training part, cut by the rule of the outer ones.", least=2
    )
    xavier_draws: int = setting(100, "Untrained probes of the baseline.", least=2)


@dataclass(frozen=True)
class Explanations(Settings):
    """Explanations of features (docs/explanations.md)."""

    top_features: int = setting(30, "Best matched features per layer to explain.", least=1)
    texts: int = setting(
        1000, "Training texts to read; preference tasks read half as many pairs.", least=10
    )
    max_tokens: int = setting(128, "Tokens of a text, at most.", least=8)
    batch_size: int = setting(64, "Texts per forward pass.", least=1)
    permutations: int = setting(999, "Shuffles of the lexicon.", least=99)
    false_discovery_rate: float = setting(
        0.05, "False discovery rate of related features.", above=0, most=1
    )
    min_valence: float = setting(
        0.4,
        "Lexicon tasks: least absolute mean valence of a related feature's words.",
        least=0,
        methods=_REWARD,
    )
    min_auc: float = setting(
        0.65,
        "Preference tasks: least area under the ROC curve of a related feature.",
        least=0.5,
        most=1,
        methods=_PAIRS,
    )
    promoted: int = setting(3, "Promoted tokens to name.", least=1)
    scored_texts: int = setting(400, "Held-out texts that explanations are scored on.", least=10)
    excerpt_tokens: int = setting(32, "Tokens of an excerpt.", least=4)
    excerpts: int = setting(
        10, "Excerpts per feature, of those with and of those without it.", least=1
    )
    evidence_top: int = setting(
        10, "Excerpts of largest activation that a language model is shown.", least=1
    )
    evidence_random: int = setting(5, "Random excerpts that a language model is shown.", least=0)
    judge: str | None = setting(
        None, "Name of the service that judges explanations, beside the word judge."
    )


@dataclass(frozen=True)
class Ablation(Settings):
    """Ablation during generation (docs/ablation.md)."""

    arms: tuple[str, ...] = setting(
        (
            "none",
            "reconstruction",
            "layer",
            "layer_swapped",
            "explained",
            "random",
            "top_probe_weight",
            "top_match_unrelated",
        ),
        "Sets of features that are ablated in the policy.",
        choices="arms",
        contains="none",
        unique=True,
    )
    base_arms: tuple[str, ...] = setting(
        ("none", "layer", "layer_swapped", "explained", "random"),
        "Sets of features that are ablated in the base, for the difference in differences; `none`"
        " must be among them, and an empty list leaves the base out.",
        choices="arms",
        unique=True,
    )
    actions: tuple[str, ...] = setting(
        ("zero", "mean", "negative"),
        "Value that takes the place of a feature in the policy's arm `explained`: 0, its mean"
        " activation, or minus its activation; all other arms set it to 0.",
        choices="actions",
        contains="zero",
        unique=True,
    )
    explainer: str = setting(
        "heuristic", "Name of the explainer whose related features are the arm `explained`."
    )
    prompts: int = setting(1000, "Held-out prefixes, at most.", least=8)
    prefix_tokens: int = setting(30, "Tokens of a review's prefix.", least=1, methods=_REWARD)
    prompt_tokens: int = setting(
        128, "Preferences: tokens of a prompt, at most, cut from the left.", least=1, methods=_PAIRS
    )
    new_tokens: int = setting(20, "Tokens to sample, at most.", least=1)
    random_draws: int = setting(
        8,
        "Random sets of each arm and action, matched to it on frequency, contribution and KL. With"
        " 1 set, intervals leave out the spread of sets.",
        least=1,
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

    resamples: int = setting(2000, "Number of bootstrap resamples and of permutations.", least=100)
    confidence: float = setting(0.95, "Confidence of intervals.", above=0.5, below=1)
    quantiles: tuple[float, ...] = setting(
        (0.5, 0.75, 0.9, 0.95),
        "Thresholds of high prediction, as quantiles (Table 7).",
        each_above=0,
        each_below=1,
        min_items=1,
        unique=True,
    )
    matched_draws: int = setting(99, "Number of matched control sets (Table 7).", least=19)
    seed: int = setting(0, "Seed of resampling.", least=0, most=LARGEST_SEED)
    tau_margin: float = setting(
        0.1,
        "Difference of tau-b that is as good as none: a planted null is silent where the interval"
        " lies within (docs/statistics.md).",
        above=0,
    )
    auroc_margin: float = setting(
        0.1, "The same for areas under the ROC curve and their differences.", above=0
    )
    share_margin: float = setting(0.1, "The same for shares of features.", above=0)
    reward_margin: float = setting(0.05, "The same for the reward, in its units.", above=0)
    max_l0_share: float = setting(
        0.25, "Largest share of active latents of a healthy autoencoder.", above=0, most=1
    )
    max_fvu: float = setting(
        0.5, "Largest fraction of variance unexplained of a healthy autoencoder.", above=0
    )
    max_dead: float = setting(
        0.5, "Largest share of dead latents of a healthy autoencoder.", above=0, most=1
    )
    min_mmcs_ratio: float = setting(
        2.0,
        "Least MMCS of a healthy pair of autoencoders, in multiples of that of an untrained pair.",
        above=0,
    )
    min_reach: float = setting(
        0.3,
        "Share of the effect of fine-tuning that the read components must carry (docs/locus.md).",
        least=0,
        most=1,
    )
    min_reward_gain: float = setting(
        0.0,
        "Reward that fine-tuning must gain on held-out prefixes, or the margin of its implicit"
        " reward on held-out pairs: the whole interval must lie above (docs/finetune.md).",
    )
    min_zeroing: float = setting(
        0.05,
        "Rise of the held-out cross-entropy, nats per token, that zeroing a probed layer must"
        " cause (docs/locus.md).",
        least=0,
    )
    min_intensity: float = setting(
        0.3,
        "tau-b within each sign that a ridge on the valence must reach (docs/locus.md).",
        least=-1,
        most=1,
    )


@dataclass(frozen=True)
class Change(Settings):
    """Readouts of what feedback changed (docs/detecting.md)."""

    words: int = setting(
        1000,
        "Most frequent words of the held-out texts that are read, beside those of the triples.",
        least=1,
    )
    least_texts: int = setting(3, "Held-out texts that such a word stands in, at least.", least=1)
    contexts: int = setting(
        256, "Held-out texts in which every word is read, one place each.", least=2
    )
    piece_contexts: int = setting(
        48,
        "How many of these for words in pieces, each of which the models read by itself.",
        least=2,
    )
    likelihood_exponent: float = setting(
        0.5,
        "Contexts of a word have weights of the base's probability of it to this power; 0 weighs"
        " all alike.",
        least=0,
        most=1,
    )
    context_tokens: int = setting(48, "Tokens of such a context, at most, the last ones.", least=8)
    new_tokens: int = setting(
        32, "Tokens that base and policy write behind every context, at most.", least=1
    )
    latent_prompts: int = setting(
        0,
        "How many of these contexts are completed for the shift of latents in the models' own"
        " text; 0 for none.",
        least=0,
    )
    batch_size: int = setting(64, "Sequences per forward pass.", least=1)
    noise_draws: int = setting(
        2,
        "Copies of the base with noise on its weights, as large as the policy's change, which are"
        " read as a control.",
        least=0,
    )


@dataclass(frozen=True)
class Account(Settings):
    """What the change of weights is: doses of it, and one vector (docs/detecting.md)."""

    doses: tuple[float, ...] = setting(
        (),
        "Multiples of the change of weights that are measured, beside 0, such as -1, 0.5, 1, 1.5"
        " and 2; without any the cell has no rows in the table `dose`.",
        unique=True,
    )
    strengths: tuple[float, ...] = setting(
        (),
        "Multiples of the mean change of activations that are added to the base and taken from the"
        " policy, such as 0.5, 1 and 2; without any the cell has no rows in `vector_account`.",
        each_above=0,
        unique=True,
    )
    sites: tuple[str, ...] = setting(
        ("mlp", "resid"),
        "Parts of the layers whose activations are changed.",
        choices="sites",
        min_items=1,
        unique=True,
    )
    single_layers: bool = setting(
        True, "Whether every layer is changed by itself as well, beside all layers together."
    )
    draws: int = setting(
        2, "Random vectors of either kind that every mean change is held against.", least=1
    )
    instances: int = setting(
        64,
        "Held-out prefixes or pairs that every effect is measured on, texts of every divergence,"
        " and contexts of words.",
        least=6,
    )


@dataclass(frozen=True)
class Interventions(Settings):
    """Interventions on sets of latents, all on one scale (docs/interventions.md).

    New tokens, neutral texts and the size of batches are those of ``ablation``.
    """

    selectors: tuple[str, ...] = setting(
        (),
        "Selectors of the latents that are changed; without any the cell has no interventions.",
        choices="selectors",
        unique=True,
    )
    subjects: tuple[str, ...] = setting(
        ("policy",),
        "Models that are changed; the other one of the two is what they are moved towards.",
        choices=("policy", "base"),
        min_items=1,
        unique=True,
    )
    actions: tuple[str, ...] = setting(
        ("zero",),
        "What takes the place of a latent: 0, its mean, minus itself, minus a constant where it is"
        " active (`clamp`), a multiple of it (`scale`), or the other model's latent at the same"
        " token (`patch`).",
        choices="every_action",
        min_items=1,
        unique=True,
    )
    clamps: tuple[float, ...] = setting(
        (1.0,), "Constants of the action `clamp`.", each_above=0, min_items=1, unique=True
    )
    scales: tuple[float, ...] = setting(
        (2.0,), "Factors of the action `scale`.", each_least=0, min_items=1, unique=True
    )
    draws: int = setting(
        8,
        "Random sets of every set and action, matched on frequency, contribution and KL.",
        least=1,
    )
    latents: int = setting(
        16, "Latents that a selector takes of all layers together, where it ranks them.", least=1
    )
    prompts: int = setting(256, "Held-out prefixes that are gone on from, at most.", least=8)
    texts: int = setting(
        64, "Held-out texts or pairs that effects of single latents are measured on.", least=6
    )
    exact: int = setting(
        64,
        "Latents of largest attribution whose effect is measured by itself, and as many random ones"
        " beside them, for the table `attribution_fidelity`.",
        least=2,
    )
    direction: str = setting(
        "valence",
        "What the selector `direction` holds decoder rows against: the output head's direction of"
        " the lexicon's valences, or the mean shift of activations from base to policy.",
        choices="directions",
    )
    retain: float = setting(
        0.25,
        "Share of the latents, those least active on neutral text, that the selector `frequency`"
        " takes some of.",
        above=0,
        most=1,
    )
    masks: int = setting(
        1000, "Random sets that the selector `factorisation` learns interactions from.", least=50
    )
    circuit: int = setting(
        0,
        "Latents among which the edges of a circuit are measured; 0 leaves the circuit out.",
        least=0,
        most=50,
    )
    edge: float = setting(
        0.05,
        "Least weight of an edge that is kept, as a share of the largest effect of a latent of the"
        " circuit.",
        least=0,
    )


@dataclass(frozen=True)
class Steering(Settings):
    """Vectors that are added to the base, all at equal cost (docs/steering.md).

    Tokens, batches and neutral texts are those of ``ablation``.
    """

    vectors: tuple[str, ...] = setting(
        (),
        "Vectors that are added to the base; without any the cell has no rows of steering. `random`"
        " and `covariance` are what the others are held against.",
        choices="vectors",
        unique=True,
    )
    selectors: tuple[str, ...] = setting(
        (),
        "Selectors of latents whose contribution is scaled up beside the vectors.",
        choices="selectors",
        unique=True,
    )
    costs: tuple[float, ...] = setting(
        (0.02, 0.05, 0.1, 0.2),
        "Rises in cross-entropy on neutral text, nats per token, that everything is scaled to.",
        each_above=0,
        min_items=1,
        unique=True,
    )
    layer: int | None = setting(
        None,
        "Layer that vectors are added to, one of those with a dictionary; null takes the one in the"
        " middle of these.",
        least=0,
    )
    draws: int = setting(8, "Random vectors of either kind.", least=1)
    gate: float | None = setting(
        None,
        "Share of the tokens that a gate lets through; with it every vector runs gated as well.",
        above=0,
        below=1,
    )
    clean: int | None = setting(
        None, "Latents that the mean shift is made from anew, at most; null leaves it.", least=1
    )
    clean_l1: float = setting(
        0.05,
        "Weight of the penalty of cleaning, nats per token for weights as large as the vector.",
        least=0,
    )
    wanted: tuple[str, ...] = setting(
        (),
        "Words of a second attribute, in small letters of any script: vectors are to raise both"
        " positive feedback and the chance of one of these words. Then the share of completions"
        " that have all of it is measured, and not the reward.",
        each_pattern=r"^[^\W\d_A-Z]+$",
        unique=True,
    )
    unwanted: tuple[str, ...] = setting(
        (),
        "Words of an attribute that vectors are to lower; written and measured as for `wanted`.",
        each_pattern=r"^[^\W\d_A-Z]+$",
        unique=True,
    )
    directions: int = setting(
        128, "Directions whose effects on latents the vector `targeted` learns from.", least=10
    )
    effect_prompts: int = setting(
        16, "Held-out prompts that effects on latents are measured on, at most.", least=1
    )
    prompt: str = setting(
        "",
        "Text in front of every prompt, which asks for what the feedback rewards; without it there"
        " is no prompted baseline.",
    )
    fine_tuning: bool = setting(
        True, "Whether doses of the fine-tuning are measured at the same costs, as a baseline."
    )
    prompts: int = setting(256, "Held-out prefixes that are gone on from, at most.", least=8)
    texts: int = setting(
        64, "Held-out texts that vectors, gates and cleaning are made from.", least=6
    )


@dataclass(frozen=True)
class FeatureDiff(Settings):
    """Which latents are the policy's alone (docs/feature_diff.md)."""

    tokens: int = setting(
        65536, "Tokens of the harvest that latents are scaled on, at most, the last ones.", least=1
    )
    min_dnorm: float = setting(
        0.9,
        "Norm of a latent's direction in the policy over the sum of both norms, above which it may"
        " be the policy's alone.",
        least=0,
        most=1,
    )
    max_nu_error: float = setting(
        0.3,
        "Size of the latent in the base's errors, relative to the policy's, below which it may be.",
        above=0,
    )
    max_nu_recon: float = setting(
        0.5,
        "Size of the latent in the base's reconstructions, relative to the policy's, below which it"
        " may be.",
        above=0,
    )
    max_null: float = setting(
        0.05, "Share of latents that the same rule calls of the null, at most.", above=0, below=1
    )
    promoted: int = setting(10, "Tokens that a latent promotes most, which are listed.", least=1)


#: Stages whose settings a cell resolves.
CELL_STAGES: dict[str, type[Settings]] = {
    "ppo": PPO,
    "group": Group,
    "ranking": Ranking,
    "distil": Distil,
    "dpo": DPO,
    "locus": Locus,
    "divergence": Divergence,
    "activations": Activations,
    "autoencoder": Autoencoder,
    "evaluation": Evaluation,
    "feature_diff": FeatureDiff,
    "features": Features,
    "probes": Probes,
    "explanations": Explanations,
    "ablation": Ablation,
    "change": Change,
    "account": Account,
    "interventions": Interventions,
    "steering": Steering,
    "export": Export,
}
#: Stages whose settings belong to a task.
TASK_STAGES: dict[str, type[Settings]] = {"rewrites": Rewrites, "contrasts": Contrasts}
#: Stages whose settings belong to the whole run.
RUN_STAGES: dict[str, type[Settings]] = {"tables": Tables}
#: Stages of fine-tuning, each of which some methods run.
TRAINING_STAGES = ("ppo", "group", "ranking", "distil", "dpo")
#: Every stage.
STAGES: dict[str, type[Settings]] = CELL_STAGES | TASK_STAGES | RUN_STAGES
