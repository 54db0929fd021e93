"""All that the artefacts of a cell say of each explained latent, in one record for its page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table, read_tensors, readable
from lfp.pages.promoted import (
    Promoted,
    output_head,
    promoted_tokens,
    read_vocabulary,
    stream_gain,
)
from lfp.pages.readings import ELEMENTS, Readings, read_features
from lfp.pages.sets import AblatedSet, ablated_sets

#: Tokens that are listed as promoted, and as suppressed.
TOKENS = 10
#: The site whose activations are no part of the residual stream, so that no token can be read off.
NOT_RESIDUAL = "heads"


@dataclass(frozen=True)
class Excerpt:
    """A window of text: its ``tokens`` as pieces of text, and the ``activations`` on them."""

    kind: str
    tokens: list[str]
    activations: list[float]


@dataclass(frozen=True)
class Explained:
    """One latent's explanation by one explainer of the configuration, ``name``.

    ``row`` is the explainer's row of the latent, ``scores`` maps a judge and a task to the balanced
    accuracy of the explanation (``own``) and of its controls by their names.
    """

    name: str
    row: Mapping[str, Any]
    scores: Mapping[tuple[str, str], Mapping[str, float]]

    def score(self, task: str) -> float | None:
        """The balanced accuracy of a task by the first judge; None where there is none."""
        values = (scores["own"] for (_, name), scores in self.scores.items() if name == task)
        return next(values, None)


@dataclass(frozen=True)
class Latent:
    """One explained latent.

    ``explained`` has an entry per explainer, first the one whose related latents are ablated.
    ``promoted`` is None where the latent writes nothing into the residual stream. ``histogram`` is
    its row of held-out activations. ``readings`` maps subject and element to the share of active
    elements and the mean activation. ``sets`` are the ablated sets that it belongs to.
    """

    layer: int
    number: int
    explained: list[Explained]
    excerpts: list[Excerpt]
    promoted: Promoted | None
    histogram: Mapping[str, Any] | None
    readings: Mapping[tuple[str, str], tuple[float, float]]
    change: float | None
    shares: Mapping[str, float]
    sets: list[AblatedSet]

    @property
    def main(self) -> Explained:
        """The explanation by the explainer whose related latents are ablated."""
        return self.explained[0]

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"layer{self.layer}_latent{self.number}.html"


@dataclass(frozen=True)
class CellFiles:
    """The artefacts of a cell that its pages are made of, by their names in the rule.

    ``features`` are of policy and base, or of the policy alone; ``ablation`` are the policy's
    completions and neutral texts, and ``probe`` its probe: either may be empty.
    """

    policy: str
    autoencoders: Sequence[str]
    explanations: Sequence[str]
    scores: Sequence[str]
    evidence: str
    histograms: str
    features: Sequence[str]
    ablation: Sequence[str]
    probe: Sequence[str]


def read_latents(files: CellFiles, explainer: str, confidence: float) -> list[Latent]:
    """Every explained latent of a cell, by layer and number.

    Parameters
    ----------
    files
        The artefacts of the cell.
    explainer
        The name of the explainer whose related latents are ablated.
    confidence
        Coverage of the intervals of ablation.
    """
    tables = _by_explainer(files.explanations, explainer)
    main = tables[explainer].sort_values(["layer", "feature"], kind="stable", ignore_index=True)
    weights = [read_tensors(path)["weight"] for path in files.probe] or [None]
    sets = ablated_sets(main, files.ablation, weights[0], explainer, confidence)
    readings = read_features({labels(path)["subject"]: path for path in files.features})
    explained = _explained(tables, _by_explainer(files.scores, explainer))
    excerpts = _excerpts(read_table(files.evidence))
    histograms = _by_latent(read_table(files.histograms))
    keys = sorted(key for key in explained if any(e.row["status"] == "ok" for e in explained[key]))
    promoted = _promoted(files, keys)
    column = {key: i for i, key in enumerate(zip(main["layer"], main["feature"], strict=True))}
    return [
        Latent(
            layer=key[0], number=key[1], explained=explained[key],
            excerpts=excerpts.get(key, []), promoted=promoted.get(key),
            histogram=next(iter(histograms.get(key, [])), None),
            **_read(readings, column[key]), sets=[one for one in sets if key in one.members],
        )
        for key in keys
    ]  # fmt: skip


def _by_explainer(paths: Sequence[str], first: str) -> dict[str, pd.DataFrame]:
    """Tables by the explainer in their paths, the one of the name `first` first."""
    tables = {labels(path)["explainer"]: read_table(path) for path in paths}
    return dict(sorted(tables.items(), key=lambda item: item[0] != first))


def _by_latent(table: pd.DataFrame) -> dict[tuple[int, int], list[dict[str, Any]]]:
    """The rows of a table by layer and latent."""
    rows: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for row in table.to_dict("records"):
        rows.setdefault((row["layer"], row["feature"]), []).append(row)
    return rows


def _explained(
    tables: Mapping[str, pd.DataFrame], scores: Mapping[str, pd.DataFrame]
) -> dict[tuple[int, int], list[Explained]]:
    """The explanations of every latent that is not left out, by each explainer."""
    result: dict[tuple[int, int], list[Explained]] = {}
    for name, table in tables.items():
        scored = _by_latent(scores[name]) if name in scores else {}
        kept = table[~table["status"].isin(["skipped", "dead"])]
        for key, [row] in _by_latent(kept).items():
            of_latent: dict[tuple[str, str], dict[str, float]] = {}
            for score in scored.get(key, []):
                of_judge = of_latent.setdefault((score["judge"], score["task"]), {})
                of_judge[score["explanation"]] = score["balanced_accuracy"]
            result.setdefault(key, []).append(Explained(name, row, of_latent))
    return result


def _excerpts(evidence: pd.DataFrame) -> dict[tuple[int, int], list[Excerpt]]:
    """The excerpts of every latent, those of largest activation first."""
    return {
        key: [Excerpt(row["kind"], list(row["tokens"]), list(row["activations"])) for row in rows]
        for key, rows in _by_latent(evidence).items()
    }


def _promoted(files: CellFiles, keys: Sequence[tuple[int, int]]) -> dict[tuple[int, int], Promoted]:
    """Promoted and suppressed tokens of the latents `keys`, where their site is read by the head.

    The dictionary is the smallest of each layer, as everywhere in explanations.
    """
    directions = {}
    for folder in map(Path, files.autoencoders):
        smallest = min(folder.glob("x*"), key=lambda path: int(path.name[1:]))
        with readable(smallest / "cfg.json") as path:
            about = json.loads(path.read_text(encoding="utf-8"))["metadata"]
        if about["site"] != NOT_RESIDUAL:
            weights = read_tensors(smallest / "sae_weights.safetensors", ["W_dec"])
            gain = stream_gain(files.policy, about["layer"], about["site"])
            directions[about["layer"]] = weights["W_dec"] * gain
    read = [key for key in keys if key[0] in directions]
    if not read:
        return {}
    rows = np.stack([directions[layer][number] for layer, number in read])
    head, vocabulary = output_head(files.policy), read_vocabulary(files.policy)
    return dict(zip(read, promoted_tokens(rows, head, vocabulary, TOKENS), strict=True))


def _read(readings: Readings, column: int) -> dict[str, Any]:
    """How active the latent of a `column` is: ``readings``, ``shares`` and ``change``."""
    values = {
        (subject, element): (
            float(readings.active[subject, element][column]),
            float(readings.mean[subject, element][column]),
        )
        for subject, element in readings.mean
        if element in ELEMENTS
    }
    means = {name: readings.judged(name, "mean") for name in readings.subjects}
    shares = {name: float(readings.judged(name, "active")[column]) for name in means}
    both = {"policy", "base"} <= set(means)
    change = float((means["policy"] - means["base"])[column]) if both else None
    return {"readings": values, "shares": shares, "change": change}
