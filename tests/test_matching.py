"""Arms of ablation and their random sets: equal in KL, different where the reward is planted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from lfp.interventions import arms, matching, prompts, selection
from lfp.interventions.ablation import Conditions, ablate
from lfp.interventions.arms import ARMS, Arm
from lfp.sae.architectures.standard import Standard
from lfp.settings import Ablation
from lfp.statistics.crossed import effect_record, mean_effect, ratio_effect
from lfp.tables.ablation import ArmKey, against_random, cost_beside_random, effect, kl_ratio
from tests.test_explanations_ablation import feature_table


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
def test_random_sets_are_cut_to_the_damage_of_their_arm(strength):
    """Latents do damage of very different size, and together more than one by one."""
    rng = np.random.default_rng(0)
    table = feature_table()
    weight = {
        (row.layer, row.feature): row.mean_activation * rng.lognormal()
        for row in table.itertuples()
    }

    def damage(sets):
        sums = [sum(weight[n, i] for n, some in one.items() for i in some) for one in sets]
        return np.array(sums) ** 1.5

    chosen = selection.explained_set(table)
    size, target = sum(map(len, chosen.values())), strength * damage([chosen])[0]
    orders = [selection.matched_order(table, chosen, rng) for _ in range(6)]
    sets = matching.matched_sets(orders, [size] * 6, [target] * 6, damage)
    ratios = damage(sets) / target
    assert np.mean(ratios) == pytest.approx(1, rel=0.2)
    assert np.sum(np.abs(ratios - 1) <= matching.TOLERANCE) >= 5  # where one latent does too much
    assert len({str(one) for one in sets}) == 6
    assert not any(set(one.get(n, ())) & set(chosen[n]) for one in sets for n in chosen)
    if strength <= 1:
        assert min(selection.share_within_decile(table, chosen, one) for one in sets) > 0.9
    # What all latents together do not do, nothing does.
    [whole] = matching.matched_sets(orders[:1], [size], [1e9], damage)
    assert sum(map(len, whole.values())) == len(orders[0])


def widest(candidates):
    """A selector of one's own: the latents of the largest mean activation."""
    table = candidates.explanations
    return selection.top_set(table, {0: range(4), 1: range(4)}, table["mean_activation"])


def test_every_arm_has_random_sets_of_its_own_kl(neox, tokenizer, reviews, monkeypatch):
    """Under each of its actions, and an arm from outside without a line more."""
    monkeypatch.setitem(ARMS, "widest", Arm(widest, all_actions=True))
    torch.manual_seed(0)
    saes = {0: Standard(16, 64), 1: Standard(16, 64)}
    settings = Ablation(
        arms=("none", "layer", "explained", "widest", "random"), actions=("zero", "negative"),
        random_draws=3, new_tokens=6, prefix_tokens=5, prompts=12, batch_size=48,
    )  # fmt: skip
    asked = prompts.prefix_tokens(tokenizer, reviews, 5, 12)
    damage = matching.Damage(neox, tokenizer, saes, asked, settings, seed=1)
    under = Conditions(settings, saes, feature_table(64), None, 2, damage)
    drawn = {}
    for condition in under.all:
        key = condition.what, condition.action, condition.matched_to
        drawn.setdefault(key, []).append(damage([condition.edits])[0])
    assert {key[0] for key in drawn if not key[2]} == {"none", "layer", "explained", "widest"}
    of = [(key[2], key[1]) for key in drawn if key[2]]
    assert of == [(arm, how) for arm in ("explained", "widest") for how in ("zero", "negative")]
    for arm, action in of:
        [target] = drawn[arm, action, ""]
        values = drawn["random", action, arm]
        assert len(values) == 3 and np.mean(values) == pytest.approx(target, rel=0.2)

    result = ablate(
        neox, tokenizer, under, asked, [], lambda p, c: np.zeros(len(c)), settings, seed=3
    )
    kl = result.completions.groupby(["matched_to", "arm", "action"])["kl"].mean()
    for arm, action in of:
        assert kl[arm, "random", action] == pytest.approx(kl["", arm, action], rel=0.2)


def written(rng, change, kl, draws, matched_to=""):
    """Completions of 96 prompts by draw, whose mean reward an arm changes by `change`."""
    prompt, draw = np.repeat(np.arange(96), draws), np.tile(np.arange(draws), 96)
    spread = rng.normal(scale=0.1, size=draws)[draw] if matched_to else 0.0
    reward = np.sin(prompt) + change + spread + rng.normal(scale=0.5, size=len(prompt))
    values = {"prompt": prompt, "draw": draw, "reward": reward, "features": 5, "matched": 1.0}
    nats = kl * rng.gamma(2, 0.5, len(prompt))
    return {"completions": pd.DataFrame(values | {"kl": nats, "tokens": 9, "distinct_2": 1.0})}


def test_the_set_that_carries_the_reward_shows_and_a_shuffled_one_does_not(monkeypatch):
    monkeypatch.setitem(ARMS, "widest", Arm(widest))
    rng = np.random.default_rng(1)
    of = {name: ArmKey("policy", "random", "zero", name) for name in ("explained", "widest")}
    cells = {
        ArmKey("policy", "none", "zero"): written(rng, 0.0, 0.0, 1),
        ArmKey("policy", "explained", "zero"): written(rng, -0.8, 3.0, 1),
        ArmKey("policy", "widest", "zero"): written(rng, -0.2, 3.0, 1),
        of["explained"]: written(rng, -0.2, 3.0, 6, "explained"),
        of["widest"]: written(rng, -0.2, 3.0, 6, "widest"),
    }  # fmt: skip
    for quantity in ("difference", "reward_per_nat"):
        carried = effect_record(
            against_random(cells, of["explained"], quantity, 0.95), "p", "d", 0.95
        )
        shuffled = effect_record(
            against_random(cells, of["widest"], quantity, 0.95), "p", "d", 0.95
        )
        assert carried.ci_high < 0 and carried.p < 0.01
        assert shuffled.ci_low < 0 < shuffled.ci_high and shuffled.p > 0.05
    # Sets that break the model five times as much are compared per nat, in the arm's own nats.
    cells[of["explained"]] = written(rng, -1.0, 15.0, 6, "explained")
    assert kl_ratio(cells, of["explained"]) > 4
    unequal = against_random(cells, of["explained"], "difference", 0.95)
    assert "not at equal KL" in unequal.method
    cost = cost_beside_random(cells, of["explained"], 0.95)
    assert cost.estimate == pytest.approx(-0.8 + 1.0 / 5, abs=0.2) and cost.p < 0.01
    # An arm that does nothing has no price.
    cells[of["explained"]] = written(rng, 0.0, 0.0, 6, "explained")
    nothing = against_random(cells, of["explained"], "reward_per_nat", 0.95)
    assert "not told from 0" in nothing.method


def test_a_rise_in_cross_entropy_is_positive():
    """The effect of an arm is what its neutral texts lose beyond those of no arm."""

    def arm(loss: float) -> dict[str, pd.DataFrame]:
        neutral = pd.DataFrame({"text": range(4), "draw": 0, "loss": loss})
        return {"neutral": neutral, "completions": pd.DataFrame({"features": [5]})}

    none, key = (ArmKey("policy", name, "zero") for name in ("none", "explained"))
    assert effect({none: arm(1.0), key: arm(1.5)}, key, "cross_entropy", 0.95).value == 0.5


@pytest.mark.parametrize("per_nat", [False, True])
def test_intervals_over_prompts_and_draws_cover_what_they_say(per_nat):
    """Sets that do differ: an interval over prompts alone would be far too narrow."""
    rng, hits, narrow = np.random.default_rng(2), [], []
    for _ in range(400):
        draws = rng.normal(scale=0.3, size=6)
        values = rng.normal(scale=0.4, size=(48, 6)) + rng.normal(size=(48, 1)) + draws
        kl = rng.gamma(2, 1.0, (48, 6)) if per_nat else None
        effect = ratio_effect(kl + values, kl) if per_nat else mean_effect(values)
        for effects, kept in ((effect, hits), (replace(effect, by_draw=()), narrow)):
            record = effect_record(effects, "prompt", "mean", 0.95)
            kept.append(record.ci_low <= float(per_nat) <= record.ci_high)
    assert 0.92 <= np.mean(hits) <= 0.985
    assert np.mean(narrow) < np.mean(hits)


def test_an_effect_of_one_draw_has_the_t_test_of_its_prompts():
    values = np.random.default_rng(0).normal(0.5, 1.0, (8, 1))
    record = effect_record(mean_effect(values), "prompt", "mean", 0.95)
    theirs = stats.ttest_1samp(values[:, 0], 0)
    assert record.p == pytest.approx(theirs.pvalue)
    assert (record.ci_low, record.ci_high) == pytest.approx(theirs.confidence_interval(0.95))


def test_the_difference_of_two_effects_counts_the_draws_of_both():
    one, other = (mean_effect(np.random.default_rng(seed).normal(size=(6, 4))) for seed in (0, 1))
    assert (one - other).by_draw == one.by_draw + other.by_draw
    assert "4 draws and 4 draws" in effect_record(one - other, "prompt", "mean", 0.95).method


def test_equal_effects_of_few_prompts_have_neither_interval_nor_test():
    few = effect_record(mean_effect(np.full((2, 1), 0.5)), "prompt", "mean", 0.95)
    assert (few.estimate, few.ci_low, few.p) == (0.5, None, None) and "2 prompts" in few.method
    none = effect_record(mean_effect(np.zeros((8, 1))), "prompt", "mean", 0.95)
    assert (none.ci_low, none.ci_high, none.p) == (0, 0, 1.0)


def test_runs_are_those_of_arms_that_do_not_draw():
    assert arms.runs(("none", "explained", "random"), ("zero", "mean")) == {
        "none": ("zero",), "explained": ("zero", "mean"),
    }  # fmt: skip
