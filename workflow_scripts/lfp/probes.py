"""Probes that read the feedback implicit in activations, and their out-of-fold predictions (paper section 3.3).

Lexicon rewards: ridge regression of the signed distance delta on an element's features. Preferences: logistic
regression of positive against negative answers. Everything that is fitted, the scaler and the regularisation
included, is fitted inside the training part of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import Pipeline

from workflow_scripts.lfp import statistics
from workflow_scripts.lfp.probe_data import ProbeData

#: Splits by the kind of probe: ``published`` is random over triples, the others hold whole units out.
SPLITS = {"ridge": ("published", "by_word"), "logistic": ("published", "by_prompt")}


class CommonScale(TransformerMixin, BaseEstimator):
    """Centre every feature and divide all of them by one number, their root mean variance.

    Standardising each feature by itself would blow up the features of a sparse code that fire on a handful of
    words, and with them the predictions for words that the probe has not seen.
    """

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> CommonScale:
        self.mean_ = X.mean(axis=0)
        self.scale_ = float(np.sqrt(X.var(axis=0).mean())) or 1.0
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.scale_


def regularisation_search(kind: str, strengths: Sequence[float], inner_folds: int) -> GridSearchCV:
    """A scaled ridge (`strengths` are alphas) or logistic probe (`strengths` are C) tuned on grouped inner folds."""
    if kind == "ridge":
        steps, grid = Ridge(), {"probe__alpha": list(strengths)}
    elif kind == "logistic":
        steps, grid = LogisticRegression(max_iter=1000), {"probe__C": list(strengths)}
    else:
        raise ValueError(f"probe: expected 'ridge' or 'logistic', got {kind!r}")
    pipeline = Pipeline([("scale", CommonScale()), ("probe", steps)])
    return GridSearchCV(pipeline, grid, cv=GroupKFold(inner_folds))


def fold_indices(data: ProbeData, split: str, folds: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row indices of every fold.

    ``published`` splits triples at random, so that a test word is among the training words; ``by_word`` and
    ``by_prompt`` hold whole words or prompts out.
    """
    if split == "published":
        triples = np.unique(data.rows["triple"])
        parts = KFold(folds, shuffle=True, random_state=seed).split(triples)
        member = [data.rows["triple"].isin(triples[test]).to_numpy() for _, test in parts]
        return [(np.flatnonzero(~test), np.flatnonzero(test)) for test in member]
    if split in ("by_word", "by_prompt"):
        splitter = GroupKFold(folds, shuffle=True, random_state=seed)
        return list(splitter.split(data.features, groups=data.rows["unit"]))
    raise ValueError(f"split: expected 'published', 'by_word' or 'by_prompt', got {split!r}")


def _scores(search: GridSearchCV, features: np.ndarray) -> np.ndarray:
    return search.decision_function(features) if hasattr(search, "decision_function") else search.predict(features)


def out_of_fold(
    data: ProbeData, kind: str, split: str, strengths: Sequence[float], folds: int, inner_folds: int, seed: int
) -> tuple[pd.DataFrame, list[float]]:
    """A prediction for every row from a probe that was trained without it, and each fold's chosen strength.

    Predictions are raw: deltas for ridge, log-odds for logistic probes; their sign needs no threshold.
    """
    prediction = np.full(len(data.target), np.nan)
    fold_of = np.zeros(len(data.target), dtype=int)
    chosen = []
    for fold, (train, test) in enumerate(fold_indices(data, split, folds, seed)):
        search = regularisation_search(kind, strengths, inner_folds)
        search.fit(data.features[train], data.target[train], groups=data.rows["unit"].iloc[train])
        prediction[test] = _scores(search, data.features[test])
        fold_of[test] = fold
        chosen.append(float(next(iter(search.best_params_.values()))))
    return data.rows.assign(target=data.target, prediction=prediction, fold=fold_of), chosen


def fit_probe(data: ProbeData, kind: str, strengths: Sequence[float], inner_folds: int) -> dict[str, np.ndarray]:
    """The probe of all rows as ``weight`` [feature] and ``intercept`` [1] in the unscaled feature space."""
    search = regularisation_search(kind, strengths, inner_folds)
    search.fit(data.features, data.target, groups=data.rows["unit"])
    scaler, probe = search.best_estimator_["scale"], search.best_estimator_["probe"]
    weight = np.ravel(probe.coef_) / scaler.scale_
    return {"weight": weight, "intercept": np.ravel(probe.intercept_) - weight @ scaler.mean_}


def xavier_predictions(features: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Outputs [draw, row] of untrained linear probes with Xavier-uniform weights and no bias (the paper's baseline)."""
    width = features.shape[1]
    bound = np.sqrt(6.0 / (width + 1))
    weights = np.random.default_rng(seed).uniform(-bound, bound, (draws, width))
    return weights @ features.T.astype(np.float64)


def unit_means(predictions: pd.DataFrame) -> pd.DataFrame:
    """Mean prediction, truth and number of rows of every unit, sorted by unit."""
    grouped = predictions.groupby("unit", sort=True)
    return grouped.agg(
        prediction=("prediction", "mean"), truth=("truth", "first"), rows=("truth", "size")
    ).reset_index()


def word_statistics(means: pd.DataFrame) -> dict[str, float]:
    """Tau-b over all words and within each sign, the share of words of each sign with that sign predicted, and
    what the published code computes (see :func:`statistics.published_tau`)."""
    positive = means["truth"].to_numpy() > 0
    prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
    published, published_p = statistics.published_tau(means["unit"], prediction, truth)
    return {
        "published_statistic": published,
        "published_p": published_p,
        "sign_only_ceiling": statistics.sign_only_ceiling(truth),
        "tau": statistics.kendall_tau(prediction, truth),
        "tau_positive": statistics.kendall_tau(prediction[positive], truth[positive]),
        "tau_negative": statistics.kendall_tau(prediction[~positive], truth[~positive]),
        "sign_positive": float((prediction[positive] > 0).mean()),
        "sign_negative": float((prediction[~positive] < 0).mean()),
    }


def baseline_statistics(data: ProbeData, kind: str, draws: int, seed: int) -> list[dict[str, float]]:
    """The statistics of :func:`word_statistics`, or the balanced accuracy, of every untrained probe."""
    outputs = xavier_predictions(data.features, draws, seed)
    if kind == "ridge":
        return [word_statistics(unit_means(data.rows.assign(prediction=values))) for values in outputs]
    return [{"balanced_accuracy": statistics.balanced_accuracy(data.target, values)} for values in outputs]
