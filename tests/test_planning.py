"""Jobs get their paths by name: a path where a rule has one, a list where it may have more."""

from types import SimpleNamespace

import pytest

from lfp import planning
from lfp.grid import Grid
from tests.test_configuration import SERVICE, changed


def planner(**changes) -> planning.Planner:
    """The planner of a small configuration with `changes`."""
    return planning.Planner(Grid(changed(**changes)), lambda cell: "divergence.json")


def wildcards(**values) -> SimpleNamespace:
    """The wildcards of a job of the small configuration's cell."""
    cell = {"model": "tiny", "task": "vader", "seed": "0", "sae": "tied", "subject": "policy"}
    return SimpleNamespace(**cell | values)


def test_names_tell_lists_from_single_paths():
    assert planning.counted({"base": "a", "train": ["b", "c"], "classifier": []}) == (
        "base train:2 classifier:0"
    )


def test_a_wildcard_without_names_admits_nothing():
    assert planning.names(["b.c", "a"]) == r"a|b\.c"
    assert planning.names([]) == "(?!)"


def test_inputs_that_may_be_missing_are_lists():
    """A script takes the first of such a list, so a path alone would be read letter by letter."""
    plain = planner()
    assert plain.rewrites(wildcards(task="hh")) == []
    assert plain.classifier(wildcards()) == []
    assert plain.probe(wildcards(subject="base")) == []
    rewritten = planner(
        services={"s": SERVICE}, tasks__hh__settings={
            "contrasts": {"source": "rewrites"}, "rewrites": {"service": "s"},
        },
    )  # fmt: skip
    assert rewritten.rewrites(wildcards(task="hh")) == ["results/rewrites/hh.parquet"]
    assert rewritten.rewrites(wildcards()) == []
    classified = planner(
        classifiers={"c": {"path": "classifier", "positive": "POS"}},
        tasks__vader={
            "method": "ppo", "corpus": "reviews", "reward": "classifier", "classifier": "c",
            "description": "training the model to please",
        },
    )  # fmt: skip
    assert classified.classifier(wildcards()) == ["results/models/c"]
    probed = planner(settings={"ablation": {"arms": ["none", "top_probe_weight"]}})
    folder = "results/tiny/vader/seed0/probes/tied/policy"
    assert probed.probe(wildcards()) == [f"{folder}/probe.safetensors"]


def test_a_job_without_a_cell_names_those_that_there_are():
    with pytest.raises(ValueError, match="no cell tiny/vader/seed9 .* it has tiny/vader/seed0"):
        planner().cell(wildcards(seed="9"))
