"""Costs of interventions on sets of latents, and of steering."""

from __future__ import annotations

from collections.abc import Sequence

from lfp.costs.base import (
    COPIES,
    FLOAT,
    KEPT,
    TRAINED_COPIES,
    Cell,
    Cost,
    Memory,
    reading_memory,
)
from lfp.models import HELD_LOGITS

#: Times that a random set of latents is read before it does the damage that it is to do.
MATCHED = 6
#: Strengths that are tried before a vector has a cost.
STRENGTHS = 4


def _read_once(cell: Cell) -> int:
    """Tokens of the texts or pairs that effects of single latents are measured on."""
    tokens = cell.settings["interventions"]["texts"] * cell.settings["features"]["max_tokens"]
    return tokens * (2 if cell.about["preference"] else 1)


def _selecting(cell: Cell, selectors: Sequence[str]) -> int:
    """Tokens that are read while the `selectors` choose: for exact effects, pruning and masks."""
    if not selectors:
        return 0
    asked = cell.settings["interventions"]
    passes = 2 * asked["exact"] + 2 * len(selectors) * asked["latents"]
    return (passes + asked["masks"] * ("factorisation" in selectors)) * _read_once(cell)


def interventions_cost(cell: Cell) -> Cost:
    """Sets under every action with their random sets, and the effects of single latents.

    Every random set is measured some times before it does the damage of its set.
    """
    shape, settings, about = cell.shape, cell.settings, cell.about
    asked, how = settings["interventions"], settings["ablation"]
    sets = len(asked["selectors"])
    actions = sum(len(asked.get(f"{name}s", ())) or 1 for name in asked["actions"])
    runs = len(asked["subjects"]) * (2 + sets * actions * (1 + asked["draws"]))
    length = how["prompt_tokens" if about["preference"] else "prefix_tokens"] + how["new_tokens"]
    sampled = runs * asked["prompts"] * length
    matched = runs * MATCHED * min(32, asked["prompts"]) * length
    neutral = runs * how["neutral_texts"] * how["neutral_tokens"]
    # Each set has criteria, and the circuit an edge from every latent.
    single = 4 * sets + 3 * (1 + asked["circuit"])
    read = matched + neutral + _selecting(cell, asked["selectors"]) + single * _read_once(cell)
    pairs = 2 if "patch" in asked["actions"] else 1  # the other model reads what this one does
    in_flight = how["batch_size"] * max(length, settings["features"]["max_tokens"])
    logits = (COPIES + 2) * min(in_flight * shape.vocab_size, HELD_LOGITS)
    return cell.cost(
        "interventions",
        pairs * (sampled + read) * shape.forward,
        Memory(
            cell.weight * shape.parameters
            + reading_memory(shape, in_flight, cell.weight, 2 * shape.n_layers)
            # What a pass leaves for the one backwards.
            + FLOAT * (KEPT * in_flight * shape.n_layers * shape.d_model + logits),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=pairs * sampled * shape.forward,
    )


def steering_cost(cell: Cell) -> Cost:
    """Vectors at every cost with the search for their strengths, and effects on latents."""
    shape, settings, about = cell.shape, cell.settings, cell.about
    asked, how = settings["steering"], settings["ablation"]
    gates = 2 if asked["gate"] else 0  # one that knows, and one that does not
    named = len(asked["vectors"]) * (1 + gates) + len(asked["selectors"]) + 2
    lines = named + 2 * asked["draws"]
    points = lines * len(asked["costs"])
    length = how["prompt_tokens" if about["preference"] else "prefix_tokens"] + how["new_tokens"]
    effects = asked["directions"] * asked["effect_prompts"]
    # What is written is read once more, for its KL or its latents.
    sampled = (points * asked["prompts"] + effects) * length
    neutral = STRENGTHS * points * how["neutral_texts"] * how["neutral_tokens"]
    tokens = asked["texts"] * settings["features"]["max_tokens"]
    cleaning = 3 * 300 * how["batch_size"] * settings["features"]["max_tokens"]
    read = sampled + neutral + 6 * tokens + (cleaning if asked["clean"] else 0)
    read += _selecting(cell, asked["selectors"])
    in_flight = how["batch_size"] * max(length, settings["features"]["max_tokens"])
    logits = TRAINED_COPIES * min(in_flight * shape.vocab_size, HELD_LOGITS)
    return cell.cost(
        "steering",
        read * shape.forward,
        Memory(
            # Base, policy, and a model between the two.
            3 * cell.weight * shape.parameters
            + reading_memory(shape, in_flight, cell.weight, 2)
            + FLOAT * (KEPT * in_flight * shape.n_layers * shape.d_model + logits),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=sampled * shape.forward,
    )
