"""What a file of one's own holds: texts or preference pairs, in which columns, and how many."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfp.files.hub import matching_files
from lfp.registry import nearest
from lfp.settings import Clean
from lfp.start import StartError
from lfp.start.names import plain_name
from lfp.texts.corpora import ASSISTANT_TURN, preference_pairs
from lfp.texts.readers import READERS, read_splits

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

#: Rows at the beginning of a file whose columns are looked at.
HEAD = 200
#: Fewest texts or pairs to learn from, and held-out ones: with fewer, batches repeat a handful of
#: texts, and folds of probes are empty.
LEAST_TRAIN, LEAST_HELD_OUT = 100, 40
#: Held-out texts that are enough for a small share of the file.
ENOUGH_HELD_OUT, SMALL_SHARE, LARGE_SHARE = 500, 0.1, 0.3
#: Words from which on a value is a text and no label, and characters of scripts without spaces.
_WORDS, _CHARACTERS = 3, 20
#: Share of the first texts with tags from which on tags are taken out.
_TAGGED = 0.01
_TAG = re.compile(r"<(?:br|/?p|/?div|/?span|/?[biua])\b[^<>]*>", re.IGNORECASE)
#: Names of files that say nothing of their content.
_COLOURLESS = re.compile(r"(train|test|data)\b.*")
#: Columns of every file of preference pairs.
_PAIR = ("chosen", "rejected")


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """A file of texts or of pairs, as the workflow will read it.

    Parameters
    ----------
    name
        Its name in the configuration.
    path
        Files by split.
    columns
        The file's column of each of the workflow's.
    test_share
        Share that is held out; None where a file of its own is.
    clean
        Cleaning of the texts.
    texts, held_out
        Training texts, or prompts with an answer each, and the number of held-out texts or pairs.
    why
        Where each of these comes from, in words, by its key.
    """

    name: str
    path: Mapping[str, str]
    columns: Mapping[str, str]
    test_share: float | None
    clean: Clean
    texts: Sequence[str]
    held_out: int
    why: Mapping[str, str] = field(default_factory=dict)

    @property
    def has_pairs(self) -> bool:
        """Whether the file has preference pairs."""
        return "chosen" in self.columns


def described(pattern: str, column: str | None = None) -> Corpus:
    """The file or files that `pattern` names, read as a run reads them.

    `column` names the column of texts, or of the prompts of pairs, where the file has several.

    Raises StartError, CorpusError or SourceError where they hold no texts and no pairs, too few, or
    several columns of texts.
    """
    files = {"train": matching_files(".", pattern, "--data")}
    first = files["train"][0]
    names, rows = _head(first)
    if not rows:
        raise StartError(f"--data: {first} has no row; give a file with texts or pairs")
    columns, why = _columns(first, names, rows, column)
    path, why_path = {"train": pattern}, "--data"
    if beside := _held_out_beside(pattern, columns):
        path["test"], why_path = beside, "--data, and the held-out file beside it"
        files["test"] = matching_files(".", beside, "--data")
    log.info("reading %s", ", ".join(path.values()))
    tagged = _tagged(rows, columns)
    clean = Clean(html=tagged > _TAGGED)
    share = None if beside else SMALL_SHARE
    frames, counts = read_splits(files, columns, SMALL_SHARE, 0, clean)
    if share and len(frames["test"]) < ENOUGH_HELD_OUT:
        share = LARGE_SHARE
        frames, counts = read_splits(files, columns, share, 0, clean)
    train, held_out = _documents(frames["train"]), _documents(frames["test"])
    _check_enough(pattern, len(train), len(held_out), counts)
    what = "pairs" if "chosen" in columns else "texts"
    kept = f"{len(train)} {what} to learn from and {len(held_out)} held out"
    read = sum(of_split["read"] for of_split in counts.values())
    return Corpus(
        name=plain_name(_stem(first), what, first), path=path, columns=columns, test_share=share,
        clean=clean, texts=train, held_out=len(held_out),
        why={
            "path": f"{why_path}: {read} rows, of which {kept}",
            "columns": why,
            "test_share": f"of the {read} rows",
            "clean": f"{tagged:.0%} of the first {len(rows)} rows hold tags such as <br />",
        },
    )  # fmt: skip


def _documents(frame: pd.DataFrame) -> list[str]:
    """The texts of a split, or the prompts of its pairs with the chosen answers."""
    if "text" in frame:
        return list(frame["text"])
    pairs, _ = preference_pairs(frame)
    return list(pairs["prompt"] + pairs["chosen"])


def _check_enough(
    pattern: str, train: int, held_out: int, counts: Mapping[str, Mapping[str, int]]
) -> None:
    """Raise StartError where too few rows are left, with what became of the others."""
    if train >= LEAST_TRAIN and held_out >= LEAST_HELD_OUT:
        return
    not_dropped = {"read", "kept", "cleaned"}
    dropped = {
        reason: sum(of_split.get(reason, 0) for of_split in counts.values())
        for of_split in counts.values()
        for reason in of_split
        if reason not in not_dropped
    }
    left_out = ", ".join(f"{n} {name.replace('_', ' ')}" for name, n in dropped.items() if n)
    raise StartError(
        f"--data: {pattern} gives {train} texts or pairs to learn from and {held_out} held out"
        f" (left out: {left_out or 'none'}); at least {LEAST_TRAIN} and {LEAST_HELD_OUT} are"
        " needed: give more rows"
    )


# ----------------------------------------------------------------------------------------- columns


def _head(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """The names of a file's columns and its first rows; CorpusError where it is damaged."""
    ending = next(ending for ending in READERS if path.name.lower().endswith(ending))
    # Readers of tables give the columns that they are asked for: without any, they check the file.
    rows = [dict(row) for _, row in islice(READERS[ending](path, ()), HEAD)]
    if ending in (".parquet", ".arrow"):
        rows = _table_head(path, ending)
    names = dict.fromkeys(name for row in rows for name in row)
    return list(names), rows


def _table_head(path: Path, ending: str) -> list[dict[str, Any]]:
    """The first rows of a Parquet or Arrow file that has been checked."""
    import pyarrow as pa
    from pyarrow import parquet

    if ending == ".parquet":
        batches = parquet.ParquetFile(path).iter_batches(HEAD)
        return next(batches).to_pylist() if parquet.read_metadata(path).num_rows else []
    with path.open("rb") as opened:
        rows: list[dict[str, Any]] = []
        for batch in pa.ipc.open_stream(opened):
            rows += batch.slice(0, HEAD - len(rows)).to_pylist()
            if len(rows) >= HEAD:
                break
        return rows


def _columns(
    path: Path, names: Sequence[str], rows: Sequence[Mapping[str, Any]], asked: str | None
) -> tuple[dict[str, str], str]:
    """The file's column of each of the workflow's, and how it was chosen, in words."""
    if asked is not None and asked not in names:
        raise StartError(f"--column: {path} has no column {asked!r}; {nearest(asked, names)}")
    kinds = {name: _kind([row.get(name) for row in rows]) for name in names}
    listed = f"of the columns {', '.join(names)}"[:200]
    if set(_PAIR) <= set(names):
        return _pair_columns(path, kinds, rows, asked, listed)
    if asked is not None:
        return {"text": asked}, "--column"
    texts = [name for name, kind in kinds.items() if kind == "texts"]
    if "text" in texts:
        return {"text": "text"}, listed
    if len(texts) == 1:
        return {"text": texts[0]}, f"{listed}, the one with texts"
    if texts:
        raise StartError(
            f"--data: {path} has {len(texts)} columns of texts: {_listed(texts)}; say which by"
            " --column NAME. Of preference pairs, name the columns prompt, chosen and rejected"
        )
    seen = ", ".join(f"{name!r} ({kind})" for name, kind in kinds.items())
    raise StartError(
        f"--data: {path} has no column of texts, and no columns chosen and rejected; it has {seen}."
        " Give a file with texts, or name a column of short ones by --column NAME. Of preference"
        " pairs, name the columns prompt, chosen and rejected"
    )


def _pair_columns(
    path: Path,
    kinds: Mapping[str, str],
    rows: Sequence[Mapping[str, Any]],
    asked: str | None,
    listed: str,
) -> tuple[dict[str, str], str]:
    """The columns of preference pairs: two transcripts, or a prompt and two answers.

    Parameters
    ----------
    path
        The file, for messages.
    kinds
        What each column holds.
    rows
        The first rows.
    asked
        The column of prompts that was named on the command line.
    listed
        The names of the columns, in words.
    """
    columns = {name: name for name in _PAIR}
    if wrong := [name for name in _PAIR if kinds[name] not in ("texts", "short texts")]:
        raise StartError(
            f"--data: column {wrong[0]!r} of {path} holds {kinds[wrong[0]]}, expected text; write"
            " each answer, or each whole transcript, as text (docs/corpora.md)"
        )
    if asked is not None:
        return {"prompt": asked} | columns, f"--column; {listed}"
    if "prompt" in kinds:
        return {"prompt": "prompt"} | columns, listed
    if sum(ASSISTANT_TURN in str(row["chosen"]) for row in rows) > len(rows) / 2:
        return columns, f"{listed}; both are transcripts, cut at their last Assistant turn"
    others = [name for name, kind in kinds.items() if kind == "texts" and name not in _PAIR]
    if len(others) == 1:
        return {"prompt": others[0]} | columns, f"{listed}, the other one with texts as the prompt"
    choices = (
        f"the columns of texts are {', '.join(map(repr, others))}"
        if others
        else "there is no other"
    )
    raise StartError(
        f"--data: the answers of {path} are no transcripts (`\\n\\nHuman: ... \\n\\nAssistant:"
        f" ...`), and no column is called prompt; {choices}: name that of the prompts by --column"
    )


def _kind(values: Sequence[Any]) -> str:
    """What a column holds, in words: ``texts``, ``short texts``, or something else."""
    filled = [value for value in values if value is not None and value != ""]
    if not filled:
        return "nothing"
    strange = next((value for value in filled if not isinstance(value, str | bytes)), None)
    if strange is not None:
        return f"values of the type {type(strange).__name__}"
    texts = [
        value if isinstance(value, str) else value.decode(errors="replace") for value in filled
    ]
    return "texts" if sum(map(_is_text, texts)) > len(texts) / 2 else "short texts"


def _is_text(value: str) -> bool:
    """Whether a value is a text of some words, in scripts without spaces of some characters."""
    long = len(value) >= _CHARACTERS and not value.isascii()
    return long or len(value.split()) >= _WORDS


def _listed(names: Sequence[str]) -> str:
    """Names of columns, in a message."""
    return ", ".join(map(repr, names))


def _tagged(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> float:
    """Share of the rows with tags of HTML."""
    hits = [any(_TAG.search(str(row.get(name))) for name in columns.values()) for row in rows]
    return sum(hits) / len(hits)


# ------------------------------------------------------------------------------------------- files


def _held_out_beside(pattern: str, columns: Mapping[str, str]) -> str | None:
    """The held-out file of a file with ``train`` in its name, where it has the same columns."""
    path = Path(pattern)
    other = str(path.with_name(path.name.replace("train", "test")))
    if other == pattern or not (path.is_file() and Path(other).is_file()):
        return None
    names, _ = _head(Path(other))
    return other if set(columns.values()) <= set(names) else None


def _stem(path: Path) -> str:
    """The name of a file without its format, or of its folder where that says nothing."""
    endings = sorted(READERS, key=len, reverse=True)
    ending = next(ending for ending in endings if path.name.lower().endswith(ending))
    stem = path.name[: -len(ending)]
    return path.resolve().parent.name if _COLOURLESS.fullmatch(stem) else stem
