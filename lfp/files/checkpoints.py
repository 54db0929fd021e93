"""Checkpoints in the Hugging Face layout that come from outside: what of them is taken, and how.

Files are copied, so that neither side changes the other. Tensors are taken under the names that
their architecture gives them: wrappers of training, such as ``torch.compile``, put their own names
in front, and transformers would draw every weight at random where it does not know the names. No
library of models is loaded unless a checkpoint needs one.
"""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from lfp.files.hub import SourceError

log = logging.getLogger(__name__)

#: Files of a tokenizer, and what decides how a tokenizer is read.
TOKENIZER_FILES = (
    "config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "*.jinja",
)  # fmt: skip
#: Files of a checkpoint that are fetched: weights, configuration, tokenizer; no code.
FILES = ("*.safetensors", "*.safetensors.index.json", "generation_config.json", *TOKENIZER_FILES)
WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
#: Ends of the names of classes with the head of a language model, and with that of a classifier.
LANGUAGE_MODEL = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
CLASSIFIER = ("ForSequenceClassification",)
#: Parts that wrappers put in front of a tensor's name, and such as they put anywhere in it.
PREFIXES = ("module", "pretrained_model")
INSERTED = (
    "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module",
)  # fmt: skip
#: Buffers of older releases that hold causal masks. In half precision -1e9 is minus infinity there.
MASKS = re.compile(r"\.(attn|attention|attn\.attention)\.(masked_)?bias$")
#: Buffers of older releases that are no parameters: masks, and the numbers of positions and kinds.
BUFFERS = re.compile(rf"{MASKS.pattern}|\b(position_ids|token_type_ids)$")
#: TRL's value head, which stands beside a language model and is no part of it.
VALUE_HEAD = "v_head."
#: Bits of the exponent, all of which are set in NaN and infinity, by safetensors' name of a type.
EXPONENTS = {
    "F64": ("<u8", 0x7FF0_0000_0000_0000), "F32": ("<u4", 0x7F80_0000), "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}  # fmt: skip
#: Values that are checked at once.
PIECE = 1 << 24
#: The beginning of a file that Git LFS has not fetched, and stands for the content.
POINTER = b"version https://git-lfs.github.com/"
#: The remedy where a checkpoint has adapters in place of weights.
MERGE = "load it with peft, merge_and_unload(), and give what save_pretrained() writes then"


def checkpoint_files(
    source: str | Path, classifier: bool = False, policy: bool = False
) -> list[Path]:
    """The files that are taken of a language model's or a `classifier`'s checkpoint, sorted.

    The checkpoint is the directory `source`. A `policy` need have no tokenizer: its base's is read.

    Raises SourceError where the weights are not whole, not safetensors or quantised, configuration
    or fast tokenizer are missing, or the model is of another kind.
    """
    source = Path(source)
    if not source.is_dir():
        raise SourceError(
            f"{source} is not a directory{_home(source)}; `path` of a model names one in the"
            " Hugging Face layout"
        )
    weights = _weights(source)
    for name, what in (("config.json", "configuration"), ("tokenizer.json", "fast tokenizer")):
        if not (source / name).exists() and not (policy and name == "tokenizer.json"):
            raise SourceError(
                f"{source} has no {name} ({what}); save model and tokenizer there with"
                f" save_pretrained()"
            )
    config = read_object(source / "config.json")
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised
        raise SourceError(
            f"{source / 'config.json'}: the weights are quantised (quantization_config: {method}),"
            " and such models are neither trained nor read here; give the checkpoint that they were"
            " made from"
        )
    classes = config.get("architectures") or []
    classes = classes if isinstance(classes, list) else [classes]
    heads = CLASSIFIER if classifier else LANGUAGE_MODEL
    if classes and not any(str(name).endswith(heads) for name in classes):
        raise SourceError(
            f"{source / 'config.json'}: the checkpoint is a {classes[0]}, not a"
            f" {'sequence classifier' if classifier else 'causal language model'}"
            f" (...{' or ...'.join(heads)}), whose head would be random; give another checkpoint"
        )
    others = ("generation_config.json", *TOKENIZER_FILES)
    return sorted({*weights, *(path for name in others for path in source.glob(name))})


def _home(path: Path) -> str:
    """A remark on a `path` that begins as a shell's does."""
    return "; `~` is not expanded, write the folder out" if str(path).startswith("~") else ""


def tokenizer_files(source: str | Path) -> list[Path]:
    """The files of the fast tokenizer in the directory `source`; SourceError where it has none."""
    source = Path(source)
    if not (source / "tokenizer.json").is_file():
        raise SourceError(
            f"{source} has no tokenizer.json (fast tokenizer){_home(source)}; save one there"
            " (save_pretrained)"
        )
    return sorted({path for name in TOKENIZER_FILES for path in source.glob(name)})


def _weights(source: Path) -> list[Path]:
    """The files of weights that transformers reads, with the index where there are several."""
    adapters = [*source.glob("adapter_model.*"), *source.glob("adapter_config.json")]
    if adapters:
        raise SourceError(f"{adapters[0]}: adapters are no weights of a model: {MERGE}")
    if (source / WEIGHTS).is_file():
        return [source / WEIGHTS]
    index = source / INDEX
    if index.is_file():
        places = read_object(index).get("weight_map")
        shards = sorted(set(map(str, places.values()))) if isinstance(places, dict) else []
        missing = [
            name for name in shards if Path(name).name != name or not (source / name).is_file()
        ]
        if missing or not shards:
            raise SourceError(
                f"{index}: {source} lacks {', '.join(missing[:1]) or 'every shard'}"
                f" ({len(missing)} of {len(shards)} shards); copy or fetch the whole checkpoint"
            )
        return [index, *(source / name for name in shards)]
    others = sorted(path.name for path in source.glob("*.safetensors"))
    if others:
        raise SourceError(
            f"{source} has {others[0]}, and neither {WEIGHTS} nor {INDEX}, which transformers"
            " reads: write the checkpoint by save_pretrained()"
        )
    raise SourceError(
        f"{source} has no *.safetensors weights: other formats can run code. Pin a revision that"
        " has them, or load the checkpoint where you trust it, save_pretrained() it, and give that"
        " directory by `path`"
    )


def read_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a checkpoint."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise SourceError(f"{path} is not JSON ({error}): {_damage(path)}") from error
    if not isinstance(value, dict):
        raise SourceError(f"{path}: expected a JSON object; copy or fetch it again")
    return value


def _damage(path: Path) -> str:
    """What has become of a file that cannot be read, and what to do."""
    with path.open("rb") as file:
        if file.read(len(POINTER)) == POINTER:
            return "it is a pointer of Git LFS, which has not fetched it; run `git lfs pull` there"
    return "it is damaged or cut short; copy or fetch it again"


def take_checkpoint(
    source: str | Path, target: str | Path, classifier: bool = False, policy: bool = False
) -> None:
    """Copy the checkpoint in the directory `source`, without code, into the directory `target`.

    Parts of tensors' names that wrappers of training added are taken off, TRL's value head is left
    out, and the log tells of both.

    Raises SourceError where :func:`checkpoint_files` does, and where the checkpoint needs code of
    its own, is damaged, has adapters that are not merged, or fails in :func:`check_values`.
    """
    source, target = Path(source), Path(target)
    files = checkpoint_files(source, classifier, policy)
    refuse_code(source)
    places = _places(source, files)
    names = {name: plain_name(name) for name in places}
    _check_names(source, names)
    for path in files:
        if path.suffix == ".safetensors":
            take_weights(path, target / path.name, names)
        elif path.name == INDEX:
            kept = {names[name]: file for name, file in places.items() if _kept(names[name])}
            (target / INDEX).write_text(
                json.dumps(read_object(path) | {"weight_map": kept}, indent=1)
            )
        else:
            if path.suffix == ".json":
                read_object(path)
            shutil.copyfile(path, target / path.name)
    check_values(target, source)


def _places(source: Path, files: Sequence[Path]) -> dict[str, str]:
    """The name of the file of each tensor, of those among `files`.

    Raises SourceError where two shards hold one tensor, or the index names another shard than that
    which holds it: readers differ in which of them they take.
    """
    remedy = "which values are the model's nobody can tell; save it anew (save_pretrained)"
    places: dict[str, str] = {}
    for path in files:
        if path.suffix != ".safetensors":
            continue
        with _intact(path), safe_open(path, framework="numpy") as handle:
            for name in handle.keys():  # noqa: SIM118
                if name in places:
                    raise SourceError(
                        f"{source}: the tensor {name} stands in two shards, {places[name]} and"
                        f" {path.name}; {remedy}"
                    )
                places[name] = path.name
    if source / INDEX in files:
        for name, file in read_object(source / INDEX)["weight_map"].items():
            if places.get(name, file) != file:
                raise SourceError(
                    f"{source / INDEX}: the tensor {name} is to stand in {file}, and stands in"
                    f" {places[name]}; {remedy}"
                )
    return places


def plain_name(name: str) -> str:
    """The name of a tensor without the parts that wrappers of training added."""
    parts = [part for part in name.split(".") if part not in INSERTED]
    while parts[0] in PREFIXES and len(parts) > 1:
        parts = parts[1:]
    return ".".join(parts)


def _kept(name: str | None) -> bool:
    return name is not None and not name.startswith(VALUE_HEAD)


def _check_names(source: Path, names: Mapping[str, str]) -> None:
    """Log what is taken off the `names` of tensors; SourceError where that cannot be done."""
    if adapters := [name for name in names if ".lora_A." in name]:
        raise SourceError(
            f"{source}: {adapters[0]} is of an adapter that is not merged into the weights: {MERGE}"
        )
    changed = [name for name, new in names.items() if name != new]
    if twice := [new for new, count in Counter(names.values()).items() if count > 1]:
        raise SourceError(
            f"{source} has two tensors for {twice[0]}:"
            f" {' and '.join(name for name, new in names.items() if new == twice[0])}; save the"
            " model without its wrapper (save_pretrained of the unwrapped model)"
        )
    if changed:
        parts = sorted(
            {part for name in changed for part in name.split(".")} & {*PREFIXES, *INSERTED}
        )
        log.warning(
            "%s: %s taken off the names of %d of %d tensors, which a wrapper of training added",
            source,
            ", ".join(f"`{part}.`" for part in parts),
            len(changed),
            len(names),
        )
    if heads := [name for name, new in names.items() if not _kept(new)]:
        log.warning("%s: TRL's value head is left out: %s", source, ", ".join(sorted(heads)))


def take_weights(source: Path, target: Path, names: Mapping[str, str]) -> None:
    """Copy a file of weights, with the tensors under their new `names` and bit for bit."""
    with _intact(source), safe_open(source, framework="numpy") as handle:
        tensors = {name: names[name] for name in handle.keys()}  # noqa: SIM118
    kept = {name: new for name, new in tensors.items() if _kept(new)}
    if all(name == new for name, new in kept.items()) and len(kept) == len(tensors):
        shutil.copyfile(source, target)
        return
    from safetensors.torch import save_file  # NumPy has no bfloat16

    with _intact(source), safe_open(source, framework="pt") as handle:
        values = {new: handle.get_tensor(name) for name, new in kept.items()}
        save_file(values, target, handle.metadata())


def check_values(folder: str | Path, named: str | Path) -> None:
    """Raise SourceError where a tensor holds a value that is not finite, or is quantised.

    Parameters of another type than the usual floating-point ones are: integers, or eight bits.

    The error calls the checkpoint in `folder` by the name of its source.
    """
    import numpy as np  # planning a run needs none of it

    for path in sorted(Path(folder).glob("*.safetensors")):
        with path.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(start - 8))
        for name, entry in header.items():
            if name == "__metadata__" or BUFFERS.search(name):
                continue
            if entry["dtype"] not in EXPONENTS:
                raise SourceError(
                    f"{named}: the tensor {name} holds values of the type {entry['dtype']}, as a"
                    " quantised model does, and they would be read as its weights; give the"
                    " checkpoint that it was made from"
                )
            if 0 in entry["shape"]:
                continue
            kind, mask = EXPONENTS[entry["dtype"]]
            values = np.memmap(
                path, kind, "r", start + entry["data_offsets"][0], (int(np.prod(entry["shape"])),)
            )
            bad = sum(
                int(((values[i : i + PIECE] & mask) == mask).sum())
                for i in range(0, len(values), PIECE)
            )
            if bad:
                raise SourceError(
                    f"{named}: {bad} of {len(values)} values of the tensor {name} are NaN or"
                    " infinite; give a checkpoint from before its training went astray"
                )


def refuse_code(source: str | Path) -> None:
    """Raise SourceError where transformers could read a checkpoint only by running its code.

    The log tells of code that it does without.
    """
    for file, reader in (("config.json", "AutoConfig"), ("tokenizer_config.json", "AutoTokenizer")):
        path = Path(source) / file
        code = read_object(path).get("auto_map") if path.is_file() else None
        if not code:
            continue
        import transformers  # it alone knows what it can read by itself

        try:
            getattr(transformers, reader).from_pretrained(
                source, trust_remote_code=False, local_files_only=True
            )
        except (ValueError, OSError, KeyError) as error:
            raise SourceError(
                f"{path}: `auto_map` asks for code of the checkpoint ({json.dumps(code)}), and no"
                " code that comes with one is run; give a model whose architecture transformers has"
            ) from error
        log.warning("%s: the code of `auto_map` is not run; transformers reads it by its own", path)


@contextmanager
def _intact(path: Path) -> Iterator[None]:
    """Turn the errors of the reader of a damaged file into a SourceError."""
    try:
        yield
    except SafetensorError as error:
        raise SourceError(
            f"{path} is no whole safetensors file ({error}): {_damage(path)}"
        ) from error
