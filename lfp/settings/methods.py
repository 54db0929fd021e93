"""Methods of fine-tuning, and which of them read a setting."""

#: Types of the numbers that a training computes with.
PRECISIONS = ("float32", "bfloat16")
#: Methods that read settings: those of tasks, and `given` apart where its policies learned from
#: preference pairs.
METHODS = (
    "ppo", "rloo", "grpo", "best_of_n", "ranked", "distil", "dpo", "given", "given on pairs",
)  # fmt: skip
#: Methods that train on completions of the base that a reward ranks.
RANKED = ("best_of_n", "ranked")
#: Methods that train by the settings of PPO, that complete training texts, whose policies' reward
#: is measured where it is written, and that have a reward at all.
BY_PPO = ("ppo", "rloo", "grpo", "best_of_n")
PROMPTED = (*BY_PPO, "ranked")
WRITTEN = (*PROMPTED, "distil")
REWARDED = (*WRITTEN, "given")
#: Methods that train by the settings of DPO, that cut and weigh pairs, and that learn from
#: preference pairs.
BY_DPO, PAIRED = ("ranked", "dpo"), ("dpo", "given on pairs")
WEIGHED = (*BY_DPO, "given on pairs")
#: Methods whose policies have a reward that they need not have learned from.
UNREWARDED = ("distil", "given")
