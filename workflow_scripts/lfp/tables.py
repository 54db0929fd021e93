"""The tables by name; the rows of each are labels plus one :class:`~workflow_scripts.lfp.statistics.Record`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from workflow_scripts.lfp import feature_tables, model_tables, planted_tables, probe_tables, statistics
from workflow_scripts.lfp.artefacts import read_table
from workflow_scripts.lfp.statistics import Record
from workflow_scripts.lfp.tally import TableSettings, Tally

#: Columns of a table that are no labels.
_NOT_LABELS = {
    "estimate", "ci_low", "ci_high", "n", "unit", "method", "seeds", "p", "p_adjusted", "published_statistic",
    "published_p", "sign_only_ceiling", "paper", "paper_note", "draws", "ablated_features", "matched_within_decile",
    "p_draws", "expected", "answer",
}  # fmt: skip


def across_seeds(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every number of other tables over fine-tuning seeds: mean, t interval, and where its variance comes from.

    Autoencoder seeds (the probed variants of a cell) are nested in fine-tuning seeds and averaged within them.
    ``variance_fine_tuning`` and ``variance_autoencoder`` are components of the nested analysis of variance,
    ``variance_units`` is the mean squared standard error over words or prompts, from the rows' own intervals.
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
            record = statistics.mean_record(means.to_numpy(), "fine-tuning seed", settings.confidence)
            record = Record(record.estimate, record.ci_low, record.ci_high, record.n, record.unit,
                            "mean; t interval over fine-tuning seeds", seeds=record.n)  # fmt: skip
            parts = statistics.variance_components(group, "seed", "estimate")
            errors = ((group["ci_high"] - group["ci_low"]).astype(float) / (2 * normal)) ** 2
            label = dict(zip(names, key, strict=True))
            described = ", ".join(f"{n}={v}" for n, v in label.items() if n not in ("model", "task"))
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


Table = Callable[[Sequence[str], TableSettings], Tally]

TABLES: dict[str, Table] = {
    table.__name__: table
    for table in (
        model_tables.corpora, model_tables.rewrites, model_tables.base_models, model_tables.fine_tuning,
        model_tables.layer_divergence, model_tables.autoencoders, model_tables.sae_tying,
        model_tables.sae_layer_choice, probe_tables.kendall_tau, probe_tables.kendall_tau_within_sign,
        probe_tables.sign_accuracy, probe_tables.probe_accuracy, probe_tables.probe_differences,
        probe_tables.probe_nested_r2, probe_tables.lexicon_reconstruction,
        feature_tables.feature_explanations, feature_tables.explanation_quality,
        feature_tables.feature_frequency, feature_tables.ablation_reward, planted_tables.planted_recovery,
        across_seeds,
    )
}  # fmt: skip
