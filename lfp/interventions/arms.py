"""Arms of ablation: the choice of their latents, and the actions that they run under.

A new selector is one more function of :class:`Candidates` and an arm in :data:`ARMS`. No library of
science is imported here, so that planning a run reads the arms' names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import torch

    from lfp.interventions.selection import FeatureSet

#: From the activations of a site to those that replace them.
Edit = Callable[["torch.Tensor"], "torch.Tensor"]
#: A latent: its layer and its number there.
Latent = tuple[int, int]


@dataclass(frozen=True)
class Candidates:
    """The candidates of a selector.

    ``explanations`` has a row per latent with its statistics and its verdict, ``related`` are the
    latents by layer that an explainer called related to the feedback, ``probe_weight`` are the
    weights of the policy's probe (None where no arm asks for them). Arms that draw read ``chosen``,
    the latents by layer of the arm that they are drawn for, and ``rng``.
    """

    explanations: pd.DataFrame
    related: FeatureSet
    probe_weight: np.ndarray | None
    rng: np.random.Generator
    chosen: FeatureSet = field(default_factory=dict)


def explained(candidates: Candidates) -> FeatureSet:
    """The latents that an explainer called related to the feedback."""
    return candidates.related


def matched_random(candidates: Candidates) -> list[Latent]:
    """Latents that are neither chosen nor related, matched to the chosen ones.

    They are matched on frequency and contribution. Related latents are the lesson that is looked
    for, so that a control with some of them would cost reward itself.
    """
    from lfp.interventions.selection import matched_order

    return matched_order(
        candidates.explanations, candidates.chosen, candidates.rng, candidates.related
    )


def largest_probe_weight(candidates: Candidates) -> FeatureSet:
    """The latents of the largest weights in the policy's probe, as many as are related."""
    from lfp.interventions.selection import probe_weight_rank, top_set

    rank = probe_weight_rank(candidates.explanations, candidates.probe_weight)
    return top_set(candidates.explanations, candidates.related, rank)


def best_unrelated_match(candidates: Candidates) -> FeatureSet:
    """The best matched latents that are not related, as many as are related."""
    from lfp.interventions.selection import top_set, unrelated_match_rank

    rank = unrelated_match_rank(candidates.explanations)
    return top_set(candidates.explanations, candidates.related, rank)


def reconstructed(sae: Any, means: np.ndarray) -> Edit:
    """Activations are replaced by their reconstruction by the autoencoder `sae`."""
    return sae.reconstruct


def mean_activation(sae: Any, means: np.ndarray) -> Edit:
    """Activations are replaced by one value: what `sae` decodes from the latents' `means` [latent].

    That is the mean activation, since the decoder's bias leaves the error a mean of 0.
    """
    import torch

    value = sae.decode(torch.tensor(means, dtype=torch.float32, device=sae.b_dec.device))

    def edit(x: torch.Tensor) -> torch.Tensor:
        return sae.spliced(x, value.to(x.dtype).expand_as(x))

    return edit


@dataclass(frozen=True)
class Arm:
    """One arm of ablation.

    ``select`` chooses the latents that are set; an arm without it sets none. ``replace`` makes an
    edit that puts other activations in the place of a layer's, from its autoencoder and the mean
    latents; an arm that ``swaps`` puts the other model's there. An arm of ``all_actions`` runs
    under every configured action, the others under ``zero``. ``reads_probe`` says that the selector
    needs the probe's weights.

    ``draw`` makes an arm a control of all that select: for each of them it draws several sets, all
    under the actions of that arm. It gives latents in the order in which they are taken until their
    KL is that of the arm (:mod:`lfp.interventions.matching`).
    """

    select: Callable[[Candidates], FeatureSet] | None = None
    replace: Callable[[Any, np.ndarray], Edit] | None = None
    draw: Callable[[Candidates], Sequence[Latent]] | None = None
    swaps: bool = False
    all_actions: bool = False
    reads_probe: bool = False


ARMS = {
    "none": Arm(),
    "reconstruction": Arm(replace=reconstructed),
    "layer": Arm(replace=mean_activation),
    "layer_swapped": Arm(swaps=True),
    "explained": Arm(explained, all_actions=True),
    "random": Arm(draw=matched_random),
    "top_probe_weight": Arm(largest_probe_weight, reads_probe=True),
    "top_match_unrelated": Arm(best_unrelated_match),
}


def runs(arms: Sequence[str], actions: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """The actions of each of `arms` but for those that draw, which run under those of others."""
    kept = {name: ARMS[name] for name in arms if not ARMS[name].draw}
    return {name: actions if arm.all_actions else ("zero",) for name, arm in kept.items()}
