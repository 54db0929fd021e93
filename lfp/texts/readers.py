"""Readers of corpora on disk: JSONL, CSV and Parquet."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lfp.texts.corpora import deduplicated, preference_pairs

log = logging.getLogger(__name__)


def read_splits(
    files: Mapping[str, Sequence[Path]], columns: Mapping[str, str], test_share: float, seed: int
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """The splits of a corpus on disk, shuffled and without duplicates, and counts of its rows.

    Without a split ``test`` a share `test_share` of ``train`` is held out, by prompt where there
    are prompts, so that no prompt is in both. Training rows that are in ``test`` as well stay in
    training: the held-out split gives way. A split may come out empty; its cells then have rows
    that say why nothing was estimated.
    """
    frames = {
        split: pd.concat([read_file(path, columns) for path in paths], ignore_index=True)
        for split, paths in files.items()
    }
    frames = {
        split: frame.sample(frac=1, random_state=seed, ignore_index=True)
        for split, frame in frames.items()
    }
    if "test" not in frames:
        whole = frames["train"]
        groups = pd.factorize(_groups(whole))[0]
        held_out = groups >= (groups.max() + 1) * (1 - test_share)
        frames = {"train": whole[~held_out], "test": whole[held_out]}
    frames = {"train": frames["train"], "test": frames["test"]}
    result, counts = deduplicated(frames, sorted(columns))
    for split, frame in result.items():
        if frame.empty:
            read = counts[split]["read"]
            log.warning(
                "split %r has no row left of %d: nothing of it can be estimated; check `columns`",
                split,
                read,
            )
    return result, counts


def _groups(frame: pd.DataFrame) -> pd.Series:
    """The unit that a split must not tear apart, for every row.

    It is the text, or the prompt (also of transcripts).
    """
    if "text" in frame or "prompt" in frame:
        return frame["text" if "text" in frame else "prompt"]
    return preference_pairs(frame)[0]["prompt"].reindex(frame.index).fillna(frame["chosen"])


def read_file(path: str | Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """Read a JSONL (also .gz), CSV or Parquet file.

    Its columns are renamed by `columns` {ours: theirs}.

    Raises ValueError naming the file and the format or the column that is missing.
    """
    path = Path(path)
    name = path.name.removesuffix(".gz")
    if name.endswith((".jsonl", ".json")):
        frame = pd.read_json(path, lines=True)
    elif name.endswith(".csv"):
        frame = pd.read_csv(path)
    elif name.endswith(".parquet"):
        frame = pd.read_parquet(path)
    else:
        raise ValueError(f"{path}: unknown format; expected .jsonl, .jsonl.gz, .csv or .parquet")
    return select_columns(frame, columns, str(path))


def select_columns(frame: pd.DataFrame, columns: Mapping[str, str], origin: str) -> pd.DataFrame:
    """The columns of `frame` that `columns` {ours: theirs} names, under our names."""
    missing = [theirs for theirs in columns.values() if theirs not in frame.columns]
    if missing:
        raise ValueError(
            f"{origin}: no column {missing[0]!r}; it has {', '.join(map(str, frame.columns))}."
            " Set `columns` of the corpus in the configuration."
        )
    return frame[list(columns.values())].set_axis(list(columns), axis=1)
