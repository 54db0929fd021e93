"""Dictionaries beside each other, and beside the noise of training them again.

The tables say how faithful they are at what sparsity, what sparse probes find in them, and how
their directions lie.

Two trainings from different seeds differ for no reason that anyone should write about. So a number
of one dictionary is called better than another's only where the two lie further apart than
:data:`REPEATABILITY` standard deviations between seeds, which two trainings of one kind do in one
of twenty cases. Dictionaries of one kind are those that differ in nothing but their seed: the
variants of a cell that do, and of each the one that ``other_seed`` trains.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.statistics.partitions import PartValues, partitions_record
from lfp.statistics.records.base import Record, undefined
from lfp.tables.rows import TableSettings, Tally

#: 1.96 times the square root of 2: two draws of one normal distribution lie further apart, in
#: standard deviations, in one of twenty pairs (Bland and Altman 1986).
REPEATABILITY = 2.77
#: Share by which the L0 of the better one of two dictionaries may be higher: no two trainings end
#: at one L0, and those that look for a target of it end a few percent away. What more latents buy
#: is taken off again, FVU times the ratio of both L0s: in this span it falls with L0 to the power
#: of .5 to .9, for the seven kinds of `config/dictionaries.yaml`, so never faster.
L0_TOLERANCE = 0.05
#: The policy and base that is read, and the data behind it.
_CELL = ["model", "task", "seed"]
#: Kinds of dictionaries that learned, and the one that rows are about.
_LEARNED, _TRAINED = ("trained", "other_seed"), "trained"
#: Columns of the frontier that the evaluation has, and that the metrics of the variant have.
_OF_EVALUATION = ("l0", "shrinkage", "dead_fraction", "near_duplicates")
_OF_METRICS = ("architecture", "site", "reads", "tied", "loss_recovered", "layer_needed")
#: Quantities of the geometry of a decoder.
_GEOMETRY = ("participation", "localisation", "alignment", "near_duplicates")


def reseeding(frame: pd.DataFrame, by: Sequence[str], value: str) -> pd.DataFrame:
    """The standard deviation of a value between seeds, with its degrees of freedom.

    Parameters
    ----------
    frame
        A row per dictionary or statistic of it.
    by
        Columns of what belongs together; rows that agree in them and in ``place`` differ in seeds
        alone, and variances are pooled over places.
    value
        Column of the value.

    Returns
    -------
    DataFrame
        With `by`, ``reseed_sd``, ``reseed_df`` and ``minimum_difference``; a row for each group
        that was trained from two seeds or more.
    """
    known = frame[np.isfinite(frame[value].astype(float))]
    values = known.astype({value: float}).groupby([*by, "place"])[value]
    of_place = values.agg(variance="var", trained="size")
    several = of_place[of_place["trained"] > 1].reset_index()
    df = several["trained"] - 1
    pooled = several.assign(df=df, squares=several["variance"] * df).groupby(list(by))
    sums = pooled[["df", "squares"]].sum().reset_index()
    sd = np.sqrt(sums["squares"] / sums["df"])
    noise = {"reseed_sd": sd, "reseed_df": sums["df"], "minimum_difference": REPEATABILITY * sd}
    return sums[list(by)].assign(**noise)


def _evaluations(inputs: Sequence[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels and content of every evaluation among the inputs."""
    for path in of(inputs, "evaluation.json"):
        yield labels(path), read_json(path)


def _dictionaries(inputs: Sequence[str]) -> pd.DataFrame:
    """A row per dictionary, with its cell, its variant, its ``family`` and its layer as place."""
    frames = [
        pd.DataFrame(evaluation["dictionaries"]).assign(**label, family=evaluation["kind"])
        for label, evaluation in _evaluations(inputs)
    ]
    frame = pd.concat(frames, ignore_index=True)
    return frame.assign(place=frame["layer"]).astype({"fvu": float, "l0": float})


def _metrics(inputs: Sequence[str]) -> pd.DataFrame:
    """What the metrics of variants say beside their evaluations, by cell, layer and size."""
    rows = []
    for path in of(inputs, "metrics.json"):
        for row in read_json(path)["autoencoders"]:
            zero, clean = row["ce_zero"], row["ce_clean"]
            about = {name: row[name] for name in ("layer", "size", *_OF_METRICS)}
            rise = None if zero is None else zero - clean
            rows.append({**labels(path), **about, "ce_rise": rise})
    return pd.DataFrame(rows)


def _better(frame: pd.DataFrame) -> list[str]:
    """For every row, the variants of its size that it is better than.

    It is better where its FVU is lower by more than the larger of both minimum differences, and its
    L0 is not higher by more than :data:`L0_TOLERANCE`; where it is higher, the FVU counts as that
    many times larger.
    """
    names = []
    for row in frame.itertuples():
        comparable = row.l0 <= (1 + L0_TOLERANCE) * frame["l0"]
        others = frame[comparable & (frame["size"] == row.size)]
        least = np.maximum(others["minimum_difference"], row.minimum_difference)
        # Where both have no latent at all, neither has more.
        excess = (row.l0 / others["l0"]).fillna(1.0).clip(lower=1.0)
        gain = others["fvu"] - row.fvu * excess
        names.append(", ".join(sorted(others["sae"][gain > least])))
    return names


def frontier(inputs: Sequence[str]) -> pd.DataFrame:
    """A row per trained dictionary with its fidelity, its noise, and what it is better than."""
    frame = _dictionaries(inputs)
    by = [*_CELL, "family", "size"]
    noise = reseeding(frame[frame["kind"].isin(_LEARNED)], by, "fvu")
    trained = frame[frame["kind"] == _TRAINED].merge(noise, "left", by)
    trained = trained.merge(_metrics(inputs), "left", [*_CELL, "sae", "layer", "size"])
    parts = [
        part.assign(better_than=_better(part))
        for _, part in trained.groupby([*_CELL, "layer", "site", "reads"])
    ]
    return pd.concat(parts, ignore_index=True)


def sae_frontier(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """FVU of every dictionary at its L0, with what else tells its worth, beside reseed noise."""
    tally = Tally()
    columns = [
        "architecture", "site", "reads", "tied", "l0", "loss_recovered", "ce_rise", "layer_needed",
        "shrinkage", "dead_fraction", "near_duplicates", "reseed_sd", "reseed_df",
        "minimum_difference", "better_than",
    ]  # fmt: skip
    for row in frontier(inputs).to_dict("records"):
        label = {name: row[name] for name in (*_CELL, "sae", "layer", "size")}
        method = "held-out text; better beyond 2.77 reseed standard deviations"
        record = Record(row["fvu"], None, None, row["tokens"], "token", method)
        if np.isnan(row["fvu"]):
            reason = "all activations are equal" if row["tokens"] else "no text was read"
            record = undefined(row["tokens"], "token", reason)
        extras = {name: row[name] for name in columns}
        tally.add(record, {**label, "quantity": "fvu"}, **extras)
    return tally


def decoder_geometry(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Geometry of every trained decoder, beside that of directions that share space evenly."""
    tally = Tally()
    frame = _dictionaries(inputs)
    for row in frame[frame["kind"] == _TRAINED].to_dict("records"):
        label = {name: row[name] for name in (*_CELL, "sae", "layer", "size")}
        # Fewer directions than dimensions fill as many as they are, each of them one.
        filled = min(row["d_in"], row["d_sae"])
        even = {"participation": float(filled), "localisation": filled / row["d_sae"]}
        for quantity in _GEOMETRY:
            record = Record(row[quantity], None, None, row["d_sae"], "feature", "no interval")
            tally.add(record, {**label, "quantity": quantity}, even=even.get(quantity))
    return tally


def _probed(inputs: Sequence[str]) -> pd.DataFrame:
    """A row per variant, kind of features and size of probe, with its parts and its mean AUC."""
    families = {
        tuple(label.values()): evaluation["kind"] for label, evaluation in _evaluations(inputs)
    }
    rows = []
    for path in of(inputs, "sparse_probes.parquet"):
        label = labels(path)
        for (features, k), parts in read_table(path).groupby(["features", "k"], sort=False):
            about = {**label, "features": features, "k": k, "place": 0}
            auc = parts["auc"].to_numpy(float)
            mean = np.nanmean(auc) if np.isfinite(auc).any() else np.nan
            family = families[tuple(label.values())]
            rows.append({**about, "family": family, "auc": mean, "parts": parts})
    return pd.DataFrame(rows)


def _record(parts: pd.DataFrame, settings: TableSettings) -> Record:
    """The mean AUC of the parts of a sparse probe, with its interval."""
    first = parts.iloc[0]
    if first["reason"]:
        return undefined(int(first["units"]), first["unit"], first["reason"])
    values = PartValues(parts["auc"].to_numpy(float), float(parts["ratio"].mean()))
    units = int(first["units"])
    return partitions_record(
        values, units, first["unit"], "AUC", (0.0, 1.0), 0.5, settings.confidence
    )


def _fvu(inputs: Sequence[str]) -> Mapping[tuple, float]:
    """Mean FVU over layers of the smallest dictionary of every kind, by cell, variant and kind."""
    frame = _dictionaries(inputs)
    smallest = frame[frame["size"] == frame.groupby([*_CELL, "sae"])["size"].transform("min")]
    return smallest.groupby([*_CELL, "sae", "kind"])["fvu"].mean().to_dict()


def sae_probing(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """AUC of probes of few features, beside raw activations, controls and another seed."""
    tally = Tally()
    frame, fvu = _probed(inputs), _fvu(inputs)
    by = [*_CELL, "family", "k"]
    frame = frame.merge(reseeding(frame[frame["features"].isin(_LEARNED)], by, "auc"), "left", by)
    for _, group in frame.groupby([*_CELL, "sae", "k"]):
        for row in group.to_dict("records"):
            label = {name: row[name] for name in (*_CELL, "sae", "features", "k")}
            beaten = group["features"][row["auc"] - group["auc"] > row["minimum_difference"]]
            place = (*(row[name] for name in (*_CELL, "sae")), row["features"])
            noise = {n: row[n] for n in ("reseed_sd", "reseed_df", "minimum_difference")}
            extras = {"fvu": fvu.get(place), **noise, "better_than": ", ".join(sorted(beaten))}
            tally.add(_record(row["parts"], settings), {**label, "quantity": "auc"}, **extras)
    return tally
