"""The sets of latents that arms of ablation take away, and what each set cost.

An arm ablates many latents at once, so that its cost is that of the set: nothing here says what one
of them would cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lfp.interventions.arms import ARMS, Candidates
from lfp.interventions.selection import explained_set
from lfp.statistics.crossed import effect_record
from lfp.statistics.records.base import Record
from lfp.tables.ablation import ArmKey, Arms, ablation_arms, cost_beside_random, effect

#: What the latents of an arm have in common, in words.
MEANINGS = {
    "explained": "called related to the feedback by the explainer {explainer}",
    "top_probe_weight": "of the largest weights in the policy's probe",
    "top_match_unrelated": "of the best match, and not called related",
}


@dataclass(frozen=True)
class AblatedSet:
    """One set of latents under one action, and what ablating all of it did to the policy.

    ``members`` are (layer, latent). ``reward`` and ``kl`` are differences from the untouched
    policy, ``beside_random`` is the change of reward minus that of random sets of the same KL; it
    is None where the run has none.
    """

    arm: str
    action: str
    meaning: str
    members: frozenset[tuple[int, int]]
    reward: Record
    kl: Record
    beside_random: Record | None


def ablated_sets(
    explanations: pd.DataFrame,
    completions: Sequence[str],
    weight: np.ndarray | None,
    explainer: str,
    confidence: float,
) -> list[AblatedSet]:
    """The sets that the policy of a cell was ablated by, in the order in which they were run.

    Parameters
    ----------
    explanations
        A row per latent, by the explainer whose related latents are ablated.
    completions
        The policy's files of completions and of neutral texts; empty where nothing was ablated.
    weight
        Weights of the policy's probe [latent], in the order of the explanations by layer and
        number; None where no arm reads them.
    explainer
        The name of the explainer.
    confidence
        Coverage of intervals.
    """
    rng = np.random.default_rng(0)  # arms that select draw nothing
    candidates = Candidates(explanations, explained_set(explanations), weight, rng)
    sets = []
    for arms in ablation_arms(completions).values():
        for key in arms:
            kind = ARMS[key.arm]
            chosen = kind.select(candidates) if kind.select else {}
            members = frozenset((n, int(f)) for n, features in chosen.items() for f in features)
            if members:
                sets.append(_measured(arms, key, members, explainer, confidence))
    return sets


def _measured(
    arms: Arms,
    key: ArmKey,
    members: frozenset[tuple[int, int]],
    explainer: str,
    confidence: float,
) -> AblatedSet:
    """The set `members` of an arm with what it cost."""
    changes = {}
    for quantity in ("difference", "kl"):
        change = effect(arms, key, quantity, confidence)
        if not isinstance(change, Record):
            change = effect_record(change, "prompt", "paired mean difference", confidence)
        changes[quantity] = change
    draws = [k for k in arms if (k.matched_to, k.action) == (key.arm, key.action)]
    beside = cost_beside_random(arms, draws[0], confidence) if draws else None
    meaning = MEANINGS.get(key.arm, "of an arm of this configuration").format(explainer=explainer)
    return AblatedSet(
        key.arm, key.action, meaning, members, changes["difference"], changes["kl"], beside
    )
