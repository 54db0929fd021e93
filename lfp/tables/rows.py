"""The parts of every table: its settings and its rows.

A table is a function of the artefacts of all cells that fills a :class:`Tally`. An artefact's path
names its cell (:func:`lfp.files.addresses.labels`). Which artefacts a table reads is in its entry
of :mod:`lfp.tables.catalogue`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import pandas as pd

from lfp.settings import Tables
from lfp.statistics.multiple import holm
from lfp.statistics.records.base import Record

#: Labels that name a cell; rows that differ in nothing else ask one question of several cells.
CELL = ("model", "task", "seed", "sae")


@dataclass(frozen=True)
class TableSettings(Tables):
    """Intervals, tests and thresholds of all tables, and the paper's models beside them.

    Parameters
    ----------
    resamples
        Bootstrap resamples and permutations.
    confidence
        Coverage of intervals, between 0 and 1.
    quantiles
        Thresholds of high predictions (paper Table 7), as quantiles.
    matched_draws
        Number of matched control sets (paper Table 7).
    seed
        Seed of resampling.
    tau_margin, auroc_margin, share_margin, reward_margin
        Differences that are as good as none, for the verdicts on planted truth.
    paper_models
        The paper's models that each model is held beside.
    min_reach, min_zeroing, min_intensity
        Thresholds of the table ``organism_health``.
    min_reward_gain, min_margin
        Threshold of the table ``fine_tuning``.
    main
        The autoencoder variant of each cell, by the cell's address, that stands for the others in
        rows that no autoencoder takes part in.
    corpora
        The corpus of each cell's task, by the cell's address.
    families
        The family of each probed variant, by the cell's address and the variant: the name of the
        first variant that differs from it in nothing but its seed.
    given
        Addresses of the cells whose policy was not trained here on the reward that it is asked
        about.
    silent
        Addresses of the cells whose reward is planted to teach nothing of words.
    trained
        Method of fine-tuning and share of benign data of each cell, by the cell's address.
    """

    paper_models: Mapping[str, Sequence[str]] = field(default_factory=dict)
    main: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    corpora: Mapping[str, str] = field(default_factory=dict)
    given: Sequence[str] = ()
    silent: Sequence[str] = ()
    trained: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    @property
    def resampling(self) -> dict[str, Any]:
        """Seed, number of draws and confidence of an interval."""
        return {"seed": self.seed, "resamples": self.resamples, "confidence": self.confidence}


class Tally:
    """The rows of a table, each labels plus one :class:`Record`, and the single values behind them.

    The values are for the readers' tests; they keep the row's labels.
    """

    def __init__(self) -> None:
        self._rows: list[tuple[dict[str, Any], Record, str | None, dict[str, Any]]] = []
        self._values: list[tuple[dict[str, Any], pd.DataFrame]] = []

    def add(
        self,
        record: Record,
        labels: Mapping[str, Any],
        values: pd.DataFrame | None = None,
        family: str | None = None,
        **extras: object,
    ) -> None:
        """Add one row.

        Parameters
        ----------
        record
            The row's number.
        labels
            Labels of the row.
        values
            A row per instance behind the number.
        family
            Name of the tests that are corrected together; None for those of one question.
        extras
            Columns that describe the row further.
        """
        self._rows.append((dict(labels), record, family, extras))
        if values is not None:
            self._values.append((dict(labels), values))

    def frame(self) -> pd.DataFrame:
        """The table, sorted by its labels.

        Labels stand first, then the columns of the records, then the extras. It has Holm's p over
        a row's family, and where it has none over the cells that its question is asked of.

        A record that brings an adjusted p keeps it. Without a row the table has the columns of
        the records alone.
        """
        if not self._rows:
            return pd.DataFrame(columns=[column.name for column in fields(Record)])
        frame = pd.DataFrame(
            [{**labels, **record.row(), **extras} for labels, record, _, extras in self._rows]
        )
        names = list(dict.fromkeys(name for labels, *_ in self._rows for name in labels))
        families = [
            family or str([labels.get(name) for name in names if name not in CELL])
            for labels, _, family, _ in self._rows
        ]
        adjusted = frame["p_adjusted"].astype(float)
        for _, p in frame["p"].groupby(families, sort=False):
            adjusted[p.index] = adjusted[p.index].fillna(
                pd.Series(holm(p.to_numpy(dtype=float)), index=p.index)
            )
        frame["p_adjusted"] = adjusted
        return frame.sort_values(names, kind="stable", ignore_index=True)[
            names + [column for column in frame.columns if column not in names]
        ]

    def instances(self) -> pd.DataFrame:
        """The values behind the rows; the rows themselves where each is a single value already."""
        if not self._values:
            return self.frame()
        labels = pd.DataFrame([label for label, _ in self._values])
        repeats = np.repeat(np.arange(len(labels)), [len(values) for _, values in self._values])
        values = pd.concat([values for _, values in self._values], ignore_index=True)
        return labels.iloc[repeats].reset_index(drop=True).join(values)


def filled(
    table: Callable[[Sequence[str], TableSettings], Tally],
    inputs: Sequence[str],
    settings: TableSettings,
) -> Tally:
    """The rows of a `table`; none where it is asked for by name and no cell has an input for it."""
    return table(inputs, settings) if inputs else Tally()
