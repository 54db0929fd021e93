"""The measured cost of jobs, from the records that they leave (:mod:`lfp.running.benchmark`)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

#: Folders of records of shared work, which belong to no cell.
SHARED = (
    "tables", "figures", "models", "corpora", "lexicons", "contrasts", "rewrites", "dictionaries",
)  # fmt: skip
#: Rules that look at a run before or behind it: what they take is no cost of it.
LOOKING_ON = ("estimate", "provenance", "resources", "ro_crate", "compare", "score")

#: The stage of a job that ran before release 0.14, when Snakemake recorded jobs without their rule.
UNNAMED = "before 0.14"


def cell_of(path: Path) -> str:
    """The cell of a record by its path below their folder; empty for shared work."""
    parts = path.parts
    if len(parts) == 1 or parts[0] in SHARED or parts[1] == "base":
        return ""
    return "/".join(parts[1:4] if parts[0] == "exports" else parts[:3])


def measured(folder: str | Path) -> pd.DataFrame:
    """A row for every job with a record in `folder`, with its cell, stage and cost.

    Columns are ``cell``, ``stage`` (the name of its script; :data:`UNNAMED` in a record of
    Snakemake's own), ``job``, ``seconds`` of the clock, ``cpu_seconds`` of the job and of the
    processes that it waited for, and ``peak_mb`` of its resident memory without theirs. Of a job on
    several GPUs it is the first process.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        address = path.relative_to(folder)
        for row in pd.read_csv(path, sep="\t", na_values="-").to_dict("records"):
            took = {"seconds": row["s"], "cpu_seconds": row["cpu_time"], "peak_mb": row["max_rss"]}
            place = {"cell": cell_of(address), "stage": row.get("rule_name", UNNAMED)}
            rows.append(place | {"job": address.with_suffix("").as_posix(), **took})
    columns = ["cell", "stage", "job", "seconds", "cpu_seconds", "peak_mb"]
    frame = pd.DataFrame(rows, columns=columns)
    return frame[~frame["stage"].isin(LOOKING_ON)].reset_index(drop=True)


def summary(jobs: pd.DataFrame) -> pd.DataFrame:
    """Jobs by cell and stage with the sums of their times and the largest memory.

    The last row is of all jobs.
    """
    columns = {
        "jobs": ("job", "size"),
        "seconds": ("seconds", "sum"),
        "cpu_seconds": ("cpu_seconds", "sum"),
        "peak_mb": ("peak_mb", "max"),
    }
    grouped = jobs.groupby(["cell", "stage"], sort=True).agg(**columns).reset_index()
    total = (
        jobs.assign(cell="all", stage="all").groupby(["cell", "stage"]).agg(**columns).reset_index()
    )
    return pd.concat([grouped, total], ignore_index=True)
