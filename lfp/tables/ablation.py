"""The table of the reward without some features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.interventions.arms import ARMS
from lfp.statistics.crossed import (
    Effect,
    detectable,
    effect_record,
    mean_effect,
    ratio_effect,
    told_from_zero,
)
from lfp.statistics.records.base import Record, undefined
from lfp.tables import paper
from lfp.tables.health.reach import reach_of_cells
from lfp.tables.rows import TableSettings, Tally

#: Differences from the untouched model, and their columns.
_CHANGES = {
    "difference": "reward", "kl": "kl", "distinct_2": "distinct_2", "length": "tokens",
}  # fmt: skip
#: Quantities in which an arm is held against its random sets, and the policy against the base.
_COMPARED = ("difference", "kl", "reward_per_nat")
#: Largest difference of the KL of an arm's random sets from the arm's, as a share of the latter, at
#: which their rewards are compared as they are.
EQUAL_KL = 0.2
#: The record of an arm, or of a comparison with one, that takes nothing away: 0 would look like a
#: result.
_EMPTY = undefined(0, "feature", "nothing to ablate: the arm has no feature")


class ArmKey(NamedTuple):
    """An arm of a cell: whose it is, its name and action, and the arm that its draws are for."""

    subject: str
    arm: str
    action: str
    matched_to: str = ""


#: Rows of an arm's ``completions`` and of its ``neutral`` texts.
Arm = dict[str, pd.DataFrame]
#: All arms of a cell.
Arms = Mapping[ArmKey, Arm]
#: Adds a row to the table (:meth:`lfp.tables.rows.Tally.add`), with what all rows of a cell have.
Add = Callable[..., None]


def ablation_arms(inputs: Sequence[str]) -> dict[tuple, dict[ArmKey, Arm]]:
    """The arms of every cell by (model, task, seed, sae); a cell without held-out text has none."""
    cells: dict[tuple, dict[ArmKey, Arm]] = {}
    for path in inputs:
        label, frame = labels(path), read_table(path)
        name = "neutral" if path.endswith(".neutral.parquet") else "completions"
        address = tuple(label[key] for key in ("model", "task", "seed", "sae"))
        cells.setdefault(address, {})
        for (arm, action, of), group in frame.groupby(["arm", "action", "matched_to"], sort=False):
            key = ArmKey(label["subject"], str(arm), str(action), str(of))
            cells[address].setdefault(key, {})[name] = group
    return cells


def _matrix(arm: Arm, column: str, rows: str = "completions", unit: str = "prompt") -> np.ndarray:
    """A column of an arm's completions, or of other `rows` [unit, draw]."""
    table = arm[rows].pivot(index=unit, columns="draw", values=column)
    return table.to_numpy(dtype=float)


def effect(arms: Arms, key: ArmKey, quantity: str, confidence: float) -> Effect | Record:
    """The change of a quantity from the untouched model, or the record that says why there is none.

    ``reward_per_nat`` is the change of the mean reward over the mean KL: the price of an arm,
    whatever its strength. It needs a KL that is told from 0.
    """
    arm, untouched = arms[key], arms[ArmKey(key.subject, "none", "zero")]
    if _takes_nothing(key, arm):
        return _EMPTY
    if quantity == "cross_entropy":
        changed, before = (_matrix(one, "loss", "neutral", "text") for one in (arm, untouched))
        return mean_effect(changed - before)
    column = _CHANGES.get(quantity, "reward")
    change = _matrix(arm, column) - _matrix(untouched, column)
    if quantity != "reward_per_nat":
        return mean_effect(change)
    kl = _matrix(arm, "kl")
    if not told_from_zero(kl, confidence):
        return undefined(len(kl), "prompt", "the KL is not told from 0: no reward per nat")
    return ratio_effect(change, kl)


def _difference(one: Effect | Record, other: Effect | Record) -> Effect | Record:
    """The difference of two effects; a record, which says why there is none, stays."""
    if isinstance(one, Record):
        return one
    return other if isinstance(other, Record) else one - other


def kl_ratio(arms: Arms, key: ArmKey) -> float:
    """The mean KL of an arm's random sets, `key`, over that of the arm."""
    arm = arms[ArmKey(key.subject, key.matched_to, key.action)]
    theirs, ours = (_matrix(one, "kl").mean() for one in (arms[key], arm))
    return float(theirs / ours) if ours > 0 else float("nan")


def against_random(arms: Arms, key: ArmKey, quantity: str, confidence: float) -> Effect | Record:
    """An arm minus its random sets, `key`.

    Rewards are compared at equal KL alone; a record says where there is none.
    """
    arm = effect(arms, ArmKey(key.subject, key.matched_to, key.action), quantity, confidence)
    result, ratio = _difference(arm, effect(arms, key, quantity, confidence)), kl_ratio(arms, key)
    if quantity == "difference" and isinstance(result, Effect) and not _equal(ratio):
        n = len(result.by_unit)
        return undefined(
            n, "prompt", f"not at equal KL: that of the random sets is {ratio:.3g} of the arm's;"
            " reward_per_nat compares them"
        )  # fmt: skip
    return result


def _equal(ratio: float) -> bool:
    """Whether random sets have the KL of their arm."""
    return abs(ratio - 1) <= EQUAL_KL


def cost_beside_random(arms: Arms, key: ArmKey, confidence: float) -> Record:
    """The reward of an arm minus that of its random sets, `key`.

    Where these have another KL, it is the difference per nat times the arm's KL.
    """
    result = against_random(arms, key, "difference", confidence)
    if isinstance(result, Record) and result is not _EMPTY:
        result = against_random(arms, key, "reward_per_nat", confidence)
        if isinstance(result, Effect):
            arm = arms[ArmKey(key.subject, key.matched_to, key.action)]
            result = result.times(float(_matrix(arm, "kl").mean()))
    return _record(result, "difference", confidence)


def _record(result: Effect | Record, quantity: str, confidence: float) -> Record:
    if isinstance(result, Record):
        return result
    unit = "text" if quantity == "cross_entropy" else "prompt"
    name = "ratio of means" if quantity == "reward_per_nat" else "paired mean difference"
    return effect_record(result, unit, name, confidence)


def ablation_reward(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Reward under every arm of ablation, its paired differences, and its side effects.

    (Paper Table 6.)

    Quantities: ``reward``; ``difference`` (arm minus none, paired by prompt); ``kl`` to the
    untouched model; ``reward_per_nat``, the difference over the KL; differences of
    ``cross_entropy`` on neutral text, of ``distinct_2`` and of ``length``. Random sets have a row
    for each arm that they are ``matched_to``, whose KL theirs is ``kl_ratio`` of. ``explained -
    random`` and the like are comparisons at equal KL, or per nat; ``policy - base`` is the
    difference in differences. Every row has the ``reach`` of its cell, and as ``health`` the reason
    that there may be nothing to find.
    """
    tally, reaches = Tally(), reach_of_cells(inputs, settings)
    for address, arms in ablation_arms([path for path in inputs if "/ablation/" in path]).items():
        reach = reaches[address[:3]]
        of_cell = {**reach.columns(), "health": reach.reason(settings.min_reach)}
        add = partial(_add_row, tally, settings, **of_cell)
        cell = dict(zip(("model", "task", "seed", "sae"), address, strict=True))
        if not arms:
            nothing = undefined(0, "prompt", "no held-out text to prompt with")
            label = ArmKey("policy", "none", "zero")._asdict()
            sizes = {"draws": 0, "ablated_features": 0.0}
            missing = dict.fromkeys(("matched_within_decile", "kl_ratio"), float("nan"))
            add(nothing, {**cell, **label, "quantity": "reward"}, **sizes, **missing)
            continue
        for key in arms:
            _add_arm(add, cell, key, arms, settings)
            _add_comparisons(add, cell, key, arms, settings)
    return tally


def _add_row(
    tally: Tally,
    settings: TableSettings,
    result: Effect | Record,
    labels: Mapping[str, Any],
    values: pd.DataFrame | None = None,
    **extras: object,
) -> None:
    """Add a row, with the smallest difference that it could have found where it is one.

    Parameters
    ----------
    tally, settings
        The table and the settings of all tables.
    result
        The row's number: an effect, or a record as it stands.
    labels, values, extras
        The row, as :meth:`lfp.tables.rows.Tally.add` takes it.
    """
    quantity, confidence = labels["quantity"], settings.confidence
    is_difference = quantity == "difference" and isinstance(result, Effect)
    least = detectable(result, confidence) if is_difference else None
    record = _record(result, quantity, confidence)
    tally.add(record, labels, values, **extras, detectable=least)


def _add_arm(
    add_row: Add, cell: dict[str, Any], key: ArmKey, arms: Arms, settings: TableSettings
) -> None:
    """Rows of one arm: its reward, and its differences from the untouched model.

    Parameters
    ----------
    add_row
        Adds a row to the table.
    cell
        Labels of the cell.
    key
        The arm's key.
    arms
        All arms of the cell.
    settings
        Settings of all tables.
    """
    arm, confidence = arms[key], settings.confidence
    sizes = _sizes(arms, key)

    def add(
        result: Effect | Record, quantity: str, values: pd.DataFrame | None = None, **extras: str
    ) -> None:
        label = {**cell, **key._asdict(), "quantity": quantity}
        add_row(result, label, values, **sizes, **extras)

    models = settings.paper_models.get(cell["model"], ()) if cell["task"] == "vader" else ()
    published = key.subject == "policy" and key.action == "zero"
    named = key.arm if published and key.matched_to in ("", "explained") else ""
    beside = paper.beside("ablation_reward", named, models)
    values = arm["completions"][["prompt", "draw", "reward", "kl", "tokens", "distinct_2"]]
    if _takes_nothing(key, arm):
        add(_EMPTY, "reward", values, **beside)
        return
    reward = effect_record(mean_effect(_matrix(arm, "reward")), "prompt", "mean", confidence)
    # A level of the reward is held against nothing.
    described = reward.method.replace(" and t test", "")
    add(replace(reward, p=None, method=described), "reward", values, **beside)
    if key.arm == "none":
        return
    for quantity in (*_CHANGES, "reward_per_nat", "cross_entropy"):
        add(effect(arms, key, quantity, confidence), quantity)


def _add_comparisons(
    add_row: Add, cell: dict[str, Any], key: ArmKey, arms: Arms, settings: TableSettings
) -> None:
    """Rows that compare an arm: an arm with its random sets, and the policy's with the base's.

    Parameters
    ----------
    add_row
        Adds a row to the table.
    cell
        Labels of the cell.
    key
        The arm's key; that of random sets stands for the comparison with their arm, too.
    arms
        All arms of the cell.
    settings
        Settings of all tables.
    """
    confidence, sizes = settings.confidence, _sizes(arms, key)
    base = key._replace(subject="base")
    both = key.subject == "policy" and key.arm != "none" and base in arms

    def add(results: Mapping[str, Effect | Record], **changed: str) -> None:
        label = {**cell, **key._asdict(), **changed}
        for quantity, result in results.items():
            add_row(result, {**label, "quantity": quantity}, **sizes)

    def interaction(measure: Callable[..., Effect | Record]) -> dict[str, Effect | Record]:
        return {
            quantity: _difference(
                measure(arms, key, quantity, confidence), measure(arms, base, quantity, confidence)
            )
            for quantity in _COMPARED
        }

    if both:
        add(interaction(effect), subject="policy - base")
    if key.matched_to:
        name = f"{key.matched_to} - {key.arm}"
        add({q: against_random(arms, key, q, confidence) for q in _COMPARED}, arm=name)
        if both:
            add(interaction(against_random), subject="policy - base", arm=name)


def _takes_nothing(key: ArmKey, arm: Arm) -> bool:
    """Whether an arm that should take features away has none to take."""
    kind = ARMS[key.arm]
    return bool(kind.select or kind.draw) and not arm["completions"]["features"].any()


def _sizes(arms: Arms, key: ArmKey) -> dict[str, float]:
    """Number of draws and of ablated features of an arm.

    Beside them stand, for random sets, the share of their features that are matched within a
    decile, and their KL over that of their arm.
    """
    frame = arms[key]["completions"]
    return {
        "draws": int(frame["draw"].nunique()),
        "ablated_features": float(frame.groupby("draw")["features"].first().mean()),
        "matched_within_decile": float(frame["matched"].mean()),
        "kl_ratio": kl_ratio(arms, key) if key.matched_to else float("nan"),
    }
