"""Attention sinks and added tokens: left out of training and of every metric, and counted."""

import copy
import math

import numpy as np
import pandas as pd
import pytest
import torch
from tokenizers import processors

from lfp.explaining.activations_by_word import word_activations
from lfp.explaining.excerpts import feature_windows
from lfp.explaining.exports import active_features, packed_windows
from lfp.files.artefacts import open_tensor
from lfp.interventions.ablation import set_features
from lfp.interventions.actions import ACTIONS
from lfp.models.hooks import edited, site_activations
from lfp.models.tokens import tokenize
from lfp.sae import outliers, store
from lfp.sae.architectures.standard import Standard
from lfp.sae.harvest import harvest_folder
from lfp.sae.metrics import Reconstruction, evaluate
from lfp.sae.reading import left_out
from lfp.sae.training import loop
from lfp.settings import Autoencoder, Explanations

PAD = 1


def sink_at(place: int):
    """An edit of a site that makes the activation at a place of every text a sink."""

    def edit(x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[:, place] = (
            300
            * x[:, place].norm(dim=-1).mean()
            * torch.nn.functional.one_hot(torch.tensor(3), x.shape[-1])
        )
        return x

    return edit


def trained(data, rows, site):
    """An autoencoder of some rows of activations."""
    settings = Autoencoder(batch_size=64, epochs=60, learning_rate=3e-3, site=site)
    return loop.train(data, [16], settings, seed=0, rows=rows).autoencoders[0]


def measured(model, sequences, folder, outlier_norm, added=0, site="mlp"):
    """The metrics of an autoencoder on the activations that it learned from, and the record."""
    folder.mkdir(exist_ok=True)
    fronts, counts = left_out(sequences, added, prompts=False)
    harvest_folder(model, sequences, folder, [1], PAD, 8, 0, {}, site, fronts, outlier_norm, counts)
    data = open_tensor(folder / "layer1.safetensors", "activations")
    record = outliers.record_of(folder, 1)
    sae = trained(data, outliers.ordinary_rows(data, record), site)
    sae.largest_norm = record["largest_norm"] or math.inf
    [metrics] = evaluate(model, {1: [sae]}, sequences, PAD, 8, fronts)[1]
    return metrics, record


@pytest.mark.parametrize(("site", "place"), [("mlp", 0), ("resid", 0), ("mlp", 5)])
def test_a_sink_changes_no_metric(neox, tokenizer, reviews, tmp_path, site, place):
    """Whether it is the first token or one in the middle, of the MLP or of the residual stream."""
    sequences = [ids[:24] for ids in tokenizer(reviews[:40])["input_ids"]]
    plain, record = measured(neox, sequences, tmp_path / "plain", 6.0, site=site)
    assert (record["outliers"], plain["left_out"]) == (0, 0)
    with edited(neox, {1: sink_at(place)}, site):
        sink, record = measured(neox, sequences, tmp_path / "sink", 6.0, site=site)
        naive, _ = measured(neox, sequences, tmp_path / "naive", None, site=site)
    assert record["outliers"] == sink["left_out"] == len(sequences)
    assert sink["tokens"] == plain["tokens"] - len(sequences)
    # The right values are those of the same tokens in a model that has no sink.
    data, other = (
        open_tensor(tmp_path / name / "layer1.safetensors", "activations")
        for name in ("plain", "sink")
    )
    rows = outliers.ordinary_rows(other, record)
    assert np.array_equal(data[rows], other[rows])
    right = Reconstruction(trained(data, rows, site))
    right.add(torch.from_numpy(data[rows]))
    for name in ("l0", "mse", "fvu", "dead_fraction"):
        assert sink[name] == pytest.approx(right.metrics()[name], rel=0.01)
    assert naive["fvu"] < sink["fvu"] / 100  # the sinks are nearly all of the variance
    assert naive["left_out"] == 0


def test_tokens_that_the_tokenizer_adds_are_not_learned(neox, tokenizer, reviews, tmp_path):
    """They are left out whatever their norm is, and counted."""
    plain = [ids[:12] for ids in tokenizer(reviews[:9])["input_ids"]]
    led = [[tokenizer.eos_token_id, *ids] for ids in plain]
    metrics, record = measured(neox, led, tmp_path, 6.0, added=1)
    assert (record["added"], record["tokens"]) == (9, sum(map(len, plain)))
    assert (metrics["left_out"], metrics["tokens"]) == (9, sum(map(len, plain)))
    [(_, mask, outputs)] = site_activations(neox, led, [1], PAD, 9)
    harvested = open_tensor(tmp_path / "layer1.safetensors", "activations")
    expected = outputs[1][:, 1:][mask[:, 1:]].half().numpy()
    assert sorted(map(tuple, harvested)) == sorted(map(tuple, expected))


def test_tokens_that_the_tokenizer_adds_have_no_latents(neox, tokenizer, reviews):
    """Neither in explanations nor in exports: no autoencoder has learned from them."""
    led, name = copy.deepcopy(tokenizer), tokenizer.eos_token
    led.backend_tokenizer.post_processor = processors.TemplateProcessing(
        f"{name} $A", special_tokens=[(name, tokenizer.eos_token_id)]
    )
    torch.manual_seed(0)
    sae = Standard(16, 6)
    with torch.no_grad():
        sae.b_enc += 100  # every latent is active on every token
    texts, settings = reviews[:7], Explanations(max_tokens=30, batch_size=3, excerpt_tokens=8)
    read = word_activations(neox, led, {1: sae}, texts, settings)[1]
    tokens = sum(len(ids) for ids in tokenize(led, texts, 30).ids)
    np.testing.assert_allclose(read.frequency, 1 - len(texts) / tokens)
    for found in feature_windows(
        neox, led, {1: sae}, pd.DataFrame({"layer": [1], "feature": [2]}), texts, settings
    ):
        for values, (_, start, _) in zip(found.activations, found.places, strict=True):
            assert (values > 0).tolist() == [start + i > 0 for i in range(len(values))]
    windows = packed_windows(led, texts, 12, 7)
    [(_, places, _)] = active_features(neox, {1: sae}, windows, 7, 1)
    assert len(places) == 7 * 11 * 6
    assert places[:, 1].min() == 1


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_changes_an_outlier(action, tmp_path):
    """Neither a splice nor an ablation; and it has no latents, before and after a file."""
    torch.manual_seed(0)
    sae, x = Standard(6, 12).requires_grad_(False), torch.randn(2, 5, 6)
    x[0, 0] *= 1000
    sae.largest_norm = 50.0
    store.save(sae, tmp_path, {})
    again = store.load(tmp_path)
    assert again.largest_norm == 50.0
    edit = set_features(again, range(12), action, np.ones(12, np.float32))
    for changed in (again.reconstruct(x), edit(x)):
        assert torch.equal(changed[0, 0], x[0, 0])
        assert (changed[0, 1:] != x[0, 1:]).any(-1).all()
    assert (again.latents(x)[0, 0] == 0).all()
    torch.testing.assert_close(again.latents(x)[1], sae.encode(x)[1])
    # Of x / 2 with weights that take the division in, the limit is twice as large.
    again.fold(2.0)
    assert again.largest_norm == 100.0


def test_without_a_median_there_is_no_limit():
    """A layer of which most activations are 0 has no outliers; one that is no number stays."""
    rows = np.zeros((9, 4), np.float16)
    rows[:4] = 3
    assert outliers.described(rows, 6.0, {}) == {
        "largest_norm": None, "tokens": 9, "outliers": 0, "added": 0, "copies": 0,
    }  # fmt: skip
    assert outliers.described(rows[:0], 6.0, {})["largest_norm"] is None
    rows[4:], rows[0] = 1, 100
    assert outliers.described(rows, 6.0, {"added": 2}) == {
        "largest_norm": 12.0, "tokens": 9, "outliers": 1, "added": 2, "copies": 0,
    }  # fmt: skip
    sae = Standard(4, 4)
    sae.largest_norm = 1.0
    assert sae.within(torch.full((1, 4), math.nan)).all()
