"""Settings of explanations, and of what is done to single latents and vectors."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.settings.fields import Settings, setting
from lfp.settings.methods import PAIRED, REWARDED


@dataclass(frozen=True)
class Explanations(Settings):
    """Explanations of features (docs/explanations.md)."""

    top_features: int = setting(30, "Features per layer to explain.", least=1)
    choose: str = setting(
        "match",
        "Which features are explained: those that the two sizes of autoencoder share (`match`), or"
        " those that feedback moved, by the t statistic of the shift of their mean activation from"
        " base to policy, over held-out texts that both read (`held-out`) or over completions of"
        " each, which the base reads (`completions`).",
        choices=("match", "held-out", "completions"),
    )
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
        methods=REWARDED,
    )
    min_auc: float = setting(
        0.65,
        "Preference tasks: least area under the ROC curve of a related feature.",
        least=0.5,
        most=1,
        methods=PAIRED,
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
    prefix_tokens: int = setting(30, "Tokens of a review's prefix.", least=1, methods=REWARDED)
    prompt_tokens: int = setting(
        128,
        "Preferences: tokens of a prompt, at most, cut from the left.",
        least=1,
        methods=PAIRED,
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
class Export(Settings):
    """Features and explanations for other tools (docs/exports.md)."""

    context: int = setting(64, "Tokens of a window.", least=8)
    windows: int = setting(2000, "Windows of held-out text, at most.", least=1)
    batch_size: int = setting(32, "Windows per forward pass.", least=1)
