"""The tables of what a policy would rather say than its base, by part of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy import stats

from lfp.change.baselines import implicit
from lfp.statistics.estimates import auroc, kendall_tau
from lfp.statistics.multiple import holm
from lfp.statistics.records.base import Record, undefined
from lfp.statistics.records.kendall import kendall_record
from lfp.statistics.records.labels import auroc_record
from lfp.statistics.records.means import mean_record, ratio_record
from lfp.tables.change.cells import READING, ChangeCell, change_cells, nulls
from lfp.tables.change.noise_range import range_of
from lfp.tables.rows import TableSettings, Tally

#: Words that the table ``choice_words`` shows at either end of a ranking.
SHOWN = 12
#: Parts whose rankings it shows.
RANKED = ("log_ratio", "mlp")
#: The layer of parts that are of no single one, which alone are read over sets of words.
_OF_NO_LAYER = -1
#: Parts whose agreement over all units has an interval; the rest is read beside these.
_WITH_INTERVAL = (
    "attention", "mlp", "blocks", "log_ratio", "rate", "shift", "gain_free", "refit", "resid",
    implicit.PART,
)  # fmt: skip


#: The unit of every statistic.
UNITS = {"tau": "word", "slope": "word", "auroc": "prompt", "margin": "pair"}


@dataclass(frozen=True)
class Agreement:
    """The agreement of one reading with feedback, on one set of units.

    ``units`` are the names of the set. The ``statistic`` is tau-b of words (``tau``), the area
    under the curve of answers (``auroc``), or in units of the reward: what a word is worth for each
    unit of its valence (``slope``, least squares), and what the preferred answer of a pair is worth
    more than the rejected one (``margin``).
    """

    statistic: str
    set: str
    values: np.ndarray
    truth: np.ndarray
    units: np.ndarray

    @property
    def estimate(self) -> float:
        """The statistic itself."""
        if self.statistic == "tau":
            return kendall_tau(self.values, self.truth)
        if self.statistic == "slope":
            above, below = self._products
            return float(above.sum() / below.sum()) if below.any() else float("nan")
        if self.statistic == "margin":
            return float(self._margins.mean())
        return float(auroc(self.truth, self.values))

    @property
    def _products(self) -> tuple[np.ndarray, np.ndarray]:
        """The terms [word] of both sums whose ratio is the slope."""
        valence = self.truth - self.truth.mean()
        return valence * (self.values - self.values.mean()), valence**2

    @property
    def _margins(self) -> np.ndarray:
        """The difference of the two answers of every pair [pair]."""
        signed = pd.Series(np.where(self.truth > 0, self.values, -self.values))
        return signed.groupby(self.units).sum().to_numpy()

    @property
    def unchanged(self) -> bool:
        """Whether policy and base read the same at every unit."""
        return not np.any(self.values)

    def record(self, settings: TableSettings) -> Record:
        """The estimate with its interval over words, over prompts, or over pairs."""
        draws = settings.resampling
        if self.statistic == "tau":
            return kendall_record(self.values, self.truth, two_sided=True, **draws)
        if self.statistic == "slope":
            above, below = self._products
            return ratio_record(
                above, below, self.units, unit="word", name="slope on the valence", **draws
            )
        if self.statistic == "margin":
            return mean_record(self._margins, "pair", settings.confidence)
        return auroc_record(self.truth, self.values, self.units, unit="prompt", **draws)

    def point(self) -> Record:
        """The estimate without an interval."""
        method = f"{self.statistic}; no interval"
        return Record(
            self.estimate, None, None, len(set(self.units)), UNITS[self.statistic], method
        )


def agreements(reading: pd.DataFrame, written_known: bool) -> Iterator[Agreement]:
    """The agreement of one reading with the valence of words, or with the labels of answers.

    Words are also taken apart into those of one token and those in pieces, and, where it is known
    which words the policy wrote in training (``written``), into those and the others, which nothing
    was paid for. An implied reward has its size as a second statistic.
    """
    implied = reading["readout"].iloc[0] == implicit.READOUT
    if reading["kind"].iloc[0] == "answer":
        truth = (reading["element"] == "positive").to_numpy(dtype=int)
        values, units = (reading[name].to_numpy() for name in ("value", "unit"))
        for statistic in ("auroc", "margin") if implied else ("auroc",):
            yield Agreement(statistic, "all", values, truth, units)
        return
    words = reading.dropna(subset="valence")
    sets = {"all": np.ones(len(words), dtype=bool)}
    if (words["tokens"] > 0).any():
        sets |= {"one_token": words["tokens"] == 1, "pieces": words["tokens"] > 1}
    if written_known:
        sets |= {"written": words["written"], "not_written": ~words["written"]}
    for name, chosen in sets.items():
        of_set = words[chosen]
        if len(of_set) >= 3:
            value, valence, unit = (of_set[c].to_numpy() for c in ("value", "valence", "unit"))
            for statistic in ("tau", "slope") if implied else ("tau",):
                yield Agreement(statistic, name, value, valence, unit)


def choice(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """Does the change of a part of the model agree with the feedback?

    Rows are tau-b of a reading with the words' valences, or the area under the curve of preferred
    against rejected answers. An interval over words is no null, for a reward of noise drifts along
    the main axes of a model, too: p is that of a further policy of a noise reward, by the t
    distribution of those that there are.
    """
    tally, cells = Tally(), change_cells(inputs, settings.trained)
    known: dict[str, dict[tuple, float]] = {}

    def points(cell: ChangeCell) -> dict[tuple, float]:
        if cell.address not in known:
            known[cell.address] = {key: one.estimate for key, one in _of_cell(cell, "policy")}
        return known[cell.address]

    for cell in cells:
        silent = [(other.label["task"], points(other)) for other in nulls(cell, cells)]
        for key, one in _of_cell(cell):
            subject, readout, part, layer, *_ = key
            if layer != _OF_NO_LAYER and one.set != "all":
                continue
            label = cell.label | {
                "readout": readout, "part": part, "layer": layer, "subject": subject,
                "words": one.set, "statistic": one.statistic,
            }  # fmt: skip
            if one.unchanged:
                tally.add(unmoved(one), label)
                continue
            has_interval = part in _WITH_INTERVAL and layer == _OF_NO_LAYER
            has_interval &= subject == "policy"
            has_interval &= one.set == "all" or readout == implicit.READOUT
            record = one.record(settings) if has_interval else one.point()
            beside = [(task, of[key]) for task, of in silent if key in of]
            beside = beside if subject == "policy" else []
            null = [estimate for _, estimate in beside]
            tasks = ", ".join(dict.fromkeys(task for task, _ in beside))
            tally.add(held_against(record, null), label, **range_of(null), null_tasks=tasks)
    return tally


def _of_cell(cell: ChangeCell, *subjects: str) -> Iterator[tuple[tuple, Agreement]]:
    """The agreements of a cell by subject, readout, part, layer, set of units and statistic.

    The words of a preference task have no valence that was taught, and are left out.
    """
    readings = cell.readings
    taught = (
        "answer" if (readings["kind"] == "answer").any() else "word"
    )  # attributes have no truth
    readings = readings[readings["kind"] == taught]
    if subjects:
        readings = readings[readings["subject"].isin(subjects)]
    readings = readings.assign(written=readings["unit"].isin(cell.written.index))
    for (subject, readout, _, part, layer), reading in readings.groupby([*READING], sort=False):
        for one in agreements(reading, len(cell.written) > 0):
            yield (subject, readout, part, layer, one.set, one.statistic), one


def unmoved(one: Agreement) -> Record:
    """The record of a reading that no unit moved in."""
    unit = UNITS[one.statistic]
    record = undefined(len(set(one.units)), unit, "policy and base read the same at every unit")
    return replace(record, p=1.0)


def held_against(record: Record, null: Sequence[float]) -> Record:
    """`record` with the p of its estimate among those of policies of a noise reward, `null`.

    It is that of one further draw of a normal distribution whose mean and spread the null's
    policies estimate; two of them are needed, else there is no p.
    """
    p, n = None, len(null)
    if not np.isfinite(record.estimate):
        return replace(record, p=None)
    if n > 1 and np.ptp(null) > 0:
        spread = np.std(null, ddof=1) * np.sqrt(1 + 1 / n)
        p = float(2 * stats.t.sf(abs(record.estimate - np.mean(null)) / spread, n - 1))
    how = f"t test beside {n} policies of a noise reward" if p is not None else "no test"
    interval = record.method.split(";")[:2]
    return replace(record, p=p, method="; ".join(part.strip() for part in (*interval, how)))


def choice_words(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """The words that moved most, with t intervals over contexts; no value reads a lexicon.

    p is that of no change at all, by the t distribution over contexts, and p_adjusted Holm's over
    all candidate words of a cell and part.
    """
    tally = Tally()
    for cell in change_cells(inputs):
        readings = cell.readings
        mine = readings[(readings["subject"] == "policy") & (readings["readout"] == "choice")]
        mine = mine[(mine["kind"] == "word") & (mine["layer"] == _OF_NO_LAYER)]
        sums = mine.pivot(index="unit", columns="part", values="value")
        for part in RANKED:
            words = _tested(mine[mine["part"] == part], settings.confidence)
            for side, ranked in _ends(words):
                for rank, word in enumerate(ranked.itertuples(), 1):
                    method = f"{_METHOD}, {word.contexts - 1:.3g} degrees of freedom"
                    record = Record(
                        word.value, word.low, word.high, round(word.contexts), "context",
                        method if np.isfinite(word.p) else _FEW, p=word.p,
                        p_adjusted=word.p_adjusted,
                    )  # fmt: skip
                    label = cell.label | {"part": part, "side": side, "rank": rank}
                    shares = {f"of_{name}": sums.at[word.unit, name] for name in _SHARES}
                    tally.add(record, label, word=word.unit, tokens=word.tokens, **shares)
    return tally


#: How the value of a word was come by, and where it rests on hardly more than one context.
_METHOD = "mean over contexts, weighted, nats; t interval and t test of their effective number"
_FEW = (
    "mean over contexts, weighted, nats; no interval and no test: fewer than 2 effective contexts"
)
#: Parts whose shares stand beside a word that moved.
_SHARES = ("mlp", "attention", "unembedding")


def _tested(words: pd.DataFrame, confidence: float) -> pd.DataFrame:
    """`words` with interval and p of every value, and Holm's p over all of them.

    Words that weigh on fewer than two contexts have neither.
    """
    number, size = words["contexts"].to_numpy(), np.abs(words["value"].to_numpy())
    error = np.where(number >= 2, words["error"].to_numpy(), np.nan)
    df = np.maximum(number - 1, 1)
    half = error * stats.t.ppf((1 + confidence) / 2, df)
    ratio = np.divide(size, error, out=np.where(size > 0, np.inf, 0.0), where=error > 0)
    p = np.where(np.isfinite(error), 2 * stats.t.sf(ratio, df), np.nan)
    return words.assign(
        low=words["value"] - half, high=words["value"] + half, p=p, p_adjusted=holm(p)
    )


def _ends(words: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The words that became likelier and unlikelier, those that surely moved most first.

    They are ranked by the end of their interval that is nearer to 0, for a word that hardly fits
    any context may seem to move far.
    """
    ordered = words.sort_values("unit")
    likelier = ordered[ordered["value"] > 0].sort_values("low", ascending=False, kind="stable")
    unlikelier = ordered[ordered["value"] < 0].sort_values("high", kind="stable")
    yield "likelier", likelier.head(SHOWN)
    yield "unlikelier", unlikelier.head(SHOWN)
