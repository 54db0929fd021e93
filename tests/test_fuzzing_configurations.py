"""Every mutation of a valid configuration plans, or is refused with the key named.

Nothing else is raised: neither by a grid, nor by the functions that plan its jobs.
"""

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lfp.figures.catalogue import FIGURES
from lfp.files.canonical import canonical_json
from lfp.grid import Cell, ConfigurationError, Grid
from lfp.planning import Planner
from lfp.schema import resolved, schema
from lfp.settings import CELL_STAGES, parted
from lfp.sites import SITES
from lfp.tables.catalogue import TABLES
from lfp.tables.inputs import Plan
from tests.test_configuration import POLICY, SERVICE, changed
from tests.test_planning import Wildcards

ROOT = Path(__file__).parent.parent
SHIPPED = (
    "config/config.yaml", "config/imdb.yaml", "config/paper.yaml", "config/seeds.yaml",
    "config/smollm2.yaml", "config/quick.yaml",
)  # fmt: skip
#: A configuration with every kind of entry.
EVERYTHING = changed(
    corpora__local={
        "path": {"train": ["a.jsonl"], "test": "b.csv"},
        "columns": {"prompt": "p", "chosen": "c", "rejected": "r"},
    },
    models__large={"path": ["m-1.gguf", "m-2.gguf"], "n_layers": 12, "finetune_gpus": 2,
                   "shape": {"parameters": 1e8, "d_model": 64, "vocab_size": 500}},
    classifiers={"judge": {"path": "judge", "positive": "POS"}},
    tasks__pairs={"method": "given", "corpus": "local", "feedback": "preference",
                  "policies": {"large": POLICY}, "description": "d",
                  "settings": {"contrasts": {"source": "rewrites"}, "rewrites": {"service": "s"}}},
    tasks__liked={"method": "grpo", "corpus": "reviews", "reward": "classifier",
                  "classifier": "judge", "description": "being nice"},
    services={"s": SERVICE | {"budget_usd": 1, "extra_body": {"a": [1]}, "prices": {
        "input": 1, "output": 2, "as_of": "2024-01-01", "source": "x"}}},
    explainers={"asked": {"service": "s"}},
    autoencoders={"tied": {}, "stream": {"site": "resid", "reads": "base", "architecture": "topk"}},
    machine={"tflops": 100},
    cells=[
        {"model": "tiny", "task": "vader", "seeds": [0, 1], "lowest_layers": [0, 1],
         "layers": [2, 3], "autoencoders": ["tied", "stream"], "probed": ["stream", "tied"],
         "main": "tied", "explainers": ["heuristic", "asked"],
         "settings": {"features": {"subjects": ["policy", "other_seed", "other_task"]},
                      "explanations": {"judge": "s"}}},
        {"model": "tiny", "task": "liked", "until": "probes"},
        {"model": "large", "task": "pairs", "lowest_layers": True},
    ],
)  # fmt: skip
CONFIGURATIONS = (
    EVERYTHING,
    *(yaml.safe_load((ROOT / path).read_text(encoding="utf-8")) for path in SHIPPED),
)
#: Values of every type and of either end.
VALUES = (
    None, True, False, 0, 1, 2, -1, 3, 7, 10**9, 2**62, 2**70, 0.0, 0.5, 1.0, -1.5, 1e-320, 1e300,
    float("inf"), float("nan"), "", " ", "x", "tiny", "vader", "tied", "heuristic", "policy",
    "1e-5", "3", "a/b", "x" * 300, "line\n", "a b", "ü", "\ud800", "\0", "../up", [], [1],
    ["policy"], [[]], [None], [3, 2], [1, 1], {}, {"x": 1}, {1: 2}, {"train": "a"}, b"x",
    (1, 2), {"tiny": {}},
)  # fmt: skip

#: The keys that lead to a value.
Keys = tuple[str | int, ...]


class PlannerOfAnything(Planner):
    """A planner whose cells chose their first layers."""

    def selection(self, cell: Cell) -> dict[str, Any]:
        count = cell.settings["divergence"].n_layers
        return {"chosen": list(range(count)), "lowest": list(range(count))}


def plan(config: Any) -> None:
    """Make the grid of a configuration, and everything that its rules ask of it."""
    grid = Grid(config)
    planner = PlannerOfAnything(grid, lambda cell: "")
    artefacts = Plan(grid)
    for entry in (*TABLES.values(), *FIGURES.values()):
        entry.inputs(artefacts)
    canonical_json(grid.table_settings() | grid.service_limits())
    for task in {cell.task for cell in grid.by_address.values()}:
        canonical_json([grid.feedback_settings(task), grid.contrast_settings(task)])
        if grid.task_settings("contrasts", task).source == "rewrites" and grid.services:
            canonical_json(grid.rewrite_settings(task))
    for cell in grid.by_address.values():
        plan_cell(planner, cell, is_donor=cell not in grid.cells)


def plan_cell(planner: Planner, cell: Cell, is_donor: bool) -> None:
    """Ask for settings, inputs and resources of the jobs of a cell."""
    grid = planner.grid
    at = {"model": cell.model, "task": cell.task, "seed": str(cell.seed)}
    place = Wildcards(**at)
    planner.resources(planner.finetune_gpus)["mem_mb"](place, 2)
    for of_place in (planner.classifier, planner.rewrites, planner.launcher, planner.threads):
        of_place(place)
    stage = "group" if cell.method == "grpo" else cell.method
    canonical_json(parted(grid.job_settings(stage, cell, at)))
    if is_donor:
        return
    assert len(canonical_json(planner.harvested_layers(place))) < 20_000
    for sae in cell.autoencoders:
        for subject in cell.settings["features"].subjects:
            where = Wildcards(**at, sae=sae, subject=subject, layer="0", explainer="heuristic")
            for ask in (planner.policy, planner.features, planner.probe, planner.ablated_model,
                        planner.activations, planner.read_model, planner.explanations,
                        planner.related, planner.judges, planner.read_corpus,
                        planner.trained_autoencoders, planner.autoencoders):  # fmt: skip
                ask(where)
            for stage in (*CELL_STAGES, "autoencoders", "probes", "scores"):
                canonical_json(parted(grid.job_settings(stage, cell, where)))
    corpus = grid.tasks[cell.task]["corpus"]
    for site in SITES:
        planner.base_settings(Wildcards(model=cell.model, corpus=corpus, site=site))


def places(node: Any, path: Keys = ()) -> Iterator[Keys]:
    """The path of every value below a node."""
    items = node.items() if isinstance(node, dict) else enumerate(node)
    for key, value in items:
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from places(value, (*path, key))


def value_at(config: Any, path: Keys) -> Any:
    for key in path:
        config = config[key]
    return config


#: Every setting of every stage of a cell.
SETTINGS = [
    (stage, field.name)
    for stage, settings_of in CELL_STAGES.items()
    for field in dataclasses.fields(settings_of)
]


def bounds(stage: str, key: str) -> list[Any]:
    """Values on and beside the bounds that the schema gives a setting."""
    node = resolved(schema()["$defs"][stage]["properties"][key])
    names = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
    limits = [node[name] for name in names if name in node]
    near = [limit + step for limit in limits for step in (-1, 0, 1)]
    return [*near, *node.get("enum", []), node.get("default")]


def near(value: Any) -> list[Any]:
    """Values of the type of `value`, or of one that is taken for it."""
    if isinstance(value, bool):
        return [not value, str(value), int(value)]
    if isinstance(value, int | float):
        return [value + 1, value - 1, 2 * value, value // 2, float(value), -value, str(value)]
    if isinstance(value, list):
        return [value[::-1], value[:1], value * 2]
    return [list(value)] if isinstance(value, dict) else [value + "x", value[:1], [value]]


def change_value(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Put any value in the place of one."""
    value_at(config, path[:-1])[path[-1]] = copy.deepcopy(draw(st.sampled_from(VALUES)))
    return ()


def change_little(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Put a value near one in its place."""
    value = value_at(config, path)
    if value is not None:
        value_at(config, path[:-1])[path[-1]] = copy.deepcopy(draw(st.sampled_from(near(value))))
    return ()


def delete(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Take a value away."""
    del value_at(config, path[:-1])[path[-1]]
    return ()


def rename_or_repeat(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Give a value another key, or a second one; repeat an item of a list."""
    parent, last = value_at(config, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.append(copy.deepcopy(parent[last]))
        return ()
    names = (f"{last}s", f"{last}\n", str(last).upper(), "new", f"{last}--{last}", 1)
    name = draw(st.sampled_from(names))
    parent[name] = copy.deepcopy(parent[last]) if draw(st.booleans()) else parent.pop(last)
    return (name,)


def swap(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Put two values in each other's places; one may hold the other."""
    other = draw(st.sampled_from(list(places(config))))
    ours, theirs = (copy.deepcopy(value_at(config, place)) for place in (path, other))
    value_at(config, path[:-1])[path[-1]] = theirs
    if path != other[: len(path)]:
        value_at(config, other[:-1])[other[-1]] = ours
    return other


def set_setting(draw: st.DrawFn, config: Any, path: Keys) -> Keys:
    """Set a setting of a stage, for all cells or for one, within its bounds or beside."""
    stage, key = draw(st.sampled_from(SETTINGS))
    value = draw(st.sampled_from([*bounds(stage, key), *VALUES]))
    owners = [config, *(entry for entry in config.get("cells") or [] if isinstance(entry, dict))]
    node = draw(st.sampled_from(owners))
    for name in ("settings", stage):
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            return ()
    node[key] = copy.deepcopy(value)
    return ("settings", stage, key)


CHANGES = (change_value, change_little, delete, rename_or_repeat, swap, set_setting)


@st.composite
def mutations(draw: st.DrawFn) -> tuple[Any, set[str]]:
    """A configuration with one or two changes, and the keys that lead to them."""
    config = copy.deepcopy(draw(st.sampled_from(CONFIGURATIONS)))
    touched: set[str] = set()
    for _ in range(draw(st.integers(1, 2))):
        paths = list(places(config))
        if isinstance(config.get("cells", []), list | None) and paths:
            path = draw(st.sampled_from(paths))
            other = draw(st.sampled_from(CHANGES))(draw, config, path)
            touched |= {str(key).strip().removesuffix("s") for key in (*path, *other)}
    return config, touched


@settings(max_examples=400, derandomize=True, deadline=None,
          suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example])  # fmt: skip
@given(mutations())
def test_a_mutated_configuration_plans_or_is_refused_by_name(mutation):
    config, touched = mutation
    try:
        plan(config)
    except ConfigurationError as error:
        message = str(error)
        assert "\n" not in message and len(message) < 2000
        assert any(key in message for key in touched), (message, touched)


@pytest.mark.parametrize("number", range(len(CONFIGURATIONS)))
def test_the_configurations_themselves_plan(number):
    plan(CONFIGURATIONS[number])
