"""Snapshots of the Hugging Face hub: pinned, resumable, and of safe files only.

Errors say what to do.

A snapshot comes through the client's own cache (``HF_HOME``): a download that was cut off goes on
where it stopped, and a cache that is already filled needs no network.
"""

from __future__ import annotations

import difflib
import glob
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

#: Endings of a corpus's files, those of the readers (:mod:`lfp.texts.readers`).
FORMATS = (
    ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".parquet", ".arrow",
)  # fmt: skip
#: Files that are looked through, and shown, for the name that a pattern without a match may mean.
MOST_NAMES, SHOWN = 5000, 10
#: The first bytes of every GGUF file.
GGUF_MAGIC = b"GGUF"
#: Bytes that are read at once where a large file is hashed or joined.
PIECE = 1 << 20


class SourceError(RuntimeError):
    """A model or data set could not be had; the message says what to do."""


@contextmanager
def hub_errors(repo: str, revision: str) -> Iterator[None]:
    """Turn errors of the hub client into :class:`SourceError` with advice.

    They are errors about `repo` at `revision`.
    """
    from huggingface_hub import errors

    where = f"{repo} at {revision}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise SourceError(
            f"{where} is gated: accept its licence on its hub page, then set HF_TOKEN to a token"
            f" of that account"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise SourceError(
            f"{repo} has no revision {revision!r}: pin a commit that its history lists"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise SourceError(
            f"{repo} is not on the hub, or is private: check the id; for a private one set HF_TOKEN"
        ) from error
    except (
        errors.LocalEntryNotFoundError,
        errors.IncompleteSnapshotError,
        errors.OfflineModeIsEnabled,
    ) as error:
        raise SourceError(
            f"{where} is not complete in the local cache, and the hub cannot be reached: run this"
            " job where there is network (it is a local rule), fill the cache below HF_HOME there,"
            " or give the files by `path`"
        ) from error
    except (
        errors.HTTPError,
        OSError,
    ) as error:  # the first one is the HTTP client's, which is no OSError
        raise SourceError(f"{where}: {error}; try again, what is downloaded is kept") from error


def snapshot(repo: str, revision: str, patterns: Sequence[str], kind: str = "model") -> Path:
    """Directory of those files of a repository at `revision` that match `patterns`.

    `kind` of the repository `repo` is ``model`` or ``dataset``.

    Raises SourceError where it cannot be had.
    """
    from huggingface_hub import snapshot_download

    names = [*patterns, *map(glob.escape, patterns)]  # a name may hold what a pattern is made of
    with hub_errors(repo, revision):
        folder = Path(
            snapshot_download(repo, repo_type=kind, revision=revision, allow_patterns=names)
        )
    if folder.name != revision:
        log.warning("%s: the revision %r is the commit %s now; pin it", repo, revision, folder.name)
    return folder


def last_folder(root: Path, pattern: str, origin: str) -> Path:
    """The last by name of the folders below `root` that match a `pattern`, or have its name.

    Raises SourceError, with `origin` in front, where there is none.
    """
    names = {pattern, glob.escape(pattern)}
    folders = sorted({path for name in names for path in root.glob(name) if path.is_dir()})
    if not folders:
        raise SourceError(
            f"{origin}: no folder matches {pattern!r}, or it holds no checkpoint; correct `folder`"
        )
    return folders[-1]


def gguf_parts(path: str | Sequence[str]) -> list[Path]:
    """The parts, in order, of the GGUF file that the `path` of a model names.

    The list is empty where `path` is a checkpoint directory.

    `path` names a GGUF file where it is a list of parts, a file, or ends in ``.gguf``. Raises
    SourceError where a part is missing, the first part does not begin as a GGUF file does, or a
    later one begins as a file of its own.
    """
    if isinstance(path, str):
        if not (Path(path).is_file() or path.endswith(".gguf")):
            return []
        path = [path]
    parts = [Path(part) for part in path]
    for place_in_file, part in enumerate(parts):
        if not part.is_file():
            raise SourceError(
                f"{part} is not a file; it is part {place_in_file + 1} of {len(parts)} of a model's"
                f" GGUF file: correct `path`, or fetch the part"
            )
        with part.open("rb") as file:
            begins_a_file = file.read(len(GGUF_MAGIC)) == GGUF_MAGIC
        if place_in_file == 0 and not begins_a_file:
            raise SourceError(
                f"{part} does not begin as a GGUF file does (with the bytes GGUF): `path` of a"
                f" model names a checkpoint directory, a GGUF file, or its parts in their order"
            )
        if place_in_file > 0 and begins_a_file:
            raise SourceError(
                f"{part} is a GGUF file of its own, not the continuation of {parts[0]}: join"
                f" such shards by `llama-gguf-split --merge` of llama.cpp, and give its result"
            )
    return parts


@contextmanager
def whole_file(parts: Sequence[Path], scratch: str | Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield the file that `parts` make one after another, and where it comes from.

    The file lies alone in a temporary folder below `scratch` that is removed afterwards; a file of
    one part is linked there, not copied. Its origin is a record of ``sha256`` (of the whole) and
    ``files``: ``name``, ``bytes`` and ``sha256`` of every part.
    """
    whole, files = hashlib.sha256(), []
    with tempfile.TemporaryDirectory(dir=scratch, prefix=".whole.") as folder:
        file = Path(folder) / "model.gguf"
        if len(parts) == 1:
            file.symlink_to(parts[0].resolve())
        else:
            with file.open("wb") as joined:
                for part in parts:
                    with part.open("rb") as source:
                        shutil.copyfileobj(source, joined, PIECE)
        for part in parts:
            digest = hashlib.sha256()
            with part.open("rb") as source:
                while piece := source.read(PIECE):
                    digest.update(piece)
                    whole.update(piece)
            size = part.stat().st_size
            files.append({"name": part.name, "bytes": size, "sha256": digest.hexdigest()})
        yield file, {"sha256": whole.hexdigest(), "files": files}


def files_by_split(
    folder: str | Path, patterns: Mapping[str, str | Sequence[str]], origin: str
) -> dict[str, list[Path]]:
    """The files of every split below `folder`, by :func:`matching_files`.

    Raises SourceError, with `origin` in front, where two splits have a file in common.
    """
    files = {split: matching_files(folder, globs, origin) for split, globs in patterns.items()}
    places: dict[Path, str] = {}
    for split, paths in files.items():
        for path in paths:
            other = places.setdefault(path.resolve(), split)
            if other != split:
                raise SourceError(
                    f"{origin}: {path} is a file of {other} and of {split}, and a text is in one"
                    " split alone; give each its own files, or leave out `test`, and `test_share`"
                    " of `train` is held out"
                )
    return files


def matching_files(folder: str | Path, patterns: str | Sequence[str], origin: str) -> list[Path]:
    """Files below `folder` that `patterns` name, sorted within each pattern.

    A name of a file that exists is that file, whatever it is spelled with; only another one is a
    glob, and one without a leading dot matches no hidden file.

    Raises SourceError, with `origin` in front, where a pattern gives no file, or one that no
    reader knows.
    """
    files: list[Path] = []
    for pattern in [patterns] if isinstance(patterns, str) else patterns:
        path = Path(folder, pattern)  # an absolute pattern leaves the folder out
        matching = _matching(path) if pattern and "\0" not in pattern else []
        if not matching:
            home = "; `~` is not expanded, write the folder out" if pattern[:1] == "~" else ""
            raise SourceError(
                f"{origin}: no file matches {pattern!r}{home}; {_beside(path, Path(folder))}. Set"
                " the corpus's files by split"
            )
        unknown = next((f for f in matching if not f.name.lower().endswith(FORMATS)), None)
        if unknown is not None:
            raise SourceError(
                f"{origin}: {unknown} is of an unknown format, expected {', '.join(FORMATS)};"
                " convert it, correct its ending, or write a pattern that leaves it out"
            )
        files += matching
    return files


def _literal(path: Path) -> tuple[Path, list[str]]:
    """The longest existing beginning of `path`, and the parts behind it."""
    root, parts = Path(path.anchor), list(path.relative_to(path.anchor).parts)
    while parts and os.path.lexists(root / parts[0]):
        root /= parts.pop(0)
    return root, parts


def _matching(path: Path) -> list[Path]:
    """The file at `path`, or those that match it as a glob behind its longest existing part."""
    root, parts = _literal(path)
    if not parts:
        return [path] if path.is_file() else []
    globs = [(root, parts), (Path(path.anchor), list(path.relative_to(path.anchor).parts))]
    for start, names in globs:
        hidden = any(name.startswith(".") for name in names)
        try:
            matching = sorted(
                file
                for file in set(_following_links(start, Path(*names), hidden))
                if file.is_file() and (hidden or not _is_hidden(file.relative_to(start)))
            )
        except (ValueError, NotImplementedError, OSError):  # no pattern, or too long a name
            matching = []
        if matching:
            return matching
    return []


def _following_links(start: Path, pattern: Path, hidden: bool) -> list[Path]:
    """What matches `pattern` below `start`; `**` also stands for folders behind links."""
    if "**" not in pattern.parts:
        names = glob.glob(str(pattern), root_dir=start, include_hidden=hidden)  # noqa: PTH207
        return [start / name for name in names]
    place = pattern.parts.index("**")
    above, below = Path(*pattern.parts[:place]), Path(*(pattern.parts[place + 1 :] or ["*"]))
    tops = _following_links(start, above, hidden) if above.parts else [start]
    folders = [folder for top in tops for folder in _folders(top, hidden)]
    return [path for folder in folders for path in _following_links(folder, below, hidden)]


def _folders(top: Path, hidden: bool) -> Iterator[Path]:
    """The folder `top` and all below it, also behind links; each of them once, by one path."""
    # Path.glob follows no link for `**`, and glob.glob runs in circles of them.
    seen: set[str] = set()
    for place, folders, _ in os.walk(top, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if hidden or not name.startswith("."))
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield Path(place)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _beside(path: Path, folder: Path) -> str:
    """The files that a pattern without a match may mean, in words: near names first."""
    root = _literal(path)[0]
    root = root if root.is_dir() else root.parent
    start = root if root != Path(root.anchor) else folder
    names: list[str] = []
    for place, folders, files in os.walk(start):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [
            str(Path(place, name).relative_to(start)) for name in sorted(files) if name[0] != "."
        ]
        if len(names) > MOST_NAMES:
            break
    wanted = str(path.relative_to(start)) if path.is_relative_to(start) else path.name
    near = difflib.get_close_matches(wanted, names, n=SHOWN)
    known = [name for name in names if name.lower().endswith(FORMATS)]
    shown = list(dict.fromkeys([*near, *known]))[:SHOWN]
    where = "" if start == folder else f" in {start}"
    return f"there are{where} {', '.join(shown) or 'no files of a known format'}"
