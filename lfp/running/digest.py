"""Digests of code, so that a result is made again when its code changed and only then.

The digest of a script covers the syntax trees of the script and of every local module that it
imports, directly or not, with the packages that hold them. A module with a data file beside it,
``name.yaml`` beside ``name.py``, is digested with what the file says. Comments, docstrings and
formatting are part of neither, and times and places are not either, so a comment, a checkout or a
touch changes nothing. An entry of a registry, a string such as ``"lfp.sae.topk:TopK"``, counts as
an import of its module (:mod:`lfp.registry`).

Modules that change no number (:data:`NUMBERLESS`) are in no digest, so that a better message or a
mended lease does not train every model again.
"""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent.parent
#: An entry of a registry.
ENTRY = re.compile(r"\w+(\.\w+)*:\w+")
#: Modules that change no number: display, the machinery of jobs and files, checks of files, and the
#: classes of settings, whose values reach jobs as parameters. They import no local module but each
#: other, so that nothing that does change a number hides behind them.
NUMBERLESS = frozenset(
    {
        "lfp.files.provenance", "lfp.files.vocabularies", "lfp.files.writing",
        "lfp.reporting", "lfp.reporting.escapes", "lfp.reporting.progress",
        "lfp.reporting.tensorboard", "lfp.reporting.unestimated",
        "lfp.running", "lfp.running.digest", "lfp.running.glibc", "lfp.running.job",
        "lfp.running.lease", "lfp.running.log", "lfp.running.one_writer",
        "lfp.settings", "lfp.settings.fields", "lfp.settings.objects", "lfp.settings.stages",
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


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


@cache
def local_imports(path: Path) -> set[str]:
    """Names of local modules that a file imports, at any depth of its code."""
    imported = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            imported |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and ENTRY.fullmatch(node.value)
        ):
            imported.add(node.value.partition(":")[0])
    return {name for name in imported if module_path(name) is not None}


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


@cache
def file_digest(path: Path) -> str:
    """Digest of one module: its syntax tree without docstrings, and the values of its data file."""
    tree = _WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
    content = ast.dump(tree, annotate_fields=False)
    data = data_file(path)
    if data is not None:
        # Order counts: a random draw takes the n-th of what is listed.
        content += repr(yaml.safe_load(data.read_text(encoding="utf-8")))
    return hashlib.sha256(content.encode()).hexdigest()


@cache
def code_digest(module: str) -> str:
    """Digest, of 16 hexadecimal digits, of a module and of every local module that it needs."""
    if module_path(module) is None:
        raise FileNotFoundError(f"no local module {module}")
    parts = [f"{name}:{file_digest(module_path(name))}" for name in closure(module)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
