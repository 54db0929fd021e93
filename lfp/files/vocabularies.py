"""The tokens of a checkpoint against the rows of its embedding, by its files alone.

A token without a row ends in ``index out of range in self`` in the middle of a job, or stops the
GPU. Whoever copies a checkpoint reads the files as they are; no library of models is loaded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: Tokens that stages put into texts, by the names of their settings.
ROLES = ("bos_token", "eos_token", "pad_token", "unk_token")
#: Classes of tokenizers without tokens of their own: they have those that the files name.
_GENERIC = ("PreTrainedTokenizerFast", "TokenizersBackend")


def check_tokens(folder: str | Path, named: str | None = None) -> None:
    """Check that the model in `folder` has a row of its embedding for every token of its texts.

    Errors call it `named`, where that is given.

    Special tokens that no text is given are not counted: Gemma 3 has one for images that its models
    of text alone have no row for. Nothing is said of what the files leave to the defaults of their
    classes, nor where there is no configuration.

    Raises ValueError with the first token that has no row, or where it is sure that there is no
    end-of-text token.
    """
    folder, named = Path(folder), named or str(folder)
    config, names = _json(folder / "config.json"), _special_names(folder)
    if not names.get("eos_token") and names.get("tokenizer_class") in _GENERIC:
        check_end(folder, None, named)
    rows = config.get("text_config", config).get("vocab_size")
    if not isinstance(rows, int):  # the reader of config.json names what is no number
        return
    content = _json(folder / "tokenizer.json")
    ids, last = _ids(content)
    for role in ROLES:
        if name := names.get(role):
            # A token that the vocabulary lacks is added behind its last one.
            number = ids.get(name, max(ids.values(), default=-1) + 1)
            _check_row(named, f"{role} {name!r}", number, rows)
    _check_row(named, "pad_token_id of config.json", config.get("pad_token_id"), rows)
    _check_row(named, "last token of tokenizer.json", last, rows)


def check_end(folder: str | Path, eos: str | None, named: str | None = None) -> None:
    """Raise ValueError where a language model's tokenizer has no end-of-text token `eos`.

    Sequence classifiers need none. The error calls the model `named`, where that is given.
    """
    names = _json(Path(folder) / "config.json").get("architectures") or []
    if eos is None and not any(name.endswith("ForSequenceClassification") for name in names):
        raise ValueError(
            f"{named or folder}: the tokenizer has no end-of-text token, at which completions end;"
            " name one of its tokens as eos_token in tokenizer_config.json"
        )


def _check_row(named: str, token: str, number: int | None, rows: int) -> None:
    if number is not None and number >= rows:
        raise ValueError(
            f"{named}: the {token} has the id {number}, and the embedding has rows for the ids 0"
            f" to {rows - 1} (vocab_size of config.json). Give the embedding more rows"
            " (resize_token_embeddings), or name a token of the vocabulary in its place, and save"
            " model and tokenizer there (save_pretrained)"
        )


def _ids(tokenizer: Mapping[str, Any]) -> tuple[dict[str, int], int | None]:
    """Ids of all tokens of a tokenizer.json by their text, and the largest that a text can have."""
    model, added = tokenizer.get("model", {}).get("vocab", {}), tokenizer.get("added_tokens", [])
    if isinstance(model, list):  # of pieces with their scores
        model = {piece[0]: n for n, piece in enumerate(model)}
    special = {token["content"] for token in added if token.get("special")}
    ids = model | {token["content"]: token["id"] for token in added}
    return ids, max((n for name, n in ids.items() if name not in special), default=None)


def _special_names(folder: Path) -> dict[str, Any]:
    """The settings of a tokenizer, with the text of each special token in place of its record."""
    settings = _json(folder / "special_tokens_map.json") | _json(folder / "tokenizer_config.json")
    return {
        name: value.get("content") if name in ROLES and isinstance(value, dict) else value
        for name, value in settings.items()
    }


def _json(path: Path) -> dict[str, Any]:
    """The object in a file, an empty one where there is no such file."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise ValueError(f"{path}: expected a JSON object ({error}); save it again") from error
