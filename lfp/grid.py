"""The grid of cells: a checked configuration, and the settings of every job of its cells.

Everything is checked before any job is planned (:mod:`lfp.configuration`, :mod:`lfp.checks`); a
mistake raises :class:`~lfp.configuration.ConfigurationError` with one line that names the key, what
was expected, and the nearest valid name. Planning loads no library of science.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lfp.change import WRITING
from lfp.checks import (
    OWN_REWARD_KEYS,
    REWARD_KEYS,
    check_cell,
    check_entries,
    check_policy,
    check_spares,
    source_digest,
)
from lfp.configuration import ConfigurationError, check_name, checked, with_defaults
from lfp.effects import check_effects
from lfp.feedback import rewards
from lfp.feedback.rewards.base import scale_of
from lfp.files.canonical import canonical_json
from lfp.limits import size_of
from lfp.probing.subjects import SUBJECTS
from lfp.sae.architectures import kind_of, rate_of
from lfp.sae.sources.files import latents_of
from lfp.schema import schema
from lfp.services.prompts import digests
from lfp.settings import (
    BETWEEN,
    CELL_STAGES,
    PRETRAINED,
    RANKED,
    STAGES,
    TRAINING_STAGES,
    UNREWARDED,
    Autoencoder,
    Settings,
    Unstamped,
    parted,
    reading_method,
)
from lfp.sites import HEADS

#: Keys of a service that decide its answers; the others limit how it is asked.
SERVICE_IDENTITY = (
    "base_url", "model", "temperature", "seed", "max_tokens", "max_tokens_field", "response_schema",
    "extra_body",
)  # fmt: skip
#: Stages that read or run a model for inference, in the precision of its entry.
READING_STAGES = (
    "activations", "evaluation", "features", "explanations", "ablation", "interventions",
    "steering", "export",
)  # fmt: skip
#: Settings of PPO that completions of the base are sampled with.
SAMPLING = ("prompt_tokens", "new_tokens", "min_characters", "batch_size")
#: Settings of DPO that the margin of a pair of answers is read with.
_MARGIN = ("beta", "max_length", "max_prompt_length")
#: The paper's models by architecture, for tables that show a published value beside their own.
PAPER_MODELS = {
    "gpt_neox": ("Pythia-70m", "Pythia-160m"),
    "gpt_neo": ("GPT-Neo-125m",),
    "gemma": ("Gemma-2b",),
}


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One (model, task, seed) of the grid with its resolved settings by stage.

    `feedback` is the kind that the cell learned from: a ``reward`` of text, or ``preference``
    pairs.
    """

    model: str
    task: str
    seed: int
    method: str
    feedback: str
    layers: tuple[int, ...] | None
    autoencoders: tuple[str, ...]
    main: str
    explainers: tuple[str, ...]
    lowest_layers: bool | tuple[int, ...]
    probed: tuple[str, ...]
    until: str
    settings: Mapping[str, Settings]

    @property
    def address(self) -> str:
        """Path of the cell's results below the results folder."""
        return f"{self.model}/{self.task}/seed{self.seed}"

    def read(self, stage: str) -> dict[str, Any]:
        """The settings of a stage that the cell's method reads, as values of JSON.

        A job gets no others, so that they rerun nothing.
        """
        return self.settings[stage].read_by(reading_method(self.method, self.feedback))


def derived_seed(seed: int, address: str, stage: str) -> int:
    """The seed of one stream, below 2**31.

    It is a function of the configured seed, the address and the stage.
    """
    digest = hashlib.sha256(f"{seed}/{address}/{stage}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


class Grid:
    """A checked configuration.

    Raises
    ------
    ConfigurationError
        On anything that the schema or the cross-checks reject.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = checked(config)
        self.corpora: dict[str, Any] = self.config["corpora"]
        self.models: dict[str, Any] = self.config["models"]
        self.tasks: dict[str, Any] = self.config["tasks"]
        self.classifiers: dict[str, Any] = self.config["classifiers"]
        #: Sources of the policies of given tasks by their names below results/models/.
        self.policies: dict[str, Any] = {
            policy_name(model, name): source
            for name, task in self.tasks.items()
            for model, source in task["policies"].items()
        }
        #: Their keys below `tasks` by the same names.
        self.policy_keys: dict[str, str] = {
            policy_name(model, name): f"{name}.policies.{model}"
            for name, task in self.tasks.items()
            for model in task["policies"]
        }
        #: Everything that is fetched or copied to results/models/.
        self.checkpoints: dict[str, Any] = self.models | self.classifiers | self.policies
        self.autoencoders: dict[str, Any] = self.config["autoencoders"]
        self.services: dict[str, Any] = self.config["services"]
        self.explainers: dict[str, Any] = self.config["explainers"]
        check_entries(self)
        self.cells = [cell for entry in self.config["cells"] for cell in self._expand(entry)]
        self.by_address: dict[str, Cell] = {}
        for cell in self.cells:
            if cell.address in self.by_address:
                raise ConfigurationError(
                    f"cells: two cells have the address {cell.address}; give them different seeds"
                )
            self.by_address[cell.address] = cell
            check_cell(self, cell)
        check_spares(self)
        self.donors: dict[tuple[str, str], Cell] = {}
        for cell in self.cells:
            subjects = cell.settings["features"].subjects if cell.until != "change" else ()
            for subject in subjects:
                if SUBJECTS[subject].donated:
                    donor = self._donor(cell, subject)
                    check_policy(self, donor)
                    # A policy that is trained for a control alone has an address, too, but is no
                    # cell of the grid.
                    self.by_address.setdefault(donor.address, donor)
                    self.donors[cell.address, subject] = donor
        check_effects(self, config)

    # ---------------------------------------------------------------------------------------- cells

    def feedback(self, task: str) -> str:
        """The kind of feedback of a task: a ``reward`` of text, or ``preference`` pairs."""
        entry = self.tasks[task]
        return "preference" if entry["method"] == "dpo" else entry["feedback"] or "reward"

    def reward(self, task: str) -> str:
        """The name of the reward that a task's lexicon file is made of."""
        is_preference = self.feedback(task) == rewards.PREFERENCE
        return rewards.PREFERENCE if is_preference else self.tasks[task]["reward"]

    def variants(self, entry: Mapping[str, Any]) -> tuple[tuple[str, ...], str, tuple[str, ...]]:
        """The autoencoder variants of an entry of the grid, the main one, and the probed ones."""
        variants = tuple(entry["autoencoders"] or [next(iter(self.autoencoders))])
        main = entry["main"] or variants[0]
        return variants, main, tuple(entry["probed"] or [main])

    def _expand(self, entry: Mapping[str, Any]) -> list[Cell]:
        """The cells of an entry of the grid, one for each seed."""
        task = self.tasks[entry["task"]]
        owners = (self.config, self.models[entry["model"]], task, entry)
        lowest = entry["lowest_layers"]
        variants, main, probed = self.variants(entry)
        cell = Cell(
            model=entry["model"],
            task=entry["task"],
            seed=entry["seeds"][0],
            method=task["method"],
            feedback=self.feedback(entry["task"]),
            layers=tuple(sorted(entry["layers"])) if entry["layers"] else None,
            autoencoders=variants,
            main=main,
            explainers=tuple(entry["explainers"]),
            lowest_layers=tuple(lowest) if isinstance(lowest, list) else lowest,
            probed=probed,
            until=entry["until"],
            settings={stage: _resolve(stage, *owners) for stage in CELL_STAGES},
        )
        return [dataclasses.replace(cell, seed=seed) for seed in entry["seeds"]]

    def _donor(self, cell: Cell, subject: str) -> Cell:
        """The cell whose policy is the subject `other_seed` or `other_task` of `cell`.

        Another seed is that of the next cell with the same fine-tuning; where there is none, it is
        the first seed behind the cell's that nothing else of its model and task has.
        """
        if SUBJECTS[subject].donated == "task":
            return self._other_task(cell)
        alike = [c for c in self._cells_of(cell.model, cell.task) if is_trained_alike(c, cell)]
        if len(alike) > 1:
            return alike[(alike.index(cell) + 1) % len(alike)]
        of_seed = (dataclasses.replace(cell, seed=seed) for seed in itertools.count(cell.seed + 1))
        return next(donor for donor in of_seed if donor.address not in self.by_address)

    def _cells_of(self, model: str, task: str) -> list[Cell]:
        return [cell for cell in self.cells if (cell.model, cell.task) == (model, task)]

    def _other_task(self, cell: Cell) -> Cell:
        where = f"cell {cell.address}: features.other_task"
        task = cell.settings["features"].other_task
        others = [c.task for c in self.cells if c.model == cell.model and c.task != cell.task]
        if task is None and not others:
            raise ConfigurationError(
                f"{where}: the grid has no other task of {cell.model}; name one of `tasks`"
            )
        task = task or others[0]
        check_name(where, task, self.tasks)
        if task == cell.task:
            raise ConfigurationError(f"{where}: {task!r} is the cell's own task; name another")
        there = self._cells_of(cell.model, task)
        same_seed = [other for other in there if other.seed == cell.seed]
        if there:
            return (same_seed or there)[0]
        entry = {"model": cell.model, "task": task, "seeds": [cell.seed]}
        return self._expand(with_defaults(entry, schema()["$defs"]["cell"]))[0]

    # ----------------------------------------------------------------------------- settings of jobs

    def job_settings(self, stage: str, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        """All parameters of one job of a cell besides its inputs.

        They are its stage's settings and its seed.
        """
        adapted = {
            "ablation": self._ablation_job,
            "best_of_n": self._ranked_job,
            "account": self._account_job,
            "autoencoders": self._autoencoder_job,
            "change": self._change_job,
            "choice_latents": self._latents_job,
            "distil": self._distil_job,
            "divergence": self._divergence_job,
            "evaluation": self._evaluation_job,
            "export": self._export_job,
            "given": self._given_job,
            "explanations": self._explanations_job,
            "feature_pages": self._pages_job,
            "features": self._features_job,
            "group": self._group_job,
            "interventions": self._interventions_job,
            "language_explanations": self._language_job,
            "locus": self._locus_job,
            "probes": self._probes_job,
            "ranked": self._ranked_job,
            "scores": self._scores_job,
            "steering": self._steering_job,
        }
        values = cell.read(stage) if stage in cell.settings else {}
        stream = stage
        if stage in adapted:
            values = adapted[stage](cell, wildcards)
        if stage == "autoencoders":
            # The seed is not that of the variant: variants of one layer start from the same draws
            # and differ in their settings only.
            stream = f"{stage}/layer{wildcards['layer']}/{values.pop('seed')}"
        if stage in READING_STAGES:
            values["dtype"] = self.models[cell.model]["dtype"]
        return values | {"seed": derived_seed(cell.seed, cell.address, stream)}

    def _autoencoder_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = self.autoencoder_settings(cell, wildcards["sae"]).as_json()
        source = values.get("source")
        if source and source.get("path"):
            # Its file is an input, wherever the one that it was taken from lies.
            values["source"] = source | {"path": Unstamped(source["path"])}
        return values | {"model": cell.model, "layer": int(wildcards["layer"])}

    def _evaluation_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        features, probes = cell.settings["features"], cell.settings["probes"]
        read = {name: getattr(features, name) for name in ("max_tokens", "batch_size")}
        folds = {name: getattr(probes, name) for name in ("folds", "inner_folds", "partitions")}
        variant = self.autoencoder_settings(cell, wildcards["sae"]).as_json()
        if variant.get("source"):
            variant["source"] = wildcards["sae"]
        return {
            "feedback": cell.feedback,
            "sizes": list(cell.settings["evaluation"].probes),
            "activations": cell.read("activations"),
            "features": read,
            "probes": folds,
            # Dictionaries of one kind differ in their seeds alone.
            "kind": canonical_json(_without(variant, "seed", "other_seed")),
        }

    def _divergence_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        lowest = cell.lowest_layers
        return cell.read("divergence") | {
            "layers": list(cell.layers) if cell.layers else None,
            "lowest": list(lowest) if isinstance(lowest, tuple) else None,
        }

    def _group_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = cell.read("ppo")
        return values | {"group": cell.read("group"), "method": cell.method}

    def _ranked_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        stages = ("ppo", "ranking", *(("dpo",) if cell.method == "ranked" else ()))
        return {stage: cell.read(stage) for stage in stages}

    def _distil_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        return {stage: cell.read(stage) for stage in ("distil", "ppo")}

    def _given_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        stages = {stage: cell.read(stage) for stage in ("ppo", "dpo")}
        return stages | {"feedback": cell.feedback}

    def _locus_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        stages = {name: cell.read(name) for name in ("locus", "ppo", "dpo")}
        max_tokens = cell.settings["divergence"].max_tokens
        effect = "margin" if cell.feedback == "preference" else "reward"
        return stages | {
            "effect": "kl" if cell.method == "given" else effect,
            "max_tokens": max_tokens,
        }

    def _export_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        source = f"{cell.task}-seed{cell.seed}-{wildcards['sae']}"
        return cell.read("export") | {"model": cell.model, "source": source}

    def _features_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        # The embedding is a covariate of every probe; principal components are taken of `raw`.
        wanted = {*self.kinds(cell, wildcards["subject"]), "embedding"}
        kinds = (wanted - {"pca"}) | ({"raw"} if "pca" in wanted else set())
        values = cell.read("features")
        reading = {key: values[key] for key in ("max_tokens", "batch_size")}
        return reading | {"kinds": sorted(kinds), "subject": wildcards["subject"]}

    def _probes_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        kinds = self.kinds(cell, wildcards["subject"])
        values = cell.read("probes") | {"features": kinds, "feedback": cell.feedback}
        return _without(values, "control_features") | {"subject": wildcards["subject"]}

    def _change_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = _without(cell.read("change"), "latent_prompts")
        values |= {"feedback": cell.feedback}
        probes = _without(cell.read("probes"), "features", "control_features")
        values |= {"probes": probes, "max_tokens": cell.settings["features"].max_tokens}
        # PPO's coefficient adapts, and is read off its training curve. GRPO divides rewards by
        # their spread over a prompt's completions, so that it has no unit of reward.
        weighted = "group" if cell.method == "rloo" else None
        weighted = "dpo" if cell.feedback == "preference" else weighted
        return values | {"reward_per_nat": cell.settings[weighted].beta if weighted else None}

    def _latents_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = _without(cell.read("change"), "piece_contexts")
        max_tokens = cell.settings["features"].max_tokens
        return values | {"feedback": cell.feedback, "max_tokens": max_tokens}

    def _account_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        account, values = cell.settings["account"], self._locus_job(cell, wildcards)
        # The effect is that of `locus`, on as many instances as are asked for here.
        locus = _without(values["locus"], "orders")
        locus |= dict.fromkeys(("prompts", "pairs"), account.instances)
        change = _without(
            cell.read("change"),
            "contexts", "piece_contexts", "new_tokens", "latent_prompts", "noise_draws",
        )  # fmt: skip
        read = {"locus": locus, "change": change, "feedback": cell.feedback}
        return values | read | {"account": cell.read("account")}

    def _explanations_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = _without(cell.read("explanations"), "judge")
        return values | {"feedback": cell.feedback}

    def _language_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        return {
            "service": self.service(self.explainers[wildcards["explainer"]]["service"]),
            "description": self.description(cell.task),
            "prompts": digests("explain", "classify"),
        }

    def _scores_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        judge = cell.settings["explanations"].judge
        if not judge:
            return {"judge": None}
        return {"judge": self.service(judge), "prompts": digests("detect", "fuzz")}

    def _pages_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        confidence = self.run_settings("tables").confidence
        explainer = cell.settings["ablation"].explainer
        about = {"cell": cell.address, "dictionary": wildcards["sae"], "feedback": cell.feedback}
        return {"explainer": explainer, "confidence": confidence, "about": about}

    def _ablation_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        values = cell.read("ablation")
        subject = wildcards["subject"]
        if subject == "base":
            values["arms"] = values["base_arms"]
        if subject != "policy":
            values["actions"] = ["zero"]
        return _without(values, "base_arms", "explainer") | {
            "feedback": cell.feedback,
            "reward": scale_of(cell.settings["ppo"]),
        }

    def _interventions_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        asked, ablation = cell.settings["interventions"], cell.read("ablation")
        read = _without(ablation, "arms", "base_arms", "actions", "explainer")
        pairs, dpo = cell.feedback == "preference", cell.read("dpo")
        return {
            "interventions": _without(cell.read("interventions"), "subjects"),
            "subject": wildcards["subject"],
            "ablation": read | {"prompts": asked.prompts, "random_draws": asked.draws},
            "dpo": {key: dpo[key] for key in _MARGIN if pairs},
            "feedback": cell.feedback,
            "reward": scale_of(cell.settings["ppo"]),
            "max_tokens": cell.settings["features"].max_tokens,
        }

    def _steering_job(self, cell: Cell, wildcards: Mapping[str, str]) -> dict[str, Any]:
        asked, ablation = cell.settings["steering"], cell.read("ablation")
        read = _without(ablation, "arms", "base_arms", "actions", "explainer", "random_draws")
        selecting = _without(cell.read("interventions"), "subjects", "selectors")
        return {
            "steering": cell.read("steering"),
            "interventions": selecting if asked.selectors else {},
            "ablation": read | {"prompts": asked.prompts},
            "dpo": cell.read("dpo"),
            "feedback": cell.feedback,
            "reward": scale_of(cell.settings["ppo"]),
            "max_tokens": cell.settings["features"].max_tokens,
        }

    @staticmethod
    def kinds(cell: Cell, subject: str) -> list[str]:
        """Kinds of features of a subject: all for the policy, those of controls for the others."""
        probes = cell.settings["probes"]
        if SUBJECTS[subject].load is None:
            return []
        return list(probes.features if subject == "policy" else probes.control_features)

    def autoencoder_settings(self, cell: Cell, variant: str) -> Autoencoder:
        """Settings of one autoencoder variant of a cell, with its learning rate as a number.

        One that no gradient trains takes over neither partners nor an encoder of its own.
        """
        given = cell.read("autoencoder") | self.autoencoders[variant]
        settings = Autoencoder.of(given)
        if not kind_of(settings).by_gradients:
            settings = dataclasses.replace(settings, mutual=None, tied=True)
        return dataclasses.replace(settings, learning_rate=rate_of(settings))

    def shares_latents(self, cell: Cell) -> bool:
        """Whether the latents of a cell's main variant have shares at the choice.

        They have where their site writes to the residual stream.
        """
        return self.autoencoder_settings(cell, cell.main).site in WRITING

    def pretrained(self, cell: Cell) -> list[str]:
        """The variants of a cell whose dictionaries come from elsewhere."""
        return [
            name
            for name in cell.autoencoders
            if self.autoencoder_settings(cell, name).architecture == PRETRAINED
        ]

    def transferred(self, cell: Cell) -> list[str]:
        """The variants that are measured on base and policy: of cells with a pretrained one.

        Those that read both at once are none of a single model.
        """
        kinds = {name: self.autoencoder_settings(cell, name) for name in cell.autoencoders}
        of_one = [name for name, kind in kinds.items() if kind.reads not in BETWEEN]
        return of_one if self.pretrained(cell) else []

    def of_heads(self, cell: Cell) -> list[str]:
        """The variants of a cell that read the outputs of all heads of a model side by side."""
        kinds = {name: self.autoencoder_settings(cell, name) for name in cell.autoencoders}
        return [n for n, kind in kinds.items() if kind.site == HEADS and kind.reads != "pair"]

    def dictionaries_from(self, kind: str) -> list[str]:
        """Names of the variants of pretrained dictionaries from ``path`` or from the ``hub``."""
        return [
            name
            for name, values in self.autoencoders.items()
            if values.get("architecture") == PRETRAINED and kind in values.get("source", {})
        ]

    def latent_readers(self, cell: Cell) -> list[str]:
        """The variants whose latents are read at the choice.

        They are the main one, and those that differ from it in learning from the base alone.
        """
        alike = self.alike_in(cell, ["reads"])
        of_base = [name for name in alike if self.autoencoder_settings(cell, name).reads == "base"]
        return list(dict.fromkeys([cell.main, *of_base]))

    def readers_of_base(self, model: str, corpus: str, site: str) -> list[tuple[Cell, str]]:
        """Cells and their variants that learn from the base's activations of a corpus at a site."""
        return [
            (cell, variant)
            for cell in self.cells
            for variant in cell.autoencoders
            if cell.model == model and self.tasks[cell.task]["corpus"] == corpus
            if cell.until != "change"
            for settings in [self.autoencoder_settings(cell, variant)]
            if settings.reads == "base" and settings.site == site
        ]

    def base_activations(self, model: str, corpus: str) -> dict[str, Any]:
        """All parameters of the harvest of a base.

        Cells share it, so settings of tasks and cells do not count.
        """
        values = _resolve("activations", self.config, self.models[model]).for_jobs()
        seed = derived_seed(0, f"{model}/base/{corpus}", "activations")
        return values | {"dtype": self.models[model]["dtype"], "seed": seed}

    def sampling(self, cell: Cell) -> dict[str, Any]:
        """All parameters but the seed of the base's completions that a cell's reward ranks.

        Cells with the same ones share them.
        """
        ppo, ranking = cell.read("ppo"), cell.read("ranking")
        return {
            "ppo": {name: ppo[name] for name in SAMPLING},
            "ranking": {name: ranking[name] for name in ("prompts", "completions")},
        }

    def tasks_of(self, feedback: str) -> list[str]:
        """Names of the tasks with one kind of feedback."""
        return [name for name in self.tasks if self.feedback(name) == feedback]

    def twins(self, cell: Cell) -> list[str]:
        """The cell's main variant and those that differ from it in tying and in `reads` alone.

        Of a model that is read, both tied and untied ones are there, or none.
        """
        alike = self.alike_in(cell, ["tied", "reads"])
        kinds = {name: self.autoencoder_settings(cell, name) for name in alike}
        tying = {(kind.reads, kind.tied) for kind in kinds.values()}
        return [name for name, kind in kinds.items() if (kind.reads, not kind.tied) in tying]

    def alike_in(self, cell: Cell, free: Sequence[str]) -> list[str]:
        """The variants of a cell that are like its main one, the settings `free` aside.

        They read a single model, or what the main one reads.
        """
        alike = self.alike(cell, cell.main, free)
        models = {"policy", "base", self.autoencoder_settings(cell, cell.main).reads}
        return [
            name
            for name in cell.autoencoders
            if name in alike and self.autoencoder_settings(cell, name).reads in models
        ]

    def base_twin(self, cell: Cell, variant: str) -> str | None:
        """The variant of a cell that is like `variant`, which reads the policy, but reads the base.

        Both must have been trained from another seed as well, which is the null of a comparison; a
        dictionary from elsewhere has none.
        """
        settings = self.autoencoder_settings(cell, variant)
        wanted = dataclasses.replace(settings, reads="base", other_seed=True)
        trained = settings.other_seed and settings.architecture != PRETRAINED
        if settings.reads != "policy" or not trained:
            return None
        alike = (
            name for name in cell.autoencoders if self.autoencoder_settings(cell, name) == wanted
        )
        return next(alike, None)

    def compared_variants(self, cell: Cell) -> list[str]:
        """The variants of a cell whose latents tell policy from base.

        They read a pair or the difference, or have a twin that reads the base.
        """
        return [
            name
            for name in cell.autoencoders
            if self.autoencoder_settings(cell, name).reads in BETWEEN or self.base_twin(cell, name)
        ]

    def alike(self, cell: Cell, variant: str, free: Sequence[str]) -> list[str]:
        """The variants whose settings in a cell are those of `variant`, the settings `free` aside.

        They are in the order of the configuration, and `variant` is among them. Whether another
        seed is trained beside them changes none of them.
        """
        wanted = self.autoencoder_settings(cell, variant)
        values = {name: getattr(wanted, name) for name in (*free, "other_seed")}
        return [
            name
            for name in self.autoencoders
            if dataclasses.replace(self.autoencoder_settings(cell, name), **values) == wanted
        ]

    def family(self, cell: Cell, variant: str) -> str:
        """The first variant that differs in a cell from `variant` in nothing but its seed."""
        return self.alike(cell, variant, ["seed"])[0]

    # ----------------------------------------------------------------- settings of tasks and tables

    def task_settings(self, stage: str, task: str) -> Settings:
        """Settings of a stage that belongs to a task."""
        return _resolve(stage, self.config, self.tasks[task])

    def run_settings(self, stage: str) -> Settings:
        """Settings of a stage that belongs to the whole run."""
        return _resolve(stage, self.config)

    def feedback_settings(self, task: str) -> dict[str, Any]:
        """All parameters of a task's feedback.

        They are its kind, its reward, and the code of a callable one.
        """
        entry = self.tasks[task]
        is_classifier, is_callable = (
            entry["reward"] == kind for kind in ("classifier", "callable")
        )
        classifier = self.classifiers[entry["classifier"]] if is_classifier else {}
        where = f"tasks.{task}.callable"
        reward = entry["reward"]
        read = [key for key in REWARD_KEYS if OWN_REWARD_KEYS.get(key, reward) == reward]
        return {key: entry[key] for key in read} | {
            "feedback": self.feedback(task),
            "positive": classifier.get("positive"),
            "callable_sha": source_digest(where, entry["callable"]) if is_callable else None,
        }

    def contrast_settings(self, task: str) -> dict[str, Any]:
        """All parameters of a task's triples."""
        feedback = self.feedback(task)
        method = reading_method(self.tasks[task]["method"], feedback)
        return self.task_settings("contrasts", task).read_by(method) | {
            "feedback": feedback,
            "swapped": self.tasks[task]["swapped"],
        }

    def rewrite_settings(self, task: str) -> dict[str, Any]:
        """All parameters of the rewrites of a task."""
        values = self.task_settings("rewrites", task).for_jobs()
        return values | {
            "service": self.service(values["service"]),
            "prompts": digests("grade", "rewrite"),
        }

    def description(self, task: str) -> str:
        """A description of a task's feedback, in words."""
        entry = self.tasks[task]
        if entry["description"] or self.feedback(task) == "preference":
            return entry["description"] or ""
        return rewards.description(entry)

    def service(self, name: str) -> dict[str, Any]:
        """A service's name and the keys that decide its answers."""
        return {"name": name} | {key: self.services[name][key] for key in SERVICE_IDENTITY}

    def service_limits(self) -> dict[str, dict[str, Any]]:
        """The keys of each service that limit its calls and change no answer."""
        return {name: _without(e, *SERVICE_IDENTITY) for name, e in self.services.items()}

    def table_settings(self) -> dict[str, Any]:
        """All parameters of the tables."""
        values = self.run_settings("tables").for_jobs()
        return values | {
            "paper_models": self.paper_models(),
            "main": {cell.address: cell.main for cell in self.cells},
            "corpora": {cell.address: self.tasks[cell.task]["corpus"] for cell in self.cells},
            "families": {
                cell.address: {variant: self.family(cell, variant) for variant in cell.probed}
                for cell in self.cells
            },
            "given": [cell.address for cell in self.cells if cell.method in UNREWARDED],
            "silent": [cell.address for cell in self.cells if self._is_silent(cell)],
            "trained": {cell.address: (cell.method, benign_share(cell)) for cell in self.cells},
        }

    def _is_silent(self, cell: Cell) -> bool:
        """Whether the reward of a cell is planted to teach nothing of words."""
        return cell.feedback == "reward" and "silence" in rewards.questions(self.tasks[cell.task])

    def paper_models(self) -> dict[str, list[str]]:
        """The paper's models that each model of the grid stands beside.

        They are those of its own name, else of its architecture.
        """
        by_name = {name.lower(): name for names in PAPER_MODELS.values() for name in names}
        result = {}
        for model in sorted({cell.model for cell in self.cells}):
            same = by_name.get(model.lower().removesuffix("-it"))
            family = self.models[model].get("organism", {}).get("architecture")
            result[model] = [same] if same else list(PAPER_MODELS.get(family, ()))
        return result

    # ----------------------------------------------------------------------------- models and costs

    def estimate_settings(self) -> dict[str, Any]:
        """All parameters of the estimate of costs.

        They are the machine, and shape and settings of every cell.
        """
        return {
            "machine": self.config["machine"],
            "cells": [self._estimated(cell) for cell in self.cells],
        }

    def _estimated(self, cell: Cell) -> dict[str, Any]:
        """Shape and settings of a cell, and the other parameters of its costs."""
        layers = len(cell.layers) if cell.layers else cell.settings["divergence"].n_layers
        about = {
            "method": cell.method,
            "given": cell.method == "given",
            "preference": cell.feedback == "preference",
            "dtype": self.models[cell.model]["dtype"],
            "layers": layers,
            "trained_layers": layers * (2 if cell.lowest_layers else 1),
            "autoencoders": {
                variant: self._estimated_variant(cell, variant) for variant in cell.autoencoders
            },
            "main": cell.main,
            "probed": [] if cell.until == "change" else list(cell.probed),
            "compared": self.compared_variants(cell),
            "ablation": cell.until == "ablation",
            "latents": self.shares_latents(cell),
            "triples": self.triples(cell.task),
            "kept": self.config["keep_activations"],
            "samples": self._samples(cell),
        }
        settings = {
            stage: values.as_json()
            for stage, values in cell.settings.items()
            if stage != "autoencoder"
        }
        shape = self.shape(cell.model)
        return {"address": cell.address, "shape": shape, "settings": settings, "about": about}

    def _samples(self, cell: Cell) -> bool:
        """Whether the completions that a cell ranks are counted among its costs.

        Cells share them, and the first one has them.
        """
        if cell.method not in RANKED:
            return False
        alike = (
            other
            for other in self.cells
            if other.method in RANKED
            and (other.model, other.seed) == (cell.model, cell.seed)
            and self.tasks[other.task]["corpus"] == self.tasks[cell.task]["corpus"]
            and self.sampling(other) == self.sampling(cell)
        )
        return next(alike) is cell

    def _estimated_variant(self, cell: Cell, variant: str) -> dict[str, Any]:
        """Settings of a variant for its costs, with whether gradients train it.

        One from elsewhere has the size that its file has: it is one dictionary of a layer, whatever
        sizes others are trained in.
        """
        settings = self.autoencoder_settings(cell, variant)
        values = settings.as_json() | {"by_gradients": kind_of(settings).by_gradients}
        if settings.architecture == PRETRAINED:
            latents = latents_of(settings.source, cell.layers[0] if cell.layers else 0)
            size = latents / self.shape(cell.model)["d_model"]
            values |= {"sizes": [size], "other_seed": False}
            del values["source"]
        return values

    def triples(self, task: str) -> int:
        """The most contrast triples that a task can have."""
        contrasts = self.task_settings("contrasts", task)
        if self.feedback(task) == "preference":
            return contrasts.triples
        forms = 4  # grammatical forms with scored words
        # Every word has as many contexts of one polarity as of the other.
        contexts = 2 * ((contrasts.contexts_per_word + 1) // 2)
        return forms * contrasts.words_per_class * contexts

    def shape(self, model: str) -> dict[str, Any]:
        """Parameters, blocks, width and vocabulary of a model.

        Raises ConfigurationError where they are not given.
        """
        entry = self.models[model]
        if "organism" in entry:
            values = entry["organism"]
            layers, d, vocabulary = values["n_layers"], values["d_model"], values["vocab_size"]
            matrices = 3 if values["architecture"] == "gemma" else 2  # an MLP with a gate has three
            block = 4 * d * d + matrices * d * values["d_mlp"]
            return {
                "parameters": layers * block + d * vocabulary,  # embeddings are tied
                "n_layers": layers,
                "d_model": d,
                "vocab_size": vocabulary,
            }
        if "shape" not in entry:
            raise ConfigurationError(
                f"models.{model}.shape: give parameters, d_model and vocab_size for an estimate"
            )
        return {"n_layers": entry["n_layers"], **entry["shape"]}

    def width(self, cell: Cell, site: str) -> int | None:
        """Width of a site of a cell's model; None where nothing says it before it is read."""
        return size_of(cell.model, self.models[cell.model]).width(site)

    def n_layers(self, model: str) -> int:
        """Number of transformer blocks of a model."""
        entry = self.models[model]
        return entry["organism"]["n_layers"] if "organism" in entry else entry["n_layers"]


def policy_name(model: str, task: str) -> str:
    """Name below results/models/ of the given policy of a model and task."""
    return f"{model}--{task}"


def is_trained_alike(first: Cell, second: Cell) -> bool:
    """Whether two cells of one model and task differ in nothing of their fine-tuning but seeds."""
    return all(
        parted(first.settings[stage].for_jobs())[0] == parted(second.settings[stage].for_jobs())[0]
        for stage in TRAINING_STAGES
    )


def benign_share(cell: Cell) -> float:
    """The share of the data of a cell's fine-tuning that no feedback has touched."""
    return cell.settings["ranking"].benign_share if cell.method in RANKED else 0.0


def _resolve(stage: str, *owners: Mapping[str, Any]) -> Settings:
    """Settings of a stage: the defaults, and over them those of each owner in turn."""
    values: dict[str, Any] = {}
    for owner in owners:
        values |= owner["settings"].get(stage, {})
    return STAGES[stage].of(values)


def _without(values: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in names}
