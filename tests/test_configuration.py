"""A bad configuration is named with its key and the nearest valid one; settings resolve
in order.
"""

import copy
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import yaml
from snakemake.utils import update_config

from lfp.checks import RESULT_NAMES
from lfp.figures.catalogue import FIGURES
from lfp.grid import ConfigurationError, Grid, benign_share, derived_seed
from lfp.planning import Planner
from lfp.schema import README_PATH, SCHEMA_PATH, schema, schema_text, with_tables
from lfp.settings import PPO, STAGES, Activations, Lora, joined, parted
from lfp.tables.catalogue import TABLES
from lfp.tables.change import LEAST_CLEAN
from lfp.tables.change.cells import LEAST_NOISE
from lfp.tables.inputs import Plan
from tests.conftest import ROOT

BASE = {
    "corpora": {"reviews": {"organism": "reviews"}, "help": {"organism": "help"}},
    "models": {"tiny": {"organism": {"architecture": "gpt_neox", "corpora": ["reviews"]}}},
    "tasks": {
        "vader": {"method": "ppo", "corpus": "reviews"},
        "hh": {"method": "dpo", "corpus": "help"},
    },
    "cells": [{"model": "tiny", "task": "vader"}],
}
POLICY = {"path": "checkpoints/tuned"}
SERVICE = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}


def changed(**changes):
    """BASE with values set at dotted paths."""
    config = copy.deepcopy(BASE)
    for path, value in changes.items():
        node = config
        *parents, last = path.split("__")
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = value
    return config


def given(**options):
    """BASE with a given policy for the task `vader`."""
    task = {"method": "given", "corpus": "reviews", "policies": {"tiny": POLICY}} | options
    return changed(tasks__vader=task)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            changed(settings={"ppo": {"learning_rat": 1e-3}}),
            "settings.ppo.learning_rat: unknown key; did you mean 'lear",
        ),
        (changed(settings={"pqo": {}}), "settings.pqo: unknown key; did you mean 'ppo'"),
        (
            changed(models__tiny__settings={"ppo": {"stps": 3}}),
            "models.tiny.settings.ppo.stps: unknown key",
        ),
        (
            changed(cells=[{"model": "tny", "task": "vader"}]),
            "cells.0.model: unknown name 'tny'; did you mean 'tiny'",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vade"}]),
            "cells.0.task: unknown name 'vade'; did you mean 'vader'",
        ),
        (changed(tasks__vader={"method": "ppo", "corpus": "review"}), "did you mean 'reviews'"),
        (
            changed(settings={"ppo": {"steps": 0}}),
            "settings.ppo.steps: 0 is less than the minimum of 1",
        ),
        (
            changed(settings={"ppo": {"steps": "ten"}}),
            "settings.ppo.steps: 'ten' is not of type 'integer'",
        ),
        (changed(settings={"ppo": {"reward_on": "ful"}}), "did you mean 'full'"),
        (changed(settings={"divergence": {"n_layers": 7}}), "asks for 7 layers, tiny has 6"),
        (
            changed(settings={"steering": {"vectors": ["random"], "layer": 6}}),
            "steering.layer has 6; the layers of tiny are 0 to 5",
        ),
        (
            changed(
                settings={"steering": {"vectors": ["random"], "layer": 3}},
                cells=[{"model": "tiny", "task": "vader", "layers": [1, 2]}],
            ),
            "steering.layer has 3, and dictionaries are trained of its layers 1, 2 alone",
        ),
        (
            changed(tasks__vader__method="distil", settings={"distil": {"layer": 6}}),
            "distil.layer has 6; the layers of tiny are 0 to 5",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "layers": [6]}]),
            "layers has 6; the layers of tiny are 0 to 5",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader"}] * 2),
            "two cells have the address tiny/vader/seed0",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "autoencoders": ["tide"]}]),
            "did you mean 'tied'",
        ),
        (changed(settings={"ppo": {"batch_size": 10}}), "mini_batch_size must divide"),
        (
            changed(corpora__more={"path": {"train": "a", "test": "b"}, "hub": "x"}),
            "corpora.more: give exactly one source",
        ),
        (
            changed(models__hub={"hub": "a/b", "revision": "1234567"}),
            "models.hub: 'n_layers' is a dependency of 'hub'",
        ),
        (changed(models__none={"n_layers": 3}), "models.none: give exactly one source"),
        ({k: v for k, v in BASE.items() if k != "tasks"}, "'tasks' is a required property"),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "settings": {"contrasts": {}}}]),
            "contrasts: no effect here; move it to",
        ),
        (
            changed(services__a={**SERVICE, "budget_usd": 1}),
            "services.a.budget_usd: needs services.a.prices",
        ),
        (changed(services__a={**SERVICE, "base_url": "localhost:8000"}), "services.a.base_url"),
        (
            changed(explainers__x={"service": "b"}, services__a=SERVICE),
            "explainers.x.service: unknown name 'b'",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "explainers": ["heuristic", "gpt"]}]),
            "explainers: unknown name 'gpt'",
        ),
        (
            changed(
                services__a=SERVICE,
                explainers__x={"service": "a"},
                cells=[{"model": "tiny", "task": "hh", "explainers": ["heuristic", "x"]}],
            ),
            "tasks.hh.description: the explainer 'x' needs to be told what is rewarded",
        ),
        (
            changed(settings={"ablation": {"explainer": "x"}}),
            "ablation.explainer: unknown name 'x'",
        ),
        (
            changed(settings={"explanations": {"judge": "x"}}),
            "explanations.judge: unknown name 'x'",
        ),
        (
            changed(settings={"explanations": {"choose": "completions"}}),
            "explanations.choose is 'completions', and change.latent_prompts is 0",
        ),
        (
            changed(
                settings={"explanations": {"choose": "held-out"}, "autoencoder": {"site": "resid"}}
            ),
            "shifts are measured of sites that write to the residual stream (mlp, attn) alone",
        ),
        (
            changed(settings={"ablation": {"base_arms": ["explained", "random"]}}),
            "cell tiny/vader/seed0: ablation.base_arms needs `none`",
        ),
        (
            changed(settings={"contrasts": {"source": "rewrites"}}),
            "tasks.hh: rewrites.service must name the service",
        ),
        (
            changed(
                corpora__help={"path": {"train": "a"}, "columns": {"chosen": "c", "rejected": "r"}}
            ),
            "set it to `pairs` (offline) or `rewrites`",
        ),
        (
            changed(tasks__vader__reward="classifier"),
            "tasks.vader.classifier: name one of `classifiers`",
        ),
        (
            changed(tasks__vader__reward="callable"),
            "tasks.vader.callable: give the reward as module:function",
        ),
        (
            changed(tasks__vader__reward="callable", tasks__vader__callable="absent_module:f"),
            "needs absent_module.py in the working directory",
        ),
        (changed(models__tiny__finetune_gpus=2), "ppo (cell tiny/vader/seed0) runs on one GPU"),
        (
            changed(models__tiny__gpus=2, tasks__vader__method="distil"),
            "models.tiny.gpus: got 2, and distil (cell tiny/vader/seed0) runs on one GPU; set"
            " models.tiny.finetune_gpus to 1",
        ),
        (
            changed(explainers={"histograms": {"service": "s"}}, services={"s": SERVICE}),
            "explainers.histograms: the workflow uses this name",
        ),
        (
            changed(**{"tasks__vader.truth": {"method": "ppo", "corpus": "reviews"}}),
            "tasks.vader.truth: results/lexicons/vader.truth.json would be both",
        ),
        (
            changed(cells__0__settings={"contrasts": {"triples": 20}}),
            "cells.0.settings.contrasts: no effect here; move it to the `settings` of a task or of"
            " the file",
        ),
        (
            changed(models__tiny__settings={"tables": {"seed": 1}}),
            "models.tiny.settings.tables: no effect here; move it to the `settings` of the file",
        ),
        (
            changed(models__tiny__finetune_gpus=2, tasks__vader__method="ranked"),
            "ranked (cell tiny/vader/seed0) runs on one GPU",
        ),
        (
            changed(tasks__vader__method="grpo", settings={"group": {"num_generations": 3}}),
            "group.num_generations must divide ppo.batch_size",
        ),
        (
            changed(settings={"ppo": {"lora": {"r": 8}}}),
            "settings.ppo.lora: 'alpha' is a required property",
        ),
        (changed(tasks__hh__reward="length"), "tasks.hh.reward: a dpo task learns from pairs"),
        (
            changed(tasks__vader__reward="lenght"),
            "tasks.vader.reward: 'lenght' is not a valid value; did you mean 'length'",
        ),
        (
            changed(settings={"features": {"subjects": ["policy", "other_task"]}}),
            "features.other_task: the grid has no other task of tiny",
        ),
        (
            changed(
                settings={"features": {"subjects": ["policy", "other_task"], "other_task": "hhh"}}
            ),
            "features.other_task: unknown name 'hhh'; did you mean 'hh'",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "probed": ["tied", "two"]}]),
            "cells.0.probed: unknown name",
        ),
        (
            changed(autoencoders={"tied": {"sizes": [2, 1]}}),
            "cell tiny/vader/seed0: autoencoder.sizes of 'tied' must be ascending, got [2, 1]",
        ),
        (
            changed(settings={"autoencoder": {"architecture": "top"}}),
            "settings.autoencoder.architecture: 'top' is not a valid value; did you mean 'topk'",
        ),
        (
            changed(tasks__vader__policies={"tiny": POLICY}),
            "tasks.vader.policies: belongs to the method `given`, and this task's is `ppo`",
        ),
        (
            changed(tasks__hh__feedback="preference"),
            "tasks.hh.feedback: belongs to the method `given`, and this task's is `dpo`",
        ),
        (
            changed(tasks__vader__method="distil", tasks__vader__reward="length"),
            "tasks.vader.reward: got `length`, and the vector of the method `distil` follows",
        ),
        (
            changed(tasks__vader__method="given"),
            "tasks.vader.policies: the cell tiny/vader/seed0 needs the policy of 'tiny'",
        ),
        (given(policies={"tny": POLICY}), "tasks.vader.policies: unknown name 'tny'; did you mean"),
        (
            given(policies={"tiny": {**POLICY, "hub": "a/b", "revision": "1234567"}}),
            "tasks.vader.policies.tiny: give exactly one source: path or hub",
        ),
        (
            given(policies={"tiny": {"hub": "a/b"}}),
            "tasks.vader.policies.tiny: 'revision' is a dependency of 'hub'",
        ),
        (
            given(corpus="help", feedback="preference", trigger="movie"),
            "tasks.vader.trigger: a given task with preference feedback learned from pairs; leave",
        ),
        (
            given() | {"settings": {"features": {"subjects": ["policy", "other_seed"]}}},
            "features.subjects has `other_seed`, and a given policy is the same for every seed",
        ),
        (
            given() | {"cells": [{"model": "tiny", "task": "vader", "seeds": [0, 1]}]},
            "cell tiny/vader/seed0: seeds has [0, 1], and a given policy is one fine-tuning",
        ),
        (
            changed(
                tasks__hh={"method": "given", "corpus": "help", "feedback": "preference"},
                settings={"features": {"subjects": ["policy", "other_task"], "other_task": "hh"}},
            ),
            "tasks.hh.policies: the cell tiny/hh/seed0 needs the policy of 'tiny'",
        ),
        (
            changed(tasks__vader__corpus="help"),
            "tasks.vader.corpus: a ppo task with reward feedback needs the column `text`, and"
            " 'help' has chosen, rejected; name another corpus",
        ),
        (
            changed(tasks__hh__corpus="reviews"),
            "tasks.hh.corpus: a dpo task with preference feedback needs the column `chosen`",
        ),
        (
            given(feedback="preference"),
            "tasks.vader.corpus: a given task with preference feedback needs the column `chosen`",
        ),
        (
            changed(
                corpora__reviews={"path": {"train": "a"}, "columns": {"prompt": "p"}},
            ),
            "and 'reviews' has prompt; name another corpus, or give the column in its `columns`",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "probed": ["tied", "tied"]}]),
            "cells.0.probed: ['tied', 'tied'] has non-unique elements",
        ),
        (
            changed(cells=[{"model": "tiny", "task": "vader", "autoencoders": ["tied", "tied"]}]),
            "cells.0.autoencoders: ['tied', 'tied'] has non-unique elements",
        ),
        (
            changed(classifiers={"c": {"path": "c.gguf"}}),
            "classifiers.c.path: expected a directory in the Hugging Face layout, got 'c.gguf'",
        ),
        (
            given() | {"classifiers": {"tiny--vader": {"path": "judge"}}},
            "classifiers.tiny--vader: results/models/tiny--vader is the place of a given policy",
        ),
    ],
)
def test_a_mistake_is_named_with_the_nearest_valid_key(config, message):
    with pytest.raises(ConfigurationError) as error:
        Grid(config)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_model_takes_no_place_of_the_workflow():
    """Every name that a rule has below the results, each a reason for an error of Snakemake."""
    rules = "".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    places = re.findall(r'"results/([\w.-]+)["/]', rules)
    assert {"blind", "blind.truth.json", "models", "summary.html"} <= set(places)
    logs = {"blind_score", "compare", "estimate", "provenance", "resources", "ro-crate", "summary"}
    assert set(places) - {*RESULT_NAMES, *logs, "verify"} == set()


@pytest.mark.parametrize(
    ("key", "asked", "enough"),
    [
        ("lowest_layers", True, ("probes", "ablation")),
        ("evaluation.probes", [1], ("probes", "ablation")),
        ("explainers", ["heuristic", "x"], ("ablation",)),
        ("explanations.judge", "a", ("ablation",)),
        ("interventions.selectors", ["attribution"], ("ablation",)),
        ("steering.vectors", ["difference_of_means"], ("ablation",)),
    ],
)
def test_a_cell_asks_for_nothing_behind_its_end(key, asked, enough):
    """It would be left out without a word otherwise."""
    services = {"services__a": SERVICE, "explainers__x": {"service": "a"}}
    stage, _, name = key.rpartition(".")
    given = {"settings": {stage: {name: asked}}} if stage else {key: asked}
    for until in ("change", "probes", "ablation"):
        cell = {"model": "tiny", "task": "vader", "until": until} | given
        config = changed(cells=[cell], tasks__vader__description="praise", **services)
        if until in enough:
            Grid(config)
            continue
        ends = " or ".join(f"`{end}`" for end in enough)
        with pytest.raises(ConfigurationError) as error:
            Grid(config)
        message = str(error.value)
        assert message.startswith(f"cell tiny/vader/seed0: {key} needs")
        assert (
            f"the cell ends at `{until}`; set `until` to {ends}, or {key} of this cell to nothing"
            in message
        )


def test_settings_resolve_as_defaults_then_file_then_model_then_task_then_cell():
    config = changed(
        settings={"ppo": {"steps": 2, "epochs": 2, "gamma": 0.5, "mini_batch_size": 8}},
        models__tiny__settings={"ppo": {"epochs": 3, "gamma": 0.6, "mini_batch_size": 4}},
        tasks__vader__settings={"ppo": {"gamma": 0.7, "mini_batch_size": 2}},
        cells=[{"model": "tiny", "task": "vader", "settings": {"ppo": {"mini_batch_size": 1}}}],
    )
    ppo = Grid(config).cells[0].settings["ppo"]
    assert (
        ppo.batch_size,
        ppo.steps,
        ppo.epochs,
        ppo.gamma,
        ppo.mini_batch_size,
    ) == (64, 2, 3, 0.7, 1)


def test_the_configuration_given_is_not_changed():
    config = copy.deepcopy(BASE)
    Grid(config)
    assert config == BASE


def test_seeds_differ_by_cell_and_stage_and_are_stable():
    seeds = {
        derived_seed(s, a, stage)
        for s in (0, 1)
        for a in ("m/t/seed0", "m/t/seed1")
        for stage in ("ppo", "dpo")
    }
    assert len(seeds) == 8
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert derived_seed(0, "m/t/seed0", "ppo") == derived_seed(0, "m/t/seed0", "ppo")


def test_every_key_of_the_schema_is_described_and_every_stage_is_closed():
    for name, stage in schema()["$defs"].items():
        for key, value in stage.get("properties", {}).items():
            assert "description" in value or "$ref" in value, f"{name}.{key} has no description"
        if "properties" in stage:
            assert stage["additionalProperties"] is False, f"{name} is open"


@pytest.mark.parametrize(
    "names",
    [
        ["config.yaml"],
        ["paper.yaml"],
        ["paper.yaml", "paper_pinned.yaml"],
        ["paper.yaml", "paper_faithful.yaml"],
    ],
)
def test_the_shipped_configurations_are_valid(names):
    config = {}
    for name in names:
        update_config(config, yaml.safe_load((SCHEMA_PATH.parent / name).read_text()))
    grid = Grid(config)
    assert {"vader", "hh", "toxic"} <= {cell.task for cell in grid.cells}
    if "paper_pinned.yaml" in names:
        assert all(len(cell.layers) == 5 for cell in grid.cells)


def test_power_is_drawn_over_the_share_where_two_shares_are_planted():
    def drawn(name: str) -> bool:
        config = yaml.safe_load((SCHEMA_PATH.parent / name).read_text())
        return bool(FIGURES["detection_by_share"].inputs(Plan(Grid(config))))

    assert [drawn(name) for name in ("detection.yaml", "planted.yaml", "config.yaml")] == [
        True, False, False
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("overlays", "shown"),
    [
        ("released", "kendall_tau probe_accuracy fine_tuning ablation_reward"),
        ("explained", "feature_explanations feature_frequency ablation_reward"),
        ("classifier", "feature_explanations"),
        ("explained classifier", "feature_explanations"),
        ("seeds", "across_seeds kendall_tau"),
        ("faithful appendix", "sae_tying sae_layer_choice sae_l1_sweep"),
        ("words", "ablation_reward error_by_frequency"),
        ("moved", "fine_tuning"),
    ],
)
def test_files_over_the_papers_grid_plan_the_tables_that_they_are_for(overlays, shown):
    """docs/paper.md names them; nothing is fetched, and what they cost can be reckoned."""
    config = {}
    for name in ("paper", *(f"paper_{overlay}" for overlay in overlays.split())):
        update_config(config, yaml.safe_load((SCHEMA_PATH.parent / f"{name}.yaml").read_text()))
    grid = Grid(config)
    planned = TABLES | FIGURES
    assert all(planned[name].inputs(Plan(grid)) for name in shown.split())
    assert len(grid.estimate_settings()["cells"]) >= len(grid.cells)
    cells = grid.by_address
    if overlays == "released":
        tuned = {cell.task for cell in grid.cells if cell.method == "given"}
        assert tuned == {"vader_published", "hh_published", "toxic_published"}
        assert grid.contrast_settings("toxic_published")["corpus"] == "hh-triples"
    if "explained" in overlays:
        assert {cell.settings["ablation"].explainer for cell in grid.cells} == {"gpt-4"}
    if overlays == "seeds":
        assert [c.seed for c in grid.cells if (c.model, c.task) == ("pythia-70m", "vader")] == [
            *range(5)
        ]
        assert ("pythia-70m/vader/seed0", "other_task") in grid.donors
    if "appendix" in overlays:
        read = [path.split("/")[-2] for path in Plan(grid).sweep_metrics("l1")]
        assert len(read) == 8 and sum(name.endswith("_base") for name in read) == 4
        variants = [grid.autoencoder_settings(cells["pythia-70m/vader/seed0"], v) for v in read]
        assert {(variant.epochs, variant.normalise) for variant in variants} == {(1, False)}
    if overlays == "moved":
        assert cells["pythia-70m/vader_1e-5/seed0"].settings["ppo"].learning_rate == 1e-5


@pytest.mark.parametrize(
    "name",
    [
        "seeds.yaml",
        "planted.yaml",
        "interventions.yaml",
        "dictionaries.yaml",
        "vector.yaml",
        "imdb.yaml",
        "smollm2.yaml",
        "smollm2_audit.yaml",
        "smollm2_best_of_n.yaml",
        "smollm2_dictionaries.yaml",
        "smollm2_steering.yaml",
    ],
)
def test_the_other_configurations_are_valid(name):
    grid = Grid(yaml.safe_load((SCHEMA_PATH.parent / name).read_text()))
    assert {"vader"} <= {cell.task for cell in grid.cells}
    if name == "seeds.yaml":
        assert [cell.seed for cell in grid.cells] == list(range(5))
        assert all(len(cell.probed) == 3 for cell in grid.cells)


@pytest.mark.parametrize("name", ["smollm2", "smollm2_audit"])
def test_the_real_model_runs_on_a_gpu_by_an_overlay(name):
    files = [SCHEMA_PATH.parent / f"{name}{part}.yaml" for part in ("", "_gpu")]
    config: dict = {}
    for file in files:
        update_config(config, yaml.safe_load(file.read_text()))
    grid = Grid(config)
    assert grid.models["smollm2"]["gpus"] == 1
    trained = [cell.settings["ppo"] for cell in grid.cells if cell.method == "ppo"]
    assert {settings.batch_size for settings in trained} == {128}
    rewards = [grid.tasks[cell.task].get("reward") for cell in grid.cells]
    null = rewards.count("noise") + rewards.count("vader")
    # A rate of alarms of 5 % takes nineteen policies that are no finding.
    assert name == "smollm2" or null >= 19


def test_the_real_models_explanations_are_of_moved_features_by_an_overlay():
    config: dict = {}
    for name in ("smollm2", "smollm2_moved"):
        update_config(config, yaml.safe_load((SCHEMA_PATH.parent / f"{name}.yaml").read_text()))
    cells = Grid(config).cells
    assert {cell.settings["explanations"].choose for cell in cells} == {"completions"}
    assert {cell.task: cell.settings["explanations"].texts for cell in cells} == {
        "vader": 3000, "hh": 800,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["detection.yaml", "detection_methods.yaml"])
def test_planted_organisms_have_a_null_of_their_own_method(name):
    grid = Grid(yaml.safe_load((SCHEMA_PATH.parent / name).read_text()))
    rewards = {}
    for cell in grid.cells:
        trained = (cell.method, benign_share(cell))
        rewards.setdefault(trained, []).append(grid.tasks[cell.task]["reward"])
    assert len(rewards) == (1 if name == "detection.yaml" else 4)
    for of in rewards.values():
        assert of.count("vader") >= LEAST_CLEAN and of.count("noise") >= LEAST_NOISE
        assert {"vader_flipped", "trigger"} <= set(of)


def test_another_seeds_policy_is_the_next_one_or_one_trained_for_it():
    one = Grid(changed(settings={"features": {"subjects": ["policy", "other_seed"]}}))
    assert one.donors["tiny/vader/seed0", "other_seed"].address == "tiny/vader/seed1"
    assert "tiny/vader/seed1" in one.by_address
    assert [cell.seed for cell in one.cells] == [0]
    cells = [{"model": "tiny", "task": "vader", "seeds": [3, 5]}]
    two = Grid(changed(settings={"features": {"subjects": ["policy", "other_seed"]}}, cells=cells))
    assert two.donors["tiny/vader/seed3", "other_seed"].address == "tiny/vader/seed5"
    assert two.donors["tiny/vader/seed5", "other_seed"].address == "tiny/vader/seed3"


def test_another_seeds_policy_differs_in_its_seed_alone():
    """Cells of one model and task may have other settings of fine-tuning: theirs is no control."""
    asked = {"features": {"subjects": ["policy", "other_seed"]}}
    cells = [
        {"model": "tiny", "task": "vader", "seeds": [0], "settings": asked},
        {"model": "tiny", "task": "vader", "seeds": [1], "settings": {"ppo": {"steps": 3}} | asked},
        {"model": "tiny", "task": "vader", "seeds": [2], "settings": {"ppo": {"steps": 3}}},
    ]
    grid = Grid(changed(cells=cells))
    assert grid.donors["tiny/vader/seed1", "other_seed"].address == "tiny/vader/seed2"
    donor = grid.donors["tiny/vader/seed0", "other_seed"]
    assert donor.address == "tiny/vader/seed3"
    trained = grid.by_address[donor.address].settings["ppo"]
    assert trained == grid.by_address["tiny/vader/seed0"].settings["ppo"]


def test_autoencoder_seeds_differ_and_variants_of_one_seed_start_alike():
    grid = Grid(changed(autoencoders={"tied": {}, "untied": {"tied": False}, "again": {"seed": 1}}))
    (cell,) = grid.cells
    seeds = {
        sae: grid.job_settings("autoencoders", cell, {"sae": sae, "layer": "2"})["seed"]
        for sae in grid.autoencoders
    }
    assert seeds["tied"] == seeds["untied"] != seeds["again"]


def test_variants_are_of_one_family_where_only_their_seed_differs():
    variants = {"tied": {}, "again": {"seed": 1}, "stream": {"site": "resid"}}
    grid = Grid(
        changed(
            autoencoders=variants,
            cells=[
                {"model": "tiny", "task": "vader", "autoencoders": list(variants),
                 "probed": list(variants)}
            ],
        )
    )  # fmt: skip
    assert grid.table_settings()["families"] == {
        "tiny/vader/seed0": {"tied": "tied", "again": "tied", "stream": "stream"}
    }


def test_a_sweep_over_l1_has_the_variants_that_differ_in_l1_alone():
    variants = {
        "tied": {}, "untied": {"tied": False}, "topk": {"architecture": "topk"},
        "high": {"l1": 0.01}, "topk_few": {"architecture": "topk", "k": 8},
    }  # fmt: skip
    cells = [
        {"model": "tiny", "task": "vader", "autoencoders": list(variants), "seeds": [0]},
        {"model": "tiny", "task": "vader", "autoencoders": ["tied", "untied"], "seeds": [1]},
    ]
    assert Plan(Grid(changed(autoencoders=variants, cells=cells))).sweep_metrics("l1") == [
        f"results/tiny/vader/seed0/sae/{sae}/metrics.json" for sae in ("tied", "high")
    ]


def test_averages_over_base_and_policy_have_the_variants_of_both():
    """Tables 11 and 12 and Figure 8 of the paper are means over both models' autoencoders."""
    variants = {
        "tied": {}, "untied": {"tied": False}, "high": {"l1": 0.01},
        "tied_base": {"reads": "base"}, "untied_base": {"reads": "base", "tied": False},
        "high_base": {"reads": "base", "l1": 0.01}, "stream": {"reads": "base", "site": "resid"},
    }  # fmt: skip
    entry = {"model": "tiny", "task": "vader", "lowest_layers": True}
    cells = [entry | {"autoencoders": list(variants)}]
    plan = Plan(Grid(changed(autoencoders=variants, cells=cells)))

    def names(paths):
        return [path.split("/")[-2] for path in paths]

    assert names(plan.twin_metrics()) == ["tied", "untied", "tied_base", "untied_base"]
    assert names(plan.sweep_metrics("l1")) == ["tied", "high", "tied_base", "high_base"]
    assert names(plan.lowest_metrics()) == ["tied", "tied_base"]
    # A variant of the base alone has no twin, and no other l1.
    few = [entry | {"autoencoders": ["tied", "untied", "tied_base"]}]
    plan = Plan(Grid(changed(autoencoders=variants, cells=few)))
    assert names(plan.twin_metrics()) == ["tied", "untied"]
    assert plan.sweep_metrics("l1") == []


def test_models_are_held_beside_the_papers_of_their_name_or_architecture():
    assert Grid(BASE).paper_models() == {"tiny": ["Pythia-70m", "Pythia-160m"]}
    paper = Grid(yaml.safe_load((SCHEMA_PATH.parent / "paper.yaml").read_text())).paper_models()
    assert paper["pythia-70m"] == ["Pythia-70m"]
    assert paper["gemma-2b-it"] == ["Gemma-2b"]


def test_limits_of_a_service_are_no_settings_of_a_job():
    config = changed(
        services__a={**SERVICE, "budget_usd": 1,
        "prices": {"input": 1, "output": 1, "as_of": "x", "source": "y"}},
        explainers__x={"service": "a"},
        cells=[{"model": "tiny", "task": "vader", "explainers": ["heuristic", "x"]}],
    )  # fmt: skip
    grid = Grid(config)
    settings = grid.job_settings("language_explanations", grid.cells[0], {"explainer": "x"})
    assert settings["service"]["name"] == "a"
    assert not set(settings["service"]) & set(grid.service_limits()["a"])
    assert grid.service_limits()["a"]["budget_usd"] == 1
    assert (
        settings["description"]
        == "training the model to generate completions with positive sentiment"
    )
    assert set(settings["prompts"]) == {"explain", "classify"}


def test_the_precision_of_a_model_reaches_the_jobs_that_read_it():
    grid = Grid(changed(models__tiny__dtype="bfloat16"))
    cell = grid.cells[0]
    wildcards = {"subject": "policy", "sae": "tied"}
    for stage in ("activations", "features", "explanations", "ablation", "export"):
        assert grid.job_settings(stage, cell, wildcards)["dtype"] == "bfloat16"
    assert "dtype" not in grid.job_settings("ppo", cell, {})


def test_an_edit_of_ones_own_reward_changes_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text("def f(prompts, completions): return [0.0] * len(prompts)")
    config = changed(tasks__vader__reward="callable", tasks__vader__callable="mine:f")
    before = Grid(config).feedback_settings("vader")
    (tmp_path / "mine.py").write_text("def f(prompts, completions): return [1.0] * len(prompts)")
    assert Grid(config).feedback_settings("vader") != before


def test_the_main_variant_is_the_first_one_where_none_is_named():
    variants = {"wide": {"tied": False}, "narrow": {"tied": True}}
    entry = {"model": "tiny", "task": "vader", "autoencoders": ["wide", "narrow"]}
    grid = Grid(
        changed(autoencoders=variants, cells=[entry, entry | {"seeds": [1], "main": "narrow"}])
    )
    assert [(cell.main, cell.probed) for cell in grid.cells] == [
        ("wide", ("wide",)),
        ("narrow", ("narrow",)),
    ]
    assert [grid.twins(cell) for cell in grid.cells] == [["wide", "narrow"]] * 2
    with pytest.raises(
        ConfigurationError, match=r"cells\.0\.probed: the cell's main variant 'narrow'"
    ):
        Grid(changed(autoencoders=variants, cells=[entry | {"main": "narrow", "probed": ["wide"]}]))


def test_given_policies_are_checkpoints_and_their_cells_have_a_kind_of_feedback():
    hub = {"hub": "a/b", "revision": "1234567"}
    pairs = {"method": "given", "corpus": "help", "feedback": "preference"}
    config = given() | {"cells": [{"model": "tiny", "task": task} for task in ("vader", "hh")]}
    config["tasks"]["hh"] = pairs | {"policies": {"tiny": hub}}
    grid = Grid(config)
    assert [cell.feedback for cell in grid.cells] == ["reward", "preference"]
    assert grid.checkpoints["tiny--vader"] == POLICY
    assert grid.checkpoints["tiny--hh"] == hub
    assert grid.feedback_settings("hh")["feedback"] == "preference"
    assert grid.contrast_settings("vader")["feedback"] == "reward"
    assert [row["about"]["given"] for row in grid.estimate_settings()["cells"]] == [True, True]


def test_triples_may_come_from_another_corpus_than_the_tasks():
    columns = {name: name for name in ("prompt", "positive", "neutral", "negative")}
    source = {"hub": "a/b", "revision": "1234567", "files": {"train": "*.arrow"}}
    config = changed(
        corpora__triples=source | {"columns": columns},
        tasks__hh__settings={"contrasts": {"corpus": "triples"}},
        cells=[{"model": "tiny", "task": "hh"}],
    )
    plan = Planner(Grid(config), lambda cell: "")
    assert plan.contrasted(SimpleNamespace(task="hh")) == "results/corpora/triples/test.parquet"
    assert plan.contrasted(SimpleNamespace(task="vader")) == "results/corpora/reviews/test.parquet"
    assert Plan(plan.grid).corpora("{name}") == ["help", "triples"]
    del columns["prompt"]
    with pytest.raises(ConfigurationError, match=r"triples\.columns: expected .*`prompt` and a"):
        Grid(changed(corpora__triples=source | {"columns": columns}))
    with pytest.raises(ConfigurationError, match=r"triples has no column prompt beside"):
        Grid(config)
    config["tasks"]["hh"]["settings"]["contrasts"]["source"] = "pairs"
    with pytest.raises(ConfigurationError, match=r"corpus has no effect with .* `pairs`"):
        Grid(config)


def test_a_given_policy_of_another_task_serves_a_cell_with_every_subject():
    config = given() | {"cells": [{"model": "tiny", "task": "hh"}]}
    subjects = {"subjects": ["policy", "other_seed", "other_task"], "other_task": "vader"}
    grid = Grid(config | {"settings": {"features": subjects}})
    assert grid.donors["tiny/hh/seed0", "other_task"].address == "tiny/vader/seed0"


def test_a_model_can_be_several_files():
    parts = ["m-1.gguf", "m-2.gguf"]
    grid = Grid(changed(models__parts={"path": parts, "n_layers": 2}))
    assert grid.checkpoints["parts"]["path"] == parts
    with pytest.raises(ConfigurationError, match=r"models\.parts\.path: 3 is not of type"):
        Grid(changed(models__parts={"path": 3, "n_layers": 2}))


def test_the_committed_schema_and_tables_are_those_that_the_classes_make():
    assert SCHEMA_PATH.read_text() == schema_text(), "run python -m lfp.schema"
    assert README_PATH.read_text() == with_tables(README_PATH.read_text()), "run it again"
    assert yaml.safe_load(schema_text()) == schema()
    with pytest.raises(ValueError, match=r"README.md: expected the lines"):
        with_tables("no markers")


def test_the_page_of_keys_names_every_stage():
    page = README_PATH.read_text(encoding="utf-8")
    sentence = page[page.index("The stages are") : page.index("to the file.")]
    assert sorted(re.findall(r"`(\w+)`", sentence)) == sorted(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_settings_survive_being_written_and_read(stage):
    values = STAGES[stage]().as_json()
    assert STAGES[stage].of(values) == STAGES[stage]()
    assert not any(isinstance(value, tuple) for value in values.values())


def test_settings_read_lists_and_objects_and_leave_out_what_is_not_theirs():
    values = {"new_tokens": [1, 2], "lora": {"r": 2, "alpha": 4}, "seed": 7}
    settings = PPO.of(values)
    assert settings.new_tokens == (1, 2)
    assert settings.lora == Lora(r=2, alpha=4)
    assert settings.as_json()["lora"] == values["lora"]


def test_cells_have_typed_settings_and_jobs_the_same_as_json():
    grid = Grid(changed(settings={"activations": {"texts": 10}}))
    (cell,) = grid.cells
    assert cell.settings["activations"] == Activations(texts=10)
    job = joined(*parted(grid.job_settings("activations", cell, {})))
    assert job == Activations(texts=10).as_json() | {"seed": job["seed"], "dtype": "float32"}
    variant = grid.job_settings("autoencoders", cell, {"sae": "tied", "layer": "0"})
    assert (variant["batch_size"], variant["sizes"], variant["site"]) == (4096, [1, 2], "mlp")


def test_planning_loads_no_library_of_science_and_leaves_the_environment_to_the_jobs():
    """A job that fetches must not inherit that jobs with models are offline."""
    code = (
        "import os, sys; before = dict(os.environ); import lfp.planning, lfp.figures.catalogue\n"
        "print(*{'numpy', 'pandas', 'torch'} & set(sys.modules), *os.environ.keys() ^ before)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=SCHEMA_PATH.parent.parent,
        text=True,
        capture_output=True,
        check=True,
    )
    assert result.stdout.strip() == ""


@pytest.mark.parametrize(
    ("steering", "message"),
    [
        ({"wanted": ["grand"]}, "steering.wanted and unwanted say what vectors are to do"),
        (
            {"vectors": ["random"], "wanted": ["grand"], "unwanted": ["grand"]},
            "'grand' stands under",
        ),
        ({"vectors": ["random"], "wanted": ["well-made"]}, "wanted.0"),
    ],
)
def test_words_that_no_vector_can_raise_are_refused(steering, message):
    cell = {"model": "tiny", "task": "vader", "settings": {"steering": steering}}
    with pytest.raises(ConfigurationError, match=message):
        Grid(changed(cells=[cell]))
