"""Addresses of artefacts: a path's parts are the cell that it belongs to."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_ADDRESS = re.compile(r"(?:^|/)(?P<model>[^/]+)/(?P<task>[^/]+)/seed(?P<seed>\d+)/(?P<rest>.+)$")
#: Endings of artefacts' files. Names of a configuration may have dots, too, so nothing else is cut.
_ENDING = re.compile(r"\.(parquet|safetensors|json)$")
#: The second ending of the ablation's files, whose names are those of subjects.
_NEUTRAL = re.compile(r"^(ablation/.*)\.neutral$")


def labels(path: str | Path) -> dict[str, Any]:
    """The cell of an artefact, by its path.

    The mapping has ``model``, ``task`` and ``seed``, and ``sae``, ``subject`` and ``explainer``
    where the path has them.
    """
    match = _ADDRESS.search(str(path))
    if match is None:
        raise ValueError(f"{path}: not the path of a cell's artefact")
    result: dict[str, Any] = {
        "model": match["model"],
        "task": match["task"],
        "seed": int(match["seed"]),
    }
    parts = _NEUTRAL.sub(r"\1", _ENDING.sub("", match["rest"])).split("/")
    names = {
        "probes": ("sae", "subject"),
        "sae": ("sae",),
        "features": ("sae", "subject"),
        "ablation": ("sae", "subject"),
        "interventions": ("sae", "subject"),
        "explanations": ("sae",),
        "latents": ("sae",),
        "steering": ("sae",),
    }
    if parts[0] == "explanations":
        result["explainer"] = parts[-1]
    return result | dict(zip(names.get(parts[0], ()), parts[1:], strict=False))


def of(inputs: Sequence[str], name: str) -> list[str]:
    """The inputs whose path ends with `name`."""
    return [path for path in inputs if str(path).endswith(name)]
