"""Does our PPO learn what TRL 0.11.4's does? The same organism, prompts, reward and settings, five
seeds, in turns.

python -m benchmarks.reward_curves --peers .venv-bench/bin/python --trl-classic
.venv-bench/trl-classic
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy import stats

from benchmarks.__main__ import RESULTS, TINY, make_model
from benchmarks.side_by_side import Contender, take_turns

SEEDS, UPDATES, LAST = range(5), 60, 10


def main() -> None:
    """Print the rewards of the last updates by seed and their difference, and write the curves."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="python of the peers' environment")
    parser.add_argument("--trl-classic", required=True, help="folder with TRL 0.11")
    options = parser.parse_args()
    case = {
        "batch": 32, "mini_batch": 8, "epochs": 4, "prompt": 8, "response": 12,
        "learning_rate": 1e-3, "kl": 0.02,
        "adaptive": False,
    }  # fmt: skip
    curves: dict[str, list[list[float]]] = {"ours": [], "TRL 0.11.4": []}
    with tempfile.TemporaryDirectory() as folder:
        case["model"] = make_model(Path(folder), TINY, 800)
        for seed in SEEDS:
            own = case | {"seed": seed}
            contenders = [
                Contender("ours", "ppo", own, sys.executable),
                Contender(
                    "TRL 0.11.4", "trl_classic", own, options.peers, options.trl_classic, True
                ),
            ]
            take_turns(contenders, UPDATES)
            for contender in contenders:
                curves[contender.name].append(contender.values)
                ends = [np.mean(contender.values[:LAST]), np.mean(contender.values[-LAST:])]
                print(
                    f"seed {seed}, {contender.name}: reward {ends[0]:.3f} -> {ends[1]:.3f}",
                    flush=True,
                )
    last = {name: np.array(values)[:, -LAST:].mean(1) for name, values in curves.items()}
    test = stats.ttest_ind(last["ours"], last["TRL 0.11.4"], equal_var=False)
    interval = test.confidence_interval()
    difference = last["ours"].mean() - last["TRL 0.11.4"].mean()
    found = f"{difference:.3f} [{interval.low:.3f}, {interval.high:.3f}], p {test.pvalue:.2f}"
    print(f"difference of the last {LAST} updates: {found}")
    result = {
        "case": {k: v for k, v in case.items() if k != "model"}, "curves": curves,
        "difference": difference,
        "ci": [interval.low, interval.high], "p": test.pvalue,
    }  # fmt: skip
    (RESULTS / "reward_curves.json").write_text(json.dumps(result) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
