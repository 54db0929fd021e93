"""Which attention heads a direction of the site ``heads`` is made of.

The site has the heads' outputs side by side, so that a direction is a part for each head. Its share
of a head is the square of that part over the square of the whole, and the shares add up to 1.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch

from lfp.sae.architectures.base import SparseAutoencoder


def head_shares(directions: torch.Tensor, heads: int) -> np.ndarray:
    """Shares [direction, head] of `heads` in the squares of `directions` [direction, width].

    Raises ValueError where the heads do not divide the width. A direction of 0 has equal shares.
    """
    count, width = directions.shape
    if width % heads:
        raise ValueError(
            f"directions of {width} dimensions are not those of {heads} heads side by side; give"
            " the number of heads of the model, and a dictionary of the site `heads`"
        )
    squares = directions.detach().double().reshape(count, heads, -1).pow(2).sum(2)
    whole = squares.sum(1, keepdim=True)
    equal = torch.full_like(squares, 1 / heads)
    return torch.where(whole > 0, squares / whole.clamp(min=1e-300), equal).cpu().numpy()


def by_latent(sae: SparseAutoencoder, heads: int) -> pd.DataFrame:
    """A row for each latent: its largest share, that share's head, and the effective heads.

    ``effective_heads`` is 1 over the sum of squared shares: 1 for a direction of one head, the
    number of heads where all have the same share. Columns ``share_0`` and so on have all shares,
    and ``random_largest`` the largest share of a direction of the untrained dictionary.
    """
    shares = head_shares(sae.W_dec, heads)
    random = head_shares(sae.untrained(0).W_dec, heads)
    frame = pd.DataFrame(
        {
            "latent": np.arange(len(shares)),
            "head": shares.argmax(1),
            "largest": shares.max(1),
            "effective_heads": 1 / (shares**2).sum(1),
            "random_largest": random.max(1),
            "random_effective_heads": 1 / (random**2).sum(1),
        }
    )
    return frame.assign(**{f"share_{i}": shares[:, i] for i in range(heads)})
