"""Health of autoencoders: are they sparse, faithful codes whose directions mean something?

An autoencoder of a real model can degenerate in silence: latents that are active on half of the
tokens, directions that no second training finds again. Whatever is read from it then says nothing.
The table of health names what falls below a threshold, and rows of other tables carry it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json
from lfp.settings import BETWEEN
from lfp.statistics.records.base import Record, undefined
from lfp.tables.rows import CELL, TableSettings, Tally

_METHOD = "held-out text, no interval"
#: The column of reasons in tables of what autoencoders are read for, and a healthy one's value.
COLUMN, HEALTHY = "health", "healthy"
#: Kinds of features that are read from trained autoencoders.
_READING = ("latents", "reconstruction")


def _quantities(row: Mapping[str, Any]) -> dict[str, float | None]:
    """Quantities of an autoencoder that tell its health; None where one cannot be had."""
    l0, other = row["l0"], row["mmcs_untrained"]
    return {
        "l0_share": None if l0 is None else l0 / row["d_sae"],
        "fvu": row["fvu"],
        "dead_fraction": row["dead_fraction"],
        "loss_recovered": row["loss_recovered"],
        "mmcs": row["mmcs"],
        "mmcs_untrained": other,
        "mmcs_ratio": row["mmcs"] / other if other else None,
        "mmcs_other_seed": row["mmcs_other_seed"],
        "flat": None if row["flat"] is None else float(row["flat"]),
    }


def _limits(row: Mapping[str, Any], settings: TableSettings) -> dict[str, tuple[float, bool]]:
    """Thresholds by quantity, and whether one is the largest that is healthy, or the least.

    In a narrow site chance alone agrees so well that no pair reaches a multiple of it: half of the
    way from chance to 1 is enough. A single dictionary of a layer has no pair to judge.
    """
    chance = row["mmcs_untrained"]
    limits = {
        "l0_share": (settings.max_l0_share, True),
        "fvu": (settings.max_fvu, True),
        "dead_fraction": (settings.max_dead, True),
    }
    if chance is not None:
        ratio = min(settings.min_mmcs_ratio, (1 + chance) / (2 * chance))
        limits["mmcs_ratio"] = (ratio, False)
    return limits


def passes(value: float | None, threshold: float, largest: bool) -> bool:
    """Whether a value keeps to its threshold; none does not."""
    if value is None:
        return False
    return value <= threshold if largest else value >= threshold


def _rows(inputs: Sequence[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Labels and metrics of every autoencoder in the metrics among `inputs`."""
    for path in of(inputs, "metrics.json"):
        for row in read_json(path)["autoencoders"]:
            yield {**labels(path), "layer": row["layer"], "size": row["size"]}, row


def _why(quantity: str, row: Mapping[str, Any]) -> str:
    """The reason that a quantity cannot be had."""
    if quantity.startswith("mmcs"):
        alone = row["mmcs"] is None
        return "the layer has one dictionary" if alone else "no other seed was trained"
    if quantity == "flat":
        return "no gradient trained it here"
    if quantity == "loss_recovered" and row["reads"] in BETWEEN:
        return "what it reconstructs is no activation of one model"
    return "all activations are equal" if row["tokens"] else "no text was read"


def sae_health(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Every autoencoder's quantities of health, with their thresholds."""
    tally = Tally()
    for label, row in _rows(inputs):
        limits = _limits(row, settings)
        for quantity, value in _quantities(row).items():
            unit = "pair" if quantity.startswith("mmcs") else "token"
            n = 1 if unit == "pair" else row["tokens"]
            record = Record(value, None, None, n, unit, _METHOD)
            if value is None:
                record = undefined(n, unit, _why(quantity, row))
            threshold, largest = limits.get(quantity, (None, False))
            judged = None if threshold is None else passes(value, threshold, largest)
            tally.add(record, {**label, "quantity": quantity}, threshold=threshold, passes=judged)
    return tally


def reasons(inputs: Sequence[str], settings: TableSettings) -> dict[tuple, str]:
    """The reasons why a cell's autoencoders are not healthy, by (model, task, seed, sae).

    That they have read what other stages take for held-out text is one of them, and so is that they
    have read the prompts of triples, which may be of a corpus of their own.
    """
    collected: dict[tuple, list[str]] = {}
    for label, row in _rows(inputs):
        of_cell = collected.setdefault(tuple(label[name] for name in CELL), [])
        values = _quantities(row)
        for quantity, (threshold, largest) in _limits(row, settings).items():
            if not passes(values[quantity], threshold, largest):
                value = "none" if values[quantity] is None else f"{values[quantity]:.3g}"
                bound = "most" if largest else "least"
                of_cell.append(
                    f"layer {label['layer']}, {row['d_sae']} latents: {quantity} {value}, at"
                    f" {bound} {threshold:g}"
                )
    for path in of(inputs, "metrics.json"):
        label, metrics = labels(path), read_json(path)
        collected[tuple(label[name] for name in CELL)] += _read_before(metrics)
    return {cell: "; ".join(texts) or HEALTHY for cell, texts in collected.items()}


def _read_before(metrics: Mapping[str, Any]) -> Iterator[str]:
    """What the metrics of autoencoders say of held-out texts that these have read.

    Triples of the corpus that is held out have its counts, which are told once.
    """
    of_corpus, of_triples = metrics["held_out"], metrics["triples"]
    if of_corpus["read"]:
        yield (
            f"{of_corpus['read']} of {of_corpus['texts']} held-out texts were read by the"
            " autoencoders: set activations.split to train, and make the corpus anew"
        )
    if of_triples["read"] and of_triples != of_corpus:
        yield (
            f"{of_triples['read']} of {of_triples['texts']} prompts of triples were read by the"
            " autoencoders: read fewer texts (activations.texts), or take triples of another corpus"
        )


def judged(frame: pd.DataFrame, known: Mapping[tuple, str]) -> pd.DataFrame:
    """A table with the column `health`: the reasons of the row's autoencoders, or none.

    Rows that no autoencoder takes part in have an empty one. A reason that a row has already, such
    as that of its reach, stands in front.
    """
    if not known or not set(CELL) <= set(frame.columns):
        return frame
    cells = frame[list(CELL)].itertuples(index=False, name=None)
    before = frame[COLUMN] if COLUMN in frame else [""] * len(frame)
    kinds = frame["features"] if "features" in frame else [_READING[0]] * len(frame)
    texts = [
        joined(first, known.get(cell, "") if kind in _READING else "")
        for first, cell, kind in zip(before, cells, kinds, strict=True)
    ]
    return frame.assign(**{COLUMN: texts})


def joined(first: str, second: str) -> str:
    """Two reasons as one; each may be that all is well, or nothing."""
    texts = [text for text in (first, second) if text and text != HEALTHY]
    return "; ".join(texts) or second or first
