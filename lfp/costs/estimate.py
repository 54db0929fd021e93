"""The cost of a cell before it runs, from its configuration.

It is given in floating-point operations, GPU-hours, disk and memory.

Counts are of matrix products alone (2 per parameter and token forwards, 4 backwards), sequences are
taken at their configured largest length, so that the estimate is from above; hours follow from an
assumed utilisation of the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from lfp.interventions.arms import ARMS, runs
from lfp.models import HELD_LOGITS
from lfp.probing.subjects import SUBJECTS
from lfp.settings import BETWEEN, BOTH, PRETRAINED, Machine

GB = 1e9
#: Different words of the texts that explanations read: more than those of a thousand reviews.
WORDS = 20_000
#: Pieces of a word, at most.
PIECES = 8
FLOAT, HALF = 4, 2  # bytes of a float32 and of a float16
#: Bytes of Python and the libraries of a job: of one that runs a model, of one that trains by TRL,
#: and of one that trains autoencoders.
LIBRARIES, TRAINERS, KERNELS = 0.45 * GB, 0.6 * GB, 0.32 * GB
#: Floats for each token and unit of width that a block holds while it reads, and that a block keeps
#: for the backward pass.
READ, KEPT = 30, 24
#: Copies of the held logits: with a second model's or with the sum over the vocabulary, and with
#: gradients.
COPIES, TRAINED_COPIES = 3, 6
#: Times that a random set of latents is read before it does the damage that it is to do.
MATCHED = 6
#: Strengths that are tried before a vector has a cost.
STRENGTHS = 4
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


@dataclass(frozen=True)
class Shape:
    """Size of a language model: all its `parameters`, its blocks, its width and its vocabulary."""

    parameters: float
    n_layers: int
    d_model: int
    vocab_size: int

    @property
    def head(self) -> float:
        """Parameters of the output head."""
        return self.d_model * self.vocab_size

    @property
    def forward(self) -> float:
        """FLOPs per token of a forward pass.

        The input embedding (a look-up) is left out where it is not tied.
        """
        return 2 * self.parameters


@dataclass(frozen=True)
class Cost:
    """The cost of one stage of a cell.

    `disk_gb` stays, `scratch_gb` goes when the stage or the next one is done. `gpu_memory_gb` and
    `host_memory_gb` are the largest demands of a job on a GPU, `cpu_memory_gb` is that of the same
    job without one.
    """

    stage: str
    exaflops: float = 0.0
    gpu_hours: float = 0.0
    disk_gb: float = 0.0
    scratch_gb: float = 0.0
    gpu_memory_gb: float = 0.0
    host_memory_gb: float = 0.0
    cpu_memory_gb: float = 0.0

    def row(self) -> dict[str, Any]:
        """The cost as a dictionary."""
        return asdict(self)


@dataclass(frozen=True)
class Memory:
    """The largest demand of a stage's jobs, in bytes.

    ``model`` lies on the GPU where there is one: weights, activations, logits. ``arrays`` lie in
    the host's memory in any case, files that are mapped into it among them. ``passing`` goes
    through the host's memory on its way to or from a GPU. ``unread`` are weights that a CPU leaves
    in their file, which is mapped, because no logits are asked for.
    """

    model: float
    arrays: float = 0.0
    passing: float = 0.0
    unread: float = 0.0
    libraries: float = LIBRARIES

    def columns(self) -> dict[str, float]:
        """The columns of a cost, in GB."""
        return {
            "gpu_memory_gb": self.model / GB,
            "host_memory_gb": (self.libraries + self.arrays + self.passing) / GB,
            "cpu_memory_gb": (self.libraries + self.arrays + self.model - self.unread) / GB,
        }


def _cost(
    stage: str,
    machine: Machine,
    training: float,
    memory: Memory,
    sampling: float = 0.0,
    **sizes: float,
) -> Cost:
    """A stage's cost from the FLOPs of its large matrix products and of its sampling."""
    peak = machine.tflops * 1e12 * 3600
    hours = training / (peak * machine.utilisation) + sampling / (
        peak * machine.sampling_utilisation
    )
    return Cost(
        stage,
        (training + sampling) / 1e18,
        hours,
        **{name: size / GB for name, size in sizes.items()},
        **memory.columns(),
    )


def reading_memory(
    shape: Shape, tokens: float, bytes_per_weight: int, captured: int = 0, predicted: float = 0
) -> float:
    """Bytes of a model that reads `tokens` at once.

    Parameters
    ----------
    shape, bytes_per_weight
        The model and the precision of its weights.
    tokens
        Tokens of a batch.
    captured
        Layers whose activations are kept of a batch.
    predicted
        Tokens of a batch whose logits are asked for.
    """
    activations = tokens * (READ + captured) * shape.d_model
    logits = COPIES * min(predicted * shape.vocab_size, HELD_LOGITS)
    return bytes_per_weight * shape.parameters + FLOAT * max(activations, logits)


def _training_memory(
    shape: Shape, settings: Mapping[str, Any], tokens: float, logits: float
) -> float:
    """Bytes of training on so many `tokens` at once, with so many `logits`.

    They hold weights, reference, gradients and two moments in float32 (with adapters the weights
    and little more), the logits several times, and the activations of all blocks, or with
    checkpointing the inputs of all and the activations of one.
    """
    weights = FLOAT * shape.parameters * (1.1 if settings["lora"] else 5)
    layers, kept = shape.n_layers, KEPT * shape.n_layers
    if settings["gradient_checkpointing"]:
        kept = layers + KEPT
    activations = FLOAT * tokens * kept * shape.d_model
    return weights + activations + FLOAT * TRAINED_COPIES * logits


def ppo_cost(shape: Shape, settings: Mapping[str, Any], machine: Machine, method: str) -> Cost:
    """Fine-tuning on a reward: sampling, policy and reference on the batch, and its epochs.

    The evaluation samples from policy and base, and reads the policy's completions by both. TRL's
    trainers (`rloo`, `grpo`) hold the logits of all completions of a batch.
    """
    new, length = (
        settings["new_tokens"][1],
        settings["prompt_tokens"][1] + settings["new_tokens"][1],
    )
    tokens = settings["steps"] * settings["batch_size"] * length
    evaluated = settings["evaluation_prompts"] * length
    by_trainer = method in ("rloo", "grpo")
    batch = settings["batch_size" if by_trainer else "mini_batch_size"]
    part = batch / settings["gradient_accumulation_steps"]
    logits = part * new * shape.vocab_size
    training = _training_memory(
        shape, settings, part * length, logits if by_trainer else min(logits, HELD_LOGITS)
    )
    sampled = settings["batch_size"] * length
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, sampled, 0, 0, sampled)
    return _cost(
        "fine-tuning",
        machine,
        tokens * shape.forward * (2 + 3 * settings["epochs"]) + 2 * evaluated * shape.forward,
        Memory(
            max(training, evaluation),
            passing=3 * FLOAT * shape.parameters,  # a resume point
            libraries=TRAINERS if by_trainer else LIBRARIES,
        ),
        sampling=(tokens + 2 * evaluated) * shape.forward,
        disk_gb=FLOAT * shape.parameters,
        scratch_gb=3 * FLOAT * shape.parameters,
    )


def dpo_cost(shape: Shape, settings: Mapping[str, Any], machine: Machine) -> Cost:
    """Fine-tuning by DPO: policy (both ways) and reference on both answers of every pair.

    Evaluations read both answers of every held-out pair by both models. The trainer holds the
    logits of a batch.
    """
    pairs = settings["steps"] * settings["batch_size"] * settings["gradient_accumulation_steps"]
    tokens = pairs * 2 * settings["max_length"]
    evaluations = settings["steps"] // settings["evaluate_every"] + 1
    evaluated = evaluations * settings["evaluation_pairs"] * 2 * settings["max_length"]
    at_once = settings["batch_size"] * 2 * settings["max_length"]
    training = _training_memory(shape, settings, at_once, at_once * shape.vocab_size)
    read = 32 * settings["max_length"]  # pairs of the evaluation behind the training
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, read, 0, 0, read)
    return _cost(
        "fine-tuning",
        machine,
        tokens * shape.forward * 4 + evaluated * shape.forward * 2,
        Memory(max(training, evaluation), passing=3 * FLOAT * shape.parameters, libraries=TRAINERS),
        disk_gb=FLOAT * shape.parameters,
        scratch_gb=2 * 3 * FLOAT * shape.parameters,
    )


def given_cost(shape: Shape, settings: Mapping[str, Any], machine: Machine) -> Cost:
    """The evaluation of a policy that is given, by the settings of PPO."""
    length = settings["prompt_tokens"][1] + settings["new_tokens"][1]
    evaluated, batch = settings["evaluation_prompts"] * length, settings["batch_size"] * length
    memory = 2 * FLOAT * shape.parameters + reading_memory(shape, batch, 0, 0, batch)
    return _cost(
        "given policy",
        machine,
        2 * evaluated * shape.forward,
        Memory(memory, passing=FLOAT * shape.parameters),
        sampling=2 * evaluated * shape.forward,
        disk_gb=FLOAT * shape.parameters,
    )


def distil_cost(shape: Shape, settings: Mapping[str, Mapping[str, Any]], machine: Machine) -> Cost:
    """Distillation of a vector: the steered base reads, and one layer of the policy learns.

    Gradients reach back from the output to that layer. The evaluation is that of a given policy.
    """
    asked, ppo = settings["distil"], settings["ppo"]
    part = asked["batch_size"] * asked["max_tokens"]
    logits = min(part * shape.vocab_size, HELD_LOGITS)
    whole = {"lora": None, "gradient_checkpointing": False}
    length = ppo["prompt_tokens"][1] + ppo["new_tokens"][1]
    evaluated, batch = ppo["evaluation_prompts"] * length, ppo["batch_size"] * length
    evaluation = 2 * FLOAT * shape.parameters + reading_memory(shape, batch, 0, 0, batch)
    return _cost(
        "fine-tuning",
        machine,
        (4 * asked["steps"] * part + 2 * evaluated) * shape.forward,
        Memory(
            max(_training_memory(shape, whole, part, logits), evaluation),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=2 * evaluated * shape.forward,
        disk_gb=FLOAT * shape.parameters,
        scratch_gb=2 * FLOAT * shape.parameters,
    )


def change_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> Cost:
    """Readings of the change: words behind their contexts, and the triples, by both models.

    Words are taken to have two pieces behind the context, and all copies with noise read them.
    `settings` are those of the stages.
    """
    max_tokens, settings = settings["features"]["max_tokens"], settings["change"]
    words = settings["contexts"] * settings["context_tokens"]
    words += settings["piece_contexts"] * 2 * settings["words"]
    triples = 2 * cell["triples"] * max_tokens
    read = 2 * shape.forward * ((1 + settings["noise_draws"]) * words + triples)
    in_flight = settings["batch_size"] * max(settings["context_tokens"], max_tokens)
    # Of the positions held at once; of heads one layer's, about one in 64 of the width.
    parts = 2 * 512 * (2 * shape.n_layers + 1 + shape.d_model // 64) * shape.d_model
    return _cost(
        "change",
        machine,
        read,
        Memory(
            FLOAT * shape.parameters * (2 if settings["noise_draws"] else 1)
            + reading_memory(shape, in_flight, FLOAT, 6 * shape.n_layers, 512)
            + FLOAT * (2 * parts + 2 * shape.head),
            arrays=2 * 2 * FLOAT * cell["triples"] * shape.n_layers * shape.d_model,
            passing=2 * FLOAT * shape.parameters,
        ),
    )


def latents_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> Cost:
    """Shares and shifts of latents: contexts or triples, and texts, by all models.

    Words of one token are read behind their contexts at once, and all latents of a layer have a
    product with each of them. `settings` are those of the stages.
    """
    max_tokens, settings = settings["features"]["max_tokens"], settings["change"]
    triples = 2 * cell["triples"] * max_tokens if cell["preference"] else 0
    contexts = 0 if cell["preference"] else settings["contexts"]
    models = 2 + settings["noise_draws"]
    latents = cell["autoencoders"][cell["main"]]["sizes"][0] * shape.d_model
    columns = cell["layers"] * latents
    chosen = triples + contexts * settings["context_tokens"]
    read = shape.forward * (2 * (models - 1) * chosen + models * settings["contexts"] * max_tokens)
    # Each model writes, and the base reads what all of them wrote.
    written = models * min(settings["latent_prompts"], settings["contexts"])
    read += shape.forward * written * (2 * settings["context_tokens"] + 2 * settings["new_tokens"])
    products = 2 * (models - 1) * contexts * settings["words"] * columns * shape.d_model
    in_flight = settings["batch_size"] * max(settings["context_tokens"], max_tokens)
    parts = 2 * 512 * (2 * shape.n_layers + 1) * shape.d_model
    # The shares of all words behind one context, and of all answers.
    held = max(4 * settings["words"], 4 * cell["triples"] * cell["preference"]) * columns
    return _cost(
        "choice_latents",
        machine,
        read + products,
        Memory(
            FLOAT * shape.parameters * (2 if settings["noise_draws"] else 1)
            + reading_memory(shape, in_flight, FLOAT, 4 * shape.n_layers, 512)
            + FLOAT * (2 * parts + 2 * shape.head + columns * shape.d_model),
            arrays=2 * FLOAT * held,
            passing=2 * FLOAT * shape.parameters,
        ),
    )


def locus_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> Cost:
    """The effect of every set of parts that the Shapley values are made of.

    A set is one pass over the completions of all prompts, over both answers of all pairs, or over
    all texts. There are 2^5 sets of components, and two orders of the parts of all
    layers for each of ``orders``.
    """
    asked = settings["locus"]
    sets = 2**5 + 2 * asked["orders"] * (2 * shape.n_layers + 1)
    length, at_once, writes = _effect(settings, cell)
    read = sets * asked["prompts" if writes else "pairs"] * length * shape.forward
    memory = FLOAT * shape.parameters + reading_memory(
        shape, at_once * length, FLOAT, 0, at_once * (1 if writes else length)
    )
    return _cost(
        "locus",
        machine,
        0.0 if writes else read,
        Memory(memory, passing=2 * FLOAT * shape.parameters),
        sampling=read if writes else 0.0,
    )


def _effect(
    settings: Mapping[str, Mapping[str, Any]], cell: Mapping[str, Any]
) -> tuple[int, int, bool]:
    """Tokens of an instance of a cell's effect, instances at once, and whether a model writes."""
    if cell["given"]:
        return settings["divergence"]["max_tokens"], 32, False
    if cell["preference"]:
        return 2 * settings["dpo"]["max_length"], 32, False
    ppo = settings["ppo"]
    return ppo["prompt_tokens"][1] + ppo["new_tokens"][1], settings["locus"]["batch_size"], True


def account_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> Cost:
    """The effect and the distribution of every dose, and of every move by a vector.

    Doses read words behind their contexts as well. Vectors of all layers together take a pass of
    both models for each layer.
    """
    asked, change, n = settings["account"], settings["change"], settings["account"]["instances"]
    places = 1 + asked["single_layers"] * shape.n_layers
    ways = 2 * len(asked["sites"])  # two claims at every site
    moves = ways * places * len(asked["strengths"]) * (1 + 2 * asked["draws"])
    passes = 2 * ways * (shape.n_layers + 1) if moves else 0
    models = moves + (len(asked["doses"]) + 1 if asked["doses"] else 0)
    length, at_once, writes = _effect(settings, cell)
    at_once = min(at_once, n)
    tokens = settings["divergence"]["max_tokens"]
    texts = n * tokens * (2 * models + passes)
    words = 2 * len(asked["doses"]) * n * (change["context_tokens"] + 2 * change["words"])
    effects = models * n * length * shape.forward
    in_flight = max(at_once * length, 32 * tokens, change["batch_size"] * change["context_tokens"])
    return _cost(
        "account",
        machine,
        (texts + words) * shape.forward + (0.0 if writes else effects),
        Memory(
            2 * FLOAT * shape.parameters + reading_memory(shape, in_flight, FLOAT, 0, in_flight),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=effects if writes else 0.0,
    )


def cell_costs(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> list[Cost]:
    """Costs of all stages of a cell.

    `settings` are those of the cell by stage. `cell` tells ``method``, ``given`` (whether its
    policy is), ``preference``, ``layers`` (probed), ``trained_layers`` (of the main variant),
    ``autoencoders`` (settings by variant), ``main`` and ``probed`` (variants; none where the cell
    ends at the readings of its change), ``compared`` (variants that tell policy from base),
    ``triples``, ``dtype``, ``ablation`` (whether it gets that far), ``latents`` (whether shares of
    these are read), and ``kept`` (whether activations are).
    """
    weight = 2 if cell["dtype"] == "bfloat16" else FLOAT
    if cell["given"]:
        costs = [given_cost(shape, settings["ppo"], machine)]
    elif cell["method"] == "distil":
        costs = [distil_cost(shape, settings, machine)]
    elif cell["preference"]:
        costs = [dpo_cost(shape, settings["dpo"], machine)]
    else:
        costs = [ppo_cost(shape, settings["ppo"], machine, cell["method"])]
    costs.append(change_cost(shape, settings, cell, machine))
    if settings["account"]["doses"] or settings["account"]["strengths"]:
        costs.append(account_cost(shape, settings, cell, machine))
    if not cell["probed"]:
        return costs
    read = settings["divergence"]
    in_flight = read["batch_size"] * read["max_tokens"]
    costs.append(
        _cost(
            "divergence",
            machine,
            2 * read["texts"] * read["max_tokens"] * shape.forward,
            Memory(
                FLOAT * shape.parameters
                + reading_memory(shape, in_flight, FLOAT, 2 * shape.n_layers),
                passing=2 * FLOAT * shape.parameters,
                unread=2 * FLOAT * shape.head,
            ),
        )
    )
    costs.append(locus_cost(shape, settings, cell, machine))
    costs += _dictionary_costs(shape, settings, cell, machine, weight)
    if cell["latents"]:
        costs.append(latents_cost(shape, settings, cell, machine))
    costs.append(_features_cost(shape, settings["features"], cell, machine, weight))
    if cell["ablation"]:
        costs += _explained_costs(shape, settings, cell, machine, weight)
        if settings["interventions"]["selectors"]:
            costs.append(interventions_cost(shape, settings, cell, machine, weight))
        if settings["steering"]["vectors"]:
            costs.append(steering_cost(shape, settings, cell, machine, weight))
    return costs


def _dictionary_costs(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> list[Cost]:
    """Costs of the activations, of the autoencoders and of their evaluation.

    Every site of policy and base is a harvest. That of the base counts for each cell that reads it,
    and once more where variants read it on the policy's tokens.
    """
    reading, d = settings["activations"], shape.d_model
    variants = cell["autoencoders"]
    tokens = reading["texts"] * reading["max_tokens"]
    harvests = len(
        {
            (model, sae["site"])
            for sae in variants.values()
            for model in (("policy", "paired") if sae["reads"] in BOTH else (sae["reads"],))
        }
    )
    layers = shape.n_layers if cell["kept"] else cell["trained_layers"]
    harvested = harvests * layers * tokens * d * HALF
    in_flight = reading["batch_size"] * reading["max_tokens"]
    activations = _cost(
        "activations",
        machine,
        harvests * tokens * shape.forward,
        Memory(
            # A batch of every layer as it is read, and of its real tokens alone.
            reading_memory(shape, in_flight, weight, 2 * layers),
            # A window; the files behind it are mapped, and the system puts them aside at need.
            arrays=layers * d * HALF * min(tokens, WINDOW),
            passing=FLOAT * shape.parameters,
            unread=weight * shape.head,
        ),
        **{"disk_gb" if cell["kept"] else "scratch_gb": harvested},
    )
    autoencoders = _training_cost(shape, tokens, cell, machine)
    evaluation = _evaluation_cost(shape, reading, cell, machine, weight)
    compared = _comparison_cost(shape, settings["feature_diff"]["tokens"], tokens, cell, machine)
    judged = [_judgement_cost(shape, settings, cell, machine, weight)]
    asked = settings["evaluation"]["probes"]
    return [activations, autoencoders, evaluation, *(judged if asked else []), *compared]


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
    pursues = sae["architecture"] != PRETRAINED and not sae["by_gradients"]
    return 2.0 * PURSUED * d * d * sae["k"] if pursues else 0.0


def _coding(cell: Mapping[str, Any], variant: str, d: int) -> float:
    """FLOPs of coding a token by pursuit in all layers with a variant's smallest dictionaries."""
    sae = cell["autoencoders"][variant]
    return cell["layers"] * sae["sizes"][0] * _pursuit(sae, d)


def _code_floats(sae: Mapping[str, Any]) -> int:
    """Floats of a token and a latent that its coding holds."""
    return PURSUIT_FLOATS if _pursuit(sae, 1) else 3


def _training_cost(shape: Shape, tokens: int, cell: Mapping[str, Any], machine: Machine) -> Cost:
    """Cost of all autoencoders of a cell: of training them on `tokens` tokens of every layer.

    One from elsewhere is taken, and one that no gradient trains codes tokens in a single pass.
    """
    d, variants = shape.d_model, cell["autoencoders"]
    layers = {
        name: cell["trained_layers" if name == cell["main"] else "layers"] for name in variants
    }
    each = {name: _training(sae, d, tokens) for name, sae in variants.items()}
    trained = any(sae["architecture"] != PRETRAINED for sae in variants.values())
    return _cost(
        "autoencoders",
        machine,
        sum(layers[name] * one.flops for name, one in each.items()),
        Memory(
            FLOAT * max(one.held for one in each.values()),
            # Activations are read from their file: the memory that holds a layer is the system's
            # cache and can be less.
            arrays=tokens * d * HALF * trained,
            libraries=KERNELS,
        ),
        disk_gb=FLOAT * sum(layers[name] * one.saved for name, one in each.items()),
    )


def _comparison_cost(
    shape: Shape, most: int, tokens: int, cell: Mapping[str, Any], machine: Machine
) -> list[Cost]:
    """Cost of telling latents of the policy from those of the base, on `most` tokens at most."""
    if not cell["compared"]:
        return []
    d, variants = shape.d_model, cell["autoencoders"]
    widest = max(variants[name]["sizes"][0] for name in cell["compared"]) * d
    layers = len(cell["compared"]) * cell["layers"]
    # The code, the reconstruction and the fits of each side, of a pair and of its null.
    flops = 2 * layers * min(tokens, most) * 12 * widest * d
    memory = Memory(FLOAT * (8 * d * widest + 6 * COMPARED_ROWS * (d + widest)))
    return [_cost("feature_diff", machine, flops, memory)]


def _models(sae: Mapping[str, Any]) -> int:
    """Models whose activations a dictionary reads for every token; two are twice the work."""
    return 2 if sae["reads"] in ("pair", "pooled") else 1


def _evaluation_cost(
    shape: Shape,
    reading: Mapping[str, Any],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Cost of measuring all autoencoders on held-out texts: a pass for every replacement."""
    d, variants = shape.d_model, cell["autoencoders"]
    trained = {
        name: cell["trained_layers" if name == cell["main"] else "layers"] for name in variants
    }
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
    codes = max(_code_floats(sae) * sae["sizes"][-1] for sae in variants.values()) * d
    # Every dictionary codes the texts twice: for its errors, and for the pass with its replacement.
    coding = sum(2 * trained[n] * sum(s["sizes"]) * _pursuit(s, d) for n, s in variants.items())
    return _cost(
        "evaluation",
        machine,
        held_out * (passes * shape.forward + coding),
        Memory(
            reading_memory(shape, in_flight, weight, cell["trained_layers"])
            + FLOAT * (weights + in_flight * codes + logits),
            passing=FLOAT * shape.parameters,
        ),
    )


def _judgement_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Cost of judging all variants beside controls.

    A variant reads the held-out texts once, and the contrast triples for each of four dictionaries:
    the trained one, another seed's, and those of the two controls.
    """
    reading, features, d = settings["activations"], settings["features"], shape.d_model
    held_out = reading["held_out_texts"] * reading["max_tokens"]
    triples = 4 * 3 * cell["triples"] * features["max_tokens"]
    variants = cell["autoencoders"].values()
    largest = max(sum(sae["sizes"]) + 3 * sae["sizes"][0] for sae in variants) * d
    coded = sum(_coding(cell, name, d) for name in cell["autoencoders"])
    in_flight = max(part["batch_size"] * part["max_tokens"] for part in (reading, features))
    codes = 4 * 3 * cell["triples"] * cell["layers"] * max(s["sizes"][0] for s in variants) * d
    return _cost(
        "evaluate_dictionaries",
        machine,
        (held_out + triples) * (len(variants) * shape.forward + coded),
        Memory(
            reading_memory(shape, in_flight, weight, cell["layers"])
            + FLOAT * (2 * cell["layers"] * d * largest + 3 * in_flight * largest),
            arrays=FLOAT * codes,
            passing=FLOAT * shape.parameters,
        ),
    )


def _features_cost(
    shape: Shape,
    settings: Mapping[str, Any],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Cost of the features of the contrast triples, which every probed variant reads anew."""
    subjects = [name for name in settings["subjects"] if SUBJECTS[name].load]
    read = 3 * cell["triples"] * settings["max_tokens"] * len(subjects)
    coding = sum(_coding(cell, name, shape.d_model) for name in cell["probed"])
    # Latents and random code of the smallest size; reconstruction, raw activations and embedding.
    sizes = [cell["autoencoders"][name]["sizes"][0] for name in cell["probed"]]
    widths = [cell["layers"] * shape.d_model * (2 * size + 3) for size in sizes]
    in_flight = settings["batch_size"] * settings["max_tokens"]
    # Logits are those of the elements: answers, or the pieces of a word.
    predicted = in_flight if cell["preference"] else settings["batch_size"] * PIECES
    return _cost(
        "features",
        machine,
        read * (len(cell["probed"]) * shape.forward + coding),
        Memory(
            reading_memory(shape, in_flight, weight, cell["layers"], predicted),
            arrays=3 * cell["triples"] * max(widths) * FLOAT,
            passing=FLOAT * shape.parameters,
        ),
        disk_gb=3 * cell["triples"] * sum(widths) * FLOAT * len(subjects),
    )


def _explained_costs(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> list[Cost]:
    """Costs of explanations and of ablation."""
    explaining = settings["explanations"]
    # Preferences are read as pairs once more.
    texts = (2 if cell["preference"] else 1) * explaining["texts"] + explaining["scored_texts"]
    read = texts * explaining["max_tokens"]
    scored = explaining["scored_texts"] * explaining["max_tokens"]
    codes = scored * explaining["top_features"] * cell["layers"] * FLOAT
    strongest = (2 * explaining["evidence_top"] + explaining["evidence_random"]) * explaining[
        "excerpt_tokens"
    ]
    main = cell["autoencoders"][cell["main"]]
    latents = main["sizes"][0] * shape.d_model
    coding = _coding(cell, cell["main"], shape.d_model)
    held = cell["layers"] * latents * (strongest + min(WORDS, read)) * FLOAT
    in_flight = explaining["batch_size"] * explaining["max_tokens"]
    explained = _cost(
        "explanations",
        machine,
        read * (shape.forward + coding),
        Memory(
            reading_memory(shape, in_flight, weight, cell["layers"])
            + FLOAT * _code_floats(main) * in_flight * latents,
            arrays=held + 2 * codes,
            passing=FLOAT * shape.parameters,
        ),
    )
    ablating = settings["ablation"]
    draws = _runs(ablating["arms"], ablating["random_draws"], ablating["actions"])
    draws += _runs(ablating["base_arms"], ablating["random_draws"], ("zero",))
    length = (
        ablating["prompt_tokens" if cell["preference"] else "prefix_tokens"]
        + ablating["new_tokens"]
    )
    sampled = draws * ablating["prompts"] * length * shape.forward
    neutral = draws * ablating["neutral_texts"] * ablating["neutral_tokens"] * shape.forward
    batch, texts = ablating["batch_size"], min(ablating["batch_size"], ablating["neutral_texts"])
    in_flight = max(batch * length, texts * ablating["neutral_tokens"])
    # Of divergences, with those of the untouched model, and of the tokens that are sampled at once.
    logits = (COPIES + 2) * min(in_flight * shape.vocab_size, HELD_LOGITS)
    logits += (COPIES + 1) * batch * shape.vocab_size
    ablated = _cost(
        "ablation",
        machine,
        (2 * sampled + neutral) * (1 + coding / shape.forward),
        Memory(
            # The cache of keys and values counts as two layers' activations for each.
            reading_memory(shape, in_flight, weight, 2 * shape.n_layers) + FLOAT * logits,
            passing=FLOAT * shape.parameters,
        ),
        sampling=sampled,
    )
    return [explained, ablated]


def interventions_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Sets under every action with their random sets, and the effects of single latents.

    Every random set is measured some times before it does the damage of its set.

    Parameters
    ----------
    shape
        Size of the model.
    settings
        Settings of the cell by stage.
    cell
        The cell, as :func:`cell_costs` takes it.
    machine
        The machine that the cost is in hours of.
    weight
        Bytes of a weight.
    """
    asked, how = settings["interventions"], settings["ablation"]
    sets = len(asked["selectors"])
    actions = sum(len(asked.get(f"{name}s", ())) or 1 for name in asked["actions"])
    runs = len(asked["subjects"]) * (2 + sets * actions * (1 + asked["draws"]))
    length = how["prompt_tokens" if cell["preference"] else "prefix_tokens"] + how["new_tokens"]
    sampled = runs * asked["prompts"] * length
    matched = runs * MATCHED * min(32, asked["prompts"]) * length
    neutral = runs * how["neutral_texts"] * how["neutral_tokens"]
    single = 2 * asked["exact"] + sets * (4 + 2 * asked["latents"]) + 3 * (1 + asked["circuit"])
    single += asked["masks"] * ("factorisation" in asked["selectors"])
    tokens = asked["texts"] * settings["features"]["max_tokens"]
    read = matched + neutral + single * tokens * (2 if cell["preference"] else 1)
    pairs = 2 if "patch" in asked["actions"] else 1  # the other model reads what this one does
    in_flight = how["batch_size"] * max(length, settings["features"]["max_tokens"])
    logits = (COPIES + 2) * min(in_flight * shape.vocab_size, HELD_LOGITS)
    return _cost(
        "interventions",
        machine,
        pairs * (sampled + read) * shape.forward,
        Memory(
            weight * shape.parameters
            + reading_memory(shape, in_flight, weight, 2 * shape.n_layers)
            # What a pass leaves for the one backwards.
            + FLOAT * (KEPT * in_flight * shape.n_layers * shape.d_model + logits),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=pairs * sampled * shape.forward,
    )


def steering_cost(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Vectors at every cost with the search for their strengths, and effects on latents.

    Parameters
    ----------
    shape, machine
        Size of the model, and what it runs on.
    settings
        Settings of the cell by stage.
    cell
        What is known of the cell (:func:`cell_costs`).
    weight
        Bytes of a weight.
    """
    asked, how = settings["steering"], settings["ablation"]
    named = len(asked["vectors"]) * (2 if asked["gate"] else 1) + len(asked["selectors"]) + 2
    lines = named + 2 * asked["draws"]
    points = lines * len(asked["costs"])
    length = how["prompt_tokens" if cell["preference"] else "prefix_tokens"] + how["new_tokens"]
    effects = asked["directions"] * asked["effect_prompts"]
    # What is written is read once more, for its KL or its latents.
    sampled = (points * asked["prompts"] + effects) * length
    neutral = STRENGTHS * points * how["neutral_texts"] * how["neutral_tokens"]
    tokens = asked["texts"] * settings["features"]["max_tokens"]
    cleaning = 3 * 300 * how["batch_size"] * settings["features"]["max_tokens"]
    read = sampled + neutral + 6 * tokens + (cleaning if asked["clean"] else 0)
    in_flight = how["batch_size"] * max(length, settings["features"]["max_tokens"])
    logits = TRAINED_COPIES * min(in_flight * shape.vocab_size, HELD_LOGITS)
    return _cost(
        "steering",
        machine,
        read * shape.forward,
        Memory(
            # Base, policy, and a model between the two.
            3 * weight * shape.parameters
            + reading_memory(shape, in_flight, weight, 2)
            + FLOAT * (KEPT * in_flight * shape.n_layers * shape.d_model + logits),
            passing=2 * FLOAT * shape.parameters,
        ),
        sampling=sampled * shape.forward,
    )


def _runs(arms: Sequence[str], draws: int, actions: Sequence[str]) -> int:
    """Runs of all `arms`: one for each action, and of those that draw one for each set.

    Every arm that selects has sets of its own.
    """
    controls = sum(bool(ARMS[arm].draw) for arm in arms)
    sets = {arm: controls * draws if ARMS[arm].select else 0 for arm in arms}
    return sum((1 + sets[arm]) * len(under) for arm, under in runs(arms, actions).items())


def grid_costs(cells: Sequence[Mapping[str, Any]], machine: Machine) -> pd.DataFrame:
    """A row for every stage of every cell, and one for its total.

    Memory and scratch space of the total are those of its largest stage.

    `cells` have ``address``, ``shape``, ``settings`` and ``about``, as
    :meth:`lfp.grid.Grid.estimate_settings` gives them.
    """
    rows = []
    for cell in cells:
        shape = Shape(**cell["shape"])
        costs = cell_costs(shape, cell["settings"], cell["about"], machine)
        stages = pd.DataFrame([cost.row() for cost in costs])
        sizes = stages.drop(columns="stage")
        total = {
            name: sizes[name].max() if name.endswith("memory_gb") else sizes[name].sum()
            for name in sizes
        }
        total["scratch_gb"] = sizes["scratch_gb"].max()
        rows += stages.to_dict("records") + [{"stage": "total", **total}]
        for row in rows[-len(stages) - 1 :]:
            row["cell"] = cell["address"]
    frame = pd.DataFrame(rows)
    return frame[["cell", *[name for name in frame if name != "cell"]]]


def summary(frame: pd.DataFrame) -> str:
    """The totals of the cells of :func:`grid_costs`, and their sums, as lines to print."""
    totals = frame[frame["stage"] == "total"].drop(columns="stage")
    summed = totals[["exaflops", "gpu_hours", "disk_gb"]].sum()
    return (
        totals.to_string(index=False, float_format=lambda value: f"{value:.3g}")
        + f"\nall cells: {summed['exaflops']:.3g} EFLOP, {summed['gpu_hours']:.3g} GPU-hours,"
        f" {summed['disk_gb']:.3g} GB"
    )
