"""Kill a run of the workflow at random moments, start it again, and compare its tables with those
of a quiet run.

    python -m tests.faults --kills 100

A kill is SIGKILL or SIGTERM, to Snakemake or to one of its jobs, drawn from the seed; as are the
moments. After Snakemake was killed its jobs go on, and the restart meets them.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from lfp.running.start import FOLDER

ROOT = Path(__file__).parent.parent
#: In the command line of the processes that are killed beside Snakemake.
MODULES = {"job": "workflow_scripts", "fork": "lfp.running.fork_server"}
PARTS = ("Snakefile", "rules", "workflow_scripts", "lfp", "config", "profiles", "envs", "report")
#: What must be byte for byte the same.
COMPARED = ("tables", "instances")


def copy_workflow(target: Path, source: Path = ROOT) -> Path:
    """A private copy of the workflow in `source` without results, with the small cell's
    configuration.
    """
    target.mkdir(parents=True)
    for part in PARTS:
        copy = shutil.copytree if (source / part).is_dir() else shutil.copyfile
        copy(source / part, target / part)
    shutil.copyfile(ROOT / "tests" / "faults.yaml", target / "grid.yaml")
    return target


def start(tree: Path, *arguments: str) -> subprocess.Popen:
    """Snakemake in `tree`, with what it says in ``snakemake.log``."""
    others = ("PYTHONPATH", "OMP_NUM_THREADS", FOLDER)  # this run forks its jobs itself
    environment = {k: v for k, v in os.environ.items() if k not in others}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    command = [sys.executable, "-m", "snakemake", *arguments, "--configfile", "grid.yaml"]
    with (tree / "snakemake.log").open("a") as log:
        return subprocess.Popen(
            command, cwd=tree, env=environment, stdout=log, stderr=log, start_new_session=True
        )


def outputs(tree: Path) -> dict[str, bytes]:
    """The compared files of a finished run by their path."""
    found = [path for name in COMPARED for path in (tree / "results" / name).glob("[!.]*")]
    return {path.relative_to(tree).as_posix(): path.read_bytes() for path in sorted(found)}


def finish(tree: Path) -> None:
    """Run `tree` to its end."""
    assert start(tree, "--unlock").wait() == 0
    code = start(tree, "--cores", "2").wait()
    assert code == 0, f"{tree}: " + (tree / "snakemake.log").read_text()[-5000:]


def kill_once(tree: Path, draw: random.Random, longest: float) -> str:
    """Start `tree`, kill a process after at most `longest` seconds, and say what was done.

    It is Snakemake, a job, or the process that jobs are forked from or one of its forks.

    Returns "" where the run was over before.
    """
    assert start(tree, "--unlock").wait() == 0
    process = start(tree, "--cores", "2")
    aim, kind = draw.choice(["snakemake", *MODULES]), draw.choice([signal.SIGKILL, signal.SIGTERM])
    end = time.monotonic() + draw.uniform(0.5, longest)
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.05)
    victim = psutil.Process(process.pid) if process.poll() is None else None
    while victim and aim in MODULES and process.poll() is None:
        processes = [
            p for p in victim.children(recursive=True) if MODULES[aim] in " ".join(_command(p))
        ]
        if processes:
            victim = draw.choice(processes)
            break
        time.sleep(0.05)
    if process.poll() is not None:
        return ""
    try:
        victim.send_signal(kind)
    except psutil.NoSuchProcess:
        return ""
    process.wait()
    return f"{aim} {kind.name}"


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def campaign(folder: Path, kills: int, seed: int = 0, longest: float = 25.0) -> Counter:
    """Kill `kills` times, over as many runs as that takes; returns how often each kind of kill was
    done.

    Raises AssertionError where a killed run cannot be finished, or ends with other tables.
    """
    draw, done = random.Random(seed), Counter()
    quiet = copy_workflow(folder / "quiet")
    finish(quiet)
    expected, number = outputs(quiet), 0
    while done.total() < kills:
        tree = copy_workflow(folder / f"killed{number}", quiet)
        number += 1
        while done.total() < kills:
            what = kill_once(tree, draw, longest)
            if not what:
                break
            done[what] += 1
            print(f"{done.total()} of {kills}: {what}", flush=True)
        finish(tree)
        found = outputs(tree)
        different = [name for name in {*expected, *found} if expected.get(name) != found.get(name)]
        assert not different, f"{tree}: other bytes in {sorted(different)}"
        assert start(tree, "--cores", "1", "verify").wait() == 0, (
            tree / "snakemake.log"
        ).read_text()[-3000:]
        left = [
            p
            for p in (tree / "results").rglob(".*")
            if not p.name.endswith((".provenance.json", ".snakemake_timestamp"))
        ]
        assert not left, f"{tree}: left behind {left}"
        shutil.rmtree(tree)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        done = campaign(Path(folder), arguments.kills, arguments.seed)
    print("tables are byte for byte those of a quiet run after", dict(sorted(done.items())))


if __name__ == "__main__":
    main()
