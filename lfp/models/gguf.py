"""Language models from GGUF files, read and dequantised by transformers.

A GGUF file holds weights (mostly quantised), configuration and tokenizer of a model as llama.cpp
runs it. transformers reads some families of them. What it cannot read it leaves out without an
error: tensors that it has no place for, tensors of its own that the file does not have, and scaled
rotary embeddings. Each would give another model under the same name, so each is an error here.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.gguf import read_gguf_metadata
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.modeling_gguf_pytorch_utils import (
    GGUF_SUPPORTED_ARCHITECTURES,
    TensorProcessor,
    get_gguf_hf_weights_map,
)
from transformers.utils.import_utils import is_gguf_available

from lfp.files.hub import SourceError
from lfp.models.architectures import ARCHITECTURES
from lfp.models.loading import SAFE, save_model

log = logging.getLogger(__name__)

#: Architectures of GGUF files that transformers reads and whose modules are known here. Files of
#: Mistral's models are of the architecture ``llama``.
FAMILIES = tuple(
    name for name in GGUF_SUPPORTED_ARCHITECTURES if name in ARCHITECTURES and name != "mistral"
)
#: Names of rules that cut text into words as GPT-2's do, which is what transformers takes where it
#: does not know a name. ``smollm`` also cuts numbers into digits; its vocabulary has digits alone.
LIKE_GPT2 = ("default", "gpt-2", "smollm")
#: Advice where a file cannot be taken.
OTHER_WAY = "give the model's original checkpoint by `hub` or `path` (Hugging Face layout)"


def convert(file: Path, target: str | Path, named: str) -> None:
    """Write the model of the GGUF `file` to the directory `target` in the Hugging Face layout.

    Weights are float32 safetensors; configuration, fast tokenizer and generation settings come from
    the file's metadata. `file` lies alone in its folder; errors call it `named`. Raises SourceError
    where the file is damaged or transformers cannot read all of it.
    """
    model, tokenizer = read(file, named)
    save_model(model, tokenizer, target)


def read(file: Path, named: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The dequantised model and the tokenizer of a GGUF file, as :func:`convert` writes them.

    The model is in float32 and in evaluation mode.
    """
    if not is_gguf_available():
        raise SourceError(
            f"{named}: reading GGUF files needs the package `gguf`; install the version that"
            f" requirements.txt pins"
        )
    with _damage(named):
        metadata, tensors = read_gguf_metadata(str(file))
    options = {"gguf_file": file.name, **SAFE}
    _check_metadata(metadata, named)
    with _damage(named):
        model, loading = AutoModelForCausalLM.from_pretrained(
            file.parent,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
            output_loading_info=True,
            **options,
        )
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **options)
    if missing := sorted(loading["missing_keys"]):
        raise SourceError(
            f"{named} lacks {missing[0]} and {len(missing) - 1} more of the tensors of its"
            f" architecture: {OTHER_WAY}"
        )
    places = get_gguf_hf_weights_map(model, TensorProcessor())
    if unread := sorted(set(tensors) - set(places)):
        raise SourceError(
            f"{named}: transformers does not read its tensor {unread[0]} ({len(unread)} of"
            f" {len(tensors)} are left out), so the model would be another one: {OTHER_WAY}"
        )
    return model, tokenizer


@contextmanager
def _damage(named: str) -> Iterator[None]:
    """Turn the errors of readers of a damaged file into a SourceError."""
    try:
        yield
    except (
        ValueError, KeyError, IndexError, OSError, RuntimeError, OverflowError, struct.error,
    ) as error:  # fmt: skip
        raise SourceError(
            f"{named} cannot be read as a GGUF file ({error}); check that it is whole: all parts,"
            f" in their order, with the digest that its publisher names. If it is, {OTHER_WAY}"
        ) from error


def _check_metadata(metadata: Mapping[str, Any], named: str) -> None:
    """Refuse other families and scaled rotary embeddings.

    An unknown rule for cutting text into words is logged.
    """
    family = metadata["general.architecture"]
    if family not in FAMILIES:
        raise SourceError(
            f"{named} holds a model of architecture {family!r}; of a GGUF file one of"
            f" {', '.join(FAMILIES)} can be taken: {OTHER_WAY}"
        )
    scaling = metadata.get(f"{family}.rope.scaling.type")
    # A factor without a type scales linearly; the second name is that of older files.
    factors = [metadata.get(f"{family}.rope.{k}", 1) for k in ("scaling.factor", "scale_linear")]
    if scaling is None and (scaled := [factor for factor in factors if factor not in (0, 1)]):
        scaling = f"linear, by {scaled[0]}"
    if scaling not in (None, "none"):
        raise SourceError(
            f"{named} scales its rotary embeddings ({scaling}), which transformers does not read"
            f" from a GGUF file: {OTHER_WAY}"
        )
    rule = metadata.get("tokenizer.ggml.pre", "default")
    byte_level = metadata.get("tokenizer.ggml.model") == "gpt2"
    if byte_level and rule not in LIKE_GPT2 and rule not in GGUF_PRE_TOKENIZER_SPLITS:
        log.warning(
            "%s cuts text into words by the rule %r, which transformers does not know: the"
            " tokenizer cuts as GPT-2's does",
            named,
            rule,
        )
