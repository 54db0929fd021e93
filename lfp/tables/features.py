"""Tables of features: what they were called, how good that is, and when they fire."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_table, read_tensors
from lfp.interventions import selectors
from lfp.probing.probes import MAIN_SPLIT
from lfp.statistics.records import (
    Record,
    bootstrap_counts,
    group_mean_record,
    paired_record,
    ratio_record,
    undefined,
)
from lfp.tables import paper
from lfp.tables.rows import TableSettings, Tally, labels, of


def feature_explanations(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The explained features with what they were called (paper Tables 1 and 8).

    ``estimate`` is the signed effect where the heuristic explains, and whether the feature is
    related where a language model does.
    """
    tally = Tally()
    for path in inputs:
        frame = read_table(path)
        explained = frame[frame["status"] == "ok"]
        not_ok = frame[~frame["status"].isin(["ok", "skipped", "dead"])]["status"].value_counts()
        if explained.empty and not_ok.empty:
            record = undefined(0, "feature", "no feature is active, none was explained")
            tally.add(
                record, {**labels(path), "layer": -1, "feature": -1}, explanation=record.method
            )
        for row in explained.to_dict("records"):
            method = (
                "association with the feedback; permutation p; p_adjusted: Benjamini-Hochberg"
                " q of the cell"
            )
            record = Record(
                row["direction"], None, None, 1, "feature", method, p=row["p"], p_adjusted=row["q"]
            )
            if row["explainer_kind"] != "heuristic":
                method = "classified as related to the feedback by a language model (1) or not (0)"
                record = Record(float(row["related"]), None, None, 1, "feature", method)
            label = {**labels(path), "layer": row["layer"], "feature": row["feature"]}
            names = ("related", "explanation", "effect", "match", "cosine", "frequency",
            "mean_activation",
                     "max_activation", "explainer_kind", "uses_reward_lexicon")  # fmt: skip
            extras = {"explained_by": row["explainer"], "prompt_sha": row.get("prompt_sha", "")}
            tally.add(record, label, **{name: row[name] for name in names}, **extras)
        for status, count in not_ok.items():
            record = Record(float(count), None, None, int(count), "feature", "a count, no interval")
            tally.add(
                record,
                {**labels(path), "layer": -1, "feature": -1},
                explanation=f"{status}: not explained",
            )
    return tally


def explanation_quality(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Detection and fuzzing scores of explanations, of shuffled ones, and of the corpus's most
    frequent words.

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
        for (judge, task), pair in wide.groupby(level=["judge", "task"]):
            record = paired_record(
                pair["own"].to_numpy(),
                pair["shuffled"].to_numpy(),
                "feature",
                settings.seed,
                settings.resamples,
            )
            label = {
                **labels(path),
                "judge": judge,
                "scored": task,
                "explanation": "own - shuffled",
            }
            tally.add(record, label, excerpts=0, unparsed=0)
    return tally


def _fired_features(
    explanations: str, features: str, predictions: str
) -> tuple[pd.DataFrame, np.ndarray, pd.DataFrame]:
    """A cell's explanations, whether each feature fired on each input [input, feature], and the
    inputs' predictions.

    Rows of the explanations and columns of the features are both ordered by layer and feature.
    """
    frame = read_table(predictions)
    frame = frame[
        (frame["features"] == "latents") & (frame["split"] == frame["probe"].map(MAIN_SPLIT))
    ]
    tensors = read_tensors(features, ["latents.positive", "latents.negative"])
    active = {name.removeprefix("latents."): values > 0 for name, values in tensors.items()}
    rows = [active[e][t] for e, t in zip(frame["element"], frame["triple"], strict=True)]
    fired = np.stack(rows) if rows else next(iter(active.values()))[:0]
    return read_table(explanations), fired, frame


def _matched_columns(
    table: pd.DataFrame, related: np.ndarray, trait: str, draws: int, seed: int
) -> list[np.ndarray]:
    """Column indices of `draws` control sets that are matched to the related features
    on a `trait`.
    """
    chosen = {
        int(layer): group["feature"].tolist() for layer, group in table[related].groupby("layer")
    }
    position = {(row.layer, row.feature): i for i, row in enumerate(table.itertuples())}
    rng = np.random.default_rng(seed)
    sets = (selectors.matched_random_set(table, chosen, rng, trait) for _ in range(draws))
    return [
        np.array([position[layer, f] for layer, fs in drawn.items() for f in fs], dtype=int)
        for drawn in sets
    ]


def feature_frequency(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """How often related features are active on inputs of high and of low prediction, against
    controls (paper Table 7).

    Inputs are the elements of the triples; high are those from a quantile of the held-out
    prediction (or of the absolute delta) on, for several quantiles. Controls are unrelated features
    matched on activation frequency or on match cosine; ``all`` is every feature, as published, dead
    ones included. Quantities are the ``frequency`` of a set, its ``ratio`` to the related
    features', and the ``ratio of ratios``, high over low. Intervals are over contexts; p is the
    share of control sets that are active as often as the related features.
    """
    tally = Tally()
    ends = ("policy.safetensors", "policy/predictions.parquet")
    paths = [
        {tuple(labels(p)[k] for k in ("model", "task", "seed")): p for p in of(inputs, end)}
        for end in ends
    ]
    for explained in (path for path in inputs if "/explanations/" in path):
        cell = labels(explained)
        address = tuple(cell[key] for key in ("model", "task", "seed"))
        table, fired, inputs_of = _fired_features(explained, *(own[address] for own in paths))
        related = table["related"].to_numpy(dtype=bool)
        if not related.any() or inputs_of.empty:
            reason = (
                "no triple to read"
                if inputs_of.empty
                else "no feature of this cell is related to the feedback"
            )
            record = Record(float(related.sum()), None, None, len(related), "feature", reason)
            tally.add(record, {**cell, "by": "prediction", "quantile": 0.0, "inputs": "high",
            "features": "related",
                               "quantity": "number of features"})  # fmt: skip
            continue
        controls = {
            f"matched {trait}": _matched_columns(
                table, related, trait, settings.matched_draws, settings.seed
            )
            for trait in ("frequency", "cosine")
        }
        sets = {"related": [np.flatnonzero(related)], "all": [np.arange(len(related))], **controls}
        shares = {
            name: np.stack([fired[:, m].mean(1) for m in members]) for name, members in sets.items()
        }
        for row in _frequency_rows(shares, inputs_of, settings):
            beside = {"paper": "", "paper_note": ""}
            if row["label"]["quantity"] == "frequency" and row["label"]["inputs"] == "high":
                models = settings.paper_models.get(cell["model"], ())
                beside = paper.beside("feature_frequency", row["label"]["features"], models)
            tally.add(row["record"], {**cell, **row["label"]}, row["values"], **beside)
    return tally


def _frequency_rows(
    shares: dict[str, np.ndarray], inputs_of: pd.DataFrame, settings: TableSettings
) -> Iterator[dict[str, Any]]:
    """Rows of one cell from `shares` {set: [draw, input]}, the share of a set's features that fired
    on an input.
    """
    contexts = inputs_of["context"].to_numpy()
    by = {"prediction": inputs_of["prediction"].to_numpy(), "delta": inputs_of["target"].to_numpy()}
    ones = np.ones(len(contexts))
    draws = {
        "seed": settings.seed,
        "resamples": settings.resamples,
        "confidence": settings.confidence,
    }
    for (name, score), quantile in ((pair, q) for pair in by.items() for q in settings.quantiles):
        high = score >= np.quantile(score, quantile)
        for kind, keep in (("high", high), ("low", ~high)):
            where = {"by": name, "quantile": quantile, "inputs": kind}
            if not keep.any():
                continue
            means = {features: values.mean(0)[keep] for features, values in shares.items()}
            for features, values in means.items():
                record = ratio_record(values, ones[keep], contexts[keep], unit="context",
                                                 name="share of active (input, feature) pairs",
                                                 **draws)  # fmt: skip
                shown = name == "prediction" and quantile == max(settings.quantiles)
                frame = (
                    pd.DataFrame({"context": contexts[keep], "share": values}) if shown else None
                )
                label = {**where, "features": features, "quantity": "frequency"}
                yield {"record": record, "label": label, "values": frame}
            for features in ("matched frequency", "matched cosine", "all"):
                record = ratio_record(means["related"], means[features], contexts[keep],
                unit="context",
                                                 name=f"related over {features}",
                                                 **draws)  # fmt: skip
                if features != "all":
                    sets = shares[features][:, keep].mean(1)
                    p = (1 + np.sum(sets >= means["related"].mean() - 1e-12)) / (len(sets) + 1)
                    method = (
                        f"{record.method}; p: {len(sets)} matched sets at or above the related one"
                    )
                    record = Record(
                        record.estimate,
                        record.ci_low,
                        record.ci_high,
                        record.n,
                        record.unit,
                        method,
                        p=p,
                    )
                yield {
                    "record": record,
                    "label": {**where, "features": features, "quantity": "ratio"},
                    "values": None,
                }
        if high.all() or not high.any():
            continue
        for features in ("matched frequency", "matched cosine"):
            record = _ratio_of_ratios(
                shares["related"][0], shares[features].mean(0), high, contexts, **draws
            )
            label = {
                "by": name,
                "quantile": quantile,
                "inputs": "high over low",
                "features": features,
            }
            yield {
                "record": record,
                "label": {**label, "quantity": "ratio of ratios"},
                "values": None,
            }


def _ratio_of_ratios(
    related: np.ndarray,
    control: np.ndarray,
    high: np.ndarray,
    contexts: np.ndarray,
    seed: int,
    resamples: int,
    confidence: float,
) -> Record:
    """(related / control on high inputs) / (the same on low ones): 1 where high inputs are nothing
    special.
    """
    _, codes = np.unique(contexts, return_inverse=True)
    n = codes.max() + 1
    weights = np.vstack([np.ones(n), bootstrap_counts(np.random.default_rng(seed), n, resamples)])

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
    low, top = np.nanquantile(values[1:], [(1 - confidence) / 2, (1 + confidence) / 2])
    method = "related over control, high over low inputs; percentile bootstrap over contexts"
    return Record(float(values[0]), float(low), float(top), int(n), "context", method)
