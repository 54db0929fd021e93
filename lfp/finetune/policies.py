"""The folder of a fine-tuned policy."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lfp.files.artefacts import write_json, write_table
from lfp.files.writing import directory_aside
from lfp.models.loading import load_model, save_model
from lfp.running import glibc

#: Counts of the words of completions that the reward scored in training, a row per word.
WRITTEN = "written.parquet"
#: Columns with a value per held-out prefix or pair.
Scores = Mapping[str, Any]


def write_policy(
    path: str | Path,
    stamp: Mapping[str, Any],
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    curve: Sequence[Mapping[str, float]],
    base: str | Path,
    evaluate: Callable[[PreTrainedModel, PreTrainedModel], Scores],
    summarise: Callable[[Scores], Mapping[str, Any]],
    device: str = "cpu",
    written: Mapping[str, int] | None = None,
) -> tuple[Scores, Mapping[str, Any]]:
    """Write a policy's checkpoint, its training curve and its evaluation on held-out text.

    The checkpoint is evaluated as every later stage reads it: it is loaded from the files, in
    float32. A trainer's own model would still compute in its mixed precision, and the base would
    not.

    Parameters
    ----------
    path, stamp
        The folder, which is written aside and moved, and the stamp of its files.
    policy, tokenizer
        The checkpoint. The policy's weights are given up once they are written, so that the models
        of the evaluation take their room.
    curve
        A row per logged step, none for a policy that is given: ``training_curve.parquet``.
    base, device
        The folder of the base, and the device of the evaluation.
    evaluate
        Scores of the policy (first) and of the base (second): ``evaluation.parquet``, of which
        tables make intervals.
    summarise
        Means of the scores: ``evaluation.json``.
    written
        How often every word stands in the completions that the reward scored in training:
        ``written.parquet``, of no row where it scored none.

    Returns
    -------
    tuple
        The scores and their means.
    """
    with directory_aside(path, stamp) as folder:
        save_model(policy, tokenizer, folder)
        policy.to("meta")
        gc.collect()  # a trainer and its callbacks, with the optimizer, refer to each other
        glibc.give_back()
        write_table(folder / "training_curve.parquet", pd.DataFrame(curve or {"step": []}), stamp)
        words = sorted((written or {}).items())
        write_table(folder / WRITTEN, pd.DataFrame(words, columns=["word", "count"]), stamp)
        scores = evaluate(load_model(folder, device), load_model(base, device))
        summary = summarise(scores)
        write_table(folder / "evaluation.parquet", pd.DataFrame(scores), stamp)
        write_json(folder / "evaluation.json", summary, stamp)
    return scores, summary
