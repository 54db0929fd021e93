"""CPU seconds of Snakemake's own process over the default grid, whose jobs only wait.

    python -m benchmarks.scheduling results     # of a finished run of this checkout

Snakemake runs the grid in a copy of the workflow with another ``python`` for its jobs: each waits
:data:`WAIT` seconds and copies its outputs from the finished run, so that layers are chosen and
tables appear as they did, and no job takes processor time from what is measured.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from lfp.claims.origin import machine
from tests.faults import copy_workflow

RESULTS = Path(__file__).parent / "results" / "scheduling.json"
#: Seconds that a job waits: the default run ends one in four seconds, of two at once.
WAIT = 8.0
#: The ``python`` of the jobs.
PYTHON = """#!{python} -SE
import shutil, sys, time
from pathlib import Path

time.sleep({wait})
for path in map(Path, sys.argv[sys.argv.index("--paths") + 1 :]):
    done = Path("{done}") / path.relative_to("results") if path.parts[0] == "results" else path
    if path.exists() or not done.exists():
        continue
    path.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if done.is_dir() else shutil.copyfile)(done, path)
"""


def stand_in(folder: Path, done: Path, wait: float) -> Path:
    """A ``python`` in `folder` that waits and copies a job's outputs from the results `done`."""
    folder.mkdir(parents=True)
    python = folder / "python"
    python.write_text(PYTHON.format(python=sys.executable, wait=wait, done=done.resolve()))
    python.chmod(0o755)
    return python


def measure(done: Path, wait: float = WAIT) -> dict[str, float]:
    """Jobs, seconds of the clock, and CPU seconds of Snakemake's process.

    `done` has the results of a finished run of the default grid.
    """
    with tempfile.TemporaryDirectory() as folder:
        tree = copy_workflow(Path(folder) / "workflow")
        python = stand_in(Path(folder) / "bin", done, wait)
        path = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
        command = [sys.executable, "-m", "snakemake", "--cores", "2"]
        began, spent, said = time.perf_counter(), 0.0, Path(folder) / "log"
        with (
            said.open("w") as log,
            subprocess.Popen(
                command, cwd=tree, env=os.environ | {"PATH": path}, stdout=log, stderr=log
            ) as process,
        ):
            watched = psutil.Process(process.pid)
            while process.poll() is None:
                times = watched.cpu_times()
                spent = max(spent, times.user + times.system)
                time.sleep(0.2)
        ended = re.search(r"(\d+) of \1 steps \(100%\) done", said.read_text())
        if not ended:
            sys.exit(
                f"the grid did not end; does {done} have all results of this checkout?\n"
                + said.read_text()[-2000:]
            )
    seconds = round(time.perf_counter() - began)
    return {"jobs": int(ended[1]), "seconds": seconds, "cpu_seconds": round(spent, 1)}


def main() -> None:
    """Print the figures and write them beside the other results."""
    result = measure(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
    print(", ".join(f"{name} {value}" for name, value in result.items()))
    about = {"waited": WAIT, "machine": machine()}
    RESULTS.write_text(json.dumps(result | about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
