"""CPU seconds of building the graph of jobs for grids of many cells: one cell's table of layers,
and all cells.

python -m benchmarks.dag
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from tests.faults import copy_workflow

ROOT = Path(__file__).parent.parent
CELLS = (20, 200, 2000)
LARGEST_GRAPH = 200


def grid(cells: int) -> dict:
    """The small cell's configuration with as many fine-tuning seeds, their layers pinned."""
    config = yaml.safe_load((ROOT / "tests" / "faults.yaml").read_text())
    config["cells"] = [
        {"model": "small", "task": "vader", "seeds": list(range(cells)), "layers": [1]}
    ]
    return config


def cpu_seconds(tree: Path, *targets: str) -> float:
    """CPU seconds of a dry run for `targets`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [
        sys.executable,
        "-m",
        "snakemake",
        "-n",
        *targets,
        "--quiet",
        "--configfile",
        "grid.yaml",
    ]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print the table and write it beside the other results."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for cells in CELLS:
            tree = copy_workflow(Path(folder) / str(cells))
            (tree / "grid.yaml").write_text(yaml.safe_dump(grid(cells)))
            one = cpu_seconds(tree, "results/small/vader/seed7/probes/tied/policy/metrics.json")
            every = cpu_seconds(tree) if cells <= LARGEST_GRAPH else None
            rows.append(
                {
                    "cells": cells,
                    "one_cell_seconds": round(one, 2),
                    "all_seconds": every and round(every, 2),
                }
            )
            print(rows[-1], flush=True)
    (ROOT / "benchmarks" / "results" / "dag.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
