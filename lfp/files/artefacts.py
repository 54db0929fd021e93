"""Reading and writing of results.

Formats are safe, every file is written aside and moved (:mod:`lfp.files.writing`), and every file
carries the stamp of its settings.

Every reader raises ArtefactError where the file is not what was written, or no such file at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from lfp.files.canonical import canonical_json
from lfp.files.provenance import ArtefactError, rebuild_hint, verified
from lfp.files.writing import aside, naming

if TYPE_CHECKING:
    import pandas as pd  # jobs without tables start sooner without it

Stamp = Mapping[str, Any]
STAMP_KEY = "lfp_stamp"


@contextmanager
def readable(path: str | Path, names: Collection[str] = ("*",)) -> Iterator[Path]:
    """Yield `path` for reading, after its content was checked against its record.

    Of a directory the files are checked whose names match one of the patterns `names`.

    Errors of the reader of the format inside the block become errors that name `path`.
    """
    path = verified(path, names)
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
        _sort_metadata(temporary)


def _sort_metadata(path: Path) -> None:
    """Put the strings in a header in order: the library writes them in a random one every time."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise ValueError(f"{path}: a header of {length} bytes has no room for {len(text)}")
        file.seek(8)
        file.write(text.ljust(length))


@contextmanager
def tensor_file(
    path: str | Path,
    name: str,
    shape: tuple[int, ...],
    stamp: Stamp,
    metadata: Mapping[str, str] | None = None,
) -> Iterator[np.ndarray]:
    """Yield a float16 array that is backed by the one tensor of a safetensors file.

    Values that are assigned to the array reach the file; memory holds as much of it as the system
    keeps. A file with the same header keeps its content, so that work can go on: `path` belongs
    into a :func:`resumable_directory`.

    Parameters
    ----------
    path
        The safetensors file, which is created where there is none with the same header.
    name
        Name of the tensor.
    shape
        Shape of the array.
    stamp
        Settings and digest of the code, kept in the header.
    metadata
        Further strings for the header.
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
        with naming(path), path.open("wb") as file:
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
    """The array `name` of a safetensors file, whose pages come from disk when they are touched.

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
        # Copy on write: a value that is assigned to the array does not reach the file.
        return np.memmap(checked, dtype="<f2", mode="c", offset=offset, shape=tuple(entry["shape"]))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    with readable(path) as file, safe_open(file, framework="numpy") as handle:
        return dict(handle.metadata() or {})
