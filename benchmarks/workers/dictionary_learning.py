"""One training step of dictionary_learning's autoencoders."""

import torch
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.standard import StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer

from benchmarks.workers.meter import serve

TRAINERS = {"topk": TopKTrainer, "batchtopk": BatchTopKTrainer, "jumprelu": JumpReluTrainer}


def make(case):
    """`case`: n, d, m, and the architecture with its k, where it is not the standard one."""
    torch.set_num_threads(1)
    n, d, m = case["n"], case["d"], case["m"]
    common = {
        "steps": 10_000, "activation_dim": d, "dict_size": m, "layer": 0, "lm_name": "none",
        "warmup_steps": 10, "seed": 0, "device": "cpu",
    }  # fmt: skip
    kind = case.get("architecture", "standard")
    if kind == "standard":
        trainer = StandardTrainerAprilUpdate(**common, sparsity_warmup_steps=None)
    elif kind == "jumprelu":
        trainer = TRAINERS[kind](**common, target_l0=float(case["k"]), sparsity_warmup_steps=None)
    else:
        trainer = TRAINERS[kind](**common, k=case["k"])
    x = torch.randn(n, d)
    return lambda: trainer.update(5, x), 10 * n * d * m / 1e9


if __name__ == "__main__":
    serve(make)
