"""Memory and time of the jobs of a grid, from its estimate, and what this machine has."""

from __future__ import annotations

import math
import os
from typing import Any

import pandas as pd

from lfp.costs.estimate import grid_costs
from lfp.grid import Grid
from lfp.settings import Machine
from lfp.start.page import Said

#: Floating-point operations a second that one core reaches, as the estimate counts them: those of
#: the slowest stage of docs/smollm2.md (the ablation; other stages reach up to twice as many).
CORE = 75e9
#: Memory that a job asks for, in multiples of the estimate, and MB of what runs around it.
SPARE, AROUND = 1.5, 350
#: Time limit of a job, in multiples of the estimate of the longest stage.
LONGER = 3
GB = 1e9


def costs(config: dict[str, Any]) -> pd.DataFrame:
    """The estimate of every stage of the cells of a configuration."""
    settings = Grid(config).estimate_settings()
    return grid_costs(settings["cells"], Machine(**settings["machine"]))


def gpu() -> str | None:
    """The name of the first GPU that torch sees here."""
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def memory_gb() -> float:
    """Memory of this machine, GB."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GB


def core_hours(frame: pd.DataFrame) -> pd.Series:
    """Hours of one core that every row of an estimate takes."""
    return frame["exaflops"] * 1e18 / CORE / 3600


def demands(frame: pd.DataFrame, device: str | None) -> dict[str, Said]:
    """What the jobs of a model ask for on this machine, by the estimate in `frame`.

    With a `device`, the name of a GPU, that is the memory of the host and the time of the GPU.
    """
    stages = frame[frame["stage"] != "total"]
    column = "host_memory_gb" if device else "cpu_memory_gb"
    largest = stages.loc[stages[column].idxmax()]
    hours = stages["gpu_hours"] if device else core_hours(stages)
    longest = stages.loc[hours.idxmax(), "stage"]
    memory = SPARE * largest[column] * 1000 + AROUND
    minutes = LONGER * float(hours.max()) * 60
    where = f"torch sees {device} here" if device else "torch sees no GPU here"
    return {
        "gpus": Said(int(device is not None), where),
        "mem_mb": Said(
            _rounded_up(memory, 500),
            f"half as much again as the estimate of {largest['stage']}, {largest[column]:.1f} GB",
        ),
        "runtime": Said(
            max(60, _rounded_up(minutes, 30)),
            f"minutes; {LONGER} times the estimate of the longest stage, {longest}, or an hour",
        ),
    }


def _rounded_up(number: float, unit: int) -> int:
    """The next multiple of a `unit`."""
    return unit * math.ceil(number / unit)
