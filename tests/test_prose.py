"""The form of the code: parameters that are documented, functions of a screen, telling names."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
#: Most lines of a function, by folder.
LONGEST = {"lfp": 65, "workflow_scripts": 70, "benchmarks": 70, "tests": 70}
#: Number of parameters from which on a public function documents them.
DOCUMENTED_FROM = 5
#: Names that tell a reader nothing.
VAGUE = {"found", "own", "told"}
WIDTH = 100
#: Calls that take any number of equal things, so that a star unpacks no settings: functions of
#: paths and shapes, methods that hand on all arguments, and two functions of :mod:`lfp.grid`.
TAKES_MANY = {
    "zip", "print", "Path", "joinpath", "reshape", "view", "__init__", "display", "_without",
    "_resolve",
}  # fmt: skip


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def functions(node: ast.AST, public: bool = True) -> Iterator[tuple[ast.FunctionDef, bool]]:
    """Every function below a node, and whether readers of the package may call it."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child, public and not child.name.startswith("_")
            yield from functions(child, public=False)
        elif isinstance(child, ast.ClassDef):
            yield from functions(child, public and not child.name.startswith("_"))
        else:
            yield from functions(child, public)


def parameters(function: ast.FunctionDef) -> list[str]:
    """Names of a function's parameters, without the object of a method."""
    arguments = function.args
    several = [one for one in (arguments.vararg, arguments.kwarg) if one]
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *several]
    return [one.arg for one in named if one.arg not in ("self", "cls")]


def documented(docstring: str) -> set[str]:
    """Names of the entries of a docstring's numpydoc section ``Parameters``."""
    section = re.search(r"^Parameters\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", docstring, re.M | re.S)
    entries = re.findall(r"^(\w[\w, *]*)$", section[1], re.M) if section else []
    return {name.strip(" *") for entry in entries for name in entry.split(",")}


def undocumented(source: str) -> list[str]:
    """Public functions of a module with parameters that their docstrings leave out."""
    faults = []
    for function, public in functions(ast.parse(source)):
        names = parameters(function)
        if public and len(names) >= DOCUMENTED_FROM:
            left_out = set(names) - documented(ast.get_docstring(function) or "")
            faults += [f"{function.name}: {name}" for name in sorted(left_out)]
    return faults


def vague_names(source: str) -> list[str]:
    """Variables and parameters of a module with names that tell nothing."""
    nodes = list(ast.walk(ast.parse(source)))
    names = [node.arg for node in nodes if isinstance(node, ast.arg)]
    names += [
        node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    return sorted(VAGUE & set(names))


def unpacked(source: str) -> list[str]:
    """Calls of a module that unpack a sequence into positional arguments of different meaning."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call)
        for call in calls
        if any(isinstance(argument, ast.Starred) for argument in call.args)
        and ast.unparse(call.func).rpartition(".")[2] not in TAKES_MANY
    ]


def too_long(source: str, most: int) -> list[str]:
    """Functions of a module with more than so many lines."""
    sizes = {
        function.name: function.end_lineno - function.lineno + 1
        for function, _ in functions(ast.parse(source))
    }
    return [f"{name}: {size} lines" for name, size in sizes.items() if size > most]


def too_wide(path: Path) -> list[int]:
    """Numbers of a file's lines over the width, without the rows of Markdown tables."""
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return [
        number
        for number, line in lines
        if len(line) > WIDTH and not (path.suffix == ".md" and line.lstrip().startswith("|"))
    ]


def faults_of(check, paths: list[Path], *arguments: object) -> dict[str, list]:
    """The faults that a check of a module's text has, by file."""
    faults = {
        str(path.relative_to(ROOT)): check(path.read_text(encoding="utf-8"), *arguments)
        for path in paths
    }
    return {path: of_file for path, of_file in faults.items() if of_file}


def test_public_functions_of_five_parameters_document_them_all():
    assert not faults_of(undocumented, sources("lfp"))


@pytest.mark.parametrize("folder", LONGEST)
def test_functions_fit_on_a_screen(folder):
    assert not faults_of(too_long, sources(folder), LONGEST[folder])


def test_names_of_variables_tell_something():
    assert not faults_of(vague_names, sources("lfp", "workflow_scripts"))


def test_settings_are_passed_by_name_and_not_unpacked():
    assert not faults_of(unpacked, sources("lfp", "workflow_scripts"))


@pytest.mark.parametrize("pattern", ["lfp/**/*.py", "tests/**/*.py", "rules/*.smk", "docs/*.md"])
def test_no_line_is_wider_than_the_screen(pattern):
    paths = sorted(ROOT.glob(pattern))
    assert paths
    wide = {str(path.relative_to(ROOT)): too_wide(path) for path in paths}
    assert not {path: lines for path, lines in wide.items() if lines}


FAULTY = '''
def public(a, b, c, d, e):
    """A summary.

    Parameters
    ----------
    a, b
        The first ones; e is not an entry of its own.
    c
        The third one.

    Returns
    -------
    d
        A result and no parameter.
    """
    found = [a, b]
    return fit(*found, c)
'''


def test_the_checks_see_faults():
    assert undocumented(FAULTY) == ["public: d", "public: e"]
    assert undocumented(FAULTY.replace("def public", "def _private")) == []
    assert vague_names(FAULTY) == ["found"]
    assert unpacked(FAULTY) == ["fit(*found, c)"]
    assert unpacked(FAULTY.replace("fit(", "zip(")) == []
    assert too_long(FAULTY, 10) == ["public: 17 lines"]
    assert too_long(FAULTY, 17) == []


def test_only_rows_of_tables_may_be_wide(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"| {'x' * WIDTH} |\n{'x' * WIDTH}\n{'x' * (WIDTH + 1)}\n", encoding="utf-8")
    assert too_wide(path) == [3]
