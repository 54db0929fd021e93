"""Subjects: the models whose features are probed, and their loaders.

A new subject is one more loader and its entry in :data:`SUBJECTS`. No library of science is
imported here before a subject is loaded, so that planning a run reads the names.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of a subject: paths of base and policy, a seed, device and precision."""

    base: str
    policy: str
    seed: int
    device: str = "cpu"
    dtype: str = "float32"


def tuned(checkpoints: Checkpoints) -> PreTrainedModel:
    """The policy of the cell, or of another cell where the subject is donated."""
    from lfp.models.loading import load_model

    return load_model(checkpoints.policy, checkpoints.device, checkpoints.dtype)


def original(checkpoints: Checkpoints) -> PreTrainedModel:
    """The base model."""
    from lfp.models.loading import load_model

    return load_model(checkpoints.base, checkpoints.device, checkpoints.dtype)


def random_weights(checkpoints: Checkpoints) -> PreTrainedModel:
    """A model of the base's architecture with weights drawn at random."""
    from lfp.models.loading import untrained_model

    return untrained_model(
        checkpoints.base, checkpoints.seed, checkpoints.device, checkpoints.dtype
    )


@dataclass(frozen=True)
class Subject:
    """One subject.

    ``load`` gives its model; without it the subject reads text and no model. ``donated`` names the
    part of the cell's address (``seed`` or ``task``) that the policy's own cell differs in. With
    ``trained_dictionary`` false its features are read by untrained autoencoders: a trained
    dictionary would see almost nothing in a network of random weights.
    """

    load: Callable[[Checkpoints], PreTrainedModel] | None
    donated: str = ""
    trained_dictionary: bool = True


SUBJECTS = {
    "policy": Subject(tuned),
    "base": Subject(original),
    "untrained": Subject(random_weights, trained_dictionary=False),
    "other_seed": Subject(tuned, donated="seed"),
    "other_task": Subject(tuned, donated="task"),
    "text": Subject(None),
}
