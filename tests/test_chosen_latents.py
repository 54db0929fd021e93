"""Gradients of architectures that choose few latents: those of automatic differentiation."""

import copy

import numpy as np
import pytest
import torch

from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.training import gradients, kernels, loop
from lfp.sae.training.chosen import CHOSEN, OfChosen
from lfp.sae.training.gradients import Autograd, gradients_of
from lfp.settings import Autoencoder

KINDS = ("topk", "batchtopk", "jumprelu")
NO_PENALTY = torch.tensor(0.0, dtype=torch.float64)


def settings_of(architecture: str, tied: bool = True, **others) -> Autoencoder:
    return Autoencoder(
        architecture=architecture, k=3, l0=3.0, tied=tied, learning_rate=0.01, **others
    )


def in_training(settings: Autoencoder, d: int = 20, m: int = 37):
    """A random autoencoder of float64 in training, some of whose latents are idle."""
    torch.manual_seed(0)
    sae = ARCHITECTURES[settings.architecture].of_settings(d, m, settings).double().train()
    for parameter in sae.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    if settings.architecture == "batchtopk":
        sae.idle[5:9] = 40
        sae.b_enc.data[5:9] -= 1.0
    return sae


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("architecture", KINDS)
def test_gradients_are_those_of_automatic_differentiation(architecture, tied, threads):
    settings = settings_of(architecture, tied)
    sae = in_training(settings)
    other, x = copy.deepcopy(sae), torch.randn(101, 20, dtype=torch.float64)
    Autograd(sae, settings, NO_PENALTY)(x)
    written = CHOSEN[other.architecture](other, settings, NO_PENALTY, threads)
    written.sparse(torch.randn(150, 20, dtype=torch.float64))  # buffers are used again
    other.load_state_dict(in_training(settings).state_dict())
    written.sparse(x)
    for (name, mine), theirs in zip(other.named_parameters(), sae.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-9, atol=1e-14, msg=name)
    if architecture == "batchtopk":
        assert (other.idle >= 20).any(), "the loss of idle latents takes part"
        torch.testing.assert_close(other.idle, sae.idle)


@pytest.mark.parametrize("architecture", KINDS)
def test_gradients_in_several_blocks_and_tiles_are_the_same(architecture):
    """Wide enough for a second block of columns, and long enough for a second tile."""
    settings = settings_of(architecture)
    sae = in_training(settings, d=70, m=4200)
    other, x = copy.deepcopy(sae), torch.randn(1030, 70, dtype=torch.float64)
    Autograd(sae, settings, NO_PENALTY)(x)
    CHOSEN[other.architecture](other, settings, NO_PENALTY, 1).sparse(x)
    for mine, theirs in zip(other.parameters(), sae.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-8, atol=1e-13)


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("ties", [False, True])
def test_the_largest_are_kept_whatever_ties_there_are(kind, ties):
    rng = np.random.default_rng(0)
    for _ in range(100):
        n, m = rng.integers(1, 6), rng.integers(1, 40)
        k = int(rng.integers(1, m + 1))
        x = rng.normal(size=(n, m)).astype(kind)
        x = np.round(x) if ties else x
        kept = x.copy()
        kernels.keep_largest(kept, k)
        for before, after in zip(x, kept, strict=True):
            left = after[after > -np.inf]
            np.testing.assert_array_equal(np.sort(left), np.sort(before)[m - k :])


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_the_level_of_a_batch_is_that_of_its_sorted_values(kind):
    rng = np.random.default_rng(0)
    for shape, spread in (((1, 3), 1), ((40, 61), 1), ((300, 97), 1e-3), ((300, 61), 1e4)):
        x = rng.normal(size=shape) * np.exp(rng.normal(size=shape[1]) * np.log(spread))
        x = x.astype(kind)
        positive = np.sort(x[x > 0])[::-1]
        for kept in {1, 2, len(positive) // 2, len(positive), len(positive) + 1} - {0}:
            expected = positive[kept - 1] if kept <= len(positive) else 0
            assert kernels.largest(x.copy(), kept) == expected
    assert kernels.largest(np.full((4, 5), -1, kind), 3) == 0


@pytest.mark.parametrize("architecture", KINDS)
def test_training_goes_the_same_way_by_either_computation(architecture, monkeypatch):
    rng = np.random.default_rng(0)
    code = rng.random((2000, 24)) * (rng.random((2000, 24)) < 0.1)
    x = (code @ rng.normal(size=(24, 16))).astype(np.float32)
    settings = settings_of(
        architecture, batch_size=250, epochs=6, check_steps=10, other_seed=False, tolerance=None
    )
    trained = {}
    for least in (0.0, np.inf):
        monkeypatch.setattr(gradients, "KERNELS_PAY", least)
        trained[least] = loop.train(x, [64], settings, seed=0)
    fvu = [of.curve[-1]["fvu"] for of in trained.values()]
    assert fvu[0] == pytest.approx(fvu[1], rel=0.02) and fvu[0] < 1


def test_a_computation_is_chosen_by_what_pays():
    settings = settings_of("topk")
    sae = in_training(settings).float()
    few, many = 1000, 10**9
    assert isinstance(gradients_of(sae, settings, NO_PENALTY, many, 1), OfChosen)
    assert isinstance(gradients_of(sae, settings, NO_PENALTY, few, 1), Autograd)
    low = settings_of("topk", precision="bfloat16")
    assert isinstance(gradients_of(sae, low, NO_PENALTY, many, 1), Autograd)
    matryoshka = ARCHITECTURES["matryoshka"].of_settings(20, 37, settings_of("matryoshka"))
    nested = gradients_of(matryoshka, settings_of("matryoshka"), NO_PENALTY, many, 1)
    assert isinstance(nested, Autograd), "its loss has more parts"
    written = gradients_of(sae, settings, NO_PENALTY, many, 1)
    for density, sparse in ((0.5, False), (0.1, True)):
        written.look(torch.tensor(density))
        assert written.counters == {"sparse": sparse}
