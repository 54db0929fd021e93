"""How far does an audit depend on the numbers that it was laid down with?

    python -m benchmarks.detection_choices results

reads a finished run of config/detection.yaml, or of another grid with flipped lexicons, and asks
some readouts anew, with other counts from which on a word was written often, and with other shares
of the most suspicious words that make an alarm. The share of policies with an alarm is printed by
task; for those of the null it is the rate of false alarms. Then come, for the numbers that the
table `detection` has, the candidates of every policy and the flipped ones among them, their AUROC,
and that of the same words in null policies, which were taught none of it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.__main__ import RESULTS
from lfp.change.detection import WRITTEN_OFTEN, alarm, readings_of, threshold
from lfp.statistics.estimates import auroc
from lfp.tables.change.cells import Audit, ChangeCell, audits, change_cells
from lfp.tables.change.detection import aligned, rankings

#: From how many times on a word was written often; 0 for all words, written or not.
COUNTS = (0, 1, 3, 4, 5, 6, 8, 10, 20)
#: Shares of the candidates whose mean score is an alarm.
TAILS = (0.02, 0.05, 0.1)
#: The readouts that are asked.
READOUTS = (
    ("choice", "log_ratio"), ("choice", "unembedding"), ("choice", "mlp"),
    ("ruler", "gain_free"), ("ruler", "refit"),
)  # fmt: skip
#: Flipped words that a policy must have as candidates, so that their AUROC says something.
LEAST_FLIPPED = 3
#: The policies with their scores of the candidates, by address.
Rankings = Mapping[str, tuple[ChangeCell, pd.Series]]


def audit_of(results: Path) -> Audit:
    """The first audit of a run's results."""
    readings = [str(path) for path in results.glob("*/*/seed*/change/readings.parquet")]
    tasks = {Path(path).parts[-4] for path in readings}
    truths = [str(results / "lexicons" / f"{task}.truth.json") for task in tasks]
    return audits(change_cells(sorted(readings + truths)), [])[0]


def powers(audit: Audit, ranked: Rankings, tail: float) -> dict[str, float]:
    """The share of seeds that raise an alarm, by task, of policies with a candidate at least."""
    alarms = {name: alarm("flipped", of.to_numpy(), tail) for name, (_, of) in ranked.items()}
    by_task: dict[str, list[bool]] = defaultdict(list)
    for name, (cell, of) in ranked.items():
        flipped = set(cell.truth.get("flipped") or [])
        if flipped and not of.index.isin(flipped).any():
            continue
        null = [alarms[other] for other in ranked if other in audit.nulls - {name}]
        bound = threshold(null)
        if bound is not None:
            by_task[cell.task].append(alarms[name] > bound)
    return {task: float(np.mean(of)) for task, of in by_task.items()}


def areas(audit: Audit, ranked: Rankings) -> Iterator[dict[str, Any]]:
    """Of every policy with flipped words: its candidates, the AUROC, and that of null policies."""
    for cell, scores in ranked.values():
        if not (flipped := set(cell.truth.get("flipped") or [])):
            continue
        null = [
            _area(of, flipped) for name, (_, of) in ranked.items()
            if name in audit.nulls and of.index.isin(flipped).sum() >= LEAST_FLIPPED
        ]  # fmt: skip
        yield {
            "task": cell.task, "seed": cell.seed, "candidates": len(scores),
            "flipped": int(scores.index.isin(flipped).sum()), "auroc": _area(scores, flipped),
            "null_policies": len(null), "null": [min(null), max(null)] if null else None,
        }  # fmt: skip


def _area(scores: pd.Series, planted: set[str]) -> float | None:
    is_planted = scores.index.isin(planted)
    some = 0 < is_planted.sum() < len(is_planted)
    return round(float(auroc(is_planted.astype(int), scores.to_numpy())), 3) if some else None


def measure(results: Path, readouts: Sequence[tuple[str, str]] = READOUTS) -> dict[str, Any]:
    """Power by readout, count and tail, and the areas beside those of null policies."""
    audit = audit_of(results)
    readings = {cell.address: readings_of(cell.readings) for cell in audit.read}
    result: dict[str, Any] = {"power": [], "areas": [], "candidates": {}}
    for key in readouts:
        frame, label = aligned(readings, key), {"readout": ", ".join(key)}
        for often in COUNTS:
            ranked = {
                cell.address: (cell, of) for cell, of in rankings(audit, frame, "flipped", often)
            }
            for tail in TAILS:
                row = label | {"often": often, "tail": tail, "power": powers(audit, ranked, tail)}
                result["power"].append(row)
            if often in (0, WRITTEN_OFTEN):
                result["areas"] += [label | {"often": often, **row} for row in areas(audit, ranked)]
            if often == WRITTEN_OFTEN:  # the ruler has values of fewer words than the choice
                sizes = {name: len(of) for name, (_, of) in ranked.items()}
                result["candidates"][label["readout"]] = sizes
    return result


def main() -> None:
    """Print the powers and areas of a run and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results of a run with flipped lexicons")
    parser.add_argument("--write", metavar="NAME", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    result = measure(options.results)
    power = pd.DataFrame([row | row["power"] for row in result["power"]]).drop(columns="power")
    for table in (power, pd.DataFrame(result["areas"])):
        print(table.to_string(index=False, float_format="%.2f"))
    print("candidates:", json.dumps(result["candidates"]))
    if options.write:
        path = RESULTS / f"{options.write}.json"
        path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
