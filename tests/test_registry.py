"""Names are read without loading what they name."""

import dataclasses
import shutil
import subprocess
import sys

import pytest

from lfp import checks, planning
from lfp.checks import check_class, check_function, check_listed
from lfp.configuration import ConfigurationError
from lfp.registry import Registry
from lfp.running.digest import ROOT
from lfp.sae.architectures import ARCHITECTURES, KINDS
from tests.test_configuration import BASE


def test_an_entry_is_loaded_when_it_is_asked_for():
    code = (
        "import sys; from lfp.registry import Registry; r = Registry('x', {'a': 'wave:open'});"
        "assert list(r) == ['a'] and 'wave' not in sys.modules; r['a']; assert 'wave' in"
        " sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


FUNCTION = ("table", "mine", "mine:rows")
#: Files of an entry that takes (inputs, settings), and what planning says of each.
FUNCTIONS = {
    "def rows(inputs, settings): ...": "",
    "def rows(paths, settings, more=1): ...": "",
    "def rows(*arguments): ...": "",
    "from other import rows": "",
    "from other import *": "",
    "import functools\nrows = functools.partial(print)": "",
    "try:\n    from other import rows\nexcept ImportError:\n    rows = None": "",
    "def rows(inputs): ...": r"rows takes \(inputs\), expected a function of \(inputs, settings\)",
    "def rows(a, b, c): ...": r"rows takes \(a, b, c\), expected a function of",
    "def rows(a, b, *, c): ...": r"rows takes \(a, b, c\), expected a function of",
    "class rows: ...": "rows is a class, expected a function of",
    "def row(inputs, settings): ...": "rows is not there; did you mean 'row'",
    "": "rows is not there; the file defines nothing",
    "def rows(:": "mine.py: rows: the file is not valid Python",
}


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A file ``mine.py`` beside the Snakefile."""
    path = tmp_path / "mine.py"
    monkeypatch.setattr(checks, "module_path", {"mine": path}.get)
    monkeypatch.setattr(checks, "ROOT", tmp_path)
    return path


@pytest.mark.parametrize(("text", "message"), FUNCTIONS.items())
def test_a_function_of_an_entry_is_checked_when_a_run_is_planned(mine, text, message):
    mine.write_text(text)
    if not message:
        check_function(*FUNCTION, ("inputs", "settings"))
        return
    with pytest.raises(ConfigurationError, match=f"table 'mine': mine.py: .*{message}|{message}"):
        check_function(*FUNCTION, ("inputs", "settings"))


#: Bodies of a class of the architecture `mine`, which no gradient trains.
CLASSES = {
    "(Base): architecture = 'mine'; encode = 1": "",
    "(base.Base):\n    architecture: str = 'mine'\n    by_gradients = False\n"
    "    def encode(self): ...": "",
    "(Other): ...": "",
    "(Base): architecture = 'mine'": "has no `encode`, which every architecture defines",
    "(Base):\n    architecture = 'mine'\n    def loss(s):\n        encode = 1": "has no `encode`",
    "(Base):\n    def encode(self): ...": "has no `architecture`",
    "(Other): architecture = 'yours'": "has architecture = 'yours', expected 'mine'",
    "(Other): by_gradients = True": "has by_gradients = True, expected False",
    ": architecture = 'mine'; encode = 1": "derives from no class, expected Base",
}


@pytest.mark.parametrize(("text", "message"), CLASSES.items())
def test_a_class_of_an_entry_is_checked_when_a_run_is_planned(mine, text, message):
    mine.write_text(f"class Mine{text}\n")
    says = {"architecture": "mine", "by_gradients": False}
    asked = "architecture", "mine", "mine:Mine", "Base", ["architecture", "encode"], says
    if not message:
        check_class(*asked)
        return
    with pytest.raises(ConfigurationError, match=f"architecture 'mine': mine.py: Mine {message}"):
        check_class(*asked)


@pytest.mark.parametrize(
    ("text", "message"),
    {
        "questions = ('silence', 'flipped')": "",
        "questions: tuple = SOME + OTHERS": "",  # computed, so that it is not looked at
        "score = ('flippd',)": "",
        "questions = ('silence', 'flippd')": "questions: 'flippd'; did you mean 'flipped'",
        "questions: tuple[str, ...] = ['whose']": "questions: 'whose'; expected one of flipped",
        "questions = (3,)": "questions: 3; expected one of flipped, silence",
    }.items(),
)
def test_questions_of_a_reward_are_known_when_a_run_is_planned(mine, text, message):
    mine.write_text(f"class Mine(Base):\n    {text}\n")
    asked = "reward", "mine", "mine:Mine", "questions", ("flipped", "silence")
    if not message:
        check_listed(*asked)
        return
    with pytest.raises(ConfigurationError, match=f"reward 'mine': mine.py: Mine: {message}"):
        check_listed(*asked)


def test_a_file_of_an_entry_that_is_not_there_is_named(mine):
    with pytest.raises(ConfigurationError, match=r"yours:f: expected a file yours.py beside"):
        check_function("table", "yours", "yours:f", ())


def test_every_entry_of_the_workflow_passes_and_nothing_is_loaded_for_it():
    code = (
        "import sys; from lfp import planning; planning.check_registries();"
        "assert not {'torch', 'numpy', 'pandas'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
    assert "check_registries()" in (ROOT / "rules" / "common.smk").read_text()


@pytest.mark.parametrize("kind", ["table", "figure", "readout", "selector", "architecture"])
def test_entries_of_every_kind_are_checked(monkeypatch, kind):
    """A name with an entry that is not there is refused with its kind."""
    places = {
        "readout": planning.READOUTS._entries, "selector": planning.SELECTORS._entries,
        "architecture": planning.ARCHITECTURES._entries,
    }  # fmt: skip
    if kind in places:
        name = next(iter(places[kind]))
        monkeypatch.setitem(places[kind], name, "lfp.nowhere:thing")
    else:
        entries = {"table": planning.TABLES, "figure": planning.FIGURES}[kind]
        name, field = next(iter(entries)), {"table": "rows", "figure": "draw"}[kind]
        entry = dataclasses.replace(entries[name], **{field: "lfp.nowhere:thing"})
        monkeypatch.setitem(entries, name, entry)
    with pytest.raises(ConfigurationError, match=f"{kind} '{name}': lfp.nowhere:thing: expected"):
        planning.check_registries()


def test_questions_of_every_reward_are_checked(monkeypatch):
    """Without one of the questions, the first reward that asks it is refused."""
    monkeypatch.delitem(planning.QUESTIONS._entries, "flipped")
    with pytest.raises(ConfigurationError, match="reward 'vader_flipped': .*questions: 'flipped'"):
        planning.check_registries()


def test_an_unknown_name_is_met_with_the_nearest_one():
    registry = Registry("architecture", {"topk": "json:loads"})
    with pytest.raises(ValueError, match="architecture 'topkk' is unknown; did you mean 'topk'?"):
        registry["topkk"]
    assert "topkk" not in registry and "topk" in registry


@pytest.mark.parametrize("name", KINDS)
def test_the_line_of_an_architecture_says_what_its_class_does(name):
    kind, cls = KINDS[name], ARCHITECTURES[name]
    assert cls.architecture == name and cls.by_gradients == kind.by_gradients
    assert set(cls.options) <= set(kind.reads)
    assert ("l1" in kind.reads) == ("l1" in cls.penalties) <= ("l0" in kind.reads)


#: A plan with two more architectures: one that keeps `k` latents, and one that no gradient trains.
PLAN = """
import sys
from lfp.configuration import ConfigurationError
from lfp.grid import Grid

def variants(few, **more):
    config = {base} | {{"autoencoders": {{"few": {{"architecture": "few"}} | few, **more}}}}
    config["cells"] = [config["cells"][0] | {{"autoencoders": ["few", *more]}}]
    return Grid(config)

def refused(few, **more):
    try:
        variants(few, **more)
    except ConfigurationError as error:
        return str(error)

def job(grid, name):
    return grid.job_settings("autoencoders", grid.cells[0], {{"sae": name, "layer": "0"}})

grid = variants({{"k": 5}}, drawn={{"architecture": "drawn", "batch_size": 9}})
assert (job(grid, "few")["k"], job(grid, "few")["learning_rate"]) == (5, 0.25)
for key, value in (("l0", 4), ("l1", 0.1), ("tau", 0.1)):
    assert f"few.{{key}}: no effect for the architecture `few`" in refused({{key: value}})
assert "autoencoder.k of 'few' is 5000" in refused({{"k": 5000}})
drawn = {{"architecture": "drawn"}}
assert "drawn.epochs: no effect" in refused({{}}, drawn=drawn | {{"epochs": 3}})
assert "has directions of one model" in refused({{}}, drawn=drawn | {{"reads": "pair"}})
assert not {{"torch", "numpy", "my_kinds"}} & set(sys.modules)
"""


def test_one_more_architecture_costs_its_file_and_a_line(tmp_path):
    """No list of architectures stands elsewhere: what a plan must know is said in that line."""
    shutil.copytree(ROOT / "lfp", tmp_path / "lfp", ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "lfp" / "sae" / "architectures" / "__init__.py"
    line = (
        '    "few": Kind("my_kinds:Few", reads=("k",), rate=0.25),\n'
        '    "drawn": Kind("my_kinds:Drawn", ("k",), by_gradients=False, of_pairs=False),\n'
    )
    before = '    "standard": Kind('
    assert path.read_text().count(before) == 1
    path.write_text(path.read_text().replace(before, line + before))
    code = PLAN.format(base=BASE)
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
