"""The measured cost of jobs, from the files that Snakemake's ``benchmark:`` writes."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

#: Folders of benchmark files that belong to no cell, and the rule whose jobs they are of.
SHARED = {
    "tables": "table",
    "figures": "figure",
    "models": "pretrain_model",
    "corpora": "generate_corpus",
    "lexicons": "lexicon",
    "contrasts": "contrasts",
    "rewrites": "rewrites",
}

#: Files of benchmarks beside the layers of a variant, and the rule whose jobs they are of.
JUDGED = {
    "evaluate": "evaluate_autoencoders",
    "dictionaries": "evaluate_dictionaries",
    "feature_diff": "feature_diff",
    "transfer": "dictionary_transfer",
    "head_shares": "head_shares",
}

#: Files of benchmarks below the explanations of a variant, and the rule; others are explainers'.
EXPLAINED = {
    "heuristic": "explanations",
    "scores": "explanation_scores",
    "pages": "feature_pages",
}


def stage_of(path: Path) -> tuple[str, str]:
    """(cell, rule) of a benchmark file by its path below the folder of benchmarks.

    Shared work has no cell.
    """
    parts = path.with_suffix("").parts
    if parts[0] in SHARED:
        return "", SHARED[parts[0]]
    if len(parts) == 1:
        return "", parts[0]
    if parts[0] == "exports":
        return "/".join(parts[1:4]), "export"
    cell, rest = "/".join(parts[:3]), parts[3:]
    if rest[0] == "sae":
        if any(part.startswith("layer") for part in rest):
            return cell, "autoencoders"
        return cell, JUDGED[path.stem]
    if rest[0] == "explanations":
        return cell, EXPLAINED.get(rest[2], "language_explanations")
    if rest[0] == "change":
        return cell, {"readings": "change"}.get(path.stem, path.stem)
    return cell, {"policy": "fine-tuning", "latents": "choice_latents"}.get(rest[0], rest[0])


def measured(folder: str | Path) -> pd.DataFrame:
    """A row for every job with a benchmark file in `folder`, with its cell, stage and cost.

    Columns are ``cell``, ``stage``, ``job``, ``seconds`` of the clock, ``cpu_seconds`` of all its
    processes, and ``peak_mb`` of resident memory. Snakemake looks every few seconds: a job of less
    than that may miss its peak.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        cell, stage = stage_of(path.relative_to(folder))
        for row in pd.read_csv(path, sep="\t", na_values="-").to_dict("records"):
            job = path.relative_to(folder).with_suffix("").as_posix()
            took = {"seconds": row["s"], "cpu_seconds": row["cpu_time"], "peak_mb": row["max_rss"]}
            rows.append({"cell": cell, "stage": stage, "job": job, **took})
    return pd.DataFrame(rows, columns=["cell", "stage", "job", "seconds", "cpu_seconds", "peak_mb"])


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
