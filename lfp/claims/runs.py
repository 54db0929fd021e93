"""The results of a run: its claims, and the machine, versions, commit and settings behind them."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from lfp.claims.rows import claims
from lfp.files.artefacts import read_json, read_table
from lfp.files.canonical import canonical_json

ROOT = Path(__file__).parents[2]
#: Files that are made of results, and no part of what makes them.
MADE = ("docs/results.json", "docs/results.md")


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


def machine() -> dict[str, Any]:
    """The processor, the number of its cores, and the system."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text(encoding="utf-8") if cpuinfo.exists() else ""
    model = re.search(r"model name\s*:\s*(.*)", text)
    return {
        "processor": model.group(1) if model else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def commit() -> str:
    """The commit of the workflow; ``-dirty`` where files differ from it, and empty without Git."""

    head = _git(["rev-parse", "--short=12", "HEAD"]).stdout.strip()
    others = [f":!{path}" for path in MADE]
    changed = _git(["diff", "--quiet", "HEAD", "--", ".", *others]).returncode
    return f"{head}-dirty" if head and changed else head


def _git(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def seeds(folder: Path) -> dict[str, list[int]]:
    """The seeds of fine-tuning of every model and task."""
    frame = read_table(folder / "tables" / "fine_tuning.parquet")
    return {
        f"{model}/{task}": sorted({int(seed) for seed in group["seed"]})
        for (model, task), group in frame.groupby(["model", "task"])
    }
