"""Corrections of p-values for the number of tests."""

from __future__ import annotations

import numpy as np
from scipy import stats


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down adjusted p-values, for a family-wise error over all of `p`.

    NaN is no test and stays NaN.
    """
    p = np.asarray(p, dtype=float)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return adjusted


def benjamini_hochberg(p: np.ndarray) -> np.ndarray:
    """False discovery rates (q-values) of `p`."""
    return stats.false_discovery_control(p, method="bh") if len(p) else np.asarray(p, dtype=float)
