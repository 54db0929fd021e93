"""The environments for --sdm conda pin what requirements.txt pins, and the repository
stays clean.
"""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import metadata
from pathlib import Path

import pytest
import yaml
from packaging.specifiers import SpecifierSet

from lfp.running.digest import local_imports

ROOT = Path(__file__).parent.parent
PINS = dict(
    line.strip().lower().split("==")
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
)


def test_requirements_are_exact_and_start_with_torch():
    lines = [
        line
        for line in (ROOT / "requirements.txt").read_text().splitlines()
        if line and line[0] != "#"
    ]
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[^\s;+]+", line) for line in lines)


def test_requirements_install_on_the_oldest_python_that_is_promised():
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    oldest = promised.removeprefix(">=") + ".0"
    refused = {
        name: needed
        for name in PINS
        if (needed := metadata(name)["Requires-Python"]) and oldest not in SpecifierSet(needed)
    }
    assert refused == {}


@pytest.mark.parametrize("name", ["model", "analysis"])
def test_environments_pin_the_versions_of_the_requirements(name):
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    for requirement in pip:
        package, version = requirement.lower().split("==")
        assert PINS[package] == version, package


def test_tables_load_no_model_library():
    """A table is made in a second; the libraries that run models take several to load."""
    code = (
        "import sys, workflow_scripts.table; sys.exit(any(m in sys.modules for m in ('torch',"
        " 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_rule_and_its_script_share_a_name():
    rules = {
        rule
        for path in (ROOT / "rules").glob("*.smk")
        for rule in re.findall(
            r"^(?:rule|checkpoint|use rule \w+ as) (\w+)", path.read_text(), re.M
        )
    } - {"base_activations", "paired_activations", "null_autoencoders"}  # of other rules' scripts
    for rule in rules:
        script = ROOT / "workflow_scripts" / f"{rule}.py"
        assert script.exists(), rule
        assert len(script.read_text().splitlines()) <= 45, f"{script.name} is more than a screenful"


def test_every_table_and_figure_has_a_caption_and_a_line_in_the_documentation():
    from lfp.figures.catalogue import FIGURES
    from lfp.tables.catalogue import RESOURCES_CAPTION, TABLES

    captions = {name: entry.caption for name, entry in (TABLES | FIGURES).items()}
    for name, caption in (captions | {"resources": RESOURCES_CAPTION}).items():
        assert re.fullmatch(r"[A-Z].*[.]", caption), name
        assert caption == " ".join(caption.split()), name
    listed = (ROOT / "docs" / "tables.md").read_text()
    assert [name for name in captions if f"`{name}`" not in listed] == []


#: Folders of the science, from what stands on nothing to what stands on everything.
FOLDERS = (
    "settings", "reporting", "files", "running", "services", "statistics", "texts", "models",
    "feedback",
    "organisms", "finetune", "locus",
    "sae", "probing", "evaluation", "change", "explaining", "interventions", "steering",
    "tables", "blind", "pages", "figures", "costs", "claims", "start",
)  # fmt: skip
#: Modules of planning that a folder reads: what writes a configuration has it checked.
PLANNING = {"start": {"checks", "grid", "schema"}}
#: Modules whose messages and files tell of the workflow around them: how to rebuild, what jobs
#: took, what ships, what to run next.
TELLS_OF_SNAKEMAKE = {
    "files/provenance.py", "files/ro_crate.py", "costs/measured.py", "start/__main__.py",
}  # fmt: skip
LFP = ROOT / "lfp"


def test_every_folder_of_the_science_has_a_place_and_few_modules():
    assert {
        path.name for path in LFP.iterdir() if path.is_dir() and path.name != "__pycache__"
    } == set(FOLDERS)
    for folder in [LFP, *(path for path in LFP.rglob("*") if path.is_dir())]:
        modules = [path.name for path in folder.glob("*.py") if path.name != "__init__.py"]
        assert len(modules) <= 10, (folder.name, modules)


def test_folders_of_the_science_import_downwards_only():
    """A stage never imports a later one, and nothing of it knows Snakemake."""
    for place, folder in enumerate(FOLDERS):
        for path in (LFP / folder).rglob("*.py"):
            text, name = path.read_text(), path.relative_to(LFP).as_posix()
            assert not re.search(r"^\s*(from|import) (snakemake|workflow_scripts)", text, re.M), (
                name
            )
            if folder != "running" and name not in TELLS_OF_SNAKEMAKE:
                assert "snakemake" not in text.lower().replace("killed snakemake", ""), name
            imported = {
                module.split(".")[1] for module in local_imports(path) if module.startswith("lfp.")
            }
            above = {"registry", "sites", *PLANNING.get(folder, ()), *FOLDERS[: place + 1]}
            assert imported <= above, (name, imported)
