"""Writing aside and moving, so that nobody ever reads half of a file.

A killed Snakemake leaves its job running and a restart starts a second writer of the same file, so
every writer fills a temporary sibling and moves it. What is written may be read by whom the umask
says. Nothing here knows what is written, so nothing here changes a number.
"""

from __future__ import annotations

import json
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Name `path` in errors that keep it from being written.

    Such errors are a full disk, or a folder that cannot be entered.
    """
    try:
        yield
    except (OSError, SafetensorError) as error:
        what = getattr(error, "strerror", None) or error
        raise OSError(f"{path}: cannot be written ({what}); nothing of it was kept") from error


def _sibling(path: Path) -> Path:
    """A path beside `path` that nothing has; the system gives what is made there its mode."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}")


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextmanager
def aside(path: str | Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path`, which replaces it when the block ends without error."""
    path = Path(path)
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _sibling(path)
        temporary.touch(exist_ok=False)
        mode = _mode(temporary)
        try:
            yield temporary
            temporary.chmod(mode)  # some writers leave a file that its owner alone can read
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def directory_aside(path: str | Path, stamp: Mapping[str, Any] | None = None) -> Iterator[Path]:
    """Yield a temporary directory that replaces the directory `path`.

    `stamp` is stored in it as ``stamp.json``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _sibling(path)
    temporary.mkdir()
    try:
        yield temporary
        if stamp is not None:
            (temporary / "stamp.json").write_text(
                json.dumps(stamp, indent=1, sort_keys=True) + "\n"
            )
        _replace_directory(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def resumable_directory(
    path: str | Path, state: str | Path, stamp: Mapping[str, Any]
) -> Iterator[Path]:
    """Yield the directory `state`, which replaces `path` when the block ends.

    It still holds the files that an earlier attempt left in it.

    Where the block ends by an exception, `state` stays for the next attempt.
    """
    state = Path(state)
    state.mkdir(parents=True, exist_ok=True)
    yield state
    (state / "stamp.json").write_text(json.dumps(stamp, indent=1, sort_keys=True) + "\n")
    _replace_directory(state, Path(path))


def _replace_directory(new: Path, path: Path) -> None:
    """Move `new` to `path`.

    An older directory goes aside first, so that the path is missing for a moment only. All in it
    may be read as `new` itself may, which the system made by the umask.
    """
    mode = _mode(new)
    for inside in new.rglob("*"):
        if not inside.is_symlink():
            inside.chmod(mode if inside.is_dir() else mode & 0o666)
    old = None
    if path.exists():
        old = _sibling(path)
        old.mkdir()
        path.rename(old / path.name)
    new.rename(path)
    if old:
        shutil.rmtree(old, ignore_errors=True)
