"""The PPO loop against hand computations and properties that must hold."""

import copy
import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from lfp.feedback.lexica import vader_lexicon
from lfp.feedback.scoring import lexicon_reward
from lfp.finetune import ppo
from lfp.finetune import prompts as prefixes
from lfp.models import losses, tokens
from lfp.settings import PPO
from tests.conftest import make_model

SETTINGS = PPO(
    steps=2, batch_size=8, mini_batch_size=4, epochs=2, learning_rate=1e-3, warmup_steps=1,
    prompt_tokens=(2, 4),
    new_tokens=(3, 5), save_every=1,
)  # fmt: skip


def test_the_loss_is_the_hand_computation_on_a_fixed_batch():
    """One sequence, two tokens; the second ratio is clipped, the second value too."""
    log_p = torch.log(torch.tensor([[[0.5, 0.5], [0.9, 0.1]]]))
    likely, entropies = log_p[..., 0], -(log_p.exp() * log_p).sum(-1)
    response, mask = torch.tensor([[0, 0]]), torch.tensor([[True, True]])
    old = torch.log(torch.tensor([[0.5, 0.6]]))
    rollout = ppo.Rollout(
        {}, response, mask, old, values=torch.tensor([[0.0, 0.0]]),
        advantages=torch.tensor([[1.0, 1.0]]),
        returns=torch.tensor([[1.0, 1.0]]),
    )  # fmt: skip
    values = torch.tensor([[0.1, 0.5]])
    loss, parts = ppo.ppo_loss(likely, entropies, values, rollout, PPO())
    policy = -(1.0 + 1.2) / 2  # ratios 1 and 1.5, clipped to 1.2
    value = 0.5 * (0.9**2 + max(0.5**2, 0.8**2)) / 2  # the second value moves 0.5, clipped to 0.2
    assert parts["policy_loss"].item() == pytest.approx(policy, rel=1e-5)
    assert parts["value_loss"].item() == pytest.approx(value, rel=1e-5)
    assert loss.item() == pytest.approx(policy + 0.1 * value, rel=1e-5)
    assert parts["clip_fraction"].item() == 0.5
    entropy = (math.log(2) - 0.9 * math.log(0.9) - 0.1 * math.log(0.1)) / 2
    assert parts["entropy"].item() == pytest.approx(entropy, rel=1e-5)


def test_advantages_without_discount_are_rewards_to_go_minus_values():
    rewards, values = torch.tensor([[0.0, 1.0, 5.0]]), torch.tensor([[0.5, 0.25, 9.0]])
    mask = torch.tensor([[True, True, False]])
    advantages, returns = ppo.advantages_and_returns(rewards, values, mask, gamma=1.0, lam=1.0)
    torch.testing.assert_close(returns[0, :2], torch.tensor([1.0, 1.0]))
    raw = torch.tensor([0.5, 0.75])
    torch.testing.assert_close(
        advantages[0, :2], (raw - raw.mean()) / raw.std(unbiased=False), rtol=1e-4, atol=1e-4
    )


def test_the_reward_comes_at_a_responses_last_token_and_kl_is_a_cost(neox, tokenizer, reviews):
    """With values of 0 and nothing discounted, the first return is the reward less the KL."""
    value, reference = ppo.PolicyWithValue(neox), make_model("gpt_neox", tokenizer, seed=1)
    torch.nn.init.zeros_(value.value_head.weight)
    torch.nn.init.zeros_(value.value_head.bias)
    settings = replace(SETTINGS, gamma=1.0, gae_lambda=1.0)
    prompts, lengths = [ids[:4] for ids in tokenizer(reviews[:8])["input_ids"]], [3, 4, 5, 5] * 2
    rollout, _ = ppo.collect(
        value,
        reference,
        tokenizer,
        prompts,
        torch.tensor(lengths),
        lambda _, completions: np.full(len(completions), 7.0),
        0.5,
        settings,
        seed=0,
    )
    before = ppo.reference_log_probs(reference, rollout.batch, rollout.response, rollout.mask)
    kl = ((rollout.log_probs - before) * rollout.mask).sum(1)
    assert kl.abs().max() > 0.1
    torch.testing.assert_close(rollout.returns[:, 0], 7.0 - 0.5 * kl)


def test_the_kl_controller_moves_towards_its_target():
    settings = PPO()
    assert ppo.updated_kl_coef(0.5, 12.0, settings) == pytest.approx(0.5 * (1 + 0.2 * 64 / 10_000))
    assert ppo.updated_kl_coef(0.5, 0.0, settings) < 0.5
    assert ppo.updated_kl_coef(0.5, 6.0, settings) == 0.5


def test_the_learning_rate_rises_and_falls_in_a_line():
    """The first step has a rate above 0 already, and so has the last one."""
    rates = [ppo._schedule(step, PPO(steps=12, warmup_steps=4)) for step in range(12)]
    np.testing.assert_allclose(rates, [0.25, 0.5, 0.75, 1.0, *np.arange(8, 0, -1) / 8])


def test_log_probabilities_do_not_depend_on_left_padding(model, tokenizer):
    ids = tokenizer("The film was gentle, ten of ten")["input_ids"]
    other = tokenizer("I saw the acting in this movie and the cast")["input_ids"]
    response = torch.tensor([[5, 6, 7]])

    def batch(rows):
        from lfp.models.tokens import pad_batch

        return pad_batch(
            [row + response[0].tolist() for row in rows], tokenizer.pad_token_id, "cpu", left=True
        )

    mask = torch.ones_like(response, dtype=torch.bool)
    alone = ppo.reference_log_probs(model, batch([ids]), response, mask)
    both = batch([ids, other * 2])
    padded = ppo.reference_log_probs(model, both, response.repeat(2, 1), mask.repeat(2, 1))
    torch.testing.assert_close(alone[0], padded[0], atol=1e-5, rtol=1e-5)
    shorter = torch.tensor([[True, True, True], [True, False, False]])
    cut = ppo.reference_log_probs(model, both, response.repeat(2, 1), shorter)
    torch.testing.assert_close(cut, padded * shorter, atol=1e-5, rtol=1e-5)
    assert (cut[1, 0] < 0) and (cut[1, 1:] == 0).all()


def test_an_untouched_policy_has_no_kl_and_a_ratio_of_one(model, tokenizer, reviews):
    reference = copy.deepcopy(model)
    value = ppo.PolicyWithValue(model)
    prompts = [ids[:4] for ids in tokenizer(reviews[:8])["input_ids"]]
    lengths = torch.full((8,), 5)
    reward = lexicon_reward(vader_lexicon())
    rollout, row = ppo.collect(
        value, reference, tokenizer, prompts, lengths, reward, 0.5, SETTINGS, seed=0
    )
    assert row["kl"] == pytest.approx(0, abs=1e-4)
    hidden, values = value(rollout.batch, rollout.response.shape[1])
    likely = losses.log_probabilities(model, hidden, rollout.response)
    _, parts = ppo.ppo_loss(likely, torch.zeros_like(likely), values, rollout, SETTINGS)
    assert parts["clip_fraction"] == 0


def test_a_constant_reward_leaves_the_lexicon_reward_where_it_was(tokenizer, reviews):
    """What a constant reward teaches must be nothing: the policy stays within noise of its base on
    the lexicon.
    """
    policy = make_model("gpt_neox", tokenizer)
    base = copy.deepcopy(policy)
    ppo.train(policy, tokenizer, reviews, lambda p, c: np.ones(len(p)), SETTINGS, seed=0)
    scores = ppo.evaluate(
        policy, base, tokenizer, reviews, lexicon_reward(vader_lexicon()), SETTINGS, 64, seed=0
    )
    gain = scores["policy"] - scores["base"]
    assert abs(gain.mean()) <= 2.6 * gain.std() / 8 + 1e-9


def test_a_learnable_reward_is_learned(tokenizer, reviews):
    """A reward for one letter is raised well above the base's, on held-out prefixes."""
    policy = make_model("gpt_neox", tokenizer)
    base = copy.deepcopy(policy)

    def reward(prompts, completions):
        return np.array([text.count("e") / 2 for text in completions])

    settings = PPO(
        steps=25, batch_size=32, mini_batch_size=16, epochs=4, learning_rate=1e-2, warmup_steps=2,
        init_kl_coef=0.02,
        prompt_tokens=(2, 4), new_tokens=(6, 6),
    )  # fmt: skip
    curve = ppo.train(policy, tokenizer, reviews[:100], reward, settings, seed=0)
    scores = ppo.evaluate(policy, base, tokenizer, reviews[100:], reward, settings, 64, seed=1)
    assert {"reward", "kl", "entropy", "value_loss", "clip_fraction"} <= set(curve[-1])
    assert scores["policy"].mean() > scores["base"].mean() + 0.3
    assert scores["kl"].mean() > 0


def test_a_killed_run_resumes_to_the_same_weights(tokenizer, reviews, tmp_path, monkeypatch):
    reward = lexicon_reward(vader_lexicon())
    settings = PPO(**{**SETTINGS.__dict__, "steps": 4})
    straight, written = make_model("gpt_neox", tokenizer), Counter()
    curve = ppo.train(straight, tokenizer, reviews, reward, settings, 0, tmp_path / "a", written)

    state = tmp_path / "b"
    collect, calls = ppo.collect, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return collect(*args, **kwargs)

    monkeypatch.setattr(ppo, "collect", killed)
    with pytest.raises(KeyboardInterrupt):
        ppo.train(
            make_model("gpt_neox", tokenizer),
            tokenizer,
            reviews,
            reward,
            settings,
            seed=0,
            state_path=state,
        )
    assert state.exists()
    monkeypatch.setattr(ppo, "collect", collect)
    resumed, again = make_model("gpt_neox", tokenizer), Counter()
    assert ppo.train(resumed, tokenizer, reviews, reward, settings, 0, state, again) == curve
    assert again == written
    assert written.total() > settings.steps * settings.batch_size
    for ours, theirs in zip(straight.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_corpus_without_long_enough_documents_is_an_error(tokenizer):
    with pytest.raises(ValueError, match="no document of the corpus has 9 tokens"):
        prefixes.sample_prompts(tokenizer, ["Short."], 4, (2, 9), np.random.default_rng(0))


def test_documents_alone_that_are_drawn_are_encoded(tokenizer, reviews, monkeypatch):
    """Where all are long enough the draws are those of any list; one that is not is drawn again."""
    texts, rng = reviews * 100, np.random.default_rng(0)
    encoded = []

    def watched(tokenizer, texts, **options):
        encoded.extend(texts)
        return tokens.tokenize(tokenizer, texts, **options)

    monkeypatch.setattr(prefixes, "tokenize", watched)
    prompts = prefixes.sample_prompts(tokenizer, texts, 6, (2, 4), rng)
    assert len(encoded) <= 6
    same = np.random.default_rng(0)
    picks, lengths = same.integers(0, len(texts), 6), same.integers(2, 5, 6)
    ids = [tokenizer(texts[pick])["input_ids"] for pick in picks]
    assert prompts == [row[:length] for row, length in zip(ids, lengths, strict=True)]
    assert rng.random() == same.random()
    mixed = [text for review in reviews[:20] for text in (review, "No.", "")]
    prompts = prefixes.sample_prompts(tokenizer, mixed, 300, (6, 6), np.random.default_rng(1))
    starts = {tuple(tokenizer(review)["input_ids"][:6]) for review in reviews[:20]}
    assert {tuple(row) for row in prompts} == starts  # every long one, and no other
