"""Inputs, parameters and resources of the workflow's jobs: everything that rules share.

Rules say what depends on what; the functions here turn the wildcards of a job into paths, settings
and resources. Planning a run loads no library of science.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from lfp.checks import check_class, check_function, check_listed
from lfp.claims.other import OtherRun, OtherRunError, other_run
from lfp.configuration import ConfigurationError
from lfp.feedback.rewards import REWARDS
from lfp.figures.catalogue import FIGURES
from lfp.files import checkpoints, hub
from lfp.files.canonical import canonical_json
from lfp.grid import Cell, Grid, derived_seed
from lfp.interventions.arms import ARMS
from lfp.interventions.selectors import READS_PROBE, SELECTORS
from lfp.probing.subjects import SUBJECTS
from lfp.registry import Registry
from lfp.running.digest import code_digest, registries_of
from lfp.running.sources import content_digest
from lfp.sae.architectures import ARCHITECTURES, KINDS
from lfp.sae.sources.files import dictionary_files
from lfp.settings import BETWEEN, BOTH, PRETRAINED, RANKED, Autoencoder, Unstamped, parted
from lfp.tables.catalogue import TABLES
from lfp.tables.planted import QUESTIONS, READOUTS

#: The launcher of a job in one process, which may be a fork of a process that has the libraries.
LAUNCHER = "python -m lfp.running.start"
#: The launcher of a job that reads from the hub: the forks' libraries were told that they may not.
ALONE = "python -m"
#: The command of every job: paths reach the script by the names that they have in the rule, and no
#: library can ask a question.
JOB = (
    "{params.launcher} workflow_scripts.{params.script} --settings {params.settings:q}"
    " --unstamped {params.unstamped:q} --code {params.code} --threads {threads} --log {log:q}"
    " --names {params.names:q}"
    " --paths {input:q} {output:q} < /dev/null"
)
#: The command of a job that may have GPUs.
MODEL_JOB = JOB.replace("--log", "--gpus {resources.gpu} --log")


def names(values: Iterable[object]) -> str:
    """A wildcard pattern that admits exactly `values`, or nothing where there are none."""
    return "|".join(re.escape(str(value)) for value in sorted(set(values))) or "(?!)"


def literal(text: str) -> str:
    """`text` for a place where Snakemake takes braces for names: it stands there as it is."""
    return text.replace("{", "{{").replace("}", "}}")


def importable(folder: str | Path) -> str:
    """The path by which jobs in the working directory find the package in `folder`.

    Raises ConfigurationError where Python cannot be told of it: a colon ends a path of its list.
    Seen from within, the folder has no name, so that there it may have any.
    """
    path = os.path.relpath(folder)
    if os.pathsep in path:
        raise ConfigurationError(
            f"{path}: Python finds no package below a folder with `{os.pathsep}` in its name; start"
            " Snakemake in the folder of the workflow, or give the folder another name"
        )
    return path


def preamble(home: str, variables: Mapping[str, str]) -> str:
    """The commands of the shell in front of every job's.

    Jobs find the package at the path `home`, from any working directory, before the places where
    the user has Python look. A path here is no parameter of a job.
    """
    search = shlex.quote(home) + "${PYTHONPATH:+:$PYTHONPATH}"
    values = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return f"set -euo pipefail; export {' '.join([f'PYTHONPATH={search}', *values])}; "


def log_of(address: str) -> str:
    """The log of the job that writes an artefact."""
    return f"{address.replace('results/', 'results/logs/', 1)}.log"


def job(
    script: str,
    settings: Callable[[Any], Mapping[str, Any]],
    code: Callable[[Any], str] | None = None,
    launcher: str | Callable[[Any], str] = LAUNCHER,
) -> dict[str, Any]:
    """Parameters of a rule.

    They are its script, its settings as canonical JSON, the digest of its code, and the number of
    paths of every named input and output.

    `settings` and `code` are functions of the job's wildcards. Settings that change no result
    (:class:`lfp.settings.Unstamped`) are a parameter by themselves. Snakemake compares none that
    is a function of outputs, so that these rerun nothing.
    """
    return {
        "script": script,
        "settings": lambda wildcards: canonical_json(parted(settings(wildcards))[0]),
        "unstamped": lambda wildcards, output: canonical_json(parted(settings(wildcards))[1]),
        "code": code or code_digest(f"workflow_scripts.{script}"),
        "launcher": launcher,
        "names": lambda wildcards, input, output: f"{counted(input)} -- {counted(output)}",
    }


def counted(paths: Any) -> str:
    """The names of `paths`, each with its number of paths where it is a list."""
    return " ".join(
        name if isinstance(value, str) else f"{name}:{len(value)}" for name, value in paths.items()
    )


def code_with(script: str, entries: Iterable[str]) -> str:
    """Digests of the code of a rule's script and of the modules of the `entries` that it loads.

    A table is made again when its own module changed, not when another's did. An entry counts with
    the name of what it takes from its module, for a module may hold several rewards.
    """
    digests = [code_digest(f"workflow_scripts.{script}")]
    for entry in entries:
        module, _, name = entry.partition(":")
        digests.append(f"{code_digest(module)}:{name}")
    return ".".join(digests)


def growing(mem_mb: int, runtime: int, **others: Any) -> dict[str, Any]:
    """Resources of a job that runs no model.

    Every attempt asks for as much memory and time more.
    """
    return {
        "mem_mb": lambda wildcards, attempt: mem_mb * attempt,
        "runtime": lambda wildcards, attempt: runtime * attempt,
        **others,
    }


@contextmanager
def _naming(key: str) -> Iterator[None]:
    """Name the `key` of the configuration in errors about the files that it speaks of."""
    try:
        yield
    except (hub.SourceError, OtherRunError, OSError) as error:
        text = str(error).removeprefix(f"{key}: ")
        raise ConfigurationError(f"{key}: {text}") from error


def check_registries() -> None:
    """Check the files of all entries of registries, before a job loads the first of them.

    Raises ConfigurationError with the file, the entry and what is expected.
    """
    functions = [
        ("table", {name: table.rows for name, table in TABLES.items()}, ("inputs", "settings")),
        ("figure", {name: figure.draw for name, figure in FIGURES.items()}, ("inputs",)),
        ("readout", entries_of(READOUTS), ("cell", "subject")),
        ("planted question", entries_of(QUESTIONS), ("case",)),
        ("selector", entries_of(SELECTORS), ("material",)),
    ]
    for kind, entries, takes in functions:
        for name, entry in entries.items():
            check_function(kind, name, entry, takes)
    for name, entry in entries_of(REWARDS).items():
        check_class("reward", name, entry, "TaskReward", ["score"], {})
        check_listed("reward", name, entry, "questions", QUESTIONS)
    for name, entry in entries_of(ARCHITECTURES).items():
        trained = KINDS[name].by_gradients
        needs = ["architecture", "encode", *["loss"] * trained]
        says = {"architecture": name, "by_gradients": trained}
        check_class("architecture", name, entry, "SparseAutoencoder", needs, says)


def entries_of(registry: Registry) -> dict[str, str]:
    """The entries of a `registry` by name, none of which is loaded."""
    return {name: registry.entry(name) for name in registry}


def _digest(settings: Mapping[str, Any]) -> str:
    """The name of some settings in a path."""
    return hashlib.sha256(canonical_json(settings).encode()).hexdigest()[:8]


class Planner:
    """Functions of a job's wildcards, for the rules of one grid.

    Parameters
    ----------
    grid
        The checked configuration.
    divergence
        The path of a cell's divergence file, once it is there.
    """

    def __init__(self, grid: Grid, divergence: Callable[[Cell], str | Path]) -> None:
        self.grid, self._divergence = grid, divergence

    # --------------------------------------------------------------------------- cells and settings

    def cell(self, wildcards: Any) -> Cell:
        """The cell of a job; ValueError where the configuration has none such."""
        address = f"{wildcards.model}/{wildcards.task}/seed{wildcards.seed}"
        if address not in self.grid.by_address:
            known = ", ".join(self.grid.by_address)
            raise ValueError(f"no cell {address} in the configuration; it has {known}")
        return self.grid.by_address[address]

    def settings(
        self, stage: str, **values: Callable[[Any], Any]
    ) -> Callable[[Any], dict[str, Any]]:
        """A stage's settings of a job's cell, and `values`, functions of the job's wildcards."""

        def of_job(wildcards: Any) -> dict[str, Any]:
            chosen = self.grid.job_settings(stage, self.cell(wildcards), dict(wildcards))
            return chosen | {name: value(wildcards) for name, value in values.items()}

        return of_job

    def job(
        self,
        script: str,
        stage: str = "",
        launcher: str | Callable[..., str] = LAUNCHER,
        **values: Any,
    ) -> dict[str, Any]:
        """The params of the rule `script` of one cell, as :func:`job` gives them.

        `stage` is the stage of its settings where its name is another than the rule's, and `values`
        are settings beside them.
        """
        return job(script, self.settings(stage or script, **values), self.code(script), launcher)

    def code(self, script: str) -> Callable[[Any], str]:
        """The digest of a rule's code and of the reward and architecture that its job loads."""
        registries = registries_of(f"workflow_scripts.{script}")

        def of_job(wildcards: Any) -> str:
            entries = []
            if "lfp.feedback.rewards" in registries:
                entries.append(REWARDS.entry(self.grid.reward(wildcards.task)))
            if "lfp.sae.architectures" in registries:
                # What a dictionary from elsewhere is, its files say; taking one is no cell's job.
                cell = wildcards.get("model")
                name = self.variant(wildcards).architecture if cell else PRETRAINED
                names = ARCHITECTURES if name == PRETRAINED else [name]
                entries += map(ARCHITECTURES.entry, names)
            return code_with(script, entries)

        return of_job

    def variant(self, wildcards: Any) -> Autoencoder:
        """Settings of the autoencoder variant of a job."""
        return self.grid.autoencoder_settings(self.cell(wildcards), wildcards.sae)

    def from_source(self, entries: Mapping[str, Any], *kinds: str) -> str:
        """A wildcard pattern of the corpora or models that come from one of `kinds`."""
        return names(
            name
            for name, entry in entries.items()
            if any(entry.get(kind) is not None for kind in kinds)
        )

    def tasks_by(self, *methods: str) -> str:
        """A wildcard pattern of the tasks with one of some fine-tuning methods."""
        return names(name for name, task in self.grid.tasks.items() if task["method"] in methods)

    # ------------------------------------------------------------------------------------ resources

    def gpus(self, wildcards: Any) -> int:
        """GPUs of a job that runs the model; 0 where none is configured."""
        return self.grid.models[wildcards.model]["gpus"]

    def finetune_gpus(self, wildcards: Any) -> int:
        """GPUs of a job that fine-tunes the model; a given policy is only read."""
        given = self.grid.tasks[wildcards.task]["method"] == "given"
        return self.gpus(wildcards) if given else self.sampling_gpus(wildcards)

    def sampling_gpus(self, wildcards: Any) -> int:
        """GPUs of a job that samples for fine-tuning the model: those that it is fine-tuned on."""
        wanted = self.grid.models[wildcards.model]["finetune_gpus"]
        return self.gpus(wildcards) if wanted is None else wanted

    def threads(self, wildcards: Any) -> int:
        """Threads of a job that runs the model."""
        return self.grid.models[wildcards.model]["threads"]

    def resources(self, gpu: Callable[[Any], int] | None = None) -> dict[str, Any]:
        """Resources of a job that runs the model; memory and time grow with every attempt."""

        def of_model(key: str) -> Callable[[Any, int], int]:
            return lambda wildcards, attempt: self.grid.models[wildcards.model][key] * attempt

        return {
            "gpu": gpu or self.gpus,
            "mem_mb": of_model("mem_mb"),
            "runtime": of_model("runtime"),
        }

    def launcher(self, wildcards: Any) -> str:
        """The start of a job that can train on several GPUs: one process for each."""
        gpus = self.finetune_gpus(wildcards)
        accelerate = f"python -m accelerate.commands.launch --num_processes {gpus} --multi_gpu -m"
        several = f"python -m lfp.running.lease {gpus} {accelerate}"
        return several if gpus > 1 else LAUNCHER

    # ----------------------------------------------------------------------------- texts and models

    def corpus(self, split: str) -> Callable[[Any], str]:
        """The file of a split of a job's task."""
        return lambda wildcards: (
            f"results/corpora/{self.grid.tasks[wildcards.task]['corpus']}/{split}.parquet"
        )

    def completions(self, wildcards: Any) -> str:
        """The completions of the base that a job's reward ranks."""
        cell = self.cell(wildcards)
        corpus, sampling = self.grid.tasks[cell.task]["corpus"], self.grid.sampling(cell)
        folder = f"results/{cell.model}/base/{corpus}/completions/{_digest(sampling)}"
        return f"{folder}/seed{cell.seed}.parquet"

    def sampling(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the completions of a base; all cells that rank them have the same."""
        owner = f"{wildcards.model}/base/{wildcards.corpus}"
        wanted = f"results/{owner}/completions/{wildcards.sampling}/seed{wildcards.seed}.parquet"
        known = {
            self.completions(place): cell
            for cell in self.grid.by_address.values()
            if cell.method in RANKED
            for place in [SimpleNamespace(model=cell.model, task=cell.task, seed=cell.seed)]
        }
        if wanted not in known:
            raise ValueError(f"no cell ranks {wanted}; the configuration's rank {[*known]}")
        seed = derived_seed(known[wanted].seed, owner, "completions")
        return self.grid.sampling(known[wanted]) | {"seed": seed}

    def read_corpus(self, wildcards: Any) -> str:
        """The corpus whose activations a cell's autoencoders learn from."""
        return self.corpus(self.cell(wildcards).settings["activations"].split)(wildcards)

    def grown_from(self, split: str) -> Callable[[Any], list[str]]:
        """The corpora that an organism learns, or is tested on."""
        return lambda wildcards: [
            f"results/corpora/{corpus}/{split}.parquet"
            for corpus in self.grid.models[wildcards.model]["organism"]["corpora"]
        ]

    def copied_corpus(self, wildcards: Any) -> dict[str, Any]:
        """Settings of a corpus on disk, with the digest of its files, wherever these lie."""
        key, entry = f"corpora.{wildcards.corpus}.path", self.grid.corpora[wildcards.corpus]
        with _naming(key):
            files = hub.files_by_split(".", entry["path"], key)
            named = [(f"{split} {p.name}", p) for split in sorted(files) for p in files[split]]
            return entry | {"path": Unstamped(entry["path"]), "sources": content_digest(named)}

    def copied_model(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the copy of a checkpoint on disk, with the digest of its files."""
        key, head = self._origin(wildcards.model)
        path = self.grid.checkpoints[wildcards.model]["path"]
        with _naming(f"{key}.path"):
            files = hub.gguf_parts(path) or checkpoints.checkpoint_files(path, **head)
            digest = content_digest((file.name, file) for file in files)
        return {"path": Unstamped(path), "sources": digest} | head

    def fetched_model(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the copy of a checkpoint of the hub."""
        entry, (_, head) = self.grid.checkpoints[wildcards.model], self._origin(wildcards.model)
        return {key: entry[key] for key in ("hub", "revision", "folder") if entry.get(key)} | head

    def taken_dictionary(self, wildcards: Any) -> dict[str, Any]:
        """Settings of a layer's pretrained dictionary, with the digest of files on disk."""
        name, layer = wildcards.sae, int(wildcards.layer)
        cells = [cell for cell in self.grid.by_address.values() if name in cell.autoencoders]
        variant = self.grid.autoencoder_settings(cells[0], name)
        width = self.grid.width(cells[0], variant.site)
        place = {"layer": layer, "site": variant.site, "width": width}
        settings = self.grid.autoencoders[name]["source"] | place
        if variant.source.path is None:
            return settings
        with _naming(f"autoencoders.{name}.source"):
            files = dictionary_files(variant.source.path, variant.source, layer, "path")
            named = [(file.name, file) for file in files.all]
            path = Unstamped(variant.source.path)
            return settings | {"path": path, "sources": content_digest(named)}

    def dictionary(self, wildcards: Any) -> list[str]:
        """The pretrained dictionary of a job's variant and layer, if it is one."""
        taken = self.variant(wildcards).architecture == PRETRAINED
        return [f"results/dictionaries/{wildcards.sae}/layer{wildcards.layer}"] * taken

    def _outside(self, key: str, kind: str) -> str | None:
        """The path of a file or folder (`kind`) outside the run that `key` names, if it does."""
        path = self.grid.config[key]
        if path is not None and re.search("[{}]", path):
            raise ConfigurationError(
                f"{key}: {path}: braces stand for names in the paths of inputs; link the {kind}"
                " under a name without them"
            )
        return path

    def other_run(self) -> OtherRun | None:
        """The files of the run that this one is compared with; None where none is named."""
        path = self._outside("other", "folder")
        if path is None:
            return None
        with _naming("other"):
            return other_run(path)

    def answers(self) -> str | None:
        """The file of answers to the blind audit that is scored; None where none is named."""
        path = self._outside("answers", "file")
        if path is None:
            return None
        file = Path(path).expanduser()
        if not file.is_file():
            raise ConfigurationError(
                f"answers: {path} is not a file; give a CSV file in the form of"
                " results/blind/answers.example.csv"
            )
        return str(file)

    def _origin(self, name: str) -> tuple[str, dict[str, bool]]:
        """The key of a checkpoint in the configuration, and whether it is of another kind."""
        if name in self.grid.models:
            return f"models.{name}", {}
        if name in self.grid.classifiers:
            return f"classifiers.{name}", {"classifier": True}
        return f"tasks.{self.grid.policy_keys[name]}", {"policy": True}

    def organism(self, wildcards: Any) -> dict[str, Any]:
        """Settings of a model that is grown here, with the digest of a tokenizer that is given."""
        entry = self.grid.models[wildcards.model]["organism"]
        if not entry["tokenizer_path"]:
            return entry
        with _naming(f"models.{wildcards.model}.organism.tokenizer_path"):
            files = checkpoints.tokenizer_files(entry["tokenizer_path"])
            sources = content_digest((file.name, file) for file in files)
        return entry | {"tokenizer_path": Unstamped(entry["tokenizer_path"]), "sources": sources}

    def contrasted(self, wildcards: Any) -> str:
        """The held-out texts, or the triples, that a task's contrasts are made of."""
        name = self.grid.task_settings("contrasts", wildcards.task).corpus
        name = name or self.grid.tasks[wildcards.task]["corpus"]
        return f"results/corpora/{name}/test.parquet"

    def rewrites(self, wildcards: Any) -> list[str]:
        """The rewrites of a task, where its triples are made of them."""
        rewritten = self.grid.task_settings("contrasts", wildcards.task).source == "rewrites"
        return [f"results/rewrites/{wildcards.task}.parquet"] if rewritten else []

    def locus(self, wildcards: Any) -> list[str]:
        """The Shapley values of a job's cell, where they choose its layers."""
        cell = self.cell(wildcards)
        chooses = cell.settings["divergence"].measure == "locus"
        return [f"results/{cell.address}/locus.parquet"] if chooses else []

    def classifier(self, wildcards: Any) -> list[str]:
        """The classifier whose logit is the reward of a job's task, where it is one."""
        task = self.grid.tasks[wildcards.task]
        return [f"results/models/{task['classifier']}"] if task["reward"] == "classifier" else []

    def policy(self, wildcards: Any) -> str:
        """The policy that a subject reads: the cell's own, or another cell's for a control."""
        address = self.cell(wildcards).address
        donor = self.grid.donors.get((address, wildcards.subject), self.grid.by_address[address])
        return f"results/{donor.address}/policy"

    def ablated_model(self, wildcards: Any) -> str:
        """The model that writes under ablation: the policy or its base."""
        policy = f"results/{self.cell(wildcards).address}/policy"
        return policy if wildcards.subject == "policy" else f"results/models/{wildcards.model}"

    def swapped_model(self, wildcards: Any) -> list[str]:
        """The other one of policy and base, where an arm takes its activations."""
        cell, base = self.cell(wildcards), f"results/models/{wildcards.model}"
        other = base if wildcards.subject == "policy" else f"results/{cell.address}/policy"
        return [other] if any(ARMS[arm].swaps for arm in self._arms(wildcards)) else []

    def _arms(self, wildcards: Any) -> Sequence[str]:
        """The arms of ablation of a job's subject, or of the policy."""
        ablation = self.cell(wildcards).settings["ablation"]
        subject = wildcards.get("subject", "policy")
        return ablation.arms if subject == "policy" else ablation.base_arms

    def read_model(self, wildcards: Any) -> str:
        """The model whose activations a variant learns from; the policy where it reads both."""
        policy = f"results/{self.cell(wildcards).address}/policy"
        reads_base = self.variant(wildcards).reads == "base"
        return f"results/models/{wildcards.model}" if reads_base else policy

    def compared_model(self, wildcards: Any) -> list[str]:
        """The base, where a variant's activations are those of no single model."""
        between = self.variant(wildcards).reads in BETWEEN
        return [f"results/models/{wildcards.model}"] if between else []

    # --------------------------------------------------------------------------------------- layers

    def selection(self, cell: Cell) -> dict[str, Any]:
        """The content of a cell's divergence file; waits for it."""
        return json.loads(Path(self._divergence(cell)).read_text(encoding="utf-8"))

    def chosen_layers(self, cell: Cell) -> list[int]:
        """The layers that are probed: pinned ones, or the most changed ones."""
        return list(cell.layers or self.selection(cell)["chosen"])

    def trained_layers(self, cell: Cell, sae: str) -> list[int]:
        """Layers with autoencoders of a variant.

        They are the chosen ones, and on request the least changed ones: for the main variant, and
        for its like that reads another model.
        """
        lowest = cell.lowest_layers if sae in self.grid.alike_in(cell, ["reads"]) else ()
        if lowest is True:
            lowest = self.selection(cell)["lowest"]
        return sorted({*self.chosen_layers(cell), *(lowest or ())})

    def harvested_layers(self, wildcards: Any) -> list[int]:
        """Layers whose activations are harvested.

        They are all where they are kept, so that a layer that is chosen later has its own.
        """
        cell = self.cell(wildcards)
        if self.grid.config["keep_activations"]:
            return list(range(self.grid.n_layers(cell.model)))
        return self.trained_layers(cell, cell.main)

    def shared_layers(self, wildcards: Any) -> list[int]:
        """Layers of the base that are harvested: all, or those that any cell trains on."""
        if self.grid.config["keep_activations"]:
            return list(range(self.grid.n_layers(wildcards.model)))
        users = self.grid.readers_of_base(wildcards.model, wildcards.corpus, wildcards.site)
        return sorted({layer for cell, sae in users for layer in self.trained_layers(cell, sae)})

    # ---------------------------------------------------------------------- dictionaries and probes

    def base_settings(self, wildcards: Any) -> dict[str, Any]:
        """Settings of the harvest of a base's activations."""
        shared = self.grid.base_activations(wildcards.model, wildcards.corpus)
        return shared | {"layers": self.shared_layers(wildcards), "site": wildcards.site}

    def base_choices(self, wildcards: Any) -> list[str]:
        """The divergence files that say which layers of the base are harvested."""
        if self.grid.config["keep_activations"]:
            return []
        users = self.grid.readers_of_base(wildcards.model, wildcards.corpus, wildcards.site)
        return sorted({f"results/{cell.address}/divergence.json" for cell, _ in users})

    def base_corpus(self, wildcards: Any) -> str:
        """The corpus of the harvest of a base's activations."""
        split = self.grid.base_activations(wildcards.model, wildcards.corpus)["split"]
        return f"results/corpora/{wildcards.corpus}/{split}.parquet"

    def activations(self, wildcards: Any) -> str:
        """The activations that a variant learns from."""
        variant, cell = self.variant(wildcards), self.cell(wildcards)
        corpus = self.grid.tasks[cell.task]["corpus"]
        owner = f"{cell.model}/base/{corpus}" if variant.reads == "base" else cell.address
        return f"results/{owner}/activations/{variant.site}"

    def paired_activations(self, wildcards: Any) -> list[str]:
        """The base's activations of the policy's tokens, where a variant reads both."""
        variant, address = self.variant(wildcards), self.cell(wildcards).address
        paired = f"results/{address}/activations/base/{variant.site}"
        return [paired] if variant.reads in BOTH else []

    def compared_activations(self, wildcards: Any) -> list[str]:
        """The activations of base and policy that latents are compared on, if they are."""
        paired = self.paired_activations(wildcards)
        return [*paired, self.activations(wildcards)] if paired else []

    def trained_autoencoders(self, wildcards: Any) -> list[str]:
        """A variant's directories of all layers that it is trained on."""
        cell, sae = self.cell(wildcards), wildcards.sae
        layers = self.trained_layers(cell, sae)
        return [f"results/{cell.address}/sae/{sae}/layer{layer}" for layer in layers]

    def autoencoders(self, wildcards: Any) -> list[str]:
        """A variant's directories of the layers that are probed."""
        cell = self.cell(wildcards)
        folder = f"results/{cell.address}/sae/{wildcards.sae}"
        return [f"{folder}/layer{layer}" for layer in self.chosen_layers(cell)]

    def first_size(self, wildcards: Any) -> list[int]:
        """The first of the sizes of a variant, the one that is compared."""
        return [self.variant(wildcards).sizes[0]]

    def null_autoencoders(self, wildcards: Any) -> list[str]:
        """The nulls of a variant that reads a pair, of the layers that are probed."""
        reads_pair = self.variant(wildcards).reads == "pair"
        folder = f"results/{self.cell(wildcards).address}/sae/{wildcards.sae}/null"
        layers = self.chosen_layers(self.cell(wildcards)) if reads_pair else []
        return [f"{folder}/layer{layer}" for layer in layers]

    def base_autoencoders(self, wildcards: Any) -> list[str]:
        """The dictionaries of the base that are held against those of a variant of the policy."""
        cell = self.cell(wildcards)
        twin = self.grid.base_twin(cell, wildcards.sae)
        layers = self.chosen_layers(cell) if twin else []
        return [f"results/{cell.address}/sae/{twin}/layer{layer}" for layer in layers]

    def features(self, wildcards: Any) -> str:
        """The features of a subject.

        Controls that read the text alone take their targets, tokens and lengths from those of the
        policy.
        """
        subject = wildcards.subject if SUBJECTS[wildcards.subject].load else "policy"
        address = self.cell(wildcards).address
        return f"results/{address}/features/{wildcards.sae}/{subject}.safetensors"

    def explanations(self, wildcards: Any) -> list[str]:
        """The explanations of a job's cell by all its explainers."""
        cell = self.cell(wildcards)
        folder = f"results/{cell.address}/explanations/{wildcards.sae}"
        return [f"{folder}/{name}.parquet" for name in cell.explainers]

    def choosing_shifts(self, wildcards: Any) -> list[str]:
        """The shifts of latents from base to policy, where they choose which are explained."""
        cell = self.cell(wildcards)
        shifts = f"results/{cell.address}/latents/{wildcards.sae}/shifts.parquet"
        return [shifts] if cell.settings["explanations"].choose != "match" else []

    def scores(self, wildcards: Any) -> list[str]:
        """The scores of the explanations of a job's cell by all its explainers."""
        paths = map(Path, self.explanations(wildcards))
        return [str(path.parent / "scores" / path.name) for path in paths]

    def compared_features(self, wildcards: Any) -> list[str]:
        """The features of policy and base, of those of the two that a job's cell probes."""
        cell = self.cell(wildcards)
        probed = cell.settings["features"].subjects
        folder = f"results/{cell.address}/features/{wildcards.sae}"
        return [f"{folder}/{name}.safetensors" for name in ("policy", "base") if name in probed]

    def policy_ablation(self, wildcards: Any) -> list[str]:
        """The ablated policy's completions and neutral losses; none where it has no arm."""
        cell = self.cell(wildcards)
        if not cell.settings["ablation"].arms or wildcards.sae != cell.main:
            return []
        folder = f"results/{cell.address}/ablation/{wildcards.sae}"
        return [f"{folder}/policy.{end}" for end in ("parquet", "neutral.parquet")]

    def related(self, wildcards: Any) -> str:
        """The explanations whose related latents are ablated."""
        cell = self.cell(wildcards)
        explainer = cell.settings["ablation"].explainer
        return f"results/{cell.address}/explanations/{wildcards.sae}/{explainer}.parquet"

    def judges(self, wildcards: Any) -> int:
        """Places at a language-model service that the scores of explanations take."""
        return int(bool(self.cell(wildcards).settings["explanations"].judge))

    def probe(self, wildcards: Any) -> list[str]:
        """The policy's probe, where an arm of the job, or of the policy, selects by its weights."""
        folder = f"results/{self.cell(wildcards).address}/probes/{wildcards.sae}/policy"
        wanted = any(ARMS[arm].reads_probe for arm in self._arms(wildcards))
        return [f"{folder}/probe.safetensors"] if wanted else []

    def selecting_probe(self, wildcards: Any, stage: str = "interventions") -> list[str]:
        """The policy's probe, where a selector of the job reads its weights.

        `stage` is the one whose settings name the selectors.
        """
        cell = self.cell(wildcards)
        folder = f"results/{cell.address}/probes/{wildcards.sae}/policy"
        wanted = set(READS_PROBE) & set(cell.settings[stage].selectors)
        return [f"{folder}/probe.safetensors"] if wanted else []

    def steering_probe(self, wildcards: Any) -> list[str]:
        """The policy's probe, where a set of latents that is steered is selected by it."""
        return self.selecting_probe(wildcards, "steering")
