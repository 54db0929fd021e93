"""The mathematics of each architecture of autoencoders, what another program computes from its
files, and the benchmark on known features in small.
"""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from benchmarks import dictionaries
from lfp.sae import store
from lfp.sae.architectures import ARCHITECTURES, batchtopk, gated, jumprelu
from lfp.sae.training import loop, trainer
from lfp.settings import Autoencoder
from tests.test_autoencoder import PretendGraph, PretendRecording, planted
from tests.test_dictionaries import random_autoencoder

SETTINGS = Autoencoder(k=3, l0=3.0, learning_rate=1e-2)
PENALTY = torch.tensor(0.3, dtype=torch.float64)


def in_training(architecture: str, d: int = 6):
    """A random autoencoder of float64 that is trained on (its thresholds still move)."""
    sae = random_autoencoder(architecture, d).double().train()
    return sae.requires_grad_(True)


def activations(tokens: int, d: int = 6) -> torch.Tensor:
    return torch.randn(tokens, d, dtype=torch.float64, generator=torch.Generator().manual_seed(5))


#: Parameters by which a loss is differentiated as it stands; others have estimated gradients, or
#: are held fixed in a part of it.
PLAIN = {
    "jumprelu": ("encoder", "decoder", "b_enc", "b_dec"),
    "gated": ("encoder", "b_enc", "b_mag", "r_mag"),
}


#: Architectures that gradients train.
TRAINED = [name for name in ARCHITECTURES if ARCHITECTURES[name].by_gradients]


@pytest.mark.parametrize("architecture", TRAINED)
def test_gradients_are_those_of_finite_differences(architecture):
    """Along a random direction of every parameter."""
    sae, x, rng = in_training(architecture), activations(40), np.random.default_rng(0)
    parameters = dict(sae.named_parameters())
    for name in PLAIN.get(architecture, parameters):
        value = parameters[name]
        [gradient] = torch.autograd.grad(sae.loss(x, SETTINGS, PENALTY)[0], value)
        direction, start, losses = torch.from_numpy(rng.normal(size=value.shape)), value.clone(), []
        for step in (1e-7, -1e-7):
            with torch.no_grad():
                value.copy_(start + step * direction)
                losses.append(sae.loss(x, SETTINGS, PENALTY)[0])
                value.copy_(start)
        slope = (losses[0] - losses[1]) / 2e-7
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-6)


def test_a_batch_keeps_its_largest_latents_and_a_threshold_stands_for_it():
    sae = random_autoencoder("batchtopk", 6)
    x = torch.randn(5000, 6)  # several parts of a calibration
    every = F.relu(x @ sae.W_enc + sae.b_enc)
    in_batch = sae.train().encode(x)
    assert (in_batch > 0).sum() == 3 * 5000
    assert in_batch[in_batch > 0].min() >= every[in_batch == 0].max()
    assert len((in_batch > 0).sum(1).unique()) > 3  # tokens have as many as they need
    sae.calibrate(x)
    assert torch.equal(sae.eval().encode(x), in_batch)
    # One token alone has the latents that it has among others.
    torch.testing.assert_close(sae.encode(x[:1]), in_batch[:1])
    assert torch.equal(sae.encode(x[:9], torch.tensor([4, 1])), sae.encode(x[:9])[:, [4, 1]])


def test_of_as_many_latents_as_there_are_none_is_left_out():
    sae = ARCHITECTURES["batchtopk"].of_settings(4, 6, Autoencoder(k=32))
    x = torch.randn(50, 4)
    expected = F.relu(x @ sae.W_enc + sae.b_enc)
    assert torch.equal(sae.encode(x), expected)
    sae.calibrate(x)
    assert sae.k == 6 and torch.equal(sae.eval().encode(x), expected)
    sae.calibrate(x[:0])  # nothing was harvested
    assert torch.isfinite(sae.threshold).all()


def test_an_untrained_autoencoder_has_the_thresholds_of_the_trained_one():
    sae = batchtopk.BatchTopK(6, 10, k=2)
    sae.level.uniform_(0.5, 1.0)
    torch.testing.assert_close(sae.untrained(0).threshold, sae.threshold)


def test_idle_latents_alone_learn_from_the_auxiliary_loss():
    sae, x = in_training("batchtopk"), activations(40)
    with torch.no_grad():
        sae.b_enc[:4] -= 3.5  # positive here and there, and hardly ever among the largest
    for _ in range(batchtopk.IDLE_BATCHES - 1):
        without = sae.loss(x, SETTINGS, PENALTY)
    assert without[0] == without[1]
    loss, error, _ = sae.loss(x, SETTINGS, PENALTY)
    idle = sae.idle == batchtopk.IDLE_BATCHES
    assert loss > error and idle.any() and not idle.all()
    gradients = dict(
        zip(("decoder", "encoder"), torch.autograd.grad(loss - error, [sae.decoder, sae.encoder]),
            strict=True)
    )  # fmt: skip
    assert (gradients["decoder"][idle].norm(dim=1) > 0).any()
    assert (gradients["decoder"][~idle] == 0).all() and (gradients["encoder"][:, ~idle] == 0).all()
    pre, output = F.relu(x @ sae.W_enc + sae.b_enc), sae.decode(sae.encode(x))
    left = (x - output).detach()
    largest = (pre * idle).topk(3, dim=1)
    code = torch.zeros_like(pre).scatter(1, largest.indices, largest.values)
    expected = batchtopk.AUXILIARY * F.mse_loss(code @ sae.W_dec, left)
    torch.testing.assert_close(loss - error, expected)
    with torch.no_grad():  # a look is no batch
        sae.loss(x, SETTINGS, PENALTY)
    assert sae.idle.max() == batchtopk.IDLE_BATCHES
    sae.restart(torch.tensor([0, 1]), F.normalize(activations(2), dim=1), x)
    assert sae.idle[:2].tolist() == [0, 0]


def test_jumprelu_keeps_what_is_above_the_threshold_as_it_is():
    sae, x = random_autoencoder("jumprelu", 6), torch.randn(200, 6)
    pre = x @ sae.W_enc + sae.b_enc
    latents = sae.encode(x)
    above = pre > sae.threshold
    assert torch.equal(latents[above], pre[above]) and (latents[~above] == 0).all()
    assert (pre[~above] > 0).any()  # what a ReLU would have kept
    sae.level[:] = -1.0  # a threshold below 0 is none
    assert torch.equal(sae.encode(x), F.relu(pre))


def test_a_threshold_learns_from_the_band_about_it():
    """Eq. 11 and 12 of the paper, in sums over tokens."""
    sae, x = in_training("jumprelu"), activations(300)
    width, pre = jumprelu.BANDWIDTH, (x @ sae.W_enc + sae.b_enc).detach()
    loss, _, l0 = sae.loss(x, SETTINGS, PENALTY)
    [estimated] = torch.autograd.grad(loss, sae.level)
    threshold, error = sae.threshold.detach(), (sae.decode(sae.encode(x)) - x).detach()
    band = ((pre - threshold).abs() < width / 2) / width
    by_latent = 2 / x.numel() * error @ sae.W_dec.T
    distance = ((l0 + jumprelu.FLOOR) / (SETTINGS.l0 + jumprelu.FLOOR)).log()
    by_active = 2 * jumprelu.WEIGHT * distance / (l0 + jumprelu.FLOOR) / len(x)
    expected = -(band * (threshold * by_latent + by_active)).sum(0)
    torch.testing.assert_close(estimated / sae.unit, expected.detach(), rtol=1e-5, atol=1e-9)
    assert band.sum(0).min() > 0 and sae.unit != 1


def test_thresholds_move_by_their_own_rate():
    for rate in (0.001, 0.01):
        sae = ARCHITECTURES["jumprelu"].of_settings(4, 8, Autoencoder(learning_rate=rate))
        torch.testing.assert_close(sae.threshold, torch.full((8,), jumprelu.FIRST))
        sae.level.data += rate  # about what Adam does in a step
        torch.testing.assert_close(sae.threshold, torch.full((8,), jumprelu.FIRST + jumprelu.RATE))


def test_a_gate_says_whether_and_a_magnitude_how_much():
    sae, x = random_autoencoder("gated", 6), torch.randn(200, 6)
    path, latents = x @ sae.W_enc, sae.encode(x)
    opened = path + sae.b_enc > 0
    size = (sae.r_mag.exp() * path + sae.b_mag).clamp(min=0)
    assert (latents[~opened] == 0).all()
    torch.testing.assert_close(latents[opened], size[opened])
    assert (size[~opened] > 0).any() and (size[opened] != (path + sae.b_enc)[opened]).all()


def test_gates_are_penalised_and_reconstruct_through_a_fixed_decoder():
    sae, x = in_training("gated"), activations(50)
    loss, error, sparsity = sae.loss(x, SETTINGS, PENALTY)
    gate = F.relu(x @ sae.W_enc + sae.b_enc)
    torch.testing.assert_close(sparsity, gate.sum(1).mean())
    torch.testing.assert_close(error, (sae.decode(sae.encode(x)) - x).pow(2).mean())
    of_gates = (gate @ sae.W_dec + sae.b_dec - x).pow(2).mean()
    torch.testing.assert_close(loss, error + PENALTY * sparsity + of_gates)
    for parameter in (sae.decoder, sae.b_dec):
        [whole] = torch.autograd.grad(loss, parameter, retain_graph=True)
        [alone] = torch.autograd.grad(error, parameter, retain_graph=True)
        torch.testing.assert_close(whole, alone)


def test_a_gated_autoencoder_of_another_scale_and_mean_has_the_same_gates():
    """Scale and mean of the inputs are taken into the weights, whatever the biases are."""
    torch.manual_seed(0)
    sae, x, mean = gated.Gated(6, 10).requires_grad_(False), torch.randn(50, 6), torch.randn(6)
    for bias in (sae.b_enc, sae.b_mag, sae.r_mag, sae.b_dec):
        bias.normal_()
    code, output = sae.encode(x), sae.decode(sae.encode(x))
    sae.fold(3.0)
    sae.shift(mean)
    torch.testing.assert_close(sae.encode(3 * x + mean), 3 * code, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(sae.reconstruct(3 * x + mean), 3 * output + mean)


def test_prefixes_reconstruct_by_themselves():
    sae, x = in_training("matryoshka", 16), activations(50, 16)
    assert sae.ends() == [2, 4, 8, 16, 32]
    loss, error, _ = sae.loss(x, SETTINGS, PENALTY)
    latents, errors = sae.encode(x), []
    for end in sae.ends():
        kept = latents * (torch.arange(32) < end)
        errors.append((sae.decode(kept) - x).pow(2).mean())
    torch.testing.assert_close(loss, torch.stack(errors).mean())
    torch.testing.assert_close(error, errors[-1])
    few = ARCHITECTURES["matryoshka"].of_settings(2, 3, Autoencoder(k=2))
    assert few.prefixes == 5 and few.ends() == [1, 3]
    given = Autoencoder(architecture="matryoshka", prefixes=2)
    assert ARCHITECTURES["matryoshka"].of_settings(4, 8, given).ends() == [4, 8]


def test_a_setting_of_one_architecture_is_in_no_job_of_another():
    assert "prefixes" not in Autoencoder().as_json()
    assert Autoencoder(architecture="matryoshka", prefixes=3).as_json()["prefixes"] == 3


#: Latents as SAELens 6.54 computes them from its files, by its name of the architecture.
OPENED = {
    "standard": lambda pre, w, cfg: F.relu(pre),
    "topk": lambda pre, w, cfg: torch.zeros_like(pre).scatter(
        1, (top := pre.topk(cfg["k"])).indices, F.relu(top.values)
    ),
    "jumprelu": lambda pre, w, cfg: F.relu(pre) * (pre > w["threshold"]),
    "gated": lambda pre, w, cfg: (
        F.relu((pre - w["b_gate"]) * w["r_mag"].exp() + w["b_mag"]) * (pre > 0)
    ),
}


@pytest.mark.parametrize(
    "architecture",
    [name for name in ARCHITECTURES if (ARCHITECTURES[name].opened_as or name) in OPENED],
)
def test_the_files_say_what_saelens_computes(architecture, tmp_path):
    """`make test-interop` asks SAELens itself."""
    sae, x = random_autoencoder(architecture, 8), torch.randn(60, 8)
    store.save(sae, tmp_path, {})
    cfg = json.loads((tmp_path / "cfg.json").read_text())
    weights = load_file(tmp_path / "sae_weights.safetensors")
    bias = weights["b_gate" if cfg["architecture"] == "gated" else "b_enc"]
    latents = OPENED[cfg["architecture"]](x @ weights["W_enc"] + bias, weights, cfg)
    torch.testing.assert_close(latents, sae.encode(x))
    torch.testing.assert_close(latents @ weights["W_dec"] + weights["b_dec"], sae.decode(latents))
    named = {"standard": 4, "topk": 4, "jumprelu": 5, "gated": 6}
    assert len(weights) == named[cfg["architecture"]]  # SAELens refuses one tensor more
    assert cfg.get(store.TRAINED_AS, cfg["architecture"]) == architecture


@pytest.mark.parametrize("architecture", TRAINED)
def test_a_recorded_step_trains_what_a_computed_one_trains(architecture, monkeypatch):
    """As a GPU does it: a step waits for no value, and finds its tensors where they were."""
    x, _ = planted(1000)
    settings = Autoencoder(
        architecture=architecture, k=3, l0=3.0, batch_size=250, epochs=12, learning_rate=5e-3,
        check_steps=10, other_seed=False,
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendGraph)
    monkeypatch.setattr(torch.cuda, "graph", PretendRecording)
    trained = {}
    for records in (True, False):
        monkeypatch.setattr(trainer, "can_capture", lambda device, records=records: records)
        monkeypatch.setattr(batchtopk, "_may_wait", lambda x, records=records: not records)
        trained[records] = loop.train(x, [24], settings, seed=0).autoencoders[0].state_dict()
    torch.testing.assert_close(trained[True], trained[False])


@pytest.mark.parametrize(
    ("architecture", "target"), [("gated", 3.0), ("jumprelu", 3.0), ("jumprelu", 8.0)]
)
def test_gates_and_thresholds_give_the_wanted_sparsity(architecture, target):
    x, _ = dictionaries.Truth.of_seed(0).drawn(8000, 1)
    settings = Autoencoder(
        architecture=architecture, l0=target, learning_rate=1e-2, batch_size=512, epochs=30,
        tied=False, other_seed=False,
    )  # fmt: skip
    sae = loop.train(x, [64], settings, seed=0).autoencoders[0]
    active = (sae.encode(torch.from_numpy(x)) > 0).sum(1).float().mean()
    assert active.item() == pytest.approx(target, rel=0.1)


def test_known_features_are_found_and_random_directions_are_not(monkeypatch):
    truth = dictionaries.Truth.of_seed(0)
    seen = truth.drawn(2000, 2)
    share = (seen[1] > 0).mean(0)
    assert share.sum() == pytest.approx(dictionaries.ACTIVE, rel=0.2) and share.min() > 0.005
    for parent, child in dictionaries.HIERARCHY:
        assert (seen[1][:, parent] > 0)[seen[1][:, child] > 0].all()
    controls = dictionaries.controls(truth, *seen)
    assert controls["oracle"] == pytest.approx({"f1": 1.0, "f1_at_0": 1.0, "mcc": 1.0})
    assert controls["random decoder"]["f1"] < 0.35 and controls["random decoder"]["mcc"] < 0.4
    monkeypatch.setitem(dictionaries.COMMON, "epochs", 8)
    variant = dictionaries.VARIANTS["batchtopk"]
    row = dictionaries.at_best_rate(variant, truth, rates=(0.001, 0.01), seeds=(0,))
    assert row["learning_rate"] == 0.01 and row["by_rate"]["0.001"]["fvu"] > row["fvu"]["mean"]
    assert row["f1"]["mean"] > 0.6 and row["mcc"]["mean"] > 0.8
    assert row["l0"]["mean"] == pytest.approx(dictionaries.ACTIVE, rel=0.1)
    assert row["shrinkage"]["mean"] == pytest.approx(1, abs=0.03)
    _, code = dictionaries.Truth.of_seed(0, equal_counts=True).drawn(500, 0)
    assert ((code > 0).sum(1) == dictionaries.ACTIVE).all()
