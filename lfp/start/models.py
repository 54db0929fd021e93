"""What a checkpoint says of itself: its size, its positions and its tokenizer. No weight is read.

A checkpoint is a directory in the Hugging Face layout, a GGUF file, or the id of one on the hub.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import errors

from lfp.files.checkpoints import TOKENIZER_FILES, checkpoint_files, refuse_code
from lfp.files.hub import SourceError, gguf_parts, snapshot
from lfp.settings.fields import HUB_ID
from lfp.start import StartError
from lfp.start.names import plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

#: Errors of the hub's client where there is no network.
_OFFLINE = (
    errors.LocalEntryNotFoundError, errors.IncompleteSnapshotError, errors.OfflineModeIsEnabled,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Model:
    """A checkpoint by its `name` in the configuration.

    Parameters
    ----------
    name
        Its name in the configuration.
    source
        The keys that say where it is: ``path``, or ``hub`` and ``revision``.
    origin
        What its numbers come from, in words.
    n_layers, d_model, vocab_size, parameters
        Blocks, width, entries of the vocabulary and weights (tied ones once).
    tied
        Whether the output head is the input embedding.
    positions
        Most tokens of a text; None where the family has no limit.
    tokenizer
        Its fast tokenizer.
    """

    name: str
    source: Mapping[str, str]
    origin: str
    n_layers: int
    d_model: int
    vocab_size: int
    parameters: int
    tied: bool
    positions: int | None
    tokenizer: PreTrainedTokenizerBase

    def fitting(self, tokens: int) -> int:
        """So many `tokens`, or as many as the model has positions where these are fewer."""
        return tokens if self.positions is None else min(tokens, self.positions)


def described(asked: str) -> Model:
    """The checkpoint that was `asked` for by its path or by its id on the hub.

    Raises StartError or SourceError where there is none, or where the workflow cannot take it.
    """
    path = Path(asked)
    log.info("reading %s", asked)
    if asked and path.is_dir():
        checkpoint_files(path)
        refuse_code(path)
        return _read(path, asked, {"path": asked}, "config.json")
    if path.is_file() or asked.endswith(".gguf"):
        (file,) = gguf_parts(asked)
        with tempfile.TemporaryDirectory() as folder:
            # transformers looks for a configuration beside the file, where another's may lie.
            (Path(folder) / file.name).symlink_to(file.resolve())
            source = {"path": asked}
            return _read(Path(folder), file.stem, source, "the GGUF file's header", file.name)
    if not re.fullmatch(HUB_ID, asked):
        raise StartError(
            f"--model: there is no folder or file {asked!r}, and it is no id of the hub"
            " (OWNER/NAME); correct the path, as seen from the folder that you are in"
        )
    folder = _from_hub(asked)
    refuse_code(folder)
    return _read(folder, asked, {"hub": asked, "revision": folder.name}, "config.json on the hub")


def _from_hub(asked: str) -> Path:
    """Configuration and tokenizer of a repository of the hub, in a folder named as its commit."""
    try:
        return snapshot(asked, "main", TOKENIZER_FILES)
    except SourceError as error:
        reason = str(error)
        if isinstance(error.__cause__, _OFFLINE):
            reason = (
                f"{asked} is not in the hub's cache (HF_HOME), and the hub cannot be reached. Give"
                " the path of a folder with config.json and *.safetensors or of a GGUF file, or"
                f" run `hf download {asked} --include '*.json'` where there is a network"
            )
        raise StartError(f"--model: no folder or file {asked!r} is here, and {reason}") from error


def _read(
    folder: Path, named: str, source: Mapping[str, str], origin: str, gguf_file: str | None = None
) -> Model:
    """The model whose configuration and tokenizer lie in `folder`, or in a GGUF file there."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from lfp.models.architectures import architecture, of_family
    from lfp.models.limits import most_positions
    from lfp.models.loading import SAFE, load_tokenizer

    options: dict[str, Any] = SAFE | ({"gguf_file": gguf_file} if gguf_file else {})
    try:
        config = AutoConfig.from_pretrained(folder, **options)
        of_family(config.model_type)
        with torch.device("meta"):  # tensors that have shapes alone
            model = AutoModelForCausalLM.from_config(config)
        architecture(model)
        tokenizer = (
            AutoTokenizer.from_pretrained(folder, **options)
            if gguf_file
            else load_tokenizer(folder)
        )
    except Exception as error:  # a damaged file raises errors of any class
        reason = " ".join(str(error).split())[:400].replace(str(folder), named)
        raise StartError(
            f"--model: {named} cannot be taken ({reason}); give a causal language model of a"
            " family that docs/corpora.md lists, whole and in the Hugging Face layout or as a GGUF"
            " file"
        ) from error
    sizes = config.get_text_config()
    return Model(
        name=plain_name(Path(named).name, "model", source.get("path")),
        source=source,
        origin=origin,
        n_layers=sizes.num_hidden_layers,
        d_model=sizes.hidden_size,
        vocab_size=sizes.vocab_size,
        parameters=sum(weights.numel() for weights in model.parameters()),
        tied=bool(sizes.tie_word_embeddings),
        positions=most_positions(config),
        tokenizer=tokenizer,
    )
