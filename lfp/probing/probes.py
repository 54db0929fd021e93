"""Probes that read the feedback implicit in activations, and their out-of-fold predictions (paper
section 3.3).

Lexicon rewards: ridge regression of the signed distance delta on an element's features.
Preferences: logistic regression of positive against negative answers. Everything that is fitted,
the scaler, the vocabulary, the principal components and the regularisation included, is fitted
inside the training part of a fold.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, RidgeCV
from sklearn.model_selection import GridSearchCV, GroupKFold, KFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from lfp.probing.data import ProbeData
from lfp.statistics.estimates import (
    UNTRAINED,
    auroc,
    balanced_accuracy,
    kendall_tau,
    sign_only_ceiling,
    string_tau,
)
from lfp.texts.words import WORD

#: What a split holds out, and by which column the folds inside its training part are grouped.
#: ``random`` is random over triples, so that a test word is among the training words.
SPLITS = {"random": "triple", "by_word": "word", "by_context": "context", "by_both": "word"}
#: The split that a kind of probe is judged by: words of a lexicon, prompts of a preference.
MAIN_SPLIT = {"ridge": "by_word", "logistic": "by_context"}
#: A ridge probe of the valence itself: what the features hold at most, with no delta in between.
DIRECT = "ridge on valence"
#: Controls that read the text and no model.
TEXT_FEATURES = ("length", "first_token", "bag_of_words", "tfidf")
#: Parts of the words and of the contexts of ``by_both``, which fits a probe for every pair of
#: parts.
BOTH_PARTS = 3


def splits_of(kind: str, features: str) -> tuple[str, ...]:
    """All splits for the code itself; the random and the main one for what it is
    compared with.
    """
    return tuple(SPLITS) if features == "latents" else null_splits(kind)


def null_splits(kind: str) -> tuple[str, ...]:
    """Splits that probes of permuted labels are fitted on."""
    return ("random", MAIN_SPLIT[kind])


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
    """The first step of a probe's pipeline: what makes numbers of a kind of features."""
    if features == "bag_of_words":
        return CountVectorizer(token_pattern=WORD.pattern)
    if features == "tfidf":
        return TfidfVectorizer(token_pattern=WORD.pattern)
    return OneHotEncoder(handle_unknown="ignore") if features == "first_token" else CommonScale()


def regularisation_search(
    kind: str, strengths: Sequence[float], inner_folds: int, features: str = "latents"
) -> GridSearchCV:
    """A scaled ridge (`strengths` are alphas) or logistic probe (`strengths` are C) tuned on
    grouped inner folds.
    """
    if kind == "ridge":
        steps, grid = Ridge(), {"probe__alpha": list(strengths)}
    elif kind == "logistic":
        steps, grid = LogisticRegression(max_iter=1000), {"probe__C": list(strengths)}
    else:
        raise ValueError(f"probe: expected 'ridge' or 'logistic', got {kind!r}")
    pipeline = Pipeline([("read", _reader(features)), ("probe", steps)])
    return GridSearchCV(pipeline, grid, cv=GroupKFold(inner_folds))


def fold_indices(
    rows: pd.DataFrame, split: str, folds: int, seed: int
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(train, test) row indices of every fold of a split of :data:`SPLITS`; every row is tested
    once.

    ``by_both`` cuts words and contexts in :data:`BOTH_PARTS` parts each: a fold tests one part of
    the words in one part of the contexts and trains on what shares neither.
    """
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {', '.join(SPLITS)}, got {split!r}")
    if split == "by_both":
        word, context = (_parts(rows[name], BOTH_PARTS, seed) for name in ("word", "context"))
        cells = [(word == i, context == j) for i in range(BOTH_PARTS) for j in range(BOTH_PARTS)]
        pairs = [(np.flatnonzero(~w & ~c), np.flatnonzero(w & c)) for w, c in cells]
        return [(train, test) for train, test in pairs if len(test)]
    part = _parts(rows[SPLITS[split]], folds, seed)
    return [(np.flatnonzero(part != i), np.flatnonzero(part == i)) for i in range(folds)]


def _parts(groups: pd.Series, n: int, seed: int) -> np.ndarray:
    """The part 0..n-1 of every row; rows of one group share theirs."""
    names, codes = np.unique(groups.to_numpy(), return_inverse=True)
    part = np.empty(len(names), dtype=int)
    for i, (_, members) in enumerate(KFold(n, shuffle=True, random_state=seed).split(names)):
        part[members] = i
    return part[codes]


def why_untrainable(data: ProbeData, kind: str, split: str, folds: int, inner_folds: int) -> str:
    """Why no probe can be trained and judged on a split; "" where one can."""
    names = ("word", "context") if split == "by_both" else (SPLITS[split],)
    for name in names:
        found, needed = data.rows[name].nunique(), BOTH_PARTS if split == "by_both" else folds
        if found < needed:
            return f"{found} distinct values of {name} for {needed} folds"
    for train, _ in fold_indices(data.rows, split, folds, 0):
        if data.rows[SPLITS[split]].iloc[train].nunique() < inner_folds:
            return f"a fold trains on fewer groups than {inner_folds} inner folds"
        if kind == "logistic" and len(set(data.target[train].tolist())) < 2:
            return "a fold trains on one class only"
    return ""


def no_predictions(data: ProbeData) -> pd.DataFrame:
    """What :func:`out_of_fold` gives for rows that no probe could be trained for: missing
    predictions.
    """
    return data.rows.assign(target=data.target, prediction=np.nan, fold=-1)


def _inputs(data: ProbeData, train: np.ndarray, seed: int) -> np.ndarray:
    """Features of all rows; principal components of the training rows where `data` asks for a
    code's size.
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
    strengths: Sequence[float],
    folds: int,
    inner_folds: int,
    seed: int,
    features: str = "latents",
) -> tuple[pd.DataFrame, list[float]]:
    """A prediction for every row from a probe that was trained without it, and each fold's chosen
    strength.

    Predictions are raw: deltas for ridge, log-odds for logistic probes; their sign needs no
    threshold.
    """
    prediction = np.full(len(data.target), np.nan)
    fold_of = np.zeros(len(data.target), dtype=int)
    chosen = []
    for fold, (train, test) in enumerate(fold_indices(data.rows, split, folds, seed)):
        search = regularisation_search(kind, strengths, inner_folds, features)
        x = _inputs(data, train, seed)
        search.fit(x[train], data.target[train], groups=data.rows[SPLITS[split]].iloc[train])
        prediction[test] = _scores(search, x[test])
        fold_of[test] = fold
        chosen.append(float(next(iter(search.best_params_.values()))))
    return data.rows.assign(target=data.target, prediction=prediction, fold=fold_of), chosen


def permuted_truth(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Truths [row, draw] permuted among the distinct words (or answers): a random label for each,
    same marginal.
    """
    words, first, codes = np.unique(rows["word"].to_numpy(), return_index=True, return_inverse=True)
    truth = rows["truth"].to_numpy(dtype=float)[first]
    return np.stack([truth[rng.permutation(len(words))] for _ in range(draws)], 1)[codes]


def logistic_scores(
    x: np.ndarray, labels: np.ndarray, strength: float, held_out: np.ndarray
) -> np.ndarray:
    """Log-odds [row, draw] on `held_out` of logistic probes of the same `x` and many `labels` [row,
    draw].

    The objective is scikit-learn's with C = `strength`. Its curvature is at most a quarter of x'x
    whatever the weights (Boehning and Lindsay 1988), so one Cholesky factor serves all steps of all
    draws, and every step descends.
    """
    x = np.column_stack([x.astype(np.float64), np.ones(len(x))])
    penalty = np.append(np.ones(x.shape[1] - 1), 0.0)[:, None]
    factor = cho_factor(strength / 4 * (x.T @ x) + np.diag(penalty[:, 0]))
    weights = np.zeros((x.shape[1], labels.shape[1]))
    for _ in range(500):
        gradient = strength * (x.T @ (expit(x @ weights) - labels)) + penalty * weights
        if np.abs(gradient).max() < 1e-5 * strength * len(x):
            break
        weights -= cho_solve(factor, gradient)
    return held_out.astype(np.float64) @ weights[:-1] + weights[-1]


def shuffled_statistics(
    data: ProbeData,
    kind: str,
    split: str,
    strengths: Sequence[float],
    folds: int,
    draws: int,
    seed: int,
) -> list[dict[str, float]]:
    """What a probe reaches on labels that mean nothing: a row per draw of :func:`permuted_truth`.

    The probe is refitted on every draw at the strength that each fold chose for the true labels and
    is judged against the drawn ones. It is both the null of the label shuffle and the control task
    of Hewitt and Liang (2019): above chance it has learned words by heart.
    """
    truth = permuted_truth(data.rows, draws, np.random.default_rng(seed))
    target = np.sign(truth) * np.abs(data.target)[:, None] if kind == "ridge" else truth
    prediction = np.empty_like(truth)
    for (train, test), strength in zip(
        fold_indices(data.rows, split, folds, seed), strengths, strict=True
    ):
        scale = CommonScale().fit(data.features[train])
        x, held_out = scale.transform(data.features[train]), scale.transform(data.features[test])
        if kind == "ridge":
            prediction[test] = Ridge(alpha=strength).fit(x, target[train]).predict(held_out)
        else:
            prediction[test] = logistic_scores(x, target[train], strength, held_out)
    return draw_statistics(data.rows, truth, prediction, kind)


def draw_statistics(
    rows: pd.DataFrame, truth: np.ndarray, prediction: np.ndarray, kind: str
) -> list[dict[str, float]]:
    """:func:`probe_statistics` of every column of `truth` and `prediction` [row, draw]."""
    if kind == "ridge":
        units, codes = np.unique(rows["unit"].to_numpy(), return_inverse=True)
        counts, first = np.bincount(codes), np.unique(codes, return_index=True)[1]
        means = np.stack(
            [np.bincount(codes, weights=values) / counts for values in prediction.T], 1
        )
        draws = zip(truth[first].T, means.T, strict=True)
        return [
            word_statistics(pd.DataFrame({"unit": units, "truth": t, "prediction": p}))
            for t, p in draws
        ]
    return [preference_statistics(t, p) for t, p in zip(truth.T, prediction.T, strict=True)]


def fit_probe(
    data: ProbeData, kind: str, strengths: Sequence[float], inner_folds: int
) -> dict[str, np.ndarray]:
    """The probe of all rows as ``weight`` [feature] and ``intercept`` [1] in the unscaled feature
    space.
    """
    search = regularisation_search(kind, strengths, inner_folds)
    search.fit(data.features, data.target, groups=data.rows["unit"])
    scaler, probe = search.best_estimator_["read"], search.best_estimator_["probe"]
    weight = np.ravel(probe.coef_) / scaler.scale_
    return {"weight": weight, "intercept": np.ravel(probe.intercept_) - weight @ scaler.mean_}


def xavier_predictions(features: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Outputs [draw, row] of untrained linear probes with Xavier-uniform weights and no bias (the
    paper's baseline).
    """
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
    """Tau-b over all words and within each sign, the share of words of each sign with that sign
    predicted, and what the paper's code computes (:func:`lfp.statistics.estimates.string_tau`).
    """
    positive = means["truth"].to_numpy() > 0
    prediction, truth = means["prediction"].to_numpy(), means["truth"].to_numpy()
    strings, string_p = string_tau(means["unit"], prediction, truth)
    return {
        "string_tau": strings,
        "string_tau_p": string_p,
        "sign_only_ceiling": sign_only_ceiling(truth),
        "tau": kendall_tau(prediction, truth),
        "tau_positive": kendall_tau(prediction[positive], truth[positive]),
        "tau_negative": kendall_tau(prediction[~positive], truth[~positive]),
        "sign": float(np.mean(np.where(positive, prediction > 0, prediction < 0))),
        "sign_positive": float((prediction[positive] > 0).mean()),
        "sign_negative": float((prediction[~positive] < 0).mean()),
    }


def probe_statistics(predictions: pd.DataFrame, kind: str) -> dict[str, float]:
    """The statistics of one probe's predictions: those of :func:`word_statistics`, or balanced
    accuracy and AUROC.
    """
    if kind == "ridge":
        return word_statistics(unit_means(predictions))
    return preference_statistics(
        predictions["truth"].to_numpy(), predictions["prediction"].to_numpy()
    )


def preference_statistics(labels: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Balanced accuracy and AUROC of scores for labels 0 and 1."""
    return {
        "balanced_accuracy": balanced_accuracy(labels, scores), "auroc": auroc(labels, scores)
    }  # fmt: skip


def baseline_statistics(
    data: ProbeData, kind: str, draws: int, seed: int
) -> list[dict[str, float]]:
    """The statistics of every untrained probe."""
    outputs = xavier_predictions(data.features, draws, seed)
    truth = np.tile(data.rows["truth"].to_numpy()[:, None], (1, draws))
    return draw_statistics(data.rows, truth, outputs.T, kind)


def nested_predictions(
    covariates: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    folds: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out predictions of `truth` from `covariates` [unit, covariate] alone, and with a probe's
    `prediction`.

    Ridge regressions, tuned inside the training part; the probe adds what it says beyond the
    covariates, by partialling them out of both (Frisch and Waugh 1933). `prediction` must be out of
    fold itself.
    """
    alone, full = np.empty(len(truth)), np.empty(len(truth))
    part = _parts(pd.Series(groups), folds, seed)
    alphas = np.logspace(-1, 4, 11)
    for i in range(folds):
        train, test = part != i, part == i
        scale = StandardScaler().fit(covariates[train])
        x, held_out = scale.transform(covariates[train]), scale.transform(covariates[test])
        of_truth = RidgeCV(alphas).fit(x, truth[train])
        of_probe = RidgeCV(alphas).fit(x, prediction[train])
        residual = prediction[train] - of_probe.predict(x)
        slope = residual @ (truth[train] - of_truth.predict(x)) / max(residual @ residual, 1e-12)
        alone[test] = of_truth.predict(held_out)
        full[test] = alone[test] + slope * (prediction[test] - of_probe.predict(held_out))
    return alone, full


def nested_frame(
    predictions: pd.DataFrame, frequency: np.ndarray, embedding: np.ndarray, folds: int, seed: int
) -> pd.DataFrame:
    """What a probe's out-of-fold `predictions` add to log `frequency` [row] and static `embedding`
    [row, d_model].

    One row per word (lexicons) or answer (preferences): ``unit``, ``truth``, ``without`` and
    ``with_probe``, both held out. Rows of one word are averaged first.
    """
    key = [predictions["unit"], predictions["word"]]
    means = predictions[["truth", "prediction"]].groupby(key, sort=True).mean()
    covariates = (
        pd.DataFrame(np.column_stack([frequency, embedding]))
        .groupby(key, sort=True)
        .mean()
        .to_numpy()
    )
    units = means.index.get_level_values("unit").to_numpy()
    truth, prediction = means["truth"].to_numpy(), means["prediction"].to_numpy()
    without, with_probe = nested_predictions(covariates, prediction, truth, units, folds, seed)
    return pd.DataFrame(
        {"unit": units, "truth": truth, "without": without, "with_probe": with_probe}
    )


def headline(predictions: pd.DataFrame, kind: str) -> str:
    """The main statistic of the probe on the code, or on what else was probed first, in a line."""
    main = predictions[(predictions["split"] == MAIN_SPLIT[kind]) & (predictions["probe"] == kind)]
    features = (
        "latents" if (main["features"] == "latents").any() else next(iter(main["features"]), "")
    )
    main = main[main["features"] == features]
    if main.empty or main["prediction"].isna().any():
        return UNTRAINED
    name = "tau" if kind == "ridge" else "balanced_accuracy"
    return (
        f"{features} features, {name.replace('_', ' ')}"
        f" {probe_statistics(main, kind)[name]:.3f} held out"
    )
