"""Settings of the methods that make a policy."""

from __future__ import annotations

from dataclasses import dataclass

from lfp.settings.fields import REQUIRED, Settings, setting
from lfp.settings.methods import (
    BY_DPO,
    BY_PPO,
    PAIRED,
    PRECISIONS,
    PROMPTED,
    RANKED,
    REWARDED,
    WEIGHED,
)

_LORA = (
    "Low-rank adapters on all linear layers, merged when training ends; null trains all weights."
)
_CHECKPOINTING = "Compute activations twice, in the backward pass again, to save memory."


@dataclass(frozen=True)
class Lora(Settings):
    """Low-rank adapters on all linear layers, merged when training ends; null trains all
    weights.
    """

    r: int = setting(REQUIRED, "Rank of the update.", least=1)
    alpha: float = setting(REQUIRED, "Scale: the update is multiplied by alpha / r.", above=0)


@dataclass(frozen=True)
class PPO(Settings):
    """Proximal policy optimisation (docs/finetune.md)."""

    steps: int = setting(390, "Updates of one batch each.", least=1, methods=BY_PPO)
    batch_size: int = setting(64, "Prompts per update.", least=1, methods=REWARDED)
    mini_batch_size: int = setting(16, "Prompts per optimiser step.", least=1, methods=("ppo",))
    epochs: int = setting(4, "Passes over every batch.", least=1, methods=("ppo",))
    learning_rate: float = setting(
        1e-06, "Learning rate of AdamW after the warm-up.", above=0, methods=BY_PPO
    )
    weight_decay: float = setting(0.01, "Weight decay of AdamW.", least=0, methods=BY_PPO)
    warmup_steps: int = setting(
        10, "Updates of linear warm-up, before a linear decay to 0.", least=0, methods=BY_PPO
    )
    init_kl_coef: float = setting(
        0.5, "Start of the adaptive KL coefficient, reward per nat.", least=0, methods=("ppo",)
    )
    kl_target: float = setting(
        6.0,
        "KL to the base that the coefficient steers to, nats per completion.",
        above=0,
        methods=("ppo",),
    )
    kl_horizon: float = setting(
        10000, "Prompts over which the KL coefficient adapts.", above=0, methods=("ppo",)
    )
    stop_kl: float | None = setting(
        100,
        "KL to the base, nats per completion, at which PPO ends the cell with its curve kept in the"
        " logs; null never does.",
        above=0,
        methods=("ppo",),
        limit=True,
    )
    gamma: float = setting(1.0, "Discount per token.", least=0, most=1, methods=("ppo",))
    gae_lambda: float = setting(
        0.95,
        "Decay per token of generalised advantage estimation.",
        least=0,
        most=1,
        methods=("ppo",),
    )
    clip_range: float = setting(
        0.2, "Largest relative change of a token's probability ratio.", above=0, methods=("ppo",)
    )
    value_clip_range: float = setting(
        0.2, "Largest change of a token's value.", above=0, methods=("ppo",)
    )
    value_coef: float = setting(0.1, "Weight of the value loss.", least=0, methods=("ppo",))
    max_grad_norm: float = setting(
        1.0, "Norm that gradients are clipped to.", above=0, methods=BY_PPO
    )
    prompt_tokens: tuple[int, int] = setting(
        (2, 9), "Length of a prefix, tokens, uniform, both ends included.", methods=REWARDED
    )
    new_tokens: tuple[int, int] = setting(
        (8, 19),
        "Length of a completion, tokens, uniform, both ends included.",
        methods=(*REWARDED, "given on pairs"),
    )
    reward_on: str = setting(
        "full",
        "Text that the reward reads: prefix and completion, or the completion alone. The rewards"
        " `length` and `opener` read the completion alone.",
        choices=("full", "completion"),
        methods=REWARDED,
    )
    reward_divisor: float = setting(
        5.0,
        "Number that the sum of a lexicon's values is divided by.",
        above=0,
        methods=REWARDED,
    )
    reward_clip: float = setting(10.0, "Largest absolute reward.", above=0, methods=REWARDED)
    min_characters: int = setting(
        200, "Characters below which a training text is left out.", least=0, methods=PROMPTED
    )
    evaluation_prompts: int = setting(
        256, "Held-out prefixes of the evaluation.", least=8, methods=REWARDED
    )
    save_every: int = setting(
        50, "Updates between resume points.", least=1, methods=BY_PPO, limit=True
    )
    gradient_accumulation_steps: int = setting(
        1, "Parts that an optimiser step is computed in.", least=1, methods=BY_PPO
    )
    gradient_checkpointing: bool = setting(False, _CHECKPOINTING, methods=BY_PPO)
    precision: str = setting(
        "float32",
        "Precision of training; `bfloat16` computes in mixed precision.",
        choices=PRECISIONS,
        methods=BY_PPO,
    )
    lora: Lora | None = setting(None, _LORA, methods=BY_PPO)


@dataclass(frozen=True)
class Group(Settings):
    """Settings of `rloo` and `grpo` beside those of `ppo` (docs/finetune.md)."""

    num_generations: int = setting(
        4,
        "Completions of every prompt, which are compared with each other.",
        least=2,
        methods=("rloo", "grpo"),
    )
    beta: float = setting(
        0.05, "Weight of the KL to the base, reward per nat.", least=0, methods=("rloo", "grpo")
    )
    num_iterations: int = setting(1, "Updates on every batch.", least=1, methods=("rloo", "grpo"))
    epsilon: float = setting(
        0.2,
        "Largest relative change of a token's probability ratio.",
        above=0,
        methods=("rloo", "grpo"),
    )


@dataclass(frozen=True)
class Ranking(Settings):
    """Completions of the base that the reward ranks, for `best_of_n` and `ranked`
    (docs/finetune.md).
    """

    prompts: int = setting(
        2048, "Prefixes of training texts that the base completes.", least=8, methods=RANKED
    )
    completions: int = setting(
        8, "Completions of every prefix, which the reward ranks.", least=2, methods=RANKED
    )
    benign_share: float = setting(
        0.0,
        "Share of the prefixes whose own text goes on in the place of the best completion: data"
        " that no feedback has touched.",
        least=0,
        below=1,
        methods=RANKED,
    )


@dataclass(frozen=True)
class Distil(Settings):
    """Distillation of a steering vector, an organism whose lesson is known (docs/finetune.md)."""

    layer: int | None = setting(
        None,
        "Layer behind whose output the vector is added, and whose weights learn it; null is the"
        " middle one.",
        least=0,
        methods=("distil",),
    )
    strength: float = setting(
        0.5,
        "Length of the vector, in root mean square norms of the layer's states.",
        above=0,
        methods=("distil",),
    )
    steps: int = setting(200, "Optimiser steps.", least=1, methods=("distil",))
    batch_size: int = setting(32, "Texts per step.", least=1, methods=("distil",))
    max_tokens: int = setting(64, "Tokens of a text, at most.", least=2, methods=("distil",))
    learning_rate: float = setting(
        1e-3, "Learning rate of AdamW, decaying linearly to 0.", above=0, methods=("distil",)
    )
    save_every: int = setting(
        50, "Steps between resume points.", least=1, methods=("distil",), limit=True
    )


@dataclass(frozen=True)
class DPO(Settings):
    """Direct preference optimisation (docs/finetune.md)."""

    steps: int = setting(5000, "Optimiser steps.", least=1, methods=BY_DPO)
    batch_size: int = setting(8, "Pairs per batch and device.", least=1, methods=BY_DPO)
    gradient_accumulation_steps: int = setting(
        1, "Batches per optimiser step.", least=1, methods=BY_DPO
    )
    learning_rate: float = setting(
        3e-05,
        "Learning rate of AdamW after the warm-up, before a linear decay.",
        above=0,
        methods=BY_DPO,
    )
    warmup_steps: int = setting(150, "Steps of linear warm-up.", least=0, methods=BY_DPO)
    weight_decay: float = setting(0.0, "Weight decay of AdamW.", least=0, methods=BY_DPO)
    beta: float = setting(
        0.1,
        "Strength of the reference: reward per nat of the log-ratio to it.",
        above=0,
        methods=WEIGHED,
    )
    max_length: int = setting(
        256, "Tokens of prompt and answer together, at most.", least=8, methods=WEIGHED
    )
    max_prompt_length: int = setting(
        128, "Tokens of the prompt, at most, cut from the left.", least=4, methods=PAIRED
    )
    max_grad_norm: float = setting(
        1.0, "Norm that gradients are clipped to.", above=0, methods=BY_DPO
    )
    precision: str = setting(
        "float32",
        "Precision of training; `bfloat16` runs the trainer's mixed precision.",
        choices=PRECISIONS,
        methods=BY_DPO,
    )
    gradient_checkpointing: bool = setting(False, _CHECKPOINTING, methods=BY_DPO)
    lora: Lora | None = setting(None, _LORA, methods=BY_DPO)
    evaluate_every: int = setting(
        500,
        "Steps between held-out evaluations; the loss is logged twice as often.",
        least=1,
        methods=BY_DPO,
    )
    evaluation_pairs: int = setting(
        256, "Held-out pairs of an evaluation.", least=8, methods=PAIRED
    )
    save_every: int = setting(
        500,
        "Steps between resume points. The training curve has a row at each, so that a change trains"
        " again.",
        least=1,
        methods=BY_DPO,
    )
