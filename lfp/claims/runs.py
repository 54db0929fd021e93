"""The results of a run: its claims, and the machine, versions, commit and settings behind them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from lfp.claims.origin import commit, machine
from lfp.claims.rows import claims
from lfp.files.artefacts import read_json, read_table
from lfp.files.canonical import canonical_json


def results(folder: Path) -> dict[str, Any]:
    """All that a results file says of the run in `folder`, on the machine that runs this."""
    provenance = read_json(folder / "provenance.json")
    settings = {path: made["settings"] for path, made in provenance["artefacts"].items()}
    return {
        "machine": machine(),
        "commit": commit(),
        "configuration": hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16],
        "versions": provenance["versions"],
        "seeds": seeds(folder),
        "claims": [claim.measured(folder) for claim in claims()],
    }


def seeds(folder: Path) -> dict[str, list[int]]:
    """The seeds of fine-tuning of every model and task."""
    frame = read_table(folder / "tables" / "fine_tuning.parquet")
    return {
        f"{model}/{task}": sorted({int(seed) for seed in group["seed"]})
        for (model, task), group in frame.groupby(["model", "task"])
    }
