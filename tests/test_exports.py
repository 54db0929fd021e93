"""Exports hold what the model computes; `make test-interop` opens them with the tools
they are for.
"""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from lfp.explaining import exports
from lfp.models.hooks import site_activations
from lfp.sae.architectures.standard import Standard


def test_windows_pack_all_texts_without_padding(tokenizer):
    windows = exports.packed_windows(tokenizer, ["a fine film"] * 20, 8, 5)
    assert windows.shape == (5, 8)
    assert windows[0, 0] == tokenizer.eos_token_id
    with pytest.raises(ValueError, match="a window of the export needs 800"):
        exports.packed_windows(tokenizer, ["a fine film"], 800, 5)


def test_a_cache_rebuilds_the_code_of_every_token(neox, tokenizer, reviews, tmp_path):
    torch.manual_seed(0)
    autoencoders = {layer: Standard(16, 20) for layer in (0, 2)}
    windows = exports.packed_windows(tokenizer, reviews, 12, 7)
    found = exports.active_features(neox, autoencoders, windows, 3)
    exports.write_delphi_cache(
        tmp_path, {0: "a.0", 2: "a.2"}, found, windows, 20, {"model_name": "m"}
    )
    [(_, _, values)] = list(site_activations(neox, windows.tolist(), [0, 2], 1, 7))
    for layer, sae in autoencoders.items():
        tensors = load_file(tmp_path / f"a.{layer}" / "0_19.safetensors")
        rebuilt = np.zeros((7, 12, 20), dtype=np.float32)
        rebuilt[tuple(tensors["locations"].astype(int).T)] = tensors["activations"]
        np.testing.assert_allclose(rebuilt, sae.encode(values[layer]).detach().numpy(), atol=2e-3)
        assert tensors["locations"].dtype == np.uint16
        np.testing.assert_array_equal(tensors["tokens"], windows)
    config = json.loads((tmp_path / "a.0" / "config.json").read_text())
    assert (config["cache_ctx_len"], config["n_tokens"], config["model_name"]) == (12, 84, "m")


def test_only_explained_features_are_exported():
    table = pd.DataFrame({
        "layer": 1, "feature": [4, 5], "status": ["ok", "skipped"],
        "explanation": ["<b>x</b>", ""], "related": True,
        "cosine": 0.5, "frequency": 0.1, "uses_reward_lexicon": False, "explainer": "e",
        "explainer_kind": "heuristic",
    })  # fmt: skip
    [row] = exports.neuronpedia_rows(table, "m", "s")
    assert (row["index"], row["modelId"], row["description"]) == ("4", "m", "<b>x</b>")
