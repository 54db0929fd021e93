"""The size of a model, the cost of a stage, and the memory of its jobs.

Counts are of matrix products alone (2 per parameter and token forwards, 4 backwards), sequences are
taken at their configured largest length, so that the estimate is from above; hours follow from an
assumed utilisation of the GPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lfp.models import HELD_LOGITS
from lfp.settings import Machine

GB = 1e9
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


@dataclass(frozen=True)
class Shape:
    """Size of a language model: all its `parameters`, its blocks, its width and its vocabulary.

    ``tied`` says that the output head is the input embedding.
    """

    parameters: float
    n_layers: int
    d_model: int
    vocab_size: int
    tied: bool = True

    @property
    def head(self) -> float:
        """Parameters of the output head."""
        return self.d_model * self.vocab_size

    @property
    def forward(self) -> float:
        """FLOPs per token of a forward pass.

        The input embedding (a look-up) is left out where it is not tied.
        """
        return 2 * (self.parameters - (0 if self.tied else self.head))


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


@dataclass(frozen=True)
class Cell:
    """What the costs of a cell depend on: the cell, and the machine that they are in hours of.

    Parameters
    ----------
    shape
        The size of its model.
    settings
        Its settings by stage.
    about
        What else is known of it: ``method``, ``given`` (whether its policy is), ``preference``,
        ``layers`` (probed), ``trained_layers`` (of the main variant), ``autoencoders`` (settings by
        variant), ``main`` and ``probed`` (variants; none where the cell ends at the readings of its
        change), ``compared`` (variants that tell policy from base), ``triples``, ``dtype``,
        ``ablation`` (whether it gets that far), ``latents`` (whether shares of these are read),
        ``kept`` (whether activations are), and ``samples`` (whether it counts the completions that
        its reward and others rank).
    machine
        The speed of its jobs.
    """

    shape: Shape
    settings: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]
    machine: Machine

    @classmethod
    def of_row(cls, row: Mapping[str, Any], machine: Machine) -> Cell:
        """The cell of one of the rows of :meth:`lfp.grid.Grid.estimate_settings`."""
        return cls(Shape(**row["shape"]), row["settings"], row["about"], machine)

    @property
    def weight(self) -> int:
        """Bytes of a weight of a model that is not trained."""
        return 2 if self.about["dtype"] == "bfloat16" else FLOAT

    def cost(
        self,
        stage: str,
        flops: float,
        memory: Memory,
        sampling: float = 0.0,
        disk: float = 0.0,
        scratch: float = 0.0,
    ) -> Cost:
        """The cost of a stage.

        Parameters
        ----------
        stage
            Its name.
        flops, sampling
            FLOPs of its large matrix products, and of its sampling, which uses a GPU less well.
        memory
            The largest demand of its jobs.
        disk, scratch
            Bytes that stay, and bytes that go when the stage or the next one is done.
        """
        machine = self.machine
        peak = machine.tflops * 1e12 * 3600
        hours = flops / (peak * machine.utilisation) + sampling / (
            peak * machine.sampling_utilisation
        )
        return Cost(
            stage,
            (flops + sampling) / 1e18,
            hours,
            disk / GB,
            scratch / GB,
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


def training_memory(
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
