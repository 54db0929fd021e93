"""The stage: every vector and set of latents at every cost, random vectors, and baselines.

All of them are added to the base, and write with the random numbers of the untouched base and of
the policy, so that rewards are paired.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import pandas as pd
import torch

from lfp.change.choice import Pair
from lfp.change.weights import at_dose
from lfp.interventions.completions import COLUMNS, completion_rewards
from lfp.interventions.selection import FeatureSet
from lfp.interventions.selectors import SELECTORS
from lfp.interventions.selectors.gathering import Held, gathered
from lfp.interventions.trials import NOTHING, OTHER, Writing
from lfp.interventions.vocabulary import EVERYWHERE, Intervention, set_features
from lfp.models import limits
from lfp.models.hooks import edited
from lfp.models.losses import text_losses
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Steering
from lfp.steering.baselines import Writer, prefix_tokens
from lfp.steering.changes import Changes, applied, constant, gated, of_edits
from lfp.steering.cleaning import Cleaned, Texts, cleaned
from lfp.steering.gates import tokens_steered
from lfp.steering.gathering import Attributes, Read, gates_of, vector_material
from lfp.steering.strength import NeutralText, strengths_at
from lfp.steering.targeted import LatentReading, side_effect_mass
from lfp.steering.vectors import BY_LATENT, NULLS, VECTORS, Material

#: The action of what is added, and that of the baselines.
ADD, BASELINE = "add", "baseline"
#: What random vectors are drawn for: all that is added at the same cost.
NULL = "vectors"
#: Names of the baselines, and of the mean shift in few latents.
PROMPT, DOSE, CLEANED = "prompt", "fine_tuning", "mean_shift_cleaned"
#: Columns of the strengths.
STRENGTHS = [
    "what", "where", "draw", "cost", "multiple", "tokens_steered", "r2", "side_effect_mass",
]  # fmt: skip
#: Where baselines change the model.
ALL_LAYERS = "all"


@dataclass(frozen=True)
class Candidate:
    """What is scaled to every cost.

    Parameters
    ----------
    what
        Name of the vector, or of the selector of a set of latents.
    changes
        What is added at strength 1, by layer.
    draw
        Number of the random draw.
    where
        The tokens: all, or the name of a gate.
    steered
        Share of tokens that are changed.
    features
        Latents by layer, of a set of them.
    """

    what: str
    changes: Changes
    draw: int = 0
    where: str = EVERYWHERE
    steered: float = 1.0
    features: FeatureSet = field(default_factory=dict)

    def at(self, cost: float, strength: float, site: str) -> Intervention:
        """The intervention of a cost, which stands in the place of its strength."""
        matched_to = NULL if self.what in NULLS else ""
        edits = applied(self.changes, strength)
        return Intervention(
            self.what, ADD, self.features, edits, site, cost, self.where, matched_to, self.draw
        )


@dataclass(frozen=True)
class Steered:
    """What steering came to.

    Parameters
    ----------
    completions, neutral
        A row per intervention and prompt, and per intervention and neutral text, as
        :class:`lfp.interventions.ablation.Ablated` has them.
    strengths
        A row per candidate and cost: its strength, and what was measured beside it.
    cleaning
        A row per text of the mean shift in few latents.
    """

    completions: pd.DataFrame
    neutral: pd.DataFrame
    strengths: pd.DataFrame
    cleaning: pd.DataFrame

    def headline(self) -> str:
        """Mean reward at the largest cost, in one line."""
        if self.completions.empty:
            return "no held-out text to prompt with"
        added = self.completions[self.completions["action"] == ADD]
        most = added[added["strength"] == added["strength"].max()]
        means = most.groupby("what", sort=False)["reward"].mean()
        return "reward " + ", ".join(f"{what} {value:.3f}" for what, value in means.items())


def steer(
    pair: Pair,
    autoencoders: Mapping[int, SparseAutoencoder],
    explanations: pd.DataFrame,
    sets: Sequence[Candidate],
    how: Writing,
    texts: Sequence[Sequence[int]],
    valence: np.ndarray,
    asked: Steering,
    state_path: str | None = None,
) -> Steered:
    """Let the base write under every vector and set at every cost, and beside the baselines.

    Parameters
    ----------
    pair
        Base and policy.
    autoencoders
        Dictionaries by layer, of one site.
    explanations
        A row per latent with its statistics and its verdict.
    sets
        Sets of latents (:func:`amplified`).
    how
        Prompts, neutral texts, reward, lengths and seed.
    texts
        Token ids of the held-out texts that vectors, gates and cleaning are made from.
    valence
        The value that feedback gives to every token of the vocabulary [token].
    asked
        Vectors, costs, gate, cleaning and baselines.
    state_path
        A resume point for scored completions.
    """
    if not (how.prompts and how.neutral and texts):
        nothing = pd.DataFrame(columns=[*COLUMNS, *Intervention("", "", {}, {}, "").labels()])
        return Steered(nothing, nothing, pd.DataFrame(columns=STRENGTHS), _cleaning_rows(None, 0))
    sae = autoencoders[steered_layer(list(autoencoders), asked.layer)]
    size = how.settings.batch_size
    _check_lengths(pair, how, texts, asked)
    read, pad = Read(pair, sae, texts, size, valence), pair.tokenizer.pad_token_id
    neutral = NeutralText(pair.base, how.neutral, pad, size, sae.site)
    reading = LatentReading(
        pair.base, pair.tokenizer, sae, how.prompts[: asked.effect_prompts],
        how.settings.new_tokens, size, how.seed,
    )  # fmt: skip
    attributes = Attributes.of(how.reward, asked)
    material = vector_material(read, explanations, attributes, reading, neutral, asked, how.seed)
    clean, how = _cleaned(read, material, asked), replace(how, reward=attributes.measured())
    chosen = [*_vectors(material, clean, asked), *sets]
    if asked.gate is not None:
        chosen += _gated(chosen, read, asked.gate, neutral, how.seed)
    interventions, rows = [Intervention(NOTHING, "", {}, {}, sae.site)], []
    for one in Progress(chosen, desc="strengths"):
        multiples = strengths_at(partial(neutral.rise, one.changes), asked.costs)
        effects = _side_effects(one, multiples, material, reading)
        for cost, strength, effect in zip(asked.costs, multiples, effects, strict=True):
            labels = {"what": one.what, "where": one.where, "draw": one.draw, "cost": cost}
            rows.append(labels | {"multiple": strength, "tokens_steered": one.steered} | effect)
            if not np.isnan(strength):
                interventions.append(one.at(cost, strength, sae.site))
    written, losses = _measured(interventions, read, neutral, how, asked, state_path)
    return Steered(
        written, losses, pd.DataFrame(rows, columns=STRENGTHS), _cleaning_rows(clean, sae.layer)
    )


def _check_lengths(
    pair: Pair, how: Writing, texts: Sequence[Sequence[int]], asked: Steering
) -> None:
    """Check that all texts, also behind the prompt, have positions in the model."""
    prefix = prefix_tokens(how.tokenizer, asked.prompt)
    led = Writer(pair.base, pair.base, how.tokenizer, prefix)
    limits.check_texts(pair.base.config, texts)
    try:
        limits.check_texts(pair.base.config, [*map(led.led, how.prompts)], how.settings.new_tokens)
        limits.check_texts(pair.base.config, [*map(led.led, how.neutral)])
    except ValueError as error:
        if not prefix:
            raise
        raise ValueError(
            f"{error}; or shorten steering.prompt, whose {len(prefix)} tokens stand in front of"
            " every prompt and neutral sentence"
        ) from error


def steered_layer(layers: Sequence[int], wanted: int | None) -> int:
    """The layer that is steered: the `wanted` one, or the one in the middle of `layers`.

    Raises ValueError for one without a dictionary.
    """
    ordered = sorted(layers)
    if wanted is not None and wanted not in ordered:
        raise ValueError(
            f"steering.layer: {wanted} has no dictionary; expected one of"
            f" {', '.join(map(str, ordered))}, or null; or pin it by the cell's `layers`, since"
            " dictionaries are trained of the layers that changed most where none is pinned"
        )
    return ordered[len(ordered) // 2] if wanted is None else wanted


def amplified(
    selected: Mapping[str, FeatureSet], autoencoders: Mapping[int, SparseAutoencoder]
) -> list[Candidate]:
    """Sets of latents by selector, whose contribution to the activations is scaled up."""
    result = []
    for name, features in selected.items():
        edits = {
            layer: set_features(autoencoders[layer], of_layer, "scale", None, 2.0)
            for layer, of_layer in features.items()
            if len(of_layer)
        }
        if edits:
            result.append(Candidate(name, of_edits(edits), features=features))
    return result


def selected_sets(
    pair: Pair,
    autoencoders: dict[int, SparseAutoencoder],
    explanations: pd.DataFrame,
    probe_weight: np.ndarray | None,
    held: Held,
    selectors: Sequence[str],
    seed: int,
) -> list[Candidate]:
    """The sets of latents of the base that `selectors` choose, to be scaled up.

    Parameters
    ----------
    pair, autoencoders, explanations
        Base and policy, dictionaries by layer, and a row per latent.
    probe_weight
        Weights of the policy's probe, where a selector reads them.
    held
        Held-out texts and the feedback.
    selectors
        Names of :data:`lfp.interventions.selectors.SELECTORS`; without any nothing is read.
    seed
        Seed of what is drawn.
    """
    if not selectors:
        return []
    material = gathered(
        pair.base, pair.policy, autoencoders, explanations, probe_weight, held, seed
    )
    return amplified({name: SELECTORS[name](material) for name in selectors}, autoencoders)


def _measured(
    interventions: Sequence[Intervention],
    read: Read,
    neutral: NeutralText,
    how: Writing,
    asked: Steering,
    state_path: str | None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A row per intervention and prompt, and per intervention and neutral text."""
    size = how.settings.batch_size
    frames = completion_rewards(
        read.pair.base, how.tokenizer, [of.edits for of in interventions], how.prompts, how.reward,
        new_tokens=how.settings.new_tokens, batch_size=size, seed=how.seed, state_path=state_path,
        site=neutral.site,
    )  # fmt: skip
    written = [frame.assign(**of.labels()) for frame, of in zip(frames, interventions, strict=True)]
    losses = [_losses(neutral, of) for of in interventions]
    for label, writer in _baselines(read, how, asked, neutral.site):
        written.append(
            writer.completions(
                how.prompts, how.reward, how.settings.new_tokens, size, how.seed
            ).assign(**label)
        )
        losses.append(_numbered(writer.cross_entropy(how.neutral, size)).assign(**label))
    return pd.concat(written, ignore_index=True), pd.concat(losses, ignore_index=True)


def _vectors(material: Material, clean: Cleaned | None, asked: Steering) -> Iterator[Candidate]:
    """All vectors of the settings, random ones in every draw."""
    for name in asked.vectors:
        for draw, change in enumerate(VECTORS[name](material)):
            yield Candidate(name, {material.layer: change}, draw)
    if clean is not None:
        features = {material.layer: clean.features}
        yield Candidate(CLEANED, constant({material.layer: clean.vector}), features=features)


def _cleaned(read: Read, material: Material, asked: Steering) -> Cleaned | None:
    """The mean shift in few latents, where the settings ask for it and there is a shift.

    Without a text to fit on and one to test on there is none.
    """
    [vector] = material.shifts["mean"]
    if asked.clean is None or not vector.norm() or len(read.texts) < 2:
        return None
    pad, half = read.pair.tokenizer.pad_token_id, len(read.texts) // 2
    fitted, tested = (
        Texts(read.pair.base, texts, pad, read.batch_size, read.sae.site, material.layer)
        for texts in (read.texts[:half], read.texts[half:])
    )
    return cleaned(fitted, tested, vector, material.directions, asked.clean_l1, asked.clean)


def _gated(
    chosen: Sequence[Candidate], read: Read, share: float, neutral: NeutralText, seed: int
) -> list[Candidate]:
    """The candidates that are no random ones, at the tokens that each gate lets through.

    Parameters
    ----------
    chosen
        The candidates.
    read
        The pair of models, at the steered layer.
    share
        Share of the tokens that a gate lets through.
    neutral
        The texts that this share is measured on once more.
    seed
        Seed of the gate that knows nothing.
    """
    values = read.activations(neutral.sequences)
    return [
        Candidate(
            one.what, gated(one.changes, dict.fromkeys(one.changes, gate)), one.draw,
            f"{name} {share:g}", tokens_steered(gate, values), one.features,
        )
        for name, gate in gates_of(read, share, seed).items()
        for one in chosen
        if one.what not in NULLS and list(one.changes) == [read.sae.layer]
    ]  # fmt: skip


def _side_effects(
    one: Candidate, strengths: Sequence[float], material: Material, reading: LatentReading
) -> list[dict[str, float]]:
    """The side effects of a vector at each strength, where it is to raise some latents alone."""
    nothing = {"r2": np.nan, "side_effect_mass": np.nan}
    if one.what not in BY_LATENT or one.where != EVERYWHERE or not material.targets:
        return [nothing] * len(strengths)
    r2 = material.effects().r2 if one.what == "targeted" else np.nan
    known = [strength for strength in strengths if not np.isnan(strength)]
    effects = iter(reading.effects([one.changes] * len(known), known))
    return [
        nothing if np.isnan(strength)
        else {"r2": r2, "side_effect_mass": side_effect_mass(next(effects), material.targets)}
        for strength in strengths
    ]  # fmt: skip


def _baselines(
    read: Read, how: Writing, asked: Steering, site: str
) -> Iterator[tuple[dict[str, object], Writer]]:
    """The policy, the base behind a prompt, and doses of the fine-tuning at every cost."""
    base, policy = read.pair.base, read.pair.policy
    writer = partial(Writer, base, tokenizer=how.tokenizer)

    def label(what: str, cost: float = np.nan) -> dict[str, object]:
        named = Intervention(what, "" if what == OTHER else BASELINE, {}, {}, site, cost)
        return named.labels() | {"layers": "" if what == OTHER else ALL_LAYERS}

    yield label(OTHER), writer(policy)
    if asked.prompt:
        yield label(PROMPT), writer(base, prefix=prefix_tokens(how.tokenizer, asked.prompt))
    if asked.fine_tuning:
        size = how.settings.batch_size

        def mean(model: torch.nn.Module) -> float:
            return float(writer(model).cross_entropy(how.neutral, size).mean())

        untouched = mean(base)

        def cost(dose: float) -> float:
            return mean(at_dose(base, policy, dose)) - untouched

        for asked_for, dose in zip(asked.costs, strengths_at(cost, asked.costs), strict=True):
            if not np.isnan(dose):
                yield label(DOSE, asked_for), writer(at_dose(base, policy, dose))


def _losses(neutral: NeutralText, of: Intervention) -> pd.DataFrame:
    """The cross-entropy of every neutral text under an intervention."""
    with edited(neutral.model, of.edits, neutral.site):
        nats, counts = text_losses(
            neutral.model, neutral.sequences, neutral.pad, neutral.batch_size
        )
    return _numbered(nats / counts).assign(**of.labels())


def _numbered(losses: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame({"text": np.arange(len(losses)), "loss": losses})


def _cleaning_rows(clean: Cleaned | None, layer: int) -> pd.DataFrame:
    """A row per text of a cleaned vector."""
    columns = ["layer", "features_kept", "text", "kl", "kl_before"]
    if clean is None:
        return pd.DataFrame(columns=columns)
    return pd.DataFrame({
        "layer": layer, "features_kept": len(clean.features), "text": range(len(clean.kl)),
        "kl": clean.kl, "kl_before": clean.kl_before,
    })  # fmt: skip
