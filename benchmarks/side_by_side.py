"""Measurements taken in turns: every round runs each contender once, so that a slow minute of the
machine hits all.

A contender is a process of its own, which loads what it needs, warms up, and then does one step for
every line that it is sent. Its seconds and its peak memory are therefore its own, and peers may
live in another environment.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


@dataclass
class Contender:
    """One row of a table: a worker module of ``benchmarks.workers``, its case, and the Python that
    runs it.
    """

    name: str
    module: str
    case: dict[str, Any]
    python: str
    path: str = ""  # goes ahead of everything else that Python imports from
    peer: bool = False
    precision: str = "float32"
    seconds: list[float] = field(default_factory=list)
    values: list[float | None] = field(
        default_factory=list
    )  # what every step came to, where it says so
    peak_mb: float = float("nan")
    work: float = float("nan")  # of one step, in the unit of the table

    @property
    def clock(self) -> str:
        """CPU time; on a GPU, which computes while the process waits, the wall's."""
        return "wall" if self.case.get("device") == "cuda" else "cpu"

    def start(self) -> subprocess.Popen[str]:
        """The worker, warmed up and waiting."""
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (self.path, str(ROOT)))),
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "WANDB_MODE": "disabled",
            "TOKENIZERS_PARALLELISM": "false",
        }  # fmt: skip
        command = [self.python, "-m", f"benchmarks.workers.{self.module}", json.dumps(self.case)]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if os.environ.get("QUIET", "1") == "1" else None,
        )  # fmt: skip
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"{self.name} ({self.module}) did not start:\n{process.communicate()[1]}"
            )
        self.work = json.loads(line)["work"]
        return process

    def row(self) -> dict[str, Any]:
        """The median seconds of a step with the smallest and the largest, and the peak memory."""
        return {
            "name": self.name, "precision": self.precision, "peer": self.peer,
            "seconds": statistics.median(self.seconds), "fastest": min(self.seconds),
            "slowest": max(self.seconds),
            "rounds": len(self.seconds), "peak_mb": self.peak_mb, "work": self.work,
            "clock": self.clock,
        }  # fmt: skip


def take_turns(contenders: Sequence[Contender], rounds: int = 5) -> list[dict[str, Any]]:
    """Run every contender once per round; seconds of each, a row for each."""
    processes = []
    try:
        for contender in contenders:
            processes.append(contender.start())
        for _ in range(rounds):
            for contender, process in zip(contenders, processes, strict=True):
                print("go", file=process.stdin, flush=True)
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"{contender.name} stopped:\n{process.communicate()[1]}")
                answer = json.loads(line)
                contender.seconds.append(answer[contender.clock])
                contender.peak_mb = answer["peak_mb"]
                contender.values.append(answer["value"])
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return with_ratios([contender.row() for contender in contenders])


def with_ratios(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Adds ``times_peer``: how many times the speed of the fastest peer of the same precision."""
    for row in rows:
        peers = [r["seconds"] for r in rows if r["peer"] and r["precision"] == row["precision"]]
        row["times_peer"] = min(peers) / row["seconds"] if peers and not row["peer"] else None
    return rows
