"""Statistics against known answers, and the published statistic's blindness."""

import numpy as np
import pytest
from scipy import stats

from workflow_scripts.lfp import statistics


def correlated(n, rho, seed):
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=n).round(1)
    return rho * truth + np.sqrt(1 - rho**2) * rng.normal(size=n), truth


def test_weighted_tau_of_multiplicities_is_tau_b_of_the_repeated_sample():
    predicted, truth = correlated(30, 0.6, 0)
    weights = np.random.default_rng(1).multinomial(30, np.full(30, 1 / 30), 5).astype(float)
    sx, sy = statistics._sign_matrix(predicted), statistics._sign_matrix(truth)
    fast = statistics._weighted_tau(weights, sx * sy, sx**2, sy**2)
    index = [np.repeat(np.arange(30), w.astype(int)) for w in weights]
    slow = [stats.kendalltau(predicted[i], truth[i], variant="b").statistic for i in index]
    np.testing.assert_allclose(fast, slow, atol=1e-12)


def test_tau_interval_covers_and_its_p_tells_signal_from_none():
    predicted, truth = correlated(120, 0.7, 2)
    record = statistics.kendall_record(predicted, truth, seed=0, resamples=500)
    assert record.ci_low < record.estimate < record.ci_high
    assert record.estimate == pytest.approx(stats.kendalltau(predicted, truth).statistic)
    assert record.p < 0.01
    shuffled = np.random.default_rng(3).permutation(predicted)
    null = statistics.kendall_record(shuffled, truth, seed=0, resamples=500)
    assert null.ci_low < 0 < null.ci_high
    assert null.p > 0.05


def test_tau_needs_aligned_words():
    with pytest.raises(ValueError, match="aligned"):
        statistics.kendall_record(np.zeros(4), np.zeros(5), seed=0)


def test_the_published_statistic_does_not_see_a_good_probe():
    """paper_vs_code F1: near 0 for a probe whose correct tau is high, and for one that knows nothing."""
    words = np.array([f"w{i:03d}" for i in np.random.default_rng(0).permutation(300)])
    good, truth = correlated(300, 0.95, 4)
    assert statistics.kendall_tau(good, truth) > 0.7
    assert abs(statistics.published_tau(words, good, truth)[0]) < 0.12
    assert statistics.published_tau(words, truth, truth)[0] == pytest.approx(1.0)


def test_sign_only_ceiling_is_below_one_and_reached_by_the_signs():
    truth = np.array([-3.0, -2, -1, 1, 2, 3])
    assert statistics.sign_only_ceiling(truth) == pytest.approx(statistics.kendall_tau(np.sign(truth), truth))
    assert 0.5 < statistics.sign_only_ceiling(truth) < 1


def test_wilson_interval_and_exact_p_of_a_share():
    record = statistics.proportion_record(9, 10, "word", chance=0.5)
    assert record.estimate == 0.9
    assert (record.ci_low, record.ci_high) == pytest.approx((0.5958, 0.9821), abs=1e-3)
    assert record.p == pytest.approx(11 / 1024)


def test_a_paired_difference_ignores_what_pairs_share():
    rng = np.random.default_rng(0)
    common = rng.normal(scale=10, size=200)
    record = statistics.paired_record(common + 0.5, common + 0.01 * rng.normal(size=200), "prompt", 0)
    assert record.ci_low > 0.49
    assert record.p < 0.01
    same = statistics.paired_record(common, common, "prompt", 0)
    assert (same.estimate, same.p) == (0.0, 1.0)


def test_groups_stay_together_in_the_bootstrap():
    """Repeating every row of a group must not narrow the interval, as it would if rows were the unit."""
    values, groups = np.random.default_rng(0).normal(size=40), np.arange(40)
    few = statistics.group_mean_record(values, groups, 0, "word", "m", 2000, 0.95)
    many = statistics.group_mean_record(np.repeat(values, 25), np.repeat(groups, 25), 0, "word", "m", 2000, 0.95)
    assert many.n == few.n == 40
    assert many.ci_high - many.ci_low == pytest.approx(few.ci_high - few.ci_low)


def test_balanced_accuracy_of_a_constant_probe_is_one_half():
    labels = np.array([1, 1, 1, 0])
    assert statistics.balanced_accuracy(labels, np.ones(4)) == 0.5
    record = statistics.balanced_accuracy_record(
        np.tile(labels, 30), np.ones(120), np.arange(120), 0, "prompt", 200, 0.95
    )
    assert record.estimate == 0.5
    assert record.p == 1.0
