"""Latents that autoencoders of different size share (paper section 3.4; Sharkey et al. 2022)."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment


def match_features(small: np.ndarray, large: np.ndarray) -> pd.DataFrame:
    """One-to-one matching of the rows of two dictionaries that maximises the summed cosine.

    The method is the Hungarian algorithm.

    Parameters
    ----------
    small, large
        Decoder directions [features, d_in]; `small` has at most as many rows as `large`.

    Returns
    -------
    Columns ``small``, ``large`` (feature indices) and ``cosine``, from the best match to the worst.
    """
    a = small / np.linalg.norm(small, axis=1, keepdims=True)
    b = large / np.linalg.norm(large, axis=1, keepdims=True)
    cosine = a @ b.T
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    frame = pd.DataFrame(
        {"small": rows, "large": columns, "cosine": cosine[rows, columns].astype(float)}
    )
    return frame.sort_values(["cosine", "small"], ascending=[False, True], ignore_index=True)


def mean_max_cosine(matches: pd.DataFrame) -> float:
    """MMCS of a matching: the mean cosine of the matched pairs."""
    return float(matches["cosine"].mean())
