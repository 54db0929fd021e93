"""Digests of the files that a run reads from outside the results.

They are the files behind `path` keys, and the modules of a reward of the user's own. The digests
reach jobs as parameters, so that an edit makes what depends on it anew, and a touch does not:
Snakemake itself would compare times of change, and contents of small files alone.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

from lfp.files.canonical import canonical_json
from lfp.files.provenance import file_digest
from lfp.files.writing import aside
from lfp.running.digest import code_digest, module_path, syntax_digest

#: Digests by path, below the working directory, so that large files are read once.
CACHE = Path(".snakemake") / "lfp-sources.json"
#: Nanoseconds within which a file may change twice without a change of its times.
TICK = 2_000_000_000


def content_digest(files: Iterable[tuple[str, Path]]) -> str:
    """Digest, of 16 hexadecimal digits, of the names and contents of `files`, in their order."""
    cache = _Cache()
    digests = [[name, cache.digest(path)] for name, path in files]
    cache.save()
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:16]


class _Cache:
    """SHA-256 of files, kept with what tells that a file is the same."""

    def __init__(self) -> None:
        try:
            entries = json.loads(CACHE.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            entries = {}
        self.entries = entries if isinstance(entries, dict) else {}
        self.is_changed = False

    def digest(self, path: Path) -> str:
        """SHA-256 of a file, which is read only where it may have changed."""
        status = path.stat()
        # The time of change of the inode also tells of an edit after which the time of change of
        # the content was put back.
        mark = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
        name = str(path.resolve())
        entry = self.entries.get(name)
        if isinstance(entry, list) and entry[:-1] == mark:
            return entry[-1]
        digest = file_digest(path)
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > TICK:
            self.entries[name] = [*mark, digest]
            self.is_changed = True
        return digest

    def save(self) -> None:
        """Write the digests where there are new ones; a folder that cannot be written has none."""
        if self.is_changed:
            with contextlib.suppress(OSError), aside(CACHE) as temporary:
                temporary.write_text(canonical_json(self.entries), encoding="utf-8")


# ------------------------------------------------------------------------------ modules of the user


def module_file(module: str, folder: Path) -> Path | None:
    """The file of `module` below `folder`, as Python looks for it; None where there is none."""
    base = folder.joinpath(*module.split("."))
    return next((p for p in (base / "__init__.py", base.with_suffix(".py")) if p.is_file()), None)


def module_digest(module: str, folder: Path) -> str:
    """Digest of `module` and of all modules below `folder` that it imports, directly or not.

    Modules of the workflow count as they do for its own code, and comments and docstrings as they
    do there, for nothing. Nothing is imported; modules that are not named in the text of an import
    are not seen. Raises SyntaxError where a file is no Python.
    """
    digests: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        if not name or name in digests:
            continue
        if name.partition(".")[0] == "lfp":
            if module_path(name) is not None:
                digests[name] = code_digest(name)
            continue
        path = module_file(name, folder)
        if path is not None:
            digests[name] = syntax_digest(path)
            # Importing a module runs the packages that hold it first.
            todo += [name.rpartition(".")[0], *_imported(name, path)]
    return hashlib.sha256(canonical_json(digests).encode()).hexdigest()[:16]


def _imported(module: str, path: Path) -> set[str]:
    """Names of modules, and of what may be modules, that `module` imports."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_bytes(), filename=str(path))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join(filter(None, [*above, node.module]))
            names |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return names
