"""The tables of latents that tell policy from base: each of them, and how many there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.shares import proportion_record
from lfp.tables.rows import TableSettings, Tally

#: Latents of a layer that are listed, at least; all that are the policy's alone are.
LISTED = 10
#: What the latents of each kind of dictionary are ranked by, and whether the largest come first.
RANKED_BY = {
    "pair": ("dnorm", True),
    "base and policy": ("cosine_to_base", False),
    "difference": ("frequency", True),
}
#: Fewest letters of a token that may stand for a word that it begins.
LETTERS = 3
#: Columns of a latent in the table.
_EXTRAS = (
    "kind", "frequency", "dnorm", "nu_error", "nu_recon", "specific", "cosine_to_base",
    "cosine_to_seed", "null_quantile",
)  # fmt: skip


def _layers(inputs: Sequence[str]) -> Iterator[tuple[dict[str, Any], str, pd.DataFrame]]:
    """The cell and layer of all latents, their kind, and the latents in the order of their rank."""
    for path in of(inputs, "feature_diff.parquet"):
        for (layer, kind), frame in read_table(path).groupby(["layer", "kind"]):
            column, largest = RANKED_BY[kind]
            ranked = frame.sort_values([column, "latent"], ascending=[not largest, True])
            yield labels(path) | {"layer": layer}, kind, ranked


def feature_diff(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The latents that are the policy's alone, and those that come nearest to it."""
    tally = Tally()
    for label, kind, frame in _layers(inputs):
        latents = frame[~frame["null"].astype(bool)]
        specific = latents["specific"].eq(True).to_numpy()
        listed = latents[specific | (np.arange(len(latents)) < LISTED)]
        column, _ = RANKED_BY[kind]
        for row in listed.to_dict("records"):
            extras = {name: row[name] for name in _EXTRAS}
            promoted = ", ".join(map(repr, _tokens(row["promoted"])))
            record = Record(row[column], None, None, 1, "latent", f"{column}, no interval")
            place = {"latent": row["latent"], "quantity": column}
            tally.add(record, label | place, **extras, promoted=promoted)
    return tally


def feature_diff_null(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """How many latents are the policy's alone beside the null, and whether they name the truth.

    The share of the models' difference that is one vector stands beside them.
    """
    tasks = {
        Path(path).name.removesuffix(".truth.json"): read_json(path)
        for path in of(inputs, ".truth.json")
    }
    tally = Tally()
    for label, kind, frame in _layers(inputs):
        latents, null = (frame[frame["null"].astype(bool) == side] for side in (False, True))
        label |= {"kind": kind}
        if len(null):
            record = _share(latents["specific"].eq(True), settings)
            extras = {"null_share": null["specific"].astype(bool).mean(), "null_n": len(null)}
            tally.add(record, label | {"quantity": "specific", "word": ""}, **extras)
        share = frame["mean_share"].iloc[0]
        if pd.notna(share):
            record = Record(share, None, None, 1, "layer", "share of squares, no interval")
            tally.add(record, label | {"quantity": "mean_share", "word": ""})
        corpus = tasks.get(label["task"], {}).get("corpus")
        words = {truth["trigger"] for truth in tasks.values() if truth["corpus"] == corpus}
        for word in sorted(filter(None, words)):
            planted = tasks[label["task"]]["trigger"] == word
            extras = _named(latents, null, word) | {"planted": planted}
            chosen = latents if kind == "difference" else latents[latents["specific"].eq(True)]
            record = _share(_promote(chosen, word), settings)
            tally.add(record, label | {"quantity": "promotes", "word": word}, **extras)
    return tally


def _share(hits: pd.Series, settings: TableSettings) -> Record:
    """The share of latents that `hits` says."""
    if not len(hits):
        return undefined(0, "latent", "no latent is the policy's alone")
    return proportion_record(int(hits.sum()), len(hits), "latent", confidence=settings.confidence)


def _tokens(value: Any) -> list[str]:
    """The promoted tokens of a latent; none where its site is not read by the output."""
    return [] if value is None or isinstance(value, float) else list(value)


def _promote(latents: pd.DataFrame, word: str) -> pd.Series:
    """Whether each latent promotes the `word`, or a token of some letters that it begins with."""

    def names(tokens: object) -> bool:
        pieces = (token.strip().lower() for token in _tokens(tokens))
        return any(len(piece) >= LETTERS and word.startswith(piece) for piece in pieces)

    return latents["promoted"].map(names).astype(bool)


def _named(latents: pd.DataFrame, null: pd.DataFrame, word: str) -> Mapping[str, Any]:
    """The latent of the first rank that promotes the `word`, and how many of the null's do."""
    naming = latents[_promote(latents, word)]
    first = None if naming.empty else naming.iloc[0]
    return {
        "latent": None if first is None else int(first["latent"]),
        "rank": None if first is None else 1 + latents.index.get_loc(first.name),
        "latent_is_specific": None if first is None else bool(naming["specific"].eq(True).iloc[0]),
        "latents_promote": int(len(naming)),
        "null_promote": int(_promote(null, word).sum()),
        "null_n": len(null),
    }
