"""Probes that read the feedback implicit in activations (paper section 3.3).

This module has the probes and their out-of-fold predictions.

Lexicon rewards: ridge regression of the signed distance delta on an element's features.
Preferences: logistic regression of positive against negative answers. Everything that is fitted,
the scaler, the vocabulary, the principal components and the regularisation included, is fitted
inside the training part of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from lfp.probing.data import ProbeData
from lfp.probing.probes import MAIN_SPLIT
from lfp.probing.splits import fold_indices
from lfp.settings import Probes
from lfp.texts.words import count_words


class CommonScale(TransformerMixin, BaseEstimator):
    """Centre every feature and divide all of them by one number, their root mean variance.

    Standardising each feature by itself would blow up the features of a sparse code that fire on a
    handful of words, and with them the predictions for words that the probe has not seen.
    """

    def fit(self, X: np.ndarray, y: np.ndarray | None = None) -> CommonScale:
        self.mean_ = X.mean(axis=0)
        self.scale_ = float(np.sqrt(X.var(axis=0).mean())) or 1.0
        return self

    def transform(self, X: np.ndarray) -> np.ndarray:
        return (X - self.mean_) / self.scale_


def _reader(features: str) -> TransformerMixin:
    """The first step of a probe's pipeline, which makes numbers of a kind of features."""
    if features == "bag_of_words":
        return CountVectorizer(analyzer=count_words)
    if features == "tfidf":
        return TfidfVectorizer(analyzer=count_words)
    return OneHotEncoder(handle_unknown="ignore") if features == "first_token" else CommonScale()


def regularisation_search(
    kind: str,
    settings: Probes,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
    features: str = "latents",
) -> GridSearchCV:
    """A scaled ridge or logistic probe, tuned on inner `folds` of the rows that it is fitted on.

    Strengths are ``settings.alphas`` (ridge) or ``settings.Cs`` (logistic).
    """
    if kind == "ridge":
        steps, grid = Ridge(), {"probe__alpha": list(settings.alphas)}
    elif kind == "logistic":
        steps, grid = LogisticRegression(max_iter=1000), {"probe__C": list(settings.Cs)}
    else:
        raise ValueError(f"probe: expected 'ridge' or 'logistic', got {kind!r}")
    pipeline = Pipeline([("read", _reader(features)), ("probe", steps)])
    return GridSearchCV(pipeline, grid, cv=list(folds))


def inputs(data: ProbeData, train: np.ndarray) -> np.ndarray:
    """Features of all rows.

    They are principal components of the training rows where `data` asks for a code's size.
    """
    if data.code is None:
        return data.features
    size = int((data.code[train] > 0).any(0).sum())
    size = max(1, min(size, len(train), data.features.shape[1]))
    pca = PCA(size, svd_solver="covariance_eigh").fit(data.features[train])
    return pca.transform(data.features)


def _scores(search: GridSearchCV, features: np.ndarray) -> np.ndarray:
    return (
        search.decision_function(features)
        if hasattr(search, "decision_function")
        else search.predict(features)
    )


def out_of_fold(
    data: ProbeData,
    kind: str,
    split: str,
    settings: Probes,
    seed: int,
    features: str = "latents",
) -> tuple[pd.DataFrame, list[float]]:
    """A prediction for every row from a probe that was trained without it.

    Each fold's chosen strength of regularisation comes with it.

    Predictions are raw: deltas for ridge, log-odds for logistic probes; their sign needs no
    threshold.

    Parameters
    ----------
    data
        Features, targets and descriptions of the rows.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    settings
        Strengths to choose from, outer and inner folds.
    seed
        Seed of the outer and inner folds.
    features
        Kind of features of `data`, which decides how they become numbers.

    Returns
    -------
    tuple
        ``data.rows`` with ``target``, ``prediction`` and ``fold``, and the strength of each fold
        (alpha or C).
    """
    prediction = np.full(len(data.target), np.nan)
    fold_of = np.zeros(len(data.target), dtype=int)
    strengths = []
    for fold, (train, test) in enumerate(fold_indices(data.rows, split, settings.folds, seed)):
        inner = fold_indices(data.rows.iloc[train], split, settings.inner_folds, seed)
        search = regularisation_search(kind, settings, inner, features)
        x = inputs(data, train)
        search.fit(x[train], data.target[train])
        prediction[test] = _scores(search, x[test])
        fold_of[test] = fold
        strengths.append(float(next(iter(search.best_params_.values()))))
    return data.rows.assign(target=data.target, prediction=prediction, fold=fold_of), strengths


def no_predictions(data: ProbeData) -> pd.DataFrame:
    """The frame of :func:`out_of_fold` for rows without a trainable probe.

    Predictions are missing, and the fold is -1.
    """
    return data.rows.assign(target=data.target, prediction=np.nan, fold=-1)


def fit_probe(data: ProbeData, kind: str, settings: Probes, seed: int) -> dict[str, np.ndarray]:
    """The probe of all rows in the unscaled feature space, tuned on folds of the main split.

    It is ``weight`` [feature] and ``intercept`` [1].
    """
    inner = fold_indices(data.rows, MAIN_SPLIT[kind], settings.inner_folds, seed)
    search = regularisation_search(kind, settings, inner)
    search.fit(data.features, data.target)
    scaler, probe = search.best_estimator_["read"], search.best_estimator_["probe"]
    weight = np.ravel(probe.coef_) / scaler.scale_
    return {"weight": weight, "intercept": np.ravel(probe.intercept_) - weight @ scaler.mean_}
