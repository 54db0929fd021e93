"""Seconds of CPU that jobs spend on starting, over all that they spend, for a finished run.

    python -m benchmarks.startup results

A job's start is the import of everything that its script names and the end of the process behind
it, measured in fresh processes here and now; what the run spent is in its ``benchmark:`` files.
Jobs whose script runs language models also load one family's modules.
"""

from __future__ import annotations

import ast
import json
import resource
import subprocess
import sys
from pathlib import Path

import pandas as pd

from lfp.costs.measured import measured
from lfp.running.job import GARBAGE_AFTER

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "workflow_scripts"


def imports_of(script: Path) -> str:
    """The import statements of a script, wherever in it they stand, as a job runs them."""
    tree = ast.parse(script.read_text(encoding="utf-8"))
    nodes = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    lines = ["import gc", f"gc.set_threshold({GARBAGE_AFTER})"]
    lines += [ast.unparse(node) for node in nodes]
    if any("models" in line for line in lines):
        lines.append("from transformers import GPTNeoXForCausalLM")
    lines.append("gc.freeze()")
    return "\n".join(lines)


def start_seconds(script: Path) -> float:
    """CPU seconds of a fresh process that imports what `script` does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", imports_of(script)], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(results: Path) -> pd.DataFrame:
    """By script: ``jobs``, ``cpu`` seconds of all of them, and ``start`` seconds of one."""
    jobs = measured(results / "benchmarks").replace({"stage": {"fine-tuning": "ppo"}})
    if not len(jobs):
        sys.exit(f"no benchmark file below {results / 'benchmarks'}; name the results of a run")
    frame = (
        jobs.groupby("stage").agg(jobs=("job", "size"), cpu=("cpu_seconds", "sum")).reset_index()
    )
    frame = frame.rename(columns={"stage": "script"})
    return frame.assign(
        start=[start_seconds(SCRIPTS / f"{script}.py") for script in frame["script"]]
    )


def main() -> None:
    """Print the table and the share, and write both beside the other results."""
    frame = measure(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
    frame["starts"] = frame["jobs"] * frame["start"]
    print(frame.round(2).to_string(index=False))
    share = frame["starts"].sum() / frame["cpu"].sum()
    print(
        f"{frame['jobs'].sum()} jobs, {frame['cpu'].sum():.0f} CPU-seconds, {share:.0%} of them to"
        f" start"
    )
    target = ROOT / "benchmarks" / "results" / "startup.json"
    target.write_text(
        json.dumps({"share": share, "scripts": frame.round(3).to_dict("records")}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
