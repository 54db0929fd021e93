"""The environments for --sdm conda pin what requirements.txt pins, and the repository stays clean."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PINS = dict(
    line.strip().lower().split("==")
    for line in (ROOT / "requirements.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
)


def test_requirements_are_exact_and_start_with_torch():
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[^\s;+]+", line) for line in lines)


@pytest.mark.parametrize("name", ["model", "analysis"])
def test_environments_pin_the_versions_of_the_requirements(name):
    environment = yaml.safe_load((ROOT / "envs" / f"{name}.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    for requirement in pip:
        package, version = requirement.lower().split("==")
        assert PINS[package] == version, package


def test_tables_load_no_model_library():
    """A table is made in a second; the libraries that run models take several to load."""
    code = "import sys, workflow_scripts.table; sys.exit(any(m in sys.modules for m in ('torch', 'transformers')))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_rule_and_its_script_share_a_name():
    rules = {
        rule
        for path in (ROOT / "rules").glob("*.smk")
        for rule in re.findall(r"^(?:rule|checkpoint) (\w+):", path.read_text(), re.M)
    }
    for rule in rules:
        script = ROOT / "workflow_scripts" / f"{rule}.py"
        assert script.exists(), rule
        assert len(script.read_text().splitlines()) <= 90, f"{script.name} is more than a screenful"


def test_every_table_and_figure_has_a_caption():
    from workflow_scripts.lfp.plots import FIGURES
    from workflow_scripts.lfp.tables import TABLES

    assert {p.stem for p in (ROOT / "report" / "tables").glob("*.rst")} == {*TABLES, "resources"}
    assert {p.stem for p in (ROOT / "report" / "figures").glob("*.rst")} == set(FIGURES)


#: Modules whose messages and files tell of the workflow around them: how to rebuild, what jobs took, what ships.
TELLS_OF_SNAKEMAKE = ("provenance", "resources", "crates")


def test_modules_of_the_science_import_downwards_only():
    """A stage never imports a later one, and nothing below lfp knows Snakemake."""
    order = [
        "canonical", "memory", "terminal", "tracking", "resources", "provenance", "prompts", "artefacts", "crates",
        "resume", "sources", "lexicon", "corpora", "rewards", "answers", "llm", "models", "adaptation",
        "training_state", "statistics", "activations", "pretraining", "autoencoder", "sae_kernels", "sae_training",
        "ppo", "online", "dpo", "divergence", "matching", "sae_metrics", "contrasts", "rewrites", "features",
        "probe_data", "probes", "explanation_scores", "evidence", "explanations", "language_explanations",
        "feature_sets", "ablation", "exports", "costs", "published", "tally", "model_tables", "probe_tables",
        "feature_tables", "planted_tables", "tables", "rendering", "plots",
    ]  # fmt: skip
    found = {
        path.stem: path.read_text()
        for path in (ROOT / "workflow_scripts" / "lfp").glob("*.py")
        if path.stem != "__init__"
    }
    found["prompts"] = (ROOT / "workflow_scripts" / "lfp" / "prompts" / "__init__.py").read_text()
    assert set(found) == set(order)
    for name, text in found.items():
        assert not re.search(r"^\s*(from|import) snakemake", text, re.M), name
        if name not in TELLS_OF_SNAKEMAKE:
            assert "snakemake" not in text.lower().replace("killed snakemake", ""), name
        imported = set(re.findall(r"workflow_scripts\.lfp\.(\w+) import", text))
        for names in re.findall(r"from workflow_scripts\.lfp import ([\w, ]+)", text):
            imported |= {item.strip() for item in names.split(",")}
        imported -= {name}
        assert all(order.index(other) < order.index(name) for other in imported), (name, imported)
