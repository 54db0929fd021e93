"""The table that tells whether a model is a fair subject of the method (docs/locus.md)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lfp.files.artefacts import read_json, read_table
from lfp.probing import probes
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.kendall import kendall_record
from lfp.statistics.records.shares import proportion_record
from lfp.tables.health.reach import by_cell, reach_of_cells
from lfp.tables.rows import TableSettings, Tally

#: The probe whose tau within each sign is the intensity that a model holds: of the base's raw
#: activations, with words and contexts held out.
INTENSITY = {"features": "raw", "split": "by_word", "probe": probes.DIRECT}

#: Records by what they are of: a layer, a site, texts, or words of a sign.
Checked = dict[str, Record]


def organism_health(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Quantities by which a model is a fair subject, each held against its threshold.

    Quantities: ``zeroing``, the rise of the held-out cross-entropy where the read activations of a
    probed layer are set to 0; ``reach``, the share of the effect of fine-tuning that the read
    components carry; ``verbatim``, the share of held-out texts that stand in the text that the
    model was grown on; ``intensity``, tau-b within each sign of a ridge on the valence.
    """
    tally = Tally()
    models = {Path(path).name: read_json(Path(path) / "evaluation.json") for path in _grown(inputs)}
    metrics, words = (by_cell(inputs, name) for name in ("metrics.json", "predictions.parquet"))
    reaches = reach_of_cells(inputs, settings)
    for address, choice in by_cell(inputs, "divergence.json").items():
        model, task, seed = address
        corpus = settings.corpora[f"{model}/{task}/seed{seed}"]
        verbatim = models.get(model, {}).get("verbatim", {}).get(corpus, {})
        site, zeroing = _zeroing(metrics[address], read_json(choice)["chosen"])
        checks = [
            ("zeroing", settings.min_zeroing, zeroing),
            ("reach", settings.min_reach, {site: reaches[address].everywhere}),
            ("verbatim", 0.0, _verbatim(verbatim, settings)),
            ("intensity", settings.min_intensity, _intensity(words.get(address), settings)),
        ]
        for quantity, threshold, records in checks:
            label = {"model": model, "task": task, "seed": seed, "quantity": quantity}
            for about, record in records.items():
                _add(tally, {**label, "of": about}, record, threshold)
    return tally


def _grown(inputs: Sequence[str]) -> list[str]:
    """The directories of grown models among the inputs."""
    return [path for path in inputs if Path(path).parent.name == "models"]


def _add(tally: Tally, label: dict[str, Any], record: Record, threshold: float) -> None:
    """A row with its threshold, a floor for all but ``verbatim``, and whether it passes.

    That is not known of what was not estimated.
    """
    most = label["quantity"] == "verbatim"
    passes = record.estimate <= threshold if most else record.estimate >= threshold
    known = not np.isnan(record.estimate)
    tally.add(record, label, threshold=threshold, passes=bool(passes) if known else None)


def _zeroing(path: str, chosen: Sequence[int]) -> tuple[str, Checked]:
    """The site of a cell's autoencoders, and the price of zeroing it in every chosen layer."""
    rows = {row["layer"]: row for row in read_json(path)["autoencoders"]}
    records, site = {}, next(iter(rows.values()))["site"]
    for layer in chosen:
        row = rows[layer]
        record = undefined(0, "token", "no text was read")
        if row["ce_zero"] is not None:
            rise, method = row["ce_zero"] - row["ce_clean"], "held-out text, no interval"
            record = Record(rise, None, None, row["tokens"], "token", method)
        records[f"{site} of layer {layer}"] = record
    return site, records


def _verbatim(counts: Mapping[str, Mapping[str, int]], settings: TableSettings) -> Checked:
    """The share of every kind of held-out texts that stands in the training text."""
    return {
        kind: proportion_record(
            count["verbatim"], count["held_out"], kind, confidence=settings.confidence
        )
        for kind, count in counts.items()
    }


def _intensity(path: str | None, settings: TableSettings) -> Checked:
    """Tau-b of the ridge on the valence within each sign; nothing where no such probe is fitted."""
    if path is None:
        return {}
    frame = read_table(path)
    for name, value in INTENSITY.items():
        frame = frame[frame[name] == value] if len(frame) else frame
    records = {}
    for sign, name in ((1, "positive words"), (-1, "negative words")):
        means = probes.unit_means(frame[np.sign(frame["truth"]) == sign]) if len(frame) else frame
        if len(means):
            prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
            records[name] = kendall_record(prediction, truth, **settings.resampling)
    return records
