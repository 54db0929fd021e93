"""Where an artefact came from, and whether its content is still the written one.

Beside an artefact ``name``, a file or a directory, stands ``.name.provenance.json``: SHA-256 of
every file, the resolved settings with their seed, the digest of the code, versions, device, wall
time, and the digest of every input. The readers of :mod:`artefacts` compare what they read with it;
an artefact without a record is read as it is.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)
#: Files that file managers put into the folders that they show. They are no artefact's.
SHOWN = frozenset({".DS_Store", ".directory", ".localized", "Thumbs.db", "desktop.ini"})
#: An artefact's files lie at most this many folders deep in it.
DEPTH = 4


class ArtefactError(ValueError):
    """A file of the results is damaged, cut short or edited."""


def record_path(artefact: str | Path) -> Path:
    """The record of an artefact, a hidden sibling."""
    artefact = Path(artefact)
    return artefact.parent / f".{artefact.name}.provenance.json"


def file_digest(path: str | Path) -> str:
    """SHA-256 of a file's content, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: str | Path) -> list[Path]:
    """All files below `folder` but :data:`SHOWN`, also behind symbolic links to folders."""
    paths = (Path(here, n) for here, _, ns in os.walk(folder, followlinks=True) for n in ns)
    return [path for path in paths if path.name not in SHOWN and path.is_file()]


def file_digests(artefact: str | Path) -> dict[str, str]:
    """SHA-256 of every file of an artefact by its path inside it; a file's own path is ``.``.

    Snakemake's own mark in a directory (``.snakemake_timestamp``) is none of its files.
    """
    artefact = Path(artefact)
    if artefact.is_file():
        return {".": file_digest(artefact)}
    files = sorted(p for p in files_below(artefact) if not p.name.startswith(".snakemake"))
    return {path.relative_to(artefact).as_posix(): file_digest(path) for path in files}


def digest(files: Mapping[str, str]) -> str:
    """One SHA-256 over all files of an artefact."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def read_record(artefact: str | Path) -> dict[str, Any] | None:
    """The record of an artefact; None where it has none.

    Raises ArtefactError where there is one that cannot be read: nothing would be checked any more.
    """
    path = record_path(artefact)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise ArtefactError(
            f"{path}: the record of {artefact} cannot be read ({error}); {rebuild_hint(artefact)}"
        ) from error
    parts = record if isinstance(record, dict) else {}
    if not all(isinstance(parts.get(name), dict) for name in ("files", "inputs")):
        raise ArtefactError(
            f"{path}: the record of {artefact} is damaged: expected digests of its `files` and"
            f" `inputs`; {rebuild_hint(artefact)}"
        )
    return record


def input_digests(paths: Iterable[str | Path]) -> dict[str, str]:
    """The digest of every artefact among `paths`, from its record or else from its files."""
    records = {str(path): read_record(path) for path in paths}
    return {
        path: digest(record["files"] if record else file_digests(path))
        for path, record in records.items()
    }


def artefact_of(path: str | Path) -> Path | None:
    """The artefact with a record that `path` is or lies in."""
    path = Path(path)
    return next(
        (p for p in [path, *path.parents][: DEPTH + 1] if p.name and record_path(p).is_file()), None
    )


def rebuild_hint(path: str | Path) -> str:
    """Advice on how to make the artefact anew that `path` is or lies in."""
    return f"rebuild it: snakemake --cores all --force {artefact_of(path) or path}"


def verified(path: str | Path, names: Collection[str] = ("*",)) -> Path:
    """`path`, a file or a directory, once its content was found to be the recorded one.

    Of a directory the files count whose names match one of the patterns `names`. Hidden files that
    are not recorded, such as those of editors and file managers, are let through.

    Raises
    ------
    ArtefactError
        Where the record of the artefact tells of another content, or of no such file.
    """
    path, artefact = Path(path), artefact_of(path)
    record = read_record(artefact) if artefact else None
    if record is None or not path.exists():
        return path
    recorded = {
        artefact if name == "." else artefact / name: value
        for name, value in record["files"].items()
    }
    files = [file for file in recorded if file == path or path in file.parents]
    added = [] if path.is_file() else sorted(set(files_below(path)) - set(files))
    if not files:
        raise ArtefactError(f"{path}: {artefact} was written without it; {rebuild_hint(path)}")
    for file in _named(files, names):
        if not file.is_file() or file_digest(file) != recorded[file]:
            what = (
                "its content is not what was written: damaged or edited"
                if file.is_file()
                else "is missing"
            )
            raise ArtefactError(f"{file}: {what}; {rebuild_hint(path)}")
    for file in _named(added, names):
        if not any(part.startswith(".") for part in file.relative_to(path).parts):
            raise ArtefactError(
                f"{file}: {artefact} was written without it, and what it adds would be read; move"
                f" it away, or {rebuild_hint(path)}"
            )
    return path


def _named(files: Iterable[Path], names: Collection[str]) -> list[Path]:
    """The `files` whose names match one of the patterns `names`."""
    return [file for file in files if any(fnmatch(file.name, name) for name in names)]


def lineage(targets: Iterable[str | Path]) -> dict[str, dict[str, Any]]:
    """The records of `targets` and of everything in the results that they were made of, by path.

    A file from outside may have a record, too, where it is a result of another run. The log tells
    of what has no record.

    Raises
    ------
    ArtefactError
        Where a target has no record, or a record is damaged.
    """
    records: dict[str, dict[str, Any]] = {}
    waiting = [str(path) for path in targets]
    for path in waiting:
        if read_record(path) is None:
            raise ArtefactError(
                f"{path}: no {record_path(path).name} beside it; {rebuild_hint(path)}"
            )
    while waiting:
        path = waiting.pop()
        if path in records:
            continue
        record = read_record(path)
        if record is None:
            log.warning(
                "%s: no %s beside it, so it is left out, with all that it was made of",
                path,
                record_path(path).name,
            )
            continue
        records[path] = record
        waiting += [name for name in record["inputs"] if Path(name).parts[0] == "results"]
    return dict(sorted(records.items()))


def in_folder(path: str | Path, results: str | Path) -> Path:
    """The place of a recorded `path`, which begins with ``results/``, in the folder `results`.

    That folder may have another name, or be a symbolic link to one.
    """
    return Path(results) / Path(path).relative_to("results")


def problems(
    artefacts: Mapping[str, Mapping[str, Any]], results: str | Path
) -> Iterator[tuple[str, str]]:
    """Deviations of artefacts in the folder `results` from their records.

    Yields the path and ``missing``, ``changed`` or ``made of another {input}``.
    """
    for path, record in artefacts.items():
        here = in_folder(path, results)
        if not here.exists():
            yield path, "missing"
        elif file_digests(here) != record["files"]:
            yield path, "changed"
        for name, expected in record["inputs"].items():
            if name in artefacts and digest(artefacts[name]["files"]) != expected:
                yield path, f"made of another {name}"
