"""Every architecture at every site: an autoencoder's latents are what `encode` says, everywhere."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from lfp.files import artefacts, provenance
from lfp.interventions.ablation import set_features
from lfp.interventions.actions import ACTIONS
from lfp.models.hooks import edited, site_activations, site_width
from lfp.sae import store
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.architectures.base import site_of
from lfp.sae.architectures.standard import Standard
from lfp.sae.training import collector, loop, trainer
from lfp.sae.training.gradients import Autograd, gradients_of
from lfp.settings import Autoencoder
from lfp.sites import SITES
from lfp.tables.models import autoencoders
from lfp.tables.rows import TableSettings

SETTINGS = Autoencoder(k=3, batch_size=100, epochs=3, learning_rate=5e-3, l1=0.01)


def random_autoencoder(architecture: str, d: int, size: int = 2):
    """An autoencoder whose latents are active on some tokens and not on others."""
    torch.manual_seed(1)
    settings = Autoencoder(architecture=architecture, k=3, tied=False)
    sae = ARCHITECTURES[architecture].of_settings(d, size * d, settings)
    with torch.no_grad():
        if sae.encoder is not None:
            sae.encoder.normal_()
        sae.b_enc.normal_(-0.5, 1.0)
        sae.b_dec.normal_()
        others = {*sae.weights()} - {"W_enc", "W_dec", "b_enc", "b_dec", "b_gate"}
        drawn = {name: torch.empty(sae.d_sae).uniform_(0.1, 0.5) for name in sorted(others)}
        sae.set_weights(sae.weights() | drawn)
        sae.calibrate(torch.randn(300, d))
    return sae.eval().requires_grad_(False)


@pytest.fixture(params=SITES)
def at_site(request, neox):
    """(site, activations [token, width] of a small model there)."""
    sequences = np.random.default_rng(0).integers(3, 300, (6, 8)).tolist()
    [(_, mask, values)] = site_activations(neox, sequences, [1], 1, 6, site=request.param)
    x = values[1][mask]
    return request.param, (x - x.mean(0)) / x.std(0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_setting_latents_is_what_encode_and_decode_say(architecture, at_site, neox):
    site, x = at_site
    assert x.shape[1] == site_width(neox, site)
    sae = random_autoencoder(architecture, x.shape[1])
    latents = sae.encode(x)
    everything = set_features(sae, range(sae.d_sae))(x)
    torch.testing.assert_close(everything, x - (sae.decode(latents) - sae.b_dec))
    # Latents that are active on some tokens only, so that others are left alone.
    some = ((latents > 0).float().mean(0) - 0.3).abs().argsort()[:2].sort().values
    torch.testing.assert_close(sae.encode(x, some), latents[:, some])
    restricted = torch.zeros_like(latents)
    restricted[:, some] = latents[:, some]
    changed = set_features(sae, some.tolist())(x)
    torch.testing.assert_close(changed, x - restricted @ sae.W_dec, atol=1e-5, rtol=1e-4)
    untouched = (latents[:, some] == 0).all(1)
    assert untouched.any() and not untouched.all()
    assert torch.equal(changed[untouched], x[untouched])
    assert not (changed[~untouched] == x[~untouched]).all(1).any()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_actions_set_the_latent_to_their_value(architecture, action):
    sae, x = random_autoencoder(architecture, 8), torch.randn(20, 8)
    means = np.linspace(0, 1, sae.d_sae, dtype=np.float32)
    latent = sae.encode(x)[:, [2]]
    wanted = {"zero": torch.zeros_like(latent), "mean": torch.full_like(latent, float(means[2])),
              "negative": -latent}  # fmt: skip
    if action in wanted:
        value = wanted[action]
    else:  # one that was added
        value = ACTIONS[action](latent, torch.from_numpy(means[[2]]))
    expected = x + (value - latent) * sae.W_dec[2]
    torch.testing.assert_close(set_features(sae, [2], action, means)(x), expected)


@pytest.mark.parametrize("site", SITES)
def test_an_edit_without_latents_changes_no_logit(site, neox):
    sae, ids = random_autoencoder("topk", site_width(neox, site)), torch.tensor([[5, 6, 7]])
    clean = neox(ids).logits
    with edited(neox, {0: set_features(sae, []), 1: set_features(sae, [])}, site):
        assert torch.equal(neox(ids).logits, clean)
    with edited(neox, {1: set_features(sae, range(sae.d_sae))}, site):
        assert not torch.equal(neox(ids).logits, clean)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_saved_and_loaded_it_is_of_its_class_and_site(architecture, tmp_path):
    sae, x = random_autoencoder(architecture, 8), torch.randn(30, 8)
    sae.site, sae.layer = "resid", 4
    store.save(sae, tmp_path, {"hook_name": "h"})
    again = store.load(tmp_path)
    assert type(again) is type(sae) and (again.site, again.layer) == ("resid", 4)
    assert {*again.weights()} == {*sae.weights()}
    torch.testing.assert_close(again.weights(), sae.weights())
    torch.testing.assert_close(again.encode(x), sae.encode(x))
    torch.testing.assert_close(again.decode(again.encode(x)), sae.decode(sae.encode(x)))
    fresh = again.untrained(3)
    assert not fresh.training and (fresh.encode(x) > 0).any()
    assert type(fresh) is type(sae) and fresh.site == "resid"
    assert all(getattr(fresh, name) == getattr(sae, name) for name in sae.options)
    assert not torch.allclose(fresh.W_dec, sae.W_dec)
    assert torch.equal(fresh.W_dec, again.untrained(3).W_dec)
    assert site_of({4: again, 5: fresh}) == "resid"
    with pytest.raises(ValueError, match="one site are expected, got those of mlp, resid"):
        site_of({0: random_autoencoder(architecture, 8), 4: again})


def test_topk_with_fewer_latents_than_k_keeps_all_and_says_how_many(tmp_path):
    """SAELens takes k largest of the latents, so its k must not exceed their number."""
    torch.manual_seed(1)
    x = torch.randn(30, 4)
    sae = ARCHITECTURES["topk"].of_settings(4, 6, Autoencoder(architecture="topk", k=32))
    torch.testing.assert_close(sae.encode(x), torch.relu(x @ sae.W_enc + sae.b_enc))
    store.save(sae, tmp_path, {})
    assert json.loads((tmp_path / "cfg.json").read_text())["k"] == 6
    torch.testing.assert_close(store.load(tmp_path).encode(x), sae.encode(x))


def test_the_table_has_an_autoencoders_options_its_site_and_the_model_that_it_reads(tmp_path):
    """`l1` trains no TopK autoencoder, and a standard one has no `k`."""
    measured = dict.fromkeys(("l0", "mse", "fvu", "dead_fraction", "mmcs", "loss_recovered"), 0.5)
    measured |= dict.fromkeys(("ce_clean", "ce_reconstructed", "ce_zero"), 2.0)
    measured |= {"layer": 1, "tokens": 9, "layer_needed": True, "left_out": 3}
    paths = []
    for settings in (
        Autoencoder(l1=0.001),
        Autoencoder(architecture="topk", site="resid", reads="base"),
        Autoencoder(architecture="matryoshka", k=2),
    ):
        name = settings.architecture
        sae = ARCHITECTURES[name].of_settings(4, 8, settings)
        sae.largest_norm = 7.5
        about = {"left_out_of_training": 2, "flat": True, "steps": 9}
        store.save(sae, tmp_path / name, asdict(settings) | about)
        row = store.described(store.load(tmp_path / name)) | measured
        paths.append(str(tmp_path / "m" / "t" / "seed0" / "sae" / name / "metrics.json"))
        artefacts.write_json(paths[-1], {"autoencoders": [row]}, {})
    settings = TableSettings(200, 0.95, (0.5, 0.9), 19, 0)
    frame = autoencoders(paths, settings).frame()
    left_out = frame[frame["quantity"] == "left_out"]
    assert left_out[["estimate", "n"]].to_numpy().tolist() == 3 * [[3, 12]]
    assert set(frame["left_out_of_training"]) == {2}
    assert set(frame["largest_norm"]) == {7.5}
    frame = frame.drop_duplicates("sae").set_index("sae")
    described = frame[["architecture", "site", "reads", "l1", "k", "prefixes"]].astype(object)
    assert described.where(described.notna(), None).T.to_dict("list") == {
        "standard": ["standard", "mlp", "policy", 0.001, None, None],
        "topk": ["topk", "resid", "base", None, 8, None],
        "matryoshka": ["matryoshka", "mlp", "policy", None, 2, 5],
    }


def test_an_unknown_architecture_is_refused(tmp_path):
    store.save(random_autoencoder("topk", 8), tmp_path, {})
    config = json.loads((tmp_path / "cfg.json").read_text())
    assert (config["architecture"], config["k"]) == ("topk", 3)
    (tmp_path / "cfg.json").write_text(json.dumps(config | {"architecture": "transcoder"}))
    with pytest.raises(provenance.ArtefactError, match="'transcoder' is not one of standard, topk"):
        store.load(tmp_path)


def test_a_class_with_its_parents_name_is_neither_saved_nor_trained_as_its_parent(tmp_path):
    class Thresholded(Standard):
        def encode(self, x, columns=None):
            return super().encode(x, columns).clamp(min=0.5)

    sae = Thresholded(4, 8)
    with pytest.raises(TypeError, match=r"Thresholded: its architecture is 'standard'"):
        store.save(sae, tmp_path / "sae", {})
    assert not (tmp_path / "sae").exists()
    assert isinstance(gradients_of(sae, SETTINGS, torch.tensor(0.0), 100, 1), Autograd)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_scale_folds_into_the_weights(architecture):
    sae, x = random_autoencoder(architecture, 8), torch.randn(30, 8)
    before, latents = 3 * sae.decode(sae.encode(x / 3)), sae.encode(x / 3)
    sae.fold(3.0)
    torch.testing.assert_close(sae.encode(x), 3 * latents)
    torch.testing.assert_close(sae.decode(sae.encode(x)), before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_mean_shifts_into_the_biases(architecture):
    sae, x = random_autoencoder(architecture, 8), torch.randn(30, 8)
    mean, tied = 3 * torch.randn(8), sae.untrained(0)
    for one in (sae, tied):
        latents, before = one.encode(x - mean), one.decode(one.encode(x - mean)) + mean
        one.shift(mean)
        torch.testing.assert_close(one.encode(x), latents, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(one.decode(one.encode(x)), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_outlier_has_no_latents_and_stays_as_it_is(architecture):
    sae, x = random_autoencoder(architecture, 8), torch.randn(30, 8)
    sae.largest_norm, x[3] = 20.0, 10.0
    latents, output = sae.latents(x), sae.reconstruct(x)
    assert (sae.encode(x)[3] > 0).any() and (latents[3] == 0).all()
    assert torch.equal(output[3], x[3]) and not torch.equal(output[4], x[4])
    ordinary = torch.arange(30) != 3
    assert torch.equal(latents[ordinary], sae.encode(x)[ordinary])


def test_topk_latents_of_a_token_are_at_most_k_and_the_largest():
    sae, x = random_autoencoder("topk", 8), torch.randn(200, 8)
    latents, pre = sae.encode(x), x @ sae.W_enc + sae.b_enc
    assert ((latents > 0).sum(1) <= 3).all() and (latents > 0).sum() > 200
    for row, values in zip(latents, pre, strict=True):
        assert set(row.nonzero()[:, 0].tolist()) <= set(values.topk(3).indices.tolist())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_explains_more_than_random_directions_and_resumes(
    architecture, tmp_path, monkeypatch
):
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(12, 12))
    active = rng.random((900, 12)) < 0.15
    x = (active * rng.random((900, 12)) @ directions).astype(np.float32)
    settings = Autoencoder(
        architecture=architecture, k=2, batch_size=100, epochs=8, learning_rate=5e-3, l1=0.003
    )

    def error(sae) -> float:
        values = torch.from_numpy(x)
        return (sae.decode(sae.encode(values)) - values).pow(2).mean().item()

    whole = loop.train(x, [12, 24], settings, seed=0).autoencoders
    assert [sae.d_sae for sae in whole] == [12, 24, 12]
    assert all(error(sae) < 0.7 * error(sae.untrained(1)) for sae in whole)
    state = tmp_path / "state"
    monkeypatch.setattr("lfp.files.resume.SAVE_SECONDS", 0.0)

    class KilledError(Exception):
        pass

    by_gradients = ARCHITECTURES[architecture].by_gradients
    kind = trainer.Trainer if by_gradients else collector.Collector
    batches, plain = 0, kind.step

    def killed(self, *args) -> None:
        nonlocal batches
        batches += 1
        if batches == (31 if by_gradients else 13):
            raise KilledError
        plain(self, *args)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(kind, "step", killed)
        loop.train(x, [12, 24], settings, seed=0, state_path=state)
    assert state.exists()
    resumed = loop.train(x, [12, 24], settings, seed=0, state_path=state).autoencoders
    for one, other in zip(whole, resumed, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


def test_a_layers_autoencoders_are_asked_for_by_place(tmp_path):
    for layer in (5, 3):
        for size in (1, 2, 8):
            sae = random_autoencoder("standard", 4, size)
            sae.layer = layer
            store.save(sae, store.size_folder(tmp_path / f"layer{layer}", size), {})
    folders = [tmp_path / "layer5", tmp_path / "layer3"]
    smallest, largest = store.load_layers(folders), store.load_layers(folders, place=-1)
    assert list(smallest) == [3, 5] and {sae.d_sae for sae in smallest.values()} == {4}
    assert {sae.d_sae for sae in largest.values()} == {32}
    assert store.sizes(folders[0]) == [1, 2, 8]
