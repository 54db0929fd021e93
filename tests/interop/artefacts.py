"""Write what other tools are to open, and the values that they must find: run in the workflow's own
environment.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file
from transformers import PreTrainedModel

from lfp.explaining import exports
from lfp.models.hooks import hook_place, site_activations, site_width
from lfp.models.loading import save_model
from lfp.organisms.reviews import film_facts, generate_reviews, sentiment_vocabulary
from lfp.organisms.tokenizers import train_tokenizer
from lfp.sae import store
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.sae.harvest import harvest
from lfp.sae.sources.files import Dictionary
from lfp.sae.sources.weights import read
from lfp.sae.training import loop
from lfp.settings import Autoencoder, Mutual
from lfp.sites import SITES
from lfp.steering.gradient import fitted_classifier, gradient_change
from tests.conftest import make_model


def variants(site: str) -> dict[str, Autoencoder]:
    """Settings of every architecture on a site, by the name of its folder."""
    # A small penalty, so that latents stay active: activations of a random model are small.
    shared = Autoencoder(batch_size=256, epochs=3, learning_rate=1e-2, l1=1e-7, k=4, site=site)
    return {
        "tied": replace(shared, tied=True), "untied": replace(shared, tied=False),
        "topk": replace(shared, architecture="topk", tied=False),
        "tied-topk": replace(shared, architecture="topk", tied=True),
        "all-topk": replace(shared, architecture="topk", k=100),  # more than there are latents
        "batchtopk": replace(shared, architecture="batchtopk", tied=False),
        "tied-batchtopk": replace(shared, architecture="batchtopk"),
        "matryoshka": replace(shared, architecture="matryoshka", tied=False, prefixes=3),
        "jumprelu": replace(shared, architecture="jumprelu", tied=False, l0=4.0),
        "tied-jumprelu": replace(shared, architecture="jumprelu", l0=4.0),
        "gated": replace(shared, architecture="gated", tied=False),
        "tied-gated": replace(shared, architecture="gated"),
        "mutual": replace(shared, architecture="topk", mutual=Mutual(weight=0.1)),
        "itda": replace(shared, architecture="itda", tau=0.05),
    }  # fmt: skip


def gemma_scope(folder: Path, width: int) -> SparseAutoencoder:
    """A dictionary in the layout of Gemma Scope, as an autoencoder of the workflow."""
    rng, latents = np.random.default_rng(1), 40
    folder.mkdir()
    np.savez(
        folder / "params.npz",
        W_enc=rng.normal(size=(width, latents)).astype(np.float32),
        W_dec=rng.normal(size=(latents, width)).astype(np.float32),
        b_enc=rng.normal(size=latents).astype(np.float32),
        b_dec=rng.normal(size=width).astype(np.float32),
        threshold=rng.random(latents).astype(np.float32),
    )
    return read(Dictionary(folder / "params.npz", None), "gemma_scope")


def cache(
    model: PreTrainedModel, sae: SparseAutoencoder, windows: np.ndarray, folder: Path, name: str
) -> np.ndarray:
    """Write an autoencoder's latents on `windows` for delphi; returns them [window, token, latent].

    The name of the model stands in the description of the cache.
    """
    about = {"model_name": name, "dataset_repo": "reviews", "dataset_column": "text"}
    exports.write_delphi_cache(
        folder,
        exports.hook_places(model, {1: sae}),
        exports.active_features(model, {1: sae}, windows, 8),
        windows,
        {1: sae.d_sae},
        about,
    )
    read = site_activations(model, windows.tolist(), [1], 0, 50, site=sae.site)
    [(_, mask, values)] = list(read)
    assert bool(mask.all())
    return sae.encode(values[1]).detach().numpy()


def explained(folder: Path, source: str) -> None:
    """Write explanations of an autoencoder, of which one latent is dead, for Neuronpedia."""
    table = pd.DataFrame({
        "layer": [1, 1], "feature": [0, 3], "status": ["ok", "dead"],
        "explanation": ['the word "fine"', ""],
        "related": [True, False], "cosine": [0.9, 0.8], "frequency": [0.1, 0.0],
        "uses_reward_lexicon": [False, False],
        "explainer": "heuristic-v1", "explainer_kind": "heuristic",
    })  # fmt: skip
    exports.write_neuronpedia(folder / "explanations.jsonl", [table], "small", source)


def dictionaries(
    x: np.ndarray, site: str, folder: Path
) -> dict[str, tuple[SparseAutoencoder, dict[str, Any]]]:
    """An autoencoder of every variant on activations `x` of a site, with its settings."""
    saes = {
        name: (loop.train(x, [24], settings, seed=0).autoencoders[0], asdict(settings))
        for name, settings in variants(site).items()
    }
    return saes | {"scope": (gemma_scope(folder / "gemma_scope", x.shape[1]), {})}


def k_steering() -> dict[str, np.ndarray]:
    """A classifier of two attributes of tokens, which a third thing goes with, and its gradients.

    Names begin with `k.`. Its first layer has our centre and scale in it, so that it reads
    activations as they are.
    """
    generator, width = torch.Generator().manual_seed(0), 24
    labels = torch.rand(4000, 2, generator=generator) < 0.5
    signs = labels * 2.0 - 1
    x = 0.3 * torch.randn(len(labels), width, generator=generator)
    x[:, :2] += signs
    x[:, 2] += 1.5 * (signs.sum(1) / 2 + torch.randn(len(labels), generator=generator))
    classifier = fitted_classifier(x, labels, 0)
    state = {f"net.{name}": value for name, value in classifier.layers.state_dict().items()}
    weight = state["net.0.weight"] / classifier.scale
    state |= {
        "net.0.weight": weight, "net.0.bias": state["net.0.bias"] - weight @ classifier.centre,
    }  # fmt: skip
    values = {
        "x": x, "labels": labels.float(), "both": gradient_change(classifier, [0, 1])(x),
        "apart": gradient_change(classifier, [0], [1])(x), **state,
    }  # fmt: skip
    return {f"k.{name}": value.numpy() for name, value in values.items()}


def main(folder: Path) -> None:
    """Train autoencoders of every architecture on every site of a small model, and export latents
    and explanations of each.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    texts = list(generate_reviews(80, rng, sentiment_vocabulary(8, rng), film_facts(rng))["text"])
    tokenizer = train_tokenizer(texts, 420)
    model = make_model("gpt_neox", tokenizer)
    save_model(model, tokenizer, folder / "model")
    length = model.config.max_position_embeddings
    sequences = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    windows = exports.packed_windows(tokenizer, texts, 16, 50)
    expected, index = {"windows": windows} | k_steering(), []
    for site in SITES:
        x = np.empty((sum(map(len, sequences)), site_width(model, site)), dtype=np.float32)
        harvest(model, sequences, {1: x}, tokenizer.pad_token_id, 16, seed=0, site=site)
        expected[f"{site}.x"] = x[:200]
        read = torch.from_numpy(x[:200])
        (folder / site).mkdir()
        for name, (sae, about) in dictionaries(x, site, folder / site).items():
            place, key = folder / site / name, f"{site}.{name}"
            sae.layer, sae.site = 1, site
            store.save(sae, place, {**hook_place(model, 1, site), **about})
            code = sae.encode(read).detach()
            expected[f"{key}.code"] = code.numpy()
            expected[f"{key}.output"] = sae.decode(code).detach().numpy()
            latents = place / "delphi" / "latents"
            expected[f"{key}.cached"] = cache(model, sae, windows, latents, str(folder / "model"))
            explained(place, f"vader-seed0-{name}")
            opened = sae.opened_as or sae.architecture
            index.append(
                {"site": site, "name": name, "opened": opened, **hook_place(model, 1, site)}
            )
    (folder / "index.json").write_text(json.dumps(index, indent=1))
    save_file(
        {k: np.ascontiguousarray(v) for k, v in expected.items()}, folder / "expected.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
