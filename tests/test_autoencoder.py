"""Autoencoders: identities, the loss against the paper's equation, recovery of planted features, the disk format."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from workflow_scripts.lfp import autoencoder, matching, sae_metrics
from workflow_scripts.lfp.autoencoder import AutoencoderSettings, SparseAutoencoder


def identity_autoencoder(d: int) -> SparseAutoencoder:
    """Features +e_i and -e_i: reconstructs anything."""
    sae = SparseAutoencoder(d, 2 * d, tied=False)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(d), -torch.eye(d)]))
        sae.encoder.copy_(sae.decoder.T)
    return sae


def planted(n: int = 4000, d: int = 12, features: int = 8, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Sparse non-negative combinations of random unit directions: (activations, directions)."""
    rng = np.random.default_rng(seed)
    directions = np.linalg.qr(rng.normal(size=(d, d)))[0][:features]
    code = rng.random((n, features)) * (rng.random((n, features)) < 0.15)
    return (code @ directions).astype(np.float32), directions


def test_an_identity_autoencoder_reconstructs():
    x = np.random.default_rng(0).normal(size=(50, 6)).astype(np.float32)
    metrics = autoencoder.reconstruction_metrics(identity_autoencoder(6), x)
    assert metrics["fvu"] == pytest.approx(0, abs=1e-9)
    assert metrics["l0"] == 6
    assert metrics["dead_fraction"] == 0


def test_an_autoencoder_that_says_the_mean_explains_nothing():
    x = np.random.default_rng(0).normal(2, 1, size=(500, 6)).astype(np.float32)
    sae = SparseAutoencoder(6, 6)
    with torch.no_grad():
        sae.b_enc.fill_(-100)
        sae.b_dec.copy_(torch.from_numpy(x.mean(0)))
    metrics = autoencoder.reconstruction_metrics(sae, x)
    assert metrics["fvu"] == pytest.approx(1, abs=1e-5)
    assert (metrics["l0"], metrics["dead_fraction"]) == (0, 1)


@pytest.mark.parametrize("tied", [True, False])
def test_the_loss_is_the_mean_squared_error_plus_the_l1_norm(tied):
    torch.manual_seed(0)
    sae, x = SparseAutoencoder(5, 7, tied), torch.randn(11, 5)
    code = torch.relu(x @ sae.W_enc + sae.b_enc)
    expected = ((code @ sae.W_dec + sae.b_dec - x) ** 2).mean() + 0.3 * code.abs().sum(1).mean()
    torch.testing.assert_close(sae.loss(x, 0.3)[0], expected)
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(7))
    if tied:
        assert torch.equal(sae.W_enc, sae.W_dec.T)


@pytest.mark.parametrize("tied", [True, False])
def test_training_recovers_planted_directions(tied):
    x, directions = planted()
    settings = AutoencoderSettings(l1=0.003, learning_rate=5e-3, batch_size=500, epochs=60, tied=tied)
    sae = autoencoder.train(x, 12, settings, seed=0)
    cosine = np.abs(directions @ sae.W_dec.detach().numpy().T).max(1)
    assert cosine.mean() > 0.9
    untrained = SparseAutoencoder(12, 12)
    assert np.abs(directions @ untrained.W_dec.detach().numpy().T).max(1).mean() < 0.75
    assert autoencoder.reconstruction_metrics(sae, x)["fvu"] < 0.1


def test_training_is_deterministic_and_more_l1_is_sparser():
    x, _ = planted(1000)
    settings = AutoencoderSettings(l1=0.001, batch_size=200, epochs=5)
    a, b = (autoencoder.train(x, 12, settings, seed=1) for _ in range(2))
    assert torch.equal(a.decoder, b.decoder)
    sparse = autoencoder.train(x, 12, AutoencoderSettings(l1=0.05, batch_size=200, epochs=5), seed=1)
    assert autoencoder.reconstruction_metrics(sparse, x)["l0"] < autoencoder.reconstruction_metrics(a, x)["l0"]


@pytest.mark.parametrize("tied", [True, False])
def test_the_directory_is_what_saelens_loads(tied, tmp_path):
    torch.manual_seed(0)
    sae = SparseAutoencoder(4, 6, tied)
    with torch.no_grad():
        sae.b_dec.uniform_()
    autoencoder.save(sae, tmp_path, {"layer": 3})
    weights = load_file(tmp_path / "sae_weights.safetensors")
    assert {name: tuple(value.shape) for name, value in weights.items()} == {
        "W_enc": (4, 6), "W_dec": (6, 4), "b_enc": (6,), "b_dec": (4,)
    }  # fmt: skip
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert config["architecture"] == "standard"
    assert config["apply_b_dec_to_input"] is False
    assert config["metadata"]["layer"] == 3
    x = torch.randn(9, 4)
    again = autoencoder.load(tmp_path)
    torch.testing.assert_close(again.encode(x), sae.encode(x))
    torch.testing.assert_close(again.decode(again.encode(x)), sae.decode(sae.encode(x)))


def test_matching_finds_a_permutation_and_random_dictionaries_match_badly():
    rng = np.random.default_rng(0)
    small = rng.normal(size=(20, 16))
    large = np.concatenate([small[rng.permutation(20)] * 3, rng.normal(size=(20, 16))])
    matches = matching.match_features(small, large)
    assert matching.mean_max_cosine(matches) == pytest.approx(1)
    assert sorted(matches["small"]) == list(range(20))
    assert matches["large"].is_unique
    unrelated = matching.match_features(small, rng.normal(size=(40, 16)))
    assert matching.mean_max_cosine(unrelated) < 0.8
    assert unrelated["cosine"].is_monotonic_decreasing


def test_an_identity_autoencoder_recovers_all_of_the_loss(neox, tokenizer, reviews):
    sequences = tokenizer(reviews[:6])["input_ids"]
    clean = sae_metrics.cross_entropy(neox, sequences, tokenizer.pad_token_id, 3, {})
    metrics = sae_metrics.evaluate(
        neox, {"small": identity_autoencoder(16)}, 1, sequences, tokenizer.pad_token_id, 3, clean
    )
    assert metrics["small"]["ce_reconstructed"] == pytest.approx(clean, abs=1e-5)
    assert metrics["small"]["loss_recovered"] == pytest.approx(1, abs=1e-2)
