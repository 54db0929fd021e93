"""Readers of corpora on disk: JSON Lines, JSON, CSV, Parquet and Arrow.

Every reader has declared types: a column of a corpus is text, so that ``007``, ``NA`` and ``true``
stay what is written, and a number among texts is an error and no text. Whatever a file holds, its
reader gives rows or raises :class:`CorpusError`.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import logging
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from lfp.settings import Clean
from lfp.texts.cleaning import changed_rows, cleaned
from lfp.texts.corpora import (
    ASSISTANT_TURN,
    check_pairs,
    deduplicated,
    has_pairs,
    preference_pairs,
)

log = logging.getLogger(__name__)

#: First bytes of files that are no text, and the name of what they hold.
_MAGIC = {
    b"\x1f\x8b": "a gzip file: give it the ending .gz",
    b"PAR1": "a Parquet file: give it the ending .parquet",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "a bzip2 file: unpack it",
    b"\xfd7zXZ": "an xz file: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard file: unpack it",
    codecs.BOM_UTF16_LE: "UTF-16: convert the file, e.g. by iconv -f UTF-16 -t UTF-8",
    codecs.BOM_UTF16_BE: "UTF-16: convert the file, e.g. by iconv -f UTF-16 -t UTF-8",
}
_JSON_TYPES = {bool: "true or false", int: "a number", float: "a number", list: "a list"}
#: A row of a file: its place in words, and its values by the file's names of columns.
Row = tuple[str, Mapping[str, Any]]


class CorpusError(ValueError):
    """A file of a corpus does not hold text; the message names file, place and remedy."""


def read_splits(
    files: Mapping[str, Sequence[Path]],
    columns: Mapping[str, str],
    test_share: float,
    seed: int,
    clean: Clean | None = None,
) -> tuple[dict[str, pd.DataFrame], dict[str, dict[str, int]]]:
    """The splits of a corpus on disk, shuffled and without duplicates, and counts of its rows.

    Without a split ``test`` a share `test_share` of ``train`` is held out, by the first turn of
    prompts where there are prompts, so that no dialogue is in both. Training rows and prompts that
    are in ``test`` as well stay in training: the held-out split gives way. A split may come out
    empty; its cells then have rows that say why nothing was estimated.

    Parameters
    ----------
    files
        Files by split, ``train`` and perhaps ``test``.
    columns
        The files' column of each of ours.
    test_share, seed
        The share that is held out, and the seed of the shuffle.
    clean
        What is done to every text before rows are compared; None does nothing.
    """
    frames = {}
    for split, paths in files.items():
        read = pd.concat([read_file(path, columns) for path in paths], ignore_index=True)
        frame, _ = cleaned(read, clean or Clean())
        frame = frame.assign(cleaned=changed_rows(read, frame))
        frames[split] = frame.sample(frac=1, random_state=seed, ignore_index=True)
    if "test" not in frames:
        whole = frames["train"]
        groups, units = pd.factorize(openings(beginnings(whole).fillna("")))
        held_out = groups >= len(units) * (1 - test_share)
        frames = {"train": whole[~held_out], "test": whole[held_out]}
    frames = {"train": frames["train"], "test": frames["test"]}
    texts = {split: frame.drop(columns="cleaned") for split, frame in frames.items()}
    result, counts = deduplicated(texts, sorted(columns), beginnings)
    for split, frame in result.items():
        counts[split]["cleaned"] = int(frames[split]["cleaned"].sum())
        if has_pairs(frame):
            counts[split] |= preference_pairs(frame)[1]
            _check_pairs(frame, files.get(split) or files["train"])
        log.info("split %r: %s", split, counts[split])
        if frame.empty:
            read = counts[split]["read"]
            log.warning(
                "split %r has no row left of %d: nothing of it can be estimated; check `columns`",
                split,
                read,
            )
    return result, counts


def _check_pairs(frame: pd.DataFrame, paths: Sequence[Path]) -> None:
    try:
        check_pairs(frame, ", ".join(map(str, paths)))
    except ValueError as error:
        raise CorpusError(str(error)) from None


def beginnings(frame: pd.DataFrame) -> pd.Series:
    """The text or the prompt (also of transcripts) of every row, which no two splits may share."""
    if "text" in frame or "prompt" in frame:
        return frame["text" if "text" in frame else "prompt"]
    return preference_pairs(frame)[0]["prompt"].reindex(frame.index).fillna(frame["chosen"])


def openings(starts: pd.Series) -> pd.Series:
    """The first turns of dialogues that begin with `starts`, and all of texts that are none.

    Where one turn opens more than half of them, as a system's text does, they stay whole.
    """
    first = starts.str.partition(ASSISTANT_TURN)[0].str.strip()
    return starts if first.value_counts(normalize=True).max() > 0.5 else first


def read_file(path: str | Path, columns: Mapping[str, str]) -> pd.DataFrame:
    """The columns of a file that `columns` {ours: theirs} names, under our names, as text.

    The format is that of the file's ending, :data:`READERS`. A missing value is None. Line ends
    become ``\\n``.

    Raises CorpusError where the file is not of its format, lacks a column, or holds what is no
    text.
    """
    path = Path(path)
    name = path.name.lower()
    reader = next((READERS[ending] for ending in READERS if name.endswith(ending)), None)
    if reader is None:
        raise CorpusError(f"{path}: unknown format; expected {', '.join(READERS)}")
    names: dict[str, None] = {}
    values: dict[str, list[str | None]] = {ours: [] for ours in columns}
    try:
        for place, row in reader(path, list(columns.values())):
            names |= dict.fromkeys(row)
            for ours, theirs in columns.items():
                value = row.get(theirs)
                values[ours].append(_text(value, f"{path}: {place}: column {theirs!r}"))
    except OSError as error:
        raise CorpusError(
            f"{path}: {error.strerror or error}; expected a file that can be read"
        ) from error
    if names:
        _check_columns(path, names, columns.values())
    return pd.DataFrame({ours: pd.Series(of, dtype="str") for ours, of in values.items()})


def _check_columns(path: Path, names: Mapping[str, Any], wanted: Sequence[str]) -> None:
    """Raise CorpusError where a wanted column is not among the `names` of a file's columns."""
    for name in wanted:
        if name not in names:
            raise CorpusError(
                f"{path}: no column {name!r}; it has {', '.join(map(str, names))}."
                " Set the corpus's `columns` in the configuration to names that are there."
            )


def _text(value: Any, where: str) -> str | None:
    """`value` where it is text that every later stage can hold; None stays."""
    if value is None:
        return None
    if isinstance(value, bytes):
        try:
            value = value.decode()
        except UnicodeDecodeError:
            raise CorpusError(f"{where} is not UTF-8: convert the file's texts") from None
    if not isinstance(value, str):
        kind = _JSON_TYPES.get(type(value), "an object")
        raise CorpusError(
            f"{where} holds {str(value)[:40]} ({kind}), expected text: write it in quotes, or name"
            " another column in `columns`"
        )
    if "\0" in value:
        raise CorpusError(f"{where} holds the character NUL, which no text has: take it out")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CorpusError(
            f"{where} holds half a surrogate pair ({value[error.start]!a}), which is no character:"
            " write the text anew from its source"
        ) from None
    return value.replace("\r\n", "\n").replace("\r", "\n")


# ----------------------------------------------------------------------------------- text formats


def _content(path: Path) -> str:
    """The text of a file, which may be packed by gzip."""
    data = path.read_bytes()
    if path.name.lower().endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise CorpusError(
                f"{path}: not a whole gzip file ({error}): fetch or pack it again, or take the"
                " ending .gz off a file that is not packed"
            ) from error
    for magic, kind in _MAGIC.items():
        if data.startswith(magic):
            raise CorpusError(f"{path}: begins as {kind}")
    if b"\0" in data[:2]:
        raise CorpusError(
            f"{path}: begins with the character NUL, as UTF-16 without a mark does: convert the"
            " file, e.g. by iconv -f UTF-16LE -t UTF-8"
        )
    data = data.removeprefix(codecs.BOM_UTF8)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorpusError(
            f"{path}: line {line} is not UTF-8 (byte {data[error.start]:#04x}; is it Latin-1?):"
            " convert the file, e.g. by iconv -f LATIN1 -t UTF-8"
        ) from None


def _parsed(text: str, path: Path, line: int, remedy: str) -> Any:
    """The value of the JSON `text`, which begins at the number `line` of a file."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        raise CorpusError(
            f"{path}: line {line + error.lineno - 1} is not JSON ({error.msg} at character"
            f" {error.colno}): {remedy}"
        ) from None
    except (ValueError, RecursionError) as error:
        raise CorpusError(f"{path}: line {line} cannot be read ({error}): {remedy}") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; ValueError where it has a key twice."""
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the key {twice[0]!r} twice")
    return dict(pairs)


def _object(value: Any, path: Path, place: str, remedy: str) -> Row:
    if not isinstance(value, dict):
        raise CorpusError(
            f"{path}: {place} is {_JSON_TYPES.get(type(value), 'text or null')}, expected an object"
            f' such as {{"text": "..."}}; {remedy}'
        )
    return place, value


def _json_lines(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    return _lines(path, _content(path), "a file that is one array must have the ending .json")


def _lines(path: Path, text: str, form: str) -> Iterator[Row]:
    """The objects on the lines of a file; `form` says which form another file has."""
    remedy = f"correct the line; a file of JSON Lines has one object on every line, and {form}"
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield _object(_parsed(line, path, number, remedy), path, f"line {number}", form)


def _json(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """One array of objects, or JSON Lines."""
    text = _content(path)
    if not text.lstrip().startswith("["):
        form = "another .json is one array of objects, without an object around it"
        yield from _lines(path, text, form)
        return
    for number, value in enumerate(_parsed(text, path, 1, "correct the array"), 1):
        remedy = "write every text as such an object"
        yield _object(value, path, f"row {number} of the array", remedy)


def _csv(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    # The standard library's reader keeps every value as it is written and counts lines; pandas
    # fills short rows and renames repeated columns without a word.
    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.StringIO(_content(path), newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader, None)
        except csv.Error as error:
            raise CorpusError(
                f"{path}: the row at line {line} is not CSV ({error}): close its quotes, and write"
                ' a quote within a text as ""'
            ) from None
        if values is None:
            break
        if not values:
            continue
        if header is None:
            header = values
            _check_commas(path, header, wanted)
            twice = [name for name, count in Counter(header).items() if count > 1]
            if set(twice) & set(wanted):
                raise CorpusError(f"{path}: line {line}: two columns {twice[0]!r}: rename one")
            _check_columns(path, dict.fromkeys(header), wanted)
        elif len(values) != len(header):
            raise CorpusError(
                f"{path}: the row at line {line} has {len(values)} values, and the header names"
                f" {len(header)}: put texts with commas or line ends in quotes"
            )
        else:
            yield f"the row at line {line}", dict(zip(header, values, strict=True))
    if header is None:
        raise CorpusError(f"{path}: empty, expected a line with the names of columns")


def _check_commas(path: Path, header: Sequence[str], wanted: Sequence[str]) -> None:
    """Raise CorpusError where the names of a header are parted by another sign than commas."""
    for sign, name in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        parts = [part.strip('" ') for part in ",".join(header).split(sign)]
        if len(parts) > 1 and set(wanted) <= set(parts) - set(header):
            raise CorpusError(
                f"{path}: values are parted by {name}, expected commas: write the file anew, e.g."
                f" by pandas: read_csv({path.name!r}, sep={sign!r}).to_csv(..., index=False)"
            )


# ------------------------------------------------------------------------------ Parquet and Arrow


def _parquet(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """Columns of strings, of dictionaries of strings, or of bytes that are UTF-8."""
    from pyarrow import parquet

    with path.open("rb") as opened:  # an error of the system's, where it cannot be read
        opened.read(1)
    try:
        file = parquet.ParquetFile(path)
        schema = file.schema_arrow
    except Exception as error:  # damaged bytes raise errors of any class
        raise _damaged(path, error) from error
    _check_schema(path, schema, wanted)
    yield from _table(path, lambda: file.read(columns=list(wanted)), wanted)


def _arrow(path: Path, wanted: Sequence[str]) -> Iterator[Row]:
    """A stream of record batches, as `save_to_disk` of the library datasets writes it."""
    import pyarrow as pa

    with path.open("rb") as opened:
        try:
            stream = pa.ipc.open_stream(opened)
            schema = stream.schema
        except Exception as error:
            raise _damaged(path, error) from error
        _check_schema(path, schema, wanted)
        yield from _table(path, stream.read_all, wanted)


def _check_schema(path: Path, schema: Any, wanted: Sequence[str]) -> None:
    """Raise CorpusError where a wanted column is not there once, or holds no text."""
    import pyarrow as pa

    kinds = dict(zip(schema.names, schema.types, strict=True))
    _check_columns(path, kinds, wanted)
    for name in wanted:
        kind = kinds[name]
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        texts = (
            pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view,
            pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_null,
        )  # fmt: skip
        if not any(is_kind(value) for is_kind in texts):
            raise CorpusError(
                f"{path}: column {name!r} is of type {kind}, expected strings: convert it, or name"
                " another column in `columns`"
            )
        if schema.names.count(name) > 1:
            raise CorpusError(f"{path}: two columns {name!r}: rename one")


def _table(path: Path, read: Callable[[], Any], wanted: Sequence[str]) -> Iterator[Row]:
    """The rows of the table of Arrow that `read` returns."""
    try:
        table = read()
        columns = {name: _bytes(table[name]) for name in wanted}
    except Exception as error:
        raise _damaged(path, error) from error
    for number, values in enumerate(zip(*columns.values(), strict=True), 1):
        yield f"row {number}", dict(zip(columns, values, strict=True))


def _bytes(column: Any) -> list[bytes | None]:
    """The bytes of every value: they are decoded one by one, so that a message has their row.

    Every place in the file's bytes is checked before it is read: one behind their end would be
    memory of something else, or the end of the process.
    """
    import pyarrow as pa

    column.validate()
    if pa.types.is_dictionary(column.type):
        column.validate(full=True)  # numbers of entries that there are
        column = column.cast(column.type.value_type)
    # As bytes, a text is checked for its place and not for its characters.
    as_bytes = {
        pa.string(): pa.binary(), pa.large_string(): pa.large_binary(),
        pa.string_view(): pa.binary_view(),
    }  # fmt: skip
    kind = as_bytes.get(column.type, column.type)
    values = []
    for chunk in column.chunks:
        viewed = chunk.view(kind)
        viewed.validate(full=True)
        values += viewed.to_pylist()
    return values


def _damaged(path: Path, error: Exception) -> CorpusError:
    message = " ".join(str(error).split())[:200]
    kind = "Arrow" if path.suffix.lower() == ".arrow" else "Parquet"
    return CorpusError(
        f"{path}: not a whole {kind} file ({message}): fetch or write it again, or correct its"
        " ending"
    )


#: Reader of each format, by the ending of a file's name.
READERS: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _json_lines,
    ".jsonl.gz": _json_lines,
    ".json": _json,
    ".json.gz": _json,
    ".csv": _csv,
    ".csv.gz": _csv,
    ".parquet": _parquet,
    ".arrow": _arrow,
}
