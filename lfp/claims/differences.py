"""What two runs were made of, side by side: commit, machine, versions, code and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

#: Where a run's record does not say something.
UNKNOWN = "not recorded"
#: Settings that are texts for readers and change no number.
_TEXTS = ("caption",)


def facts(here: Mapping[str, Any], there: Mapping[str, Any]) -> pd.DataFrame:
    """The commit, the machine and the differing versions of two ``provenance.json``, a row each.

    An empty mapping stands for a run without that file.
    """
    rows = [
        (name, *(_said(run.get(name)) for run in (here, there))) for name in ("commit", "machine")
    ]
    versions = [run.get("versions", {}) for run in (here, there)]
    names = sorted({*versions[0], *versions[1]})
    differing = [name for name in names if versions[0].get(name) != versions[1].get(name)]
    rows += [(name, *(_said(run.get(name)) for run in versions)) for name in differing]
    if names and not differing:
        rows.append(("versions of libraries", "the same", "the same"))
    made = [run.get("artefacts", {}) for run in (here, there)]
    rows.append(("devices", *(_devices(run) for run in made)))
    rows.append(("artefacts", *(str(len(run)) if run else UNKNOWN for run in made)))
    common = [path for path in made[0] if path in made[1]]
    if common:
        pairs = [(made[0][path], made[1][path]) for path in common]
        for what, key in (("the same content", "files"), ("the same code", "code")):
            alike = sum(a.get(key) == b.get(key) for a, b in pairs)
            text = f"{alike} of {len(common)} artefacts of both"
            rows.append((f"artefacts with {what}", text, text))
    return pd.DataFrame(rows, columns=["fact", "here", "there"])


def settings(here: Mapping[str, Any], there: Mapping[str, Any]) -> pd.DataFrame:
    """The settings that differ between the artefacts that both runs have.

    A row has a key with its values here and there, the number of artefacts that were made with
    these, and the first of them.
    """
    differing: dict[tuple[str, str, str], list[str]] = {}
    made = [run.get("artefacts", {}) for run in (here, there)]
    for path in (path for path in made[0] if path in made[1]):
        sides = [dict(_flat(run[path].get("settings") or {})) for run in made]
        for key in dict.fromkeys([*sides[0], *sides[1]]):
            values = [side.get(key, "") for side in sides]
            if values[0] != values[1] and key.split(".")[-1] not in _TEXTS:
                differing.setdefault((key, values[0], values[1]), []).append(path)
    rows = [(*key, len(paths), paths[0]) for key, paths in differing.items()]
    frame = pd.DataFrame(rows, columns=["setting", "here", "there", "artefacts", "first"])
    return frame.sort_values(["artefacts", "setting"], ascending=[False, True], ignore_index=True)


def confidence(run: Mapping[str, Any], default: float) -> float:
    """The coverage of a run's intervals, as its tables were made; `default` where none says it."""
    for record in run.get("artefacts", {}).values():
        level = dict(_flat(record.get("settings") or {})).get("tables.confidence")
        if level is not None:
            return float(level)
    return default


def _said(value: Any) -> str:
    """A fact as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    return str(value) if value else UNKNOWN


def _devices(made: Mapping[str, Any]) -> str:
    return ", ".join(sorted({str(record.get("device")) for record in made.values()})) or UNKNOWN


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Every value that is no mapping, as text, by its keys with points between."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
