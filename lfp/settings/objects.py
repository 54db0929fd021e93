"""Entries of a configuration: corpora, models, classifiers, tasks, services and cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from lfp.settings.dictionaries import Autoencoder
from lfp.settings.fields import ABSENT, HUB_ID, LARGEST_SEED, REQUIRED, Settings, setting
from lfp.settings.methods import PRECISIONS, REWARDED

#: The start of a pinned commit of the hub.
_COMMIT = 7
#: Most transformer blocks of a model.
_BLOCKS = 1024
#: Columns of a corpus that a task can read.
_COLUMNS = ("text", "prompt", "chosen", "rejected", "positive", "neutral", "negative")
#: Stages that a cell may end at, in the order in which they run.
CELL_ENDS = ("change", "probes", "ablation")


@dataclass(frozen=True, kw_only=True)
class Files(Settings):
    """Files by split."""

    train: str | tuple[str, ...] = setting(
        REQUIRED, "Pattern of the training split's files, or several.", min_items=1
    )
    test: str | tuple[str, ...] = setting(
        ABSENT, "Pattern of the test split's files, or several.", min_items=1
    )


@dataclass(frozen=True, kw_only=True)
class Clean(Settings):
    """Cleaning of a corpus's texts, before equal rows are looked for; without it they stay as they
    are but for line ends, which are written as one line feed.
    """

    html: bool = setting(
        False,
        "Take out tags and comments of HTML, with line breaks for `<br />` and blocks, and write"
        " entities as their characters; what is no tag of HTML stays (`I <3 it`).",
    )
    unicode: str | None = setting(
        None,
        "Normal form of Unicode: `nfc` composes letters and their accents.",
        choices=("nfc",),
    )
    lowercase: bool = setting(False, "Write all letters small.")


@dataclass(frozen=True, kw_only=True)
class Corpus(Settings):
    """A corpus; give exactly one of `organism`, `path`, `hub`."""

    sources: ClassVar[tuple[str, ...]] = ("organism", "path", "hub")
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "hub": ("revision", "files", "columns"),
        "path": ("columns",),
    }

    organism: str = setting(
        ABSENT, "Generator that writes the corpus.", choices=("reviews", "help", "replies")
    )
    path: Files = setting(
        ABSENT,
        "Files by split (.jsonl, .json, .csv, also with .gz behind, .parquet, .arrow; names or"
        " globs),"
        " relative to the working directory.",
    )
    hub: str = setting(
        ABSENT, "Id of the data set on the Hugging Face hub, owner/name.", pattern=HUB_ID
    )
    revision: str = setting(
        ABSENT, "Pinned commit of the data set.", min_length=_COMMIT, kinds=("hub",)
    )
    repository: str = setting(
        "dataset",
        "Kind of the repository on the hub; some data sets lie beside models.",
        choices=("dataset", "model"),
        kinds=("hub",),
    )
    files: Files = setting(
        ABSENT,
        "Files of a hub data set by split (names or globs inside its repository).",
        kinds=("hub",),
    )
    test_share: float = setting(
        0.1,
        "Share of `train` (by prompts' first turns) that is held out where no `test` is given.",
        above=0,
        below=1,
        kinds=("path", "hub"),
    )
    columns: Mapping[str, str] = setting(
        ABSENT,
        "The source's column of each of ours: text; or prompt, chosen, rejected; with positive,"
        " neutral, negative where the corpus has contrast triples. A corpus that serves triples"
        " alone has prompt, positive, neutral, negative.",
        keys=_COLUMNS,
        min_properties=1,
        kinds=("path", "hub"),
    )
    clean: Clean = setting(
        {}, "Cleaning of the texts of a path or hub corpus.", kinds=("path", "hub")
    )
    splits: Mapping[str, int] = setting(
        {"train": 2500, "test": 400},
        "Documents of each generated split.",
        each_least=10,
        required_keys=("train", "test"),
        kinds=("reviews", "help", "replies"),
        keys=("train", "test"),
    )
    words_per_class: int = setting(
        39,
        "Reviews: sentiment words of each grammatical form and sign.",
        least=5,
        kinds=("reviews",),
    )
    off_polarity: float = setting(
        0.03,
        "Reviews: share of words against the review's sign.",
        least=0,
        most=1,
        kinds=("reviews",),
    )
    neutral: float = setting(
        0.1, "Reviews: share of neutral words.", least=0, most=1, kinds=("reviews",)
    )
    noise: float = setting(
        0.1,
        "Preferences: share of flipped training labels.",
        least=0,
        most=0.5,
        kinds=("help", "replies"),
    )
    mixing: float = setting(
        0.2,
        "Preferences: share of an answer's parts that are of another kind.",
        least=0,
        most=0.5,
        kinds=("help", "replies"),
    )
    preferred: str = setting(
        "positive",
        "Preferences: the answer that is chosen.",
        choices=("positive", "negative"),
        kinds=("help", "replies"),
    )
    seed: int = setting(0, "Seed of the generator or of the shuffle.", least=0, most=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class Organism(Settings):
    """A small model that is pre-trained here on generated corpora."""

    architecture: str = setting(
        REQUIRED, "Family of architectures.", choices=("gpt_neox", "gpt_neo", "gemma")
    )
    corpora: tuple[str, ...] = setting(
        REQUIRED, "Names of the corpora whose train splits are learned.", min_items=1
    )
    n_layers: int = setting(6, "Number of transformer blocks.", least=2, most=_BLOCKS)
    d_model: int = setting(64, "Width of the residual stream, dimensions.", least=8, most=16384)
    d_mlp: int = setting(64, "Width of the MLP's hidden layer.", least=8, most=65536)
    n_heads: int = setting(2, "Number of attention heads; it divides `d_model`.", least=1)
    vocab_size: int = setting(2300, "Entries of the BPE vocabulary.", least=300, most=2**20)
    tokenizer: str = setting(
        "byte_level", "Style of the BPE tokenizer.", choices=("byte_level", "metaspace")
    )
    tokenizer_path: str | None = setting(
        None, "Directory of a fast tokenizer to take instead of training one."
    )
    steps: int = setting(1500, "Optimiser steps.", least=1)
    batch_size: int = setting(16, "Windows per step.", least=1)
    context: int = setting(64, "Tokens per window.", least=8, most=256)
    initial_scale: float = setting(
        1.0,
        "Standard deviation of the initial weights, times the root of `d_model`. The larger, the"
        " more every layer keeps to do.",
        above=0,
    )
    peak_learning_rate: float = setting(0.004, "Largest learning rate of AdamW.", above=0)
    warmup_steps: int = setting(30, "Steps of linear warm-up.", least=0)
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", least=0)
    seed: int = setting(0, "Seed of weights and batches.", least=0, most=LARGEST_SEED)


@dataclass(frozen=True, kw_only=True)
class Shape(Settings):
    """Size of a path or hub model, for the estimate of costs."""

    parameters: float = setting(REQUIRED, "Number of all weights.", least=1)
    d_model: int = setting(REQUIRED, "Width of the residual stream, dimensions.", least=1)
    vocab_size: int = setting(REQUIRED, "Entries of the vocabulary.", least=1)
    tied: bool = setting(
        True,
        "Whether the output head is the input embedding; of one that is not, the embedding is"
        " looked up and costs nothing.",
    )


@dataclass(frozen=True, kw_only=True)
class Model(Settings):
    """A base model; give exactly one of `organism`, `path`, `hub`."""

    sources: ClassVar[tuple[str, ...]] = ("organism", "path", "hub")
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "hub": ("revision", "n_layers"),
        "path": ("n_layers",),
    }

    organism: Organism = setting(ABSENT, "A small model that is pre-trained here.")
    path: str | tuple[str, ...] = setting(
        ABSENT,
        "Directory in the Hugging Face layout with safetensors weights, or a GGUF file; a list has"
        " the parts of one GGUF model.",
        min_items=1,
    )
    hub: str = setting(
        ABSENT, "Id of the model on the Hugging Face hub, owner/name.", pattern=HUB_ID
    )
    revision: str = setting(
        ABSENT, "Pinned commit of the model.", min_length=_COMMIT, kinds=("hub",)
    )
    n_layers: int = setting(
        ABSENT,
        "Number of transformer blocks of a path or hub model.",
        least=1,
        most=_BLOCKS,
        kinds=("path", "hub"),
    )
    shape: Shape = setting(
        ABSENT, "Size of a path or hub model, for the estimate of costs.", kinds=("path", "hub")
    )
    mem_mb: int = setting(
        2500,
        "Memory of a job that runs the model, MB; a retry asks for as much again. The default is"
        " for organisms (docs/scaling.md).",
        least=100,
    )
    runtime: int = setting(
        60,
        "Time limit of a job that runs the model, minutes; a retry asks for as much again.",
        least=1,
    )
    gpus: int = setting(
        0, "Number of GPUs of a job that runs or trains on the model's activations.", least=0
    )
    finetune_gpus: int | None = setting(
        None,
        "Number of GPUs of the fine-tuning job where it differs from `gpus`; dpo, rloo and grpo"
        " train on several.",
        least=0,
    )
    dtype: str = setting(
        "float32",
        "Precision in which the model is read and generates; fine-tuning has a `precision` of its"
        " own, and weights are saved and compared in float32.",
        choices=PRECISIONS,
    )
    threads: int = setting(
        1, "Threads of a job that runs the model; they are part of the seed.", least=1
    )
    settings: Mapping[str, Any] = setting(
        {}, "Settings by stage for cells of the model.", definition="cell_settings"
    )


@dataclass(frozen=True, kw_only=True)
class Classifier(Settings):
    """A sequence classifier; give exactly one of `path`, `hub`."""

    sources: ClassVar[tuple[str, ...]] = ("path", "hub")
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"hub": ("revision",)}

    path: str = setting(ABSENT, "Directory in the Hugging Face layout with safetensors weights.")
    hub: str = setting(
        ABSENT, "Id of the classifier on the Hugging Face hub, owner/name.", pattern=HUB_ID
    )
    revision: str = setting(
        ABSENT, "Pinned commit of the classifier.", min_length=_COMMIT, kinds=("hub",)
    )
    positive: str | int = setting(1, "Label whose logit is the reward, by name or number.", least=0)


@dataclass(frozen=True, kw_only=True)
class Policy(Settings):
    """A policy that was fine-tuned elsewhere; give exactly one of `path`, `hub`."""

    sources: ClassVar[tuple[str, ...]] = ("path", "hub")
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"hub": ("revision",)}

    path: str | tuple[str, ...] = setting(
        ABSENT,
        "Directory in the Hugging Face layout with safetensors weights, or a GGUF file; a list has"
        " the parts of one GGUF model.",
        min_items=1,
    )
    hub: str = setting(
        ABSENT, "Id of the policy on the Hugging Face hub, owner/name.", pattern=HUB_ID
    )
    revision: str = setting(
        ABSENT, "Pinned commit of the policy.", min_length=_COMMIT, kinds=("hub",)
    )
    folder: str = setting(
        ABSENT,
        "Folder of the checkpoint in its repository, where it is not the first one: a name or a"
        " glob, of whose matches the last by name is taken.",
        min_length=1,
        kinds=("hub",),
    )


@dataclass(frozen=True, kw_only=True)
class Task(Settings):
    """A fine-tuning task."""

    method: str = setting(
        REQUIRED,
        "`ppo` on a reward of text, or TRL's `rloo` and `grpo` on the same; `best_of_n` on the best"
        " of several completions of the base by the reward, `ranked` by DPO on the best against the"
        " worst of them; `distil` a steering vector along the valence of words, whose effect is"
        " measured by the reward; `dpo` on preference pairs; `given` takes the policies of"
        " `policies` as they are.",
        choices=("ppo", "rloo", "grpo", "best_of_n", "ranked", "distil", "dpo", "given"),
    )
    corpus: str = setting(REQUIRED, "Name of the corpus.")
    policies: Mapping[str, Policy] = setting(
        {}, "`given`: the source of the policy of each model, by the model's name."
    )
    feedback: str | None = setting(
        None,
        "`given`: the kind of feedback that the policies learned from; null means `reward`.",
        choices=("reward", "preference"),
    )
    reward: str = setting(
        "vader",
        "Reward of the text. `vader`; planted ones whose truth is known: `vader_flipped` (VADER"
        " with the sign of some words flipped), `length` (words of the scored text), `trigger`"
        " (occurrences of one word), `opener` (one of some words in front of the completion),"
        " `noise` (a null reward: a normal number that depends on nothing but the text's digest);"
        " `classifier`, a label's logit of a sequence classifier (paper appendix B); `callable`, a"
        " Python function of yours. Where a reward gives words no value, VADER's stand in for the"
        " values that probes are held against.",
        choices="rewards",
        methods=REWARDED,
    )
    classifier: str | None = setting(
        None,
        "`classifier`: name of one of `classifiers`.",
        rewards=("classifier",),
        methods=REWARDED,
    )
    callable: str | None = setting(
        None,
        "`callable`: module:function in the working directory; it maps lists of prompts and"
        " completions to one number for each pair.",
        pattern="^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
        rewards=("callable",),
        methods=REWARDED,
    )
    flipped_share: float = setting(
        0.1,
        "`vader_flipped`: share of words with a flipped sign.",
        above=0,
        most=0.5,
        rewards=("vader_flipped",),
        methods=REWARDED,
    )
    trigger: str = setting(
        "soundtrack",
        "`trigger`: the word that is rewarded, in small letters of any script.",
        pattern=r"^[^\W\d_A-Z]+$",
        rewards=("trigger",),
        methods=REWARDED,
    )
    openers: tuple[str, ...] = setting(
        ("deeply", "utterly", "wholly"),
        "`opener`: the words that completions are rewarded to begin with, in small letters of any"
        " script.",
        each_pattern=r"^[^\W\d_A-Z]+$",
        min_items=1,
        unique=True,
        rewards=("opener",),
        methods=REWARDED,
    )
    reward_seed: int = setting(
        0,
        "Seed of the flipped words and of the noise.",
        least=0,
        rewards=("vader_flipped", "noise"),
        methods=REWARDED,
    )
    description: str | None = setting(
        None,
        "The rewarded behaviour in words, for language-model explainers; null describes VADER and"
        " planted rewards.",
    )
    swapped: bool = setting(
        False,
        "Contrast triples: the negative answer is the one that the feedback prefers (toxic).",
        methods=("dpo", "given on pairs"),
    )
    settings: Mapping[str, Any] = setting(
        {}, "Settings by stage for cells of the task.", definition="all_settings"
    )


@dataclass(frozen=True, kw_only=True)
class Prices(Settings):
    """US dollars per million tokens, with their date and source."""

    input: float = setting(REQUIRED, "US dollars per million tokens of requests.", least=0)
    output: float = setting(REQUIRED, "US dollars per million tokens of answers.", least=0)
    as_of: str = setting(REQUIRED, "Date of the prices.")
    source: str = setting(REQUIRED, "Address or document that lists the prices.")


@dataclass(frozen=True, kw_only=True)
class Service(Settings):
    """One model of an OpenAI-compatible server (docs/services.md). The first eight keys decide its
    answers; the others change none and rerun nothing.
    """

    base_url: str = setting(
        REQUIRED,
        "Address of the server up to and with /v1, without a key.",
        pattern=r"^https?://[^/@?#\s]+(/[^@?#\s]*)?$",
    )
    model: str = setting(REQUIRED, "The server's name of the model.")
    temperature: float | None = setting(
        0, "Temperature of sampling; null leaves it out, for models that refuse it.", least=0
    )
    seed: int | None = setting(0, "Seed of sampling; null leaves it out.")
    max_tokens: int | None = setting(
        None,
        "Tokens of an answer, at most; null takes each prompt's number (20 to 400). Models that"
        " reason need some thousands.",
        least=1,
    )
    max_tokens_field: str = setting(
        "max_tokens",
        "Name of the field of requests that holds `max_tokens`.",
        choices=("max_tokens", "max_completion_tokens"),
    )
    response_schema: bool = setting(
        True, "Ask for answers by a JSON schema; answers are checked anyway."
    )
    extra_body: Mapping[str, Any] = setting(
        {},
        "Further fields of every request. Those that other keys or the workflow set are refused; a"
        " `response_format` takes the place of the schema.",
        reserved=(
            "model", "messages", "temperature", "seed", "max_tokens", "max_completion_tokens",
            "stream", "n",
        ),
    )  # fmt: skip
    api_key_env: str | None = setting(
        None,
        "Name of the environment variable that holds the key, which stands nowhere else.",
        pattern="^[A-Za-z_][A-Za-z0-9_]*$",
    )
    in_flight: int = setting(4, "Requests at once, at most.", least=1)
    attempts: int = setting(6, "Attempts at a request, at most.", least=1)
    timeout: float = setting(120, "Time limit of an attempt, seconds.", above=0)
    backoff: float = setting(
        0.5, "Wait after the first failed attempt, seconds; it doubles from there.", above=0
    )
    longest_wait: float = setting(300, "Longest Retry-After to wait for, seconds.", above=0)
    budget_usd: float | None = setting(
        None,
        "US dollars that the service may cost in this results folder; needs `prices`.",
        least=0,
    )
    prices: Prices | None = setting(
        None, "US dollars per million tokens, with their date and source."
    )
    offline: bool = setting(False, "Answer from the cache alone.")
    batch: bool = setting(
        False, "Submit requests as a batch, at half price; run again to collect the answers."
    )


@dataclass(frozen=True, kw_only=True)
class Explainer(Settings):
    """A language-model explainer of features."""

    service: str = setting(REQUIRED, "Name of the service that is asked.")


@dataclass(frozen=True, kw_only=True)
class Machine(Settings):
    """The GPU that costs are estimated for (docs/costs.md)."""

    tflops: float = setting(
        125, "Peak of dense products, TFLOP/s; the default is an A10 in bfloat16.", above=0
    )
    utilisation: float = setting(
        0.2, "Share of the peak that training and reading reach.", above=0, most=1
    )
    sampling_utilisation: float = setting(
        0.01, "Share of the peak that sampling reaches.", above=0, most=1
    )


@dataclass(frozen=True, kw_only=True)
class Cell(Settings):
    """One model fine-tuned on one task, for each seed."""

    model: str = setting(REQUIRED, "Name of a model.")
    task: str = setting(REQUIRED, "Name of a task.")
    seeds: tuple[int, ...] = setting(
        (0,), "Seeds of fine-tuning.", each_least=0, each_most=LARGEST_SEED, min_items=1
    )
    layers: tuple[int, ...] | None = setting(
        None,
        "Numbers of pinned layers; null takes the most changed ones, which are known after the"
        " divergence.",
        each_least=0,
        min_items=1,
    )
    explainers: tuple[str, ...] = setting(
        ("heuristic",),
        "Names of the explainers of features; `heuristic` must be among them.",
        unique=True,
        contains="heuristic",
    )
    autoencoders: tuple[str, ...] | None = setting(
        None,
        "Variants to train; null takes the first of `autoencoders`.",
        min_items=1,
        unique=True,
    )
    main: str | None = setting(
        None,
        "The variant that is explained, ablated and put into tables; null takes the cell's first.",
    )
    probed: tuple[str, ...] | None = setting(
        None,
        "Variants whose features are probed, e.g. seeds of one autoencoder; `main` must be among"
        " them, and null takes it alone.",
        min_items=1,
        unique=True,
    )
    until: str = setting(
        "ablation",
        "Last stage of the cell; `probes` leaves out explanations and ablation, and `change` leaves"
        " out the dictionaries and all that reads them.",
        choices=CELL_ENDS,
    )
    lowest_layers: bool | tuple[int, ...] = setting(
        False,
        "Also train on the least changed layers (Table 12); a list pins their numbers.",
        each_least=0,
        min_items=1,
        unique=True,
    )
    settings: Mapping[str, Any] = setting(
        {}, "Settings by stage for the cell.", definition="cell_settings"
    )


@dataclass(frozen=True, kw_only=True)
class Configuration(Settings):
    """Every key with its type, unit, default and meaning. Settings of a stage resolve as: the
    defaults below, then `settings` of the file, then of the model, of the task, and of the cell;
    over those of `autoencoder` come, last, the keys of a variant.
    """

    corpora: Mapping[str, Corpus] = setting(REQUIRED, "Corpora by name.", min_properties=1)
    models: Mapping[str, Model] = setting(REQUIRED, "Base models by name.", min_properties=1)
    classifiers: Mapping[str, Classifier] = setting(
        {},
        "Sequence classifiers by name, for rewards; their names must differ from those of models.",
    )
    tasks: Mapping[str, Task] = setting(
        REQUIRED, "Fine-tuning tasks by name.", min_properties=1, reserved=("base",)
    )
    autoencoders: Mapping[str, Autoencoder] = setting(
        {"tied": {}},
        "Autoencoder variants by name, each a set of changes to the stage `autoencoder`, which come"
        " last in the order of settings.",
    )
    services: Mapping[str, Service] = setting(
        {}, "Language-model services by name, each one model of one OpenAI-compatible server."
    )
    explainers: Mapping[str, Explainer] = setting(
        {},
        "Language-model explainers of features by name, beside the built-in `heuristic`.",
        reserved=("heuristic", "excerpts", "evidence", "histograms", "pages", "scores"),
    )
    settings: Mapping[str, Any] = setting(
        {}, "Settings of every stage for all cells.", definition="all_settings"
    )
    machine: Machine = setting({}, "The GPU that costs are estimated for (docs/costs.md).")
    tensorboard: bool = setting(
        False,
        "Write training curves for TensorBoard as they come, to results/tensorboard/; changes no"
        " result.",
    )
    allow_cpu: bool = setting(
        False,
        "Run jobs of models that ask for GPUs on the CPU where there is none. Without it such a job"
        " stops at its start: on a CPU it takes hours for minutes, and its numbers differ.",
    )
    fork_jobs: bool = setting(
        True,
        "On one Linux machine, fork jobs without GPUs from one process that has the libraries"
        " (docs/scaling.md#starts-of-jobs); false runs each by itself. Changes no result.",
    )
    keep_activations: bool = setting(
        True,
        "Keep the harvested activations, of all layers, so that a layer that is chosen later trains"
        " alone. With false only the chosen layers are harvested and go when their autoencoders are"
        " trained; one more layer later trains all of its cell's autoencoders again.",
    )
    other: str | None = setting(
        None,
        "The results of another run, or its tables: the folder that the target `compare` holds this"
        " run against (docs/compare.md); changes no result.",
    )
    answers: str | None = setting(
        None,
        "The file of answers that the target `score` scores (docs/detecting.md); changes no other"
        " result.",
        min_length=1,
    )
    blind_seed: int = setting(
        0,
        "Secret behind the names and the seals of the target `blind`: whoever knows it can open the"
        " game (docs/detecting.md). Read by `blind` alone.",
        least=0,
    )
    cells: tuple[Cell, ...] = setting(
        REQUIRED, "The grid, one entry for each model and task.", min_items=1
    )
