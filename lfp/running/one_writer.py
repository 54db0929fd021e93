"""One writer for an output on one machine.

A killed Snakemake leaves jobs running that a restart starts again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from lfp.files.provenance import record_path
from lfp.running.lease import shared_folder

log = logging.getLogger(__name__)
#: The line of the log for a resume point that is not taken.
STATE = (
    "the resume point of a job with other settings, code, versions, inputs, threads or device: the"
    " work starts anew"
)
#: Descriptors of the locks; they stay open, and locked, as long as the process lives.
_locks: list[int] = []


def claim(outputs: Sequence[str | Path]) -> None:
    """Become the only writer of `outputs` on this machine, after waiting for any other writer.

    The terminal tells of the wait: the log belongs to the other writer until then. The kernel frees
    the claim when the process is dead, however it died.
    """
    folder = shared_folder("lfp-writers")
    folder.mkdir(exist_ok=True)
    name = hashlib.sha256(str(Path(outputs[0]).resolve()).encode()).hexdigest()[:24]
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600)
    _locks.append(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(handle, 20, 0).decode() or "unknown"
        print(
            f"another process ({holder}) writes {outputs[0]}, left by a killed Snakemake;"
            " waiting for its end",
            file=sys.stderr,
            flush=True,
        )
        fcntl.flock(handle, fcntl.LOCK_EX)
    os.ftruncate(handle, 0)
    os.pwrite(handle, str(os.getpid()).encode(), 0)


def clear(outputs: Sequence[str | Path], keep: Sequence[Path]) -> None:
    """Remove all that killed writers of `outputs` left beside them.

    These are half-written files, records, and all resume points except those in `keep`.
    """
    for output in map(Path, outputs):
        # The record of an earlier job must not speak of this one's files.
        record_path(output).unlink(missing_ok=True)
        for path in _left_beside(output):
            if path not in keep:
                state = path.name.startswith(f".{output.name}.state-")
                kind = STATE if state else "which an earlier job left"
                log.info("removing %s, %s", path, kind)
                remove(path)


def remove(path: Path) -> None:
    """Delete a file or a directory, if there is one."""
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _left_beside(output: Path) -> list[Path]:
    """Resume points of an output, and temporary siblings of it, of them and of its record."""
    if not output.parent.is_dir():
        return []
    name, state = re.escape(output.name), "state-[0-9a-f]{12}"
    kinds = re.compile(
        rf"\.{name}\.([a-z0-9_]{{8}}|{state})"
        rf"|\.\.{name}\.({state}|provenance\.json)\.[a-z0-9_]{{8}}"
    )
    return [path for path in output.parent.iterdir() if kinds.fullmatch(path.name)]
