"""One more of each kind of thing: docs/extending.md names the files that each costs, and so much is
edited or written here. A cell of the small grid then runs with all of them.
"""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml

from lfp.sae.architectures import ARCHITECTURES, KINDS, Kind
from lfp.sae.training import loop
from lfp.settings import Autoencoder
from tests.test_autoencoder import planted
from tests.test_workflow import ROOT, copy_tree, grid

pytestmark = pytest.mark.workflow

#: A file of one's own beside the Snakefile: an architecture, a reward, and the rows of a table.
PARTS = '''
"""An architecture, a reward and the rows of a table from outside the package."""

import numpy as np
import torch

from lfp.feedback.rewards.base import TaskReward
from lfp.files.addresses import labels
from lfp.files.artefacts import read_json
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.statistics.records.base import Record
from lfp.tables.rows import Tally


class Prominent(SparseAutoencoder):
    """Latents are positive pre-activations beyond a quarter of the token's largest."""

    architecture = "prominent"

    def encode(self, x, columns=None):
        positive = torch.relu(x @ self.W_enc + self.b_enc)
        size = self.weighed(positive)
        latents = positive * (size > 0.25 * size.amax(-1, keepdim=True))
        return latents if columns is None else latents[..., columns]

    def loss(self, x, settings, penalty):
        latents = self.encode(x)
        error = (self.decode(latents) - x).pow(2).mean()
        sparsity = self.weighed(latents).sum(1).mean()
        return error + penalty * sparsity, error, sparsity


class Commas(TaskReward):
    """Commas of the completion."""

    questions = ("silence",)

    def description(self):
        return "training the model to use commas"

    def score(self, scale):
        return lambda prompts, completions: np.array(
            [text.count(",") / scale.divisor for text in completions]
        )


def latent_counts(inputs, settings):
    """The number of latents of every autoencoder."""
    tally = Tally()
    for path in inputs:
        for row in read_json(path)["autoencoders"]:
            record = Record(float(row["d_sae"]), None, None, 1, "autoencoder", "a count")
            kind = {"layer": row["layer"], "size": row["size"], "kind": row["architecture"]}
            tally.add(record, {**labels(path), **kind})
    return tally
'''
#: The lines that registries and one-file kinds get: file, the text before which they go, lines.
LINES = {
    "architecture": (
        "lfp/sae/architectures/__init__.py",
        '    "standard": Kind',
        '    "prominent": Kind("my_parts:Prominent"),\n',
    ),
    "reward": (
        "lfp/feedback/rewards/__init__.py",
        '        "vader":',
        '        "commas": "my_parts:Commas",\n',
    ),
    "action": (
        "lfp/interventions/actions.py",
        "ACTIONS: dict",
        "def half(latents, means):\n    return latents / 2\n\n\n",
    ),
    "the action's line": (
        "lfp/interventions/actions.py",
        '"zero": zero,',
        '"half": half, ',
    ),
    "subject": (
        "lfp/probing/subjects.py",
        "SUBJECTS = {",
        "def halfway(checkpoints):\n"
        "    import torch\n\n"
        "    model, base = tuned(checkpoints), original(checkpoints)\n"
        "    with torch.no_grad():\n"
        "        for one, other in zip(model.parameters(), base.parameters(), strict=True):\n"
        "            one.lerp_(other, 0.5)\n"
        "    return model\n\n\n",
    ),
    "the subject's line": (
        "lfp/probing/subjects.py",
        '    "text": Subject(None),',
        '    "halfway": Subject(halfway),\n',
    ),
    "table": (
        "lfp/tables/catalogue.py",
        '    "corpora": Table(',
        '    "latent_counts": Table(\n'
        '        rows="my_parts:latent_counts",\n'
        "        section=Section.AUTOENCODERS,\n"
        '        inputs=lambda plan: plan.per_cell("{cell}/sae/{sae}/metrics.json"),\n'
        '        caption="The number of latents of every autoencoder.",\n'
        "    ),\n",
    ),
}
#: Files that each kind costs, as docs/extending.md says: those edited here, and the one written.
COSTS = {"architecture": 2, "reward": 2, "action": 1, "subject": 1, "table": 2}


def extended(tree: Path) -> dict[str, set[str]]:
    """Add one of each kind to a copy of the workflow; returns the files that each touched."""
    (tree / "my_parts.py").write_text(PARTS)
    touched: dict[str, set[str]] = {kind: set() for kind in COSTS}
    for what, (name, before, lines) in LINES.items():
        kind = what.removeprefix("the ").removesuffix("'s line")
        path = tree / name
        text = path.read_text()
        assert text.count(before) == 1, (name, before)
        path.write_text(text.replace(before, lines + before))
        touched[kind].add(name)
    for kind in ("architecture", "reward", "table"):
        touched[kind].add("my_parts.py")
    return touched


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """A copy of the workflow with one more of each kind, and a grid of one cell that uses them."""
    tree = copy_tree(tmp_path_factory.mktemp("extended") / "tree")
    assert {kind: len(files) for kind, files in extended(tree).items()} == COSTS
    settings = yaml.safe_load((tree / "grid.yaml").read_text())
    settings["tasks"] = {"commas": {"method": "ppo", "corpus": "reviews", "reward": "commas"}}
    settings["autoencoders"] = {
        "wide": {"architecture": "prominent", "sizes": [1, 3], "site": "resid"},
        "kept": {"architecture": "topk", "k": 4, "reads": "base"},
    }
    settings["cells"] = [
        {
            "model": "small-neox", "task": "commas", "autoencoders": ["wide", "kept"],
            "settings": {
                "features": {"subjects": ["policy", "halfway"]},
                "probes": {"features": ["latents", "raw"], "label_shuffles": 0},
                "ablation": {"arms": ["none", "explained", "random"], "base_arms": [],
                             "actions": ["zero", "half"]},
                "explanations": {"min_valence": 0.0, "false_discovery_rate": 0.9},
            },
        }
    ]  # fmt: skip
    del settings["models"]["small-gemma"]
    (tree / "grid.yaml").write_text(yaml.safe_dump(settings))
    return tree


def test_the_page_says_how_many_files_a_kind_costs():
    """What :func:`extended` touches, which the fixture counts."""
    page = (ROOT / "docs" / "extending.md").read_text()
    costs = dict(re.findall(r"^\| \[(\w+)[^|]*\| ([^|]+) \|", page, re.M))
    assert {kind: 1 + costs[kind].count(", and ") for kind in COSTS} == COSTS


def test_a_block_of_a_file_that_is_there_imports_its_own_names_alone():
    """They fall away there, and no import is left in the middle of the file."""
    page = (ROOT / "docs" / "extending.md").read_text()
    blocks = re.findall(r"```python\n# (\S+)\n(.*?)```", page, re.S)
    there = [(name, code) for name, code in blocks if (ROOT / name).exists()]
    assert len(there) >= 7
    for name, code in there:
        module = name.removesuffix(".py").replace("/", ".")
        assert set(re.findall(r"^(?:from|import) (\S+)", code, re.M)) == {module}


def test_the_pages_architecture_is_saved_as_what_it_has_learned(monkeypatch):
    page = (ROOT / "docs" / "extending.md").read_text()
    code = re.search(r"```python\n# lfp/sae/architectures/\w+\.py\n(.*?)```", page, re.S)[1]
    module = types.ModuleType("prominent")
    monkeypatch.setitem(sys.modules, "prominent", module)
    exec(code, module.__dict__)
    monkeypatch.setitem(KINDS, "prominent", Kind("prominent:Prominent"))
    monkeypatch.setitem(ARCHITECTURES._entries, "prominent", "prominent:Prominent")
    values, _ = planted()
    settings = Autoencoder(
        architecture="prominent", l1=0.001, batch_size=250, epochs=20, learning_rate=1e-2
    )
    x = torch.from_numpy(5 * values + 2)
    sae = loop.train(x.numpy(), [12], settings, seed=0).autoencoders[0].requires_grad_(False)
    error = (sae.decode(sae.encode(x)) - x).square().sum() / (x - x.mean(0)).square().sum()
    assert error < 0.2
    latents = sae.encode(x)
    assert (latents > 0).float().sum(1).mean() < 6
    sae.fold(5.0)
    torch.testing.assert_close(sae.encode(5 * x), 5 * latents, rtol=1e-4, atol=1e-3)


def test_a_cell_runs_with_one_more_of_each_kind(tree):
    names = ("latent_counts", "kendall_tau", "ablation_reward", "autoencoders")
    grid(tree, "--cores", "2", *(f"results/tables/{name}.csv" for name in names))
    tables = {name: pd.read_csv(tree / "results" / "tables" / f"{name}.csv") for name in names}
    counts = tables["latent_counts"]
    assert set(counts["kind"]) == {"prominent"} and set(counts["size"]) == {1, 3}
    assert set(counts["estimate"]) == {16, 48}
    assert set(tables["autoencoders"]["sae"]) == {"wide", "kept"}
    tau = tables["kendall_tau"]
    assert {"policy", "halfway"} <= set(tau["subject"])
    assert tau.loc[tau["subject"] == "halfway", "estimate"].notna().any()
    arms = tables["ablation_reward"]
    explained = arms[(arms["arm"] == "explained") & (arms["quantity"] == "reward")]
    assert set(explained["action"]) == {"zero", "half"}
    lexicon = (tree / "results" / "lexicons" / "commas.json").read_text()
    assert '"kind": "commas"' in lexicon


def test_one_sites_activations_of_the_base_are_shared(tree):
    shared = tree / "results" / "small-neox" / "base" / "reviews" / "activations" / "mlp"
    assert len(list(shared.glob("layer*.safetensors"))) == 3
    own = tree / "results" / "small-neox" / "commas" / "seed0" / "activations"
    assert [path.name for path in own.iterdir() if path.is_dir()] == ["resid"]


def test_an_edit_of_a_file_of_ones_own_reruns_what_uses_it(tree):
    path, target = tree / "my_parts.py", "results/tables/autoencoders.csv"
    text = path.read_text()
    path.write_text("# a comment\n" + text)
    assert "Nothing to be done" in grid(tree, "-n", target)
    path.write_text(text.replace("0.25 *", "0.5 *"))
    output = grid(tree, "-n", target)
    # The file holds the task's reward too; behind the checkpoint everything waits.
    assert "rule lexicon:" in output and "rule evaluate_autoencoders:" in output
    path.write_text(text)
