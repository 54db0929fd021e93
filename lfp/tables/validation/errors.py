"""The error of a probe by the frequency of words in text of the policy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lfp.files.addresses import labels
from lfp.statistics.records.base import undefined
from lfp.statistics.records.kendall import kendall_record
from lfp.statistics.records.shares import proportion_record
from lfp.tables.rows import TableSettings, Tally
from lfp.tables.validation.written import word_errors


def error_by_frequency(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Are words that the policy writes often predicted better? (Paper Figure 4.)

    ``tau`` is the rank agreement of accuracy (minus the absolute error) with frequency, over words;
    ``never written`` is the share of words of which the policy's text says nothing.
    """
    tally = Tally()
    for path, errors in word_errors(inputs):
        label: dict[str, Any] = labels(path)
        never = int((errors["written"] == 0).sum())
        tau = kendall_record(-errors["error"], errors["written"], **settings.resampling)
        share = proportion_record(never, len(errors), "word", None, settings.confidence)
        if errors.empty:
            tau = share = undefined(0, "word", "no probe could be trained")
        times = int(errors["written"].sum())
        tally.add(tau, {**label, "quantity": "tau"}, errors, written=times)
        tally.add(share, {**label, "quantity": "never written"}, written=times)
    return tally
