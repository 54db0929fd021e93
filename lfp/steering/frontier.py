"""Frontiers: how much reward a change gives for what it costs, and the area below.

The points of a change are its strengths. The line through them begins at the untouched model, which
costs nothing and gains nothing. Its area up to a cost, divided by that cost, is the mean gain over
costs: one number for a whole line, in units of reward.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def frontier_area(costs: Sequence[float], gains: Sequence[float], most: float) -> float:
    """The mean gain in reward over costs from 0 to `most`.

    Gains between two points lie on the line through them. A line that ends before `most` is not
    prolonged.

    Parameters
    ----------
    costs
        Costs of the points, all above 0, such as nats of KL or of cross-entropy.
    gains
        Their rewards minus that of the untouched model.
    most
        The cost at which the area ends.

    Returns
    -------
    float
        In units of the reward; NaN without points or where all cost less than `most`.
    """
    order = np.argsort(costs, kind="stable")
    x = np.concatenate([[0.0], np.asarray(costs, float)[order]])
    y = np.concatenate([[0.0], np.asarray(gains, float)[order]])
    if len(x) < 2 or not np.isfinite(x).all() or x[-1] < most * (1 - 1e-9) or most <= 0:
        return float("nan")
    inside = x < most
    x, y = np.append(x[inside], most), np.append(y[inside], np.interp(most, x, y))
    return float(np.trapezoid(y, x) / most)


def gain_at(costs: Sequence[float], gains: Sequence[float], cost: float) -> float:
    """The gain of a frontier at one `cost`, on the line through its points; NaN beyond its end."""
    order = np.argsort(costs, kind="stable")
    x = np.concatenate([[0.0], np.asarray(costs, float)[order]])
    y = np.concatenate([[0.0], np.asarray(gains, float)[order]])
    return float(np.interp(cost, x, y, left=np.nan, right=np.nan))
