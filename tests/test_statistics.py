"""Statistics against known answers, and the published statistic's blindness."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lfp.statistics.crossed import detectable, effect_record, mean_effect
from lfp.statistics.estimates import (
    auroc,
    balanced_accuracy,
    kendall_tau,
    kendall_taus,
    sign_only_ceiling,
    string_tau,
    variance_components,
)
from lfp.statistics.multiple import holm
from lfp.statistics.partitions import (
    PartValues,
    Refits,
    partitions_difference_record,
    partitions_record,
)
from lfp.statistics.records.base import standard_errors
from lfp.statistics.records.kendall import (
    _null_concordance,
    _pairs,
    kendall_difference_record,
    kendall_record,
)
from lfp.statistics.records.labels import (
    _null_auroc,
    _resampled_auroc,
    auroc_record,
    balanced_accuracy_record,
)
from lfp.statistics.records.means import (
    group_mean_record,
    mean_record,
    paired_record,
    perplexity_record,
    ratio_record,
)
from lfp.statistics.records.resampling import (
    behind_counts,
    bootstrap_counts,
    seeded_counts,
)
from lfp.statistics.records.shares import mcnemar_record, proportion_record, two_shares_record


def correlated(n, rho, seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n).round(1)
    return rho * truth + np.sqrt(1 - rho**2) * rng.normal(size=n), truth


def test_a_tau_on_the_wrong_side_is_as_extreme_as_one_on_the_right_side():
    truth = np.arange(30.0)
    right, wrong = (kendall_record(sign * truth, truth, 0, 199, two_sided=True) for sign in (1, -1))
    assert right.p == wrong.p == 1 / 200
    assert kendall_record(-truth, truth, 0, 199).p == 1.0


def test_weighted_tau_of_multiplicities_is_tau_b_of_the_repeated_sample():
    predicted, truth = correlated(30, 0.6, 0)
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 5).astype(float)
    predicted = predicted.round(1)  # ties on both sides
    fast = _pairs(predicted, truth).tau(weights)
    index = [np.repeat(np.arange(30), w.astype(int)) for w in weights]
    slow = [stats.kendalltau(predicted[i], truth[i], variant="b").statistic for i in index]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_the_jackknife_is_tau_b_without_each_unit():
    predicted, truth = (values.round(1) for values in correlated(30, 0.6, 0))
    kept = [np.delete(np.arange(30), i) for i in range(30)]
    slow = [stats.kendalltau(predicted[i], truth[i], variant="b").statistic for i in kept]
    np.testing.assert_allclose(_pairs(predicted, truth).jackknife(), slow, atol=1e-12)


def test_what_many_numbers_share_is_drawn_as_each_would_draw_it():
    rng = np.random.default_rng(3)
    counts = bootstrap_counts(rng, 20, 50)
    np.testing.assert_array_equal(seeded_counts(3, 20, 50), counts)
    assert behind_counts(3, 20, 50).random() == rng.random()
    with pytest.raises(ValueError, match="read-only"):
        seeded_counts(3, 20, 50)[0] = 1


@pytest.mark.parametrize(("x_ties", "y_ties"), [((1,) * 20, (1,) * 20), ((3, 1, 6), (5, 5))])
def test_random_pairings_have_the_variance_of_kendall_with_ties(x_ties, y_ties):
    """Kendall (1970), equation 4.6."""
    null = _null_concordance(x_ties, y_ties, 0, 20_000)
    n, x, y = sum(x_ties), np.array(x_ties), np.array(y_ties)
    whole = n * (n - 1) * (2 * n + 5)
    tied = sum((t * (t - 1) * (2 * t + 5)).sum() for t in (x, y))
    threes = np.prod([(t * (t - 1) * (t - 2)).sum() for t in (x, y)])
    twos = np.prod([(t * (t - 1)).sum() for t in (x, y)])
    variance = (whole - tied) / 18 + threes / (9 * n * (n - 1) * (n - 2)) + twos / (2 * n * (n - 1))
    assert null.var() == pytest.approx(variance, rel=0.05)
    assert abs(null.mean()) < 4 * np.sqrt(variance / len(null))


@pytest.mark.parametrize("ties", [(1,) * 30, (4, 1, 10, 15)])
def test_random_labels_have_the_variance_of_mann_and_whitney_with_ties(ties):
    null, positive = _null_auroc(ties, 10, 30, 0, 20_000), 10
    n, negative = sum(ties), sum(ties) - positive
    tied = sum(t**3 - t for t in ties) / (n * (n - 1))
    assert null.var() == pytest.approx((n + 1 - tied) / (12 * positive * negative), rel=0.05)
    assert null.mean() == pytest.approx(0.5, abs=0.01)


def test_tau_interval_covers_and_its_p_tells_signal_from_none():
    predicted, truth = correlated(120, 0.7, 2)
    record = kendall_record(predicted, truth, seed=0, resamples=500)
    assert record.ci_low < record.estimate < record.ci_high
    assert record.estimate == pytest.approx(stats.kendalltau(predicted, truth).statistic)
    assert record.p < 0.01
    shuffled = np.random.default_rng(3).permutation(predicted)
    null = kendall_record(shuffled, truth, seed=0, resamples=500)
    assert null.ci_low < 0 < null.ci_high
    assert null.p > 0.05


def test_tau_needs_aligned_words():
    with pytest.raises(ValueError, match="aligned"):
        kendall_record(np.zeros(4), np.zeros(5), seed=0)


def test_the_string_tau_does_not_see_a_good_probe():
    """paper_vs_code F1: near 0 for a probe whose correct tau is high, and for one that knows
    nothing.
    """
    words = np.array([f"w{i:03d}" for i in np.random.default_rng(0).permutation(300)])
    good, truth = correlated(300, 0.95, 4)
    assert kendall_tau(good, truth) > 0.7
    assert abs(string_tau(words, good, truth)[0]) < 0.12
    assert string_tau(words, truth, truth)[0] == pytest.approx(1.0)


def test_sign_only_ceiling_is_below_one_and_reached_by_the_signs():
    truth = np.array([-3.0, -2, -1, 1, 2, 3])
    assert sign_only_ceiling(truth) == pytest.approx(kendall_tau(np.sign(truth), truth))
    assert 0.5 < sign_only_ceiling(truth) < 1


def test_wilson_interval_and_exact_p_of_a_share():
    record = proportion_record(9, 10, "word", chance=0.5)
    assert record.estimate == 0.9
    assert (record.ci_low, record.ci_high) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    assert record.p == pytest.approx(11 / 1024)


def test_a_paired_difference_ignores_what_pairs_share():
    rng = np.random.default_rng(0)
    common = rng.normal(scale=10, size=200)
    record = paired_record(common + 0.5, common + 0.01 * rng.normal(size=200), "prompt", 0)
    assert record.ci_low > 0.49
    assert record.p < 0.01
    same = paired_record(common, common, "prompt", 0)
    assert (same.estimate, same.p) == (0.0, 1.0)


def test_the_detectable_difference_is_found_in_four_of_five_repetitions():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 40))
    least = detectable(mean_effect(noise[0][:, None]), 0.95)
    least /= noise[0].std(ddof=1)  # in standard deviations
    p = stats.ttest_1samp(noise + least, 0, axis=1).pvalue
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)
    assert detectable(mean_effect(noise[:1, :1]), 0.95) is None


def test_the_detectable_difference_over_draws_is_found_in_four_of_five_repetitions():
    """Few draws have few degrees of freedom, however many prompts stand beside them."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(4000, 1, 6)) + 0.01 * rng.normal(size=(4000, 100, 1))
    least = detectable(mean_effect(noise[0]), 0.95) / noise[0].mean(0).std(ddof=1)
    shifted = [mean_effect(of_run + least) for of_run in noise]
    p = np.array([effect_record(effect, "prompt", "difference", 0.95).p for effect in shifted])
    assert np.mean(p < 0.05) == pytest.approx(0.8, abs=0.02)


def test_groups_stay_together_in_the_bootstrap():
    """Repeating every row of a group must not narrow the interval, as it would if rows were the
    unit.
    """
    values, groups = np.random.default_rng(0).normal(size=40), np.arange(40)
    few = group_mean_record(values, groups, 0, "word", "m", 2000, 0.95)
    many = group_mean_record(
        np.repeat(values, 25), np.repeat(groups, 25), 0, "word", "m", 2000, 0.95
    )
    assert many.n == few.n == 40
    assert many.ci_high - many.ci_low == pytest.approx(few.ci_high - few.ci_low)


def test_balanced_accuracy_of_a_constant_probe_is_one_half():
    labels = np.array([1, 1, 1, 0])
    assert balanced_accuracy(labels, np.ones(4)) == 0.5
    record = balanced_accuracy_record(
        np.tile(labels, 30), np.ones(120), np.arange(120), 0, "prompt", 200, 0.95
    )
    assert record.estimate == 0.5
    assert record.p is None and record.ci_low is None  # a constant has nothing to be tested


def test_a_score_of_0_says_nothing_and_counts_half():
    labels = np.array([1, 1, 0, 0])
    assert balanced_accuracy(labels, np.zeros(4)) == 0.5
    assert balanced_accuracy(labels, np.array([1.0, 0.0, -1.0, -1.0])) == 0.875
    scores = np.tile([1.0, 0.0, -1.0, -1.0], 30)
    record = balanced_accuracy_record(
        np.tile(labels, 30), scores, np.arange(120), 0, "prompt", 200, 0.95
    )
    assert record.estimate == 0.875 and record.ci_low < 0.875 < record.ci_high


def test_relabelling_the_words_leaves_the_null_of_tau_unchanged():
    """The pairings permutation forgets who is who: p of any relabelling has one distribution."""
    predicted, truth = correlated(40, 0.0, 5)
    rng = np.random.default_rng(6)
    p = [
        kendall_record(predicted[rng.permutation(40)], truth, seed=i, resamples=199).p
        for i in range(200)
    ]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    order = rng.permutation(40)
    one = kendall_record(predicted, truth, 0, 199)
    two = kendall_record(predicted[order], truth[order], 0, 199)
    assert one.estimate == pytest.approx(two.estimate)


def test_equal_predictions_differ_by_exactly_nothing():
    predicted, truth = correlated(60, 0.6, 7)
    record = kendall_difference_record(predicted, predicted, truth, 0, 199)
    assert (record.estimate, record.ci_low, record.ci_high, record.p) == (0.0, 0.0, 0.0, 1.0)
    # Any increasing rescaling of one side changes nothing that tau can see.
    rescaled = kendall_difference_record(predicted, np.exp(3 * predicted), truth, 0, 199)
    assert (rescaled.estimate, rescaled.p) == (0.0, 1.0)
    labels = (truth > 0).astype(int)
    same = auroc_record(labels, predicted, np.arange(60), 0, "word", 199, against=predicted)
    assert (same.estimate, same.p) == (0.0, 1.0)
    right = predicted > 0
    nothing = mcnemar_record(right, right, "word")
    assert (nothing.estimate, nothing.p) == (0.0, 1.0)


def test_a_better_probe_is_seen_to_be_better():
    good, truth = correlated(120, 0.9, 8)
    poor = np.random.default_rng(9).normal(size=120)
    record = kendall_difference_record(good, poor, truth, 0, 500)
    assert record.ci_low > 0.3
    assert record.p < 0.01
    assert record.estimate == pytest.approx(kendall_tau(good, truth) - kendall_tau(poor, truth))


def test_mcnemar_counts_the_units_that_differ():
    a, b = (
        np.array([1] * 12 + [0] * 2 + [1] * 50, dtype=bool),
        np.array([0] * 12 + [1] * 2 + [1] * 50, dtype=bool),
    )
    record = mcnemar_record(a, b, "pair")
    assert record.p == pytest.approx(stats.binomtest(12, 14).pvalue)
    assert record.estimate == pytest.approx(10 / 64)
    assert record.ci_low < record.estimate < record.ci_high


def test_the_interval_of_a_paired_difference_of_shares_is_that_of_bonett_and_price():
    """One unit is added to either side of those that differ."""
    a, b = np.repeat([1, 0, 1], [12, 2, 50]), np.repeat([0, 1, 1], [12, 2, 50])
    record, first, second = mcnemar_record(a, b, "pair"), 13 / 66, 3 / 66
    half = 1.959964 * np.sqrt((first + second - (first - second) ** 2) / 66)
    ends = (first - second - half, first - second + half)
    assert (record.ci_low, record.ci_high) == pytest.approx(ends, abs=1e-6)


def test_auroc_is_that_of_scikit_learn_and_of_its_multiplicities():
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 2, 50), rng.integers(0, 8, 50).astype(float)
    assert auroc(labels, scores) == pytest.approx(roc_auc_score(labels, scores))
    weights = rng.multinomial(50, np.full(50, 1 / 50), 4).astype(float)
    fast = _resampled_auroc(labels, scores, weights)
    np.testing.assert_allclose(
        fast, [roc_auc_score(labels, scores, sample_weight=w) for w in weights]
    )
    record = auroc_record(labels, labels + 0.1 * rng.normal(size=50), np.arange(50), 0, "word", 199)
    assert record.estimate == 1.0
    assert record.p < 0.01


def test_a_worse_area_is_as_significant_as_a_better_one():
    """Two scores that change their roles have the same p."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 40)
    good, poor = labels + 0.5 * rng.normal(size=80), rng.normal(size=80)
    better, worse = (
        auroc_record(labels, one, np.arange(80), 0, "word", 199, against=other)
        for one, other in ((good, poor), (poor, good))
    )
    assert worse.estimate == -better.estimate and worse.p == better.p < 0.02


def test_rows_of_a_unit_change_sides_together():
    """Rows that are repeated within their units make a difference no more significant."""
    rng, labels, units = np.random.default_rng(0), np.repeat([0, 1], 20), np.arange(40)
    one, other = 0.5 * labels + rng.normal(size=40), rng.normal(size=40)
    once, often = (
        auroc_record(
            np.repeat(labels, n), np.repeat(one, n), np.repeat(units, n), 0, "prompt", 199,
            against=np.repeat(other, n),
        )
        for n in (1, 9)
    )  # fmt: skip
    assert often.p == once.p > 0.02


def test_holm_adjusts_the_known_example_and_skips_what_was_not_tested():
    adjusted = holm(np.array([0.01, np.nan, 0.04, 0.03, 0.005]))
    np.testing.assert_allclose(adjusted, [0.03, np.nan, 0.06, 0.06, 0.02])
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_a_ratio_is_paired_by_its_groups():
    rng = np.random.default_rng(0)
    level = rng.uniform(0.1, 1, 60)
    record = ratio_record(2 * level, level, np.arange(60), 0, "text", "r", 500, 0.95)
    assert (record.estimate, record.ci_low, record.ci_high) == pytest.approx((2, 2, 2))


def test_a_ratio_of_means_is_not_the_mean_of_ratios():
    above, below = np.arange(1.0, 9), np.tile([1.0, 3.0], 4)
    record = ratio_record(above, below, np.arange(8), 0, "text", "r", 500, 0.95)
    assert record.estimate == pytest.approx(36 / 16)
    assert record.ci_low < record.estimate < record.ci_high


def test_the_interval_of_a_mean_is_that_of_the_t_test():
    values = np.random.default_rng(0).normal(size=7)
    ends = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    record = mean_record(values, "word", 0.95)
    assert (record.ci_low, record.ci_high) == pytest.approx(tuple(ends))


def test_variance_components_find_what_was_planted():
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"seed": np.repeat(np.arange(200), 4)})
    frame["value"] = 2.0 * rng.normal(size=200)[frame["seed"]] + 0.5 * rng.normal(size=800)
    found = variance_components(frame, "seed", "value")
    assert found["between"] == pytest.approx(4.0, rel=0.3)
    assert found["within"] == pytest.approx(0.25, rel=0.2)
    single = variance_components(frame.drop_duplicates("seed"), "seed", "value")
    assert single["within"] is None
    assert single["between"] > 0


def test_two_shares_have_fishers_p():
    record = two_shares_record(9, 10, 2, 10, "feature")
    assert record.estimate == pytest.approx(0.7)
    assert 0 < record.ci_low < 0.7 < record.ci_high < 1
    assert record.p == pytest.approx(stats.fisher_exact([[9, 1], [2, 8]]).pvalue)


def test_perplexity_of_a_uniform_model_is_its_number_of_words():
    tokens = np.array([3, 5, 8, 4, 9, 6])
    record = perplexity_record(tokens * np.log(50), tokens, 0, 100)
    assert (record.estimate, record.ci_low, record.ci_high) == pytest.approx((50, 50, 50))


# ------------------------------------------------------------------------------ repeated partitions


def test_the_interval_over_partitions_has_the_variance_of_nadeau_and_bengio():
    values = np.array([0.2, 0.3, 0.4, 0.5, 0.6, np.nan])
    refits = Refits(values[:2], np.array([[0.2, 0.2], [0.3, 0.3], [np.nan, 0.1], [np.nan, np.nan]]))
    record = partitions_record(PartValues(values, 0.25, refits), 300, "word", "tau-b", (-1, 1), 0.0)
    half = stats.t.ppf(0.975, 4) * np.sqrt((1 / 5 + 0.25) * 0.025)
    assert record.estimate == pytest.approx(0.4)
    assert (record.ci_low, record.ci_high) == (pytest.approx(0.4 - half), pytest.approx(0.4 + half))
    assert record.p == pytest.approx((1 + 1) / (3 + 1))  # .3 of three draws reaches .25
    # Where t says less than the refits, p is that of t.
    few = Refits(values[:2], np.zeros((999, 2)))
    t = partitions_record(PartValues(values, 0.25, few), 300, "word", "tau-b", (-1, 1), 0.3)
    assert t.p == pytest.approx(stats.t.sf(0.1 / np.sqrt((1 / 5 + 0.25) * 0.025), 4))
    wider = partitions_record(PartValues(values, 90.0), 300, "word", "tau-b", (-1, 1), 0.0)
    assert (wider.ci_low, wider.ci_high, wider.p) == (-1, 1, None)


@pytest.mark.parametrize(
    ("values", "n", "reason"),
    [
        ([], 9, "not estimated: no probe could be trained"),
        ([np.nan, np.nan], 9, "not estimated: no test part carries the statistic"),
        ([0.5, np.nan, np.nan], 9, "no interval and no test: 1 of 3 test parts carry"),
        ([0.5, 0.5, 0.5], 9, "no interval and no test: all test parts have one value"),
        ([0.5, 0.6, 0.7], 3, "no interval and no test: 3 words, 6 are needed"),
    ],
)
def test_parts_that_carry_no_statistic_carry_no_interval(values, n, reason):
    record = partitions_record(PartValues(np.array(values), 0.25), n, "word", "AUROC", (0, 1), 0.5)
    assert reason in record.method
    assert (record.ci_low, record.ci_high, record.p) == (None, None, None)


@pytest.mark.parametrize(("spread", "reaches"), [(0.02, False), (0.5, True)])
def test_an_interval_below_chance_reaches_it_where_the_refits_do(spread, reaches):
    """Chance is in the interval where refits on permuted labels are as low as the probe is."""
    values = -0.2 + 0.01 * np.linspace(-1, 1, 20)
    null = np.random.default_rng(0).normal(0, spread, (199, 1)) + np.zeros((1, 20))
    parts = PartValues(values, 0.25, Refits(values, null))
    record = partitions_record(parts, 300, "word", "tau-b", (-1, 1), 0.0)
    assert (record.ci_high >= 0) == reaches


def test_an_interval_reaches_chance_at_the_level_of_one_of_its_ends():
    """A one-sided p of 0.03 rules chance out at neither end of an interval of 95 %."""
    values, null = 0.2 + 0.01 * np.linspace(-1, 1, 20), np.zeros((199, 20))
    null[:5] = 1.0
    parts = PartValues(values, 0.25, Refits(values, null))
    record = partitions_record(parts, 300, "word", "tau-b", (-1, 1), 0.0)
    assert record.p == 6 / 200 and record.ci_low == 0.0


def test_a_difference_over_partitions_is_tested_by_its_t():
    """Two probes that differ by little in every part differ by more than two that know nothing."""
    rng = np.random.default_rng(0)
    one = PartValues(
        np.linspace(0.5, 0.6, 10), 0.25, Refits(np.linspace(0.5, 0.6, 10), np.zeros(1))
    )
    null = rng.normal(0, 0.1, (2, 199, 10))
    shift = 0.05 + 0.01 * rng.normal(size=10)
    a = one._replace(refits=Refits(one.values, null[0]))
    b = PartValues(one.values - shift, 0.25, Refits(one.values - shift, null[1]))
    about = {"n": 99, "unit": "word", "name": "tau-b", "edges": (-2, 2)}
    record = partitions_difference_record(a.minus(b), **about)
    assert 0 < record.ci_low < 0.05 < record.ci_high
    assert record.p == 0.005
    same = partitions_difference_record(a.minus(a), **about)
    assert (same.estimate, same.ci_low, same.ci_high, same.p) == (0, 0, 0, 1)
    untrained = a.minus(PartValues(np.zeros(0), float("nan")))
    assert np.isnan(partitions_difference_record(untrained, **about).estimate)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_p_of_a_difference_is_that_of_its_own_t_where_that_is_larger(sign):
    """Refits that scatter by nothing make no difference more significant than its t does."""
    values = sign * (0.01 + 0.02 * np.linspace(-1, 1, 20))
    parts = PartValues(values, 0.25, Refits(values, np.zeros((999, 20))))
    record = partitions_difference_record(parts, 300, "word", "tau-b", (-2, 2))
    t = 0.01 / np.sqrt((1 / 20 + 0.25) * values.var(ddof=1))
    assert record.p == pytest.approx(2 * stats.t.sf(t, 19))


def test_many_taus_are_those_of_scipy_over_every_set():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 6, (2, 30, 4)).astype(float)
    member = rng.random((30, 4)) < 0.5
    for some, taus in zip([member, ~member], kendall_taus(x, y, [member, ~member]), strict=True):
        for draw, tau in enumerate(taus):
            of = some[:, draw]
            assert tau == pytest.approx(kendall_tau(x[of, draw], y[of, draw]))
    assert np.isnan(kendall_taus(np.ones((5, 1)), np.eye(5)[:, :1], [np.full((5, 1), True)])).all()


def test_two_units_have_no_tau():
    """The order of two units is right or wrong, which estimates nothing."""
    values, two = np.arange(4.0)[:, None], np.array([[True], [True], [False], [False]])
    [of_two, of_four] = kendall_taus(values, values, [two, np.full((4, 1), True)])
    assert np.isnan(of_two[0]) and of_four[0] == 1


def test_probes_of_two_cells_with_other_numbers_of_refits_are_compared_on_those_of_both():
    rng = np.random.default_rng(0)

    def parts(draws: int) -> PartValues:
        values = rng.normal(0.3, 0.1, 50)
        return PartValues(values, 0.25, Refits(values[:10], rng.normal(0, 0.1, (draws, 10))))

    for first, second in ((199, 499), (499, 199)):
        difference = parts(first).minus(parts(second))
        record = partitions_difference_record(difference, 300, "word", "tau-b", (-2.0, 2.0))
        assert "199 refits" in record.method
    fewer_partitions = parts(199)._replace(refits=Refits(np.zeros(5), np.zeros((199, 5))))
    assert parts(199).minus(fewer_partitions).refits is None


@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_standard_errors_are_read_from_intervals_and_their_methods(confidence):
    rng = np.random.default_rng(0)
    few, many = rng.normal(size=4), rng.integers(0, 2, 10_000)
    rows = pd.DataFrame([
        mean_record(few, "seed", confidence).row(),
        partitions_record(
            PartValues(few, 0.25), 40, "word", "tau", (-10, 10), 0.0, confidence
        ).row(),
        proportion_record(many.sum(), len(many), "word", None, confidence).row(),
        mean_record(few[:1], "seed", confidence).row(),
    ])  # fmt: skip
    error = few.std(ddof=1)
    expected = [error / 2, error * np.sqrt(1 / 4 + 0.25), many.std() / 100]
    got = standard_errors(rows, confidence).to_numpy()
    assert got[:3] == pytest.approx(expected, rel=1e-3) and np.isnan(got[3])


def test_standard_errors_of_crossed_effects_have_their_degrees_of_freedom():
    rng = np.random.default_rng(1)
    prompts, draws = rng.normal(size=512), rng.normal(size=3)
    effect = mean_effect(prompts[:, None] + draws[None])
    row = effect_record(effect, "prompt", "mean", 0.95).row()
    [error] = standard_errors(pd.DataFrame([row]), 0.95)
    parts = prompts.var(ddof=1) / 512 + draws.var(ddof=1) / 3
    assert error == pytest.approx(parts**0.5, rel=0.01)
