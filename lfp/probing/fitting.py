"""Probes that read the feedback implicit in activations (paper section 3.3).

This module has the probes and their out-of-fold predictions.

Lexicon rewards: ridge regression of the signed distance delta on an element's features.
Preferences: logistic regression of positive against negative answers. Everything that is fitted,
the scaler, the vocabulary, the principal components and the regularisation included, is fitted
inside the training part of a fold.

A probe of many targets costs little more than a probe of one: the features' Cholesky factor serves
all of them. So one function fits the probe of the true labels and those of permuted ones, which
come in single precision.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve, solve_triangular
from scipy.sparse import csr_matrix, issparse
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer, TfidfTransformer
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

from lfp.probing.data import READ_TEXT, ProbeData
from lfp.probing.probes import MAIN_SPLIT
from lfp.probing.splits import fold_indices
from lfp.settings import Probes
from lfp.texts.words import count_words


@dataclass(frozen=True)
class Fold:
    """Training and test rows of the fold of this ``number`` in one ``partition``.

    ``inner`` has the (train, test) rows of the folds inside the training part, which choose the
    regularisation.
    """

    partition: int
    number: int
    train: np.ndarray
    test: np.ndarray
    inner: list[tuple[np.ndarray, np.ndarray]]


def partitioned(
    rows: pd.DataFrame, split: str, settings: Probes, seed: int, partitions: int
) -> list[Fold]:
    """The folds of `partitions` random partitions of `rows`, one partition after the other.

    Parameters
    ----------
    rows
        Descriptions of the rows.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    settings
        Outer and inner folds.
    seed
        Seed of the first partition; the others have those that follow.
    partitions
        Number of partitions.
    """
    folds = []
    for partition in range(partitions):
        draw = seed + partition
        outside = fold_indices(rows, split, settings.folds, draw)
        for number, (train, test) in enumerate(outside):
            inside = fold_indices(rows.iloc[train], split, settings.inner_folds, draw)
            inner = [(train[a], train[b]) for a, b in inside]
            folds.append(Fold(partition, number, train, test, inner))
    return folds


def partitions_of(kind: str, split: str, settings: Probes) -> int:
    """Number of partitions of a split: many of the main one, which claims rest on, else one."""
    return settings.partitions if split == MAIN_SPLIT[kind] else 1


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


class SeenTfidf(TfidfTransformer):
    """TF-IDF of counts in which words that no training row has count for nothing."""

    def fit(self, X: csr_matrix, y: np.ndarray | None = None) -> SeenTfidf:
        super().fit(X)
        self.idf_ = np.where(np.asarray(X.sum(axis=0)).ravel() > 0, self.idf_, 0.0)
        return self


def _reader(features: str) -> TransformerMixin:
    """The first step of a probe, which scales a kind of features."""
    if features == "bag_of_words":
        return FunctionTransformer()
    if features == "tfidf":
        return SeenTfidf()
    return OneHotEncoder(handle_unknown="ignore") if features == "first_token" else CommonScale()


def counted(data: ProbeData, features: str) -> ProbeData:
    """The same data with word counts in place of texts, where the `features` read them.

    A word that no training row has gets no weight, so the vocabulary of all rows gives nothing
    away.
    """
    if features not in READ_TEXT or not len(data.rows):
        return data
    counts = CountVectorizer(analyzer=count_words).fit_transform(data.features)
    return dataclasses.replace(data, features=counts.astype(float))


def inputs(data: ProbeData, train: np.ndarray) -> np.ndarray:
    """Features of all rows.

    They are principal components of the training rows where `data` asks for a code's size.
    """
    if data.code is None:
        return data.features
    size = int((data.code[train] > 0).any(0).sum())
    size = max(1, min(size, len(train), data.features.shape[1]))
    # Both solvers are exact: the one decomposes a matrix of features, the other one of rows.
    solver = "covariance_eigh" if data.features.shape[1] <= len(train) else "full"
    pca = PCA(size, svd_solver=solver).fit(data.features[train])
    return pca.transform(data.features)


# ---------------------------------------------------------------------------- one fit, many targets


def _factor(matrix: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, bool]:
    """Cholesky factor of a positive definite `matrix`, for :func:`scipy.linalg.cho_solve`.

    It has the precision of the `targets`. A matrix with NaN or infinity raises ValueError, so that
    the many steps that follow need not look again (``check_finite``).
    """
    factor, lower = cho_factor(matrix)
    return factor.astype(targets.dtype), lower


def ridge_weights(
    x: np.ndarray, targets: np.ndarray, strengths: Sequence[float]
) -> Iterator[np.ndarray]:
    """Ridge weights [feature + 1, target] for every penalty of `strengths`, the intercept last."""
    mean, level = x.mean(axis=0), targets.mean(axis=0)
    centred = x - mean
    gram = centred.T @ centred
    right = centred.T.astype(targets.dtype) @ (targets - level)
    for alpha in strengths:
        weights = cho_solve(_factor(gram + alpha * np.eye(len(gram)), targets), right)
        yield np.vstack([weights, level - mean.astype(targets.dtype) @ weights])


def _kernel_ridge_scores(
    x: np.ndarray, held_out: np.ndarray, targets: np.ndarray, strengths: Sequence[float]
) -> Iterator[np.ndarray]:
    """Scores [held-out row, target] by :func:`ridge_weights` for every penalty of `strengths`.

    They come from the products of rows alone (the dual form; Saunders et al. 1998), which are fewer
    where rows `x` [row, feature] have more features than there are rows.
    """
    mean, level = x.mean(axis=0), targets.mean(axis=0)
    centred = x - mean
    products = centred @ centred.T
    across = ((held_out - mean) @ centred.T).astype(targets.dtype)
    for alpha in strengths:
        factor = _factor(products + alpha * np.eye(len(products)), targets)
        yield across @ cho_solve(factor, targets - level, check_finite=False) + level


def _expit(x: np.ndarray) -> np.ndarray:
    """The logistic function, a fifth as costly as SciPy's: NumPy's tanh takes several at once."""
    y = np.tanh(x / 2)
    y += 1
    y /= 2
    return y


def logistic_weights(
    x: np.ndarray, labels: np.ndarray, strengths: Sequence[float]
) -> Iterator[np.ndarray]:
    """Logistic weights [feature + 1, target] for every C of `strengths`, the intercept last.

    Objective and tolerance are scikit-learn's, the latter ten times wider for the many targets of a
    null; `labels` are 0 and 1. The curvature is at most a quarter of x'x whatever the weights
    (Boehning and Lindsay 1988), so one Cholesky factor serves all steps of all targets; the steps
    are accelerated (Nesterov 1983).
    """
    tolerance = 1e-4 if labels.shape[1] == 1 else 1e-3
    x = np.column_stack([x, np.ones(len(x))])
    penalty = np.append(np.ones(x.shape[1] - 1), 0.0)
    gram, x = x.T @ x, x.astype(labels.dtype)
    shrunk = penalty[:, None].astype(labels.dtype)
    for strength in strengths:
        factor = _factor(strength / 4 * gram + np.diag(penalty), labels)
        weights = ahead = np.zeros((x.shape[1], labels.shape[1]), dtype=labels.dtype)
        for step in range(500):
            gradient = float(strength) * (x.T @ (_expit(x @ ahead) - labels)) + shrunk * ahead
            if np.abs(gradient).max() < tolerance * strength * len(x):
                break
            step_back = cho_solve(factor, gradient, check_finite=False)
            before, weights = weights, ahead - step_back
            ahead = weights + step / (step + 3) * (weights - before)
        yield ahead


#: Fit of each kind of probe, and its settings' name of the strengths to choose from.
FITS = {"ridge": (ridge_weights, "alphas"), "logistic": (logistic_weights, "Cs")}


def _dense(x: np.ndarray) -> np.ndarray:
    return np.asarray(x.toarray() if issparse(x) else x, dtype=float)


def _compact(x: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows in as few coordinates as there are training rows, for penalised fits see no others.

    All products of rows with training rows stay.
    """
    if x.shape[1] <= len(x):
        return x, held_out
    products = x @ x.T
    products[np.diag_indices(len(x))] += 1e-10 * max(np.trace(products), 1.0)
    factor = np.linalg.cholesky(products)
    return factor, solve_triangular(factor, x @ held_out.T, lower=True).T


def _scores(
    x: np.ndarray,
    train: np.ndarray,
    test: np.ndarray,
    targets: np.ndarray,
    kind: str,
    features: str,
    strengths: Sequence[float],
) -> Iterator[np.ndarray]:
    """Predictions [test row, target] of probes of the training rows for every strength."""
    reader = _reader(features).fit(x[train])
    known, held_out = (_dense(reader.transform(x[rows])) for rows in (train, test))
    if kind == "ridge" and known.shape[1] > len(known):
        yield from _kernel_ridge_scores(known, held_out, targets[train], strengths)
        return
    known, held_out = _compact(known, held_out)
    held_out = held_out.astype(targets.dtype)
    for weights in FITS[kind][0](known, targets[train], strengths):
        yield held_out @ weights[:-1] + weights[-1]


def _quality(scores: np.ndarray, targets: np.ndarray, kind: str) -> np.ndarray:
    """R² of ridge scores, or accuracy of log-odds, of every target."""
    if kind == "logistic":
        return np.mean((scores > 0) == (targets > 0), axis=0)
    spread = np.sum((targets - targets.mean(axis=0)) ** 2, axis=0)
    errors = np.sum((targets - scores) ** 2, axis=0)
    return 1 - np.divide(errors, spread, out=np.ones_like(errors), where=spread > 0)


def chosen_strengths(
    x: np.ndarray,
    inner: Sequence[tuple[np.ndarray, np.ndarray]],
    targets: np.ndarray,
    kind: str,
    features: str,
    settings: Probes,
) -> np.ndarray:
    """Index of the strength [target] that predicts best in the `inner` folds.

    Parameters
    ----------
    x
        Features of all rows.
    inner
        (train, test) rows.
    targets
        [row, target].
    kind
        ``ridge`` or ``logistic``.
    features
        Kind of features.
    settings
        Strengths to choose from.
    """
    strengths = getattr(settings, FITS[kind][1])
    if len(strengths) == 1:
        return np.zeros(targets.shape[1], dtype=int)
    quality = sum(
        np.array(
            [
                _quality(scores, targets[test], kind)
                for scores in _scores(x, train, test, targets, kind, features, strengths)
            ]
        )
        for train, test in inner
    )
    return np.argmax(quality, axis=0)


def fold_scores(
    data: ProbeData, fold: Fold, targets: np.ndarray, kind: str, features: str, settings: Probes
) -> tuple[np.ndarray, np.ndarray]:
    """Raw predictions [test row, target] of a fold, and the strength [target] of each probe.

    Parameters
    ----------
    data
        Features of all rows, counts where they are texts (:func:`counted`).
    fold
        Training and test rows.
    targets
        [row, target].
    kind
        ``ridge`` or ``logistic``.
    features
        Kind of features of `data`.
    settings
        Strengths to choose from.
    """
    x = inputs(data, fold.train)
    best = chosen_strengths(x, fold.inner, targets, kind, features, settings)
    strengths = np.asarray(getattr(settings, FITS[kind][1]), dtype=float)
    used = np.unique(best)
    prediction = np.empty((len(fold.test), targets.shape[1]))
    fits = _scores(x, fold.train, fold.test, targets, kind, features, strengths[used])
    for index, scores in zip(used, fits, strict=True):
        prediction[:, best == index] = scores[:, best == index]
    return prediction, strengths[best]


@dataclass(frozen=True)
class HeldOut:
    """Predictions by probes that were trained without the rows that they predict.

    Every fold has its raw ``scores`` [test row], deltas for ridge and log-odds for logistic probes
    (their sign needs no threshold), and the strength (alpha or C) that it chose.
    """

    folds: list[Fold]
    scores: list[np.ndarray]
    strengths: list[float]

    @property
    def by_partition(self) -> np.ndarray:
        """Predictions [partition, row]: every row is tested once in every partition."""
        rows = sum(len(fold.test) for fold in self.folds if fold.partition == 0)
        predictions = np.empty((self.folds[-1].partition + 1, rows))
        for fold, scores in zip(self.folds, self.scores, strict=True):
            predictions[fold.partition, fold.test] = scores
        return predictions

    def frame(self, data: ProbeData) -> pd.DataFrame:
        """The rows of `data` with ``target``, ``prediction`` and ``fold``.

        The prediction is the mean over the partitions, the fold that of the first.
        """
        number = np.empty(len(data.rows), dtype=int)
        for fold in self.folds:
            if fold.partition == 0:
                number[fold.test] = fold.number
        prediction = self.by_partition.mean(axis=0)
        return data.rows.assign(target=data.target, prediction=prediction, fold=number)

    def first_partition(self, data: ProbeData) -> pd.DataFrame:
        """The same with the predictions of the first partition alone."""
        return self.frame(data).assign(prediction=self.by_partition[0])


def out_of_fold(
    data: ProbeData,
    kind: str,
    split: str,
    settings: Probes,
    seed: int,
    features: str = "latents",
) -> HeldOut:
    """Predictions of every row in every partition of a split.

    Parameters
    ----------
    data
        Features, targets and descriptions of the rows.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    settings
        Strengths to choose from, partitions, outer and inner folds.
    seed
        Seed of the first partition.
    features
        Kind of features of `data`, which decides how they become numbers.
    """
    folds = partitioned(data.rows, split, settings, seed, partitions_of(kind, split, settings))
    data, targets = counted(data, features), np.asarray(data.target, dtype=float)[:, None]
    fitted = [fold_scores(data, fold, targets, kind, features, settings) for fold in folds]
    return HeldOut(folds, [s[:, 0] for s, _ in fitted], [float(c[0]) for _, c in fitted])


def no_predictions(data: ProbeData) -> pd.DataFrame:
    """The frame of predictions for rows without a trainable probe.

    Predictions are missing, and the fold is -1.
    """
    return data.rows.assign(target=data.target, prediction=np.nan, fold=-1)


def fit_probe(data: ProbeData, kind: str, settings: Probes, seed: int) -> dict[str, np.ndarray]:
    """The probe of all rows in the unscaled feature space, tuned on folds of the main split.

    It is ``weight`` [feature] and ``intercept`` [1].
    """
    inner = fold_indices(data.rows, MAIN_SPLIT[kind], settings.inner_folds, seed)
    targets = np.asarray(data.target, dtype=float)[:, None]
    best = chosen_strengths(data.features, inner, targets, kind, "latents", settings)[0]
    fit, name = FITS[kind]
    scaler = CommonScale().fit(data.features)
    (weights,) = fit(scaler.transform(data.features), targets, [getattr(settings, name)[best]])
    weight = weights[:-1, 0] / scaler.scale_
    return {"weight": weight, "intercept": weights[-1:, 0] - weight @ scaler.mean_}
