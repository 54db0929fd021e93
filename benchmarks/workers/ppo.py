"""One PPO update of ours: sampling, reward, reference, values, and the epochs of mini-batches."""

import copy
import itertools

import numpy as np
import torch

from benchmarks.workers.meter import serve
from benchmarks.workers.ppo_case import prompts, text_reward
from lfp.finetune import ppo
from lfp.models.loading import load_model, load_tokenizer
from lfp.running import glibc
from lfp.settings import PPO


def make(case):
    """`case`: model (a directory), batch, mini_batch, epochs, prompt, response (tokens),
    learning_rate, kl, seed.
    """
    torch.set_num_threads(1)
    glibc.keep_freed()  # as a job does that computes on the CPU
    torch.manual_seed(case.get("seed", 0))
    policy, tokenizer = load_model(case["model"]), load_tokenizer(case["model"])
    reference = copy.deepcopy(policy).requires_grad_(False)
    settings = PPO(
        batch_size=case["batch"], mini_batch_size=case["mini_batch"], epochs=case["epochs"],
        learning_rate=case.get("learning_rate", 1e-6),
        new_tokens=(case["response"], case["response"]),
    )  # fmt: skip
    model = ppo.PolicyWithValue(policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=True)
    queries = prompts(case).tolist()
    lengths = torch.full((case["batch"],), case["response"])

    def reward(prefixes, completions):
        return np.array([text_reward(text) for text in completions])

    draws = itertools.count(1000 * case.get("seed", 0))

    def step():
        draw = next(draws)
        rollout, row = ppo.collect(
            model,
            reference,
            tokenizer,
            queries,
            lengths,
            reward,
            case.get("kl", 0.5),
            settings,
            draw,
        )
        ppo.optimise(model, optimizer, rollout, settings, draw)
        return row["reward"]

    return step, 1.0


if __name__ == "__main__":
    serve(make)
