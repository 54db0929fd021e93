"""Ablating latents while the model writes, and its cost in reward (paper section 4.2, Table 6).

The latents' contribution is taken out of the activations and the autoencoder's error is kept: x' =
x - sum over i in S of (f_i - c_i) d_i, where c_i is the value in the latent's place, so that an
empty set changes nothing at all. (The published notebook zeroes dimensions of the reconstruction in
a randomly initialised network: paper_vs_code F6.)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.feedback.rewards.base import Reward
from lfp.interventions.arms import ARMS, Candidates, Latent, runs
from lfp.interventions.completions import completion_rewards
from lfp.interventions.matching import matched_sets
from lfp.interventions.paired import Beside, Swapped
from lfp.interventions.selection import FeatureSet, explained_set, share_within_decile
from lfp.interventions.vocabulary import Intervention, set_features
from lfp.models import limits
from lfp.models.hooks import Edit, edited
from lfp.models.losses import text_losses
from lfp.registry import nearest
from lfp.sae.architectures.base import SparseAutoencoder, site_of
from lfp.settings import Ablation


def arm_edits(
    arm: str,
    autoencoders: Mapping[int, SparseAutoencoder],
    features: FeatureSet,
    means: Mapping[int, np.ndarray],
    action: str = "zero",
    beside: Beside | None = None,
) -> dict[int, Edit]:
    """The edits of an arm by layer.

    Parameters
    ----------
    arm
        A name of :data:`lfp.interventions.arms.ARMS`; ValueError for another one.
    autoencoders
        Autoencoders by layer.
    features
        Latents by layer that the arm has selected.
    means
        Mean latents [latent] by layer.
    action
        A name of :data:`lfp.interventions.actions.ACTIONS`.
    beside
        The other model, for an arm that swaps activations; ValueError for such an arm without it.
    """
    if arm not in ARMS:
        raise ValueError(f"arm {arm!r} is unknown; {nearest(arm, ARMS)}")
    kind = ARMS[arm]
    if kind.swaps:
        if beside is None:
            raise ValueError(f"arm {arm!r} takes activations of the other model, and there is none")
        return {layer: Swapped(beside, layer) for layer in autoencoders}
    if kind.replace is not None:
        return {layer: kind.replace(sae, means[layer]) for layer, sae in autoencoders.items()}
    if kind.select is None and kind.draw is None:
        return {}
    return {
        layer: set_features(sae, features[layer], action, means[layer])
        for layer, sae in autoencoders.items()
        if features.get(layer)
    }


#: Random sets that miss the KL of their arm are drawn anew, twice at most. Of each time, the
#: largest difference of the mean KL, as a share of the arm's, at which they are kept, and the power
#: of the ratio that their target is changed by; the second step is smaller, for the first went too
#: far.
TURNS = ((0.15, 1.0), (0.2, 0.5))


class Condition(Intervention):
    """One arm under one action, with the latents that it selected in one draw."""

    def labels(self) -> dict[str, object]:
        """Columns that tell the condition's rows from others."""
        return {
            "arm": self.what,
            "action": self.action,
            "matched_to": self.matched_to,
            "draw": self.draw,
            "matched": self.matched,
            "features": self.size,
        }


#: Measures the damage of conditions by their edits (:class:`lfp.interventions.matching.Damage`).
Measure = Callable[[Sequence[Mapping[int, Edit]]], np.ndarray]


class MatchedInterventions(ABC):
    """Interventions on a model, and random sets of latents that do the damage of each set.

    ``all`` are the interventions, ``site`` is that of the autoencoders. A subclass adds its own by
    :meth:`_add`.

    Parameters
    ----------
    autoencoders
        Autoencoders by layer.
    explanations
        A row per latent with its statistics and its verdict.
    damage
        Measures edits; random sets are cut so that theirs is that of their set.
    beside
        The other model, where an intervention takes its activations.
    """

    def __init__(
        self,
        autoencoders: Mapping[int, SparseAutoencoder],
        explanations: pd.DataFrame,
        damage: Measure,
        beside: Beside | None = None,
    ) -> None:
        self.autoencoders, self.explanations, self.damage = autoencoders, explanations, damage
        self.beside = beside
        self.site = site_of(autoencoders)
        self.means = {
            int(layer): group.sort_values("feature")["mean_activation"].to_numpy()
            for layer, group in explanations.groupby("layer")
        }
        self.all: list[Intervention] = []
        self._controls: list[_Control] = []

    def reading(self) -> AbstractContextManager[None]:
        """Within the block, the other model can be asked, where there is one."""
        return self.beside.reading() if self.beside else nullcontext()

    @abstractmethod
    def _like(
        self, arm: Intervention, name: str, features: FeatureSet, **of_draw: Any
    ) -> Intervention:
        """The intervention `name` that does to other `features` what `arm` does to its own."""

    def _add(
        self,
        arm: Sequence[Intervention],
        controls: Mapping[str, Callable[[Candidates], Sequence[Latent]]],
        candidates: Candidates,
        draws: int,
    ) -> None:
        """Add interventions on one set of latents, and as many `draws` of each control of it.

        Controls draw latents by name; `candidates` are those of the set.
        """
        self.all += arm
        for name, draw in controls.items():
            chosen = replace(candidates, chosen=arm[0].features)
            # Without a latent of the arm there is nothing to match, and nothing to draw.
            n = draws if arm[0].size else 1
            orders = [draw(chosen) for _ in range(n)]
            targets = self.damage([condition.edits for condition in arm])
            for matched, target in zip(arm, targets, strict=True):
                made = _Control(name, matched, orders, len(self.all))
                self._controls.append(made)
                self.all += self._drawn(made, range(n), [matched.size] * n, [target] * n)

    def _drawn(
        self,
        control: _Control,
        draws: Sequence[int],
        sizes: Sequence[int],
        targets: Sequence[float],
    ) -> list[Intervention]:
        """The random sets of some of a control's draws that do the damage `targets`."""
        arm = control.arm
        make = partial(self._like, arm, control.name)

        def measured(sets: Sequence[FeatureSet]) -> np.ndarray:
            return self.damage([make(features).edits for features in sets])

        orders = [control.orders[draw] for draw in draws]
        sets = matched_sets(orders, sizes, targets, measured)
        shares = partial(share_within_decile, self.explanations, arm.features)
        return [
            make(chosen, matched_to=arm.what, draw=draw, matched=shares(chosen), target=target)
            for draw, chosen, target in zip(draws, sets, targets, strict=True)
        ]

    def rematched(self, kl: Sequence[float], most: float, step: float) -> dict[int, Intervention]:
        """New random sets, by their place in ``all``, for those that missed the KL of their arm.

        `kl` [condition] is the mean KL that each condition came to while the model wrote. It is not
        quite the damage that was measured before: a model under an edit writes its own texts, and
        more of them. Where the sets of an arm miss it on average by more than `most`, a share of
        it, those on that side of it have their targets changed by the power `step` of the ratio.
        """
        result: dict[int, Intervention] = {}
        for control in self._controls:
            aimed = kl[self.all.index(control.arm)]
            came_to = np.array([kl[control.place + i] for i in range(len(control.orders))])
            miss = came_to.mean() - aimed
            # Those on the other side make up for a part of it.
            missed = np.flatnonzero(((came_to - aimed) * np.sign(miss) > 0) & (came_to > 0))
            if abs(miss) > most * aimed and len(missed):
                shares = (aimed / came_to[missed]) ** step
                places = [control.place + int(draw) for draw in missed]
                before = list(zip([self.all[place] for place in places], shares, strict=True))
                sizes = [max(1, round(old.size * share)) for old, share in before]
                targets = [old.target * share for old, share in before]
                drawn = self._drawn(control, missed.tolist(), sizes, targets)
                result |= dict(zip(places, drawn, strict=True))
        return result

    def nearer(self, place: int, new: float, kl: Sequence[float]) -> bool:
        """Whether a `new` KL is nearer to the matched arm's than that of the condition at `place`.

        `kl` is that of :meth:`rematched`.
        """
        [aimed] = [
            kl[self.all.index(control.arm)]
            for control in self._controls
            if control.place <= place < control.place + len(control.orders)
        ]
        return abs(new - aimed) < abs(kl[place] - aimed)


class Conditions(MatchedInterventions):
    """All conditions of a model: its arms under their actions, and each arm's own random sets.

    Parameters
    ----------
    settings
        Arms, actions and number of draws.
    autoencoders
        Autoencoders by layer.
    explanations
        A row per latent with its statistics and its verdict.
    probe_weight
        Weights of the policy's probe, where an arm selects by them.
    seed
        Seed of random sets.
    damage
        Measures edits; random sets are cut so that theirs is their arm's.
    beside
        The other model, where an arm swaps activations.
    """

    def __init__(
        self,
        settings: Ablation,
        autoencoders: Mapping[int, SparseAutoencoder],
        explanations: pd.DataFrame,
        probe_weight: np.ndarray | None,
        seed: int,
        damage: Measure,
        beside: Beside | None = None,
    ) -> None:
        super().__init__(autoencoders, explanations, damage, beside)
        rng = np.random.default_rng(seed)
        candidates = Candidates(explanations, explained_set(explanations), probe_weight, rng)
        controls = {name: ARMS[name].draw for name in settings.arms if ARMS[name].draw}
        for name, actions in runs(settings.arms, settings.actions).items():
            select = ARMS[name].select
            features = select(candidates) if select else {}
            arm = [self._condition(name, action, features) for action in actions]
            self._add(arm, controls if select else {}, candidates, settings.random_draws)

    def _condition(self, arm: str, action: str, features: FeatureSet, **of_draw: Any) -> Condition:
        edits = arm_edits(arm, self.autoencoders, features, self.means, action, self.beside)
        return Condition(arm, action, features, edits, self.site, **of_draw)

    def _like(
        self, arm: Intervention, name: str, features: FeatureSet, **of_draw: Any
    ) -> Condition:
        return self._condition(name, arm.action, features, **of_draw)


@dataclass(frozen=True)
class _Control:
    """The random sets of an arm's condition, drawn by the arm `name`.

    They begin at `place` among all conditions, one for each of `orders`.
    """

    name: str
    arm: Intervention
    orders: Sequence[Sequence[Latent]]
    place: int


@dataclass(frozen=True)
class Ablated:
    """A row per condition and prompt, and a row per condition and neutral text."""

    completions: pd.DataFrame
    neutral: pd.DataFrame

    def headline(self) -> str:
        """Mean reward of every arm, over its draws and actions, in one line."""
        if self.completions.empty:
            return "no held-out text to prompt with"
        rewards = self.completions.groupby(["arm", "action", "draw"], sort=False)["reward"].mean()
        means = rewards.groupby("arm", sort=False).mean()
        return "reward " + ", ".join(f"{arm} {value:.3f}" for arm, value in means.items())


def ablate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    under: MatchedInterventions,
    prompts: Sequence[Sequence[int]],
    neutral: Sequence[Sequence[int]],
    reward: Reward,
    settings: Ablation,
    seed: int,
    state_path: str | Path | None = None,
) -> Ablated:
    """Let a model write under every condition, and weigh the cost of each.

    Parameters
    ----------
    model, tokenizer
        The policy or its base.
    under
        The conditions; random sets that miss the KL of their arm are drawn anew, twice at most.
    prompts, neutral
        Token ids of prompts, and of sentences without feedback for the cross-entropy.
    reward
        Scores completions.
    settings
        New tokens and batch size.
    seed
        Seed of sampling: every condition draws the same uniforms.
    state_path
        A resume point for scored completions.
    """
    limits.check_texts(model.config, prompts, settings.new_tokens)
    limits.check_texts(model.config, neutral)

    def written(some: Sequence[Intervention], state_path: str | Path | None) -> list[pd.DataFrame]:
        return completion_rewards(
            model, tokenizer, [condition.edits for condition in some], prompts, reward,
            new_tokens=settings.new_tokens, batch_size=settings.batch_size, seed=seed,
            state_path=state_path, site=[condition.site for condition in some],
        )  # fmt: skip

    with under.reading():
        scored = written(under.all, state_path)
        for most, step in TURNS if prompts else ():
            kl = [frame["kl"].mean() for frame in scored]
            again = under.rematched(kl, most, step)
            for place, frame in zip(again, written(list(again.values()), None), strict=True):
                if under.nearer(place, frame["kl"].mean(), kl):
                    under.all[place], scored[place] = again[place], frame
        losses, pad = [], tokenizer.pad_token_id
        for condition in under.all:
            with edited(model, condition.edits, condition.site):
                nats, counts = text_losses(model, neutral, pad, settings.batch_size)
            losses.append(pd.DataFrame({"text": np.arange(len(nats)), "loss": nats / counts}))
    return Ablated(_labelled(scored, under.all), _labelled(losses, under.all))


def _labelled(frames: Sequence[pd.DataFrame], under: Sequence[Intervention]) -> pd.DataFrame:
    """The rows of all conditions below each other."""
    pairs = zip(frames, under, strict=True)
    return pd.concat([frame.assign(**c.labels()) for frame, c in pairs], ignore_index=True)
