"""Settings of contrasts, of their features, and of probes."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.settings.fields import LARGEST_SEED, Settings, setting
from lfp.settings.methods import PAIRED, REWARDED

#: Kinds of features that a probe can read.
FEATURES = ("latents", "reconstruction", "raw", "pca", "random_code", "embedding")


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
        methods=PAIRED,
    )
    corpus: str | None = setting(
        None,
        "Source `corpus`: name of the corpus whose held-out split has the triples; null means the"
        " task's own.",
        methods=PAIRED,
    )
    triples: int = setting(1000, "Preferences: triples, at most.", least=10, methods=PAIRED)
    contexts_per_word: int = setting(
        6,
        "Words: contexts of each word, as many positive as negative ones; of an odd number there is"
        " one more.",
        least=1,
        methods=REWARDED,
    )
    words_per_class: int = setting(
        500,
        "Words: words of each grammatical form and sign, at most.",
        least=2,
        methods=REWARDED,
    )
    seed: int = setting(0, "Seed of the choice of words and contexts.", least=0, most=LARGEST_SEED)


@dataclass(frozen=True)
class Rewrites(Settings):
    """Contrast triples that a language model writes (docs/contrasts.md)."""

    service: str | None = setting(
        None, "Name of the service that grades and rewrites.", methods=PAIRED
    )
    entries: int = setting(1000, "Held-out answers to rewrite, at most.", least=1, methods=PAIRED)
    words: tuple[int, int] = setting(
        (8, 120), "Length of an answer to rewrite, words, both ends included.", methods=PAIRED
    )
    max_prompt_words: int = setting(
        400, "Words of a conversation, at most.", least=1, methods=PAIRED
    )
    tolerance: float = setting(
        0.4,
        "Largest relative difference of a rewrite's number of words from its answer's.",
        above=0,
        most=1,
        methods=PAIRED,
    )
    copy: float = setting(
        0.8,
        "Similarity (difflib's ratio) to the answer or to another rewrite from which a rewrite is a"
        " copy.",
        above=0,
        most=1,
        methods=PAIRED,
    )
    verify: bool = setting(
        True,
        "Grade the rewrites as well and keep a triple only where the negative one has the higher"
        " largest grade than the positive one.",
        methods=PAIRED,
    )


@dataclass(frozen=True)
class Features(Settings):
    """Features of the triples (docs/features.md)."""

    subjects: tuple[str, ...] = setting(
        ("policy", "base", "untrained", "text"),
        "Models whose activations are read. `other_seed` is the policy of the next cell whose"
        " fine-tuning differs in its seed alone (or of the next free seed, trained for this alone),"
        " `other_task` the model's policy of the task `other_task`; `text` reads words and no"
        " model.",
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
        methods=REWARDED,
        unique=True,
    )
    Cs: tuple[float, ...] = setting(
        (0.001, 0.1),
        "Inverse penalties of logistic regression, chosen inside the training part.",
        each_above=0,
        min_items=1,
        methods=PAIRED,
        unique=True,
    )
    delta: str = setting(
        "concatenation",
        "Difference of activations: the norm over all layers, or a sum of the layers' norms.",
        choices=("concatenation", "per_layer_sum"),
        methods=REWARDED,
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
