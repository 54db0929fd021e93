"""Planted truth: does the method find what a reward taught, and stay silent where it taught
nothing?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lfp.files.artefacts import read_json, read_table
from lfp.statistics.records import (
    Record,
    auroc_record,
    kendall_difference_record,
    kendall_record,
    paired_record,
    two_shares_record,
    undefined,
)
from lfp.tables.ablation import ablation_arms
from lfp.tables.probes import output_ratios
from lfp.tables.rows import TableSettings, Tally, labels, of
from lfp.texts.words import WORD

#: What a question's interval must do for its answer to be right: lie above or below a value, or
#: hold it.
EXPECTED = {"above": lambda r, v: r.ci_low > v, "below": lambda r, v: r.ci_high < v, "at": None}


@dataclass(frozen=True)
class Readings:
    """What is read of every word in one cell: {readout: frame with ``word``, ``valence``,
    ``value``}.
    """

    policy: dict[str, pd.DataFrame]
    base: dict[str, pd.DataFrame]


def _words(frame: pd.DataFrame, column: str) -> pd.DataFrame:
    means = frame.groupby("unit", sort=True).agg(valence=("truth", "first"), value=(column, "mean"))
    return means.reset_index(names="word")


def readings(files: dict[str, str]) -> Readings:
    """The readouts of one cell from its artefacts {``predictions.policy``, ``features.base``, ...:
    path}.

    ``probe latents`` and ``probe raw`` are held-out predictions. ``output`` needs no probe and no
    autoencoder: how much more likely than its base the policy makes a word in its contexts
    (log-probability ratio); the base's is 0.
    """
    result: dict[str, dict[str, pd.DataFrame]] = {}
    for subject in ("policy", "base"):
        frame = read_table(files[f"predictions.{subject}"])
        # The probe of deltas alone: predictions of the ridge on valence stand in the same file.
        frame = frame[(frame["split"] == "by_word") & (frame["probe"] == "ridge")]
        result[subject] = {
            f"probe {features}": _words(group, "prediction")
            for features, group in frame.groupby("features")
            if features in ("latents", "raw")
        }
        rows = frame[frame["features"] == "latents"]
        ratio = output_ratios(rows, files[f"features.{subject}"], files["features.base"])
        result[subject]["output"] = _words(rows.assign(ratio=ratio), "ratio")
    return Readings(result["policy"], result["base"])


def disagreement(reading: pd.DataFrame) -> np.ndarray:
    """How far each word's reading is on the wrong side of the readings' mean, by the clean
    lexicon's sign.
    """
    return (-np.sign(reading["valence"]) * (reading["value"] - reading["value"].mean())).to_numpy()


def verdict(record: Record, expected: str, value: float) -> str:
    """Whether a record's interval answers its question as the planted truth has it."""
    if record.ci_low is None or record.ci_high is None:
        return "undecided"
    if expected == "at":
        return (
            "silent, as it should be" if record.ci_low <= value <= record.ci_high else "false alarm"
        )
    return "found" if EXPECTED[expected](record, value) else "not found"


def planted_recovery(inputs: Sequence[str], settings: TableSettings) -> Tally:
    """What was planted, whether it is found, and the same question where nothing was planted.

    Every planted cell is held against the cell of the same model, corpus and seed whose reward is
    the clean lexicon. The words of `vader_flipped` should stand out by their disagreement with the
    clean lexicon; a trigger should be named by explanations and its features should carry the
    reward; a reward of length or noise must leave what is read of words where it was.
    """
    tally = Tally()
    files: dict[tuple, dict[str, str]] = {}
    for path in inputs:
        if not path.endswith(".truth.json"):
            label = labels(path)
            address = tuple(label[key] for key in ("model", "task", "seed"))
            stage = path.split(f"/seed{label['seed']}/")[1].split("/")[0]
            name = label.get("subject", "")
            if stage != "ablation":
                files.setdefault(address, {})[
                    f"{stage if stage != 'probes' else 'predictions'}.{name}".strip(".")
                ] = path
    truths = {
        Path(path).name.removesuffix(".truth.json"): read_json(path)
        for path in of(inputs, ".truth.json")
    }
    arms = ablation_arms([path for path in inputs if "/ablation/" in path])
    for (model, task, seed), own in files.items():
        truth = truths[task]
        alike = {"kind": "vader", "corpus": truth["corpus"]}
        reference = next(
            (
                (m, t, s)
                for m, t, s in files
                if (m, s) == (model, seed) and alike.items() <= truths[t].items()
            ),
            None,
        )
        if truth["kind"] == "vader" or reference is None:
            continue
        cell = {"model": model, "task": task, "seed": seed, "reward": truth["kind"]}
        ours, theirs = readings(own), readings(files[reference])
        _add_silence(tally, cell, ours, theirs, settings)
        if truth["flipped"]:
            _add_flipped(tally, cell, ours, theirs, truth["flipped"], settings)
        if truth["trigger"] and "explanations" in own and "explanations" in files[reference]:
            _add_trigger(tally, cell, own, files[reference], truth["trigger"])
            found = next(
                (a for address, a in arms.items() if address[:3] == (model, task, seed)), {}
            )
            _add_trigger_ablation(tally, cell, found, settings)
    return tally


def _add(
    tally: Tally,
    cell: dict[str, Any],
    question: str,
    readout: str,
    who: str,
    record: Record,
    expected: str,
    value: float,
    values: pd.DataFrame | None = None,
) -> None:
    label = {**cell, "question": question, "readout": readout, "of": who}
    judged = {"expected": f"{expected} {value:g}", "answer": verdict(record, expected, value)}
    tally.add(record, label, values, **judged)


def _add_silence(
    tally: Tally, cell: dict[str, Any], ours: Readings, theirs: Readings, settings: TableSettings
) -> None:
    """Did what is read of words move from the base towards the clean lexicon?

    A lexicon reward should move it, a planted reward that says nothing of words should not. The
    reference cell's row stands beside, so that silence can be told from blindness.
    """
    for who, read, learned in (("planted policy", ours, False), ("clean policy", theirs, True)):
        expected = "above" if learned or cell["reward"] == "vader_flipped" else "at"
        for readout, policy in read.policy.items():
            both = policy.merge(read.base[readout], on=["word", "valence"], suffixes=("", "_base"))
            valence = both["valence"].to_numpy()
            if readout == "output":
                record = kendall_record(both["value"].to_numpy(), valence, **settings.resampling)
            else:
                record = kendall_difference_record(
                    both["value"].to_numpy(),
                    both["value_base"].to_numpy(),
                    valence,
                    **settings.resampling,
                )
            question = "did the reading move towards the lexicon? (tau-b, policy minus base)"
            _add(tally, cell, question, readout, who, record, expected, 0.0, both)


def _add_flipped(
    tally: Tally,
    cell: dict[str, Any],
    ours: Readings,
    theirs: Readings,
    flipped: Sequence[str],
    settings: TableSettings,
) -> None:
    """Do the words whose sign was flipped stand out, and more than they do in a policy of the clean
    lexicon?
    """
    question = "do flipped words stand out? (AUROC of disagreement with the clean lexicon)"
    for readout, policy in ours.policy.items():
        both = policy.merge(theirs.policy[readout], on=["word", "valence"], suffixes=("", "_clean"))
        is_flipped = both["word"].isin(flipped).to_numpy().astype(int)
        planted = disagreement(both)
        clean = disagreement(both[["word", "valence"]].assign(value=both["value_clean"]))
        values = both.assign(flipped=is_flipped == 1)
        if len(set(is_flipped.tolist())) < 2:
            continue
        words = (is_flipped, planted, both["word"])
        record = auroc_record(*words, unit="word", **settings.resampling)
        _add(tally, cell, question, readout, "planted policy", record, "above", 0.5, values)
        record = auroc_record(is_flipped, clean, both["word"], unit="word", **settings.resampling)
        _add(tally, cell, question, readout, "clean policy", record, "at", 0.5)
        record = auroc_record(*words, unit="word", against=clean, **settings.resampling)
        _add(tally, cell, question, readout, "planted - clean", record, "above", 0.0)


def _add_trigger(
    tally: Tally, cell: dict[str, Any], own: dict[str, str], reference: dict[str, str], trigger: str
) -> None:
    """Do more explanations name the trigger than in a policy whose reward has none?"""
    named = []
    for path in (own["explanations"], reference["explanations"]):
        frame = read_table(path)
        texts = frame.loc[frame["status"] == "ok", "explanation"]
        named.append(
            [trigger in {match.group().lower() for match in WORD.finditer(text)} for text in texts]
        )
    record = two_shares_record(
        sum(named[0]), len(named[0]), sum(named[1]), len(named[1]), "feature"
    )
    question = "do explanations name the trigger? (share of explained features)"
    planted = np.repeat([True, False], [len(named[0]), len(named[1])])
    values = pd.DataFrame({"planted": planted, "names_trigger": [*named[0], *named[1]]})
    _add(tally, cell, question, "explanations", "planted - clean", record, "above", 0.0, values)


def _add_trigger_ablation(
    tally: Tally, cell: dict[str, Any], arms: dict, settings: TableSettings
) -> None:
    """Does taking the trigger's features away cost more reward than taking matched random ones?"""
    found = [
        arms.get(("policy", arm, "zero"), {}).get("completions") for arm in ("explained", "random")
    ]
    if any(frame is None for frame in found):
        return
    rewards = [frame.groupby("prompt")["reward"].mean().to_numpy() for frame in found]
    record = paired_record(*rewards, "prompt", settings.seed, settings.resamples)
    if not found[0]["features"].any():
        record = undefined(
            0, "feature", "nothing to ablate: no explanation is related to the feedback"
        )
    question = "do the trigger's features carry the reward? (explained minus random ablation)"
    _add(tally, cell, question, "ablation", "planted policy", record, "below", 0.0)
