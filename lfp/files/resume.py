"""Resume points of long work, and the end of training that has gone astray.

A resume point is one safetensors file, replaced whole, that holds tensors and counters. Nothing
here loads a language model's library: jobs that need none start in a fraction of the time. A loop
that draws its randomness from (seed, step) and restores weights, optimizer and counters from here
ends with the same result whether or not it was killed in between.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lfp.files.artefacts import read_metadata, readable
from lfp.files.provenance import ArtefactError
from lfp.files.writing import aside

#: Seconds between two resume points of work that has no step of its own to save at.
SAVE_SECONDS = 60.0


class DivergedError(RuntimeError):
    """Training has left the finite numbers, or exceeded its limit.

    ``curve`` has a row for every step until then.
    """

    def __init__(self, message: str, curve: Sequence[Mapping[str, Any]]) -> None:
        super().__init__(message)
        self.curve = list(curve)


def check_finite(what: str, curve: Sequence[Mapping[str, Any]]) -> None:
    """Raise DivergedError where the last row of `curve` holds a number that is not finite."""
    row = curve[-1]
    wrong = [
        name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
    ]
    if wrong:
        raise DivergedError(
            f"{what}: {', '.join(wrong)} not finite at step {row['step']}; lower the learning rate"
            f" or look at the data",
            curve,
        )


class Clock:
    """A clock that tells when the next resume point is due."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def due(self) -> bool:
        """Whether :data:`SAVE_SECONDS` have gone by since the last time that this was true."""
        now = time.monotonic()
        is_due = now - self.last >= SAVE_SECONDS
        self.last = now if is_due else self.last
        return is_due


def _digest(tensors: Mapping[str, torch.Tensor], counters: str) -> str:
    """SHA-256 over the counters, and the names and contents of the tensors."""
    sha = hashlib.sha256(counters.encode())
    for name, value in sorted(tensors.items()):
        sha.update(name.encode())
        sha.update(value.contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha.hexdigest()


def save_tensors(
    path: str | Path, tensors: Mapping[str, torch.Tensor], counters: Mapping[str, Any]
) -> None:
    """Write `tensors` and the JSON-able `counters` to `path`, with a digest that finds damage."""
    kept = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    text = json.dumps(counters)
    with aside(path) as temporary:
        save_file(kept, temporary, {"counters": text, "digest": _digest(kept, text)})


def load_tensors(path: str | Path | None) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and counters that :func:`save_tensors` wrote.

    None where there is no path, no such file, or a damaged one.
    """
    if path is None or not Path(path).exists():
        return None
    try:
        with readable(path) as file:
            tensors, metadata = load_file(file), read_metadata(file)
    except ArtefactError as error:
        tensors, metadata = {}, {"digest": str(error)}
    if metadata.get("digest") != _digest(tensors, metadata.get("counters", "")):
        logging.getLogger("training").warning(
            "%s: a damaged resume point; the work starts again", path
        )
        return None
    return tensors, json.loads(metadata["counters"])


def save_state(
    path: str | Path, module: nn.Module, optimizer: torch.optim.Optimizer, counters: dict[str, Any]
) -> None:
    """Write `module`'s weights, `optimizer`'s moments and the JSON-able `counters` to `path`.

    On a CPU they are written from where they lie: a copy would be more than half of what training
    holds.
    """
    tensors, places = {}, set()
    for name, value in module.state_dict().items():
        # The file holds tied weights under each of their names, which must not share their memory.
        tensors[f"module.{name}"] = value.clone() if value.data_ptr() in places else value
        places.add(value.data_ptr())
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    save_tensors(path, tensors, counters)


def load_state(
    path: str | Path | None, module: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Any] | None:
    """Restore the state that :func:`save_state` wrote and return its counters.

    Returns None and restores nothing where there is no path, no such file or a damaged one:
    training starts again.
    """
    loaded = load_tensors(path)
    if loaded is None:
        return None
    tensors, counters = loaded
    module.load_state_dict(
        {k.removeprefix("module."): v for k, v in tensors.items() if k.startswith("module.")}
    )
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return counters
