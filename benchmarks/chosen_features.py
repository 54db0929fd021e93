"""How many of the features that are explained are related to the feedback, by what chooses them?

    python -m benchmarks.chosen_features results/smollm2/vader/seed0 topk

reads the explanations of a finished cell, which test all features of a layer and not the explained
ones alone, and chooses as many of each layer anew: by `explanations.choose`, by frequency, and at
random. Of each choice it counts those that are called related, and those of them whose activation
feedback moved in the direction in which they are related. Writes results/chosen_features.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.parquet import read_schema

from benchmarks.__main__ import RESULTS
from lfp.explaining.classification import classify
from lfp.explaining.heuristic import best_first
from lfp.files.artefacts import STAMP_KEY, read_table
from lfp.settings import Explanations

#: Number of random choices.
DRAWS = 1000
KEY = ["layer", "feature"]


def counted(
    table: pd.DataFrame,
    chosen: Sequence[tuple[int, int]],
    moved: pd.Series,
    settings: Explanations,
    feedback: str,
) -> dict[str, int]:
    """Numbers of the `chosen` features: all, those with q below the rate, and related ones.

    ``moved_alike`` are the related ones with a shift [layer, feature] in `moved` of the sign of
    their association.
    """
    part = table.set_index(KEY).loc[list(chosen)].assign(status="ok")
    part = classify(part, feedback, settings)
    related = part[part["related"]]
    alike = np.sign(moved.reindex(related.index)) == np.sign(related["direction"])
    significant = part["q"] < settings.false_discovery_rate
    return {
        "explained": len(part), "significant": int(significant.sum()), "related": len(related),
        "moved_alike": int(alike.sum()),
    }  # fmt: skip


def choices(
    table: pd.DataFrame, matches: pd.DataFrame, shifts: pd.DataFrame, top: int
) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Every choice's name and its features, at most `top` of a layer, dead ones left out."""
    frequency = {layer: of.sort_values("feature")["frequency"].to_numpy()
                 for layer, of in table.groupby("layer")}  # fmt: skip
    single = matches.assign(cosine=np.nan)
    orders = {"match": best_first(matches, frequency, "match")}
    orders["frequency"] = best_first(single, frequency, "match")
    orders |= {
        text: best_first(matches, frequency, text, shifts) for text in shifts["text"].unique()
    }
    rng = np.random.default_rng(0)
    orders |= {
        f"random {draw}": {layer: rng.permutation(len(of)) for layer, of in frequency.items()}
        for draw in range(DRAWS)
    }
    for name, order in orders.items():
        alive = {layer: [n for n in order[layer] if of[n] > 0] for layer, of in frequency.items()}
        yield name, [(layer, int(n)) for layer, of in alive.items() for n in of[:top]]


def measure(cell: Path, sae: str, min_valence: float | None = None) -> dict[str, Any]:
    """The counts of every choice in a cell, and the mean and range of the random ones.

    `min_valence` is another bar of related features than the cell's own.
    """
    path = cell / "explanations" / sae / "heuristic.parquet"
    asked = json.loads(read_schema(path).metadata[STAMP_KEY.encode()])["settings"]
    settings, shifts = Explanations.of(asked), read_table(cell / "latents" / sae / "shifts.parquet")
    shifts = shifts[shifts["subject"] == "policy"]
    if min_valence is not None:
        settings = dataclasses.replace(settings, min_valence=min_valence)
    written = shifts[shifts["text"] == "completions"].rename(columns={"latent": "feature"})
    table, moved = read_table(path), written.set_index(KEY)["value"]
    counts = {
        name: counted(table, chosen, moved, settings, asked["feedback"])
        for name, chosen in choices(
            table, read_table(cell / "sae" / sae / "matches.parquet"), shifts, settings.top_features
        )
    }
    at_random = pd.DataFrame([of for name, of in counts.items() if name.startswith("random")])
    return {
        **{name: of for name, of in counts.items() if not name.startswith("random")},
        "random": at_random.mean().to_dict(),
        "random, 2.5 % and 97.5 %": at_random.quantile([0.025, 0.975]).to_dict("list"),
    }


def main() -> None:
    """Print the counts of every choice and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("cell", type=Path, help="folder of a cell: results/MODEL/TASK/seedN")
    parser.add_argument("sae", help="its variant of autoencoders")
    parser.add_argument("--min-valence", type=float, help="another bar of related features")
    options = parser.parse_args()
    result = measure(options.cell, options.sae, options.min_valence)
    print(json.dumps(result, indent=1))
    if options.min_valence is None:
        path = RESULTS / "chosen_features.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
