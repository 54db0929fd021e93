"""The cost model of docs/scaling.md held against measurements at three sizes, and the peak memory
of every stage there.

python -m benchmarks.scaling [stage ...]
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.__main__ import PYTHIA_70M, RESULTS, TINY, make_model
from benchmarks.side_by_side import Contender, take_turns

MIDDLE = {"n_layers": 6, "d_model": 256, "n_heads": 4}
#: Name, shape and vocabulary.
SHAPES = (("tiny", TINY, 1_024), ("middle", MIDDLE, 8_000), ("Pythia-70m", PYTHIA_70M, 50_304))
EPOCHS, ROUNDS = 4, 5


@dataclass(frozen=True)
class Size:
    """What the sums of docs/scaling.md are of: blocks, width, vocabulary."""

    layers: int
    d: int
    vocabulary: int

    @property
    def parameters(self) -> int:
        """Parameters of all blocks that take part in matrix products (GPT-NeoX: 12 d² a block)."""
        return 12 * self.layers * self.d**2


def stages(size: Size) -> Iterator[tuple[str, str, dict[str, Any], float]]:
    """(stage, worker, its case without the model, GFLOP by the cost model)."""
    tokens, last = 16 * 64, size.layers - 2
    case = {
        "lengths": [64] * 16,
        "batch_size": 8,
        "precision": "float32",
        "layers": list(range(last + 1)),
    }
    yield "harvest", "harvest", case, tokens * 2 * size.parameters * (last + 1) / size.layers
    b, p, t = 16, 8, 20
    case = {"batch": b, "mini_batch": 4, "epochs": EPOCHS, "prompt": p, "response": t}
    passes = 2 + 3 * EPOCHS + 1
    head = passes * b * t * 2 * size.d * size.vocabulary
    yield "PPO update", "ppo", case, passes * b * (p + t) * 2 * size.parameters + head
    triples, prompt, element = 24, 40, 40
    case = {
        "triples": triples,
        "prompt": prompt,
        "element": element,
        "batch_size": 24,
        "shared": True,
    }
    # Prompts have half to all of their tokens.
    yield (
        "features",
        "features",
        case,
        triples * (0.75 * prompt + 3 * element) * 2 * size.parameters,
    )
    texts, length = 16, 64
    case = {
        "texts": texts,
        "tokens": length,
        "layers": list(range(last + 1)),
        "size": 32,
        "batch_size": 8,
    }
    read = texts * length * 2 * size.parameters * (last + 1) / size.layers
    # The encoder of every layer's small autoencoder, of d features.
    yield "explanations", "explanations", case, read + texts * length * 2 * (last + 1) * size.d**2
    sets, prompts, prefix, new = 6, 8, 20, 12
    case = {"prompts": prompts, "prompt": prefix, "response": new, "sets": sets, "batch_size": 48}
    head = sets * prompts * new * 2 * size.d * size.vocabulary * 3
    yield (
        "ablation",
        "ablation",
        case,
        sets * prompts * (prefix + new) * 2 * size.parameters * 3 + head,
    )


def main() -> None:
    """Print the table and write it beside the other results; arguments name the stages, all unless
    given.
    """
    path, wanted = RESULTS / "scaling.json", sys.argv[1:]
    kept = json.loads(path.read_text(encoding="utf-8")) if wanted else []
    rows = [row for row in kept if row["stage"] not in wanted]
    with tempfile.TemporaryDirectory() as folder:
        for name, shape, vocabulary in SHAPES:
            model = make_model(Path(folder) / name, shape, vocabulary)
            size = Size(shape["n_layers"], shape["d_model"], vocabulary)
            for stage, worker, case, flop in stages(size):
                if wanted and stage not in wanted:
                    continue
                contenders = [
                    Contender(stage, worker, case | {"model": model}, sys.executable),
                    Contender("limit", "machine", {"kind": "float32"}, sys.executable),
                ]
                ours, limit = take_turns(contenders, ROUNDS)
                share = flop / 1e9 / ours["seconds"] / (limit["work"] / limit["seconds"])
                rows.append({
                    "stage": stage, "shape": name, "gflop": round(flop / 1e9, 2),
                    "seconds": round(ours["seconds"], 3),
                    "of_limit": round(share, 3), "peak_mb": round(ours["peak_mb"]),
                })  # fmt: skip
                print(rows[-1], flush=True)
    print(pd.DataFrame(rows).sort_values(["stage"], kind="stable").to_string(index=False))
    path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
