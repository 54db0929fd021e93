"""Keys that change nothing: a configuration that gives one is refused, with the key's name.

A field of settings may say which methods of fine-tuning read it (``methods``), which sources of a
corpus or a model do (``kinds``), which rewards of a task (``rewards``), or which architectures of
autoencoders do (``architectures``); one that says nothing is always read. What counts is what a
configuration gives, not the defaults.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lfp.configuration import ConfigurationError
from lfp.sae.architectures import is_read
from lfp.settings import (
    METHODS,
    RUN_STAGES,
    STAGES,
    TRAINING_STAGES,
    Classifier,
    Corpus,
    Interventions,
    Model,
    Policy,
    Settings,
    Steering,
    Task,
    reading_method,
)

if TYPE_CHECKING:
    from lfp.grid import Cell, Grid


@dataclass(frozen=True, kw_only=True)
class Switch:
    """Keys of a stage that nothing reads unless another key of a cell asks for it.

    `asking` are such other keys as ``stage.key``, `needed` says in words how they ask, and `is_on`
    whether they do.
    """

    stage: str
    keys: Collection[str]
    asking: tuple[str, ...]
    needed: str
    is_on: Callable[[Cell], Any]


def _keys(cls: type[Settings], *without: str) -> list[str]:
    return [field.name for field in dataclasses.fields(cls) if field.name not in without]


SWITCHES = (
    Switch(
        stage="steering",
        keys=_keys(Steering, "vectors"),
        asking=("steering.vectors",),
        needed="`vectors`",
        is_on=lambda cell: cell.settings["steering"].vectors,
    ),
    Switch(
        stage="steering",
        keys=("clean_l1",),
        asking=("steering.clean",),
        needed="`clean`",
        is_on=lambda cell: cell.settings["steering"].clean,
    ),
    Switch(
        stage="steering",
        keys=("directions",),
        asking=("steering.vectors",),
        needed="the vector `targeted`",
        is_on=lambda cell: "targeted" in cell.settings["steering"].vectors,
    ),
    Switch(
        stage="interventions",
        keys=_keys(Interventions, "selectors"),
        asking=("interventions.selectors", "steering.selectors"),
        needed="`selectors`, here or of steering",
        is_on=lambda cell: any(
            cell.settings[stage].selectors for stage in ("interventions", "steering")
        ),
    ),
    Switch(
        stage="interventions",
        keys=("subjects", "actions", "clamps", "scales", "draws", "prompts"),
        asking=("interventions.selectors",),
        needed="`selectors`",
        is_on=lambda cell: cell.settings["interventions"].selectors,
    ),
    *(
        Switch(
            stage="interventions",
            keys=(key,),
            asking=("interventions.actions",),
            needed=f"the action `{action}`",
            is_on=lambda cell, action=action: action in cell.settings["interventions"].actions,
        )
        for action, key in (("clamp", "clamps"), ("scale", "scales"))
    ),
    Switch(
        stage="features",
        keys=("other_task",),
        asking=("features.subjects",),
        needed="the subject `other_task`",
        is_on=lambda cell: "other_task" in cell.settings["features"].subjects,
    ),
    Switch(
        stage="account",
        keys=("sites", "single_layers", "draws"),
        asking=("account.strengths",),
        needed="`strengths`",
        is_on=lambda cell: cell.settings["account"].strengths,
    ),
    Switch(
        stage="account",
        keys=("instances",),
        asking=("account.doses", "account.strengths"),
        needed="`doses` or `strengths`",
        is_on=lambda cell: cell.settings["account"].doses or cell.settings["account"].strengths,
    ),
)


def check_effects(grid: Grid, config: Mapping[str, Any]) -> None:
    """Raise ConfigurationError at the first key of `config` that changes nothing in `grid`."""
    kinds = {
        task: reading_method(entry["method"], grid.feedback(task))
        for task, entry in grid.tasks.items()
    }
    cells = list(grid.by_address.values())
    for name, entry in config["corpora"].items():
        _check_source(f"corpora.{name}", Corpus, entry, entry.get("organism"))
        if "test_share" in entry and "test" in (entry.get("files") or entry.get("path") or {}):
            raise ConfigurationError(
                f"corpora.{name}.test_share: no effect where a `test` split is given; leave it out"
            )
    for name, entry in config["models"].items():
        _check_source(f"models.{name}", Model, entry)
        reached = {kinds[cell.task] for cell in cells if cell.model == name}
        _check_stages(f"models.{name}.settings", entry.get("settings", {}), reached)
    for name, entry in config.get("classifiers", {}).items():
        _check_source(f"classifiers.{name}", Classifier, entry)
    for name, entry in config["tasks"].items():
        _check_task(f"tasks.{name}", entry, kinds[name])
    for index, entry in enumerate(config["cells"]):
        kind = kinds[entry["task"]]
        _check_stages(f"cells.{index}.settings", entry.get("settings", {}), {kind}, one=kind)
    reached = {kinds[cell.task] for cell in cells}
    _check_stages("settings", config.get("settings", {}), reached)
    _check_clipping(grid, config)
    _check_switches(grid, config)
    _check_pinned(grid, config)
    _check_architectures(grid, config)
    _check_overridden(grid, config)
    _check_variants(grid, config.get("autoencoders", {}))


def _readers(cls: type[Settings], key: str, what: str) -> Collection[str] | None:
    """What reads a field, by its metadata `what`; None for everything."""
    return {field.name: field for field in dataclasses.fields(cls)}[key].metadata.get(what)


def _named(names: Collection[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _check_source(
    where: str, cls: type[Settings], entry: Mapping[str, Any], generator: str | None = None
) -> None:
    """Check that every key of an entry belongs to its source, or to its `generator`."""
    kind = generator or next(source for source in cls.sources if source in entry)
    for key in entry:
        readers = _readers(cls, key, "kinds")
        if readers is not None and kind not in readers:
            raise ConfigurationError(
                f"{where}.{key}: no effect for `{kind}`; it belongs to {_named(readers)}. Leave it"
                " out"
            )


def _check_task(where: str, entry: Mapping[str, Any], kind: str) -> None:
    reward = entry.get("reward", "vader")
    for key in entry:
        readers = _readers(Task, key, "methods")
        if readers is not None and kind not in readers:
            raise ConfigurationError(
                f"{where}.{key}: no effect under the method `{kind}`; it is read by"
                f" {_named(readers)}. Leave it out"
            )
        readers = _readers(Task, key, "rewards")
        if readers is not None and reward not in readers:
            raise ConfigurationError(
                f"{where}.{key}: no effect under the reward `{reward}`; it belongs to"
                f" {_named(readers)}. Leave it out, or set `reward`"
            )
    for name, source in entry.get("policies", {}).items():
        _check_source(f"{where}.policies.{name}", Policy, source)
    _check_stages(f"{where}.settings", entry.get("settings", {}), {kind}, one=kind)


def _check_stages(
    where: str, written: Mapping[str, Any], kinds: Collection[str], one: str | None = None
) -> None:
    """Check the settings by stage that a configuration gives at one place.

    They reach cells of the methods `kinds`. Where they reach several tasks, a stage that none of
    them runs may stand, since a configuration is laid over others, and keys that the feedback
    decides about may, too; where they reach `one`, nothing without effect may.
    """
    for stage, values in written.items():
        if stage in RUN_STAGES and one is not None:
            raise ConfigurationError(
                f"{where}.{stage}: no effect here; it belongs to the whole run: move it to"
                " `settings`"
            )
        fields = dataclasses.fields(STAGES[stage])
        runs = {kind for field in fields for kind in field.metadata.get("methods", METHODS)}
        if not runs & set(kinds):
            if one is not None:
                raise ConfigurationError(
                    f"{where}.{stage}: no effect under the method `{one}`, which does not run it;"
                    f" it is read by {_named([m for m in METHODS if m in runs])}. Leave it out"
                )
            continue
        for key in values:
            readers = _readers(STAGES[stage], key, "methods")
            strict = one is not None or stage in TRAINING_STAGES
            if strict and readers is not None and not set(kinds) & set(readers):
                methods = _named([method for method in METHODS if method in kinds])
                move = "" if one else ", or move it to the `settings` of a task that reads it"
                raise ConfigurationError(
                    f"{where}.{stage}.{key}: no effect under {methods}; it is read by"
                    f" {_named(readers)}. Leave it out{move}"
                )


def _written(
    grid: Grid, config: Mapping[str, Any], stage: str
) -> Iterator[tuple[str, Mapping[str, Any], list[Cell]]]:
    """The settings of a stage at every place that gives some: where, their values, their cells."""
    places: list[tuple[str, Mapping[str, Any], dict[str, Collection[Any]]]] = [("", config, {})]
    places += [(f"models.{name}.", e, {"model": [name]}) for name, e in config["models"].items()]
    places += [(f"tasks.{name}.", e, {"task": [name]}) for name, e in config["tasks"].items()]
    places += [
        (f"cells.{i}.", e, {"model": [e["model"]], "task": [e["task"]], "seed": e["seeds"]})
        for i, e in enumerate(grid.config["cells"])
    ]
    for where, entry, names in places:
        values = entry.get("settings", {}).get(stage, {})
        reached = [c for c in grid.cells if all(getattr(c, k) in v for k, v in names.items())]
        yield f"{where}settings.{stage}", values, reached


def _is_shared(where: str) -> bool:
    """Whether the settings at a place belong to the file or a model, which files are laid over."""
    return not where.startswith(("tasks.", "cells."))


def _check_switches(grid: Grid, config: Mapping[str, Any]) -> None:
    """Check that some cell reads the keys that a switch turns on, where they are given.

    Those that several tasks share may stand where the switch is given at all: a file that is laid
    over them may turn it off.
    """
    for switch in SWITCHES:
        keys = [key.split(".") for key in switch.asking]
        chosen = any(
            key in values for stage, key in keys for _, values, _ in _written(grid, config, stage)
        )
        for where, values, cells in _written(grid, config, switch.stage):
            idle = [key for key in switch.keys if key in values]
            strict = not (chosen and _is_shared(where))
            if idle and strict and cells and not any(switch.is_on(cell) for cell in cells):
                raise ConfigurationError(
                    f"{where}.{idle[0]}: no effect without {switch.needed}; give that, or leave it"
                    " out"
                )


def _check_pinned(grid: Grid, config: Mapping[str, Any]) -> None:
    """Check that a number of layers is not given to cells whose layers are all pinned.

    That of several tasks may stand: a file that is laid over it may pin the layers.
    """
    for where, values, cells in _written(grid, config, "divergence"):
        is_chosen = any(cell.layers is None or cell.lowest_layers is True for cell in cells)
        if "n_layers" in values and cells and not is_chosen and not _is_shared(where):
            raise ConfigurationError(
                f"{where}.n_layers: no effect where `layers` pins them; leave one of them out"
            )


def _check_overridden(grid: Grid, config: Mapping[str, Any]) -> None:
    """Check that no task's or cell's setting is overridden by every variant that it reaches.

    It may be what a variant says as well, and variants may be laid over what a file or model says.
    """
    for where, values, cells in _written(grid, config, "autoencoder"):
        if _is_shared(where):
            continue
        variants = list(dict.fromkeys(name for cell in cells for name in cell.autoencoders))
        for key, value in values.items():
            given = [grid.autoencoders[name].get(key, value) for name in variants]
            if variants and value not in given:
                raise ConfigurationError(
                    f"{where}.{key}: no effect, for autoencoders.{variants[0]}.{key} takes its"
                    " place, as variants come last; leave one of them out, or give both the same"
                    " value"
                )


def _check_clipping(grid: Grid, config: Mapping[str, Any]) -> None:
    """Check that ``group.epsilon``, where it is given, has a second update to clip in some cell."""
    for where, values, cells in _written(grid, config, "group"):
        in_groups = [cell for cell in cells if cell.method in ("rloo", "grpo")]
        iterations = {cell.settings["group"].num_iterations for cell in in_groups}
        if "epsilon" in values and iterations == {1}:
            raise ConfigurationError(
                f"{where}.epsilon: no effect with group.num_iterations 1, where every batch has one"
                " update and no ratio to clip; raise that, or leave it out"
            )


def _check_architectures(grid: Grid, config: Mapping[str, Any]) -> None:
    """Check that the settings of autoencoders are read by an architecture that they reach.

    Those that several tasks share may stand where an architecture is chosen, for it may be chosen
    in a file that is laid over them.
    """
    chosen = any("architecture" in values for values in config.get("autoencoders", {}).values())
    places = list(_written(grid, config, "autoencoder"))
    chosen = chosen or any("architecture" in values for _, values, _ in places)
    for where, values, cells in places:
        if not _is_shared(where):
            _check_idle(where, values)
        if not (chosen and _is_shared(where)):
            _check_read(grid, where, values, [(c, name) for c in cells for name in c.autoencoders])


def _check_idle(where: str, values: Mapping[str, Any]) -> None:
    """Check that none of the keys `values` of an autoencoder is idle beside another of them."""
    idle = {
        "l0": ("l1 is given", values.get("l1") is not None),
        "patience": ("tolerance is null", values.get("tolerance", 0) is None),
    }
    for key, (reason, has_no_effect) in idle.items():
        if key in values and has_no_effect:
            raise ConfigurationError(
                f"{where}.{key}: no effect where {reason}; leave one of them out"
            )


def _check_variants(grid: Grid, variants: Mapping[str, Any]) -> None:
    """Check that the architecture of an autoencoder variant reads the variant's keys."""
    for name, values in variants.items():
        _check_idle(f"autoencoders.{name}", values)
        # A spare variant, which no cell names, is checked as if any of them did.
        cells = [cell for cell in grid.cells if name in cell.autoencoders] or grid.cells
        _check_read(grid, f"autoencoders.{name}", values, [(cell, name) for cell in cells])


def _check_read(
    grid: Grid, where: str, values: Mapping[str, Any], variants: list[tuple[Cell, str]]
) -> None:
    """Check that some of the `variants`, by cell and name, reads each of the keys `values`."""
    reached = [grid.autoencoder_settings(cell, name) for cell, name in variants]
    architectures = {settings.architecture for settings in reached}
    for key in values:
        if reached and not any(is_read(key, settings) for settings in reached):
            raise ConfigurationError(
                f"{where}.{key}: no effect for the architecture {_named(architectures)}; leave it"
                " out"
            )
