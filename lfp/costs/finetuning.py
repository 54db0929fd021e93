"""Costs of making a policy, by every method."""

from __future__ import annotations

from lfp.costs.base import (
    FLOAT,
    LIBRARIES,
    TRAINERS,
    Cell,
    Cost,
    Memory,
    reading_memory,
    training_memory,
)
from lfp.models import HELD_LOGITS
from lfp.settings import RANKED


def policy_cost(cell: Cell) -> Cost:
    """The cost of a cell's policy, by its method."""
    method = cell.about["method"]
    if cell.about["given"]:
        return given_cost(cell)
    if method == "distil":
        return distil_cost(cell)
    if method in RANKED:
        return ranked_cost(cell)
    return dpo_cost(cell) if cell.about["preference"] else ppo_cost(cell)


def ppo_cost(cell: Cell) -> Cost:
    """Fine-tuning on a reward: sampling, policy and reference on the batch, and its epochs.

    The evaluation samples from policy and base, and reads the policy's completions by both. TRL's
    trainers (`rloo`, `grpo`) hold the logits of all completions of a batch.
    """
    shape, settings = cell.shape, cell.settings["ppo"]
    new, length = (
        settings["new_tokens"][1],
        settings["prompt_tokens"][1] + settings["new_tokens"][1],
    )
    tokens = settings["steps"] * settings["batch_size"] * length
    evaluated = settings["evaluation_prompts"] * length
    by_trainer = cell.about["method"] in ("rloo", "grpo")
    batch = settings["batch_size" if by_trainer else "mini_batch_size"]
    part = batch / settings["gradient_accumulation_steps"]
    logits = part * new * shape.vocab_size
    training = training_memory(
        shape, settings, part * length, logits if by_trainer else min(logits, HELD_LOGITS)
    )
    sampled = settings["batch_size"] * length
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, sampled, 0, 0, sampled)
    return cell.cost(
        "fine-tuning",
        tokens * shape.forward * (2 + 3 * settings["epochs"]) + 2 * evaluated * shape.forward,
        Memory(
            max(training, evaluation),
            passing=3 * FLOAT * shape.parameters,  # a resume point
            libraries=TRAINERS if by_trainer else LIBRARIES,
        ),
        sampling=(tokens + 2 * evaluated) * shape.forward,
        disk=FLOAT * shape.parameters,
        scratch=3 * FLOAT * shape.parameters,
    )


def dpo_cost(cell: Cell) -> Cost:
    """Fine-tuning by DPO: policy (both ways) and reference on both answers of every pair.

    Evaluations read both answers of every held-out pair by both models. The trainer holds the
    logits of a batch.
    """
    shape, settings = cell.shape, cell.settings["dpo"]
    pairs = settings["steps"] * settings["batch_size"] * settings["gradient_accumulation_steps"]
    tokens = pairs * 2 * settings["max_length"]
    evaluations = settings["steps"] // settings["evaluate_every"] + 1
    evaluated = evaluations * settings["evaluation_pairs"] * 2 * settings["max_length"]
    at_once = settings["batch_size"] * 2 * settings["max_length"]
    training = training_memory(shape, settings, at_once, at_once * shape.vocab_size)
    read = 32 * settings["max_length"]  # pairs of the evaluation behind the training
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, read, 0, 0, read)
    return cell.cost(
        "fine-tuning",
        tokens * shape.forward * 4 + evaluated * shape.forward * 2,
        Memory(max(training, evaluation), passing=3 * FLOAT * shape.parameters, libraries=TRAINERS),
        disk=FLOAT * shape.parameters,
        scratch=2 * 3 * FLOAT * shape.parameters,
    )


def given_cost(cell: Cell) -> Cost:
    """The evaluation of a policy that is given, by the settings of PPO."""
    shape, settings = cell.shape, cell.settings["ppo"]
    length = settings["prompt_tokens"][1] + settings["new_tokens"][1]
    evaluated, batch = settings["evaluation_prompts"] * length, settings["batch_size"] * length
    memory = 2 * FLOAT * shape.parameters + reading_memory(shape, batch, 0, 0, batch)
    return cell.cost(
        "given policy",
        2 * evaluated * shape.forward,
        Memory(memory, passing=FLOAT * shape.parameters),
        sampling=2 * evaluated * shape.forward,
        disk=FLOAT * shape.parameters,
    )


def ranked_cost(cell: Cell) -> Cost:
    """Fine-tuning on completions of the base that the reward ranks.

    The base writes all of them, which counts for the first of the cells that share them.
    `best_of_n` reads the best ones both ways; `ranked` reads both sides of every pair, both ways by
    the policy and once by the base, in TRL's trainer, which holds the logits of a batch. The
    evaluation is that of PPO.
    """
    shape, settings = cell.shape, cell.settings
    ppo, dpo, ranking = (settings[stage] for stage in ("ppo", "dpo", "ranking"))
    length = ppo["prompt_tokens"][1] + ppo["new_tokens"][1] + 1
    shared = ranking["prompts"] * ranking["completions"] * length
    written = shared if cell.about["samples"] else 0
    evaluated, batch = ppo["evaluation_prompts"] * length, ppo["batch_size"] * length
    ranked = cell.about["method"] == "ranked"
    if ranked:
        part, passes, asked = 2 * dpo["batch_size"] * length, 4, dpo
        tokens = dpo["steps"] * dpo["gradient_accumulation_steps"] * part
        logits, libraries = part * shape.vocab_size, TRAINERS
    else:
        part, passes, asked = batch / ppo["gradient_accumulation_steps"], 3, ppo
        tokens = ppo["steps"] * batch
        logits, libraries = min(part * shape.vocab_size, HELD_LOGITS), LIBRARIES
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, batch, 0, 0, batch)
    return cell.cost(
        "fine-tuning",
        (passes * tokens + 2 * evaluated) * shape.forward,
        Memory(
            max(training_memory(shape, asked, part, logits), evaluation),
            passing=3 * FLOAT * shape.parameters,
            libraries=libraries,
        ),
        sampling=(written + 2 * evaluated) * shape.forward,
        disk=FLOAT * shape.parameters,
        scratch=(2 if ranked else 1) * 3 * FLOAT * shape.parameters,
    )


def distil_cost(cell: Cell) -> Cost:
    """Distillation of a vector: the steered base reads, and one layer of the policy learns.

    Gradients reach back from the output to that layer. The evaluation is that of a given policy.
    """
    shape, asked, ppo = cell.shape, cell.settings["distil"], cell.settings["ppo"]
    part = asked["batch_size"] * asked["max_tokens"]
    logits = min(part * shape.vocab_size, HELD_LOGITS)
    whole = {"lora": None, "gradient_checkpointing": False}
    length = ppo["prompt_tokens"][1] + ppo["new_tokens"][1]
    evaluated, batch = ppo["evaluation_prompts"] * length, ppo["batch_size"] * length
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, batch, 0, 0, batch)
    return cell.cost(
        "fine-tuning",
        (4 * asked["steps"] * part + 2 * evaluated) * shape.forward,
        Memory(
            max(training_memory(shape, whole, part, logits), evaluation),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=2 * evaluated * shape.forward,
        disk=FLOAT * shape.parameters,
        scratch=2 * FLOAT * shape.parameters,
    )
