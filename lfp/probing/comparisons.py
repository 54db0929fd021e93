"""Comparisons of a probe: its test parts, permuted labels, untrained probes, covariates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.linear_model import RidgeCV
from sklearn.preprocessing import StandardScaler

from lfp.probing.data import ProbeData
from lfp.probing.fitting import Fold, HeldOut, counted, fold_scores, partitioned, partitions_of
from lfp.probing.probes import MAIN_SPLIT, draw_statistics
from lfp.probing.splits import SPLITS, fold_indices
from lfp.settings import Probes

# ------------------------------------------------------------------- test parts and permuted labels


def permuted_truth(rows: pd.DataFrame, draws: int, rng: np.random.Generator) -> np.ndarray:
    """Truths [row, draw] permuted among the distinct words (or answers).

    Each word gets a random label; the marginal distribution stays.
    """
    words, first, codes = np.unique(rows["word"].to_numpy(), return_index=True, return_inverse=True)
    truth = rows["truth"].to_numpy(dtype=float)[first]
    return np.stack([truth[rng.permutation(len(words))] for _ in range(draws)], 1)[codes]


def parts_frame(data: ProbeData, held_out: HeldOut, kind: str, split: str) -> pd.DataFrame:
    """The statistics of a probe on every test part, a row each.

    ``draw`` is 0, which means the true labels; ``ratio`` is the number of tested over that of
    training units, those that the split cuts into folds.
    """
    truth = data.rows["truth"].to_numpy(dtype=float)[:, None]
    scores = [of_fold[:, None] for of_fold in held_out.scores]
    return _parts(data.rows, held_out.folds, truth, scores, kind, split).assign(draw=0)


def refitted_frame(
    data: ProbeData, kind: str, split: str, features: str, settings: Probes, seed: int
) -> pd.DataFrame:
    """The statistics of probes on meaningless labels, a row for every test part and draw.

    The whole procedure, the choice of the strength included, is refitted on every draw of
    :func:`permuted_truth` in the first partitions and judged against the drawn labels. It is both
    the null of the label shuffle and the control task of Hewitt and Liang (2019): above chance it
    has learned words by heart. All probes of a cell are refitted on the same draws, so that their
    differences are paired.

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
        Its partitions and folds, and ``label_shuffles``, the number of draws.
    seed
        Seed of the partitions and of the permutations.
    """
    truth = permuted_truth(data.rows, settings.label_shuffles, np.random.default_rng(seed))
    targets = np.sign(truth) * np.abs(data.target)[:, None] if kind == "ridge" else truth
    targets = targets.astype(np.float32)  # hundreds of probes, of which only the spread is read
    partitions = min(settings.shuffled_partitions, partitions_of(kind, split, settings))
    data, folds = counted(data, features), partitioned(data.rows, split, settings, seed, partitions)
    scores = [fold_scores(data, fold, targets, kind, features, settings)[0] for fold in folds]
    frame = _parts(data.rows, folds, truth, scores, kind, split)
    return frame.assign(draw=np.tile(np.arange(1, truth.shape[1] + 1), len(folds)))


def _parts(
    rows: pd.DataFrame,
    folds: Sequence[Fold],
    truth: np.ndarray,
    scores: Sequence[np.ndarray],
    kind: str,
    split: str,
) -> pd.DataFrame:
    """The statistics of every fold's test part, a row for every column of `truth`, folds in order.

    Parameters
    ----------
    rows
        Descriptions of the rows.
    folds
        Training and test rows.
    truth
        [row, draw].
    scores
        Predictions [test row, draw] of every fold.
    kind
        ``ridge`` or ``logistic``.
    split
        One of :data:`~lfp.probing.splits.SPLITS`.
    """
    cut, parts = pd.factorize(rows[SPLITS[split].cut])[0], []
    for fold, of_fold in zip(folds, scores, strict=True):
        ratio = len(np.unique(cut[fold.test])) / len(np.unique(cut[fold.train]))
        place = {"partition": fold.partition, "fold": fold.number, "ratio": ratio}
        statistics = draw_statistics(rows.iloc[fold.test], truth[fold.test], of_fold, kind)
        parts.append(
            {name: np.full(truth.shape[1], value) for name, value in place.items()}
            | {name: values.astype(np.float32) for name, values in statistics.items()}
        )
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


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
    """The statistics of every untrained probe, all rows together."""
    outputs = xavier_predictions(data.features, draws, seed)
    truth = np.tile(data.rows["truth"].to_numpy()[:, None], (1, draws))
    statistics = draw_statistics(data.rows, truth, outputs.T, kind)
    return pd.DataFrame(statistics).dropna(axis="columns").to_dict("records")


# -------------------------------------------------------------------------------------- covariates


def nested_predictions(
    covariates: np.ndarray,
    prediction: np.ndarray,
    truth: np.ndarray,
    folds: Sequence[tuple[np.ndarray, np.ndarray]],
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
    folds
        (train, test) units of every fold (:func:`~lfp.probing.splits.fold_indices`).

    Returns
    -------
    tuple of numpy.ndarray
        Predictions [unit] without and with the probe.
    """
    alone, full = np.empty(len(truth)), np.empty(len(truth))
    alphas = np.logspace(-1, 4, 11)
    for train, test in folds:
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
    predictions: pd.DataFrame,
    frequency: np.ndarray,
    embedding: np.ndarray,
    kind: str,
    folds: int,
    seed: int,
) -> pd.DataFrame:
    """Gain by a probe's predictions beyond the log frequency and the static embedding of words.

    Folds are those of the kind's main split: an answer that stands behind several prompts brings
    its embedding and its label along, so that training leaves it out where it is tested. Words have
    been averaged over their contexts and share none.

    Parameters
    ----------
    predictions
        Out-of-fold predictions, a row per element, with ``unit``, ``word``, ``truth`` and
        ``prediction``.
    frequency
        [row], log training frequency.
    embedding
        [row, d_model], static input embedding.
    kind
        ``ridge`` or ``logistic``.
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
    rows = means.reset_index().assign(context=lambda of_unit: of_unit["unit"])
    truth, prediction = rows["truth"].to_numpy(), rows["prediction"].to_numpy()
    of_split = fold_indices(rows, MAIN_SPLIT[kind], folds, seed)
    without, with_probe = nested_predictions(covariates, prediction, truth, of_split)
    return rows[["unit", "truth"]].assign(without=without, with_probe=with_probe)
