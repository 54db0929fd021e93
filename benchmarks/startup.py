"""Seconds of CPU that jobs spend on starting, over all that they spend, for a finished run.

    python -m benchmarks.startup results

A job's start is the import of everything that its script names and the end of the process behind
it, measured here and now: by itself in a fresh process, and in a fork of a process that has the
libraries (:mod:`lfp.running.fork_server`), the command that asks for the fork included. What the
run spent is in the records of its jobs. Jobs whose script runs language models also load one
family's modules.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

from lfp.costs.measured import measured
from lfp.running import fork_server, start
from lfp.running.job import GARBAGE_AFTER

ROOT = Path(__file__).parent.parent
SCRIPTS = ROOT / "workflow_scripts"
#: The last lines of a start: the seconds that its process has taken.
SECONDS = """
import resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(used.ru_utime + used.ru_stime)
"""


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


def spent() -> float:
    """CPU seconds of the children of this process that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def start_seconds(script: Path, folder: Path, forked: bool) -> float:
    """CPU seconds of a process that imports what `script` does, a fork or a fresh one.

    Parameters
    ----------
    script
        A rule's script.
    folder
        A folder for the module that imports, which is that of the server's socket.
    forked
        Whether the server of that folder forks.
    """
    (folder / "a_start.py").write_text(imports_of(script) + SECONDS, encoding="utf-8")
    path = f"{folder}{os.pathsep}{ROOT}"
    variables = {"PYTHONPATH": path, start.FOLDER: str(folder if forked else folder / "none")}
    before = spent()
    done = subprocess.run(
        [sys.executable, "-m", "lfp.running.start", "a_start"],
        env=os.environ | variables, check=True, capture_output=True, text=True,
    )  # fmt: skip
    command = spent() - before
    return command + float(done.stdout) if forked else command


def starts(scripts: list[str], forked: bool) -> list[float]:
    """:func:`start_seconds` of every script."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        folder = Path(name)
        code = "import sys; from lfp.running.fork_server import *; Server(sys.argv[1], 0).serve()"
        with subprocess.Popen(
            [sys.executable, "-c", code, name], stdin=subprocess.PIPE,
            env=os.environ | fork_server.SINGLE | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"},
        ) as server:  # fmt: skip
            while not start.socket_path(name).exists():
                pass
            if forked:  # the server imports the libraries when it is first asked
                start_seconds(SCRIPTS / f"{scripts[0]}.py", folder, forked)
            seconds = [
                start_seconds(SCRIPTS / f"{script}.py", folder, forked) for script in scripts
            ]
            server.stdin.close()
    return seconds


def measure(results: Path) -> pd.DataFrame:
    """By script: ``jobs``, ``cpu`` seconds of all of them, and seconds of one start.

    ``alone`` are those of a fresh process, ``forked`` those of a fork.
    """
    jobs = measured(results / "benchmarks")
    if not len(jobs):
        sys.exit(f"no record of a job below {results / 'benchmarks'}; name the results of a run")
    frame = (
        jobs.groupby("stage").agg(jobs=("job", "size"), cpu=("cpu_seconds", "sum")).reset_index()
    )
    scripts = list(frame["stage"])
    return frame.rename(columns={"stage": "script"}).assign(
        alone=starts(scripts, forked=False), forked=starts(scripts, forked=True)
    )


def main() -> None:
    """Print the table and the shares, and write all beside the other results."""
    frame = measure(Path(sys.argv[1] if len(sys.argv) > 1 else "results"))
    print(frame.round(2).to_string(index=False))
    total = {way: (frame["jobs"] * frame[way]).sum() for way in ("alone", "forked")}
    # The run's jobs were forked: without their starts they took so much.
    work = frame["cpu"].sum() - total["forked"]
    shares = {way: seconds / (work + seconds) for way, seconds in total.items()}
    for way, seconds in total.items():
        print(f"{frame['jobs'].sum()} starts, {way}: {seconds:.0f} CPU-seconds, {shares[way]:.0%}")
    target = ROOT / "benchmarks" / "results" / "startup.json"
    target.write_text(
        json.dumps({**shares, "scripts": frame.round(3).to_dict("records")}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
