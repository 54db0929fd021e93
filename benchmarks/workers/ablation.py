"""Completions under several sets of ablated features: in one batch, or one set after the other."""

import numpy as np
import torch

from benchmarks.workers.meter import serve
from lfp.interventions import ablation, completions
from lfp.models.architectures import width
from lfp.models.loading import load_model, load_tokenizer
from lfp.running import glibc
from lfp.sae.architectures.standard import Standard


def make(case):
    """`case`: model, prompts, prompt, response (tokens), sets, batch_size."""
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(0)
    model, tokenizer = load_model(case["model"]), load_tokenizer(case["model"])
    rng = np.random.default_rng(0)
    prefixes = [rng.integers(5, 700, case["prompt"]).tolist() for _ in range(case["prompts"])]
    sae = Standard(width(model), width(model)).requires_grad_(False)
    conditions = [{1: ablation.set_features(sae, [i, i + 1])} for i in range(case["sets"])]

    def reward(prompts, texts):
        return np.zeros(len(texts))

    def step():
        completions.completion_rewards(
            model, tokenizer, conditions, prefixes, reward, new_tokens=case["response"],
            batch_size=case["batch_size"], seed=0,
        )  # fmt: skip

    return step, 1.0


if __name__ == "__main__":
    serve(make)
