"""Reading and writing results: safe formats only, written aside and moved, stamped with their provenance.

A killed Snakemake leaves its job running and a restart starts a second writer of the same file, so every
writer here fills a temporary sibling and moves it.
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
from safetensors import safe_open
from safetensors.numpy import save_file

from workflow_scripts.lfp.canonical import canonical_json

if TYPE_CHECKING:
    import pandas as pd  # jobs without tables start sooner without it

Stamp = Mapping[str, Any]
STAMP_KEY = "lfp_stamp"


@contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` that replaces it when the block ends without an exception."""
    path = Path(path)
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
    """Yield a temporary directory that replaces the directory `path`; `stamp` is stored as ``stamp.json``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        if stamp is not None:
            (temporary / "stamp.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
        temporary.chmod(0o755)
        if path.exists():
            shutil.rmtree(path)
        temporary.replace(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_json(path: str | Path, value: Mapping[str, Any], stamp: Stamp) -> None:
    """Write `value` with its `stamp` as indented JSON; raises ValueError on NaN or infinity."""
    text = json.dumps({**value, STAMP_KEY: stamp}, indent=1, sort_keys=True, allow_nan=False)
    with aside(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> dict[str, Any]:
    """Read a JSON object written by :func:`write_json`."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


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

    return pd.read_parquet(path)


def write_tensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], stamp: Stamp, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays as safetensors with the `stamp` and string `metadata` in the header."""
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with aside(path) as temporary:
        save_file(contiguous, temporary, {**(metadata or {}), STAMP_KEY: canonical_json(stamp)})


@contextmanager
def tensor_file(
    path: str | Path, name: str, shape: tuple[int, ...], stamp: Stamp, metadata: Mapping[str, str] | None = None
) -> Iterator[np.ndarray]:
    """Yield a float16 array of `shape` that is the safetensors file `path` with the one tensor `name`.

    What is assigned to the array is in the file; memory holds what the system keeps of it.
    """
    size = 2 * int(np.prod(shape))
    header = {
        "__metadata__": {**(metadata or {}), STAMP_KEY: canonical_json(stamp)},
        name: {"dtype": "F16", "shape": list(shape), "data_offsets": [0, size]},
    }
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # the format aligns data to eight bytes
    with aside(path) as temporary:
        with temporary.open("wb") as file:
            file.write(len(encoded).to_bytes(8, "little") + encoded)
            file.truncate(8 + len(encoded) + size)
        array = np.memmap(temporary, dtype="<f2", mode="r+", offset=8 + len(encoded), shape=shape)
        yield array
        array.flush()
        del array


def read_tensors(path: str | Path, names: list[str] | None = None) -> dict[str, np.ndarray]:
    """Read the named arrays (default: all) of a safetensors file."""
    with safe_open(path, framework="numpy") as handle:
        return {name: handle.get_tensor(name) for name in (names or handle.keys())}


def open_tensor(path: str | Path, name: str) -> np.ndarray:
    """The array `name` of a safetensors file without reading it: pages come from disk when they are touched.

    Raises ValueError where the file has no such array of float16.
    """
    with Path(path).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(length)).get(name, {})
    if entry.get("dtype") != "F16":
        raise ValueError(f"{path}: expected an array {name!r} of float16, found {entry or 'none'}")
    offset = 8 + length + entry["data_offsets"][0]
    # Copy on write: nothing that is assigned to the array reaches the file.
    return np.memmap(path, dtype="<f2", mode="c", offset=offset, shape=tuple(entry["shape"]))


def read_metadata(path: str | Path) -> dict[str, str]:
    """The string metadata of a safetensors file."""
    with safe_open(path, framework="numpy") as handle:
        return dict(handle.metadata() or {})
