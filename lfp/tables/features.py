"""Tables of features: their explanations, the quality of these, and the inputs of activity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_table, read_tensors
from lfp.interventions.selection import matched_random_sets
from lfp.probing.probes import MAIN_SPLIT
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.means import group_mean_record, paired_record, ratio_record
from lfp.statistics.records.resampling import resampled, seeded_counts
from lfp.tables import paper
from lfp.tables.rows import TableSettings, Tally

_CELL = ("model", "task", "seed")
#: Sets of unrelated features that share a trait with the related ones.
_CONTROLS = ("matched frequency", "matched cosine")
#: Columns of an explanation that describe its row.
_DESCRIBED = (
    "related", "explanation", "effect", "match", "cosine", "frequency", "mean_activation",
    "max_activation", "explainer_kind", "uses_reward_lexicon",
)  # fmt: skip


def feature_explanations(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The explained features with their explanations (paper Tables 1 and 8).

    ``estimate`` is the signed effect where the heuristic explains, and whether the feature is
    related where a language model does. A row counts the features of every reason for which none
    was given.
    """
    tally = Tally()
    for path in inputs:
        frame = read_table(path)
        nowhere = {**labels(path), "layer": -1, "feature": -1}
        explained = frame[frame["status"] == "ok"]
        not_ok = frame[~frame["status"].isin(["ok", "skipped", "dead"])]["status"].value_counts()
        if explained.empty and not_ok.empty:
            record = undefined(0, "feature", "no feature is active, none was explained")
            tally.add(record, nowhere, explanation=record.method)
        for row in explained.to_dict("records"):
            label = {**labels(path), "layer": row["layer"], "feature": row["feature"]}
            extras = {"explained_by": row["explainer"], "prompt_sha": row.get("prompt_sha", "")}
            extras |= {"chosen_by": row["chosen_by"]}
            described = {name: row[name] for name in _DESCRIBED}
            tally.add(_association(row), label, **described, **extras)
        for status, count in not_ok.items():
            record = Record(float(count), None, None, int(count), "feature", "a count, no interval")
            tally.add(record, nowhere, explanation=f"{status}: not explained")
    return tally


def _association(row: dict[str, Any]) -> Record:
    """The record of one explained feature: its association with the feedback."""
    if row["explainer_kind"] != "heuristic":
        method = "classified as related to the feedback by a language model (1) or not (0)"
        return Record(float(row["related"]), None, None, 1, "feature", method)
    method = (
        "association with the feedback; permutation p; p_adjusted: Benjamini-Hochberg q of the cell"
    )
    return Record(
        row["direction"], None, None, 1, "feature", method, p=row["p"], p_adjusted=row["q"]
    )


def explanation_quality(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Detection and fuzzing scores of explanations and of their controls.

    Controls are shuffled explanations and the corpus's most frequent words.

    Balanced accuracy over excerpts, then a mean over features; ``own - shuffled`` is paired by
    feature. Verdicts that could not be parsed count as wrong and are counted.
    """
    tally = Tally()
    for path in inputs:
        frame = read_table(path)
        if frame.empty:
            record = undefined(0, "feature", "no feature was explained")
            label = {**labels(path), "judge": "none", "scored": "none", "explanation": "none"}
            tally.add(record, label, excerpts=0, unparsed=0)
            continue
        keys = ["judge", "layer", "feature", "task"]
        wide = frame.pivot(index=keys, columns="explanation", values="balanced_accuracy")
        for (judge, source, task), group in frame.groupby(["judge", "explanation", "task"]):
            values = group["balanced_accuracy"].to_numpy()
            record = group_mean_record(
                values,
                np.arange(len(values)),
                unit="feature",
                name="balanced accuracy",
                **settings.resampling,
            )
            label = {**labels(path), "judge": judge, "scored": task, "explanation": source}
            extras = {
                "excerpts": int(group["excerpts"].sum()),
                "unparsed": int(group["unparsed"].sum()),
            }
            shown = group[["layer", "feature", "balanced_accuracy", "excerpts", "unparsed"]]
            tally.add(record, label, shown, **extras)
        if "shuffled" not in wide:  # no feature beside a single one lends its explanation
            continue
        for (judge, task), pair in wide.groupby(level=["judge", "task"]):
            record = paired_record(
                pair["own"].to_numpy(),
                pair["shuffled"].to_numpy(),
                unit="feature",
                **settings.resampling,
            )
            label = {
                **labels(path),
                "judge": judge,
                "scored": task,
                "explanation": "own - shuffled",
            }
            tally.add(record, label, excerpts=0, unparsed=0)
    return tally


def _active_features(
    explanations: str, features: str, predictions: str
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """A cell's explanations, the activity of features on inputs, and the inputs' predictions.

    Activity [input, feature] is whether a feature is active on an input.

    Rows of the explanations and columns of the features are both ordered by layer and feature.
    """
    frame = read_table(predictions)
    frame = frame[
        (frame["features"] == "latents") & (frame["split"] == frame["probe"].map(MAIN_SPLIT))
    ]
    tensors = read_tensors(features, ["latents.positive", "latents.negative"])
    of_element = {name.removeprefix("latents."): values > 0 for name, values in tensors.items()}
    rows = [of_element[e][t] for e, t in zip(frame["element"], frame["triple"], strict=True)]
    active = np.stack(rows) if rows else next(iter(of_element.values()))[:0]
    return read_table(explanations), active, frame


def _matched_columns(
    table: pd.DataFrame, related: np.ndarray, trait: str, draws: int, seed: int
) -> list[np.ndarray]:
    """Columns of control sets that are matched to the related features.

    Parameters
    ----------
    table
        Explanations of a cell, a row per feature.
    related
        Whether each row's feature is related to the feedback.
    trait
        Column of `table` that the sets are matched on.
    draws
        Number of control sets.
    seed
        Seed of their draws.

    Returns
    -------
    list of numpy.ndarray
        Positions in `table` of the features of every set.
    """
    chosen = {
        int(layer): group["feature"].tolist() for layer, group in table[related].groupby("layer")
    }
    position = {(row.layer, row.feature): i for i, row in enumerate(table.itertuples())}
    rng = np.random.default_rng(seed)
    sets = matched_random_sets(table, chosen, rng, trait, draws)
    return [
        np.array([position[layer, f] for layer, fs in drawn.items() for f in fs], dtype=int)
        for drawn in sets
    ]


def feature_frequency(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Frequency of related features on inputs of high and of low prediction (paper Table 7).

    Controls stand beside them.

    Inputs are the elements of the triples; high are those from a quantile of the held-out
    prediction (or of the absolute delta) on, for several quantiles. Controls are unrelated features
    matched on activation frequency or on match cosine; ``all`` is every feature, as published, dead
    ones included. Quantities are the ``frequency`` of a set, its ``ratio`` to the related
    features', and the ``ratio of ratios``, high over low. Intervals are over contexts; p is the
    share of control sets that are active as often as the related features.
    """
    tally = Tally()

    def by_cell(ending: str) -> dict[tuple, str]:
        return {tuple(labels(p)[k] for k in _CELL): p for p in of(inputs, ending)}

    features = by_cell("policy.safetensors")
    predictions = by_cell("policy/predictions.parquet")
    for explained in (path for path in inputs if "/explanations/" in path):
        cell = labels(explained)
        address = tuple(cell[key] for key in _CELL)
        table, active, inputs_of = _active_features(
            explained, features=features[address], predictions=predictions[address]
        )
        related = table["related"].to_numpy(dtype=bool)
        if not related.any() or inputs_of.empty:
            reason = (
                "no triple to read"
                if inputs_of.empty
                else "no feature of this cell is related to the feedback"
            )
            record = Record(float(related.sum()), None, None, len(related), "feature", reason)
            label = {
                "by": "prediction",
                "quantile": 0.0,
                "inputs": "high",
                "features": "related",
                "quantity": "number of features",
            }
            tally.add(record, {**cell, **label})
            continue
        shares = _shares(table, active, related, settings)
        for row in _frequency_rows(shares, inputs_of, settings):
            beside = {"paper": "", "paper_note": ""}
            if row["label"]["quantity"] == "frequency" and row["label"]["inputs"] == "high":
                models = settings.paper_models.get(cell["model"], ())
                beside = paper.beside("feature_frequency", row["label"]["features"], models)
            tally.add(row["record"], {**cell, **row["label"]}, row["values"], **beside)
    return tally


def _shares(
    table: pd.DataFrame, active: np.ndarray, related: np.ndarray, settings: TableSettings
) -> dict[str, np.ndarray]:
    """The share of a set's features that are active on an input [draw, input], for every set."""
    members = {"related": [np.flatnonzero(related)], "all": [np.arange(len(related))]}
    # The single dictionary of a layer has no matches.
    for trait in ("frequency", "cosine") if table["cosine"].notna().any() else ("frequency",):
        members[f"matched {trait}"] = _matched_columns(
            table, related, trait, draws=settings.matched_draws, seed=settings.seed
        )
    return {name: np.stack([active[:, m].mean(1) for m in sets]) for name, sets in members.items()}


def _frequency_rows(
    shares: dict[str, np.ndarray], inputs_of: pd.DataFrame, settings: TableSettings
) -> Iterator[dict[str, Any]]:
    """Rows of one cell: ``record``, ``label`` and ``values``.

    `shares` {set: [draw, input]} is the share of a set's features that are active on an input.
    """
    contexts = inputs_of["context"].to_numpy()
    scores = {
        "prediction": inputs_of["prediction"].to_numpy(),
        "delta": inputs_of["target"].to_numpy(),
    }
    for (name, score), quantile in product(scores.items(), settings.quantiles):
        high = score >= np.quantile(score, quantile)
        where = {"by": name, "quantile": quantile}
        keep_values = name == "prediction" and quantile == max(settings.quantiles)
        for kind, keep in (("high", high), ("low", ~high)):
            for row in _rows_of_inputs(shares, keep, contexts, settings):
                label = {**where, "inputs": kind, **row["label"]}
                yield {**row, "label": label, "values": row["values"] if keep_values else None}
        if high.all() or not high.any():
            continue
        for features in _CONTROLS:
            record = _ratio_of_ratios(
                shares["related"][0], shares[features].mean(0), high, contexts, settings
            )
            label = {
                **where,
                "inputs": "high over low",
                "features": features,
                "quantity": "ratio of ratios",
            }
            yield {"record": record, "label": label, "values": None}


def _rows_of_inputs(
    shares: dict[str, np.ndarray], keep: np.ndarray, contexts: np.ndarray, settings: TableSettings
) -> Iterator[dict[str, Any]]:
    """Frequencies of all sets on the inputs `keep`.

    Ratios of the related features to the controls stand beside them.
    """
    if not keep.any():
        return
    means = {features: values.mean(0)[keep] for features, values in shares.items()}
    groups = contexts[keep]
    for features, values in means.items():
        name = "share of active (input, feature) pairs"
        ones = np.ones(keep.sum())
        record = ratio_record(
            values, ones, groups, unit="context", name=name, **settings.resampling
        )
        label = {"features": features, "quantity": "frequency"}
        frame = pd.DataFrame({"context": groups, "share": values})
        yield {"record": record, "label": label, "values": frame}
    for features in (*_CONTROLS, "all"):
        name = f"related over {features}"
        record = ratio_record(
            means["related"],
            means[features],
            groups,
            unit="context",
            name=name,
            **settings.resampling,
        )
        if features in _CONTROLS and not np.isnan(record.estimate):
            sets = shares[features][:, keep].mean(1)
            p = (1 + np.sum(sets >= means["related"].mean() - 1e-12)) / (len(sets) + 1)
            method = f"{record.method}; p: {len(sets)} matched sets at or above the related one"
            record = replace(record, method=method, p=p)
        yield {
            "record": record,
            "label": {"features": features, "quantity": "ratio"},
            "values": None,
        }


def _ratio_of_ratios(
    related: np.ndarray,
    control: np.ndarray,
    high: np.ndarray,
    contexts: np.ndarray,
    settings: TableSettings,
) -> Record:
    """(related / control on high inputs) / (the same on low ones).

    It is 1 where high inputs are nothing special.

    Parameters
    ----------
    related, control
        Share of active features of either set on every input.
    high
        Whether each input is high.
    contexts
        Each input's context, the unit of the bootstrap.
    settings
        Seed, resamples and confidence.
    """
    _, codes = np.unique(contexts, return_inverse=True)
    n = codes.max() + 1
    weights = np.vstack([np.ones(n), seeded_counts(settings.seed, n, settings.resamples)])

    def mean(values: np.ndarray, keep: np.ndarray) -> np.ndarray:
        sums, counts = (
            weights @ np.bincount(codes[keep], v, n) for v in (values[keep], np.ones(keep.sum()))
        )
        return sums / np.maximum(counts, 1e-12)

    with np.errstate(divide="ignore", invalid="ignore"):
        values = (
            mean(related, high)
            / mean(control, high)
            / (mean(related, ~high) / mean(control, ~high))
        )
    name = "related over control, high over low inputs"
    if not np.isfinite(values[0]):
        return undefined(int(n), "context", f"{name}: a frequency is 0 throughout")
    tail = (1 - settings.confidence) / 2
    low, top = np.nanquantile(values[1:], [tail, (1 + settings.confidence) / 2])
    method = f"{name}; percentile bootstrap over contexts"
    record = Record(float(values[0]), float(low), float(top), int(n), "context", method)
    return resampled(record, settings.confidence)
