"""Mutual feature regularisation: the matching, the gradient, the twin and the guard."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from benchmarks import alternatives, dictionaries
from lfp.costs import dictionaries as costs
from lfp.files.resume import DivergedError
from lfp.sae.architectures import ARCHITECTURES
from lfp.sae.training import loop, trainer
from lfp.sae.training.mutual import Pull, check_twin, greedy_matching
from lfp.settings import Autoencoder, Mutual
from tests.test_autoencoder import planted

SETTINGS = {"architecture": "topk", "k": 3, "batch_size": 250, "epochs": 6, "check_steps": 5}


def directions(rows: int, width: int, seed: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, width, generator=draw, dtype=torch.float64), dim=1)


def one_by_one(one: torch.Tensor, other: torch.Tensor) -> list[int]:
    """The greedy matching pair by pair."""
    cosine, matched = (one @ other.T).numpy(), [0] * len(one)
    for _ in range(len(one)):
        row, column = np.unravel_index(cosine.argmax(), cosine.shape)
        matched[row] = int(column)
        cosine[row], cosine[:, column] = -np.inf, -np.inf
    return matched


def test_the_matching_is_the_greedy_one_and_one_to_one():
    for seed in range(5):
        one, other = directions(40, 6, seed), directions(40, 6, seed + 100)
        matched = greedy_matching(one, other)
        assert matched.tolist() == one_by_one(one, other)
        assert sorted(matched.tolist()) == list(range(40))
    order = torch.randperm(40)
    assert torch.equal(greedy_matching(one[order], one), order)
    alike = one[:1].expand(5, -1)
    assert greedy_matching(alike, alike).tolist() == [0, 1, 2, 3, 4]


def test_the_gradient_is_that_of_the_mean_over_pairs():
    settings = Mutual(weight=2.5, partners=3, warm_up=0)
    saes = []
    for seed in range(3):
        torch.manual_seed(seed)
        sae = ARCHITECTURES["topk"](6, 10).double()
        sae.decoder.data.mul_(torch.rand(10, 1) + 0.5)
        saes.append(sae)
    first, partners = saes[0], saes[1:]
    pull = Pull(first, partners, settings)
    pull.prepare(0)
    first.decoder.grad = torch.zeros_like(first.decoder)
    pull.add()
    pairs = [
        1 - (first.W_dec * other.W_dec[greedy_matching(first.W_dec, other.W_dec)]).sum(1).mean()
        for other in partners
    ]
    pairs.append(torch.zeros((), dtype=torch.float64))  # the third pair does not move the first
    [expected] = torch.autograd.grad(settings.weight * torch.stack(pairs).mean(), first.decoder)
    torch.testing.assert_close(first.decoder.grad, expected)
    assert torch.linalg.vecdot(first.decoder.grad, first.decoder.detach()).abs().max() < 1e-12


def test_the_weight_rises_and_directions_are_matched_every_twenty_steps():
    one, other = (ARCHITECTURES["topk"](6, 10) for _ in range(2))
    pull = Pull(one, [other], Mutual(weight=1.0, warm_up=3))
    strengths = []
    for step in range(5):
        pull.prepare(step)
        strengths.append(pull.strength.item() * 10)
    assert strengths == pytest.approx([0.25, 0.5, 0.75, 1, 1])
    matched = pull.matched.clone()
    other.decoder.data = other.decoder.data.flip(0)
    pull.prepare(19)
    assert torch.equal(pull.matched, matched)
    pull.prepare(20)
    assert torch.equal(pull.matched, 9 - matched)


@pytest.mark.parametrize("architecture", ["standard", "topk", "batchtopk", "jumprelu", "gated"])
def test_partners_agree_more_than_strangers_and_the_twin_is_a_plain_training(architecture):
    x, _ = planted(2000)
    settings = SETTINGS | {"architecture": architecture, "l0": 3.0, "learning_rate": 5e-3}
    plain = loop.train(x, [24], Autoencoder(**settings), seed=0)
    mutual = Autoencoder(**settings, mutual=Mutual(weight=0.3, warm_up=5))
    together = loop.train(x, [24], mutual, seed=0)
    assert [sae.d_sae for sae in together.autoencoders] == [24, 24]
    names = {row["autoencoder"] for row in together.curve}
    assert names == {
        "24 latents", "24 latents, other seed", "24 latents, partner 1",
        "24 latents, other seed, partner 1", "24 latents, without partners",
    }  # fmt: skip
    alone = [row["fvu"] for row in plain.curve if row["autoencoder"] == "24 latents"]
    twin = [r["fvu"] for r in together.curve if r["autoencoder"] == "24 latents, without partners"]
    assert twin == alone
    assert not torch.equal(together.autoencoders[0].W_dec, plain.autoencoders[0].W_dec)


def test_a_group_resumes_to_the_same_weights(tmp_path, monkeypatch):
    x, _ = planted(2000)
    settings = Autoencoder(**SETTINGS, mutual=Mutual(weight=0.5, partners=3, warm_up=9))
    whole = loop.train(x, [12, 24], settings, seed=1).autoencoders
    monkeypatch.setattr("lfp.files.resume.SAVE_SECONDS", 0.0)

    class KilledError(Exception):
        pass

    steps, plain = 0, trainer.Trainer.step

    def killed(self, *args) -> None:
        nonlocal steps
        steps += 1
        if steps == 300:
            raise KilledError
        plain(self, *args)

    state = tmp_path / "state"
    with monkeypatch.context() as patch, pytest.raises(KilledError):
        patch.setattr(trainer.Trainer, "step", killed)
        loop.train(x, [12, 24], settings, seed=1, state_path=state)
    assert state.exists()
    resumed = loop.train(x, [12, 24], settings, seed=1, state_path=state).autoencoders
    for one, other in zip(whole, resumed, strict=True):
        assert all(
            torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True)
        )


def test_estimates_count_partners_and_twins_and_nothing_that_is_taken():
    settings = Autoencoder(mutual=Mutual(weight=0.1, partners=3))
    taken = Autoencoder(architecture="pretrained")
    flops = [
        costs._training(one.as_json() | {"by_gradients": True}, 16, 1000).flops
        for one in (settings, Autoencoder(), taken)
    ]
    assert flops[0] == 4 * flops[1] > flops[2] == 0


def test_partners_of_no_token_stay_as_they_began():
    """An empty corpus is no collapse: there is no look at which a twin could be better."""
    settings = Autoencoder(mutual=Mutual(weight=0.1))
    trained = loop.train(np.zeros((0, 8), np.float16), [8], settings, seed=0)
    assert trained.steps == 0 and not trained.curve and len(trained.autoencoders) == 2


def test_too_large_a_weight_fails_with_the_numbers():
    x, _ = dictionaries.Truth.of_seed(0).drawn(4000, 1)
    settings = Autoencoder(
        **SETTINGS | {"epochs": 12}, learning_rate=1e-2, other_seed=False, tied=False,
        mutual=Mutual(weight=300.0, warm_up=5),
    )  # fmt: skip
    with pytest.raises(DivergedError, match=r"FVU is 0\.\d+, more than 1.5 times .*lower mutual"):
        loop.train(x, [64], settings, seed=0)
    curve = [{"autoencoder": name, "fvu": fvu} for name, fvu in (("a", 0.15), ("b", 0.1))]
    check_twin("a", curve, "b")
    with pytest.raises(DivergedError):
        check_twin("a", [*curve, {"autoencoder": "a", "fvu": 0.16}], "b")


def test_a_partner_helps_to_recover_features_at_equal_error():
    """Two seeds; the benchmark has ten, with the standard error of the gain."""
    truth = dictionaries.Truth.of_seed(0)
    row = alternatives.gains(truth, alternatives.WEIGHTS[0], seeds=(1, 3))
    assert row["difference"]["recovered"]["mean"] > 0
    assert row["with"]["fvu"]["mean"] < 1.05 * row["without"]["fvu"]["mean"]
