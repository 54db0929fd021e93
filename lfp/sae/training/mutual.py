"""Mutual feature regularisation: what several autoencoders learn alike is more often real.

(arXiv:2411.01220.) Partners start from different seeds and read the same batches. Their losses have
in addition

    weight * warm(t) * mean over pairs of partners of (1 - MMCS),

with the mean cosine MMCS of the two dictionaries' directions that are matched one to one. Too large
a weight makes partners alike and blind to the activations, so a twin without the term is trained
beside them (:func:`check_twin`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lfp.files.resume import DivergedError
from lfp.sae.architectures.base import SparseAutoencoder
from lfp.settings import Mutual

#: Steps between two matchings of the directions of partners.
MATCH_EVERY = 20
#: The FVU of a partner over that of its twin, above which its training counts as collapsed.
MOST_OF_TWIN = 1.5


@torch.no_grad()
def greedy_matching(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """For each row of `one` the row of `other` [row, d] that it is matched with, one to one.

    The pair of the largest cosine is matched first, then that of the largest among the remaining
    rows, and so on. All pairs that are each other's best are matched at once, which comes to the
    same. Both have as many rows, of unit norm.
    """
    cosine = one @ other.T
    matched = torch.zeros(len(one), dtype=torch.long, device=one.device)
    rows, columns = (torch.arange(len(one), device=one.device) for _ in range(2))
    while len(rows):
        best = cosine.argmax(1)
        mutual = cosine.argmax(0)[best] == torch.arange(len(rows), device=one.device)
        matched[rows[mutual]] = columns[best[mutual]]
        kept = torch.ones(len(columns), dtype=torch.bool, device=one.device)
        kept[best[mutual]] = False
        cosine, rows, columns = cosine[~mutual][:, kept], rows[~mutual], columns[kept]
    return matched


class Pull:
    """What draws the directions of one autoencoder towards those of its partners.

    Parameters
    ----------
    sae
        The autoencoder whose gradient gets the term.
    partners
        The others of its group, of the same size.
    settings
        Weight and warm-up.
    """

    def __init__(
        self, sae: SparseAutoencoder, partners: Sequence[SparseAutoencoder], settings: Mutual
    ) -> None:
        self.sae, self.partners, self.settings = sae, list(partners), settings
        device, pairs = sae.b_dec.device, len(self.partners) * (len(self.partners) + 1) / 2
        #: Rows of each partner by the rows of this one [partner, row], kept between matchings.
        self.matched = torch.zeros(len(self.partners), sae.d_sae, dtype=torch.long, device=device)
        self.share = settings.weight / (pairs * sae.d_sae)
        self.strength = torch.zeros((), device=device)

    @torch.no_grad()
    def prepare(self, number: int) -> None:
        """Match the directions anew where it is due before step `number`, and warm up."""
        if number % MATCH_EVERY == 0:
            rows = self.sae.W_dec
            for i, partner in enumerate(self.partners):
                self.matched[i] = greedy_matching(rows, partner.W_dec)
        self.strength.fill_(self.share * min(1.0, (number + 1) / (self.settings.warm_up + 1)))

    @torch.no_grad()
    def add(self) -> None:
        """Add the term's gradient by the directions, which leaves their norms as they are."""
        decoder = self.sae.decoder
        norms = decoder.norm(dim=1, keepdim=True)
        rows, towards = decoder / norms, torch.zeros_like(decoder)
        for matched, partner in zip(self.matched, self.partners, strict=True):
            towards += partner.W_dec[matched]
        towards -= torch.linalg.vecdot(towards, rows)[:, None] * rows
        decoder.grad -= self.strength * towards / norms


def check_twin(name: str, curve: Sequence[Mapping[str, Any]], twin: str) -> None:
    """Raise DivergedError where an autoencoder has lost too much against its `twin`.

    The `curve` has the FVU of both under their names; the last ones count.
    """
    last = {row["autoencoder"]: row["fvu"] for row in curve}
    if last[name] > MOST_OF_TWIN * last[twin]:
        raise DivergedError(
            f"autoencoder of {name}: its FVU is {last[name]:.4g}, more than {MOST_OF_TWIN} times"
            f" that of its twin without partners ({last[twin]:.4g}): they have become alike and"
            " explain little; lower mutual.weight",
            curve,
        )
