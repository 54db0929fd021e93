"""Settings of activations, of autoencoders and of their evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from lfp.settings.fields import ABSENT, HUB_ID, LARGEST_SEED, REQUIRED, Settings, setting
from lfp.settings.methods import PRECISIONS

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
        200, "Disk space of a cell's harvested activations, at most, GB.", above=0, limit=True
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

    hub: str = setting(
        ABSENT, "Id of the repository on the Hugging Face hub, owner/name.", pattern=HUB_ID
    )
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
