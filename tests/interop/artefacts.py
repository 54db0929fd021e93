"""Write what other tools are to open, and the values that they must find: run in the workflow's own
environment.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors.numpy import save_file

from lfp.explaining import exports
from lfp.models.hooks import hook_name, site_activations
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
from lfp.steering.gradient import fitted_classifier, gradient_change
from tests.conftest import make_model


def variants() -> dict[str, Autoencoder]:
    """Settings of every architecture by the name of its folder."""
    # A small penalty, so that latents stay active: activations of a random model are small.
    shared = Autoencoder(batch_size=256, epochs=3, learning_rate=1e-2, l1=1e-7, k=4)
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
    """Train autoencoders of every architecture on a small model's activations, and export latents
    and explanations.
    """
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    texts = list(generate_reviews(80, rng, sentiment_vocabulary(8, rng), film_facts(rng))["text"])
    tokenizer = train_tokenizer(texts, 420)
    model = make_model("gpt_neox", tokenizer)
    save_model(model, tokenizer, folder / "model")
    length = model.config.max_position_embeddings
    sequences = tokenizer(texts, truncation=True, max_length=length)["input_ids"]
    outputs = {1: np.empty((sum(map(len, sequences)), 16), dtype=np.float32)}
    harvest(model, sequences, outputs, tokenizer.pad_token_id, 16, seed=0)
    expected = {"x": outputs[1][:200]} | k_steering()
    saes = {
        name: (loop.train(outputs[1], [24], settings, seed=0).autoencoders[0], asdict(settings))
        for name, settings in variants().items()
    }
    saes["scope"] = gemma_scope(folder / "gemma_scope", 16), {}
    for name, (sae, about) in saes.items():
        sae.layer = 1
        store.save(sae, folder / name, {"hook_name": hook_name(model, 1), **about})
        x = torch.from_numpy(expected["x"])
        expected[f"{name}.code"] = sae.encode(x).detach().numpy()
        expected[f"{name}.output"] = sae.decode(sae.encode(x)).detach().numpy()
    sae = store.load(folder / "tied")
    windows = exports.packed_windows(tokenizer, texts, 16, 50)
    found = exports.active_features(model, {1: sae}, windows, 8)
    about = {
        "model_name": str(folder / "model"),
        "dataset_repo": "reviews",
        "dataset_column": "text",
    }
    exports.write_delphi_cache(
        folder / "delphi" / "latents",
        exports.hook_places(model, {1: sae}),
        found,
        windows,
        {1: sae.d_sae},
        about,
    )
    [(_, mask, values)] = list(
        site_activations(model, windows.tolist(), [1], tokenizer.pad_token_id, 50)
    )
    assert bool(mask.all())
    expected["windows"] = windows
    expected["codes"] = sae.encode(values[1]).detach().numpy()
    explained = pd.DataFrame({
        "layer": [1, 1], "feature": [0, 3], "status": ["ok", "dead"],
        "explanation": ['the word "fine"', ""],
        "related": [True, False], "cosine": [0.9, 0.8], "frequency": [0.1, 0.0],
        "uses_reward_lexicon": [False, False],
        "explainer": "heuristic-v1", "explainer_kind": "heuristic",
    })  # fmt: skip
    exports.write_neuronpedia(
        folder / "explanations.jsonl", [explained], "small", "vader-seed0-tied"
    )
    save_file(
        {k: np.ascontiguousarray(v) for k, v in expected.items()}, folder / "expected.safetensors"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
