"""Comparisons of a probe: permuted labels, untrained probes, and regressions on covariates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.linalg import cho_factor, cho_solve
from scipy.special import expit
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.preprocessing import StandardScaler

from lfp.probing.data import ProbeData
from lfp.probing.fitting import CommonScale
from lfp.probing.probes import draw_statistics
from lfp.probing.splits import fold_indices, parts
from lfp.settings import Probes

# --------------------------------------------------------------------------------- permuted labels


def permuted_truth(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Truths [row, draw] permuted among the distinct words (or answers).

    Each word gets a random label; the marginal distribution stays.
    """
    words, first, codes = np.unique(rows["word"].to_numpy(), return_index=True, return_inverse=True)
    truth = rows["truth"].to_numpy(dtype=float)[first]
    return np.stack([truth[rng.permutation(len(words))] for _ in range(draws)], 1)[codes]


def logistic_scores(
    x: np.ndarray, labels: np.ndarray, strength: float, held_out: np.ndarray
) -> np.ndarray:
    """Log-odds [row, draw] on `held_out` of logistic probes of many `labels`.

    All probes read the same `x`; `labels` are [row, draw].

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
    settings: Probes,
    seed: int,
) -> list[dict[str, float]]:
    """The statistics of probes on meaningless labels, a row per draw of :func:`permuted_truth`.

    The probe is refitted on every draw at the strength that each fold chose for the true labels and
    is judged against the drawn ones. It is both the null of the label shuffle and the control task
    of Hewitt and Liang (2019): above chance it has learned words by heart.

    Parameters
    ----------
    data
        Features, targets and descriptions of the rows.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    strengths
        The strength (alpha or C) of each fold, as :func:`~lfp.probing.fitting.out_of_fold` chose
        it.
    settings
        Its ``folds``, and ``label_shuffles``, the number of draws.
    seed
        Seed of the folds and of the permutations.
    """
    truth = permuted_truth(data.rows, settings.label_shuffles, np.random.default_rng(seed))
    target = np.sign(truth) * np.abs(data.target)[:, None] if kind == "ridge" else truth
    prediction = np.empty_like(truth)
    folds = fold_indices(data.rows, split, settings.folds, seed)
    for (train, test), strength in zip(folds, strengths, strict=True):
        scale = CommonScale().fit(data.features[train])
        x, held_out = scale.transform(data.features[train]), scale.transform(data.features[test])
        if kind == "ridge":
            prediction[test] = Ridge(alpha=strength).fit(x, target[train]).predict(held_out)
        else:
            prediction[test] = logistic_scores(x, target[train], strength, held_out)
    return draw_statistics(data.rows, truth, prediction, kind)


# -------------------------------------------------------------------------------- untrained probes


def xavier_predictions(features: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """Outputs [draw, row] of untrained linear probes (the paper's baseline).

    Weights are Xavier-uniform, and there is no bias.
    """
    width = features.shape[1]
    bound = np.sqrt(6.0 / (width + 1))
    weights = np.random.default_rng(seed).uniform(-bound, bound, (draws, width))
    return weights @ features.T.astype(np.float64)


def baseline_statistics(
    data: ProbeData, kind: str, draws: int, seed: int
) -> list[dict[str, float]]:
    """The statistics of every untrained probe."""
    outputs = xavier_predictions(data.features, draws, seed)
    truth = np.tile(data.rows["truth"].to_numpy()[:, None], (1, draws))
    return draw_statistics(data.rows, truth, outputs.T, kind)


# -------------------------------------------------------------------------------------- covariates


def nested_predictions(
    covariates: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    groups: np.ndarray,
    folds: int,
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out predictions of `truth` from covariates, without and with a probe.

    They are ridge regressions, tuned inside the training part; the probe adds its part beyond the
    covariates, which are partialled out of both (Frisch and Waugh 1933).

    Parameters
    ----------
    covariates
        [unit, covariate].
    prediction
        [unit], a probe's predictions, which must be out of fold themselves.
    truth
        [unit], the valence or the label.
    groups
        [unit], labels of which no two folds share one.
    folds
        Number of folds.
    seed
        Seed of the folds.

    Returns
    -------
    tuple of numpy.ndarray
        Predictions [unit] without and with the probe.
    """
    alone, full = np.empty(len(truth)), np.empty(len(truth))
    part = parts(pd.Series(groups), folds, seed)
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
    """Gain by a probe's predictions beyond the log frequency and the static embedding of words.

    Parameters
    ----------
    predictions
        Out-of-fold predictions, a row per element, with ``unit``, ``word``, ``truth`` and
        ``prediction``.
    frequency
        [row], log training frequency.
    embedding
        [row, d_model], static input embedding.
    folds
        Number of folds.
    seed
        Seed of the folds.

    Returns
    -------
    pandas.DataFrame
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
