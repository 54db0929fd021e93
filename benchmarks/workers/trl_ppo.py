"""One PPO update of TRL's last trainer (1.12): its reward is a module, and nobody but its loop can
take a step.
"""

import json
import sys
import tempfile
from types import SimpleNamespace

import torch
from datasets import Dataset
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    TrainerCallback,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer

from benchmarks.workers.meter import Meter
from benchmarks.workers.ppo_case import prompts, text_reward


class TextReward(nn.Module):
    """A reward of text in the shape that the trainer asks for: a score per position, read at the
    last one.
    """

    base_model_prefix = "backbone"

    def __init__(self, tokenizer, prompt):
        super().__init__()
        self.tokenizer, self.prompt = tokenizer, prompt
        self.score = nn.Identity()

    def backbone(self, input_ids, **_):
        texts = self.tokenizer.batch_decode(input_ids[:, self.prompt :], skip_special_tokens=True)
        scores = torch.tensor([text_reward(text) for text in texts])
        return SimpleNamespace(hidden_states=[scores[:, None, None].expand(*input_ids.shape, 1)])


class Turns(TrainerCallback):
    """The loop calls this after every update: the first two warm up, then each waits
    for its turn.
    """

    def __init__(self):
        self.meter, self.done = Meter(), 0

    def on_step_end(self, args, state, control, **_):
        self.done += 1
        if self.done == 2:
            self.meter.ready()
        elif self.done > 2:
            self.meter.end()
        if self.done >= 2 and not self.meter.begin():
            control.should_training_stop = True


def main():
    """Train until there are no more turns."""
    turns, case = Turns(), json.loads(sys.argv[1])
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(case["model"])
    policy, reference = (AutoModelForCausalLM.from_pretrained(case["model"]) for _ in range(2))
    value = AutoModelForSequenceClassification.from_pretrained(case["model"], num_labels=1)
    updates = 1000
    config = PPOConfig(
        output_dir=tempfile.mkdtemp(), per_device_train_batch_size=case["batch"],
        gradient_accumulation_steps=1,
        num_mini_batches=case["batch"] // case["mini_batch"], num_ppo_epochs=case["epochs"],
        learning_rate=1e-6,
        total_episodes=updates * case["batch"], response_length=case["response"], kl_coef=0.5,
        temperature=1.0,
        local_rollout_forward_batch_size=case["batch"], num_sample_generations=0, report_to="none",
        bf16=False,
        gradient_checkpointing=False, save_strategy="no", eval_strategy="no", use_cpu=True,
        logging_strategy="no",
    )  # fmt: skip
    rows = Dataset.from_dict({"input_ids": prompts(case).tolist() * 2})
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference,
        reward_model=TextReward(tokenizer, case["prompt"]), train_dataset=rows, eval_dataset=rows,
        value_model=value,
        callbacks=[turns],
    )  # fmt: skip
    trainer.train()


if __name__ == "__main__":
    main()
