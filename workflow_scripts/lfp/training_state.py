"""Resume points of long training loops: one safetensors file, replaced whole, that holds tensors and counters.

A loop that draws its randomness from (seed, step) and restores weights, optimizer and counters from here ends
with the same result whether or not it was killed in between.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from workflow_scripts.lfp.artefacts import aside, read_metadata


def save_state(path: str | Path, module: nn.Module, optimizer: torch.optim.Optimizer, counters: dict[str, Any]) -> None:
    """Write `module`'s weights, `optimizer`'s moments and the JSON-able `counters` to `path`."""
    tensors = {f"module.{name}": value.detach().cpu().clone() for name, value in module.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value.detach().cpu().clone() for name, value in state.items()}
    with aside(path) as temporary:
        save_file(tensors, temporary, {"counters": json.dumps(counters)})


def load_state(path: str | Path, module: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """Restore what :func:`save_state` wrote and return its counters, or None where there is no such file."""
    if not Path(path).exists():
        return None
    tensors = load_file(path)
    module.load_state_dict({k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")})
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return json.loads(read_metadata(path)["counters"])
