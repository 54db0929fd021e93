"""Effects over prompts and random draws: both are samples, and an interval counts both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special, stats

from lfp.statistics.records.base import Record, counted, fewest_units, undefined
from lfp.statistics.records.means import mean_record

#: Share of the repetitions that find the smallest detectable difference.
_POWER = 0.8


@dataclass(frozen=True)
class Effect:
    """A number that is measured on prompts, and perhaps over random draws.

    ``by_unit`` [prompt] has the number's value at each prompt, over draws, and each entry of
    ``by_draw`` its values at the draws of one set of draws, over prompts. For a ratio these are the
    values that its linear approximation has there.
    """

    value: float
    by_unit: np.ndarray
    by_draw: tuple[np.ndarray, ...] = ()

    def __sub__(self, other: Effect) -> Effect:
        """The difference of two effects on the same prompts, whose draws are independent."""
        by_unit = self.by_unit - other.by_unit
        return Effect(self.value - other.value, by_unit, self.by_draw + other.by_draw)

    def times(self, factor: float) -> Effect:
        """The effect in another unit, `factor` of which are one of its own."""
        by_draw = tuple(factor * values for values in self.by_draw)
        return Effect(factor * self.value, factor * self.by_unit, by_draw)


def mean_effect(values: np.ndarray) -> Effect:
    """The mean of `values` [prompt, draw]; one draw is no sample of draws."""
    draws = (values.mean(0),) if values.shape[1] > 1 else ()
    return Effect(float(values.mean()), values.mean(1), draws)


def ratio_effect(above: np.ndarray, below: np.ndarray) -> Effect:
    """The ratio of the means of `above` and `below` [prompt, draw], linear about its value.

    That approximation holds where the mean below the line is far from 0 (Fieller 1954); see
    :func:`told_from_zero`.
    """
    ratio = above.mean() / below.mean()
    return mean_effect(ratio + (above - ratio * below) / below.mean())


def told_from_zero(values: np.ndarray, confidence: float) -> bool:
    """Whether the mean of `values` [prompt, draw] has an interval above 0."""
    low = effect_record(mean_effect(values), "prompt", "mean", confidence).ci_low
    return low is not None and low > 0


def effect_record(effect: Effect, unit: str, name: str, confidence: float) -> Record:
    """An effect with its t interval and its two-sided t test.

    The variance is the sum of those of the means over units and over draws. What is of a unit and a
    draw together counts in both, so that the interval is rather too wide. Degrees of freedom are
    Satterthwaite's.

    Parameters
    ----------
    effect
        The number and its parts.
    unit
        Name of a unit.
    name
        Name of the number, for the record.
    confidence
        Coverage of the interval.
    """
    n = len(effect.by_unit)
    if n < 2 or np.isnan(effect.value):
        few = mean_record(effect.by_unit, unit, confidence)
        return few if np.isnan(few.estimate) else undefined(n, unit, f"{name}: 1 {unit}")
    counts = [f"{len(part)} draws" for part in effect.by_draw]
    over = " and ".join([f"{unit}s", *counts])
    error, freedom = _standard_error(effect)
    method = f"{name}; t interval and t test over {over}"
    if error == 0:
        value, least = effect.value, fewest_units(confidence)
        if n < least:
            few = f"{counted(n, unit)} of one value, {least} are needed"
            return Record(value, None, None, n, unit, f"{name}; no interval and no test: {few}")
        return Record(value, value, value, n, unit, method, p=None if value else 1.0)
    half = float(error * stats.t.ppf((1 + confidence) / 2, freedom))
    p = float(2 * stats.t.sf(abs(effect.value) / error, freedom))
    method += f", {freedom:.3g} degrees of freedom"
    return Record(effect.value, effect.value - half, effect.value + half, n, unit, method, p=p)


def _standard_error(effect: Effect) -> tuple[float, float]:
    """The standard error of an effect of several units and its degrees of freedom.

    An error of rounding alone counts as 0, and has no degrees of freedom.
    """
    parts = [effect.by_unit, *effect.by_draw]
    variances = np.array([np.var(part, ddof=1) / len(part) for part in parts])
    total = variances.sum()
    if total <= 1e-24 * max(1.0, effect.value**2):
        return 0.0, float("nan")
    within = sum(v**2 / (len(part) - 1) for v, part in zip(variances, parts, strict=True))
    return float(np.sqrt(total)), float(total**2 / within)


def detectable(effect: Effect, confidence: float) -> float | None:
    """The smallest true difference that a comparison like `effect` finds in four of five runs.

    It is that of the two-sided t test at 1 - `confidence` which :func:`effect_record` makes, with
    the same standard error and the same degrees of freedom, by the noncentral t distribution (Cohen
    1988). None where the effect has no interval.
    """
    if effect_record(effect, "prompt", "difference", confidence).ci_low is None:
        return None
    error, freedom = _standard_error(effect)
    if error == 0:
        return 0.0
    bound = stats.t.ppf((1 + confidence) / 2, freedom)
    return float(error * special.nctdtrinc(freedom, 1 - _POWER, bound))
