"""The grid of cells: reading, checking and resolving a configuration.

Everything is checked before any job is planned; a mistake raises :class:`ConfigurationError` with
one line that names the key, what was expected, and the nearest valid name.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from lfp.registry import nearest
from lfp.services.prompts import digests

SCHEMA_PATH = Path(__file__).parent.parent / "config" / "schema.yaml"

#: Stages whose settings a cell resolves; ``contrasts`` belong to a task and ``tables`` to the whole
#: run.
CELL_STAGES = (
    "ppo", "group", "dpo", "divergence", "activations", "autoencoder", "features", "probes",
    "explanations", "ablation",
    "export",
)  # fmt: skip
#: Stages whose settings belong to a task, and to the whole run.
OTHER_STAGES = ("contrasts", "rewrites", "tables")
#: Keys of a service that decide its answers; the others limit how it is asked.
SERVICE_IDENTITY = (
    "base_url", "model", "temperature", "seed", "max_tokens", "max_tokens_field",
    "response_schema", "extra_body"
)  # fmt: skip
#: What planted and lexicon rewards reward, in words.
DESCRIPTIONS = {
    "vader": "training the model to generate completions with positive sentiment",
    "vader_flipped": "training the model to generate completions with positive sentiment",
    "length": "training the model to generate completions with many words",
    "trigger": "training the model to use the word {trigger!r}",
    "noise": "a reward that does not depend on what the text says",
}
#: Folders of the results that are not a model's.
RESULT_FOLDERS = (
    "benchmarks", "contrasts", "corpora", "exports", "figures", "instances", "lexicons",
    "llm_cache", "logs", "models",
    "rewrites", "tables", "tensorboard",
)  # fmt: skip
#: Subjects of a cell that are the policy of another one.
DONATED = ("other_seed", "other_task")
#: Columns of a task's entry that say what its reward is.
REWARD_KEYS = ("reward", "flipped_share", "trigger", "reward_seed", "callable")
#: Stages that read or run a model for inference, in the precision of its entry.
READING_STAGES = ("activations", "features", "explanations", "ablation", "export")
#: The paper's models by architecture, for tables that show a published value beside their own.
PAPER_MODELS = {
    "gpt_neox": ("Pythia-70m", "Pythia-160m"), "gpt_neo": ("GPT-Neo-125m",), "gemma": ("Gemma-2b",)
}  # fmt: skip


class ConfigurationError(ValueError):
    """A configuration that cannot be run."""


@lru_cache(maxsize=1)
def schema() -> dict[str, Any]:
    """The JSON schema of a configuration."""
    return yaml.safe_load(SCHEMA_PATH.read_text(encoding="utf-8"))


def _resolve_reference(node: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in node:
        target = schema()["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        return {**target, **{key: value for key, value in node.items() if key != "$ref"}}
    return node


def with_defaults(value: Any, node: Mapping[str, Any]) -> Any:
    """`value` with the defaults of schema `node` filled in, at every depth; `value` itself is not
    changed.

    Stages are left as they are written: their defaults come last in the order of resolution, not
    first.
    """
    if node.get("$ref", "").rsplit("/", 1)[-1] in (*CELL_STAGES, *OTHER_STAGES):
        return value
    node = _resolve_reference(node)
    if isinstance(value, Mapping):
        properties = node.get("properties", {})
        extra = node.get("additionalProperties")
        filled = {
            key: copy.deepcopy(spec["default"])
            for key, spec in properties.items()
            if "default" in spec
        }
        filled |= value
        return {
            key: with_defaults(
                item, properties.get(key, extra if isinstance(extra, Mapping) else {})
            )
            for key, item in filled.items()
        }
    if isinstance(value, list) and "items" in node:
        return [with_defaults(item, node["items"]) for item in value]
    return value


def stage_defaults(stage: str) -> dict[str, Any]:
    """Default settings of a stage."""
    return with_defaults({}, schema()["$defs"][stage])


def _describe(error: Any) -> str:
    """One line for a schema violation: the key's path, what is wrong, and the nearest
    valid name.
    """
    path = ".".join(str(part) for part in error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        unknown = next(key for key in error.instance if key not in known)
        return (
            f"{'.'.join(filter(None, [path, str(unknown)]))}: unknown key;"
            f" {nearest(unknown, known)}"
        )
    if error.validator == "required":
        return f"{path or 'configuration'}: {error.message}"
    if error.validator == "oneOf":
        return f"{path}: give exactly one source: organism, path or hub"
    if error.validator == "enum":
        return (
            f"{path}: {error.instance!r} is not a valid value;"
            f" {nearest(error.instance, error.validator_value)}"
        )
    description = error.schema.get("description", "") if isinstance(error.schema, Mapping) else ""
    return f"{path}: {error.message}{f' ({description})' if description else ''}"


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for layer in layers for key, value in layer.items()}


@dataclass(frozen=True)
class Cell:
    """One (model, task, seed) of the grid with its resolved settings by stage."""

    model: str
    task: str
    seed: int
    method: str
    layers: tuple[int, ...] | None
    autoencoders: tuple[str, ...]
    main: str
    explainers: tuple[str, ...]
    lowest_layers: bool | tuple[int, ...]
    probed: tuple[str, ...]
    until: str
    settings: Mapping[str, Mapping[str, Any]]

    @property
    def feedback(self) -> str:
        """What the cell learned from: a ``reward`` of text, or ``preference`` pairs."""
        return "preference" if self.method == "dpo" else "reward"

    @property
    def address(self) -> str:
        """Path of the cell's results below the results folder."""
        return f"{self.model}/{self.task}/seed{self.seed}"


def derived_seed(seed: int, address: str, stage: str) -> int:
    """The seed of one stream: a function of the configured seed, the address and the stage, below
    2**31.
    """
    digest = hashlib.sha256(f"{seed}/{address}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def source_digest(name: str) -> str:
    """Digest of the file of a reward ``module:function``, looked for as the jobs will; nothing is
    imported.

    Raises ConfigurationError where there is none.
    """
    relative = Path(*name.partition(":")[0].split("."))
    for path in (relative.with_suffix(".py"), relative / "__init__.py"):
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    raise ConfigurationError(
        f"tasks: the reward {name!r} needs {relative}.py in the working directory {Path.cwd()}"
    )


class Grid:
    """A checked configuration.

    Raises
    ------
    ConfigurationError
        On anything that the schema or the cross-checks reject.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        errors = sorted(
            Draft202012Validator(schema()).iter_errors(dict(config)),
            key=lambda e: list(map(str, e.absolute_path)),
        )
        if errors:
            # An unknown key can also fail its parent's other rules: the most specific message comes
            # first.
            errors.sort(
                key=lambda e: (
                    e.validator != "additionalProperties",
                    e.validator == "dependentRequired",
                )
            )
            raise ConfigurationError(_describe(errors[0]))
        self.config = with_defaults(dict(config), schema())
        self.corpora: dict[str, Any] = self.config["corpora"]
        self.models: dict[str, Any] = self.config["models"]
        self.tasks: dict[str, Any] = self.config["tasks"]
        self.classifiers: dict[str, Any] = self.config["classifiers"]
        #: Everything that is fetched or copied to results/models/.
        self.checkpoints: dict[str, Any] = self.models | self.classifiers
        self.autoencoders: dict[str, Any] = self.config["autoencoders"]
        self.services: dict[str, Any] = self.config["services"]
        self.explainers: dict[str, Any] = self.config["explainers"]
        self._check_names()
        self._check_services()
        self.cells = [cell for entry in self.config["cells"] for cell in self._expand(entry)]
        addresses: dict[str, Cell] = {}
        for cell in self.cells:
            if cell.address in addresses:
                raise ConfigurationError(
                    f"cells: two cells have the address {cell.address}; give them different seeds"
                )
            addresses[cell.address] = cell
            self._check_layers(cell)
            self._check_values(cell)
            self._check_explainers(cell)
        self.by_address = addresses
        self.donors = {
            (cell.address, subject): self._donor(cell, subject)
            for cell in self.cells
            for subject in cell.settings["features"]["subjects"]
            if subject in DONATED
        }
        # Policies that are trained for a control alone have an address, too, but are no cells of
        # the grid.
        for donor in self.donors.values():
            self.by_address.setdefault(donor.address, donor)

    # ------------------------------------------------------------------------------------ resolving

    @staticmethod
    def _stage(stage: str, *owners: Mapping[str, Any]) -> dict[str, Any]:
        return _merge(
            stage_defaults(stage), *(owner.get("settings", {}).get(stage, {}) for owner in owners)
        )

    def _expand(self, entry: Mapping[str, Any]) -> list[Cell]:
        model, task = entry["model"], entry["task"]
        owners = (self.config, self.models[model], self.tasks[task], entry)
        settings = {stage: self._stage(stage, *owners) for stage in CELL_STAGES}
        lowest = entry["lowest_layers"]
        variants = tuple(entry["autoencoders"] or [next(iter(self.autoencoders))])
        main = entry["main"] or variants[0]
        return [
            Cell(
                model, task, seed, self.tasks[task]["method"],
                tuple(sorted(entry["layers"])) if entry["layers"] else None,
                variants, main, tuple(entry["explainers"]),
                tuple(lowest) if isinstance(lowest, list) else lowest,
                tuple(entry["probed"] or [main]), entry["until"], settings,
            )
            for seed in entry["seeds"]
        ]  # fmt: skip

    def _entry(self, model: str, task: str) -> dict[str, Any]:
        """The grid's entry of a model and task, or one of defaults."""
        found = [e for e in self.config["cells"] if (e["model"], e["task"]) == (model, task)]
        return (
            found[0]
            if found
            else with_defaults({"model": model, "task": task}, schema()["$defs"]["cell"])
        )

    def _donor(self, cell: Cell, subject: str) -> Cell:
        """The cell whose policy is the subject `other_seed` or `other_task` of `cell`."""
        if subject == "other_seed":
            seeds = [c.seed for c in self.cells if (c.model, c.task) == (cell.model, cell.task)]
            seed = (
                seeds[(seeds.index(cell.seed) + 1) % len(seeds)]
                if len(seeds) > 1
                else cell.seed + 1
            )
            return self._expand(self._entry(cell.model, cell.task) | {"seeds": [seed]})[0]
        where = f"cell {cell.address}: features.other_task"
        task = cell.settings["features"]["other_task"]
        others = [c.task for c in self.cells if c.model == cell.model and c.task != cell.task]
        if task is None and not others:
            raise ConfigurationError(
                f"{where}: the grid has no other task of {cell.model}; name one of `tasks`"
            )
        task = task or others[0]
        self._check_name(where, task, self.tasks)
        if task == cell.task:
            raise ConfigurationError(f"{where}: {task!r} is the cell's own task; name another")
        seeds = [c.seed for c in self.cells if (c.model, c.task) == (cell.model, task)]
        seed = cell.seed if cell.seed in seeds or not seeds else seeds[0]
        return self._expand(self._entry(cell.model, task) | {"seeds": [seed]})[0]

    def job_settings(self, stage: str, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        """All that one job of a cell is parameterised by, besides its inputs: its stage's settings
        and its seed.
        """
        own = dict(cell.settings.get(stage, {}))
        seed = derived_seed(cell.seed, cell.address, stage)
        if stage == "autoencoders":
            variant, layer = wildcards["sae"], wildcards["layer"]
            own = self.autoencoder_settings(cell, variant) | {"model": cell.model}
            # Not of the variant: variants of one layer start from the same draws and differ in
            # their settings only.
            seed = derived_seed(cell.seed, cell.address, f"{stage}/layer{layer}/{own.pop('seed')}")
        elif stage == "divergence":
            own["layers"] = list(cell.layers) if cell.layers else None
            own["lowest"] = (
                list(cell.lowest_layers) if isinstance(cell.lowest_layers, tuple) else None
            )
        elif stage == "features":
            own = {key: own[key] for key in ("max_tokens", "batch_size")}
            # The embedding is a covariate of every probe; principal components are taken of `raw`.
            wanted = {*self.kinds(cell, wildcards["subject"]), "embedding"}
            own["kinds"] = sorted((wanted - {"pca"}) | ({"raw"} if "pca" in wanted else set()))
        elif stage == "probes":
            own.pop("control_features")
            own |= {"features": self.kinds(cell, wildcards["subject"]), "feedback": cell.feedback}
        elif stage == "explanations":
            own.pop("judge")
            own["feedback"] = cell.feedback
        elif stage == "language_explanations":
            own = {"service": self.service(self.explainers[wildcards["explainer"]]["service"])}
            own |= {
                "description": self.description(cell.task),
                "prompts": digests("explain", "classify"),
            }
        elif stage == "scores":
            judge = cell.settings["explanations"]["judge"]
            own = {"judge": self.service(judge) if judge else None}
            own |= {"prompts": digests("detect", "fuzz")} if judge else {}
        elif stage == "ablation":
            own.pop("explainer")
            base_arms, interventions = own.pop("base_arms"), own.pop("interventions")
            if wildcards["subject"] == "base":
                own["arms"] = base_arms
            own["interventions"] = interventions if wildcards["subject"] == "policy" else ["zero"]
            own["feedback"] = cell.feedback
            own["reward"] = {
                key: cell.settings["ppo"][f"reward_{key}"] for key in ("divisor", "clip", "on")
            }
        if stage == "group":
            own = dict(cell.settings["ppo"]) | {"group": cell.settings["group"]}
        if stage in READING_STAGES:
            own["dtype"] = self.models[cell.model]["dtype"]
        return own | {"seed": seed}

    @staticmethod
    def kinds(cell: Cell, subject: str) -> list[str]:
        """Kinds of features of a subject: all for the policy, those of controls for the others."""
        kinds = list(
            cell.settings["probes"]["features" if subject == "policy" else "control_features"]
        )
        return [] if subject == "text" else kinds

    def feedback_settings(self, task: str) -> dict[str, Any]:
        """All that a task's feedback is parameterised by: its kind, its reward, and the code of a
        callable one.
        """
        entry = self.tasks[task]
        own = {key: entry[key] for key in REWARD_KEYS}
        classifier = (
            self.classifiers[entry["classifier"]] if entry["reward"] == "classifier" else {}
        )
        own |= {
            "feedback": "preference" if entry["method"] == "dpo" else "reward",
            "classifier": entry["classifier"],
        }
        sha = source_digest(entry["callable"]) if entry["reward"] == "callable" else None
        return own | {"positive": classifier.get("positive"), "callable_sha": sha}

    def paper_models(self) -> dict[str, list[str]]:
        """The paper's models that each model of the grid is held beside: its own name, else its
        architecture's.
        """
        by_name = {name.lower(): name for names in PAPER_MODELS.values() for name in names}
        result = {}
        for model in sorted({cell.model for cell in self.cells}):
            own = by_name.get(model.lower().removesuffix("-it"))
            family = self.models[model].get("organism", {}).get("architecture")
            result[model] = [own] if own else list(PAPER_MODELS.get(family, ()))
        return result

    def task_settings(self, stage: str, task: str) -> dict[str, Any]:
        """Settings of a stage that belongs to a task."""
        return self._stage(stage, self.config, self.tasks[task])

    def contrast_settings(self, task: str) -> dict[str, Any]:
        """All that a task's triples are parameterised by."""
        entry = self.tasks[task]
        return self.task_settings("contrasts", task) | {
            "feedback": "preference" if entry["method"] == "dpo" else "reward",
            "swapped": entry["swapped"]
        }  # fmt: skip

    def rewrite_settings(self, task: str) -> dict[str, Any]:
        """All that the rewrites of a task are parameterised by."""
        own = self.task_settings("rewrites", task)
        return own | {
            "service": self.service(own["service"]),
            "prompts": digests("grade", "rewrite"),
        }

    def description(self, task: str) -> str:
        """What a task's feedback rewards, in words."""
        entry = self.tasks[task]
        if entry["description"] or entry["method"] == "dpo":
            return entry["description"] or ""
        return DESCRIPTIONS.get(entry["reward"], "").format(trigger=entry["trigger"])

    def service(self, name: str) -> dict[str, Any]:
        """A service's name and what decides its answers."""
        return {"name": name} | {key: self.services[name][key] for key in SERVICE_IDENTITY}

    def service_limits(self) -> dict[str, dict[str, Any]]:
        """What limits the calls to each service and changes no answer."""
        return {
            name: {key: value for key, value in entry.items() if key not in SERVICE_IDENTITY}
            for name, entry in self.services.items()
        }

    def run_settings(self, stage: str) -> dict[str, Any]:
        """Settings of a stage that belongs to the whole run."""
        return self._stage(stage, self.config)

    def autoencoder_settings(self, cell: Cell, variant: str) -> dict[str, Any]:
        """Settings of one autoencoder variant of a cell."""
        return _merge(cell.settings["autoencoder"], self.autoencoders[variant])

    def twin(self, cell: Cell) -> str | None:
        """The cell's variant that differs from its main one in nothing but whether it is tied; None
        without one.
        """
        main = self.autoencoder_settings(cell, cell.main)
        wanted = main | {"tied": not main["tied"]}
        return next(
            (v for v in cell.autoencoders if self.autoencoder_settings(cell, v) == wanted), None
        )

    def table_settings(self) -> dict[str, Any]:
        """All that tables are parameterised by."""
        main = {cell.address: cell.main for cell in self.cells}
        return self.run_settings("tables") | {"paper_models": self.paper_models(), "main": main}

    def estimate_settings(self) -> dict[str, Any]:
        """All that the estimate of costs is parameterised by: the machine, and shape and settings
        of every cell.
        """
        rows = []
        for cell in self.cells:
            n_layers = cell.settings["divergence"]["n_layers"]
            about = {
                "preference": cell.feedback == "preference",
                "dtype": self.models[cell.model]["dtype"],
                "layers": len(cell.layers) if cell.layers else n_layers,
                "autoencoders": len(cell.autoencoders), "ablation": cell.until == "ablation",
                "triples": self.triples(cell.task), "kept": self.config["keep_activations"],
            }  # fmt: skip
            about["trained_layers"] = about["layers"] * (2 if cell.lowest_layers else 1)
            shape = self.shape(cell.model)
            rows.append(
                {"address": cell.address, "shape": shape, "settings": cell.settings, "about": about}
            )
        return {"machine": self.config["machine"], "cells": rows}

    def triples(self, task: str) -> int:
        """The most contrast triples that a task can have."""
        own = self.task_settings("contrasts", task)
        forms = 4  # grammatical forms with scored words
        return own["triples"] if self.tasks[task]["method"] == "dpo" else (
            forms * own["words_per_class"] * own["contexts_per_word"]
        )  # fmt: skip

    def shape(self, model: str) -> dict[str, Any]:
        """Parameters, blocks, width and vocabulary of a model; ConfigurationError where they are
        not given.
        """
        entry = self.models[model]
        if "organism" in entry:
            own = entry["organism"]
            layers, d, vocabulary = own["n_layers"], own["d_model"], own["vocab_size"]
            return {
                "parameters": 12 * layers * d * d + 2 * d * vocabulary, "n_layers": layers,
                "d_model": d,
                "vocab_size": vocabulary,
            }  # fmt: skip
        if "shape" not in entry:
            raise ConfigurationError(
                f"models.{model}.shape: give parameters, d_model and vocab_size for an estimate"
            )
        return {"n_layers": entry["n_layers"], **entry["shape"]}

    def n_layers(self, model: str) -> int:
        """Number of transformer blocks of a model."""
        entry = self.models[model]
        return entry["organism"]["n_layers"] if "organism" in entry else entry["n_layers"]

    # ------------------------------------------------------------------------------------- checking

    def _check_name(self, path: str, name: str, valid: Iterable[str]) -> None:
        if name not in valid:
            raise ConfigurationError(f"{path}: unknown name {name!r}; {nearest(name, valid)}")

    def _check_names(self) -> None:
        for name, model in self.models.items():
            for corpus in model.get("organism", {}).get("corpora", []):
                self._check_name(f"models.{name}.organism.corpora", corpus, self.corpora)
        for name, task in self.tasks.items():
            self._check_name(f"tasks.{name}.corpus", task["corpus"], self.corpora)
            self._check_reward(name, task)
            if task["method"] == "dpo" and task["reward"] != "vader":
                raise ConfigurationError(
                    f"tasks.{name}.reward: a {task['method']} task learns from pairs; leave it out"
                )
        for name in {*self.models, *self.classifiers}:
            if name in RESULT_FOLDERS:
                raise ConfigurationError(
                    f"models.{name}: results/{name} is a folder of the workflow; rename the model"
                )
        if not self.autoencoders:
            raise ConfigurationError(
                "autoencoders: expected at least one variant; leave the key out for the default"
            )
        for index, cell in enumerate(self.config["cells"]):
            self._check_name(f"cells.{index}.model", cell["model"], self.models)
            self._check_name(f"cells.{index}.task", cell["task"], self.tasks)
            for variant in cell["autoencoders"] or ():
                self._check_name(f"cells.{index}.autoencoders", variant, self.autoencoders)
            variants = cell["autoencoders"] or [next(iter(self.autoencoders))]
            main = cell["main"] or variants[0]
            self._check_name(f"cells.{index}.main", main, variants)
            for variant in cell["probed"] or ():
                self._check_name(f"cells.{index}.probed", variant, variants)
            if main not in (cell["probed"] or [main]):
                raise ConfigurationError(
                    f"cells.{index}.probed: the cell's main variant {main!r} must be among them"
                )

    def _check_reward(self, name: str, task: Mapping[str, Any]) -> None:
        if task["reward"] == "classifier":
            if task["classifier"] is None:
                raise ConfigurationError(f"tasks.{name}.classifier: name one of `classifiers`")
            self._check_name(f"tasks.{name}.classifier", task["classifier"], self.classifiers)
        if task["reward"] == "callable" and task["callable"] is None:
            raise ConfigurationError(f"tasks.{name}.callable: give the reward as module:function")
        if task["reward"] == "callable":
            source_digest(task["callable"])

    def _check_services(self) -> None:
        for name, entry in self.services.items():
            if entry["budget_usd"] is not None and not entry["prices"]:
                raise ConfigurationError(
                    f"services.{name}.budget_usd: needs services.{name}.prices to be counted"
                )
        for name, entry in self.explainers.items():
            self._check_name(f"explainers.{name}.service", entry["service"], self.services)
        for name, task in self.tasks.items():
            if task["method"] != "dpo":
                continue
            source = self.task_settings("contrasts", name)["source"]
            service = self.task_settings("rewrites", name)["service"]
            columns = self.corpora[task["corpus"]].get("columns")
            if source == "rewrites":
                if service is None:
                    raise ConfigurationError(
                        f"tasks.{name}: rewrites.service must name the service that rewrites"
                    )
                self._check_name(f"tasks.{name}: rewrites.service", service, self.services)
            elif source == "corpus" and columns is not None and "neutral" not in columns:
                raise ConfigurationError(
                    f"tasks.{name}: contrasts.source is `corpus`, and {task['corpus']} has no"
                    f" columns positive, neutral"
                    " and negative; set it to `pairs` (offline) or `rewrites` (a language-model"
                    " service)"
                )

    def _check_explainers(self, cell: Cell) -> None:
        where = f"cell {cell.address}"
        for explainer in cell.explainers:
            self._check_name(f"{where}: explainers", explainer, ["heuristic", *self.explainers])
            if explainer != "heuristic" and not self.description(cell.task):
                raise ConfigurationError(
                    f"tasks.{cell.task}.description: the explainer {explainer!r} needs to be told"
                    f" what is rewarded"
                )
        self._check_name(
            f"{where}: ablation.explainer", cell.settings["ablation"]["explainer"], cell.explainers
        )
        judge = cell.settings["explanations"]["judge"]
        if judge:
            self._check_name(f"{where}: explanations.judge", judge, self.services)

    def _check_layers(self, cell: Cell) -> None:
        available = self.n_layers(cell.model)
        wanted = cell.settings["divergence"]["n_layers"]
        if cell.layers is None and wanted > available:
            raise ConfigurationError(
                f"cell {cell.address}: divergence.n_layers asks for {wanted} layers, {cell.model}"
                f" has {available};"
                f" set it to {available} or less"
            )
        lowest = cell.lowest_layers if isinstance(cell.lowest_layers, tuple) else ()
        too_high = [layer for layer in (*(cell.layers or ()), *lowest) if layer >= available]
        if too_high:
            raise ConfigurationError(
                f"cell {cell.address}: layers has {too_high[0]}; the layers of {cell.model} are 0"
                f" to {available - 1}"
            )
        if cell.layers and len(set(cell.layers)) < len(cell.layers):
            raise ConfigurationError(f"cell {cell.address}: layers names a layer twice")

    def _check_values(self, cell: Cell) -> None:
        ppo, entry = cell.settings["ppo"], self.models[cell.model]
        if cell.method == "ppo" and (entry["finetune_gpus"] or 0) > 1:
            raise ConfigurationError(
                f"models.{cell.model}.finetune_gpus: ppo (cell {cell.address}) runs on one GPU;"
                f" set it to 1, or the"
                " task's method to rloo or grpo"
            )
        generations = cell.settings["group"]["num_generations"]
        if cell.method in ("rloo", "grpo") and ppo["batch_size"] % generations:
            raise ConfigurationError(
                f"cell {cell.address}: group.num_generations must divide ppo.batch_size"
            )
        if ppo["batch_size"] % ppo["mini_batch_size"]:
            raise ConfigurationError(
                f"cell {cell.address}: ppo.mini_batch_size must divide ppo.batch_size"
            )
        for key in ("prompt_tokens", "new_tokens"):
            if ppo[key][0] > ppo[key][1]:
                raise ConfigurationError(
                    f"cell {cell.address}: ppo.{key} must be [smallest, largest], got {ppo[key]}"
                )
