"""Costs of reading single latents: features, explanations, and the ablation of these."""

from __future__ import annotations

from collections.abc import Sequence

from lfp.costs.base import (
    COPIES,
    FLOAT,
    Cell,
    Cost,
    Memory,
    reading_memory,
)
from lfp.costs.dictionaries import code_floats, coding
from lfp.interventions.arms import ARMS, runs
from lfp.models import HELD_LOGITS
from lfp.probing.subjects import SUBJECTS

#: Different words of the texts that explanations read: more than those of a thousand reviews.
WORDS = 20_000
#: Pieces of a word, at most.
PIECES = 8


def features_cost(cell: Cell) -> Cost:
    """Cost of the features of the contrast triples, which every probed variant reads anew."""
    shape, settings, about = cell.shape, cell.settings["features"], cell.about
    subjects = [name for name in settings["subjects"] if SUBJECTS[name].load]
    read = 3 * about["triples"] * settings["max_tokens"] * len(subjects)
    coded = sum(coding(cell, name) for name in about["probed"])
    # Latents and random code of the smallest size; reconstruction, raw activations and embedding.
    sizes = [about["autoencoders"][name]["sizes"][0] for name in about["probed"]]
    widths = [about["layers"] * shape.d_model * (2 * size + 3) for size in sizes]
    in_flight = settings["batch_size"] * settings["max_tokens"]
    # Logits are those of the elements: answers, or the pieces of a word.
    predicted = in_flight if about["preference"] else settings["batch_size"] * PIECES
    return cell.cost(
        "features",
        read * (len(about["probed"]) * shape.forward + coded),
        Memory(
            reading_memory(shape, in_flight, cell.weight, about["layers"], predicted),
            arrays=3 * about["triples"] * max(widths) * FLOAT,
            passing=FLOAT * shape.parameters,
        ),
        disk=3 * about["triples"] * sum(widths) * FLOAT * len(subjects),
    )


def explanations_cost(cell: Cell) -> Cost:
    """Cost of reading the texts that explanations come from and are scored on."""
    shape, asked, about = cell.shape, cell.settings["explanations"], cell.about
    # Preferences are read as pairs once more.
    texts = (2 if about["preference"] else 1) * asked["texts"] + asked["scored_texts"]
    read = texts * asked["max_tokens"]
    scored = asked["scored_texts"] * asked["max_tokens"]
    codes = scored * asked["top_features"] * about["layers"] * FLOAT
    strongest = (2 * asked["evidence_top"] + asked["evidence_random"]) * asked["excerpt_tokens"]
    main = about["autoencoders"][about["main"]]
    latents = main["sizes"][0] * shape.d_model
    held = about["layers"] * latents * (strongest + min(WORDS, read)) * FLOAT
    in_flight = asked["batch_size"] * asked["max_tokens"]
    return cell.cost(
        "explanations",
        read * (shape.forward + coding(cell, about["main"])),
        Memory(
            reading_memory(shape, in_flight, cell.weight, about["layers"])
            + FLOAT * code_floats(main) * in_flight * latents,
            arrays=held + 2 * codes,
            passing=FLOAT * shape.parameters,
        ),
    )


def ablation_cost(cell: Cell) -> Cost:
    """Cost of what all arms write, of reading it, and of neutral texts under them."""
    shape, asked, about = cell.shape, cell.settings["ablation"], cell.about
    draws = _runs(asked["arms"], asked["random_draws"], asked["actions"])
    draws += _runs(asked["base_arms"], asked["random_draws"], ("zero",))
    length = (
        asked["prompt_tokens" if about["preference"] else "prefix_tokens"] + asked["new_tokens"]
    )
    sampled = draws * asked["prompts"] * length * shape.forward
    neutral = draws * asked["neutral_texts"] * asked["neutral_tokens"] * shape.forward
    batch, texts = asked["batch_size"], min(asked["batch_size"], asked["neutral_texts"])
    in_flight = max(batch * length, texts * asked["neutral_tokens"])
    # Of divergences, with those of the untouched model, and of the tokens that are sampled at once.
    logits = (COPIES + 2) * min(in_flight * shape.vocab_size, HELD_LOGITS)
    logits += (COPIES + 1) * batch * shape.vocab_size
    swaps = any(ARMS[arm].swaps for arm in {*asked["arms"], *asked["base_arms"]})
    # The other model reads the batches that a swapping arm is in.
    beside = swaps * max(batch, asked["prompts"]) * length * shape.forward
    coded = coding(cell, about["main"]) / shape.forward
    return cell.cost(
        "ablation",
        (2 * sampled + neutral) * (1 + coded) + beside,
        Memory(
            # The cache of keys and values counts as two layers' activations for each.
            reading_memory(shape, in_flight, cell.weight, 2 * shape.n_layers)
            + FLOAT * logits
            + swaps * cell.weight * shape.parameters,
            passing=FLOAT * shape.parameters,
        ),
        sampling=sampled,
    )


def _runs(arms: Sequence[str], draws: int, actions: Sequence[str]) -> int:
    """Runs of all `arms`: one for each action, and of those that draw one for each set.

    Every arm that selects has sets of its own.
    """
    controls = sum(bool(ARMS[arm].draw) for arm in arms)
    sets = {arm: controls * draws if ARMS[arm].select else 0 for arm in arms}
    return sum((1 + sets[arm]) * len(under) for arm, under in runs(arms, actions).items())
