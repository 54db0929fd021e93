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
from lfp.probing.splits import SPLITS
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
        statistics = draw_statistics(rows.iloc[fold.test], truth[fold.test], of_fold, kind)
        parts.append(
            {name: np.full(truth.shape[1], value) for name, value in _place(fold, cut).items()}
            | {name: values.astype(np.float32) for name, values in statistics.items()}
        )
    return pd.DataFrame({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _place(fold: Fold, cut: np.ndarray) -> dict[str, float]:
    """Partition and number of a fold, and the number of tested over that of training values.

    `cut` [row] has the values that the split cuts into folds.
    """
    ratio = len(np.unique(cut[fold.test])) / len(np.unique(cut[fold.train]))
    return {"partition": fold.partition, "fold": fold.number, "ratio": ratio}


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
    train: np.ndarray,
    test: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Predictions of the `truth` of held-out units from covariates, without and with a probe.

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
    train, test
        Indices of the units that are learned from and held out.

    Returns
    -------
    tuple of numpy.ndarray
        Predictions [test unit] without and with the probe.
    """
    scale = StandardScaler().fit(covariates[train])
    known, held_out = scale.transform(covariates[train]), scale.transform(covariates[test])
    targets = np.column_stack([truth, prediction])
    explained = RidgeCV(np.logspace(-1, 4, 11), alpha_per_target=True).fit(known, targets[train])
    of_truth, of_probe = (targets[train] - explained.predict(known)).T
    slope = of_probe @ of_truth / max(of_probe @ of_probe, 1e-12)
    alone, expected = explained.predict(held_out).T
    return alone, alone + slope * (prediction[test] - expected)


def nested_frame(
    data: ProbeData,
    held_out: HeldOut,
    frequency: np.ndarray,
    embedding: np.ndarray,
    kind: str,
) -> pd.DataFrame:
    """Gain by a probe's predictions beyond the log frequency and the static embedding of words.

    Test parts are those of the probe on its kind's main split, in every partition with the probe's
    predictions in that partition: an answer that stands behind several prompts brings its embedding
    and its label along, so that training leaves it out where it is tested. Rows of one word are
    averaged first.

    Parameters
    ----------
    data
        Descriptions of the rows, with ``unit``, ``word`` and ``truth``.
    held_out
        The probe's predictions on the main split.
    frequency
        [row], log training frequency.
    embedding
        [row, d_model], static input embedding.
    kind
        ``ridge`` or ``logistic``.

    Returns
    -------
    pandas.DataFrame
        One row per test part: the ``unit``, word or prompt, and their number ``n`` in all parts;
        ``partition``, ``fold`` and ``ratio`` as in :func:`parts_frame`; R² of the words or answers
        of the part without (``r2_without``) and with the probe's predictions (``r2_with_probe``).
    """
    of_unit = data.rows.groupby(["unit", "word"]).ngroup().to_numpy()
    covariates = _by_unit(np.column_stack([frequency, embedding]), of_unit)
    truth = _by_unit(data.rows["truth"].to_numpy(dtype=float), of_unit)
    predictions = [_by_unit(values, of_unit) for values in held_out.by_partition]
    cut = pd.factorize(data.rows[SPLITS[MAIN_SPLIT[kind]].cut])[0]
    shown = {"unit": "word" if kind == "ridge" else "prompt", "n": data.rows["unit"].nunique()}
    parts = []
    for fold in held_out.folds:
        train, test = np.unique(of_unit[fold.train]), np.unique(of_unit[fold.test])
        without, with_probe = nested_predictions(
            covariates, predictions[fold.partition], truth, train, test
        )
        r2 = {
            "r2_without": _r2(without, truth[test]),
            "r2_with_probe": _r2(with_probe, truth[test]),
        }
        parts.append(shown | _place(fold, cut) | r2)
    return pd.DataFrame(parts)


def _by_unit(values: np.ndarray, of_unit: np.ndarray) -> np.ndarray:
    """Means [unit, ...] of `values` [row, ...] over the rows of every unit."""
    return pd.DataFrame(values).groupby(of_unit).mean().to_numpy().reshape(-1, *values.shape[1:])


def _r2(prediction: np.ndarray, truth: np.ndarray) -> float:
    """Share of the variance of `truth` that is predicted; missing where it does not vary."""
    spread = np.sum((truth - truth.mean()) ** 2)
    return float(1 - np.sum((truth - prediction) ** 2) / spread) if spread else float("nan")
