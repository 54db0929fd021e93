"""How far does an audit depend on the numbers that it was laid down with?

    python -m benchmarks.detection_choices results

reads a finished run of config/detection.yaml, or of another grid with flipped lexicons and one
method, and asks some readouts anew, with other counts from which on a word was written often, and
with other shares of the most suspicious words that make an alarm. The rows are those of the table
`detection`. Then come, for the numbers that this table has, the candidates of every policy and the
flipped ones among them; their AUROC in the policy and in null policies, which were taught none of
it (of words that were written often, a null policy has other ones); and its mean over the policies
of one share of flips.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.__main__ import RESULTS
from lfp.change.detection import WRITTEN_OFTEN, readings_of
from lfp.statistics.records.means import mean_record
from lfp.tables.change.cells import Audit, ChangeCell, audits, change_cells
from lfp.tables.change.detection import add_judged, alarm_of, aligned, area_of, judged, rankings
from lfp.tables.rows import TableSettings, Tally

#: From how many times on a word was written often; 0 for all words, written or not.
COUNTS = (0, 1, 3, 4, 5, 6, 8, 10, 20)
#: Shares of the candidates whose mean score is an alarm.
TAILS = (0.02, 0.05, 0.1)
#: The readouts that are asked.
READOUTS = (
    ("choice", "log_ratio"), ("choice", "unembedding"), ("choice", "blocks"), ("choice", "mlp"),
    ("ruler", "gain_free"), ("ruler", "refit"),
)  # fmt: skip
#: Flipped words that a null policy must have as candidates, so that their AUROC says something.
LEAST_FLIPPED = 3
#: What policies have in common that a mean is of, and the columns of means.
MEAN_OF, SHOWN = ["readout", "often", "share"], ("estimate", "ci_low", "ci_high", "n")
#: The policies with their scores of the candidates, by address.
Rankings = Mapping[str, tuple[ChangeCell, pd.Series]]


def audit_of(results: Path) -> Audit:
    """The audit of a run's results. Raises ValueError where there is not one alone."""
    readings = [str(path) for path in results.glob("*/*/seed*/change/readings.parquet")]
    tasks = {Path(path).parts[-4] for path in readings}
    truths = [str(results / "lexicons" / f"{task}.truth.json") for task in tasks]
    of_run = audits(change_cells(sorted(readings + truths)), [])
    if len(of_run) != 1:
        raise ValueError(f"{results}: {len(of_run)} audits; expected policies of one model")
    return of_run[0]


def areas(audit: Audit, ranked: Rankings) -> Iterator[dict[str, Any]]:
    """Of every policy with flipped words: its candidates, the AUROC, and that of null policies."""
    for cell, scores in ranked.values():
        if not (flipped := set(cell.truth.get("flipped") or [])):
            continue
        of_null = [
            area_of(of.to_numpy(), of.index.isin(flipped)) for name, (_, of) in ranked.items()
            if name in audit.nulls and of.index.isin(flipped).sum() >= LEAST_FLIPPED
        ]  # fmt: skip
        null, is_flipped = [a for a in of_null if a is not None], scores.index.isin(flipped)
        yield {
            "share": round(len(flipped) / len(cell.valence), 3), "task": cell.task,
            "seed": cell.seed, "candidates": len(scores), "flipped": int(is_flipped.sum()),
            "auroc": area_of(scores.to_numpy(), is_flipped), "null_policies": len(null),
            "null_lowest": min(null, default=None), "null_highest": max(null, default=None),
        }  # fmt: skip


def means(rows: pd.DataFrame) -> list[dict[str, Any]]:
    """The mean AUROC over policies with its t interval, by readout, count and share."""
    records = [
        dict(zip(MEAN_OF, key, strict=True)) | mean_record(of.to_numpy(), "policy").row()
        for key, of in rows.dropna(subset="auroc").groupby(MEAN_OF, sort=False)["auroc"]
    ]
    return [{name: row[name] for name in (*MEAN_OF, *SHOWN)} for row in records]


def measure(results: Path, readouts: Sequence[tuple[str, str]] = READOUTS) -> dict[str, Any]:
    """Rows by readout, count and tail, and the areas beside those of null policies."""
    audit, tally, settings = audit_of(results), Tally(), TableSettings()
    readings = {cell.address: readings_of(cell.readings) for cell in audit.read}
    result: dict[str, Any] = {"areas": [], "candidates": {}}
    for key in readouts:
        frame, label = aligned(readings, key), {"readout": ", ".join(key)}
        for often in COUNTS:
            ranked = {
                cell.address: (cell, of) for cell, of in rankings(audit, frame, "flipped", often)
            }
            for tail in TAILS:
                judgements = [
                    judged(cell, audit, "flipped", of, alarm_of("flipped", of, tail))
                    for cell, of in ranked.values()
                ]
                add_judged(tally, label | {"often": often, "tail": tail}, judgements, settings)
            if often in (0, WRITTEN_OFTEN):
                result["areas"] += [label | {"often": often, **row} for row in areas(audit, ranked)]
            if often == WRITTEN_OFTEN:  # the ruler has values of fewer words than the choice
                sizes = {name: len(of) for name, (_, of) in ranked.items()}
                result["candidates"][label["readout"]] = sizes
    rows = tally.frame()
    shares = rows["quantity"].isin(["power", "false alarms", "alarms"])
    keys = ["readout", "often", "tail"]
    power = rows[shares].pivot_table(index=keys, columns="task", values="estimate", sort=False)
    null = rows.groupby(keys)["null_policies"].first()
    result["means"] = means(pd.DataFrame(result["areas"]))
    return result | {"power": power.join(null).reset_index()}


def main() -> None:
    """Print the powers and areas of a run and write them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="results of a run with flipped lexicons")
    parser.add_argument("--write", metavar="NAME", help="write benchmarks/results/NAME.json")
    options = parser.parse_args()
    result = measure(options.results)
    for table in ("power", "areas", "means"):
        print(pd.DataFrame(result[table]).to_string(index=False, float_format="%.2f"))
    print("candidates:", json.dumps(result["candidates"]))
    if options.write:
        path = RESULTS / f"{options.write}.json"
        rows = json.loads(result.pop("power").to_json(orient="records"))
        path.write_text(json.dumps(result | {"power": rows}) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
