"""One PPO update of TRL's classic trainer (0.11, the last release with ``step``), batched
generation.
"""

import torch
from transformers import AutoTokenizer
from trl import AutoModelForCausalLMWithValueHead, PPOConfig, PPOTrainer

from benchmarks.workers.meter import serve
from benchmarks.workers.ppo_case import prompts, text_reward


def make(case):
    """`case` as in :mod:`benchmarks.workers.ppo`."""
    torch.set_num_threads(1)
    torch.manual_seed(case.get("seed", 0))
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    model, reference = (
        AutoModelForCausalLMWithValueHead.from_pretrained(case["model"]) for _ in range(2)
    )
    config = PPOConfig(
        batch_size=case["batch"], mini_batch_size=case["mini_batch"], ppo_epochs=case["epochs"],
        learning_rate=case.get("learning_rate", 1e-6), init_kl_coef=case.get("kl", 0.5),
        adap_kl_ctrl=case.get("adaptive", True), seed=case.get("seed", 0), max_grad_norm=1.0,
        forward_batch_size=case["batch"],
    )  # fmt: skip
    trainer = PPOTrainer(config, model, reference, tokenizer)
    queries = list(prompts(case))
    sampling = {
        "do_sample": True, "top_k": 0, "top_p": 1.0, "max_new_tokens": case["response"],
        "min_new_tokens": case["response"], "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip

    def step():
        responses = trainer.generate(
            queries, batch_size=case["batch"], return_prompt=False, **sampling
        )
        texts = tokenizer.batch_decode(responses, skip_special_tokens=True)
        scores = [torch.tensor(text_reward(text)) for text in texts]
        trainer.step(queries, responses, scores)
        return float(torch.stack(scores).mean())

    return step, 1.0


if __name__ == "__main__":
    serve(make)
