"""Do splits let a probe read something else than the feedback? Features of the context alone, and
of the word or the answer alone, under every split.

    python -m benchmarks.splits

A data set of words has 200 words of random valences in 200 triples, each a positive and a negative
word in one context; a data set of preferences has 200 triples, two of a prompt, whose answers occur
in two prompts each. Features that hold the context alone know nothing of the feedback: tau 0 and
signs at chance are right, and a split that shows less has trained on the partner of what it tests.
Features that hold the word or the answer alone, with truths drawn at random, know nothing that
holds for another word: a split that shows more has trained on what it tests. Writes
benchmarks/results/splits.json; exits with 1 where a main split leaves its bounds.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from lfp.probing.data import ProbeData
from lfp.probing.fitting import out_of_fold
from lfp.probing.probes import MAIN_SPLIT
from lfp.probing.splits import SPLITS_OF, fold_indices
from lfp.settings import Probes
from lfp.statistics.estimates import kendall_tau

WORDS, TRIPLES, WIDTH = 200, 200, 100
#: What tau and the share of right signs of a main split must lie in.
BOUNDS = {"tau": (-0.1, 0.1), "sign": (0.45, 0.55)}


def simulate(kind: str, alone: str, seed: int) -> ProbeData:
    """Rows of triples whose features are those of the column `alone`, with a little noise.

    `kind` is ``ridge`` for words, or ``logistic`` for answers to prompts.
    """
    rng, triples = np.random.default_rng(seed), TRIPLES
    half = WORDS // 2
    if kind == "ridge":
        number = np.concatenate([np.resize(rng.permutation(half) + half * side, triples)
                                 for side in (0, 1)])  # fmt: skip
        context = np.tile(np.arange(triples), 2)
        sign = np.where(number < half, 1.0, -1.0)
        truth = sign * rng.uniform(0.5, 3.5, triples)[number]
        target = sign * rng.uniform(1.0, 1.5, 2 * triples)
    else:
        number = np.concatenate([rng.permutation(np.repeat(np.arange(half), 2)) + half * side
                                 for side in (0, 1)])  # fmt: skip
        context = np.tile(np.repeat(np.arange(half), 2), 2)
        truth = target = np.repeat([1, 0], triples)
    rows = pd.DataFrame({
        "triple": np.tile(np.arange(triples), 2), "word": number, "family": number,
        "context": context, "unit": number if kind == "ridge" else context, "truth": truth,
        "tokens": 1,
    })  # fmt: skip
    held = rng.normal(size=(triples, WIDTH))[rows[alone]]
    return ProbeData(held + 1e-3 * rng.normal(size=held.shape), target, rows)


def reading(kind: str, alone: str, split: str, seed: int) -> dict[str, float]:
    """What a probe of :func:`simulate`'s features reads that know nothing of the feedback.

    It is tau-b and the share of right signs of out-of-fold predictions, of words or of answers.

    The share of rows that a fold trains on stands beside them.
    """
    data = simulate(kind, alone, seed)
    rows = out_of_fold(data, kind, split, Probes(partitions=1), seed).frame(data)
    unit = "word" if kind == "ridge" else [rows["triple"], rows["truth"]]
    means = rows.groupby(unit)[["truth", "prediction"]].mean()
    positive = means["truth"] > 0
    folds = fold_indices(rows, split, Probes().folds, seed)
    return {
        "tau": kendall_tau(means["prediction"], means["truth"]),
        "sign": float(((means["prediction"] > 0) == positive).mean()),
        "kept": float(np.mean([len(train) for train, _ in folds]) / len(rows)),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "results" / "splits.json"
    )
    options = parser.parse_args()
    if options.draws < 2:
        parser.error(f"--draws {options.draws}: a spread over draws needs 2 at least")
    result, failed = {}, False
    for kind, alone in ((kind, alone) for kind in MAIN_SPLIT for alone in ("context", "word")):
        for split in SPLITS_OF[kind]:
            draws = pd.DataFrame(
                [reading(kind, alone, split, seed) for seed in range(options.draws)]
            )
            figures = draws.mean().to_dict()
            inside = all(low <= figures[name] <= high for name, (low, high) in BOUNDS.items())
            bad = split == MAIN_SPLIT[kind] and not inside
            failed |= bad
            name = f"{'words' if kind == 'ridge' else 'preferences'}, {alone} alone, {split}"
            result[name] = figures | {"tau_sd": float(draws["tau"].std()), "draws": options.draws}
            shown = "  ".join(f"{key} {value:+.3f}" for key, value in result[name].items())
            print(f"{name:42s} {shown}{'  <- out of bounds' if bad else ''}", flush=True)
    options.output.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
