"""Whether fine-tuning moved a policy: a cell of one that did not has nothing to be found.

Where the learning rate is small against the steps (the paper's 1e-6), the reward may stay where it
was, and every later table would be about the base.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from lfp.files.addresses import labels
from lfp.files.artefacts import read_table
from lfp.statistics.records.base import Record
from lfp.statistics.records.means import mean_record, paired_record
from lfp.tables.health.autoencoders import COLUMN, joined
from lfp.tables.rows import TableSettings

#: Labels of a policy.
_POLICY = ("model", "task", "seed")
#: Subjects of rows that speak of the policy; rows of tables without subjects do so, too.
_SUBJECTS = ("policy", "policy - base")


def gain(values: pd.DataFrame, settings: TableSettings) -> tuple[str, Record]:
    """The gain by fine-tuning in an ``evaluation.parquet``, with the name of its quantity.

    It is the reward of the policy minus that of its base on the same prefixes or, of a policy that
    learned from pairs, the margin of the implicit reward, which is 0 for the base.
    """
    if "margin" in values:
        return "margin", mean_record(values["margin"].to_numpy(), "pair", settings.confidence)
    policy, base = values["policy"].to_numpy(), values["base"].to_numpy()
    return "reward_gain", paired_record(policy, base, "prefix", **settings.resampling)


def least(quantity: str, settings: TableSettings) -> float:
    """The number above which the whole interval of a gain must lie."""
    return settings.min_margin if quantity == "margin" else settings.min_reward_gain


def passes(quantity: str, record: Record, settings: TableSettings) -> bool | None:
    """Whether the whole interval of a gain lies above the :func:`least`.

    None where there is no interval, as without held-out text.
    """
    return None if record.ci_low is None else record.ci_low > least(quantity, settings)


def reasons(inputs: Sequence[str], settings: TableSettings) -> dict[tuple, str]:
    """The reasons why policies did not move, by (model, task, seed); empty for those that did.

    Read are the folders of policies among the `inputs`.
    """
    result = {}
    for path in (path for path in inputs if Path(path).name == "policy"):
        quantity, record = gain(read_table(Path(path) / "evaluation.parquet"), settings)
        cell = labels(path)
        result[tuple(cell[name] for name in _POLICY)] = (
            f"the policy did not move: {quantity} {record.estimate:.3g}"
            f" [{record.ci_low:.3g}, {record.ci_high:.3g}], not above {least(quantity, settings):g}"
            if passes(quantity, record, settings) is False
            else ""
        )
    return result


def marked(frame: pd.DataFrame, known: Mapping[tuple, str]) -> pd.DataFrame:
    """A table whose column `health` names the policies that did not move, behind other reasons.

    Rows of the base and of controls are left as they are.
    """
    if not any(known.values()) or not set(_POLICY) <= set(frame.columns):
        return frame
    cells = frame[list(_POLICY)].itertuples(index=False, name=None)
    before = frame[COLUMN] if COLUMN in frame else [""] * len(frame)
    subjects = frame["subject"] if "subject" in frame else [_SUBJECTS[0]] * len(frame)
    texts = [
        joined(first, known.get(cell, "") if subject in _SUBJECTS else "")
        for first, cell, subject in zip(before, cells, subjects, strict=True)
    ]
    return frame.assign(**{COLUMN: texts})
