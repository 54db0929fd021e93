"""The worker's side of a measurement: one step for every line on standard input."""

from __future__ import annotations

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _peak_mb() -> float:
    """Peak of this process alone, on the GPU where it uses one.

    What ``getrusage`` says begins with the parent's before the program was loaded.
    """
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.search(r"VmHWM:\s*(\d+)", status.read_text()).group(1)) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # bytes on macOS


class Meter:
    """Answers on what was standard output; libraries that print there reach standard
    error instead.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self._cpu = self._wall = 0.0

    def ready(self, work: float = 1.0) -> None:
        """Say that the warm-up is over and how much `work` a step does."""
        print(json.dumps({"work": work}), file=self._answers, flush=True)

    def begin(self) -> bool:
        """Wait for the next turn and start the clocks; false when there is none."""
        if not sys.stdin.readline():
            return False
        self._cpu, self._wall = time.process_time(), time.perf_counter()
        return True

    def end(self, value: object = None) -> None:
        """Stop the clocks and answer, with the `value` that the step came to where it
        is a number.
        """
        answer = {
            "cpu": time.process_time() - self._cpu, "wall": time.perf_counter() - self._wall,
            "peak_mb": _peak_mb(), "value": value if isinstance(value, float) else None,
        }  # fmt: skip
        print(json.dumps(answer), file=self._answers, flush=True)


def serve(make: Callable[[dict[str, Any]], tuple[Callable[[], object], float]]) -> None:
    """Make a step and the work it does from the case on the command line, warm it up, and do it in
    turns.

    A case may name its ``device``, and ``steps`` that make one turn: those on a GPU are too short
    for a clock.
    """
    meter, case = Meter(), json.loads(sys.argv[1])
    step, work = make(case)

    def turn() -> object:
        found = [step() for _ in range(case.get("steps", 1))]
        if case.get("device") == "cuda":
            import torch

            torch.cuda.synchronize()
        return found[-1]

    turn()
    turn()
    meter.ready(work * case.get("steps", 1))
    while meter.begin():
        meter.end(turn())
