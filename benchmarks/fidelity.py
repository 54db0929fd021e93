"""What storing activations in float16 costs: FVU of autoencoders trained on float16 and on float32
activations.

    python -m benchmarks.fidelity results      # after a run

For every cell with a policy: the MLP outputs of its middle layer on its corpus, the same
autoencoder trained on both, and both judged on the same held-out float32 activations.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch

from lfp.files import artefacts
from lfp.models.architectures import blocks, width
from lfp.models.loading import load_model, load_tokenizer
from lfp.models.tokens import encode
from lfp.sae import metrics
from lfp.sae.harvest import harvest
from lfp.sae.training.loop import train
from lfp.settings import Autoencoder
from lfp.texts.corpora import documents

ROOT = Path(__file__).parent.parent
TEXTS, HELD_OUT, MAX_TOKENS = 1500, 100, 64


def difference(policy: Path, corpus: Path) -> dict[str, float]:
    """FVU of the small autoencoder by how its training activations were stored."""
    model, tokenizer = load_model(policy), load_tokenizer(policy)
    layer = len(blocks(model)) // 2
    texts = documents(artefacts.read_table(corpus))[: TEXTS + HELD_OUT]
    sequences = encode(tokenizer, texts, MAX_TOKENS)
    read, held_out = sequences[:-HELD_OUT], sequences[-HELD_OUT:]
    arrays = {}
    for name, part in (("train", read), ("test", held_out)):
        arrays[name] = np.zeros((sum(map(len, part)), width(model)), np.float32)
        harvest(model, part, {layer: arrays[name]}, tokenizer.pad_token_id, 32, 0)
    found = {}
    for kind in (np.float32, np.float16):
        data = arrays["train"].astype(kind)
        sae = train(data, [data.shape[1]], Autoencoder(batch_size=2048), 0).autoencoders[0]
        reading = metrics.Reconstruction(sae)
        reading.add(torch.from_numpy(arrays["test"]))
        found[np.dtype(kind).name] = reading.metrics()["fvu"]
    return found | {"difference": found["float16"] - found["float32"]}


def main() -> None:
    """Print a line for every cell and write all beside the other results."""
    results = Path(sys.argv[1] if len(sys.argv) > 1 else "results")
    rows = []
    policies = sorted(results.glob("*/*/seed*/policy"))
    if not policies:
        sys.exit(f"no policy below {results}; name the results of a run")
    for policy in policies:
        cell = "/".join(policy.parts[-4:-1])
        record = json.loads((policy.parent / ".policy.provenance.json").read_text())
        corpus = next(path for path in record["inputs"] if path.endswith("train.parquet"))
        rows.append({"cell": cell, **difference(policy, results.parent / corpus)})
        print(rows[-1], flush=True)
    (ROOT / "benchmarks" / "results" / "fidelity.json").write_text(
        json.dumps(rows, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
