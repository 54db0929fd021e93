"""Checkpoints in the Hugging Face layout, with safetensors and without remote code."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from lfp.files.artefacts import readable
from lfp.files.vocabularies import check_end, check_tokens
from lfp.models import limits

# Loading a small checkpoint takes milliseconds; its bars would only drown those of long work.
transformers_logging.disable_progress_bar()


def load_model(path: str | Path, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """Load a causal language model from a directory, in evaluation mode.

    It samples from its own distribution: what a checkpoint's generation_config.json asks for (a
    repetition penalty, further end-of-text tokens and the like) does not count. Texts that are too
    long for it are refused.

    Raises FileNotFoundError if the directory has no safetensors weights (other formats can run code
    on loading), and ArtefactError if the checkpoint is damaged.
    """
    if not list(Path(path).glob("*.safetensors")):
        raise FileNotFoundError(
            f"{path}: no *.safetensors weights; convert the checkpoint (save_pretrained) first"
        )
    # Eager attention: for sequences of a few dozen tokens it is as fast as any kernel, and the same
    # everywhere.
    with readable(path) as checked:
        model = AutoModelForCausalLM.from_pretrained(
            checked,
            dtype=getattr(torch, dtype),
            attn_implementation="eager",
            use_safetensors=True,
            local_files_only=True,
        )
    model.generation_config = GenerationConfig()
    return limits.guarded(model.to(device).eval())


def load_whole_model(path: str | Path, device: str = "cpu") -> PreTrainedModel:
    """Load a model as :func:`load_model` does, in float32, once its files are known to be complete.

    Raises ValueError where the weights lack a tensor, which transformers would draw at random
    after no more than a warning.
    """
    # On the device "meta" tensors have names and shapes alone, so that this takes no memory.
    with readable(path) as checked:
        _, loading = AutoModelForCausalLM.from_pretrained(
            checked,
            device_map="meta",
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    if missing := sorted(loading["missing_keys"]):
        raise ValueError(
            f"{path}: the weights lack {missing[0]} ({len(missing)} tensors in all); save the"
            " complete model there (save_pretrained)"
        )
    return load_model(path, device)


def untrained_model(
    path: str | Path, seed: int, device: str = "cpu", dtype: str = "float32"
) -> PreTrainedModel:
    """A model of the architecture at `path` with freshly drawn weights.

    It is the `untrained` subject.
    """
    torch.manual_seed(seed)
    with readable(path) as checked:
        config = AutoConfig.from_pretrained(checked, local_files_only=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return limits.guarded(model.to(device, getattr(torch, dtype)).eval())


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer, which reads spelled control tokens as text.

    A missing padding token becomes the end-of-text token, which is masked wherever it pads. Raises
    ValueError where the model beside it has no row for one of its tokens, or where it is a language
    model's and has no end-of-text token.
    """
    with readable(Path(path) / "tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
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
