"""Numbers of a cell that must fit each other, and what checkpoints say of their size.

A checkpoint is looked at where it is at hand: an organism's settings, the directory or the GGUF
file behind `path`, or what an earlier run fetched from the hub. No weights are read and no library
of science is loaded.
"""

from __future__ import annotations

import dataclasses
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from lfp.configuration import ConfigurationError
from lfp.files.checkpoints import read_object
from lfp.files.hub import SourceError
from lfp.files.provenance import ArtefactError, read_record
from lfp.organisms import POSITIONS
from lfp.settings import Organism
from lfp.settings.methods import PARALLEL

if TYPE_CHECKING:
    from lfp.grid import Cell, Grid

#: Names of each number in the configurations of the families that transformers has.
_NAMES = {
    "n_layers": ("num_hidden_layers", "n_layer", "num_layers"),
    "d_model": ("hidden_size", "n_embd"),
    "n_heads": ("num_attention_heads", "n_head", "num_heads"),
    "head_size": ("head_dim",),
    "positions": ("max_position_embeddings", "n_positions", "n_ctx"),
    "vocab_size": ("vocab_size",),
}
#: The same of the header of a GGUF file, behind the name of its architecture.
_HEADER_NAMES = {
    "n_layers": "block_count", "d_model": "embedding_length", "n_heads": "attention.head_count",
    "head_size": "attention.key_length", "positions": "context_length", "vocab_size": "vocab_size",
}  # fmt: skip
#: Codes of :mod:`struct` by the number of a type in a GGUF file: integers, numbers and booleans.
_CODES = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
_TEXT, _LIST = 8, 9
#: Most bytes of a text, and most items of a list, that is no vocabulary.
_LONGEST = 2**16


@dataclass(frozen=True, kw_only=True)
class Size:
    """Numbers of a model, None where nothing says them, and the `source` that says them."""

    source: str
    n_layers: int | None = None
    d_model: int | None = None
    n_heads: int | None = None
    head_size: int | None = None
    positions: int | None = None
    vocab_size: int | None = None

    def width(self, site: str) -> int | None:
        """Width of the activations at a site: of all heads side by side, or of the stream."""
        if site != "heads":
            return self.d_model
        return self.n_heads * self.head_size if self.n_heads and self.head_size else None


def size_of(name: str, entry: Mapping[str, Any]) -> Size:
    """The numbers of the model or the policy `name`, from its `entry` in the configuration."""
    if "organism" in entry:
        organism, source = entry["organism"], f"models.{name}.organism"
        heads, width = organism["n_heads"], organism["d_model"]
        vocabulary = None if organism["tokenizer_path"] else organism["vocab_size"]
        return Size(
            source=source, n_layers=organism["n_layers"], d_model=width, n_heads=heads,
            head_size=width // heads, positions=POSITIONS, vocab_size=vocabulary,
        )  # fmt: skip
    header = _header(entry)
    if header is not None:
        return Size(source=str(header), **_header_numbers(header))
    folder = _folder(name, entry)
    if folder is None:
        return Size(source=f"models.{name}", **_numbers(entry.get("shape", {})))
    config = _config(name, folder)
    return Size(source=str(folder / "config.json"), **_numbers(config.get("text_config") or config))


def check_size(name: str, entry: Mapping[str, Any], where: str) -> None:
    """Check the numbers of an entry at the key `where` against its checkpoint, and its heads."""
    size = size_of(name, entry)
    written = {"n_layers": entry.get("n_layers"), **entry.get("shape", {})}
    for key in ("n_layers", "d_model", "vocab_size"):
        actual = getattr(size, key)
        if "organism" not in entry and None not in (written.get(key), actual):
            at = key if key == "n_layers" else f"shape.{key}"
            if written[key] != actual:
                raise ConfigurationError(
                    f"{where}.{at}: got {written[key]}, and {size.source} says {actual}; set it to"
                    f" {actual}, or name the right checkpoint"
                )
    if "organism" in entry:
        _check_heads(entry["organism"], f"{where}.organism")
        _check_tokenizer(entry["organism"], f"{where}.organism")


def check_label(name: str, entry: Mapping[str, Any]) -> None:
    """Check that a classifier has the label that is its reward, where it is at hand."""
    folder, label = _folder(name, entry), entry["positive"]
    if folder is None:
        return
    config = _config(name, folder)
    labels, count = config.get("id2label"), config.get("num_labels")
    if not isinstance(labels, dict):  # what transformers takes where none are named
        count = count if isinstance(count, int) else 2
        labels = {str(number): f"LABEL_{number}" for number in range(count)}
    if str(label) not in labels and label not in labels.values():
        known = ", ".join(f"{number} ({of_number})" for number, of_number in labels.items())
        raise ConfigurationError(
            f"classifiers.{name}.positive: got {label!r}, and the labels of {folder} are {known};"
            " set it to one of them, by its number or name"
        )


def check_policy_size(grid: Grid, model: str, task: str, name: str) -> None:
    """Check that a given policy is of the size of its base, as far as both are known."""
    policy, base = size_of(name, grid.policies[name]), size_of(model, grid.models[model])
    layers = grid.n_layers(model)
    for what, ours, theirs in (
        ("layers", layers, policy.n_layers),
        ("dimensions", base.d_model, policy.d_model),
    ):
        if None not in (ours, theirs) and ours != theirs:
            raise ConfigurationError(
                f"tasks.{task}.policies.{model}: {policy.source} has {theirs} {what}, and its base"
                f" {model!r} has {ours}; give the policy that was tuned from {model!r}, or the base"
                " that it was tuned from"
            )


def check_lengths(grid: Grid, cell: Cell, lengths: Mapping[str, int]) -> None:
    """Check that no stage of a cell reads or writes more tokens than the model has positions.

    `lengths` has the most tokens of each stage by the settings that say it.
    """
    size = size_of(cell.model, grid.models[cell.model])
    if size.positions is None:
        return
    too_long = {key: n for key, n in lengths.items() if n > size.positions}
    if too_long:
        asked = ", ".join(f"{key} for {n}" for key, n in too_long.items())
        either = " or each sum" if any("+" in key for key in too_long) else ""
        raise ConfigurationError(
            f"cell {cell.address}: {cell.model} has {size.positions} positions ({size.source}), and"
            f" these settings ask for more tokens: {asked}; set each{either} to {size.positions} or"
            " less"
        )


def tuning_lengths(cell: Cell) -> dict[str, int]:
    """Most tokens that a cell's fine-tuning, or the evaluation of its policy, works on."""
    ppo, dpo = cell.settings["ppo"], cell.settings["dpo"]
    if cell.feedback == "reward":
        lengths = {"ppo.prompt_tokens + ppo.new_tokens": ppo.prompt_tokens[1] + ppo.new_tokens[1]}
        distilled = {"distil.max_tokens": cell.settings["distil"].max_tokens}
        return lengths | (distilled if cell.method == "distil" else {})
    lengths = {"dpo.max_length": dpo.max_length}
    if cell.method == "given":
        written = dpo.max_prompt_length + ppo.new_tokens[1]
        lengths["dpo.max_prompt_length + ppo.new_tokens"] = written
    return lengths


def reading_lengths(cell: Cell) -> dict[str, int]:
    """Most tokens that the stages of a cell behind its fine-tuning work on."""
    stages: Mapping[str, Any] = cell.settings
    ablation = stages["ablation"]
    change = stages["change"]
    lengths = {
        "features.max_tokens": stages["features"].max_tokens,
        "change.context_tokens + change.new_tokens": change.context_tokens + change.new_tokens,
    }
    if cell.until == "change":
        return lengths
    lengths |= {
        f"{name}.max_tokens": stages[name].max_tokens for name in ("divergence", "activations")
    }
    if cell.until == "ablation":
        key = "prefix_tokens" if cell.feedback == "reward" else "prompt_tokens"
        lengths |= {
            "explanations.max_tokens": stages["explanations"].max_tokens,
            f"ablation.{key} + ablation.new_tokens": getattr(ablation, key) + ablation.new_tokens,
            "ablation.neutral_tokens": ablation.neutral_tokens,
            "export.context": stages["export"].context,
        }
    return lengths


def check_training(grid: Grid, cell: Cell) -> None:
    """Check that the sizes of batches and texts of a cell's fine-tuning fit each other."""
    ppo, model = cell.settings["ppo"], grid.models[cell.model]
    key = "gpus" if model["finetune_gpus"] is None else "finetune_gpus"
    if cell.method not in (*PARALLEL, "given") and model[key] > 1:
        raise ConfigurationError(
            f"models.{cell.model}.{key}: got {model[key]}, and {cell.method} (cell {cell.address})"
            f" runs on one GPU; set models.{cell.model}.finetune_gpus to 1, or the task's method to"
            " rloo or grpo"
        )
    if cell.method == "best_of_n":
        _check_divides(cell, "ppo.gradient_accumulation_steps", "ppo.batch_size")
    if cell.method == "ranked":
        _check_ranked_lengths(cell)
    if cell.method in ("rloo", "grpo"):
        _check_divides(cell, "group.num_generations", "ppo.batch_size")
        _check_divides(cell, "ppo.gradient_accumulation_steps", "ppo.batch_size")
    if cell.method == "ppo":
        _check_divides(cell, "ppo.mini_batch_size", "ppo.batch_size")
        parts, rows = ppo.gradient_accumulation_steps, ppo.mini_batch_size
        if parts > rows:
            raise ConfigurationError(
                f"cell {cell.address}: ppo.gradient_accumulation_steps is {parts}, and"
                f" ppo.mini_batch_size has {rows} prompts to part; set it to {rows} or less"
            )


def _check_ranked_lengths(cell: Cell) -> None:
    """Check that DPO reads prompts and completions of ranked pairs whole."""
    ppo, room = cell.settings["ppo"], cell.settings["dpo"].max_length
    wanted = ppo.prompt_tokens[1] + ppo.new_tokens[1]
    if room < wanted:
        raise ConfigurationError(
            f"cell {cell.address}: dpo.max_length is {room}, and ppo.prompt_tokens and"
            f" ppo.new_tokens give up to {wanted} tokens; set it to {wanted} or more"
        )


def _check_divides(cell: Cell, divisor: str, number: str) -> None:
    """Check that one setting of a cell divides another, both as ``stage.key``."""
    pairs = (name.split(".") for name in (divisor, number))
    small, large = (getattr(cell.settings[stage], key) for stage, key in pairs)
    if large % small:
        raise ConfigurationError(
            f"cell {cell.address}: {divisor} must divide {number}, got {small} and {large}; change"
            f" one of them, such as the latter to {large + small - large % small}"
        )


def check_texts(grid: Grid, cell: Cell) -> None:
    """Check that the metrics of autoencoders leave texts of a generated corpus to learn from."""
    name, reading = grid.tasks[cell.task]["corpus"], cell.settings["activations"]
    corpus = grid.corpora[name]
    if "organism" in corpus:
        answers = 1 if corpus["organism"] == "reviews" else 3
        texts = corpus["splits"][reading.split] * answers
        if reading.held_out_texts >= texts:
            raise ConfigurationError(
                f"cell {cell.address}: activations.held_out_texts is {reading.held_out_texts}, and"
                f" the split {reading.split!r} of {name!r} has at most {texts} texts, so that none"
                " is left to learn from; lower it, or raise the corpus's `splits`"
            )


def check_folds(grid: Grid, cell: Cell) -> None:
    """Check that there can be as many triples as probes have folds."""
    folds, triples = cell.settings["probes"].folds, grid.triples(cell.task)
    if folds > triples:
        raise ConfigurationError(
            f"cell {cell.address}: probes.folds is {folds}, and the task's contrasts are at most"
            f" {triples} triples; lower it, or raise the settings of `contrasts`"
        )


def _config(name: str, folder: Path) -> dict[str, Any]:
    """The `config.json` of the checkpoint `name` in `folder`."""
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigurationError(
            f"checkpoint of {name}: expected a directory in the Hugging Face layout, and {folder}"
            " has no config.json; save the whole model there (save_pretrained)"
        )
    try:
        return read_object(path)
    except (OSError, SourceError) as error:
        raise ConfigurationError(f"checkpoint of {name}: {error}") from error


def _folder(name: str, entry: Mapping[str, Any]) -> Path | None:
    """The directory of a checkpoint that is at hand; None without one, or for GGUF files."""
    if "hub" in entry:
        folder = Path("results", "models", name)
        try:
            settings = (read_record(folder) or {}).get("settings", {})
        except ArtefactError:  # readers of the folder say so; fetching it anew must go on
            return None
        fetched = all(settings.get(key) == entry[key] for key in ("hub", "revision"))
        return folder if fetched else None
    path = entry["path"]
    return Path(path) if isinstance(path, str) and Path(path).is_dir() else None


def _header(entry: Mapping[str, Any]) -> Path | None:
    """The file of an entry that has a GGUF model's metadata: its only part or its first one."""
    paths = entry.get("path", ())
    first = Path(paths if isinstance(paths, str) else next(iter(paths), ""))
    return first if first.is_file() else None


def _header_numbers(path: Path) -> dict[str, int]:
    """The numbers in a GGUF file's metadata, by our names; none where they cannot be read.

    Libraries read the whole vocabulary for them, which takes seconds; it comes last.
    """
    values: dict[str, Any] = {}
    with path.open("rb") as file:
        try:
            magic, version, _, count = struct.unpack("<4sIQQ", file.read(24))
            while magic == b"GGUF" and version in (2, 3) and len(values) < count:
                key = _header_value(file, _TEXT)
                if key.startswith("tokenizer."):
                    break
                (kind,) = struct.unpack("<I", file.read(4))
                values[key] = _header_value(file, kind)
        except (struct.error, ValueError, KeyError, RecursionError):
            pass  # the job that reads the whole file says what is wrong with it
    family = values.get("general.architecture")
    numbers = {ours: values.get(f"{family}.{theirs}") for ours, theirs in _HEADER_NAMES.items()}
    return {name: value for name, value in numbers.items() if isinstance(value, int)}


def _header_value(file: BinaryIO, kind: int) -> Any:
    """The next value of a GGUF file's metadata, of the type with the number `kind`."""
    if kind in (_TEXT, _LIST):
        inner = struct.unpack("<I", file.read(4))[0] if kind == _LIST else None
        (size,) = struct.unpack("<Q", file.read(8))
        if size > _LONGEST:
            raise ValueError(f"text or list of {size}")
        if inner is None:
            return file.read(size).decode()
        return [_header_value(file, inner) for _ in range(size)]
    code = f"<{_CODES[kind]}"
    return struct.unpack(code, file.read(struct.calcsize(code)))[0]


def _numbers(config: Mapping[str, Any]) -> dict[str, int]:
    """The numbers of a `config.json`, or of a configuration's `shape`, by our names."""
    numbers = {}
    for name, theirs in _NAMES.items():
        value = next((config[key] for key in (*theirs, name) if key in config), None)
        if isinstance(value, int) and value > 0:
            numbers[name] = value
    return numbers


def _check_tokenizer(organism: Mapping[str, Any], where: str) -> None:
    """Check that nothing is said of a tokenizer that is trained, where one is taken instead."""
    for field in dataclasses.fields(Organism):
        given = organism[field.name] != field.default
        if organism["tokenizer_path"] and field.name in ("tokenizer", "vocab_size") and given:
            raise ConfigurationError(
                f"{where}.{field.name}: no effect beside tokenizer_path, whose tokenizer has its"
                " own; leave it out"
            )


def _check_heads(organism: Mapping[str, Any], where: str) -> None:
    """Check that an organism's width is shared evenly by its heads, in pairs where they rotate."""
    width, heads = organism["d_model"], organism["n_heads"]
    if width % heads:
        raise ConfigurationError(
            f"{where}.n_heads: got {heads}, which does not divide d_model, {width}; set it to a"
            " divisor of the width"
        )
    if organism["architecture"] == "gemma" and width // heads % 2:
        raise ConfigurationError(
            f"{where}.n_heads: {heads} heads share d_model, {width}, in {width // heads} dimensions"
            " each, and gemma turns dimensions in pairs; choose numbers that give an even one"
        )
