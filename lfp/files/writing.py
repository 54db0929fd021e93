"""Writing aside and moving, so that nobody ever reads half of a file.

A killed Snakemake leaves its job running and a restart starts a second writer of the same file, so
every writer fills a temporary sibling and moves it. What is written may be read by whom the umask
says. Nothing here knows what is written, so nothing here changes a number.
"""

from __future__ import annotations

import errno
import json
import re
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

#: Numbers of the system's errors for a disk, a quota or a file that has no more room.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


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


@contextmanager
def _naming_full(path: Path) -> Iterator[None]:
    """Name `path` in errors of a full disk alone, since the block may also read other files.

    Writers in Rust put the system's number into the text of an exception of their own.
    """
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)", str(error))
        if (int(number[1]) if number else getattr(error, "errno", None)) not in FULL:
            raise
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
        with _naming_full(path):
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
    path: str | Path, state: str | Path, names: Collection[str], stamp: Mapping[str, Any]
) -> Iterator[Path]:
    """Yield the directory `state`, which replaces `path` when the block ends.

    It still holds the files that an earlier attempt left in it; of these and of those that the
    block wrote, `path` has the files called `names`, with ``stamp.json``, and no other.

    Where the block ends by an exception, `state` stays for the next attempt.
    """
    state = Path(state)
    state.mkdir(parents=True, exist_ok=True)
    yield state
    for left in state.iterdir():
        if left.name not in names:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    with naming(state / "stamp.json"):
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
