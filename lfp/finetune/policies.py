"""The folder of a fine-tuned policy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.files.artefacts import write_json, write_table
from lfp.files.writing import directory_aside
from lfp.models.loading import save_model


def write_policy(
    path: str | Path,
    stamp: Mapping[str, Any],
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    curve: Sequence[Mapping[str, float]],
    scores: Mapping[str, Any],
    summary: Mapping[str, Any],
) -> None:
    """Write a policy's checkpoint, its training curve and its evaluation on held-out text.

    Parameters
    ----------
    path, stamp
        The folder, which is written aside and moved, and the stamp of its files.
    policy, tokenizer
        The checkpoint.
    curve
        A row per logged step, none for a policy that is given: ``training_curve.parquet``.
    scores
        Columns with a value per held-out prefix or pair: ``evaluation.parquet``, of which tables
        make intervals.
    summary
        Means of the scores: ``evaluation.json``.
    """
    with directory_aside(path, stamp) as folder:
        save_model(policy, tokenizer, folder)
        write_table(folder / "training_curve.parquet", pd.DataFrame(curve or {"step": []}), stamp)
        write_table(folder / "evaluation.parquet", pd.DataFrame(scores), stamp)
        write_json(folder / "evaluation.json", summary, stamp)
