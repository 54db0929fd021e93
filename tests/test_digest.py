"""A code digest changes with what the code does and with nothing else."""

import pytest

from lfp.running import digest


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules in which `script` imports `used` alone."""
    root = tmp_path / "workflow_scripts"
    root.mkdir()
    (root / "__init__.py").write_text("")
    (root / "used.py").write_text('"""Doc."""\n\n\ndef f(x):\n    """Add."""\n    return x + 1\n')
    (root / "unused.py").write_text("y = 1\n")
    (root / "script.py").write_text("from workflow_scripts.used import f\n\nprint(f(1))\n")
    monkeypatch.setattr(digest, "ROOT", tmp_path)

    def current() -> str:
        for cached in (digest._tree, digest.file_digest, digest.code_digest):
            cached.cache_clear()
        return digest.code_digest("workflow_scripts.script")

    yield root, current
    for cached in (digest._tree, digest.file_digest, digest.code_digest):
        cached.cache_clear()


@pytest.mark.parametrize(
    ("name", "text", "same"),
    [
        ("used.py", '"""Other doc."""\n\n\ndef f(x):\n    # a comment\n    return (x + 1)\n', True),
        ("used.py", "def f(x):\n    return x + 2\n", False),
        ("unused.py", "y = 2\n", True),
        ("script.py", "from workflow_scripts.used import f\n\nprint(f(2))\n", False),
    ],
)
def test_only_what_the_script_runs_counts(package, name, text, same):
    root, current = package
    before = current()
    (root / name).write_text(text)
    assert (current() == before) is same


def test_a_missing_module_is_an_error():
    with pytest.raises(FileNotFoundError, match="no local module"):
        digest.code_digest("workflow_scripts.nothing_of_the_kind")
