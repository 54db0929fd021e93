"""Reading and writing results: safe formats only, written aside and moved, stamped with their
settings.

A killed Snakemake leaves its job running and a restart starts a second writer of the same file, so
every writer here fills a temporary sibling and moves it. Every reader raises ArtefactError where
the file is not what was written, or no such file at all.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lfp.files.canonical import canonical_json
from lfp.files.provenance import ArtefactError, rebuild_hint, verified

if TYPE_CHECKING:
    import pandas as pd  # jobs without tables start sooner without it

Stamp = Mapping[str, Any]
STAMP_KEY = "lfp_stamp"


@contextmanager
def _writing(path: str | Path) -> Iterator[None]:
    """Name `path` in whatever keeps it from being written: a full disk, a folder that cannot be
    entered.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = getattr(error, "strerror", None) or error
        raise OSError(f"{path}: cannot be written ({what}); nothing of it was kept") from error


@contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it when the block ends without an
    exception.
    """
    path = Path(path)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def directory_aside(path: str | Path, stamp: Stamp | None = None) -> Iterator[Path]:
    """Yield a temporary directory that replaces the directory `path`; `stamp` is stored as
    ``stamp.json``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if stamp is not None:
            (temporary / "stamp.json").write_text(
                json.dumps(stamp, indent=1, sort_keys=True) + "\n"
            )
        temporary.chmod(0o755)
        _replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumable_directory(path: str | Path, state: str | Path, stamp: Stamp) -> Iterator[Path]:
    """Yield the directory `state`, with what an earlier attempt left in it; it replaces `path` when
    the block ends.

    Where the block ends by an exception, `state` stays for the next attempt.
    """
    state = Path(state)
    state.mkdir(parents=True, exist_ok=True)
    yield state
    (state / "stamp.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
    _replace_directory(state, Path(path))


def _replace_directory(new: Path, path: Path) -> None:
    """Move `new` to `path`; what is there goes aside first, so that the path is missing for a
    moment only.
    """
    old = None
    if path.exists():
        old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        path.rename(old / path.name)
    new.rename(path)
    if old:
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def readable(path: str | Path) -> Iterator[Path]:
    """Yield `path` to read it: checked against its record before, and named by whatever the
    format's reader says.
    """
    path = verified(path)
    try:
        yield path
    except (ArtefactError, FileNotFoundError):
        raise
    except (ValueError, KeyError, OSError, SafetensorError) as error:
        raise ArtefactError(f"{path}: cannot be read ({error}); {rebuild_hint(path)}") from error


def write_json(path: str | Path, value: Mapping[str, Any], stamp: Stamp) -> None:
    """Write `value` with its `stamp` as indented JSON; raises ValueError on NaN or infinity."""
    text = json.dumps({**value, STAMP_KEY: stamp}, indent=1, sort_keys=True, allow_nan=False)
    with aside(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object written by :func:`write_json`."""
    with readable(path) as file:
        return json.loads(file.read_text(encoding="utf-8"))


def write_table(path: str | Path, frame: pd.DataFrame, stamp: Stamp) -> None:
    """Write `frame` as Parquet with the `stamp` in the file's metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), STAMP_KEY.encode(): canonical_json(stamp).encode()}
    with aside(path) as temporary:
        pq.write_table(table.replace_schema_metadata(metadata), temporary)


def read_table(path: str | Path) -> pd.DataFrame:
    """Read a Parquet file as a data frame."""
    import pandas as pd

    with readable(path) as file:
        return pd.read_parquet(file)


def write_tensors(
    path: str | Path,
    tensors: Mapping[str, np.ndarray],
    stamp: Stamp,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as safetensors with the `stamp` and string `metadata` in the header."""
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with aside(path) as temporary:
        save_file(contiguous, temporary, {**(metadata or {}), STAMP_KEY: canonical_json(stamp)})


@contextmanager
def tensor_file(
    path: str | Path,
    name: str,
    shape: tuple[int, ...],
    stamp: Stamp,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[np.ndarray]:
    """Yield a float16 array of `shape` that is the safetensors file `path` with the one tensor
    `name`.

    What is assigned to the array is in the file; memory holds what the system keeps of it. A file
    of the same header keeps its content, so that work can go on: `path` belongs into a
    :func:`resumable_directory`.
    """
    size = 2 * int(np.prod(shape))
    header = {
        "__metadata__": {**(metadata or {}), STAMP_KEY: canonical_json(stamp)},
        name: {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]},
    }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format aligns data to eight bytes
    start, path = len(encoded).to_bytes(8, "little") + encoded, Path(path)
    if (
        not path.exists()
        or path.stat().st_size != len(start) + size
        or not _begins_with(path, start)
    ):
        with _writing(path), path.open("wb") as file:
            file.write(start)
            file.truncate(len(start) + size)
            if hasattr(os, "posix_fallocate"):  # not on macOS
                # Room for all of it now: a mapped file on a disk that fills up later ends the
                # process without a word.
                os.posix_fallocate(file.fileno(), 0, len(start) + size)
    array = np.memmap(path, dtype="<f2", mode="r+", offset=len(start), shape=shape)
    yield array
    array.flush()
    del array


def _begins_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(start)) == start


def read_tensors(path: str | Path, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Read the named arrays (default: all) of a safetensors file."""
    with readable(path) as file, safe_open(file, framework="numpy") as handle:
        return {name: handle.get_tensor(name) for name in (names or handle.keys())}


def open_tensor(path: str | Path, name: str) -> np.ndarray:
    """The array `name` of a safetensors file without reading it: pages come from disk when they are
    touched.

    Raises ArtefactError where the file has no such array of float16.
    """
    with readable(path) as checked:
        with safe_open(
            checked, framework="numpy"
        ) as handle:  # refuses a header that does not fit the file
            kind = handle.get_slice(name).get_dtype()
        if kind != "F16":
            raise ValueError(f"expected an array {name!r} of float16, found {kind}")
        with checked.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            entry = json.loads(file.read(length))[name]
        offset = 8 + length + entry["data_offsets"][0]
        # Copy on write: nothing that is assigned to the array reaches the file.
        return np.memmap(checked, dtype="<f2", mode="c", offset=offset, shape=tuple(entry["shape"]))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    with readable(path) as file, safe_open(file, framework="numpy") as handle:
        return dict(handle.metadata() or {})
