"""A code digest changes with what the code does and with nothing else."""

import ast

import pytest

from benchmarks import reruns
from lfp.running import digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules in which `script` imports `used` alone."""
    root = tmp_path / "workflow_scripts"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "used.py").write_text('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    return x + 1\n')
    (root / "unused.py").write_text("y = 1\n")
    (root / "used.yaml").write_text("words: [good, bad]\n")
    (root / "unused.yaml").write_text("words: []\n")
    (root / "folder").mkdir()
    (root / "folder" / "__init__.py").write_text("x = 1\n")
    (root / "folder" / "inner.py").write_text("x = 1\n")
    (root / "script.py").write_text(
        "from workflow_scripts.used import f\n\n"
        "REGISTRY = {'inner': 'workflow_scripts.folder.inner:x'}\nprint(f(1))\n"
    )
    monkeypatch.setattr(digest, "ROOT", tmp_path)

    def forget() -> None:
        """Read files again, whose contents one process reads once."""
        for value in vars(digest).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()

    def current() -> str:
        forget()
        return digest.code_digest("workflow_scripts.script")

    yield root, current
    forget()


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("used.py", '"""Other doc."""\n\n\ndef f(x):\n    # a comment\n    return (x + 1)\n', True),
        ("used.py", "def f(x):\n    return x + 2\n", False),
        ("used.yaml", "# a comment\nwords:\n  - good\n  - bad\n", True),
        ("used.yaml", "words: [bad, good]\n", False),
        ("unused.py", "y = 2\n", True),
        ("unused.yaml", "words: [good]\n", True),
        ("__init__.py", "z = 1\n", False),
        ("folder/__init__.py", "x = 2\n", False),
        ("folder/inner.py", "x = 2\n", False),
        ("script.py", "from workflow_scripts.used import f\n\nprint(f(2))\n", False),
    ],
)
def test_only_what_the_script_runs_counts(package, name, text, same):
    root, current = package
    before = current()
    (root / name).write_text(text)
    assert (current() == before) is same


@pytest.mark.parametrize(
    "line", ["from .used import f", "from . import used", "from ..used import f"]
)
def test_a_relative_import_counts_as_any_other(package, line):
    root, current = package
    place = root / ("folder/script.py" if ".." in line else "script.py")
    (root / "script.py").write_text("import workflow_scripts.folder.script\n")
    place.write_text(f"{line}\n")
    before = current()
    (root / "used.py").write_text("def f(x):\n    return x + 2\n")
    assert current() != before


def test_a_missing_module_is_an_error():
    with pytest.raises(FileNotFoundError, match="no local module"):
        digest.code_digest("workflow_scripts.nothing_of_the_kind")


def test_listed_modules_import_none_of_the_project_but_each_other():
    """Else an edit that changes a number could hide behind one that changes none."""
    for module in digest.NUMBERLESS:
        path = digest.module_path(module)
        assert path is not None, f"{module} is listed and does not exist"
        local = {name for name in digest.local_imports(path) if name.startswith("lfp.")}
        # Parts of a listed module, as in `from lfp.running import lease`, are listed, too; the
        # docstrings of lfp and lfp.files are no code.
        assert local - digest.NUMBERLESS <= {"lfp.files"}, module
        assert digest.data_file(path) is None, module
    for package in ("lfp", "lfp.files"):
        tree = ast.parse(digest.module_path(package).read_text())
        assert len(tree.body) == 1, f"{package} is needed by listed modules: keep it a docstring"


def test_listed_modules_compute_nothing():
    """No array library; a job asks torch for its device, and for no number."""
    for module in digest.NUMBERLESS:
        tree = ast.parse(digest.module_path(module).read_text())
        imported = {
            name.split(".")[0]
            for node in ast.walk(tree)
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for name in (
                [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
            )
        }
        allowed = {"torch"} if module == "lfp.running.job" else set()
        heavy = {"numpy", "pandas", "scipy", "torch", "transformers", "sklearn"}
        assert imported & heavy <= allowed, module
        assert not {"torch"} & {
            alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
        }, f"{module}: torch is loaded where a device is asked for"


def test_every_data_file_is_in_a_digest():
    """Else an edit of it reruns nothing.

    Prompts of language-model services are no code: their digests are settings of their jobs.
    """
    folder = digest.ROOT / "lfp"
    files = (path for path in folder.rglob("*.*") if path.parent.name != "__pycache__")
    data = {path for path in files if path.suffix != ".py"}
    prompts = set((folder / "services" / "prompts").glob("*.yaml"))
    unseen = {path for path in data - prompts if path != digest.data_file(path.with_suffix(".py"))}
    assert not unseen, "give the file the name of the module that reads it"
    assert all(path.with_suffix(".py").is_file() for path in data - prompts)


def test_all_of_display_is_listed():
    folder = digest.ROOT / "lfp" / "reporting"
    names = {f"lfp.reporting.{path.stem}" for path in folder.glob("*.py")}
    assert names - {"lfp.reporting.__init__"} <= digest.NUMBERLESS


@pytest.mark.parametrize(
    ("path", "most"),
    [
        ("lfp/statistics/records/base.py", 6),
        ("lfp/statistics/records/kendall.py", 6),
        ("lfp/statistics/records/resampling.py", 6),
        ("lfp/statistics/multiple.py", 5),
        ("lfp/texts/neutral_words.yaml", 12),
        ("lfp/organisms/reviews.yaml", 1),
        ("lfp/organisms/dialogues.yaml", 1),
        ("lfp/feedback/rewards/__init__.py", 0),
        ("lfp/sae/architectures/__init__.py", 0),
        ("lfp/sites.py", 15),
        ("lfp/reporting/progress.py", 0),
        ("lfp/reporting/escapes.py", 0),
        ("lfp/running/lease.py", 0),
    ],
)
def test_nothing_dear_stands_on_something_cheap(path, most):
    """An interval or a site must not train a policy, nor a bar in the terminal anything."""
    rules = reruns.reruns()[path]
    assert len(rules) <= most, rules
    assert not {"ppo", "group", "dpo", "pretrain_model"} & set(rules)
    if "statistics" in path:
        assert not {"ppo", "group", "dpo", "autoencoders", "features", "probes"} & set(rules)


def test_the_page_shows_what_reruns():
    page = reruns.PAGE.read_text(encoding="utf-8")
    assert reruns.parts_of(page)[1] == reruns.markdown(), "python -m benchmarks.reruns --write"


def test_facts_are_kept_by_content_and_by_nothing_else(package, monkeypatch, tmp_path):
    """What another process has kept is used again, and an edit is seen at once."""
    kept = tmp_path / ".snakemake" / "kept.json"
    kept.parent.mkdir()
    monkeypatch.setattr(digest, "KEPT", kept)
    module = package[0] / "kept.py"
    module.write_text("import os\nx = 1\n")
    first = digest.file_digest(module)
    digest._keep()
    digest._facts.cache_clear()
    digest._kept.cache_clear()
    monkeypatch.setattr(digest, "_read_facts", lambda path, data: pytest.fail("parsed again"))
    assert digest.file_digest(module) == first
    monkeypatch.undo()
    digest._facts.cache_clear()
    module.write_text("import os\nx = 2\n")
    assert digest.file_digest(module) != first


def test_an_empty_data_file_that_appears_is_seen(package):
    """Kept facts of the module without it must not stand for the module with it."""
    module = package[0] / "beside.py"
    module.write_text("x = 1\n")
    without = digest.file_digest(module)
    module.with_suffix(".yaml").write_text("")
    digest._facts.cache_clear()
    kept = digest.file_digest(module)
    assert kept == digest._read_facts(module, module.with_suffix(".yaml")).digest != without


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"by": "another", "facts": {"a": 1}}'])
def test_a_damaged_or_foreign_file_of_facts_is_read_as_none(content, monkeypatch, tmp_path):
    kept = tmp_path / "kept.json"
    kept.write_text(content)
    monkeypatch.setattr(digest, "KEPT", kept)
    digest._kept.cache_clear()
    assert digest._kept() == {}
    digest._kept.cache_clear()
