"""All probes of one subject: its predictions, their comparisons and the probe that ablation reads.

:func:`probe_subject` is the stage ``probes`` as one call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lfp.probing import comparisons
from lfp.probing.data import (
    FeatureArrays,
    ProbeData,
    log_frequency,
    preference_rows,
    probe_data,
    stacked,
    word_rows,
    word_targets,
)
from lfp.probing.fitting import (
    HeldOut,
    fit_probe,
    no_predictions,
    out_of_fold,
    partitions_of,
)
from lfp.probing.probes import DIRECT, MAIN_SPLIT, PROBE_OF, TEXT_FEATURES, headline
from lfp.probing.splits import null_splits, splits_of, valence_is_probed, why_untrainable
from lfp.settings import Probes

#: The statistics of parts where no probe was trained.
NO_PARTS = pd.DataFrame(
    columns=["features", "split", "probe", "partition", "fold", "ratio", "draw"]
)


@dataclass(frozen=True)
class ProbeResults:
    """All results of one subject's probes.

    ``predictions`` has a row per element, kind of features, split and probe, ``parts`` the
    statistics of every test part (:func:`~lfp.probing.comparisons.parts_frame`). ``nested``
    compares predictions from frequency and embedding with and without the latents' probe
    (:func:`~lfp.probing.comparisons.nested_frame`); it is empty where that probe could not be
    trained, and ``weights`` (``weight`` [feature], ``intercept`` [1]) are 0 then. ``metrics`` lists
    ``probes`` with the strengths of their folds or the reason that they could not be trained, and
    ``baseline`` (untrained probes). ``headline`` says the main statistic in a line.
    """

    predictions: pd.DataFrame
    parts: pd.DataFrame
    nested: pd.DataFrame
    weights: dict[str, np.ndarray]
    metrics: dict[str, list[dict[str, Any]]]
    headline: str


@dataclass(frozen=True)
class SplitResults:
    """The probes of one kind of features on one split.

    ``frames`` of predictions, those of the probe itself first, the statistics of their test
    ``parts``, the probe's ``metrics``, and its predictions by partition, ``held_out``, which are
    None where it could not be trained.
    """

    frames: list[pd.DataFrame]
    parts: list[pd.DataFrame]
    metrics: dict[str, Any]
    held_out: HeldOut | None = None


def probe_subject(
    arrays: FeatureArrays,
    triples: pd.DataFrame,
    lexicon: Mapping[str, Mapping[str, float]],
    subject: str,
    feedback: str,
    features: Sequence[str],
    settings: Probes,
    seed: int,
) -> ProbeResults:
    """Train and judge all probes of one subject (paper section 3.3).

    Raises ValueError where a probe's prediction is not finite.

    Parameters
    ----------
    arrays
        Features of the subject's elements; for a subject without a model those of the policy,
        whose deltas are its targets.
    triples
        Contrast triples (:mod:`lfp.probing.contrasts`).
    lexicon
        ``words`` with the valence of each word, and ``counts`` with the number of times that each
        word occurs in the training texts.
    subject
        Name of the subject, for messages.
    feedback
        ``reward`` (ridge probes of deltas) or ``preference`` (logistic probes of labels).
    features
        Kinds of features to probe; empty for a subject without a model, whose features are
        :data:`~lfp.probing.probes.TEXT_FEATURES`.
    settings
        Regularisation, partitions, folds and numbers of draws.
    seed
        Seed of the first partition, of permutations and untrained probes.
    """
    kind = PROBE_OF[feedback]
    arrays = arrays.holding("latents")  # several probes read them
    rows = _rows(arrays, triples, lexicon["words"], kind)
    targets = _targets(rows, arrays, kind, not features, settings.delta)
    results, baseline, nested = [], [], pd.DataFrame()
    weights = {"weight": np.zeros(arrays.width("latents")), "intercept": np.zeros(1)}
    for name in features or TEXT_FEATURES:
        data = probe_data(name, arrays, triples, rows, targets)
        of_split = {
            split: probe_split(data, kind, split, name, settings, seed)
            for split in splits_of(kind, name)
        }
        results += of_split.values()
        main = of_split[MAIN_SPLIT[kind]]
        if name == "latents" and main.held_out:
            nested = _nested(data, main.held_out, arrays, lexicon["counts"], kind)
            weights = fit_probe(data, kind, settings, seed)
        if name == "latents" and len(rows):
            baseline = comparisons.baseline_statistics(data, kind, settings.xavier_draws, seed)
    predictions = pd.concat([frame for one in results for frame in one.frames], ignore_index=True)
    _check_finite(predictions, subject)
    parts = pd.concat([frame for one in results for frame in one.parts] or [NO_PARTS])
    metrics = {
        "probes": [one.metrics for one in results],
        "baseline": [{"features": "latents", **row} for row in baseline],
    }
    parts = parts.reset_index(drop=True)
    return ProbeResults(predictions, parts, nested, weights, metrics, headline(parts, kind))


def _rows(
    arrays: FeatureArrays, triples: pd.DataFrame, words: Mapping[str, float], kind: str
) -> pd.DataFrame:
    """Descriptions of a probe's rows; a word's has the number of its tokens."""
    if kind == "logistic":
        return preference_rows(triples)
    tokens = stacked(arrays.kinds["length"])[:, 0].astype(int)
    return word_rows(triples, words).assign(tokens=tokens)


def _nested(
    data: ProbeData,
    held_out: HeldOut,
    arrays: FeatureArrays,
    counts: Mapping[str, int],
    kind: str,
) -> pd.DataFrame:
    """R² of frequency and static embedding, with and without the predictions of the probe."""
    frequency = log_frequency(data.rows, counts)
    embedding = stacked(arrays.kinds["embedding"])
    return comparisons.nested_frame(data, held_out, frequency, embedding, kind)


def _targets(
    rows: pd.DataFrame, arrays: FeatureArrays, kind: str, of_text: bool, delta: str
) -> Callable[[Mapping[str, np.ndarray] | None], np.ndarray]:
    """The target [row] of a probe, as a function of the features by element that it reads."""

    def targets(features: Mapping[str, np.ndarray] | None) -> np.ndarray:
        if kind == "logistic":
            return rows["truth"].to_numpy(dtype=int)
        # Subjects without a model learn the deltas of the latents.
        deltas = arrays.kinds["latents"] if of_text else features
        return word_targets(deltas, arrays.layers, delta)

    return targets


def is_refitted(kind: str, features: str, split: str) -> bool:
    """Whether probes of permuted labels stand beside a probe.

    They do on the main split, whose numbers are tested, and for the latents on the random one.
    """
    return split == MAIN_SPLIT[kind] or (features == "latents" and split in null_splits(kind))


def probe_split(
    data: ProbeData, kind: str, split: str, features: str, settings: Probes, seed: int
) -> SplitResults:
    """The probe of `data` on one split.

    A ridge probe of the valence itself stands beside some
    (:func:`~lfp.probing.splits.valence_is_probed`), and probes of permuted labels
    (:func:`is_refitted`).

    Parameters
    ----------
    data
        Features, targets and descriptions of the rows.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    features
        Kind of features of `data`.
    settings
        Regularisation, partitions, folds and numbers of draws.
    seed
        Seed of the first partition and of permutations.
    """
    label = {"features": features, "split": split}
    _check_features(data, features)
    partitions = range(partitions_of(kind, split, settings))
    reasons = (why_untrainable(data, kind, split, settings, seed + draw) for draw in partitions)
    reason = next(filter(None, reasons), "")
    if reason:
        frame = no_predictions(data).assign(**label, probe=kind)
        metrics = {**label, "probe": kind, "strengths": [], "reason": reason}
        return SplitResults([frame], [], metrics)
    held_out = out_of_fold(data, kind, split, settings, seed, features)
    frames = [held_out.frame(data).assign(**label, probe=kind)]
    parts = [comparisons.parts_frame(data, held_out, kind, split).assign(**label, probe=kind)]
    if valence_is_probed(kind, features, split):
        direct = dataclasses.replace(data, target=data.rows["truth"].to_numpy())
        of_valence = out_of_fold(direct, kind, split, settings, seed)
        frames.append(of_valence.frame(direct).assign(**label, probe=DIRECT))
        of_parts = comparisons.parts_frame(direct, of_valence, kind, split)
        parts.append(of_parts.assign(**label, probe=DIRECT))
    if is_refitted(kind, features, split) and settings.label_shuffles:
        refits = comparisons.refitted_frame(data, kind, split, features, settings, seed)
        parts.append(refits.assign(**label, probe=kind))
    metrics = {**label, "probe": kind, "strengths": held_out.strengths}
    return SplitResults(frames, parts, metrics, held_out)


def _check_features(data: ProbeData, features: str) -> None:
    """Raise ValueError where a feature is not a finite number, or its variance has none."""
    values = data.features
    if not isinstance(values, np.ndarray) or values.dtype.kind != "f":
        return  # texts, of which words are counted
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = int((~np.isfinite(values.astype(np.float32) ** 2)).any(axis=1).sum())
    if wrong:
        raise ValueError(
            f"{features} features: {wrong} of {len(values)} rows hold a value that is no number or"
            " too large; look at the activations that they come from, and rebuild them"
        )


def _check_finite(predictions: pd.DataFrame, subject: str) -> None:
    """Raise ValueError where the prediction of a trained probe is not a finite number."""
    trained = predictions[predictions["fold"] >= 0]
    wrong = trained[~np.isfinite(trained["prediction"])]
    if len(wrong):
        first = wrong.iloc[0]
        raise ValueError(
            f"{first['features']} features of {subject}, split {first['split']}: a probe's"
            f" prediction is not finite; check the features, and rebuild them"
        )
