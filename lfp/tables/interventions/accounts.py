"""The tables of what accounts of single latents are worth: attribution, interactions, circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from scipy.stats import rankdata

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import mean_record
from lfp.statistics.records.resampling import resampled, seeded_counts
from lfp.tables.rows import TableSettings, Tally

#: Passes over the texts that attribution takes: one forward, and one backward of twice its work.
_PASSES = 3
#: Share of the measured latents that count as the largest.
_LARGEST = 0.25
#: Label of the row of all layers.
_ALL = -1


def attribution_fidelity(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """How well attribution, a first-order account, agrees with exact effects of single latents.

    The rows are those of every layer, and of all of them (-1).
    """
    tally = Tally()
    for path in inputs:
        frame, cell = read_table(path), labels(path)
        measured = frame.dropna(subset="exact")
        groups = {_ALL: measured} | dict(tuple(measured.groupby("layer")))
        for layer, rows in groups.items():
            record = _spearman(rows, settings)
            live = frame if layer == _ALL else frame[frame["layer"] == layer]
            values = rows[["layer", "feature", "attributed", "exact", "drawn_as"]]
            values = values.rename(columns={"layer": "of_layer"})
            columns = _agreement(rows) | {
                "live": len(live), "speedup": len(live) / _PASSES if len(live) else None,
            }  # fmt: skip
            tally.add(record, cell | {"layer": int(layer)}, values, **columns)
    return tally


def _spearman(rows: pd.DataFrame, settings: TableSettings) -> Record:
    """Spearman's correlation of attributed and exact effects, with a bootstrap over latents.

    Ranks are those among all latents of the row, also in resamples.
    """
    n, name = len(rows), "Spearman correlation; percentile bootstrap over latents"
    if n < 3:
        few = f"{n} latents with an exact effect, 3 are needed"
        return undefined(n, "latent", few if n else "no latent with an exact effect")
    attributed, exact = (rankdata(rows[column]) for column in ("attributed", "exact"))
    if np.ptp(attributed) == 0 or np.ptp(exact) == 0:
        return undefined(n, "latent", "all effects are equal")
    counts = seeded_counts(settings.seed, n, settings.resamples)
    replicates = _correlations(attributed, exact, counts)
    low, high = np.nanquantile(
        replicates, [(1 - settings.confidence) / 2, (1 + settings.confidence) / 2]
    )
    estimate = float(_correlations(attributed, exact, np.ones((1, n)))[0])
    record = Record(estimate, float(low), float(high), n, "latent", name)
    return resampled(record, settings.confidence, edges=(-1.0, 1.0))


def _correlations(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Correlations [sample] of two sequences whose units count as often as `counts` says."""
    total = counts.sum(1, keepdims=True)
    left, right = (values - counts @ values[:, None] / total for values in (x, y))
    both, ours, theirs = (
        (counts * product).sum(1) for product in (left * right, left**2, right**2)
    )
    scale = np.sqrt(ours * theirs)
    return np.divide(both, scale, out=np.full(len(both), np.nan), where=scale > 0)


def _agreement(rows: pd.DataFrame) -> dict[str, float | None]:
    """Other measures of how attributed and exact effects agree."""
    attributed, exact = (rows[name].to_numpy(dtype=float) for name in ("attributed", "exact"))
    if not len(rows):
        return dict.fromkeys(("top_k_overlap", "sign_agreement", "slope"))
    k = max(1, round(_LARGEST * len(rows)))
    tops = [set(np.argsort(-np.abs(v), kind="stable")[:k]) for v in (attributed, exact)]
    moved = exact != 0
    square = float(attributed @ attributed)
    signs = np.sign(attributed[moved]) == np.sign(exact[moved])
    return {
        "top_k_overlap": len(tops[0] & tops[1]) / k,
        "sign_agreement": float(signs.mean()) if moved.any() else None,
        "slope": float(attributed @ exact) / square if square else None,
    }


def feature_interactions(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The pairs of latents whose effects do not add up most, and what pairs explain at all."""
    tally = Tally()
    for path in inputs:
        frame, cell = read_table(path), labels(path)
        method = "coefficient of the product; t interval over held-out random sets"
        if frame.empty:
            label = dict.fromkeys(("latent", "other_latent"), "")
            extras = dict.fromkeys(("machine", "linear_r2", "machine_r2"))
            nothing = undefined(0, "set", "fewer than two latents, or no text to measure them on")
            tally.add(nothing, cell | label, **extras)
        for row in frame.to_dict("records"):
            estimate = row["interaction"]
            half = row["standard_error"] * stats.t.ppf((1 + settings.confidence) / 2, row["df"])
            ends = (float(estimate - half), float(estimate + half))
            named = f"{method}, {row['df']:g} degrees of freedom"
            record = Record(estimate, ends[0], ends[1], row["masks"], "set", named)
            if np.isnan(estimate):
                few = "too few held-out sets for so many latents; raise interventions.masks"
                record = undefined(row["masks"], "set", few)
            label = {
                "latent": _named(row, "layer", "feature"),
                "other_latent": _named(row, "other_layer", "other_feature"),
            }
            extras = {name: row[name] for name in ("machine", "linear_r2", "machine_r2")}
            tally.add(record, cell | label, **extras)
    return tally


def feature_circuit(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The edges of a circuit that are kept, and how well the graph stands without the rest."""
    tally = Tally()
    for path in inputs:
        frame, cell = read_table(path), labels(path)
        kept = frame[frame["kept"].astype(bool)] if len(frame) else frame
        if kept.empty:
            label = dict.fromkeys(("latent", "to_latent"), "")
            reason = "no edge of more than the least weight"
            extras = {"faithfulness": None, "nodes": 0, "edges": 0}
            tally.add(undefined(0, "text", reason), cell | label, **extras)
        ends = ["layer", "feature", "to_layer", "to_feature"]
        groups = list(kept.groupby(ends, sort=False)) if len(kept) else []
        for place, rows in groups:
            named = dict(zip(ends, place, strict=True))
            label = {
                "latent": _named(named, "layer", "feature"),
                "to_latent": _named(named, "to_layer", "to_feature"),
            }
            weight = rows["weight"].to_numpy(dtype=float)
            extras = {
                "faithfulness": float(rows["faithfulness"].iloc[0]),
                "nodes": int(rows["nodes"].iloc[0]), "edges": len(groups),
            }  # fmt: skip
            record = mean_record(weight, "text", settings.confidence)
            tally.add(record, cell | label, rows[["instance", "weight"]], **extras)
    return tally


def _named(row: Mapping[str, object], layer: str, feature: str) -> str:
    """A latent as layer and number."""
    return f"{row[layer]}/{row[feature]}"
