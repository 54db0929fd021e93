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
from lfp.models.loading import save_model
from lfp.sae.architectures.standard import Standard
from lfp.sae.harvest import harvest_folder
from lfp.settings import Autoencoder
from tests.conftest import run_job


def test_windows_pack_all_texts_without_padding(tokenizer):
    windows = exports.packed_windows(tokenizer, ["a fine film"] * 20, 8, 5)
    assert windows.shape == (5, 8)
    assert windows[0, 0] == tokenizer.eos_token_id
    with pytest.raises(ValueError, match="a window needs 800: lower export.context"):
        exports.packed_windows(tokenizer, ["a fine film"], 800, 5)


def test_a_cache_rebuilds_the_code_of_every_token(neox, tokenizer, reviews, tmp_path):
    torch.manual_seed(0)
    latents = {0: 20, 2: 24}  # one from elsewhere may have more in one layer than in another
    autoencoders = {layer: Standard(16, size) for layer, size in latents.items()}
    windows = exports.packed_windows(tokenizer, reviews, 12, 7)
    active = exports.active_features(neox, autoencoders, windows, 3)
    places = {layer: {"hook_name": f"a.{layer}", "hook_side": "output"} for layer in autoencoders}
    exports.write_delphi_cache(tmp_path, places, active, windows, latents, {"model_name": "m"})
    [(_, _, values)] = list(site_activations(neox, windows.tolist(), [0, 2], 1, 7))
    for layer, sae in autoencoders.items():
        last = latents[layer] - 1
        tensors = load_file(tmp_path / f"a.{layer}" / f"0_{last}.safetensors")
        rebuilt = np.zeros((7, 12, latents[layer]), dtype=np.float32)
        rebuilt[tuple(tensors["locations"].astype(int).T)] = tensors["activations"]
        np.testing.assert_allclose(rebuilt, sae.encode(values[layer]).detach().numpy(), atol=2e-3)
        assert tensors["locations"].dtype == np.uint16
        np.testing.assert_array_equal(tensors["tokens"], windows)
    config = json.loads((tmp_path / "a.0" / "config.json").read_text())
    assert (config["cache_ctx_len"], config["n_tokens"], config["model_name"]) == (12, 84, "m")


def test_the_side_of_a_hook_is_told(neox, tokenizer, reviews, tmp_path):
    save_model(neox, tokenizer, tmp_path / "policy")
    (tmp_path / "activations").mkdir()
    sequences = tokenizer(reviews[:20])["input_ids"]
    pad = tokenizer.pad_token_id
    harvest_folder(
        neox, sequences, tmp_path / "activations", [1], pad, 8, 0, {"code": "1"}, "heads"
    )
    settings = Autoencoder(site="heads").as_json() | {"seed": 0, "layer": 1, "model": "m"}
    trained = run_job(
        "autoencoders", settings, {"activations": "activations", "base": [], "dictionary": []},
        {"layer": "sae/layer1"}, tmp_path,
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    about = json.loads((tmp_path / "sae" / "layer1" / "x1" / "cfg.json").read_text())["metadata"]
    assert about["hook_side"] == "input"
    pd.DataFrame({"text": reviews}).to_parquet(tmp_path / "test.parquet")
    inputs = {
        "policy": "policy", "corpus": "test.parquet", "autoencoders": ["sae/layer1"],
        "explanations": [],
    }  # fmt: skip
    settings = {"windows": 4, "model": "m", "source": "s", "dtype": "float32", "seed": 0}
    exported = run_job("export", settings, inputs, {"export": "export"}, tmp_path)
    assert exported.returncode == 0, exported.stderr
    cache = tmp_path / "export" / "delphi" / "latents" / about["hook_name"]
    assert json.loads((cache / "config.json").read_text())["hook_side"] == "input"


def test_large_activations_keep_their_size_and_a_missing_match_is_json(tmp_path):
    active = [(1, np.zeros((2, 3), dtype=np.int64), np.array([70000.0, 2.0]))]
    places = {1: {"hook_name": "h", "hook_side": "output"}}
    windows = np.zeros((1, 4), dtype=np.int64)
    exports.write_delphi_cache(tmp_path, places, active, windows, {1: 8}, {})
    written = load_file(tmp_path / "h" / "0_7.safetensors")["activations"]
    assert written.tolist() == [70000.0, 2.0]
    assert exports._as_halves(np.array([2.0])).dtype == np.float16
    table = pd.DataFrame({
        "layer": [1], "feature": 4, "status": "ok", "explanation": "x", "related": False,
        "cosine": np.nan, "frequency": 0.1, "uses_reward_lexicon": False, "explainer": "e",
        "explainer_kind": "heuristic",
    })  # fmt: skip
    [row] = exports.neuronpedia_rows(table, "m", "s")
    assert json.loads(row["notes"], parse_constant=pytest.fail)["cosine"] is None


def test_only_explained_features_are_exported():
    table = pd.DataFrame({
        "layer": 1, "feature": [4, 5], "status": ["ok", "skipped"],
        "explanation": ["<b>x</b>", ""], "related": True,
        "cosine": 0.5, "frequency": 0.1, "uses_reward_lexicon": False, "explainer": "e",
        "explainer_kind": "heuristic",
    })  # fmt: skip
    [row] = exports.neuronpedia_rows(table, "m", "s")
    assert (row["index"], row["modelId"], row["description"]) == ("4", "m", "<b>x</b>")
