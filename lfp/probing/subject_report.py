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
from lfp.probing.fitting import fit_probe, no_predictions, out_of_fold
from lfp.probing.probes import DIRECT, MAIN_SPLIT, PROBE_OF, TEXT_FEATURES, headline
from lfp.probing.splits import null_splits, splits_of, valence_is_probed, why_untrainable
from lfp.settings import Probes


@dataclass(frozen=True)
class ProbeResults:
    """All results of one subject's probes.

    ``predictions`` has a row per element, kind of features, split and probe. ``nested`` compares
    predictions from frequency and embedding with and without the latents' probe
    (:func:`~lfp.probing.comparisons.nested_frame`); it is empty where that probe could not be
    trained, and ``weights`` (``weight`` [feature], ``intercept`` [1]) are 0 then. ``metrics`` lists
    ``probes`` with the strengths of their folds or the reason that they could not be trained,
    ``baseline`` (untrained probes) and ``shuffled`` (permuted labels). ``headline`` says the main
    statistic in a line.
    """

    predictions: pd.DataFrame
    nested: pd.DataFrame
    weights: dict[str, np.ndarray]
    metrics: dict[str, list[dict[str, Any]]]
    headline: str


@dataclass(frozen=True)
class SplitResults:
    """The probes of one kind of features on one split.

    ``frames`` of predictions, those of the probe itself first, its ``metrics``, and the statistics
    of probes on permuted labels (``shuffled``).
    """

    frames: list[pd.DataFrame]
    metrics: dict[str, Any]
    shuffled: list[dict[str, Any]]

    @property
    def trained(self) -> bool:
        """Whether the probe could be trained."""
        return "reason" not in self.metrics


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
        Regularisation, folds and numbers of draws.
    seed
        Seed of folds, permutations and untrained probes.
    """
    kind = PROBE_OF[feedback]
    arrays = arrays.holding("latents")  # several probes read them
    rows = word_rows(triples, lexicon["words"]) if kind == "ridge" else preference_rows(triples)
    if kind == "ridge":
        rows["tokens"] = stacked(arrays.kinds["length"])[:, 0].astype(int)
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
        if name == "latents" and main.trained:
            nested = _nested(main.frames[0], arrays, lexicon["counts"], settings, seed)
            weights = fit_probe(data, kind, settings, seed)
        if name == "latents" and len(rows):
            baseline = comparisons.baseline_statistics(data, kind, settings.xavier_draws, seed)
    predictions = pd.concat([frame for one in results for frame in one.frames], ignore_index=True)
    _check_finite(predictions, subject)
    metrics = {
        "probes": [one.metrics for one in results],
        "baseline": [{"features": "latents", **row} for row in baseline],
        "shuffled": [row for one in results for row in one.shuffled],
    }
    return ProbeResults(predictions, nested, weights, metrics, headline(predictions, kind))


def _nested(
    predictions: pd.DataFrame,
    arrays: FeatureArrays,
    counts: Mapping[str, int],
    settings: Probes,
    seed: int,
) -> pd.DataFrame:
    """Predictions from frequency and static embedding, with and without those of the probe."""
    frequency = log_frequency(predictions, counts)
    embedding = stacked(arrays.kinds["embedding"])
    return comparisons.nested_frame(predictions, frequency, embedding, settings.folds, seed)


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


def probe_split(
    data: ProbeData, kind: str, split: str, features: str, settings: Probes, seed: int
) -> SplitResults:
    """The probe of `data` on one split.

    A ridge probe of the valence itself stands beside some
    (:func:`~lfp.probing.splits.valence_is_probed`), and probes of permuted labels beside those of
    latents on the main and the random split.

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
        Regularisation, folds and numbers of draws.
    seed
        Seed of folds and permutations.
    """
    label = {"features": features, "split": split}
    reason = why_untrainable(data, kind, split, settings, seed)
    if reason:
        frame = no_predictions(data).assign(**label, probe=kind)
        return SplitResults(
            [frame], {**label, "probe": kind, "strengths": [], "reason": reason}, []
        )
    predictions, strengths = out_of_fold(data, kind, split, settings, seed, features)
    frames, shuffled = [predictions.assign(**label, probe=kind)], []
    if valence_is_probed(kind, features, split):
        direct = dataclasses.replace(data, target=data.rows["truth"].to_numpy())
        of_valence, _ = out_of_fold(direct, kind, split, settings, seed)
        frames.append(of_valence.assign(**label, probe=DIRECT))
    if features == "latents" and split in null_splits(kind) and settings.label_shuffles:
        shuffled = comparisons.shuffled_statistics(data, kind, split, strengths, settings, seed)
    metrics = {**label, "probe": kind, "strengths": strengths}
    return SplitResults(frames, metrics, [{**label, **row} for row in shuffled])


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
