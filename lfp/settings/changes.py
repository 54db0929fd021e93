"""Settings of what is read of a change: divergence, locus, readouts and the account."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.settings.fields import Settings, setting
from lfp.settings.methods import METHODS, WRITTEN


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
        methods=WRITTEN,
    )
    batch_size: int = setting(256, "Prefixes that are completed at once.", least=1, methods=WRITTEN)
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
