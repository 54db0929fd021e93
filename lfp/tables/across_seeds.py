"""The table of the numbers of other tables over fine-tuning seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from scipy import stats

from lfp.files.artefacts import read_table
from lfp.statistics.estimates import variance_components
from lfp.statistics.records import mean_record
from lfp.tables.rows import TableSettings, Tally

#: Columns of a table that are no labels.
_NOT_LABELS = {
    "estimate", "ci_low", "ci_high", "n", "unit", "method", "seeds", "p", "p_adjusted",
    "string_tau", "string_tau_p", "sign_only_ceiling", "paper", "paper_note", "draws",
    "ablated_features", "matched_within_decile", "p_draws", "expected", "answer",
}  # fmt: skip


def across_seeds(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every number of other tables over fine-tuning seeds.

    Rows have the mean, its t interval, and the sources of the variance.

    Autoencoder seeds (the probed variants of a cell) are nested in fine-tuning seeds and averaged
    within them. ``variance_fine_tuning`` and ``variance_autoencoder`` are components of the nested
    analysis of variance, ``variance_units`` is the mean squared standard error over words or
    prompts, from the rows' intervals.
    """
    tally = Tally()
    normal = stats.norm.ppf((1 + settings.confidence) / 2)
    for path in inputs:
        frame = read_table(path).dropna(subset="estimate")
        table = str(path).rsplit("/", 1)[-1].removesuffix(".parquet")
        names = [c for c in frame.columns if c not in _NOT_LABELS and c not in ("seed", "sae")]
        frame["autoencoder"] = frame.get("sae", "none")
        for key, group in frame.groupby(names, dropna=False, sort=False):
            means = group.groupby("seed")["estimate"].mean()
            if len(means) < 2:
                continue
            record = mean_record(means.to_numpy(), "fine-tuning seed", settings.confidence)
            method = "mean; t interval over fine-tuning seeds"
            record = replace(record, method=method, seeds=record.n)
            parts = variance_components(group, "seed", "estimate")
            errors = ((group["ci_high"] - group["ci_low"]).astype(float) / (2 * normal)) ** 2
            label = dict(zip(names, key, strict=True))
            described = ", ".join(
                f"{n}={v}" for n, v in label.items() if n not in ("model", "task")
            )
            row = {"model": label["model"], "task": label["task"], "table": table, "row": described}
            tally.add(
                record,
                row,
                group[["seed", "autoencoder", "estimate", "ci_low", "ci_high"]],
                autoencoders=int(group["autoencoder"].nunique()),
                variance_fine_tuning=parts["between"],
                variance_autoencoder=parts["within"],
                variance_units=float(np.nanmean(errors)) if errors.notna().any() else None,
            )
    return tally
