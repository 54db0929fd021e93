"""Digests of code, so that a result is made again when its code changed and only then.

The digest of a script covers the syntax trees of the script and of every local module that it
imports, directly or not, with the packages that hold them. A module with a data file beside it,
``name.yaml`` beside ``name.py``, is digested with what the file says. Comments, docstrings and
formatting are part of neither, and times and places are not either, so a comment, a checkout or a
touch changes nothing. An entry of a registry, a string such as ``"lfp.sae.topk:TopK"``, counts as
an import of its module (:mod:`lfp.registry`).

What is read from a file is kept by the file's content, so that the next process parses no file
again that has not changed.

Modules that change no number (:data:`NUMBERLESS`) are in no digest, so that a better message or a
mended lease does not train every model again.
"""

from __future__ import annotations

import ast
import atexit
import hashlib
import json
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import resolve_name
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from lfp.files.writing import aside

ROOT = Path(__file__).parent.parent.parent
#: What earlier processes have read from files with the same content.
KEPT = Path(".snakemake") / "lfp_digests.json"
#: An entry of a registry.
ENTRY = re.compile(r"\w+(\.\w+)*:\w+")
#: Modules that change no number: display, the machinery of jobs and files, checks of files, and the
#: classes of settings, whose values reach jobs as parameters. They import no local module but each
#: other, so that nothing that does change a number hides behind them.
NUMBERLESS = frozenset(
    {
        "lfp.files.provenance", "lfp.files.vocabularies", "lfp.files.writing",
        "lfp.reporting", "lfp.reporting.escapes", "lfp.reporting.keys", "lfp.reporting.progress",
        "lfp.reporting.tensorboard", "lfp.reporting.unestimated",
        "lfp.running", "lfp.running.benchmark", "lfp.running.digest", "lfp.running.glibc",
        "lfp.running.job", "lfp.running.lease", "lfp.running.log", "lfp.running.one_writer",
        "lfp.settings", "lfp.settings.changes", "lfp.settings.dictionaries", "lfp.settings.fields",
        "lfp.settings.finetuning", "lfp.settings.latents", "lfp.settings.methods",
        "lfp.settings.objects", "lfp.settings.probing", "lfp.settings.stages",
    }
)  # fmt: skip


#: Registries of which every job names the entry that it loads (:meth:`lfp.planning.Planner.job`).
#: They and their other entries are in no digest of a script, so that one more reward trains no
#: policy again and one more architecture no autoencoder.
REGISTRIES = frozenset({"lfp.feedback.rewards", "lfp.sae.architectures"})


@cache
def module_path(module: str) -> Path | None:
    """File of a local module, one that lies beside the Snakefile or below; None for another."""
    base = ROOT.joinpath(*module.split("."))
    return next(
        (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None
    )


class _Facts(NamedTuple):
    """What digests need of one file: the names that it imports, and the digest of its code."""

    imports: list[str]
    digest: str


@cache
def _facts(path: Path) -> _Facts:
    """The facts of a file, from an earlier process where it had the same content then."""
    data = data_file(path)
    # A module without a data file is another one than a module with an empty data file.
    parts = [one.read_bytes() for one in (path, data) if one is not None]
    key = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    kept = _kept()
    if key not in kept:
        kept[key] = _read_facts(path, data)
        atexit.unregister(_keep)
        atexit.register(_keep)
    imports, read = kept[key]
    return _Facts(imports, read)


def _read_facts(path: Path, data: Path | None) -> _Facts:
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    imported = _imports(tree)
    content = ast.dump(_WithoutDocstrings().visit(tree), annotate_fields=False)
    if data is not None:
        # Order counts: a random draw takes the n-th of what is listed.
        content += repr(yaml.safe_load(data.read_text(encoding="utf-8")))
    return _Facts(sorted(imported), hashlib.sha256(content.encode()).hexdigest())


def syntax_digest(path: Path) -> str:
    """Digest of a Python file without its comments, docstrings and formatting.

    Raises SyntaxError where it is no Python.
    """
    tree = _WithoutDocstrings().visit(ast.parse(path.read_bytes(), filename=str(path)))
    return hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest()


def _imports(tree: ast.Module) -> set[str]:
    """Names of modules, and of what may be modules; relative ones begin with their dots."""
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            within = base if base.endswith(".") else f"{base}."
            imported |= {base} | {f"{within}{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and ENTRY.fullmatch(node.value)
        ):
            imported.add(node.value.partition(":")[0])
    return imported


@cache
def _kept() -> dict[str, Sequence[Any]]:
    """Facts by the content of files, as earlier processes of this Python and code kept them."""
    try:
        saved = json.loads(KEPT.read_text(encoding="utf-8"))
        return saved["facts"] if saved["by"] == _maker() else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _keep() -> None:
    """Keep the facts for later processes, where the workflow has a folder for its own files."""
    if not KEPT.parent.is_dir():
        return
    with suppress(OSError), aside(KEPT) as temporary:
        temporary.write_text(json.dumps({"by": _maker(), "facts": _kept()}), encoding="utf-8")


def _maker() -> str:
    """What decides how facts are read from a file: this module and the version of Python."""
    return f"{sys.version} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()}"


@cache
def local_imports(path: Path) -> set[str]:
    """Names of local modules that a file imports, at any depth of its code."""
    package = ".".join(path.relative_to(ROOT).parts[:-1])
    names = {
        resolve_name(name, package) if name.startswith(".") else name
        for name in _facts(path).imports
        if package or not name.startswith(".")
    }
    return {name for name in names if module_path(name) is not None}


def packages_of(module: str) -> list[str]:
    """The packages that hold a module: importing it runs them first."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


@cache
def closure(module: str) -> list[str]:
    """`module` and every local module that it needs and that can change a number, sorted."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = module_path(name)
        if name in seen or name in NUMBERLESS | REGISTRIES or path is None:
            continue
        seen.add(name)
        todo += [*local_imports(path), *packages_of(name)]
    return sorted(seen)


@cache
def registries_of(module: str) -> set[str]:
    """The :data:`REGISTRIES` of which `module` loads an entry, directly or not."""
    return {name for needed in closure(module) for name in local_imports(module_path(needed))} & (
        REGISTRIES
    )


class _WithoutDocstrings(ast.NodeTransformer):
    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        body = getattr(node, "body", None)
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and body
        ):
            first = body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = body[1:]
        return node


def data_file(path: Path) -> Path | None:
    """The data file beside the module `path`, or None where it has none."""
    beside = path.with_suffix(".yaml")
    return beside if beside.is_file() else None


def file_digest(path: Path) -> str:
    """Digest of one module: its syntax tree without docstrings, and the values of its data file."""
    return _facts(path).digest


@cache
def code_digest(module: str) -> str:
    """Digest, of 16 hexadecimal digits, of a module and of every local module that it needs."""
    if module_path(module) is None:
        raise FileNotFoundError(f"no local module {module}")
    parts = [f"{name}:{file_digest(module_path(name))}" for name in closure(module)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
