"""Pursuit dictionaries: the pursuit, the one pass, and what they find of known features."""

import numpy as np
import pytest
import torch

from benchmarks import alternatives, dictionaries
from lfp.sae import store
from lfp.sae.architectures.itda import ITDA, pursuit
from lfp.sae.training import loop
from lfp.settings import Autoencoder


def unit(rows: int, width: int, seed: int = 0) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, width, generator=draw), dim=1)


def test_of_orthonormal_directions_the_pursuit_takes_the_largest_and_is_exact():
    directions = torch.linalg.qr(torch.randn(8, 8)).Q
    x = torch.randn(50, 8)
    along = x @ directions.T
    code = pursuit(x, directions, 3)
    top = along.topk(3)
    expected = torch.zeros_like(code).scatter(1, top.indices, top.values.clamp(min=0))
    torch.testing.assert_close(code, expected, atol=1e-5, rtol=1e-4)


def test_the_error_falls_with_steps_and_codes_are_sparse_and_positive():
    x, directions = torch.randn(100, 10), unit(40, 10)
    codes = [pursuit(x, directions, steps) for steps in (1, 2, 4, 8)]
    errors = [(x - code @ directions).pow(2).sum().item() for code in codes]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.3 * errors[0]
    for steps, code in zip((1, 2, 4, 8), codes, strict=True):
        assert (code >= 0).all() and (code > 0).sum(1).max() <= steps
    torch.testing.assert_close(pursuit(7 * x, directions, 4), 7 * codes[2], rtol=1e-4, atol=1e-4)
    assert torch.equal(pursuit(-directions[:1], directions[:1], 3), torch.zeros(1, 1))


def test_a_token_joins_where_too_much_of_it_is_left():
    """As if tokens came one by one, in the order of the pass."""
    rng = np.random.default_rng(3)
    x = rng.normal(size=(400, 6)).astype(np.float32)
    settings = Autoencoder(
        architecture="itda", k=2, tau=0.4, batch_size=150, normalise=False, other_seed=False
    )
    trained = loop.train(x, [30], settings, seed=5)
    [sae] = trained.autoencoders
    data = loop._Data(x, None, settings, "cpu")
    order, chosen = loop._Order(data.batches, 5), []
    for step in range(data.batches):
        batch = data.batch(order.place(step))
        for place in np.random.default_rng((5, step)).permutation(len(batch)):
            token = batch[place : place + 1]
            known = torch.stack(chosen) if chosen else torch.zeros(1, 6)
            left = token - pursuit(token, known, 2) @ known
            if left.pow(2).sum() > 0.4 * token.pow(2).sum() and len(chosen) < 30:
                chosen.append(token[0] / token.norm())
    torch.testing.assert_close(sae.W_dec, torch.stack(chosen))
    assert trained.flat is None and trained.steps == data.batches == 3


@pytest.mark.parametrize("tau", [0.05, 0.9])
def test_a_dictionary_has_as_many_directions_as_tokens_have_joined(tau, tmp_path):
    x, _ = dictionaries.Truth.of_seed(0).drawn(3000, 1)
    settings = Autoencoder(architecture="itda", k=3, tau=tau, batch_size=500)
    saes = loop.train(x, [32, 64], settings, seed=0).autoencoders
    full = tau == 0.05
    assert [sae.d_sae == size for sae, size in zip(saes, (32, 64, 32), strict=True)] == [full] * 3
    store.save(saes[1], tmp_path, {})
    again, values = store.load(tmp_path), torch.from_numpy(x[:100])
    torch.testing.assert_close(again.encode(values), saes[1].encode(values))
    assert (again.k, again.tau) == (3, tau)


def test_equal_activations_give_one_direction():
    x = np.ones((200, 4), np.float32)
    settings = Autoencoder(architecture="itda", k=3, batch_size=50, other_seed=False)
    [sae] = loop.train(x, [8], settings, seed=0).autoencoders
    assert sae.d_sae == sae.k == 1
    torch.testing.assert_close(sae.reconstruct(torch.from_numpy(x)), torch.from_numpy(x))


def test_known_features_are_found_better_than_by_random_directions():
    """Tokens are sums of features, so that the directions are worse than those of a training."""
    truth = dictionaries.Truth.of_seed(0)
    row = alternatives.trained(truth, 0, 256, architecture="itda", k=3, tau=0.1)
    random = dictionaries.controls(truth, *truth.drawn(2000, 2))["random decoder"]
    assert row["f1"] > random["f1"] + 0.25 and row["mcc"] > random["mcc"] + 0.25
    assert row["fvu"] < 0.3 and row["l0"] <= 3 and isinstance(row["latents"], int)
    assert ITDA.by_gradients is False
