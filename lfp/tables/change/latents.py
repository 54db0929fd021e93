"""The table of the latents that carry what a component changed at the choice, or that shifted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from lfp.change import COMPLETIONS, HELD_OUT
from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.statistics.multiple import holm
from lfp.statistics.records.base import Record
from lfp.tables.change.choice import Agreement, held_against, unmoved
from lfp.tables.rows import TableSettings, Tally

#: Latents of a layer whose shift is shown.
SHOWN = 5
#: What is known of a latent beside its change: its match cosine and its explanation.
_ABOUT = ("cosine", "explanation")
#: The statistic of a shift by the texts that it was read in.
STATISTICS = {HELD_OUT: "shift", COMPLETIONS: "shift_written"}
#: How a shift was come by.
_METHOD = "mean over texts, policy - base; t interval and t test over texts"


@dataclass(frozen=True)
class LatentCell:
    """One cell: its labels, the files of its latents, and what is known of them.

    ``valence`` is the lexicon by word, and ``known`` has a row per ``layer`` and ``latent`` with
    the columns of :data:`_ABOUT`.
    """

    label: Mapping[str, Any]
    choice: pd.DataFrame
    shifts: pd.DataFrame
    valence: Mapping[str, float]
    known: pd.DataFrame

    def about(self, layer: int, latent: int) -> dict[str, Any]:
        """What is known of a latent; None where nothing is."""
        at = (layer, latent)
        row = self.known.loc[at] if at in self.known.index else {}
        return {name: row[name] if pd.notna(row.get(name)) else None for name in _ABOUT}


def latent_cells(inputs: Sequence[str]) -> list[LatentCell]:
    """The cells among `inputs`."""
    known = {
        name: {_place(path): read_table(path) for path in of(inputs, ending)}
        for name, ending in (("shifts", "/shifts.parquet"), ("matches", "/matches.parquet"))
    }
    explained = {_place(path): read_table(path) for path in inputs if "/explanations/" in path}
    cells = []
    for path in of(inputs, "/choice.parquet"):
        label, place = labels(path), _place(path)
        matches = known["matches"][place].rename(columns={"small": "latent"})
        matches = matches.set_index(["layer", "latent"])[["cosine"]]
        words = explained.get(place, pd.DataFrame(columns=["layer", "feature", "explanation"]))
        words = words.rename(columns={"feature": "latent"}).set_index(["layer", "latent"])
        lexicon = next(p for p in inputs if p.endswith(f"lexicons/{label['task']}.json"))
        cells.append(
            LatentCell(
                label, read_table(path), known["shifts"][place], read_json(lexicon)["words"],
                matches.join(words["explanation"], how="outer"),
            )
        )  # fmt: skip
    return cells


def _place(path: str) -> tuple[Any, ...]:
    label = labels(path)
    return tuple(label[name] for name in ("model", "task", "seed", "sae"))


def choice_latents(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Which latents carry what a component changed at the choice, and which shifted on any text?

    Rows of shares have tau-b with the words' valences, or the area under the curve of preferred
    against rejected answers, with the range of the same latent in copies of the base with noise.
    Rows of shifts have the change of the mean activation, a t test over texts, and that range.
    """
    tally = Tally()
    for cell in latent_cells(inputs):
        _add_shares(tally, cell, settings)
        _add_shifts(tally, cell, settings.confidence)
    return tally


def _add_shares(tally: Tally, cell: LatentCell, settings: TableSettings) -> None:
    choice = cell.choice.assign(valence=cell.choice["unit"].map(cell.valence))
    is_policy = choice["subject"] == "policy"
    policy, noise = choice[is_policy], choice[~is_policy]
    controls = dict(list(noise.groupby(["layer", "part", "latent"], sort=False)))
    for layer, of_layer in policy.groupby("layer"):
        sizes = of_layer.groupby(["part", "latent"], sort=False)["value"].apply(_mean_size)
        # The last part is the component itself.
        whole = sizes.iloc[-1]
        for rank, ((part, latent), size) in enumerate(sizes.items(), 1):
            wanted = (of_layer["part"] == part) & (of_layer["latent"] == latent)
            one = _agreement(of_layer[wanted])
            silent = controls.get((layer, part, latent), noise[:0]).groupby("subject")
            null = [_agreement(reading).estimate for _, reading in silent]
            record = unmoved(one) if one.unchanged else held_against(one.record(settings), ())
            label = {**cell.label, "statistic": one.statistic, "layer": layer, "part": part}
            tally.add(
                record, label | {"latent": latent},
                rank=rank if part == "latent" else 0, share=size,
                of_component=size / whole if whole else None,
                **_range(null), null_largest=None, **cell.about(layer, latent),
            )  # fmt: skip


def _mean_size(values: pd.Series) -> float:
    return float(values.abs().mean())


def _agreement(reading: pd.DataFrame) -> Agreement:
    """The agreement of one latent's shares with the valence of words or the labels of answers."""
    if reading["kind"].iloc[0] == "answer":
        truth = (reading["element"] == "positive").to_numpy(dtype=int)
        values, units = reading["value"].to_numpy(), reading["unit"].to_numpy()
        return Agreement("auroc", "all", values, truth, units)
    words = reading.dropna(subset="valence")
    values, truth, units = (words[name].to_numpy() for name in ("value", "valence", "unit"))
    return Agreement("tau", "one_token", values, truth, units)


def _range(null: Sequence[float]) -> dict[str, float | None]:
    ends: dict[str, Callable[[Sequence[float]], float]] = {"null_low": min, "null_high": max}
    return {name: float(end(null)) if len(null) else None for name, end in ends.items()}


def _add_shifts(tally: Tally, cell: LatentCell, confidence: float) -> None:
    """The latents that surely shifted most: by the end of their interval that is nearer to 0."""
    policy = cell.shifts[cell.shifts["subject"] == "policy"]
    noise = cell.shifts[cell.shifts["subject"] != "policy"]
    for (text, layer), of_layer in policy.groupby(["text", "layer"], sort=False):
        tested = _tested(of_layer, confidence)
        control = noise[(noise["layer"] == layer) & (noise["text"] == text)]
        moved = tested[tested["value"] != 0].sort_values("least", ascending=False, kind="stable")
        largest = float(control["value"].abs().max()) if len(control) else None
        for rank, row in enumerate(moved.head(SHOWN).itertuples(), 1):
            record = Record(
                row.value, row.value - row.half, row.value + row.half, int(row.texts), "text",
                _METHOD, p=row.p, p_adjusted=row.p_adjusted,
            )  # fmt: skip
            null = control.loc[control["latent"] == row.latent, "value"]
            label = {**cell.label, "statistic": STATISTICS[text], "layer": layer, "part": "latent"}
            tally.add(
                record, label | {"latent": row.latent}, rank=rank, share=None, of_component=None,
                **_range(list(null)), null_largest=largest, before=row.before,
                **cell.about(layer, row.latent),
            )  # fmt: skip


def _tested(shifts: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """`shifts` with half their interval, its least distance from 0, and p, Holm's over all."""
    df, size = shifts["texts"].to_numpy() - 1, shifts["value"].abs().to_numpy()
    error = shifts["error"].to_numpy()
    half = error * stats.t.ppf((1 + confidence) / 2, df)
    ratio = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=error > 0)
    p = 2 * stats.t.sf(ratio, df)
    return shifts.assign(half=half, least=size - half, p=p, p_adjusted=holm(p))
