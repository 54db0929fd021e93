"""The share of fine-tuning's effect within the reach of a cell's dictionaries (docs/locus.md)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels, of
from lfp.files.artefacts import read_json, read_table
from lfp.reporting.unestimated import REASON
from lfp.statistics.records.base import Record, undefined
from lfp.tables.health.shares import UNITS, by_instance, share_record
from lfp.tables.rows import TableSettings

#: Model, task and seed of a cell.
Address = tuple[str, str, int]


@dataclass(frozen=True)
class Parts:
    """The parts of the weights that a site's activations can carry, and their name in words.

    `components` are those of the game over components; `in_layers` says for the rows of the game
    over layers whether they are within reach of some layers.
    """

    name: str
    components: tuple[str, ...]
    in_layers: Callable[[pd.DataFrame, Sequence[int]], pd.Series]


def _of_component(component: str) -> Callable[[pd.DataFrame, Sequence[int]], pd.Series]:
    return lambda rows, layers: (rows["component"] == component) & rows["layer"].isin(layers)


def _up_to(rows: pd.DataFrame, layers: Sequence[int]) -> pd.Series:
    """The parts of all blocks up to the highest layer: their output is in the residual stream."""
    return rows["layer"].between(0, max(layers))


_BLOCK = Parts("the parts before the output", ("embedding", "attention", "mlp", "norms"), _up_to)
_ATTENTION = Parts("the attention", ("attention",), _of_component("rest"))
#: The parts within reach of every site (:mod:`lfp.sites`); a site without an entry is taken for the
#: residual stream.
PARTS = {
    "mlp": Parts("the MLPs", ("mlp",), _of_component("mlp")),
    "attn": _ATTENTION,
    "heads": _ATTENTION,
    "resid": _BLOCK,
}


@dataclass(frozen=True)
class Reach:
    """The share of the effect that the parts of a site carry in all layers and in the chosen ones.

    `parts` names them.
    """

    parts: str
    everywhere: Record
    chosen: Record

    def columns(self) -> dict[str, Any]:
        """The columns of a table: the share in the chosen layers with its interval, and in all."""
        return {
            "reach": self.chosen.estimate,
            "reach_ci_low": self.chosen.ci_low,
            "reach_ci_high": self.chosen.ci_high,
            "reach_all_layers": self.everywhere.estimate,
        }

    def reason(self, least: float) -> str:
        """The reason that an ablation of the site may find nothing; empty where there is none.

        It is that the share in all layers is below `least`, or is not known.
        """
        share = self.everywhere.estimate
        if np.isnan(share):
            return f"reach of {self.parts}: {self.everywhere.method.removeprefix(REASON)}"
        if share >= least:
            return ""
        return (
            f"{self.parts} carry {share:.2f} of the effect of fine-tuning, less than"
            f" tables.min_reach {least:g}"
        )


def reach(values: pd.DataFrame, site: str, layers: Sequence[int], settings: TableSettings) -> Reach:
    """The reach of a `site` in the chosen `layers`, from the rows of a ``locus.parquet``."""
    parts = PARTS.get(site, _BLOCK)
    games = dict(list(values.groupby("game")))
    if "components" not in games:
        nothing = undefined(0, "text", "no held-out text")
        return Reach(parts.name, nothing, nothing)
    whole, unit = games["components"], UNITS[values["effect"].iloc[0]]

    def share(rows: pd.DataFrame, within: pd.Series) -> Record:
        part = rows["value"].where(within, 0.0)
        return share_record(by_instance(rows.assign(value=part)), by_instance(rows), unit, settings)

    if parts is _BLOCK and "unembedding" not in set(whole["component"]):
        tied = undefined(0, unit, "tied embeddings write the output beside the stream")
        return Reach(parts.name, tied, tied)
    everywhere = share(whole, whole["component"].isin(parts.components))
    chosen = undefined(everywhere.n, unit, "locus.orders is 0, so that no layer has a value")
    if "layers" in games:
        chosen = share(games["layers"], parts.in_layers(games["layers"], layers))
    return Reach(parts.name, everywhere, chosen)


def by_cell(inputs: Sequence[str], name: str) -> dict[Address, str]:
    """The file `name` of every cell among the `inputs`."""
    files = {}
    for path in of(inputs, f"/{name}"):
        cell = labels(path)
        files[cell["model"], cell["task"], cell["seed"]] = path
    return files


def reach_of_cells(inputs: Sequence[str], settings: TableSettings) -> dict[Address, Reach]:
    """The reach of every cell, at the site of its main autoencoder.

    Read are ``locus.parquet``, ``divergence.json`` and the autoencoders' ``metrics.json`` among
    the `inputs`.
    """
    choices, metrics = by_cell(inputs, "divergence.json"), by_cell(inputs, "metrics.json")
    result = {}
    for cell, path in by_cell(inputs, "locus.parquet").items():
        layers = read_json(choices[cell])["chosen"]
        site = read_json(metrics[cell])["autoencoders"][0]["site"]
        result[cell] = reach(read_table(path), site, layers, settings)
    return result
