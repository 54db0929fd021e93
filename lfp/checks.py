"""Checks of a grid that the schema cannot make: names that must exist, and values that must agree.

Each raises :class:`~lfp.configuration.ConfigurationError` with one line that names the key, what
was expected, and the nearest valid name.
"""

from __future__ import annotations

import ast
import dataclasses
import math
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lfp.change import COMPLETIONS, WRITING
from lfp.configuration import ConfigurationError, check_name
from lfp.files.hub import SourceError
from lfp.limits import (
    check_folds,
    check_label,
    check_lengths,
    check_policy_size,
    check_size,
    check_texts,
    check_training,
    reading_lengths,
    size_of,
    tuning_lengths,
)
from lfp.registry import nearest
from lfp.running.digest import ROOT, module_path
from lfp.running.sources import module_digest, module_file
from lfp.sae.architectures import kind_of
from lfp.sae.sources.files import LAYER, check, dictionary_files
from lfp.settings import BETWEEN, BOTH, CELL_ENDS, PRETRAINED, Task
from lfp.settings.fields import plain

if TYPE_CHECKING:
    from lfp.grid import Cell, Grid

#: Folders and files of the results that are not a model's.
RESULT_NAMES = (
    "benchmarks", "blind", "contrasts", "corpora", "dictionaries", "exports", "figures",
    "instances", "lexicons", "llm_cache", "logs", "models", "rewrites", "tables", "tensorboard",
    "blind.truth.json", "blind_score.csv", "blind_score.json", "compare.csv", "compare.html",
    "compare.parquet", "estimate.csv", "provenance.json", "resources.csv", "resources.html",
    "ro-crate.zip", "summary.html",
)  # fmt: skip
#: Keys of a task that describe its reward.
REWARD_KEYS = (
    "reward", "classifier", "callable", "flipped_share", "trigger", "reward_seed", "openers",
)  # fmt: skip
#: Those that are parameters of a task's feedback under one reward alone. They came later: under
#: another reward they rerun nothing.
OWN_REWARD_KEYS = {"openers": "opener"}
#: Columns of a corpus that a task learns from, by its feedback.
_LEARNED = {"reward": ("text",), "preference": ("chosen", "rejected")}
#: Columns of a corpus that has contrast triples.
_TRIPLE = ("positive", "neutral", "negative")
_TASK_DEFAULTS = {field.name: plain(field.default) for field in dataclasses.fields(Task)}


def check_entries(grid: Grid) -> None:
    """Check everything that the configuration names, before cells are made of it."""
    _check_columns(grid)
    _check_models(grid)
    for name, corpus in grid.corpora.items():
        _check_clean(name, corpus)
    _check_alike(grid)
    for name, task in grid.tasks.items():
        if re.fullmatch(r"seed\d+", name):
            raise ConfigurationError(
                f"tasks.{name}: results/MODEL/{name} would read as the folder of a seed; rename the"
                " task"
            )
        clean = name.lower().removesuffix(".truth")
        if clean != name.lower() and clean in {task.lower() for task in grid.tasks}:
            raise ConfigurationError(
                f"tasks.{name}: results/lexicons/{name}.json would be both its feedback and the"
                f" planted truth of the task {name[:-6]!r}; rename one of them"
            )
        check_name(f"tasks.{name}.corpus", task["corpus"], grid.corpora)
        _check_reward(grid, name, task)
        _check_given(grid, name, task)
        _check_distilled(name, task)
        _check_corpus(grid, name, task)
        if grid.feedback(name) == "preference":
            _check_triples(grid, name, task)
    _check_documents(grid)
    if not grid.autoencoders:
        raise ConfigurationError(
            "autoencoders: expected at least one variant; leave the key out for the default"
        )
    _check_services(grid)
    for index, entry in enumerate(grid.config["cells"]):
        _check_entry(grid, f"cells.{index}", entry)


def check_cell(grid: Grid, cell: Cell) -> None:
    """Check the resolved settings of a cell."""
    check_lengths(grid, cell, tuning_lengths(cell) | reading_lengths(cell))
    check_policy(grid, cell)
    _check_single_policy(grid, cell)
    _check_layers(grid, cell)
    _check_pair_lengths(cell)
    check_texts(grid, cell)
    _check_autoencoders(grid, cell)
    check_folds(grid, cell)
    _check_explainers(grid, cell)
    _check_chosen(grid, cell)
    _check_donor(grid, cell)
    _check_arms(cell)
    _check_reach(cell)
    _check_steering(cell)
    _check_direction(grid, cell)


def source_digest(where: str, name: str) -> str:
    """Digest of the module of a reward ``module:function`` and of what it imports beside it.

    The files are looked for as the jobs will; nothing is imported.

    Raises ConfigurationError, with the key `where` in front, where there is no such module, or one
    that is no Python.
    """
    module, folder = name.partition(":")[0], Path.cwd()
    if module_file(module, folder) is None:
        raise ConfigurationError(
            f"{where}: the reward {name!r} needs {Path(*module.split('.'))}.py in the working"
            f" directory {folder}"
        )
    try:
        return module_digest(module, folder)
    except (SyntaxError, ValueError) as error:
        file = getattr(error, "filename", None) or module_file(module, folder)
        raise ConfigurationError(
            f"{where}: {Path(file).relative_to(folder)} is not valid Python, and the reward"
            f" {name!r} reads it: {error}"
        ) from error


# --------------------------------------------------------------------------------------- registries


def check_function(kind: str, name: str, entry: str, takes: Sequence[str]) -> None:
    """Check that the `entry` of `name` in a registry is a function of the arguments `takes`.

    Its file is read, and nothing is imported: planning loads no library of science.

    Raises ConfigurationError with the file, the entry and what is expected.
    """
    where, node = _definition(kind, name, entry)
    expected = f"expected a function of ({', '.join(takes)})"
    if isinstance(node, ast.ClassDef):
        raise ConfigurationError(f"{where} is a class, {expected}")
    if isinstance(node, ast.FunctionDef):
        given = node.args
        arguments = [argument.arg for argument in (*given.posonlyargs, *given.args)]
        most = math.inf if given.vararg else len(arguments)
        fits = len(arguments) - len(given.defaults) <= len(takes) <= most
        if not fits or None in given.kw_defaults:
            named = [*arguments, *(argument.arg for argument in given.kwonlyargs)]
            raise ConfigurationError(f"{where} takes ({', '.join(named)}), {expected}")


def check_class(
    kind: str, name: str, entry: str, base: str, needs: Sequence[str], says: Mapping[str, object]
) -> None:
    """Check that the `entry` of `name` in a registry is a class of `base`.

    What another class brings that it derives from is not looked for. Its file is read, and nothing
    is imported.

    Parameters
    ----------
    kind, name, entry
        The kind of the registry, and a name in it with its entry, ``module:attribute``.
    base
        The name of the class that all entries derive from.
    needs
        What a class must define that derives from `base` alone.
    says
        Values of attributes, where the class gives them.

    Raises
    ------
    ConfigurationError
        With the file, the entry and what is expected.
    """
    where, node = _definition(kind, name, entry)
    if isinstance(node, ast.FunctionDef):
        raise ConfigurationError(f"{where} is a function, expected a class of {base}")
    if not isinstance(node, ast.ClassDef):
        return
    bases = [ast.unparse(one).rpartition(".")[2] for one in node.bases]
    if not bases:
        raise ConfigurationError(f"{where} derives from no class, expected {base}")
    defined = {name: part for part in node.body for name in _names(part, deep=False)}
    for need in needs:
        if bases == [base] and need not in defined:
            raise ConfigurationError(f"{where} has no `{need}`, which every {kind} defines")
    for attribute, value in says.items():
        given = getattr(defined.get(attribute), "value", None)
        if isinstance(given, ast.Constant) and given.value != value:
            raise ConfigurationError(
                f"{where} has {attribute} = {given.value!r}, expected {value!r}, as the line of the"
                " registry says"
            )


def check_listed(kind: str, name: str, entry: str, attribute: str, valid: Collection[str]) -> None:
    """Check the names that a class lists, which are to be those of another registry.

    Its file is read, and nothing is imported: names that are computed are not looked at.

    Parameters
    ----------
    kind, name, entry
        The kind of the registry, and a name in it with its entry, ``module:attribute``.
    attribute
        The attribute of the class that lists names, as a tuple or a list.
    valid
        The names that it may list.

    Raises
    ------
    ConfigurationError
        With the file, the entry, the name and the nearest valid one.
    """
    where, node = _definition(kind, name, entry)
    for part in node.body if isinstance(node, ast.ClassDef) else []:
        if attribute in _names(part, deep=False):
            for item in getattr(getattr(part, "value", None), "elts", []):
                if isinstance(item, ast.Constant) and item.value not in valid:
                    hint = nearest(item.value, valid)
                    raise ConfigurationError(f"{where}: {attribute}: {item.value!r}; {hint}")


def _definition(kind: str, name: str, entry: str) -> tuple[str, ast.AST | None]:
    """The words for an entry in an error, and its function or class; None where it is neither."""
    module, _, attribute = entry.partition(":")
    path = module_path(module)
    if path is None:
        raise ConfigurationError(
            f"{kind} {name!r}: {entry}: expected a file {Path(*module.split('.'))}.py beside the"
            " Snakefile"
        )
    where = f"{kind} {name!r}: {path.relative_to(ROOT)}: {attribute}"
    try:
        tree = _tree(path.read_bytes())
    except (SyntaxError, ValueError) as error:
        raise ConfigurationError(f"{where}: the file is not valid Python: {error}") from error
    named = [node for node in tree.body if getattr(node, "name", None) == attribute]
    names = {attribute} if named else _names(tree)
    if attribute not in names and "*" not in names:
        hint = nearest(attribute, names) if names else "the file defines nothing"
        raise ConfigurationError(f"{where} is not there; {hint}")
    return where, named[-1] if named else None


@cache
def _tree(content: bytes) -> ast.Module:
    """The syntax tree of a file with the `content`."""
    return ast.parse(content)


def _names(tree: ast.AST, deep: bool = True) -> set[str]:
    """The names that a syntax tree defines or imports, those within a function only if `deep`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
            if node is tree and not deep:
                return names
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
    return names


# ------------------------------------------------------------------------------------------ entries


def _check_columns(grid: Grid) -> None:
    """Check that triples are whole, and that no column of a source is taken for two of ours."""
    for name, corpus in grid.corpora.items():
        columns = corpus.get("columns", {})
        missing = [column for column in _TRIPLE if column not in columns]
        if 0 < len(missing) < len(_TRIPLE):
            raise ConfigurationError(
                f"corpora.{name}.columns: a contrast triple needs {', '.join(_TRIPLE)}, and"
                f" `{missing[0]}` is not there; name its column, or leave the others out"
            )
        first: dict[str, str] = {}
        for ours, theirs in columns.items():
            if theirs in first:
                raise ConfigurationError(
                    f"corpora.{name}.columns.{ours}: {theirs!r} is the column of {first[theirs]},"
                    " too; name the column that holds it"
                )
            first[theirs] = ours


def _check_alike(grid: Grid) -> None:
    """Check that no two names are one place, also where letters count the same in both cases."""
    places = [
        *(("models", name) for name in grid.models),
        *(("classifiers", name) for name in grid.classifiers),
        *(
            (f"tasks.{name}.policies", f"{model}--{name}")
            for name, task in grid.tasks.items()
            for model in task["policies"]
        ),
    ]
    kinds = [[(kind, name) for name in grid.config[kind]] for kind in ("corpora", "tasks")]
    kinds += [
        [(kind, name) for name in grid.config[kind]] for kind in ("autoencoders", "explainers")
    ]
    for names in (places, *kinds):
        first: dict[str, tuple[str, str]] = {}
        for kind, name in names:
            other = first.setdefault(name.lower(), (kind, name))
            if other != (kind, name) or names.count((kind, name)) > 1:
                raise ConfigurationError(
                    f"{kind}: {name!r} and {other[1]!r} of {other[0]} would be one file or folder"
                    " (some file systems take capital letters for small ones); rename one"
                )


def _check_models(grid: Grid) -> None:
    for name, model in grid.models.items():
        check_size(name, model, f"models.{name}")
        for corpus in model.get("organism", {}).get("corpora", []):
            check_name(f"models.{name}.organism.corpora", corpus, grid.corpora)
    for name, classifier in grid.classifiers.items():
        path = classifier.get("path", "")
        if path.endswith(".gguf") or Path(path).is_file():
            raise ConfigurationError(
                f"classifiers.{name}.path: expected a directory in the Hugging Face layout, got"
                f" {path!r}; a GGUF file holds no classifier: save the classifier itself there"
                " (save_pretrained)"
            )
        check_label(name, classifier)
    for kind, entries in (("models", grid.models), ("classifiers", grid.classifiers)):
        for name in entries:
            if name.lower() in RESULT_NAMES:
                raise ConfigurationError(
                    f"{kind}.{name}: results/{name} belongs to the workflow; rename the {kind[:-1]}"
                )
            if name in grid.policies:
                raise ConfigurationError(
                    f"{kind}.{name}: results/models/{name} is the place of a given policy; rename"
                    f" the {kind[:-1]}"
                )


def _check_reward(grid: Grid, name: str, task: Mapping[str, Any]) -> None:
    if grid.feedback(name) == "preference":
        changed = [key for key in REWARD_KEYS if task[key] != _TASK_DEFAULTS[key]]
        if changed:
            learns = "learns" if task["method"] == "dpo" else "with preference feedback learned"
            raise ConfigurationError(
                f"tasks.{name}.{changed[0]}: a {task['method']} task {learns} from pairs; leave it"
                " out"
            )
    if task["reward"] == "classifier":
        if task["classifier"] is None:
            raise ConfigurationError(f"tasks.{name}.classifier: name one of `classifiers`")
        check_name(f"tasks.{name}.classifier", task["classifier"], grid.classifiers)
    if task["reward"] == "callable":
        if task["callable"] is None:
            raise ConfigurationError(f"tasks.{name}.callable: give the reward as module:function")
        source_digest(f"tasks.{name}.callable", task["callable"])
        _check_function(f"tasks.{name}.callable", task["callable"])


def _check_function(where: str, name: str) -> None:
    """Check that the module of a reward ``module:function`` defines it; nothing is imported."""
    module, _, function = name.partition(":")
    path = module_file(module, Path())
    names = _names(ast.parse(path.read_bytes()))
    if function not in names and "*" not in names:
        hint = nearest(function, names) if names else "it defines nothing"
        raise ConfigurationError(f"{where}: {path} has no function {function!r}; {hint}")


def _check_given(grid: Grid, name: str, task: Mapping[str, Any]) -> None:
    if task["method"] == "given":
        for model in task["policies"]:
            check_name(f"tasks.{name}.policies", model, grid.models)
        return
    for key in ("policies", "feedback"):
        if task[key]:
            raise ConfigurationError(
                f"tasks.{name}.{key}: belongs to the method `given`, and this task's is"
                f" `{task['method']}`; leave it out"
            )


def _check_distilled(name: str, task: Mapping[str, Any]) -> None:
    """Check that the vector of a distilled policy follows the lexicon that its reward counts."""
    if task["method"] == "distil" and task["reward"] != "vader":
        raise ConfigurationError(
            f"tasks.{name}.reward: got `{task['reward']}`, and the vector of the method `distil`"
            " follows the lexicon of the reward `vader`; leave it out"
        )


def _check_corpus(grid: Grid, name: str, task: Mapping[str, Any]) -> None:
    """Check that the corpus of a task has the texts or the pairs that it learns from."""
    corpus, feedback = grid.corpora[task["corpus"]], grid.feedback(name)
    generated = "reward" if corpus.get("organism") == "reviews" else "preference"
    columns = corpus.get("columns", _LEARNED[generated])
    missing = [column for column in _LEARNED[feedback] if column not in columns]
    if missing:
        raise ConfigurationError(
            f"tasks.{name}.corpus: a {task['method']} task with {feedback} feedback needs the"
            f" column `{missing[0]}`, and {task['corpus']!r} has {', '.join(columns)}; name another"
            " corpus, or give the column in its `columns`"
        )


def _check_documents(grid: Grid) -> None:
    """Check that every corpus has texts, pairs or triples, also one that only organisms learn."""
    for name, corpus in grid.corpora.items():
        columns = corpus.get("columns")
        kinds = (*_LEARNED.values(), ("prompt", *_TRIPLE))
        if columns and not any(set(needed) <= set(columns) for needed in kinds):
            raise ConfigurationError(
                f"corpora.{name}.columns: expected `text`, or `chosen` and `rejected`, or `prompt`"
                f" and a triple, got {', '.join(columns)}; name the source's column of each"
            )


def _check_clean(name: str, corpus: Mapping[str, Any]) -> None:
    """Check that the turns by which transcripts are cut stay as they are spelled."""
    columns = corpus.get("columns", ())
    if corpus["clean"]["lowercase"] and "chosen" in columns and "prompt" not in columns:
        raise ConfigurationError(
            f"corpora.{name}.clean.lowercase: without a column `prompt` transcripts are cut at"
            " `Assistant:`, which would become small as well; leave it out, or give `prompt`"
        )


def _check_triples(grid: Grid, name: str, task: Mapping[str, Any]) -> None:
    settings = grid.task_settings("contrasts", name)
    source, corpus = settings.source, settings.corpus or task["corpus"]
    if settings.corpus is not None:
        check_name(f"tasks.{name}: contrasts.corpus", corpus, grid.corpora)
        if source != "corpus":
            raise ConfigurationError(
                f"tasks.{name}: contrasts.corpus has no effect with contrasts.source `{source}`;"
                " leave it out, or set the source to `corpus`"
            )
        if "prompt" not in grid.corpora[corpus].get("columns", ()):
            raise ConfigurationError(
                f"tasks.{name}: contrasts.corpus: {corpus} has no column prompt beside its triples;"
                " name another corpus, or give the column in its `columns`"
            )
    columns = grid.corpora[corpus].get("columns")
    if source == "rewrites":
        service = grid.task_settings("rewrites", name).service
        if service is None:
            raise ConfigurationError(
                f"tasks.{name}: rewrites.service must name the service that rewrites"
            )
        check_name(f"tasks.{name}: rewrites.service", service, grid.services)
    elif source == "corpus" and columns is not None and "neutral" not in columns:
        raise ConfigurationError(
            f"tasks.{name}: contrasts.source is `corpus`, and {corpus} has no columns"
            " positive, neutral and negative; set it to `pairs` (offline) or `rewrites` (a"
            " language-model service)"
        )
    if source == "pairs" and task["swapped"]:
        raise ConfigurationError(
            f"tasks.{name}.swapped: no effect with contrasts.source `pairs`, whose positive answer"
            " is always the one that the feedback prefers; leave it out, or set it to false"
        )


def _check_services(grid: Grid) -> None:
    for name, entry in grid.services.items():
        if entry["budget_usd"] is not None and not entry["prices"]:
            raise ConfigurationError(
                f"services.{name}.budget_usd: needs services.{name}.prices to be counted"
            )
    for name, entry in grid.explainers.items():
        check_name(f"explainers.{name}.service", entry["service"], grid.services)


def _check_entry(grid: Grid, where: str, entry: Mapping[str, Any]) -> None:
    check_name(f"{where}.model", entry["model"], grid.models)
    check_name(f"{where}.task", entry["task"], grid.tasks)
    variants, main, probed = grid.variants(entry)
    for variant in variants:
        check_name(f"{where}.autoencoders", variant, grid.autoencoders)
    check_name(f"{where}.main", main, variants)
    for variant in probed:
        check_name(f"{where}.probed", variant, variants)
    if main not in probed:
        raise ConfigurationError(
            f"{where}.probed: the cell's main variant {main!r} must be among them"
        )


# -------------------------------------------------------------------------------------------- cells


def check_policy(grid: Grid, cell: Cell) -> None:
    """Check how a policy is made: of a cell, or one that is trained for a control alone."""
    check_training(grid, cell)
    check_lengths(grid, cell, tuning_lengths(cell))
    if cell.method == "given" and cell.model not in grid.tasks[cell.task]["policies"]:
        raise ConfigurationError(
            f"tasks.{cell.task}.policies: the cell {cell.address} needs the policy of"
            f" {cell.model!r}; give its path or hub"
        )
    if cell.method == "given":
        check_policy_size(grid, cell.model, cell.task, f"{cell.model}--{cell.task}")


def _check_single_policy(grid: Grid, cell: Cell) -> None:
    """Check that a given policy, which is one fine-tuning, is not taken for several."""
    if cell.method != "given":
        return
    same = (c.seed for c in grid.cells if (c.model, c.task) == (cell.model, cell.task))
    seeds = sorted(set(same))
    if len(seeds) > 1:
        raise ConfigurationError(
            f"cell {cell.address}: seeds has {seeds}, and a given policy is one fine-tuning; leave"
            " one seed, and for seeds of the autoencoder give variants of `autoencoders` their own"
            " `seed`"
        )
    if "other_seed" in cell.settings["features"].subjects:
        raise ConfigurationError(
            f"cell {cell.address}: features.subjects has `other_seed`, and a given policy is the"
            " same for every seed; leave it out"
        )


def _check_layers(grid: Grid, cell: Cell) -> None:
    available = grid.n_layers(cell.model)
    wanted = cell.settings["divergence"].n_layers
    if cell.layers is None and wanted > available:
        raise ConfigurationError(
            f"cell {cell.address}: divergence.n_layers asks for {wanted} layers, {cell.model} has"
            f" {available}; set it to {available} or less"
        )
    if cell.settings["divergence"].measure == "locus" and not cell.settings["locus"].orders:
        raise ConfigurationError(
            f"cell {cell.address}: divergence.measure is `locus`, and locus.orders is 0, which"
            " leaves layers out; set it to 1 or more"
        )
    lowest = cell.lowest_layers if isinstance(cell.lowest_layers, tuple) else ()
    named = {"layers": cell.layers or (), "lowest_layers": lowest}
    distil, steering = (cell.settings[stage] for stage in ("distil", "steering"))
    if cell.method == "distil" and distil.layer is not None:
        named["distil.layer"] = (distil.layer,)
    if steering.vectors and steering.layer is not None:
        named["steering.layer"] = (steering.layer,)
    for key, layers in named.items():
        too_high = [layer for layer in layers if layer >= available]
        if too_high:
            raise ConfigurationError(
                f"cell {cell.address}: {key} has {too_high[0]}; the layers of {cell.model} are 0 to"
                f" {available - 1}"
            )
    if cell.layers and len(set(cell.layers)) < len(cell.layers):
        raise ConfigurationError(f"cell {cell.address}: layers names a layer twice")
    if cell.lowest_layers and not set(lowest or range(available)) - set(cell.layers or ()):
        raise ConfigurationError(
            f"cell {cell.address}: lowest_layers asks for layers that are not pinned, and `layers`"
            " has them all; set lowest_layers to false, or pin fewer layers"
        )
    steered = set(named.get("steering.layer", ())) - set(cell.layers or range(available))
    if steered:
        raise ConfigurationError(
            f"cell {cell.address}: steering.layer has {min(steered)}, and dictionaries are trained"
            f" of its layers {', '.join(map(str, cell.layers))} alone; set it to one of these, or"
            " to null"
        )


def _check_pair_lengths(cell: Cell) -> None:
    """Check that a prompt of full length leaves room for an answer."""
    dpo = cell.settings["dpo"]
    if cell.feedback == "preference" and dpo.max_prompt_length >= dpo.max_length:
        raise ConfigurationError(
            f"cell {cell.address}: dpo.max_prompt_length ({dpo.max_prompt_length}) must be below"
            f" dpo.max_length ({dpo.max_length}), or no token of an answer is left"
        )


def _check_autoencoders(grid: Grid, cell: Cell) -> None:
    for variant in cell.autoencoders:
        _check_variant(grid, cell, variant)
        settings = grid.autoencoder_settings(cell, variant)
        if settings.reads == "base":
            _check_shared(grid, cell, variant)
        if settings.reads in BETWEEN and variant in {cell.main, *cell.probed}:
            key = "main" if variant == cell.main else "probed"
            raise ConfigurationError(
                f"cell {cell.address}: {key} is {variant!r}, which reads {settings.reads}: latents"
                " of two models at once can be neither probed, explained nor ablated in one; name a"
                " variant that reads policy, base or pooled first, or as `main`"
            )


def check_spares(grid: Grid) -> None:
    """Check that some cell could train each of the variants that no cell names."""
    trained = {variant for cell in grid.cells for variant in cell.autoencoders}
    for variant in (name for name in grid.autoencoders if name not in trained):
        faults = []
        for cell in grid.cells:
            try:
                _check_variant(grid, cell, variant)
            except ConfigurationError as error:
                faults.append(error)
        if len(faults) == len(grid.cells):
            raise faults[0]


def _check_variant(grid: Grid, cell: Cell, variant: str) -> None:
    """Check that a variant's settings agree with each other and with the cell's model."""
    settings = grid.autoencoder_settings(cell, variant)
    sizes = settings.sizes
    width = size_of(cell.model, grid.models[cell.model]).width(settings.site)
    pretrained = settings.architecture == PRETRAINED
    if settings.source or pretrained:
        _check_pretrained(grid, cell, variant)
    kind = "`mutual`" if settings.mutual else f"architecture `{settings.architecture}`"
    of_one = settings.mutual or not kind_of(settings).of_pairs
    if (pretrained and settings.reads in BOTH) or (of_one and settings.reads == "pair"):
        raise ConfigurationError(
            f"cell {cell.address}: {variant!r} reads {settings.reads!r}, and {kind} has directions"
            " of one model; let it read `policy` or `base`"
        )
    for key, wanted in kind_of(settings).active_latents(settings).items():
        if width and wanted > sizes[0] * width:
            raise ConfigurationError(
                f"cell {cell.address}: autoencoder.{key} of {variant!r} is {wanted:g}, and its"
                f" smallest autoencoder has {sizes[0] * width} latents; set it to that or less"
            )
    if list(sizes) != sorted(sizes):
        raise ConfigurationError(
            f"cell {cell.address}: autoencoder.sizes of {variant!r} must be ascending, got"
            f" {list(sizes)}"
        )


def _check_pretrained(grid: Grid, cell: Cell, variant: str) -> None:
    """Check that a dictionary from elsewhere is named whole, and fits the model where it is here.

    Files of a `path` are looked at for every layer that may be chosen.
    """
    where, written = f"autoencoders.{variant}", grid.autoencoders[variant]
    for key, needed in (
        ("architecture", f"`architecture: {PRETRAINED}`, which belongs to a `source`"),
        ("source", "`source`, the place of its files (docs/autoencoders.md)"),
        ("site", "`site`, the part of a layer that it was trained on"),
    ):
        if key not in written:
            raise ConfigurationError(
                f"{where}: a pretrained dictionary needs {needed}; add it here"
            )
    settings = grid.autoencoder_settings(cell, variant)
    layers = _layers_of(grid, cell, variant)
    if len(layers) > 1 and LAYER not in settings.source.files:
        raise ConfigurationError(
            f"{where}.source.files: expected {LAYER} in the place of the layer's number, got"
            f" {settings.source.files!r}; put it in, or pin one layer (cells: layers)"
        )
    if settings.source.path is None:
        return
    width, origin = grid.width(cell, settings.site), f"{where}.source"
    try:
        for layer in sorted(layers):
            files = dictionary_files(settings.source.path, settings.source, layer, origin)
            check(files, layer, settings.site, width, origin)
    except SourceError as error:
        raise ConfigurationError(str(error)) from error


def _layers_of(grid: Grid, cell: Cell, variant: str) -> set[int]:
    """The layers that a variant may be trained on, the least changed ones among them."""
    every = range(grid.n_layers(cell.model))
    layers, lowest = set(cell.layers or every), cell.lowest_layers
    if variant in grid.alike_in(cell, ["reads"]):
        layers |= set(every if lowest is True else lowest or ())
    return layers


def _check_shared(grid: Grid, cell: Cell, variant: str) -> None:
    """Check that cells of one base agree on its activations, which are harvested once."""
    shared = grid.base_activations(cell.model, grid.tasks[cell.task]["corpus"])
    for key, value in cell.settings["activations"].for_jobs().items():
        if value != shared[key]:
            raise ConfigurationError(
                f"cell {cell.address}: activations.{key} is {value}, and {shared[key]} for its"
                f" model; {variant!r} reads the base, which all cells share: set it under"
                f" `settings` or models.{cell.model}.settings"
            )


def _check_explainers(grid: Grid, cell: Cell) -> None:
    where = f"cell {cell.address}"
    for explainer in cell.explainers:
        check_name(f"{where}: explainers", explainer, ["heuristic", *grid.explainers])
        if explainer != "heuristic" and not grid.description(cell.task):
            raise ConfigurationError(
                f"tasks.{cell.task}.description: the explainer {explainer!r} needs to be told what"
                " is rewarded"
            )
    check_name(f"{where}: ablation.explainer", cell.settings["ablation"].explainer, cell.explainers)
    judge = cell.settings["explanations"].judge
    if judge:
        check_name(f"{where}: explanations.judge", judge, grid.services)


def _check_chosen(grid: Grid, cell: Cell) -> None:
    """Check that the shifts are measured which choose the features that a cell explains."""
    choose, prompts = cell.settings["explanations"].choose, cell.settings["change"].latent_prompts
    if choose == "match" or cell.until != "ablation":
        return
    where = f"cell {cell.address}: explanations.choose is {choose!r}, and"
    if not grid.shares_latents(cell):
        raise ConfigurationError(
            f"{where} shifts are measured of sites that write to the residual stream"
            f" ({', '.join(WRITING)}) alone; set it to `match`, or `main` to a variant of such a"
            " site"
        )
    if choose == COMPLETIONS and prompts < 2:
        raise ConfigurationError(
            f"{where} change.latent_prompts is {prompts}; set the latter to the number of contexts"
            " to complete, at least 2"
        )


def _check_donor(grid: Grid, cell: Cell) -> None:
    """Check the name of the task that another policy is taken from, also where none is read."""
    task = cell.settings["features"].other_task
    if task is not None:
        check_name(f"cell {cell.address}: features.other_task", task, grid.tasks)


def _check_arms(cell: Cell) -> None:
    arms = cell.settings["ablation"].base_arms
    if arms and "none" not in arms:
        raise ConfigurationError(
            f"cell {cell.address}: ablation.base_arms needs `none`, which the other arms are"
            f" compared with, got {list(arms)}; add it, or set an empty list to leave the base out"
        )


def _check_reach(cell: Cell) -> None:
    """Check that a cell gets as far as the stages do that it asks for and that are off by default.

    Settings of a stage that runs anyway may stand: cells that end earlier share them.
    """
    asked = cell.settings
    behind = (
        ("lowest_layers", cell.lowest_layers, "probes"),
        ("evaluation.probes", asked["evaluation"].probes, "probes"),
        ("explainers", set(cell.explainers) - {"heuristic"}, "ablation"),
        ("explanations.judge", asked["explanations"].judge, "ablation"),
        ("interventions.selectors", asked["interventions"].selectors, "ablation"),
        ("steering.vectors", asked["steering"].vectors, "ablation"),
    )
    for key, value, stage in behind:
        if value and CELL_ENDS.index(cell.until) < CELL_ENDS.index(stage):
            reads = "explanations and dictionaries" if stage == "ablation" else "dictionaries"
            enough = " or ".join(f"`{end}`" for end in CELL_ENDS[CELL_ENDS.index(stage) :])
            raise ConfigurationError(
                f"cell {cell.address}: {key} needs {reads}, and the cell ends at `{cell.until}`;"
                f" set `until` to {enough}, or {key} of this cell to nothing"
            )


def _check_steering(cell: Cell) -> None:
    """Check that the other settings of a steered cell have vectors."""
    asked = cell.settings["steering"]
    if asked.selectors and not asked.vectors:
        raise ConfigurationError(
            f"cell {cell.address}: steering.selectors are scaled to the costs of vectors, and there"
            " are none; name some under `steering.vectors`, or leave the selectors out"
        )
    if (asked.wanted or asked.unwanted) and not asked.vectors:
        raise ConfigurationError(
            f"cell {cell.address}: steering.wanted and unwanted say what vectors are to do, and"
            " there are none; name some under `steering.vectors`, or leave the words out"
        )
    both = sorted(set(asked.wanted) & set(asked.unwanted))
    if both:
        raise ConfigurationError(
            f"cell {cell.address}: {both[0]!r} stands under steering.wanted and under"
            " steering.unwanted, so that no completion has all that is asked for; leave it out of"
            " one of them"
        )


def _check_direction(grid: Grid, cell: Cell) -> None:
    """Check that decoder rows are held against a direction of the site that they write to."""
    stages = [stage for stage in ("interventions", "steering")
              if "direction" in cell.settings[stage].selectors]  # fmt: skip
    asked, site = cell.settings["interventions"], grid.autoencoder_settings(cell, cell.main).site
    if stages and asked.direction == "valence" and site == "heads":
        raise ConfigurationError(
            f"cell {cell.address}: {stages[0]}.selectors has `direction`, which is that of the"
            " output head in the residual stream, and the main autoencoder reads the site `heads`,"
            " which is no part of it; set interventions.direction to `mean_shift`, or leave"
            " `direction` out"
        )
