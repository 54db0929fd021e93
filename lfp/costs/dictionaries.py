"""Costs of activations, of autoencoders and of their evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lfp.costs.base import (
    COPIES,
    FLOAT,
    HALF,
    KERNELS,
    Cell,
    Cost,
    Memory,
    reading_memory,
)
from lfp.models import HELD_LOGITS
from lfp.settings import BETWEEN, BOTH, PRETRAINED

#: Tokens of activations that a harvest shuffles together (:mod:`lfp.sae.harvest`).
WINDOW = 65_536
#: Tokens whose latents are compared between models at once (:mod:`lfp.sae.pairs.specific`).
COMPARED_ROWS = 2048
#: Products of every direction with a token in a step of a pursuit, and floats of a token and a
#: direction that it holds, where an encoder holds three (:mod:`lfp.sae.architectures.itda`).
PURSUED, PURSUIT_FLOATS = 3, 7
#: Weights that a job holds for each of a dictionary from elsewhere, as measured: the file's tensors
#: with directions of norm 1, and the dictionary with its first weights.
TAKEN = 4.5
#: Tokens that a pursuit codes again where one of them joins the dictionary, on average.
CODED_AGAIN = 32
#: Share of the tokens that are held out of a training, how many at most, and how many are coded at
#: once (:mod:`lfp.sae.training`).
HELD_OUT_SHARE, HELD_OUT, CODED_ROWS = 1 / 16, 8192, 2048


def dictionary_costs(cell: Cell) -> list[Cost]:
    """Costs of activations, of autoencoders and their evaluation, and of comparing models."""
    costs = [_activations_cost(cell), _training_cost(cell), _evaluation_cost(cell)]
    if cell.settings["evaluation"]["probes"]:
        costs.append(_judgement_cost(cell))
    if cell.about["compared"]:
        costs.append(_comparison_cost(cell))
    return costs


def _tokens(cell: Cell) -> int:
    """Tokens whose activations are read of every layer and site."""
    reading = cell.settings["activations"]
    return reading["texts"] * reading["max_tokens"]


def _trained_layers(cell: Cell) -> dict[str, int]:
    """The number of layers that every variant of a cell has dictionaries of."""
    about = cell.about
    return {
        name: about["trained_layers" if name == about["main"] else "layers"]
        for name in about["autoencoders"]
    }


def _activations_cost(cell: Cell) -> Cost:
    """Cost of the activations.

    Every site of policy and base is a harvest. That of the base counts for each cell that reads it,
    and once more where variants read it on the policy's tokens.
    """
    shape, reading, about = cell.shape, cell.settings["activations"], cell.about
    d, tokens = shape.d_model, _tokens(cell)
    harvests = len(
        {
            (model, sae["site"])
            for sae in about["autoencoders"].values()
            for model in (("policy", "paired") if sae["reads"] in BOTH else (sae["reads"],))
        }
    )
    layers = shape.n_layers if about["kept"] else about["trained_layers"]
    harvested = harvests * layers * tokens * d * HALF
    in_flight = reading["batch_size"] * reading["max_tokens"]
    return cell.cost(
        "activations",
        harvests * tokens * shape.forward,
        Memory(
            # A batch of every layer as it is read, and of its real tokens alone.
            reading_memory(shape, in_flight, cell.weight, 2 * layers),
            # A window; the files behind it are mapped, and the system puts them aside at need.
            arrays=layers * d * HALF * min(tokens, WINDOW),
            passing=FLOAT * shape.parameters,
            unread=cell.weight * shape.head,
        ),
        disk=harvested if about["kept"] else 0.0,
        scratch=0.0 if about["kept"] else harvested,
    )


@dataclass(frozen=True)
class _Training:
    """What training a variant's dictionaries of one layer takes.

    These are its FLOPs, the floats that it holds and those that it saves.
    """

    flops: float
    held: float
    saved: float


def _training(sae: Mapping[str, Any], d: int, tokens: int) -> _Training:
    """What the dictionaries of a variant take on `tokens` tokens of a width `d`."""
    # Beside those of all sizes, one of the first size from another seed, and a pair's null.
    beside = sae["other_seed"] + (sae["reads"] == "pair")
    latents = (sum(sae["sizes"]) + sae["sizes"][0] * beside) * d
    weights = 2 * d * latents * _models(sae)
    if sae["architecture"] == PRETRAINED:
        # It is written as it is taken, and once more into the cell.
        return _Training(0.0, TAKEN * weights, 2 * weights)
    if not sae["by_gradients"]:
        held_out, largest = min(HELD_OUT, tokens * HELD_OUT_SHARE), max(sae["sizes"]) * d
        looks = 1 + tokens / (sae["batch_size"] * sae["check_steps"])
        # As if it were never full: from then on no token is coded but by looks.
        coded = tokens + CODED_AGAIN * largest / 2 + 2 * looks * held_out
        held = weights + d * held_out + PURSUIT_FLOATS * min(CODED_ROWS, held_out) * largest
        # There is no encoder to save.
        return _Training(coded * _pursuit(sae, d) * latents / d, held, weights / 2)
    # Weights, gradients and moments; a batch and its latents, thrice.
    batch = 3 * sae["batch_size"] * (d * _models(sae) + latents)
    trainings = sae["mutual"]["partners"] + 1 if sae.get("mutual") else 1
    return _Training(6 * trainings * tokens * sae["epochs"] * weights, 4 * weights + batch, weights)


def _pursuit(sae: Mapping[str, Any], d: int) -> float:
    """FLOPs by which a pursuit codes a token with `d` directions of that width; 0 of an encoder.

    An encoder's single product is small beside the model that reads the token.
    """
    pursues = not sae["by_gradients"] and sae["architecture"] != PRETRAINED
    return 2 * PURSUED * d * d * sae["k"] if pursues else 0.0


def coding(cell: Cell, variant: str) -> float:
    """FLOPs of coding a token by pursuit in all layers with a variant's smallest dictionaries."""
    sae = cell.about["autoencoders"][variant]
    return cell.about["layers"] * sae["sizes"][0] * _pursuit(sae, cell.shape.d_model)


def code_floats(sae: Mapping[str, Any]) -> int:
    """Floats of a token and a latent that its coding holds."""
    return PURSUIT_FLOATS if _pursuit(sae, 1) else 3


def _training_cost(cell: Cell) -> Cost:
    """Cost of training all autoencoders of a cell.

    One from elsewhere is taken, and one that no gradient trains codes tokens in a single pass.
    """
    d, variants = cell.shape.d_model, cell.about["autoencoders"]
    layers, tokens = _trained_layers(cell), _tokens(cell)
    each = {name: _training(sae, d, tokens) for name, sae in variants.items()}
    trained = any(sae["architecture"] != PRETRAINED for sae in variants.values())
    return cell.cost(
        "autoencoders",
        sum(layers[name] * one.flops for name, one in each.items()),
        Memory(
            FLOAT * max(one.held for one in each.values()),
            # Activations are read from their file: the memory that holds a layer is the system's
            # cache and can be less.
            arrays=tokens * d * HALF * trained,
            libraries=KERNELS,
        ),
        disk=FLOAT * sum(layers[name] * one.saved for name, one in each.items()),
    )


def _comparison_cost(cell: Cell) -> Cost:
    """Cost of telling latents of the policy from those of the base."""
    about, most = cell.about, cell.settings["feature_diff"]["tokens"]
    d, variants = cell.shape.d_model, about["autoencoders"]
    widest = max(variants[name]["sizes"][0] for name in about["compared"]) * d
    layers = len(about["compared"]) * about["layers"]
    # The code, the reconstruction and the fits of each side, of a pair and of its null.
    flops = 2 * layers * min(_tokens(cell), most) * 12 * widest * d
    memory = Memory(FLOAT * (8 * d * widest + 6 * COMPARED_ROWS * (d + widest)))
    return cell.cost("feature_diff", flops, memory)


def _models(sae: Mapping[str, Any]) -> int:
    """Models whose activations a dictionary reads for every token; two are twice the work."""
    return 2 if sae["reads"] in ("pair", "pooled") else 1


def _evaluation_cost(cell: Cell) -> Cost:
    """Cost of measuring all autoencoders on held-out texts: a pass for every replacement."""
    shape, reading, about = cell.shape, cell.settings["activations"], cell.about
    d, variants, trained = shape.d_model, about["autoencoders"], _trained_layers(cell)
    held_out = reading["held_out_texts"] * reading["max_tokens"]
    in_flight = min(reading["batch_size"] * reading["max_tokens"], held_out)
    # The passes of many replacements leave both in the memory that a process keeps.
    logits = (COPIES + 1) * min(in_flight * shape.vocab_size, HELD_LOGITS)
    # Of a dictionary of both models, the base reads what the policy reads.
    models = {name: 1 + (sae["reads"] in BETWEEN) for name, sae in variants.items()}
    passes = sum(
        1 + models[name] * (1 + trained[name] * (1 + len(sae["sizes"])))
        for name, sae in variants.items()
    )
    weights = max(trained[name] * 2 * d * d * sum(sae["sizes"]) for name, sae in variants.items())
    codes = max(code_floats(sae) * sae["sizes"][-1] for sae in variants.values()) * d
    # Every dictionary codes the texts twice: for its errors, and for the pass with its replacement.
    coded = sum(2 * trained[n] * sum(s["sizes"]) * _pursuit(s, d) for n, s in variants.items())
    return cell.cost(
        "evaluation",
        held_out * (passes * shape.forward + coded),
        Memory(
            reading_memory(shape, in_flight, cell.weight, about["trained_layers"])
            + FLOAT * (weights + in_flight * codes + logits),
            passing=FLOAT * shape.parameters,
        ),
    )


def _judgement_cost(cell: Cell) -> Cost:
    """Cost of judging all variants beside controls.

    A variant reads the held-out texts once, and the contrast triples for each of four dictionaries:
    the trained one, another seed's, and those of the two controls.
    """
    shape, settings, about = cell.shape, cell.settings, cell.about
    reading, features, d = settings["activations"], settings["features"], shape.d_model
    held_out = reading["held_out_texts"] * reading["max_tokens"]
    triples = 4 * 3 * about["triples"] * features["max_tokens"]
    variants = about["autoencoders"].values()
    largest = max(sum(sae["sizes"]) + 3 * sae["sizes"][0] for sae in variants) * d
    coded = sum(coding(cell, name) for name in about["autoencoders"])
    in_flight = max(part["batch_size"] * part["max_tokens"] for part in (reading, features))
    codes = 4 * 3 * about["triples"] * about["layers"] * max(s["sizes"][0] for s in variants) * d
    return cell.cost(
        "evaluate_dictionaries",
        (held_out + triples) * (len(variants) * shape.forward + coded),
        Memory(
            reading_memory(shape, in_flight, cell.weight, about["layers"])
            + FLOAT * (2 * about["layers"] * d * largest + 3 * in_flight * largest),
            arrays=FLOAT * codes,
            passing=FLOAT * shape.parameters,
        ),
    )
