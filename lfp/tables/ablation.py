"""The table of what taking features away costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_table
from lfp.statistics.records import mean_record, paired_record, undefined
from lfp.tables import paper
from lfp.tables.rows import TableSettings, Tally, labels

#: Arms that take features away; `reconstruction` replaces the output by the autoencoder's and takes
#: none.
FEATURE_ARMS = ("explained", "random", "top_probe_weight", "top_match_unrelated")


_SIDE_EFFECTS = {"kl": "kl", "distinct_2": "distinct_2", "tokens": "length"}


def ablation_arms(
    inputs: Sequence[str],
) -> dict[tuple, dict[tuple[str, str, str], dict[str, pd.DataFrame]]]:
    """{(model, task, seed, sae): {(subject, arm, intervention): {"completions": rows, "neutral":
    rows}}}.

    A cell without held-out text has no arms.
    """
    cells: dict[tuple, dict[tuple[str, str, str], dict[str, pd.DataFrame]]] = {}
    for path in inputs:
        label, frame = labels(path), read_table(path)
        name = "neutral" if path.endswith(".neutral.parquet") else "completions"
        address = tuple(label[key] for key in ("model", "task", "seed", "sae"))
        cells.setdefault(address, {})
        for (arm, intervention), group in frame.groupby(["arm", "intervention"], sort=False):
            key = (label["subject"], str(arm), str(intervention))
            cells[address].setdefault(key, {})[name] = group
    return cells


def _by_prompt(frame: pd.DataFrame, column: str) -> np.ndarray:
    """Mean of a column over draws for every prompt."""
    return frame.groupby("prompt")[column].mean().to_numpy()


def ablation_reward(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Reward under every arm of ablation, its paired differences, and its side effects (paper Table
    6).

    Quantities: ``reward``; ``difference`` (arm minus none, paired by prompt); ``kl`` to the
    untouched model; differences of ``cross_entropy`` on neutral text, of ``distinct_2`` and of
    ``length``. Comparisons: ``explained - random`` and the like by prompt, with ``p_draws``, the
    share of matched random sets that lower the reward as much (it cannot go below 1 over one more
    than their number); ``policy - base`` is the difference in differences.
    """
    tally = Tally()
    for address, arms in ablation_arms(inputs).items():
        cell = dict(zip(("model", "task", "seed", "sae"), address, strict=True))
        models = settings.paper_models.get(cell["model"], ()) if cell["task"] == "vader" else ()
        if not arms:
            nothing = undefined(0, "prompt", "no held-out text to prompt with")
            label = {
                **cell,
                "subject": "policy",
                "arm": "none",
                "intervention": "zero",
                "quantity": "reward",
            }
            tally.add(
                nothing, label, draws=0, ablated_features=0.0, matched_within_decile=float("nan")
            )
            continue
        for (subject, arm, intervention), data in arms.items():
            label = {**cell, "subject": subject, "arm": arm, "intervention": intervention}
            frame, none = data["completions"], arms[subject, "none", "zero"]["completions"]
            rewards = _by_prompt(frame, "reward")
            record = mean_record(rewards, "prompt", settings.confidence)
            shown = subject == "policy" and intervention == "zero"
            beside = paper.beside("ablation_reward", arm if shown else "", models)
            values = frame[["prompt", "draw", "reward", "kl", "tokens", "distinct_2"]]
            if arm in FEATURE_ARMS and _is_empty(data):
                tally.add(
                    _EMPTY, {**label, "quantity": "reward"}, values, **_sizes(frame), **beside
                )
                continue
            tally.add(record, {**label, "quantity": "reward"}, values, **_sizes(frame), **beside)
            if arm == "none":
                continue
            differences = {"difference": (rewards, _by_prompt(none, "reward"))}
            differences |= {
                q: (_by_prompt(frame, c), _by_prompt(none, c)) for c, q in _SIDE_EFFECTS.items()
            }
            for quantity, (ours, theirs) in differences.items():
                record = paired_record(ours, theirs, "prompt", settings.seed, settings.resamples)
                tally.add(record, {**label, "quantity": quantity}, **_sizes(frame))
            losses = [
                d["neutral"].groupby("text")["loss"].mean().to_numpy()
                for d in (data, arms[subject, "none", "zero"])
            ]
            record = paired_record(*losses, "text", settings.seed, settings.resamples)
            tally.add(record, {**label, "quantity": "cross_entropy"}, **_sizes(frame))
        _add_comparisons(tally, cell, arms, settings)
    return tally


def _add_comparisons(
    tally: Tally, cell: dict[str, Any], arms: dict[tuple, dict], settings: TableSettings
) -> None:
    """Arms against the matched random sets, and the policy's differences against the base's."""
    rewards = {key: _by_prompt(data["completions"], "reward") for key, data in arms.items()}
    for (subject, arm, intervention), data in arms.items():
        random = arms.get((subject, "random", "zero"))
        if arm in FEATURE_ARMS and arm != "random" and random:
            ours = rewards[subject, arm, intervention]
            record = paired_record(
                ours,
                rewards[subject, "random", "zero"],
                "prompt",
                settings.seed,
                settings.resamples,
            )
            record = _EMPTY if _is_empty(data) or _is_empty(random) else record
            draws = random["completions"].groupby("draw")["reward"].mean().to_numpy()
            p_draws = (
                float((1 + np.sum(draws <= ours.mean() + 1e-12)) / (len(draws) + 1))
                if record.n
                else None
            )
            label = {
                **cell,
                "subject": subject,
                "arm": f"{arm} - random",
                "intervention": intervention,
            }
            tally.add(
                record,
                {**label, "quantity": "difference"},
                **_sizes(random["completions"]),
                p_draws=p_draws,
            )
        if subject == "policy" and arm != "none" and ("base", arm, intervention) in arms:
            effects = [
                rewards[s, arm, intervention] - rewards[s, "none", "zero"]
                for s in ("policy", "base")
            ]
            record = paired_record(*effects, "prompt", settings.seed, settings.resamples)
            if arm in FEATURE_ARMS and (
                _is_empty(data) or _is_empty(arms["base", arm, intervention])
            ):
                record = _EMPTY
            label = {**cell, "subject": "policy - base", "arm": arm, "intervention": intervention}
            tally.add(record, {**label, "quantity": "difference"}, **_sizes(data["completions"]))


#: The record of an arm, or of a comparison with one, that takes nothing away: 0 would look like a
#: finding.
_EMPTY = undefined(0, "feature", "nothing to ablate: the arm has no feature")


def _is_empty(arm: dict[str, pd.DataFrame]) -> bool:
    return not arm["completions"]["features"].any()


def _sizes(frame: pd.DataFrame) -> dict[str, float]:
    """Number of draws and of ablated features of an arm, and the share of the latter matched within
    a decile.
    """
    return {
        "draws": int(frame["draw"].nunique()),
        "ablated_features": float(frame.groupby("draw")["features"].first().mean()),
        "matched_within_decile": float(frame["matched"].mean()),
    }
