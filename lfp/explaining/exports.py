"""Features and explanations in the formats of delphi's cache and of Neuronpedia.

The autoencoders need no export: their directories have the layout of SAELens
(:func:`lfp.sae.store.save`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.models.hooks import captured, hook_place
from lfp.models.tokens import added_tokens, pieces
from lfp.reporting.progress import Progress
from lfp.sae.architectures.base import SparseAutoencoder, site_of


def packed_windows(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], context: int, most: int
) -> np.ndarray:
    """Windows [window, `context`] of all `texts` as one stream.

    There are at most `most` of them. Each text is led by an end-of-text token, and each window
    begins with what the tokenizer adds in front of a text.

    Raises ValueError where the texts do not fill one window.
    """
    front = np.array(added_tokens(tokenizer)[0], dtype=np.int64)
    size, held = context - len(front), []
    for ids, _ in pieces(tokenizer, texts):
        held += [tokenizer.eos_token_id, *ids]
        if len(held) >= most * size:  # no more texts are encoded than the windows need
            break
    stream = np.array(held, dtype=np.int64)
    n = min(most, len(stream) // size)
    if n == 0:
        raise ValueError(
            f"the held-out texts have {len(stream)} tokens, and a window needs {size}: lower"
            " export.context, or give the corpus more held-out texts"
        )
    windows = stream[: n * size].reshape(n, size).astype(np.int64)
    return np.hstack([np.tile(front, (n, 1)), windows])


@torch.no_grad()
def active_features(
    model: PreTrainedModel,
    autoencoders: Mapping[int, SparseAutoencoder],
    windows: np.ndarray,
    batch_size: int,
    added: int = 0,
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Locations and values of all active features, by layer and batch.

    Parameters
    ----------
    model, autoencoders
        The language model whose activations are read, and autoencoders by layer.
    windows, batch_size
        Token ids [window, token], and windows in a batch.
    added
        Number of tokens that the tokenizer adds in front of a window; they have no features.

    Yields
    ------
    tuple
        The layer, locations [n, 3] (window, position, feature) and activations [n] above 0.
    """
    with captured(model, sorted(autoencoders), site=site_of(autoencoders)) as outputs:
        for start in Progress(range(0, len(windows), batch_size), desc="export"):
            ids = torch.from_numpy(windows[start : start + batch_size]).to(model.device)
            model.base_model(input_ids=ids, use_cache=False)
            for layer, sae in autoencoders.items():
                read = outputs[layer].reshape(*ids.shape, -1)
                code = sae.text_latents(read, torch.ones_like(ids, dtype=torch.bool), added)
                code = code.reshape(*ids.shape, -1)
                places = code.nonzero()
                values = code[tuple(places.T)].cpu().numpy()
                yield layer, places.cpu().numpy() + np.array([start, 0, 0]), values


def write_delphi_cache(
    folder: Path,
    places: Mapping[int, Mapping[str, str]],
    active: Iterator[tuple[int, np.ndarray, np.ndarray]],
    windows: np.ndarray,
    latents: Mapping[int, int],
    about: Mapping[str, Any],
) -> None:
    """Write active features as delphi reads them.

    Files are ``{hook}/{first}_{last}.safetensors`` and ``{hook}/config.json``.

    One file for each layer holds ``locations`` (uint16, or uint32 where a number needs it),
    ``activations`` (float16, or float32 where that does not hold them) and ``tokens``.

    Parameters
    ----------
    folder
        Folder to write into.
    places
        ``hook_name`` of each layer, which names its folder, and ``hook_side``.
    active
        Layer, locations [n, 3] (window, position, feature) and activations [n], in any number of
        parts (:func:`active_features`).
    windows
        Token ids [window, context].
    latents
        Number of features by layer.
    about
        Further keys of the configuration (``model_name``, ``dataset_repo`` and the like).
    """
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {layer: [] for layer in places}
    for layer, locations, values in active:
        parts[layer].append((locations, values))
    for layer, place in places.items():
        target = folder / place["hook_name"]
        target.mkdir(parents=True)
        locations = np.concatenate([rows for rows, _ in parts[layer]])
        small = len(windows) < 2**16 and latents[layer] < 2**16
        tensors = {
            "locations": np.ascontiguousarray(locations, dtype=np.uint16 if small else np.uint32),
            "activations": _as_halves(np.concatenate([values for _, values in parts[layer]])),
            "tokens": windows,
        }
        save_file(tensors, target / f"0_{latents[layer] - 1}.safetensors")
        config = {
            "cache_ctx_len": windows.shape[1],
            "n_tokens": windows.size,
            "n_splits": 1,
            "hook_side": place["hook_side"],
            **about,
        }
        (target / "config.json").write_text(
            json.dumps(config, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )


def _as_halves(values: np.ndarray) -> np.ndarray:
    """`values` in float16, or in float32 where one is larger than float16 holds."""
    largest = float(np.abs(values).max(initial=0.0))
    return values.astype(np.float32 if largest > float(np.finfo(np.float16).max) else np.float16)


def neuronpedia_rows(
    explanations: pd.DataFrame, model: str, source: str
) -> Iterator[dict[str, Any]]:
    """Rows of Neuronpedia's explanation files, one per explained feature.

    `source` is the name of the autoencoders.

    ``typeName`` names the explainer's kind, ``explanationModelName`` the explainer, ``notes`` hold
    the statistics that the row rests on as JSON.
    """
    for row in explanations[explanations["status"] == "ok"].to_dict("records"):
        notes = {
            name: None if pd.isna(row[name]) else row[name]
            for name in ("related", "cosine", "frequency", "uses_reward_lexicon")
        }
        if row.get("prompt_sha"):
            notes["prompt_sha"] = row["prompt_sha"]
        yield {
            "id": f"{model}-{row['layer']}-{source}-{row['feature']}-{row['explainer']}",
            "modelId": model, "layer": f"{row['layer']}-{source}", "index": str(row["feature"]),
            "description": row["explanation"], "authorId": None, "typeName": row["explainer_kind"],
            "explanationModelName": row["explainer"],
            "notes": json.dumps(notes, sort_keys=True, allow_nan=False),
        }  # fmt: skip


def write_neuronpedia(path: Path, tables: Sequence[pd.DataFrame], model: str, source: str) -> None:
    """Write the explanations of all `tables` as JSON lines."""
    lines = [
        json.dumps(row, sort_keys=True)
        for table in tables
        for row in neuronpedia_rows(table, model, source)
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def hook_places(
    model: PreTrainedModel, autoencoders: Mapping[int, SparseAutoencoder]
) -> dict[int, dict[str, str]]:
    """The module, and its side, that each layer's latents read, by layer."""
    return {layer: hook_place(model, layer, sae.site) for layer, sae in autoencoders.items()}
