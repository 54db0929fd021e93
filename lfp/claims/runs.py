"""The results of a run: its claims, and the machine, versions, commit and settings behind them."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.claims.rows import claims
from lfp.files.artefacts import ArtefactError, read_json, read_table
from lfp.files.canonical import canonical_json


def results(folder: Path) -> dict[str, Any]:
    """All that a results file says of the run in `folder`."""
    return {
        **_origin(folder),
        "seeds": seeds(folder),
        "claims": [claim.measured(folder) for claim in claims()],
    }


def audit(folder: Path) -> dict[str, Any]:
    """What a results file says of the run in `folder` of planted organisms: all limits."""
    path = folder / "tables" / "detection.parquet"
    table = read_table(path)
    if "words" not in table:
        raise ArtefactError(f"{path}: expected a column words, which came with 0.19; make it again")
    return {**_origin(folder), "limits": limits(table)}


def _origin(folder: Path) -> dict[str, Any]:
    """Where a run was made and what by: machine, commit, settings and versions."""
    provenance = read_json(folder / "provenance.json")
    settings = {path: made["settings"] for path, made in provenance["artefacts"].items()}
    return {
        "machine": provenance["machine"],
        "commit": provenance["commit"],
        "configuration": hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:16],
        "versions": provenance["versions"],
    }


def limits(detection: pd.DataFrame) -> list[dict[str, Any]]:
    """The detection limit of every readout and set of words, from the table `detection`.

    A row has the ``limit``, None where no share was found often enough, the ``power`` by share, and
    the number of null policies.
    """
    keys = ["model", "corpus", "trained_by", "benign_share", "readout", "part", "words"]
    rows = []
    for key, of in detection.groupby(keys, sort=False):
        model, corpus, method, benign_share, readout, part, words = key
        estimates = of.set_index("quantity")["estimate"]
        if "limit" not in estimates:
            continue
        power = of[(of["quantity"] == "power") & of["share"].notna()].sort_values("share")
        limit = float(estimates["limit"])
        rows.append({
            "model": model, "corpus": corpus, "method": method,
            "benign_share": float(benign_share), "readout": readout, "part": part,
            "words": words, "limit": None if math.isnan(limit) else limit,
            "power": dict(zip(power["share"].map("{:g}".format), power["estimate"], strict=True)),
            "null_policies": int(of["null_policies"].iloc[0]), "null_of": of["null_of"].iloc[0],
        })  # fmt: skip
    return rows


def seeds(folder: Path) -> dict[str, list[int]]:
    """The seeds of fine-tuning of every model and task."""
    frame = read_table(folder / "tables" / "fine_tuning.parquet")
    return {
        f"{model}/{task}": sorted({int(seed) for seed in group["seed"]})
        for (model, task), group in frame.groupby(["model", "task"])
    }
