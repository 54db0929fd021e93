"""Policies that were fine-tuned elsewhere: pairs that are none are named, and what is measured of a
pair is exact where it can be known.
"""

import copy
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from lfp.files import artefacts
from lfp.finetune import given
from lfp.models.hooks import site_modules
from lfp.models.loading import load_model, load_tokenizer, save_model
from lfp.organisms.generate import generate_corpus
from lfp.organisms.tokenizers import train_tokenizer
from lfp.settings import DPO
from tests.conftest import make_model, run_job

SETTINGS = {
    "seed": 3, "feedback": "reward",
    "ppo": {"prompt_tokens": [2, 4], "new_tokens": [3, 6], "evaluation_prompts": 24},
    "dpo": {"max_length": 64, "max_prompt_length": 24, "evaluation_pairs": 12},
}  # fmt: skip


@pytest.fixture(scope="module")
def pairs() -> pd.DataFrame:
    """Held-out replies with labels."""
    options = {"noise": 0.0, "preferred": "positive"}
    return generate_corpus("replies", {"train": 8, "test": 40}, 0, options)[0]["test"]


@pytest.fixture
def moved(neox):
    """The model with the output of one MLP five times as large."""
    policy = copy.deepcopy(neox)
    with torch.no_grad():
        for weights in site_modules(policy, [1])[1].parameters():
            weights.mul_(5)
    return policy


def test_a_pair_may_differ_in_its_values_alone(neox, moved, tokenizer):
    given.check_pair(neox, moved, tokenizer, copy.deepcopy(tokenizer))
    before, after = (next(site_modules(m, [1])[1].parameters()) for m in (neox, moved))
    assert not torch.equal(before, after)


def test_another_vocabulary_is_named(neox, tokenizer, reviews):
    with pytest.raises(ValueError, match=r"token '.+': id \d+ in the base's tokenizer, (\d+|none)"):
        given.check_pair(neox, neox, tokenizer, train_tokenizer(reviews[:20], 420))
    longer = copy.deepcopy(tokenizer)
    longer.add_tokens(["<extra>"])
    n = len(tokenizer)
    with pytest.raises(ValueError, match=f"'<extra>': id none in the base's tokenizer, {n} in"):
        given.check_pair(neox, neox, tokenizer, longer)


def test_another_way_to_cut_text_is_named(neox, tokenizer):
    from tokenizers import normalizers

    lower = copy.deepcopy(tokenizer)
    lower.backend_tokenizer.normalizer = normalizers.Lowercase()
    with pytest.raises(ValueError, match="text \"The film wasn't good"):
        given.check_pair(neox, neox, tokenizer, lower)


def test_another_end_of_text_is_named(neox, tokenizer):
    other, padded = copy.deepcopy(tokenizer), copy.deepcopy(tokenizer)
    other.eos_token = tokenizer.convert_ids_to_tokens(7)
    message = f"eos_token: {tokenizer.eos_token!r} in the base's tokenizer, {other.eos_token!r} in"
    with pytest.raises(ValueError, match=re.escape(message)):
        given.check_pair(neox, neox, tokenizer, other)
    padded.pad_token = tokenizer.convert_ids_to_tokens(7)
    given.check_pair(neox, neox, tokenizer, padded)


def test_other_tensors_are_named(neox, tokenizer):
    with pytest.raises(ValueError, match="policy is of architecture gpt_neo, its base of gpt_neox"):
        given.check_pair(neox, make_model("gpt_neo", tokenizer), tokenizer, tokenizer)
    fewer = make_model("gpt_neox", tokenizer, n_layers=2)
    with pytest.raises(
        ValueError, match=r"tensor gpt_neox.layers.2.\S+: the base has shape \[.*none"
    ):
        given.check_pair(neox, fewer, tokenizer, tokenizer)
    with pytest.raises(
        ValueError, match=r"tensor gpt_neox.layers.2.\S+: the base has none, .*shape"
    ):
        given.check_pair(fewer, neox, tokenizer, tokenizer)
    padded, n = copy.deepcopy(neox), len(tokenizer)
    padded.resize_token_embeddings(n + 3, mean_resizing=False)
    message = (
        rf"embed_in.weight: the base has shape \[{n}, 16\], the given policy shape \[{n + 3}, 16\]"
    )
    with pytest.raises(ValueError, match=message):
        given.check_pair(neox, padded, tokenizer, tokenizer)


def test_weights_without_a_tensor_are_not_drawn_at_random(neox, tokenizer, tmp_path):
    save_model(neox, tokenizer, tmp_path)
    whole = load_model(tmp_path)
    for ours, theirs in zip(whole.parameters(), neox.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["gpt_neox.layers.1.mlp.dense_4h_to_h.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"weights lack gpt_neox.layers.1.mlp.dense_4h_to_h.bias"):
        load_model(tmp_path)


def test_a_policy_that_is_its_base_does_not_differ(neox, tokenizer, pairs):
    settings = DPO.of(SETTINGS["dpo"])
    same = copy.deepcopy(neox)
    scores = given.evaluate_preference(same, neox, tokenizer, pairs, settings, 6, 0)
    assert {name: values.tolist() for name, values in scores.items()} == {
        "margin": [0.0] * 12, "kl": [0.0] * 12,
    }  # fmt: skip
    nothing = given.evaluate_preference(same, neox, tokenizer, pairs.head(0), settings, 6, 0)
    assert given.means(nothing) == {"margin": None, "kl": None}


def test_a_policy_with_another_mlp_has_a_divergence(neox, moved, tokenizer, pairs):
    settings = DPO.of(SETTINGS["dpo"] | {"evaluation_pairs": 40})
    scores = given.evaluate_preference(moved, neox, tokenizer, pairs, settings, 12, 0)
    assert len(scores["kl"]) == len(scores["margin"])
    # Estimates from samples are unbiased: their mean may be below 0, by their noise.
    assert np.abs(scores["kl"]).min() > 0
    assert scores["kl"].mean() > -3 * scores["kl"].std() / len(scores["kl"]) ** 0.5
    assert np.abs(scores["margin"]).min() > 0


def given_policy(folder: Path, settings: dict) -> subprocess.CompletedProcess:
    """The rule's job on the files of `folder`."""
    inputs = {
        "base": "base", "given": "given", "lexicon": "lexicon.json", "test": "test.parquet",
        "classifier": [],
    }  # fmt: skip
    return run_job("given", settings, inputs, {"policy": "cell/policy"}, folder)


@pytest.mark.parametrize("feedback", ["reward", "preference"])
def test_the_cell_has_a_policy_folder(feedback, neox, moved, tokenizer, reviews, pairs, tmp_path):
    save_model(neox, tokenizer, tmp_path / "base")
    (tmp_path / "lexicon.json").write_text(
        json.dumps({"kind": "vader", "words": {}, "rewarded": {"the": 1.5, "and": -2.0}})
    )
    frame = pairs if feedback == "preference" else pd.DataFrame({"text": reviews})
    frame.to_parquet(tmp_path / "test.parquet")
    columns = {"reward": {"policy", "base", "kl"}, "preference": {"margin", "kl"}}[feedback]
    for model, differs in ((neox, False), (moved, True)):
        save_model(model, tokenizer, tmp_path / "given")
        result = given_policy(tmp_path, SETTINGS | {"feedback": feedback})
        assert result.returncode == 0, result.stderr
        folder = tmp_path / "cell" / "policy"
        scores = pd.read_parquet(folder / "evaluation.parquet")
        means = artefacts.read_json(folder / "evaluation.json")
        assert means.pop(artefacts.STAMP_KEY)["settings"] == SETTINGS | {"feedback": feedback}
        assert set(scores) == set(means) == columns
        assert means == pytest.approx({name: scores[name].mean() for name in columns})
        if feedback == "reward":
            assert len(scores) == 24
            assert differs or (scores["policy"] == scores["base"]).all()
            assert scores["base"].std() > 0
        assert (means["kl"] != 0) == differs
        assert (scores["kl"] == 0).all() != differs
        assert list(pd.read_parquet(folder / "training_curve.parquet")) == ["step"]
        copied = load_model(folder)
        for ours, theirs in zip(copied.parameters(), model.parameters(), strict=True):
            assert torch.equal(ours, theirs)
        assert load_tokenizer(folder).get_vocab() == tokenizer.get_vocab()
        assert (folder / "model.safetensors").stat().st_nlink == 1
    assert not list((tmp_path / "cell").glob("policy?*"))


def test_a_policy_of_another_base_ends_the_job(neox, tokenizer, reviews, tmp_path):
    save_model(neox, tokenizer, tmp_path / "base")
    save_model(make_model("gpt_neox", tokenizer, n_layers=2), tokenizer, tmp_path / "given")
    (tmp_path / "lexicon.json").write_text(json.dumps({"kind": "vader", "rewarded": {"the": 1.0}}))
    pd.DataFrame({"text": reviews}).to_parquet(tmp_path / "test.parquet")
    result = given_policy(tmp_path, SETTINGS)
    assert result.returncode == 1
    assert "error: ValueError: tensor gpt_neox.layers.2." in result.stderr
    assert not (tmp_path / "cell" / "policy").exists()
