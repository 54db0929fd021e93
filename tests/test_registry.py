"""Names are read without loading what they name."""

import shutil
import subprocess
import sys

import pytest

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
