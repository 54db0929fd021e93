"""Do the intervals of probes cover and do their tests keep their level? The shipped procedure on
simulated words in contexts and answers to prompts, with the procedure of release 0.4 beside.

    python -m benchmarks.calibration
    python -m benchmarks.calibration --beyond --output benchmarks/results/calibration_beyond.json

The second command asks the same of a probe's R² beyond covariates, whose truth is always the mean
over all data sets.

A data set has words in contexts that each share a positive and a negative word, or prompts with two
answers. Features hold the signal of a word, an effect of the word, one of the context and noise; a
second probe reads the same with noise of its own, so that the two are equally good. Words, contexts
and noise are drawn afresh for every data set. The truth is the expected statistic at that training
size, the mean over all data sets; it is chance where there is no signal, and 0 for the difference.
The old procedure resamples fixed out-of-fold predictions of one partition. Writes
benchmarks/results/calibration.json; exits with 1 where an interval of the shipped procedure covers
too seldom or a test of it rejects too often.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from lfp.feedback.lexica import vader_lexicon
from lfp.probing import comparisons
from lfp.probing.data import ProbeData
from lfp.probing.fitting import out_of_fold
from lfp.probing.probes import MAIN_SPLIT, unit_means
from lfp.settings import Probes
from lfp.statistics.estimates import kendall_tau, string_tau
from lfp.statistics.partitions import (
    PartValues,
    partitions_difference_record,
    partitions_record,
)
from lfp.statistics.records.base import Record
from lfp.statistics.records.kendall import kendall_difference_record, kendall_record
from lfp.statistics.records.labels import auroc_record, balanced_accuracy_record
from lfp.statistics.records.shares import mcnemar_record, proportion_record
from lfp.tables.probes import (
    AUROC,
    BALANCED_ACCURACY,
    Statistic,
    nested_records,
    part_values,
    sign_of,
    tau_of,
)

VALENCES = np.array(sorted(vader_lexicon().values()))
FEATURES, EFFECTS, REFITS, DRAWS = 24, 8, 99, 199
#: Coordinates of a word's embedding, for what a probe adds to it.
COVARIATES = 16
#: What the figures must lie in.
COVERAGE, LEVEL = (0.93, 0.97), 0.06
FALSE = "too narrow or too many false positives"


@dataclass(frozen=True)
class Scenario:
    """One kind of data: a ``kind`` of probe, its units, and the weight of what they learn."""

    kind: str
    units: int
    signal: float

    @property
    def statistics(self) -> dict[str, Statistic]:
        """The statistics that are judged, by name."""
        if self.kind == "ridge":
            return {"tau": tau_of("all"), "sign accuracy": sign_of("all")}
        return {"balanced accuracy": BALANCED_ACCURACY, "AUROC": AUROC}


SCENARIOS = {
    "words, no signal": Scenario("ridge", 160, 0.0),
    "words, weak signal": Scenario("ridge", 160, 0.035),
    "words, strong signal": Scenario("ridge", 160, 0.06),
    "answers, no signal": Scenario("logistic", 160, 0.0),
    "answers, signal": Scenario("logistic", 160, 0.08),
}


def effects(rng: np.random.Generator, codes: np.ndarray, loadings: np.ndarray) -> np.ndarray:
    """Random effects [row, feature] of what the `codes` [row] name, along fixed `loadings`."""
    return (rng.normal(size=(codes.max() + 1, len(loadings))) @ loadings)[codes]


def simulate(rng: np.random.Generator, scenario: Scenario) -> list[ProbeData]:
    """The data of two equally good probes of the same rows."""
    rows = words(rng, scenario.units) if scenario.kind == "ridge" else answers(scenario.units)
    population = np.random.default_rng(1)
    direction, *loadings = population.normal(size=(1 + 2 * EFFECTS, FEATURES)) / FEATURES**0.5
    codes = [pd.factorize(rows[name])[0] for name in ("word", "context")]
    truth = rows["truth"].to_numpy()
    shared = scenario.signal * np.outer(truth + np.sign(truth), direction) * FEATURES**0.5
    for code, own in zip(codes, np.split(np.array(loadings), 2), strict=True):
        shared = shared + effects(rng, code, own)
    scale = FEATURES**-0.5
    size = 1 + 0.4 * np.abs(truth) + 0.5 * rng.normal(size=len(rows))
    target = np.sign(truth) * np.abs(size) if scenario.kind == "ridge" else truth
    return [
        ProbeData(
            shared + effects(rng, codes[0], 0.6 * scale * np.eye(FEATURES))
            + 0.7 * scale * rng.normal(size=shared.shape), target, rows,
        )
        for _ in range(2)
    ]  # fmt: skip


def words(rng: np.random.Generator, n: int, contexts: int = 4) -> pd.DataFrame:
    """Rows of `n` words, half of them positive, each in as many `contexts`.

    There are three triples of a positive and a negative word for every two contexts.
    """
    positive, negative = VALENCES[VALENCES > 0], VALENCES[VALENCES < 0]
    valence = np.concatenate([rng.choice(side, n // 2) for side in (positive, negative)])
    pairs = n // 2 * contexts
    sides = [rng.permutation(np.resize(np.arange(n // 2), pairs)) + k * n // 2 for k in (0, 1)]
    context, word = rng.permutation(np.arange(pairs) * 2 // 3), np.concatenate(sides)
    return pd.DataFrame({
        "triple": np.tile(np.arange(pairs), 2),
        "element": np.repeat(["positive", "negative"], pairs), "word": word, "unit": word,
        "context": np.tile(context, 2), "truth": valence[word],
        "tokens": 1,
    })  # fmt: skip


def answers(n: int) -> pd.DataFrame:
    """Rows of a preferred and a rejected answer to each of `n` prompts."""
    prompt = np.tile(np.arange(n), 2)
    return pd.DataFrame({
        "triple": prompt, "element": np.repeat(["positive", "negative"], n),
        "word": np.arange(2 * n), "unit": prompt, "context": prompt,
        "truth": np.repeat([1.0, 0.0], n),
    })  # fmt: skip


def shipped(
    scenario: Scenario, parts: list[pd.DataFrame], statistic: Statistic
) -> tuple[Record, Record]:
    """Records of the first probe and of the difference by the shipped procedure."""
    values: list[PartValues] = [part_values(frame, statistic) for frame in parts]
    about = {"n": scenario.units, "unit": "unit", "name": statistic.name}
    return (
        partitions_record(values[0], edges=statistic.edges, chance=statistic.chance, **about),
        partitions_difference_record(values[0].minus(values[1]), edges=statistic.gaps, **about),
    )


def resampled(frames: list[pd.DataFrame], name: str, seed: int) -> tuple[Record, Record]:
    """The same by a bootstrap over units of the predictions of one partition."""
    draws = {"seed": seed, "resamples": DRAWS}
    if name in ("tau", "sign accuracy"):
        first, second = (unit_means(frame) for frame in frames)
        truth, a, b = first["truth"], first["prediction"], second["prediction"]
        if name == "tau":
            difference = kendall_difference_record(a, b, truth, **draws)
            return kendall_record(a, truth, **draws), difference
        right = [np.sign(values) == np.sign(truth) for values in (a, b)]
        share = proportion_record(right[0].sum(), len(truth), "word", 0.5)
        return share, mcnemar_record(*right, unit="word")
    truth, groups = frames[0]["truth"], frames[0]["unit"]
    a, b = (frame["prediction"].to_numpy() for frame in frames)
    rows = {"labels": truth.to_numpy(), "groups": groups, "unit": "prompt", **draws}
    if name == "AUROC":
        return auroc_record(scores=a, **rows), auroc_record(scores=a, against=b, **rows)
    one = balanced_accuracy_record(scores=a, confidence=0.95, **rows)
    return one, mcnemar_record((a > 0) == truth, (b > 0) == truth, unit="row")


def measured(seed: int, scenario: Scenario, settings: Probes) -> dict[str, list[float]]:
    """(estimate, ends of the interval, p) of every figure of one data set."""
    rng = np.random.default_rng([2, seed])
    split, kind = MAIN_SPLIT[scenario.kind], scenario.kind
    parts, first = [], []
    for data in simulate(rng, scenario):
        held_out = out_of_fold(data, kind, split, settings, seed)
        refits = comparisons.refitted_frame(data, kind, split, "latents", settings, seed)
        true = comparisons.parts_frame(data, held_out, kind, split)
        parts.append(pd.concat([true, refits], ignore_index=True))
        first.append(held_out.first_partition(data))
    result = {}
    for name, statistic in scenario.statistics.items():
        records = zip(
            shipped(scenario, parts, statistic), resampled(first, name, seed), strict=True
        )
        for of, (new, old) in zip((name, f"difference of {name}"), records, strict=True):
            for how, record in (("shipped", new), ("bootstrap of predictions", old)):
                values = (record.estimate, record.ci_low, record.ci_high, record.p)
                missing = float("nan")
                result[f"{of} | {how}"] = [missing if v is None else float(v) for v in values]
    return result


def covariates(rng: np.random.Generator, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Frequency [row] and embedding [row, covariate] of words, which know a part of their truth."""
    codes, words = pd.factorize(rows["word"])
    truth = rows["truth"].groupby(codes).first().to_numpy()
    drawn = rng.normal(size=(len(words), 1 + COVARIATES))
    drawn[:, 1] += 0.6 * (truth - truth.mean()) / truth.std()
    return drawn[codes, 0], drawn[codes, 1:]


def measured_beyond(seed: int, scenario: Scenario, settings: Probes) -> dict[str, list[float]]:
    """(estimate, ends of the interval, p) of R² beyond covariates, of one data set."""
    rng = np.random.default_rng([5, seed])
    data, _ = simulate(rng, scenario)
    held_out = out_of_fold(data, scenario.kind, MAIN_SPLIT[scenario.kind], settings, seed)
    frequency, embedding = covariates(rng, data.rows)
    frame = comparisons.nested_frame(data, held_out, frequency, embedding, scenario.kind)
    records = nested_records(frame, 0.95)
    return {
        f"{name} | shipped": [record.estimate, record.ci_low, record.ci_high, float("nan")]
        for name, record in records.items()
    }


def figures(
    results: list[dict[str, list[float]]], scenario: Scenario
) -> Iterator[tuple[str, dict[str, float]]]:
    """(figure, its numbers): coverage, false positives where the null holds, and the estimate."""
    for name in results[0]:
        estimate, low, high, p = np.array([one[name] for one in results]).T
        difference = name.startswith("difference")
        truth = 0.0 if difference else float(estimate.mean())
        statistic = scenario.statistics.get(name.split(" | ")[0])
        if statistic and not scenario.signal:
            truth = statistic.chance
        known = np.isfinite(low)
        covers = proportion_record(
            int(((low <= truth) & (truth <= high))[known].sum()), int(known.sum()), "data set"
        )
        row = {
            "truth": truth, "sd": float(estimate.std(ddof=1)), "n": int(known.sum()),
            "coverage": covers.estimate, "coverage_low": covers.ci_low,
            "coverage_high": covers.ci_high, "width": float((high - low)[known].mean()),
        }  # fmt: skip
        if difference or (statistic and not scenario.signal):
            false = proportion_record(int((p <= 0.05).sum()), len(p), "data set")
            row |= {
                "false_positives": false.estimate, "false_positives_low": false.ci_low,
                "false_positives_high": false.ci_high,
            }  # fmt: skip
        if np.isnan(p).all():
            row["above_0"] = float((low > 0).mean())
        yield name, row


def string_statistic(n: int = 1000, size: int = 120) -> dict[str, dict[str, float]]:
    """The published statistic beside tau-b for probes that know nothing, something, and nearly
    everything.
    """
    names = np.array(sorted(word for word in vader_lexicon() if word.isalpha()))
    result = {}
    for signal in (0.0, 0.35, 10.0):
        rng, values = np.random.default_rng(4), []
        for _ in range(n):
            truth = rng.choice(VALENCES, size)
            predicted, shown = (
                signal * truth + rng.normal(size=size),
                rng.choice(names, size, False),
            )
            values.append((kendall_tau(predicted, truth), string_tau(shown, predicted, truth)[0]))
        ours, theirs = np.array(values).T
        result[f"signal {signal:g}"] = {
            "tau_b": float(ours.mean()), "tau_b_sd": float(ours.std()),
            "published": float(theirs.mean()), "published_sd": float(theirs.std()),
        }  # fmt: skip
    return result


def judged(row: dict[str, float]) -> str:
    """Which bound a figure misses by more than the simulation's own uncertainty; empty for none.

    An interval that covers too often is wider than it need be, which is no false claim.
    """
    if row["coverage_high"] < COVERAGE[0] or row.get("false_positives_low", 0.0) > LEVEL:
        return FALSE
    return "wider than asked" if row["coverage_low"] > COVERAGE[1] else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--datasets", type=int, default=600)
    parser.add_argument("--workers", type=int, default=1)
    results_folder = Path(__file__).parent / "results"
    parser.add_argument("--output", type=Path, default=results_folder / "calibration.json")
    parser.add_argument(
        "--beyond", action="store_true", help="R² beyond covariates instead, minutes"
    )
    options = parser.parse_args()
    settings = Probes(label_shuffles=REFITS)
    result, failed, start = {}, [], time.perf_counter()
    for name, scenario in SCENARIOS.items():
        measure = partial(
            measured_beyond if options.beyond else measured, scenario=scenario, settings=settings
        )
        with ProcessPoolExecutor(options.workers) as pool:
            of = pool.map(measure, range(options.datasets), chunksize=4)
            done = list(tqdm(of, total=options.datasets, desc=name, disable=None))
        result[name] = dict(figures(done, scenario))
        for figure, row in result[name].items():
            verdict = judged(row) if figure.endswith("shipped") else ""
            failed += [figure] if verdict == FALSE else []
            print(
                f"{name:22s} {figure:58s} truth {row['truth']:+.3f} coverage {row['coverage']:.3f}"
                f" false positives {row.get('false_positives', float('nan')):.3f}  {verdict}",
                flush=True,
            )
    design = {
        "datasets": options.datasets, "features": FEATURES, "refits": REFITS, "draws": DRAWS,
        "folds": settings.folds,
        "partitions": settings.partitions, "shuffled_partitions": settings.shuffled_partitions,
        "seconds": round(time.perf_counter() - start),
        "scenarios": {name: vars(scenario) for name, scenario in SCENARIOS.items()},
    }  # fmt: skip
    versions = {name: version(name) for name in ("numpy", "scipy", "scikit-learn")}
    versions["python"] = platform.python_version()
    strings = string_statistic()
    text = {
        "design": design, "figures": result, "string statistic": strings, "versions": versions
    }  # fmt: skip
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    for name, figure in strings.items():
        published = f"{figure['published']:+.3f} (sd {figure['published_sd']:.3f})"
        print(f"{name:16s} tau-b {figure['tau_b']:+.3f}   published {published}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
