"""Do the intervals cover and do the tests keep their level? Simulated words in contexts, with the
naive way beside.

    python -m benchmarks.calibration

A data set has 120 words in 15 contexts each: a word's prediction is its valence's share plus a word
effect plus a context's noise, so rows of one word are alike. Word-level statistics average the
contexts first. Row-level ones take each row for a unit; they are judged against the row-level tau
of the same population, so that nothing but the dependence of rows is held against them. Writes
benchmarks/results/calibration.json; exits with 1 where a word-level figure leaves its bounds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
from scipy import stats
from tqdm import tqdm

from lfp.feedback.lexica import vader_lexicon
from lfp.statistics.estimates import kendall_tau, string_tau
from lfp.statistics.records import kendall_difference_record, kendall_record, proportion_record

WORDS, CONTEXTS, RESAMPLES = 120, 15, 999
#: Weight of the valence, and standard deviation of a word's own effect, against a context's noise
#: of unit variance: tau-b near 0.35, and rows of one word as alike as those of a probe.
SIGNAL, WORD_EFFECT = 0.7, 2.0
VALENCES = np.array(sorted(vader_lexicon().values()))
#: What the figures must lie in.
BOUNDS = {
    "interval of tau covers": (0.93, 0.97), "interval of the difference covers": (0.93, 0.97),
    "false positives of tau": (0.0, 0.06), "false positives of the difference": (0.0, 0.06),
}  # fmt: skip


def simulate(
    rng: np.random.Generator, words: int, signal: float, probes: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Valences [word] and predictions [probe, word, context]; probes share the words' contexts'
    noise by half.
    """
    truth = rng.choice(VALENCES, words)
    word = WORD_EFFECT * rng.normal(size=(probes, words, 1))
    shared = rng.normal(size=(1, words, CONTEXTS))
    noise = np.sqrt(0.5) * (shared + rng.normal(size=(probes, words, CONTEXTS)))
    return truth, signal * truth[None, :, None] + word + noise


def population(signal: float, rows: bool) -> float:
    """Tau-b of a very large sample of words, of their means or of their rows."""
    truth, predicted = simulate(np.random.default_rng(1), 40_000 if rows else 200_000, signal)
    if rows:
        return float(stats.kendalltau(predicted[0].ravel(), np.repeat(truth, CONTEXTS)).statistic)
    return float(stats.kendalltau(predicted[0].mean(1), truth).statistic)


def word_level(seed: int, tau: float) -> dict[str, float]:
    """One data set with signal and one without, by words."""
    rng = np.random.default_rng([2, seed])
    truth, predicted = simulate(rng, WORDS, SIGNAL, probes=2)
    means = predicted.mean(2)
    record = kendall_record(means[0], truth, seed, RESAMPLES)
    difference = kendall_difference_record(means[0], means[1], truth, seed, RESAMPLES)
    null_truth, null = simulate(rng, WORDS, 0.0)
    return {
        "interval of tau covers": record.ci_low <= tau <= record.ci_high,
        # Both probes are drawn alike, so the difference is 0 in the population: a test of it is a
        # test of nothing.
        "interval of the difference covers": difference.ci_low <= 0 <= difference.ci_high,
        "false positives of the difference": difference.p <= 0.05,
        "false positives of tau": kendall_record(null[0].mean(1), null_truth, seed, RESAMPLES).p
        <= 0.05,
    }


def row_level(seed: int, tau: float, resamples: int = 199) -> dict[str, float]:
    """The same as if every row were a unit of its own."""
    rng = np.random.default_rng([3, seed])
    truth, predicted = simulate(rng, WORDS, SIGNAL)
    x, y = predicted[0].ravel(), np.repeat(truth, CONTEXTS)
    draws = []
    for _ in range(resamples):
        pick = rng.integers(len(x), size=len(x))
        draws.append(stats.kendalltau(x[pick], y[pick]).statistic)
    low, high = np.quantile(draws, [0.025, 0.975])
    null_truth, null = simulate(rng, WORDS, 0.0)
    p = stats.kendalltau(
        null[0].ravel(), np.repeat(null_truth, CONTEXTS), alternative="greater"
    ).pvalue
    return {"interval of tau covers": low <= tau <= high, "false positives of tau": p <= 0.05}


def shares(measure, n: int, workers: int, name: str) -> dict[str, dict[str, float]]:
    """Share of `n` data sets for which each figure of `measure` holds, with its Wilson interval."""
    with ProcessPoolExecutor(workers) as pool:
        rows = list(
            tqdm(pool.map(measure, range(n), chunksize=8), total=n, desc=name, disable=None)
        )
    result = {}
    for figure in rows[0]:
        record = proportion_record(sum(bool(row[figure]) for row in rows), n, "data set")
        result[figure] = {
            "share": record.estimate,
            "ci_low": record.ci_low,
            "ci_high": record.ci_high,
            "n": n,
        }
    return result


def string_statistic(n: int = 1000) -> dict[str, dict[str, float]]:
    """The published statistic beside tau-b for probes that know nothing, something, and nearly
    everything.
    """
    words = np.array(sorted(word for word in vader_lexicon() if word.isalpha()))
    result = {}
    for signal in (0.0, SIGNAL, 20.0):
        rng = np.random.default_rng(4)
        values = []
        for _ in range(n):
            truth, predicted = simulate(rng, WORDS, signal)
            means = predicted[0].mean(1)
            names = rng.choice(words, WORDS, replace=False)
            values.append((kendall_tau(means, truth), string_tau(names, means, truth)[0]))
        ours, theirs = np.array(values).T
        result[f"signal {signal:g}"] = {
            "tau_b": float(ours.mean()), "tau_b_sd": float(ours.std()),
            "published": float(theirs.mean()), "published_sd": float(theirs.std()),
        }  # fmt: skip
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=1000)
    parser.add_argument("--row-datasets", type=int, default=200)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "calibration.json"
    )
    options = parser.parse_args()
    words = shares(
        partial(word_level, tau=population(SIGNAL, False)),
        options.datasets,
        options.workers,
        "words",
    )
    rows = shares(
        partial(row_level, tau=population(SIGNAL, True)),
        options.row_datasets,
        options.workers,
        "rows",
    )
    result = {
        "design": {
            "words": WORDS, "contexts": CONTEXTS, "signal": SIGNAL, "word_effect": WORD_EFFECT,
            "resamples": RESAMPLES,
        },
        "by words": words, "by rows (naive)": rows, "string statistic": string_statistic(),
        "versions": {name: version(name) for name in ("numpy",
        "scipy")} | {"python": platform.python_version()},
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    failed = [
        name for name, (low, high) in BOUNDS.items() if not low <= words[name]["share"] <= high
    ]
    for unit in ("by words", "by rows (naive)"):
        for name, figure in result[unit].items():
            mark = "  <- out of bounds" if unit == "by words" and name in failed else ""
            print(
                f"{unit:16s} {name:36s} {figure['share']:.3f} [{figure['ci_low']:.3f},"
                f" {figure['ci_high']:.3f}]{mark}"
            )
    for name, figure in result["string statistic"].items():
        published = f"{figure['published']:+.3f} (sd {figure['published_sd']:.3f})"
        print(f"{name:16s} tau-b {figure['tau_b']:+.3f}   published {published}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
