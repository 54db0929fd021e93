"""Language models: growing small ones, loading any, and where their MLPs are.

Everything loads from a local directory in the Hugging Face layout, with safetensors and without remote code.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Set before transformers is imported: every job runs offline and sends nothing home.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GemmaConfig,
    GPTNeoConfig,
    GPTNeoXConfig,
    LogitsProcessor,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from workflow_scripts.lfp.artefacts import readable

# Loading a small checkpoint takes milliseconds; its bars would only drown those of long work.
transformers_logging.disable_progress_bar()

EOS, PAD = "<|endoftext|>", "<|padding|>"


@dataclass(frozen=True)
class Architecture:
    """Where a family keeps its blocks and its final norm, and the module inside a block whose output is the MLP's."""

    blocks: str
    final_norm: str
    mlp: str = "mlp"


_LLAMA = Architecture("model.layers", "model.norm")
#: Module paths by ``model_type``. OPT has no MLP module: its second projection ends the MLP (dropout is off).
ARCHITECTURES = {
    "gpt_neox": Architecture("gpt_neox.layers", "gpt_neox.final_layer_norm"),
    "gpt_neo": Architecture("transformer.h", "transformer.ln_f"),
    "gpt2": Architecture("transformer.h", "transformer.ln_f"),
    "opt": Architecture("model.decoder.layers", "model.decoder.final_layer_norm", "fc2"),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"), _LLAMA),
    # Gemma 3 from 4b upwards is a vision model around the same text model.
    "gemma3": Architecture("model.language_model.layers", "model.language_model.norm"),
}


def architecture(model: PreTrainedModel) -> Architecture:
    """The module paths of `model`'s family.

    Raises ValueError for a family that is not supported, or for an OPT without a final norm (its 350m).
    """
    family = model.config.model_type
    if family not in ARCHITECTURES:
        raise ValueError(f"model type {family!r} is not supported; expected one of {', '.join(ARCHITECTURES)}")
    if family == "opt" and not model.config.do_layer_norm_before:
        raise ValueError("OPT with layer norms after its blocks (opt-350m) is not supported; take another size")
    return ARCHITECTURES[family]


def blocks(model: PreTrainedModel) -> nn.ModuleList:
    """The transformer blocks of a causal language model, first to last."""
    return model.get_submodule(architecture(model).blocks)


def mlps(model: PreTrainedModel, layers: Iterable[int]) -> dict[int, nn.Module]:
    """MLP modules by layer; their output is the [batch, token, d_model] tensor after the down-projection."""
    stack = blocks(model)
    name = architecture(model).mlp
    return {layer: stack[layer].get_submodule(name) for layer in layers}


def hook_name(model: PreTrainedModel, layer: int) -> str:
    """Dotted path of the module whose output is a layer's MLP output."""
    family = architecture(model)
    return f"{family.blocks}.{layer}.{family.mlp}"


def width(model: PreTrainedModel) -> int:
    """d_model of a causal language model."""
    return model.config.get_text_config().hidden_size


def output_logits(model: PreTrainedModel, hidden: torch.Tensor) -> torch.Tensor:
    """Logits [..., vocab] of final hidden states [..., d_model], soft-capped where the family does so (Gemma 2)."""
    # Rows that do not lie behind each other would be multiplied sequence by sequence, with the weights copied for each.
    logits = model.get_output_embeddings()(hidden.contiguous())
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return logits if cap is None else torch.tanh(logits / cap) * cap


# --------------------------------------------------------------------------------------------------- tokenizers


def train_tokenizer(texts: Iterable[str], vocab_size: int, style: str = "byte_level") -> PreTrainedTokenizerFast:
    """Train a BPE tokenizer on `texts`: ``byte_level`` as of GPT-2 and GPT-NeoX, ``metaspace`` as of Gemma.

    Both reconstruct any text that they encode from the corpus's alphabet; byte-level BPE reconstructs any text.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    if style == "byte_level":
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    elif style == "metaspace":
        tokenizer = Tokenizer(models.BPE(byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split("\n", "isolated"),
                pre_tokenizers.Punctuation(),
                pre_tokenizers.Metaspace(prepend_scheme="never"),
            ]
        )
        tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
        alphabet = ["\n"]
    else:
        raise ValueError(f"tokenizer style: expected 'byte_level' or 'metaspace', got {style!r}")
    special = [EOS, PAD] + ([f"<0x{byte:02X}>" for byte in range(256)] if style == "metaspace" else [])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=EOS, bos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


# ------------------------------------------------------------------------------------------------------- models


def organism_config(family: str, vocab_size: int, eos: int, pad: int, n_layers: int, d_model: int, n_heads: int):
    """Configuration of a small model of `family` (``gpt_neox``, ``gpt_neo`` or ``gemma``)."""
    ids = {"bos_token_id": eos, "eos_token_id": eos, "pad_token_id": pad, "vocab_size": vocab_size}
    if family == "gpt_neox":
        return GPTNeoXConfig(
            hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=n_heads,
            intermediate_size=4 * d_model, max_position_embeddings=256, attention_dropout=0.0, hidden_dropout=0.0,
            tie_word_embeddings=False, **ids,
        )  # fmt: skip
    if family == "gpt_neo":
        kinds = ["global" if layer % 2 == 0 else "local" for layer in range(n_layers)]
        return GPTNeoConfig(
            hidden_size=d_model, num_layers=n_layers, num_heads=n_heads, intermediate_size=4 * d_model,
            attention_types=[[[kind], 1] for kind in kinds], window_size=64, max_position_embeddings=256,
            attention_dropout=0.0, embed_dropout=0.0, resid_dropout=0.0, **ids,
        )  # fmt: skip
    if family == "gemma":
        return GemmaConfig(
            hidden_size=d_model, num_hidden_layers=n_layers, num_attention_heads=n_heads, num_key_value_heads=1,
            head_dim=d_model // n_heads, intermediate_size=3 * d_model, max_position_embeddings=256, **ids,
        )  # fmt: skip
    raise ValueError(f"organism architecture: expected gpt_neox, gpt_neo or gemma, got {family!r}")


def load_model(path: str | Path, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """Load a causal language model from a directory, in evaluation mode.

    Raises FileNotFoundError if the directory has no safetensors weights (other formats can run code on loading), and
    ArtefactError if the checkpoint is damaged.
    """
    if not list(Path(path).glob("*.safetensors")):
        raise FileNotFoundError(f"{path}: no *.safetensors weights; convert the checkpoint (save_pretrained) first")
    # Eager attention: for sequences of a few dozen tokens it is as fast as any kernel, and the same everywhere.
    with readable(path) as checked:
        model = AutoModelForCausalLM.from_pretrained(
            checked, dtype=getattr(torch, dtype), attn_implementation="eager", use_safetensors=True,
            local_files_only=True,
        )  # fmt: skip
    return model.to(device).eval()


def untrained_model(path: str | Path, seed: int, device: str = "cpu", dtype: str = "float32") -> PreTrainedModel:
    """A model of the architecture at `path` with freshly drawn weights (the `untrained` subject)."""
    torch.manual_seed(seed)
    with readable(path) as checked:
        config = AutoConfig.from_pretrained(checked, local_files_only=True)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    return model.to(device, getattr(torch, dtype)).eval()


def load_tokenizer(path: str | Path) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer; a missing padding token becomes the end-of-text token (masked wherever it pads)."""
    with readable(Path(path) / "tokenizer.json"):
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    if not tokenizer.is_fast:
        raise ValueError(f"{path}: a fast tokenizer is needed (tokenizer.json), for character offsets")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str | Path) -> None:
    """Save weights (safetensors), configuration and tokenizer."""
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], **options: Any) -> Mapping[str, list[Any]]:
    """What `tokenizer` makes of `texts`; of no text, where it fails itself, empty lists."""
    texts = list(texts)
    if not texts:
        return {"input_ids": [], "offset_mapping": []}
    return tokenizer(texts, **options)


def pad_batch(sequences: Sequence[Sequence[int]], pad: int, device: str, left: bool = False) -> dict[str, torch.Tensor]:
    """``input_ids`` and ``attention_mask`` [batch, token] of sequences padded to the longest."""
    length = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), length), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        part = slice(length - len(sequence), None) if left else slice(len(sequence))
        ids[row, part] = torch.tensor(sequence, dtype=torch.long)
        mask[row, part] = 1
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def position_ids(attention_mask: torch.Tensor) -> torch.Tensor:
    """Positions that start at 0 on the first real token, so that left padding does not shift a sequence."""
    return (attention_mask.cumsum(-1) - 1).clamp(min=0)


class _CommonNoise(LogitsProcessor):
    """Turns the search for the likeliest token into sampling whose random numbers repeat every `rows` rows.

    The index of the largest p / q with independent exponential q is a draw from p; it is how torch draws as well.
    """

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        p = scores.float().softmax(-1)
        noise = torch.empty_like(p[: self.rows]).exponential_()
        return p.view(-1, *noise.shape).div_(noise).flatten(0, 1)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    batch: dict[str, torch.Tensor],
    new_tokens: int,
    seed: int,
    eos: int,
    pad: int,
    groups: int = 1,
) -> torch.Tensor:
    """Sample up to `new_tokens` tokens for a left-padded batch at temperature 1: ids [batch, <= new_tokens].

    Pure sampling (no top-k, no top-p). The same `seed` draws the same uniforms for every model and intervention, and
    for each of `groups` equal parts of the batch: common random numbers. After an end-of-text token a row holds
    padding.
    """
    torch.manual_seed(seed)
    output = model.generate(
        **batch, max_new_tokens=new_tokens, do_sample=False, eos_token_id=eos, pad_token_id=pad, use_cache=True,
        logits_processor=[_CommonNoise(len(batch["input_ids"]) // groups)],
    )  # fmt: skip
    return output[:, batch["input_ids"].shape[1] :]


def response_mask(response: torch.Tensor, lengths: torch.Tensor, eos: int) -> torch.Tensor:
    """Boolean mask [batch, token] of a response: up to its length and up to its first end-of-text token."""
    index = torch.arange(response.shape[1], device=response.device)
    is_eos = response == eos
    first_eos = torch.where(is_eos.any(1), is_eos.int().argmax(1), response.shape[1])
    return (index < lengths[:, None]) & (index <= first_eos[:, None])


def decode_responses(tokenizer: PreTrainedTokenizerBase, response: torch.Tensor, mask: torch.Tensor) -> list[str]:
    """Text of every response under its mask, special tokens left out."""
    rows = [row[keep].tolist() for row, keep in zip(response.cpu(), mask.cpu(), strict=True)]
    return tokenizer.batch_decode(rows, skip_special_tokens=True)
