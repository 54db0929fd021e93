"""The range of policies of a noise reward, which a policy's agreement is held against."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd


def range_of(null: Sequence[float]) -> dict[str, float | int | None]:
    """The least and the largest estimate of a `null`, and the number of its policies."""
    known = len(null) > 0
    return {
        "null_low": float(min(null)) if known else None,
        "null_high": float(max(null)) if known else None,
        "null_policies": len(null),
    }


def beside_seeds(rows: pd.DataFrame, table: pd.DataFrame) -> dict[str, float | int | None]:
    """The range that the mean of a policy's `rows` of the table `choice`, one a seed, has beside.

    Policies of the task itself are none of it, for each of them is behind the mean. `table` has the
    rows of all tasks of the model that ask the same.
    """
    first = rows.sort_values("seed").iloc[0]
    tasks = first["null_tasks"].split(", ") if pd.notna(first["null_tasks"]) else []
    if len(rows) < 2 or first["task"] not in tasks:
        return {name: first[name] for name in range_of(())}
    others = set(tasks) - {first["task"]}
    return range_of(table.loc[table["task"].isin(others), "estimate"].dropna().tolist())
