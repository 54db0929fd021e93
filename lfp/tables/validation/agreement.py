"""The table of the agreement of probes with explanations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import stats

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_table, read_tensors
from lfp.interventions.selection import probe_weight_rank
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.resampling import bootstrap_counts, resampled
from lfp.tables.rows import TableSettings, Tally

#: Traits of a feature that may foretell its explanation beside the weight, by their column.
_TRAITS = {"activation frequency": "frequency", "match cosine": "cosine"}


def agreement(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Does a large weight in the probe foretell that a feature is called related?

    Rows are AUROCs of a trait of the explained features for those among them that are related. Only
    features of one layer are compared, since layers differ in the size of weights and in the share
    of related features. Beside the absolute weight in the policy's probe stand traits that no probe
    is needed for.
    """
    tally = Tally()
    weights = {
        path.rsplit("/probes/", 1)[0]: read_tensors(path, ["weight"])["weight"]
        for path in of(inputs, "probe.safetensors")
    }
    for path in (path for path in inputs if "/explanations/" in path):
        table = read_table(path)
        rank = probe_weight_rank(table, weights[path.rsplit("/explanations/", 1)[0]])
        traits = {"probe weight": rank} | {n: table[column] for n, column in _TRAITS.items()}
        explained = (table["status"] == "ok") & (table["frequency"] > 0)
        for name, trait in traits.items():
            features = table.loc[explained, ["layer", "feature", "related"]]
            features = features.assign(value=trait[explained])
            record = auroc_within_layers(features, settings)
            related = int(features["related"].sum())
            tally.add(record, {**labels(path), "trait": name}, features, related=related)
    return tally


def auroc_within_layers(features: pd.DataFrame, settings: TableSettings) -> Record:
    """The share of pairs of one layer in which the related feature has the higher `value`.

    `features` has a row per feature with its ``layer``, whether it is ``related``, and the
    ``value``. Both the bootstrap over features and the permutation of ``related`` stay within
    layers. Layers in which all or no features are related say nothing.
    """
    features = features.dropna(subset="value")  # of a single dictionary no latent has a match
    rng, draws = np.random.default_rng(settings.seed), settings.resamples
    wins, pairs, null, counted = 0.0, 0.0, np.zeros(draws), [0, 0]
    of_sample, pairs_of_sample = np.zeros(draws), np.zeros(draws)
    for _, layer in features.groupby("layer"):
        related, value = layer["related"].to_numpy(dtype=bool), layer["value"].to_numpy()
        n, positive = len(layer), int(related.sum())
        if not 0 < positive < n:
            continue
        counted[0] += positive
        counted[1] += n - positive
        above = np.sign(value[related][:, None] - value[~related][None, :]) / 2 + 0.5
        wins, pairs = wins + above.sum(), pairs + above.size
        drawn = bootstrap_counts(rng, n, draws).astype(float)
        of_sample += np.einsum("sn,sn->s", drawn[:, related] @ above, drawn[:, ~related])
        pairs_of_sample += drawn[:, related].sum(1) * drawn[:, ~related].sum(1)
        ranks = rng.permuted(np.tile(stats.rankdata(value), (draws, 1)), axis=1)
        null += ranks[:, :positive].sum(1) - positive * (positive + 1) / 2
    if not pairs:
        reason = "no layer has features that are related and others that are not"
        return undefined(len(features), "feature", reason)
    estimate, null = wins / pairs, null / pairs
    kept = pairs_of_sample > 0
    tail = (1 - settings.confidence) / 2
    low, high = np.quantile(of_sample[kept] / pairs_of_sample[kept], [tail, 1 - tail])
    p = (1 + np.sum(np.abs(null - 0.5) >= abs(estimate - 0.5) - 1e-12)) / (draws + 1)
    method = (
        "AUROC within layers; percentile bootstrap over features within layers; permutation within"
        f" layers, two-sided, {draws} draws"
    )
    record = Record(
        float(estimate), float(low), float(high), sum(counted), "feature", method, p=float(p)
    )
    return resampled(record, settings.confidence, min(counted), (0.0, 1.0))
