"""Architectures of sparse autoencoders.

Each has a file of its own and a line here. The line says what planning must know, since planning
loads no class; a test holds it to the class.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lfp.registry import Registry
from lfp.settings import MADE, NAMED, PRETRAINED, TRAINED, Autoencoder

if TYPE_CHECKING:
    from lfp.sae.architectures.base import SparseAutoencoder

#: The learning rate of the paper's autoencoder.
PAPERS_RATE = 0.001


@dataclass(frozen=True)
class Kind:
    """What planning knows of an architecture, whose class is ``place``, ``module:attribute``.

    ``reads`` are the settings that it reads and not every architecture does: ``k``, or ``l0`` with
    or without ``l1``, and those of its own. ``rate`` is its learning rate where none is given, as
    measured by ``python -m benchmarks.learning_rates``. ``by_gradients`` says whether gradients
    train it, and ``of_pairs`` whether it can learn from two models side by side.
    """

    place: str
    reads: tuple[str, ...] = ("l0", "l1")
    rate: float = PAPERS_RATE
    by_gradients: bool = True
    of_pairs: bool = True

    def active_latents(self, settings: Autoencoder) -> dict[str, float]:
        """The number of active latents of a token that `settings` ask for, by its key."""
        given = "l1" in self.reads and settings.l1 is not None
        keys = ("k",) if given else ("k", "l0")
        return {key: getattr(settings, key) for key in keys if key in self.reads}


KINDS = {
    "standard": Kind("lfp.sae.architectures.standard:Standard"),
    "topk": Kind("lfp.sae.architectures.topk:TopK", reads=("k",), rate=0.003),
    "batchtopk": Kind("lfp.sae.architectures.batchtopk:BatchTopK", reads=("k",), rate=0.003),
    "jumprelu": Kind("lfp.sae.architectures.jumprelu:JumpReLU", reads=("l0",), rate=0.003),
    "gated": Kind("lfp.sae.architectures.gated:Gated", rate=0.01),
    "matryoshka": Kind(
        "lfp.sae.architectures.matryoshka:Matryoshka", reads=("k", "prefixes"), rate=0.003
    ),
    "itda": Kind(
        "lfp.sae.architectures.itda:ITDA", reads=("k", "tau"), by_gradients=False, of_pairs=False
    ),
}
ARCHITECTURES = Registry("architecture", {name: kind.place for name, kind in KINDS.items()})
#: What a dictionary from elsewhere reads; its files say of which architecture it is.
_ELSEWHERE = Kind("", reads=("source",), by_gradients=False)


def kind_of(settings: Autoencoder) -> Kind:
    """What is known of the architecture that `settings` name, or of a dictionary from elsewhere."""
    return _ELSEWHERE if settings.architecture == PRETRAINED else KINDS[settings.architecture]


def rate_of(settings: Autoencoder) -> float:
    """The learning rate that is given, or the architecture's own."""
    given = settings.learning_rate
    return kind_of(settings).rate if given is None else given


def is_read(key: str, settings: Autoencoder) -> bool:
    """Whether the architecture that `settings` name reads the setting `key`."""
    fields = {field.name: field for field in dataclasses.fields(Autoencoder)}
    kind = kind_of(settings)
    return {
        None: True,
        NAMED: key in kind.reads,
        MADE: kind is not _ELSEWHERE,
        TRAINED: kind.by_gradients,
    }[fields[key].metadata.get("architectures")]


def check_registered(sae: SparseAutoencoder) -> None:
    """Raise TypeError unless the class of `sae` is the registered one of its ``architecture``.

    A subclass that inherits the name would be saved, and loaded again, as its parent.
    """
    name, kind = sae.architecture, type(sae)
    if name not in ARCHITECTURES or ARCHITECTURES[name] is not kind:
        raise TypeError(
            f"{kind.__module__}.{kind.__name__}: its architecture is {name!r}, which is not this"
            " class in lfp.sae.architectures.ARCHITECTURES; give the class an `architecture` of"
            " its own and register it under that name"
        )
