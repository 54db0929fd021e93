"""Checkpoints in the Hugging Face layout, with safetensors and without remote code."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lfp.files.artefacts import readable
from lfp.files.checkpoints import MASKS, TOKENIZER_FILES, refuse_code
from lfp.files.hub import SourceError
from lfp.files.provenance import ArtefactError
from lfp.files.vocabularies import check_end, check_tokens
from lfp.models import limits
from lfp.models.architectures import architecture

# Loading a small checkpoint takes milliseconds; its bars would only drown those of long work.
transformers_logging.disable_progress_bar()

#: Options of every reader of transformers: nothing comes from the network, no code that comes with
#: a checkpoint runs, and nobody is asked whether it may.
SAFE = {"local_files_only": True, "trust_remote_code": False}
#: What checkpoints hold beside the weights of their class, and what changes none of its outputs:
#: causal masks of older releases, and the pooler of an encoder whose classifier has none.
_UNUSED = re.compile(rf"{MASKS.pattern}|\bpooler\.dense\.")


def load_model(path: str | Path, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """Load a causal language model from a directory, in evaluation mode.

    It samples from its own distribution: what a checkpoint's generation_config.json asks for (a
    repetition penalty, further end-of-text tokens and the like) does not count. Texts that are too
    long for it are refused.

    Raises FileNotFoundError and ArtefactError as :func:`load_whole` does, and ValueError for a
    family of architectures that the workflow does not know.
    """
    # Eager attention: for sequences of a few dozen tokens it is as fast as any kernel, and the same
    # everywhere.
    model = load_whole(
        AutoModelForCausalLM, path, dtype=getattr(torch, dtype), attn_implementation="eager"
    )
    architecture(model)
    model.generation_config = GenerationConfig()
    return limits.guarded(model.to(device).eval())


def load_whole(auto: type, path: str | Path, **options: Any) -> PreTrainedModel:
    """The model at `path` by the class `auto` of transformers, with all of its weights.

    transformers draws at random, after no more than a warning, weights that the files lack or hold
    in another shape, and leaves out those that the architecture has no place for. Either way it
    would be another model under the same name. Weights that are tied to others, and those that a
    class declares to be no weights, are not among them.

    Raises FileNotFoundError if the directory has no safetensors weights (other formats can run code
    on loading), and ArtefactError if the checkpoint is damaged or has not all the weights of its
    architecture and no others; the message names the first.
    """
    if not list(Path(path).glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path}: no *.safetensors weights; convert the checkpoint (save_pretrained) first"
        )
    with readable(path) as checked:
        try:
            model, report = auto.from_pretrained(
                checked,
                use_safetensors=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # the report has them, with both shapes
                **SAFE,
                **options,
            )
        except RuntimeError as error:
            raise ArtefactError(f"{path}: the weights cannot be loaded ({error})") from error
    faults = [
        *(f"lack {name}" for name in sorted(report["missing_keys"])),
        *(
            f"hold {name} in the shape {list(files)}, which is {list(built)} by config.json"
            for name, files, built in sorted(report["mismatched_keys"])
        ),
        *(
            f"hold {name}, which the architecture does not have"
            for name in sorted(report["unexpected_keys"])
            if not _UNUSED.search(name)
        ),
    ]
    if faults:
        raise ArtefactError(
            f"{path}: the weights {faults[0]} ({len(faults)} tensors in all do not fit"
            f" {type(model).__name__}); save the complete model at its source (save_pretrained)"
        )
    return model


def check_weights(path: str | Path, named: str | Path, classifier: bool = False) -> None:
    """Check that a checkpoint is one that :func:`load_whole` loads; its weights are not read.

    Raises SourceError otherwise, which calls the checkpoint at `path` by the name of its source.
    """
    auto = AutoModelForSequenceClassification if classifier else AutoModelForCausalLM
    try:
        AutoConfig.from_pretrained(path, **SAFE)
    except (
        StrictDataclassError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        text = " ".join(" ".join(str(error).splitlines()[:2]).split())
        raise SourceError(f"{named}: transformers cannot read its config.json ({text})") from error
    try:
        # On the device "meta" tensors have names and shapes alone.
        eager = {} if classifier else {"attn_implementation": "eager"}  # as in load_model
        model = load_whole(auto, path, device_map="meta", **eager)
        if not classifier:
            architecture(model)
    except (ValueError, ImportError) as error:
        raise SourceError(f"{named}: {str(error).removeprefix(f'{path}: ')}") from error


def untrained_model(
    path: str | Path, seed: int, device: str = "cpu", dtype: str = "float32"
) -> PreTrainedModel:
    """A model of the architecture at `path` with freshly drawn weights.

    It is the `untrained` subject.
    """
    torch.manual_seed(seed)
    with readable(path) as checked:
        config = AutoConfig.from_pretrained(checked, **SAFE)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return limits.guarded(model.to(device, getattr(torch, dtype)).eval())


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer, which reads spelled control tokens as text.

    A missing padding token becomes the end-of-text token, which is masked wherever it pads. Raises
    ValueError where the model beside it has no row for one of its tokens, or where it is a language
    model's and has no end-of-text token.
    """
    refuse_code(path)
    with readable(path, TOKENIZER_FILES):
        tokenizer = AutoTokenizer.from_pretrained(path, **SAFE)
    if not tokenizer.is_fast:
        raise ValueError(
            f"{path}: a fast tokenizer is needed (tokenizer.json), for character offsets"
        )
    check_tokens(path)
    check_end(path, tokenizer.eos_token)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.split_special_tokens = True  # it is not among what the tokenizer saves
    return tokenizer


def pure_sampling(tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
    """Samples from a model's own distribution that end at one token, the end of `tokenizer`."""
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def save_model(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path
) -> None:
    """Save weights (safetensors), configuration and tokenizer, and the end of samples."""
    model.generation_config = pure_sampling(tokenizer)
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
