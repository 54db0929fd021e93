"""Digests of code, so that a result is made again when its code changed and only then.

The digest of a script covers the syntax trees of the script and of every local module that it
imports, directly or not. Comments, docstrings and formatting are not part of a syntax tree, and
neither are times or places, so a comment, a checkout or a touch changes nothing. An entry of a
registry, a string such as ``"lfp.sae.topk:TopK"``, counts as an import of its module
(:mod:`lfp.registry`).
"""

from __future__ import annotations

import ast
import hashlib
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
#: An entry of a registry.
ENTRY = re.compile(r"\w+(\.\w+)*:\w+")
#: Packages whose modules are local.
PACKAGES = ("lfp", "workflow_scripts")


def module_path(module: str) -> Path | None:
    """File of a local module, or None for a module of another package."""
    if module.split(".")[0] not in PACKAGES:
        return None
    base = ROOT.joinpath(*module.split("."))
    return next(
        (path for path in (base.with_suffix(".py"), base / "__init__.py") if path.is_file()), None
    )


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def local_imports(path: Path) -> set[str]:
    """Names of local modules that a file imports, at any depth of its code."""
    found = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and ENTRY.fullmatch(node.value)
        ):
            found.add(node.value.partition(":")[0])
    return {name for name in found if module_path(name) is not None}


def closure(module: str) -> list[str]:
    """`module` and every local module that it needs, sorted."""
    seen: set[str] = set()
    todo = [module]
    while todo:
        name = todo.pop()
        path = module_path(name)
        if name in seen or path is None:
            continue
        seen.add(name)
        todo += local_imports(path)
    return sorted(seen)


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


@cache
def file_digest(path: Path) -> str:
    """Digest of one file's syntax tree without docstrings."""
    tree = _WithoutDocstrings().visit(ast.parse(path.read_text(encoding="utf-8")))
    return hashlib.sha256(ast.dump(tree, annotate_fields=False).encode()).hexdigest()


@cache
def code_digest(module: str) -> str:
    """Digest of a module and of every local module that it imports, 16 hexadecimal digits."""
    if module_path(module) is None:
        raise FileNotFoundError(f"no local module {module}")
    parts = [f"{name}:{file_digest(module_path(name))}" for name in closure(module)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
