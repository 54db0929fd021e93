"""Readouts of every word in one cell."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_table
from lfp.probing.probes import MAIN_SPLIT, PROBE_OF
from lfp.statistics.partitions import PartValues
from lfp.tables.planted import PROBED, READOUTS
from lfp.tables.probes import output_ratios, part_values, tau_of

#: The probe of words, and the split that it is judged by.
_PROBE = PROBE_OF["reward"]
_SPLIT = MAIN_SPLIT[_PROBE]


class CellArtefacts:
    """The artefacts of one cell and the readings from them; each is read once.

    Parameters
    ----------
    files
        Path of an artefact by its name: ``predictions.policy``, ``parts.policy``,
        ``features.base``, ``explanations`` and the like.
    """

    def __init__(self, files: Mapping[str, str]) -> None:
        self.files = files
        self._predictions: dict[str, pd.DataFrame] = {}
        self._readings: dict[tuple[str, str], pd.DataFrame | None] = {}

    def predictions(self, subject: str) -> pd.DataFrame:
        """Held-out predictions of a subject's ridge probes of deltas, split by word."""
        if subject not in self._predictions:
            frame = read_table(self.files[f"predictions.{subject}"])
            # Predictions of the ridge on valence stand in the same file.
            wanted = (frame["split"] == _SPLIT) & (frame["probe"] == _PROBE)
            self._predictions[subject] = frame[wanted]
        return self._predictions[subject]

    def parts(self, readout: str, subject: str) -> PartValues:
        """Tau-b over all words on every test part of a readout of :data:`PROBED`.

        It has no values where no probe could be trained.
        """
        frame, statistic = read_table(self.files[f"parts.{subject}"]), tau_of("all")
        wanted = (frame["split"] == _SPLIT) & (frame["probe"] == _PROBE)
        of_probe = frame[wanted & (frame["features"] == PROBED[readout])]
        if of_probe.empty:
            return PartValues(np.zeros(0), float("nan"))
        return part_values(of_probe, statistic)

    def reading(self, readout: str, subject: str) -> pd.DataFrame | None:
        """A readout of a subject: ``word``, ``valence`` and ``value``, a row per word.

        None where the cell has no artefact for the readout.
        """
        key = (readout, subject)
        if key not in self._readings:
            self._readings[key] = READOUTS[readout](self, subject)
        return self._readings[key]


def by_word(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    """Valence and mean of a column for every word of `frame`, sorted."""
    means = frame.groupby("unit", sort=True).agg(valence=("truth", "first"), value=(column, "mean"))
    return means.reset_index(names="word")


def probe_latents(cell: CellArtefacts, subject: str) -> pd.DataFrame | None:
    """The held-out predictions of the probe of the autoencoders' latents."""
    return _predicted(cell, subject, "latents")


def probe_raw(cell: CellArtefacts, subject: str) -> pd.DataFrame | None:
    """The held-out predictions of the probe of the model's own activations."""
    return _predicted(cell, subject, "raw")


def _predicted(cell: CellArtefacts, subject: str, features: str) -> pd.DataFrame | None:
    frame = cell.predictions(subject)
    rows = frame[frame["features"] == features]
    return by_word(rows, "prediction") if len(rows) else None


def output(cell: CellArtefacts, subject: str) -> pd.DataFrame:
    """Log-ratio of the probabilities of a word in its contexts under the policy and its base.

    That of the base is 0.

    No probe and no autoencoder is read.
    """
    frame = cell.predictions(subject)
    rows = frame[frame["features"] == "latents"]
    policy, base = (cell.files[f"features.{name}"] for name in (subject, "base"))
    return by_word(rows.assign(ratio=output_ratios(rows, policy, base)), "ratio")


def choice(cell: CellArtefacts, subject: str) -> pd.DataFrame | None:
    """Log-ratio of a word under the policy and its base, over held-out contexts of all kinds."""
    return _changed(cell, subject, "choice", "log_ratio")


def choice_of_mlps(cell: CellArtefacts, subject: str) -> pd.DataFrame | None:
    """The share of the MLPs in that log-ratio."""
    return _changed(cell, subject, "choice", "mlp")


def ruler(cell: CellArtefacts, subject: str) -> pd.DataFrame | None:
    """Change of the reading of a probe of the base, less the part that follows its own reading."""
    return _changed(cell, subject, "ruler", "gain_free")


def _changed(cell: CellArtefacts, subject: str, readout: str, part: str) -> pd.DataFrame | None:
    """One reading of the change of the words that probes predict; that of the base is 0."""
    if "change" not in cell.files:
        return None
    words = by_word(cell.predictions(subject), "prediction")
    if subject == "base":
        return words.assign(value=0.0)
    frame = read_table(cell.files["change"])
    wanted = (frame["readout"] == readout) & (frame["part"] == part) & (frame["kind"] == "word")
    wanted &= (frame["subject"] == "policy") & (frame["layer"] == -1)
    values = frame[wanted].set_index("unit")["value"]
    return words.assign(value=words["word"].map(values)).dropna(subset="value")
