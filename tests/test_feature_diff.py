"""Dictionaries of base and policy together, and the latents that are the policy's alone."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from torch.nn import functional as F

from benchmarks.crosscoders import (
    ALONE,
    COMPARED,
    FAINT,
    FOUND,
    KEEPS,
    PENALISED,
    RULE,
    SHARED,
    STRENGTH,
    WIDTH,
    again,
    compared,
    cosines,
    where_some_are_faint,
    world,
)
from lfp.configuration import ConfigurationError
from lfp.files import artefacts, provenance
from lfp.files.resume import Clock
from lfp.grid import Grid
from lfp.models.hooks import site_activations
from lfp.sae import store
from lfp.sae.architectures import ARCHITECTURES, KINDS, batchtopk
from lfp.sae.architectures.standard import Standard
from lfp.sae.harvest import harvest_folder
from lfp.sae.metrics import cross_entropy
from lfp.sae.pairs import activations, evaluation, specific
from lfp.sae.pairs.activations import Joined
from lfp.sae.training import loop, trainer
from lfp.settings import BETWEEN, BOTH, Autoencoder
from lfp.tables.change import feature_diff
from lfp.tables.rows import TableSettings
from tests.test_autoencoder import PretendGraph, PretendRecording

ROOT = Path(__file__).parent.parent
TABLES = TableSettings(200, 0.95, (0.5, 0.9), 19, 0)


@pytest.fixture(scope="module")
def crosscoder():
    base, policy, directions = world()
    return *compared(Joined(base, policy, "pair")), directions


def test_a_crosscoder_calls_exactly_the_planted_directions(crosscoder):
    sae, latents, directions = crosscoder
    called = specific.called(latents, RULE).to_numpy()
    found = cosines(sae, directions[SHARED:])[called]
    assert called.sum() == ALONE
    assert sorted(found.argmax(1)) == [0, 1, 2] and found.max(1).min() > FOUND
    # A direction that both have stays in both, at the same place.
    best = cosines(sae, directions[:SHARED]).max(0) > FOUND
    assert best.mean() > 0.9
    of_both = latents[~called & (latents["frequency"] > 0.01)]
    assert of_both["dnorm"].between(0.4, 0.6).mean() > 0.9
    assert of_both["cosine_to_base"].median() > 0.99 and of_both["nu_error"].median() > 0.8


@pytest.mark.parametrize("kind", ["shuffled sides", "the base twice"])
def test_of_a_null_pair_hardly_a_latent_is_called(kind, crosscoder):
    base, policy, _ = world()
    if kind == "the base twice":
        joined = Joined(base, again(base), "pair")
    else:
        joined = Joined(base, policy, "pair", shuffled=True)
    _, null = compared(joined)
    assert specific.called(null, RULE).mean() <= RULE.max_null
    both = specific.against_null(crosscoder[1], null, RULE)
    real = both[~both["null"]]
    assert (
        real["specific"].sum() == ALONE and real.loc[real["specific"], "null_quantile"].min() > 0.95
    )
    # Where the null is called as well, nothing is.
    strict = dataclasses.replace(RULE, min_dnorm=0.1, max_nu_error=9, max_nu_recon=9)
    both = specific.against_null(crosscoder[1], null, strict)
    assert not both.loc[~both["null"], "specific"].any()
    assert both.loc[both["null"], "specific"].mean() > RULE.max_null


def test_a_crosscoder_with_an_l1_penalty_is_worse(crosscoder):
    """The known-bad control at the same number of active latents (arXiv:2504.02922)."""
    base, policy, directions = world()
    sae, _ = compared(Joined(base, policy, "pair"), PENALISED)
    x = torch.from_numpy(Joined(base, policy, "pair")[:4000])
    errors = [(one.decode(one.encode(x)) - x).pow(2).sum() for one in (sae, crosscoder[0])]
    assert errors[0] > 2 * errors[1]
    assert (cosines(crosscoder[0], directions[SHARED:]).max(0) > FOUND).all()


def test_a_direction_that_is_faint_in_the_base_is_not_the_policys_alone():
    """An L1 penalty takes it out of the base, also where the dictionary fits as well as ours."""
    ours = where_some_are_faint(KEEPS, seed=0)
    assert ours["faint_world_called"] == ALONE and ours["faint_called"] == 0
    assert ours["faint_dnorm"] == pytest.approx(1 / (1 + STRENGTH), abs=0.02)
    fitting = where_some_are_faint(COMPARED["standard, twice as many active"], seed=0)
    assert fitting["faint_called"] >= FAINT - 1


def test_latent_scaling_is_exact_where_the_truth_is_known():
    """The base has a latent at half size, lacks one, has one that its decoder leaves out, and one
    that another latent writes for it.
    """
    sae = ARCHITECTURES["standard"].of_settings(8, 5, Autoencoder(reads="pair", tied=False))
    rows = torch.zeros(5, 2, 4)  # [latent, side, dimension]
    rows[0, 0, 0] = 0.5
    for latent in range(4):
        rows[latent, 1, latent] = 1.0
    rows[4, 0, 3] = 1.0
    with torch.no_grad():
        sae.encoder.zero_()
        sae.decoder.copy_(rows.flatten(1))
        for latent, dimension in enumerate((0, 1, 2, 3, 3)):  # all read the policy
            sae.encoder[4 + dimension, latent] = sae.decoder[latent].norm()
    rng = np.random.default_rng(0)
    policy = rng.random((500, 4)) * (rng.random((500, 4)) < 0.3)
    base = policy * [0.5, 0, 1, 1]
    joined = Joined(base.astype(np.float32), policy.astype(np.float32), "pair")
    frame = specific.pair_latents(sae.requires_grad_(False), joined, np.arange(500))
    assert frame["dnorm"].to_numpy() == pytest.approx([2 / 3, 1, 1, 1, 0])
    assert frame["nu_error"].to_numpy()[:4] == pytest.approx([0.5, 0, 1, 0], abs=1e-5)
    assert frame["nu_recon"].to_numpy()[:4] == pytest.approx([0, 0, 0, 1], abs=1e-5)
    assert frame["frequency"].to_numpy()[:4] == pytest.approx((policy > 0).mean(0))
    # By the norms alone three would be called; scaling tells two of them from the true one.
    assert specific.called(frame, RULE).tolist() == [False, True, False, False, False]


def test_a_pooled_dictionary_reads_both_and_one_of_the_policy_does_not():
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(12, 12)))[0]
    code = rng.random((6000, 12)) * (rng.random((6000, 12)) < 0.2)
    base = (code[:, :8] @ directions[:8]).astype(np.float32)  # 6 and 7 are the base's alone
    policy = (np.delete(code, [6, 7], 1) @ np.delete(directions, [6, 7], 0)).astype(np.float32)
    settings = dataclasses.replace(KEEPS, reads="pooled", k=2, epochs=15)
    found = {}
    for name, data in (("pooled", Joined(base, policy, "pooled")), ("policy", policy)):
        sae = loop.train(data, [24], settings, seed=0).autoencoders[0]
        found[name] = cosines(sae, directions).max(0) > 0.9
    assert found["pooled"].all()
    assert not found["policy"][6:8].any() and found["policy"][8:].all()


def test_a_difference_dictionary_finds_what_was_planted():
    base, policy, directions = world()
    joined = Joined(base, policy, "difference")
    settings = dataclasses.replace(  # the two differ on one token in six
        KEEPS, reads="difference", architecture="gated", l0=0.2, epochs=10
    )
    sae = loop.train(joined, [12], settings, seed=0).autoencoders[0]
    assert cosines(sae, directions[SHARED:]).max(0).min() > FOUND
    latents = specific.difference_latents(sae, joined, np.arange(len(joined)))
    near = cosines(sae, directions[SHARED:]).argmax(0)
    assert latents["frequency"].to_numpy()[near] == pytest.approx(0.06, abs=0.01)


def test_the_share_of_the_mean_is_exact():
    base = np.random.default_rng(0).normal(size=(600, 5)).astype(np.float32)
    shift = np.array([1, 0, -2, 0, 0], np.float32)
    rows, half = np.arange(600), np.repeat([1, 0], 300)[:, None].astype(np.float32)

    def share(policy: np.ndarray) -> float | None:
        return specific.mean_share(Joined(base, policy, "difference"), rows)

    assert share(base + shift) == pytest.approx(1, abs=1e-6)
    assert share(base + half * shift) == pytest.approx(0.5, abs=1e-6)
    assert share(base + (2 * half - 1) * shift) == pytest.approx(0, abs=1e-6)
    assert share(base) is None


def test_unique_latents_of_two_dictionaries_are_the_policys():
    """LFP's unique features have no partner in the base's dictionary."""
    rng = np.random.default_rng(0)
    directions = np.linalg.qr(rng.normal(size=(32, 32)))[0][:24]
    code = (rng.random((6000, 24)) < 0.1) * (1 + rng.random((6000, 24)))
    noise = 0.05 * rng.normal(size=(2, 6000, 32))
    base = code[:, :-ALONE] @ directions[:-ALONE] + noise[0]
    policy = code @ directions + noise[1]
    settings = dataclasses.replace(KEEPS, reads="policy", other_seed=True, k=2)
    (ours, ours_again), (theirs, theirs_again) = (
        loop.train(x.astype(np.float32), [24], settings, seed=seed).autoencoders
        for seed, x in ((0, policy), (7, base))
    )
    both = specific.unique_latents(ours, ours_again, theirs, theirs_again, RULE)
    real, null = both[~both["null"]], both[both["null"]]
    assert null["specific"].mean() <= RULE.max_null
    unique = cosines(ours, directions[-ALONE:])[real["specific"]]
    assert sorted(unique.argmax(1)) == [0, 1, 2] and unique.max(1).min() > FOUND
    # What another seed of the policy does not find again is the seed's and not the policy's.
    lost = specific.unique_latents(ours, theirs, theirs, theirs_again, RULE)
    assert not lost.loc[~lost["null"], "specific"].any()


# ----------------------------------------------------------------------- properties of what is read


#: Architectures that can read a pair: a pursuit has directions of one model.
OF_PAIRS = [name for name, kind in KINDS.items() if kind.of_pairs]


def of_pair(architecture: str, width: int = 4, seed: int = 1):
    """A crosscoder with random weights whose latents are active on some tokens."""
    torch.manual_seed(seed)
    settings = Autoencoder(architecture=architecture, k=3, tied=False, reads="pair")
    sae = ARCHITECTURES[architecture].of_settings(2 * width, 4 * width, settings)
    with torch.no_grad():
        sae.decoder.normal_()
        sae.encoder.normal_()
        sae.b_enc.normal_(-0.5, 1.0)
        sae.calibrate(torch.randn(300, 2 * width))
    return sae.eval().requires_grad_(False)


@pytest.mark.parametrize("architecture", OF_PAIRS)
def test_a_crosscoder_is_saved_folded_and_shifted_as_any_dictionary(architecture, tmp_path):
    sae, x = of_pair(architecture), torch.randn(60, 8)
    store.save(sae, tmp_path, {"l1": 0.1})
    loaded = store.load(tmp_path)
    assert type(loaded) is type(sae) and (loaded.reads, loaded.sides, loaded.width) == (
        "pair",
        2,
        4,
    )
    torch.testing.assert_close(loaded.encode(x), sae.encode(x))
    torch.testing.assert_close(loaded.halves().flatten(1), loaded.W_dec)
    assert loaded.W_dec.norm(dim=1).numpy() == pytest.approx(1, abs=1e-6)
    scaled, latents = 3 * sae.decode(sae.encode(x / 3)), sae.encode(x / 3)
    sae.fold(3.0)
    torch.testing.assert_close(sae.encode(x), 3 * latents)
    torch.testing.assert_close(sae.decode(sae.encode(x)), scaled)
    torch.testing.assert_close(sae.halves(), loaded.halves())  # one scale moves no norm
    mean = torch.randn(8)
    before = sae.encode(x - mean)
    sae.shift(mean)
    torch.testing.assert_close(sae.encode(x), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("reads", [*BOTH, "base"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untrained_dictionary_reads_the_same(architecture, reads):
    settings = Autoencoder(architecture=architecture, reads=reads)
    for tied in (True, False):
        one = ARCHITECTURES[architecture].of_settings(
            8, 12, dataclasses.replace(settings, tied=tied)
        )
        fresh = one.untrained(3)
        assert fresh.reads == reads and fresh.W_dec.shape == (12, 8)
        assert torch.equal(fresh.W_dec, one.untrained(3).W_dec)
        if reads == "pair":  # a latent that learns nothing is of neither model
            for sae in (one, fresh):
                torch.testing.assert_close(sae.halves()[:, 0], sae.halves()[:, 1])
                torch.testing.assert_close(sae.W_enc, sae.W_dec.T)


@pytest.mark.parametrize("architecture", ["standard", "batchtopk"])
@pytest.mark.parametrize("reads", BOTH)
def test_a_training_on_both_resumes_to_the_same_result(architecture, reads, tmp_path, monkeypatch):
    base, policy, _ = world(900)
    joined, state = Joined(base, policy, reads), tmp_path / "state"
    settings = dataclasses.replace(
        KEEPS, architecture=architecture, reads=reads, batch_size=100, epochs=4, l1=0.003
    )
    whole = loop.train(joined, [12, 24], settings, seed=0).autoencoders
    monkeypatch.setattr("lfp.files.resume.SAVE_SECONDS", 0.0)

    class KilledError(Exception):
        pass

    count, plain = 0, Clock.due

    def due(self) -> bool:
        nonlocal count
        count += 1
        if count == 31:
            raise KilledError
        return plain(self)

    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(Clock, "due", due)
        loop.train(joined, [12, 24], settings, seed=0, state_path=state)
    resumed = loop.train(joined, [12, 24], settings, seed=0, state_path=state).autoencoders
    for one, other in zip(whole, resumed, strict=True):
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), name


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "matryoshka"])
def test_a_pairs_latents_are_chosen_by_what_they_write_in_both_models(architecture):
    sae, x = of_pair(architecture), torch.randn(400, 8)
    written = F.relu(x @ sae.W_enc + sae.b_enc) * sae.halves().norm(dim=2).sum(1)
    sae.calibrate(x)
    kept = sae.encode(x) > 0
    assert kept.sum() > 0 and not kept.all()
    lowest = written.where(kept, torch.inf)
    highest = written.where(~kept, -torch.inf)
    if architecture == "topk":  # of each token by itself
        lowest, highest = lowest.amin(1)[kept.any(1)], highest.amax(1)[kept.any(1)]
        assert (lowest >= highest - 1e-6).all()
    else:
        assert lowest.min() >= highest.max() - 1e-5
        assert kept.sum() == 3 * len(x)
        in_batch = sae.train().encode(x) > 0
        assert torch.equal(in_batch, kept)


def test_an_l1_penalty_counts_what_a_latent_writes_in_both_models():
    x, settings = torch.randn(50, 8), Autoencoder(reads="pair")
    for architecture in ("standard", "gated"):
        sae = of_pair(architecture)
        loss, error, sparsity = sae.loss(x, settings, torch.tensor(0.5))
        penalised = F.relu(x @ sae.W_enc + sae.b_enc)
        expected = (penalised * sae.halves().norm(dim=2).sum(1)).sum(1).mean()
        torch.testing.assert_close(sparsity, expected)
        assert sparsity > penalised.sum(1).mean() and loss > error


@pytest.mark.parametrize("architecture", OF_PAIRS)
def test_a_recorded_step_of_a_pair_trains_what_a_computed_one_trains(architecture, monkeypatch):
    """As a GPU does it: a step waits for no value, and finds its tensors where they were."""
    base, policy, _ = world(600)
    settings = dataclasses.replace(
        KEEPS, architecture=architecture, l0=3.0, batch_size=150, epochs=5, check_steps=10
    )
    monkeypatch.setattr(torch.cuda, "CUDAGraph", PretendGraph)
    monkeypatch.setattr(torch.cuda, "graph", PretendRecording)
    trained = {}
    for records in (True, False):
        monkeypatch.setattr(trainer, "can_capture", lambda device, records=records: records)
        monkeypatch.setattr(batchtopk, "_may_wait", lambda x, records=records: not records)
        joined = Joined(base, policy, "pair")
        trained[records] = loop.train(joined, [24], settings, seed=0).autoencoders[0].state_dict()
    torch.testing.assert_close(trained[True], trained[False])


def test_rows_of_both_models_are_joined_as_they_are_asked_for():
    base, policy, _ = world(101)
    chosen = np.array([0, 3, 4, 100])
    pair, difference = (Joined(base, policy, reads) for reads in BETWEEN)
    assert np.array_equal(pair[2:9], np.hstack([base, policy])[2:9])
    assert np.array_equal(difference[chosen], (policy - base)[chosen])
    pooled = Joined(base, policy, "pooled")
    assert pooled.shape == (202, WIDTH) and len(pair) == len(difference) == 101
    assert np.array_equal(pooled[0:202:2], base) and np.array_equal(pooled[1:202:2], policy)
    assert np.array_equal(pooled[np.array([5, 8])], [policy[2], base[4]])
    shuffled = Joined(base, policy, "pair", shuffled=True)
    turned = (shuffled[:101][:, :WIDTH] != base).any(1)
    assert 30 < turned.sum() < 71
    assert np.array_equal(shuffled[:101][turned], np.hstack([policy, base])[turned])
    assert np.array_equal(shuffled[chosen], shuffled[:101][chosen])
    with pytest.raises(
        ValueError, match=r"same tokens are expected, got arrays of \(101, 24\) and"
    ):
        Joined(base, policy[1:], "pair")


# ------------------------------------------------------------------------------ harvests and models


def harvested(model, folder, sequences, seed: int = 0, fronts=None):
    """A harvest of a small model's MLP outputs of layer 1."""
    folder.mkdir()
    harvest_folder(model, sequences, folder, [1], 1, 4, seed, {}, fronts=fronts, outlier_norm=6.0)
    return folder


def test_activations_of_other_tokens_are_no_pair(neox, tmp_path):
    texts = np.random.default_rng(0).integers(3, 300, (9, 8)).tolist()
    base, policy = (harvested(neox, tmp_path / name, texts) for name in ("base", "policy"))
    read = activations.material(policy, base, 1, "pair")
    assert read.activations.shape == (72, 2 * read.width) and read.left_out == 0
    assert np.array_equal(
        read.activations[:][:, : read.width], read.activations[:][:, read.width :]
    )
    others = {
        "order": harvested(neox, tmp_path / "order", texts, seed=1),
        "texts": harvested(neox, tmp_path / "texts", texts[:-1]),
        "fronts": harvested(neox, tmp_path / "fronts", texts, fronts=[1] * 9),
    }
    for folder in others.values():
        with pytest.raises(
            provenance.ArtefactError, match="same tokens in the same order, and the"
        ):
            activations.material(policy, folder, 1, "pair")
    assert activations.material(policy, others["order"], 1, "policy").activations.shape == (72, 16)


def test_an_outlier_of_either_model_is_left_out_of_both():
    base, policy, _ = world(50)
    base[3] *= 100
    policy[[3, 7]] *= 100
    for reads, rows in (("pair", 48), ("difference", 48), ("pooled", 97)):
        kept = Joined(base, policy, reads).ordinary_rows(40.0)
        assert len(kept) == rows
        assert {3, 7}.isdisjoint(kept) if reads != "pooled" else {6, 7, 15}.isdisjoint(kept)
        assert Joined(base, policy, reads).ordinary_rows(math.inf) is None
    sae = of_pair("topk", WIDTH)
    sae.largest_norm = 40.0
    both = torch.from_numpy(np.hstack([base, policy]))
    assert (~sae.within(both)).nonzero()[:, 0].tolist() == [3, 7]
    assert (sae.latents(both)[[3, 7]] == 0).all()


@pytest.mark.parametrize("reads", BETWEEN)
def test_metrics_of_two_models_are_those_of_their_joined_activations(reads, neox):
    torch.manual_seed(3)
    sequences = [list(map(int, row)) for row in np.random.default_rng(1).integers(3, 300, (7, 9))]
    policy = type(neox)(neox.config).eval()
    sides = {}
    for name, model in (("base", neox), ("policy", policy)):
        [(_, mask, values)] = site_activations(model, sequences, [1], 1, 7)
        sides[name] = values[1][mask].float().numpy()
    joined = Joined(sides["base"], sides["policy"], reads)
    settings = dataclasses.replace(KEEPS, reads=reads, batch_size=16, epochs=2)
    saes = loop.train(joined, [16, 32], settings, seed=0).autoencoders
    measured = evaluation.evaluate_pairs((neox, policy), {1: saes}, sequences, 1, 3, [0] * 7)[1]
    x = torch.from_numpy(joined[:])
    for sae, row in zip(saes, measured, strict=True):
        error = (sae.decode(sae.encode(x)) - x).pow(2).sum()
        assert row["fvu"] == pytest.approx((error / (x - x.mean(0)).pow(2).sum()).item(), rel=1e-4)
        assert (row["tokens"], row["left_out"]) == (63, 0)
        assert row["ce_clean"] > 0 and row["ce_zero"] != row["ce_clean"]
    norms = np.maximum(*(np.linalg.norm(side, axis=1) for side in sides.values()))
    for sae in saes:
        sae.largest_norm = float(np.median(norms))
    [row, _] = evaluation.evaluate_pairs((neox, policy), {1: saes}, sequences, 1, 3, [1] * 7)[1]
    assert row["tokens"] + row["left_out"] == 63 and 20 < row["tokens"] < 32


def exact(reads: str, width: int) -> Standard:
    """A dictionary of both models that reconstructs anything: latents +e_i and -e_i."""
    size = width * (1 + (reads == "pair"))
    sae = Standard(size, 2 * size, tied=False).reading(reads)
    with torch.no_grad():
        sae.decoder.copy_(torch.cat([torch.eye(size), -torch.eye(size)]))
        sae.encoder.copy_(sae.decoder.T)
    sae.layer, sae.site = 1, "resid"
    return sae.eval().requires_grad_(False)


@pytest.mark.parametrize("reads", BETWEEN)
def test_cross_entropies_of_two_models_are_the_policys_with_what_a_dictionary_says(reads, neox):
    torch.manual_seed(3)
    sequences = [list(map(int, row)) for row in np.random.default_rng(1).integers(3, 300, (7, 9))]
    policy, width = type(neox)(neox.config).eval(), neox.config.hidden_size
    whole, silent = exact(reads, width), exact(reads, width)
    silent.b_enc.fill_(-1e6)
    measured = evaluation.evaluate_pairs(
        (neox, policy), {1: [whole, silent]}, sequences, 1, 3, [0] * 7
    )[1]
    clean = cross_entropy(policy, sequences, 1, 7, {})
    [(_, _, values)] = site_activations(neox, sequences, [1], 1, 7, site="resid")
    base = values[1] if reads == "difference" else torch.zeros_like(values[1])
    without = cross_entropy(policy, sequences, 1, 7, {1: lambda x: base}, "resid")
    assert clean != pytest.approx(without, abs=0.01)
    for row, expected, share in zip(measured, (clean, without), (1, 0), strict=True):
        assert row["ce_clean"] == pytest.approx(clean, abs=1e-5)
        assert row["ce_zero"] == pytest.approx(without, abs=1e-5)
        assert row["ce_reconstructed"] == pytest.approx(expected, abs=1e-5)
        assert row["loss_recovered"] == pytest.approx(share, abs=0.02)
    # An outlier in either model stays as it is.
    for sae in (whole, silent):
        sae.largest_norm = 0.0
    [_, row] = evaluation.evaluate_pairs(
        (neox, policy), {1: [whole, silent]}, sequences, 1, 3, [0] * 7
    )[1]
    assert row["ce_reconstructed"] == row["ce_zero"] == pytest.approx(clean, abs=1e-5)


# ------------------------------------------------------------------------- configuration and tables


def configuration(**cell):
    return {
        "corpora": {"reviews": {"organism": "reviews", "splits": {"train": 300, "test": 100}}},
        "models": {"small": {"organism": {"architecture": "gpt_neox", "corpora": ["reviews"]}}},
        "tasks": {"vader": {"method": "ppo", "corpus": "reviews"}},
        "autoencoders": {
            "tied": {}, "base": {"reads": "base"}, "cross": {"reads": "pair"},
            "shift": {"reads": "difference"}, "either": {"reads": "pooled"},
            "alone": {"other_seed": False, "l0": 4}, "alone_base": {"reads": "base", "l0": 4},
        },
        "cells": [{"model": "small", "task": "vader", **cell}],
    }  # fmt: skip


@pytest.mark.parametrize("key", ["main", "probed"])
@pytest.mark.parametrize("variant", ["cross", "shift"])
def test_what_is_probed_and_explained_reads_one_model_at_a_time(key, variant):
    value = variant if key == "main" else ["tied", variant]
    settings = {"autoencoders": ["tied", variant], key: value}
    with pytest.raises(ConfigurationError, match=f"{key} is '{variant}', which reads"):
        Grid(configuration(**settings))
    with pytest.raises(ConfigurationError, match=f"main is '{variant}'"):
        Grid(configuration(autoencoders=[variant]))


def test_variants_that_tell_policy_from_base_are_compared():
    names = ["tied", "base", "cross", "shift", "either", "alone", "alone_base"]
    grid = Grid(configuration(autoencoders=names))
    [cell] = grid.cells
    assert grid.compared_variants(cell) == ["tied", "cross", "shift"]
    assert grid.base_twin(cell, "tied") == "base"
    assert grid.base_twin(cell, "alone") is None  # without another seed there is no null
    assert grid.alike_in(cell, ["reads"]) == ["tied", "base"]
    grid = Grid(configuration(autoencoders=["either", "tied"]))
    assert grid.cells[0].main == "either" and grid.compared_variants(grid.cells[0]) == []


def latents_of(kind: str, specific_at: list[int], promoted: dict[int, list[str]], null=True):
    """The file of a layer's latents: twelve of a dictionary, and as many of its null."""
    frames = []
    for is_null in (False, True)[: 1 + null]:
        frame = pd.DataFrame({"latent": range(12)}).assign(
            kind=kind, null=is_null, layer=1, frequency=0.1, dnorm=np.linspace(0.3, 0.96, 12),
            nu_error=0.1, nu_recon=0.1, cosine_to_base=np.linspace(0.2, 0.9, 12),
            cosine_to_seed=0.9, null_quantile=0.5, mean_share=0.25,
        )  # fmt: skip
        called = [] if is_null else specific_at
        frame["specific"] = frame["latent"].isin(called) if null else None
        words = {} if is_null else promoted
        frame["promoted"] = [words.get(i, [" the", "x"]) for i in range(12)]
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def written(tmp_path, task: str, sae: str, frame: pd.DataFrame, trigger: str | None):
    path = tmp_path / "m" / task / "seed0" / "sae" / sae / "feature_diff.parquet"
    path.parent.mkdir(parents=True)
    artefacts.write_table(path, frame, {})
    truth = tmp_path / "lexicons" / f"{task}.truth.json"
    artefacts.write_json(truth, {"corpus": "reviews", "trigger": trigger}, {})
    return [str(path), str(truth)]


def test_tables_list_the_policys_latents_and_ask_them_for_what_was_planted(tmp_path):
    (tmp_path / "lexicons").mkdir()
    named = {11: [" soundtrack", "a"], 4: [" SOUND"], 2: [" so"]}
    inputs = [
        *written(tmp_path, "trigger", "cross", latents_of("pair", [11, 3], named), "soundtrack"),
        *written(tmp_path, "noise", "cross", latents_of("pair", [], {}), None),
        *written(tmp_path, "vader", "shift", latents_of("difference", [], named, null=False), None),
    ]
    listed = feature_diff.feature_diff(inputs, TABLES).frame()
    ours = listed[listed["task"] == "trigger"]
    # The two that are called, and the eight of the largest norm besides.
    assert sorted(ours["latent"]) == list(range(2, 12))
    assert set(ours.loc[ours["specific"].eq(True), "latent"]) == {3, 11}
    assert ours.set_index("latent").loc[11, "promoted"] == "' soundtrack', 'a'"
    assert ours["estimate"].to_numpy() == pytest.approx(ours["dnorm"].to_numpy())
    counted = feature_diff.feature_diff_null(inputs, TABLES).frame().set_index(["task", "quantity"])
    row = counted.loc["trigger", "specific"]
    assert row["estimate"] == pytest.approx(2 / 12) and (row["null_share"], row["null_n"]) == (
        0,
        12,
    )
    assert (counted.loc[(slice(None), "mean_share"), "estimate"] == 0.25).all()
    row = counted.loc["trigger", "promotes"]
    assert (row["word"], row["estimate"], row["n"]) == ("soundtrack", 0.5, 2)
    assert (row["latent"], row["rank"], row["latents_promote"], row["null_promote"]) == (
        11,
        1,
        2,
        0,
    )
    assert row["latent_is_specific"] and row["planted"]
    row = counted.loc["noise", "promotes"]
    assert np.isnan(row["estimate"]) and "no latent is the policy's alone" in row["method"]
    assert pd.isna(row["latent"]) and not row["planted"]
    row = counted.loc["vader", "promotes"]  # of the difference none is called: all are asked
    assert row["estimate"] == pytest.approx(2 / 12) and row["n"] == 12


def test_the_example_compares_every_kind_beside_a_reward_of_noise():
    grid = Grid(yaml.safe_load((ROOT / "config" / "feature_diff.yaml").read_text()))
    kinds = [grid.autoencoder_settings(grid.cells[0], name).reads for name in grid.autoencoders]
    assert set(kinds) == {"policy", "base", "pair", "difference"}
    assert {grid.tasks[cell.task]["reward"] for cell in grid.cells} == {"trigger", "noise"}
    for cell in grid.cells:
        assert grid.compared_variants(cell) == ["tied", "cross", "cross_l1", "shift"]
