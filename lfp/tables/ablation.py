"""The table of the reward without some features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.interventions.arms import ARMS
from lfp.statistics.records import Record, detectable, mean_record, paired_record, undefined
from lfp.tables import paper
from lfp.tables.health.reach import reach_of_cells
from lfp.tables.rows import TableSettings, Tally

#: Quantities that an arm may change beside the reward, and their columns.
_SIDE_EFFECTS = {"kl": "kl", "distinct_2": "distinct_2", "length": "tokens"}
#: The record of an arm, or of a comparison with one, that takes nothing away: 0 would look like a
#: result.
_EMPTY = undefined(0, "feature", "nothing to ablate: the arm has no feature")

#: An arm of a cell by its subject, its name and its action.
ArmKey = tuple[str, str, str]
#: Rows of an arm's ``completions`` and of its ``neutral`` texts.
Arm = dict[str, pd.DataFrame]
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
        for (arm, action), group in frame.groupby(["arm", "action"], sort=False):
            key = (label["subject"], str(arm), str(action))
            cells[address].setdefault(key, {})[name] = group
    return cells


def _by_prompt(arm: Arm, column: str) -> np.ndarray:
    """Mean of a column of the completions over draws for every prompt."""
    return arm["completions"].groupby("prompt")[column].mean().to_numpy()


def _by_text(arm: Arm) -> np.ndarray:
    """Mean loss over draws of every neutral text."""
    return arm["neutral"].groupby("text")["loss"].mean().to_numpy()


def ablation_reward(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Reward under every arm of ablation, its paired differences, and its side effects.

    (Paper Table 6.)

    Quantities: ``reward``; ``difference`` (arm minus none, paired by prompt); ``kl`` to the
    untouched model; differences of ``cross_entropy`` on neutral text, of ``distinct_2`` and of
    ``length``. Comparisons: ``explained - random`` and the like by prompt, with ``p_draws``, the
    share of matched random sets that lower the reward as much (it cannot go below 1 over one more
    than their number); ``policy - base`` is the difference in differences. Every row has the
    ``reach`` of its cell, and as ``health`` the reason that there may be nothing to find.
    """
    tally, reaches = Tally(), reach_of_cells(inputs, settings)
    for address, arms in ablation_arms([path for path in inputs if "/ablation/" in path]).items():
        reach = reaches[address[:3]]
        of_cell = {**reach.columns(), "health": reach.reason(settings.min_reach)}
        add = partial(_add_row, tally, settings, **of_cell)
        cell = dict(zip(("model", "task", "seed", "sae"), address, strict=True))
        if not arms:
            nothing = undefined(0, "prompt", "no held-out text to prompt with")
            label = {"subject": "policy", "arm": "none", "action": "zero"}
            sizes = {"draws": 0, "ablated_features": 0.0, "matched_within_decile": float("nan")}
            add(nothing, {**cell, **label, "quantity": "reward"}, **sizes)
            continue
        for key, arm in arms.items():
            _add_arm(add, cell, key, arm, untouched=arms[key[0], "none", "zero"], settings=settings)
        for key in arms:
            _add_comparisons(add, cell, key, arms, settings)
    return tally


def _add_row(
    tally: Tally,
    settings: TableSettings,
    record: Record,
    labels: Mapping[str, Any],
    values: pd.DataFrame | None = None,
    **extras: object,
) -> None:
    """Add a row, with the smallest difference that it could have found where it is one.

    Parameters
    ----------
    tally, settings
        The table and the settings of all tables.
    record, labels, values, extras
        The row, as :meth:`lfp.tables.rows.Tally.add` takes it.
    """
    least = detectable(record, settings.confidence) if labels["quantity"] == "difference" else None
    tally.add(record, labels, values, **extras, detectable=least)


def _add_arm(
    add_row: Add,
    cell: dict[str, Any],
    key: ArmKey,
    arm: Arm,
    untouched: Arm,
    settings: TableSettings,
) -> None:
    """Rows of one arm: its reward, and its differences from the untouched model.

    Parameters
    ----------
    add_row
        Adds a row to the table.
    cell
        Labels of the cell.
    key, arm
        The arm's key and its rows.
    untouched
        Rows of the same subject's arm `none`.
    settings
        Settings of all tables.
    """
    label = dict(zip(("subject", "arm", "action"), key, strict=True))
    sizes = _sizes(arm)

    def add(
        record: Record, quantity: str, values: pd.DataFrame | None = None, **extras: str
    ) -> None:
        add_row(record, {**cell, **label, "quantity": quantity}, values, **sizes, **extras)

    models = settings.paper_models.get(cell["model"], ()) if cell["task"] == "vader" else ()
    published = key[0] == "policy" and key[2] == "zero"
    beside = paper.beside("ablation_reward", key[1] if published else "", models)
    values = arm["completions"][["prompt", "draw", "reward", "kl", "tokens", "distinct_2"]]
    if _takes_nothing(key, arm):
        add(_EMPTY, "reward", values, **beside)
        return
    reward = mean_record(_by_prompt(arm, "reward"), "prompt", settings.confidence)
    add(reward, "reward", values, **beside)
    if key[1] == "none":
        return
    draws = {"seed": settings.seed, "resamples": settings.resamples}
    for quantity, column in {"difference": "reward", **_SIDE_EFFECTS}.items():
        changed, before = _by_prompt(arm, column), _by_prompt(untouched, column)
        add(paired_record(changed, before, unit="prompt", **draws), quantity)
    losses = paired_record(_by_text(arm), _by_text(untouched), unit="text", **draws)
    add(losses, "cross_entropy")


def _add_comparisons(
    add_row: Add,
    cell: dict[str, Any],
    key: ArmKey,
    arms: dict[ArmKey, Arm],
    settings: TableSettings,
) -> None:
    """Rows that compare an arm: with the sets of drawn arms, and the policy's with the base's.

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
    subject, name, action = key
    draws = {"seed": settings.seed, "resamples": settings.resamples}
    reward, base = _by_prompt(arms[key], "reward"), arms.get(("base", name, action))
    compared = bool(ARMS[name].select) and not ARMS[name].draws
    drawing = [(subject, arm, "zero") for arm in ARMS if compared and ARMS[arm].draws]
    for control in (who for who in drawing if who in arms):
        drawn = arms[control]
        record = paired_record(reward, _by_prompt(drawn, "reward"), unit="prompt", **draws)
        if _takes_nothing(key, arms[key]) or _takes_nothing(control, drawn):
            record = _EMPTY
        sets = drawn["completions"].groupby("draw")["reward"].mean().to_numpy()
        p = float((1 + np.sum(sets <= reward.mean() + 1e-12)) / (len(sets) + 1))
        label = {"subject": subject, "arm": f"{name} - {control[1]}", "action": action}
        extras = {**_sizes(drawn), "p_draws": p if record.n else None}
        add_row(record, {**cell, **label, "quantity": "difference"}, **extras)
    if subject == "policy" and name != "none" and base:
        effects = {
            who: _by_prompt(arms[who, name, action], "reward")
            - _by_prompt(arms[who, "none", "zero"], "reward")
            for who in ("policy", "base")
        }
        record = paired_record(effects["policy"], effects["base"], unit="prompt", **draws)
        if _takes_nothing(key, arms[key]) or _takes_nothing(key, base):
            record = _EMPTY
        label = {"subject": "policy - base", "arm": name, "action": action}
        add_row(record, {**cell, **label, "quantity": "difference"}, **_sizes(arms[key]))


def _takes_nothing(key: ArmKey, arm: Arm) -> bool:
    """Whether an arm that should take features away has none to take."""
    return bool(ARMS[key[1]].select) and not arm["completions"]["features"].any()


def _sizes(arm: Arm) -> dict[str, float]:
    """Number of draws and of ablated features of an arm.

    The share of the latter that are matched within a decile stands beside them.
    """
    frame = arm["completions"]
    return {
        "draws": int(frame["draw"].nunique()),
        "ablated_features": float(frame.groupby("draw")["features"].first().mean()),
        "matched_within_decile": float(frame["matched"].mean()),
    }
