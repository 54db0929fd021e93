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

from lfp.interventions.arms import ARMS
from lfp.probing.subjects import SUBJECTS
from lfp.settings import Machine

GB = 1e9
#: Different words of the texts that explanations read: more than those of a thousand reviews.
WORDS = 20_000
FLOAT, HALF = 4, 2  # bytes of a float32 and of a float16


@dataclass(frozen=True)
class Shape:
    """Size of a language model: all its `parameters`, its blocks, its width and its vocabulary."""

    parameters: float
    n_layers: int
    d_model: int
    vocab_size: int

    @property
    def forward(self) -> float:
        """FLOPs per token of a forward pass.

        The input embedding (a look-up) is left out where it is not tied.
        """
        return 2 * self.parameters


@dataclass(frozen=True)
class Cost:
    """The cost of one stage of a cell.

    `disk_gb` stays, `scratch_gb` goes when the stage or the next one is done.
    """

    stage: str
    exaflops: float = 0.0
    gpu_hours: float = 0.0
    disk_gb: float = 0.0
    scratch_gb: float = 0.0
    gpu_memory_gb: float = 0.0
    host_memory_gb: float = 0.0

    def row(self) -> dict[str, Any]:
        """The cost as a dictionary."""
        return asdict(self)


def _cost(
    stage: str, machine: Machine, training: float, sampling: float = 0.0, **sizes: float
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
    )


def _training_memory(shape: Shape, lora: Any, tokens_in_flight: float) -> float:
    """Bytes of training.

    They hold weights, reference, gradients and two moments in float32, the logits thrice, and the
    activations of a block.
    """
    weights = FLOAT * shape.parameters * (1.1 if lora else 5)
    activations = (
        FLOAT * tokens_in_flight * (3 * shape.vocab_size + 16 * shape.n_layers * shape.d_model)
    )
    return weights + activations


def ppo_cost(shape: Shape, settings: Mapping[str, Any], machine: Machine) -> Cost:
    """Fine-tuning by PPO: sampling, policy and reference on the batch, and the epochs over it."""
    length = settings["prompt_tokens"][1] + settings["new_tokens"][1]
    tokens = settings["steps"] * settings["batch_size"] * length
    part = settings["mini_batch_size"] / settings["gradient_accumulation_steps"]
    return _cost(
        "fine-tuning",
        machine,
        tokens * shape.forward * (2 + 3 * settings["epochs"]),
        tokens * shape.forward,
        disk_gb=FLOAT * shape.parameters,
        scratch_gb=3 * FLOAT * shape.parameters,
        gpu_memory_gb=_training_memory(shape, settings["lora"], part * length),
        host_memory_gb=3 * FLOAT * shape.parameters,
    )


def dpo_cost(shape: Shape, settings: Mapping[str, Any], machine: Machine) -> Cost:
    """Fine-tuning by DPO: policy (both ways) and reference on both answers of every pair."""
    pairs = settings["steps"] * settings["batch_size"] * settings["gradient_accumulation_steps"]
    tokens = pairs * 2 * settings["max_length"]
    in_flight = settings["batch_size"] * 2 * settings["max_length"]
    return _cost(
        "fine-tuning",
        machine,
        tokens * shape.forward * 4,
        disk_gb=FLOAT * shape.parameters,
        scratch_gb=2 * 3 * FLOAT * shape.parameters,
        gpu_memory_gb=_training_memory(shape, settings["lora"], in_flight),
        host_memory_gb=3 * FLOAT * shape.parameters,
    )


def reading_memory(
    shape: Shape, tokens: float, bytes_per_weight: int, vocabulary: bool = False
) -> float:
    """Bytes of a model that reads `tokens` at once, with logits of them all where it needs them."""
    per_token = 16 * shape.d_model + (2 * shape.vocab_size if vocabulary else 0)
    return bytes_per_weight * shape.parameters + FLOAT * tokens * per_token


def cell_costs(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
) -> list[Cost]:
    """Costs of all stages of a cell.

    `settings` are those of the cell by stage. `cell` tells ``given`` (whether its policy is),
    ``preference``, ``layers`` (probed), ``trained_layers`` (of the main variant), ``autoencoders``
    (settings by variant), ``main`` and ``probed`` (variants), ``triples``, ``dtype``, ``ablation``
    (whether it gets that far) and ``kept`` (whether activations are).
    """
    weight = 2 if cell["dtype"] == "bfloat16" else FLOAT
    tune = dpo_cost if cell["preference"] else ppo_cost
    costs = []
    if not cell["given"]:
        costs.append(tune(shape, settings["dpo" if cell["preference"] else "ppo"], machine))
    read = settings["divergence"]
    costs.append(
        _cost(
            "divergence",
            machine,
            2 * read["texts"] * read["max_tokens"] * shape.forward,
            gpu_memory_gb=2 * reading_memory(shape, read["batch_size"] * read["max_tokens"], FLOAT),
            host_memory_gb=2 * FLOAT * shape.parameters,
        )
    )
    costs += _dictionary_costs(shape, settings, cell, machine, weight)
    costs.append(_features_cost(shape, settings["features"], cell, machine, weight))
    if cell["ablation"]:
        costs += _explained_costs(shape, settings, cell, machine, weight)
    return costs


def _dictionary_costs(
    shape: Shape,
    settings: Mapping[str, Mapping[str, Any]],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> list[Cost]:
    """Costs of the activations and of the autoencoders.

    Every site of policy and base is a harvest. That of the base counts for each cell that reads it.
    """
    reading, d = settings["activations"], shape.d_model
    variants = cell["autoencoders"]
    tokens = reading["texts"] * reading["max_tokens"]
    harvests = len({(sae["reads"], sae["site"]) for sae in variants.values()})
    layers = shape.n_layers if cell["kept"] else cell["trained_layers"]
    harvested = harvests * layers * tokens * d * HALF
    activations = _cost(
        "activations",
        machine,
        harvests * tokens * shape.forward,
        **{"disk_gb" if cell["kept"] else "scratch_gb": harvested},
        gpu_memory_gb=reading_memory(shape, reading["batch_size"] * reading["max_tokens"], weight),
        host_memory_gb=2 * FLOAT * shape.parameters,
    )
    sizes = {name: sum(sae["sizes"]) * d * d for name, sae in variants.items()}
    trained = {name: cell["trained_layers" if name == cell["main"] else "layers"] for name in sizes}
    autoencoders = _cost(
        "autoencoders",
        machine,
        sum(trained[name] * tokens * variants[name]["epochs"] * 12 * sizes[name] for name in sizes),
        disk_gb=sum(trained[name] * 2 * sizes[name] * FLOAT for name in sizes),
        # Activations are read from their file: the memory that holds a layer is the system's
        # cache and can be less.
        gpu_memory_gb=max(
            FLOAT * (8 * sizes[name] + 8 * variants[name]["batch_size"] * d) for name in sizes
        ),
        host_memory_gb=tokens * d * HALF,
    )
    return [activations, autoencoders]


def _features_cost(
    shape: Shape,
    settings: Mapping[str, Any],
    cell: Mapping[str, Any],
    machine: Machine,
    weight: int,
) -> Cost:
    """Cost of the features of the contrast triples, which every probed variant reads anew."""
    subjects = [name for name in settings["subjects"] if SUBJECTS[name].load]
    read = 3 * cell["triples"] * settings["max_tokens"] * len(subjects) * len(cell["probed"])
    # Latents and random code of the smallest size; reconstruction, raw activations and embedding.
    sizes = [cell["autoencoders"][name]["sizes"][0] for name in cell["probed"]]
    widths = [cell["layers"] * shape.d_model * (2 * size + 3) for size in sizes]
    in_flight = settings["batch_size"] * settings["max_tokens"]
    return _cost(
        "features",
        machine,
        read * shape.forward,
        disk_gb=3 * cell["triples"] * sum(widths) * FLOAT * len(subjects),
        gpu_memory_gb=reading_memory(shape, in_flight, weight),
        host_memory_gb=3 * cell["triples"] * max(widths) * FLOAT * 3,
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
    latents = cell["autoencoders"][cell["main"]]["sizes"][0] * shape.d_model
    held = cell["layers"] * latents * (strongest + WORDS) * FLOAT
    in_flight = explaining["batch_size"] * explaining["max_tokens"]
    explained = _cost(
        "explanations",
        machine,
        read * shape.forward,
        gpu_memory_gb=reading_memory(shape, in_flight, weight),
        host_memory_gb=held + 2 * codes,
    )
    ablating = settings["ablation"]
    draws = _runs(ablating["arms"], ablating["random_draws"], len(ablating["actions"]))
    draws += _runs(ablating["base_arms"], ablating["random_draws"], 1)
    length = (
        ablating["prompt_tokens" if cell["preference"] else "prefix_tokens"]
        + ablating["new_tokens"]
    )
    sampled = draws * ablating["prompts"] * length * shape.forward
    neutral = draws * ablating["neutral_texts"] * ablating["neutral_tokens"] * shape.forward
    in_flight = ablating["batch_size"] * length
    ablated = _cost(
        "ablation",
        machine,
        2 * sampled + neutral,
        sampled,
        gpu_memory_gb=reading_memory(shape, in_flight, weight, vocabulary=True),
        host_memory_gb=2 * FLOAT * shape.parameters,
    )
    return [explained, ablated]


def _runs(arms: Sequence[str], draws: int, actions: int) -> int:
    """Runs of all `arms`: one of each, for each of its random sets and of its actions."""
    kinds = [ARMS[arm] for arm in arms]
    return sum(
        (draws if kind.draws else 1) * (actions if kind.all_actions else 1) for kind in kinds
    )


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
