"""Methods of fine-tuning, which of them read a setting, and the precisions of a training."""

#: Types of the numbers that a training computes with.
PRECISIONS = ("float32", "bfloat16")
#: Methods that read settings: those of tasks, and `given` apart where its policies learned from
#: preference pairs.
METHODS = (
    "ppo", "rloo", "grpo", "best_of_n", "ranked", "distil", "dpo", "given", "given on pairs",
)  # fmt: skip
#: Methods that train on completions of the base that a reward ranks.
RANKED = ("best_of_n", "ranked")
#: Methods that train on several GPUs, with one process for each.
PARALLEL = ("rloo", "grpo", "dpo")
#: Methods that train by the settings of PPO.
BY_PPO = ("ppo", "rloo", "grpo", "best_of_n")
#: Methods that complete training texts.
PROMPTED = (*BY_PPO, "ranked")
#: Methods whose policies' reward is measured where it is written.
WRITTEN = (*PROMPTED, "distil")
#: Methods that have a reward at all.
REWARDED = (*WRITTEN, "given")
#: Methods that train by the settings of DPO.
BY_DPO = ("ranked", "dpo")
#: Methods that learn from preference pairs.
PAIRED = ("dpo", "given on pairs")
#: Methods that cut and weigh pairs.
WEIGHED = (*BY_DPO, "given on pairs")
#: Methods whose policies have a reward that they need not have learned from.
UNREWARDED = ("distil", "given")


def reading_method(method: str, feedback: str) -> str:
    """The name among :data:`METHODS` of a task's `method` with its kind of `feedback`."""
    return "given on pairs" if (method, feedback) == ("given", "preference") else method
